"""The one mechanism of all eyes: for a while, every module's ``forward``, ``backward`` and ``save`` are called through a stand-in.

A stand-in is an attribute of the module itself, which Python finds before the method of its class. So everything is seen that calls a
module's forward or backward, in training and in inference, by ``module(x)`` or by name. The method does the work as ever, so the numbers
are the same. When the block is left the attributes are gone, and nothing is left that would cost anything.

A plan (``hcrot/plan.py``) follows a network's kernel calls without its layers. It holds only for networks whose methods are hcrot's own. A
stand-in says that it is not one of those, so a network that is watched goes through its layers, and begins a new plan afterwards.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hcrot.module import Module

__all__ = ["Call", "arrays_in", "check_module", "kept_bytes", "memory_of", "seeing"]


@dataclass(eq=False)
class Call:
    """One call of a module's forward or backward.

    Attributes:
        name: the module's, as in ``named_modules``; that of the model itself is "". A module of two names goes by the first.
        module: whose it is.
        way: "forward" or "backward".
        inputs, options: the positional arguments, and those by keyword.
        result: what it returned.
        seconds, inside: how long it took, and how much of that was in parts (and in whoever looked at them).
        saved: of forward: what the module handed to ``save``, a tuple for each time; only what was kept.
        offered: the same, also in inference, where nothing is kept.
    """

    name: str
    module: Module
    way: str
    inputs: tuple
    options: dict[str, Any]
    result: Any = None
    seconds: float = 0.0
    inside: float = 0.0
    saved: list[tuple] = field(default_factory=list)
    offered: list[tuple] = field(default_factory=list)

    @property
    def own_seconds(self) -> float:
        return self.seconds - self.inside


class _Eyes:
    """What the stand-ins of one block share: whom to tell, which calls are under way, and whether the block is still open."""

    def __init__(self, done: Callable[[Call], None], begun: Callable[[Call], None] | None):
        self.done, self.begun, self.under_way, self.closed = done, begun, list[Call](), False
        self.thread = threading.get_ident()

    @property
    def open(self) -> bool:
        return not self.closed and threading.get_ident() == self.thread


class _StandIn:
    """An attribute of a module, in the place of its method ``way``."""

    def __init__(self, eyes: _Eyes, name: str, module: Module, way: str):
        self.eyes, self.name, self.module, self.way = eyes, name, module, way
        self.before, self.method = vars(module).get(way), getattr(module, way)
        self.__module__ = "a stand-in, not hcrot's own"  # hcrot/plan.py reads it

    def __reduce__(self) -> tuple:
        """In a copy of the module it is the method of the copy: a copy is not watched."""
        return getattr, (self.module, self.way)

    def enter(self) -> None:
        vars(self.module)[self.way] = self

    def leave(self) -> None:
        """Where another stand-in has come between, this one stays, and passes calls on."""
        if vars(self.module).get(self.way) is not self:
            return
        if self.before is None:
            del vars(self.module)[self.way]
        else:
            vars(self.module)[self.way] = self.before


class _Calling(_StandIn):
    """Stands for forward or backward."""

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        eyes = self.eyes
        if not eyes.open:
            return self.method(*inputs, **options)
        entered = time.perf_counter()
        call = Call(self.name, self.module, self.way, inputs, options)
        if eyes.begun is not None:
            eyes.begun(call)
        eyes.under_way.append(call)
        try:
            begun = time.perf_counter()
            call.result = self.method(*inputs, **options)
            call.seconds = time.perf_counter() - begun
        finally:
            eyes.under_way.pop()
        eyes.done(call)
        if eyes.under_way:
            eyes.under_way[-1].inside += time.perf_counter() - entered
        return call.result


class _Saving(_StandIn):
    """Stands for save."""

    def __call__(self, *values: Any) -> None:
        call = self.eyes.under_way[-1] if self.eyes.open and self.eyes.under_way else None
        if call is not None and call.module is self.module:
            call.offered.append(values)
            if self.module.training:
                call.saved.append(values)
        self.method(*values)


@contextmanager
def seeing(model: Module, done: Callable[[Call], None], begun: Callable[[Call], None] | None = None) -> Iterator[None]:
    """Within the block, ``done`` is called after every forward and backward at and below ``model``: parts before the whole.

    ``begun`` is called before each of them, while its inputs are as they were handed in.
    Calls of other threads go unseen, and so do those that raise an error, and modules that join the model later.
    """
    eyes, stand_ins = _Eyes(done, begun), list[_StandIn]()
    seen: set[int] = set()
    for name, module in model.named_modules():
        if id(module) not in seen:
            seen.add(id(module))
            stand_ins += [_Calling(eyes, name, module, "forward"), _Calling(eyes, name, module, "backward")]
            stand_ins.append(_Saving(eyes, name, module, "save"))
    for stand_in in stand_ins:
        stand_in.enter()
    try:
        yield
    finally:
        eyes.closed = True
        for stand_in in stand_ins:
            stand_in.leave()


def check_module(owner: str, model: object) -> None:
    """Raise a TypeError that begins with ``owner`` unless this is a Module."""
    if not isinstance(model, Module):
        raise TypeError(f"{owner}: model must be a Module, got {type(model).__name__}")


def arrays_in(value: Any) -> list[np.ndarray]:
    """The arrays in a value, those in tuples, lists and dicts included."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for item in value for array in arrays_in(item)] if isinstance(value, (tuple, list)) else []


def memory_of(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory of this one: a view keeps all of it alive."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def kept_bytes(call: Call, counted: dict[int, np.ndarray]) -> int:
    """The bytes of memory that a forward has kept for its backward, and that were not counted before.

    Args:
        counted: memory that counts no more (what several layers keep counts once), by id. What this call keeps is added.
    """
    total = 0
    for array in arrays_in(tuple(call.saved)):
        memory = memory_of(array)
        if id(memory) not in counted:
            counted[id(memory)] = memory
            total += memory.nbytes
    return total
