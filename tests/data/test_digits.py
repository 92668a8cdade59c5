import hashlib

import numpy as np
import pytest

from hcrot.data import DIGITS_MAX, digits, load_digits


def test_the_bundled_digits_are_the_published_ones():
    """Counts per class as UCI publishes them for the test part; the sum pins every pixel and label."""
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8) and images.dtype == np.uint8
    assert labels.shape == (1797,) and labels.dtype == np.uint8
    assert images.min() == 0 and images.max() == DIGITS_MAX == 16
    assert list(np.bincount(labels)) == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert hashlib.md5(images.tobytes() + labels.tobytes()).hexdigest() == "7696c07daa6d85010f8268703ab8b067"


def test_the_first_digit_is_a_zero_one_can_read():
    images, labels = load_digits()
    assert labels[0] == 0
    assert ["".join("#" if pixel >= 8 else "." for pixel in row) for row in images[0]] == [
        "...##...",
        "..####..",
        "..#..##.",
        "..#..##.",
        "..#..##.",
        "..#..#..",
        "..#.##..",
        "...##...",
    ]


def test_each_call_gives_arrays_of_its_own():
    images, labels = load_digits()
    images[:] = 0
    labels[:] = 0
    again, labels_again = load_digits()
    assert again.any() and labels_again.any()


def damaged(kind, whole, images, labels, path):
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "flipped bit":
        path.write_bytes(whole[:20000] + bytes([whole[20000] ^ 1]) + whole[20001:])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a label changed":
        np.savez_compressed(path, images=images, labels=np.roll(labels, 1))
    elif kind == "an array missing":
        np.savez_compressed(path, images=images)
    elif kind == "a pickle":
        np.savez_compressed(path, images=np.array([{}], dtype=object), labels=labels)


@pytest.mark.parametrize("kind", [
    "truncated", "flipped bit", "empty", "a label changed", "an array missing", "a pickle",
])
def test_a_damaged_file_is_never_used(kind, tmp_path, monkeypatch):
    path = tmp_path / "digits.npz"
    damaged(kind, digits._PATH.read_bytes(), *load_digits(), path)
    monkeypatch.setattr(digits, "_PATH", path)
    with pytest.raises(ValueError, match=r"load_digits: .*digits\.npz is damaged: install hcrot again"):
        load_digits()
