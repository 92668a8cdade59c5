"""Padding images with their own pixels."""

from typing import Literal

import numpy as np

from hcrot.init import is_int
from hcrot.kernels.im2col import channels_first, channels_last
from hcrot.module import Module, check_gradient, describe_shape

__all__ = ["MODES", "Pad2d"]

MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""PyTorch's names, and NumPy's."""


class Pad2d(Module):
    """Surround images with pixels of their own, as ``torch.nn.ReflectionPad2d``, ``ReplicationPad2d`` and ``CircularPad2d``.

    A row 1 2 3 4 that is padded by 2 on each side becomes

        reflect      3 2 1 2 3 4 3 2       mirrored at its outermost pixels
        replicate    1 1 1 2 3 4 4 4       its outermost pixels repeated
        circular     3 4 1 2 3 4 1 2       as if images tiled the plane

    Backward: each pixel sums dout over all places that show it. (Zeros around an image are a matter of the layer that needs them.)

    Args:
        sides: rows at the top and the bottom, columns at the left and the right, ``(top, bottom, left, right)``.
        mode: ``"reflect"``, ``"replicate"`` or ``"circular"``.

    Shapes:
        x (B, C, H, W) -> y (B, C, H + top + bottom, W + left + right), memory channels-last.

    Raises:
        ValueError: an argument out of range; in forward, an x that is not (B, C, H, W), or too small: on each side, "reflect" needs an
            image with more rows (or columns) than it adds, "circular" one with at least as many.

    Example:
        >>> hcrot.Pad2d((0, 0, 2, 2), "reflect")(np.array([[[[1, 2, 3, 4]]]], np.float32))
        array([[[[3., 2., 1., 2., 3., 4., 3., 2.]]]], dtype=float32)
    """

    def __init__(self, sides: tuple[int, int, int, int], mode: str):
        if not isinstance(sides, (tuple, list)) or len(sides) != 4 or not all(is_int(side) and side >= 0 for side in sides):
            raise ValueError(f"Pad2d: sides must be four ints of at least 0, got {sides!r}")
        if mode not in MODES:
            raise ValueError(f"Pad2d: mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
        self.sides, self.mode = tuple(int(side) for side in sides), mode

    def forward(self, x: np.ndarray) -> np.ndarray:
        if not isinstance(x, np.ndarray) or x.ndim != 4 or x.size == 0:
            raise ValueError(f"Pad2d: expected images of shape (batch, channels, height, width), got {describe_shape(x)}")
        rows, columns = self.shown(*x.shape[2:])
        self.save(x.shape, x.dtype)
        return channels_first(channels_last(x).take(rows, axis=1).take(columns, axis=2))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        shape, dtype = self.saved()
        rows, columns = self.shown(*shape[2:])
        check_gradient("Pad2d", dout, (*shape[:2], rows.size, columns.size), dtype)
        top, _, left, _ = self.sides
        return channels_first(sum_shown(sum_shown(channels_last(dout), columns, left, shape[3], 2), rows, top, shape[2], 1))

    def shown(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The number of the row of x that each row of y shows, and that of the column."""
        top, bottom, left, right = self.sides
        for size, sides in ((height, (top, bottom)), (width, (left, right))):
            if self.mode != "replicate" and max(sides) > size - (self.mode == "reflect"):
                raise ValueError(f"Pad2d: a {height}x{width} image is too small for padding {self.sides} by {self.mode!r}")
        numbers = MODES[self.mode]
        return np.pad(np.arange(height), (top, bottom), numbers), np.pad(np.arange(width), (left, right), numbers)

    def describe(self) -> str:
        return f"{self.sides}, mode={self.mode!r}"


def sum_shown(dy: np.ndarray, shown: np.ndarray, before: int, size: int, axis: int) -> np.ndarray:
    """The gradient along one axis: entry i of ``size`` sums dy over all places k with ``shown[k] = i``, as place ``before + i`` is."""
    dy = dy.swapaxes(0, axis)
    dx = dy[before : before + size].copy()
    for place in (*range(before), *range(before + size, shown.size)):
        dx[shown[place]] += dy[place]
    return dx.swapaxes(0, axis)
