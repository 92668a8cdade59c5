"""Winograd's minimal filtering F(4x4, 3x3): a 3x3 convolution with a quarter of the multiplications (Winograd 1980; Lavin & Gray 2016).

**The idea, in one dimension.** A kernel ``g`` of 3 taps slides along 6 numbers ``d`` and gives 4, with 12 multiplications. The adjoint of
that map takes 3 and 4 numbers to 6: it multiplies two polynomials, of 3 and of 4 coefficients. A product of 6 coefficients is known
once it is known at 6 points, so evaluate both there, multiply point by point (6 multiplications), and interpolate. Transposed back,

    y = A^T [ (G g) * (B^T d) ]             y (4), g (3), d (6), * point by point

    A^T: columns 1, p, p^2, p^3 for each point p; for infinity 0, 0, 0, 1
    G:   rows (1, p, p^2) / prod_{q != p} (p - q); for infinity (0, 0, 1)
    B^T: rows, the coefficients of prod_{q != p} (x - q); for infinity of the product over all finite points

with the points 0, a, -a, b, -b and infinity. Two dimensions are one after the other, ``Y = A^T [(G g G^T) * (B^T d B)] A``: 36
multiplications for 16 outputs instead of 144. Over channels, each of the 36 point by point products becomes a matrix product:

    U = G g G^T (36, C, O)       V = B^T d B (36, tiles, C)       M_e = V_e U_e (36, tiles, O)       Y = A^T M A

The usual points are 1, -1, 2, -2. With a^2 = 1/2 and b^2 = 2 the constants stay near 1 and the rounding error in float32 is half of that:
about 1e-6 of the largest output.

**The gradients** are the adjoint, term by term, read backwards:

    dM = A dy A^T       dU_e = V_e^T dM_e       dg = G^T dU G

and the gradient of the input is a convolution again, of dy with the kernel turned by 180 degrees.

Why it is fast: a transform combines rows of contiguous numbers, 6 in and 6 out, in one loop: along y whole image rows, along x the channels
of a pixel; tiles of a block (about 64) and their 36 products stay in the cache of the core that works on them; each product is one call
of a single-threaded BLAS. Layers whose weights weigh more than their images go another way, in ``winograd_wide.py``.

The transforms of a row are in ``winograd_transforms.py``, those of tiles and weights in ``winograd_tiles.py``.

Notation: B images, C channels in, O out, tiles of 4x4 output pixels, (e) one of the 36 points.
"""

from typing import Any

import numpy as np

from hcrot.kernels.channels import pixel_sums
from hcrot.kernels.im2col import Geometry, add, channels_first, channels_last, copy, output_size
from hcrot.kernels.jit import GRAIN, aligned_empty, aligned_zeros, launched, parallel_jit, share_bounds, shares, small_product_limit
from hcrot.kernels.product import multiply
from hcrot.kernels.winograd_tiles import (
    TILES,
    transform_inputs,
    transform_output_gradients,
    transform_outputs,
    transform_weight_gradient,
    transform_weights,
)
from hcrot.kernels.winograd_transforms import INPUT_TRANSFORM, KERNEL_TRANSFORM, OUTPUT_TRANSFORM
from hcrot.kernels.winograd_wide import is_wide, wide, wide_weight_gradient

__all__ = [
    "applies", "blocks", "count_tiles", "patches_of", "taps_of", "winograd", "winograd_reference", "winograd_weight_gradient",
    "winograd_weight_gradient_reference",
]  # fmt: skip


@parallel_jit
def _transform_weight(weight, turned, u, share, num_shares):
    """U (36, C, O) of a weight, as :func:`transform_weights` takes it."""
    if launched(share, num_shares):
        return
    first, last = share_bounds(u.shape[1], share, num_shares)
    taps, rows = np.empty((9, u.shape[2]), u.dtype), np.empty((18, u.shape[2]), u.dtype)
    transform_weights(weight, turned, first, last, 0, taps, rows, u)


@parallel_jit
def _transform_weight_gradient(du, dweight, share, num_shares):
    """``dg = G^T dU G``: du (shares, 36, C, O), added up in its first share, to dweight (9, C, O)."""
    if launched(share, num_shares):
        return
    first, last = share_bounds(dweight.shape[1], share, num_shares)
    taps, rows = np.empty((9, dweight.shape[2]), du.dtype), np.empty((18, dweight.shape[2]), du.dtype)
    for c in range(first, last):
        for other in range(1, du.shape[0]):
            for e in range(36):
                add(du[other, e, c], du[0, e, c])
        transform_weight_gradient(du[0], c, rows, taps)
        for k in range(9):
            copy(taps[k], dweight[k, c])


@parallel_jit
def _winograd(x, u, bias, residual, top, left, y, rows_at_once, share, num_shares):
    if launched(share, num_shares):
        return
    tile_rows, tiles = (y.shape[1] + 3) // 4, (y.shape[2] + 3) // 4
    channels, outputs = u.shape[1], u.shape[2]
    lines = x.reshape(-1, x.shape[2] * channels)
    start, stop = share_bounds(y.shape[0] * tile_rows, share, num_shares)
    block = max(1, min(rows_at_once, stop - start))
    rows_in = aligned_zeros(6 * (4 * tiles + 2 + left) * channels, x).reshape(6, -1, channels)
    rows_out = aligned_empty(24 * tiles * outputs, x).reshape(24, -1, outputs)
    line = aligned_empty(4 * tiles * outputs, x).reshape(-1, outputs)
    v = aligned_empty(36 * (block * tiles + 1) * channels, x).reshape(36, -1, channels)
    m = aligned_empty(36 * (block * tiles + 1) * outputs, x).reshape(36, -1, outputs)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        count = (last - first) * tiles
        transform_inputs(lines, x.shape[1], first, last, tile_rows, tiles, top, left, rows_in, v, 0)
        for e in range(36):
            multiply(v[e, :count], u[e], m[e, :count], False)
        transform_outputs(m, first, last, tile_rows, tiles, rows_out, line, bias, residual, y, 0)


@parallel_jit
def _weight_gradient(x, dy, top, left, du, dbias, rows_at_once, share, num_shares):
    if launched(share, num_shares):
        return
    tile_rows, tiles = (dy.shape[1] + 3) // 4, (dy.shape[2] + 3) // 4
    channels, outputs = x.shape[3], dy.shape[3]
    lines, dlines = x.reshape(-1, x.shape[2] * channels), dy.reshape(-1, dy.shape[2] * outputs)
    start, stop = share_bounds(dy.shape[0] * tile_rows, share, num_shares)
    block = max(1, min(rows_at_once, stop - start))
    rows_in = aligned_zeros(6 * (4 * tiles + 2 + left) * channels, x).reshape(6, -1, channels)
    rows_out = aligned_zeros(6 * 4 * tiles * outputs, x).reshape(6, -1, outputs)
    v = aligned_empty(36 * (block * tiles + 1) * channels, x).reshape(36, -1, channels)
    m = aligned_empty(36 * (block * tiles + 1) * outputs, x).reshape(36, -1, outputs)
    if start == stop:
        du[share] = 0
    for first in range(start, stop, block):
        last = min(first + block, stop)
        count = (last - first) * tiles
        transform_inputs(lines, x.shape[1], first, last, tile_rows, tiles, top, left, rows_in, v, 0)
        transform_output_gradients(dlines, dy.shape[1], first, last, tile_rows, tiles, rows_out, m, 0)
        for e in range(36):
            multiply(v[e, :count].T, m[e, :count], du[share, e], first > start)
    start, stop = share_bounds(dy.shape[0] * dy.shape[1], share, num_shares)
    sums = np.empty(outputs, x.dtype)
    for line in range(start, stop):
        sums[:] = 0
        pixels = dlines[line].reshape(-1, outputs)
        for p in range(pixels.shape[0]):
            add(pixels[p], sums)
        add(sums, dbias[share])


def applies(geometry: Geometry) -> bool:
    """Whether a convolution of this geometry can be done by Winograd's algorithm: 3x3, stride 1, dilation 1."""
    return geometry[:4] == (3, 3, 1, 1) and geometry[8:] == (1, 1)


def count_tiles(batch: int, out_height: int, out_width: int) -> int:
    """How many tiles there are in all images together."""
    return batch * -(-out_height // 4) * -(-out_width // 4)


def blocks(out_height: int, out_width: int, batch: int, channels: int, outputs: int) -> tuple[int, int]:
    """How many tile rows to multiply at a time, and into how many shares to split all of them."""
    tile_rows, tiles = -(-out_height // 4), -(-out_width // 4)
    at_once = min(TILES, small_product_limit() // (channels * outputs) or TILES)
    num_shares = shares(36 * batch * tile_rows * tiles * channels * outputs, GRAIN)
    return max(1, (at_once if at_once >= 12 else TILES) // tiles), max(1, min(num_shares, batch * tile_rows))


def taps_of(weight: np.ndarray) -> tuple[np.ndarray, bool]:
    """A weight (O, C, 3, 3) as (9, C, O) and False; or, if it is the turned view by which gradients of inputs are convolved, what lies in
    memory, (9, O, C), and True: a copy is made of neither."""
    matrix, original = weight.transpose(2, 3, 1, 0), weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    if original.flags.c_contiguous and not matrix.flags.c_contiguous:
        return original.reshape(9, *original.shape[2:]), True
    return np.ascontiguousarray(matrix).reshape(9, *matrix.shape[2:]), False


def winograd(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, residual: np.ndarray | None = None
) -> np.ndarray:
    """A 3x3 convolution of stride 1, as :func:`hcrot.kernels.conv.conv2d`: the same arguments and, but for rounding, the same result."""
    outputs, channels = weight.shape[:2]
    out_height, out_width = output_size(x.shape[2], x.shape[3], geometry)
    taps, turned = taps_of(weight)
    offsets = np.zeros((1, outputs), x.dtype) if bias is None else np.ascontiguousarray(bias).reshape(-1, outputs)
    rest = np.empty((0, 0, 0, outputs), x.dtype) if residual is None else channels_last(residual)
    y = np.empty((x.shape[0], out_height, out_width, outputs), x.dtype)
    if is_wide(channels, outputs, count_tiles(x.shape[0], out_height, out_width)):
        wide(channels_last(x), taps, turned, offsets, rest, geometry[4], geometry[6], y)
        return channels_first(y)
    u = np.empty((36, channels, outputs), x.dtype)
    rows_at_once, num_shares = blocks(out_height, out_width, x.shape[0], channels, outputs)
    _transform_weight(taps, turned, u, min(num_shares, channels))
    _winograd(channels_last(x), u, offsets, rest, geometry[4], geometry[6], y, rows_at_once, num_shares)
    return channels_first(y)


def winograd_reference(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, residual: np.ndarray | None = None
) -> np.ndarray:
    """:func:`winograd` in plain NumPy: the transforms as matrix products, over all tiles at once."""
    v = patches_of(x, geometry) @ INPUT_TRANSFORM.T
    v = INPUT_TRANSFORM @ v
    u = KERNEL_TRANSFORM @ weight @ KERNEL_TRANSFORM.T
    m = np.einsum("btscij,ocij->btsoij", v, u)
    y = OUTPUT_TRANSFORM @ m @ OUTPUT_TRANSFORM.T
    y = y.transpose(0, 3, 1, 4, 2, 5).reshape(x.shape[0], weight.shape[0], 4 * y.shape[1], 4 * y.shape[2])
    out_height, out_width = output_size(x.shape[2], x.shape[3], geometry)
    y = y[:, :, :out_height, :out_width].astype(x.dtype)
    if bias is not None:
        y = y + bias.reshape(-1, weight.shape[0], 1, 1)
    return y if residual is None else y + residual


def patches_of(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The 6x6 inputs of each tile: (B, tile rows, tiles, C, 6, 6), zeros outside the image."""
    out_height, out_width = output_size(x.shape[2], x.shape[3], geometry)
    down, across = -(-out_height // 4), -(-out_width // 4)
    top, left = geometry[4], geometry[6]
    padded = np.zeros((*x.shape[:2], 4 * down + 2 + top + 3, 4 * across + 2 + left + 3), x.dtype)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    axes: Any = (2, 3)  # by the annotations of NumPy 2.0 there can be only one
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=axes)[:, :, : 4 * down : 4, : 4 * across : 4]
    return tiles.transpose(0, 2, 3, 1, 4, 5)


def winograd_weight_gradient(x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of :func:`winograd` with respect to weight and bias, as :func:`hcrot.kernels.conv.conv2d_weight_gradient`."""
    channels, outputs = x.shape[1], dy.shape[1]
    if is_wide(channels, outputs, count_tiles(dy.shape[0], *dy.shape[2:])):
        dweight = wide_weight_gradient(channels_last(x), channels_last(dy), geometry[4], geometry[6])
        dbias = pixel_sums(dy).sum(axis=0, dtype=np.float64).astype(x.dtype)
        return dweight.reshape(3, 3, channels, outputs).transpose(3, 2, 0, 1), dbias
    rows_at_once, num_shares = blocks(dy.shape[2], dy.shape[3], dy.shape[0], channels, outputs)
    du = np.empty((num_shares, 36, channels, outputs), x.dtype)
    dbias = np.zeros((num_shares, outputs))  # float64: a sum over all pixels of a batch can be long
    dweight = np.empty((9, channels, outputs), x.dtype)
    _weight_gradient(channels_last(x), channels_last(dy), geometry[4], geometry[6], du, dbias, rows_at_once, num_shares)
    _transform_weight_gradient(du, dweight, min(num_shares, channels))
    return dweight.reshape(3, 3, channels, outputs).transpose(3, 2, 0, 1), dbias.sum(axis=0).astype(x.dtype)


def winograd_weight_gradient_reference(x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """:func:`winograd_weight_gradient` in plain NumPy."""
    v = INPUT_TRANSFORM @ patches_of(x, geometry) @ INPUT_TRANSFORM.T
    batch, outputs, out_height, out_width = dy.shape
    down, across = v.shape[1:3]
    padded = np.zeros((batch, outputs, 4 * down, 4 * across), dy.dtype)
    padded[:, :, :out_height, :out_width] = dy
    tiles = padded.reshape(batch, outputs, down, 4, across, 4).transpose(0, 2, 4, 1, 3, 5)
    dm = OUTPUT_TRANSFORM.T @ tiles @ OUTPUT_TRANSFORM
    du = np.einsum("btscij,btsoij->ocij", v, dm)
    dweight = KERNEL_TRANSFORM.T @ du @ KERNEL_TRANSFORM
    return dweight.astype(x.dtype), dy.sum(axis=(0, 2, 3))
