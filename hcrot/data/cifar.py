"""CIFAR-10 (A. Krizhevsky 2009, "Learning multiple layers of features from tiny images"): 60,000 colour pictures of 32x32 pixels.

The "binary version" is six files of 10,000 records. A record is one byte, the label, and 3,072 bytes, the pixels: red, green, blue, each
row by row.
"""

import os
from pathlib import Path

import numpy as np

__all__ = ["CIFAR10_CLASSES", "load_cifar10"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
SUBFOLDER = "cifar-10-batches-bin"  # what the archive unpacks to
RECORD = 1 + 3 * 32 * 32


def load_cifar10(data_dir: str | os.PathLike, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """The pictures and labels of one split, from the files of ``cifar-10-binary.tar.gz``.

    Args:
        data_dir: the folder of the files, or the one that holds ``cifar-10-batches-bin``.
        split: "train" (N = 50,000) or "test" (N = 10,000).

    Returns:
        images: uint8 (N, 3, 32, 32), from 0 to 255.
        labels: uint8 (N,), an index into CIFAR10_CLASSES.

    Raises:
        FileNotFoundError: a file is missing. ValueError: ``split`` is neither of the two, or a file is not of this form.
    """
    if split not in FILES:
        raise ValueError(f"load_cifar10: split must be 'train' or 'test', got {split!r}")
    folder = Path(data_dir).expanduser()
    if (folder / SUBFOLDER).is_dir():
        folder = folder / SUBFOLDER
    parts = [read_records(folder / name) for name in FILES[split]]
    records = np.concatenate(parts)
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32), records[:, 0].copy()


def read_records(path: Path) -> np.ndarray:
    """The bytes of a file, (records, 3073)."""
    if not path.is_file():
        raise FileNotFoundError(f"load_cifar10: there is no file {path}; expected the files of CIFAR-10's binary version")
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        raise ValueError(f"load_cifar10: {path} has {size} bytes, expected a multiple of {RECORD}, the size of a record")
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= len(CIFAR10_CLASSES):
        raise ValueError(f"load_cifar10: {path} has the label {records[:, 0].max()}, expected labels from 0 to 9")
    return records
