"""resize against Pillow, and against its formula by hand."""

import numpy as np
import pytest

from hcrot.data import resize

SIZES = [(28, 28, 7, 7), (7, 7, 28, 28), (9, 14, 5, 31), (13, 6, 13, 17), (4, 5, 1, 1), (1, 3, 6, 2), (40, 33, 7, 10)]


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SIZES)
def test_resize_is_pillows_bicubic(height, width, new_height, new_width):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(height)
    floats = rng.standard_normal((3, height, width)).astype(np.float32)
    # black and white, where the kernel overshoots, and grey
    bytes_ = np.concatenate([255 * rng.integers(0, 2, (2, height, width)), rng.integers(0, 256, (2, height, width))]).astype(np.uint8)

    def theirs(x):
        rows = image.fromarray(x).resize((new_width, height), image.Resampling.BICUBIC)  # its version 13 begins with either axis
        return np.asarray(rows.resize((new_width, new_height), image.Resampling.BICUBIC))

    ours = resize(floats, (new_height, new_width))
    assert (ours.dtype, ours.shape) == (np.float32, (3, new_height, new_width))
    np.testing.assert_allclose(ours, [theirs(x) for x in floats], rtol=0, atol=1e-5)
    np.testing.assert_allclose(resize(floats.astype(np.float64), (new_height, new_width)), ours, rtol=0, atol=1e-6)
    ours = resize(bytes_, (new_height, new_width))
    assert ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - [theirs(x).astype(int) for x in bytes_])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_resize_by_hand():
    # from 2 pixels to 4, the centres lie at 1/4, 3/4, 5/4 and 7/4, so at distances 1/4 and 3/4 from the pixels, or 1/4 and 5/4
    kernel = {0.25: 0.8671875, 0.75: 0.2265625, 1.25: -0.0703125}
    x = np.array([[3.0, 7.0]])
    outer = (3 * kernel[0.25] + 7 * kernel[1.25]) / (kernel[0.25] + kernel[1.25])
    inner = (3 * kernel[0.25] + 7 * kernel[0.75]) / (kernel[0.25] + kernel[0.75])
    np.testing.assert_allclose(resize(x, (1, 4)), [[outer, inner, 10 - inner, 10 - outer]], rtol=1e-12)


def test_what_resize_leaves_alone():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4))
    np.testing.assert_allclose(resize(x, (5, 4)), x, rtol=1e-12)
    np.testing.assert_allclose(resize(np.full((2, 3, 5, 4), 1.5), 9), 1.5, rtol=1e-12)
    np.testing.assert_allclose(resize(x, (8, 3))[1, 2], resize(x[1, 2], (8, 3)), rtol=1e-12)


def test_shrinking_does_not_alias():
    """Of stripes one pixel wide only grey is left."""
    stripes = np.tile([0.0, 1.0], 20)[None].repeat(3, axis=0)
    np.testing.assert_allclose(resize(stripes, (3, 10))[:, 1:-1], 0.5, atol=0.02)


@pytest.mark.parametrize(
    ("images", "size", "message"),
    [
        (np.zeros((3, 4), int), 2, "images must be an array of float32, float64 or uint8, got an array of int64"),
        ([[1.0]], 2, "images must be an array of float32, float64 or uint8, got list"),
        (np.zeros(3), 2, r"must have the shape \(..., height, width\) and not be empty, got \(3,\)"),
        (np.zeros((0, 3, 3)), 2, "not be empty"),
        (np.zeros((3, 3)), 0, r"size must be an int of at least 1 or \(height, width\), got 0"),
        (np.zeros((3, 3)), (2, 3, 4), "size must be"),
        (np.zeros((3, 3)), (2, 1.5), "size must be"),
        (np.zeros((3, 3)), 2.0, "size must be"),
    ],
)
def test_refusals(images, size, message):
    with pytest.raises((ValueError, TypeError), match=f"resize: .*{message}"):
        resize(images, size)
