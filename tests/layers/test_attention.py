"""Attention: gradients in every configuration, definition, what it must not touch, names, bad input."""

import math

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.attention import Attention


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# options of Attention(12, ...), height, width
CONFIGURATIONS = [
    ({"dim_head": 4, "norm_num_groups": 3}, 3, 5),
    ({"dim_head": None}, 4, 2),
    ({"dim_head": 5, "norm_num_groups": 2}, 3, 3),  # two heads of 5: two channels take no part
    ({"dim_head": 1, "norm_num_groups": 12, "eps": 1e-2}, 2, 3),
    ({"dim_head": 12, "residual_connection": False}, 1, 7),
    ({"dim_head": 6, "norm_num_groups": 4, "rescale_output_factor": 1.7}, 2, 2),  # B33
    ({"dim_head": 6, "norm_num_groups": 1, "rescale_output_factor": math.sqrt(2), "residual_connection": False}, 5, 1),
    ({"dim_head": 8}, 1, 1),
]


@pytest.mark.parametrize(("options", "height", "width"), CONFIGURATIONS)
def test_gradients(options, height, width, rng):
    check_gradients(Attention(12, **options, generator=rng), rng.standard_normal((2, 12, height, width)), generator=rng)


@pytest.mark.parametrize(("options", "height", "width"), CONFIGURATIONS)
def test_the_definition_written_out(options, height, width, rng):
    # B32: every option accepted takes part here
    layer = Attention(12, **options, generator=rng).astype(np.float64)
    for parameter in layer.parameters():
        parameter.data += 0.3 * rng.standard_normal(parameter.shape)
    p = layer.state_dict()
    x = rng.standard_normal((2, 12, height, width))
    h = x
    if "norm_num_groups" in options:
        groups = x.reshape(2, options["norm_num_groups"], -1)
        h = (groups - groups.mean(axis=2, keepdims=True)) / np.sqrt(groups.var(axis=2, keepdims=True) + options.get("eps", 1e-5))
        h = h.reshape(x.shape) * p["group_norm.weight"][:, None, None] + p["group_norm.bias"][:, None, None]
    size = options["dim_head"] or 12
    q, k, v = (np.einsum("bchw,oc->bohw", h, p[f"to_{name}.weight"]) + p[f"to_{name}.bias"][:, None, None] for name in "qkv")
    heads = []
    for head in range(12 // size):
        a, b, c = (part.reshape(2, -1, height * width)[:, head * size : (head + 1) * size] for part in (q, k, v))
        scores = np.einsum("bdi,bdj->bij", a, b) / math.sqrt(size)
        weights = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
        heads.append(np.einsum("bij,bdj->bdi", weights, c))
    y = np.einsum("bdi,od->boi", np.concatenate(heads, axis=1), p["to_out.0.weight"]) + p["to_out.0.bias"][:, None]
    y = y.reshape(x.shape)
    if options.get("residual_connection", True):
        y = y + x
    np.testing.assert_allclose(layer(x), y / options.get("rescale_output_factor", 1), rtol=1e-10, atol=1e-12)


def test_with_zero_projections_only_the_residual_is_left(rng):
    # B08: without the residual connection nothing would be left, and nothing would be learned below
    x = rng.standard_normal((2, 8, 3, 5)).astype(np.float32)
    layer = Attention(8, 4, 2, rescale_output_factor=2.0, generator=rng)
    for parameter in layer.to_out[0].parameters():
        parameter.data.fill(0)
    np.testing.assert_array_equal(layer(x), x / 2)
    np.testing.assert_array_equal(layer.backward(x), x / 2)


def test_the_gradient_handed_in_is_left_alone(rng):
    # B33: it was divided by the factor in place
    layer = Attention(8, 4, rescale_output_factor=3.0, generator=rng)
    x, dout = (rng.standard_normal((2, 8, 3, 5)).astype(np.float32) for _ in range(2))
    before = dout.copy()
    layer(x)
    layer.backward(dout)
    np.testing.assert_array_equal(dout, before)


def test_permuting_the_pixels_permutes_the_result(rng):
    layer, x = Attention(8, 4, 2, generator=rng).astype(np.float64), rng.standard_normal((2, 8, 4, 6))
    order = rng.permutation(24)
    permuted = x.reshape(2, 8, 24)[:, :, order].reshape(x.shape)
    np.testing.assert_allclose(layer(permuted).reshape(2, 8, 24), layer(x).reshape(2, 8, 24)[:, :, order], atol=1e-12)


def test_scores_of_any_size(rng):
    # B30
    layer, x = Attention(8, 4, generator=rng), rng.standard_normal((1, 8, 3, 5)).astype(np.float32)
    assert np.isfinite(layer(1e4 * x)).all()
    assert np.isfinite(layer.backward(x)).all()


@pytest.mark.parametrize(("dim_head", "inner"), [(8, 16), (6, 12), (None, 16), (16, 16), (9, 9)])
def test_names_and_shapes_of_parameters(dim_head, inner):
    state = Attention(16, dim_head, 4).state_dict()
    assert {name: array.shape for name, array in state.items()} == {
        "group_norm.weight": (16,),
        "group_norm.bias": (16,),
        **{f"to_{name}.{kind}": shape for name in "qkv" for kind, shape in (("weight", (inner, 16)), ("bias", (inner,)))},
        "to_out.0.weight": (16, inner),
        "to_out.0.bias": (16,),
    }
    assert not any(name.startswith("group_norm") for name in Attention(16, dim_head).state_dict())


def test_the_generator_decides_the_initial_values():
    one, same, other = (Attention(8, 4, generator=np.random.default_rng(seed)).state_dict() for seed in (1, 1, 2))
    assert all((one[name] == same[name]).all() for name in one)
    assert all((one[name] != other[name]).any() for name in one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 8, "dim_head": 9}, "Attention: dim_head 9 is larger than channels 8: not one head fits"),
        ({"channels": 0}, "Attention: channels must be an int of at least 1, got 0"),
        ({"channels": 8, "dim_head": 0}, "Attention: dim_head must be an int of at least 1, got 0"),
        ({"channels": 8, "norm_num_groups": 3}, "GroupNorm: num_channels 8 is not divisible by num_groups 3"),
        ({"channels": 8, "rescale_output_factor": 0}, "Attention: rescale_output_factor must not be 0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Attention(**options)


@pytest.mark.parametrize(
    "x",
    [np.ones((2, 6, 3, 3), np.float32), np.ones((2, 8, 9), np.float32), np.ones((2, 8, 3, 3)), np.ones((0, 8, 3, 3), np.float32), [1.0]],
)
def test_bad_input(x):
    with pytest.raises(ValueError, match="^Attention: expected "):
        Attention(8)(x)
