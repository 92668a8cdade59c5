"""One thread for all tabs, that none of them holds up."""

import asyncio
import threading

import pytest

from hcrot.view.messages import Request
from hcrot.view.worker import Cancelled, Job, Outbox, Worker


def job(task, sent):
    return Job(task, Request({}), sent.append)


def test_jobs_run_in_order_and_say_how_they_end():
    def fails(request, report):
        raise ValueError("too large")

    def breaks(request, report):
        raise ZeroDivisionError("oops")

    worker, sent = Worker(), []
    for task in (lambda request, report: report({"kind": "step"}), fails, breaks):
        worker.submit(job(task, sent))
    worker.stop()
    ends = [(message["kind"], message.get("message")) for message in sent if message["kind"] != "begun"]
    assert ends == [("step", None), ("done", None), ("error", "too large"), ("error", "ZeroDivisionError: oops")]


def test_a_cancelled_job_ends_at_its_next_report_or_never_begins():
    begun, go, reported = threading.Event(), threading.Event(), []

    def endless(request, report):
        while True:
            report({"kind": "step"})
            reported.append(1)
            begun.set()
            go.wait(10)

    worker, sent = Worker(), []
    first, second = job(endless, sent), job(endless, sent)
    worker.submit(first)
    worker.submit(second)
    assert begun.wait(10)
    first.cancelled.set()
    second.cancelled.set()
    go.set()
    worker.stop()
    assert len(reported) == 1 and [message["kind"] for message in sent] == ["begun", "step", "cancelled", "cancelled"]
    with pytest.raises(Cancelled):
        first.report({"kind": "step"})


def test_a_slow_tab_loses_the_oldest_steps_and_nothing_else():
    async def scene():
        outbox = Outbox(limit=3)
        worker = threading.Thread(target=lambda: [outbox.put({"kind": "step", "n": n}) for n in range(50)])
        outbox.put({"kind": "begun"})
        worker.start()
        worker.join(10)  # it has not waited for anybody
        outbox.put({"kind": "done"})
        return [await asyncio.wait_for(outbox.get(), 10) for _ in range(5)]

    messages = asyncio.run(scene())
    assert messages == [{"kind": "begun"}, *({"kind": "step", "n": n} for n in (47, 48, 49)), {"kind": "done"}]
