"""Random changes that leave a picture what it is, so that a network sees more pictures than there are."""

import numpy as np

from hcrot.init import as_generator, is_int

__all__ = ["random_flip", "random_shift"]


def random_flip(images: np.ndarray, generator: np.random.Generator | int) -> np.ndarray:
    """Each image, with probability 1/2, mirrored: y[n, ..., j] = x[n, ..., W - 1 - j].

    Args:
        images: (N, ..., W), of any dtype; not changed.
        generator: N numbers are drawn from it, whatever the images; or the seed of a new one.

    Raises:
        ValueError: fewer than two axes. TypeError: generator is neither a Generator nor an int.
    """
    generator = checked("random_flip", images, 2, generator)
    mirrored = generator.random(len(images)) < 0.5
    return np.where(mirrored.reshape(-1, *[1] * (images.ndim - 1)), images[..., ::-1], images)


def random_shift(images: np.ndarray, pixels: int, generator: np.random.Generator | int) -> np.ndarray:
    """Each image, moved by up to ``pixels`` along each axis; where nothing is left, the border is repeated.

        y[n, ..., i, j] = x[n, ..., clip(i + a_n, 0, H - 1), clip(j + b_n, 0, W - 1)],    a_n, b_n uniform in -pixels .. pixels

    Args:
        images: (N, ..., H, W), of any dtype; not changed.
        pixels: at least 0.
        generator: 2N numbers are drawn from it, whatever the images; or the seed of a new one.

    Raises:
        ValueError: fewer than three axes, or pixels below 0 or no int. TypeError: generator is neither a Generator nor an int.
    """
    generator = checked("random_shift", images, 3, generator)
    if not is_int(pixels) or pixels < 0:
        raise ValueError(f"random_shift: pixels must be an int of at least 0, got {pixels!r}")
    height, width = images.shape[-2:]
    shifts = generator.integers(-pixels, pixels, (2, len(images)), endpoint=True)
    moved = np.empty_like(images)
    for n, (a, b) in enumerate(shifts.T):
        rows, columns = np.clip(np.arange(height) + a, 0, height - 1), np.clip(np.arange(width) + b, 0, width - 1)
        moved[n] = images[n][..., rows[:, None], columns]
    return moved


def checked(owner: str, images: np.ndarray, axes: int, generator: np.random.Generator | int) -> np.random.Generator:
    if not isinstance(images, np.ndarray) or images.ndim < axes:
        came = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{owner}: images must be an array of at least {axes} axes, the first one counting images, got {came}")
    return as_generator(owner, generator)
