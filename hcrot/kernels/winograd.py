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
of a single-threaded BLAS.

Notation: B images, C channels in, O out, tiles of 4x4 output pixels, (e) one of the 36 points.
"""

import numpy as np

from hcrot.kernels.im2col import Geometry, add, channels_first, channels_last, output_size
from hcrot.kernels.jit import (
    GRAIN,
    aligned_empty,
    aligned_zeros,
    distinct_jit,
    jit,
    launched,
    parallel_jit,
    share_bounds,
    shares,
    small_product_limit,
)
from hcrot.kernels.winograd_transforms import (
    INPUT_TRANSFORM,
    KERNEL_TRANSFORM,
    OUTPUT_TRANSFORM,
    transform_input,
    transform_kernel,
    transform_kernel_adjoint,
    transform_output,
    transform_output_adjoint,
)

LANES = 512
"""How many entries of the weights to transform at a time: 12 rows of them fit into the first-level cache."""

TILES = 64
"""How many tiles to multiply at a time. Buffers have room for one more, so that the 36 rows of a tile do not fall on the same lines of the
cache."""


@jit
def image_row(x, image, y, height, nothing):
    """Row y of an image in x (B H, W C); outside it, the zeros in ``nothing``."""
    return x[image * height + y] if 0 <= y < height else nothing


@jit
def transform_input_rows(x, height, image, first_y, left, nothing, rows):
    """``B^T d``, along y, of the six image rows from ``first_y`` on.

    Args:
        x: (B H, W C). nothing: W C zeros.
        rows: (6, pixels, C), written from pixel ``left`` on; the pixels on both sides of the image are to be zero.
    """
    r = rows.reshape(6, -1)
    start = left * rows.shape[2]
    stop = start + x.shape[1]
    transform_input(
        image_row(x, image, first_y, height, nothing), image_row(x, image, first_y + 1, height, nothing),
        image_row(x, image, first_y + 2, height, nothing), image_row(x, image, first_y + 3, height, nothing),
        image_row(x, image, first_y + 4, height, nothing), image_row(x, image, first_y + 5, height, nothing),
        r[0, start:stop], r[1, start:stop], r[2, start:stop], r[3, start:stop], r[4, start:stop], r[5, start:stop],
    )  # fmt: skip


@jit
def transform_inputs(x, height, first, last, tile_rows, tiles, top, left, rows, v):
    """``V = B^T d B`` for tile rows ``first <= row < last``.

    Args:
        x: (B H, W C). tile_rows, tiles: how many of them an image, a row has. rows: a buffer (6, pixels, C), zeros at first.
        v: (36, >= tiles, C), written.
    """
    nothing = np.zeros(x.shape[1], x.dtype)
    for row in range(first, last):
        transform_input_rows(x, height, row // tile_rows, 4 * (row % tile_rows) - top, left, nothing, rows)
        tile = (row - first) * tiles
        for i in range(6):
            e, d = 6 * i, rows[i]
            for t in range(tiles):
                p, n = 4 * t, tile + t
                transform_input(
                    d[p], d[p + 1], d[p + 2], d[p + 3], d[p + 4], d[p + 5],
                    v[e, n], v[e + 1, n], v[e + 2, n], v[e + 3, n], v[e + 4, n], v[e + 5, n],
                )  # fmt: skip


@jit
def transform_output_gradients(dy, height, first, last, tile_rows, tiles, rows, m):
    """``dM = A dy A^T`` for tile rows ``first <= row < last``: as :func:`transform_inputs`, with dy (B H, W O) and 4x4 pixels to a tile."""
    r = rows.reshape(6, -1)
    line = dy.shape[1]
    nothing = np.zeros(line, dy.dtype)
    for row in range(first, last):
        image, y = row // tile_rows, 4 * (row % tile_rows)
        transform_output_adjoint(
            image_row(dy, image, y, height, nothing), image_row(dy, image, y + 1, height, nothing),
            image_row(dy, image, y + 2, height, nothing), image_row(dy, image, y + 3, height, nothing),
            r[0, :line], r[1, :line], r[2, :line], r[3, :line], r[4, :line], r[5, :line],
        )  # fmt: skip
        tile = (row - first) * tiles
        for i in range(6):
            e, d = 6 * i, rows[i]
            for t in range(tiles):
                p, n = 4 * t, tile + t
                transform_output_adjoint(
                    d[p], d[p + 1], d[p + 2], d[p + 3],
                    m[e, n], m[e + 1, n], m[e + 2, n], m[e + 3, n], m[e + 4, n], m[e + 5, n],
                )  # fmt: skip


@distinct_jit
def sum_of(a, b, y):
    """``y = a + b``."""
    for k in range(y.size):
        y[k] = a[k] + b[k]


@jit
def transform_outputs(m, first, last, tile_rows, tiles, rows, line, bias, residual, y):
    """``Y = A^T M A`` for tile rows ``first <= row < last``, with bias and residual into the images.

    Args:
        m: (36, >= tiles, O). rows, line: buffers (24, tiles, O), (4 tiles, O).
        bias: (1, O) or (B, O). residual: like y, or empty. y: (B, H, W, O), written.
    """
    flat, r = m.reshape(36, -1), rows.reshape(24, -1)
    width = r.shape[1]
    for row in range(first, last):
        start = (row - first) * width
        stop = start + width
        for j in range(6):
            transform_output(
                flat[j, start:stop], flat[6 + j, start:stop], flat[12 + j, start:stop],
                flat[18 + j, start:stop], flat[24 + j, start:stop], flat[30 + j, start:stop],
                r[j], r[6 + j], r[12 + j], r[18 + j],
            )  # fmt: skip
        image, tile_row = row // tile_rows, row % tile_rows
        for i in range(min(4, y.shape[1] - 4 * tile_row)):
            e = 6 * i
            for t in range(tiles):
                p = 4 * t
                transform_output(
                    rows[e, t], rows[e + 1, t], rows[e + 2, t], rows[e + 3, t], rows[e + 4, t], rows[e + 5, t],
                    line[p], line[p + 1], line[p + 2], line[p + 3],
                )  # fmt: skip
            target = y[image, 4 * tile_row + i]
            for p in range(target.shape[0]):
                sum_of(line[p], bias[image % bias.shape[0]], target[p])
            if residual.size > 0:
                add(residual[image, 4 * tile_row + i].reshape(-1), target.reshape(-1))


@parallel_jit
def _transform_weight(weight, u, share, num_shares):
    """``U = G g G^T`` for a share of the entries of the (C, O) plane: weight (9, C O) to u (36, C O)."""
    if launched(share, num_shares):
        return
    start, stop = share_bounds(weight.shape[1], share, num_shares)
    rows = np.empty((18, min(LANES, stop - start)), weight.dtype)
    for k in range(start, stop, LANES):
        z = min(k + LANES, stop)
        n = z - k
        for j in range(3):
            transform_kernel(
                weight[j, k:z], weight[3 + j, k:z], weight[6 + j, k:z],
                rows[j, :n], rows[3 + j, :n], rows[6 + j, :n], rows[9 + j, :n], rows[12 + j, :n], rows[15 + j, :n],
            )  # fmt: skip
        for i in range(6):
            e, d = 6 * i, 3 * i
            transform_kernel(
                rows[d, :n], rows[d + 1, :n], rows[d + 2, :n],
                u[e, k:z], u[e + 1, k:z], u[e + 2, k:z], u[e + 3, k:z], u[e + 4, k:z], u[e + 5, k:z],
            )  # fmt: skip


@parallel_jit
def _transform_weight_gradient(du, dweight, share, num_shares):
    """``dg = G^T dU G`` for a share of the entries: du (shares, 36, C O), added up in its first share, to dweight (9, C O)."""
    if launched(share, num_shares):
        return
    start, stop = share_bounds(dweight.shape[1], share, num_shares)
    rows = np.empty((18, min(LANES, stop - start)), du.dtype)
    for k in range(start, stop, LANES):
        z = min(k + LANES, stop)
        n = z - k
        u = du[0]
        for other in range(1, du.shape[0]):
            for e in range(36):
                add(du[other, e, k:z], u[e, k:z])
        for j in range(6):
            transform_kernel_adjoint(
                u[j, k:z], u[6 + j, k:z], u[12 + j, k:z], u[18 + j, k:z], u[24 + j, k:z], u[30 + j, k:z],
                rows[j, :n], rows[6 + j, :n], rows[12 + j, :n],
            )  # fmt: skip
        for i in range(3):
            e, d = 6 * i, 3 * i
            transform_kernel_adjoint(
                rows[e, :n], rows[e + 1, :n], rows[e + 2, :n], rows[e + 3, :n], rows[e + 4, :n], rows[e + 5, :n],
                dweight[d, k:z], dweight[d + 1, k:z], dweight[d + 2, k:z],
            )  # fmt: skip


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
        transform_inputs(lines, x.shape[1], first, last, tile_rows, tiles, top, left, rows_in, v)
        for e in range(36):
            np.dot(v[e, :count], u[e], m[e, :count])
        transform_outputs(m, first, last, tile_rows, tiles, rows_out, line, bias, residual, y)


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
    product = np.empty((channels, outputs), x.dtype)
    if start == stop:
        du[share] = 0
    for first in range(start, stop, block):
        last = min(first + block, stop)
        count = (last - first) * tiles
        transform_inputs(lines, x.shape[1], first, last, tile_rows, tiles, top, left, rows_in, v)
        transform_output_gradients(dlines, dy.shape[1], first, last, tile_rows, tiles, rows_out, m)
        for e in range(36):
            if first == start:
                np.dot(v[e, :count].T, m[e, :count], du[share, e])
            else:
                np.dot(v[e, :count].T, m[e, :count], product)
                add(product.reshape(-1), du[share, e].reshape(-1))
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


def blocks(out_height: int, out_width: int, batch: int, channels: int, outputs: int) -> tuple[int, int]:
    """How many tile rows to multiply at a time, and into how many shares to split all of them."""
    tile_rows, tiles = -(-out_height // 4), -(-out_width // 4)
    at_once = min(TILES, small_product_limit() // (channels * outputs) or TILES)
    num_shares = shares(36 * batch * tile_rows * tiles * channels * outputs, GRAIN)
    return max(1, (at_once if at_once >= 12 else TILES) // tiles), max(1, min(num_shares, batch * tile_rows))


def winograd(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, residual: np.ndarray | None = None
) -> np.ndarray:
    """A 3x3 convolution of stride 1, as :func:`hcrot.kernels.conv.conv2d`: the same arguments and, but for rounding, the same result."""
    outputs, channels = weight.shape[:2]
    out_height, out_width = output_size(x.shape[2], x.shape[3], geometry)
    matrix = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(9, channels * outputs)
    offsets = np.zeros((1, outputs), x.dtype) if bias is None else np.ascontiguousarray(bias).reshape(-1, outputs)
    rest = np.empty((0, 0, 0, outputs), x.dtype) if residual is None else channels_last(residual)
    y = np.empty((x.shape[0], out_height, out_width, outputs), x.dtype)
    u = np.empty((36, channels, outputs), x.dtype)
    rows_at_once, num_shares = blocks(out_height, out_width, x.shape[0], channels, outputs)
    _transform_weight(matrix, u.reshape(36, -1), num_shares)
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
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), axis=(2, 3))[:, :, : 4 * down : 4, : 4 * across : 4]
    return tiles.transpose(0, 2, 3, 1, 4, 5)


def winograd_weight_gradient(x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of :func:`winograd` with respect to weight and bias, as :func:`hcrot.kernels.conv.conv2d_weight_gradient`."""
    channels, outputs = x.shape[1], dy.shape[1]
    rows_at_once, num_shares = blocks(*dy.shape[2:], dy.shape[0], channels, outputs)
    du = np.empty((num_shares, 36, channels, outputs), x.dtype)
    dbias = np.zeros((num_shares, outputs))  # float64: a sum over all pixels of a batch can be long
    dweight = np.empty((9, channels * outputs), x.dtype)
    _weight_gradient(channels_last(x), channels_last(dy), geometry[4], geometry[6], du, dbias, rows_at_once, num_shares)
    _transform_weight_gradient(du.reshape(num_shares, 36, -1), dweight, num_shares)
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
