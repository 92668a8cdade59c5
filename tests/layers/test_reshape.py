import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.reshape import Flatten


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [((), (2, 60)), ((0,), (120,)), ((1, 2), (2, 12, 5)), ((0, -2), (24, 5)), ((-2, -1), (2, 3, 20)), ((2, 2), (2, 3, 4, 5))],
)
def test_flatten(arguments, shape):
    layer, x = Flatten(*arguments), np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    y = layer(x)
    assert y.shape == shape
    np.testing.assert_array_equal(y.ravel(), x.ravel())
    check_gradients(layer, x)


def test_flatten_counts_by_index_and_not_by_memory():
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    layer = Flatten()
    np.testing.assert_array_equal(layer(x), np.ascontiguousarray(x).reshape(2, 60))
    np.testing.assert_array_equal(layer.backward(np.arange(120.0).reshape(2, 60)), np.arange(120.0).reshape(x.shape))


def test_flatten_serves_inputs_of_different_ranks():
    # B37: the first input's end_dim stuck
    layer = Flatten()
    assert layer(np.ones((2, 3, 4))).shape == (2, 12)
    assert layer(np.ones((2, 3, 4, 5))).shape == (2, 60)
    assert layer(np.ones((0, 3, 4))).shape == (0, 12)


def test_flatten_checks_its_axes():
    with pytest.raises(TypeError, match="Flatten: end_dim must be an int, got 1.5"):
        Flatten(0, 1.5)
    for arguments in ((3,), (2, 1), (0, 3), (-4, -1)):
        with pytest.raises(ValueError, match=r"Flatten: axes .* do not exist, in this order, in shape \(2, 3, 4\)"):
            Flatten(*arguments)(np.ones((2, 3, 4)))
