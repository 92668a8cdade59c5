import numpy as np
import pytest

from hcrot.data import DIGITS_MAX, load_digits, prepare_images


@pytest.mark.parametrize("max_value", [255, 16])
@pytest.mark.parametrize("size", [None, 14, 7])
def test_ends_of_the_range_are_exact(max_value, size):
    images = np.zeros((2, 28, 28), np.uint8)
    images[1] = max_value
    x = prepare_images(images, max_value=max_value, size=size)
    assert x.dtype == np.float32 and x.flags.c_contiguous
    assert (x[0] == -1).all() and (x[1] == 1).all()


@pytest.mark.parametrize(("shape", "size"), [((3, 28, 28), 14), ((2, 12, 8), 4), ((2, 9, 6), 3), ((1, 5, 5), 1)])
def test_shrinking_is_the_mean_of_each_block(shape, size):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    x = prepare_images(images, size=size)
    assert x.shape == (shape[0], 1, size, size)
    a, b = shape[1] // size, shape[2] // size
    for n, _, i, j in np.ndindex(x.shape):
        block = images[n, i * a : (i + 1) * a, j * b : (j + 1) * b]
        assert x[n, 0, i, j] == pytest.approx(2 * block.mean() / 255 - 1, abs=2e-7)


def test_without_a_size_every_pixel_stays():
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    before = images.copy()
    x = prepare_images(images)
    assert x.shape == (3, 1, 5, 7)
    np.testing.assert_array_equal(np.rint((x[:, 0] + 1) * 127.5), images)
    np.testing.assert_array_equal(images, before)


def test_many_full_pixels_do_not_overflow_a_byte():
    assert prepare_images(np.full((1, 28, 28), 255, np.uint8), size=1) == 1


def test_bundled_digits_fill_the_range():
    images, _ = load_digits()
    x = prepare_images(images, max_value=DIGITS_MAX)
    assert x.shape == (1797, 1, 8, 8) and x.min() == -1 and x.max() == 1
    assert prepare_images(images, max_value=DIGITS_MAX, size=4).shape == (1797, 1, 4, 4)


@pytest.mark.parametrize(("images", "options", "error", "message"), [
    ([[0]], {}, TypeError, "must be an array of uint8, bool, float32 or float64, got list"),
    (np.zeros((1, 4, 4), np.int64), {}, TypeError, "must be an array of uint8, bool, float32 or float64, got int64 array"),
    (np.zeros((4, 4), np.uint8), {}, ValueError, r"shape \(N, H, W\) or \(N, C, H, W\), got \(4, 4\)"),
    (np.zeros((1, 4, 4, 3), np.uint8), {}, ValueError, r"channels seem to be the last axis: images.transpose\(0, 3, 1, 2\)"),
    (np.full((1, 4, 4), -0.5), {"max_value": 1}, ValueError, "pixels must be from 0 to 1, the smallest is -0.5"),
    (np.full((1, 4, 4), np.nan), {"max_value": 1}, ValueError, "at least the largest pixel nan"),
    (np.full((1, 4, 4), 2.0), {"max_value": 1}, ValueError, "at least the largest pixel 2, got 1"),
    (np.full((1, 4, 4), 17, np.uint8), {"max_value": 16}, ValueError, "at least the largest pixel 17, got 16"),
    (np.zeros((1, 4, 4), np.uint8), {"max_value": 0}, ValueError, "max_value must be above 0"),
    (np.zeros((1, 28, 28), np.uint8), {"size": 10}, ValueError, "must divide the height and width 28x28, got 10"),
    (np.zeros((1, 8, 8), np.uint8), {"size": 14}, ValueError, "must divide the height and width 8x8, got 14"),
    (np.zeros((1, 8, 12), np.uint8), {"size": 8}, ValueError, "must divide the height and width 8x12, got 8"),
    (np.zeros((1, 8, 8), np.uint8), {"size": 0}, ValueError, "got 0"),
    (np.zeros((1, 8, 8), np.uint8), {"size": -4}, ValueError, "got -4"),
    (np.zeros((1, 8, 8), np.uint8), {"size": 4.0}, TypeError, "size must be an int or None, got 4.0"),
    (np.zeros((1, 8, 8), np.uint8), {"size": "14"}, TypeError, "size must be an int or None, got '14'"),
])
def test_bad_arguments(images, options, error, message):
    with pytest.raises(error, match=f"prepare_images: .*{message}"):
        prepare_images(images, **options)


def test_a_small_integer_of_numpy_is_a_size():
    assert prepare_images(np.zeros((1, 300, 300), np.uint8), size=np.uint8(100)).shape == (1, 1, 100, 100)


def test_colour_keeps_its_channels():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 4), dtype=np.uint8)
    x = prepare_images(images, size=2)
    assert x.shape == (2, 3, 2, 2)
    for channel in range(3):
        np.testing.assert_array_equal(x[:, channel : channel + 1], prepare_images(np.ascontiguousarray(images[:, channel]), size=2))


@pytest.mark.parametrize("dtype", [np.bool_, np.float32, np.float64])
def test_pixels_from_0_to_1(dtype):
    images = np.array([[[0, 1], [1, 0]]], dtype)
    np.testing.assert_array_equal(prepare_images(images, max_value=1), [[[[-1, 1], [1, -1]]]])


@pytest.mark.parametrize(("images", "full"), [(np.eye(4)[None], "1"), (np.full((1, 2, 2), 15, np.uint8), "16")])
def test_images_in_another_range_are_not_trained_on_in_black(images, full):
    with pytest.warns(UserWarning, match=f"almost black; say max_value={full}"):
        assert prepare_images(images).max() < -0.8


def test_dark_images_and_black_ones_are_no_mistake(recwarn):
    prepare_images(np.full((1, 2, 2), 16, np.uint8))
    prepare_images(np.zeros((1, 2, 2), np.uint8))
    prepare_images(np.eye(2)[None], max_value=1)
    assert not recwarn
