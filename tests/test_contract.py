"""The laws of the Module protocol, checked for every module there is.

A module without a case fails :func:`test_every_module_has_a_case`; add one to ``CASES`` in tests/support/module_cases.py, and all laws are
checked for it.
"""

import importlib
import inspect
import pkgutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import hcrot.layers
import hcrot.models
from hcrot import module as protocol
from hcrot.gradcheck import check_gradients
from hcrot.module import Identity, Module, Parameter
from hcrot.passes import one_pass
from support.module_cases import CASES, Case, Use, arrays_held, as_tuple, assert_close, images, is_float

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_case_with_backward = pytest.mark.parametrize("case", [c for c in CASES if Use(c).has_backward], ids=lambda case: case.name)


# ---------------------------------------------------------------- the laws


def concrete_modules() -> set[type]:
    """Every class in hcrot.module, hcrot.layers and hcrot.models that has a forward."""
    files = [protocol]
    for package in (hcrot.layers, hcrot.models):
        files += [importlib.import_module(f"{package.__name__}.{info.name}") for info in pkgutil.iter_modules(package.__path__)]
    classes = {cls for file in files for _, cls in inspect.getmembers(file, inspect.isclass) if cls.__module__ == file.__name__}
    return {cls for cls in classes if issubclass(cls, Module) and cls.forward is not Module.forward}


def test_every_module_has_a_case():
    covered = {type(case.make(np.random.default_rng(0))) for case in CASES}
    assert not {cls.__name__ for cls in concrete_modules() - covered}


@every_case_with_backward
def test_gradients_are_right(case):
    """B01, B02, B03, B05: every one of them, that of every parameter included."""
    use = Use(case)
    check_gradients(use.module, *use.inputs, forward=case.forward, backward=case.backward)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_and_douts_are_not_written_to(case, dtype):
    """B33."""
    use = Use(case, dtype)
    arrays = [value for value in (*use.inputs, *use.douts) if isinstance(value, np.ndarray)]
    before = [array.copy() for array in arrays]
    use.results()
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


@every_case
def test_results_are_not_written_to_later(case):
    """A buffer that is used again must not be one that was handed out."""
    use = Use(case)
    results = use.results()
    results = {name: array for name, array in results.items() if not name.startswith("gradient of")}
    before = {name: array.copy() for name, array in results.items()}
    use.inputs = tuple(value * 1.5 + 0.1 if is_float(value) else value for value in use.inputs)
    use.douts = tuple(dout * 2 for dout in use.douts)
    use.results()
    for name, array in results.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_dtype_out(case, dtype):
    """B10."""
    for name, array in Use(case, dtype).results().items():
        assert array.dtype == dtype, name


@every_case
def test_single_precision_agrees_with_double(case):
    assert_close(Use(case, np.float32).results(), Use(case, np.float64).results(), 1e-4)


ORDERS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "channels-last": lambda array: np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1) if array.ndim > 1 else array,
    "with gaps": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "reversed": lambda array: np.ascontiguousarray(np.flip(array))[(slice(None, None, -1),) * array.ndim],
}


@every_case
@pytest.mark.parametrize("order", ORDERS)
def test_any_memory_order_gives_the_same_numbers(case, order):
    assert_close(Use(case, order=ORDERS[order]).results(), Use(case).results(), 1e-12)


@every_case
def test_nothing_is_kept_in_inference(case):
    use = Use(case)
    before = arrays_held(use.module)
    with use.module.inference():
        arrays = [weakref.ref(value) for value in (*use.inputs, *use.forward()) if isinstance(value, np.ndarray)]
    assert arrays_held(use.module) == before
    assert all(part._kept is None for part in use.module.modules())
    use.inputs = ()
    assert all(array() is None for array in arrays)


@every_case_with_backward
def test_everything_is_freed_after_backward(case):
    """B24."""
    use = Use(case)
    before = arrays_held(use.module)
    arrays = [weakref.ref(value) for value in (*use.inputs, *use.forward()) if isinstance(value, np.ndarray)]
    use.backward()
    assert arrays_held(use.module) == before
    assert all(part._kept is None for part in use.module.modules())
    use.inputs = ()
    assert all(array() is None for array in arrays)


@every_case_with_backward
def test_each_forward_serves_one_backward(case):
    use = Use(case)
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        use.backward()
    use.forward()
    use.backward()
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        use.backward()


def shifted(inputs):
    """Other inputs of the same kind."""
    return tuple(value * 1.5 + 0.1 if is_float(value) else value for value in inputs)


def results_of(use, douts):
    """All gradients of a backward that is due, by name, in copies."""
    use.douts = douts
    results = {f"input gradient {i}": gradient.copy() for i, gradient in enumerate(use.backward())}
    return results | {f"gradient of {name}": parameter.grad.copy() for name, parameter in use.module.named_parameters()}


@every_case_with_backward
def test_inference_leaves_alone_what_is_kept(case):
    """A look at the network between forward and backward, as within PyTorch's no_grad."""
    plain, looked_at = Use(case), Use(case)
    plain.forward()
    expected = results_of(plain, plain.douts)
    looked_at.forward()
    inputs = looked_at.inputs
    with looked_at.module.inference():
        looked_at.inputs = shifted(inputs)
        looked_at.forward()
    looked_at.inputs = inputs
    assert_close(results_of(looked_at, looked_at.douts), expected, 0)


@every_case_with_backward
def test_a_module_may_be_used_twice_in_one_pass(case):
    """Two branches with the same weights: the backwards run in the opposite order of the forwards."""
    one, two, both = Use(case), Use(case), Use(case)
    inputs, douts = one.inputs, one.douts
    one.forward()
    first = results_of(one, douts)
    two.inputs = shifted(inputs)
    two.forward()
    second = results_of(two, tuple(3 * dout for dout in douts))
    with one_pass():
        both.forward()
        both.inputs = shifted(inputs)
        both.forward()
    assert_close(results_of(both, tuple(3 * dout for dout in douts)), second, 1e-13)
    both.inputs = inputs
    last = results_of(both, douts)
    assert_close(last, {name: a + second[name] if name.startswith("gradient of") else a for name, a in first.items()}, 1e-12)
    assert all(part._kept is None for part in both.module.modules())


@every_case_with_backward
def test_a_backward_that_may_belong_to_two_forwards_raises(case):
    """It took the latest without a word: a look at a U-Net in training mode made 112 of its 114 gradients wrong."""
    use = Use(case)
    inputs = use.inputs
    use.inputs = shifted(inputs)
    use.forward()
    use.inputs = inputs
    use.forward()
    with pytest.raises(RuntimeError, match="two forward passes in training mode came before this backward"):
        use.backward()
    assert not any(parameter.grad.any() for _, parameter in use.module.named_parameters())
    for _ in range(2):  # the next step is a step like any other
        use.module.zero_grad()
        use.forward()
        results = results_of(use, use.douts)
        assert_close(results, {name: a for name, a in Use(case).results().items() if not name.startswith("output")}, 0)


@every_case_with_backward
def test_a_forward_that_is_forgotten_leaves_no_trace(case):
    use = Use(case)
    before = arrays_held(use.module)
    use.forward()
    use.module.forget()
    assert arrays_held(use.module) == before
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        use.backward()
    use.forward()
    use.backward()


@every_case
def test_threads_use_one_module_in_inference_at_the_same_time(case):
    """The mode stayed in inference for good, and the next backward raised."""
    use = Use(case)
    if case.random:
        use.module.eval()
    expected = use.forward()
    use.module.forget()
    barrier = threading.Barrier(3)

    def sample(_):
        barrier.wait()
        for _ in range(3):
            with use.module.inference():
                outputs = use.forward() if not use.generators else as_tuple(case.forward(use.module, *use.inputs))
                assert not use.module.training
        return outputs

    with ThreadPoolExecutor(3) as pool:
        for outputs in pool.map(sample, range(3)):
            for y, reference in zip(outputs, expected, strict=True):
                np.testing.assert_array_equal(y, reference)
    assert use.module.training != case.random
    assert all(part._kept is None for part in use.module.modules())


@every_case_with_backward
def test_gradients_add_up(case):
    """B04, B13: two passes leave twice the gradient, in the same arrays."""
    use = Use(case)
    grads = {name: parameter.grad for name, parameter in use.module.named_parameters()}
    use.results()
    once = {name: grad.copy() for name, grad in grads.items()}
    use.results()
    for name, parameter in use.module.named_parameters():
        assert parameter.grad is grads[name]
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=1e-12, err_msg=name)


@every_case_with_backward
def test_every_parameter_receives_a_gradient(case):
    use = Use(case)
    use.results()
    named = list(use.module.named_parameters())
    assert not [name for name, parameter in named if parameter.trainable != parameter.grad.any()]


@every_case
def test_the_state_is_all_there_is(case):
    """B14: the same keys before and after; a module made anew and given them computes the same."""
    use = Use(case)
    keys = list(use.module.state_dict())
    use.results()
    assert list(use.module.state_dict()) == keys
    with use.module.inference():
        expected = use.forward()
    other = use.build(1).astype(np.float64).eval()
    other.load_state_dict(use.module.state_dict())
    for y, reference in zip(as_tuple(case.forward(other, *use.inputs)), expected, strict=True):
        np.testing.assert_array_equal(y, reference)


@every_case
def test_inference_computes_what_training_does(case):
    use = Use(case)
    training = use.forward()
    with use.module.inference():
        inference = use.forward()
    if case.random:
        assert any((a != b).any() for a, b in zip(training, inference, strict=True))
        training = inference
    with use.module.inference():
        again = use.forward()
    for a, b, c in zip(training, inference, again, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(b, c)


@every_case
def test_randomness_comes_from_the_generator_alone(case):
    """B46."""
    global_state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert_close(Use(case).results(), Use(case).results(), 0)
    one, same = (case.make(np.random.default_rng(5)).state_dict() for _ in range(2))
    for name, array in one.items():
        np.testing.assert_array_equal(array, same[name])
    np.testing.assert_array_equal(np.random.get_state()[1], global_state)  # noqa: NPY002


@every_case
def test_parameters_are_float32_when_made_and_dense(case):
    for parameter in case.make(np.random.default_rng(0)).parameters():
        assert parameter.data.dtype == np.float32
        assert protocol.flat(parameter.data).size == protocol.flat(parameter.grad).size == parameter.data.size


@every_case
def test_repr_begins_with_the_class(case):
    module = case.make(np.random.default_rng(0))
    assert repr(module).startswith(f"{type(module).__name__}(")


# ---------------------------------------------------------------- the laws have teeth


class Forgetful(Module):
    """Breaks the laws: keeps its input in an attribute, writes into dout, gives its parameter no gradient, returns a buffer of its own."""

    def __init__(self):
        self.scale, self.buffer = Parameter(np.ones(6, np.float32)), np.zeros((3, 4, 5, 6))
        self.x = None

    def forward(self, x):
        self.x = x
        np.multiply(x, self.scale.data, out=self.buffer)
        return self.buffer

    def backward(self, dout):
        dout *= self.scale.data
        return dout


@pytest.mark.parametrize(
    "law",
    [
        test_gradients_are_right,
        lambda case: test_inputs_and_douts_are_not_written_to(case, np.float64),
        test_results_are_not_written_to_later,
        lambda case: test_dtype_in_dtype_out(case, np.float32),
        test_nothing_is_kept_in_inference,
        test_everything_is_freed_after_backward,
        test_a_module_may_be_used_twice_in_one_pass,
        test_every_parameter_receives_a_gradient,
    ],
)
def test_a_module_that_breaks_the_laws_fails(law):
    with pytest.raises(AssertionError):
        law(Case("Forgetful", lambda g: Forgetful(), images))


class KeepsByItself(Module):
    """``y = x x``, with x in an attribute of its own instead of in what :meth:`Module.save` keeps."""

    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, dout):
        return 2 * self.x * dout


@pytest.mark.parametrize("law", [test_inference_leaves_alone_what_is_kept, test_a_module_may_be_used_twice_in_one_pass])
def test_a_module_that_keeps_by_itself_fails(law):
    with pytest.raises(AssertionError):
        law(Case("KeepsByItself", lambda g: KeepsByItself(), images))


def test_a_module_that_gives_gradients_twice_fails():
    class Generous(Identity):
        def backward(self, dout):
            return dout

    for law in (test_each_forward_serves_one_backward, test_a_backward_that_may_belong_to_two_forwards_raises):
        with pytest.raises(pytest.fail.Exception):
            law(Case("Generous", lambda g: Generous(), images))


@every_case_with_backward
def test_a_gradient_of_another_shape_or_dtype_is_refused(case):
    """A kernel would read past its end, and NumPy would broadcast it. Identity hands on what it gets."""
    use = Use(case)
    if isinstance(use.module, Identity) or len(use.douts) > 1:
        return
    (dout,) = use.douts
    for bad in (np.concatenate([dout, dout[:1]]), dout[..., :-1], dout.astype(np.float32)):
        use.forward()
        with pytest.raises(ValueError, match="backward: expected dout like the output"):
            case.backward(use.module, bad)
