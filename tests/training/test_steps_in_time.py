"""How many steps a run is to have that lasts for some time."""

from hcrot.training import progress
from hcrot.training.progress import StepsInTime


def run(monkeypatch, seconds, steps, pace, first=0):
    """Steps are planned, and each takes ``pace(step)`` seconds: the number of steps, and the time they take."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: time[0])
    clock, step = StepsInTime(seconds, first, first + steps), first
    steps += first
    while step < steps:
        step += 1
        time[0] += pace(step)
        steps = clock.planned(step, steps)
    return step, time[0]


def test_a_plan_that_is_right_stays(monkeypatch):
    steps, _ = run(monkeypatch, 100, 101, lambda step: 1.0)
    assert steps == 101


def test_first_batches_that_were_slow_or_fast_are_outlived(monkeypatch):
    for planned in (25, 50, 1000):
        steps, time = run(monkeypatch, 200, planned, lambda step: 30.0 if step == 1 else 0.5)
        assert steps == 401 and time == 230


def test_a_program_that_comes_later_shortens_the_run(monkeypatch):
    _, time = run(monkeypatch, 1000, 1000, lambda step: 1.0 if step < 200 else 2.0)
    assert 1000 < time < 1150


def test_a_run_that_goes_on_is_planned_from_where_it_is(monkeypatch):
    steps, time = run(monkeypatch, 100, 50, lambda step: 1.0, first=700)
    assert steps == 801 and time == 101


def test_a_run_that_is_late_ends_now(monkeypatch):
    steps, _ = run(monkeypatch, 10, 1000, lambda step: 100.0)
    assert steps == 20
