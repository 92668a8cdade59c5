"""The pool of threads: every share is done once, whoever sleeps, is late or calls at the same time."""

import threading
import time

import numba
import numpy as np
import pytest
from numba import types

from hcrot.kernels import jit, launch, threads
from support.processes import run

pytestmark = [
    pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels"),
    pytest.mark.skipif(threads.posix_threads() is None, reason="there are no POSIX threads here"),
]

usleep = types.ExternalFunction("usleep", types.int32(types.intp))


@jit.parallel_jit
def count(counts, microseconds, share, num_shares):
    """Add 1 to the share's count, some microseconds later."""
    if jit.launched(share, num_shares):
        return
    if microseconds[share] > 0:
        usleep(microseconds[share])
    counts[share] += 1


def call(num_shares, microseconds=0, counts=None):
    counts = np.zeros(num_shares, np.int64) if counts is None else counts
    count(counts, np.broadcast_to(microseconds, num_shares).astype(np.int64), num_shares)
    return counts


@pytest.mark.parametrize("num_shares", [2, 3, 8, 100, 5000])
def test_each_share_is_done_once(num_shares):
    for _ in range(20):
        np.testing.assert_array_equal(call(num_shares), 1)


def test_threads_that_sleep_are_woken():
    for pause in (0, 1e-4, 2e-4, 3e-4, 0.01, 0.05):
        for _ in range(5):
            time.sleep(pause)
            np.testing.assert_array_equal(call(4, 200), 1)


@pytest.mark.parametrize("slow", [0, 1])
def test_the_caller_sleeps_until_the_last_share_is_done(slow):
    """Whichever thread takes the slow share, the call ends when it is done, and waiting takes no processor time to speak of."""
    microseconds = np.zeros(2, np.int64)
    microseconds[slow] = 100_000
    call(2)
    before, begin = time.process_time(), time.perf_counter()
    for _ in range(5):
        np.testing.assert_array_equal(call(2, microseconds), 1)
    assert time.perf_counter() - begin > 0.5
    assert time.process_time() - before < 0.25


def test_shares_are_done_at_the_same_time():
    """Four that only wait take the time of one, even on one core."""
    call(4)
    best = min(timed(lambda: call(4, 50_000)) for _ in range(5))
    assert 0.05 <= best < 0.15


def timed(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def test_callers_do_not_disturb_each_other():
    """While one caller has the pool, others do their own shares."""
    counts = [np.zeros(3, np.int64) for _ in range(6)]

    def work(mine):
        for _ in range(2000):
            call(3, 0, mine)

    callers = [threading.Thread(target=work, args=(mine,)) for mine in counts]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    np.testing.assert_array_equal(counts, 2000)


def test_a_processor_that_spins_is_given_back():
    """After PATIENCE threads sleep: an idle process takes no processor time."""
    call(4)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_the_pool_grows_and_does_not_shrink():
    call(2)
    call(7)
    assert len(threads._pool.threads) >= 6
    call(3)
    assert len(threads._pool.threads) >= 6
    assert all(thread.daemon for thread in threads._pool.threads)


def test_without_a_pool_python_threads_do_the_shares(monkeypatch):
    monkeypatch.setattr(launch, "pool_for", lambda num_shares: 0)
    np.testing.assert_array_equal(call(5), 1)


def test_a_process_ends_and_may_compute_until_it_does():
    script = """
        import atexit, numpy as np
        from hcrot.kernels.activation import _silu
        def last():
            y = np.zeros(1000)
            _silu(np.ones(1000), y, 4)
            print(y.sum().round(), flush=True)
        atexit.register(last)
        last()
        atexit.register(last)
    """
    result = run(script, NUMBA_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["731.0"] * 3
