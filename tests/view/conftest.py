"""``hcrot view`` in this process, by Starlette's test client."""

import pytest
from starlette.testclient import TestClient

from hcrot.view.server import create_app


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def client(runs):
    with TestClient(create_app(runs, ["digits"]), base_url="http://localhost") as client:
        yield client
