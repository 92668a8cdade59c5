"""How :mod:`hcrot.gradcheck` calls a block whose backward adds to what its caller hands in, as those of ``models/unet_2d_blocks.py`` do.

    forward(h, temb, skips) -> y             backward(dy, dtemb, dskips) -> dh

A backward that takes more than the gradients of the outputs takes accumulators, one for each of these inputs:

    an array       an array of its shape, to which backward adds the gradient
    a list         a stack of gradients, the mirror of that of arrays: backward pushes the gradient of what forward has popped, and pops
                   that of what forward has pushed

Which inputs they belong to is told by names (``dtemb`` to ``temb``); where those do not fit, they belong to the last inputs, in order.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from hcrot.module import Module
from hcrot.passes import one_pass

__all__ = ["BlockCall", "as_tuple", "is_floating"]


def is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


class BlockCall:
    """Forward and backward of a module as functions of arrays alone: arrays in and out, and their gradients.

    Args:
        module: in training mode.
        inputs: arguments of its forward.
        generator: what an accumulator holds before backward is random, so that one that is written over shows.
        complain: called with a condition and a sentence that says what is wrong if the condition is true.

    Attributes:
        differentiated: a name and the array, of each array whose gradient backward tells.
        ends: by name, what the accumulators that are arrays held after the latest backward.

    Raises:
        TypeError: backward takes more arguments than there are gradients of outputs, and inputs that they could belong to.
    """

    def __init__(self, module: Module, inputs: tuple, generator: np.random.Generator, complain: Callable[[bool, str], None]):
        self.inputs, self.generator, self.complain = inputs, generator, complain
        self.accumulated: list[int] = []  # the inputs that have an accumulator, in the order in which backward takes them
        self.left: dict[int, int] = {}  # of a stack: how many arrays at its bottom forward does not touch
        self.pushed: dict[int, int] = {}  # and how many it leaves above them
        self.num_outputs = 0
        self.ends: dict[str, np.ndarray] = {}
        taken = [
            name
            for name, parameter in inspect.signature(module.backward).parameters.items()
            if parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if len(taken) > 1:
            passed = self._passed()
            with one_pass():
                self.num_outputs = len(as_tuple(module(*passed)))
            module.forget()
            self.accumulated = self._owners(module, taken[self.num_outputs :])
            for index in self.accumulated:
                if isinstance(inputs[index], list):
                    same = [before is after for before, after in zip(inputs[index], passed[index], strict=False)]
                    self.left[index] = [*same, False].index(False)
                    self.pushed[index] = len(passed[index]) - self.left[index]
        self.differentiated = []
        for index, value in enumerate(inputs):
            if is_floating(value):
                self.differentiated.append((f"input {index}", value))
            for place, array in enumerate(value if index in self.left else []):
                if place >= self.left[index]:
                    self.differentiated.append((f"input {index}[{place}]", array))

    def _owners(self, module: Module, extra: list[str]) -> list[int]:
        """Which inputs these further arguments of backward are the accumulators of."""
        arguments = list(inspect.signature(module.forward).parameters)
        possible = [
            index
            for index, value in enumerate(self.inputs)
            if is_floating(value) or (isinstance(value, list) and all(map(is_floating, value)))
        ]
        named = [arguments.index(name[1:]) for name in extra if name[:1] == "d" and name[1:] in arguments]
        if len(named) == len(extra) and set(named) <= set(possible):
            return named
        if len(possible) < len(extra):
            raise TypeError(
                f"check_gradients: {type(module).__name__}.backward takes {', '.join(extra)} besides the gradients of {self.num_outputs} "
                f"outputs, and there are {len(possible)} inputs that they could belong to: pass backward="
            )
        return possible[len(possible) - len(extra) :]

    def _passed(self) -> list[Any]:
        """The inputs, and stacks as copies, to be pushed to and popped from."""
        return [list(value) if isinstance(value, list) else value for value in self.inputs]

    def forward(self, module: Module, *_: Any) -> tuple:
        """The outputs, and after them what was pushed."""
        passed = self._passed()
        outputs = as_tuple(module(*passed))
        return (*outputs, *(array for index, left in self.left.items() for array in passed[index][left:]))

    def backward(self, module: Module, *douts: np.ndarray) -> list[Any]:
        """The gradient of each array in ``differentiated``, given those of what `forward` returns."""
        if not self.accumulated:
            return list(as_tuple(module.backward(*douts)))
        handed: dict[int, Any] = {}
        starts: dict[int, np.ndarray] = {}
        pushed = list(douts[self.num_outputs :])
        below = {index: [np.zeros_like(array) for array in self.inputs[index][:left]] for index, left in self.left.items()}
        for index in self.accumulated:
            if index in self.left:
                handed[index] = [*below[index], *pushed[: self.pushed[index]]]
                del pushed[: self.pushed[index]]
            else:
                starts[index] = self.generator.standard_normal(self.inputs[index].shape)
                handed[index] = starts[index].copy()
        returned = as_tuple(module.backward(*douts[: self.num_outputs], *handed.values()))

        others = [index for index, value in enumerate(self.inputs) if is_floating(value) and index not in handed]
        gradients = {index: [handed[index] - start] for index, start in starts.items()}
        self.ends = {f"input {index}": handed[index] for index in starts}
        gradients |= {index: self._popped(index, handed[index], below[index]) for index in self.left}
        if not others and returned == (None,):
            returned = ()
        if len(returned) != len(others):  # of which nobody can say what belongs to what; the number is complained of
            return [*returned, *(gradient for found in gradients.values() for gradient in found)]
        gradients |= {index: [gradient] for index, gradient in zip(others, returned, strict=True)}
        return [gradient for index in sorted(gradients) for gradient in gradients[index]]

    def _popped(self, index: int, stack: list[Any], below: list[np.ndarray]) -> list[Any]:
        """What backward has pushed for the arrays that forward has popped from this input."""
        kept = stack[: len(below)]
        untouched = len(kept) == len(below) and all(a is b and not a.any() for a, b in zip(kept, below, strict=True))
        self.complain(not untouched, f"input {index}: backward took or changed gradients of arrays that forward left on the stack")
        found, expected = stack[len(below) :], len(self.inputs[index]) - len(below)
        self.complain(
            len(found) != expected,
            f"input {index}: backward left {len(found)} gradients on the stack, expected {expected}, one for each array that was popped",
        )
        return (found + [None] * expected)[:expected]
