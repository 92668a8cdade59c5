"""Frozen parameters: backward leaves their gradients alone, and every other gradient is what it was."""

import copy

import numpy as np
import pytest

import hcrot
from hcrot.gradcheck import check_gradients
from hcrot.kernels import conv as products
from hcrot.layers import conv as conv_layers
from hcrot.layers import linear as linear_layers
from hcrot.models import lucidrains_parts
from support.small_unets import tiny_model

CASES = {
    "Conv2d": (lambda rng: hcrot.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, generator=rng), (2, 4, 5, 6)),
    "Conv2d without bias": (lambda rng: hcrot.Conv2d(3, 2, 3, bias=False, generator=rng), (2, 3, 5, 4)),
    "ConvTranspose2d": (lambda rng: hcrot.ConvTranspose2d(4, 2, 3, stride=2, groups=2, generator=rng), (2, 4, 3, 5)),
    "Conv1d": (lambda rng: hcrot.Conv1d(4, 6, 3, groups=2, generator=rng), (2, 4, 7)),
    "Linear": (lambda rng: hcrot.Linear(3, 5, generator=rng), (2, 4, 3)),
    "GroupNorm": (lambda rng: hcrot.GroupNorm(2, 4), (2, 4, 3, 5)),
    "LayerNorm": (lambda rng: hcrot.LayerNorm(5), (3, 5)),
    "BatchNorm2d": (lambda rng: hcrot.BatchNorm2d(3), (2, 3, 4, 5)),
    "RMSNorm": (lambda rng: hcrot.RMSNorm(5), (3, 5)),
    "lucidrains' RMSNorm": (lambda rng: lucidrains_parts.RMSNorm(4), (2, 4, 3, 5)),
    "lucidrains' Attention": (lambda rng: lucidrains_parts.Attention(4, heads=2, dim_head=4, generator=rng), (2, 4, 3, 5)),
    "lucidrains' LinearAttention": (lambda rng: lucidrains_parts.LinearAttention(4, heads=2, dim_head=4, generator=rng), (2, 4, 3, 5)),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def gradients(layer, x, dout_of, frozen):
    layer = copy.deepcopy(layer)
    for name, parameter in layer.named_parameters():
        if name in frozen:
            parameter.trainable = False
    y = layer(x)
    dx = layer.backward(dout_of(y))
    return dx, {name: parameter.grad for name, parameter in layer.named_parameters()}


@pytest.mark.parametrize("case", CASES)
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(case, rng):
    """Each parameter alone, and all of them."""
    make, shape = CASES[case]
    layer, x = make(rng), rng.standard_normal(shape).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal(layer(x).shape).astype(np.float32)
    names = [name for name, parameter in layer.named_parameters() if parameter.trainable]
    dx, grads = gradients(layer, x, lambda y: noise, ())
    for frozen in [[name] for name in names] + [names]:
        found_dx, found = gradients(layer, x, lambda y: noise, frozen)
        np.testing.assert_array_equal(found_dx, dx)
        for name in names:
            assert grads[name].any(), name
            expected = np.zeros_like(grads[name]) if name in frozen else grads[name]
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5, err_msg=f"{name}, frozen {frozen}")


def test_a_frozen_embedding_gets_no_gradient(rng):
    layer = hcrot.Embedding(3, 4, generator=rng)
    layer.weight.trainable = False
    layer.backward(layer(np.array([0, 2])) + 1)
    assert not layer.weight.grad.any()


def test_a_frozen_encoder_runs_no_product_for_its_weights(rng, monkeypatch):
    """The arithmetic is counted, not timed: as many products for weights as there are weights that learn."""
    calls = []
    for layers, name in ((conv_layers, "conv2d_weight_gradient"), (linear_layers, "linear_weight_gradient")):
        kernel = getattr(products, name)
        monkeypatch.setattr(layers, name, lambda *arguments, kernel=kernel: calls.append(1) or kernel(*arguments))
    model = tiny_model()
    x = rng.standard_normal((2, model.config["in_channels"], 8, 8)).astype(np.float32)
    labels = np.array([0, 2])
    model.backward(model(x, 3, labels))
    every = len(calls)
    for name, parameter in model.named_parameters():
        parameter.trainable = not name.startswith(("conv_in", "down_blocks", "time_embedding"))
    calls.clear()
    model.zero_grad()
    model.backward(model(x, 3, labels))
    weights = [name for name, p in model.named_parameters() if p.data.ndim > 1 and p.trainable and name != "class_embedding.weight"]
    assert len(calls) == len(weights) < every
    assert all(p.grad.any() == p.trainable for _, p in model.named_parameters())


def test_a_frozen_part_that_comes_first_needs_no_backward(rng):
    """Run in inference it keeps nothing, and the backward of what follows is all there is to do."""
    encoder, head = hcrot.Linear(4, 3, generator=rng), hcrot.Linear(3, 2, generator=rng)
    x = rng.standard_normal((5, 4)).astype(np.float32)
    with encoder.inference():
        features = encoder(x)
    head.backward(head(features))
    assert head.weight.grad.any() and not encoder.weight.grad.any()
    with pytest.raises(RuntimeError, match="Linear: backward needs a forward pass"):
        encoder.backward(features)


def test_the_gradient_check_sets_a_copy_free(rng):
    layer = hcrot.Linear(3, 2, generator=rng)
    layer.weight.trainable = False
    assert len(check_gradients(layer, rng.standard_normal((4, 3))).lines) == 3
    assert not layer.weight.trainable
