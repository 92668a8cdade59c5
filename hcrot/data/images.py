"""From stored pixels to what a network is trained on."""

import numpy as np

from hcrot.init import is_int

__all__ = ["prepare_images"]


def prepare_images(images: np.ndarray, max_value: float = 255, size: int | None = None) -> np.ndarray:
    """Scale stored pixels to [-1, 1] and, if asked, shrink the images by averaging whole blocks of pixels.

        y[n, 0, i, j] = 2 / max_value * mean(x[n, i*a : (i+1)*a, j*b : (j+1)*b]) - 1,    a = H / size, b = W / size

    28 -> 14 is the mean of each 2x2 block.

    Args:
        images: uint8 (N, H, W), from 0 to `max_value`.
        max_value: the value of a full pixel: 255 for MNIST, `DIGITS_MAX` = 16 for the bundled digits.
        size: height and width of the result; it must divide H and W. None keeps them as they are.

    Returns:
        float32 (N, 1, H, W), or (N, 1, size, size): 0 became -1 and `max_value` became 1, both exactly.

    Raises:
        TypeError: `images` is not a uint8 array, or `size` is not an int.
        ValueError: `images` has not three dimensions, has a pixel above `max_value`, or `size` does not divide H and W.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        came = f"{images.dtype} array" if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"prepare_images: images must be a uint8 array, got {came}")
    if images.ndim != 3:
        raise ValueError(f"prepare_images: images must have the shape (N, H, W), got {images.shape}")
    largest = int(images.max(initial=0))
    if max_value <= 0 or largest > max_value:
        raise ValueError(f"prepare_images: max_value must be above 0 and at least the largest pixel {largest}, "
                         f"got {max_value}")
    if size is not None and not is_int(size):
        raise TypeError(f"prepare_images: size must be an int or None, got {size!r}")

    height, width = images.shape[1:]
    new_height, new_width = (height, width) if size is None else (int(size), int(size))
    if new_height < 1 or height % new_height or width % new_width:
        raise ValueError(f"prepare_images: size must divide the height and width {height}x{width}, got {size}")
    a, b = height // new_height, width // new_width
    total = np.zeros((len(images), new_height, new_width), np.float32)
    for i in range(a):
        for j in range(b):
            total += images[:, i::a, j::b]
    total /= np.float32(0.5 * max_value * a * b)
    total -= 1
    return total[:, None]
