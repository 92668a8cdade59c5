"""RMSNorm, BatchNorm2d, PixelShuffle, PixelUnshuffle, Residual, ScaleShift: formulas written out, gradients, bad input."""

import numpy as np
import pytest

import hcrot
from hcrot.gradcheck import check_gradients


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# RMSNorm ------------------------------------------------------------------------------------------------------


def test_rms_norm_written_out(rng):
    layer = hcrot.RMSNorm((3, 5), eps=0.1).astype(np.float64)
    layer.weight.data[...] = rng.standard_normal((3, 5))
    x = rng.standard_normal((2, 3, 5))
    for y, row in zip(layer(x), x, strict=True):
        np.testing.assert_allclose(y, row / np.sqrt((row**2).mean() + 0.1) * layer.weight.data)


@pytest.mark.parametrize(("arguments", "shape"), [((5,), (4, 5)), (((3, 5), 1e-2), (2, 4, 3, 5)), ((7, None, False), (3, 2, 7))])
def test_gradients_of_rms_norm(arguments, shape, rng):
    check_gradients(hcrot.RMSNorm(*arguments), rng.standard_normal(shape), generator=rng)


def test_rms_norm_takes_the_epsilon_of_the_dtype(rng):
    for dtype in (np.float32, np.float64):
        x = np.full((1, 4), np.sqrt(np.finfo(dtype).eps), dtype)
        np.testing.assert_allclose(hcrot.RMSNorm(4, elementwise_affine=False)(x), np.sqrt(0.5), rtol=1e-6)


def test_rms_norm_of_squares_that_overflow():
    x = np.array([[3e30, -4e30]], np.float32)
    np.testing.assert_allclose(hcrot.RMSNorm(2)(x), np.array([[3, -4]]) / np.sqrt(12.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hcrot.RMSNorm(()), r"RMSNorm: normalized_shape must have at least one axis, got \(\)"),
        (lambda: hcrot.RMSNorm((3, 0)), "RMSNorm: normalized_shape must be an int of at least 1, got 0"),
        (lambda: hcrot.RMSNorm(3, -1.0), r"RMSNorm: eps must be None or a finite number of at least 0, got -1\.0"),
        (lambda: hcrot.RMSNorm(3, dtype=np.float64), "RMSNorm: dtype=.* is not supported"),
        (lambda: hcrot.RMSNorm(3)(np.zeros((2, 4), np.float32)), r"whose trailing axes are \(3,\), got shape \(2, 4\)"),
        (lambda: hcrot.RMSNorm(3)(np.zeros((2, 3))), "RMSNorm: expected a float32 array, as the weight is, got float64"),
        (lambda: hcrot.RMSNorm(3, None, False)(np.zeros((2, 3), int)), "RMSNorm: expected a float32 or float64 array, got int64"),
    ],
)
def test_rms_norm_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# BatchNorm2d --------------------------------------------------------------------------------------------------


def test_batch_norm_written_out(rng):
    layer = hcrot.BatchNorm2d(4, eps=1e-3, momentum=0.25).astype(np.float64)
    layer.weight.data[...], layer.bias.data[...] = rng.standard_normal((2, 4))
    x = 5 + 3 * rng.standard_normal((3, 4, 2, 5))
    y = layer(x)
    for c in range(4):
        mean, var = x[:, c].mean(), x[:, c].var()
        expected = (x[:, c] - mean) / np.sqrt(var + 1e-3) * layer.weight.data[c] + layer.bias.data[c]
        np.testing.assert_allclose(y[:, c], expected)
        np.testing.assert_allclose(layer.running_mean.data[c], 0.25 * mean)
        np.testing.assert_allclose(layer.running_var.data[c], 0.75 + 0.25 * var * 30 / 29)
    running = layer.state_dict()
    assert running["num_batches_tracked"] == 1
    with layer.inference():
        y = layer(x)
    mean, var = running["running_mean"][:, None, None], running["running_var"][:, None, None]
    np.testing.assert_allclose(
        y, (x - mean) / np.sqrt(var + 1e-3) * layer.weight.data[:, None, None] + layer.bias.data[:, None, None], atol=1e-12
    )
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, running[name])  # inference moves nothing


def test_running_values_without_momentum_are_means(rng):
    layer = hcrot.BatchNorm2d(2, momentum=None).astype(np.float64)
    batches = rng.standard_normal((3, 4, 2, 3, 5))
    for batch in batches:
        layer(batch)
        layer.forget()
    np.testing.assert_allclose(layer.running_mean.data, batches.mean(axis=(0, 1, 3, 4)))
    np.testing.assert_allclose(layer.running_var.data, batches.var(axis=(1, 3, 4), ddof=1).mean(axis=0))


@pytest.mark.parametrize("options", [{}, {"eps": 0.1}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("shape", [(3, 4, 2, 5), (1, 4, 3, 1), (5, 4, 1, 1)])
def test_gradients_of_batch_norm(options, shape, rng):
    check_gradients(hcrot.BatchNorm2d(4, **options), rng.standard_normal(shape), generator=rng)


def test_running_values_are_no_parameters_to_learn():
    layer = hcrot.BatchNorm2d(3)
    assert [parameter.shape for parameter in layer.parameters()] == [(3,), (3,)]
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert not list(hcrot.BatchNorm2d(3, affine=False, track_running_stats=False).state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hcrot.BatchNorm2d(0), "BatchNorm2d: num_features must be an int of at least 1, got 0"),
        (lambda: hcrot.BatchNorm2d(3, eps=np.nan), "BatchNorm2d: eps must be a positive number, got nan"),
        (lambda: hcrot.BatchNorm2d(3, momentum=1.5), r"BatchNorm2d: momentum must be None or a number from 0 to 1, got 1\.5"),
        (lambda: hcrot.BatchNorm2d(3)(np.zeros((2, 4, 5, 5), np.float32)), r"expected images of shape \(batch, 3, height, width\)"),
        (lambda: hcrot.BatchNorm2d(3)(np.zeros((2, 3, 5, 5))), "expected float32 images"),
        (lambda: hcrot.BatchNorm2d(3)(np.zeros((1, 3, 1, 1), np.float32)), r"more than one pixel per channel in training, got shape"),
        (
            lambda: hcrot.BatchNorm2d(3, affine=False, track_running_stats=False)(np.zeros((2, 3, 5, 5), int)),
            "BatchNorm2d: expected a float32 or float64 array, got int64",
        ),
    ],
)
def test_batch_norm_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# PixelShuffle and PixelUnshuffle ------------------------------------------------------------------------------


def test_pixel_shuffle_written_out(rng):
    x = rng.standard_normal((2, 18, 2, 5))
    y = hcrot.PixelShuffle(3)(x)
    assert y.shape == (2, 2, 6, 15)
    for b, c, h, w in np.ndindex(y.shape):
        assert y[b, c, h, w] == x[b, 9 * c + 3 * (h % 3) + w % 3, h // 3, w // 3]
    np.testing.assert_array_equal(hcrot.PixelUnshuffle(3)(y), x)


@pytest.mark.parametrize(("layer", "shape"), [(hcrot.PixelShuffle(2), (2, 8, 3, 1)), (hcrot.PixelUnshuffle(2), (3, 2, 6))])
def test_gradients_of_pixel_shuffles(layer, shape, rng):
    check_gradients(layer, rng.standard_normal(shape), generator=rng)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hcrot.PixelShuffle(0), ValueError, "PixelShuffle: upscale_factor must be an int of at least 1, got 0"),
        (lambda: hcrot.PixelUnshuffle(1.5), ValueError, "PixelUnshuffle: downscale_factor must be an int of at least 1, got 1.5"),
        (lambda: hcrot.PixelShuffle(2)(np.zeros((1, 6, 2, 2))), ValueError, "6 channels are not divisible by upscale_factor squared, 4"),
        (lambda: hcrot.PixelUnshuffle(2)(np.zeros((1, 6, 4, 3))), ValueError, "a 4x3 image is not divisible by downscale_factor 2"),
        (lambda: hcrot.PixelShuffle(2)(np.zeros((4, 4))), ValueError, r"expected images of shape \(..., channels, height, width\)"),
        (lambda: hcrot.PixelUnshuffle(2)(np.zeros((4, 4, 4), int)), TypeError, "expected a float32 or float64 array, got int64"),
    ],
)
def test_pixel_shuffles_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Residual and ScaleShift --------------------------------------------------------------------------------------


def test_residual_adds_x_to_what_its_module_makes(rng):
    inner = hcrot.Sequential(hcrot.Linear(5, 7, generator=rng), hcrot.Tanh(), hcrot.Linear(7, 5, generator=rng))
    layer = hcrot.Residual(inner)
    x = rng.standard_normal((3, 5), dtype=np.float32)
    with layer.inference():
        np.testing.assert_array_equal(layer(x), x + inner(x))
    assert list(layer.state_dict())[0] == "module.0.weight"
    check_gradients(layer, x, generator=rng)


def test_residual_refuses_what_does_not_fit(rng):
    with pytest.raises(TypeError, match="Residual: module must be a Module, got function"):
        hcrot.Residual(lambda x: x)
    with pytest.raises(ValueError, match=r"must return an array like x, float32 \(3, 1\), got float32 \(3, 5\) from Linear"):
        hcrot.Residual(hcrot.Linear(1, 5))(np.zeros((3, 1), np.float32))


def test_scale_shift_is_public_and_scales_first(rng):
    x, scale, shift = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    y = hcrot.ScaleShift()(x, np.concatenate([scale, shift], axis=1))
    np.testing.assert_allclose(y, x * (1 + scale[:, :, None, None]) + shift[:, :, None, None])
