"""How kernels are compiled and how many threads they use: the one place with Numba's flags.

Parallelism has one level. A kernel splits its work into at most ``get_num_threads()`` shares, each done by a thread, and inside a share
everything is sequential: plain loops, and matrix products through SciPy's BLAS, which is held to one thread per caller. BLAS threads of
their own would spin after each product and fight the kernel's threads for the same cores (measured: a factor of four). NumPy carries a
BLAS of its own, so a user's ``a @ b`` keeps all its threads.
"""

import ctypes
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.core.compiler import Compiler
from numba.extending import intrinsic, overload, typeof_impl

from hcrot.kernels import ahead

# Reassociation lets sums use vector lanes and contraction fuses multiply-add. NaN and infinity keep their meaning: a network that
# diverges must show it.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}

compile_function = functools.partial(numba.njit, error_model="numpy", nogil=True, no_cfunc_wrapper=True)


class DistinctArrays(Compiler):
    """Compiles functions whose arrays, by promise, do not overlap where they are written: LLVM need not check that before each loop."""

    def define_pipelines(self) -> list:
        self.state.flags.noalias = True
        return super().define_pipelines()


class Inner:
    """A function for use inside kernels. Called from Python it runs as Python, uncompiled.

    Numba would make an ordinary compiled function callable from Python and from C, at a third more time for compiling it.
    """

    def __init__(self, function: Callable, fastmath: set[str], pipeline: type[Compiler] = Compiler):
        functools.update_wrapper(self, function)
        self.py_func = function
        self.compiled = compile_function(no_cpython_wrapper=True, fastmath=fastmath, pipeline_class=pipeline)(function)

    def __call__(self, *arguments):
        return self.py_func(*arguments)


@typeof_impl.register(Inner)
def _type_of_inner(inner, context):
    """What a kernel sees in its place."""
    return typeof_impl(inner.compiled, context)


def jit(function: Callable) -> Inner:
    """For functions that are called inside kernels."""
    return Inner(function, FASTMATH)


def distinct_jit(function: Callable) -> Inner:
    """For loops over arrays that do not overlap: a dozen short rows are then read and written without a check for each pair of them."""
    return Inner(function, FASTMATH, DistinctArrays)


def exact_jit(function: Callable) -> Inner:
    """For arithmetic whose order matters, because it is arranged so that rounding errors cancel."""
    return Inner(function, FASTMATH - {"reassoc"})


def parallel_jit(kernel: Callable) -> Callable:
    """Compile a kernel that does one share of the work: ``share`` and ``num_shares`` are its last two arguments, and it begins with

        if launched(share, num_shares):
            return

    What is returned is called with all arguments but ``share``, and does all shares, each in a thread of its own.

    Why not a ``prange`` in each kernel: Numba makes of it a chain of five functions, each of which has the one before compiled into it
    anew. This way a kernel is compiled once, and there is one ``prange`` for all kernels, in :func:`launch`.

    A single share is done by the caller. With fewer shares than threads only as many threads are woken, for the call alone: waking a thread
    for nothing costs microseconds on an idle machine and a time slice, milliseconds, on a busy one.
    """
    compiled = compile_function(cache=True, fastmath=FASTMATH)(kernel)

    @functools.wraps(kernel)
    def call(*arguments):
        num_shares, arguments = arguments[-1], arguments[:-1]
        if num_shares == 1:
            compiled(*arguments, 0, 1)
            return
        if numba.config.DISABLE_JIT:
            for share in range(num_shares):
                compiled(*arguments, share, num_shares)
            return
        with launching():
            threads = numba.get_num_threads() if num_shares < numba.config.NUMBA_NUM_THREADS else num_shares
            if num_shares < threads:
                numba.set_num_threads(num_shares)
            try:
                compiled(*arguments, ALL, num_shares)
            except NotImplementedError:  # of launch
                list(python_threads().map(lambda share: compiled(*arguments, share, num_shares), range(num_shares)))
            finally:
                if num_shares < threads:
                    numba.set_num_threads(threads)

    call.compiled = compiled
    return call


@functools.cache
def python_threads() -> ThreadPoolExecutor:
    """What does the shares where :func:`launch` cannot: slower to start by some 30 microseconds."""
    return ThreadPoolExecutor(get_num_threads(), "hcrot")


@functools.cache
def launching() -> AbstractContextManager:
    """What to hold while threads are launched: nothing, but for Numba's workqueue, which ends the process when two Python threads use it at
    once (it is what Numba takes where it finds neither OpenMP nor TBB)."""
    numba.get_num_threads()  # until it has been asked, there is no layer
    return threading.Lock() if numba.threading_layer() == "workqueue" else nullcontext()


ALL = -1
"""The number of a share that stands for all of them."""


def launched(share: int, num_shares: int) -> bool:
    """The first line of each kernel: whether it was called for ALL shares, which are then done when this returns."""
    return False


@overload(launched, inline="always")
def _compile_launched(share, num_shares):
    """Inlined, so that :func:`this_call` is the kernel's."""

    def launched(share, num_shares):
        if share != ALL:
            return False
        launch(this_call(), num_shares)
        return True

    return launched


@compile_function(cache=True, parallel=True)
def launch(call: tuple[int, int], num_shares: int) -> None:
    """Repeat a call, as :func:`this_call` describes it, once for each share, all of them at the same time.

    Raises:
        RuntimeError: an error was raised in one of them; most likely there was no memory left.
        NotImplementedError: the call has no address.
    """
    function, frame = call
    if function == 0:
        raise NotImplementedError
    for share in prange(num_shares):
        repeat_call(function, frame, np.int64(share))
    if number_at(frame) != 0:
        raise RuntimeError("an error was raised in one of a kernel's threads; was there memory left?")


LAST_ARGUMENTS = ["arg.share", "arg.num_shares"]
"""As what the last two arguments of a kernel appear in its compiled function."""

WORD, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()


def field(builder: ir.IRBuilder, frame: ir.Value, position: int) -> ir.Value:
    """The address of a field of the structure that ``frame`` points to."""
    return builder.gep(frame, [ir.IntType(32)(0), ir.IntType(32)(position)])


@intrinsic
def this_call(typing_context):
    """For use inside a kernel: the addresses of a function ``(frame, share)``, which repeats the call of the kernel that is going on with
    another share, and of the frame, a structure with a number that is set to 1 when a repetition fails, and the call's own arguments.

    A compiled function's arguments are: where to put its result, where to put its exception, then those of the Python function. Arrays are
    spread over several of them, an integer is one. Should a version of Numba pass other ones, both addresses are 0.
    """

    def generate(context, builder, signature, arguments):
        kernel, inputs = builder.function, builder.function.args[2:]
        names = [argument.name for argument in inputs]
        if not all(name.startswith("arg.") for name in names) or names[-2:] != LAST_ARGUMENTS:
            return context.make_tuple(builder, signature.return_type, [WORD(0), WORD(0)])
        layout = ir.LiteralStructType([WORD, *(argument.type for argument in inputs)])
        frame = cgutils.alloca_once(builder, layout)
        for position, value in enumerate([WORD(0), *inputs]):
            builder.store(value, field(builder, frame, position))
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [WORD, WORD]), builder.module.get_unique_name("repeat"))
        function.linkage = "internal"
        address, share = function.args
        repeat = ir.IRBuilder(function.append_basic_block())
        shared = repeat.inttoptr(address, layout.as_pointer())
        values = [repeat.load(field(repeat, shared, 1 + position)) for position in range(len(inputs))]
        values[-2] = share
        outputs = [repeat.bitcast(repeat.alloca(POINTER), argument.type) for argument in kernel.args[:2]]
        status = repeat.call(kernel, [*outputs, *values])
        with repeat.if_then(repeat.icmp_signed("!=", status, status.type(0))):
            repeat.store(WORD(1), field(repeat, shared, 0))
        repeat.ret_void()
        return context.make_tuple(builder, signature.return_type, [builder.ptrtoint(at, WORD) for at in (function, frame)])

    return types.UniTuple(types.intp, 2)(), generate


@intrinsic
def repeat_call(typing_context, function, frame, share):
    """Call what :func:`this_call` describes, for one share."""

    def generate(context, builder, signature, arguments):
        address, *rest = arguments
        builder.call(builder.inttoptr(address, ir.FunctionType(ir.VoidType(), [WORD, WORD]).as_pointer()), rest)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def number_at(typing_context, address):
    """The integer in memory at an address."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], WORD.as_pointer()))

    return types.intp(types.intp), generate


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


is_ahead = False
"""Whether this process was started by :func:`hcrot.kernels.ahead.start`."""


@functools.cache
def prepare() -> None:
    """Once per process, before the first kernel: settle BLAS and memory; if kernels are about to be compiled, say so and get help."""
    hold_scipy_blas_to_one_thread()
    keep_freed_memory()
    # Kernels from the cache call into Numba's threading layer, but Numba forgets to load it for those that it compiled with a `launch`
    # that was itself from the cache: their calls then end the process.
    numba.get_num_threads()
    if not numba.config.DISABLE_JIT and not has_compiled_kernels() and not is_ahead:
        print("hcrot: compiling kernels (first run only, about 15 seconds)", file=sys.stderr, flush=True)
        if get_num_threads() > 1:
            ahead.start()


def has_compiled_kernels() -> bool:
    """Whether compiled kernels are cached on disk. Those older than any kernel's source are dropped first: Numba itself looks only at the
    file of the kernel that is called, and would go on using what that kernel had compiled in from another file before it changed."""
    compiled = list(Path(launch._cache.cache_path).glob("*.nbi"))
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
