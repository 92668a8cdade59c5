"""Threads, shares, the BLAS that kernels call, and running without compilation."""

import ast
import importlib
import inspect
import os
import pkgutil
import sys
import textwrap

import numba
import numpy as np
import pytest
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

import hcrot.kernels
from hcrot.kernels import jit
from hcrot.kernels.im2col import make_geometry
from support.processes import run


@pytest.fixture
def restore_threads():
    before = jit.get_num_threads()
    yield
    jit.set_num_threads(before)


# ---------------------------------------------------------------- threads


def test_threads_are_what_was_set(restore_threads):
    for threads in (1, numba.config.NUMBA_NUM_THREADS, np.int64(1)):
        jit.set_num_threads(threads)
        assert jit.get_num_threads() == threads


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2", None, 10_000])
def test_threads_out_of_range(threads):
    before = jit.get_num_threads()
    with pytest.raises(ValueError, match="set_num_threads: threads must be an int from 1 to"):
        jit.set_num_threads(threads)
    assert jit.get_num_threads() == before


def test_shares_are_worth_their_thread(restore_threads):
    jit.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    most = numba.config.NUMBA_NUM_THREADS
    assert jit.shares(0, 10) == jit.shares(9, 10) == jit.shares(19, 10) == 1
    assert jit.shares(20, 10) == min(2, most)
    assert jit.shares(10**9, 10) == most
    assert jit.shares(5, 0) == min(5, most)
    jit.set_num_threads(1)
    assert jit.shares(10**9, 10) == 1


@pytest.mark.parametrize("work", [0, 1, 2, 3, 7, 100, 101])
@pytest.mark.parametrize("num_shares", [1, 2, 3, 8])
def test_share_bounds_cover_the_work_evenly(work, num_shares):
    bounds = [jit.share_bounds(work, share, num_shares) for share in range(num_shares)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == work
    assert all(left[1] == right[0] for left, right in zip(bounds, bounds[1:], strict=False))
    sizes = [last - first for first, last in bounds]
    assert max(sizes) - min(sizes) <= 1


# ---------------------------------------------------------------- kernels


@jit.parallel_jit
def each_share(x, factor, out, fail, share, num_shares):
    if jit.launched(share, num_shares):
        return
    if share == fail:
        raise ValueError("on purpose")
    first, last = jit.share_bounds(x.size, share, num_shares)
    for k in range(first, last):
        out[k] += factor[0] * x[k] + factor[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_shares", [1, 2, 3, 8])
def test_every_share_is_done_once_with_the_arguments_of_the_call(dtype, num_shares):
    """More shares than threads, as many and fewer; tuples, scalars and arrays arrive whole."""
    x = np.arange(11, dtype=dtype)
    out = np.zeros_like(x)
    each_share(x, (dtype(2), 3), out, -1, num_shares)
    np.testing.assert_array_equal(out, 2 * x + 3)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
def test_an_error_in_a_thread_is_raised():
    x = np.ones(4)
    for share in (0, 1):
        with pytest.raises(RuntimeError, match="an error was raised in one of a kernel's threads"):
            each_share(x, (1.0, 0), x.copy(), share, 2)
    with pytest.raises(ValueError, match="on purpose"):
        each_share(x, (1.0, 0), x.copy(), 0, 1)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
@pytest.mark.parametrize("known", [True, False])
def test_shares_are_done_by_the_pool_or_else_by_python(tmp_path, known):
    """By Python's threads if a version of Numba passes other arguments than those known here. Twice: compiled, then cached."""
    script = f"""
        import numpy as np
        from hcrot.kernels import activation, jit, launch
        if not {known}:
            launch.LAST_ARGUMENTS.append("another")
        for dtype in (np.float32, np.float64):
            x = np.linspace(-5, 5, 1001, dtype=dtype)
            y = np.full_like(x, np.nan)
            activation._silu(x, y, 2)
            np.testing.assert_allclose(y, activation.silu_reference(x), rtol=1e-5)
        print(jit.python_threads.cache_info().currsize)
    """
    for _ in range(2):
        result = run(script, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="2")
        assert result.returncode == 0, result.stderr
        assert result.stdout.split() == ["0" if known else "1"]


@intrinsic
def owner_of(typing_context, array):
    """The address of what counts references to the array's memory; 0 if nothing does."""

    def generate(context, builder, signature, arguments):
        whole = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(whole.meminfo, ir.IntType(64))

    return types.intp(array), generate


@jit.parallel_jit
def owners_in_each_share(x, pair, owners, share, num_shares):
    if jit.launched(share, num_shares):
        return
    owners[share, 0], owners[share, 1], owners[share, 2] = owner_of(x), owner_of(pair[0]), owner_of(pair[1])
    owners[share, 3] = owner_of(x[share:])
    pair[1][share] = np.sum(x[share:] * 2)  # a slice, and an array of the share's own


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
def test_what_a_kernel_is_given_it_borrows():
    """Were references counted, the threads would take turns at the counter."""
    x, pair, owners = np.arange(5.0), (np.ones(2, np.float32), np.zeros(3)), np.ones((3, 4), np.int64)
    before = sys.getrefcount(x)
    for _ in range(100):
        owners_in_each_share(x, pair, owners, 3)
    np.testing.assert_array_equal(owners, 0)
    np.testing.assert_array_equal(pair[1], [20, 20, 18])
    assert sys.getrefcount(x) == before


def kernels():
    """Every kernel of the library, by name."""
    for info in pkgutil.iter_modules(hcrot.kernels.__path__):
        module = importlib.import_module(f"hcrot.kernels.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, jit.Kernel) and value.__module__ == module.__name__:
                yield name, value


def test_every_kernel_begins_with_its_launch():
    """So each share of every kernel borrows its arguments."""
    found = dict(kernels())
    assert len(found) > 20
    for name, kernel in found.items():
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(kernel)))).body
        statements = function.body[1:] if ast.get_docstring(function) else function.body
        assert ast.unparse(statements[0]) == "if launched(share, num_shares):\n    return", name


def test_inner_functions_run_in_python_too():
    """They have no entry for Python; called from there their source runs."""
    assert jit.share_bounds(7, 1, 2) == jit.share_bounds.py_func(7, 1, 2) == (3, 7)
    assert numba.config.DISABLE_JIT or not hasattr(jit.share_bounds, "signatures")


# ---------------------------------------------------------------- compilation


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
def test_the_first_run_says_that_it_compiles_and_later_ones_do_not(tmp_path):
    script = """
        import numpy as np
        from hcrot.kernels import jit
        from hcrot.kernels.activation import silu
        jit.prepare(); jit.prepare()
        silu(np.ones(3, np.float32))
        jit.prepare.cache_clear(); jit.prepare()
    """
    result = run(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("hcrot: compiling kernels") == 1
    assert result.stdout == ""


def test_a_kernel_from_the_cache_can_be_the_first_of_a_process(tmp_path):
    """Each in a new process: one kernel is compiled, and with it what does shares; another, which finds that in the cache; that other one
    alone, all from the cache."""
    silu = "import numpy as np; from hcrot.kernels.activation import silu, silu_gradient as gradient; x = np.ones(3);"
    for call in ("silu(x)", "gradient(x, x)", "gradient(x, x)"):
        result = run(silu + call, NUMBA_CACHE_DIR=str(tmp_path))
        assert result.returncode == 0, (call, result.stderr)


def test_kernels_run_without_compilation():
    """So that a reader can step through them."""
    script = """
        import numpy as np, numba
        from hcrot.kernels import conv, im2col
        from hcrot.kernels.conv import conv2d, conv2d_reference
        assert numba.config.DISABLE_JIT and not hasattr(conv._conv2d.compiled, "signatures")
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, 3, 5, 4))
        columns = im2col.im2col(x, (3, 2), (2, 1), 1)
        np.testing.assert_array_equal(columns, im2col.im2col_reference(x, (3, 2), (2, 1), 1))
        np.testing.assert_allclose(
            im2col.col2im(columns, x.shape, (3, 2), (2, 1), 1), im2col.col2im_reference(columns, x.shape, (3, 2), (2, 1), 1)
        )
        for stride in (1, 2):
            geometry = im2col.make_geometry(3, stride, 1)
            weight, bias = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
            y = conv.conv2d(x, weight, bias, geometry)
            np.testing.assert_allclose(y, conv.conv2d_reference(x, weight, bias, geometry))
            dy = rng.standard_normal(y.shape)
            for got, expected in zip(conv.conv2d_weight_gradient(x, dy, geometry), conv.conv2d_weight_gradient_reference(x, dy, geometry)):
                np.testing.assert_allclose(got, expected)
            np.testing.assert_allclose(
                conv.conv2d_input_gradient(dy, weight, geometry, 5, 4), conv.conv2d_input_gradient_reference(dy, weight, geometry, 5, 4)
            )
        from hcrot.layers.conv import Conv2d, ConvTranspose2d
        from hcrot.layers.linear import Linear
        from hcrot.gradcheck import check_gradients
        check_gradients(Conv2d(3, 4, 3, 2, 1, groups=1, generator=rng), x)
        check_gradients(ConvTranspose2d(3, 2, 3, 2, 1, 1, generator=rng), x)
        check_gradients(Linear(4, 2, generator=rng), x)
        print("all equal")
    """
    result = run(script, NUMBA_DISABLE_JIT="1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "all equal"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_and_infinity_stay_what_they_are(value):
    """A network that diverges must show it: fast arithmetic may not assume that numbers are finite."""
    from hcrot.kernels.conv import conv2d

    x = np.ones((1, 4, 5, 5), np.float32)
    x[0, 1, 2, 2] = value
    y = conv2d(x, np.ones((3, 4, 3, 3), np.float32), None, make_geometry(3, 1, 1))
    assert np.isfinite(y[0, :, 0, 0]).all()
    np.testing.assert_array_equal(y[0, :, 1:4, 1:4], np.full((3, 3, 3), value, np.float32))


def test_compiled_kernels_older_than_any_source_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(jit, "kept_in", lambda compiled: tmp_path)
    assert not jit.has_compiled_kernels()
    kernel = tmp_path / "kernel.nbc"
    kernel.touch()
    assert jit.has_compiled_kernels() and kernel.exists()
    os.utime(kernel, (0, 0))
    assert not jit.has_compiled_kernels() and not kernel.exists()
