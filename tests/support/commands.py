"""The command line in this process, and pictures for it."""

import numpy as np
import pytest
from PIL import Image

from hcrot.commands import main


def call(*words):
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def draw_squares(folder, size):
    """Two classes of twelve colour pictures each: red ones and blue ones."""
    rng = np.random.default_rng(0)
    for name, channel in (("blue", 2), ("red", 0)):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            pixels[..., channel] += 190
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
