"""GroupNorm, GroupNormSiLU and LayerNorm: gradients, what relates them, what they keep, initial values, bad input."""

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.activation import SiLU
from hcrot.layers.norm import GroupNorm, GroupNormSiLU, LayerNorm


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def randomized(layer, rng, dtype=np.float64):
    """The layer with weights away from 1 and biases away from 0: at initialisation errors hide (B05)."""
    layer.astype(dtype)
    for parameter in layer.parameters():
        parameter.data[...] = rng.standard_normal(parameter.shape)
    return layer


# gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [GroupNorm, GroupNormSiLU])
@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ((2, 6), (3, 6, 5, 4)),
        ((1, 6), (2, 6, 3, 5)),
        ((6, 6), (2, 6, 3, 5)),
        ((3, 6, 1e-2), (1, 6, 7, 1)),
        ((2, 4, 1e-5, False), (3, 4, 2, 3)),
        ((2, 8), (5, 8)),
        ((2, 4), (3, 4, 5)),
        ((2, 4), (2, 4, 2, 3, 2)),
    ],
)
def test_gradients_of_group_norm(norm, arguments, shape, rng):
    # B05: the weight's gradient was right only while weight was 1 and bias 0
    check_gradients(randomized(norm(*arguments), rng), rng.standard_normal(shape), generator=rng)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ((5,), (4, 5)),  # B26: a 2-D x raised, several axes gave wrong numbers, no weight was a TypeError
        (((5,),), (2, 3, 5)),
        (((3, 5),), (4, 3, 5)),
        (((2, 3, 5),), (2, 2, 3, 5)),
        (((3, 5),), (3, 5)),
        (((3, 5), 1e-2), (2, 4, 3, 5)),
        (((3, 5), 1e-5, False), (2, 3, 5)),
        (((3, 5), 1e-5, True, False), (2, 3, 5)),
    ],
)
def test_gradients_of_layer_norm(arguments, shape, rng):
    check_gradients(randomized(LayerNorm(*arguments), rng), rng.standard_normal(shape), generator=rng)


# what relates them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_group_norm_silu_is_group_norm_then_silu(dtype, rng):
    fused, norm, silu = randomized(GroupNormSiLU(3, 6), rng, dtype), GroupNorm(3, 6).astype(dtype), SiLU()
    norm.load_state_dict(fused.state_dict())
    x, dout = (rng.standard_normal((2, 6, 5, 7)).astype(dtype) for _ in range(2))
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(fused(x), silu(norm(x)), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(fused.backward(dout), norm.backward(silu.backward(dout)), rtol=tolerance, atol=10 * tolerance)
    for one, other in zip(fused.parameters(), norm.parameters(), strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=tolerance, atol=10 * tolerance)


def test_group_norm_gives_each_group_mean_0_and_variance_1(rng):
    y = GroupNorm(3, 6, eps=0).astype(np.float64)(5 + 2 * rng.standard_normal((4, 6, 5, 7))).reshape(4, 3, -1)
    np.testing.assert_allclose(y.mean(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=2), 1)


def test_group_norm_of_one_channel_each_is_instance_norm(rng):
    x = rng.standard_normal((2, 4, 5, 7))
    expected = (x - x.mean(axis=(2, 3), keepdims=True)) / np.sqrt(x.var(axis=(2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(GroupNorm(4, 4).astype(np.float64)(x), expected, atol=1e-12)


def test_group_norm_of_one_group_is_layer_norm_of_images(rng):
    x = rng.standard_normal((2, 4, 5, 7))
    expected = LayerNorm((4, 5, 7), elementwise_affine=False)(x)
    np.testing.assert_allclose(GroupNorm(1, 4, affine=False)(x), expected, atol=1e-12)


def test_the_scale_and_offset_of_x_do_not_matter(rng):
    x, layer = rng.standard_normal((2, 6, 5, 7)), randomized(GroupNormSiLU(3, 6, eps=0), rng)
    np.testing.assert_allclose(layer(3 * x + 7), layer(x), atol=1e-12)


# state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [GroupNorm(2, 6), GroupNormSiLU(2, 6), LayerNorm((2, 3))])
def test_parameters_and_their_initial_values(layer):
    state = layer.state_dict()
    assert list(state) == ["weight", "bias"]
    assert (state["weight"] == 1).all() and (state["bias"] == 0).all()
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32)}
    assert state["weight"].shape == ((2, 3) if isinstance(layer, LayerNorm) else (6,))


def test_without_parameters():
    assert GroupNorm(2, 6, affine=False).state_dict() == {} == LayerNorm(6, elementwise_affine=False).state_dict()
    assert list(LayerNorm(6, bias=False).state_dict()) == ["weight"]


@pytest.mark.parametrize("norm", [GroupNorm, GroupNormSiLU])
def test_x_itself_and_two_numbers_per_group_are_kept(norm, rng):
    layer, x = norm(2, 6), rng.standard_normal((3, 6, 5, 7)).astype(np.float32)
    layer(x)
    kept = layer.saved()
    assert kept[0] is x
    assert [array.shape for array in kept[1:]] == [(3, 2), (3, 2)]


# bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupNorm(8, 30), "GroupNorm: num_channels 30 is not divisible by num_groups 8"),
        (lambda: GroupNormSiLU(8, 30), "GroupNormSiLU: num_channels 30 is not divisible by num_groups 8"),
        (lambda: GroupNorm(0, 4), "GroupNorm: num_groups must be an int of at least 1, got 0"),
        (lambda: GroupNorm(2, 4.0), "GroupNorm: num_channels must be an int of at least 1, got 4.0"),
        (lambda: GroupNorm(2, 4, -1), "GroupNorm: eps must be a finite number of at least 0, got -1"),
        (lambda: LayerNorm(()), r"LayerNorm: normalized_shape must have at least one axis, got \(\)"),
        (lambda: LayerNorm((3, 0)), "LayerNorm: normalized_shape must be an int of at least 1, got 0"),
        (lambda: LayerNorm(3, float("nan")), "LayerNorm: eps must be a finite number of at least 0, got nan"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (
            GroupNorm(2, 4),
            np.ones((3, 6, 5, 5), np.float32),
            r"GroupNorm: expected an array of shape \(batch, 4, ...\), got shape \(3, 6, 5, 5\)",
        ),
        (GroupNormSiLU(2, 4), np.ones(4, np.float32), r"GroupNormSiLU: expected .*got shape \(4,\)"),
        (GroupNorm(2, 4), np.ones((0, 4, 2, 2), np.float32), r"GroupNorm: expected .*got shape \(0, 4, 2, 2\), which is empty"),
        (GroupNorm(2, 4), [[1.0] * 4], "GroupNorm: expected .*got list"),
        (GroupNorm(2, 4), np.ones((3, 4), np.float64), "GroupNorm: expected a float32 array, as the weight is, got float64"),
        (GroupNorm(2, 4, affine=False), np.ones((3, 4), np.int64), "GroupNorm: expected a float32 or float64 array, got int64"),
        (
            LayerNorm((2, 3)),
            np.ones((2, 2), np.float32),
            r"LayerNorm: expected an array whose trailing axes are \(2, 3\), got shape \(2, 2\)",
        ),
        (LayerNorm((2, 3)), np.ones(3, np.float32), r"LayerNorm: expected .*got shape \(3,\)"),
        (LayerNorm(3), np.ones((2, 3), np.int64), "LayerNorm: expected a float32 array, as the weight is, got int64"),
    ],
)
def test_bad_input(layer, x, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        layer(x)
