"""The product in registers against its definition: every size of what is left over, all strides that are allowed, both dtypes."""

import numba
import numpy as np
import pytest

from hcrot.kernels import product
from hcrot.kernels.jit import jit, launched, parallel_jit
from hcrot.kernels.product import DEPTH, multiply, multiply_reference, product_of
from support.processes import run


@parallel_jit
def multiply_in_a_kernel(product, a, b, c, add, share, num_shares):
    if launched(share, num_shares):
        return
    multiply(product, a, b, c, add)


ARRANGEMENTS = {
    "C": lambda a: a,
    "turned": lambda a: np.ascontiguousarray(a.T).T,
    "gaps": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
}
TOLERANCE = {"float32": 1e-6, "float64": 1e-15}


def check(rows, depth, columns, dtype, arrangement, add):
    """The product is right, and what lies around it in memory is as it was."""
    rng = np.random.default_rng(rows + depth + columns)
    a, b = rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, columns + 5)).astype(dtype)[:, 2 : columns + 2]
    around = rng.standard_normal((rows + 2, columns + 40)).astype(dtype)
    c = around[1:-1, 3 : columns + 3]
    expected = around.copy()
    exact = a.astype(np.float64) @ b.astype(np.float64) + (c if add else 0)
    multiply_in_a_kernel(product_of(a.dtype), ARRANGEMENTS[arrangement](a), b, c, add, 1)
    np.testing.assert_allclose(c, exact, rtol=0, atol=TOLERANCE[dtype] * (np.abs(a).astype(float) @ np.abs(b) + 10).max())
    expected[1:-1, 3 : columns + 3] = c
    np.testing.assert_array_equal(around, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_that_may_be_left_over_of_rows_and_columns(dtype):
    for rows in [*range(1, 15), 25, 70]:
        for columns in [*range(1, 18), 31, 33, 63, 71]:
            for depth in (3, 37):
                check(rows, depth, columns, dtype, "C", rows % 2 == 0)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("depth", [1, 2, DEPTH - 1, DEPTH, DEPTH + 1, 2 * DEPTH + 7])
def test_depths_and_memory_orders(depth, dtype, arrangement, add):
    for rows, columns in ((7, 21), (product.PACKED_ROWS + 3, 70)):
        check(rows, depth, columns, dtype, arrangement, add)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("depth", [1, 5, 40, DEPTH + 9])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_one_column(arrangement, depth, add):
    rng = np.random.default_rng(depth)
    for rows in (1, 2, 7, 40):
        a, b, c = rng.standard_normal((rows, depth)), rng.standard_normal((depth, 1)), rng.standard_normal((rows, 1))
        expected = a @ b + (c if add else 0)
        multiply_in_a_kernel(product_of(a.dtype), ARRANGEMENTS[arrangement](a), b, c, add, 1)
        np.testing.assert_allclose(c, expected, rtol=1e-12, atol=1e-12)


def test_the_definition():
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal((3, 5))
    for add in (False, True):
        expected, found = (c.copy(), c.copy())
        expected = a @ b + (c if add else 0)
        multiply_reference(0, a, b, found, add)
        np.testing.assert_allclose(found, expected, rtol=1e-14)
        found = c.copy()
        multiply(0, a, b, found, add)  # as Python
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_nan_and_infinity_show():
    a, b, c = np.ones((3, 2), np.float32), np.ones((2, 9), np.float32), np.empty((3, 9), np.float32)
    a[1, 1], b[0, 8] = np.nan, np.inf
    multiply_in_a_kernel(product_of(a.dtype), a, b, c, False, 1)
    assert np.isnan(c[1]).all() and np.isinf(c[[0, 2], 8]).all() and (c[[0, 2], :8] == 2).all()


SMALL_KERNEL = """
import numpy as np
from hcrot.kernels.jit import launched, parallel_jit
from hcrot.kernels.product import multiply, product_of

@parallel_jit
def times(product, a, b, c, share, num_shares):
    if launched(share, num_shares):
        return
    multiply(product, a, b, c, False)

def check(*dtypes):
    for dtype in dtypes:
        a, c = np.arange(600, dtype=dtype).reshape(60, 10), np.empty((60, 9), dtype)
        times(product_of(a.dtype), a, np.eye(10, 9, dtype=dtype), c, 1)
        np.testing.assert_array_equal(c, a[:, :9])
"""


@pytest.fixture
def in_a_new_process(tmp_path):
    """Products of these dtypes by a kernel from a file of its own, in a process that has this folder for compiled kernels."""
    (tmp_path / "small_kernel.py").write_text(SMALL_KERNEL)

    def check(*dtypes, **environment):
        script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from small_kernel import check; check(*{dtypes!r})"
        ended = run(script, NUMBA_CACHE_DIR=str(tmp_path / "cache"), **environment)
        assert ended.returncode == 0, ended.stderr
        return {path.name for path in tmp_path.rglob("*.nbc")}

    return check


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("name", ["haswell", "nehalem"])
def test_other_processors(name, in_a_new_process):
    """With a fused multiply-add, and without."""
    in_a_new_process("float32", NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES="")


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_products_that_two_processes_have_compiled_do_not_get_mixed_up(in_a_new_process):
    """A third one reads both from the disk. The names of the code in them must differ."""
    first = in_a_new_process("float32")
    both = in_a_new_process("float64")
    assert first < both and in_a_new_process("float32", "float64") == both


@jit
def inner(product, a, b, c):
    multiply(product, a, b, c, False)


@parallel_jit
def through_an_inner_function(product, a, b, c, share, num_shares):
    if launched(share, num_shares):
        return
    inner(product, a, b, c)


def test_inner_functions_multiply_too():
    a, b, c = np.ones((3, 2)), np.ones((2, 4)), np.empty((3, 4))
    through_an_inner_function(product_of(a.dtype), a, b, c, 1)
    assert (c == 2).all()
