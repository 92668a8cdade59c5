"""What the optimizers' kernels promise besides agreeing with their references (tests/kernels/test_references.py)."""

import copy
import pickle

import numba
import numpy as np
import pytest

from hcrot.kernels import optim
from hcrot.kernels.jit import get_num_threads, set_num_threads
from hcrot.kernels.optim import (
    PIECE,
    Arrays,
    adam,
    adam_piece,
    adam_reference,
    average_piece,
    move_average,
    move_average_reference,
    norm_of,
    square_sum,
    update_velocity,
    update_velocity_reference,
    velocity_piece,
)


@pytest.fixture
def threads():
    """Set the number of threads, for one test."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def test_pieces_cover_every_array_once():
    arrays = [np.zeros(shape, np.float32) for shape in [(3,), (2, PIECE), (), (0, 4), (PIECE + 1,)]]
    table = Arrays(arrays)
    assert all(one is other for one, other in zip(table, arrays, strict=True))
    assert table.sizes.tolist() == [3, PIECE, PIECE, 1, PIECE, 1]
    for address, size in zip(table.addresses, table.sizes, strict=True):
        optim.array_at(address, size, np.float32(0))[:] += 1
    assert all((array == 1).all() for array in arrays)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_a_copy_finds_its_own_arrays(make):
    table = Arrays([np.zeros(3), np.zeros((5, 2)).T])
    other = make(table)
    for array, address in zip(other, other.addresses, strict=True):
        assert array.ctypes.data == address
    np.testing.assert_array_equal(other.sizes, table.sizes)


def test_bad_arrays():
    with pytest.raises(ValueError, match="Arrays: expected arrays of one dtype, got float32 and float64"):
        Arrays([np.zeros(1, np.float32), np.zeros(1)])
    with pytest.raises(ValueError, match="Arrays: expected arrays of one dtype, got none"):
        Arrays([])
    with pytest.raises(ValueError, match="is not dense in memory"):
        Arrays([np.zeros(4)[::2]])


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_results_do_not_depend_on_the_number_of_threads(threads):
    rng = np.random.default_rng(0)
    shapes = [(31, 997), (5,), (7 * PIECE,), (1,)] + [(13,)] * 20
    start = [[rng.standard_normal(shape).astype(np.float32) for shape in shapes] for _ in range(5)]
    start[3] = [v**2 for v in start[3]]
    results = []
    for count in (1, 2):
        threads(count)
        p, g, m, v, average = (Arrays(array.copy() for array in arrays) for arrays in start)
        total = square_sum(g)
        adam(p, g, m, v, 2, 1e-3, 0.9, 0.999, 1e-8, 0.1, 0.0, 0.5, average, 0.1, True)
        results.append((total, [*p, *g, *m, *v, *average]))
    (one, arrays), (other, others) = results
    assert one == other
    for array, another in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(array, another)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (adam_piece, (*np.ones((4, 3), np.float32), tuple(np.ones(12, np.float32)))),
        (average_piece, (*np.ones((2, 3), np.float32), np.float32(0.5), np.float32(1e-38))),
        (velocity_piece, (*np.ones((2, 3), np.float32), np.float32(0.5), np.float32(1e-38))),
    ],
    ids=["adam", "average", "velocity"],
)
def test_float32_is_computed_in_float32(kernel, arguments):
    """A float64 scalar in the loop would turn its arithmetic, silently, into float64."""
    function = numba.njit(error_model="numpy")(kernel.py_func)
    function(*arguments)
    (code,) = function.inspect_llvm().values()
    assert "float" in code
    assert "fpext" not in code


def test_scalars_are_handed_over_in_the_dtype_of_the_arrays(monkeypatch):
    handed = []
    monkeypatch.setattr(optim, "_adam", lambda *arguments: handed.append(arguments))
    table = Arrays([np.ones(3, np.float32)])
    adam(table, table, table, table, 1, 0.1, 0.9, 0.999, 1e-8, 0.0, 0.0)
    (*_, constants, average_rate, _, _), = handed
    assert {type(number) for number in (*constants, average_rate)} == {np.float32}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "reference"), [(move_average, move_average_reference), (update_velocity, update_velocity_reference)])
def test_averages_and_velocities_agree_with_their_references(function, reference, dtype):
    rng = np.random.default_rng(1)
    for shape in [(), (0, 3), (7, 5, 3), (9, PIECE)]:
        x, other = (np.array(rng.standard_normal(shape), dtype) for _ in range(2))
        for order in "CF":
            got, expected = x.copy(), x.copy()
            function(got, other.copy(order), 0.3)
            reference(expected, other, 0.3)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", [move_average, move_average_reference, update_velocity, update_velocity_reference])
def test_subnormal_numbers_become_zero_and_no_others(function, dtype):
    info = np.finfo(dtype)
    x = np.array([0, info.smallest_subnormal, info.tiny / 2, info.tiny, 1.5 * info.tiny, 3 * info.tiny, 1, np.nan], dtype)
    half = np.array([0, 0, 0, 0, 0, 1.5 * info.tiny, 0.5, np.nan], dtype)
    for sign in (1, -1):
        y = sign * x
        function(y, np.zeros_like(x), 0.5)
        np.testing.assert_array_equal(y, sign * half)


@pytest.mark.parametrize("function", [adam, adam_reference])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_gradients_adam_leaves_no_subnormal_number(function, dtype):
    """Where 0.9 times the smallest of all is rounded up to itself, m would never reach 0."""
    tiny = np.finfo(dtype).tiny
    rng = np.random.default_rng(0)
    p, g, m, v, average = (Arrays([rng.standard_normal((3, 5)).astype(dtype)]) for _ in range(5))
    p[0][...], g[0][...], v[0][...] = 0, 0, v[0] ** 2
    for array in (*m, *v, *average):
        array *= 100 * tiny
    seen = []
    for step in range(1, 200):
        function(p, g, m, v, step, 0.0, 0.9, 0.95, 1e-8, 0.1, 0.0, 1.0, average, 0.05)
        seen += [np.abs(array[array != 0]).min(initial=1) for array in (*m, *v, *average)]
    assert min(seen) >= tiny
    assert not m[0].any() and not v[0].any() and not average[0].any()


@pytest.mark.parametrize("function", [adam, adam_reference])
def test_gradients_whose_squares_are_subnormal_leave_v_at_zero_and_move_m(function):
    p, g, m, v = (Arrays([np.full(5, value, np.float32)]) for value in (1, 1e-21, 0, 0))
    for step in range(1, 100):
        function(p, g, m, v, step, 1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0)
    np.testing.assert_allclose(m[0], 1e-21, rtol=1e-4)
    assert not v[0].any()


@pytest.mark.parametrize("function", [adam, adam_reference])
def test_nan_is_no_subnormal_number(function):
    p, g, m, v, average = (Arrays([np.array([value, 1], np.float32)]) for value in (1, np.nan, 0, 0, 1))
    function(p, g, m, v, 1, 1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 1.0, average, 0.5)
    for array in (p, m, v, average):
        assert np.isnan(array[0]).tolist() == [True, False]


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e-20, 1.0, 1e20, 1e160, 1e300])
def test_norms_of_every_size(size):
    arrays = [np.array([[3.0, 0], [0, 0]]) * size, np.array([], np.float64), np.array(4 * size)]
    with np.errstate(over="ignore"):
        squares = sum(float(np.square(array).sum()) for array in arrays)
    assert norm_of(arrays, squares) == pytest.approx(5 * size, rel=1e-14)


def test_norms_of_nothing_and_of_what_is_not_finite():
    assert norm_of([], 0.0) == 0 == norm_of([np.zeros(3)], 0.0)
    assert norm_of([np.array([1, -np.inf])], np.inf) == np.inf
    assert np.isnan(norm_of([np.array([np.inf]), np.array([np.nan])], np.nan))
    assert np.isnan(norm_of([np.array([1e200]), np.array([np.nan, 1])], np.nan))
