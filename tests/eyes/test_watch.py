"""hcrot.watch: every output and gradient, the same numbers as unwatched, and nothing left behind."""

import copy
import threading

import numba
import numpy as np
import pytest

import hcrot
from hcrot import plan
from hcrot.eyes.watch import Numbers
from hcrot.models.abarankab import AttentionBlock
from hcrot.models.lucidrains_parts import Attention
from support.module_cases import small_unet

X = np.random.default_rng(0).standard_normal((2, 2, 5, 6), dtype=np.float32)
T = np.array([3, 900])
DOUT = np.random.default_rng(1).standard_normal((2, 3, 5, 6), dtype=np.float32)


def attributes(model):
    return [vars(module).keys() - {"_kept"} for module in model.modules()]


def test_every_module_is_seen_in_training_with_the_same_numbers():
    model, other = small_unet(0), small_unet(0)
    before, events = attributes(model), []
    with hcrot.watch(model, events.append, keep=True) as seen:
        y, dx = model(X, T), model.backward(DOUT)
    np.testing.assert_array_equal(y, other(X, T))
    np.testing.assert_array_equal(dx, other.backward(DOUT))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(ours.grad, theirs.grad)
    names = {name for name, _ in model.named_modules()}
    assert seen.layers.keys() == names and attributes(model) == before
    with_backward = {name for name, module in model.named_modules() if type(module).backward is not hcrot.Module.backward}
    assert {event.name for event in events if event.kind == "gradient"} == with_backward
    assert not any(event.array.flags.writeable for event in events)
    np.testing.assert_array_equal(seen[""].outputs[0], y)
    np.testing.assert_array_equal(seen["conv_out"].gradients[0], DOUT)
    assert seen["conv_out"].output.norm == pytest.approx(np.linalg.norm(y))
    assert seen["conv_out"].gradient.rms == pytest.approx(np.sqrt(np.mean(DOUT**2)))
    assert seen["conv_out"].output.counts.sum() == y.size and len(seen["conv_out"].output.edges) == 33
    assert "conv_out (Conv2d)" in repr(seen) and "<table" in seen._repr_html_()


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="there are plans of compiled kernels only")
def test_every_module_is_seen_in_inference_where_a_plan_would_go_past_the_layers():
    model = small_unet(0)
    with model.inference():
        ys = [model(X, T) for _ in range(4)]
        assert any(made.replay for made in plan.plans.of[model].values())
        with hcrot.watch(model) as seen:
            ys += [model(X, T) for _ in range(4)]
        assert {layer.calls for layer in seen.layers.values()} == {4} and len(seen.layers) == len(list(model.named_modules()))
        ys += [model(X, T) for _ in range(4)]
        assert any(made.replay for made in plan.plans.of[model].values())  # and afterwards there is a plan again
    assert all(np.array_equal(y, ys[0]) for y in ys)


@pytest.mark.parametrize("training", [True, False])
def test_maps_of_attention(training):
    cases = [
        (hcrot.Attention(6, 3), [X[:, :1].repeat(6, 1) * np.arange(6, dtype=np.float32)[:, None, None]], (2, 2, 30, 30)),
        (hcrot.CrossAttention(6, 2, 2, 5), [X.transpose(0, 2, 1, 3).reshape(2, 10, 6), X.reshape(2, 30, 2)], (2, 2, 10, 30)),
        (Attention(2, 2, 3, 4), [X], (2, 2, 30, 34)),
        (AttentionBlock(2, None), [X], (2, 1, 30, 30)),
    ]
    for layer, inputs, shape in cases:
        with hcrot.watch(layer.train(training), attention=True, keep=[name for name, _ in layer.named_modules()]) as seen:
            layer(*inputs)
        (weights,) = seen[""].attention
        assert weights.shape == shape and weights.min() >= 0
        np.testing.assert_allclose(weights.sum(axis=3), 1, rtol=1e-5)
        if "to_out.0" in seen.layers and type(layer) is hcrot.CrossAttention:  # P v is what to_out gets
            v = seen["to_v"].outputs[0].reshape(2, 30, 2, 5).swapaxes(1, 2)
            o = (weights @ v).swapaxes(1, 2).reshape(2, 10, 10)
            np.testing.assert_allclose(layer.to_out[0](o), seen[""].outputs[0], atol=1e-5)


def test_the_first_that_is_not_finite_is_named_with_where_it_came_from():
    model = small_unet(0)
    model.mid_block.attentions[0].to_v.weight.data[0, 0] = np.nan
    with hcrot.watch(model) as seen:
        model(X, T)
    assert seen.first_not_finite.name == "mid_block.attentions.0.to_v"
    assert "its parameter weight is not finite" in str(seen.first_not_finite) and "not finite first" in repr(seen)
    model = hcrot.Sequential(hcrot.Linear(2, 2), hcrot.Residual(hcrot.ReLU()))
    with hcrot.watch(model) as seen, np.errstate(invalid="ignore"):
        model(np.array([[np.inf, 1]], np.float32))
    assert (seen.first_not_finite.name, seen.first_not_finite.origin) == ("0", "they came in with what it was given")

    class Root(hcrot.Module):
        def forward(self, x):
            self.save(x)
            return np.sqrt(x)

        def backward(self, dout):
            return dout / (2 * np.sqrt(self.saved()))

    with hcrot.watch(hcrot.Sequential(Root(), hcrot.ReLU())) as seen, np.errstate(divide="ignore", invalid="ignore"):
        seen._tree[0].module.backward(np.ones_like(seen._tree[0].module(np.array([0.0, 1.0]))))
    text = "0 (Root): 1 of 2 numbers of its input's gradient are not finite; what it was given was finite"
    assert str(seen.first_not_finite) == text


@pytest.mark.parametrize("values", [
    [1.0, np.nextafter(1, 2)], [1e17] * 2, [-1e17, np.nextafter(-1e17, 0)], [-1.7e308, 1.7e308], [1.7e308] * 2, [0.0, 5e-324], [-3.0, 0.0],
])  # fmt: skip
def test_numbers_of_any_size_can_be_counted(values):
    """NumPy has no histogram of numbers that differ by their last bit, or whose distance is too large a number."""
    array = np.array(values)
    with np.errstate(all="raise"), hcrot.watch(hcrot.ReLU().eval()) as seen:
        seen._tree[0].module(array)
        numbers = Numbers.of(array, 32)
    assert numbers.counts.sum() == 2 and len(numbers.counts) == 32 and (np.diff(numbers.edges) > 0).all()
    assert numbers.edges[0] <= array.min() and array.max() <= numbers.edges[-1] and np.isfinite(numbers.edges).all()
    assert np.ptp(numbers.edges / 4) <= max(np.ptp(array / 4), abs(array / 4).max() * 1e-13, 0.25)


def test_an_error_in_the_callback_ends_the_pass_and_leaves_nothing_behind():
    model = hcrot.Sequential(hcrot.Linear(2, 2), hcrot.ReLU())
    before = attributes(model)
    with pytest.raises(ZeroDivisionError), hcrot.watch(model, lambda event: 1 // 0):
        model(np.ones((1, 2), np.float32))
    assert attributes(model) == before
    model(np.ones((1, 2), np.float32))


def test_copies_other_threads_and_two_watches_at_once():
    model, x = hcrot.Sequential(hcrot.Linear(2, 2), hcrot.ReLU()), np.ones((1, 2), np.float32)
    first = hcrot.watch(model)
    seen = first.__enter__()
    copied = copy.deepcopy(model)
    copied(x)
    thread = threading.Thread(target=model, args=(x,))
    thread.start()
    thread.join()
    assert not seen.layers
    model.forget()
    second = hcrot.watch(model)
    other = second.__enter__()
    model(x)
    first.__exit__(None, None, None)  # in the wrong order
    model.forget()
    model(x)
    second.__exit__(None, None, None)
    assert seen["0"].calls == 1 and other["0"].calls == 2
    model.forget()
    model(x)
    assert other["0"].calls == 2
    copied.layers[0].weight.data[...] = 0
    assert not copied.layers[0](x).any() or copied.layers[0].bias.data.any()
    np.testing.assert_array_equal(copied.layers[0](x), copied.layers[0].bias.data[None])


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="watch: model must be a Module, got str"), hcrot.watch("model"):
        pass
    with pytest.raises(TypeError, match="watch: callback must be a function of an Event, got int"), hcrot.watch(hcrot.ReLU(), 3):
        pass
    with pytest.raises(ValueError, match="watch: keep names 'conv'"), hcrot.watch(hcrot.ReLU(), keep=["conv"]):
        pass
    with pytest.raises(ValueError, match="watch: bins must be an int of at least 1, got 0"), hcrot.watch(hcrot.ReLU(), bins=0):
        pass
    with hcrot.watch(hcrot.ReLU()) as seen, pytest.raises(KeyError, match="no module 'x' was called"):
        seen["x"]
