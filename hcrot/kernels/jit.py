"""How kernels are compiled and how many threads they use: the one place with Numba's flags.

Parallelism has one level. A kernel splits its work into ``num_threads()`` shares, runs one ``prange`` over the shares, and inside a share
everything is sequential: plain loops, and matrix products through SciPy's BLAS, which is held to one thread per caller. BLAS threads of
their own would spin after each product and fight the kernel's threads for the same cores (measured: a factor of four). NumPy carries a
BLAS of its own, so a user's ``a @ b`` keeps all its threads.
"""

import ctypes
import functools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np
from numba import prange  # noqa: F401  (kernels import it from here)

# Reassociation lets sums use vector lanes and contraction fuses multiply-add. NaN and infinity keep their meaning: a network that
# diverges must show it.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}

exact_jit = numba.njit(cache=True, fastmath=FASTMATH - {"reassoc"}, error_model="numpy", nogil=True)
"""For arithmetic whose order matters, because it is arranged so that rounding errors cancel."""

jit = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy", nogil=True)


def parallel_jit(kernel: Callable) -> Callable:
    """Compile a kernel that has one ``prange`` over its shares, whose number is its last argument.

    With fewer shares than threads only as many threads are woken, for the call alone: waking a thread for nothing costs microseconds on an
    idle machine and a time slice, milliseconds, on a busy one.
    """
    compiled = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy", nogil=True, parallel=True)(kernel)

    @functools.wraps(kernel)
    def call(*arguments):
        num_shares, threads = arguments[-1], numba.get_num_threads()
        if num_shares >= threads:
            return compiled(*arguments)
        numba.set_num_threads(num_shares)
        try:
            return compiled(*arguments)
        finally:
            numba.set_num_threads(threads)

    call.compiled = compiled
    return call


GRAIN = 200_000
"""Multiplications worth a thread of their own: some 4 microseconds of work, twice what launching a parallel region costs."""


@functools.cache
def small_product_limit() -> int:
    """The largest rows * depth * outputs of a product that this CPU's BLAS multiplies without repacking; 0 if it has no such path.

    OpenBLAS has kernels for small products on CPUs with AVX-512, used up to 10^6 multiplications. Measured on one Zen 4 core:
    113-117 GFLOP/s below that size, 70-98 above it.
    """
    return 1_000_000 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 0


_threads: int | None = None


def set_num_threads(threads: int) -> None:
    """Set how many threads hcrot's kernels use, in this process; NumPy's own threads are left alone.

    Args:
        threads: at least 1; more than Numba was started with (``NUMBA_NUM_THREADS``, by default the number of cores) is an error.

    Raises:
        ValueError: out of that range.
    """
    global _threads
    if not isinstance(threads, (int, np.integer)) or not 1 <= threads <= numba.config.NUMBA_NUM_THREADS:
        raise ValueError(f"set_num_threads: threads must be an int from 1 to {numba.config.NUMBA_NUM_THREADS}, got {threads!r}")
    _threads = int(threads)


def get_num_threads() -> int:
    """How many threads hcrot's kernels use: what was set, else every core this process may run on."""
    global _threads
    if _threads is None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        _threads = min(available, numba.config.NUMBA_NUM_THREADS)
    return _threads


def shares(work: int, grain: int) -> int:
    """Into how many shares to split ``work`` units so that none has fewer than ``grain``: at least 1, at most ``get_num_threads()``."""
    prepare()
    return max(1, min(get_num_threads(), work // max(1, grain)))


@jit
def share_bounds(work: int, share: int, num_shares: int) -> tuple[int, int]:
    """First unit and one past the last of share number ``share`` when ``work`` units are split evenly."""
    return work * share // num_shares, work * (share + 1) // num_shares


@jit
def aligned_empty(size, like):
    """``size`` numbers of the dtype of ``like``, beginning on a cache line: a vector that lies across two costs twice as much."""
    whole = np.empty(size + 64 // like.itemsize, like.dtype)
    skip = -(whole.ctypes.data // like.itemsize) % (64 // like.itemsize)
    return whole[skip : skip + size]


@jit
def aligned_zeros(size, like):
    """:func:`aligned_empty`, set to zero."""
    zeros = aligned_empty(size, like)
    zeros[:] = 0
    return zeros


@functools.cache
def prepare() -> None:
    """Once per process, before the first kernel: settle BLAS and memory, and say so if kernels are about to be compiled."""
    hold_scipy_blas_to_one_thread()
    keep_freed_memory()
    if not numba.config.DISABLE_JIT and not has_compiled_kernels():
        print("hcrot: compiling kernels (first run only, about 25 seconds)", file=sys.stderr, flush=True)


def has_compiled_kernels() -> bool:
    """Whether compiled kernels are cached on disk. Those older than any kernel's source are dropped first: Numba itself looks only at the
    file of the kernel that is called, and would go on using what that kernel had compiled in from another file before it changed."""
    compiled = list(Path(share_bounds._cache.cache_path).glob("*.nbi"))
    newest = max(source.stat().st_mtime for source in Path(__file__).parent.glob("*.py"))
    fresh = [index for index in compiled if index.stat().st_mtime >= newest]
    if len(fresh) < len(compiled):
        for index in compiled:
            index.unlink(missing_ok=True)
    return len(fresh) == len(compiled) > 0


def keep_freed_memory() -> None:
    """Ask the C library (glibc) to keep memory that was freed for the arrays of the next step, instead of handing it back to the system.

    A training step makes and drops arrays of many megabytes. Given back and asked for again, each page must be mapped and zeroed anew:
    measured, 12,000 to 36,000 page faults a step, a tenth to a fifth of its time, and none with memory kept. What the process holds at
    its peak it then holds until it ends. An environment variable of malloc's own, if the user has set one, is left to rule.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent where the C library is not glibc
        if mallopt:
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free memory at the end of the heap that is kept
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its maximum: larger arrays than this still come from the system


def hold_scipy_blas_to_one_thread() -> None:
    """Limit the BLAS that compiled kernels call, and no other, to one thread per caller.

    Kernels reach BLAS through ``scipy.linalg.cython_blas``. SciPy's wheels carry their own OpenBLAS, which is found by its file name. Where
    SciPy shares a library with NumPy (conda, some distributions) nothing is limited, because that would slow a user's own NumPy down.
    """
    import scipy.linalg.cython_blas  # noqa: F401  (loads the library that is to be limited)
    import threadpoolctl

    # SciPy's wheel puts its libraries into scipy.libs, on macOS into scipy/.dylibs. The file's own name tells nothing: NumPy's is
    # called libscipy_openblas too.
    pools = threadpoolctl.ThreadpoolController().select(user_api="blas")
    ours = [pool for pool in pools.lib_controllers if {"scipy", "scipy.libs"} & {folder.name for folder in Path(pool.filepath).parents[:2]}]
    for pool in ours:
        pool.set_num_threads(1)
    if not ours:
        warnings.warn(
            "hcrot: SciPy shares its BLAS library with NumPy here, so its threads are left as they are and kernels may be slow; "
            "set OPENBLAS_NUM_THREADS=1 (or MKL_NUM_THREADS=1) before starting Python to make them fast",
            RuntimeWarning,
            stacklevel=2,
        )
