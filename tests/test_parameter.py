"""Parameter, and flat, the view of its numbers in the order of memory."""

import copy
import pickle

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.linear import Linear
from hcrot.module import Parameter, flat
from hcrot.training.optim import SGD


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 3, 1), (1, 0, 3, 2)])
def test_flat_is_a_view_of_every_number_in_any_order_of_axes(rng, axes):
    array = rng.standard_normal((2, 3, 4, 5)).transpose(axes)
    view = flat(array)
    assert view.shape == (120,)
    view[...] = 7
    assert (array == 7).all()


def test_flat_of_data_and_grad_pair_up(rng):
    parameter = Parameter(np.ascontiguousarray(rng.standard_normal((4, 3)).T).T)
    parameter.grad[...] = 2 * parameter.data
    np.testing.assert_array_equal(flat(parameter.grad), 2 * flat(parameter.data))


@pytest.mark.parametrize("array", [np.zeros((4, 6))[:, ::2], np.zeros((4, 6))[:, :3], np.broadcast_to(np.zeros(3), (2, 3))])
def test_flat_and_parameter_refuse_arrays_with_gaps(array):
    with pytest.raises(ValueError, match="flat: array of shape .* is not dense"):
        flat(array)
    with pytest.raises(ValueError, match="not dense"):
        Parameter(array)


def test_flat_of_nothing():
    assert flat(np.zeros((0, 3))).shape == (0,)


def test_a_parameter_keeps_its_array_and_starts_without_gradient(rng):
    data = rng.standard_normal((3, 4)).astype(np.float32).T
    parameter = Parameter(data)
    assert parameter.data is data
    assert parameter.shape == (4, 3)
    assert parameter.grad.dtype == np.float32
    assert parameter.grad.strides == data.strides
    assert not parameter.grad.any()
    assert repr(parameter) == "Parameter(shape=(4, 3), dtype=float32)"


@pytest.mark.parametrize(
    ("data", "got"), [(np.zeros(3, np.int64), "int64"), (np.zeros(3, np.float16), "float16"), ([1.0], "list"), (1.0, "float")]
)
def test_a_parameter_is_a_float_array(data, got):
    with pytest.raises(TypeError, match=f"Parameter: data must be a float32 or float64 array, got {got}"):
        Parameter(data)


def test_unknown_attributes_are_refused_and_requires_grad_tells_the_name():
    parameter = Parameter(np.zeros(3))
    with pytest.raises(AttributeError, match="Parameter has no attribute requires_grad; hcrot's name is trainable"):
        parameter.requires_grad = False
    with pytest.raises(AttributeError, match="set parameter.trainable = False to freeze it"):
        _ = parameter.requires_grad
    with pytest.raises(AttributeError, match="no attribute grad_fn; there is no autograd"):
        _ = parameter.grad_fn
    assert not hasattr(parameter, "requires_grad")
    with pytest.raises(AttributeError, match="learning_rate"):
        parameter.learning_rate = 0.1
    parameter.trainable = False
    assert repr(parameter) == "Parameter(shape=(3,), dtype=float64, trainable=False)"


def test_copies_and_pickles(rng):
    parameter = Parameter(np.asfortranarray(rng.standard_normal((3, 4))), trainable=False)
    parameter.grad[...] = 2
    for twin in (copy.copy(parameter), copy.deepcopy(parameter), pickle.loads(pickle.dumps(parameter))):
        np.testing.assert_array_equal(twin.data, parameter.data)
        assert (twin.grad == 2).all()
        assert twin.trainable is False


def test_freezing_after_the_gradient_came_leaves_no_old_gradient():
    layer = Linear(2, 3)
    layer.backward(layer(np.ones((1, 2), np.float32)))
    layer.weight.trainable = False
    assert layer.parameters() == [layer.weight, layer.bias]
    layer.zero_grad()
    assert not layer.weight.grad.any()


def test_a_constant_is_saved_and_cast_but_not_learned(rng):
    layer = Linear(2, 3, generator=rng)
    layer.offset = Parameter(np.ones(3, np.float32), trainable=False)
    assert list(layer.state_dict()) == ["weight", "bias", "offset"]
    assert layer.parameters() == [layer.weight, layer.bias]
    assert layer.num_parameters() == 9
    layer.load_state_dict({**layer.state_dict(), "offset": np.full(3, 2.0)})
    assert (layer.offset.data == 2).all()
    assert layer.astype(np.float64).offset.data.dtype == np.float64
    assert len(check_gradients(layer, rng.standard_normal((4, 2))).lines) == 3


def test_an_old_gradient_is_no_part_of_a_step_after_a_parameter_is_set_free(rng):
    layer, x = Linear(3, 2, generator=rng), np.ones((4, 3), np.float32)
    layer.backward(layer(x))
    layer.weight.trainable = False
    assert layer.weight.grad.any()
    layer.weight.trainable = True
    assert not layer.weight.grad.any()
    layer.backward(layer(x))
    layer.weight.trainable = True
    assert layer.weight.grad.any()


def test_freezing_and_setting_free_as_in_pytorch(rng):
    """All are frozen and then set free, each time by way of ``parameters()``; an optimizer built in between has them all."""
    layer, x = Linear(3, 2, generator=rng), np.ones((4, 3), np.float32)
    for parameter in layer.parameters():
        parameter.trainable = False
    optimizer = SGD(layer.parameters(), lr=1.0)
    for parameter in layer.parameters():
        parameter.trainable = True
    before = layer.weight.data.copy()
    layer.backward(layer(x))
    optimizer.step()
    assert (layer.weight.data != before).any()


def test_a_constant_may_be_set_free():
    layer = Linear(3, 2)
    layer.offset = Parameter(np.ones(3, np.float32), trainable=False)
    assert layer.offset.constant and layer.offset not in layer.parameters()
    layer.offset.trainable = True
    layer.offset.trainable = False
    assert not layer.offset.constant and layer.offset in layer.parameters()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("data", np.zeros((3, 3), np.float32), r"data must be a float32 or float64 array of shape \(2, 3\), got float32 of shape \(3, 3\)"),
        ("data", np.zeros((2, 3), np.int64), "got int64 of shape"),
        ("grad", None, r"grad must be .*, got NoneType; write into it instead: parameter.grad\[...\] = values"),
        ("trainable", "no", "trainable must be True or False, got 'no'"),
    ],
)
def test_what_an_attribute_cannot_be(name, value, message):
    with pytest.raises(TypeError, match=message):
        setattr(Linear(3, 2).weight, name, value)
