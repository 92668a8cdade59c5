"""One thread that computes, and what stands between it and the tabs.

A tab's message becomes a :class:`Job` in the queue. The thread takes one after the other, and hands what a job reports to the tab's
:class:`Outbox` without waiting. A job that nobody wants any more ends at its next report.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hcrot.view.messages import Request

__all__ = ["Cancelled", "Job", "Outbox", "Report", "Worker"]

Report = Callable[[dict[str, Any]], None]
"""A task calls it with each message for the page. It raises :class:`Cancelled` if nobody waits for more."""

EXPECTED = (ValueError, TypeError, OSError, NotImplementedError, KeyError)
"""What bad input leads to: the page shows the message. Other errors are mistakes of ours, which go into the log, too."""

log = logging.getLogger("hcrot.view")


class Cancelled(Exception):
    """Whoever asked has gone, or has asked for something else."""


@dataclass(eq=False)
class Job:
    """A task, what was asked, and whom to tell."""

    task: Callable[[Request, Report], None]
    request: Request
    send: Report
    cancelled: threading.Event = field(default_factory=threading.Event)

    def report(self, message: dict[str, Any]) -> None:
        if self.cancelled.is_set():
            raise Cancelled
        self.send(message)

    def run(self) -> None:
        """Do it, and say at the end how it ended."""
        try:
            self.report({"kind": "begun"})
            self.task(self.request, self.report)
            self.send({"kind": "done"})
        except Cancelled:
            self.send({"kind": "cancelled"})
        except EXPECTED as error:
            self.send({"kind": "error", "message": str(error)})
        except Exception as error:
            log.exception("a task of hcrot view failed")
            self.send({"kind": "error", "message": f"{type(error).__name__}: {error}"})


class Worker:
    """The thread and its queue."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="hcrot view", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return self._jobs.qsize()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        """Let the thread end after the job in hand."""
        self._jobs.put(None)
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while job := self._jobs.get():
            try:
                job.run()
            except Exception:  # its tab could not even be told: the thread is everyone's
                logging.getLogger("hcrot.view").exception("a job could not report")


class Outbox:
    """Messages for one tab, in order. Steps of a picture are left out, the oldest first, where a slow tab has ``limit`` of them waiting;
    other messages never are.

    ``put`` may be called from any thread, ``get`` from that of the event loop which made it.
    """

    def __init__(self, limit: int = 200) -> None:
        self._loop, self._ready, self._limit = asyncio.get_running_loop(), asyncio.Event(), limit
        self._messages: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()

    def put(self, message: dict[str, Any]) -> None:
        with self._lock:
            if message["kind"] == "step":
                steps = [waiting for waiting in self._messages if waiting["kind"] == "step"]
                if len(steps) >= self._limit:
                    self._messages.remove(steps[0])
            self._messages.append(message)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)

    async def get(self) -> dict[str, Any]:
        """The next message; waits for it."""
        while True:
            with self._lock:
                if self._messages:
                    return self._messages.popleft()
                self._ready.clear()
            await self._ready.wait()
