"""Dropout."""

import numpy as np

from hcrot import init
from hcrot.layers.activation import check_floating
from hcrot.layers.arguments import IN_PLACE, refuse
from hcrot.module import Module, check_gradient

__all__ = ["Dropout"]


class Dropout(Module):
    """In training each number is dropped with probability p and the others are enlarged, so that the mean stays; in inference ``y = x``.

        y = m x,    dx = m dout,    m = 0 with probability p, else 1 / (1 - p)

    (Srivastava et al. 2014, where it is inference that scales, but see section 10). What is kept is m. It is drawn in the order of the
    indices, in float32 whatever x is, so that a seed drops the same entries in either dtype and in any memory order.

    Args:
        p: probability of dropping, from 0 to 1. At 0 nothing is drawn, at 1 everything is zero.
        inplace: only False.
        generator: source of m; advanced by each forward in training.

    Shapes:
        x, any shape -> y, the same, in x's memory order.

    Raises:
        ValueError: p out of range. TypeError: in forward, an x that is neither float32 nor float64.

    Example:
        >>> layer = hcrot.Dropout(0.5, generator=0)
        >>> layer(np.ones(8, np.float32)), layer.backward(np.ones(8, np.float32))
        (array([2., 2., 2., 0., 0., 0., 0., 0.], dtype=float32), array([2., 2., 2., 0., 0., 0., 0., 0.], dtype=float32))
        >>> layer.eval()(np.ones(2, np.float32))
        array([1., 1.], dtype=float32)
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: np.random.Generator | int | None = None):
        refuse("Dropout", IN_PLACE, inplace=inplace)
        if not init.is_real(p) or isinstance(p, bool) or not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be a number from 0 to 1, got {p!r}")
        self.p = float(p)
        self.generator = init.default_generator("Dropout", generator)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_floating("Dropout", x)
        if not self.training or self.p == 0:
            self.save(None, x.shape, x.dtype)
            return x
        stays = self.generator.random(x.shape, np.float32) >= self.p
        mask = np.empty_like(x)
        np.multiply(stays, 1 / (1 - self.p) if self.p < 1 else 0, out=mask, casting="same_kind")
        self.save(mask, x.shape, x.dtype)
        return x * mask

    def backward(self, dout: np.ndarray) -> np.ndarray:
        mask, shape, dtype = self.saved()
        check_gradient("Dropout", dout, shape, dtype)
        return dout if mask is None else dout * mask

    def describe(self) -> str:
        return f"p={self.p:g}"
