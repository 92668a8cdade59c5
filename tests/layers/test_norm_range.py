"""Normalisation of numbers of every size: those whose squares overflow or vanish, means much larger than deviations, what is not finite."""

import numpy as np
import pytest

from hcrot.kernels.norm import group_norm, group_norm_backward, group_norm_backward_reference, group_norm_reference
from hcrot.layers.norm import GroupNorm, GroupNormSiLU, LayerNorm
from hcrot.module import Module

SHAPE = (2, 6, 5, 7)
MAKERS = [
    lambda: GroupNorm(3, 6),
    lambda: GroupNormSiLU(3, 6),
    lambda: LayerNorm((5, 7)),
    lambda: LayerNorm((6, 5, 7), elementwise_affine=False),
]
# the square root of the largest number, where squares overflow, and sizes up to just below the largest number
LARGE = {np.float32: [1e18, 3e19, 1e25, 1e33, 2e37], np.float64: [1e153, 3e154, 1e200, 1e300, 1e307]}
SMALL = {np.float32: [1e-18, 1e-20, 1e-22, 1e-30], np.float64: [1e-153, 1e-160, 1e-162, 1e-290]}


def made(make, dtype: type, eps: float | None = None) -> Module:
    layer, rng = make().astype(dtype), np.random.default_rng(1)
    if eps is not None:
        layer.eps = eps
    for parameter in layer.parameters():
        parameter.data[...] = rng.standard_normal(parameter.shape)
    return layer


def gradients(layer: Module, x: np.ndarray, dout: np.ndarray) -> list[np.ndarray]:
    """y, dx and the gradients of the parameters."""
    return [layer(x), layer.backward(dout), *(parameter.grad for parameter in layer.parameters())]


def close(got: np.ndarray, expected: np.ndarray, dtype: type) -> None:
    assert got.dtype == dtype
    atol = (1e-5 if dtype == np.float32 else 1e-12) * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def scaled_alike(make, dtype, size, eps):
    """Assert that ``size`` times x gives the y of x, and dx divided by size, as is true where eps is nothing beside the variance."""
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE).astype(dtype)
    size = float(2.0 ** np.floor(np.log2(size)))  # exact as a factor
    x = x.astype(dtype)
    expected = gradients(made(make, np.float64, 0), x.astype(np.float64), dout.astype(np.float64))
    got = gradients(made(make, dtype, eps), x * dtype(size), dout)
    got[1] = got[1].astype(np.float64) * size
    assert (got[1] != 0).any()
    close(got[1].astype(dtype), expected[1], dtype)
    for ours, exact in zip(got[:1] + got[2:], expected[:1] + expected[2:], strict=True):
        close(ours, exact, dtype)


@pytest.mark.parametrize(("dtype", "size"), [(dtype, size) for dtype, sizes in LARGE.items() for size in sizes])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: repr(make()))
def test_numbers_whose_squares_overflow(make, dtype, size):
    scaled_alike(make, dtype, size, 1e-5)


@pytest.mark.parametrize(("dtype", "size"), [(dtype, size) for dtype, sizes in SMALL.items() for size in sizes])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: repr(make()))
def test_numbers_whose_squares_vanish_without_eps(make, dtype, size):
    scaled_alike(make, dtype, size, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("silu", [False, True])
def test_the_references_are_right_for_large_numbers_too(silu, dtype):
    rng, size = np.random.default_rng(2), dtype(LARGE[dtype][2])
    x, dy = size * rng.standard_normal(SHAPE).astype(dtype), rng.standard_normal(SHAPE).astype(dtype)
    weight, bias = rng.standard_normal(6).astype(dtype), rng.standard_normal(6).astype(dtype)
    y, mean, rstd = group_norm(x, weight, bias, 3, 1e-5, silu)
    for got, expected in zip((y, mean, rstd), group_norm_reference(x, weight, bias, 3, 1e-5, silu), strict=True):
        close(got, expected, dtype)
    arguments = dy, x, mean, rstd, weight, bias, silu
    for got, expected in zip(group_norm_backward(*arguments), group_norm_backward_reference(*arguments), strict=True):
        close(got, expected, dtype)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: repr(make()))
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_makes_nan_of_all_that_is_normalised_with_it_and_of_nothing_else(make, wrong):
    x, layer = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32), made(make, np.float32)
    x[1, 2, 3, 4] = wrong
    y, dx, *_ = gradients(layer, x, np.ones_like(x))
    together = {"LayerNorm((5, 7)": np.s_[1, 2], "LayerNorm((6, 5, 7)": np.s_[1]}
    place = next((place for name, place in together.items() if repr(layer).startswith(name)), np.s_[1, 2:4])
    expected = np.zeros(SHAPE, bool)
    expected[place] = True
    np.testing.assert_array_equal(np.isnan(y), expected)
    np.testing.assert_array_equal(np.isnan(dx), expected)
    assert np.isfinite(y[~expected]).all()


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: repr(make()))
@pytest.mark.parametrize(("dtype", "mean"), [(np.float32, 1e6), (np.float64, 1e8)])
def test_a_mean_much_larger_than_the_deviation(make, dtype, mean):
    """y is right but for an error of the size of x's own rounding, over the deviation."""
    x = (mean + 3 * np.random.default_rng(4).standard_normal(SHAPE)).astype(dtype)
    exact = x.astype(np.longdouble)
    layer, plain = made(make, dtype, 0), made(make, np.float64, 0)
    if isinstance(layer, LayerNorm):
        axes = tuple(range(-len(layer.normalized_shape), 0))
        mean_of, var_of = exact.mean(axis=axes, keepdims=True), exact.var(axis=axes, keepdims=True)
    else:
        groups = exact.reshape(2, 3, -1)
        mean_of, var_of = (np.repeat(a.reshape(2, 3, 1, 1), 2, axis=1) for a in (groups.mean(axis=2), groups.var(axis=2)))
    expected = plain(((exact - mean_of) / np.sqrt(var_of)).astype(np.float64))
    ulp = np.finfo(dtype).eps * mean / 3
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=4 * ulp)
