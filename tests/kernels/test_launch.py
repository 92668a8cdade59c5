"""Kernels in processes made by fork, whose parent has used kernels."""

import os

import numba
import pytest

from support.processes import run

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled"),
]

LAYER = """
import numpy as np, os, sys, multiprocessing, threading
import hcrot
from hcrot.kernels import launch, threads

def work(seed):
    rng = np.random.default_rng(seed)
    layer, x = hcrot.Conv2d(8, 8, 3, padding=1, generator=rng), rng.standard_normal((4, 8, 40, 40), dtype=np.float32)
    y = layer(x)
    return y, layer.backward(y), layer.weight.grad

hcrot.set_num_threads(2)
expected = [work(seed) for seed in range(3)]
"""


def test_a_pool_of_forked_processes_computes_what_its_parent_does():
    """OpenMP ended each child, and the pool of processes made new ones for ever."""
    script = LAYER + """
with multiprocessing.get_context("fork").Pool(2) as pool:
    for found, wanted in zip(pool.map_async(work, range(3)).get(60), expected):
        for a, b in zip(found, wanted):
            np.testing.assert_array_equal(a, b)
for a, b in zip(work(1), expected[1]):
    np.testing.assert_array_equal(a, b)
"""
    result = run(script, NUMBA_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr


def test_a_child_of_a_child_and_its_threads_work_too():
    script = LAYER + """
def child(depth):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return
    assert threads._pool is None
    results = [None, None]
    def one(k):
        results[k] = work(k)
    both = [threading.Thread(target=one, args=(k,)) for k in range(2)]
    [thread.start() for thread in both]
    [thread.join() for thread in both]
    assert len(threads._pool.threads) == 1
    for k in range(2):
        np.testing.assert_array_equal(results[k][2], expected[k][2])
    if depth:
        child(depth - 1)
    os._exit(0)

child(1)
"""
    result = run(script, NUMBA_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr


def test_a_child_made_in_the_middle_of_calls_works_too():
    """Whatever the parent's threads were doing, the child has locks and memory of its own."""
    script = LAYER + """
stop = threading.Event()
def busy():
    while not stop.is_set():
        work(0)
others = [threading.Thread(target=busy) for _ in range(2)]
[other.start() for other in others]
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        np.testing.assert_array_equal(work(1)[2], expected[1][2])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
[other.join() for other in others]
"""
    result = run(script, NUMBA_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr
