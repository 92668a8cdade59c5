import numpy as np
import pytest

from hcrot.data import random_flip, random_shift


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (200, 3, 5, 4), dtype=np.uint8)


def test_about_half_are_mirrored_and_the_others_are_as_they_were(images):
    before, flipped = images.copy(), random_flip(images, np.random.default_rng(1))
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[..., ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all() and 70 < same.sum() < 130
    assert flipped.dtype == np.uint8
    np.testing.assert_array_equal(images, before)


def test_every_shift_comes_and_repeats_the_border(images):
    moved, seen = random_shift(images, 1, np.random.default_rng(1)), set()
    padded = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
    for n in range(len(images)):
        [where] = [(i, j) for i in range(3) for j in range(3) if (moved[n] == padded[n, :, i : i + 5, j : j + 4]).all()]
        seen.add(where)
    assert len(seen) == 9


def test_the_draws_do_not_depend_on_the_images(images):
    for change in (random_flip, lambda images, generator: random_shift(images, 2, generator)):
        one, other = np.random.default_rng(1), np.random.default_rng(1)
        change(images, one)
        change(np.zeros((200, 9, 9), np.float32), other)
        assert one.bit_generator.state == other.bit_generator.state


def test_no_shift_changes_nothing(images):
    np.testing.assert_array_equal(random_shift(images, 0, np.random.default_rng(1)), images)


def test_bad_input(images):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"random_flip: images must .* got an array of shape \(200,\)"):
        random_flip(images[:, 0, 0, 0], rng)
    with pytest.raises(ValueError, match="random_shift: pixels must be an int of at least 0, got -1"):
        random_shift(images, -1, rng)
    with pytest.raises(TypeError, match=r"random_shift: generator must be a numpy\.random\.Generator or an int"):
        random_shift(images, 1, 0.5)
