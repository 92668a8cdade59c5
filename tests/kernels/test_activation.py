import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hcrot.kernels.activation import (
    exp,
    exp_reference,
    flat_in_order_of,
    silu,
    silu_gradient,
    silu_gradient_reference,
    silu_reference,
)
from hcrot.kernels.jit import FASTMATH, compile_function


@compile_function(fastmath=FASTMATH)
def exp_of_each(x, out):
    for k in range(x.size):
        out[k] = exp(x[k])


def exp_in_a_kernel(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    exp_of_each(x, out)
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 4e-7), (np.float64, 1e-15)])
def test_exp_agrees_with_numpy_over_the_whole_range(dtype, tolerance):
    x = np.linspace(-87.3, 88.37, 100_003).astype(dtype)
    result = exp_in_a_kernel(x)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, exp_reference(x.astype(np.float64)), rtol=tolerance)


def test_exp_in_float32_beyond_its_range():
    x = np.array([-np.inf, -1e30, -1000, -88, 0, 88.4, 1000, 1e30, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(exp_in_a_kernel(x), np.array([0, 0, 0, 0, 1, np.inf, np.inf, np.inf, np.inf, np.nan], np.float32))


def test_exp_of_a_scalar_outside_a_kernel():
    assert exp(np.float64(1)) == pytest.approx(np.e, rel=1e-15)
    assert exp(np.float32(1)) == pytest.approx(np.e, rel=4e-7)


def layouts(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> dict[str, np.ndarray]:
    """The same numbers of an image array in several memory orders."""
    x = rng.standard_normal(shape).astype(dtype)
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with_gaps = np.repeat(x, 2, axis=1)[:, ::2]
    backwards = np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1]
    return {"C": x, "channels-last": channels_last, "with gaps": with_gaps, "backwards": backwards}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (3, 0, 2, 2), (2, 17, 31, 33)])
def test_silu_agrees_with_its_reference_in_any_memory_order(shape, dtype, tolerance):
    rng = np.random.default_rng(0)
    dout = 3 * rng.standard_normal(shape)
    for order, x in layouts(rng, shape, dtype).items():
        x = 10 * x
        y, dx = silu(x), silu_gradient(x, dout.astype(dtype))
        assert y.dtype == dx.dtype == dtype, order
        assert y.strides == dx.strides == np.empty_like(x).strides, order
        x = x.astype(np.float64)
        np.testing.assert_allclose(y, silu_reference(x), rtol=tolerance, atol=tolerance, err_msg=order)
        np.testing.assert_allclose(dx, silu_gradient_reference(x, dout), rtol=tolerance, atol=5 * tolerance, err_msg=order)


def test_silu_gradient_mixes_memory_orders():
    rng = np.random.default_rng(1)
    xs, douts = layouts(rng, (2, 3, 4, 5), np.float64), layouts(rng, (2, 3, 4, 5), np.float64)
    expected = silu_gradient_reference(xs["C"], douts["C"])
    for x in xs.values():
        for dout in douts.values():
            np.testing.assert_allclose(silu_gradient(x, dout), expected, rtol=1e-13)


def test_silu_is_large_where_x_is_and_shows_nan():
    x = np.array([-1e30, -200, -89, 0, 89, 200, 1e30, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(silu(x), np.array([0, 0, 0, 0, 89, 200, 1e30, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(silu_gradient(x[1:6], np.ones(5, np.float32)), np.array([0, 0, 0.5, 1, 1], np.float32))
    assert np.isnan(silu_gradient(x[8:], np.ones(1, np.float32)))


def test_flat_in_order_of_copies_only_if_orders_differ():
    x = layouts(np.random.default_rng(2), (2, 3, 4, 5), np.float32)
    assert np.shares_memory(flat_in_order_of(x["C"], x["C"]), x["C"])
    np.testing.assert_array_equal(flat_in_order_of(x["channels-last"], x["C"]), x["C"].transpose(0, 2, 3, 1).ravel())
    with pytest.raises(ValueError, match=r"shapes differ, \(3, 2\) and \(2, 3\)"):
        flat_in_order_of(np.ones((2, 3)), np.ones((3, 2)))


def test_kernels_run_without_compilation():
    program = """
import numpy as np
from hcrot.kernels.activation import exp, silu, silu_gradient, silu_gradient_reference, silu_reference
for x in (-88, -1.5, 0, 3, 88):
    value = exp(np.float32(x))
    assert type(value) is np.float32 and abs(value - np.exp(float(x))) <= 4e-7 * np.exp(float(x)) + 1e-37, (x, value)
    assert type(exp(np.float64(x))) is np.float64
for dtype in (np.float32, np.float64):
    x = np.linspace(-5, 5, 12).reshape(3, 4).astype(dtype)
    assert silu(x).dtype == dtype
    np.testing.assert_allclose(silu(x), silu_reference(x), rtol=1e-6)
    np.testing.assert_allclose(silu_gradient(x, x), silu_gradient_reference(x, x), rtol=1e-5)
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
