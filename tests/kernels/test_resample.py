import os
import subprocess
import sys
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest

from hcrot.kernels.resample import nearest, nearest_gradient, nearest_gradient_reference, nearest_reference, starts

SIZES = [((3, 5), (6, 10)), ((4, 7), (7, 13)), ((5, 3), (2, 1)), ((1, 6), (9, 6)), ((14, 14), (28, 28)), ((3, 2), (3, 7))]


def test_nearest_of_a_row_worked_by_hand():
    # S1-53
    x = np.array([0.1, 0.2, 0.3]).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(nearest(x, 1, 5), [[[[0.1, 0.1, 0.2, 0.2, 0.3]]]])
    dout = np.array([1.0, 2, 3, 4, 5]).reshape(1, 1, 1, 5)
    np.testing.assert_array_equal(nearest_gradient(dout, 1, 3), [[[[3, 7, 5]]]])


def test_nearest_shows_the_exact_pixel_for_every_pair_of_sizes():
    # B38: floor(linspace(...)) picks a wrong one in 59 of these pairs, 2 -> 98 being one
    for size in range(1, 65):
        for out_size in range(1, 129):
            shown = np.repeat(np.arange(size), np.diff(starts(size, out_size)))
            assert (shown == np.arange(out_size) * size // out_size).all(), (size, out_size)
    x = np.arange(2.0).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(nearest(x, 98, 1).ravel(), [floor(Fraction(2 * o, 98)) for o in range(98)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "out_size"), SIZES)
@pytest.mark.parametrize(("batch", "channels"), [(2, 3), (1, 17), (33, 1)])
def test_kernels_agree_with_their_references(batch, channels, size, out_size, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, *size)).astype(dtype)
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    dout = rng.standard_normal((batch, channels, *out_size)).astype(dtype)
    for images in (x, channels_last):
        y = nearest(images, *out_size)
        assert y.dtype == dtype
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_array_equal(y, nearest_reference(x, *out_size))
    dx = nearest_gradient(dout, *size)
    assert dx.dtype == dtype
    assert dx.transpose(0, 2, 3, 1).flags.c_contiguous
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(dx, nearest_gradient_reference(dout, *size), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("size", "out_size"), SIZES)
def test_the_two_kernels_are_adjoint(size, out_size):
    rng = np.random.default_rng(1)
    x, dout = rng.standard_normal((2, 3, *size)), rng.standard_normal((2, 3, *out_size))
    assert np.vdot(nearest(x, *out_size), dout) == pytest.approx(np.vdot(x, nearest_gradient(dout, *size)), rel=1e-12)


def test_kernels_run_without_compilation():
    program = """
import numpy as np
from hcrot.kernels.resample import nearest, nearest_gradient, nearest_gradient_reference, nearest_reference
x, dout = np.random.default_rng(0).random((2, 2, 3, 4)), np.random.default_rng(1).random((2, 2, 5, 2))
np.testing.assert_array_equal(nearest(x, 5, 2), nearest_reference(x, 5, 2))
np.testing.assert_allclose(nearest_gradient(dout, 3, 4), nearest_gradient_reference(dout, 3, 4), rtol=1e-13)
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
