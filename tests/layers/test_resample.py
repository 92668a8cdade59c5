import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.resample import Downsample, Upsample


def upsample(*arguments, **options) -> Upsample:
    return Upsample(*arguments, **options, generator=np.random.default_rng(0))


def downsample(*arguments, **options) -> Downsample:
    return Downsample(*arguments, **options, generator=np.random.default_rng(0))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("options", [{}, {"out_channels": 4}, {"use_conv": False}], ids=str)
@pytest.mark.parametrize("size", [None, (10, 14), (9, 13), (3, 11), 6], ids=str)
def test_upsample_gradients(options, size):
    check_gradients(upsample(3, **options), images(2, 3, 5, 7), size)


@pytest.mark.parametrize("options", [{}, {"padding": 0}, {"out_channels": 4}, {"use_conv": False}], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (2, 3, 5, 7), (1, 3, 2, 3)], ids=str)
def test_downsample_gradients(options, shape):
    check_gradients(downsample(3, **options), images(*shape))


def test_upsample_doubles_or_goes_to_any_size():
    layer, x = upsample(3, use_conv=False), images(2, 3, 5, 7)
    np.testing.assert_array_equal(layer(x), np.repeat(np.repeat(x, 2, axis=2), 2, axis=3))
    # B09: a skip of 8x12 pixels has not one size but two
    assert layer(x, size=(8, 12)).shape == (2, 3, 8, 12)
    np.testing.assert_array_equal(layer(x, size=(5, 7)), x)
    np.testing.assert_array_equal(layer(x, size=[9, 14])[:, :, -1], np.repeat(x[:, :, -1], 2, axis=2))


def test_upsample_then_convolves():
    layer, x = upsample(3, 4).astype(np.float64), images(2, 3, 5, 7)
    np.testing.assert_array_equal(layer(x), layer.conv(np.repeat(np.repeat(x, 2, axis=2), 2, axis=3)))
    assert [(name, parameter.shape) for name, parameter in layer.named_parameters()] == [("conv.weight", (4, 3, 3, 3)), ("conv.bias", (4,))]


@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7), (2, 3)])
def test_downsample_sizes(height, width):
    x = images(1, 3, height, width).astype(np.float32)
    assert downsample(3)(x).shape == (1, 3, (height + 1) // 2, (width + 1) // 2)
    assert downsample(3, 5, padding=0)(x).shape == (1, 5, height // 2, width // 2)
    assert downsample(3, use_conv=False)(x).shape == (1, 3, height // 2, width // 2)


def test_downsample_without_padding_adds_a_row_below_and_a_column_to_the_right():
    layer, x = downsample(3, padding=0).astype(np.float64), images(2, 3, 6, 8)
    layer.conv.weight.data[...] = 0
    layer.conv.bias.data[...] = 0
    layer.conv.weight.data[0, 1, 2, 2] = 1
    y = layer(x)
    expected = np.zeros((2, 3, 3, 4))
    expected[:, 0, :2, :3] = x[:, 1, 2::2, 2::2]
    np.testing.assert_array_equal(y, expected)


def test_downsample_without_convolution_is_the_mean():
    x = images(2, 3, 4, 6)
    np.testing.assert_allclose(downsample(3, use_conv=False)(x), x.reshape(2, 3, 2, 2, 3, 2).mean(axis=(3, 5)), rtol=1e-13)


@pytest.mark.parametrize("layer", [Upsample, Downsample])
def test_arguments_are_checked(layer):
    name = layer.__name__
    with pytest.raises(ValueError, match=f"{name}: channels must be an int of at least 1, got 0"):
        layer(0)
    with pytest.raises(ValueError, match=f"{name}: out_channels must be an int of at least 1, got 1.5"):
        layer(3, 1.5)
    with pytest.raises(ValueError, match=f"{name}: without a convolution out_channels 4 must be channels 3"):
        layer(3, 4, use_conv=False)
    for use_conv in (True, False):
        with pytest.raises(ValueError, match=rf"{name}: expected images of shape \(batch, 3, height, width\), got \(2, 4, 5, 5\)"):
            layer(3, use_conv=use_conv)(np.ones((2, 4, 5, 5), np.float32))
        with pytest.raises(TypeError, match=f"{name}: expected a float32 or float64 array, got int64"):
            layer(3, use_conv=use_conv)(np.ones((2, 3, 5, 5), np.int64))
    with pytest.raises(ValueError, match=f"{name}: expected float32 images"):
        layer(3)(np.ones((2, 3, 5, 5)))


def test_sizes_and_paddings_are_checked():
    with pytest.raises(ValueError, match="Downsample: padding must be 0 or 1, got 2"):
        Downsample(3, padding=2)
    for size in ((0, 3), (1, 2, 3), "big"):
        with pytest.raises(ValueError, match="Upsample: size must be an int or two ints of at least 1, got"):
            Upsample(3)(np.ones((1, 3, 2, 2), np.float32), size=size)
