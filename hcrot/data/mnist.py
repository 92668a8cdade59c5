"""MNIST (Y. LeCun, C. Cortes, C. J. C. Burges, 1998): 70,000 handwritten digits of 28x28 pixels, from four idx files.

An idx file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit integer,
then the numbers themselves, big-endian, the last dimension running fastest.
"""

import gzip
import hashlib
import io
import math
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import numpy as np

from hcrot.data.cache import cache_folder
from hcrot.files.json_and_arrays import replacing

__all__ = ["FILES", "LARGEST", "MIRRORS", "DataUnavailable", "load_mnist", "mnist_folder", "read_idx"]

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)

# split -> (images, labels), each with the MD5 of its uncompressed contents: archives may differ, contents do not.
FILES = {
    "train": (
        ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
        ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
    ),
    "test": (
        ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
        ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
    ),
}

LARGEST = 16 + 60_000 * 28 * 28  # bytes of the largest of them
_GZIP_RATIO = 1032  # no gzip file unpacks to more than so many times its size
_CHUNK = 1 << 20
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CODES = {np.dtype(name): code for code, name in _IDX_TYPES.items()}


class DataUnavailable(OSError):
    """A data set is not on this machine and could not be downloaded. The message is one line that says why."""


def load_mnist(
    split: str = "train", data_dir: str | os.PathLike | None = None, download: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one split of MNIST.

    With `data_dir`, the two files of the split are taken from that folder, or from torchvision's `MNIST/raw` in it, and nothing is ever
    downloaded. Without, they are taken from the cache folder and, if it lacks them, downloaded into it from the first mirror that has
    them. The cache folder is `$HCROT_DATA/mnist`, else `$XDG_CACHE_HOME/hcrot/mnist`, else `~/.cache/hcrot/mnist`.

    A file may be gzipped or not, and be called `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, with or without
    `.gz`. What was downloaded must have MNIST's MD5, or it is not used. The files in `data_dir` may be others of the same form, such as
    Fashion-MNIST, KMNIST or some images of one's own: one line on stderr says that they are not MNIST's. Any other idx file can be
    read with `read_idx`.

    Args:
        split: "train" (N = 60,000) or "test" (N = 10,000).
        data_dir: the folder to read from, instead of the cache folder.
        download: False: never use the network.

    Returns:
        images: uint8 (N, 28, 28), from 0 (paper) to 255 (ink).
        labels: uint8 (N,), the digit 0..9.

    Raises:
        DataUnavailable: neither in the cache folder nor to be had from a mirror.
        FileNotFoundError: `data_dir` lacks a file.
        ValueError: `split` is neither of the two, or a file is truncated, corrupt, or not of this form.
    """
    if split not in FILES:
        raise ValueError(f"load_mnist: split must be 'train' or 'test', got {split!r}")
    if data_dir is not None:
        return _load_own(Path(data_dir).expanduser(), split)
    images, labels = (_load(cache_folder("mnist"), name, md5, download) for name, md5 in FILES[split])
    return images, labels


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an idx file, gzipped or not (its first bytes tell, not its name).

    Returns:
        An array with the file's dimensions and number type, in this machine's byte order.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an idx file, or it is truncated or corrupt; the message names it.
    """
    with _opened(path) as (file, size):
        shape, dtype = _read_header(file, size, path)
        return _read_numbers(file, shape, dtype, path)[0]


def _load_own(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The split in a folder of the user's. What is wrong with the form shows in the headers, before the numbers are read."""
    inner = (folder / place for place in ("MNIST/raw", "raw"))  # torchvision's
    folder = next((place for place in inner if place.is_dir()), folder)
    paths = [_find(folder, name) for name, _ in FILES[split]]
    for path, name in zip(paths, FILES[split], strict=True):
        if path is None:
            lack = "has none of" if folder.is_dir() else "does not exist; it should have one of"
            raise FileNotFoundError(f"load_mnist: folder {folder} {lack} {', '.join(_spellings(name[0]))}")
    images_path, labels_path = cast(list[Path], paths)
    with _opened(images_path) as (images_file, images_size), _opened(labels_path) as (labels_file, labels_size):
        images_shape, images_type = _read_header(images_file, images_size, images_path)
        labels_shape, labels_type = _read_header(labels_file, labels_size, labels_path)
        count = images_shape[0] if images_shape else 0
        if images_type != np.uint8 or images_shape[1:] != (28, 28) or count == 0:
            raise ValueError(f"{images_path}: holds {images_type} numbers of shape {images_shape}, expected uint8 (N, 28, 28); "
                             f"other data can be read with hcrot.data.read_idx")
        if labels_type != np.uint8 or labels_shape != (count,):
            raise ValueError(f"{labels_path}: holds {labels_type} numbers of shape {labels_shape}, expected uint8 ({count},), "
                             f"a label for each image in {images_path}")
        images, images_md5 = _read_numbers(images_file, images_shape, images_type, images_path)
        labels, labels_md5 = _read_numbers(labels_file, labels_shape, labels_type, labels_path)
    if labels.max() > 9:
        raise ValueError(f"{labels_path}: has the label {labels.max()}, expected labels from 0 to 9")
    if (images_md5, labels_md5) != tuple(md5 for _, md5 in FILES[split]):
        print(f"hcrot: {folder} does not hold MNIST's own {split} split: {count:,} images in its form are used", file=sys.stderr)
    return images, labels


def mnist_folder(folder: Path) -> Path | None:
    """Where pictures of MNIST's training split are: in torchvision's `MNIST/raw` or `raw` in the folder, or in itself; None: nowhere."""
    places = [folder / "MNIST/raw", folder / "raw", folder]
    return next((place for place in places if _find(place, FILES["train"][0][0])), None)


def _load(folder: Path, name: str, md5: str, download: bool) -> np.ndarray:
    """MNIST's file of this name in the cache folder, or from a mirror."""
    path = _find(folder, name)
    if path is None:
        if not download:
            raise DataUnavailable(f"MNIST: {name} is not in {folder}, and downloading is switched off")
        path = folder / f"{name}.gz"
        _download(path, md5)
    try:
        with _opened(path) as (file, size):
            return _read_mnist(file, size, md5, path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it to have it downloaded again") from error


def _spellings(name: str) -> list[str]:
    return [spelling + ending for spelling in (name, name.replace("-idx", ".idx")) for ending in ("", ".gz")]


def _find(folder: Path, name: str) -> Path | None:
    return next((folder / spelling for spelling in _spellings(name) if os.path.isfile(folder / spelling)), None)


# ---------------------------------------------------------------- idx files


@contextmanager
def _opened(source: str | os.PathLike | bytes) -> Iterator[tuple[BinaryIO, int]]:
    """The uncompressed contents of a file, or of what came from a mirror, and how many bytes they can have at most."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if compressed:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked), _GZIP_RATIO * size
        else:
            yield file, size


def _read(file: BinaryIO, count: int, source: object) -> bytearray:
    """Up to ``count`` bytes, in chunks, so that memory grows with what there is and not with what a header says."""
    contents = bytearray()
    try:
        while len(contents) < count and (part := file.read(min(_CHUNK, count - len(contents)))):
            contents += part
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{source}: truncated or corrupt gzip data ({error})") from error
    return contents


def _read_header(file: BinaryIO, largest: int, source: object) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the type of the numbers that follow in an idx file, which has no more bytes than ``largest``."""
    start = _read(file, 4, source)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_TYPES:
        raise ValueError(f"{source}: not an idx file: it starts with the bytes [{start.hex(' ')}], expected [00 00 <type> <dimensions>]")
    dtype, ndim = np.dtype(_IDX_TYPES[start[2]]), start[3]
    sizes = _read(file, 4 * ndim, source)
    if len(sizes) < 4 * ndim:
        raise ValueError(f"{source}: truncated idx file: {4 + len(sizes)} bytes, the header alone has {4 + 4 * ndim}")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * ndim, 4))
    size = 4 + 4 * ndim + math.prod(shape) * dtype.itemsize
    if size > largest:
        raise ValueError(f"{source}: truncated or corrupt idx file: its header says shape {shape}, "
                         f"which takes {size} bytes, but it has {largest} at most")
    return shape, dtype


def _read_numbers(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, source: object) -> tuple[np.ndarray, str]:
    """The numbers that the header has announced, and the MD5 of the whole file. What lies beyond them is not read, but refused."""
    size = math.prod(shape) * dtype.itemsize
    contents = _read(file, size + 1, source)
    if len(contents) != size:
        what = f"{len(contents)} of them" if len(contents) < size else "more"
        raise ValueError(f"{source}: truncated or corrupt idx file: its header says shape {shape}, "
                         f"which takes {size} bytes after the header, but it has {what}")
    header = bytes([0, 0, _CODES[dtype], len(shape)]) + b"".join(length.to_bytes(4, "big") for length in shape)
    md5 = hashlib.md5(header, usedforsecurity=False)
    md5.update(contents)
    return np.frombuffer(contents, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False), md5.hexdigest()


def _read_mnist(file: BinaryIO, size: int, md5: str, source: object) -> np.ndarray:
    """The numbers in MNIST's own file with this MD5."""
    array, found = _read_numbers(file, *_read_header(file, min(size, LARGEST), source), source)
    if found != md5:
        raise ValueError(f"{source}: not the MNIST file of this name: the MD5 of its uncompressed contents is {found}, expected {md5}")
    return array


# ---------------------------------------------------------------- mirrors


def _download(path: Path, md5: str) -> None:
    """Put the file at `path`, whole and checked, or raise DataUnavailable and leave nothing there."""
    try:
        with replacing(path) as unfinished:  # before the download: a folder that cannot be written is found out at once
            unfinished.write_bytes(_from_a_mirror(path, md5))
    except DataUnavailable:
        raise
    except OSError as error:
        raise DataUnavailable(f"MNIST cannot be kept in {path.parent} ({error.strerror}): "
                              f"set HCROT_DATA to a folder that can be written") from error


def _from_a_mirror(path: Path, md5: str) -> bytes:
    from .download import fetch  # brings in ssl, http and tqdm, which nobody else waits for

    hosts_by_reason: dict[str, list[str]] = {}
    for mirror in MIRRORS:
        try:
            contents = fetch(mirror + path.name, path.name)
            with _opened(contents) as (file, size):
                _read_mnist(file, size, md5, "what came")
            return contents
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            hosts_by_reason.setdefault(reason, []).append(urlsplit(mirror).hostname or mirror)
    reasons = "; ".join(f"{', '.join(hosts)}: {reason}" for reason, hosts in hosts_by_reason.items())
    raise DataUnavailable(f"MNIST is not in {path.parent} and could not be downloaded ({reasons})")
