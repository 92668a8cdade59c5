"""One HTTP download with a progress bar, and with an end to the waiting."""

import http.client
import queue
import sys
import threading
import urllib.request

from tqdm import tqdm

__all__ = ["ANSWER_SECONDS", "STALL_SECONDS", "fetch"]

ANSWER_SECONDS = 4  # until a server has answered; three mirrors that do not answer cost an offline user 12 s
STALL_SECONDS = 10  # without a byte, once it has


def fetch(url: str, name: str) -> bytes:
    """The body found at `url`; a tqdm bar called `name` shows it coming.

    Raises:
        OSError: no connection, no answer in time, an HTTP error, or a transfer that stalled or broke off.
    """
    try:
        with _open(url) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            parts = []
            with tqdm(total=total, desc=name, unit="B", unit_scale=True, disable=sys.stderr is None) as bar:
                while part := response.read(1 << 16):
                    parts.append(part)
                    bar.update(len(part))
    except http.client.HTTPException as error:
        raise OSError(f"broken HTTP answer ({error!r})") from error
    body = b"".join(parts)
    if total is not None and len(body) != total:
        raise OSError(f"broke off after {len(body)} of {total} bytes")
    return body


def _open(url: str) -> http.client.HTTPResponse:
    """`urlopen` in a thread of its own, because its timeout starts anew for each address of a host and does not cover
    the look-up of the name at all: without a network that can take minutes."""
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
