"""Bicubic enlarging and shrinking of images, with the numbers of Pillow's ``Image.resize(size, Image.Resampling.BICUBIC)``.

Each row, and then each column, is a weighted mean of its pixels. With n pixels in and m out, output i lies at c = (i + 1/2) n/m, and

    y_i = sum_j w((j + 1/2 - c) / f) x_j / sum_j w((j + 1/2 - c) / f),    f = max(1, n/m)

    w(d) = (a + 2)|d|^3 - (a + 3)|d|^2 + 1           for |d| < 1
           a |d|^3 - 5 a |d|^2 + 8 a |d| - 4 a       for 1 <= |d| < 2,    else 0;    a = -1/2

w is the cubic convolution kernel (R. Keys 1981, IEEE Trans. ASSP 29, eq. 15). Where an image shrinks, f > 1 widens it so that every pixel
counts: without that, fine patterns would turn into coarse ones (aliasing). At the borders the mean is taken over the pixels there are.
"""

from collections.abc import Sequence

import numpy as np

from hcrot.init import is_int

__all__ = ["resize"]

A = -0.5
BLOCK = 1024  # planes at a time: the products are float64, eight times as large as a whole folder's pixels


def resize(images: np.ndarray, size: int | Sequence[int]) -> np.ndarray:
    """Images of another height and width, by bicubic interpolation with antialiasing.

    Args:
        images: (..., H, W), float32, float64 or uint8.
        size: the new height and width, (H', W'), or one int for both.

    Returns:
        (..., H', W') of the same dtype. Floats may lie outside the range of the input, since w has negative parts. uint8 is rounded and
        cut to 0 .. 255 after each of the two axes, as in Pillow, from which it may differ by one. The width comes first. (Pillow 13 begins
        with the height if that is less work. For floats the order makes no difference.)

    Raises:
        TypeError: images that are no array of these dtypes. ValueError: fewer than two axes, an empty array, or a size that is not one.
    """
    if not isinstance(images, np.ndarray) or images.dtype not in (np.float32, np.float64, np.uint8):
        came = f"an array of {images.dtype}" if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"resize: images must be an array of float32, float64 or uint8, got {came}")
    if images.ndim < 2 or images.size == 0:
        raise ValueError(f"resize: images must have the shape (..., height, width) and not be empty, got {images.shape}")
    pair = (size, size) if is_int(size) else size
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(is_int(length) and length > 0 for length in pair):
        raise ValueError(f"resize: size must be an int of at least 1 or (height, width), got {size!r}")

    along_rows, along_columns = _weights(images.shape[-1], int(pair[1])).T, _weights(images.shape[-2], int(pair[0]))
    planes = images.reshape(-1, *images.shape[-2:])
    resized = np.empty((len(planes), int(pair[0]), int(pair[1])), images.dtype)
    for start in range(0, len(planes), BLOCK):
        rows = _as_pixels(planes[start : start + BLOCK] @ along_rows, images.dtype)
        resized[start : start + BLOCK] = _as_pixels(along_columns @ rows, images.dtype)
    return resized.reshape(*images.shape[:-2], *resized.shape[1:])


def _weights(count: int, new_count: int) -> np.ndarray:
    """The matrix (m, n) that resizes along one axis; each row sums to 1. float64."""
    scale = count / new_count
    centres = (np.arange(new_count)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(count) + 0.5 - centres) / max(1.0, scale)
    near = ((A + 2) * distance - (A + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * A - 4 * A
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def _as_pixels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(dtype) if dtype == np.uint8 else values.astype(dtype)
