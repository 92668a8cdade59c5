"""Fixtures of all tests. What tests share besides, they import from tests/support."""

import numba
import pytest

from hcrot.kernels import jit

pytest.register_assert_rewrite("support")


@pytest.fixture(scope="module")
def one_thread():
    """For arrays that are worth one thread: on a busy machine waking a second one takes a hundred times as long as the work."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.fixture
def one_kernel_thread():
    """For tiny networks: on a busy machine threads would only wait for each other."""
    before = jit.get_num_threads()
    jit.set_num_threads(1)
    yield
    jit.set_num_threads(before)
