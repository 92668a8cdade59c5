"""The residual connection as a layer."""

import numpy as np

from hcrot.module import Module, check_gradient

__all__ = ["Residual"]


class Residual(Module):
    """``y = x + f(x)``: what is learned is the difference (He et al. 2016, eq. 1).

    Backward: ``dx = dy + f.backward(dy)``. Only a shape is kept here; the module keeps what it needs.

    Args:
        module: f, of one array, which returns an array of the same shape and dtype.

    Shapes:
        x, any shape that the module takes -> y, the same. Keys of the state: ``module.`` and the module's own.

    Raises:
        TypeError: ``module`` is none. ValueError: in forward, a module that changes the shape or dtype: nothing is broadcast.

    Example:
        >>> layer = hcrot.Residual(hcrot.ReLU())
        >>> layer(np.array([-1, 2], np.float32)), layer.backward(np.ones(2, np.float32))
        (array([-1.,  4.], dtype=float32), array([1., 2.], dtype=float32))
    """

    def __init__(self, module: Module):
        if not isinstance(module, Module):
            raise TypeError(f"Residual: module must be a Module, got {type(module).__name__}")
        self.module = module

    def forward(self, x: np.ndarray) -> np.ndarray:
        h = self.module(x)
        if h.shape != x.shape or h.dtype != x.dtype:
            raise ValueError(
                f"Residual: the module must return an array like x, {x.dtype} {x.shape}, got {h.dtype} {h.shape} "
                f"from {type(self.module).__name__}"
            )
        self.save(x.shape, x.dtype)
        return x + h

    def backward(self, dout: np.ndarray) -> np.ndarray:
        check_gradient("Residual", dout, *self.saved())
        return dout + self.module.backward(dout)
