"""Which backward belongs to which forward: the passes that the Module protocol counts, and the guard on what a pass keeps.

One call of a module from outside is one *pass*: the forward of that module and of every module that it calls, and then the backward of
all of them. Within a pass, a layer keeps what each of its forwards must remember on a stack, and each of its backwards takes the topmost.
So a layer that is used several times in one pass (a recurrent network, two branches with the same weights) gets the right gradients if the
backwards run in the opposite order of the forwards:

    h1 = layer(x); h2 = layer(h1)        forward, within the forward of a module that holds ``layer``
    d1 = layer.backward(d2)              backward: first that of the last forward,
    dx = layer.backward(d1)              then that of the first

Two passes cannot wait for their backward at the same time. If a second one begins before the first one's backward, the backward that comes
next may belong to either; hcrot raises an error instead of guessing. The same holds for a second pass that begins while the backward of the
first one is under way. Inference keeps nothing and disturbs nothing.

A backward may also stop in the middle, as in fine-tuning, where only the head of a network learns. What the layers below still keep is
dropped by their next forward. Until then it is there: whoever calls the whole network with these layers in inference, and goes back
through all of it, gets the gradient of what they kept. Call :meth:`hcrot.Module.forget` after a backward that stops in the middle.

A thread's passes and its inference are its own, so several threads may sample with one network, or train one network each. What a layer
keeps belongs to the layer. So two threads must not train the same network at the same time.
"""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["InplaceError", "Pass", "detect_inplace", "one_pass", "set_detect_inplace"]


WAITING, BEGUN, ENDED = "no backward yet", "backward has begun", "the forward failed, or nobody can tell whose backward it is"


class Pass:
    """One forward through one or more modules, and the backward that answers it.

    Attributes:
        state: WAITING, BEGUN or ENDED.
        rivals: passes that wait for their backward at the same time share one such object; None: there is no other.
    """

    __slots__ = ("rivals", "state")

    def __init__(self) -> None:
        self.state, self.rivals = WAITING, None  # type: str, Rivals | None

    def __reduce__(self) -> tuple[Callable, tuple]:
        """A copy of a network may take its backward, but nobody need wait for it."""
        return begun_pass, ()

    @property
    def waiting(self) -> bool:
        """Whether a backward is still expected, so that to drop what is kept would be a loss."""
        return self.state is WAITING and not (self.rivals and self.rivals.root.given_up)

    def follow(self, earlier: "Pass") -> "Pass | None":
        """Note that a module that keeps something of an ``earlier`` pass now drops it; that pass, if its backward may be under way."""
        if earlier.waiting:
            self.rivals = joined(self.rivals, earlier.rivals)
            earlier.rivals = self.rivals
        return earlier if earlier.state is BEGUN else None


def begun_pass() -> Pass:
    begun = Pass()
    begun.state = BEGUN
    return begun


class Rivals:
    """Passes of which a backward could belong to any.

    Attributes:
        given_up: an error has said so. They disturb no later pass.
    """

    __slots__ = ("given_up", "into")

    def __init__(self) -> None:
        self.given_up, self.into = False, None  # type: bool, Rivals | None

    @property
    def root(self) -> "Rivals":
        """The object that stands for all that were joined."""
        rivals = self
        while rivals.into is not None:
            rivals = rivals.into
        return rivals


def joined(a: Rivals | None, b: Rivals | None) -> Rivals:
    """One object for both."""
    if a is None or b is None:
        return (a or b or Rivals()).root
    first, second = a.root, b.root
    if first is not second:
        second.into = first
    return first


class _Thread(threading.local):
    """What holds in this thread alone.

    Attributes:
        current_pass: whose forward is being run.
        latest_backward: of which something kept was taken last.
        inference: how many ``inference()`` blocks each module, by its id, is in.
    """

    def __init__(self) -> None:
        self.current_pass: Pass | None = None
        self.latest_backward: Pass | None = None
        self.inference: dict[int, int] = {}


thread = _Thread()


@contextmanager
def one_pass() -> Iterator[None]:
    """Everything that is called within the ``with`` block belongs to one pass, so one layer may be called several times in it.

    Needed only where layers are called one by one. The forward of a Module is one pass by itself.

    Example:
        >>> layer, a, b = hcrot.Linear(3, 3), np.ones((1, 3), np.float32), np.zeros((2, 3), np.float32)
        >>> with hcrot.one_pass():                            # two branches that share their weights
        ...     ya, yb = layer(a), layer(b)
        >>> db, da = layer.backward(yb), layer.backward(ya)   # in the opposite order
    """
    if thread.current_pass is not None:  # an outer block, or the forward of a module that holds this one
        yield
        return
    thread.current_pass = Pass()
    try:
        yield
    except BaseException:
        thread.current_pass.state = ENDED
        raise
    finally:
        thread.current_pass = None


# ---------------------------------------------------------------- arrays that were changed between forward and backward


class InplaceError(RuntimeError):
    """An array that a layer keeps for its backward pass, or one of its parameters, was written to in between.

    Example:
        >>> layer, x = hcrot.Linear(2, 2), np.ones((1, 2), np.float32)
        >>> with hcrot.detect_inplace():
        ...     dout = layer(x)
        ...     x *= 0
        ...     layer.backward(dout)
        Traceback (most recent call last):
            ...
        hcrot.passes.InplaceError: Linear: an array that forward kept for backward was changed in between: change a copy
    """


_detecting = False


def detecting_inplace() -> bool:
    """Whether :func:`set_detect_inplace` is on."""
    return _detecting


def set_detect_inplace(mode: bool) -> None:
    """Switch on (or off) a guard, for debugging: backward raises an :class:`InplaceError` if an array that is kept has been written to.

    Most layers keep their input until backward, without a copy. ``x *= 0`` between forward and backward then makes gradients wrong. So does
    a change of the weights, such as an optimizer's step in between. With the guard, each layer takes a checksum of the arrays that it keeps
    and of its own parameters, and compares it in backward. That takes time, so it is off by default. :func:`check_gradients` switches it
    on. It holds for all threads.

    Raises:
        TypeError: ``mode`` is not a bool.

    Example:
        >>> hcrot.set_detect_inplace(True)
        >>> layer, x = hcrot.SiLU(), np.ones(2, np.float32)
        >>> layer.backward(layer(x)).round(3)                     # as without it: nobody has written to x
        array([0.678, 0.678], dtype=float32)
        >>> hcrot.set_detect_inplace(False)
    """
    global _detecting
    if not isinstance(mode, bool):
        raise TypeError(f"set_detect_inplace: mode must be True or False, got {type(mode).__name__}")
    _detecting = mode


@contextmanager
def detect_inplace(mode: bool = True) -> Iterator[None]:
    """:func:`set_detect_inplace` within a ``with`` block, which holds both the forward and the backward.

    Example:
        >>> layer, x = hcrot.SiLU(), np.ones(2, np.float32)
        >>> try:
        ...     with hcrot.detect_inplace():
        ...         dout = layer(x)
        ...         x += 1                                        # the layer needs it for its slope
        ...         layer.backward(dout)
        ... except hcrot.InplaceError as error:
        ...     print(error)
        SiLU: an array that forward kept for backward was changed in between: change a copy
    """
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
