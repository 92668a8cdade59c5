import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.conv import Conv2d
from hcrot.layers.padding import MODES, Pad2d

SIDES = [(0, 0, 0, 0), (1, 2, 3, 0), (3, 3, 4, 4), (0, 3, 0, 1)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", SIDES)
def test_values_and_gradients(mode, sides):
    top, bottom, left, right = sides
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    pad = Pad2d(sides, mode)
    expected = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), MODES[mode])
    with pad.inference():
        np.testing.assert_array_equal(pad(x), expected)
    check_gradients(pad, x, exhaustive=True)


def test_the_docstring_is_true():
    row = np.array([1.0, 2, 3, 4]).reshape(1, 1, 1, 4)
    rows = {"reflect": [3, 2, 1, 2, 3, 4, 3, 2], "replicate": [1, 1, 1, 2, 3, 4, 4, 4], "circular": [3, 4, 1, 2, 3, 4, 1, 2]}
    for mode, expected in rows.items():
        np.testing.assert_array_equal(Pad2d((0, 0, 2, 2), mode)(row).ravel(), expected)


def test_images_that_are_too_small():
    x = np.ones((1, 2, 3, 5))
    for mode, sides in (("reflect", (3, 0, 0, 0)), ("reflect", (0, 0, 0, 5)), ("circular", (0, 4, 0, 0)), ("circular", (0, 0, 6, 0))):
        with pytest.raises(ValueError, match=rf"Pad2d: a 3x5 image is too small for padding .* by '{mode}'"):
            Pad2d(sides, mode)(x)
    assert Pad2d((2, 2, 4, 4), "reflect")(x).shape == (1, 2, 7, 13)
    assert Pad2d((3, 3, 5, 5), "circular")(x).shape == (1, 2, 9, 15)


def test_arguments_are_checked():
    for sides in (1, (1, 2), (1, 2, 3, -1), (1, 2, 3, True), (1, 2, 3, 1.0)):
        with pytest.raises(ValueError, match="Pad2d: sides must be four ints of at least 0"):
            Pad2d(sides, "reflect")
    with pytest.raises(ValueError, match="Pad2d: mode must be one of 'reflect', 'replicate', 'circular', got 'zeros'"):
        Pad2d((1, 1, 1, 1), "zeros")
    with pytest.raises(ValueError, match="Conv2d: padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', got 'wrap'"):
        Conv2d(1, 1, 3, padding_mode="wrap")
    for shape in ((2, 3, 4), (0, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"Pad2d: expected images of shape \(batch, channels, height, width\)"):
            Pad2d((1, 1, 1, 1), "reflect")(np.ones(shape))


@pytest.mark.parametrize("mode", MODES)
def test_a_convolution_in_float32_by_either_algorithm(mode):
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, 8, 9, 11)).astype(np.float32), rng.standard_normal((2, 8, 11, 13)).astype(np.float32)
    results = []
    for algorithm in ("im2col", "winograd"):
        conv = Conv2d(8, 8, 3, padding=2, padding_mode=mode, algorithm=algorithm, generator=np.random.default_rng(1))
        results.append((conv(x), conv.backward(dout), conv.weight.grad))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
