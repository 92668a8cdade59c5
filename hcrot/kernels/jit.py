"""How kernels are compiled and how many threads they use: the one place with Numba's flags.

Parallelism has one level. A kernel splits its work into at most ``get_num_threads()`` shares, each done by a thread, and inside a share
everything is sequential: plain loops, and the matrix products of ``product.py``. A BLAS with threads of its own would have them spin
after each product and fight the kernel's threads for the same cores (measured: a factor of four).

Four files beside this one have what it is built from: ``launch.py`` how shares get to threads, ``threads.py`` those threads, ``cache.py``
where compiled kernels are kept, ``machine.py`` what is asked of the C library.

Of Numba's private parts this file uses one, the compiler flag ``noalias`` (:class:`DistinctArrays`). Where a version of Numba has no such
flag, the kernels are compiled without it: the same numbers, and some loops check anew whether their arrays overlap. ``cache.py`` and
``launch.py`` say what they depend on.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hcrot.init import is_int
from hcrot.kernels.cache import compile_cached, compile_function, drop_outdated, fallback_folder, kept_in
from hcrot.kernels.compiler import Compiler, numba, typeof_impl
from hcrot.kernels.launch import launched, python_threads, recorder, run_shares, usable_cores
from hcrot.kernels.machine import keep_freed_memory
from hcrot.kernels.threads import help_others

__all__ = [
    "GRAIN", "aligned_empty", "aligned_zeros", "distinct_jit", "exact_jit", "get_num_threads", "jit", "launched", "parallel_jit",
    "prepare", "python_threads", "set_num_threads", "share_bounds", "shares",
]  # fmt: skip

# Reassociation lets sums use vector lanes and contraction fuses multiply-add. NaN and infinity keep their meaning: a network that
# diverges must show it.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


class DistinctArrays(Compiler):
    """Compiles functions whose arrays, by promise, do not overlap where they are written: LLVM need not check that before each loop."""

    def define_pipelines(self) -> list:
        if hasattr(self.state.flags, "noalias"):
            self.state.flags.noalias = True
        return super().define_pipelines()


class Inner:
    """A function for use inside kernels. Called from Python it runs as Python, uncompiled.

    Numba would make an ordinary compiled function callable from Python and from C, at a third more time for compiling it.
    """

    def __init__(self, function: Callable, fastmath: set[str], pipeline: type[Compiler] = Compiler):
        functools.update_wrapper(self, function)
        self.py_func, self.options = function, {"fastmath": fastmath, "pipeline_class": pipeline}

    @functools.cached_property
    def compiled(self) -> Any:
        return compile_function(no_cpython_wrapper=True, **self.options)(self.py_func)

    def __call__(self, *arguments):
        return self.py_func(*arguments)


@typeof_impl.register(Inner)
def _type_of_inner(inner, context):
    """What a kernel sees in its place."""
    return typeof_impl(inner.compiled, context)


def jit(function: Callable) -> Inner:
    """Compile a function that is called inside kernels, and not from Python."""
    return Inner(function, FASTMATH)


def distinct_jit(function: Callable) -> Inner:
    """Compile a function whose arrays do not overlap. LLVM then checks no pair of them, which counts where rows are short."""
    return Inner(function, FASTMATH, DistinctArrays)


def exact_jit(function: Callable) -> Inner:
    """Compile a function whose sums keep their order: it is arranged so that rounding errors cancel."""
    return Inner(function, FASTMATH - {"reassoc"})


class Kernel:
    """What :func:`parallel_jit` makes of a function. Numba sees it when it is first called: an import does not wait for all of them."""

    def __init__(self, kernel: Callable):
        functools.update_wrapper(self, kernel)
        self.kernel = kernel

    @functools.cached_property
    def compiled(self) -> Any:
        return compile_cached(self.kernel, fastmath=FASTMATH)

    def __call__(self, *arguments: Any) -> None:
        num_shares, arguments = arguments[-1], arguments[:-1]
        calls = getattr(recorder, "calls", None)
        if calls is not None:
            calls.append((self.compiled, arguments, num_shares))
        if numba.config.DISABLE_JIT:
            with np.errstate(all="ignore"):  # a compiled kernel does not warn either
                for share in range(num_shares):
                    self.compiled(*arguments, share, num_shares)
        elif num_shares == 1:
            self.compiled(*arguments, 0, 1)
        else:
            run_shares(self.compiled, arguments, num_shares)


def parallel_jit(kernel: Callable) -> Kernel:
    """Compile a kernel that does one share of the work: ``share`` and ``num_shares`` are its last two arguments, and it begins with

        if launched(share, num_shares):
            return

    What is returned is called with all arguments but ``share``, and does all shares, each in a thread of its own.

    Why not a ``prange`` in each kernel: Numba makes of it a chain of five functions, each of which has the one before compiled into it
    anew, and its threads wait for each other in a way that a busy machine punishes (``threads.py``).

    A single share is done by the caller.
    """
    return Kernel(kernel)


GRAIN = 200_000
"""Multiplications worth a thread of their own: some 4 microseconds of work, twice what launching a parallel region costs."""


_threads: int | None = None


def set_num_threads(threads: int) -> None:
    """Set how many threads hcrot's kernels use, in this process; NumPy's own threads are left alone.

    Args:
        threads: at least 1; more than Numba was started with (``NUMBA_NUM_THREADS``, by default the number of cores) is an error.

    Raises:
        ValueError: out of that range.

    Example:
        >>> before = hcrot.get_num_threads()
        >>> hcrot.set_num_threads(1)
        >>> hcrot.get_num_threads()
        1
        >>> hcrot.set_num_threads(before)
    """
    global _threads
    if not is_int(threads) or not 1 <= threads <= numba.config.NUMBA_NUM_THREADS:
        raise ValueError(f"set_num_threads: threads must be an int from 1 to {numba.config.NUMBA_NUM_THREADS}, got {threads!r}")
    _threads = int(threads)


def get_num_threads() -> int:
    """How many threads hcrot's kernels use: what was set, else every core this process may run on.

    Example:
        >>> import os
        >>> 1 <= hcrot.get_num_threads() <= os.cpu_count()
        True
    """
    global _threads
    if _threads is None:
        _threads = usable_cores()
    return _threads


def shares(work: int, grain: int) -> int:
    """Into how many shares to split ``work`` units so that none has fewer than ``grain``: at least 1, at most ``get_num_threads()``."""
    prepare()
    wanted = work // grain if grain > 1 else work
    return 1 if wanted < 2 else min(get_num_threads(), wanted)


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


before_compiling: list[Callable[[], None]] = []
"""What else to do, once, when kernels are about to be compiled. ``hcrot/kernels/__init__.py`` adds the start of a second process here,
which compiles what will be needed last (``ahead.py``)."""


@functools.cache
def prepare() -> None:
    """What happens once per process, before the first kernel runs: freed memory is kept from then on.

    If no compiled kernels are found, one line on stderr says that they are being compiled, and a second process starts to help."""
    keep_freed_memory()
    if numba.config.DISABLE_JIT or has_compiled_kernels() or not before_compiling:
        return
    folder = kept_in(compile_cached(help_others))
    if folder is None:
        say("compiling kernels (15 to 30 seconds, at every start: no folder can be written to keep them in; NUMBA_CACHE_DIR names one)")
        return
    where = f"; kept in {folder}" if fallback_folder.cache_info().currsize else ""
    say(f"compiling kernels (first run only, 15 to 30 seconds{where})")
    for action in before_compiling:
        action()


def say(message: str) -> None:
    """One line to standard error, where there is one: a program without a console has none."""
    if sys.stderr is not None:
        print(f"hcrot: {message}", file=sys.stderr, flush=True)


def has_compiled_kernels() -> bool:
    """Whether compiled kernels are kept on disk, of this version of all sources."""
    folder = kept_in(compile_cached(help_others))
    return folder is not None and drop_outdated(folder, Path(__file__).parent)
