"""Threads of hcrot's own: they wait for a kernel's shares, take them one by one, and sleep when there are none for a while.

All that threads tell each other stands in one block of memory, the **pool**. A kernel's call is offered there as a *ticket*, one word:

    ticket = generation (32 bits) | number of shares (16 bits) | next share to be taken (16 bits)

A thread takes a share by adding 1 to the ticket, by an atomic compare-and-exchange. Function and frame of the call (see ``launch.py``)
stand beside it, and are written before the ticket is. If the exchange succeeds the ticket was still the one that was read before, so
function and frame belong to it. The caller takes shares like all others. When none are left it waits for those that others have taken.

**Good manners.** Nobody's machine is idle. With fixed shares, a thread whose core was given to another program keeps all others waiting
for a time slice, some milliseconds. Here it is late for the tickets of that time, and the others take its shares. Only a share that it has
begun is waited for. Who waits does so for a while (``PATIENCE``), then sleeps. A core that sleeps is free: the operating system moves a
thread there that waits for its core elsewhere, perhaps the very one that holds the share. Sleeping and waking take some 50 microseconds, so
to sleep at once would slow down an idle machine.

**One call at a time.** A second Python thread that calls a kernel meanwhile does all its shares by itself.

A forked process has none of its parent's threads. It makes itself a new pool. Where the C library has no POSIX threads (Windows),
``launch.py`` does the shares otherwise.

Source of the way to sleep without missing a ticket: Dekker's rule. Each side first writes its own word (a ticket; "I sleep"), then reads
the other's, with sequentially consistent order. So at least one of them sees what the other has written.
"""

import atexit
import ctypes
import functools
import os
import threading
import time
from typing import Any

import numpy as np

from hcrot.kernels.cache import compile_cached, compile_function
from hcrot.kernels.compiler import cgutils, intrinsic, ir, llvmlite, types

__all__ = ["PATIENCE", "pool_for", "run_by_address"]

PATIENCE = 200_000
"""Nanoseconds for which a thread looks for work, or the caller for the end of a share, before it sleeps; after a longer share for as long
as that took. On a virtual machine a core that sleeps is given to others, so sleeping between large kernels costs much: measured on Zen 3, a
training step of rgb32 took 1.2 times as long. And a share of milliseconds that ends a little later than its neighbour is no sign of a busy
machine."""

LONGEST = 10_000_000
"""Nanoseconds, the most of it."""

# Places in the pool, in bytes. What different threads write lies 128 bytes apart: processors fetch cache lines in pairs.
RUN, BUSY, TICKET, FUNCTION, FRAME, DONE, ASLEEP, WAITING = 0, 128, 256, 384, 392, 512, 640, 768
STOP, LOCK, WORK, END, SIZE = 896, 1024, 1152, 1280, 1408

CLOCK = getattr(time, "CLOCK_MONOTONIC", 0)

WORD = ir.IntType(64)
SEQUENTIAL = "seq_cst"

# ---------------------------------------------------------------- instructions


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, WORD.as_pointer())


@intrinsic
def read(typing_context, address):
    """The word at an address, atomically."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_pointer(builder, arguments[0]), SEQUENTIAL, 8)

    return types.intp(types.intp), generate


@intrinsic
def write(typing_context, address, value):
    """Set the word at an address, atomically."""

    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), SEQUENTIAL, 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def add(typing_context, address, value):
    """Add to the word at an address, atomically."""

    def generate(context, builder, signature, arguments):
        builder.atomic_rmw("add", _pointer(builder, arguments[0]), arguments[1], SEQUENTIAL)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def exchange(typing_context, address, expected, value):
    """Set the word at an address if it is what is expected, atomically; whether it was."""

    def generate(context, builder, signature, arguments):
        address, expected, value = arguments
        pair = builder.cmpxchg(_pointer(builder, address), expected, value, SEQUENTIAL, SEQUENTIAL)
        return builder.extract_value(pair, 1)

    return types.boolean(types.intp, types.intp, types.intp), generate


@intrinsic
def pause(typing_context):
    """Tell the processor that this is a loop that waits; nothing where LLVM knows no such instruction."""

    def generate(context, builder, signature, arguments):
        name = {"x86_64": "llvm.x86.sse2.pause", "i686": "llvm.x86.sse2.pause"}.get(llvmlite.binding.get_process_triple().split("-")[0])
        if name:
            builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), name), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def nanoseconds(typing_context):
    """A clock that only goes forward."""

    def generate(context, builder, signature, arguments):
        place = cgutils.alloca_once(builder, ir.ArrayType(WORD, 2))  # seconds, nanoseconds
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32), WORD])
        function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(function, [ir.IntType(32)(CLOCK), builder.ptrtoint(place, WORD)])
        seconds, rest = (builder.load(builder.gep(place, [WORD(0), WORD(part)])) for part in (0, 1))
        return builder.add(builder.mul(seconds, WORD(10**9)), rest)

    return types.intp(), generate


@intrinsic
def run_share(typing_context, function, frame, share):
    """Do one share of a call."""

    def generate(context, builder, signature, arguments):
        address, *rest = arguments
        builder.call(builder.inttoptr(address, ir.FunctionType(ir.VoidType(), [WORD, WORD]).as_pointer()), rest)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def run_by_address(typing_context, pool, function, frame, num_shares):
    """:func:`run_all` of a pool, whose address is the pool's first word."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [WORD] * 4)
        builder.call(builder.inttoptr(builder.load(_pointer(builder, arguments[0])), kind.as_pointer()), arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


POSIX = {
    name: types.ExternalFunction(f"pthread_{name}", types.int32(*[types.intp] * count))
    for name, count in {"mutex_lock": 1, "mutex_unlock": 1, "cond_wait": 2, "cond_signal": 1}.items()
}
mutex_lock, mutex_unlock, cond_wait, cond_signal = POSIX.values()

# ---------------------------------------------------------------- what threads do

inner = compile_function(no_cpython_wrapper=True)


@inner
def is_offered(ticket):
    """Whether there are shares left to take."""
    return ticket & 0xFFFF < ticket >> 16 & 0xFFFF


@inner
def do_shares(pool):
    """Take shares and do them until none are left; whether there were any."""
    did = False
    ticket = read(pool + TICKET)
    while is_offered(ticket):
        function, frame = read(pool + FUNCTION), read(pool + FRAME)
        if exchange(pool + TICKET, ticket, ticket + 1):
            run_share(function, frame, ticket & 0xFFFF)
            add(pool + DONE, 1)
            did = True
        ticket = read(pool + TICKET)
    return did


def run_all(pool, function, frame, num_shares):
    """Do all shares of a call, with whatever threads come to help, and return when all are done."""
    if not exchange(pool + BUSY, 0, 1):
        for share in range(num_shares):
            run_share(function, frame, share)
        return
    write(pool + DONE, 0)
    write(pool + FUNCTION, function)
    write(pool + FRAME, frame)
    write(pool + TICKET, ((read(pool + TICKET) >> 32) + 1) << 32 | num_shares << 16)
    wanted = min(read(pool + ASLEEP), num_shares - 1)
    if wanted > 0:
        mutex_lock(pool + LOCK)
        for _ in range(wanted):
            cond_signal(pool + WORK)
        mutex_unlock(pool + LOCK)
    begin = nanoseconds()
    do_shares(pool)
    end = nanoseconds()
    patience = min(max(PATIENCE, end - begin), LONGEST)
    while read(pool + DONE) < num_shares:
        pause()
        if nanoseconds() - end > patience:
            mutex_lock(pool + LOCK)
            write(pool + WAITING, 1)
            while read(pool + DONE) < num_shares:
                cond_wait(pool + END, pool + LOCK)
            write(pool + WAITING, 0)
            mutex_unlock(pool + LOCK)
    write(pool + BUSY, 0)


def help_others(pool):
    """What a thread of the pool does until it is told to stop."""
    begin = end = nanoseconds()
    patience = PATIENCE
    while not read(pool + STOP):
        begin = nanoseconds()
        if do_shares(pool):
            end = nanoseconds()
            patience = min(max(PATIENCE, end - begin), LONGEST)
            if read(pool + WAITING):
                mutex_lock(pool + LOCK)
                cond_signal(pool + END)
                mutex_unlock(pool + LOCK)
        pause()
        if begin - end > patience:
            mutex_lock(pool + LOCK)
            add(pool + ASLEEP, 1)
            while not is_offered(read(pool + TICKET)) and not read(pool + STOP):
                cond_wait(pool + WORK, pool + LOCK)
            add(pool + ASLEEP, -1)
            mutex_unlock(pool + LOCK)
            end = nanoseconds()


# ---------------------------------------------------------------- the pool


@functools.cache
def compiled() -> tuple[Any, Any, int]:
    """:func:`run_all` and :func:`help_others`, compiled or read from the disk, and the address of the first, which holds as long as that is
    kept."""
    functions = [compile_cached(run_all, no_cfunc_wrapper=False), compile_cached(help_others)]
    for function, count in zip(functions, (4, 1), strict=True):
        function.compile(types.void(*[types.intp] * count))
    (result,) = functions[0].overloads.values()
    return *functions, result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)


class Pool:
    """The memory that threads share, and the threads.

    Args:
        posix: the C library.
    """

    def __init__(self, posix: ctypes.CDLL):
        run, help_others, address = compiled()
        self.memory = np.zeros(SIZE // 8, np.int64)
        self.address = self.memory.ctypes.data
        self._posix, self._help, self._kept = posix, help_others, run
        self.threads: list[threading.Thread] = []
        self._ended = False
        for place, make in ((LOCK, posix.pthread_mutex_init), (WORK, posix.pthread_cond_init), (END, posix.pthread_cond_init)):
            make(ctypes.c_void_p(self.address + place), None)
        self.memory[RUN // 8] = address

    def grow(self, threads: int) -> None:
        """See to it that there are so many, but none when the process ends."""
        while len(self.threads) < threads and not self._ended:
            thread = threading.Thread(target=self._work, name=f"hcrot-{len(self.threads)}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def _work(self) -> None:
        self._help(self.address)

    def stop(self) -> None:
        """End the threads, before what they run is gone. The pool can be used further: the caller then does all shares."""
        self._ended = True
        self.memory[STOP // 8] = 1
        lock = ctypes.c_void_p(self.address + LOCK)
        self._posix.pthread_mutex_lock(lock)
        self._posix.pthread_cond_broadcast(ctypes.c_void_p(self.address + WORK))
        self._posix.pthread_mutex_unlock(lock)
        for thread in self.threads:
            thread.join(1.0)


_pool: Pool | None = None
_growing = threading.Lock()


def pool_for(num_shares: int) -> int:
    """The address of a pool with at least so many threads, the caller being one of them; 0 where there is none."""
    global _pool
    if _pool is not None and len(_pool.threads) >= num_shares - 1:
        return _pool.address
    posix = posix_threads()
    if posix is None:
        return 0
    with _growing:
        if _pool is None:
            _pool = Pool(posix)
            atexit.register(_pool.stop)
        _pool.grow(num_shares - 1)
    return _pool.address


@functools.cache
def posix_threads() -> ctypes.CDLL | None:
    """The C library, if it has POSIX threads."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if all(hasattr(library, f"pthread_{name}") for name in POSIX) else None


def forget_pool() -> None:
    """In a child process made by ``fork``: the parent's threads are not there, and its locks may be held for ever."""
    global _pool, _growing
    if _pool is not None:
        atexit.unregister(_pool.stop)
    _pool, _growing = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_pool)
