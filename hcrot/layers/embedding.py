"""Embeddings: of class labels by a table, of timesteps by sinusoids, of fixed or random frequency, and a small network.

Notation: B images, N entries of the table, D numbers per embedding, E width of the time embedding.
"""

import math

import numpy as np

from hcrot import init
from hcrot.layers.activation import SiLU
from hcrot.layers.arguments import PLACE, refuse, without
from hcrot.layers.linear import Linear
from hcrot.module import Module, Parameter, check_gradient

__all__ = ["Embedding", "GaussianFourierProjection", "TimestepEmbedding", "Timesteps", "check_timesteps"]


class Embedding(Module):
    """``y = weight[index]``: one learned row per index.

    Backward: ``dweight[n]`` is the sum of dout over all places where n was looked up. Indices have no gradient, so backward returns None.

    Args:
        num_embeddings: N.
        embedding_dim: D.
        padding_idx: an index whose row starts at zero and receives no gradient, counted from the end if negative.
        max_norm, norm_type, sparse: not supported; anything but PyTorch's default is refused.
        scale_grad_by_freq: whether the gradient that a row receives is divided by how often it was looked up, so that it is a mean
            and not the gradient of this forward.
        generator: source of the initial values, N(0, 1).

    Shapes:
        indices (...), any integer dtype, from 0 to N - 1 -> y (..., D) of the weight's dtype. ``weight`` (N, D).

    Raises:
        ValueError: an argument out of range; in forward, an index out of range. TypeError: in forward, indices that are no integers.

    Example:
        >>> hcrot.Embedding(10, 4, generator=0)(np.array([3, 1, 3])).shape
        (3, 4)
    """

    @without(**PLACE)
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        num_embeddings, embedding_dim = init.check_positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        refuse("Embedding", "a forward never changes the weight", max_norm=max_norm)
        refuse("Embedding", "it belongs to max_norm", norm_type=norm_type if norm_type != 2 else None)
        refuse("Embedding", "gradients are dense arrays", sparse=sparse)
        if padding_idx is not None:
            if not init.is_int(padding_idx) or padding_idx not in range(-num_embeddings, num_embeddings):
                raise ValueError(
                    f"Embedding: padding_idx must be None or an int from {-num_embeddings} to {num_embeddings - 1}, got {padding_idx!r}"
                )
            padding_idx = int(padding_idx) % num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.scale_grad_by_freq = bool(scale_grad_by_freq)
        weight = init.default_generator("Embedding", generator).standard_normal((num_embeddings, embedding_dim), np.float32)
        if padding_idx is not None:
            weight[padding_idx] = 0
        self.weight = Parameter(weight)

    def forward(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"Embedding: indices must be integers, got {indices.dtype}")
        outside = (indices < 0) | (indices >= self.num_embeddings)
        if outside.any():
            raise ValueError(f"Embedding: index {indices[outside][0]} is not from 0 to {self.num_embeddings - 1}")
        self.save(indices)
        return self.weight.data.take(indices, axis=0)

    def backward(self, dout: np.ndarray) -> None:
        indices = self.saved()
        check_gradient("Embedding", dout, (*indices.shape, self.embedding_dim), self.weight.data.dtype)
        if not self.weight.trainable:
            return
        if self.padding_idx is not None:
            real = indices != self.padding_idx
            indices, dout = indices[real], dout[real]
        if self.scale_grad_by_freq:
            dout = dout / np.bincount(indices.astype(np.intp).ravel(), minlength=1)[indices][..., None].astype(dout.dtype)
        # not grad[indices] += dout, which would count an index that occurs twice only once
        np.add.at(self.weight.grad, indices, dout)

    def describe(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        scaled = ", scale_grad_by_freq=True" if self.scale_grad_by_freq else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{scaled}"


class Timesteps(Module):
    """Sinusoids of geometrically falling frequency (Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B). Nothing is learned.

        y = [sin(t f_0), ..., sin(t f_(h-1)), cos(t f_0), ..., cos(t f_(h-1))],    f_i = 10000^(-i / (h - shift)),    h = D // 2

    An odd D gets a column of zeros at the end. There is no backward: a timestep is not learned from.

    Args:
        num_channels: D.
        flip_sin_to_cos: whether the cosines come first.
        downscale_freq_shift: shift in the formula, less than h; at 1 the lowest frequency is exactly 1/10000.

    Shapes:
        timesteps (B,), of any integer or floating-point dtype -> y (B, D).

    Raises:
        ValueError: an argument out of range; in forward, timesteps that are not 1-D. TypeError: in forward, timesteps that are no numbers,
            or another dtype.

    Example:
        >>> hcrot.Timesteps(4)(np.array([0, 1])).round(3)
        array([[1.   , 1.   , 0.   , 0.   ],
               [0.54 , 1.   , 0.841, 0.01 ]], dtype=float32)
    """

    def __init__(self, num_channels: int, flip_sin_to_cos: bool = True, downscale_freq_shift: float = 0):
        (num_channels,) = init.check_positive("Timesteps", num_channels=num_channels)
        if not downscale_freq_shift < num_channels // 2:
            raise ValueError(
                f"Timesteps: downscale_freq_shift {downscale_freq_shift!r} must be less than num_channels // 2 = {num_channels // 2}"
            )
        self.num_channels, self.flip_sin_to_cos, self.downscale_freq_shift = num_channels, flip_sin_to_cos, float(downscale_freq_shift)

    def forward(self, timesteps: np.ndarray, dtype: np.dtype | type = np.float32) -> np.ndarray:
        """``dtype``, float32 or float64, is that of the calculation and of y; in float32 the sinusoids of t = 1000 are exact to 1e-4."""
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"Timesteps: dtype must be float32 or float64, got {np.dtype(dtype)}")
        timesteps = check_timesteps("Timesteps", timesteps)
        half = self.num_channels // 2
        frequencies = np.exp(-math.log(10000) * np.arange(half, dtype=dtype) / (half - self.downscale_freq_shift))
        angles = timesteps.astype(dtype)[:, None] * frequencies
        waves = [np.cos(angles), np.sin(angles)] if self.flip_sin_to_cos else [np.sin(angles), np.cos(angles)]
        zeros = np.zeros((len(timesteps), self.num_channels % 2), dtype)
        return np.concatenate([*waves, zeros], axis=1)

    def describe(self) -> str:
        return f"{self.num_channels}, flip_sin_to_cos={self.flip_sin_to_cos}, downscale_freq_shift={self.downscale_freq_shift:g}"


class GaussianFourierProjection(Module):
    """Sinusoids of random frequency, of the logarithm of the time (Tancik et al. 2020; Song et al. 2021).

        y = [sin(a_0), ..., sin(a_(D-1)), cos(a_0), ..., cos(a_(D-1))],    a_i = 2 pi weight_i ln(t)

    The frequencies are drawn once and not learned: ``weight`` is a constant of the state. There is no backward. In float32, angles of
    hundreds of turns are exact to some 1e-4.

    Args:
        embedding_size: D.
        scale: standard deviation of the frequencies.
        generator: source of the frequencies, N(0, scale^2).

    Shapes:
        timesteps (B,), of any integer or floating-point dtype -> y (B, 2D) of the weight's dtype. ``weight`` (D,). A time of 0 or less has
        no logarithm: its row is NaN, as in diffusers.

    Raises:
        ValueError: an embedding_size below 1; in forward, timesteps that are not 1-D. TypeError: in forward, timesteps that are no numbers.

    Example:
        >>> y = hcrot.GaussianFourierProjection(3, generator=0)(np.array([0.5, 2.0]))
        >>> y.shape, (y[:, :3] ** 2 + y[:, 3:] ** 2).round(3)                              # sines, then their cosines
        ((2, 6), array([[1., 1., 1.],
               [1., 1., 1.]], dtype=float32))
    """

    def __init__(self, embedding_size: int, scale: float = 1.0, *, generator: np.random.Generator | int | None = None):
        (embedding_size,) = init.check_positive("GaussianFourierProjection", embedding_size=embedding_size)
        self.scale = float(scale)
        generator = init.default_generator("GaussianFourierProjection", generator)
        weight = np.float32(scale) * generator.standard_normal(embedding_size, np.float32)
        self.weight = Parameter(weight, trainable=False)

    def forward(self, timesteps: np.ndarray) -> np.ndarray:
        timesteps = check_timesteps("GaussianFourierProjection", timesteps)
        logarithms = np.log(timesteps, dtype=np.float64).astype(self.weight.data.dtype)
        angles = logarithms[:, None] * self.weight.data * 2 * np.pi
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    def describe(self) -> str:
        return f"{self.weight.data.size}, scale={self.scale:g}"


def check_timesteps(name: str, timesteps: np.ndarray) -> np.ndarray:
    """``timesteps`` as an array; an error that begins with ``name`` unless they are numbers and 1-D."""
    timesteps = np.asarray(timesteps)
    if timesteps.dtype.kind not in "iuf":
        raise TypeError(f"{name}: timesteps must be integers or floating-point numbers, got {timesteps.dtype}")
    if timesteps.ndim != 1:
        raise ValueError(f"{name}: timesteps must be of shape (batch,), got {timesteps.shape}")
    return timesteps


class TimestepEmbedding(Module):
    """``y = linear_2(silu(linear_1(x)))``: what the network makes of the sinusoids.

    Args:
        in_channels: D, width of the sinusoids.
        time_embed_dim: E.
        generator: source of initial values.

    Shapes:
        x (B, D) -> y (B, E). Parameters: ``linear_1.weight`` (E, D), ``linear_2.weight`` (E, E) and their biases (E,).

    Raises:
        ValueError: a size below 1; in forward, an x whose last axis is not D.

    Example:
        >>> layer = hcrot.TimestepEmbedding(4, 16)
        >>> layer(hcrot.Timesteps(4)(np.array([0, 500]))).shape, layer.num_parameters()    # 4 * 16 + 16 + 16 * 16 + 16
        ((2, 16), 352)
    """

    def __init__(self, in_channels: int, time_embed_dim: int, *, generator: np.random.Generator | int | None = None):
        generator = init.default_generator("TimestepEmbedding", generator)
        self.linear_1 = Linear(in_channels, time_embed_dim, generator=generator)
        self.act = SiLU()
        self.linear_2 = Linear(time_embed_dim, time_embed_dim, generator=generator)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.linear_2(self.act(self.linear_1(x)))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self.linear_1.backward(self.act.backward(self.linear_2.backward(dout)))
