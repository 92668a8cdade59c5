"""``hcrot view`` in this process, by Starlette's test client."""

import pytest

pytest.importorskip("starlette", reason='hcrot view is not installed: pip install "hcrot[view]"')
from starlette.testclient import TestClient  # noqa: E402

from hcrot.view.server import create_app  # noqa: E402


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def client(runs):
    with TestClient(create_app(runs, ["digits"])) as client:
        yield client
