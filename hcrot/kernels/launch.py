"""How the shares of a kernel's work get to threads: by hcrot's own (``threads.py``), or, where those cannot be used, by Python's.

A kernel offers *itself* to the threads, once for each share. For that it must know the address of its own compiled function and its own
arguments, which :func:`this_call` finds out.

**What a kernel is given, it borrows.** Inside a kernel Numba counts references to an array whenever it makes a slice of it, by an atomic
instruction. The arrays of a call are shared by all its threads, so the threads would take turns at the counter. But whoever calls the
kernel holds its arrays until it returns, so nobody need count. Each share is therefore given the arrays without their owner, and Numba
counts nothing for those.

This relies on how Numba passes arguments: the LLVM function of a compiled function receives a place for the result, a place for the
exception, and then the Python function's arguments, named ``arg.<name>``. That is not documented. :func:`this_call` looks at the names when
a kernel is compiled. If they are not those it expects, it gives the address 0, and the shares are then done by a pool of Python threads:
the same numbers, some 30 microseconds later. An array is passed as seven values and more, the first of which is a pointer to its owner,
named ``arg.<name>.0``.
"""

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from hcrot.kernels.compiler import cgutils, intrinsic, ir, numba, overload, types
from hcrot.kernels.threads import pool_for, run_by_address

__all__ = [
    "FAILURE", "describe", "launched", "number_at", "python_threads", "recorded", "recorder", "run_shares", "share_bits", "this_call",
    "usable_cores",
]  # fmt: skip

def share_bits(address: int) -> int:
    """The number of a share that stands for all of them, or for none.

    If the word at ``address`` is 0, the kernel describes its call in the memory there (see :func:`describe`) and does nothing. Else
    ``address`` is that of a pool of threads, which do all shares.
    """
    return -address


def usable_cores() -> int:
    """How many threads hcrot may use on the cores that this process may run on."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, numba.config.NUMBA_NUM_THREADS)


def run_shares(compiled: Any, arguments: tuple, num_shares: int) -> None:
    """Do all shares of a kernel's work, at the same time, and return when all are done.

    Args:
        compiled: the compiled kernel.
        arguments: all but the last two, ``share`` and ``num_shares``.
        num_shares: at least 2.

    Raises:
        RuntimeError: an error was raised in one of the threads.
    """
    pool = pool_for(num_shares)
    if pool:
        try:
            compiled(*arguments, share_bits(pool), num_shares)
            return
        except NotImplementedError:  # of launched
            pass
    list(python_threads().map(lambda share: compiled(*arguments, share, num_shares), range(num_shares)))


@functools.cache
def python_threads() -> ThreadPoolExecutor:
    """What does the shares where the pool cannot: slower to start by some 30 microseconds."""
    return ThreadPoolExecutor(usable_cores(), "hcrot")


if hasattr(os, "register_at_fork"):  # the parent's threads are not in a child process
    os.register_at_fork(after_in_child=python_threads.cache_clear)


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
        if number_at(-share) == 0:
            describe(function, frame, size, -share)
            return True
        if function == 0:
            raise NotImplementedError
        run_by_address(-share, function, frame, num_shares)
        if number_at(frame) != 0:
            raise RuntimeError(FAILURE)
        return True

    return launched


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
def number_at(typing_context, address):
    """The integer in memory at an address."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], WORD.as_pointer()))

    return types.intp(types.intp), generate
