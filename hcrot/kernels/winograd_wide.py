"""Winograd's algorithm, derived in ``winograd.py``, for layers whose weights weigh more than their images.

With 256 channels in and out, U = G g G^T has 9 MB. To write it, and to read it in every thread, takes longer than the products of the few
tiles that small images have. So here the threads share the outputs, not the tiles: each transforms the weights of some outputs at a time,
few enough that their U stays in its cache, and multiplies all tiles with them.

    forward           V = B^T d B of all tiles; then, for N outputs at a time, U, the products M_e = V_e U_e and Y = A^T M A
    weight gradient   V and dM = A dy A^T of all tiles; then, for N input channels at a time, dU_e = V_e^T dM_e and dg = G^T dU G

V and dM of all tiles lie in memory: with many more of them than ``MOST_TILES`` that would be the greater burden.
"""

import numpy as np

from hcrot.kernels.jit import get_num_threads, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.product import multiply, product_of
from hcrot.kernels.winograd_tiles import (
    empty_points,
    pitch_for,
    row_buffer,
    transform_input,
    transform_kernel_gradient,
    transform_output,
    transform_output_gradient,
    transform_weights,
    zeros_for,
)

__all__ = ["BLOCK", "MOST_TILES", "TILES", "WIDE", "block_width", "is_wide", "wide", "wide_weight_gradient"]

TILES = 64
"""How many tiles to multiply at a time."""

WIDE = 16_384
"""From which C * O on it pays: U then has 2.4 MB. Measured on Zen 4: 256 to 256 channels at 64 tiles, forward 1.3 times as fast, weight
gradient 2 times; 512 to 256 channels at 16 tiles 2.6 and 3.7 times."""

MOST_TILES = 128
"""Up to how many tiles it pays; at 256 it is slower."""

BLOCK = 8_192
"""C * N, or N * O: N is how many outputs, or channels, to multiply at a time."""


@parallel_jit
def _transform_images(x, tile_rows, tiles, top, left, v, share, num_shares):
    """V (36, pitch) of all tiles."""
    if launched(share, num_shares):
        return
    channels = x.shape[3]
    first, last = share_bounds(x.shape[0] * tile_rows, share, num_shares)
    buffer, nothing = row_buffer(tiles, x), zeros_for(x.shape[2], channels, x)
    for row in range(first, last):
        y_first = 4 * (row % tile_rows) - top
        transform_input(x, row // tile_rows, y_first, -left, tiles, 0, channels, nothing, buffer, v, row * tiles * channels)


@parallel_jit
def _transform_gradients(dy, tile_rows, tiles, m, share, num_shares):
    """dM (36, pitch) of all tiles."""
    if launched(share, num_shares):
        return
    outputs = dy.shape[3]
    first, last = share_bounds(dy.shape[0] * tile_rows, share, num_shares)
    buffer, nothing = row_buffer(tiles, dy), zeros_for(dy.shape[2], outputs, dy)
    for row in range(first, last):
        y_first = 4 * (row % tile_rows)
        transform_output_gradient(dy, row // tile_rows, y_first, 0, tiles, 0, outputs, nothing, buffer, m, row * tiles * outputs)


@parallel_jit
def _multiply(product, v, weight, turned, bias, residual, rows_at_once, width, y, share, num_shares):
    """Y from V (36, pitch), ``width`` outputs at a time."""
    if launched(share, num_shares):
        return
    tile_rows, tiles = (y.shape[1] + 3) // 4, (y.shape[2] + 3) // 4
    rows, outputs = y.shape[0] * tile_rows, y.shape[3]
    channels = weight.shape[2] if turned else weight.shape[1]
    first, last = share_bounds((outputs + width - 1) // width, share, num_shares)
    u, m = empty_points(channels * width, y), empty_points(rows_at_once * tiles * width, y)
    buffer, nothing = row_buffer(tiles, y), zeros_for(0, width, y)
    for block in range(first, last):
        output = block * width
        n = min(width, outputs - output)
        transform_weights(weight, turned, 0, channels, output, n, u)
        for start in range(0, rows, rows_at_once):
            stop = min(start + rows_at_once, rows)
            count = (stop - start) * tiles
            for e in range(36):
                a, b, c = v[e, start * tiles * channels : stop * tiles * channels], u[e, : channels * n], m[e, : count * n]
                multiply(product, a.reshape(count, channels), b.reshape(channels, n), c.reshape(count, n), False)
            for row in range(start, stop):
                image, place = row // tile_rows, (row - start) * tiles * n
                offsets = bias[image % bias.shape[0]]
                transform_output(m, place, tiles, n, offsets, residual, nothing, buffer, y, image, 4 * (row % tile_rows), output)


@parallel_jit
def _multiply_gradients(product, v, m, count, width, dweight, share, num_shares):
    """The gradient (9, C * O) of the weight from V and dM (36, pitch) of ``count`` tiles, ``width`` input channels at a time."""
    if launched(share, num_shares):
        return
    channels, outputs = dweight.shape[1], dweight.shape[2]
    first, last = share_bounds((channels + width - 1) // width, share, num_shares)
    du, taps = empty_points(width * outputs, v), dweight.reshape(9, channels * outputs)
    buffer, nothing = row_buffer(1, v), zeros_for(0, 0, v)
    for block in range(first, last):
        channel = block * width
        n = min(width, channels - channel)
        for start in range(0, count, TILES):
            stop = min(start + TILES, count)
            for e in range(36):
                a, b, c = v[e, start * channels : stop * channels], m[e, start * outputs : stop * outputs], du[e, : n * outputs]
                columns = a.reshape(stop - start, channels)[:, channel : channel + n]
                multiply(product, columns.T, b.reshape(stop - start, outputs), c.reshape(n, outputs), start > 0)
        points = du.reshape(1, 6, 6, du.shape[1])
        transform_kernel_gradient(points, 0, 0, 0, 1, 0, n * outputs, nothing, buffer, taps, channel * outputs)


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
    v = np.empty((36, pitch_for(rows * tiles * channels, x.itemsize)), x.dtype)
    _transform_images(x, tile_rows, tiles, top, left, v, shares(rows, 1))
    at_once = max(1, min(rows, TILES // tiles))
    _multiply(product_of(x.dtype), v, taps, turned, bias, residual, at_once, width, y, shares(-(-outputs // width), 1))


def wide_weight_gradient(x: np.ndarray, dy: np.ndarray, top: int, left: int) -> np.ndarray:
    """The gradient (9, C, O) of the weight, for x (B, H, W, C), dy (B, H', W', O) and the padding ``top``, ``left``."""
    channels, outputs = x.shape[3], dy.shape[3]
    tile_rows, tiles = -(-dy.shape[1] // 4), -(-dy.shape[2] // 4)
    rows, width = dy.shape[0] * tile_rows, block_width(channels, outputs)
    count = rows * tiles
    v, m = (np.empty((36, pitch_for(count * a.shape[3], a.itemsize)), a.dtype) for a in (x, dy))
    _transform_images(x, tile_rows, tiles, top, left, v, shares(rows, 1))
    _transform_gradients(dy, tile_rows, tiles, m, shares(rows, 1))
    dweight = np.empty((9, channels, outputs), x.dtype)
    _multiply_gradients(product_of(x.dtype), v, m, count, width, dweight, shares(-(-channels // width), 1))
    return dweight
