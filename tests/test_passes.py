"""What forward keeps for backward, which forward a backward belongs to, and arrays that were changed in between.

The laws that hold for every module are in ``test_contract.py``.
"""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.activation import Tanh
from hcrot.layers.linear import Linear
from hcrot.module import Identity, Module, Sequential
from hcrot.passes import InplaceError, detect_inplace, detecting_inplace, one_pass, set_detect_inplace


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Sum(Module):
    """``a(x) + b(x)``: a module with two branches, in which replaying children as a chain gave wrong gradients (B12)."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    def forward(self, x):
        return self.a(x) + self.b(x)

    def backward(self, dout):
        return self.a.backward(dout) + self.b.backward(dout)


# ---------------------------------------------------------------- keeping, and composites


def test_saved_hands_over_once_and_lets_go():
    module = Module()
    module.save(1)
    assert module.saved() == 1
    module.save(1, "two")
    assert module.saved() == (1, "two")
    assert module._kept is None
    with pytest.raises(RuntimeError, match="Module: backward needs a forward pass in training mode before it"):
        module.saved()


def test_a_kept_none_is_something_kept():
    module = Module()
    module.save(None)
    assert module.saved() is None


@pytest.mark.parametrize("make", [lambda: Linear(2, 2), Identity, lambda: Sequential(Identity(), Linear(2, 2))])
def test_backward_needs_a_forward_of_its_own(make):
    module, x = make(), np.ones((3, 2), np.float32)
    with pytest.raises(RuntimeError, match="(Linear|Identity): backward needs a forward"):
        module.backward(x)
    module(x)
    module.backward(x)
    with pytest.raises(RuntimeError, match="(Linear|Identity): backward needs a forward"):
        module.backward(x)
    with module.inference():
        module(x)
    with pytest.raises(RuntimeError, match="(Linear|Identity): backward needs a forward"):
        module.backward(x)


def test_an_inference_pass_leaves_alone_what_an_earlier_pass_kept():
    module, x = Linear(2, 2), np.ones((3, 2), np.float32)
    module(x)
    with module.inference():
        module(2 * x)
    module.backward(x)
    np.testing.assert_array_equal(module.weight.grad, x.T @ x)


def test_two_branches_get_the_gradient_of_their_sum(rng):
    """B12."""
    check_gradients(Sum(Linear(3, 2, generator=rng), Linear(3, 2, generator=rng)), rng.standard_normal((4, 3)))
    nested = Sum(Sequential(Linear(3, 5, generator=rng), Sum(Identity(), Linear(5, 5, generator=rng))), Linear(3, 5, generator=rng))
    check_gradients(nested, rng.standard_normal((4, 3)))


def test_a_failed_forward_leaves_no_trace(rng):
    """B11: after an exception in a forward the predecessor could never train again."""
    module = Sequential(Linear(3, 2, generator=rng), Linear(2, 4, generator=rng))
    with pytest.raises(ValueError, match="Linear"):
        module(np.ones((2, 5)))
    x, dout = rng.standard_normal((2, 3)).astype(np.float32), np.ones((2, 4), np.float32)
    module(x)
    module.backward(dout)
    first = [parameter.grad.copy() for parameter in module.parameters()]
    with pytest.raises(ValueError, match="Linear"):
        Sequential(*module.layers, Linear(3, 1, generator=rng))(x)
    module.zero_grad()
    module(x)
    module.backward(dout)
    for parameter, expected in zip(module.parameters(), first, strict=True):
        np.testing.assert_array_equal(parameter.grad, expected)


# ---------------------------------------------------------------- passes


def test_layers_that_are_called_one_by_one_twice_need_one_pass(rng):
    layer, x = Linear(3, 3, generator=rng).astype(np.float64), rng.standard_normal((2, 3))
    layer(layer(x))
    with pytest.raises(RuntimeError, match=r"with hcrot.one_pass\(\):"):
        layer.backward(x)
    with one_pass():
        layer(layer(x))
    assert layer.backward(layer.backward(x)) == pytest.approx(x @ layer.weight.data @ layer.weight.data)


def test_a_recurrent_module_gets_the_right_gradients(rng):
    class Recurrent(Module):
        def __init__(self):
            self.layer, self.act = Linear(3, 3, generator=rng), Tanh()

        def forward(self, x):
            for _ in range(4):
                x = self.act(self.layer(x))
            return x

        def backward(self, dout):
            for _ in range(4):
                dout = self.layer.backward(self.act.backward(dout))
            return dout

    check_gradients(Recurrent(), rng.standard_normal((2, 3)))
    check_gradients(Sequential(*[Linear(3, 3, generator=rng)] * 3), rng.standard_normal((2, 3)))


def test_a_forward_by_its_name_is_a_pass_too(rng):
    layer, x = Linear(3, 2, generator=rng), np.ones((1, 3), np.float32)
    layer.forward(x)
    layer.backward(np.ones((1, 2), np.float32))
    layer.forward(x)
    layer.forward(2 * x)
    with pytest.raises(RuntimeError, match="two forward passes"):
        layer.backward(np.ones((1, 2), np.float32))


def test_a_look_at_one_part_is_found_before_any_gradient_is_added(rng):
    model, x = Sequential(Linear(3, 3, generator=rng), Linear(3, 2, generator=rng)), np.ones((1, 3), np.float32)
    y = model(x)
    model[0](x)
    with pytest.raises(RuntimeError, match="two forward passes"):
        model.backward(y)
    assert not any(parameter.grad.any() for parameter in model.parameters())
    for _ in range(3):
        model.backward(model(x))


def test_what_a_partial_backward_or_a_failed_forward_left_does_not_matter_later(rng):
    model, x = Sequential(Linear(3, 3, generator=rng), Linear(3, 2, generator=rng)), np.ones((1, 3), np.float32)
    model[1].backward(model(x))
    model.backward(model(x))
    with pytest.raises(ValueError, match="Linear"):
        Sequential(model, Linear(5, 1, generator=rng))(x)
    model.backward(model(x))


def test_a_pass_ends_with_its_call_even_after_an_exception(rng):
    layer, x = Linear(3, 3, generator=rng), np.ones((1, 3), np.float32)
    with pytest.raises(KeyError), one_pass():
        layer(x)
        raise KeyError
    layer.backward(layer(x))
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        layer.backward(x)


def test_a_copy_keeps_what_its_original_keeps(rng):
    model, x = Sequential(Linear(3, 3, generator=rng), Tanh()), np.ones((1, 3), np.float32)
    y = model(x)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    np.testing.assert_array_equal(twin.backward(y), model.backward(y))


def test_nobody_waits_for_the_backward_of_a_copy(rng):
    model, x = Sequential(Linear(3, 3, generator=rng), Tanh()), np.ones((1, 3), np.float32)
    model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.backward(twin(2 * x))


def test_a_forward_in_the_middle_of_a_backward_is_found(rng):
    body, head, x = Linear(3, 3, generator=rng), Linear(3, 2, generator=rng), np.ones((1, 3), np.float32)
    model = Sequential(body, head)
    d = head.backward(model(x))
    body(2 * x)
    with pytest.raises(RuntimeError, match="two forward passes"):
        body.backward(d)
    assert not body.weight.grad.any()
    model.backward(model(x))

    with one_pass():
        ya, yb = model(x), model(2 * x)
    model.backward(yb)
    model(3 * x)
    with pytest.raises(RuntimeError, match="two forward passes"):
        model.backward(ya)
    model.backward(model(x))


def test_a_backward_that_always_stops_in_the_middle(rng):
    """Only the head is trained, then all."""
    model, x = Sequential(Linear(3, 3, generator=rng), Linear(3, 2, generator=rng)), np.ones((1, 3), np.float32)
    for _ in range(3):
        model[1].backward(model(x))
    model.backward(model(x))
    model[1].backward(model(x))
    model.forget()
    model[0].backward(model[0](x))


def test_what_a_failed_forward_kept_is_not_handed_out(rng):
    model = Sequential(Linear(3, 5, generator=rng), Linear(4, 2, generator=rng))
    with pytest.raises(ValueError, match="Linear"):
        model(np.ones((1, 3), np.float32))
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        model[0].backward(np.ones((1, 5), np.float32))


def test_an_error_in_one_network_does_not_disarm_another(rng):
    first, second, x = Linear(3, 3, generator=rng), Linear(3, 3, generator=rng), np.ones((1, 3), np.float32)
    first(x)
    for _ in range(2):
        second(x)
    with pytest.raises(RuntimeError, match="two forward passes"):
        second.backward(x)
    second.backward(second(x))
    first(2 * x)
    with pytest.raises(RuntimeError, match="two forward passes"):
        first.backward(x)


def test_rivals_of_rivals_are_given_up_together(rng):
    """Passes over two layers each, each of which shares a layer with the next."""
    layers, x = [Linear(3, 3, generator=rng) for _ in range(5)], np.ones((1, 3), np.float32)
    for pair in ((0, 1), (2, 3), (1, 2), (3, 4)):
        Sequential(*(layers[index] for index in pair))(x)
    with pytest.raises(RuntimeError, match="two forward passes"):
        layers[4].backward(x)
    for layer in layers:
        layer.backward(layer(x))


def test_threads_have_passes_of_their_own(rng):
    models = [Sequential(*[Linear(8, 8, generator=rng)] * 3).astype(np.float64) for _ in range(4)]
    xs = [rng.standard_normal((5, 8)) for _ in models]
    expected = [model.backward(model(x)) for model, x in zip(models, xs, strict=True)]

    def run(model, x):
        return [model.backward(model(x)) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        for results, reference in zip(pool.map(run, models, xs), expected, strict=True):
            for result in results:
                np.testing.assert_array_equal(result, reference)


# ---------------------------------------------------------------- arrays changed in between


def test_a_kept_input_that_was_written_to_is_found_when_one_asks(rng):
    layer, x = Linear(3, 2, generator=rng), np.ones((4, 3), np.float32)
    with detect_inplace():
        y = layer(x)
        x[0, 0] += 1
        with pytest.raises(InplaceError, match="Linear: an array that forward kept for backward was changed in between"):
            layer.backward(y)
        layer.backward(layer(x))
    y = layer(x)
    x *= 2
    layer.backward(y)


def test_weights_that_were_changed_before_backward_are_found_when_one_asks(rng):
    layer, x = Linear(3, 2, generator=rng), np.ones((4, 3), np.float32)
    with detect_inplace():
        y = layer(x)
        layer.weight.data *= 2
        with pytest.raises(InplaceError, match="Linear: a parameter was changed between forward and backward"):
            layer.backward(y)
        layer.backward(layer(x))


def test_the_switch_holds_until_it_is_set_back():
    with pytest.raises(TypeError, match="set_detect_inplace: mode must be True or False, got int"):
        set_detect_inplace(1)
    set_detect_inplace(True)
    try:
        module, kept = Module(), np.ones((2, 6))[:, ::2]
        module.save([kept, (None, 3)], "text")
        kept[1, 2] = 0
        with pytest.raises(InplaceError):
            module.saved()
    finally:
        set_detect_inplace(False)
    assert not detecting_inplace()
