"""Self-attention of the pixels of an image, with everything that diffusers puts around it."""

import math

import numpy as np

from hcrot import init
from hcrot.kernels.attention import attention, attention_backward
from hcrot.kernels.im2col import channels_first, channels_last
from hcrot.layers.conv import check_images
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm
from hcrot.module import Identity, Module, check_gradient

__all__ = ["Attention", "attention_map", "images", "tokens"]


class Attention(Module):
    """Let every pixel of an image take what it needs from every other (Vaswani et al. 2017), as diffusers' ``Attention`` in a UNet2DModel.

        t = group_norm(x) as T = H W tokens of C numbers
        q, k, v = to_q(t), to_k(t), to_v(t)              each of h heads of d numbers
        o = softmax(q k^T / sqrt(d)) v                   head by head
        y = (to_out(o) + x) / rescale_output_factor

    Backward runs the same lines in reverse; the gradients of q, k and v meet in t, and x gets dy besides if there is the residual
    connection. The softmax and its gradient are in ``kernels/attention.py``. What is kept is q, k, v and one number per token and head;
    the layers inside keep x, t and o.
    The bias of to_k has no effect, and a gradient of 0 but for rounding: added to all keys alike, it cancels in the softmax.

    Args:
        channels: C.
        dim_head: d, width of a head; None: C. There are ``h = C // d`` heads, unless ``heads`` says another number. Where d does not
            divide C, q, k and v are then only ``h d < C`` wide, as in diffusers.
        norm_num_groups: groups of the GroupNorm before all else; None: there is none.
        eps: of that GroupNorm.
        residual_connection: whether x is added to the result.
        rescale_output_factor: what the result, x included, is divided by.
        heads: h; with it, h d may be any width, larger than C or smaller. None: C // d.
        generator: source of initial values.

    Shapes:
        x (B, C, H, W) -> y (B, C, H, W). Parameters: ``group_norm.weight``, ``.bias`` (C,); ``to_q``, ``to_k`` and
        ``to_v``, ``.weight`` (h d, C), ``.bias`` (h d,); ``to_out.0.weight`` (C, h d), ``to_out.0.bias`` (C,).

    Raises:
        ValueError: a number out of range, a dim_head larger than C without heads, or norm_num_groups that do not divide C; in forward, an
            x that is not (B, C, H, W), of another dtype, or empty.

    Example:
        >>> layer = hcrot.Attention(8, dim_head=4, generator=0)
        >>> layer(np.zeros((2, 8, 5, 5), np.float32)).shape
        (2, 8, 5, 5)
    """

    def __init__(
        self,
        channels: int,
        dim_head: int | None = 8,
        norm_num_groups: int | None = None,
        eps: float = 1e-5,
        residual_connection: bool = True,
        rescale_output_factor: float = 1.0,
        *,
        heads: int | None = None,
        generator: np.random.Generator | int | None = None,
    ):
        dim_head = channels if dim_head is None else dim_head
        channels, dim_head = init.check_positive("Attention", channels=channels, dim_head=dim_head)
        if heads is None and dim_head > channels:
            raise ValueError(f"Attention: dim_head {dim_head} is larger than channels {channels}: not one head fits")
        (heads,) = init.check_positive("Attention", heads=channels // dim_head if heads is None else heads)
        if rescale_output_factor == 0:
            raise ValueError("Attention: rescale_output_factor must not be 0")
        generator = init.default_generator("Attention", generator)
        self.channels, self.dim_head, self.heads = channels, dim_head, heads
        self.residual_connection, self.rescale_output_factor = residual_connection, float(rescale_output_factor)
        inner = heads * dim_head
        self.group_norm = Identity() if norm_num_groups is None else GroupNorm(norm_num_groups, channels, eps)
        self.to_q = Linear(channels, inner, generator=generator)
        self.to_k = Linear(channels, inner, generator=generator)
        self.to_v = Linear(channels, inner, generator=generator)
        self.to_out = [Linear(inner, channels, generator=generator)]

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_images("Attention", x, self.channels, self.to_q.weight.data.dtype)
        t = tokens(self.group_norm(x))
        q, k, v = self.to_q(t), self.to_k(t), self.to_v(t)
        o, logsum = attention(q, k, v, self.heads)
        self.save(q, k, v, logsum, x.shape)
        y = images(self.to_out[0](o, residual=tokens(x) if self.residual_connection else None), x.shape)
        return y if self.rescale_output_factor == 1 else y / self.rescale_output_factor

    def backward(self, dout: np.ndarray) -> np.ndarray:
        q, k, v, logsum, shape = self.saved()
        check_gradient("Attention", dout, shape, q.dtype)
        dy = dout if self.rescale_output_factor == 1 else dout / self.rescale_output_factor
        do = self.to_out[0].backward(tokens(dy))
        dq, dk, dv = attention_backward(do, q, k, v, logsum, self.heads)
        dt = self.to_q.backward(dq, residual=self.to_k.backward(dk, residual=self.to_v.backward(dv)))
        return self.group_norm.backward(images(dt, dout.shape), residual=dy if self.residual_connection else None)

    def multiplications(self, y: np.ndarray, x: np.ndarray) -> int:
        """Multiply-adds of a forward without the layers inside, for :func:`hcrot.summary`: ``q k^T`` and P v, T T h d for each image."""
        return 2 * len(x) * (x.shape[2] * x.shape[3]) ** 2 * self.heads * self.dim_head

    def attention_map(self, q: np.ndarray, k: np.ndarray, *others: object) -> np.ndarray:
        """The softmax, for :func:`hcrot.watch`, of what forward saves."""
        return attention_map(q, k, self.heads)

    def describe(self) -> str:
        return (
            f"{self.channels}, heads={self.heads}, dim_head={self.dim_head}, residual_connection={self.residual_connection}, "
            f"rescale_output_factor={self.rescale_output_factor}"
        )


def attention_map(q: np.ndarray, k: np.ndarray, heads: int) -> np.ndarray:
    """``softmax(q k^T / sqrt(d))`` head by head, which the kernels never hold as a whole.

    Args:
        q, k: (B, T, h d) and (B, K, h d).
        heads: h.

    Returns:
        (B, h, T, K); each row adds up to 1.
    """
    q, k = (array.reshape(*array.shape[:2], heads, -1).swapaxes(1, 2) for array in (q, k))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3])
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    return weights / weights.sum(axis=3, keepdims=True)


def tokens(x: np.ndarray) -> np.ndarray:
    """(B, C, H, W) -> (B, H W, C): a view if memory is channels-last, else a copy."""
    return channels_last(x).reshape(x.shape[0], -1, x.shape[1])


def images(t: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(B, H W, C) -> a (B, C, H, W) view; ``shape`` tells H and W."""
    return channels_first(t.reshape(shape[0], *shape[2:], t.shape[2]))
