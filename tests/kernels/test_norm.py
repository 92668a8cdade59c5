"""The group normalisation kernels: references, definition, adjoint directions, accuracy, extremes, and every way of cutting into strips."""

import numpy as np
import pytest

from hcrot.kernels import norm
from hcrot.kernels.norm import group_norm, group_norm_backward, group_norm_backward_reference, group_norm_reference
from support.processes import run

# shape of x, number of groups
CASES = [
    ((2, 6, 5, 7), 3),
    ((3, 6, 5, 7), 1),
    ((1, 6, 3, 2), 6),
    ((5, 32, 7, 7), 8),
    ((2, 4, 33, 29), 2),  # several strips, the last one broken off
    ((2, 6, 70, 61), 2),  # more strips than are added up in the arrays' dtype
    ((2, 700, 3, 2), 7),  # a pixel longer than a strip
    ((4, 6), 2),
    ((3, 6, 5), 3),
    ((2, 4, 3, 2, 5), 2),
    ((2, 3, 1, 1), 1),
]

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def draw(shape, groups, dtype=np.float64, seed=0):
    """x, dy, weight and bias."""
    rng = np.random.default_rng(seed)
    shapes = shape, shape, shape[1:2], shape[1:2]
    return tuple((rng.standard_normal(s) + offset).astype(dtype) for s, offset in zip(shapes, (0.7, 0, 0.5, 0.3), strict=True))


def close(got, expected, dtype=np.float64):
    """Equal up to rounding, relative to the largest entry."""
    assert got.dtype == dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("shape", "groups"), CASES)
def test_kernels_agree_with_their_references(shape, groups, silu, dtype):
    x, dy, weight, bias = draw(shape, groups, dtype)
    before = [a.copy() for a in (x, dy, weight, bias)]
    y, mean, rstd = group_norm(x, weight, bias, groups, 1e-3, silu)
    for got, expected in zip((y, mean, rstd), group_norm_reference(x, weight, bias, groups, 1e-3, silu), strict=True):
        close(got, expected, dtype)
    arguments = dy, x, mean, rstd, weight, bias, silu
    for got, expected in zip(group_norm_backward(*arguments), group_norm_backward_reference(*arguments), strict=True):
        close(got, expected, dtype)
    for array, copy in zip((x, dy, weight, bias), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_group_worked_by_hand():
    # channels 0 and 1 form a group: 1, 3, 5, 7 with mean 4 and variance 5; channel 2 and 3 are constant
    x = np.array([[1.0, 3], [5, 7], [2, 2], [2, 2]]).reshape(1, 4, 1, 2)
    weight, bias = np.array([1.0, 2, 3, 4]), np.array([0.0, 10, 20, 30])
    y, mean, rstd = group_norm(x, weight, bias, 2, 0, False)
    np.testing.assert_allclose(mean, [[4, 2]])
    np.testing.assert_allclose(rstd, [[5**-0.5, np.inf]])
    np.testing.assert_allclose(y[0, :2, 0], [[-3 / 5**0.5, -1 / 5**0.5], [10 + 2 / 5**0.5, 10 + 6 / 5**0.5]])
    y, _, _ = group_norm(x, weight, bias, 2, 1e-5, False)
    np.testing.assert_allclose(y[0, 2:, 0], [[20, 20], [30, 30]])


ORDERS = {
    "C": np.ascontiguousarray,
    "channels-last": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1) if a.ndim > 1 else a,
    "Fortran": np.asfortranarray,
    "gaps": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
}


@pytest.mark.parametrize("order", ORDERS)
def test_any_memory_order_gives_the_same_numbers(order):
    x, dy, weight, bias = draw((3, 6, 5, 7), 3)
    y, mean, rstd = group_norm(x, weight, bias, 3, 1e-5, True)
    expected = y, *group_norm_backward(dy, x, mean, rstd, weight, bias, True)
    x, dy, weight, bias = (ORDERS[order](a) for a in (x, dy, weight, bias))
    again, mean, rstd = group_norm(x, weight, bias, 3, 1e-5, True)
    got = again, *group_norm_backward(dy, x, mean, rstd, weight, bias, True)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for images in got[:2]:
        assert np.moveaxis(images, 1, -1).flags.c_contiguous


@pytest.mark.parametrize("strip", [1, 7, 40, 10_000])
@pytest.mark.parametrize("num_shares", [1, 2, 3])
def test_every_way_of_cutting_gives_the_same_numbers(monkeypatch, strip, num_shares):
    x, dy, weight, bias = draw((5, 6, 5, 7), 3)
    monkeypatch.setattr(norm, "STRIP", strip)
    monkeypatch.setattr(norm, "shares", lambda work, grain: num_shares)
    y, mean, rstd = group_norm(x, weight, bias, 3, 1e-5, True)
    close(y, group_norm_reference(x, weight, bias, 3, 1e-5, True)[0])
    arguments = dy, x, mean, rstd, weight, bias, True
    for got, expected in zip(group_norm_backward(*arguments), group_norm_backward_reference(*arguments), strict=True):
        close(got, expected)


def test_float32_keeps_its_digits_on_large_images_far_from_zero():
    # E[x^2] - E[x]^2 would leave a variance of 1 beside 10^6 no digit at all
    x = (1000 + np.random.default_rng(0).standard_normal((1, 4, 256, 256))).astype(np.float32)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    y, mean, rstd = group_norm(x, ones, zeros, 2, 1e-5, False)
    exact, exact_mean, exact_rstd = group_norm_reference(x.astype(np.float64), ones, zeros, 2, 1e-5, False)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-7)
    np.testing.assert_allclose(rstd, exact_rstd, rtol=1e-6)
    np.testing.assert_allclose(y, exact, atol=2.5e-4)  # x itself has but 10^3 2^-24 = 6e-5
    _, dweight, dbias = group_norm_backward(np.abs(x), x, mean, rstd, ones, zeros, False)
    np.testing.assert_allclose(dbias, np.abs(x).sum(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    assert np.isfinite(dweight).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silu_of_very_large_numbers(dtype):
    x = np.array([-1.0, 1]).reshape(1, 1, 1, 2).astype(dtype)
    weight, bias = np.array([1000], dtype), np.zeros(1, dtype)
    with np.errstate(all="raise"):
        y, mean, rstd = group_norm(x, weight, bias, 1, 0, True)
        dx, dweight, dbias = group_norm_backward(np.ones_like(x), x, mean, rstd, weight, bias, True)
    np.testing.assert_allclose(y.ravel(), [0, 1000], atol=1e-30)
    np.testing.assert_allclose([*dweight, *dbias], [1, 1])
    assert np.isfinite(dx).all()


def test_nan_shows_and_stays_in_its_image():
    x, dy, weight, bias = draw((3, 6, 5, 7), 3)
    x[1, 2, 3, 4] = np.nan
    y, _, _ = group_norm(x, weight, bias, 3, 1e-5, True)
    assert np.isnan(y[1, 2:4]).all()
    assert np.isfinite(y[[0, 2]]).all() and np.isfinite(y[1, [0, 1, 4, 5]]).all()


def test_works_without_compilation():
    program = """
import numpy as np
from hcrot.kernels.norm import *
rng = np.random.default_rng(0)
x, dy, weight, bias = (rng.standard_normal(shape) for shape in [(2, 4, 3, 5), (2, 4, 3, 5), (4,), (4,)])
y, mean, rstd = group_norm(x, weight, bias, 2, 1e-5, True)
np.testing.assert_allclose(y, group_norm_reference(x, weight, bias, 2, 1e-5, True)[0], rtol=1e-10)
arguments = dy, x, mean, rstd, weight, bias, True
for got, expected in zip(group_norm_backward(*arguments), group_norm_backward_reference(*arguments)):
    np.testing.assert_allclose(got, expected, rtol=1e-10)
"""
    result = run(program, NUMBA_DISABLE_JIT="1")
    assert result.returncode == 0, result.stderr
