"""Parameters whose ``trainable`` is set to False, and back, after the optimizer was built."""

import copy

import numpy as np
import pytest

from hcrot.files.checkpoint import load_checkpoint, save_checkpoint
from hcrot.training.ema import EMA
from hcrot.training.optim import AdamW, clip_grad_norm
from support.optimizers import every_optimizer, fill_gradients, parameters, train
from support.small_unets import tiny_model

FROZEN = (0, 2)


def freeze(params, trainable=False):
    for index in FROZEN:
        params[index].trainable = trainable


def values_and_state(params, optimizer):
    return [[params[i].data.copy(), *(arrays[i].copy() for arrays in optimizer.state.values())] for i in range(len(params))]


@every_optimizer
@pytest.mark.parametrize("one_pass", [False, True])
def test_a_frozen_parameter_and_its_state_stay_and_the_others_go_on(build, one_pass):
    """Weight decay included; the others move as if the frozen ones were not there."""
    params, others = parameters(), parameters()
    del others[2], others[0]
    optimizer, other = build(params, weight_decay=0.3), build(others, weight_decay=0.3)
    train(params, optimizer, np.random.default_rng(0), 3)
    freeze(params)
    before = values_and_state(params, optimizer)
    # The same gradients for the others in all steps.
    rng = np.random.default_rng(0)
    for _ in range(3):
        for q, p in zip(others, [rng.normal(size=p.shape) for p in params][1::2], strict=True):
            q.grad[...] = p
        other.step()
    options = {"max_grad_norm": 1.0} if one_pass else {}
    for _ in range(2):
        fill_gradients(params, np.random.default_rng(1))
        for q, p in zip(others, params[1::2], strict=True):
            q.grad[...] = p.grad
        assert optimizer.step(**options) == other.step(**options)
    after = values_and_state(params, optimizer)
    for index in FROZEN:
        for old, new in zip(before[index], after[index], strict=True):
            np.testing.assert_array_equal(new, old)
    for expected, found in zip(values_and_state(others, other), after[1::2], strict=True):
        for one, two in zip(expected, found, strict=True):
            np.testing.assert_array_equal(two, one)


@every_optimizer
def test_set_free_again_it_goes_on_where_it_stood(build):
    """Its own steps are those of a parameter that never saw the steps between: the bias correction, too."""
    params, others = parameters(), parameters()
    optimizer, other = build(params, weight_decay=0.1), build(others, weight_decay=0.1)
    gradients = [[np.random.default_rng([step, i]).normal(size=p.shape) for i, p in enumerate(params)] for step in range(9)]

    def steps(params, optimizer, numbers):
        for number in numbers:
            for p, gradient in zip(params, gradients[number], strict=True):
                p.grad[...] = gradient
            optimizer.step()

    steps(params, optimizer, range(2))
    freeze(params)
    steps(params, optimizer, range(2, 6))
    freeze(params, trainable=True)
    steps(params, optimizer, range(6, 9))
    steps(others, other, [0, 1, 6, 7, 8])
    for index in FROZEN:
        np.testing.assert_array_equal(params[index].data, others[index].data)
    assert optimizer.step_count == 9


@every_optimizer
def test_frozen_gradients_are_not_in_the_norm_and_not_clipped_but_zeroed(build):
    params = parameters()
    optimizer = build(params)
    fill_gradients(params, np.random.default_rng(2))
    freeze(params)
    for index in FROZEN:
        params[index].grad[...] = np.nan
    expected = np.sqrt(sum((p.grad.astype(np.float64) ** 2).sum() for p in params if p.trainable))
    assert optimizer.step(max_grad_norm=1e9) == pytest.approx(expected, rel=1e-12)
    assert clip_grad_norm(params, 0.5) == pytest.approx(expected, rel=1e-12)
    assert clip_grad_norm(params, 1e9) == pytest.approx(0.5, rel=1e-5)
    assert all(np.isnan(params[index].grad).all() for index in FROZEN)
    optimizer.step(zero_grad=True)
    assert all((p.grad == 0).all() for p in params)
    params[0].grad[...] = 1
    optimizer.zero_grad()
    assert (params[0].grad == 0).all()


@every_optimizer
def test_all_frozen(build):
    params = parameters()
    optimizer = build(params, weight_decay=0.1)
    fill_gradients(params, np.random.default_rng(3))
    for p in params:
        p.trainable = False
    before = [p.data.copy() for p in params]
    assert optimizer.step(max_grad_norm=1.0) == clip_grad_norm(params, 1.0) == 0.0
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, old)


@every_optimizer
def test_frozen_from_the_beginning(build):
    params = parameters()
    freeze(params)
    before = params[0].data.copy()
    optimizer = build(params, weight_decay=0.5)
    train(params, optimizer, np.random.default_rng(4), 2)
    np.testing.assert_array_equal(params[0].data, before)


@every_optimizer
def test_averages_go_on_following_frozen_parameters(build):
    """The fused step does what the separate calls do."""
    together, apart = parameters(), parameters()
    one, other = build(together), build(apart)
    ema, other_ema = EMA(together, decay=0.5, min_decay=0.5), EMA(apart, decay=0.5, min_decay=0.5)
    rng, other_rng = np.random.default_rng(5), np.random.default_rng(5)
    for step in range(6):
        if step in (3, 5):
            for params in (together, apart):
                freeze(params, trainable=step == 5)
            before = ema.averages[0].copy()
        fill_gradients(together, rng)
        fill_gradients(apart, other_rng)
        one.step(ema=ema, zero_grad=True)
        other.step()
        other_ema.step()
        if step == 3:
            np.testing.assert_allclose(ema.averages[0], (before + together[0].data) / 2, rtol=1e-6)
            assert not np.array_equal(before, together[0].data)
        assert all((p.grad == 0).all() for p in together)
    for p, q in zip([p.data for p in together] + [*ema.averages], [p.data for p in apart] + [*other_ema.averages], strict=True):
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-6)


@every_optimizer
def test_a_run_with_frozen_parameters_resumes_bit_for_bit(build):
    whole = parameters()
    optimizer = build(whole, weight_decay=0.1)
    rng = np.random.default_rng(6)
    train(whole, optimizer, rng, 2)
    freeze(whole)
    train(whole, optimizer, rng, 2)
    state, resumed, resumed_rng = optimizer.state_dict(), copy.deepcopy(whole), copy.deepcopy(rng)
    np.testing.assert_array_equal(state["missed"], [2, 0, 2, 0])
    other = build(resumed, weight_decay=0.1)
    other.load_state_dict(state)
    for params, one, generator in ((whole, optimizer, rng), (resumed, other, resumed_rng)):
        train(params, one, generator, 1)
        freeze(params, trainable=True)
        train(params, one, generator, 2)
    for p, q in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(q.data, p.data)


def test_a_checkpoint_with_frozen_parameters_loads(tmp_path):
    model, other_model = (tiny_model(seed) for seed in (0, 1))
    optimizer, other = (AdamW([p for _, p in m.named_parameters()]) for m in (model, other_model))
    for parameter in optimizer.parameters[::2]:
        parameter.trainable = False
    train(optimizer.parameters, optimizer, np.random.default_rng(7), 3)
    save_checkpoint(tmp_path / "run", model=model, state={"optimizer": optimizer})
    load_checkpoint(tmp_path / "run", model=other_model, state={"optimizer": other})
    missed = other.state_dict()["missed"]
    assert (missed[::2] == 3).all() and (missed[1::2] == 0).all()
    for one, two in zip(optimizer.state["v"], other.state["v"], strict=True):
        np.testing.assert_array_equal(two, one)


@pytest.mark.parametrize(
    ("missed", "message"),
    [
        (np.array([0, 0, 0]), r"missed is int64 of shape \(3,\), expected int64 of shape \(4,\)"),
        (np.array([0, -1, 0, 0]), "missed must be from 0 to step, 2, got"),
        (np.array([0, 0, 3, 0]), "missed must be from 0 to step, 2, got"),
        ([0, 0, 0, 0], "missed is list, expected int64"),
    ],
)
def test_a_wrong_number_of_missed_steps_is_refused(missed, message):
    params = parameters()
    optimizer = AdamW(params)
    train(params, optimizer, np.random.default_rng(8), 2)
    other = AdamW(parameters())
    with pytest.raises(ValueError, match=f"AdamW.load_state_dict: {message}"):
        other.load_state_dict(optimizer.state_dict() | {"missed": missed})
    assert other.step_count == 0
