"""MNIST from small files of its format: what is read, what is refused, and what a download leaves behind."""

import gzip
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from hcrot.data import DataUnavailable, load_mnist, mnist, read_idx
from support.mnist_files import NAMES, idx_bytes

# ---- idx files ----


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("code", "dtype"), [
    (0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8"),
])
def test_read_idx_of_every_type(code, dtype, compressed, tmp_path):
    array = np.random.default_rng(0).integers(-100, 100, (3, 4, 5)).astype(dtype)
    path = tmp_path / "some-file"
    data = idx_bytes(array, code)
    path.write_bytes(gzip.compress(data) if compressed else data)
    got = read_idx(path)
    assert got.dtype == np.dtype(dtype) and got.dtype.isnative and got.flags.writeable
    np.testing.assert_array_equal(got, array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
ZIPPED = gzip.compress(GOOD, mtime=0)  # the time would give the tests other names in each process


@pytest.mark.parametrize(("data", "message"), [
    (b"", "not an idx file"),
    (b"\0\0\x08", "not an idx file"),
    (b"<!DOCTYPE html>", r"not an idx file: it starts with the bytes \[3c 21 44 4f\]"),
    (b"\0\0\x0a\x01" + GOOD[4:], "not an idx file"),
    (b"\0\1" + GOOD[2:], "not an idx file"),
    (GOOD[:10], "truncated idx file: 10 bytes, the header alone has 16"),
    (GOOD[:-1], r"shape \(2, 3, 4\), which takes 40 bytes, but it has 39 at most"),
    (GOOD + b"\0", "which takes 24 bytes after the header, but it has more"),
    (b"\0\0\x08\x03" + b"\xff" * 12 + GOOD[16:], "truncated or corrupt idx file"),
    (gzip.compress(GOOD[:-1], mtime=0), "which takes 24 bytes after the header, but it has 23 of them"),
    (ZIPPED[:-12], "truncated or corrupt gzip data"),
    (ZIPPED[:5], "truncated or corrupt gzip data"),
    (ZIPPED[:-5] + b"\0" + ZIPPED[-4:], "truncated or corrupt gzip data"),
    (ZIPPED[:10] + b"\xff" * 20, "truncated or corrupt gzip data"),
    (gzip.compress(b"text", mtime=0), "not an idx file"),
], ids=lambda value: None if isinstance(value, str) else f"{len(value)}-{zlib.crc32(value):x}")
def test_a_bad_file_is_named_and_not_used(data, message, tmp_path):
    path = tmp_path / "digits-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"digits-idx3-ubyte: .*{message}"):
        read_idx(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")


# ---- a folder the user names ----


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
def test_every_spelling_is_found(spelling, ending, arrays, contents, tmp_path, no_network):
    for name, data in contents.items():
        path = tmp_path / (name.replace("-idx", spelling) + ending)
        path.write_bytes(gzip.compress(data) if ending else data)
    for split, prefix in [("train", "train"), ("test", "t10k")]:  # B42: the predecessor trained on the test split
        images, labels = load_mnist(split, data_dir=tmp_path)
        np.testing.assert_array_equal(images, arrays[f"{prefix}-images-idx3-ubyte"])
        np.testing.assert_array_equal(labels, arrays[f"{prefix}-labels-idx1-ubyte"])


def test_train_is_the_default(arrays, contents, tmp_path):
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    images, labels = load_mnist(data_dir=str(tmp_path))
    assert len(images) == len(labels) == 12


def test_an_unknown_split():
    with pytest.raises(ValueError, match="load_mnist: split must be 'train' or 'test', got 'val'"):
        load_mnist("val")


def test_a_folder_without_the_files_is_an_error_and_no_download(contents, tmp_path, no_network):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(contents["train-images-idx3-ubyte"])
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(data_dir=tmp_path)
    assert not isinstance(caught.value, DataUnavailable)
    message = str(caught.value)
    assert f"{tmp_path} has none of" in message and "\n" not in message
    for name in ["train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz", "train-labels.idx1-ubyte"]:
        assert name in message


def test_a_folder_that_does_not_exist(tmp_path, no_network):
    with pytest.raises(FileNotFoundError, match="load_mnist: folder .*nowhere does not exist"):
        load_mnist(data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("which", NAMES[:2])
@pytest.mark.parametrize("damage", ["truncated", "truncated gzip", "of another length", "of another type", "no images", "no idx"])
def test_a_bad_mnist_file_is_named_and_not_used(which, damage, arrays, contents, tmp_path, no_network):
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    good = contents[which]
    (tmp_path / which).write_bytes({
        "truncated": good[:-3],
        "truncated gzip": gzip.compress(good)[:-9],
        "of another length": idx_bytes(arrays[which][:-1]),
        "of another type": idx_bytes(arrays[which], 0x09),
        "no images": idx_bytes(arrays[which][:0]),
        "no idx": b"Not Found",
    }[damage])
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / which))) as caught:
        load_mnist(data_dir=tmp_path)
    assert "delete" not in str(caught.value)  # it is the user's own


@pytest.mark.parametrize("count", [1, 12, 70_001])
def test_other_data_of_the_same_form_is_used_and_one_line_says_so(count, tmp_path, capsys, no_network):
    images, labels = np.full((count, 28, 28), 7, np.uint8), np.arange(count, dtype=np.uint8) % 10
    for name, array in zip(NAMES, (images, labels), strict=False):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array), compresslevel=1))
    found = load_mnist(data_dir=tmp_path)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)
    said = f"hcrot: {tmp_path} does not hold MNIST's own train split: {count:,} images in its form are used\n"
    assert capsys.readouterr() == ("", said)


def test_of_mnist_itself_nothing_is_said(contents, tmp_path, capsys):
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    load_mnist("train", tmp_path)
    assert capsys.readouterr() == ("", "")
    changed = contents[NAMES[0]][:-1] + bytes([contents[NAMES[0]][-1] ^ 1])  # one pixel
    (tmp_path / NAMES[0]).write_bytes(changed)
    load_mnist("train", tmp_path)
    assert "does not hold MNIST's own train split" in capsys.readouterr().err


@pytest.mark.parametrize(("images", "labels", "message"), [
    (np.zeros((2, 28, 28), np.uint8), np.array([3, 10], np.uint8), "labels-idx1-ubyte: has the label 10, expected labels from 0 to 9"),
    (np.zeros((2, 28, 28), np.uint8), np.zeros(3, np.uint8), r"labels-.* shape \(3,\), expected uint8 \(2,\), a label for each image in"),
    (np.zeros((2, 14, 28), np.uint8), np.zeros(2, np.uint8), r"images-.* of shape \(2, 14, 28\), expected uint8 \(N, 28, 28\); .*read_idx"),
    (np.zeros((), np.uint8), np.zeros(2, np.uint8), r"images-.* of shape \(\), expected uint8 \(N, 28, 28\)"),
])
def test_data_of_another_form_is_refused(images, labels, message, tmp_path):
    for name, array in zip(NAMES, (images, labels), strict=False):
        (tmp_path / name).write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=message):
        load_mnist(data_dir=tmp_path)


# ---- what would fill the memory ----


class Counted(gzip.GzipFile):
    """Counts the bytes that were unpacked."""

    total = 0

    def read(self, size=-1):
        part = super().read(size)
        Counted.total += len(part)
        return part


@pytest.fixture
def bomb(monkeypatch):
    """60 kB that unpack to 60 MB after a header of 10 images of 28x28."""
    monkeypatch.setattr(mnist.gzip, "GzipFile", Counted)
    monkeypatch.setattr(Counted, "total", 0)
    header = idx_bytes(np.zeros((10, 28, 28), np.uint8))[:16]
    return gzip.compress(header + bytes(60_000_000), compresslevel=9)


def test_no_more_is_unpacked_than_the_header_promises(bomb, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(bomb)
    (tmp_path / NAMES[1]).write_bytes(idx_bytes(np.zeros(10, np.uint8)))
    for read in (read_idx, lambda path: load_mnist(data_dir=path.parent)):
        Counted.total = 0
        with pytest.raises(ValueError, match="which takes 7840 bytes after the header, but it has more"):
            read(path)
        assert Counted.total == 16 + 7840 + 1


def test_nor_from_a_mirror(bomb, contents, cache, web):
    lie = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (70_000, 28, 28))
    for mirror, data in zip(mnist.MIRRORS, [bomb, gzip.compress(lie + bytes(70_000 * 784)), bomb], strict=True):
        web[f"{mirror}train-images-idx3-ubyte.gz"] = data
    with pytest.raises(DataUnavailable, match="but it has more.*70000, 28, 28.*at most"):
        load_mnist()
    assert Counted.total == 2 * (16 + 7840 + 1) + 16
    assert os.listdir(cache) == []


def test_a_header_that_promises_more_than_the_file_can_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist.gzip, "GzipFile", Counted)
    monkeypatch.setattr(Counted, "total", 0)
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(10_000_000)))
    with pytest.raises(ValueError, match="truncated or corrupt idx file: .* at most"):
        read_idx(path)
    assert Counted.total == 16


# ---- the real thing, where it is at hand ----

REAL = Path(os.environ.get("HCROT_TEST_MNIST") or Path(__file__).parents[3] / "shared" / "data" / "mnist")


@pytest.mark.skipif(not REAL.is_dir(), reason="MNIST is not at hand: set HCROT_TEST_MNIST to its folder")
@pytest.mark.parametrize(("split", "counts"), [
    ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
    ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
])
def test_the_real_mnist(split, counts):
    images, labels = load_mnist(split, data_dir=REAL)
    assert images.shape == (sum(counts), 28, 28) and images.dtype == np.uint8
    assert labels.dtype == np.uint8 and list(np.bincount(labels)) == counts
    assert images.max() == 255


@pytest.mark.parametrize("place", ["MNIST/raw", "raw"])
def test_torchvisions_folder(place, tmp_path):
    raw = tmp_path / place
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, *[0, 0, 0, 1], *[0, 0, 0, 28], *[0, 0, 0, 28]]) + bytes(784))
    (raw / "t10k-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    images, labels = load_mnist("test", tmp_path)
    assert images.shape == (1, 28, 28) and labels.tolist() == [7]
