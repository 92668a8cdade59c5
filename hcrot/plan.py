"""A plan for inference: what the kernels of a forward pass were called with, to be done again without the layers.

A sampler calls a network hundreds of times with arrays of the same shapes. At a small batch the way through the layers, in Python, takes as
long as the arithmetic. :func:`planned` decorates a method that makes an array from arrays. In inference it does this, per shape of
the arrays, number of threads and thread:

    first call     the method
    second call    the method, while its kernel calls are recorded; a replay of them is built and tried
    later calls    the replay

The layers know nothing of it. An answer is never an old one:

- Parameters are read where they lie, so a change of their numbers needs no notice.
- Everything else that a pass depends on is compared at every call: every attribute of every module (modes, hyperparameters, parts), every
  list, every parameter's array, every module's class and every attribute of it, all by identity. A difference drops the plan.
- A replay is used only if it gave, for other inputs, the same bits as the method, in memory that was full of NaN before. So what NumPy has
  computed between two kernels is found out: such a network has no plan, and neither has one of more than ``MOST_BYTES``.
- Only networks whose classes and methods are all hcrot's own have a plan. The method of somebody else may look at the numbers and do now
  this, now that.
- In training, and in plain NumPy (``hcrot.plain``), there is no plan, and the memory of the earlier ones is given back.
"""

import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from itertools import chain
from operator import is_
from typing import Any

import numpy as np

from hcrot.kernels.compiler import numba
from hcrot.kernels.im2col import channels_first
from hcrot.kernels.jit import get_num_threads
from hcrot.kernels.launch import recorded
from hcrot.kernels.plain import is_plain
from hcrot.kernels.replay import CannotReplay, Replay
from hcrot.module import Module
from hcrot.passes import thread

__all__ = ["MOST_BYTES", "planned"]

MOST_BYTES = 2**25
"""What a plan may take. Where arrays are larger, the layers' share of the time is small."""

MOST_PLANS = 4
"""Of one module, for different shapes. One more takes the place of the oldest."""

Method = Callable[..., np.ndarray]


class _Plans(threading.local):
    """The plans of this thread, by module: a plan's memory serves one thread."""

    def __init__(self) -> None:
        self.of: weakref.WeakKeyDictionary[Module, dict[tuple, _Plan]] = weakref.WeakKeyDictionary()


plans = _Plans()


def planned(method: Method) -> Method:
    """Have a method ``(self, *arrays) -> array`` of a Module follow a plan in inference. It may depend on the module and on the arrays
    alone; the arrays are C-contiguous or in memory channels-last, or are taken so."""

    @functools.wraps(method)
    def call(self: Module, *arrays: np.ndarray) -> np.ndarray:
        if self.training or is_plain() or numba.config.DISABLE_JIT:
            plans.of.pop(self, None)
            return method(self, *arrays)
        known = plans.of.setdefault(self, {})
        key = (call, get_num_threads(), id(self) in thread.inference, *[(array.shape, array.dtype) for array in arrays])
        plan = known.get(key)
        if plan is None or not plan.holds(self):
            known.pop(key, None)
            if len(known) >= MOST_PLANS:
                known.pop(next(iter(known)))
            known[key] = _Plan(self)
            return method(self, *arrays)
        return plan.follow(functools.partial(method, self), arrays)

    return call


class _Plan:
    """What is known of a method's pass for arrays of certain shapes.

    Attributes:
        replay: None before it was built, and for ever where it cannot be.
        refused: why it cannot be.
    """

    def __init__(self, module: Module):
        self.replay: Replay | None = None
        modules = module.modules()
        classes = {base for part in modules for base in type(part).__mro__ if base is not object}
        self._dicts = [vars(part) for part in modules] + [vars(base) for base in classes]
        self._lists = [value for part in modules for value in vars(part).values() if isinstance(value, list)]
        self._parameters = [parameter for _, parameter in module.named_parameters()]
        self._parts = modules[1:]  # not the module itself: a plan ends with it
        self._before = self._now(module)
        self.refused = None if self._own() and not any(part.training for part in modules) else "not all is hcrot's own, or in inference"

    def holds(self, module: Module) -> bool:
        """Whether nothing has changed that a pass of the module depends on."""
        now = self._now(module)
        return len(now) == len(self._before) and all(map(is_, now, self._before))

    def _now(self, module: Module) -> list[Any]:
        """Everything that is compared."""
        data = [parameter.data for parameter in self._parameters]
        values = chain.from_iterable([part.values() for part in self._dicts])
        types = [type(module), *map(type, self._parts)]
        return [*chain.from_iterable(self._dicts), *values, *chain.from_iterable(self._lists), *data, *types]

    def _own(self) -> bool:
        """Whether every function that a pass may call is one of hcrot's."""
        values = chain.from_iterable(part.values() for part in self._dicts)
        return all(str(getattr(value, "__module__", "")).startswith("hcrot.") for value in values if callable(value))

    def follow(self, method: Method, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        """What the method makes of the arrays."""
        if self.replay is not None:
            return self._repeated(self.replay, arrays).copy(order="K")
        if self.refused is not None:
            return method(*arrays)
        self.inputs = [_copy(array) for array in arrays]
        with recorded() as calls:
            result = method(*self.inputs)
        try:
            self.replay = self._tried(method, calls, result)
        except CannotReplay as error:
            self.refused = str(error)
        return result

    def _tried(self, method: Method, calls: list[tuple], result: np.ndarray) -> Replay:
        """A replay that gives what the method gives.

        Raises:
            CannotReplay: there is none.
        """
        replay = Replay(calls, self.inputs, [parameter.data for parameter in self._parameters], result, MOST_BYTES)
        given = [_copy(array) for array in self.inputs]
        others = [array[::-1] * 0.75 + 0.125 for array in given]
        expected = method(*map(_copy, others))
        replay.memory[: replay.memory.size // 8 * 8].view(np.float64).fill(np.nan)
        for arrays, output in ((others, expected), (given, result)):
            if not np.array_equal(self._repeated(replay, arrays), output, equal_nan=True):
                raise CannotReplay("the layers do more than call kernels")
        return replay

    def _repeated(self, replay: Replay, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """What the replay makes of the arrays: its output, which the next replay overwrites."""
        for place, array in zip(self.inputs, arrays, strict=True):
            np.copyto(place, array)
        replay()
        return replay.output


def _copy(array: np.ndarray) -> np.ndarray:
    """A copy in the memory order in which kernels read it: images channels-last."""
    return channels_first(np.array(array.transpose(0, 2, 3, 1), order="C")) if array.ndim == 4 else np.array(array, order="C")
