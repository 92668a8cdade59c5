"""The optimizers: steps by hand, writing in place, groups, resuming bit for bit, bad input."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hcrot.module import Parameter
from hcrot.training.ema import EMA
from hcrot.training.optim import SGD, Adam, AdamW, clip_grad_norm
from support.optimizers import OPTIMIZERS, every_optimizer, fill_gradients, one_parameter, parameters, train

# ---------------------------------------------------------------- steps by hand


def test_sgd_by_hand():
    p = one_parameter([1.0, -2.0], [0.5, 1.0])
    SGD([p], lr=0.1, weight_decay=0.2).step()
    np.testing.assert_allclose(p.data, [1 - 0.1 * (0.5 + 0.2), -2 - 0.1 * (1 - 0.4)])


@pytest.mark.parametrize(
    ("nesterov", "expected"),
    [
        (False, 1 - 0.1 * 2 - 0.1 * (0.9 * 2 - 1)),
        (True, 1 - 0.1 * (2 + 0.9 * 2) - 0.1 * (-1 + 0.9 * (0.9 * 2 - 1))),
    ],
)
def test_momentum_by_hand(nesterov, expected):
    p = one_parameter([1.0], [2.0])
    optimizer = SGD([p], lr=0.1, momentum=0.9, nesterov=nesterov)
    optimizer.step()
    p.grad[...] = -1.0
    optimizer.step()
    np.testing.assert_allclose(p.data, [expected])


def test_adam_by_hand():
    """The first step is lr in the direction against the gradient's sign, the second is written out."""
    p = one_parameter([1.0, 1.0], [0.5, -2.0])
    optimizer = Adam([p], lr=0.1, betas=(0.8, 0.9), eps=0)
    optimizer.step()
    np.testing.assert_allclose(p.data, [0.9, 1.1])
    p.grad[...] = [1.0, 0.0]
    optimizer.step()
    m = np.array([0.8 * 0.1 + 0.2 * 1, 0.8 * -0.4]) / (1 - 0.8**2)
    v = np.array([0.9 * 0.025 + 0.1 * 1, 0.9 * 0.4]) / (1 - 0.9**2)
    np.testing.assert_allclose(p.data, [0.9, 1.1] - 0.1 * m / np.sqrt(v))


def test_weight_decay_of_adam_and_adamw_by_hand():
    """Adam adds it to the gradient, where the first step's normalisation hides it; AdamW shrinks the parameter."""
    p, q = one_parameter([2.0], [1.0]), one_parameter([2.0], [1.0])
    Adam([p], lr=0.1, weight_decay=0.5, eps=1).step()
    np.testing.assert_allclose(p.data, [2 - 0.1 * 2 / (2 + 1)])
    AdamW([q], lr=0.1, weight_decay=0.5, eps=1).step()
    np.testing.assert_allclose(q.data, [2 * (1 - 0.05) - 0.1 * 1 / (1 + 1)])


@every_optimizer
def test_finds_a_minimum(build):
    rng = np.random.default_rng(1)
    target, p = rng.normal(size=5), Parameter(np.zeros(5))
    optimizer = build([p], weight_decay=0.0)
    for step in range(300):
        optimizer.zero_grad()
        p.grad += p.data - target
        optimizer.lr = 0.1 * (1 - step / 300)
        optimizer.step()
    np.testing.assert_allclose(p.data, target, atol=1e-3)


# ---------------------------------------------------------------- writing in place


@every_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_writes_in_place_and_leaves_gradients_alone(build, dtype):
    """B20: data, gradients and state are allocated once, and keep their dtype (B10)."""
    params = parameters(dtype)
    optimizer = build(params, weight_decay=0.1)
    arrays = [array for p in params for array in (p.data, p.grad)] + [a for s in optimizer.state.values() for a in s]
    views = [p.data.reshape(-1) for p in params]
    before = [p.data.copy() for p in params]
    fill_gradients(params, np.random.default_rng(2))
    gradients = [p.grad.copy() for p in params]
    optimizer.step()
    after = [array for p in params for array in (p.data, p.grad)] + [a for s in optimizer.state.values() for a in s]
    assert all(one is other and one.dtype == dtype for one, other in zip(arrays, after, strict=True))
    for p, view, old, gradient in zip(params, views, before, gradients, strict=True):
        assert (p.data != old).all()
        np.testing.assert_array_equal(p.data.reshape(-1), view)
        np.testing.assert_array_equal(p.grad, gradient)
    optimizer.zero_grad()
    assert all((p.grad == 0).all() for p in params)


@every_optimizer
def test_numpy_scalar_as_learning_rate_changes_nothing(build):
    """A float64 scalar of NumPy must not turn float32 arithmetic into float64."""
    params, others = parameters(), parameters()
    optimizer, other = build(params, weight_decay=0.1), build(others, weight_decay=0.1)
    optimizer.lr, other.lr = 0.01, np.float64(0.01)
    train(params, optimizer, np.random.default_rng(3), 3)
    train(others, other, np.random.default_rng(3), 3)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@every_optimizer
@pytest.mark.parametrize("attribute", ["data", "grad"])
def test_replaced_arrays_are_an_error(build, attribute):
    params = parameters()
    optimizer = build(params)
    fill_gradients(params, np.random.default_rng(4))
    before = params[0].data.copy()
    setattr(params[1], attribute, getattr(params[1], attribute).copy())
    with pytest.raises(RuntimeError, match=r"the arrays of parameter 1, shape \(7,\), were replaced"):
        optimizer.step()
    np.testing.assert_array_equal(params[0].data, before)
    assert optimizer.step_count == 0


@every_optimizer
def test_not_finite_gradients_stay_visible(build):
    p = one_parameter([1.0, 1.0], [np.nan, 1.0])
    build([p]).step()
    assert np.isnan(p.data[0])
    assert np.isfinite(p.data[1])


# ---------------------------------------------------------------- groups


@every_optimizer
def test_groups_have_their_own_decay_and_rate(build):
    """B20: weight decay can spare norms and biases. A group's rate follows the optimizer's."""
    together, alone = parameters(), parameters()
    groups = build(
        [{"params": together[:2], "weight_decay": 0.3}, {"params": together[2:], "lr": 0.02}], weight_decay=0.0
    )
    first, second = build(alone[:2], weight_decay=0.3), build(alone[2:], weight_decay=0.0)
    first.lr, second.lr = groups.lr / 2, 0.02 / 2
    groups.lr /= 2
    train(together, groups, np.random.default_rng(5), 3)
    rng = np.random.default_rng(5)
    for _ in range(3):
        fill_gradients(alone, rng)
        first.step()
        second.step()
    for p, q in zip(together, alone, strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-6)


@every_optimizer
def test_a_tied_parameter_is_updated_once(build):
    (p, *_), (q, *_) = parameters(), parameters()
    for optimizer, parameter in ((build([p, p]), p), (build([q]), q)):
        parameter.grad += 0.5
        optimizer.step()
    np.testing.assert_array_equal(p.data, q.data)


def test_accepts_any_iterable():
    params = parameters()
    assert AdamW(iter(params)).parameters == params
    assert AdamW(iter([{"params": iter(params)}])).parameters == params


# ---------------------------------------------------------------- state


@every_optimizer
def test_resumed_run_equals_the_uninterrupted_one(build, tmp_path):
    """Ten steps equal five, a save to files, and five more with a new optimizer: bit for bit."""
    whole = parameters()
    optimizer = build(whole, weight_decay=0.1)
    rng = np.random.default_rng(6)
    train(whole, optimizer, rng, 5)
    optimizer.lr = 0.1 / 3
    train(whole, optimizer, rng, 5)

    first = parameters()
    optimizer = build(first, weight_decay=0.1)
    rng = np.random.default_rng(6)
    train(first, optimizer, rng, 5)
    optimizer.lr = 0.1 / 3
    state = optimizer.state_dict()
    save_file(
        {name: value for name, value in state.items() if isinstance(value, np.ndarray)}, tmp_path / "state.safetensors"
    )
    (tmp_path / "state.json").write_text(json.dumps({"step": state["step"], "lr": state["lr"]}))

    resumed = [Parameter(p.data.copy()) for p in first]
    optimizer = build(resumed, weight_decay=0.1)
    optimizer.load_state_dict(
        load_file(tmp_path / "state.safetensors") | json.loads((tmp_path / "state.json").read_text())
    )
    train(resumed, optimizer, rng, 5)
    assert optimizer.step_count == 10
    for p, q in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_state_dict_is_a_copy_with_these_names():
    params = parameters()
    optimizer = AdamW(params)
    state = optimizer.state_dict()
    assert list(state) == ["step", "lr", *(f"{name}.{index}" for name in "mv" for index in range(4))]
    train(params, optimizer, np.random.default_rng(7), 1)
    assert state["step"] == 0
    assert (state["m.0"] == 0).all()
    assert list(SGD(params).state_dict()) == ["step", "lr"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m.1": None}, "missing m.1"),
        ({"step": None}, "missing step"),
        ({"v.9": np.zeros(1, np.float32)}, "unexpected v.9"),
        ({"m.1": np.zeros(6, np.float32)}, r"m.1 is float32 of shape \(6,\), expected float32 of shape \(7,\)"),
        ({"m.1": np.zeros(7)}, r"m.1 is float64 of shape \(7,\), expected float32"),
        ({"m.1": [0.0] * 7}, r"m.1 is list, expected float32 of shape \(7,\)"),
        ({"step": 1.5}, "step must be an integer >= 0, got 1.5"),
        ({"step": -1}, "step must be an integer >= 0, got -1"),
        ({"lr": float("nan")}, "lr must be a finite number >= 0, got nan"),
        ({"initial_lr": -1.0}, "initial_lr must be a finite number >= 0, got -1.0"),
    ],
)
def test_loading_is_strict_and_all_or_nothing(change, message):
    params = parameters()
    optimizer = Adam(params)
    train(params, optimizer, np.random.default_rng(8), 2)
    before = optimizer.state_dict()
    state = {name: value for name, value in (Adam(params, lr=7.0).state_dict() | change).items() if value is not None}
    with pytest.raises(ValueError, match=f"Adam.load_state_dict: .*{message}"):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_every_problem_of_a_state_is_named():
    with pytest.raises(ValueError, match="missing lr; missing velocity.0; step must be .*; unexpected m.0"):
        SGD(parameters()[:1], momentum=0.9).load_state_dict({"step": "3", "m.0": 0})


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda p: AdamW([]), ValueError, "AdamW: the list of parameters is empty"),
        (
            lambda p: AdamW(p),
            TypeError,
            "AdamW: expected a list of Parameter, such as model.parameters.., got Parameter",
        ),
        (lambda p: AdamW([p, p.data]), TypeError, "AdamW: .* but item 1 is of type ndarray"),
        (lambda p: AdamW({"params": [p]}), TypeError, "AdamW: .* but item 0 is of type str"),
        (lambda p: AdamW([p], lr=-1e-3), ValueError, "AdamW: lr must be a finite number >= 0, got -0.001"),
        (lambda p: Adam([p], lr=float("nan")), ValueError, "Adam: lr must be a finite number >= 0, got nan"),
        (lambda p: Adam([p], lr="0.1"), ValueError, "Adam: lr must be a finite number >= 0, got '0.1'"),
        (
            lambda p: Adam([p], betas=(0.9, 1.0)),
            ValueError,
            "Adam: betas must be a finite number >= 0 and < 1, got 1.0",
        ),
        (lambda p: Adam([p], betas=0.9), ValueError, "Adam: betas must be two numbers, got 0.9"),
        (lambda p: Adam([p], eps=-1), ValueError, "Adam: eps must be a finite number >= 0, got -1"),
        (lambda p: SGD([p], weight_decay=-0.1), ValueError, "SGD: weight_decay must be"),
        (lambda p: SGD([p], momentum=float("inf")), ValueError, "SGD: momentum must be a finite number >= 0, got inf"),
        (lambda p: SGD([p], nesterov=True), ValueError, "SGD: nesterov needs momentum > 0"),
        (lambda p: SGD([p], nesterov=True, momentum=0.9, dampening=0.1), ValueError, "nesterov needs .* dampening 0, got .*=0.1"),
        (lambda p: SGD([p], dampening=1.0, momentum=0.9), ValueError, "SGD: dampening must be a finite number >= 0 and < 1, got 1.0"),
        (lambda p: SGD([p], maximize=1), TypeError, "SGD: maximize must be True or False, got 1"),
        (lambda p: Adam([p], amsgrad="no"), TypeError, "Adam: amsgrad must be True or False, got 'no'"),
        (lambda p: AdamW([p], weight_dekay=0.1), TypeError, r"AdamW\(\) got an unexpected keyword argument 'weight_dekay'"),
        (lambda p: Adam([p], decoupled_weight_decay=True), ValueError, "Adam: decoupled_weight_decay .* not taken here: that is AdamW"),
        (lambda p: SGD([{"params": [p]}, p]), ValueError, "SGD: group 1: expected a dict .* got Parameter"),
        (
            lambda p: SGD([{"parameters": [p]}]),
            ValueError,
            r'SGD: group 0: expected a dict with "params" .* got \[\'parameters\'\]',
        ),
        (lambda p: SGD([{"params": [p], "momentum": 1}]), ValueError, "SGD: group 0: expected a dict"),
        (lambda p: SGD([{"params": [p], "lr": -1}]), ValueError, "SGD: group 0: lr must be a finite number >= 0, got -1"),
        (lambda p: SGD([{"params": [p], "lr": 0.1}], lr=0), ValueError, "SGD: group 0: lr 0.1 is kept as a multiple of .* which is 0"),
        (lambda p: SGD([{"params": []}]), ValueError, "SGD: group 0: the list of parameters is empty"),
        (
            lambda p: SGD([{"params": [p]}, {"params": [p]}]),
            ValueError,
            "SGD: a parameter appears in more than one group",
        ),
        (
            lambda p: SGD([p, Parameter(np.zeros(3, np.float32))]),
            ValueError,
            "SGD: expected parameters of one dtype, got float32 and float64",
        ),
        (lambda p: clip_grad_norm([p], 0), ValueError, "clip_grad_norm: max_norm must be a number > 0, got 0"),
        (lambda p: clip_grad_norm([p], float("nan")), ValueError, "clip_grad_norm: max_norm must be"),
        (lambda p: clip_grad_norm([], 1), ValueError, "clip_grad_norm: the list of parameters is empty"),
    ],
)
def test_bad_input(build, error, message):
    with pytest.raises(error, match=message):
        build(Parameter(np.zeros(3)))


@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
def test_memory_order_of_a_parameter_does_not_matter(make):
    """Weights of layers lie in memory as kernels read them; an update of a C-ordered copy would be lost."""
    rng = np.random.default_rng(0)
    start, gradient = rng.standard_normal((2, 3, 4, 2, 5))
    results = []
    for order in ((0, 1, 2, 3), (2, 3, 1, 0)):
        parameter = Parameter(start.transpose(order).copy().transpose(np.argsort(order)))
        parameter.grad[...] = gradient
        optimizer = make([parameter], lr=0.1)
        for _ in range(3):
            optimizer.step()
        results.append(parameter.data.copy())
    assert np.abs(results[0] - start).max() > 0.1
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_gradients_have_become_zero_no_subnormal_number_is_left(dtype):
    """Neither in moments and velocities nor in the moving average, after few steps or many."""
    tiny = np.finfo(dtype).tiny
    for make in (*OPTIMIZERS.values(), lambda params: SGD(params, lr=0.1, momentum=0.9)):
        params = parameters(dtype)
        optimizer, ema = make(params), EMA(params, decay=0.5)
        train(params, optimizer, np.random.default_rng(0), 3)
        ema.step()
        for parameter in params:
            parameter.grad[...] = 0
            parameter.data[...] = 0
        for array in ema.averages:
            array *= 1000 * tiny
        for arrays in optimizer.state.values():
            for array in arrays:
                array *= 1000 * tiny
                array[np.abs(array) < tiny] = 0
        for _ in range(150):
            optimizer.step()
            for parameter in params:
                parameter.data[...] = 0
            ema.step()
            for arrays in (*optimizer.state.values(), ema.averages):
                assert not any(((abs(array) > 0) & (abs(array) < tiny)).any() for array in arrays)
        assert not any(array.any() for array in ema.averages)
