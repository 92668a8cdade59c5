"""Which backward belongs to which forward: the passes that the Module protocol counts, and the guard on what a pass keeps.

One call of a module from outside is one *pass*: the forward of that module and of every module that it calls, and then the backward of
all of them. Within a pass, a layer keeps what each of its forwards must remember on a stack, and each of its backwards takes the topmost.
So a layer that is used several times in one pass (a recurrent network, two branches with the same weights) gets the right gradients if the
backwards run in the opposite order of the forwards:

    h1 = layer(x); h2 = layer(h1)        forward, within the forward of a module that holds ``layer``
    d1 = layer.backward(d2)              backward: first that of the last forward,
    dx = layer.backward(d1)              then that of the first

Two passes cannot wait for their backward at the same time. If a second one begins before the first one's backward, the backward that comes
next may belong to either; hcrot raises an error instead of guessing. Inference keeps nothing and disturbs nothing.

State is per thread: a thread's passes and its inference are its own.
"""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["InplaceError", "Pass", "detect_inplace", "one_pass", "set_detect_inplace"]


class Pass:
    """One forward through one or more modules, and the backward that answers it.

    Attributes:
        over: backward has begun, or the forward ended in an exception. What is still kept of it may be dropped.
        unsure: another pass was waiting for its backward at the same time, so a backward could belong to either.
    """

    __slots__ = ("_round", "over", "unsure")
    current_round = 0

    def __init__(self) -> None:
        self.over = self.unsure = False
        self._round = Pass.current_round

    @property
    def waiting(self) -> bool:
        """Whether a backward is still expected, so that to drop what is kept would be a loss."""
        return not self.over and self._round == Pass.current_round

    @staticmethod
    def give_up_waiting() -> None:
        """After an error: no pass that has begun so far may disturb the ones to come."""
        Pass.current_round += 1


class _Thread(threading.local):
    """What holds in this thread alone: the pass that is being run, and how many ``inference()`` blocks each module (by its id) is in."""

    def __init__(self) -> None:
        self.current_pass: Pass | None = None
        self.inference: dict[int, int] = {}


thread = _Thread()


@contextmanager
def one_pass() -> Iterator[None]:
    """Everything that is called within the ``with`` block belongs to one pass, so one layer may be called several times in it.

    Needed only where layers are called one by one. The forward of a Module is one pass by itself.

    Example:
        >>> layer = hcrot.Linear(3, 3)
        >>> with hcrot.one_pass():                            # two branches that share their weights
        ...     ya, yb = layer(a), layer(b)
        >>> db, da = layer.backward(dyb), layer.backward(dya) # in the opposite order
    """
    if thread.current_pass is not None:  # an outer block, or the forward of a module that holds this one
        yield
        return
    thread.current_pass = Pass()
    try:
        yield
    except BaseException:
        thread.current_pass.over = True
        raise
    finally:
        thread.current_pass = None


# ---------------------------------------------------------------- arrays that were changed between forward and backward


class InplaceError(RuntimeError):
    """An array that a layer keeps for its backward pass was written to in between."""


_detecting = False


def detecting_inplace() -> bool:
    """Whether :func:`set_detect_inplace` is on."""
    return _detecting


def set_detect_inplace(mode: bool) -> None:
    """Switch on (or off) a guard, for debugging: backward raises an :class:`InplaceError` if an array that is kept has been written to.

    Most layers keep their input until backward, without a copy. ``x *= 0`` between forward and backward then makes gradients wrong. With
    the guard, each layer takes a checksum of the arrays that it keeps, and compares it in backward. That takes time, so it is off by
    default. :func:`check_gradients` switches it on. It holds for all threads.

    Raises:
        TypeError: ``mode`` is not a bool.
    """
    global _detecting
    if not isinstance(mode, bool):
        raise TypeError(f"set_detect_inplace: mode must be True or False, got {type(mode).__name__}")
    _detecting = mode


@contextmanager
def detect_inplace(mode: bool = True) -> Iterator[None]:
    """:func:`set_detect_inplace` within a ``with`` block, which holds both the forward and the backward."""
    before = _detecting
    set_detect_inplace(mode)
    try:
        yield
    finally:
        set_detect_inplace(before)


def fingerprint(values: Any) -> tuple[int, ...]:
    """A checksum of each array among ``values``, tuples and lists of arrays included."""
    if isinstance(values, np.ndarray):
        return (zlib.crc32(np.ascontiguousarray(values).data),)
    if isinstance(values, (tuple, list)):
        return tuple(number for value in values for number in fingerprint(value))
    return ()
