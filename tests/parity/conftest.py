"""Fixtures of the tests against PyTorch and diffusers."""

import pytest


@pytest.fixture
def one_torch_thread():
    """On a busy machine PyTorch's threads would only wait for each other, over arrays as small as here."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
