"""Schedules of the learning rate that are made again, or on a restored optimizer, against diffusers' and PyTorch's."""

import numpy as np
import pytest

from hcrot.module import Parameter
from hcrot.training.lr_schedules import LRSchedule, get_scheduler, one_cycle
from hcrot.training.optim import SGD, AdamW

torch = pytest.importorskip("torch")
optimization = pytest.importorskip("diffusers.optimization")

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
NAMES = ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"]
names = pytest.mark.parametrize("name", NAMES)


class Ours:
    """hcrot's side of each test, by calls that :class:`Theirs` has, too."""

    def __init__(self, lr=0.3, group_lr=None):
        groups = [{"params": [Parameter(np.zeros(2))]}, {"params": [Parameter(np.zeros(3))]}]
        if group_lr is not None:
            groups[1]["lr"] = group_lr
        self.optimizer = AdamW(groups, lr=lr)
        self.schedule = None

    def make(self, name, warmup=3, total=12, **options):
        self.schedule = get_scheduler(name, self.optimizer, num_warmup_steps=warmup, num_training_steps=total, **options)

    def steps(self, number):
        for _ in range(number):
            self.schedule.step()

    def set_lr(self, lr):
        self.optimizer.lr = lr

    def rates(self):
        return [self.optimizer.lr * group.lr_ratio for group in self.optimizer.groups]

    def last_rates(self):
        return self.schedule.get_last_lr()

    def states(self):
        return self.optimizer.state_dict(), self.schedule and self.schedule.state_dict()

    def load(self, states, schedule=True):
        self.optimizer.load_state_dict(states[0])
        if schedule:
            self.schedule.load_state_dict(states[1])


class Theirs(Ours):
    def __init__(self, lr=0.3, group_lr=None):
        groups = [{"params": [torch.nn.Parameter(torch.zeros(2))]}, {"params": [torch.nn.Parameter(torch.zeros(3))]}]
        if group_lr is not None:
            groups[1]["lr"] = group_lr
        self.optimizer = torch.optim.AdamW(groups, lr=lr)
        self.schedule = None

    def make(self, name, warmup=3, total=12, **options):
        options = {"num_warmup_steps": warmup, "num_training_steps": total} | options
        self.schedule = optimization.get_scheduler(name, self.optimizer, **options)

    def set_lr(self, lr):
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def rates(self):
        return [group["lr"] for group in self.optimizer.param_groups]


def made_twice(make, name):
    """A cell of a notebook that is run again."""
    run = make()
    run.make(name)
    run.make(name)
    yield run


def made_again_in_the_middle(make, name):
    run = make()
    run.make(name)
    run.steps(5)
    yield run
    run.make(name, warmup=2, total=9)
    yield run


def made_again_after_the_end(make, name):
    run = make()
    run.make(name)
    run.steps(12)
    yield run
    run.make(name)
    yield run


def groups_of_their_own_rate(make, name):
    run = make(lr=0.3, group_lr=0.02)
    yield from (run for _ in [run.make(name)])
    run.steps(4)
    run.make(name)
    yield run


def restored_in_the_middle_then_made(make, name):
    saved = make()
    saved.make(name)
    saved.steps(5)
    run = make(lr=0.9)
    run.load(saved.states(), schedule=False)
    yield run
    run.make(name)
    yield run


def restored_in_the_middle_and_told_the_step(make, name):
    saved = make()
    saved.make(name)
    saved.steps(5)
    run = make(lr=0.9)
    run.load(saved.states(), schedule=False)
    run.make(name, last_epoch=4)
    yield run


def restored_with_its_schedule(make, name):
    saved = make()
    saved.make(name)
    saved.steps(5)
    run = make(lr=0.9)
    run.make(name)
    run.load(saved.states())
    yield run
    run.steps(1)
    yield run
    run.make(name)
    yield run


def rate_set_by_hand_between(make, name):
    run = make()
    run.make(name)
    run.steps(5)
    run.set_lr(0.05)
    yield run
    run.make(name)
    yield run


def state_that_never_had_a_schedule(make, name):
    saved = make(lr=0.07)
    run = make(lr=0.9)
    run.make(name)
    run.load(saved.states(), schedule=False)
    run.make(name)
    yield run


def no_rate_at_all(make, name):
    run = make(lr=0.0)
    run.make(name)
    run.steps(4)
    yield run


CASES = [
    made_twice, made_again_in_the_middle, made_again_after_the_end, groups_of_their_own_rate, restored_in_the_middle_then_made,
    restored_in_the_middle_and_told_the_step, restored_with_its_schedule, rate_set_by_hand_between, state_that_never_had_a_schedule,
    no_rate_at_all,
]  # fmt: skip


@names
@pytest.mark.parametrize("case", CASES)
def test_the_rates_are_those_of_diffusers(case, name):
    """At each stop of the case, and at each of six steps from the last one: to the end, where diffusers' cosine would rise again."""
    seen = []
    for make in (Ours, Theirs):
        rates = []
        for run in case(make, name):
            rates.append(run.rates())
        for _ in range(6):
            run.steps(1)
            rates.append(run.rates())
            rates.append(run.last_rates())
        seen.append(rates)
    np.testing.assert_allclose(*seen, rtol=1e-14, atol=1e-16)
    if name in ("linear", "cosine") and case is not no_rate_at_all:
        assert np.ptp(seen[1]) > 0


@pytest.mark.parametrize(
    ("name", "options"), [("cosine_with_restarts", {"num_cycles": 3}), ("polynomial", {"power": 2.5}), ("polynomial", {})]
)
def test_options_of_schedules(name, options):
    rates = []
    for make in (Ours, Theirs):
        run = make(lr=0.3, group_lr=0.02)
        run.make(name, **options)
        rates.append([run.rates()])
        for _ in range(15):
            run.steps(1)
            rates[-1].append(run.rates())
    np.testing.assert_allclose(*rates, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("options", [
    {}, {"pct_start": 0.45, "anneal_strategy": "linear", "div_factor": 10, "final_div_factor": 7}, {"three_phase": True},
    {"three_phase": True, "pct_start": 0.37, "anneal_strategy": "linear"},
])  # fmt: skip
@pytest.mark.parametrize("total", [10, 17])
def test_one_cycle_is_pytorchs(options, total):
    sgd, theirs = SGD([Parameter(np.zeros(2))], lr=0.5), torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    ours = LRSchedule(sgd, one_cycle(total, **options))
    cycle = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.5, total_steps=total, cycle_momentum=False, **options)
    for step in range(total):
        assert sgd.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12), step
        ours.step()
        if step < total - 1:
            cycle.step()
    assert sgd.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)


def test_any_factor_is_pytorchs_lambda():
    sgd, theirs = SGD([Parameter(np.zeros(2))], lr=0.5), torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    for factor in (lambda step: 0.3**step, lambda step: 1 / (1 + step)):
        ours, lambda_lr = LRSchedule(sgd, factor), torch.optim.lr_scheduler.LambdaLR(theirs, factor)
        for _ in range(4):
            assert sgd.lr == theirs.param_groups[0]["lr"]
            assert ours.get_last_lr() == lambda_lr.get_last_lr()
            ours.step()
            lambda_lr.step()
    assert sgd.initial_lr == theirs.param_groups[0]["initial_lr"] == 0.5


def test_going_on_without_a_first_rate_is_an_error_in_both():
    for make, error in ((Ours, ValueError), (Theirs, KeyError)):
        run = make()
        with pytest.raises(error, match="initial_lr"):
            run.make("cosine", last_epoch=4)


@pytest.mark.parametrize("lr", [0, 0.0, np.float32(0)])
def test_a_rate_of_zero_moves_nothing(lr):
    parameter = Parameter(np.ones(3))
    optimizer = AdamW([parameter], lr=lr)
    parameter.grad[...] = 1
    optimizer.step()
    assert (parameter.data == 1).all()
