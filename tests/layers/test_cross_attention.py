"""CrossAttention, and Attention with a number of heads: definition, gradients, widths, bad input."""

import numpy as np
import pytest

import hcrot
from hcrot.gradcheck import check_gradients


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_definition_written_out(rng):
    layer = hcrot.CrossAttention(4, 5, 2, 3, bias=True, generator=rng).astype(np.float64)
    x, context = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 7, 5))
    p = layer.state_dict()
    expected = np.zeros((2, 3, 4)) + p["to_out.0.bias"]
    for b in range(2):
        q = x[b] @ p["to_q.weight"].T + p["to_q.bias"]
        k, v = (context[b] @ p[f"to_{n}.weight"].T + p[f"to_{n}.bias"] for n in "kv")
        for own in (slice(0, 3), slice(3, 6)):
            weights = np.exp(q[:, own] @ k[:, own].T / np.sqrt(3))
            o = weights / weights.sum(axis=1, keepdims=True) @ v[:, own]
            expected[b] += o @ p["to_out.0.weight"][:, own].T
    np.testing.assert_allclose(layer(x, context), expected)


def test_pixels_are_tokens(rng):
    layer = hcrot.CrossAttention(4, 5, 2, 3, generator=rng).eval()
    x, context = rng.standard_normal((2, 4, 3, 5), dtype=np.float32), rng.standard_normal((2, 6, 5), dtype=np.float32)
    y = layer(x.reshape(2, 4, 15).swapaxes(1, 2), context)
    np.testing.assert_allclose(layer(x, context), y.swapaxes(1, 2).reshape(x.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "keys"), [((2, 3, 4), 5), ((3, 4, 2, 3), 1), ((1, 140, 4), 2)])
def test_gradients(shape, keys, rng):
    layer = hcrot.CrossAttention(4, 5, 3, 2, generator=rng)
    inputs = rng.standard_normal(shape), rng.standard_normal((shape[0], keys, 5))
    check_gradients(layer, *inputs, generator=rng)


@pytest.mark.parametrize("options", [{"heads": 3, "dim_head": 8}, {"heads": 1, "dim_head": 2}, {"heads": 2, "dim_head": None}])
def test_gradients_of_attention_with_any_number_of_heads(options, rng):
    layer = hcrot.Attention(4, norm_num_groups=2, **options, generator=rng)
    check_gradients(layer, rng.standard_normal((2, 4, 3, 5)), generator=rng)
    assert layer.to_q.weight.shape == (options["heads"] * (options["dim_head"] or 4), 4)


def test_without_heads_attention_is_as_it_was():
    one, two = hcrot.Attention(6, 3, generator=0), hcrot.Attention(6, 3, heads=2, generator=0)
    for (name, value), (other_name, other) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert name == other_name
        np.testing.assert_array_equal(value, other)


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hcrot.CrossAttention(0), "CrossAttention: channels must be an int of at least 1, got 0"),
        (lambda: hcrot.CrossAttention(4, 3, True), "CrossAttention: heads must be an int of at least 1, got True"),
        (lambda: hcrot.CrossAttention(4, 3)(zeros(2, 5), zeros(2, 3, 3)), r"x must be of shape \(batch, tokens, 4\), got shape \(2, 5\)"),
        (lambda: hcrot.CrossAttention(4, 3)(zeros(2, 3, 5, 5), zeros(2, 3, 3)), r"x: expected images of shape \(batch, 4, height, width\)"),
        (lambda: hcrot.CrossAttention(4, 3)(zeros(2, 5, 4), zeros(2, 3, 4)), r"context must be of shape \(batch, tokens, 3\)"),
        (lambda: hcrot.CrossAttention(4, 3)(zeros(2, 5, 4), zeros(2, 0, 3)), r"context must be .* got shape \(2, 0, 3\), which is empty"),
        (lambda: hcrot.CrossAttention(4, 3)(zeros(2, 5, 4), None), r"context must be .* got NoneType"),
        (lambda: hcrot.CrossAttention(4, 3)(zeros(2, 5, 4), np.zeros((2, 5, 3))), "context must be float32, as the weights are"),
        (lambda: hcrot.CrossAttention(4, 3)(zeros(2, 5, 4), zeros(1, 5, 3)), "context must have x's batch of 2, got 1"),
        (lambda: hcrot.Attention(4, 2, heads=0), "Attention: heads must be an int of at least 1, got 0"),
        (lambda: hcrot.Attention(4, 5), "dim_head 5 is larger than channels 4"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
