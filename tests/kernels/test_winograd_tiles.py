"""The generated code of the tiles' transforms against the same formulas on arrays: every edge of an image, any number of channels."""

import numpy as np
import pytest

from hcrot.kernels.jit import aligned_empty, launched, parallel_jit
from hcrot.kernels.winograd_tiles import (
    empty_points,
    pitch_for,
    row_buffer,
    transform_input,
    transform_kernel,
    transform_kernel_gradient,
    transform_output,
    transform_output_gradient,
    transform_weights,
    turn_taps,
    zeros_for,
)

FROM_PIXELS = {
    transform_input: (6, 36),
    transform_output_gradient: (4, 36),
    transform_kernel: (3, 36),
    transform_kernel_gradient: (6, 9),
}


@parallel_jit
def inputs(x, image, y, left, tiles, channel, count, points, place, share, num_shares):
    if launched(share, num_shares):
        return
    transform_input(x, image, y, left, tiles, channel, count, zeros_for(x.shape[2], x.shape[3], x), row_buffer(tiles, x), points, place)


@parallel_jit
def output_gradients(x, image, y, left, tiles, channel, count, points, place, share, num_shares):
    if launched(share, num_shares):
        return
    nothing = zeros_for(x.shape[2], x.shape[3], x)
    transform_output_gradient(x, image, y, left, tiles, channel, count, nothing, row_buffer(tiles, x), points, place)


@parallel_jit
def kernels(x, image, y, left, tiles, channel, count, points, place, share, num_shares):
    if launched(share, num_shares):
        return
    transform_kernel(x, image, y, left, tiles, channel, count, zeros_for(x.shape[2], x.shape[3], x), row_buffer(tiles, x), points, place)


@parallel_jit
def kernel_gradients(x, image, y, left, tiles, channel, count, points, place, share, num_shares):
    if launched(share, num_shares):
        return
    nothing = zeros_for(x.shape[2], x.shape[3], x)
    transform_kernel_gradient(x, image, y, left, tiles, channel, count, nothing, row_buffer(tiles, x), points, place)


@parallel_jit
def outputs(points, place, tiles, count, offsets, residual, y, image, top, channel, share, num_shares):
    if launched(share, num_shares):
        return
    nothing, buffer = zeros_for(1, count, y), row_buffer(tiles, y)
    transform_output(points, place, tiles, count, offsets, residual, nothing, buffer, y, image, top, channel)


@parallel_jit
def weights(weight, turned, first, last, output, number, u, share, num_shares):
    if launched(share, num_shares):
        return
    transform_weights(weight, turned, first, last, output, number, u)


COMPILED = {
    transform_input: inputs,
    transform_output_gradient: output_gradients,
    transform_kernel: kernels,
    transform_kernel_gradient: kernel_gradients,
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def assert_near(got, expected, dtype):
    np.testing.assert_allclose(got, expected, rtol=0, atol={"float32": 1e-4, "float64": 1e-13}[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transform", FROM_PIXELS, ids=["input", "output_gradient", "kernel", "kernel_gradient"])
def test_from_pixels(transform, dtype, rng):
    """The points of a row of tiles, of some of the channels; nothing else is written."""
    side, number = FROM_PIXELS[transform]
    for height, width in ((1, 1), (3, 3), (6, 6), (9, 5), (7, 14)):
        for channels, channel, count in ((1, 0, 1), (3, 1, 2), (8, 0, 8), (40, 3, 33), (20, 0, 20)):
            for y, left in ((0, 0), (-1, -1), (-2, -5), (height - 1, 0), (2, -8)):
                if left < -width - 4:
                    continue
                tiles = max(1, -(-(width - left) // 4))
                x = rng.standard_normal((2, height, width, channels)).astype(dtype)
                points = rng.standard_normal((number, 5 + tiles * count)).astype(dtype)
                expected = points.copy()
                arguments = x, 1, y, left, tiles, channel, count
                transform(*arguments, None, None, expected, 2)
                COMPILED[transform](*arguments, points, 2, 1)
                assert_near(points, expected, dtype)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_to_pixels(dtype, with_residual, rng):
    """A row of tiles whose last lines and columns lie outside of the image, to some of the channels."""
    for height, width in ((4, 4), (1, 1), (3, 7), (6, 9)):
        for channels, channel, count in ((1, 0, 1), (3, 1, 2), (8, 0, 8), (40, 3, 33)):
            for top in range(0, height, 4):
                tiles = -(-width // 4)
                points = rng.standard_normal((36, 3 + tiles * count)).astype(dtype)
                offsets = rng.standard_normal(channels).astype(dtype)
                y = rng.standard_normal((2, height, width, channels)).astype(dtype)
                residual = y[::-1] * 2 if with_residual else np.empty((0, 0, 0, channels), dtype)
                residual, expected = np.ascontiguousarray(residual), y.copy()
                transform_output(points, 3, tiles, count, offsets, residual, None, None, expected, 1, top, channel)
                outputs(points, 3, tiles, count, offsets, residual, y, 1, top, channel, 1)
                assert_near(y, expected, dtype)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("channels", "number"), [(1, 1), (17, 5), (40, 24)])
def test_weights(channels, number, turned, rng):
    """Any range of channels and outputs, of a weight as it lies and of one turned by 180 degrees."""
    weight = rng.standard_normal((9, channels, number))
    given = np.ascontiguousarray(weight[::-1].transpose(0, 2, 1)) if turned else weight
    for first, last in ((0, channels), (channels // 3, channels)):
        for output, some in ((0, number), (number // 2, number - number // 2)):
            u, expected = np.full((2, 36, channels * some), np.nan)
            part = np.ascontiguousarray(weight[:, first:last, output : output + some]).reshape(1, 3, 3, -1)
            transform_kernel(part, 0, 0, 0, 1, 0, part.shape[3], None, None, expected, first * some)
            weights(given, turned, first, last, output, some, u, 1)
            assert_near(u, expected, "float64")


def test_taps_are_turned(rng):
    weight, taps = rng.standard_normal((9, 4, 6)), np.full(9 * 6, np.nan)
    turn_taps(weight, 1, 2, 3, 3, taps)
    expected = [weight[8 - k, 1 + o, 3 + c] for k in range(9) for c in range(3) for o in range(2)]
    np.testing.assert_array_equal(taps, expected)


@pytest.mark.parametrize("itemsize", [4, 8])
def test_no_two_rows_of_points_fall_on_the_same_place_of_a_cache(itemsize):
    """64 lines of a first-level cache, 4,096 bytes."""
    for numbers in [*range(1, 70), 128, 1024, 2016, 2048, 4096]:
        pitch = pitch_for(numbers, itemsize)
        assert pitch >= numbers
        assert len({row * pitch * itemsize // 64 % 64 for row in range(36)}) == 36
    assert empty_points(100, np.zeros(1)).shape == (36, pitch_for(100, 8))
    assert aligned_empty(3, np.zeros(1)).ctypes.data % 64 == 0


