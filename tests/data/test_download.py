"""`fetch` against a server on this machine, and against hosts that never answer."""

import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hcrot.data import download

BODY = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/not-http":
            self.wfile.write(b"220 mail.example.org ESMTP\r\n")
            return
        self.send_response(200)
        if self.path != "/no-length":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1000] if self.path in ("/stalls", "/breaks-off") else BODY)
        self.wfile.flush()
        if self.path == "/stalls":
            self.server.release.wait(5)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.release = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.release.set()
    server.shutdown()
    server.server_close()


def test_the_body_comes_whole_with_a_bar(server, capsys):
    assert download.fetch(f"{server}/file", "train-images") == BODY
    assert "train-images: 100%" in capsys.readouterr().err


def test_without_a_length(server):
    assert download.fetch(f"{server}/no-length", "file") == BODY


def test_an_http_error(server):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        download.fetch(f"{server}/missing", "file")


def test_a_stalled_transfer_ends(server, monkeypatch):
    monkeypatch.setattr(download, "STALL_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(OSError, match="timed out"):
        download.fetch(f"{server}/stalls", "file")
    assert time.monotonic() - start < 3


def test_a_transfer_that_breaks_off_is_not_taken_for_a_whole_one(server):
    with pytest.raises(OSError, match="1000"):
        download.fetch(f"{server}/breaks-off", "file")


def test_an_answer_that_is_not_http(server):
    with pytest.raises(OSError, match="broken HTTP answer .*BadStatusLine"):
        download.fetch(f"{server}/not-http", "file")


def test_a_host_that_never_answers_costs_a_bounded_time(monkeypatch):
    """As a look-up without a network does: urlopen's own timeout does not cover it."""
    release = threading.Event()
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: release.wait(5))
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 0.1 s"):
        download.fetch("http://localhost/", "file")
    assert time.monotonic() - start < 3
    release.set()


def test_an_offline_user_waits_fifteen_seconds_at_most():
    from hcrot.data import mnist

    assert download.ANSWER_SECONDS * len(mnist.MIRRORS) <= 15
