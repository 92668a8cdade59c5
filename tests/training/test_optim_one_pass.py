"""A step of an optimizer that clips, moves averages and clears gradients on its way."""

import copy

import numpy as np
import pytest

from hcrot.module import Parameter
from hcrot.training.ema import EMA
from hcrot.training.optim import clip_grad_norm
from support.optimizers import every_optimizer, fill_gradients, one_parameter, parameters


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=4 * np.finfo(other.dtype).eps * np.abs(other).max())


@every_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_one_pass_equals_the_separate_calls(build, dtype, max_norm):
    """Groups, state, averages in another order than the groups, gradients zeroed; where nothing is clipped, bit for bit."""
    together, apart = parameters(dtype), parameters(dtype)
    one, other = (build([{"params": p[2:]}, {"params": p[:2], "weight_decay": 0.3}]) for p in (together, apart))
    ema, other_ema = EMA(together), EMA(apart)
    rng, other_rng = np.random.default_rng(10), np.random.default_rng(10)
    for step in range(4):
        fill_gradients(together, rng)
        norm = one.step(max_grad_norm=max_norm, ema=ema, zero_grad=True)
        fill_gradients(apart, other_rng)
        assert norm == pytest.approx(clip_grad_norm(apart, max_norm), rel=1e-14)
        other.step()
        other_ema.step()
        assert one.step_count == ema.step_count == other_ema.step_count == step + 1
        assert all((p.grad == 0).all() for p in together)
    found, expected = ([p.data for p in params] for params in (together, apart))
    if max_norm == 1e3:
        for p, q in zip(found, expected, strict=True):
            np.testing.assert_array_equal(p, q)
    assert_close(found, expected)
    for name in one.state:
        assert_close(one.state[name], other.state[name])
    assert_close(ema.averages, other_ema.averages)


@every_optimizer
def test_a_plain_step_returns_nothing_and_a_clipped_one_leaves_the_gradients(build):
    params = parameters()
    optimizer = build(params)
    fill_gradients(params, np.random.default_rng(11))
    gradients = [p.grad.copy() for p in params]
    assert optimizer.step() is None
    norm = optimizer.step(max_grad_norm=0.1)
    assert type(norm) is float
    assert norm == pytest.approx(clip_grad_norm(params, float("inf")), rel=1e-14)
    for p, gradient in zip(params, gradients, strict=True):
        np.testing.assert_array_equal(p.grad, gradient)


@every_optimizer
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("max_norm", [1.0, float("inf")])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_norm_does_in_one_pass_what_it_does_in_two(build, bad, max_norm):
    p, q = (one_parameter([1.0, 2.0, 3.0], [bad, 1.0, -1.0]) for _ in range(2))
    norm = build([p]).step(max_grad_norm=max_norm)
    np.testing.assert_array_equal(norm, bad)
    optimizer = build([q])
    clip_grad_norm([q], max_norm)
    optimizer.step()
    assert np.isnan(p.data).any()
    np.testing.assert_allclose(p.data, q.data)


@every_optimizer
def test_memory_order_of_an_average_is_that_of_its_parameter(build):
    rng = np.random.default_rng(12)
    start, gradient = rng.standard_normal((2, 3, 4, 2, 5))
    parameter = Parameter(start.transpose(2, 3, 1, 0).copy().transpose(3, 2, 0, 1))
    ema, optimizer = EMA([parameter], min_decay=0.5, decay=0.5), build([parameter])
    parameter.grad[...] = gradient
    optimizer.step(ema=ema)
    before = ema.averages[0].copy()
    optimizer.step(ema=ema)
    np.testing.assert_allclose(ema.averages[0], (before + parameter.data) / 2, rtol=1e-14)
    assert np.abs(before - parameter.data).max() > 1e-3


@every_optimizer
def test_a_copy_has_arrays_of_its_own(build):
    """The kernels' tables of addresses must not lead from a copy to the original."""
    params = parameters()
    optimizer, ema = build(params, weight_decay=0.1), EMA(params)
    fill_gradients(params, np.random.default_rng(13))
    optimizer.step(ema=ema)
    before = [p.data.copy() for p in params]
    others, other, other_ema = copy.deepcopy((params, optimizer, ema))
    other.step(max_grad_norm=1.0, ema=other_ema, zero_grad=True)
    for p, q, old in zip(params, others, before, strict=True):
        np.testing.assert_array_equal(p.data, old)
        assert (p.grad != 0).all() and (q.grad == 0).all()
        assert (q.data != old).all()
    optimizer.step(max_grad_norm=1.0, ema=ema, zero_grad=True)
    for p, q in zip([p.data for p in params] + [*ema.averages], [q.data for q in others] + [*other_ema.averages], strict=True):
        np.testing.assert_array_equal(p, q)


@every_optimizer
def test_another_average_may_take_over(build):
    params = parameters()
    optimizer, first = build(params), EMA(params)
    fill_gradients(params, np.random.default_rng(14))
    optimizer.step(ema=first)
    before = [average.copy() for average in first.averages]
    second = EMA(params)
    optimizer.step(ema=second)
    assert (first.step_count, second.step_count) == (1, 1)
    for average, old, other, p in zip(first.averages, before, second.averages, params, strict=True):
        np.testing.assert_array_equal(average, old)
        np.testing.assert_allclose(other, p.data, rtol=1e-6)


def average_of_another_dtype(params):
    ema = EMA(params)
    for parameter in params:
        parameter.data, parameter.grad = (array.astype(np.float64) for array in (parameter.data, parameter.grad))
    return ema


@every_optimizer
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (lambda p: {"max_grad_norm": 0}, ValueError, "step: max_grad_norm must be a number > 0, got 0"),
        (lambda p: {"max_grad_norm": "1"}, ValueError, "step: max_grad_norm must be a number > 0, got '1'"),
        (lambda p: {"ema": 0.999}, TypeError, "step: ema must be an EMA, got float"),
        (lambda p: {"ema": EMA(p[1:])}, ValueError, "step: ema averages other parameters than these"),
        (lambda p: {"ema": EMA([*p, Parameter(np.zeros(2))])}, ValueError, "step: ema averages other parameters"),
        (lambda p: {"ema": average_of_another_dtype(p)}, ValueError, "parameter 0 is float64, its average in ema is float32"),
    ],
)
def test_bad_options_of_a_step_change_nothing(build, options, error, message):
    params = parameters()
    options, before = options(params), [p.data.copy() for p in params]
    optimizer = build(params)
    fill_gradients(params, np.random.default_rng(15))
    with pytest.raises(error, match=message):
        optimizer.step(zero_grad=True, **options)
    assert optimizer.step_count == 0
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, old)
        assert (p.grad != 0).all()


@every_optimizer
def test_no_step_while_the_averages_are_swapped_in(build):
    params = parameters()
    optimizer, ema = build(params), EMA(params)
    before = [p.data.copy() for p in params]
    with ema.swapped_in(), pytest.raises(RuntimeError, match="EMA.step: the averages are swapped in"):
        optimizer.step(max_grad_norm=1.0, ema=ema)
    assert optimizer.step_count == ema.step_count == 0
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, old)
