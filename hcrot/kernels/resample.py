"""Resizing images by nearest neighbour.

Notation: B images of C channels, H x W pixels to be made OH x OW. Output pixel ``(oy, ox)`` shows input pixel ``(oy H // OH, ox W // OW)``,
in integers and so without rounding errors (PyTorch rounds H / OH to float32 and is a pixel off at the seams of 1 % of all pairs of sizes
up to 64 and 128, the first being 2 -> 82; never when doubling). The other way round, input row ``i`` is shown by the run of output rows

    starts[i] <= oy < starts[i + 1],    starts[i] = ceil(i OH / H),

an empty run if it is skipped. Forward copies each input pixel to its runs, backward sums over the same runs, so that no two threads meet in
a pixel. Runs of C contiguous numbers are copied; a row that is shown again is copied whole.
"""

from typing import Any

import numpy as np

from hcrot.kernels.im2col import add, channels_first, channels_last, copy
from hcrot.kernels.jit import launched, parallel_jit, share_bounds, shares
from hcrot.kernels.plain import referenced

__all__ = ["GRAIN", "nearest", "nearest_gradient", "nearest_gradient_reference", "nearest_reference", "starts"]

GRAIN = 16_384
"""Numbers worth a thread of their own: some 4 microseconds of copying."""


def starts(size: int, out_size: int) -> np.ndarray:
    """``starts[i] = ceil(i out_size / size)`` for ``i = 0 .. size``."""
    return -(-np.arange(size + 1) * out_size // size)


@parallel_jit
def _nearest(x, row_starts, column_starts, y, share, num_shares):
    if launched(share, num_shares):
        return
    height, width, out_h = row_starts.size - 1, column_starts.size - 1, row_starts[-1]
    channels = x.shape[1] // width
    first, last = share_bounds(x.shape[0], share, num_shares)
    for row in range(first, last):
        image, i = row // height, row % height
        top, bottom = image * out_h + row_starts[i], image * out_h + row_starts[i + 1]
        if top < bottom:
            source, target = x[row], y[top]
            for j in range(width):
                pixel = source[j * channels : (j + 1) * channels]
                for ox in range(column_starts[j], column_starts[j + 1]):
                    copy(pixel, target[ox * channels : (ox + 1) * channels])
            for oy in range(top + 1, bottom):
                copy(target, y[oy])


@parallel_jit
def _nearest_gradient(dout, row_starts, column_starts, dx, share, num_shares):
    if launched(share, num_shares):
        return
    height, width, out_h = row_starts.size - 1, column_starts.size - 1, row_starts[-1]
    channels = dx.shape[1] // width
    first, last = share_bounds(dx.shape[0], share, num_shares)
    for row in range(first, last):
        image, i = row // height, row % height
        target = dx[row]
        target[:] = 0
        for oy in range(image * out_h + row_starts[i], image * out_h + row_starts[i + 1]):
            source = dout[oy]
            for j in range(width):
                pixel = target[j * channels : (j + 1) * channels]
                for ox in range(column_starts[j], column_starts[j + 1]):
                    add(source[ox * channels : (ox + 1) * channels], pixel)


@referenced
def nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize images by nearest neighbour, up or down.

    Args:
        x: (B, C, H, W), float32 or float64, any memory order (channels-last is fast).
        height, width: OH and OW, at least 1.

    Returns:
        y (B, C, OH, OW), memory channels-last, of x's dtype.
    """
    batch, channels, old_h, old_w = x.shape
    y = np.empty((batch, height, width, channels), x.dtype)
    rows = channels_last(x).reshape(batch * old_h, old_w * channels)
    out_rows = y.reshape(batch * height, width * channels)
    _nearest(rows, starts(old_h, height), starts(old_w, width), out_rows, shares(y.size, GRAIN))
    return channels_first(y)


def nearest_reference(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """:func:`nearest` in plain NumPy."""
    old_h, old_w = x.shape[2:]
    return x[:, :, np.arange(height)[:, None] * old_h // height, np.arange(width) * old_w // width]


@referenced
def nearest_gradient(dout: np.ndarray, height: int, width: int) -> np.ndarray:
    """The adjoint of :func:`nearest`: each input pixel's gradient is the sum over the output pixels that show it.

    Args:
        dout: (B, C, OH, OW), gradient of nearest's result. height, width: H and W, the size before.

    Returns:
        dx (B, C, H, W), memory channels-last, of dout's dtype.
    """
    batch, channels, out_h, out_w = dout.shape
    dx = np.empty((batch, height, width, channels), dout.dtype)
    out_rows = channels_last(dout).reshape(batch * out_h, out_w * channels)
    rows = dx.reshape(batch * height, width * channels)
    _nearest_gradient(out_rows, starts(height, out_h), starts(width, out_w), rows, shares(dout.size, GRAIN))
    return channels_first(dx)


def nearest_gradient_reference(dout: np.ndarray, height: int, width: int) -> np.ndarray:
    """:func:`nearest_gradient` in plain NumPy."""
    out_h, out_w = dout.shape[2:]
    dx = np.zeros((*dout.shape[:2], height, width), dout.dtype)
    shown: Any = (..., np.arange(out_h)[:, None] * height // out_h, np.arange(out_w) * width // out_w)
    np.add.at(dx, shown, dout)
    return dx
