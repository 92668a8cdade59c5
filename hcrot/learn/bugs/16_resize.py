"""Resizing an image to any size by its nearest pixels.

Row i of the result, of ``new`` rows, is row floor(i old / new) of the image, of ``old`` rows; columns likewise.
"""

import numpy as np


def nearest(old: int, new: int) -> np.ndarray:
    """For each of the new pixels, which of the old ones it shows: floor(i old / new), (new,) integers."""
    if old < 1 or new < 1:
        raise ValueError(f"nearest: sizes must be at least 1, got {old} and {new}")
    # bug: begin
    return np.floor(np.linspace(0, old, new, endpoint=False)).astype(int)
    # bug: mended
    return np.arange(new) * old // new
    # bug: end


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image (..., H, W) in the size (..., height, width)."""
    rows = nearest(image.shape[-2], height)
    columns = nearest(image.shape[-1], width)
    return image[..., rows[:, None], columns]


# kept back: the learner's file ends here

SYMPTOM = """
My upsampling agrees with PyTorch for every size that I tried: 7 to 14, 14 to 28, 8 to 24. A user has 2 rows and wants 98: one row is
different from PyTorch's.
"""

HINTS = [
    "Do not look at images, but at the list of row numbers, for many pairs of sizes. Compare with exact arithmetic: fractions.Fraction.",
    "For 2 to 98, row 49 has to show old row 1. What is there before it is rounded down?",
    "1 / 49 * 49 is 0.9999999999999999 for a computer. Integers need no rounding.",
]

EXPLANATION = """
linspace multiplies i by a rounded old / new. Where the exact result is an integer, the computed one may be a little below it, and floor
takes it down by a whole pixel. Of the sizes up to 64 to sizes up to 128, 59 pairs have a wrong pixel: this was the predecessor's
interpolate (B38). floor of something that may be exactly an integer is the place to look at. `i * old // new` is exact.
"""


def check(yours, check) -> None:
    wrong = []
    for old in range(1, 33):
        for new in (2 * old, 3 * old, *range(1, 129, 9), 98):
            found = np.asarray(yours.nearest(old, new))
            if found.shape != (new,) or [int(i) for i in found] != [i * old // new for i in range(new)]:
                wrong.append((old, new))
    check.that(not wrong, f"{len(wrong)} pairs of sizes give a wrong pixel, the first of them {wrong[:3]}")
    check.equal("a picture of twice the size", yours.resize(np.eye(2), 4, 4), np.kron(np.eye(2), np.ones((2, 2))))
