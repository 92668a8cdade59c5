"""Kernel calls that were recorded once, done again in memory of their own: all of them by one call from Python.

A network's forward pass at a small batch is some hundred kernel calls. Between them Python walks from layer to layer, which takes as long
as the kernels do. :func:`hcrot.kernels.launch.recorded` lists the calls of a forward pass. :class:`Replay` can repeat them, with other
numbers in the input.

**Memory.** What the calls read and write is one of three things: the inputs; the constants (a network's parameters), which are read where
they lie, at every replay anew; and the arrays in between. (Arrays of integers say where a kernel finds its numbers. They come from shapes,
so they are constants, too.) What lies in between is moved into one array of the replay's own. An array is needed from the first call that
it is an argument of to the last, so two that are not needed at the same time may share a place.

**What cannot be replayed** is what Python or NumPy does to the numbers between two kernels: a replay does not know of it. So nobody may
use a replay before it was seen to give what the layers give, bit for bit, for other inputs and with NaN in all of its own memory before
(``hcrot/plan.py``). An array that NumPy has filled would be found out by that.

A call is repeated by the function and the frame that :func:`hcrot.kernels.launch.this_call` describes, so it costs next to nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hcrot.kernels.cache import compile_cached
from hcrot.kernels.jit import aligned_empty
from hcrot.kernels.launch import FAILURE, number_at, share_bits
from hcrot.kernels.threads import pool_for, run_by_address, run_share

__all__ = ["CannotReplay", "Replay", "repeat_calls"]

FRAME = 4096
"""Bytes for what describes a call. The largest needs some 800."""

LINE = 64

class CannotReplay(Exception):
    """These calls cannot be repeated; the message says why."""


@compile_cached
def repeat_calls(calls: np.ndarray, pool: int) -> None:
    """Do calls (n, 3), each a function, its frame and its number of shares, one after the other, by a pool of threads.

    Raises:
        RuntimeError: an error was raised in one of them.
    """
    for k in range(calls.shape[0]):
        function, frame, num_shares = calls[k, 0], calls[k, 1], calls[k, 2]
        if num_shares == 1:
            run_share(function, frame, 0)
        else:
            run_by_address(pool, function, frame, num_shares)
    for k in range(calls.shape[0]):
        if number_at(calls[k, 1]) != 0:
            raise RuntimeError(FAILURE)


class Replay:
    """Recorded calls, ready to be repeated.

    Args:
        calls: from :func:`hcrot.kernels.launch.recorded`.
        inputs: arrays that the calls read. Write others into them before a replay.
        constants: arrays that the calls read and that are not to be moved.
        output: what the calls made.
        most_bytes: of memory of its own.

    Attributes:
        output: in that memory: the view that ``output`` was, to be copied after a replay.
        memory: all of it, as bytes.

    Raises:
        CannotReplay: a call cannot be described, the output is none of the arrays of the calls, or it would take too much memory.
    """

    def __init__(
        self, calls: Sequence[tuple], inputs: Sequence[np.ndarray], constants: Sequence[np.ndarray], output: np.ndarray, most_bytes: int
    ):
        self._fixed = [_bounds(array) for array in [*inputs, *constants] if array.size]
        self._kept = [*inputs, *constants]  # the frames hold their addresses
        arrays = [[value for value in arguments if isinstance(value, np.ndarray)] for _, arguments, _ in calls]
        lives: dict[int, list] = {}  # address of an owner of memory: the owner, the first and the last call that need it
        for number, members in enumerate([*arrays, [output]]):
            for array in members:
                if array.size and not self._is_fixed(array):
                    owner = _owner(array)
                    lives.setdefault(owner.ctypes.data, [owner, number, number])[2] = number
        if _owner(output).ctypes.data not in lives or lives[_owner(output).ctypes.data][1] == len(calls):
            raise CannotReplay("the output is no array that a kernel has written")
        places, size = _place(list(lives.values()))
        if size > most_bytes:
            raise CannotReplay(f"it takes {size} bytes, more than {most_bytes}")
        self.memory = aligned_empty(size, np.empty(0, np.uint8))
        self._places = dict(zip(lives, places, strict=True))
        self.output = self._moved(output)
        self._frames = np.zeros((len(calls), FRAME // 8), np.int64)
        self._calls = np.zeros((len(calls), 3), np.int64)
        for number, (compiled, arguments, num_shares) in enumerate(calls):
            moved = [self._moved(value) if isinstance(value, np.ndarray) else value for value in arguments]
            self._kept += [value for value in moved if isinstance(value, np.ndarray)]
            self._describe(number, compiled, moved, num_shares)
        del self._places
        self._most_shares = max((num_shares for _, _, num_shares in calls), default=1)
        if self._most_shares > 1 and not pool_for(self._most_shares):
            raise CannotReplay("there is no pool of threads here")

    def __call__(self) -> None:
        """Do the calls again.

        Raises:
            RuntimeError: an error was raised in one of them.
        """
        repeat_calls(self._calls, pool_for(self._most_shares))

    def _describe(self, number: int, compiled: Any, arguments: list, num_shares: int) -> None:
        """Have the kernel write its function's address and size of its frame, and the frame, into a row of the frames."""
        frame = self._frames[number]
        compiled(*arguments, share_bits(frame.ctypes.data), num_shares)
        function, size = frame[0], frame[1]
        if function == 0 or size > FRAME - 16:
            raise CannotReplay("a kernel's call cannot be described")
        self._calls[number] = function, frame.ctypes.data + 16, num_shares

    def _is_fixed(self, array: np.ndarray) -> bool:
        low, high = _bounds(array)
        return array.dtype.kind != "f" or any(start <= low and high <= stop for start, stop in self._fixed)

    def _moved(self, array: np.ndarray) -> np.ndarray:
        """The same view, in the replay's memory."""
        if not array.size or self._is_fixed(array):
            return array
        owner = _owner(array)
        offset = self._places[owner.ctypes.data] + array.ctypes.data - _bounds(owner)[0]
        return np.ndarray(array.shape, array.dtype, self.memory, offset, array.strides)


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory this one shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _bounds(array: np.ndarray) -> tuple[int, int]:
    """The address of its first byte, and of the one after its last."""
    start = array.ctypes.data
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + array.itemsize


def _place(lives: list[list]) -> tuple[list[int], int]:
    """A place for each (owner, first, last) such that no two that live at the same time overlap, and the bytes that all take: the largest
    are placed first, each as low as it fits."""
    placed: list[tuple[int, int, int, int]] = []
    places = [0] * len(lives)
    for index in sorted(range(len(lives)), key=lambda index: -lives[index][0].nbytes):
        owner, first, last = lives[index]
        size = -(-owner.nbytes // LINE) * LINE + LINE  # one line more, so that rows of equal size do not all begin alike
        place = 0
        for start, stop, others_first, others_last in sorted(placed):
            if others_first <= last and first <= others_last:
                if place + size <= start:
                    break
                place = max(place, stop)
        places[index] = place
        placed.append((place, place + size, first, last))
    return places, max((stop for _, stop, _, _ in placed), default=0)
