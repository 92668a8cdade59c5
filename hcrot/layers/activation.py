"""Activation functions. All but softmax act on each number for itself and keep the memory order of what they get.

They are right for every x of both dtypes, the infinities included, where y and the slope dy/dx are the limits of their formulas. So SiLU,
GELU and Mish and their slopes are 0 at -infinity, where PyTorch gives NaN (its formulas multiply -infinity by 0). Measured against more
digits, y is wrong by at most 16 and the slope by at most 32 units in the last place of a number near max(1, |y|).

NaN in x gives NaN in y. In backward, infinite or NaN dout go on into dx as in PyTorch: dx is dout times the slope, so that an infinite dout
gives NaN where the slope is 0.
"""

import math

import numpy as np
import scipy

from hcrot.init import is_int
from hcrot.kernels.activation import silu, silu_gradient
from hcrot.layers.arguments import IN_PLACE, refuse
from hcrot.module import Module, check_gradient

__all__ = ["GELU", "GELU_FLAT", "Mish", "ReLU", "SiLU", "Sigmoid", "Softmax", "Tanh", "check_floating", "zero_unless"]


class SiLU(Module):
    """``y = x sigmoid(x)``, also called swish (Elfwing et al. 2018; Ramachandran et al. 2017).

    Backward: ``dx = dout s (1 + x (1 - s))`` with ``s = sigmoid(x)``. What is kept is x.

    Args:
        inplace: only False.

    Shapes:
        x, any shape -> y, the same.

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64. ValueError: in forward, an x without axes, of shape ().
            So do all activations here.

    Example:
        >>> hcrot.SiLU()(np.array([-1, 0, 1], np.float32)).round(3)
        array([-0.269,  0.   ,  0.731], dtype=float32)
    """

    def __init__(self, inplace: bool = False):
        refuse("SiLU", IN_PLACE, inplace=inplace)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("SiLU", x)
        self.save(x)
        return silu(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        check_gradient("SiLU", dout, x.shape, x.dtype)
        return silu_gradient(x, dout)


class ReLU(Module):
    """``y = max(x, 0)``.

    Backward: ``dx = dout`` where ``y > 0`` or y is NaN, else 0, even if dout is infinite or NaN there. What is kept is the boolean array of
    those places.

    Args:
        inplace: only False.

    Shapes:
        x, any shape -> y, the same.

    Example:
        >>> relu = hcrot.ReLU()
        >>> relu(np.array([-1, 0, 2], np.float32)), relu.backward(np.ones(3, np.float32))
        (array([0., 0., 2.], dtype=float32), array([0., 0., 1.], dtype=float32))
    """

    def __init__(self, inplace: bool = False):
        refuse("ReLU", IN_PLACE, inplace=inplace)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("ReLU", x)
        y = np.maximum(x, 0)
        self.save(y != 0 if self.training else None, x.dtype)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        passes, dtype = self.saved()
        check_gradient("ReLU", dout, passes.shape, dtype)
        return zero_unless(passes, dout)


class GELU(Module):
    """``y = x Phi(x)``, with Phi the distribution function of N(0, 1) and phi its density (Hendrycks & Gimpel 2016).

    Backward: ``dx = dout (Phi(x) + x phi(x))``.

    With ``approximate="tanh"``, Phi is replaced by ``(1 + t) / 2``, where ``t = tanh(u)`` and ``u = sqrt(2 / pi) (x + 0.044715 x^3)``, and
    phi by the derivative of that, ``(1 - t^2) / 2 * du/dx``, where ``du/dx = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)``. What is kept is x.

    Args:
        approximate: ``"none"`` or ``"tanh"``, as in PyTorch.

    Shapes:
        x, any shape -> y, the same.

    Raises:
        ValueError: another ``approximate``.

    Example:
        >>> hcrot.GELU()(np.array([-1, 0, 1], np.float32)).round(3)
        array([-0.159,  0.   ,  0.841], dtype=float32)
    """

    def __init__(self, approximate: str = "none"):
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("GELU", x)
        self.save(x)
        # Phi is 0 there, in both dtypes: so -inf times 0 is not met
        return np.maximum(x, -GELU_FLAT) * self.distribution(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        check_gradient("GELU", dout, x.shape, x.dtype)
        x = np.clip(x, -GELU_FLAT, GELU_FLAT)
        return dout * (self.distribution(x) + x * self.density(x))

    def distribution(self, x: np.ndarray) -> np.ndarray:
        """Phi(x), or what approximates it."""
        return scipy.special.ndtr(x) if self.approximate == "none" else (1 + _gelu_tanh(x)) / 2

    def density(self, x: np.ndarray) -> np.ndarray:
        """The derivative of :meth:`distribution`, for |x| <= GELU_FLAT."""
        if self.approximate == "none":
            return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return (1 - _gelu_tanh(x) ** 2) / 2 * du

    def describe(self) -> str:
        return f"approximate={self.approximate!r}"


GELU_FLAT = 40
"""Where |x| is larger, GELU is 0 or x in float64 too, and its slope 0 or 1: Phi(-38.6) is less than the smallest float64."""


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    """t in :class:`GELU`'s formulas."""
    with np.errstate(over="ignore"):  # t is 1 long before u is infinite
        return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


class Mish(Module):
    """``y = x tanh(ln(1 + e^x))`` (Misra 2019).

    The logarithm and the tanh cancel: with ``u = e^x`` and ``n = u (u + 2)``, ``tanh(ln(1 + u)) = ((1 + u)^2 - 1) / ((1 + u)^2 + 1)
    = n / (n + 2)``. Backward: ``dx = dout (n / (n + 2) + 4 x u (u + 1) / (n + 2)^2)``. What is kept is x.

    Args:
        inplace: only False.

    Shapes:
        x, any shape -> y, the same.

    Example:
        >>> hcrot.Mish()(np.array([-1, 0, 1], np.float32)).round(3)
        array([-0.303,  0.   ,  0.865], dtype=float32)
    """

    def __init__(self, inplace: bool = False):
        refuse("Mish", IN_PLACE, inplace=inplace)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Mish", x)
        self.save(x)
        u = np.exp(np.minimum(x, MISH_MAX))
        n = u * (u + 2)
        return np.maximum(x, MISH_MIN) * (n / (n + 2))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        check_gradient("Mish", dout, x.shape, x.dtype)
        x = np.clip(x, MISH_MIN, MISH_MAX)
        u = np.exp(x)
        n = u * (u + 2)
        return dout * (n / (n + 2) + 4 * x * u * (u + 1) / (n + 2) ** 2)


MISH_MIN, MISH_MAX = -750, 22
"""Where x is less, e^x is 0 in float64 too; where x is more, the slope is 1, but n^2 would soon be infinite in float32."""


class Sigmoid(Module):
    """``y = 1 / (1 + e^-x)``, without overflow for any x.

    Backward: ``dx = dout y (1 - y)``. What is kept is the slope ``y (1 - y)``, as y itself is the caller's, who may change it.

    Shapes:
        x, any shape -> y, the same.

    Example:
        >>> hcrot.Sigmoid()(np.array([-1000, 0, 1000], np.float32))
        array([0. , 0.5, 1. ], dtype=float32)
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Sigmoid", x)
        y = scipy.special.expit(x)
        self.save(y * (1 - y) if self.training else None)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        slope = self.saved()
        check_gradient("Sigmoid", dout, slope.shape, slope.dtype)
        return dout * slope


class Tanh(Module):
    """``y = tanh(x)``.

    Backward: ``dx = dout (1 - y^2)``. What is kept is the slope ``1 - y^2``, as y itself is the caller's, who may change it.

    Shapes:
        x, any shape -> y, the same.

    Example:
        >>> tanh = hcrot.Tanh()
        >>> tanh(np.array([0, 10], np.float32)), tanh.backward(np.ones(2, np.float32))      # flat at 10: nothing comes back
        (array([0., 1.], dtype=float32), array([1., 0.], dtype=float32))
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Tanh", x)
        y = np.tanh(x)
        self.save(1 - y * y if self.training else None)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        slope = self.saved()
        check_gradient("Tanh", dout, slope.shape, slope.dtype)
        return dout * slope


class Softmax(Module):
    """``p_i = e^(x_i) / sum_j e^(x_j)`` along one axis. The largest x is subtracted first, which changes nothing but overflow.

    Backward: ``dx = p (dout - sum(dout p))``, the sum along the same axis; the Jacobian ``diag(p) - p p^T`` is never made. What is kept
    is a copy of p, as p itself is the caller's, who may change it.

    Entries of -inf get probability 0. Where all are -inf there is nothing to choose from: those p are NaN, as in PyTorch.

    Args:
        dim: the axis, counted from the end if negative.

    Shapes:
        x, any shape -> p, the same.

    Raises:
        TypeError: ``dim`` is no int. ValueError: in forward, x has no axis ``dim``.

    Example:
        >>> hcrot.Softmax()(np.array([[0, 0], [0, 1]], np.float32)).round(3)
        array([[0.5  , 0.5  ],
               [0.269, 0.731]], dtype=float32)
    """

    def __init__(self, dim: int = -1):
        if not is_int(dim):
            raise TypeError(f"Softmax: dim must be an int, got {dim!r}")
        self.dim = int(dim)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Softmax", x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(f"Softmax: dim {self.dim} is out of range for shape {x.shape}")
        with np.errstate(over="ignore"):  # a difference of -inf is as good as one of -1e38
            powers = np.exp(x - x.max(axis=self.dim, keepdims=True, initial=-np.inf))
        p = powers / powers.sum(axis=self.dim, keepdims=True)
        self.save(p.copy(order="K") if self.training else None)
        return p

    def backward(self, dout: np.ndarray) -> np.ndarray:
        p = self.saved()
        check_gradient("Softmax", dout, p.shape, p.dtype)
        return p * (dout - (dout * p).sum(axis=self.dim, keepdims=True))

    def describe(self) -> str:
        return f"dim={self.dim}"


def check_floating(name: str, x: np.ndarray) -> None:
    """Raise an error that begins with ``name`` unless x is a float32 or float64 array: a TypeError, or a ValueError if it has no axis.

    Of an array without axes NumPy's operations make a scalar, which is no array any more.
    """
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected a float32 or float64 array, got {x.dtype if isinstance(x, np.ndarray) else type(x).__name__}")
    if x.ndim == 0:
        raise ValueError(f"{name}: expected an array of at least one axis, got shape ()")


def zero_unless(passes: np.ndarray, dout: np.ndarray) -> np.ndarray:
    """``dout`` where ``passes`` is True, else 0, also where dout is infinite or NaN.

    As ``np.where(passes, dout, 0)``, which takes ten times as long: the bits of dout are multiplied by 1 or 0 as if they were integers.

    Args:
        passes: bool. dout: float32 or float64, of the same shape.
    """
    return (dout.view(f"i{dout.itemsize}") * passes).view(dout.dtype)
