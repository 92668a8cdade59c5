"""Layers of denoising-diffusion-pytorch that no other network here has: its norm, its two attentions, its time embeddings.

Names and shapes of parameters are the original's (github.com/lucidrains/denoising-diffusion-pytorch, as of version 2.0, 2024).

Notation: B images, C channels, T = H W pixels, h heads of d numbers, m learned keys and values per head.
"""

import math

import numpy as np

from hcrot import init
from hcrot.kernels.attention import attention, attention_backward
from hcrot.kernels.im2col import channels_first, channels_last
from hcrot.layers.activation import Softmax
from hcrot.layers.attention import attention_map, images, tokens
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.embedding import check_timesteps
from hcrot.module import Module, Parameter, Sequential, check_gradient

__all__ = ["Attention", "LinearAttention", "RMSNorm", "RandomOrLearnedSinusoidalPosEmb", "SinusoidalPosEmb"]

SMALLEST = 1e-12
"""The least length that a pixel is divided by, as in ``torch.nn.functional.normalize``."""


class RMSNorm(Module):
    """Give the C numbers of each pixel length sqrt(C), then scale each channel (Zhang & Sennrich 2019, with no eps in the mean).

        xhat = x / max(|x|, 1e-12),   y = sqrt(C) g xhat          |x| over the channels of one pixel

    Backward: ``dg = sqrt(C) sum dy xhat``; with ``q = sqrt(C) g dy``, ``dx = (q - xhat sum_c q xhat) / |x|``, where |x| is not too small.
    What is kept is x. :class:`hcrot.RMSNorm` is PyTorch's, over trailing axes.

    Args:
        dim: C.

    Shapes:
        x (B, C, H, W) -> y, the same. ``g`` (1, C, 1, 1), 1 at first.

    Raises:
        ValueError: dim below 1; in forward, an x that is no (B, C, H, W), of another dtype or empty.
    """

    def __init__(self, dim: int):
        (self.dim,) = init.check_positive("RMSNorm", dim=dim)
        self.g = Parameter(np.ones((1, self.dim, 1, 1), np.float32))

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_images("RMSNorm", x, self.dim, self.g.data.dtype)
        self.save(x)
        pixels = channels_last(x)
        return channels_first(pixels / self.lengths(pixels) * self.factors())

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        check_gradient("RMSNorm", dout, x.shape, x.dtype)
        pixels, dy = channels_last(x), channels_last(dout)
        lengths = self.lengths(pixels)
        xhat = pixels / lengths
        if self.g.trainable:
            self.g.grad += math.sqrt(self.dim) * np.einsum("bhwc,bhwc->c", dy, xhat)[None, :, None, None]
        q = dy * self.factors()
        inner = np.einsum("bhwc,bhwc->bhw", q, xhat)[..., None]
        return channels_first((q - xhat * np.where(lengths > SMALLEST, inner, 0)) / lengths)

    def lengths(self, pixels: np.ndarray) -> np.ndarray:
        """(B, H, W, C) -> (B, H, W, 1)"""
        return np.maximum(np.sqrt(np.einsum("bhwc,bhwc->bhw", pixels, pixels)), pixels.dtype.type(SMALLEST))[..., None]

    def factors(self) -> np.ndarray:
        """sqrt(C) g, (C,)."""
        return math.sqrt(self.dim) * self.g.data.reshape(-1)

    def describe(self) -> str:
        return str(self.dim)


class Attention(Module):
    """Every pixel attends to every pixel, and to m learned keys and values besides; heads and their width are free.

        q, k, v = to_qkv(norm(x)),    k, v = [mem_kv, (k, v)],    y = to_out(softmax(q k^T / sqrt(d)) v)

    Backward: the same lines in reverse. x is not added to the result: the network does that. What is kept is q, k, v and one number per
    pixel and head.

    Args:
        dim: C.
        heads, dim_head: h and d.
        num_mem_kv: m.
        generator: source of initial values; mem_kv from N(0, 1).

    Shapes:
        x (B, C, H, W) -> y, the same. ``norm.g``; ``mem_kv`` (2, h, m, d); ``to_qkv.weight`` (3 h d, C, 1, 1); ``to_out.weight``
        (C, h d, 1, 1), ``to_out.bias`` (C,).

    Raises:
        ValueError: a size below 1; in forward, an x that is no (B, C, H, W), of another dtype or empty.
    """

    def __init__(
        self, dim: int, heads: int = 4, dim_head: int = 32, num_mem_kv: int = 4, *, generator: np.random.Generator | int | None = None
    ):
        sizes = init.check_positive("Attention", dim=dim, heads=heads, dim_head=dim_head, num_mem_kv=num_mem_kv)
        self.dim, self.heads, self.dim_head, self.num_mem_kv = sizes
        generator, inner = init.default_generator("Attention", generator), self.heads * self.dim_head
        self.norm = RMSNorm(dim)
        self.mem_kv = Parameter(generator.standard_normal((2, self.heads, self.num_mem_kv, self.dim_head), np.float32))
        self.to_qkv = Conv2d(dim, 3 * inner, 1, bias=False, generator=generator)
        self.to_out = Conv2d(inner, dim, 1, generator=generator)

    def forward(self, x: np.ndarray) -> np.ndarray:
        t = tokens(self.to_qkv(self.norm(x)))
        q, k, v = np.split(t, 3, axis=2)
        # (2, h, m, d) -> (2, m, h d), for every image
        memory = self.mem_kv.data.swapaxes(1, 2).reshape(2, 1, self.num_mem_kv, -1).repeat(len(x), axis=1)
        k, v = np.concatenate([memory[0], k], axis=1), np.concatenate([memory[1], v], axis=1)
        o, logsum = attention(q, k, v, self.heads)
        self.save(q, k, v, logsum, x.shape)
        return self.to_out(images(o, x.shape))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        q, k, v, logsum, shape = self.saved()
        check_gradient("Attention", dout, shape, q.dtype)
        do = tokens(self.to_out.backward(dout))
        dq, dk, dv = attention_backward(do, q, k, v, logsum, self.heads)
        m = self.num_mem_kv
        for index, gradient in enumerate((dk, dv) if self.mem_kv.trainable else ()):
            self.mem_kv.grad[index] += gradient[:, :m].sum(axis=0).reshape(m, self.heads, -1).swapaxes(0, 1)
        dt = np.concatenate([dq, dk[:, m:], dv[:, m:]], axis=2)
        return self.norm.backward(self.to_qkv.backward(images(dt, shape)))

    def multiplications(self, y: np.ndarray, x: np.ndarray) -> int:
        """Multiply-adds of a forward without the layers inside, for :func:`hcrot.summary`: T (m + T) h d for each product and image."""
        pixels = x.shape[2] * x.shape[3]
        return 2 * len(x) * pixels * (self.num_mem_kv + pixels) * self.heads * self.dim_head

    def attention_map(self, q: np.ndarray, k: np.ndarray, *others: object) -> np.ndarray:
        """The softmax, for :func:`hcrot.watch`, of what forward saves; the first m keys are the learned ones."""
        return attention_map(q, k, self.heads)

    def describe(self) -> str:
        return f"{self.dim}, heads={self.heads}, dim_head={self.dim_head}, num_mem_kv={self.num_mem_kv}"


class LinearAttention(Module):
    """Attention at a cost that grows with T, not T^2: keys and values are first summed up to a d x d matrix (Shen et al. 2021).

        q, k, v = to_qkv(norm(x)),    k, v = [mem_kv, (k, v)]
        Q = softmax of q over d,   K = softmax of k over the pixels,    context = K^T v,    o = Q context / sqrt(d),    y = to_out(o)

    where to_out is a 1x1 convolution and another norm. Backward, head by head, from do (already divided by sqrt(d)):

        dQ = do context^T,    dcontext = Q^T do,    dK = v dcontext^T,    dv = K dcontext,    then softmax's

    x is not added to the result: the network does that. What is kept is Q, K, v and context.

    Args:
        dim: C.
        heads, dim_head: h and d.
        num_mem_kv: m.
        generator: source of initial values; mem_kv from N(0, 1).

    Shapes:
        x (B, C, H, W) -> y, the same. ``norm.g``; ``mem_kv`` (2, h, d, m); ``to_qkv.weight`` (3 h d, C, 1, 1); ``to_out.0.weight``
        (C, h d, 1, 1), ``to_out.0.bias`` (C,); ``to_out.1.g``.

    Raises:
        ValueError: a size below 1; in forward, an x that is no (B, C, H, W), of another dtype or empty.
    """

    def __init__(
        self, dim: int, heads: int = 4, dim_head: int = 32, num_mem_kv: int = 4, *, generator: np.random.Generator | int | None = None
    ):
        sizes = init.check_positive("LinearAttention", dim=dim, heads=heads, dim_head=dim_head, num_mem_kv=num_mem_kv)
        self.dim, self.heads, self.dim_head, self.num_mem_kv = sizes
        generator, inner = init.default_generator("LinearAttention", generator), self.heads * self.dim_head
        self.norm = RMSNorm(dim)
        self.mem_kv = Parameter(generator.standard_normal((2, self.heads, self.dim_head, self.num_mem_kv), np.float32))
        self.to_qkv = Conv2d(dim, 3 * inner, 1, bias=False, generator=generator)
        self.softmax_q, self.softmax_k = Softmax(-1), Softmax(-2)
        self.to_out = Sequential(Conv2d(inner, dim, 1, generator=generator), RMSNorm(dim))

    def forward(self, x: np.ndarray) -> np.ndarray:
        q, k, v = self.by_head(self.to_qkv(self.norm(x)), 3)  # (B, h, T, d) each
        memory = self.mem_kv.data.swapaxes(2, 3)[:, None].repeat(len(x), axis=1)  # (2, B, h, m, d)
        k, v = np.concatenate([memory[0], k], axis=2), np.concatenate([memory[1], v], axis=2)
        q, k = self.softmax_q(q), self.softmax_k(k)
        context = k.swapaxes(2, 3) @ v
        self.save(q, k, v, context, x.shape)
        return self.to_out(self.join([q @ context / math.sqrt(self.dim_head)], x.shape))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        q, k, v, context, shape = self.saved()
        check_gradient("LinearAttention", dout, shape, q.dtype)
        (do,) = self.by_head(self.to_out.backward(dout), 1)
        do = do / math.sqrt(self.dim_head)
        dcontext = q.swapaxes(2, 3) @ do
        dk, dv = self.softmax_k.backward(v @ dcontext.swapaxes(2, 3)), k @ dcontext
        dq = self.softmax_q.backward(do @ context.swapaxes(2, 3))
        m = self.num_mem_kv
        for index, gradient in enumerate((dk, dv) if self.mem_kv.trainable else ()):
            self.mem_kv.grad[index] += gradient[:, :, :m].sum(axis=0).swapaxes(1, 2)
        return self.norm.backward(self.to_qkv.backward(self.join([dq, dk[:, :, m:], dv[:, :, m:]], shape)))

    def by_head(self, x: np.ndarray, parts: int) -> np.ndarray:
        """(B, parts h d, H, W) -> (parts, B, h, T, d), a new array."""
        t = tokens(x).reshape(len(x), -1, parts, self.heads, self.dim_head)
        return np.ascontiguousarray(t.transpose(2, 0, 3, 1, 4))

    def join(self, parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        """The way back: arrays (B, h, T, d) side by side as channels of images; ``shape`` tells H and W."""
        t = np.concatenate([part.swapaxes(1, 2).reshape(shape[0], -1, self.heads * self.dim_head) for part in parts], axis=2)
        return images(t, shape)

    def multiplications(self, y: np.ndarray, x: np.ndarray) -> int:
        """Multiply-adds of a forward without the layers inside, for :func:`hcrot.summary`: (m + T) h d d for context, T h d d for o."""
        return len(x) * (self.num_mem_kv + 2 * x.shape[2] * x.shape[3]) * self.heads * self.dim_head**2

    def describe(self) -> str:
        return f"{self.dim}, heads={self.heads}, dim_head={self.dim_head}, num_mem_kv={self.num_mem_kv}"


class SinusoidalPosEmb(Module):
    """Sinusoids of geometrically falling frequency: ``y = [sin(t f), cos(t f)]`` with ``f_i = theta^(-i / (h - 1))``, ``h = dim // 2``.

    Nothing is learned, and there is no backward of its own: the time receives none.

    Args:
        dim: numbers of y, even and at least 4.
        theta: 1 over the lowest frequency.

    Shapes:
        time (B,) -> y (B, dim), of time's dtype.

    Raises:
        ValueError: an argument out of range; in forward, times that are not 1-D. TypeError: in forward, times that are no numbers.
    """

    def __init__(self, dim: int, theta: float = 10000):
        (self.dim,) = init.check_positive("SinusoidalPosEmb", dim=dim)
        if self.dim % 2 or self.dim < 4:
            raise ValueError(f"SinusoidalPosEmb: dim must be even and at least 4, got {dim}")
        if not init.is_real(theta) or not 0 < theta < np.inf:
            raise ValueError(f"SinusoidalPosEmb: theta must be a finite number above 0, got {theta!r}")
        self.theta = float(theta)

    def forward(self, time: np.ndarray) -> np.ndarray:
        time = check_timesteps("SinusoidalPosEmb", time)
        half = self.dim // 2
        dtype = time.dtype if time.dtype in (np.float32, np.float64) else np.dtype(np.float32)
        frequencies = np.exp(np.arange(half, dtype=dtype) * dtype.type(-math.log(self.theta) / (half - 1)))
        angles = time.astype(dtype)[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    def describe(self) -> str:
        return f"{self.dim}, theta={self.theta:g}"


class RandomOrLearnedSinusoidalPosEmb(Module):
    """``y = [t, sin(2 pi w t), cos(2 pi w t)]``, with frequencies w that are drawn and then learned, or drawn and kept.

    Backward: ``dw = sum_b 2 pi t (dsin cos(2 pi w t) - dcos sin(2 pi w t))``. The time receives no gradient: backward returns None. What is
    kept is t.

    Args:
        dim: numbers of sines and cosines together, even.
        is_random: whether w is not learned.
        generator: source of w, N(0, 1).

    Shapes:
        time (B,) -> y (B, dim + 1) of the dtype of ``weights`` (dim / 2,).

    Raises:
        ValueError: an odd dim; in forward, times that are not 1-D. TypeError: in forward, times that are no numbers.
    """

    def __init__(self, dim: int, is_random: bool = False, *, generator: np.random.Generator | int | None = None):
        (self.dim,) = init.check_positive("RandomOrLearnedSinusoidalPosEmb", dim=dim)
        if self.dim % 2:
            raise ValueError(f"RandomOrLearnedSinusoidalPosEmb: dim must be even, got {dim}")
        generator = init.default_generator("RandomOrLearnedSinusoidalPosEmb", generator)
        self.weights = Parameter(generator.standard_normal(self.dim // 2, np.float32), trainable=not is_random)

    def forward(self, time: np.ndarray) -> np.ndarray:
        t = check_timesteps("RandomOrLearnedSinusoidalPosEmb", time).astype(self.weights.data.dtype)[:, None]
        self.save(t)
        angles = self.angles(t)
        return np.concatenate([t, np.sin(angles), np.cos(angles)], axis=1)

    def backward(self, dout: np.ndarray) -> None:
        t = self.saved()
        check_gradient("RandomOrLearnedSinusoidalPosEmb", dout, (len(t), self.dim + 1), t.dtype)
        if not self.weights.trainable:
            return
        _, dsin, dcos = np.split(dout, [1, 1 + self.dim // 2], axis=1)
        angles = self.angles(t)
        self.weights.grad += (2 * math.pi * t * (dsin * np.cos(angles) - dcos * np.sin(angles))).sum(axis=0)

    def angles(self, t: np.ndarray) -> np.ndarray:
        """2 pi w t, multiplied in the original's order: in float32, angles of many turns are only as exact as their rounding."""
        return t * self.weights.data * 2 * math.pi

    def describe(self) -> str:
        return f"{self.dim}, is_random={self.weights.constant}"
