"""The two-dimensional transforms of Winograd's F(4x4, 3x3), whose derivation is in ``winograd.py``, from images and weights and back.

Notation: B images, C channels in, O out, tiles of 4x4 output pixels in tile rows, (e) one of the 36 points.
"""

import numpy as np

from hcrot.kernels.im2col import add, copy, sum_of
from hcrot.kernels.jit import jit
from hcrot.kernels.winograd_transforms import (
    transform_input,
    transform_kernel,
    transform_kernel_adjoint,
    transform_output,
    transform_output_adjoint,
)

__all__ = [
    "TILES", "image_row", "transform_input_rows", "transform_inputs", "transform_output_gradients", "transform_outputs",
    "transform_weight_gradient", "transform_weights",
]  # fmt: skip

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
def transform_inputs(x, height, first, last, tile_rows, tiles, top, left, rows, v, tile):
    """``V = B^T d B`` for tile rows ``first <= row < last``.

    Args:
        x: (B H, W C). tile_rows, tiles: how many of them an image, a row has. rows: a buffer (6, pixels, C), zeros at first.
        v: (36, >= tiles, C), written from ``tile`` on.
    """
    nothing = np.zeros(x.shape[1], x.dtype)
    for row in range(first, last):
        transform_input_rows(x, height, row // tile_rows, 4 * (row % tile_rows) - top, left, nothing, rows)
        for i in range(6):
            e, d = 6 * i, rows[i]
            for t in range(tiles):
                p, n = 4 * t, tile + t
                transform_input(
                    d[p], d[p + 1], d[p + 2], d[p + 3], d[p + 4], d[p + 5],
                    v[e, n], v[e + 1, n], v[e + 2, n], v[e + 3, n], v[e + 4, n], v[e + 5, n],
                )  # fmt: skip
        tile += tiles


@jit
def transform_output_gradients(dy, height, first, last, tile_rows, tiles, rows, m, tile):
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
        for i in range(6):
            e, d = 6 * i, rows[i]
            for t in range(tiles):
                p, n = 4 * t, tile + t
                transform_output_adjoint(
                    d[p], d[p + 1], d[p + 2], d[p + 3],
                    m[e, n], m[e + 1, n], m[e + 2, n], m[e + 3, n], m[e + 4, n], m[e + 5, n],
                )  # fmt: skip
        tile += tiles


@jit
def transform_outputs(m, first, last, tile_rows, tiles, rows, line, bias, residual, y, output):
    """``Y = A^T M A`` for tile rows ``first <= row < last``, with bias and residual into N channels of the images.

    Args:
        m: (36, >= tiles, N). rows, line: buffers (24, tiles, N), (4 tiles, N).
        bias: (1, O) or (B, O). residual: like y, or empty. y: (B, H, W, O), written to the N channels from ``output`` on.
    """
    end = output + line.shape[1]
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
        offsets = bias[image % bias.shape[0], output:end]
        for i in range(min(4, y.shape[1] - 4 * tile_row)):
            e, k = 6 * i, 4 * tile_row + i
            for t in range(tiles):
                p = 4 * t
                transform_output(
                    rows[e, t], rows[e + 1, t], rows[e + 2, t], rows[e + 3, t], rows[e + 4, t], rows[e + 5, t],
                    line[p], line[p + 1], line[p + 2], line[p + 3],
                )  # fmt: skip
            target = y[image, k]
            for p in range(target.shape[0]):
                sum_of(line[p], offsets, target[p, output:end])
                if residual.size > 0:
                    add(residual[image, k, p, output:end], target[p, output:end])


@jit
def transform_weights(weight, turned, channel, last_channel, output, taps, rows, u):
    """``U = G g G^T`` for input channels ``channel <= c < last_channel`` and the N outputs from ``output`` on.

    Args:
        weight: (9, C, O); or, ``turned`` by 180 degrees and with C and O exchanged, (9, O, C).
        taps, rows: buffers (9, N), (18, N). u: (36, C, N), written.
    """
    for c in range(channel, last_channel):
        for k in range(9):
            if turned:
                for o in range(taps.shape[1]):
                    taps[k, o] = weight[8 - k, output + o, c]
            else:
                copy(weight[k, c, output : output + taps.shape[1]], taps[k])
        for j in range(3):
            transform_kernel(
                taps[j], taps[3 + j], taps[6 + j], rows[j], rows[3 + j], rows[6 + j], rows[9 + j], rows[12 + j], rows[15 + j]
            )
        for i in range(6):
            e, d = 6 * i, 3 * i
            transform_kernel(
                rows[d], rows[d + 1], rows[d + 2], u[e, c], u[e + 1, c], u[e + 2, c], u[e + 3, c], u[e + 4, c], u[e + 5, c]
            )


@jit
def transform_weight_gradient(du, n, rows, taps):
    """``dg = G^T dU G`` for one input channel: ``du[:, n]`` of du (36, N, O) to taps (9, O), with a buffer rows (18, O)."""
    for j in range(6):
        transform_kernel_adjoint(
            du[j, n], du[6 + j, n], du[12 + j, n], du[18 + j, n], du[24 + j, n], du[30 + j, n], rows[j], rows[6 + j], rows[12 + j]
        )
    for i in range(3):
        e, d = 6 * i, 3 * i
        transform_kernel_adjoint(
            rows[e], rows[e + 1], rows[e + 2], rows[e + 3], rows[e + 4], rows[e + 5], taps[d], taps[d + 1], taps[d + 2]
        )
