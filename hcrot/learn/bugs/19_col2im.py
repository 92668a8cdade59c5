"""Windows of an image as columns, and back.

im2col lists the windows of size x size of an image (H, W), one in each column. col2im is its transpose, the heart of a convolution's
backward: each entry of a column is a gradient of the pixel that it was copied from.
"""

import numpy as np


def windows(height: int, width: int, size: int) -> list[tuple[slice, slice]]:
    """The places of all windows, row by row."""
    return [(slice(i, i + size), slice(j, j + size)) for i in range(height - size + 1) for j in range(width - size + 1)]


def im2col(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W) -> (size * size, number of windows)."""
    return np.stack([image[place].ravel() for place in windows(*image.shape, size)], axis=1)


def col2im(columns: np.ndarray, height: int, width: int, size: int) -> np.ndarray:
    """(size * size, number of windows) -> (H, W), the transpose of im2col."""
    image = np.zeros((height, width))
    for place, column in zip(windows(height, width, size), columns.T, strict=True):
        # bug: begin
        image[place] = column.reshape(size, size)
        # bug: mended
        image[place] += column.reshape(size, size)
        # bug: end
    return image


# kept back: the learner's file ends here

SYMPTOM = """
col2im(im2col(image)) gives back the image, as it should. Convolutions of size 1 train well. Those of size 3 get gradients of the image
that are wrong, except at the four corners.
"""

HINTS = [
    "Is it true that it should give back the image? Count how often each pixel of a 3 x 3 image is in a window of 2 x 2.",
    "Compare <im2col(x), c> with <x, col2im(c)> for random x and c. For a map and its transpose the two numbers are equal.",
    "A pixel that is in four windows has an effect in four places.",
]

EXPLANATION = """
col2im has to add where windows overlap. It overwrote: only the last window that holds a pixel counted. The user's own test was wrong,
too: col2im is the transpose of im2col, not its inverse, and col2im(im2col(x)) is x times the number of windows that hold each pixel. To
prove a transpose, compare two dot products.
"""


def check(yours, check) -> None:
    for height, width, size in ((3, 3, 1), (4, 5, 2), (5, 4, 3)):
        x = check.normal(height, width)
        columns = yours.im2col(x, size)
        c = check.normal(*columns.shape)
        one, other = np.vdot(columns, c), np.vdot(x, yours.col2im(c, height, width, size))
        check.that(abs(one - other) < 1e-9, f"windows of {size} x {size}: <im2col(x), c> is {one:.4f}, <x, col2im(c)> is {other:.4f}")
