"""MNIST (Y. LeCun, C. Cortes, C. J. C. Burges, 1998): 70,000 handwritten digits of 28x28 pixels, from four idx files.

An idx file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit integer,
then the numbers themselves, big-endian, the last dimension running fastest.
"""

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

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

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DataUnavailable(OSError):
    """A data set is not on this machine and could not be downloaded. The message is one line that says why."""


def load_mnist(
    split: str = "train", data_dir: str | os.PathLike | None = None, download: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one split of MNIST.

    With `data_dir`, the two files of the split are taken from that folder and nothing is ever downloaded. Without, they
    are taken from the cache folder and, if it lacks them, downloaded into it from the first mirror that has them. The
    cache folder is `$HCROT_DATA/mnist`, else `$XDG_CACHE_HOME/hcrot/mnist`, else `~/.cache/hcrot/mnist`.

    A file may be gzipped or not, and be called `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, with or without
    `.gz`. Its uncompressed contents must have MNIST's MD5: a file that has not is never used. Other data in the same
    format (Fashion-MNIST) can be read with `read_idx`.

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
        ValueError: `split` is neither of the two, or a file is truncated, corrupt or another one.
    """
    if split not in FILES:
        raise ValueError(f"load_mnist: split must be 'train' or 'test', got {split!r}")
    folder = _cache_folder() if data_dir is None else Path(data_dir).expanduser()
    images, labels = (_load(folder, name, md5, data_dir is None, download) for name, md5 in FILES[split])
    return images, labels


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an idx file, gzipped or not (its first bytes tell, not its name).

    Returns:
        An array with the file's dimensions and number type, in this machine's byte order.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an idx file, or it is truncated or corrupt; the message names it.
    """
    return _parse_idx(_uncompressed(Path(path).read_bytes(), path), path)


def _load(folder: Path, name: str, md5: str, is_cache: bool, download: bool) -> np.ndarray:
    spellings = [spelling + ending for spelling in (name, name.replace("-idx", ".idx")) for ending in ("", ".gz")]
    path = next((folder / spelling for spelling in spellings if os.path.isfile(folder / spelling)), None)
    if path is None and not is_cache:
        lack = "has none of" if folder.is_dir() else "does not exist; it should have one of"
        raise FileNotFoundError(f"load_mnist: folder {folder} {lack} {', '.join(spellings)}")
    if path is None:
        if not download:
            raise DataUnavailable(f"MNIST: {name} is not in {folder}, and downloading is switched off")
        path = folder / f"{name}.gz"
        _download(path, md5)
    try:
        contents = _uncompressed(path.read_bytes(), path)
        array = _parse_idx(contents, path)
        _check_md5(contents, md5, path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it to have it downloaded again" if is_cache else str(error)) from error
    return array


def _cache_folder() -> Path:
    if root := os.environ.get("HCROT_DATA"):
        return Path(root).expanduser() / "mnist"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hcrot" / "mnist"


def _uncompressed(contents: bytes, source: object) -> bytes:
    if not contents.startswith(b"\x1f\x8b"):
        return contents
    try:
        return gzip.decompress(contents)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{source}: truncated or corrupt gzip data ({error})") from error


def _parse_idx(contents: bytes, source: object) -> np.ndarray:
    if len(contents) < 4 or contents[:2] != b"\0\0" or contents[2] not in _IDX_TYPES:
        raise ValueError(f"{source}: not an idx file: it starts with the bytes [{contents[:4].hex(' ')}], "
                         f"expected [00 00 <type> <dimensions>]")
    dtype, ndim = np.dtype(_IDX_TYPES[contents[2]]), contents[3]
    start = 4 + 4 * ndim
    if len(contents) < start:
        raise ValueError(f"{source}: truncated idx file: {len(contents)} bytes, the header alone has {start}")
    shape = tuple(int.from_bytes(contents[i : i + 4], "big") for i in range(4, start, 4))
    size = start + math.prod(shape) * dtype.itemsize
    if len(contents) != size:
        raise ValueError(f"{source}: truncated or corrupt idx file: its header says shape {shape}, "
                         f"which takes {size} bytes, but it has {len(contents)}")
    return np.frombuffer(contents, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _check_md5(contents: bytes, md5: str, source: object) -> None:
    found = hashlib.md5(contents, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(f"{source}: not the MNIST file of this name: the MD5 of its uncompressed contents is {found}, "
                         f"expected {md5}")


def _download(path: Path, md5: str) -> None:
    """Put the file at `path`, whole and checked, or raise DataUnavailable and leave nothing there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:  # before the download: a folder that cannot be written is found out at once
            file.write(_from_a_mirror(path, md5))
        os.replace(temporary, path)
    except DataUnavailable:
        raise
    except OSError as error:
        raise DataUnavailable(f"MNIST cannot be kept in {path.parent} ({error.strerror}): "
                              f"set HCROT_DATA to a folder that can be written") from error
    finally:
        if os.path.exists(temporary):
            temporary.unlink()


def _from_a_mirror(path: Path, md5: str) -> bytes:
    from .download import fetch  # brings in ssl, http and tqdm, which nobody else waits for

    hosts_by_reason: dict[str, list[str]] = {}
    for mirror in MIRRORS:
        try:
            contents = fetch(mirror + path.name, path.name)
            _check_md5(_uncompressed(contents, "what came"), md5, "what came")
            return contents
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            hosts_by_reason.setdefault(reason, []).append(urlsplit(mirror).hostname)
    reasons = "; ".join(f"{', '.join(hosts)}: {reason}" for reason, hosts in hosts_by_reason.items())
    raise DataUnavailable(f"MNIST is not in {path.parent} and could not be downloaded ({reasons})")
