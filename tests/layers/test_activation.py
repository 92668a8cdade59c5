import math

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.activation import GELU, Mish, ReLU, Sigmoid, SiLU, Softmax, Tanh

POINTWISE = [SiLU(), ReLU(), GELU(), GELU("tanh"), Mish(), Sigmoid(), Tanh()]
EVERY = [*POINTWISE, Softmax(), Softmax(1), Softmax(-4)]


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_gradients(layer):
    x = 2 * np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    check_gradients(layer, x)


@pytest.mark.parametrize("layer", EVERY, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_memory_order_are_kept(layer, dtype):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 5, 7, 3)).astype(dtype).transpose(0, 3, 1, 2)
    dout = rng.standard_normal((2, 5, 7, 3)).astype(dtype).transpose(0, 3, 1, 2)
    y = layer(x)
    dx = layer.backward(dout)
    assert y.dtype == dx.dtype == dtype
    assert y.strides == dx.strides == x.strides
    np.testing.assert_allclose(layer(np.ascontiguousarray(x)), y, rtol=1e-6)
    np.testing.assert_allclose(layer.backward(np.ascontiguousarray(dout)), dx, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_integers_are_refused(layer):
    with pytest.raises(TypeError, match=f"{type(layer).__name__}: expected a float32 or float64 array, got int64"):
        layer(np.ones((2, 3, 5, 7), np.int64))
    with pytest.raises(TypeError, match="got list"):
        layer([1.0, 2.0])


def test_values_at_one():
    one = np.ones(1)
    normal = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    mish = math.tanh(math.log(1 + math.e))
    expected = [1 / (1 + math.exp(-1)), 1, normal, normal, mish, 1 / (1 + math.exp(-1)), math.tanh(1)]
    for layer, value, tolerance in zip(POINTWISE, expected, [1e-15, 0, 1e-15, 2e-4, 1e-15, 1e-15, 1e-15], strict=True):
        with layer.inference():
            assert layer(one)[0] == pytest.approx(value, rel=tolerance, abs=0), layer


@pytest.mark.parametrize("layer", POINTWISE, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("error")
def test_large_numbers_give_the_limit_without_overflow(layer, dtype):
    # B30: the sigmoid overflowed
    x = np.array([-1000, -100, 100, 1000], dtype)
    y = layer(x)
    slope = layer.backward(np.ones_like(x))
    bounded = isinstance(layer, (Sigmoid, Tanh))
    below, above = (-1, 1) if isinstance(layer, Tanh) else (0, 1)
    np.testing.assert_allclose(y, [below, below, above, above] if bounded else [0, 0, 100, 1000], atol=1e-30)
    np.testing.assert_allclose(slope, np.zeros(4) if bounded else [0, 0, 1, 1], atol=1e-30)


def test_relu_passes_nothing_at_zero():
    layer = ReLU()
    layer(np.array([-1.0, 0.0, -0.0, 2.0]))
    np.testing.assert_array_equal(layer.backward(np.array([3.0, 4.0, 5.0, 6.0])), [0, 0, 0, 6])


def test_gelu_knows_two_forms():
    with pytest.raises(ValueError, match="GELU: approximate must be 'none' or 'tanh', got 'erf'"):
        GELU("erf")


def test_softmax_sums_to_one_and_survives_large_numbers():
    # B30: [1000, 0] gave NaN
    np.testing.assert_array_equal(Softmax()(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])), [[1, 0], [0.5, 0.5]])
    x = np.random.default_rng(2).standard_normal((3, 4, 5))
    np.testing.assert_allclose(Softmax(1)(x).sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(Softmax(1)(x), np.exp(x) / np.exp(x).sum(axis=1, keepdims=True), rtol=1e-14)


def test_softmax_gives_masked_entries_exactly_zero_and_empty_choices_nan():
    # B29: masked entries got 1e-8, a fully masked row became uniform
    p = Softmax()(np.array([[0.0, -np.inf, 0.0]]))
    np.testing.assert_array_equal(p, [[0.5, 0, 0.5]])
    with np.errstate(invalid="ignore"):
        assert np.isnan(Softmax()(np.full((1, 3), -np.inf))).all()


def test_softmax_needs_an_axis_that_exists():
    with pytest.raises(TypeError, match="Softmax: dim must be an int, got None"):
        Softmax(None)
    for dim in (2, -3):
        with pytest.raises(ValueError, match=rf"Softmax: dim {dim} is out of range for shape \(2, 3\)"):
            Softmax(dim)(np.ones((2, 3)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_mish_is_exact_from_end_to_end(dtype, tolerance):
    x = np.linspace(-80, 80, 1601, dtype=dtype)
    layer, exact = Mish(), x.astype(np.longdouble)
    u = np.exp(exact)
    t = np.tanh(np.log1p(u))
    np.testing.assert_allclose(layer(x), exact * t, rtol=5 * tolerance, atol=0)
    slope = t + exact * (1 - t * t) * u / (1 + u)
    np.testing.assert_allclose(layer.backward(np.ones_like(x)), slope, rtol=0, atol=5 * tolerance)


def test_softmax_of_nothing_is_nothing():
    assert Softmax(0)(np.zeros((0, 3), np.float32)).shape == (0, 3)
