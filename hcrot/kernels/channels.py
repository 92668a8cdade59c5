"""Joining, splitting, adding and summing image arrays: pure memory traffic, shared by all threads.

Notation: B images, H x W pixels, C channels; memory is channels-last. NumPy has each of these, on one
thread: they take it two to eight times as long, 5 % of a training step of the seed network at batch 512.
"""

import numpy as np

from hcrot.kernels.im2col import add, channels_first, channels_last, copy, sum_of
from hcrot.kernels.jit import launched, parallel_jit, share_bounds, shares
from hcrot.kernels.plain import referenced

__all__ = [
    "GRAIN", "PIXELS_PER_SUM", "concatenate", "concatenate_reference", "pixel_sums", "pixel_sums_reference", "pixels", "plus",
    "plus_reference", "plus_row", "plus_row_reference", "split", "split_reference",
]  # fmt: skip

GRAIN = 16_384
"""Numbers worth a thread of their own: some 4 microseconds of copying."""


PIXELS_PER_SUM = 256
"""How many pixels are added up in the arrays' dtype before their sum is added to a float64 total, so that large images lose nothing."""


@parallel_jit
def _concatenate(a, b, y, share, num_shares):
    if launched(share, num_shares):
        return
    width = a.shape[1]
    first, last = share_bounds(y.shape[0], share, num_shares)
    for p in range(first, last):
        copy(a[p], y[p, :width])
        copy(b[p], y[p, width:])


@parallel_jit
def _split(y, a, b, share, num_shares):
    if launched(share, num_shares):
        return
    width = a.shape[1]
    first, last = share_bounds(y.shape[0], share, num_shares)
    for p in range(first, last):
        copy(y[p, :width], a[p])
        copy(y[p, width:], b[p])


@parallel_jit
def _plus_row(rows, row, y, share, num_shares):
    if launched(share, num_shares):
        return
    first, last = share_bounds(y.shape[0], share, num_shares)
    for p in range(first, last):
        sum_of(rows[p], row, y[p])


@parallel_jit
def _pixel_sums(x, sums, share, num_shares):
    if launched(share, num_shares):
        return
    first, last = share_bounds(x.shape[0], share, num_shares)
    part = np.empty(x.shape[2], x.dtype)
    for image in range(first, last):
        for start in range(0, x.shape[1], PIXELS_PER_SUM):
            part.fill(0)
            for p in range(start, min(start + PIXELS_PER_SUM, x.shape[1])):
                add(x[image, p], part)
            add(part, sums[image])


@parallel_jit
def _plus(a, b, y, share, num_shares):
    if launched(share, num_shares):
        return
    first, last = share_bounds(y.size, share, num_shares)
    sum_of(a[first:last], b[first:last], y[first:last])


def pixels(x: np.ndarray) -> np.ndarray:
    """The (B * H * W, C) rows of an image array (B, C, H, W): a view if its memory is channels-last, else a copy."""
    return channels_last(x).reshape(-1, x.shape[1])


@referenced
def concatenate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a`` and ``b`` side by side along channels: (B, C, H, W) and (B, D, H, W) -> (B, C + D, H, W), memory channels-last."""
    batch, width, height, row = a.shape
    y = np.empty((batch, height, row, width + b.shape[1]), a.dtype)
    _concatenate(pixels(a), pixels(b), y.reshape(-1, y.shape[3]), shares(y.size, GRAIN))
    return channels_first(y)


def concatenate_reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """:func:`concatenate` in plain NumPy."""
    return np.concatenate([a, b], axis=1)


@referenced
def split(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The adjoint, and inverse, of :func:`concatenate`: the first ``width`` channels and the others, memory channels-last."""
    batch, channels, height, row = x.shape
    a = np.empty((batch, height, row, width), x.dtype)
    b = np.empty((batch, height, row, channels - width), x.dtype)
    _split(pixels(x), a.reshape(-1, width), b.reshape(-1, channels - width), shares(x.size, GRAIN))
    return channels_first(a), channels_first(b)


def split_reference(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`split` in plain NumPy."""
    return x[:, :width], x[:, width:]


@referenced
def plus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a + b`` for two image arrays of one shape and dtype, memory channels-last."""
    y = np.empty((a.shape[0], *a.shape[2:], a.shape[1]), a.dtype)
    _plus(channels_last(a).reshape(-1), channels_last(b).reshape(-1), y.reshape(-1), shares(y.size, GRAIN))
    return channels_first(y)


def plus_reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """:func:`plus` in plain NumPy."""
    return a + b


@referenced
def plus_row(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """``rows + row``, (B, C) and (C,), of one dtype."""
    y = np.empty(rows.shape, rows.dtype)
    _plus_row(np.ascontiguousarray(rows), np.ascontiguousarray(row), y, shares(y.size, GRAIN))
    return y


def plus_row_reference(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """:func:`plus_row` in plain NumPy."""
    return rows + row


@referenced
def pixel_sums(x: np.ndarray) -> np.ndarray:
    """The sum over the pixels of each image and channel, the adjoint of adding one number to all of them: (B, C, H, W) -> (B, C)."""
    sums = np.zeros(x.shape[:2])
    _pixel_sums(channels_last(x).reshape(x.shape[0], -1, x.shape[1]), sums, min(x.shape[0], shares(x.size, GRAIN)))
    return sums.astype(x.dtype)


def pixel_sums_reference(x: np.ndarray) -> np.ndarray:
    """:func:`pixel_sums` in plain NumPy."""
    return x.sum(axis=(2, 3))
