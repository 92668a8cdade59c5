"""im2col and its adjoint col2im: a convolution as one matrix product (Chellapilla, Puri & Simard 2006).

Notation: B images of C channels and H x W pixels, a KH x KW kernel, OH x OW output pixels. Row ``p = (b, oy, ox)`` of the column matrix
holds the input values that output pixel ``p`` looks at, zeros where it looks over the edge:

    columns[p, (i, j, c)] = x[b, c, oy * stride_h - top + i * dilation_h, ox * stride_w - left + j * dilation_w]

so that ``columns @ weight.transpose(2, 3, 1, 0).reshape(KH * KW * C, O)`` is the convolution. col2im sends each entry back to where it
came from and adds up what meets there. The two are adjoint, ``<im2col(x), c> == <x, col2im(c)>``: that is why the gradient of one is the
other.

Why it is fast: memory is channels-last, so one row is KH runs of KW * C contiguous numbers, each a plain copy.
"""

import numpy as np

from hcrot.init import is_int
from hcrot.kernels.jit import distinct_jit, jit, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.plain import referenced

__all__ = [
    "Geometry", "add", "channels_first", "channels_last", "col2im", "col2im_reference", "copy", "fold", "im2col", "im2col_reference",
    "make_geometry", "output_size", "pair", "sum_of", "unfold",
]  # fmt: skip

Geometry = tuple[int, int, int, int, int, int, int, int, int, int]
"""(kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w): all that is fixed about a convolution."""


def pair(value: int | tuple[int, int], name: str, minimum: int = 1) -> tuple[int, int]:
    """``value`` as ``(value_h, value_w)``.

    Raises:
        ValueError: it is neither an int nor two ints, or below ``minimum``; the message begins with ``name``.
    """
    both = (value, value) if is_int(value) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(both) != 2 or not all(is_int(v) and v >= minimum for v in both):
        raise ValueError(f"{name} must be an int or two ints of at least {minimum}, got {value!r}")
    return int(both[0]), int(both[1])


def make_geometry(kernel_size, stride=1, padding=0, dilation=1, name: str = "im2col") -> Geometry:
    """Check and spell out a convolution's geometry.

    Args:
        kernel_size, stride, dilation: an int or ``(h, w)``.
        padding: an int, ``(h, w)``, ``(top, bottom, left, right)``, ``"valid"`` (none), or ``"same"`` (as PyTorch: output as large as the
            input, stride 1 only, an odd pixel going to the bottom and right).
        dilation: distance between kernel taps.
        name: who is asking, for error messages.

    Raises:
        ValueError: names the argument that is wrong.
    """
    kernel = pair(kernel_size, f"{name}: kernel_size")
    step = pair(stride, f"{name}: stride")
    spread = pair(dilation, f"{name}: dilation")
    if padding == "valid":
        sides: tuple[int, ...] = (0, 0, 0, 0)
    elif padding == "same":
        if step != (1, 1):
            raise ValueError(f"{name}: padding 'same' needs stride 1, got stride {step}")
        total_h, total_w = spread[0] * (kernel[0] - 1), spread[1] * (kernel[1] - 1)
        sides = (total_h // 2, total_h - total_h // 2, total_w // 2, total_w - total_w // 2)
    elif isinstance(padding, (tuple, list)) and len(padding) == 4:
        if not all(is_int(side) and side >= 0 for side in padding):
            raise ValueError(f"{name}: padding must be made of ints of at least 0, got {padding!r}")
        sides = tuple(int(side) for side in padding)
    elif isinstance(padding, str):
        raise ValueError(f"{name}: padding must be ints, 'same' or 'valid', got {padding!r}")
    else:
        pad_h, pad_w = pair(padding, f"{name}: padding", minimum=0)
        sides = (pad_h, pad_h, pad_w, pad_w)
    top, bottom, left, right = sides
    return (*kernel, *step, top, bottom, left, right, *spread)


def output_size(height: int, width: int, geometry: Geometry) -> tuple[int, int]:
    """``(OH, OW)``: how many places the kernel finds, ``(size + padding - dilation (kernel - 1) - 1) // stride + 1``; at most 0 if none."""
    kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = geometry
    out_h = (height + top + bottom - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    out_w = (width + left + right - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    return out_h, out_w


def channels_last(x: np.ndarray) -> np.ndarray:
    """The ``(B, H, W, C)`` array of an image array ``(B, C, H, W)``: a view if its memory is channels-last, else a copy."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: np.ndarray) -> np.ndarray:
    """The ``(B, C, H, W)`` view of a ``(B, H, W, C)`` array."""
    return x.transpose(0, 3, 1, 2)


@distinct_jit
def copy(source, target):
    """Copy one 1-D array onto another."""
    for k in range(source.size):
        target[k] = source[k]


@distinct_jit
def add(source, target):
    """Add one 1-D array onto another."""
    for k in range(source.size):
        target[k] += source[k]


@distinct_jit
def sum_of(a, b, y):
    """``y = a + b`` for 1-D arrays."""
    for k in range(y.size):
        y[k] = a[k] + b[k]


@jit
def unfold(x, first, last, geometry, out_h, out_w, columns, plane, pitch):
    """Write the columns of output pixels ``first <= p < last``; entry (p, i, k) goes to ``columns[i * plane + (p - first) * pitch + k]``.

    Args:
        x: (B, H, W, C). columns: 1-D, written to. k counts through (j, c).
    """
    kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = geometry
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    flat = x.reshape(x.size)
    run = kernel_w * channels
    ox = first % out_w
    oy = first // out_w % out_h
    image = first // (out_w * out_h)
    for row in range(last - first):
        start_x = ox * stride_w - left
        whole = dilation_w == 1 and start_x >= 0 and start_x + kernel_w <= width
        for i in range(kernel_h):
            y = oy * stride_h - top + i * dilation_h
            target = i * plane + row * pitch
            if y < 0 or y >= height:
                columns[target : target + run] = 0
            elif whole:
                source = ((image * height + y) * width + start_x) * channels
                copy(flat[source : source + run], columns[target : target + run])
            else:
                for j in range(kernel_w):
                    at = start_x + j * dilation_w
                    if at < 0 or at >= width:
                        columns[target + j * channels : target + (j + 1) * channels] = 0
                    else:
                        source = ((image * height + y) * width + at) * channels
                        copy(flat[source : source + channels], columns[target + j * channels : target + (j + 1) * channels])
        ox += 1
        if ox == out_w:
            ox = 0
            oy += 1
            if oy == out_h:
                oy = 0
                image += 1


@jit
def fold(x, first, last, geometry, out_h, out_w, columns, plane, pitch):
    """The adjoint of :func:`unfold`: add each entry of the columns onto the pixel of ``x`` that it was, or would have been, copied from."""
    kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = geometry
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    flat = x.reshape(x.size)
    for row in range(last - first):
        pixel = first + row
        start_x = pixel % out_w * stride_w - left
        image = pixel // (out_w * out_h)
        for i in range(kernel_h):
            y = pixel // out_w % out_h * stride_h - top + i * dilation_h
            if 0 <= y < height:
                for j in range(kernel_w):
                    at = start_x + j * dilation_w
                    if 0 <= at < width:
                        source = i * plane + row * pitch + j * channels
                        target = ((image * height + y) * width + at) * channels
                        add(columns[source : source + channels], flat[target : target + channels])


@parallel_jit
def _im2col(x, geometry, out_h, out_w, columns, share, num_shares):
    if launched(share, num_shares):
        return
    row_length = columns.shape[1]
    run = geometry[1] * x.shape[3]
    first, last = share_bounds(columns.shape[0], share, num_shares)
    unfold(x, first, last, geometry, out_h, out_w, columns[first:last].reshape((last - first) * row_length), run, row_length)


@parallel_jit
def _col2im(columns, geometry, out_h, out_w, x, share, num_shares):
    if launched(share, num_shares):
        return
    row_length = columns.shape[1]
    run = geometry[1] * x.shape[3]
    # whole images, so that no two shares add to the same pixel
    first_image, last_image = share_bounds(x.shape[0], share, num_shares)
    first, last = first_image * out_h * out_w, last_image * out_h * out_w
    fold(x, first, last, geometry, out_h, out_w, columns[first:last].reshape((last - first) * row_length), run, row_length)


def _check_image(x: np.ndarray, name: str) -> None:
    if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype not in (np.float32, np.float64):
        what = f"{x.dtype} array of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(f"{name}: expected a float32 or float64 array of shape (batch, channels, height, width), got {what}")


def _check_output_size(height: int, width: int, geometry: Geometry, name: str) -> tuple[int, int]:
    out_h, out_w = output_size(height, width, geometry)
    if out_h < 1 or out_w < 1:
        raise ValueError(f"{name}: a {height}x{width} image is too small for kernel_size {geometry[:2]} with padding {geometry[4:8]}")
    return out_h, out_w


@referenced
def im2col(x: np.ndarray, kernel_size, stride=1, padding=0, dilation=1) -> np.ndarray:
    """Unfold images into the matrix of everything that each output pixel of a convolution looks at.

    Args:
        x: images (B, C, H, W), float32 or float64, any memory order (channels-last is fast).
        kernel_size, stride, padding, dilation: as of :func:`make_geometry`.

    Returns:
        columns (B * OH * OW, KH * KW * C), of x's dtype; the formula stands at the top of this file.

    Raises:
        ValueError: x is not such an array, an argument is out of range, or the kernel does not fit into the padded image.

    Example:
        >>> x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
        >>> im2col(x, 2)
        array([[1., 2., 4., 5.],
               [2., 3., 5., 6.],
               [4., 5., 7., 8.],
               [5., 6., 8., 9.]])
    """
    geometry = make_geometry(kernel_size, stride, padding, dilation)
    _check_image(x, "im2col: x")
    out_h, out_w = _check_output_size(x.shape[2], x.shape[3], geometry, "im2col")
    columns = np.empty((x.shape[0] * out_h * out_w, geometry[0] * geometry[1] * x.shape[1]), x.dtype)
    _im2col(channels_last(x), geometry, out_h, out_w, columns, shares(columns.size, 4096))
    return columns


def im2col_reference(x: np.ndarray, kernel_size, stride=1, padding=0, dilation=1) -> np.ndarray:
    """:func:`im2col` in plain NumPy: one strided slice of the padded image per kernel tap."""
    geometry = make_geometry(kernel_size, stride, padding, dilation)
    kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = geometry
    _check_image(x, "im2col: x")
    batch, channels, height, width = x.shape
    out_h, out_w = _check_output_size(height, width, geometry, "im2col")
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    columns = np.empty((batch, out_h, out_w, kernel_h, kernel_w, channels), x.dtype)
    for i in range(kernel_h):
        for j in range(kernel_w):
            y, at = i * dilation_h, j * dilation_w
            taps = padded[:, :, y : y + out_h * stride_h : stride_h, at : at + out_w * stride_w : stride_w][:, :, :out_h, :out_w]
            columns[:, :, :, i, j, :] = taps.transpose(0, 2, 3, 1)
    return columns.reshape(batch * out_h * out_w, kernel_h * kernel_w * channels)


def _check_columns(columns: np.ndarray, image_shape: tuple, geometry: Geometry) -> tuple[int, int]:
    if len(image_shape) != 4:
        raise ValueError(f"col2im: image_shape must be (batch, channels, height, width), got {tuple(image_shape)}")
    if not isinstance(columns, np.ndarray) or columns.dtype not in (np.float32, np.float64):
        what = columns.dtype if isinstance(columns, np.ndarray) else type(columns).__name__
        raise ValueError(f"col2im: columns must be a float32 or float64 array, got {what}")
    batch, channels, height, width = image_shape
    out_h, out_w = _check_output_size(height, width, geometry, "col2im")
    expected = (batch * out_h * out_w, geometry[0] * geometry[1] * channels)
    if columns.shape != expected:
        raise ValueError(f"col2im: columns of images {tuple(image_shape)} must have shape {expected}, got {columns.shape}")
    return out_h, out_w


@referenced
def col2im(columns: np.ndarray, image_shape: tuple[int, int, int, int], kernel_size, stride=1, padding=0, dilation=1) -> np.ndarray:
    """Send every entry of ``columns`` back to the pixel that :func:`im2col` takes it from, adding up what meets there.

    Args:
        columns: (B * OH * OW, KH * KW * C), float32 or float64.
        image_shape: (B, C, H, W) of the images to be made.
        kernel_size, stride, padding, dilation: as of :func:`im2col`.

    Returns:
        images (B, C, H, W), memory channels-last, of the columns' dtype. Not the inverse of im2col but its adjoint: a pixel seen by four
        windows is the sum of four entries.

    Raises:
        ValueError: the shapes do not belong together.

    Example:
        >>> col2im(np.ones((4, 4)), (1, 1, 3, 3), 2)[0, 0]
        array([[1., 2., 1.],
               [2., 4., 2.],
               [1., 2., 1.]])
    """
    geometry = make_geometry(kernel_size, stride, padding, dilation, "col2im")
    out_h, out_w = _check_columns(columns, image_shape, geometry)
    batch, channels, height, width = image_shape
    x = np.zeros((batch, height, width, channels), columns.dtype)
    _col2im(np.ascontiguousarray(columns), geometry, out_h, out_w, x, shares(batch, 1))
    return channels_first(x)


def col2im_reference(
    columns: np.ndarray, image_shape: tuple[int, int, int, int], kernel_size, stride=1, padding=0, dilation=1
) -> np.ndarray:
    """:func:`col2im` in plain NumPy: :func:`im2col_reference` read backwards."""
    geometry = make_geometry(kernel_size, stride, padding, dilation, "col2im")
    kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = geometry
    batch, channels, height, width = image_shape
    out_h, out_w = _check_columns(columns, image_shape, geometry)
    columns = columns.reshape(batch, out_h, out_w, kernel_h, kernel_w, channels)
    # room for strides that step past the image: the surplus is zero and is cropped with the padding
    padded = np.zeros((batch, channels, height + top + bottom + stride_h, width + left + right + stride_w), columns.dtype)
    for i in range(kernel_h):
        for j in range(kernel_w):
            y, at = i * dilation_h, j * dilation_w
            taps = padded[:, :, y : y + out_h * stride_h : stride_h, at : at + out_w * stride_w : stride_w][:, :, :out_h, :out_w]
            taps += columns[:, :, :, i, j, :].transpose(0, 3, 1, 2)
    return padded[:, :, top : top + height, left : left + width]
