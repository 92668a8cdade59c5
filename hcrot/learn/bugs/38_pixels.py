"""From the bytes of a picture to what a model learns from, and back.

Bytes 0 .. 255 become numbers from -1 to 1. Numbers out of the range are clipped on the way back.
"""

import numpy as np


def to_model(pixels: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W) -> float32 in [-1, 1]."""
    if pixels.dtype != np.uint8:
        raise TypeError(f"to_model: expected uint8, got {pixels.dtype}")
    # bug: begin
    return 2 * pixels.astype(np.float32) - 1
    # bug: mended
    return 2 * pixels.astype(np.float32) / 255 - 1
    # bug: end


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Numbers in [-1, 1] -> uint8."""
    # bug: begin
    return np.clip(np.round((images + 1) / 2), 0, 255).astype(np.uint8)
    # bug: mended
    return np.clip(np.round((images + 1) / 2 * 255), 0, 255).astype(np.uint8)
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
The loss is fine from the first hundred steps on, much lower than in the paper at early times. But samples are black, all of them. A round
trip of an image, to the model and back, is exact.
"""

HINTS = [
    "Print the histogram of what the model is given: np.histogram of a batch, its minimum, maximum and standard deviation.",
    "The noise has a standard deviation of 1. Compare it with that of the images. Add noise at t = 500 and look at the picture.",
    "255 has to become 1. What does it become?",
]

EXPLANATION = """
Images ran from -1 to 509. Noise of standard deviation 1 is nothing beside that: even at the last timestep the image can be seen, so that
the noise is easy to tell (a low loss), and what sampling starts from, pure noise, looks like nothing the model was trained on. Since the
way back had the same mistake, the round trip was exact. Look at the histogram of what goes in: it takes one line.
"""


def check(yours, check) -> None:
    pixels = np.array([[0, 51, 255]], np.uint8)
    images = yours.to_model(pixels)
    extent = f"its images range from {images.min()} to {images.max()}"
    check.that(np.abs(images).max() <= 1, f"the noise of a diffusion model has the standard deviation 1, but {extent}")
    check.equal("0, 51 and 255 for the model", images, [[-1, -0.6, 1]])
    check.equal("an image of the model as bytes", yours.to_pixels(np.array([-1.5, -1.0, -0.6, 1.0, 2.0])), [0, 0, 51, 255, 255])
