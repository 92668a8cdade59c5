"""Linear: formula, gradients, initial values, bad input."""

import math

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.linear import Linear


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (5, 3), (2, 4, 3), (2, 3, 4, 3), (1, 1, 1, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_backward_over_any_number_of_axes(rng, dtype, shape, bias):
    """B27: a 4-D input left a 4-D weight gradient."""
    layer = Linear(3, 4, bias=bias, generator=rng).astype(dtype)
    x, dout = rng.standard_normal(shape).astype(dtype), rng.standard_normal((*shape[:-1], 4)).astype(dtype)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == np.float32 else 1e-13}
    y = layer(x)
    np.testing.assert_allclose(y, np.einsum("...i,oi->...o", x, layer.weight.data) + (layer.bias.data if bias else 0), **tolerance)
    dx = layer.backward(dout)
    rows, drows = x.reshape(-1, 3), dout.reshape(-1, 4)
    np.testing.assert_allclose(dx, (drows @ layer.weight.data).reshape(shape), **tolerance)
    np.testing.assert_allclose(layer.weight.grad, np.einsum("po,pi->oi", drows, rows), **tolerance)
    if bias:
        np.testing.assert_allclose(layer.bias.grad, drows.sum(axis=0), **tolerance)
    assert y.dtype == dx.dtype == dtype


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 5), (7, 2)])
def test_gradients(rng, inputs, outputs):
    report = check_gradients(Linear(inputs, outputs, generator=rng), rng.standard_normal((3, 2, inputs)), exhaustive=True)
    assert report.worst_error < 1e-9


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 511, 512, 513, 1025])
def test_gradients_around_the_sizes_at_which_the_product_is_split(rng, rows):
    """37 * 41 multiplications per row: a single share at first, several in the end; blocks of some hundred rows."""
    layer, x, dout = Linear(37, 41, generator=rng).astype(np.float64), rng.standard_normal((rows, 37)), rng.standard_normal((rows, 41))
    np.testing.assert_allclose(layer(x), x @ layer.weight.data.T + layer.bias.data, atol=1e-12)
    np.testing.assert_allclose(layer.backward(dout), dout @ layer.weight.data, atol=1e-12)
    np.testing.assert_allclose(layer.weight.grad, dout.T @ x, atol=1e-11)
    np.testing.assert_allclose(layer.bias.grad, dout.sum(axis=0), atol=1e-11)


def test_layout_and_keys_are_those_of_pytorch(rng):
    layer = Linear(3, 5, generator=rng)
    assert {name: array.shape for name, array in layer.state_dict().items()} == {"weight": (5, 3), "bias": (5,)}
    assert layer.weight.data.T.flags.c_contiguous
    assert list(Linear(3, 5, bias=False).state_dict()) == ["weight"]
    assert repr(layer) == "Linear(3, 5, bias=True)"


def test_initial_values(rng):
    """B19: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias, float32."""
    layer = Linear(50, 400, generator=rng)
    bound = 1 / math.sqrt(50)
    for parameter in layer.parameters():
        assert parameter.data.dtype == np.float32
        assert np.abs(parameter.data).max() <= bound * (1 + 1e-6)
        assert parameter.data.max() > 0.95 * bound
        assert parameter.data.min() < -0.95 * bound
    assert abs(layer.weight.data.std() - bound / math.sqrt(3)) < 0.02 * bound
    assert abs(layer.weight.data.mean()) < 0.02 * bound


def test_the_generator_decides_and_global_state_does_not():
    np.random.seed(0)  # noqa: NPY002
    one = Linear(3, 4, generator=np.random.default_rng(7)).state_dict()
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    same, other = Linear(3, 4, generator=np.random.default_rng(7)).state_dict(), Linear(3, 4).state_dict()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert (one[name] != other[name]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), "Linear: in_features must be an int of at least 1, got 0"),
        ((2, -1), "Linear: out_features must be an int of at least 1, got -1"),
        ((2.0, 1), "Linear: in_features must be an int"),
        ((True, 1), "Linear: in_features must be an int"),
        ((2, "3"), "Linear: out_features must be an int"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Linear(*arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 4), np.float32), r"Linear: expected .* in_features 3, got shape \(2, 4\)"),
        (np.float32(1), "Linear: expected"),
        (np.ones((), np.float32), "Linear: expected"),
        ([[1.0, 2.0, 3.0]], "Linear: expected .* got list"),
        (np.ones((0, 3), np.float32), r"Linear: expected .* got shape \(0, 3\)"),
        (np.ones((2, 3), np.int64), "Linear: expected a float32 array, as the weight is, got int64"),
        (np.ones((2, 3), np.float64), "Linear: expected a float32 array, as the weight is, got float64"),
    ],
)
def test_bad_input(x, message):
    layer = Linear(3, 2)
    with pytest.raises(ValueError, match=message):
        layer(x)
    assert layer._kept is None
