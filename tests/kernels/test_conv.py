"""The convolution kernels: definition, references, adjoint identities, and every way of cutting the work into blocks and shares."""

import numba
import numpy as np
import pytest

from hcrot.kernels import conv
from hcrot.kernels.conv import (
    POINTWISE,
    conv2d,
    conv2d_input_gradient,
    conv2d_input_gradient_reference,
    conv2d_reference,
    conv2d_weight_gradient,
    conv2d_weight_gradient_reference,
    linear,
    linear_reference,
    linear_weight_gradient,
    linear_weight_gradient_reference,
    uses_winograd,
)
from hcrot.kernels.im2col import make_geometry, output_size

# (B, C, H, W), outputs, geometry
CASES = [
    ((1, 1, 1, 1), 1, make_geometry(1)),
    ((2, 3, 1, 1), 5, make_geometry(3, padding=1)),
    ((3, 5, 4, 7), 2, POINTWISE),
    ((2, 3, 4, 5), 4, make_geometry(1, padding=1)),  # padding beyond the kernel's reach: the input gradient crops
    ((2, 3, 4, 5), 4, make_geometry(2, padding=(3, 1, 0, 2))),
    ((2, 3, 4, 5), 4, make_geometry(1, stride=2)),
    ((2, 3, 5, 7), 4, make_geometry(3, padding=1)),
    ((2, 3, 6, 5), 4, make_geometry((2, 3), stride=(2, 1), padding=(1, 0))),
    ((2, 2, 9, 8), 3, make_geometry((3, 2), stride=2, padding=(1, 0, 2, 3))),
    ((1, 4, 9, 11), 2, make_geometry(3, padding=2, dilation=(2, 3))),
    ((2, 3, 8, 7), 3, make_geometry(3, stride=(3, 2), padding=(0, 1, 0, 1), dilation=2)),
    ((2, 2, 6, 5), 3, make_geometry((4, 2), padding="same", dilation=(1, 2))),
    ((3, 2, 6, 5), 3, make_geometry((6, 5))),
    ((2, 2, 4, 4), 3, make_geometry(2, stride=5, padding=3)),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw(rng, shape, outputs, geometry, dtype=np.float64):
    """x, weight, bias, dy of one convolution."""
    size = output_size(*shape[2:], geometry)
    shapes = shape, (outputs, shape[1], *geometry[:2]), (outputs,), (shape[0], outputs, *size)
    return tuple(rng.standard_normal(s).astype(dtype) for s in shapes)


def close(got, expected, dtype=np.float64):
    """Equal up to rounding, relative to the largest entry."""
    assert got.dtype == dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-13) * np.abs(expected).max(initial=1))


def check_all(x, weight, bias, dy, geometry, dtype=np.float64):
    """All three kernels against their references."""
    close(conv2d(x, weight, bias, geometry), conv2d_reference(x, weight, bias, geometry), dtype)
    for got, expected in zip(conv2d_weight_gradient(x, dy, geometry), conv2d_weight_gradient_reference(x, dy, geometry), strict=True):
        close(got, expected, dtype)
    size = x.shape[2:]
    close(conv2d_input_gradient(dy, weight, geometry, *size), conv2d_input_gradient_reference(dy, weight, geometry, *size), dtype)


@pytest.mark.parametrize("convolve", [conv2d, conv2d_reference])
@pytest.mark.parametrize(("shape", "outputs", "geometry"), CASES)
def test_conv2d_is_its_definition(rng, convolve, shape, outputs, geometry):
    x, weight, bias, dy = draw(rng, shape, outputs, geometry)
    kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = geometry
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    expected = np.empty(dy.shape)
    for oy, ox in np.ndindex(dy.shape[2:]):
        y, at = oy * stride_h, ox * stride_w
        window = padded[:, :, y : y + dilation_h * (kernel_h - 1) + 1 : dilation_h, at : at + dilation_w * (kernel_w - 1) + 1 : dilation_w]
        expected[:, :, oy, ox] = np.einsum("bcij,ocij->bo", window, weight) + bias
    close(convolve(x, weight, bias, geometry), expected)
    close(convolve(x, weight, None, geometry), expected - bias[:, None, None])


@pytest.mark.parametrize(("shape", "outputs", "geometry"), CASES)
@pytest.mark.parametrize(
    ("forward", "weight_gradient", "input_gradient"),
    [
        (conv2d, conv2d_weight_gradient, conv2d_input_gradient),
        (conv2d_reference, conv2d_weight_gradient_reference, conv2d_input_gradient_reference),
    ],
)
def test_the_gradients_are_the_adjoints(rng, forward, weight_gradient, input_gradient, shape, outputs, geometry):
    """Convolution is linear in x and in the weight: <conv(x, w), dy> = <x, dx(dy, w)> = <w, dw(x, dy)>, for any of them."""
    x, weight, bias, dy = draw(rng, shape, outputs, geometry)
    number = np.vdot(forward(x, weight, None, geometry), dy)
    dweight, dbias = weight_gradient(x, dy, geometry)
    np.testing.assert_allclose(np.vdot(x, input_gradient(dy, weight, geometry, *shape[2:])), number, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(np.vdot(weight, dweight), number, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(np.vdot(bias, dbias), np.vdot(np.broadcast_to(bias[:, None, None], dy.shape), dy), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "outputs", "geometry"), CASES)
def test_kernels_equal_their_references(rng, dtype, shape, outputs, geometry):
    check_all(*draw(rng, shape, outputs, geometry, dtype), geometry, dtype)


@pytest.mark.parametrize("algorithm", ["auto", "winograd"])
@pytest.mark.parametrize("padding", [2, 3, 4, (0, 0, 5, 0), (0, 2, 3, 0), (4, 0, 0, 0), (0, 0, 0, 5)])
def test_input_gradient_of_a_3x3_kernel_beyond_whose_reach_is_padding(rng, algorithm, padding):
    """It is a convolution that begins or ends inside the image; Winograd's tiles, in which forward was done, do not."""
    geometry = make_geometry(3, padding=padding)
    x, weight, bias, dy = draw(rng, (4, 16, 15, 17), 18, geometry, np.float32)
    assert uses_winograd(algorithm, x, geometry, *dy.shape[1:])
    expected = conv2d_input_gradient_reference(dy, weight, geometry, 15, 17)
    close(conv2d_input_gradient(dy, weight, geometry, 15, 17, algorithm), expected, np.float32)


@pytest.mark.parametrize("rows", [1, 2, 5, 7, 64])
@pytest.mark.parametrize("grain", [1, 10**9])
@pytest.mark.parametrize("geometry", [make_geometry(3, padding=1), make_geometry((2, 3), stride=(2, 1), padding=1), POINTWISE])
def test_blocks_of_any_size_and_any_number_of_shares(rng, monkeypatch, rows, grain, geometry):
    """Tiny blocks: their edges fall inside rows, between rows and between images."""
    monkeypatch.setattr(conv, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(conv, "GRAIN", grain)
    for batch in (1, 2, 3):
        check_all(*draw(rng, (batch, 3, 5, 4), 2, geometry), geometry)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_pixel_counts_around_multiples_of_the_block(rng, kernel_size, beyond, blocks):
    geometry = make_geometry(kernel_size, padding=kernel_size // 2)
    check_all(*draw(rng, (1, 16, 1, blocks * conv.ROWS_AT_ONCE + beyond), 24, geometry, np.float32), geometry, np.float32)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_work_enough_for_every_thread(rng, batch, stride):
    geometry = make_geometry(3, stride, 1)
    check_all(*draw(rng, (batch, 13, 29, 31), 17, geometry), geometry)


def test_any_memory_order_in_and_channels_last_out(rng):
    geometry = make_geometry(3, 2, 1)
    x, weight, bias, dy = draw(rng, (2, 3, 7, 5), 4, geometry)
    y, (dweight, dbias) = conv2d(x, weight, bias, geometry), conv2d_weight_gradient(x, dy, geometry)
    dx = conv2d_input_gradient(dy, weight, geometry, 7, 5)
    for array in (y, dx):
        assert array.transpose(0, 2, 3, 1).flags.c_contiguous
    assert dweight.transpose(2, 3, 1, 0).flags.c_contiguous
    for order in (
        np.asfortranarray,
        lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda a: np.ascontiguousarray(a.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: np.ascontiguousarray(a[::-1, :, ::-1])[::-1, :, ::-1],
    ):
        np.testing.assert_array_equal(conv2d(order(x), order(weight), bias, geometry), y)
        np.testing.assert_array_equal(conv2d_input_gradient(order(dy), order(weight), geometry, 7, 5), dx)
        np.testing.assert_array_equal(conv2d_weight_gradient(order(x), order(dy), geometry)[0], dweight)
        np.testing.assert_array_equal(conv2d_weight_gradient(order(x), order(dy), geometry)[1], dbias)


@pytest.mark.parametrize("convolve", [conv2d, conv2d_reference])
@pytest.mark.parametrize("geometry", [make_geometry(3, 2, 1), POINTWISE])
def test_a_bias_per_image_and_a_residual(rng, convolve, geometry):
    x, weight, _, residual = draw(rng, (3, 2, 6, 5), 4, geometry)
    shift = rng.standard_normal((3, 4))
    expected = conv2d_reference(x, weight, None, geometry) + shift[:, :, None, None]
    close(convolve(x, weight, shift, geometry), expected)
    close(convolve(x, weight, shift, geometry, residual), expected + residual)
    close(convolve(x, weight, None, geometry, np.asfortranarray(residual)), expected - shift[:, :, None, None] + residual)


def test_a_bias_per_image_reaches_its_image_in_any_block(rng, monkeypatch):
    monkeypatch.setattr(conv, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(conv, "GRAIN", 1)
    geometry = make_geometry(3, 1, 1)
    x, weight, _, residual = draw(rng, (5, 2, 3, 4), 3, geometry)
    shift = rng.standard_normal((5, 3))
    close(conv2d(x, weight, shift, geometry, residual), conv2d_reference(x, weight, shift, geometry, residual))


def test_nothing_handed_in_is_written_to(rng):
    for geometry in (make_geometry(3, 1, 1), make_geometry(2, 2), POINTWISE):
        arrays = x, weight, bias, dy = draw(rng, (2, 3, 6, 6), 4, geometry)
        before = [a.copy() for a in arrays]
        conv2d(x, weight, bias, geometry, dy)
        conv2d_weight_gradient(x, dy, geometry)
        conv2d_input_gradient(dy, weight, geometry, 6, 6)
        for array, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (257, 3), (2, 5, 3), (2, 1, 4, 3)])
def test_linear_equals_its_reference(rng, dtype, shape):
    x, weight, bias = (rng.standard_normal(s).astype(dtype) for s in (shape, (4, 3), (4,)))
    dy = rng.standard_normal((*shape[:-1], 4)).astype(dtype)
    close(linear(x, weight, bias), linear_reference(x, weight, bias), dtype)
    close(linear(x, np.asfortranarray(weight), None), linear_reference(x, weight, None), dtype)
    close(linear(np.asfortranarray(x), weight, bias), linear_reference(x, weight, bias), dtype)
    for got, expected in zip(linear_weight_gradient(x, dy), linear_weight_gradient_reference(x, dy), strict=True):
        close(got, expected, dtype)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
@pytest.mark.parametrize("order", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]])
def test_a_residual_in_any_memory_order_goes_to_the_kernel_that_is_compiled(rng, order):
    x, weight, residual = (rng.standard_normal(shape) for shape in ((7, 3), (4, 3), (7, 4)))
    expected = linear(x, weight, None, residual)
    compiled = list(conv._conv2d.compiled.signatures)
    np.testing.assert_array_equal(linear(x, weight, None, order(residual)), expected)
    assert conv._conv2d.compiled.signatures == compiled
