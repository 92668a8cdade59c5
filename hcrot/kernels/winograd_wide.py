"""Winograd's algorithm, derived in ``winograd.py``, for layers whose weights weigh more than their images.

With 256 channels in and out, U = G g G^T has 9 MB. To write it, and to read it in every thread, takes longer than the products of the few
tiles that small images have. So here the threads share the outputs, not the tiles: each transforms the weights of some outputs at a time,
few enough that their U stays in its cache, and multiplies all tiles with them.

    forward           V = B^T d B of all tiles; then, for N outputs at a time, U, the products M_e = V_e U_e and Y = A^T M A
    weight gradient   V and dM = A dy A^T of all tiles; then, for N input channels at a time, dU_e = V_e^T dM_e and dg = G^T dU G

V and dM of all tiles lie in memory: with many more of them than ``MOST_TILES`` that would be the greater burden.
"""

import numpy as np

from hcrot.kernels.im2col import copy
from hcrot.kernels.jit import aligned_empty, aligned_zeros, get_num_threads, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.product import multiply
from hcrot.kernels.winograd_tiles import (
    TILES,
    transform_inputs,
    transform_output_gradients,
    transform_outputs,
    transform_weight_gradient,
    transform_weights,
)

__all__ = ["BLOCK", "MOST_TILES", "WIDE", "block_width", "is_wide", "wide", "wide_weight_gradient"]

WIDE = 16_384
"""From which C * O on it pays: U then has 2.4 MB. Measured on Zen 4: 256 to 256 channels at 64 tiles, forward 1.3 times as fast, weight
gradient 2 times; 512 to 256 channels at 16 tiles 2.6 and 3.7 times."""

MOST_TILES = 128
"""Up to how many tiles it pays; at 256 it is slower."""

BLOCK = 8_192
"""C * N, or N * O: N is how many outputs, or channels, to multiply at a time."""


@parallel_jit
def _transform_images(x, tile_rows, tiles, top, left, v, share, num_shares):
    """V (36, tiles, C)."""
    if launched(share, num_shares):
        return
    channels = x.shape[3]
    first, last = share_bounds(x.shape[0] * tile_rows, share, num_shares)
    rows = aligned_zeros(6 * (4 * tiles + 2 + left) * channels, x).reshape(6, -1, channels)
    lines = x.reshape(-1, x.shape[2] * channels)
    transform_inputs(lines, x.shape[1], first, last, tile_rows, tiles, top, left, rows, v, first * tiles)


@parallel_jit
def _transform_gradients(dy, tile_rows, tiles, m, share, num_shares):
    """dM (36, tiles, O)."""
    if launched(share, num_shares):
        return
    outputs = dy.shape[3]
    first, last = share_bounds(dy.shape[0] * tile_rows, share, num_shares)
    rows = aligned_zeros(6 * 4 * tiles * outputs, dy).reshape(6, -1, outputs)
    lines = dy.reshape(-1, dy.shape[2] * outputs)
    transform_output_gradients(lines, dy.shape[1], first, last, tile_rows, tiles, rows, m, first * tiles)


@parallel_jit
def _multiply(v, weight, turned, bias, residual, rows_at_once, width, y, share, num_shares):
    """Y from V, ``width`` outputs at a time."""
    if launched(share, num_shares):
        return
    tile_rows, tiles = (y.shape[1] + 3) // 4, (y.shape[2] + 3) // 4
    channels, outputs = v.shape[2], y.shape[3]
    first, last = share_bounds((outputs + width - 1) // width, share, num_shares)
    taps_buffer, rows_buffer = aligned_empty(9 * width, y), aligned_empty(24 * tiles * width, y)
    u_buffer, m_buffer = aligned_empty(36 * channels * width, y), aligned_empty(36 * (rows_at_once * tiles + 1) * width, y)
    line_buffer = aligned_empty(4 * tiles * width, y)
    for block in range(first, last):
        output = block * width
        n = min(width, outputs - output)
        u, m = u_buffer[: 36 * channels * n].reshape(36, channels, n), m_buffer[: 36 * (rows_at_once * tiles + 1) * n].reshape(36, -1, n)
        rows, line = rows_buffer[: 24 * tiles * n].reshape(24, tiles, n), line_buffer[: 4 * tiles * n].reshape(-1, n)
        taps = taps_buffer[: 9 * n].reshape(9, n)
        transform_weights(weight, turned, 0, channels, output, taps, rows_buffer[: 18 * n].reshape(18, n), u)
        for row in range(0, y.shape[0] * tile_rows, rows_at_once):
            end = min(row + rows_at_once, y.shape[0] * tile_rows)
            start, count = row * tiles, (end - row) * tiles
            for e in range(36):
                multiply(v[e, start : start + count], u[e], m[e, :count], False)
            transform_outputs(m, row, end, tile_rows, tiles, rows, line, bias, residual, y, output)


@parallel_jit
def _multiply_gradients(v, m, count, width, dweight, share, num_shares):
    """The gradient (9, C, O) of the weight from V (36, >= count, C) and dM (36, >= count, O), ``width`` input channels at a time."""
    if launched(share, num_shares):
        return
    channels, outputs = v.shape[2], m.shape[2]
    first, last = share_bounds((channels + width - 1) // width, share, num_shares)
    du_buffer = aligned_empty(36 * width * outputs, v)
    rows, taps = aligned_empty(18 * outputs, v).reshape(18, outputs), aligned_empty(9 * outputs, v).reshape(9, outputs)
    for block in range(first, last):
        channel = block * width
        n = min(width, channels - channel)
        du = du_buffer[: 36 * n * outputs].reshape(36, n, outputs)
        for start in range(0, count, TILES):
            stop = min(start + TILES, count)
            for e in range(36):
                multiply(v[e, start:stop, channel : channel + n].T, m[e, start:stop], du[e], start > 0)
        for c in range(n):
            transform_weight_gradient(du, c, rows, taps)
            for k in range(9):
                copy(taps[k], dweight[k, channel + c])


def is_wide(channels: int, outputs: int, tiles: int) -> bool:
    """Whether a layer has so many channels, and its images so few tiles, that this file's way is the faster one."""
    return channels * outputs >= WIDE and 0 < tiles <= MOST_TILES


def block_width(channels: int, others: int) -> int:
    """How many of the ``channels`` to multiply at a time with all ``others``: a multiple of 16 that leaves none of the threads idle."""
    return max(16, min(BLOCK // others, channels // get_num_threads()) // 16 * 16)


def wide(
    x: np.ndarray, taps: np.ndarray, turned: bool, bias: np.ndarray, residual: np.ndarray, top: int, left: int, y: np.ndarray
) -> None:
    """Convolve x (B, H, W, C) with taps, of which :func:`transform_weights` tells the shape, and write it to y (B, H', W', O).

    Args:
        bias: (1, O) or (B, O). residual: like y, or empty. top, left: padding.
    """
    channels, outputs = x.shape[3], y.shape[3]
    tile_rows, tiles = -(-y.shape[1] // 4), -(-y.shape[2] // 4)
    width, rows = block_width(outputs, channels), y.shape[0] * tile_rows
    v = np.empty((36, rows * tiles + 1, channels), x.dtype)
    _transform_images(x, tile_rows, tiles, top, left, v, shares(rows, 1))
    _multiply(v, taps, turned, bias, residual, max(1, TILES // tiles), width, y, shares(-(-outputs // width), 1))


def wide_weight_gradient(x: np.ndarray, dy: np.ndarray, top: int, left: int) -> np.ndarray:
    """The gradient (9, C, O) of the weight, for x (B, H, W, C), dy (B, H', W', O) and the padding ``top``, ``left``."""
    channels, outputs = x.shape[3], dy.shape[3]
    tile_rows, tiles = -(-dy.shape[1] // 4), -(-dy.shape[2] // 4)
    rows, width = dy.shape[0] * tile_rows, block_width(channels, outputs)
    count = rows * tiles
    v, m = np.empty((36, count + 1, channels), x.dtype), np.empty((36, count + 1, outputs), x.dtype)
    _transform_images(x, tile_rows, tiles, top, left, v, shares(rows, 1))
    _transform_gradients(dy, tile_rows, tiles, m, shares(rows, 1))
    dweight = np.empty((9, channels, outputs), x.dtype)
    _multiply_gradients(v, m, count, width, dweight, shares(-(-channels // width), 1))
    return dweight
