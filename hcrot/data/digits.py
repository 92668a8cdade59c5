"""The digits that come with hcrot: no network, no file to look for."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

__all__ = ["DIGITS_MAX", "load_digits"]

DIGITS_MAX = 16  # the value of a full pixel, where MNIST has 255

_PATH = Path(__file__).with_name("digits.npz")
_MD5 = "7696c07daa6d85010f8268703ab8b067"  # of the bytes of the images, then of the labels


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 handwritten 8x8 digits of the UCI data set Optical Recognition of Handwritten Digits.

    E. Alpaydin, C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0;
    `digits.md` beside the file has the details.

    Returns:
        images: uint8 (1797, 8, 8), from 0 (paper) to `DIGITS_MAX` = 16 (ink).
        labels: uint8 (1797,), the digit 0..9.

    Raises:
        ValueError: the bundled file is damaged.
    """
    try:
        with np.load(_PATH, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
        intact = hashlib.md5(images.tobytes() + labels.tobytes(), usedforsecurity=False).hexdigest() == _MD5
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        intact = False
    if not intact:
        raise ValueError(f"load_digits: {_PATH} is damaged: install hcrot again")
    return images, labels
