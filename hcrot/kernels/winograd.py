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

Why it is fast: a transform takes vectors of channels, 6 in and 6 out, through the registers; the tiles of a block (about 64) and their 36
products stay in the cache of the core that works on them. Layers whose weights weigh more than their images go another way, in
``winograd_wide.py``.

The one-dimensional transforms are in ``winograd_transforms.py``, those of tiles and weights in ``winograd_tiles.py``.

Notation: B images, C channels in, O out, tiles of 4x4 output pixels, (e) one of the 36 points.
"""

from typing import Any

import numpy as np

from hcrot.kernels.channels import pixel_sums
from hcrot.kernels.im2col import Geometry, add, channels_first, channels_last, output_size
from hcrot.kernels.jit import GRAIN, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.plain import referenced
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
from hcrot.kernels.winograd_transforms import INPUT_TRANSFORM, KERNEL_TRANSFORM, OUTPUT_TRANSFORM
from hcrot.kernels.winograd_wide import TILES, is_wide, wide, wide_weight_gradient

__all__ = [
    "applies", "blocks", "count_tiles", "patches_of", "taps_of", "winograd", "winograd_reference", "winograd_weight_gradient",
    "winograd_weight_gradient_reference",
]  # fmt: skip


@parallel_jit
def _transform_weight(weight, turned, u, share, num_shares):
    """U (36, pitch) of a weight, as :func:`transform_weights` takes it."""
    if launched(share, num_shares):
        return
    channels, outputs = (weight.shape[2], weight.shape[1]) if turned else (weight.shape[1], weight.shape[2])
    first, last = share_bounds(channels, share, num_shares)
    transform_weights(weight, turned, first, last, 0, outputs, u)


@parallel_jit
def _transform_weight_gradient(du, dweight, share, num_shares):
    """``dg = G^T dU G``: du (shares, 36, pitch), added up in its first share, to dweight (9, C * O)."""
    if launched(share, num_shares):
        return
    first, last = share_bounds(dweight.shape[1], share, num_shares)
    for other in range(1, du.shape[0]):
        for e in range(36):
            add(du[other, e, first:last], du[0, e, first:last])
    points = du[0].reshape(1, 6, 6, du.shape[2])
    transform_kernel_gradient(points, 0, 0, 0, 1, first, last - first, zeros_for(0, 0, du), row_buffer(1, du), dweight, first)


@parallel_jit
def _winograd(product, x, u, bias, residual, top, left, y, rows_at_once, share, num_shares):
    if launched(share, num_shares):
        return
    tile_rows, tiles = (y.shape[1] + 3) // 4, (y.shape[2] + 3) // 4
    channels, outputs = x.shape[3], y.shape[3]
    start, stop = share_bounds(y.shape[0] * tile_rows, share, num_shares)
    block = max(1, min(rows_at_once, stop - start))
    v, m = empty_points(block * tiles * channels, x), empty_points(block * tiles * outputs, x)
    buffer, nothing = row_buffer(tiles, x), zeros_for(x.shape[2], max(channels, outputs), x)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        count = (last - first) * tiles
        for row in range(first, last):
            image, y_first, place = row // tile_rows, 4 * (row % tile_rows) - top, (row - first) * tiles * channels
            transform_input(x, image, y_first, -left, tiles, 0, channels, nothing, buffer, v, place)
        for e in range(36):
            a, b, c = v[e, : count * channels], u[e, : channels * outputs], m[e, : count * outputs]
            multiply(product, a.reshape(count, channels), b.reshape(channels, outputs), c.reshape(count, outputs), False)
        for row in range(first, last):
            image, y_first, place = row // tile_rows, 4 * (row % tile_rows), (row - first) * tiles * outputs
            offsets = bias[image % bias.shape[0]]
            transform_output(m, place, tiles, outputs, offsets, residual, nothing, buffer, y, image, y_first, 0)


@parallel_jit
def _weight_gradient(product, x, dy, top, left, du, dbias, rows_at_once, share, num_shares):
    if launched(share, num_shares):
        return
    tile_rows, tiles = (dy.shape[1] + 3) // 4, (dy.shape[2] + 3) // 4
    channels, outputs = x.shape[3], dy.shape[3]
    start, stop = share_bounds(dy.shape[0] * tile_rows, share, num_shares)
    block = max(1, min(rows_at_once, stop - start))
    v, m = empty_points(block * tiles * channels, x), empty_points(block * tiles * outputs, x)
    buffer, nothing = row_buffer(tiles, x), zeros_for(max(x.shape[2], dy.shape[2]), max(channels, outputs), x)
    if start == stop:
        du[share] = 0
    for first in range(start, stop, block):
        last = min(first + block, stop)
        count = (last - first) * tiles
        for row in range(first, last):
            image, y_first, tile = row // tile_rows, 4 * (row % tile_rows), (row - first) * tiles
            transform_input(x, image, y_first - top, -left, tiles, 0, channels, nothing, buffer, v, tile * channels)
            transform_output_gradient(dy, image, y_first, 0, tiles, 0, outputs, nothing, buffer, m, tile * outputs)
        for e in range(36):
            a, b, c = v[e, : count * channels], m[e, : count * outputs], du[share, e, : channels * outputs]
            multiply(product, a.reshape(count, channels).T, b.reshape(count, outputs), c.reshape(channels, outputs), first > start)
    start, stop = share_bounds(dy.shape[0] * dy.shape[1], share, num_shares)
    sums, lines = np.empty(outputs, x.dtype), dy.reshape(-1, dy.shape[2], outputs)
    for line in range(start, stop):
        sums[:] = 0
        for p in range(lines.shape[1]):
            add(lines[line, p], sums)
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
    num_shares = shares(36 * batch * tile_rows * tiles * channels * outputs, GRAIN)
    return max(1, TILES // tiles), max(1, min(num_shares, batch * tile_rows))


def taps_of(weight: np.ndarray) -> tuple[np.ndarray, bool]:
    """A weight (O, C, 3, 3) as (9, C, O) and False; or, if it is the turned view by which gradients of inputs are convolved, what lies in
    memory, (9, O, C), and True: a copy is made of neither."""
    matrix, original = weight.transpose(2, 3, 1, 0), weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    if original.flags.c_contiguous and not matrix.flags.c_contiguous:
        return original.reshape(9, *original.shape[2:]), True
    return np.ascontiguousarray(matrix).reshape(9, *matrix.shape[2:]), False


@referenced
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
    u = np.empty((36, pitch_for(channels * outputs, x.itemsize)), x.dtype)
    rows_at_once, num_shares = blocks(out_height, out_width, x.shape[0], channels, outputs)
    _transform_weight(taps, turned, u, min(num_shares, channels))
    _winograd(product_of(x.dtype), channels_last(x), u, offsets, rest, geometry[4], geometry[6], y, rows_at_once, num_shares)
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


@referenced
def winograd_weight_gradient(x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of :func:`winograd` with respect to weight and bias, as :func:`hcrot.kernels.conv.conv2d_weight_gradient`."""
    channels, outputs = x.shape[1], dy.shape[1]
    if is_wide(channels, outputs, count_tiles(dy.shape[0], *dy.shape[2:])):
        dweight = wide_weight_gradient(channels_last(x), channels_last(dy), geometry[4], geometry[6])
        dbias = pixel_sums(dy).sum(axis=0, dtype=np.float64).astype(x.dtype)
        return dweight.reshape(3, 3, channels, outputs).transpose(3, 2, 0, 1), dbias
    rows_at_once, num_shares = blocks(dy.shape[2], dy.shape[3], dy.shape[0], channels, outputs)
    du = np.empty((num_shares, 36, pitch_for(channels * outputs, x.itemsize)), x.dtype)
    dbias = np.zeros((num_shares, outputs))  # float64: a sum over all pixels of a batch can be long
    dweight = np.empty((9, channels * outputs), x.dtype)
    _weight_gradient(
        product_of(x.dtype), channels_last(x), channels_last(dy), geometry[4], geometry[6], du, dbias, rows_at_once, num_shares
    )
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
