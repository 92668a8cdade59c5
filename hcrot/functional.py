"""Parts without parameters for blocks of one's own: to join, split, add and sum image arrays, and attention, on all threads.

They are plain functions, so they keep nothing for a backward pass. The backward of each is another one of them, and a block's ``backward``
calls it. With c for what one multiplies outputs by, the gradient of ``<c, f(x)>`` is:

    forward                  backward
    y = concatenate(a, b)    da, db = split(dy, a.shape[1])
    a, b = split(x, width)   dx = concatenate(da, db)
    y = plus(a, b)           da = db = dy        (an array that two places receive gets plus(d1, d2) back)
    s = pixel_sums(x)        dx[b, c, h, w] = ds[b, c]
    y = x + s[:, :, None, None]    dx = dy, ds = pixel_sums(dy)
    o, l = attention(q, k, v)      dq, dk, dv = attention_backward(do, q, k, v, l)

NumPy has all of them, too, on one thread. Here is a block that uses a skip connection:

    class Skip(hcrot.Module):
        def __init__(self, channels):
            self.conv = hcrot.Conv2d(channels, channels, 3, padding=1)

        def forward(self, x):
            return concatenate(x, self.conv(x))

        def backward(self, dout):
            dx, dh = split(dout, dout.shape[1] // 2)
            return plus(dx, self.conv.backward(dh))
"""

import numpy as np

from hcrot.init import is_int
from hcrot.kernels import attention as attention_kernels
from hcrot.kernels import channels
from hcrot.module import describe_shape

__all__ = ["attention", "attention_backward", "concatenate", "pixel_sums", "plus", "split"]


def check_images(name: str, argument: str, x: np.ndarray) -> None:
    """Raise a ValueError that begins with ``name`` unless x is an image array (batch, channels, height, width) of floats, not empty."""
    if not isinstance(x, np.ndarray) or x.ndim != 4 or x.size == 0:
        raise ValueError(f"{name}: {argument} must be images of shape (batch, channels, height, width), got {describe_shape(x)}")
    if x.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: {argument} must be float32 or float64, got {x.dtype}")


def concatenate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two image arrays side by side along channels.

    Args:
        a, b: (batch, channels of each, height, width), float32 or float64, of the same dtype.

    Returns:
        (batch, channels of a + channels of b, height, width), in the same dtype; a new array whose memory is channels-last.

    Raises:
        ValueError: a or b is no image array, or they differ in dtype, batch, height or width.

    Example:
        >>> a, b = np.zeros((2, 3, 4, 4), np.float32), np.ones((2, 5, 4, 4), np.float32)
        >>> hcrot.functional.concatenate(a, b).shape
        (2, 8, 4, 4)
    """
    check_images("concatenate", "a", a)
    check_images("concatenate", "b", b)
    if a.dtype != b.dtype or a.shape[0] != b.shape[0] or a.shape[2:] != b.shape[2:]:
        raise ValueError(
            "concatenate: a and b must have the same dtype, batch, height and width, "
            f"got {a.dtype} of shape {a.shape} and {b.dtype} of shape {b.shape}"
        )
    return channels.concatenate(a, b)


def split(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``width`` channels, and the others: the inverse of :func:`concatenate`.

    Args:
        x: (batch, channels, height, width), float32 or float64.
        width: from 1 to channels - 1.

    Returns:
        two new arrays whose memory is channels-last, (batch, width, height, width of x) and (batch, channels - width, height, width of x).

    Raises:
        ValueError: x is no image array, or ``width`` leaves nothing on one side.
    """
    check_images("split", "x", x)
    if not is_int(width) or not 0 < width < x.shape[1]:
        raise ValueError(f"split: width must be an int from 1 to {x.shape[1] - 1}, for images with {x.shape[1]} channels, got {width!r}")
    return channels.split(x, int(width))


def plus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a + b`` for two image arrays of the same shape and dtype.

    Args:
        a, b: (batch, channels, height, width), float32 or float64. Nothing is broadcast.

    Returns:
        the sum, of the same shape and dtype; a new array whose memory is channels-last.

    Raises:
        ValueError: a or b is no image array, or they differ in shape or dtype.
    """
    check_images("plus", "a", a)
    check_images("plus", "b", b)
    if a.dtype != b.dtype or a.shape != b.shape:
        raise ValueError(f"plus: a and b must have the same shape and dtype, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    return channels.plus(a, b)


def pixel_sums(x: np.ndarray) -> np.ndarray:
    """``s[b, c] = sum over h, w of x[b, c, h, w]``: the backward of adding one number to all pixels of a channel.

    Args:
        x: (batch, channels, height, width), float32 or float64. The sums are taken in float64.

    Returns:
        (batch, channels), in x's dtype.

    Raises:
        ValueError: x is no image array.
    """
    check_images("pixel_sums", "x", x)
    return channels.pixel_sums(x)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``o = softmax(q k^T / sqrt(d)) v``, for each head of each image (Vaswani et al. 2017, eq. 1).

    PyTorch's ``scaled_dot_product_attention``. A block keeps q, k, v and l for its backward; the softmax, which is far larger, is
    computed again there.

    Args:
        q: (batch, heads, queries, d), float32 or float64. k, v: (batch, heads, keys, d) of the same dtype.

    Returns:
        o (batch, heads, queries, d), a new array, and l (batch, heads, queries), the logarithm of the softmax's denominators, both in the
        same dtype.

    Raises:
        ValueError: an array of another shape or dtype, or an empty one.
    """
    _check_heads("attention", q=q, k=k, v=v)
    o, logsum = attention_kernels.attention(_joined(q), _joined(k), _joined(v), q.shape[1])
    return _apart(o, q.shape[1]), logsum


def attention_backward(
    do: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, logsum: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of q, k and v, given that of o: with P the softmax, ``S = q k^T / sqrt(d)`` and row sums over the keys,

        dv = P^T do,    dP = do v^T,    dS = P (dP - sum of P dP),    dq = dS k / sqrt(d),    dk = dS^T q / sqrt(d)

    Args:
        do: (batch, heads, queries, d), the gradient of o.
        q, k, v: as :func:`attention` received them. logsum: l, as it returned it.

    Returns:
        new arrays of the shapes and dtype of q, k and v.

    Raises:
        ValueError: an array of another shape or dtype, or an empty one.
    """
    _check_heads("attention_backward", q=q, k=k, v=v)
    for name, array, shape in (("do", do, q.shape), ("logsum", logsum, q.shape[:3])):
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != q.dtype:
            got = f"{array.dtype} of {describe_shape(array)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"attention_backward: {name} must be {q.dtype} of shape {shape}, got {got}")
    gradients = attention_kernels.attention_backward(_joined(do), _joined(q), _joined(k), _joined(v), logsum, q.shape[1])
    dq, dk, dv = (_apart(gradient, q.shape[1]) for gradient in gradients)
    return dq, dk, dv


def _check_heads(name: str, **arrays: np.ndarray) -> None:
    """Raise a ValueError that begins with ``name`` unless these are q, k and v."""
    for argument, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.ndim != 4 or array.size == 0:
            raise ValueError(f"{name}: {argument} must have the shape (batch, heads, tokens, d), got {describe_shape(array)}")
        if array.dtype not in (np.float32, np.float64):
            raise ValueError(f"{name}: {argument} must be float32 or float64, got {array.dtype}")
    q, k, v = arrays.values()
    if k.shape != v.shape or (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]) or not q.dtype == k.dtype == v.dtype:
        got = ", ".join(f"{array.dtype} {array.shape}" for array in arrays.values())
        raise ValueError(f"{name}: q, k and v must have the same dtype, batch, heads and d, and k and v as many tokens, got {got}")


def _joined(x: np.ndarray) -> np.ndarray:
    """(B, h, T, d) -> (B, T, h d), where the kernels want the heads of a token side by side."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _apart(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, T, h d) -> a (B, h, T, d) view."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)
