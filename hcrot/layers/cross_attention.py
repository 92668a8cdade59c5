"""Attention of one sequence, or of an image's pixels, to another sequence."""

import numpy as np

from hcrot import init
from hcrot.kernels.attention import attention, attention_backward
from hcrot.layers.attention import attention_map, images, tokens
from hcrot.layers.conv import check_images
from hcrot.layers.linear import Linear
from hcrot.module import Module, check_gradient, describe_shape

__all__ = ["CrossAttention"]


class CrossAttention(Module):
    """Let every token of x take what it needs from the tokens of a context: words, labels, another image (Vaswani et al. 2017, section
    3.2.3; Rombach et al. 2022, eq. 3).

        q = to_q(x),   k, v = to_k(context), to_v(context),   y = to_out(softmax(q k^T / sqrt(d)) v)          head by head

    Backward: the same lines in reverse. x gets the gradient of q, the context those of k and v, so there are two. x is not added to y. What
    is kept is q, k, v and one number per token and head; the layers inside keep x, the context and o.

    Args:
        channels: C, width of x's tokens.
        context_channels: D, width of the context's; None: C.
        heads, dim_head: h and d; h d need be neither C nor D.
        bias: whether to_q, to_k and to_v have a bias. to_out has one.
        generator: source of initial values.

    Shapes:
        x (B, T, C), or images (B, C, H, W) with T = H W pixels, context (B, K, D) -> y like x. ``backward(dy) -> dx, dcontext``.
        Parameters, with diffusers' names: ``to_q.weight`` (h d, C), ``to_k.weight`` and ``to_v.weight`` (h d, D), ``to_out.0.weight``
        (C, h d), ``to_out.0.bias`` (C,).

    Raises:
        ValueError: a size below 1; in forward, an x or context of another shape, dtype or batch, or empty.

    Example:
        >>> layer = hcrot.CrossAttention(8, context_channels=6, heads=2, dim_head=4)
        >>> layer(np.ones((2, 9, 8), np.float32), np.ones((2, 5, 6), np.float32)).shape    # 9 tokens ask 5
        (2, 9, 8)
        >>> [gradient.shape for gradient in layer.backward(np.ones((2, 9, 8), np.float32))]
        [(2, 9, 8), (2, 5, 6)]
    """

    def __init__(
        self,
        channels: int,
        context_channels: int | None = None,
        heads: int = 8,
        dim_head: int = 64,
        bias: bool = False,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        sizes = {"channels": channels, "context_channels": channels if context_channels is None else context_channels}
        sizes |= {"heads": heads, "dim_head": dim_head}
        self.channels, self.context_channels, self.heads, self.dim_head = init.check_positive("CrossAttention", **sizes)
        generator, inner = init.default_generator("CrossAttention", generator), self.heads * self.dim_head
        self.to_q = Linear(self.channels, inner, bias, generator=generator)
        self.to_k = Linear(self.context_channels, inner, bias, generator=generator)
        self.to_v = Linear(self.context_channels, inner, bias, generator=generator)
        self.to_out = [Linear(inner, self.channels, generator=generator)]

    def forward(self, x: np.ndarray, context: np.ndarray) -> np.ndarray:
        dtype = self.to_q.weight.data.dtype
        if getattr(x, "ndim", 0) == 4:
            check_images("CrossAttention: x", x, self.channels, dtype)
        else:
            check_sequence("x", x, self.channels, dtype)
        check_sequence("context", context, self.context_channels, dtype)
        if len(context) != len(x):
            raise ValueError(f"CrossAttention: context must have x's batch of {len(x)}, got {len(context)}")
        q, k, v = self.to_q(tokens(x) if x.ndim == 4 else x), self.to_k(context), self.to_v(context)
        o, logsum = attention(q, k, v, self.heads)
        self.save(q, k, v, logsum, x.shape)
        y = self.to_out[0](o)
        return images(y, x.shape) if x.ndim == 4 else y

    def backward(self, dout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q, k, v, logsum, shape = self.saved()
        check_gradient("CrossAttention", dout, shape, q.dtype)
        do = self.to_out[0].backward(tokens(dout) if len(shape) == 4 else dout)
        dq, dk, dv = attention_backward(do, q, k, v, logsum, self.heads)
        dcontext = self.to_k.backward(dk, residual=self.to_v.backward(dv))
        dx = self.to_q.backward(dq)
        return images(dx, shape) if len(shape) == 4 else dx, dcontext

    def multiplications(self, y: np.ndarray, x: np.ndarray, context: np.ndarray) -> int:
        """Multiply-adds of a forward without the layers inside, for :func:`hcrot.summary`: ``q k^T`` and P v, T K h d for each of B."""
        return 2 * x.size // self.channels * context.shape[1] * self.heads * self.dim_head

    def attention_map(self, q: np.ndarray, k: np.ndarray, *others: object) -> np.ndarray:
        """The softmax, for :func:`hcrot.watch`, of what forward saves."""
        return attention_map(q, k, self.heads)

    def describe(self) -> str:
        bias = self.to_q.bias is not None
        return f"{self.channels}, {self.context_channels}, heads={self.heads}, dim_head={self.dim_head}, bias={bias}"


def check_sequence(argument: str, x: np.ndarray, width: int, dtype: np.dtype) -> None:
    """Raise a ValueError that names the argument unless x is (batch, tokens, ``width``) of ``dtype``, not empty."""
    if not isinstance(x, np.ndarray) or x.ndim != 3 or x.shape[2] != width or x.size == 0:
        raise ValueError(f"CrossAttention: {argument} must be of shape (batch, tokens, {width}), got {describe_shape(x)}")
    if x.dtype != dtype:
        raise ValueError(f"CrossAttention: {argument} must be {dtype}, as the weights are, got {x.dtype}")
