"""The moving average: decays and averages by hand, swapping in and back, resuming, bad input."""

import numpy as np
import pytest

from hcrot.module import Parameter
from hcrot.training.ema import EMA


def parameters(dtype=np.float32):
    rng = np.random.default_rng(0)
    return [Parameter(np.asarray(rng.normal(size=shape), dtype)) for shape in [(3, 5), (4,), ()]]


def move(params, rng):
    for parameter in params:
        parameter.data += rng.normal(size=parameter.shape).astype(parameter.data.dtype)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {1: 0, 2: 2 / 11, 3: 3 / 12, 100: 100 / 109, 10**7: 0.9999}),
        ({"decay": 0.2}, {1: 0, 2: 2 / 11, 3: 0.2, 100: 0.2}),
        ({"min_decay": 0.5}, {1: 0, 2: 0.5, 100: 100 / 109}),
        ({"update_after_step": 5}, {1: 0, 6: 0, 7: 2 / 11}),
        ({"use_ema_warmup": True}, {1: 0, 2: 1 - 2 ** (-2 / 3), 8: 0.75, 10**9: 0.9999}),
        ({"use_ema_warmup": True, "inv_gamma": 2.0, "power": 1}, {1: 0, 3: 0.5, 7: 0.75}),
    ],
)
def test_decay_by_hand(options, expected):
    ema = EMA(parameters(), **options)
    for step, decay in expected.items():
        assert ema.get_decay(step) == pytest.approx(decay, abs=1e-15), f"step {step}"


def test_averages_by_hand():
    p = Parameter(np.array([1.0]))
    ema = EMA([p], decay=0.25)
    p.data[...] = 2.0
    ema.step()
    np.testing.assert_allclose(ema.averages[0], [2.0])
    p.data[...] = 13.0
    ema.step()
    np.testing.assert_allclose(ema.averages[0], [2 + 9 / 11 * 11])
    p.data[...] = 3.0
    ema.step()
    np.testing.assert_allclose(ema.averages[0], [0.25 * 11 + 0.75 * 3])
    assert ema.step_count == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_step_writes_only_the_averages(dtype):
    params = parameters(dtype)
    ema = EMA(params)
    arrays = list(ema.averages)
    rng = np.random.default_rng(1)
    for _ in range(3):
        move(params, rng)
        before = [p.data.copy() for p in params]
        ema.step()
    for p, average, array, old in zip(params, ema.averages, arrays, before, strict=True):
        assert average is array and average.dtype == dtype
        assert not np.shares_memory(average, p.data)
        np.testing.assert_array_equal(p.data, old)
        assert (average != p.data).all()


def test_averages_lie_in_memory_as_their_parameters_do():
    """A kernel that walks through both in the order of memory meets corresponding numbers."""
    data = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    (average,) = EMA([Parameter(data)]).averages
    assert average.strides == data.strides
    np.testing.assert_array_equal(average, data)


def test_swapped_in_and_back():
    params = parameters()
    ema = EMA(params)
    rng = np.random.default_rng(2)
    for _ in range(3):
        move(params, rng)
        ema.step()
    arrays, before = [p.data for p in params], [p.data.copy() for p in params]
    averages = [average.copy() for average in ema.averages]
    with ema.swapped_in():
        for p, array, average in zip(params, arrays, averages, strict=True):
            assert p.data is array
            np.testing.assert_array_equal(p.data, average)
        params[0].data += 1
        state = ema.state_dict()
    for index, (p, array, old, average) in enumerate(zip(params, arrays, before, averages, strict=True)):
        assert p.data is array
        np.testing.assert_array_equal(p.data, old)
        np.testing.assert_array_equal(ema.averages[index], average)
        np.testing.assert_array_equal(state[f"average.{index}"], average)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_swaps_back_after_an_exception(error):
    params = parameters()
    ema = EMA(params)
    move(params, np.random.default_rng(3))
    before = [p.data.copy() for p in params]
    with pytest.raises(error), ema.swapped_in():
        raise error
    for p, old in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.data, old)
    ema.step()


def test_nothing_else_while_swapped_in():
    ema = EMA(parameters())
    with ema.swapped_in():
        with pytest.raises(RuntimeError, match="EMA.step: the averages are swapped in"):
            ema.step()
        with pytest.raises(RuntimeError, match="EMA.load_state_dict: the averages are swapped in"):
            ema.load_state_dict(ema.state_dict())
        with pytest.raises(RuntimeError, match="EMA.swapped_in: the averages are swapped in"), ema.swapped_in():
            pass
        with pytest.raises(RuntimeError):
            ema.step()
    ema.step()


def test_resumed_average_equals_the_uninterrupted_one():
    whole = parameters()
    ema = EMA(whole, use_ema_warmup=True)
    for step in range(10):
        if step == 5:
            state, resumed = ema.state_dict(), [Parameter(p.data.copy()) for p in whole]
        move(whole, np.random.default_rng(step))
        ema.step()

    other = EMA(resumed, use_ema_warmup=True)
    other.load_state_dict(state)
    for step in range(5, 10):
        move(resumed, np.random.default_rng(step))
        other.step()
    assert other.step_count == 10
    for one, another in zip(other.averages, ema.averages, strict=True):
        np.testing.assert_array_equal(one, another)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": None}, "missing step"),
        ({"average.1": None}, "missing average.1"),
        (
            {"average.1": np.zeros(5, np.float32)},
            r"average.1 is float32 of shape \(5,\), expected float32 of shape \(4,\)",
        ),
        ({"average.3": np.zeros(5, np.float32)}, "unexpected average.3"),
    ],
)
def test_loading_is_strict_and_all_or_nothing(change, message):
    params = parameters()
    ema = EMA(params)
    before = ema.state_dict()
    move(params, np.random.default_rng(5))
    state = {
        name: value for name, value in (EMA(params).state_dict() | {"step": 3} | change).items() if value is not None
    }
    with pytest.raises(ValueError, match=f"EMA.load_state_dict: {message}"):
        ema.load_state_dict(state)
    assert all(np.array_equal(value, before[name]) for name, value in ema.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.1}, "expected 0 <= min_decay <= decay <= 1, got min_decay=0.0 and decay=1.1"),
        ({"decay": float("nan")}, "decay must be a finite number >= 0, got nan"),
        ({"decay": 0.9, "min_decay": 0.95}, "expected 0 <= min_decay <= decay <= 1"),
        ({"update_after_step": -1}, "update_after_step must be an integer >= 0, got -1"),
        ({"inv_gamma": 0}, "inv_gamma must be a finite number > 0, got 0"),
        ({"power": -0.5}, "power must be a finite number > 0, got -0.5"),
    ],
)
def test_bad_numbers(options, message):
    with pytest.raises(ValueError, match=f"EMA: {message}"):
        EMA(parameters(), **options)


def test_bad_parameters():
    with pytest.raises(TypeError, match="EMA: expected a list of Parameter, .* but item 0 is of type ndarray"):
        EMA([np.zeros(3)])
    with pytest.raises(ValueError, match="EMA: the list of parameters is empty"):
        EMA([])


def test_an_unsigned_step():
    ema = EMA([Parameter(np.zeros(3, np.float32))])
    assert [ema.get_decay(np.uint8(step)) for step in range(4)] == [ema.get_decay(step) for step in range(4)]
