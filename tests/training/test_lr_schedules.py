"""Learning-rate schedules: values by hand, the optimizer's rate, resuming, bad input."""

import math

import numpy as np
import pytest

from hcrot.commands.train import LR_SCHEDULES
from hcrot.module import Parameter
from hcrot.training.lr_schedules import (
    LRSchedule,
    constant,
    constant_with_warmup,
    cosine,
    cosine_with_restarts,
    get_scheduler,
    linear,
    one_cycle,
    polynomial,
)
from hcrot.training.optim import SGD

FACTORS = {
    "constant": constant(),
    "constant_with_warmup": constant_with_warmup(3),
    "linear": linear(3, 9),
    "cosine": cosine(3, 9),
    "cosine_with_restarts": cosine_with_restarts(3, 9, 2),
    "polynomial": polynomial(3, 9, 1.5, 1e-7 / 0.5),
    "one_cycle": one_cycle(9),
}


def optimizer(lr=0.5):
    return SGD([Parameter(np.zeros(2))], lr=lr)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (constant(), {0: 1, 1: 1, 1000: 1}),
        (constant_with_warmup(4), {0: 0, 1: 0.25, 3: 0.75, 4: 1, 5: 1, 1000: 1}),
        (constant_with_warmup(0), {0: 1, 7: 1}),
        (linear(4, 14), {0: 0, 2: 0.5, 4: 1, 5: 0.9, 9: 0.5, 14: 0, 15: 0, 1000: 0}),
        (linear(0, 10), {0: 1, 1: 0.9, 10: 0}),
        (cosine(4, 14), {0: 0, 2: 0.5, 4: 1, 9: 0.5, 14: 0, 15: 0, 24: 0, 1000: 0}),
        (cosine(0, 12), {0: 1, 4: 0.75, 6: 0.5, 8: 0.25, 12: 0}),
        (cosine(0, 8), {2: 0.5 + math.sqrt(0.125)}),
        (linear(20, 10), {10: 0.5, 19: 0.95, 20: 1, 21: 0}),
        (cosine(0, 0), {0: 1, 1: 0}),
        (cosine_with_restarts(4, 24, 2), {2: 0.5, 4: 1, 9: 0.5, 13: 0.5 - 0.5 * math.cos(math.pi / 10), 14: 1, 19: 0.5, 24: 0, 25: 0}),
        (polynomial(2, 12, 2, 0.1), {1: 0.5, 2: 1, 7: 0.1 + 0.9 / 4, 12: 0.1, 99: 0.1}),
        (one_cycle(11, 0.5, "linear", 4, 10), {0: 0.25, 9: 1 - 0.975 * 4.5 / 5.5, 10: 0.025, 99: 0.025}),
    ],
)
def test_factors_by_hand(factor, expected):
    for step, value in expected.items():
        assert factor(step) == pytest.approx(value, abs=1e-15), f"step {step}"


def test_schedule_sets_the_rate_from_the_start():
    sgd = optimizer(0.5)
    schedule = LRSchedule(sgd, linear(2, 4))
    rates = [sgd.lr]
    for _ in range(5):
        schedule.step()
        rates.append(sgd.lr)
    assert rates == [0, 0.25, 0.5, 0.25, 0, 0]


@pytest.mark.parametrize("name", FACTORS)
def test_get_scheduler_knows_the_names(name):
    expected = LRSchedule(optimizer(), FACTORS[name])
    found = get_scheduler(name, optimizer(), num_warmup_steps=3, num_training_steps=9, num_cycles=2, power=1.5)
    for _ in range(12):
        assert found.optimizer.lr == expected.optimizer.lr
        found.step()
        expected.step()


def test_the_command_line_offers_all_of_them():
    assert tuple(FACTORS) == LR_SCHEDULES
    with pytest.raises(ValueError, match=f"expected one of {', '.join(FACTORS)}$"):
        get_scheduler("none", optimizer())


@pytest.mark.parametrize("optimizer_first", [True, False])
def test_resumes_in_either_order(optimizer_first):
    """The base rate is part of the state: a schedule built on an already decayed rate must not decay it again."""
    sgd = optimizer(0.3)
    schedule = get_scheduler("cosine", sgd, 2, 20)
    for _ in range(7):
        schedule.step()
    states = sgd.state_dict(), schedule.state_dict()
    assert states[1] == {"step": 7, "base_lr": 0.3}

    resumed = optimizer(0.9)
    if optimizer_first:
        resumed.load_state_dict(states[0])
    resumed_schedule = get_scheduler("cosine", resumed, 2, 20)
    resumed_schedule.load_state_dict(states[1])
    if not optimizer_first:
        resumed.load_state_dict(states[0])
    for _ in range(10):
        assert resumed.lr == sgd.lr
        schedule.step()
        resumed_schedule.step()


def test_files_from_before_initial_lr_still_resume():
    """Such an optimizer's state has the rate of the middle only, but the schedule's state has the base rate."""
    sgd = optimizer(0.3)
    schedule = get_scheduler("cosine", sgd, 2, 20)
    for _ in range(7):
        schedule.step()
    old = {"step": 0, "lr": sgd.lr}
    resumed = optimizer(0.9)
    resumed.load_state_dict(old)
    assert resumed.initial_lr is None
    resumed_schedule = get_scheduler("cosine", resumed, 2, 20)
    resumed_schedule.load_state_dict(schedule.state_dict())
    assert (resumed.lr, resumed.initial_lr) == (sgd.lr, 0.3)
    assert get_scheduler("constant", resumed).base_lr == 0.3


def test_another_initial_lr_begins_from_there():
    sgd = optimizer(0.3)
    LRSchedule(sgd, linear(0, 4))
    sgd.initial_lr = 0.8
    assert LRSchedule(sgd, linear(0, 4)).get_last_lr() == [0.8] == [sgd.lr]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"step": 3}, "missing base_lr"),
        ({"step": -3, "base_lr": 0.1}, "step must be an integer >= 0, got -3"),
        ({"step": 3, "base_lr": "x"}, "base_lr must be a finite number >= 0, got 'x'"),
        ({"step": 3, "base_lr": 0.1, "last_epoch": 2}, "unexpected last_epoch"),
    ],
)
def test_loading_is_strict_and_all_or_nothing(state, message):
    schedule = LRSchedule(optimizer(0.5), linear(0, 4))
    schedule.step()
    with pytest.raises(ValueError, match=f"LRSchedule.load_state_dict: {message}"):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == {"step": 1, "base_lr": 0.5}
    assert schedule.optimizer.lr == 0.375


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: get_scheduler("cosin", optimizer()),
            ValueError,
            "unknown schedule 'cosin', expected one of constant, .*, cosine",
        ),
        (lambda: get_scheduler("cosine", optimizer()), ValueError, "'cosine' needs num_training_steps"),
        (lambda: get_scheduler("linear", optimizer(), 3), ValueError, "'linear' needs num_training_steps"),
        (lambda: cosine(-1, 10), ValueError, "cosine: num_warmup_steps must be an integer >= 0, got -1"),
        (lambda: linear(0, 10.5), ValueError, "linear: num_training_steps must be an integer >= 0, got 10.5"),
        (lambda: LRSchedule(optimizer(), constant(), -2), ValueError, "LRSchedule: last_epoch must be an integer >= 0, got -2"),
        (
            lambda: get_scheduler("cosine", optimizer(), 1, 9, last_epoch=3),
            ValueError,
            "LRSchedule: last_epoch=3 goes on with a schedule, but the optimizer has had none",
        ),
        (lambda: LRSchedule(0.1, constant()), TypeError, "LRSchedule: optimizer must be an Optimizer, got float"),
        (
            lambda: LRSchedule(optimizer(), 0.1),
            TypeError,
            "LRSchedule: factor must be a function of the step, got float",
        ),
    ],
)
def test_bad_input(build, error, message):
    with pytest.raises(error, match=message):
        build()
