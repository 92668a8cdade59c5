"""``step(skip_nonfinite=True)``: a NaN or infinite gradient changes nothing."""

import numpy as np
import pytest

from hcrot.training.ema import EMA
from support.optimizers import every_optimizer, fill_gradients, parameters, train

bad_numbers = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


def everything(params, optimizer, ema):
    arrays = [p.data for p in params] + [array for arrays in optimizer.state.values() for array in arrays] + [*ema.averages]
    return [array.copy() for array in arrays]


@every_optimizer
@bad_numbers
@pytest.mark.parametrize("max_norm", [None, 1.0, float("inf")])
@pytest.mark.parametrize("with_average", [False, True])
def test_nothing_changes_and_the_run_goes_on_as_if_there_had_been_no_such_step(build, bad, max_norm, with_average):
    params, others = parameters(), parameters()
    optimizer, other = build(params, weight_decay=0.1), build(others, weight_decay=0.1)
    ema, other_ema = EMA(params), EMA(others)
    options, other_options = ({"max_grad_norm": max_norm} | ({"ema": e} if with_average else {}) for e in (ema, other_ema))
    rng, other_rng = np.random.default_rng(0), np.random.default_rng(0)
    for step in range(5):
        if step in (0, 2, 3):
            for p in params:
                p.grad[...] = 1
            params[1].grad[4] = bad
            before, counts = everything(params, optimizer, ema), (optimizer.step_count, ema.step_count)
            norm = optimizer.step(**options, skip_nonfinite=True, zero_grad=step == 3)
            assert optimizer.last_step_skipped is True
            assert (optimizer.step_count, ema.step_count) == counts
            for old, new in zip(before, everything(params, optimizer, ema), strict=True):
                np.testing.assert_array_equal(new, old)
            assert all((p.grad == (0 if step == 3 else 1)).all() for p in params[2:])
            assert (norm is None) == (max_norm is None)
            if max_norm is not None:
                np.testing.assert_array_equal(norm, abs(bad))
        fill_gradients(params, rng)
        fill_gradients(others, other_rng)
        assert optimizer.step(**options, skip_nonfinite=True) == other.step(**other_options)
        assert optimizer.last_step_skipped is False
    for one, two in zip(everything(params, optimizer, ema), everything(others, other, other_ema), strict=True):
        np.testing.assert_array_equal(one, two)


@every_optimizer
@bad_numbers
def test_without_it_the_nan_is_seen(build, bad):
    params = parameters()
    optimizer = build(params)
    train(params, optimizer, np.random.default_rng(1), 1)
    params[1].grad[4] = bad
    with np.errstate(invalid="ignore"):
        optimizer.step()
    assert not np.isfinite(params[1].data[4])
    assert optimizer.last_step_skipped is False


@every_optimizer
def test_a_frozen_nan_does_not_count(build):
    params = parameters()
    optimizer = build(params)
    fill_gradients(params, np.random.default_rng(2))
    params[1].grad[...] = np.nan
    params[1].trainable = False
    optimizer.step(skip_nonfinite=True, max_grad_norm=1.0)
    assert optimizer.last_step_skipped is False
    assert optimizer.step_count == 1


@every_optimizer
@pytest.mark.parametrize("size", [1e200, 1.7e308])
@pytest.mark.filterwarnings("ignore:overflow")
def test_large_finite_gradients_are_no_reason(build, size):
    """Their squares overflow, and of the largest even the norm."""
    params = parameters(np.float64)
    optimizer = build(params)
    for p in params:
        p.grad[...] = size
    optimizer.step(skip_nonfinite=True)
    assert optimizer.last_step_skipped is False
    assert optimizer.step_count == 1
