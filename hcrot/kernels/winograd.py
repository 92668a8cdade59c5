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

Why it is fast: the tiles are dealt out so that what a transform combines are long contiguous rows, 6 in and 6 out, in one loop; tiles of a
block (about 64) and their 36 products stay in the cache of the core that works on them; each product is one call of a single-threaded BLAS.

Notation: B images, C channels in, O out, tiles of 4x4 output pixels, (e) one of the 36 points.
"""

import numpy as np

from hcrot.kernels.im2col import Geometry, add, channels_first, channels_last, output_size
from hcrot.kernels.jit import GRAIN, aligned_empty, aligned_zeros, jit, launched, parallel_jit, share_bounds, shares, small_product_limit
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
"""How many numbers of each of the 36 points to transform at a time: 12 rows of them fit into the first-level cache."""

TILES = 64
"""How many tiles to multiply at a time."""

PADDING = 48
"""Numbers between the rows of a buffer, so that rows written at once do not fall on the same lines of the cache."""


@jit
def image_row(x, image, y, height, nothing):
    """Row y of an image in x (B H, W C); outside it, the zeros in ``nothing``."""
    return x[image * height + y] if 0 <= y < height else nothing


@jit
def deal(rows, size, tile, tiles, patches):
    """Give each tile of a row of tiles its own pixels: pixel ``4 t + j`` of ``rows[i]`` goes to ``patches[size i + j, tile + t]``.

    Args:
        rows: (6, pixels, channels). size: how many pixels along x a tile looks at. patches: (6 size, tiles, channels).
    """
    for i in range(6):
        source = rows[i]
        for j in range(size):
            target = patches[size * i + j, tile : tile + tiles]
            for t in range(tiles):
                for c in range(target.shape[1]):
                    target[t, c] = source[4 * t + j, c]


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
def transform_inputs(x, height, first, last, tile_rows, tiles, top, left, strip, rows, patches, v):
    """``V = B^T d B`` for tile rows ``first <= row < last``.

    Args:
        x: (B H, W C). tile_rows, tiles: how many of them an image, a row has.
        strip: how many tile rows to transform along x at a time. rows, patches: buffers (6, pixels, C), (36, strip * tiles + 1, C).
        v: (36, >= tiles * C), written.
    """
    p = patches.reshape(36, -1)
    tile_row_size = tiles * patches.shape[2]
    nothing = np.zeros(x.shape[1], x.dtype)
    for k in range(first, last, strip):
        count = min(strip, last - k)
        for row in range(count):
            transform_input_rows(x, height, (k + row) // tile_rows, 4 * ((k + row) % tile_rows) - top, left, nothing, rows)
            deal(rows, 6, row * tiles, tiles, patches)
        width, start = count * tile_row_size, (k - first) * tile_row_size
        stop = start + width
        for e in range(0, 36, 6):
            transform_input(
                p[e, :width], p[e + 1, :width], p[e + 2, :width], p[e + 3, :width], p[e + 4, :width], p[e + 5, :width],
                v[e, start:stop], v[e + 1, start:stop], v[e + 2, start:stop],
                v[e + 3, start:stop], v[e + 4, start:stop], v[e + 5, start:stop],
            )  # fmt: skip


@jit
def transform_output_gradients(dy, height, first, last, tile_rows, tiles, strip, rows, patches, m):
    """``dM = A dy A^T`` for tile rows ``first <= row < last``: as :func:`transform_inputs`, with dy (B H, W O) and 4x4 pixels to a tile."""
    p, r = patches.reshape(patches.shape[0], -1), rows.reshape(6, -1)
    tile_row_size = tiles * patches.shape[2]
    nothing = np.zeros(dy.shape[1], dy.dtype)
    line = dy.shape[1]
    for k in range(first, last, strip):
        count = min(strip, last - k)
        for row in range(count):
            image, y = (k + row) // tile_rows, 4 * ((k + row) % tile_rows)
            transform_output_adjoint(
                image_row(dy, image, y, height, nothing), image_row(dy, image, y + 1, height, nothing),
                image_row(dy, image, y + 2, height, nothing), image_row(dy, image, y + 3, height, nothing),
                r[0, :line], r[1, :line], r[2, :line], r[3, :line], r[4, :line], r[5, :line],
            )  # fmt: skip
            deal(rows, 4, row * tiles, tiles, patches)
        width, start = count * tile_row_size, (k - first) * tile_row_size
        stop = start + width
        for i in range(6):
            e, d = 6 * i, 4 * i
            transform_output_adjoint(
                p[d, :width], p[d + 1, :width], p[d + 2, :width], p[d + 3, :width],
                m[e, start:stop], m[e + 1, start:stop], m[e + 2, start:stop],
                m[e + 3, start:stop], m[e + 4, start:stop], m[e + 5, start:stop],
            )  # fmt: skip


@jit
def transform_outputs(m, first, last, tile_rows, tiles, strip, rows, patches, bias, residual, y):
    """``Y = A^T M A`` for tile rows ``first <= row < last``, with bias and residual into the images.

    Args:
        m: (36, >= tiles * O). rows, patches: buffers (24, >= strip * tiles * O), (16, strip * tiles + 1, O).
        bias: (1, O) or (B, O). residual: like y, or empty. y: (B, H, W, O), written.
    """
    p = patches.reshape(16, -1)
    tile_row_size = tiles * patches.shape[2]
    for k in range(first, last, strip):
        count = min(strip, last - k)
        width, start = count * tile_row_size, (k - first) * tile_row_size
        stop = start + width
        for j in range(6):
            transform_output(
                m[j, start:stop], m[6 + j, start:stop], m[12 + j, start:stop],
                m[18 + j, start:stop], m[24 + j, start:stop], m[30 + j, start:stop],
                rows[j, :width], rows[6 + j, :width], rows[12 + j, :width], rows[18 + j, :width],
            )  # fmt: skip
        for i in range(4):
            e, d = 6 * i, 4 * i
            transform_output(
                rows[e, :width], rows[e + 1, :width], rows[e + 2, :width], rows[e + 3, :width], rows[e + 4, :width], rows[e + 5, :width],
                p[d, :width], p[d + 1, :width], p[d + 2, :width], p[d + 3, :width],
            )  # fmt: skip
        for row in range(count):
            image, tile_row = (k + row) // tile_rows, (k + row) % tile_rows
            place(patches, row * tiles, tiles, y[image], tile_row, bias[image % bias.shape[0]])
            if residual.size > 0:
                for i in range(4 * tile_row, min(4 * tile_row + 4, y.shape[1])):
                    add(residual[image, i].reshape(-1), y[image, i].reshape(-1))


@jit
def place(patches, tile, tiles, image, tile_row, bias):
    """Write a row of tiles, plus bias, into an image; what sticks out over its edge is dropped. The adjoint of :func:`deal`.

    Args:
        patches: (16, tiles, O), read from ``tile`` on. image: (H, W, O). bias: (O,).
    """
    for i in range(min(4, image.shape[0] - 4 * tile_row)):
        target = image[4 * tile_row + i]
        for j in range(4):
            source = patches[4 * i + j, tile : tile + tiles]
            for t in range((target.shape[0] - j + 3) // 4):
                for o in range(bias.size):
                    target[4 * t + j, o] = source[t, o] + bias[o]


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
    strip_in, strip_out = max(1, LANES // (tiles * channels)), max(1, LANES // (tiles * outputs))
    rows_in = aligned_zeros(6 * (4 * tiles + 2 + left) * channels, x).reshape(6, -1, channels)
    patches_in = aligned_empty(36 * (strip_in * tiles + 1) * channels, x).reshape(36, -1, channels)
    rows_out = aligned_empty(24 * (strip_out * tiles * outputs + PADDING), x).reshape(24, -1)
    patches_out = aligned_empty(16 * (strip_out * tiles + 1) * outputs, x).reshape(16, -1, outputs)
    v = aligned_empty(36 * (block * tiles * channels + PADDING), x).reshape(36, -1)
    m = aligned_empty(36 * (block * tiles * outputs + PADDING), x).reshape(36, -1)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        count = (last - first) * tiles
        transform_inputs(lines, x.shape[1], first, last, tile_rows, tiles, top, left, strip_in, rows_in, patches_in, v)
        for e in range(36):
            np.dot(v[e, : count * channels].reshape(count, channels), u[e], m[e, : count * outputs].reshape(count, outputs))
        transform_outputs(m, first, last, tile_rows, tiles, strip_out, rows_out, patches_out, bias, residual, y)


@parallel_jit
def _weight_gradient(x, dy, top, left, du, dbias, rows_at_once, share, num_shares):
    if launched(share, num_shares):
        return
    tile_rows, tiles = (dy.shape[1] + 3) // 4, (dy.shape[2] + 3) // 4
    channels, outputs = x.shape[3], dy.shape[3]
    lines, dlines = x.reshape(-1, x.shape[2] * channels), dy.reshape(-1, dy.shape[2] * outputs)
    start, stop = share_bounds(dy.shape[0] * tile_rows, share, num_shares)
    block = max(1, min(rows_at_once, stop - start))
    strip_in, strip_out = max(1, LANES // (tiles * channels)), max(1, LANES // (tiles * outputs))
    rows_in = aligned_zeros(6 * (4 * tiles + 2 + left) * channels, x).reshape(6, -1, channels)
    patches_in = aligned_empty(36 * (strip_in * tiles + 1) * channels, x).reshape(36, -1, channels)
    rows_out = aligned_zeros(6 * 4 * tiles * outputs, x).reshape(6, -1, outputs)
    patches_out = aligned_empty(24 * (strip_out * tiles + 1) * outputs, x).reshape(24, -1, outputs)
    v = aligned_empty(36 * (block * tiles * channels + PADDING), x).reshape(36, -1)
    m = aligned_empty(36 * (block * tiles * outputs + PADDING), x).reshape(36, -1)
    product = np.empty((channels, outputs), x.dtype)
    if start == stop:
        du[share] = 0
    for first in range(start, stop, block):
        last = min(first + block, stop)
        count = (last - first) * tiles
        transform_inputs(lines, x.shape[1], first, last, tile_rows, tiles, top, left, strip_in, rows_in, patches_in, v)
        transform_output_gradients(dlines, dy.shape[1], first, last, tile_rows, tiles, strip_out, rows_out, patches_out, m)
        for e in range(36):
            v_e, m_e = v[e, : count * channels].reshape(count, channels), m[e, : count * outputs].reshape(count, outputs)
            if first == start:
                np.dot(v_e.T, m_e, du[share, e])
            else:
                np.dot(v_e.T, m_e, product)
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
