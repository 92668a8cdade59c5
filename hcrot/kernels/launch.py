"""How the shares of a kernel's work get to threads: by Numba's threads, or, where those cannot be used, by Python's.

Numba compiles a ``prange`` into a chain of five functions. To have that once instead of in each kernel, a kernel calls *itself* again for
each share, through :func:`launch`. For that it must know the address of its own compiled function and its own arguments, which
:func:`this_call` finds out.

**What a kernel is given, it borrows.** Inside a kernel Numba counts references to an array whenever it makes a slice of it, by an atomic
instruction. The arrays of a call are shared by all its threads, so the threads would take turns at the counter. But whoever calls the
kernel holds its arrays until it returns, so nobody need count. Each share is therefore given the arrays without their owner, and Numba
counts nothing for those.

This relies on how Numba passes arguments: the LLVM function of a compiled function receives a place for the result, a place for the
exception, and then the Python function's arguments, named ``arg.<name>``. That is not documented. :func:`this_call` looks at the names when
a kernel is compiled. If they are not those it expects, it gives the address 0, and the shares are then done by a pool of Python threads:
the same numbers, some 30 microseconds later. So does a process that was made by ``fork`` (see :func:`use_python_threads_after_fork`).
An array is passed as seven values and more, the first of which is a pointer to its owner, named ``arg.<name>.0``.
"""

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from hcrot.kernels.cache import compile_cached

__all__ = [
    "ALL", "FAILURE", "describe", "launch", "launched", "launching", "number_at", "python_threads", "recorded", "recorder", "repeat_call",
    "share_bits", "this_call", "usable_cores",
]  # fmt: skip

ALL = -1
"""The number of a share that stands for all of them."""


def share_bits(address: int) -> int:
    """The number of a share that stands for none: the kernel describes its call in the memory at this address (see :func:`describe`)."""
    return -address


forked = False
"""Whether this process was made by ``fork`` from one that had started Numba's threads."""


def usable_cores() -> int:
    """How many threads Numba may use on the cores that this process may run on."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, numba.config.NUMBA_NUM_THREADS)


def run_shares(compiled: Any, arguments: tuple, num_shares: int) -> None:
    """Do all shares of a kernel's work, at the same time, and return when all are done.

    With fewer shares than threads only as many threads are woken, for the call alone: waking a thread for nothing costs microseconds on an
    idle machine and a time slice, milliseconds, on a busy one.

    Args:
        compiled: the compiled kernel.
        arguments: all but the last two, ``share`` and ``num_shares``.
        num_shares: at least 2.

    Raises:
        RuntimeError: an error was raised in one of the threads.
    """
    if forked:
        run_in_python(compiled, arguments, num_shares)
        return
    with launching():
        threads = numba.get_num_threads() if num_shares < numba.config.NUMBA_NUM_THREADS else num_shares
        if num_shares < threads:
            numba.set_num_threads(num_shares)
        try:
            compiled(*arguments, ALL, num_shares)
        except NotImplementedError:  # of launch
            run_in_python(compiled, arguments, num_shares)
        finally:
            if num_shares < threads:
                numba.set_num_threads(threads)


def run_in_python(compiled: Any, arguments: tuple, num_shares: int) -> None:
    """:func:`run_shares` where Numba's threads cannot be used."""
    list(python_threads().map(lambda share: compiled(*arguments, share, num_shares), range(num_shares)))


@functools.cache
def python_threads() -> ThreadPoolExecutor:
    """What does the shares where :func:`launch` cannot: slower to start by some 30 microseconds."""
    return ThreadPoolExecutor(usable_cores(), "hcrot")


@functools.cache
def launching() -> AbstractContextManager:
    """What to hold while threads are launched: nothing, but for Numba's workqueue, which ends the process when two Python threads use it at
    once (it is what Numba takes where it finds neither OpenMP nor TBB)."""
    numba.get_num_threads()  # until it has been asked, there is no layer
    return threading.Lock() if numba.threading_layer() == "workqueue" else nullcontext()


def use_python_threads_after_fork() -> None:
    """In a child process made by ``fork``: Numba's threads are not there, and GNU's OpenMP ends the process that asks for them.

    ``fork`` is how Linux starts the processes of ``multiprocessing`` up to Python 3.13. If the parent had started Numba's threads, the
    child does its shares by Python threads of its own.
    """
    global forked
    forked = forked or getattr(numba.np.ufunc.parallel, "_is_initialized", True)
    python_threads.cache_clear()  # the parent's pool has no threads here, and its locks may be held for ever
    launching.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=use_python_threads_after_fork)


recorder = threading.local()
"""``calls``: the list to which this thread's kernel calls are added, if there is one."""


@contextmanager
def recorded() -> Iterator[list[tuple]]:
    """The kernel calls of this thread within the block, in order: (compiled kernel, arguments, number of shares)."""
    before, recorder.calls = getattr(recorder, "calls", None), []
    try:
        yield recorder.calls
    finally:
        recorder.calls = before


FAILURE = "an error was raised in one of a kernel's threads; was there memory left?"


def launched(share: int, num_shares: int) -> bool:
    """The first line of each kernel: whether it was called for ALL shares, which are then done when this returns, or for none."""
    return False


@overload(launched, inline="always")
def _compile_launched(share, num_shares):
    """Inlined, so that :func:`this_call` is the kernel's."""

    def launched(share, num_shares):
        if share >= 0:
            return False
        function, frame, size = this_call()
        if share == ALL:
            launch((function, frame), num_shares)
        else:
            describe(function, frame, size, -share)
        return True

    return launched


@functools.partial(compile_cached, parallel=True)
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
        raise RuntimeError(FAILURE)


LAST_ARGUMENTS = ["arg.share", "arg.num_shares"]
"""As what the last two arguments of a kernel appear in its compiled function."""

WORD, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()


def field(builder: ir.IRBuilder, frame: ir.Value, position: int) -> ir.Value:
    """The address of a field of the structure that ``frame`` points to."""
    return builder.gep(frame, [ir.IntType(32)(0), ir.IntType(32)(position)])


def is_owner(value: ir.NamedValue) -> bool:
    """Whether this value, of those that make up an array, is the pointer to the owner of its memory."""
    return value.name.endswith(".0") and value.type == POINTER


@intrinsic
def this_call(typing_context):
    """For use inside a kernel: two addresses, with which the kernel's own call can be repeated for another share, and a size.

    The first is that of a function ``(frame, share)``: it calls the kernel with the same arguments, but with this share. The second is that
    of the frame, which the function reads: a number that is set to 1 when a repetition fails, then the arguments of the call, the arrays
    without owner. The size is the frame's, in bytes.

    A compiled function's arguments are: where to put its result, where to put its exception, then those of the Python function. Arrays are
    spread over several of them, an integer is one. Should a version of Numba pass other ones, both addresses are 0.
    """

    def generate(context, builder, signature, arguments):
        kernel, inputs = builder.function, builder.function.args[2:]
        names = [argument.name for argument in inputs]
        if not all(name.startswith("arg.") for name in names) or names[-2:] != LAST_ARGUMENTS:
            return context.make_tuple(builder, signature.return_type, [WORD(0), WORD(0), WORD(0)])
        layout = ir.LiteralStructType([WORD, *(argument.type for argument in inputs)])
        frame = cgutils.alloca_once(builder, layout)
        lent = [ir.Constant(POINTER, None) if is_owner(value) else value for value in inputs]
        for position, value in enumerate([WORD(0), *lent]):
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
        size = WORD(context.get_abi_sizeof(layout))
        return context.make_tuple(builder, signature.return_type, [*(builder.ptrtoint(at, WORD) for at in (function, frame)), size])

    return types.UniTuple(types.intp, 3)(), generate


@intrinsic
def describe(typing_context, function, frame, size, address):
    """Write what :func:`this_call` tells to an address: the function's, the frame's size, the frame itself. It can then be called after the
    kernel has returned, as long as its arrays are there."""

    def generate(context, builder, signature, arguments):
        function, frame, size, address = arguments
        target = builder.inttoptr(address, WORD.as_pointer())
        for position, value in enumerate((function, size)):
            builder.store(value, builder.gep(target, [WORD(position)]))
        cgutils.raw_memcpy(builder, builder.gep(target, [WORD(2)]), builder.inttoptr(frame, WORD.as_pointer()), size, 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), generate


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
