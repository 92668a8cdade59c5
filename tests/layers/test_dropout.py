import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_gradients(p):
    check_gradients(Dropout(p, generator=np.random.default_rng(0)), np.random.default_rng(1).standard_normal((3, 5, 7)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_are_dropped_at_rate_p_and_the_others_enlarged(dtype):
    p = 0.2
    y = Dropout(p, generator=np.random.default_rng(0))(np.ones((100, 200), dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(y[y != 0], 1.25, rtol=1e-6)
    # 20000 throws: the standard deviation of their mean is 0.003
    assert abs((y == 0).mean() - p) < 0.012


def test_backward_drops_what_forward_dropped():
    layer, x, dout = Dropout(0.4, generator=np.random.default_rng(0)), np.full((6, 7), 2.0), np.full((6, 7), 3.0)
    y = layer(x)
    assert 0 < (y == 0).sum() < y.size
    np.testing.assert_allclose(layer.backward(dout), 1.5 * y, rtol=1e-15)


def test_each_forward_drops_anew_and_a_seed_repeats():
    x = np.ones((8, 9))
    layer, again = (Dropout(0.5, generator=np.random.default_rng(3)) for _ in range(2))
    first, second = layer(x), layer(x)
    assert (first != second).any()
    np.testing.assert_array_equal(again(x), first)
    np.testing.assert_array_equal(again(x), second)


def test_a_seed_drops_the_same_in_any_memory_order_and_dtype():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    y, z, w = (
        Dropout(0.5, generator=np.random.default_rng(1))(images) for images in (x, channels_last, x.astype(np.float32))
    )
    np.testing.assert_array_equal(y, z)
    np.testing.assert_array_equal(y == 0, w == 0)
    assert z.strides == channels_last.strides


@pytest.mark.filterwarnings("error")
def test_p_1_gives_zeros():
    # B28: it gave NaN
    layer = Dropout(1, generator=np.random.default_rng(0))
    np.testing.assert_array_equal(layer(np.ones((3, 4))), np.zeros((3, 4)))
    np.testing.assert_array_equal(layer.backward(np.ones((3, 4))), np.zeros((3, 4)))


def test_inference_is_the_identity_and_draws_nothing():
    rng = np.random.default_rng(0)
    layer, x = Dropout(0.5, generator=rng), np.ones((3, 4))
    before = rng.bit_generator.state
    with layer.inference():
        np.testing.assert_array_equal(layer(x), x)
    assert rng.bit_generator.state == before
    # B28: backward used a stale mask
    with pytest.raises(RuntimeError, match="Dropout: backward needs a forward pass in training mode"):
        layer.backward(x)


@pytest.mark.parametrize("p", [-0.1, 1.5, np.nan, "0.5", None])
def test_p_is_checked(p):
    with pytest.raises(ValueError, match="Dropout: p must be a number from 0 to 1, got"):
        Dropout(p)


def test_other_arguments_are_checked():
    with pytest.raises(TypeError, match="Dropout: expected a float32 or float64 array, got int64"):
        Dropout(0.5)(np.ones(3, np.int64))
