"""Small files that stand for MNIST's, a cache folder of one's own, and mirrors to download from without a network."""

import hashlib
import io
import urllib.error
import urllib.request
from email.message import Message

import numpy as np
import pytest

from hcrot.data import mnist
from support.mnist_files import NAMES, idx_bytes


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    shapes = [(12, 28, 28), (12,), (5, 28, 28), (5,)]
    return {name: rng.integers(0, 256 if shape[1:] else 10, shape, dtype=np.uint8) for name, shape in zip(NAMES, shapes, strict=True)}


@pytest.fixture
def contents(arrays, monkeypatch):
    """The four files' bytes, with load_mnist made to expect their sums instead of MNIST's."""
    contents = {name: idx_bytes(array) for name, array in arrays.items()}
    sums = [(name, hashlib.md5(data).hexdigest()) for name, data in contents.items()]
    monkeypatch.setattr(mnist, "FILES", {"train": tuple(sums[:2]), "test": tuple(sums[2:])})
    return contents


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HCROT_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: pytest.fail("the network was used"))


@pytest.fixture
def web(monkeypatch):
    """What each URL answers: bytes, or an exception to raise; other URLs are 404. `asked` lists the URLs opened."""

    class Web(dict):
        def __init__(self):
            self.asked = []

    def urlopen(url, timeout):
        answers.asked.append(url)
        answer = answers.get(url, urllib.error.HTTPError(url, 404, "Not Found", Message(), io.BytesIO()))
        if isinstance(answer, BaseException):
            raise answer
        response = io.BytesIO(answer)
        response.headers = {"Content-Length": str(len(answer))}
        return response

    answers = Web()
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return answers
