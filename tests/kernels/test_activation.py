import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hcrot.kernels.activation import exp, exp_reference
from hcrot.kernels.jit import jit


@jit
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


def test_exp_runs_without_compilation():
    program = """
import numpy as np
from hcrot.kernels.activation import exp
for x in (-88, -1.5, 0, 3, 88):
    value = exp(np.float32(x))
    assert type(value) is np.float32 and abs(value - np.exp(float(x))) <= 4e-7 * np.exp(float(x)) + 1e-37, (x, value)
    assert type(exp(np.float64(x))) is np.float64
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
