"""Winograd's algorithm: the transforms' algebra, every size of image and padding, every cut of the work, exactness, rounding, choice."""

import numpy as np
import pytest

from hcrot.kernels import winograd as module
from hcrot.kernels import winograd_wide
from hcrot.kernels.conv import (
    conv2d,
    conv2d_input_gradient,
    conv2d_reference,
    conv2d_weight_gradient,
    conv2d_weight_gradient_reference,
    winograd_pays,
)
from hcrot.kernels.im2col import make_geometry, output_size
from hcrot.kernels.jit import get_num_threads
from hcrot.kernels.winograd import winograd, winograd_weight_gradient
from hcrot.kernels.winograd_transforms import (
    INPUT_TRANSFORM,
    KERNEL_TRANSFORM,
    OUTPUT_TRANSFORM,
    in_two_dimensions,
    transform_input,
    transform_kernel,
    transform_kernel_adjoint,
    transform_output,
    transform_output_adjoint,
)

SAME = make_geometry(3, padding=1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=["narrow", "wide"])
def way(request, monkeypatch):
    """Both ways to multiply, whatever the shape."""
    monkeypatch.setattr(winograd_wide, "WIDE", 10**9 if request.param == "narrow" else 0)
    monkeypatch.setattr(winograd_wide, "MOST_TILES", 10**9)
    return request.param


def assert_close(got, expected, tolerance):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max(initial=1))


def test_the_matrices_give_the_four_outputs_of_a_kernel_of_three_taps(rng):
    d, g = rng.standard_normal(6), rng.standard_normal(3)
    y = OUTPUT_TRANSFORM @ ((KERNEL_TRANSFORM @ g) * (INPUT_TRANSFORM @ d))
    np.testing.assert_allclose(y, np.correlate(d, g), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("transform", "matrix"),
    [
        (transform_input, INPUT_TRANSFORM),
        (transform_output, OUTPUT_TRANSFORM),
        (transform_output_adjoint, OUTPUT_TRANSFORM.T),
        (transform_kernel, KERNEL_TRANSFORM),
        (transform_kernel_adjoint, KERNEL_TRANSFORM.T),
    ],
)
def test_each_transform_is_its_matrix(transform, matrix, rng):
    given = rng.standard_normal((matrix.shape[1], 7))
    np.testing.assert_allclose(transform(*given), matrix @ given, rtol=0, atol=1e-14)
    square = rng.standard_normal((matrix.shape[1], matrix.shape[1]))
    both = np.reshape(in_two_dimensions(transform, square.ravel()), (matrix.shape[0], matrix.shape[0]))
    np.testing.assert_allclose(both, matrix @ square @ matrix.T, rtol=0, atol=1e-13)


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize("width", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("padding", [1, 0, (2, 1, 0, 3)])
def test_every_size_and_padding_in_float64_is_exact(height, width, padding, rng, one_kernel_thread, way):
    geometry = make_geometry(3, padding=padding)
    size = output_size(height, width, geometry)
    if min(size) < 1:
        pytest.skip("no output")
    x, weight, bias = rng.standard_normal((3, 5, height, width)), rng.standard_normal((4, 5, 3, 3)), rng.standard_normal((3, 4))
    dy = rng.standard_normal((3, 4, *size))
    assert_close(winograd(x, weight, bias, geometry, dy), conv2d_reference(x, weight, bias, geometry, dy), 1e-13)
    for got, expected in zip(winograd_weight_gradient(x, dy, geometry), conv2d_weight_gradient_reference(x, dy, geometry), strict=True):
        assert_close(got, expected, 1e-13)


@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 33), (64, 16), (600, 2), (2, 600)])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 13, 6), (7, 9, 21)])
def test_every_cut_of_the_work_gives_the_same(batch, height, width, channels, outputs, rng, monkeypatch):
    """Blocks of one to all tile rows, one share and more than there are threads."""
    x = rng.standard_normal((batch, channels, height, width))
    weight, dy = rng.standard_normal((outputs, channels, 3, 3)), rng.standard_normal((batch, outputs, height, width))
    expected = conv2d_reference(x, weight, None, SAME), *conv2d_weight_gradient_reference(x, dy, SAME)
    for cut in [(1, 1), (2, 1), (1000, 1), (1, 2), (3, 2), (1, 4), (1000, 4)]:
        monkeypatch.setattr(module, "blocks", lambda *_, cut=cut: cut)
        results = winograd(x, weight, None, SAME), *winograd_weight_gradient(x, dy, SAME)
        for got, exact in zip(results, expected, strict=True):
            assert_close(got, exact, 1e-12)


@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 33), (64, 16), (300, 2), (2, 300), (40, 70)])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 13, 6), (7, 9, 21)])
def test_every_cut_of_wide_work_gives_the_same(batch, height, width, channels, outputs, rng, monkeypatch):
    """Blocks of few and of all channels, of few and of all tiles, one share and several."""
    x = rng.standard_normal((batch, channels, height, width))
    weight, dy = rng.standard_normal((outputs, channels, 3, 3)), rng.standard_normal((batch, outputs, height, width))
    residual, bias = rng.standard_normal(dy.shape), rng.standard_normal((batch, outputs))
    expected = conv2d_reference(x, weight, bias, SAME, residual), *conv2d_weight_gradient_reference(x, dy, SAME)
    monkeypatch.setattr(winograd_wide, "WIDE", 0)
    monkeypatch.setattr(winograd_wide, "MOST_TILES", 10**9)
    for block_width, tiles, num_shares in [(1, 1, 1), (16, 64, 1), (1000, 5, 1), (16, 7, 2), (7, 1000, 3), (1000, 64, 4)]:
        monkeypatch.setattr(winograd_wide, "block_width", lambda *_, width=block_width: width)
        monkeypatch.setattr(winograd_wide, "TILES", tiles)
        monkeypatch.setattr(winograd_wide, "shares", lambda *_, num_shares=num_shares: num_shares)
        results = winograd(x, weight, bias, SAME, residual), *winograd_weight_gradient(x, dy, SAME)
        for got, exact in zip(results, expected, strict=True):
            assert_close(got, exact, 1e-12)


def test_blocks_of_wide_layers_leave_no_thread_idle():
    for channels in (16, 17, 32, 128, 512, 4096):
        for others in (4, 64, 512, 4096):
            width = winograd_wide.block_width(channels, others)
            assert width % 16 == 0 and width >= 16
            assert width == 16 or (width * others <= winograd_wide.BLOCK and -(-channels // width) >= get_num_threads())


def test_only_layers_with_heavy_weights_and_few_tiles_are_wide():
    assert winograd_wide.is_wide(128, 128, 16) and winograd_wide.is_wide(512, 256, 128)
    assert not winograd_wide.is_wide(128, 127, 16) and not winograd_wide.is_wide(512, 256, 129) and not winograd_wide.is_wide(512, 512, 0)


@pytest.mark.parametrize("arrange", ["as kept", "turned", "turned and in another order"])
def test_turned_weights_are_read_where_they_lie(arrange, rng, way):
    """The gradient of the input: the kernel turned, channels and outputs exchanged, as a view and as a copy."""
    kept = rng.standard_normal((3, 3, 5, 7)).transpose(3, 2, 0, 1)
    weight = kept if arrange == "as kept" else kept[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    if arrange == "turned and in another order":
        weight = np.ascontiguousarray(weight)
    taps, turned = module.taps_of(weight)
    assert turned == (arrange == "turned")
    assert np.shares_memory(taps, kept) == (arrange != "turned and in another order")
    x = rng.standard_normal((2, weight.shape[1], 6, 9))
    assert_close(winograd(x, weight, None, SAME), conv2d_reference(x, weight, None, SAME), 1e-12)


def test_any_memory_order_gives_the_same(rng):
    x, weight = rng.standard_normal((2, 16, 9, 12), dtype=np.float32), rng.standard_normal((17, 16, 3, 3), dtype=np.float32)
    expected = winograd(x, weight, None, SAME)
    assert expected.transpose(0, 2, 3, 1).flags.c_contiguous
    for arrange in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]):
        np.testing.assert_array_equal(winograd(arrange(x), arrange(weight), None, SAME), expected)


@pytest.mark.parametrize(("channels", "outputs"), [(32, 32), (64, 64), (256, 256)])
def test_float32_rounding_stays_near_that_of_direct_sums(channels, outputs, rng, way):
    """On unit data: within 5e-6 of the largest output, forward and both gradients, where im2col's own error is about 5e-7."""
    x, weight = rng.standard_normal((2, channels, 16, 12)), rng.standard_normal((outputs, channels, 3, 3))
    dy = rng.standard_normal((2, outputs, 16, 12))
    single = [a.astype(np.float32) for a in (x, weight, dy)]
    expected = conv2d_reference(x, weight, None, SAME), *conv2d_weight_gradient_reference(x, dy, SAME)
    got = winograd(*single[:2], None, SAME), *winograd_weight_gradient(single[0], single[2], SAME)
    for g, e in zip(got, expected, strict=True):
        assert_close(g, e.astype(np.float32), 5e-6)
    dx = conv2d_input_gradient(single[2], single[1], SAME, 16, 12, "winograd")
    assert_close(dx, conv2d_input_gradient(dy, weight, SAME, 16, 12, "im2col").astype(np.float32), 5e-6)


def test_the_weight_gradient_is_the_adjoint_of_the_convolution(rng, way):
    x, weight, dy = rng.standard_normal((3, 4, 7, 6)), rng.standard_normal((5, 4, 3, 3)), rng.standard_normal((3, 5, 7, 6))
    y, (dweight, _) = winograd(x, weight, None, SAME), winograd_weight_gradient(x, dy, SAME)
    dx = winograd(dy, weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), None, SAME)
    np.testing.assert_allclose([np.vdot(dweight, weight), np.vdot(dx, x)], np.vdot(y, dy), rtol=1e-12)


def test_not_a_number_stays_where_it_can_be_seen(rng, way):
    x, weight = rng.standard_normal((1, 16, 12, 12), dtype=np.float32), rng.standard_normal((16, 16, 3, 3), dtype=np.float32)
    x[0, 3, 5, 6] = np.nan
    assert np.isnan(winograd(x, weight, None, SAME)[0, :, 4:7, 5:8]).all()


def test_an_empty_batch_is_an_empty_result(way):
    x, weight = np.empty((0, 16, 8, 8), np.float32), np.ones((16, 16, 3, 3), np.float32)
    assert conv2d(x, weight, None, SAME, None, "winograd").shape == (0, 16, 8, 8)
    dweight, dbias = conv2d_weight_gradient(x, np.empty((0, 16, 8, 8), np.float32), SAME, "winograd")
    assert not dweight.any() and not dbias.any()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"dtype": np.dtype(np.float64)}, False),
        ({"geometry": make_geometry(3, 2, 1)}, False),
        ({"geometry": make_geometry(3, dilation=2)}, False),
        ({"geometry": make_geometry((3, 1))}, False),
        ({"channels": 3}, False),
        ({"batch": 1}, False),
        ({"out_height": 2, "out_width": 2}, False),
        ({"batch": 1, "out_height": 8, "out_width": 8}, False),
        ({"batch": 1, "out_height": 8, "out_width": 8, "channels": 256, "outputs": 256}, True),
        ({"batch": 1, "out_height": 4, "out_width": 4, "channels": 256, "outputs": 256}, False),
    ],
)
def test_auto_takes_it_for_float32_3x3_with_work_enough(changes, expected):
    usual = {"dtype": np.dtype(np.float32), "geometry": SAME, "batch": 16, "out_height": 14, "out_width": 14, "channels": 32, "outputs": 32}
    assert winograd_pays(**usual | changes) is expected
