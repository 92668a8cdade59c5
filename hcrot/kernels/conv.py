"""Convolution and its two gradients: each thread unfolds a few output pixels into a buffer of its own and multiplies it away.

Notation: B images, C channels in, O channels out, H x W pixels in, OH x OW out, KH x KW kernel. Memory is channels-last: images are
C-contiguous (B, H, W, C) arrays, weights (KH, KW * C, O). With ``X_i`` the columns of kernel row i, as im2col makes them,

    forward           y = bias + residual + sum_i X_i @ W_i
    weight gradient   dW_i = X_i^T @ dy,   dbias = sum_p dy[p]
    input gradient    dx = fold(dy @ W_i^T), fold the adjoint of unfold;
                      for stride 1 it is the convolution of dy with the kernel turned by 180 degrees

Why it is fast:
- the columns of the whole batch are never made: a block of some hundred pixels stays in the cache of the core that multiplies it;
- parallel once, over pixels: a single image is shared between cores too (but for the input gradient of a stride, which adds up
  overlapping windows and so goes by whole images);
- the products are those of ``product.py``, which read their operands where they lie.
"""

import numpy as np

from hcrot.kernels.im2col import (
    Geometry,
    add,
    channels_first,
    channels_last,
    col2im_reference,
    fold,
    im2col_reference,
    output_size,
    unfold,
)
from hcrot.kernels.jit import GRAIN, jit, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.plain import referenced
from hcrot.kernels.product import multiply, product_of
from hcrot.kernels.winograd import applies, count_tiles, winograd, winograd_weight_gradient
from hcrot.kernels.winograd_wide import is_wide

__all__ = [
    "FLOAT32", "POINTWISE", "ROWS_AT_ONCE", "add_offsets", "conv2d", "conv2d_input_gradient", "conv2d_input_gradient_reference",
    "conv2d_reference", "conv2d_weight_gradient", "conv2d_weight_gradient_reference", "linear", "linear_reference",
    "linear_weight_gradient", "linear_weight_gradient_reference", "uses_winograd", "weight_matrix", "winograd_pays",
]  # fmt: skip

FLOAT32 = np.dtype(np.float32)

POINTWISE: Geometry = (1, 1, 1, 1, 0, 0, 0, 0, 1, 1)
"""The geometry of a 1x1 convolution."""

ROWS_AT_ONCE = 256
"""How many output pixels to unfold at a time: enough for long products, while the columns, of up to some hundred channels, stay in the
second-level cache."""


@jit
def add_offsets(bias, residual, first, out_pixels, rows):
    """Add to the output pixels ``first ...`` their bias, one row for all images or one for each, and their residual, if there is one."""
    for p in range(rows.shape[0]):
        add(bias[(first + p) // out_pixels % bias.shape[0]], rows[p])
        if residual.size > 0:
            add(residual[first + p], rows[p])


@parallel_jit
def _conv2d(product, x, weight, bias, residual, geometry, y, block, share, num_shares):
    if launched(share, num_shares):
        return
    out_h, out_w, outputs = y.shape[1], y.shape[2], y.shape[3]
    kernel_h, depth = weight.shape[0], weight.shape[1]
    pixels = y.shape[0] * out_h * out_w
    out = y.reshape(pixels, outputs)
    pointwise = geometry == POINTWISE
    start, stop = share_bounds(pixels, share, num_shares)
    columns = np.empty((kernel_h, block, depth), x.dtype)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        rows = last - first
        if pointwise:
            multiply(product, x.reshape(pixels, depth)[first:last], weight[0], out[first:last], False)
            add_offsets(bias, residual, first, out_h * out_w, out[first:last])
        else:
            unfold(x, first, last, geometry, out_h, out_w, columns.reshape(columns.size), block * depth, depth)
            for i in range(kernel_h):
                multiply(product, columns[i, :rows], weight[i], out[first:last], i > 0)
            add_offsets(bias, residual, first, out_h * out_w, out[first:last])


@parallel_jit
def _conv2d_weight_gradient(product, x, dy, geometry, dweight, dbias, block, share, num_shares):
    if launched(share, num_shares):
        return
    out_h, out_w, outputs = dy.shape[1], dy.shape[2], dy.shape[3]
    kernel_h, depth = dweight.shape[1], dweight.shape[2]
    pixels = dy.shape[0] * out_h * out_w
    dout = dy.reshape(pixels, outputs)
    pointwise = geometry == POINTWISE
    start, stop = share_bounds(pixels, share, num_shares)
    columns = np.empty((kernel_h, block, depth), x.dtype)
    sums = np.empty(outputs, x.dtype)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        if not pointwise:
            unfold(x, first, last, geometry, out_h, out_w, columns.reshape(columns.size), block * depth, depth)
        for i in range(kernel_h):
            rows = x.reshape(pixels, depth)[first:last] if pointwise else columns[i, : last - first]
            multiply(product, rows.T, dout[first:last], dweight[share, i], True)
        sums.fill(0)
        for p in range(first, last):
            add(dout[p], sums)
        add(sums, dbias[share])


@parallel_jit
def _conv2d_input_gradient(product, dy, weight_t, geometry, dx, block, share, num_shares):
    if launched(share, num_shares):
        return
    out_h, out_w, outputs = dy.shape[1], dy.shape[2], dy.shape[3]
    kernel_h, depth = weight_t.shape[0], weight_t.shape[2]
    dout = dy.reshape(dy.shape[0] * out_h * out_w, outputs)
    # whole images, so that no two shares add to the same pixel
    first_image, last_image = share_bounds(dy.shape[0], share, num_shares)
    start, stop = first_image * out_h * out_w, last_image * out_h * out_w
    columns = np.empty((kernel_h, block, depth), dy.dtype)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        for i in range(kernel_h):
            multiply(product, dout[first:last], weight_t[i], columns[i, : last - first], False)
        fold(dx, first, last, geometry, out_h, out_w, columns.reshape(columns.size), block * depth, depth)


def weight_matrix(weight: np.ndarray) -> np.ndarray:
    """The (KH, KW * C, O) matrices of a weight (O, C, KH, KW): a view if its memory is (KH, KW, C, O), as Conv2d keeps it, else a copy."""
    outputs, channels, kernel_h, kernel_w = weight.shape
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(kernel_h, kernel_w * channels, outputs)


def winograd_pays(dtype: np.dtype, geometry: Geometry, batch: int, out_height: int, out_width: int, channels: int, outputs: int) -> bool:
    """Whether ``algorithm="auto"`` takes Winograd's algorithm for a convolution.

    It needs a quarter of the products, so it pays where the 4x4 tiles are mostly full (a 2x2 image fills a quarter of one), where
    there are more of them than the transform of the weights costs (about as much as 20 tiles; less where it never leaves the cache), and
    where there are enough channels to add up in a product. Measured on Zen 4 over 30 shapes at batch 1 to 64: nearly all that are taken
    are faster, by up to 4 times. float64, which is for checking gradients, is left to im2col.
    """
    if channels < 16 or not applies(geometry) or dtype != FLOAT32:
        return False
    tiles = count_tiles(batch, out_height, out_width)
    return (2 if is_wide(channels, outputs, tiles) else 6) * (tiles + 20) <= batch * out_height * out_width


def uses_winograd(algorithm: str, x: np.ndarray, geometry: Geometry, outputs: int, out_height: int, out_width: int) -> bool:
    """What an ``algorithm`` ("auto", "im2col" or "winograd") comes to for an input (B, C, H, W).

    The input gradient of a padding above 2 is a convolution whose padding is below 0: one that begins inside the image. Winograd's tiles
    begin at its edge or before.
    """
    if min(geometry[4:8]) < 0:
        return False
    if algorithm == "auto":
        return winograd_pays(x.dtype, geometry, x.shape[0], out_height, out_width, x.shape[1], outputs)
    return algorithm == "winograd" and x.dtype == FLOAT32


@referenced
def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: Geometry,
    residual: np.ndarray | None = None,
    algorithm: str = "auto",
) -> np.ndarray:
    """Cross-correlate images with kernels, as deep learning's convolution does.

        y[b, o, oy, ox] = bias[b, o] + residual[b, o, oy, ox] + sum_{c, i, j} weight[o, c, i, j] x[b, c, y_i, x_j]
        y_i = oy stride_h - top + i dilation_h,   x_j = ox stride_w - left + j dilation_w,   x = 0 over the edge

    Args:
        x: (B, C, H, W). weight: (O, C, KH, KW). All of one dtype, float32 or float64.
        bias: (O,), or (B, O) for one per image, or None.
        geometry: from :func:`~hcrot.kernels.im2col.make_geometry`.
        residual: (B, O, OH, OW) or None, added where the result is written, which saves a pass through memory.
        algorithm: "im2col"; "winograd" (3x3, stride 1 and dilation 1 only; float64 takes im2col all the same); "auto": the faster.

    Returns:
        y (B, O, OH, OW), memory channels-last.
    """
    out_h, out_w = output_size(x.shape[2], x.shape[3], geometry)
    if uses_winograd(algorithm, x, geometry, weight.shape[0], out_h, out_w):
        return winograd(x, weight, bias, geometry, residual)
    y = np.empty((x.shape[0], out_h, out_w, weight.shape[0]), x.dtype)
    rest = None if residual is None else channels_last(residual)
    _convolve(channels_last(x), weight_matrix(weight), bias, geometry, rest, y)
    return channels_first(y)


def _convolve(
    x: np.ndarray, matrix: np.ndarray, bias: np.ndarray | None, geometry: Geometry, residual: np.ndarray | None, y: np.ndarray
) -> None:
    """Write :func:`conv2d` by im2col to y: x, residual and y channels-last, ``matrix`` a :func:`weight_matrix`."""
    _, depth, outputs = matrix.shape
    pixels = y.size // outputs
    offsets = np.zeros((1, outputs), y.dtype) if bias is None else np.ascontiguousarray(bias).reshape(-1, outputs)
    rest = np.empty((0, outputs), y.dtype) if residual is None else residual.reshape(pixels, outputs)
    num_shares = shares(pixels * matrix.size, GRAIN)
    block = min(ROWS_AT_ONCE, -(-pixels // num_shares))
    _conv2d(product_of(x.dtype), x, matrix, offsets, rest, geometry, y, block, num_shares)


def conv2d_reference(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: Geometry,
    residual: np.ndarray | None = None,
    algorithm: str = "auto",
) -> np.ndarray:
    """:func:`conv2d` in plain NumPy: im2col of everything, one product, whatever the algorithm."""
    out_h, out_w = output_size(x.shape[2], x.shape[3], geometry)
    columns = im2col_reference(x, *_arguments(geometry))
    y = columns @ weight.transpose(2, 3, 1, 0).reshape(columns.shape[1], -1)
    y = channels_first(y.reshape(x.shape[0], out_h, out_w, -1))
    if bias is not None:
        y = y + bias.reshape(-1, weight.shape[0], 1, 1)
    return y if residual is None else y + residual


@referenced
def conv2d_weight_gradient(
    x: np.ndarray, dy: np.ndarray, geometry: Geometry, algorithm: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of a loss with respect to weight and bias of :func:`conv2d`.

        dweight[o, c, i, j] = sum_{b, oy, ox} dy[b, o, oy, ox] x[b, c, y_i, x_j]
        dbias[o] = sum_{b, oy, ox} dy[b, o, oy, ox]

    Args:
        x: (B, C, H, W), the input of the forward pass. dy: (B, O, OH, OW), the gradient of its output.
        geometry, algorithm: as in the forward pass.

    Returns:
        dweight (O, C, KH, KW), its memory ordered (KH, KW, C, O), and dbias (O,).
    """
    if uses_winograd(algorithm, x, geometry, *dy.shape[1:]):
        return winograd_weight_gradient(x, dy, geometry)
    kernel_h, kernel_w = geometry[:2]
    channels, outputs = x.shape[1], dy.shape[1]
    depth = kernel_w * channels
    pixels = dy.shape[0] * dy.shape[2] * dy.shape[3]
    num_shares = shares(pixels * kernel_h * depth * outputs, GRAIN)
    dweight = np.zeros((num_shares, kernel_h, depth, outputs), x.dtype)
    dbias = np.zeros((num_shares, outputs))  # float64: a sum over all pixels of a batch can be long
    block = min(ROWS_AT_ONCE, -(-pixels // num_shares))
    _conv2d_weight_gradient(
        product_of(x.dtype), channels_last(x), channels_last(dy), geometry, dweight, dbias, block, num_shares
    )
    return dweight.sum(axis=0).reshape(kernel_h, kernel_w, channels, outputs).transpose(3, 2, 0, 1), dbias.sum(axis=0).astype(x.dtype)


def conv2d_weight_gradient_reference(
    x: np.ndarray, dy: np.ndarray, geometry: Geometry, algorithm: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`conv2d_weight_gradient` in plain NumPy: ``columns^T @ dy``."""
    columns = im2col_reference(x, *_arguments(geometry))
    dout = dy.transpose(0, 2, 3, 1).reshape(-1, dy.shape[1])
    dweight = (columns.T @ dout).reshape(*geometry[:2], x.shape[1], dy.shape[1])
    return dweight.transpose(3, 2, 0, 1), dout.sum(axis=0)


@referenced
def conv2d_input_gradient(
    dy: np.ndarray, weight: np.ndarray, geometry: Geometry, height: int, width: int, algorithm: str = "auto"
) -> np.ndarray:
    """The gradient of a loss with respect to the input of :func:`conv2d`; also the forward pass of a transposed convolution.

        dx[b, c, y, x] = the sum of dy[b, o, oy, ox] weight[o, c, i, j] over all (o, oy, ox, i, j) whose tap (oy, ox, i, j) lies on (y, x)

    Args:
        dy: (B, O, OH, OW). weight: (O, C, KH, KW).
        geometry, algorithm: as in the forward pass. height, width: H and W of the input.

    Returns:
        dx (B, C, H, W), memory channels-last.
    """
    kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = geometry
    outputs, channels = weight.shape[:2]
    if (stride_h, stride_w) == (1, 1):
        turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        reach_h, reach_w = dilation_h * (kernel_h - 1), dilation_w * (kernel_w - 1)
        sides = (reach_h - top, reach_h - bottom, reach_w - left, reach_w - right)
        return conv2d(dy, turned, None, (kernel_h, kernel_w, 1, 1, *sides, dilation_h, dilation_w), None, algorithm)
    transposed = np.ascontiguousarray(weight.transpose(2, 0, 3, 1)).reshape(kernel_h, outputs, kernel_w * channels)
    dx = np.zeros((dy.shape[0], height, width, channels), dy.dtype)
    _conv2d_input_gradient(product_of(dy.dtype), channels_last(dy), transposed, geometry, dx, ROWS_AT_ONCE, shares(dy.shape[0], 1))
    return channels_first(dx)


def conv2d_input_gradient_reference(
    dy: np.ndarray, weight: np.ndarray, geometry: Geometry, height: int, width: int, algorithm: str = "auto"
) -> np.ndarray:
    """:func:`conv2d_input_gradient` in plain NumPy: ``col2im(dy @ weight^T)``."""
    outputs, channels = weight.shape[:2]
    columns = dy.transpose(0, 2, 3, 1).reshape(-1, outputs) @ weight.transpose(0, 2, 3, 1).reshape(outputs, -1)
    return col2im_reference(columns, (dy.shape[0], channels, height, width), *_arguments(geometry))


def _arguments(geometry: Geometry) -> tuple:
    """A geometry as the arguments (kernel_size, stride, padding, dilation) of im2col."""
    return geometry[:2], geometry[2:4], geometry[4:8], geometry[8:]


@referenced
def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None = None) -> np.ndarray:
    """``x W^T + b + residual`` over the last axis, as a 1x1 convolution whose pixels are the rows.

    Args:
        x: (..., I). weight: (O, I), fastest if its memory is ordered (I, O). bias: (O,) or None. residual: (..., O) or None.

    Returns:
        (..., O), C-contiguous.
    """
    outputs, features = weight.shape
    y = np.empty((*x.shape[:-1], outputs), x.dtype)
    rows = np.ascontiguousarray(x).reshape(-1, 1, 1, features)
    matrix = np.ascontiguousarray(weight.T).reshape(1, features, outputs)
    rest = None if residual is None else np.ascontiguousarray(residual)
    _convolve(rows, matrix, bias, POINTWISE, rest, y.reshape(-1, 1, 1, outputs))
    return y


def linear_reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None = None) -> np.ndarray:
    """:func:`linear` in plain NumPy."""
    y = x @ weight.T
    y = y if bias is None else y + bias
    return y if residual is None else y + residual


@referenced
def linear_weight_gradient(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``dW = dy^T x`` and ``db = sum dy`` for x (..., I) and dy (..., O): (O, I), its memory ordered (I, O), and (O,)."""
    rows, drows = (np.ascontiguousarray(a).reshape(-1, a.shape[-1], 1, 1) for a in (x, dy))
    dweight, dbias = conv2d_weight_gradient(rows, drows, POINTWISE)
    return dweight[:, :, 0, 0], dbias


def linear_weight_gradient_reference(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`linear_weight_gradient` in plain NumPy."""
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return drows.T @ rows, drows.sum(axis=0)
