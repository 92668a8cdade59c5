"""Layers that only regroup axes."""

import numpy as np

from hcrot.init import is_int
from hcrot.module import Module, check_gradient

__all__ = ["Flatten"]


class Flatten(Module):
    """Merge the axes from ``start_dim`` to ``end_dim``, both included, into one, the last running fastest, as ``torch.nn.Flatten``.

    Backward: the same numbers in the shape of x.

    Args:
        start_dim, end_dim: axes, counted from the end if negative; by default all but the batch.

    Shapes:
        x (..., S, ..., E, ...) -> y (..., S * ... * E, ...).

    Raises:
        TypeError: an axis is no int. ValueError: in forward, x has no such axis, or ``end_dim`` comes before ``start_dim``.

    Example:
        >>> hcrot.Flatten()(np.zeros((2, 3, 4, 5), np.float32)).shape
        (2, 60)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        for name, value in (("start_dim", start_dim), ("end_dim", end_dim)):
            if not is_int(value):
                raise TypeError(f"Flatten: {name} must be an int, got {value!r}")
        self.start_dim, self.end_dim = int(start_dim), int(end_dim)

    def forward(self, x: np.ndarray) -> np.ndarray:
        if not isinstance(x, np.ndarray):
            raise TypeError(f"Flatten: x must be an array, got {type(x).__name__}")
        start, end = (dim + x.ndim if dim < 0 else dim for dim in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < x.ndim:
            raise ValueError(f"Flatten: axes {self.start_dim} to {self.end_dim} do not exist, in this order, in shape {x.shape}")
        y = x.reshape(*x.shape[:start], np.prod(x.shape[start : end + 1], dtype=int), *x.shape[end + 1 :])
        self.save(x.shape, y.shape, x.dtype)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        shape, out_shape, dtype = self.saved()
        check_gradient("Flatten", dout, out_shape, dtype)
        return dout.reshape(shape)

    def describe(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
