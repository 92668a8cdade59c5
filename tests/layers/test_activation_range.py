"""Activations over the whole range of both dtypes, beside values that are exact to more digits than the dtype has.

``np.longdouble`` has 64 bits of mantissa on x86; where it is no more than float64, the formulas here are still stable ones.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from hcrot.kernels.activation import silu_gradient_reference, silu_reference
from hcrot.layers.activation import GELU, Mish, ReLU, Sigmoid, SiLU, Tanh
from hcrot.layers.norm import GroupNormSiLU
from hcrot.module import Module


def points(dtype: type) -> np.ndarray:
    """Zero, powers of two from the smallest subnormal to the largest number, some between, infinity; with both signs."""
    info = np.finfo(dtype)
    lowest, highest = round(math.log2(info.smallest_subnormal)), info.maxexp
    powers = np.ldexp(np.ones(highest - lowest, dtype), np.arange(lowest, highest))
    moderate = np.arange(0.25, 120, 0.0625, dtype=dtype)
    positive = np.concatenate([powers, powers[30:] * dtype(1.37), moderate, moderate * dtype(7.1), [info.max, np.inf]]).astype(dtype)
    positive = np.sort(positive[positive > 0])
    return np.concatenate([-positive[::-1], np.array([-0.0, 0.0], dtype), positive])


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def silu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, -5000) * sigmoid(x)


def silu_slope(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, -5000, 5000)
    return sigmoid(x) + x * sigmoid(x) * sigmoid(-x)


def normal_distribution(x: np.ndarray) -> np.ndarray:
    return np.array([math.erfc(-float(each) / math.sqrt(2)) / 2 for each in x])


def gelu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, -5000) * normal_distribution(x)


def gelu_slope(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, -100, 100)
    return normal_distribution(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.longdouble(math.pi))


def doubled_angle(x: np.ndarray) -> np.ndarray:
    """2 u, with which ``(1 + tanh u) / 2 = sigmoid(2 u)``."""
    return 2 * np.sqrt(2 / np.longdouble(math.pi)) * (x + np.longdouble(0.044715) * x**3)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, -5000) * sigmoid(doubled_angle(np.clip(x, -100, 100)))


def gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, -100, 100)
    a = doubled_angle(x)
    slope = 2 * np.sqrt(2 / np.longdouble(math.pi)) * (1 + 3 * np.longdouble(0.044715) * x * x)
    return sigmoid(a) + x * sigmoid(a) * sigmoid(-a) * slope


def mish_factor(x: np.ndarray) -> np.ndarray:
    """``tanh(ln(1 + e^x))``, where the formula of ``hcrot.layers.activation`` does without tanh and logarithm."""
    return np.tanh(np.log1p(np.exp(np.minimum(x, 100))))


def mish(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, -5000) * mish_factor(x)


def mish_slope(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, -5000, 100)
    t = mish_factor(x)
    return t + x * (1 - t) * (1 + t) * sigmoid(x)


def tanh_slope(x: np.ndarray) -> np.ndarray:
    return 4 * sigmoid(2 * np.clip(x, -5000, 5000)) * sigmoid(-2 * np.clip(x, -5000, 5000))


# layer, exact y, exact slope, and whether y is relatively exact where it is small (else only to some parts of x or 1)
EXACT: list[tuple[Module, Callable, Callable, bool]] = [
    (SiLU(), silu, silu_slope, True),
    (ReLU(), lambda x: np.where(x > 0, x, 0), lambda x: x > 0, True),
    (GELU(), gelu, gelu_slope, False),
    (GELU("tanh"), gelu_tanh, gelu_tanh_slope, False),
    (Mish(), mish, mish_slope, True),
    (Sigmoid(), sigmoid, lambda x: sigmoid(x) * sigmoid(-x), True),
    (Tanh(), np.tanh, tanh_slope, True),
]
LAYERS = [layer for layer, *_ in EXACT]


@pytest.mark.parametrize(("layer", "exact", "exact_slope", "relative"), EXACT, ids=map(repr, LAYERS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_values_and_slopes_over_the_whole_range(layer, exact, exact_slope, relative, dtype):
    x = points(dtype)
    eps, tiny = 16 * np.finfo(dtype).eps, 1000 * np.finfo(dtype).tiny
    y = layer(x)
    slope = layer.backward(np.ones_like(x))
    with np.errstate(over="ignore"):
        expected, expected_slope = exact(x.astype(np.longdouble)), exact_slope(x.astype(np.longdouble))

    finite = np.isfinite(expected)
    np.testing.assert_array_equal(y[~finite], expected[~finite])
    size = np.abs(expected[finite])
    if not relative:
        size = np.maximum(size, np.minimum(abs(x[finite]), 1))
    assert (abs(y[finite] - expected[finite]) <= eps * size + tiny).all()
    # twice as much: SiLU's 1 - sigmoid(x) cancels, and x times its rounding error is largest just before it becomes 0
    assert (abs(slope - expected_slope) <= 2 * eps).all()


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_at_infinity(layer, dtype):
    x = np.array([-np.inf, np.inf], dtype)
    y = layer(x)
    bounded = {Sigmoid: [0, 1], Tanh: [-1, 1]}
    np.testing.assert_array_equal(y, bounded.get(type(layer), [0, np.inf]))
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), [0, 0] if type(layer) in bounded else [0, 1])


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_shows(layer, dtype):
    x, one = np.array([np.nan, 1], dtype), np.ones(2, dtype)
    assert np.isnan(layer(x)).tolist() == [True, False]
    assert np.isnan(layer.backward(np.array([1, np.nan], dtype))).tolist() == [not isinstance(layer, ReLU), True]
    layer(np.array([0.5, 1], dtype))
    np.testing.assert_array_equal(layer.backward(one * np.array([np.inf, -np.inf], dtype)), [np.inf, -np.inf])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silu_in_its_reference_and_in_group_norm_has_the_same_limits(dtype):
    x = np.array([-np.inf, -1e30, 0, 1e30, np.inf], dtype)
    np.testing.assert_array_equal(silu_reference(x), [0, 0, 0, dtype(1e30), np.inf])
    np.testing.assert_array_equal(silu_gradient_reference(x, np.ones_like(x)), [0, 0, 0.5, 1, 1])

    layer = GroupNormSiLU(1, 2).astype(dtype)
    layer.bias.data[...] = [-np.inf, np.inf]
    np.testing.assert_array_equal(layer(np.array([[-1, 1]], dtype)), [[0, np.inf]])
    layer.backward(np.ones((1, 2), dtype))
    np.testing.assert_array_equal(layer.bias.grad, [0, 1])
