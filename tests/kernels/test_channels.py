"""Joining, splitting and summing image arrays against plain NumPy, in any memory order."""

import numpy as np
import pytest

from hcrot.kernels.channels import (
    concatenate,
    concatenate_reference,
    pixel_sums,
    pixel_sums_reference,
    split,
    split_reference,
)
from hcrot.kernels.im2col import channels_first, channels_last

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 2), (2, 33, 41, 29)]


def draw(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_concatenate_and_split(shape, dtype):
    a, b = draw(shape, dtype), draw((shape[0], 4, *shape[2:]), dtype, 1)
    for order in (np.ascontiguousarray, lambda x: channels_first(channels_last(x))):
        y = concatenate(order(a), order(b))
        assert y.dtype == dtype and np.array_equal(y, concatenate_reference(a, b))
        assert channels_last(y).base is not None  # channels-last memory: a view, no copy
        for part, expected, original in zip(split(order(y), shape[1]), split_reference(y, shape[1]), (a, b), strict=True):
            assert np.array_equal(part, expected) and np.array_equal(part, original)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixel_sums(shape, dtype, tolerance):
    x = draw(shape, dtype)
    assert pixel_sums(x).dtype == dtype
    assert np.allclose(pixel_sums(x), pixel_sums_reference(x), rtol=tolerance, atol=tolerance)


def test_pixel_sums_is_the_adjoint_of_broadcasting():
    x, s = draw((3, 5, 7, 2), np.float64), draw((3, 5), np.float64, 1)
    assert np.isclose(np.sum(x * s[:, :, None, None]), np.sum(pixel_sums(x) * s))
