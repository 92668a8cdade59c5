"""What the optimizers' kernels promise besides agreeing with their references (tests/kernels/test_references.py)."""

import copy
import pickle

import numba
import numpy as np
import pytest

from hcrot.kernels import optim
from hcrot.kernels.jit import get_num_threads, set_num_threads
from hcrot.kernels.optim import PIECE, Arrays, adam, adam_piece, average_piece, square_sum


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
        (adam_piece, (*np.ones((4, 3), np.float32), tuple(np.ones(10, np.float32)))),
        (average_piece, (*np.ones((2, 3), np.float32), np.float32(0.5))),
    ],
    ids=["adam", "average"],
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
