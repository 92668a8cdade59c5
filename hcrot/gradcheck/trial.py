"""A module held still: its outputs as a function of its arrays, and their slopes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hcrot.accumulators import BlockCall, as_tuple, is_floating
from hcrot.gradcheck.report import GradientLine
from hcrot.module import Module
from hcrot.passes import InplaceError, detect_inplace, one_pass

__all__ = ["Trial", "plain_arrays", "rms"]

STEPS = (1e-3, 1e-4, 1e-5)
"""Sizes of h to try in turn, in units of the checked array's root mean square (at least 0.01, or h would drown in rounding errors)."""


def plain_arrays(module: Module) -> Iterator[tuple[str, np.ndarray]]:
    """The name and value of every floating-point array that is an attribute at or below ``module`` but no Parameter."""
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if is_floating(value):
                yield f"{prefix + '.' if prefix else ''}{name} ({type(part).__name__})", value


def rms(array: np.ndarray) -> float:
    """The root mean square of an array's entries."""
    return float(np.sqrt(np.square(array).sum() / max(1, array.size)))


class Trial:
    """A module of which everything is held fixed but the entries of its arrays, so that its output is a function of those alone.

    Attributes:
        differentiated: ``(name, array)`` of each floating-point input, and of what forward pops from a stack.
        problems: sentences about what is wrong so far.
        parameter_names: a name for each of ``module.parameters()``, which lists tied ones once.
    """

    def __init__(self, module: Module, inputs: tuple, forward: Callable | None, backward: Callable | None, generator: np.random.Generator):
        self.module, self.inputs, self.generator = module, inputs, generator
        self.problems: list[str] = []
        names = {id(parameter): name for name, parameter in module.named_parameters() if not parameter.constant}
        self.parameter_names = list(names.values())
        self.rewinds = [(source.bit_generator, source.bit_generator.state) for _, source in module.named_generators()]
        self.block = None if forward or backward else BlockCall(module, inputs, generator, self.complain_if)
        if self.block:
            self.differentiated, self.call_forward, self.call_backward = self.block.differentiated, self.block.forward, self.block.backward
        else:
            self.differentiated = [(f"input {index}", value) for index, value in enumerate(inputs) if is_floating(value)]
            self.call_forward = forward or (lambda module, *inputs: module(*inputs))
            self.call_backward = backward or (lambda module, *douts: module.backward(*douts))
        self.outputs = self.value()
        self.cotangents = [generator.standard_normal(y.shape) for y in self.outputs]
        self.scale = float(np.sqrt(sum(np.square(c * y).sum() for c, y in zip(self.cotangents, self.outputs, strict=True))))

    def complain_if(self, condition: bool, problem: str) -> None:
        if condition and problem not in self.problems:
            self.problems.append(problem)

    def forward(self) -> list[np.ndarray]:
        """The outputs, copied, since a module may return its very input. Nothing that an earlier forward kept is left."""
        self.module.forget()
        for bits, state in self.rewinds:
            bits.state = state
        with one_pass():
            return [y.copy() for y in as_tuple(self.call_forward(self.module, *self.inputs))]

    def value(self) -> list[np.ndarray]:
        """The outputs of a forward that no backward follows; whatever it wrote into its inputs is undone."""
        before = [value.copy() for _, value in self.differentiated]
        outputs = self.forward()
        self.module.forget()
        self.restore(self.differentiated, before)
        return outputs

    def restore(self, arrays: list[tuple[str, np.ndarray]], before: list[np.ndarray]) -> None:
        """Give ``(name, array)`` pairs the values that they had before, and complain of those that have others now."""
        for (name, array), old in zip(arrays, before, strict=True):
            self.complain_if(not np.array_equal(array, old, equal_nan=True), f"{name} was written to")
            array[...] = old

    def backpropagate(self) -> tuple[list[Any], list[np.ndarray]]:
        """One forward and one backward: what backward returned for each floating-point input, and a copy of each parameter's gradient."""
        douts = [c.copy() for c in self.cotangents]
        watched = self.differentiated + [(f"dout {index}", dout) for index, dout in enumerate(douts)]
        before = [value.copy() for _, value in watched]
        parameters = self.module.parameters()
        grads, earlier = [p.grad for p in parameters], [p.grad.copy() for p in parameters]

        try:
            with detect_inplace():
                outputs, dinputs = self.forward(), list(as_tuple(self.call_backward(self.module, *douts)))
        except InplaceError as error:  # once more without the guard: then the report says, too, which gradients it makes wrong
            self.complain_if(True, str(error))
            for array, old in zip([array for _, array in watched] + grads, before + earlier, strict=True):
                array[...] = old
            outputs, dinputs = self.forward(), list(as_tuple(self.call_backward(self.module, *douts)))

        for y, reference in zip(outputs, self.outputs, strict=True):
            self.complain_if(y.dtype != np.float64, f"the output for float64 inputs is {y.dtype}")
            self.complain_if(
                not np.array_equal(y, reference, equal_nan=True),
                "two forwards differ: forward changes something that it reads, or its randomness does not come from a "
                "numpy.random.Generator that is an attribute of its module",
            )
        self.restore(watched, before)
        for name, parameter, grad in zip(self.parameter_names, parameters, grads, strict=True):
            self.complain_if(parameter.grad is not grad, f"{name}: backward replaced the array .grad instead of adding to it in place")
        expected = len(self.differentiated)
        self.complain_if(
            0 < expected != len(dinputs), f"backward returned {len(dinputs)} gradients for {expected} floating-point inputs: pass backward="
        )
        dinputs = (dinputs + [None] * expected)[:expected]
        return dinputs, [parameter.grad.copy() for parameter in parameters]

    def check_accumulation(self, once: list[np.ndarray]) -> None:
        """A second pass must double the gradients of parameters."""
        _, twice = self.backpropagate()
        for name, first, second in zip(self.parameter_names, once, twice, strict=True):
            doubled = np.abs(second - 2 * first).max(initial=0) <= 1e-9 * np.abs(first).max(initial=0)
            self.complain_if(not doubled, f"{name}: backward assigns to .grad instead of adding to it: a second pass did not double it")

    def check_accumulators(self, suspects: set[str]) -> None:
        """What an accumulator holds in the end depends on what it held before, unless backward has written over it."""
        ends = self.block.ends if self.block else {}
        self.backpropagate()
        for name in suspects & ends.keys():
            self.complain_if(
                self.block is not None and np.array_equal(self.block.ends[name], ends[name]),
                f"{name}: backward writes over the array that it is to add the gradient to: += instead of =",
            )

    def check_plain_arrays(self, suspects: set[str]) -> None:
        """An array that changes the output but is no Parameter is learned by nobody, and no comparison above has looked at it.

        Args:
            suspects: names of the arrays to look at.
        """
        for name, array in plain_arrays(self.module):
            if name not in suspects:
                continue
            values = array.copy()
            array += (rms(values) or 1) * self.generator.standard_normal(values.shape)
            outputs = self.value()
            array[...] = values
            self.complain_if(
                any(not np.array_equal(y, reference, equal_nan=True) for y, reference in zip(outputs, self.outputs, strict=True)),
                f"{name} is a plain array that the output depends on: no gradient reaches it and no state_dict holds it. "
                "Make it a Parameter (with trainable=False if it is a constant)",
            )

    def slope(self, array: np.ndarray, direction: np.ndarray, step: float) -> float:
        """The derivative of <cotangents, outputs> along ``direction`` in ``array``, extrapolated from differences at step and step / 2."""
        values = array.copy()
        slopes = []
        for h in (step, step / 2):
            array[...] = values + h * direction
            above = self.value()
            array[...] = values - h * direction
            below = self.value()
            slopes.append(sum(np.vdot(c, y - z) for c, y, z in zip(self.cotangents, above, below, strict=True)) / (2 * h))
        array[...] = values
        return (4 * slopes[1] - slopes[0]) / 3

    def kink(self, direction: np.ndarray, array: np.ndarray) -> str:
        """What to say of a kink at this very point, or "". There the slopes of the two sides stay apart however small the step is."""
        values, middle, gaps = array.copy(), self.value(), []
        for h in (1e-4 * max(rms(array), 0.01), 1e-5 * max(rms(array), 0.01)):
            sides = []
            for step in (-h, h):
                array[...] = values + step * direction
                sides.append(sum(np.vdot(c, y - z) for c, y, z in zip(self.cotangents, self.value(), middle, strict=True)) / step)
            gaps.append(sides[1] - sides[0])
        array[...] = values
        # a smooth function's gap shrinks as h does, to a tenth; that of a kink stays, and that of a jump grows
        if abs(gaps[1]) < 0.5 * abs(gaps[0]) or abs(gaps[1]) <= 1e-5 * (abs(sides[0]) + abs(sides[1])):
            return ""
        return f", or there is a kink just here (slope {sides[0]:+.3g} on one side, {sides[1]:+.3g} on the other): choose other inputs"

    def compare(self, name: str, array: np.ndarray, gradient: Any, rtol: float, exhaustive: bool) -> GradientLine:
        """Hold ``gradient`` against slopes along one random direction, or along each axis."""
        if not isinstance(gradient, np.ndarray):
            return GradientLine(name, array.shape, np.nan, np.nan, np.inf, f"missing: backward returned {type(gradient).__name__}")
        if gradient.shape != array.shape:
            return GradientLine(name, array.shape, np.nan, np.nan, np.inf, f"its gradient has shape {gradient.shape}")
        if gradient.dtype != array.dtype:
            return GradientLine(name, array.shape, np.nan, np.nan, np.inf, f"its gradient is {gradient.dtype}, not {array.dtype}")
        if exhaustive:
            size, axes = np.abs(gradient).max(initial=0), np.eye(array.size).reshape(array.size, *array.shape)
            slopes = [self.compare_along(axis, array, gradient, size, rtol) for axis in axes]
            worst = max(range(array.size), key=lambda k: slopes[k][2])
            (analytic, numeric, error), direction = slopes[worst], axes[worst]
            where = f" at {tuple(map(int, np.unravel_index(worst, array.shape)))}"
        else:
            direction = self.generator.standard_normal(array.shape)
            (analytic, numeric, error), where = self.compare_along(direction, array, gradient, float(np.linalg.norm(gradient)), rtol), ""
        fault = "wrong" + where if gradient.any() else "no gradient arrived"
        verdict = "ok" if error <= rtol else fault + self.kink(direction, array)
        return GradientLine(name, array.shape, analytic, numeric, error, verdict)

    def compare_along(
        self, direction: np.ndarray, array: np.ndarray, gradient: np.ndarray, size: float, rtol: float
    ) -> tuple[float, float, float]:
        """The analytic and the numeric slope, and their difference relative to the larger of them and ``size``."""
        analytic = float(np.vdot(gradient, direction))
        best = (analytic, np.nan, np.inf)
        for step in STEPS:
            h = step * max(rms(array), 0.01)
            numeric = float(self.slope(array, direction, h))
            # the outputs carry rounding errors of some 1e-16, which the division by h enlarges: no difference of them is zero
            rounding = 100 * np.finfo(np.float64).eps * self.scale / h
            error = float(abs(analytic - numeric) / (max(abs(analytic), abs(numeric), size) + rounding / rtol + np.finfo(np.float64).tiny))
            if error < best[2]:
                best = (analytic, numeric, error)
            if error <= rtol:
                break
        return best
