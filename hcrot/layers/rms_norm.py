"""Normalisation by the root mean square alone: no mean is subtracted (Zhang & Sennrich 2019)."""

import math

import numpy as np

from hcrot import init
from hcrot.layers.arguments import PLACE, without
from hcrot.module import Module, Parameter, check_gradient, describe_shape

__all__ = ["RMSNorm"]


class RMSNorm(Module):
    """Divide the numbers along the trailing axes by their root mean square, then scale each of them, as ``torch.nn.RMSNorm``.

        xhat = r x   with   r = 1 / sqrt(mean(x^2) + eps),      y = weight xhat

    Backward: ``dweight = sum dy xhat`` over the leading axes; with ``g = weight dy``, ``dx = r (g - xhat mean(g xhat))``. That is
    LayerNorm's without the terms of the mean. What is kept is xhat and r. Squares are added up in float64, so those of float32 numbers
    never overflow.

    Args:
        normalized_shape: sizes of the trailing axes, an int for one.
        eps: added to the mean square; None: the machine epsilon of x's dtype, as in PyTorch.
        elementwise_affine: whether there is a weight (1 at first).

    Shapes:
        x (..., *normalized_shape) -> y of the same shape. ``weight`` of normalized_shape, or None.

    Raises:
        ValueError: a size or eps out of range; in forward, an x whose trailing axes are others, of another dtype, or empty.

    Example:
        >>> hcrot.RMSNorm(2)(np.array([[3, 4], [30, 40]], np.float32)).round(3)            # no mean is taken away
        array([[0.849, 1.131],
               [0.849, 1.131]], dtype=float32)
    """

    @without(**PLACE)
    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float | None = None, elementwise_affine: bool = True):
        shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        if not shape:
            raise ValueError("RMSNorm: normalized_shape must have at least one axis, got ()")
        shape = tuple(init.check_positive("RMSNorm", normalized_shape=size)[0] for size in shape)
        if eps is not None and (not init.is_real(eps) or isinstance(eps, bool) or not 0 <= eps < np.inf):
            raise ValueError(f"RMSNorm: eps must be None or a finite number of at least 0, got {eps!r}")
        self.normalized_shape, self.eps = shape, None if eps is None else float(eps)
        self.weight = Parameter(np.ones(shape, np.float32)) if elementwise_affine else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        axes = len(self.normalized_shape)
        if not isinstance(x, np.ndarray) or x.shape[-axes:] != self.normalized_shape or x.size == 0:
            raise ValueError(f"RMSNorm: expected an array whose trailing axes are {self.normalized_shape}, got {describe_shape(x)}")
        if self.weight and x.dtype != self.weight.data.dtype:
            raise ValueError(f"RMSNorm: expected a {self.weight.data.dtype} array, as the weight is, got {x.dtype}")
        if x.dtype not in (np.float32, np.float64):
            raise ValueError(f"RMSNorm: expected a float32 or float64 array, got {x.dtype}")
        rows = x.reshape(-1, math.prod(self.normalized_shape))
        eps = np.finfo(x.dtype).eps if self.eps is None else self.eps
        r = (1 / np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1, keepdims=True) + eps)).astype(x.dtype)
        xhat = rows * r
        self.save(xhat, r, x.shape)
        # a copy, as y is the caller's, who may change it
        return xhat.reshape(x.shape) * self.weight.data if self.weight else xhat.reshape(x.shape).copy()

    def backward(self, dout: np.ndarray) -> np.ndarray:
        xhat, r, shape = self.saved()
        check_gradient("RMSNorm", dout, shape, xhat.dtype)
        dy = dout.reshape(xhat.shape)
        if self.weight and self.weight.trainable:
            self.weight.grad += (dy * xhat).sum(axis=0).reshape(self.normalized_shape)
        if self.weight:
            dy = dy * self.weight.data.reshape(-1)
        dx = r * (dy - xhat * (dy * xhat).mean(axis=1, keepdims=True))
        return dx.reshape(shape)

    def describe(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"
