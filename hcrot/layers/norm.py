"""Normalisation: of groups of channels (with or without SiLU after it), and of the trailing axes."""

import math

import numpy as np

from hcrot import init
from hcrot.kernels.norm import SMALL_VARIANCE, group_norm, group_norm_backward, row_moments
from hcrot.layers.arguments import PLACE, without
from hcrot.module import Module, Parameter, check_gradient, check_term, describe_shape

__all__ = ["GroupNorm", "GroupNormSiLU", "LayerNorm"]


class GroupNorm(Module):
    """Give each group of channels of each image mean 0 and variance 1, then scale and shift each channel (Wu & He 2018).

        xhat = (x - mean) / sqrt(var + eps),   y = weight xhat + bias        mean and var over one group of one image, all its pixels

    Backward: ``dweight = sum dy xhat``, ``dbias = sum dy``, both over images and pixels; with ``g = weight dy``,
    ``dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps)``. What is kept is x, and mean and 1 / sqrt(var + eps) of each group.

    Numbers whose squares overflow, of 1e19 and more in float32, are normalised like any other (PyTorch gives 0). Infinity or NaN in a group
    makes all of it NaN.

    Where x also goes another way, the gradient that comes back on it can be given to backward as ``residual``: it is added to dx where that
    is written, which saves a pass through memory.

    Args:
        num_groups: G; with 1, LayerNorm over whole images; with C, instance normalisation.
        num_channels: C, a multiple of G.
        eps: added to the variance.
        affine: whether there are weight (1 at first) and bias (0 at first).
        bias: whether there is a bias, if affine.

    Shapes:
        x (B, C) or (B, C, ...) -> y of the same shape. ``weight``, ``bias`` (C,), or None.

    Raises:
        ValueError: G does not divide C, or a number is out of range; in forward, an x of another number of channels or dtype, or empty.

    Example:
        >>> x = np.array([[1, 3, 10, 30]], np.float32)
        >>> hcrot.GroupNorm(2, 4)(x).round(3)
        array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    silu = False

    @without(**PLACE)
    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, bias: bool = True):
        name = type(self).__name__
        num_groups, num_channels = init.check_positive(name, num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(f"{name}: num_channels {num_channels} is not divisible by num_groups {num_groups}")
        _check_eps(name, eps)
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, float(eps)
        self.weight = Parameter(np.ones(num_channels, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, np.float32)) if affine and bias else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        name = type(self).__name__
        if not isinstance(x, np.ndarray) or x.ndim < 2 or x.shape[1] != self.num_channels or x.size == 0:
            raise ValueError(f"{name}: expected an array of shape (batch, {self.num_channels}, ...), got {describe_shape(x)}")
        _check_dtype(name, x, self.weight)
        y, mean, rstd = group_norm(x, *self.scale_and_shift(x.dtype), self.num_groups, self.eps, self.silu)
        self.save(x, mean, rstd)
        return y

    def backward(self, dout: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        x, mean, rstd = self.saved()
        check_gradient(type(self).__name__, dout, x.shape, x.dtype)
        if residual is not None:
            check_term(f"{type(self).__name__}.backward: residual", residual, x.shape, x.dtype)
        dx, dweight, dbias = group_norm_backward(dout, x, mean, rstd, *self.scale_and_shift(x.dtype), self.silu, residual)
        if self.weight and self.weight.trainable:
            self.weight.grad += dweight
        if self.bias and self.bias.trainable:
            self.bias.grad += dbias
        return dx

    def scale_and_shift(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias, or, without, ones and zeros."""
        return (
            self.weight.data if self.weight else np.ones(self.num_channels, dtype),
            self.bias.data if self.bias else np.zeros(self.num_channels, dtype),
        )

    def describe(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.weight is not None}, bias={self.bias is not None}"


class GroupNormSiLU(GroupNorm):
    """:class:`GroupNorm` followed by SiLU, ``y = n sigmoid(n)`` with ``n = weight xhat + bias``, in the same pass through memory.

    Backward: ``dn = dy sigmoid(n) (1 + n (1 - sigmoid(n)))``, then as GroupNorm with dn for dy. n is computed again from x, so that no more
    is kept than by GroupNorm. Arguments, shapes, parameters and their names are GroupNorm's.

    Example:
        >>> hcrot.GroupNormSiLU(1, 2)(np.array([[1, 3]], np.float32)).round(3)             # SiLU of -1 and 1
        array([[-0.269,  0.731]], dtype=float32)
    """

    silu = True


class LayerNorm(Module):
    """Give the numbers along the trailing axes mean 0 and variance 1, then scale and shift each of them (Ba, Kiros & Hinton 2016).

        xhat = (x - mean) / sqrt(var + eps),   y = weight xhat + bias

    Backward: ``dweight = sum dy xhat``, ``dbias = sum dy``, both over the leading axes; with ``g = weight dy``,
    ``dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps)``, means over the trailing axes. What is kept is xhat, and
    1 / sqrt(var + eps) of each row. As in GroupNorm, numbers whose squares overflow are normalised like any other.

    Args:
        normalized_shape: sizes of the trailing axes, an int for one.
        eps: added to the variance.
        elementwise_affine: whether there are weight (1 at first) and bias (0 at first).
        bias: whether there is a bias, if elementwise_affine.

    Shapes:
        x (..., *normalized_shape) -> y of the same shape. ``weight``, ``bias`` of normalized_shape, or None.

    Raises:
        ValueError: a size or eps out of range; in forward, an x whose trailing axes are others, of another dtype, or empty.

    Example:
        >>> hcrot.LayerNorm(2)(np.array([[1, 3], [10, 30]], np.float32)).round(3)
        array([[-1.,  1.],
               [-1.,  1.]], dtype=float32)
    """

    @without(**PLACE)
    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True):
        shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        if not shape:
            raise ValueError("LayerNorm: normalized_shape must have at least one axis, got ()")
        shape = tuple(init.check_positive("LayerNorm", normalized_shape=size)[0] for size in shape)
        _check_eps("LayerNorm", eps)
        self.normalized_shape, self.eps = shape, float(eps)
        self.weight = Parameter(np.ones(shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        axes = len(self.normalized_shape)
        if not isinstance(x, np.ndarray) or x.shape[-axes:] != self.normalized_shape or x.size == 0:
            raise ValueError(f"LayerNorm: expected an array whose trailing axes are {self.normalized_shape}, got {describe_shape(x)}")
        _check_dtype("LayerNorm", x, self.weight)
        rows = x.reshape(-1, math.prod(self.normalized_shape))
        with np.errstate(over="ignore", invalid="ignore"):
            mean, variance = rows.mean(axis=1, keepdims=True), rows.var(axis=1, keepdims=True) + self.eps
        if variance.min() > SMALL_VARIANCE and variance.max() < np.inf:
            rstd = 1 / np.sqrt(variance)
        else:  # squares overflowed or vanished, or there are NaN
            mean, rstd = row_moments(rows, self.eps)
        xhat = (rows - mean) * rstd
        self.save(xhat, rstd, x.shape)
        # a copy, as y is the caller's, who may change it
        y = xhat.reshape(x.shape) * self.weight.data if self.weight else xhat.reshape(x.shape).copy()
        return y + self.bias.data if self.bias else y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        xhat, rstd, shape = self.saved()
        check_gradient("LayerNorm", dout, shape, xhat.dtype)
        dy = dout.reshape(xhat.shape)
        if self.bias and self.bias.trainable:
            self.bias.grad += dy.sum(axis=0).reshape(self.normalized_shape)
        if self.weight and self.weight.trainable:
            self.weight.grad += (dy * xhat).sum(axis=0).reshape(self.normalized_shape)
        if self.weight:
            dy = dy * self.weight.data.reshape(-1)
        dx = rstd * (dy - dy.mean(axis=1, keepdims=True) - xhat * (dy * xhat).mean(axis=1, keepdims=True))
        return dx.reshape(dout.shape)

    def describe(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}, bias={self.bias is not None}"


def _check_eps(name: str, eps: float) -> None:
    if not init.is_real(eps) or isinstance(eps, bool) or not 0 <= eps < np.inf:
        raise ValueError(f"{name}: eps must be a finite number of at least 0, got {eps!r}")


def _check_dtype(name: str, x: np.ndarray, weight: Parameter | None) -> None:
    if weight and x.dtype != weight.data.dtype:
        raise ValueError(f"{name}: expected a {weight.data.dtype} array, as the weight is, got {x.dtype}")
    if x.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: expected a float32 or float64 array, got {x.dtype}")
