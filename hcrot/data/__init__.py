"""Data: MNIST, the bundled digits, and the way from stored pixels to mini-batches."""

from .batches import Batches
from .digits import DIGITS_MAX, load_digits
from .images import prepare_images
from .mnist import DataUnavailable, load_mnist, read_idx
from .resize import resize

__all__ = ["DIGITS_MAX", "Batches", "DataUnavailable", "load_digits", "load_mnist", "prepare_images", "read_idx", "resize"]
