"""Fixtures of all tests. What tests share besides, they import from tests/support."""

import pytest

from hcrot.kernels import jit

pytest.register_assert_rewrite("support")


@pytest.fixture
def one_kernel_thread():
    """For tiny networks: on a busy machine threads would only wait for each other."""
    before = jit.get_num_threads()
    jit.set_num_threads(1)
    yield
    jit.set_num_threads(before)
