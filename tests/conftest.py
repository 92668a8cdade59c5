"""Fixtures of all tests. What tests share besides, they import from tests/support."""

import pytest

from hcrot.kernels import jit

pytest.register_assert_rewrite("support")

LONG = {"test_ahead.py", "test_benchmarks.py", "test_browser.py", "test_distributed.py", "test_product.py", "test_site.py"}


def pytest_collection_modifyitems(items):
    """Files of few but long tests come first: at the end one of two workers would wait for the other's."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture
def one_kernel_thread():
    """For tiny networks: on a busy machine threads would only wait for each other."""
    before = jit.get_num_threads()
    jit.set_num_threads(1)
    yield
    jit.set_num_threads(before)
