"""Data: MNIST, CIFAR-10, the bundled digits, folders of one's own pictures, and the way from stored pixels to mini-batches."""

from .augment import random_flip, random_shift
from .batches import Batches
from .cifar import CIFAR10_CLASSES, load_cifar10
from .digits import DIGITS_MAX, load_digits
from .image_folder import ImageFolder
from .images import prepare_images
from .mnist import DataUnavailable, load_mnist, read_idx
from .resize import resize

__all__ = [
    "CIFAR10_CLASSES",
    "DIGITS_MAX",
    "Batches",
    "DataUnavailable",
    "ImageFolder",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "prepare_images",
    "random_flip",
    "random_shift",
    "read_idx",
    "resize",
]
