"""Activation functions. All but softmax act on each number for itself and keep the memory order of what they get."""

import math

import numpy as np
import scipy

from hcrot.kernels.activation import silu, silu_gradient
from hcrot.module import Module, check_gradient


class SiLU(Module):
    """``y = x sigmoid(x)``, also called swish (Elfwing et al. 2018; Ramachandran et al. 2017).

    Backward: ``dx = dout s (1 + x (1 - s))`` with ``s = sigmoid(x)``. What is kept is x.

    Shapes:
        x, any shape -> y, the same.

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64. So do all activations here.
    """

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

    Backward: ``dx = dout [y > 0]``. What is kept is y, which the next layer keeps anyway.

    Shapes:
        x, any shape -> y, the same.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("ReLU", x)
        y = np.maximum(x, 0)
        self.save(y)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        y = self.saved()
        check_gradient("ReLU", dout, y.shape, y.dtype)
        # not np.where, which takes ten times as long
        return dout * (y > 0)


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
    """

    def __init__(self, approximate: str = "none"):
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("GELU", x)
        self.save(x)
        return x * self.distribution(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        check_gradient("GELU", dout, x.shape, x.dtype)
        return dout * (self.distribution(x) + x * self.density(x))

    def distribution(self, x: np.ndarray) -> np.ndarray:
        """Phi(x), or what approximates it."""
        return scipy.special.ndtr(x) if self.approximate == "none" else (1 + _gelu_tanh(x)) / 2

    def density(self, x: np.ndarray) -> np.ndarray:
        """The derivative of :meth:`distribution`."""
        if self.approximate == "none":
            return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return (1 - _gelu_tanh(x) ** 2) / 2 * du

    def describe(self) -> str:
        return f"approximate={self.approximate!r}"


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    """t in :class:`GELU`'s formulas."""
    return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


class Mish(Module):
    """``y = x tanh(ln(1 + e^x))`` (Misra 2019).

    The logarithm and the tanh cancel: with ``u = e^x`` and ``n = u (u + 2)``, ``tanh(ln(1 + u)) = ((1 + u)^2 - 1) / ((1 + u)^2 + 1)
    = n / (n + 2)``. Backward: ``dx = dout (n / (n + 2) + 4 x u (u + 1) / (n + 2)^2)``. What is kept is x.

    Shapes:
        x, any shape -> y, the same.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Mish", x)
        self.save(x)
        u = _exp_for_mish(x)
        n = u * (u + 2)
        return x * (n / (n + 2))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        check_gradient("Mish", dout, x.shape, x.dtype)
        u = _exp_for_mish(x)
        n = u * (u + 2)
        return dout * (n / (n + 2) + 4 * x * u * (u + 1) / (n + 2) ** 2)


def _exp_for_mish(x: np.ndarray) -> np.ndarray:
    """e^x, but no more than e^20: there n / (n + 2) has long been 1, and n^2 is not yet infinite in float32."""
    return np.exp(np.minimum(x, 20))


class Sigmoid(Module):
    """``y = 1 / (1 + e^-x)``, without overflow for any x.

    Backward: ``dx = dout y (1 - y)``.

    Shapes:
        x, any shape -> y, the same.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Sigmoid", x)
        y = scipy.special.expit(x)
        self.save(y)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        y = self.saved()
        check_gradient("Sigmoid", dout, y.shape, y.dtype)
        return dout * y * (1 - y)


class Tanh(Module):
    """``y = tanh(x)``.

    Backward: ``dx = dout (1 - y^2)``.

    Shapes:
        x, any shape -> y, the same.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Tanh", x)
        y = np.tanh(x)
        self.save(y)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        y = self.saved()
        check_gradient("Tanh", dout, y.shape, y.dtype)
        return dout * (1 - y * y)


class Softmax(Module):
    """``p_i = e^(x_i) / sum_j e^(x_j)`` along one axis. The largest x is subtracted first, which changes nothing but overflow.

    Backward: ``dx = p (dout - sum(dout p))``, the sum along the same axis; the Jacobian ``diag(p) - p p^T`` is never made.

    Entries of -inf get probability 0. Where all are -inf there is nothing to choose from: those p are NaN, as in PyTorch.

    Args:
        dim: the axis, counted from the end if negative.

    Shapes:
        x, any shape -> p, the same.

    Raises:
        TypeError: ``dim`` is no int. ValueError: in forward, x has no axis ``dim``.
    """

    def __init__(self, dim: int = -1):
        if not isinstance(dim, (int, np.integer)) or isinstance(dim, bool):
            raise TypeError(f"Softmax: dim must be an int, got {dim!r}")
        self.dim = int(dim)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Softmax", x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(f"Softmax: dim {self.dim} is out of range for shape {x.shape}")
        powers = np.exp(x - x.max(axis=self.dim, keepdims=True))
        p = powers / powers.sum(axis=self.dim, keepdims=True)
        self.save(p)
        return p

    def backward(self, dout: np.ndarray) -> np.ndarray:
        p = self.saved()
        check_gradient("Softmax", dout, p.shape, p.dtype)
        return p * (dout - (dout * p).sum(axis=self.dim, keepdims=True))

    def describe(self) -> str:
        return f"dim={self.dim}"


def check_floating(name: str, x: np.ndarray) -> None:
    """Raise a TypeError that begins with ``name`` unless x is a float32 or float64 array."""
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected a float32 or float64 array, got {x.dtype if isinstance(x, np.ndarray) else type(x).__name__}")
