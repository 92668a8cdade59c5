"""The processes of one job, started by ``mpiexec -n 4 python train.py``: who is who, and how they agree. The *ranks*, as MPI calls them.

    with job() as ranks:
        while step < steps and not ranks.agree(stop):
            ...
            if ranks.first:
                save_checkpoint(...)

A program that mpiexec has not started is a job of one rank: all is as if this file were not there, and mpi4py is never imported. How
the ranks share the gradient of a step is in ``gradient_parts.py``.

**Nobody waits for the dead.** Where one rank ends by an error while others wait for it, the job is aborted (:func:`job`). A rank that is
killed takes the others along: mpiexec sees to that.

**Waiting is polite.** MPI waits by looking without pause, on a core that others could use, and Python would not see signals meanwhile. Here
who waits looks and sleeps in turn, for a twentieth of the time that it has waited.
"""

import atexit
import hashlib
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, Protocol

import numpy as np

__all__ = ["Ranks", "Stop", "abort", "exit_code", "job", "one_process", "share_cores", "wait_for"]

VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
"""One of these is set by every program that starts ranks: MPICH's and Intel's mpiexec, Open MPI's, and srun."""
PATIENCE = 2.0
"""Seconds that a rank that fails gives the others to fail, too, before it aborts the job."""


class Stop(Protocol):
    """What a signal has asked for, such as :class:`hcrot.tools.stopping.StopRequest`: 0, or the exit code."""

    exit_code: int


class Ranks:
    """The ranks of a job, as one of them sees it.

    Args:
        comm: mpi4py's communicator, of this object alone. None: a job of one rank.

    Attributes:
        rank: the number of this one, from 0.
        size: how many there are.
        first: whether this is rank 0, which alone writes files.
        quiet: whether to show no progress, because another rank does or there is nobody to show it to.

    Every method but :meth:`share` is to be called by all ranks, in the same order.
    """

    def __init__(self, comm: Any = None):
        self.comm = comm
        self.rank: int = 0 if comm is None else comm.Get_rank()
        self.size: int = 1 if comm is None else comm.Get_size()
        self.first = self.rank == 0
        self.quiet = not self.first or sys.stderr is None

    def __repr__(self) -> str:
        return f"Ranks(rank={self.rank}, size={self.size})"

    def share(self, count: int) -> range:
        """Which of ``count`` things are this rank's: the ranks share them all, in order, and as evenly as can be."""
        return self.share_of(self.rank, self.size, count)

    @staticmethod
    def share_of(rank: int, size: int, count: int) -> range:
        """:meth:`share` of any rank in a job of any size."""
        return range(rank * count // size, (rank + 1) * count // size)

    def say_idle(self, parts: int, option: str) -> None:
        """Print it if a step has fewer parts than there are ranks, and by which option of the command line a new run has more."""
        if parts < self.size:
            idle, noun = self.size - parts, "part" if parts == 1 else "parts"
            print(f"A step of this run has {parts} {noun}: {idle} of the {self.size} processes {'has' if idle == 1 else 'have'} nothing of "
                  f"their own to do. A new run can have more parts: {option}.")  # fmt: skip

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The first rank does the ``with`` block alone, then all others: it makes the files that they find."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wait(self) -> None:
        """Wait until all ranks have come here."""
        self.of_first(0.0)

    def of_first(self, number: float) -> float:
        """Rank 0's number."""
        return float(self.gather(np.float64(number))[0])

    def agree(self, stop: Stop) -> bool:
        """Whether any rank was asked to stop. Then all were: its exit code is in everyone's ``stop``, so that all do the same.

        A signal that comes while the ranks ask each other stays noted for the next time.
        """
        exit_code = int(self.gather(np.int64(stop.exit_code)).max())
        if exit_code:  # a 0 written back would undo what a signal has noted since it was read
            stop.exit_code = exit_code
        return exit_code != 0

    def gather(self, array: np.ndarray | np.number) -> np.ndarray:
        """An array of each rank, of one shape and dtype, stacked in the order of the ranks."""
        sent = np.ascontiguousarray(array)
        if self.comm is None:
            return sent.reshape(1, *np.shape(array)).copy()
        received = np.empty((self.size, *np.shape(array)), sent.dtype)
        wait_for(self.comm.Iallgather(sent, received))
        return received

    def check_equal(self, name: str, arrays: Iterable[np.ndarray]) -> None:
        """Find out whether ranks have drifted apart, by a hash: a defect of memory, other processors, a mistake in a program.

        Args:
            name: what the arrays are, for the message.
            arrays: the same on every rank, bit for bit.

        Raises:
            RuntimeError: they are not, on every rank; names the ranks whose arrays differ from rank 0's.
        """
        if self.size == 1:
            return
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        digests = self.gather(np.frombuffer(digest.digest(), np.uint8))
        others = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
        if others:
            numbers = ", ".join(map(str, others))
            raise RuntimeError(f"{name} of rank {numbers} differ from those of rank 0, expected the same, bit for bit")


def wait_for(request: Any, seconds: float = math.inf) -> bool:
    """Wait for mpi4py's request, at most for so long; whether it was done."""
    start = time.monotonic()
    while not request.Test():
        waited = time.monotonic() - start
        if waited > seconds:
            return False
        time.sleep(min(waited / 20, 0.01))
    return True


@contextmanager
def job() -> Iterator[Ranks]:
    """The ranks of this program's job, within the ``with`` block that does all the work. One program has one such block.

    Ranks on one machine share its cores, unless they set their number of threads. All but the first print nothing on stdout.

    All ranks leave the block together. If one leaves it by an exception and the others do not come within PATIENCE seconds, the job is
    aborted as soon as the exception has ended the program, and has had its message. Where rank 0 fails as well, its message speaks for all.
    So it is when a signal ends one rank while it waits here for the others.

    Raises:
        ImportError: mpiexec has started this, and there is no mpi4py.
    """
    if not any(name in os.environ for name in VARIABLES):
        yield Ranks()
        return
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(f'mpiexec has started this program, which then needs mpi4py: pip install "hcrot[mpi]" ({error})') from error
    ranks, end = Ranks(MPI.COMM_WORLD.Dup()), MPI.COMM_WORLD.Dup()
    if ranks.size == 1:
        yield Ranks()
        return
    share_cores(MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).Get_size())
    first_failed, leaving = np.zeros(1, np.int32), None

    def leave(code: int, seconds: float = math.inf) -> bool:
        nonlocal leaving
        leaving = leaving or end.Iallreduce(np.array([code if ranks.first else 0], np.int32), first_failed, MPI.MAX)
        return wait_for(leaving, seconds)

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        try:
            if ranks.first:
                yield ranks
            else:
                with redirect_stdout(nowhere):
                    yield ranks
            leave(0)
        except BaseException as error:
            code = exit_code(error)
            atexit.register(abort, MPI.COMM_WORLD, code or 1)  # already now: a signal may end the waiting
            if leave(code, PATIENCE if code else math.inf):
                atexit.unregister(abort)
                if first_failed[0] and not ranks.first:
                    sys.exit(code)  # without a message
            raise


@contextmanager
def one_process(instead: str) -> Iterator[None]:
    """For the ``with`` block of a program that several processes cannot share.

    Args:
        instead: what to use where there are several, for the message.

    Raises:
        ValueError: mpiexec has started several, which would all do the same, and write the same files.
    """
    with job() as ranks:
        if ranks.size > 1:
            raise ValueError(f"mpiexec has started {ranks.size} processes, which would all do the same: {instead}")
        yield


def abort(comm: Any, code: int) -> None:
    """End all ranks, after a moment in which mpiexec passes on what this one has printed."""
    try:
        sys.stdout.flush()
        time.sleep(0.3)
    finally:  # also when standard output is closed, or at a signal
        comm.Abort(code)


def share_cores(ranks: int) -> None:
    """Let kernels use as many threads as this rank's share of the machine."""
    from hcrot.kernels.jit import get_num_threads, set_num_threads

    set_num_threads(max(1, get_num_threads() // ranks))


def exit_code(error: BaseException) -> int:
    """What a program that ends by this error will tell the shell, as hcrot's programs do."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, ValueError | TypeError | NotImplementedError | OSError | ImportError) else 1
