"""From stored pixels to what a network is trained on."""

import warnings

import numpy as np

from hcrot.init import is_int

__all__ = ["prepare_images", "refuse_dark", "with_channels"]

DARK = 1 / 16  # of max_value: no set of real images is darker than this
LUMA = np.array([19595, 38470, 7471], np.uint32)  # Pillow's: 0.299 R + 0.587 G + 0.114 B, in parts of 2^16
BLOCK = 1024  # images that are looked at together, so that a whole set is never in memory twice


def prepare_images(images: np.ndarray, max_value: float = 255, size: int | None = None) -> np.ndarray:
    """Scale stored pixels to [-1, 1] and, if asked, shrink the images by averaging whole blocks of pixels.

        y[n, c, i, j] = 2 / max_value * mean(x[n, c, i*a : (i+1)*a, j*b : (j+1)*b]) - 1,    a = H / size, b = W / size

    28 -> 14 is the mean of each 2x2 block. Images whose largest pixel is below 1/16 of ``max_value`` would be almost black: a UserWarning
    says what it takes them for.

    Args:
        images: (N, H, W) of one channel, or (N, C, H, W); uint8, bool, float32 or float64, from 0 to `max_value`.
        max_value: the value of a full pixel: 255 for bytes, `DIGITS_MAX` = 16 for the bundled digits, 1 for images in [0, 1].
        size: height and width of the result; it must divide H and W. None keeps them as they are.

    Returns:
        float32 (N, C, H, W), or (N, C, size, size): 0 became -1 and `max_value` became 1, both exactly.

    Raises:
        TypeError: `images` is no array of these dtypes, or `size` is not an int.
        ValueError: `images` has another number of dimensions, its channels last, a pixel below 0 or above `max_value`, or `size` does not
            divide H and W.
    """
    if not isinstance(images, np.ndarray) or images.dtype not in (np.uint8, np.bool_, np.float32, np.float64):
        came = f"{images.dtype} array" if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"prepare_images: images must be an array of uint8, bool, float32 or float64, got {came}")
    if images.ndim not in (3, 4):
        raise ValueError(f"prepare_images: images must have the shape (N, H, W) or (N, C, H, W), got {images.shape}")
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        raise ValueError(f"prepare_images: images must have the shape (N, C, H, W), got {images.shape}, whose channels seem to be the last "
                         "axis: images.transpose(0, 3, 1, 2)")
    smallest, largest = images.min(initial=0), images.max(initial=0)
    if not (max_value > 0 and largest <= max_value):
        raise ValueError(f"prepare_images: max_value must be above 0 and at least the largest pixel {largest:g}, got {max_value}")
    if not smallest >= 0:
        raise ValueError(f"prepare_images: pixels must be from 0 to {max_value}, the smallest is {smallest:g}")
    if 0 < largest < DARK * max_value:
        warnings.warn(f"prepare_images: the largest pixel is {largest:g}, a full one is taken to be {max_value:g}: the images will be "
                      f"almost black; say max_value={'1' if largest <= 1 else '16'} if that is a full pixel here", stacklevel=2)
    if size is not None and not is_int(size):
        raise TypeError(f"prepare_images: size must be an int or None, got {size!r}")

    pixels = images[:, None] if images.ndim == 3 else images
    height, width = pixels.shape[2:]
    new_height, new_width = (height, width) if size is None else (int(size), int(size))
    if new_height < 1 or height % new_height or width % new_width:
        raise ValueError(f"prepare_images: size must divide the height and width {height}x{width}, got {size}")
    a, b = height // new_height, width // new_width
    total = np.zeros((*pixels.shape[:2], new_height, new_width), np.float32)
    for i in range(a):
        for j in range(b):
            total += pixels[:, :, i::a, j::b]
    total /= np.float32(0.5 * max_value * a * b)
    total -= 1
    return total


def refuse_dark(name: str, images: np.ndarray) -> None:
    """Refuse bytes that hold small numbers, such as masks of 0 and 1, as no network can learn from black pictures.

    They are not made brighter instead: they may have been resized, which has rounded what there was.

    Args:
        name: what the images are, for the message.
        images: uint8, the first axis counting them; most often only the first of them are looked at.

    Raises:
        ValueError: the largest of all pixels is below 1/16 of 255, and not 0.
    """
    largest = 0
    for start in range(0, len(images), BLOCK):
        largest = max(largest, int(images[start : start + BLOCK].max(initial=0)))
        if largest >= DARK * 255:
            return
    if largest:
        raise ValueError(f"{name}: the largest of all pixels is {largest}, and a full one is 255, so all pictures would be as good as "
                         "black: save them with values up to 255")


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (N, 1 or 3, H, W) as grey or as colour pictures, uint8 (N, channels, H, W) with ``channels`` 1 or 3. Grey is Pillow's."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    for start in range(0, len(images), BLOCK):
        grey[start : start + BLOCK, 0] = np.einsum("nchw,c->nhw", images[start : start + BLOCK], LUMA) + 0x8000 >> 16
    return grey
