"""A module held still: its outputs as a function of its arrays, and their slopes."""

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hcrot.accumulators import BlockCall, as_tuple, is_floating
from hcrot.gradcheck.report import GradientLine
from hcrot.module import Module, Parameter
from hcrot.passes import InplaceError, detect_inplace, one_pass

__all__ = ["OutOfTime", "Trial", "in_float64", "rms"]

REPLACED = "backward replaced the array .grad instead of adding to it in place: write += instead of ="

STEPS = (1e-3, 1e-4, 1e-5)
"""Sizes of h to try in turn, in units of the checked array's root mean square (at least 0.01, or h would drown in rounding errors)."""


def rms(array: np.ndarray) -> float:
    """The root mean square of an array's entries."""
    return float(np.sqrt(np.square(array).sum() / max(1, array.size)))


class OutOfTime(Exception):
    """A trial has gone on beyond its deadline."""


class Trial:
    """A module of which everything is held fixed but the entries of its arrays, so that its output is a function of those alone.

    Args:
        module: in float64, in training mode, with gradients of zero. It is changed.
        inputs, forward, backward, generator: of :func:`check_gradients`.
        layouts: arrays as whose memory the cotangents are laid out, where their shapes are the same.

    Attributes:
        arguments: what forward calls its inputs.
        differentiated: ``(name, array)`` of each floating-point input, and of what forward pops from a stack.
        parameter_names: a name for each of ``module.parameters()``, which lists tied ones once.
        names, arrays: of all that is compared, the inputs and then the parameters.
        problems: sentences about what is wrong so far.
        deadline: a time of ``time.monotonic`` after which a slope is an OutOfTime error.
    """

    def __init__(
        self,
        module: Module,
        inputs: tuple,
        forward: Callable | None,
        backward: Callable | None,
        generator: np.random.Generator,
        layouts: Sequence[Any] = (),
    ):
        self.module, self.inputs, self.generator = module, inputs, generator
        self.problems: list[str] = []
        self.deadline = np.inf
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
        self.arguments = self._arguments(forward)
        kinds = {name: type(part).__name__ for name, part in module.named_modules()}
        self.names = [name for name, _ in self.differentiated]
        self.names += [f"{name} ({kinds[name.rpartition('.')[0]]})" for name in self.parameter_names]
        self.places = [
            (name, part, attribute, value, value.data)
            for name, part in module.named_modules()
            for attribute, value in vars(part).items()
            if isinstance(value, Parameter)
        ]
        self.outputs = self.value()
        self.complain_if(not all(np.isfinite(y).all() for y in self.outputs), "the output for these inputs is not finite: choose others")
        self.cotangents = [generator.standard_normal(y.shape) for y in self.outputs]
        for index, layout in enumerate(layouts[: len(self.cotangents)]):
            if isinstance(layout, np.ndarray) and layout.shape == self.cotangents[index].shape:
                values, self.cotangents[index] = self.cotangents[index], np.empty_like(layout, np.float64)
                self.cotangents[index][...] = values
        self.scale = float(np.sqrt(sum(np.square(c * y).sum() for c, y in zip(self.cotangents, self.outputs, strict=True))))

    def _arguments(self, forward: Callable | None) -> list[str]:
        try:
            known = [] if forward else list(inspect.signature(self.module.forward).parameters.values())
        except (TypeError, ValueError):
            known = []
        named = [one.name for one in known if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        return [named[index] if index < len(named) else f"input {index}" for index in range(len(self.inputs))]

    @property
    def arrays(self) -> list[np.ndarray]:
        return [array for _, array in self.differentiated] + [parameter.data for parameter in self.module.parameters()]

    def complain_if(self, condition: bool, problem: str) -> None:
        if condition and problem not in self.problems:
            self.problems.append(problem)

    def forward(self) -> list[np.ndarray]:
        """The outputs, copied, since a module may return its very input. Nothing that an earlier forward kept is left."""
        self.module.forget()
        for bits, state in self.rewinds:
            bits.state = state
        with one_pass():
            outputs = [y.copy() for y in as_tuple(self.call_forward(self.module, *self.inputs))]
        self.put_back("forward")
        return outputs

    def value(self) -> list[np.ndarray]:
        """The outputs of a forward that no backward follows; whatever it wrote into its inputs is undone."""
        before = [value.copy() for _, value in self.differentiated]
        outputs = self.forward()
        self.module.forget()
        self.restore(self.differentiated, before)
        return outputs

    def put_back(self, way: str) -> None:
        """Complain of parameters in whose place forward or backward has put something else, and put them back."""
        for prefix, part, attribute, parameter, data in self.places:
            name, came = f"{prefix}.{attribute}" if prefix else attribute, vars(part).get(attribute)
            self.complain_if(
                came is not parameter,
                f"{name}: {way} put something else in the place of this Parameter, {type(came).__name__}: "
                f"write self.{attribute}.grad += ... to add a gradient, and self.{attribute}.data[...] = ... to set values",
            )
            setattr(part, attribute, parameter)
            self.complain_if(
                parameter.data is not data, f"{name}: {way} replaced the array .data: write into it, self.{attribute}.data[...] = ..."
            )
            parameter.data = data

    def restore(self, arrays: list[tuple[str, np.ndarray]], before: list[np.ndarray]) -> None:
        """Give ``(name, array)`` pairs the values that they had before, and complain of those that have others now."""
        for (name, array), old in zip(arrays, before, strict=True):
            self.complain_if(not np.array_equal(array, old, equal_nan=True), f"{name} was written to")
            array[...] = old

    def backpropagate(self) -> tuple[list[Any], list[np.ndarray]]:
        """One forward and one backward: what backward returned for each floating-point input, and a copy of each parameter's gradient."""
        douts = [c.copy("K") for c in self.cotangents]
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
        self.put_back("backward")

        for y, reference in zip(outputs, self.outputs, strict=True):
            self.complain_if(y.dtype != np.float64, f"the output for float64 inputs is {y.dtype}")
            self.complain_if(
                not np.array_equal(y, reference, equal_nan=True),
                "two forwards differ: forward changes something that it reads, or its randomness does not come from a "
                "numpy.random.Generator that is an attribute of its module",
            )
        self.restore(watched, before)
        dparameters = [parameter.grad.copy() for parameter in parameters]
        for name, parameter, grad in zip(self.parameter_names, parameters, grads, strict=True):
            self.complain_if(parameter.grad is not grad, f"{name}: {REPLACED}")
            if parameter.grad.shape == grad.shape:
                grad[...] = parameter.grad
            parameter.grad = grad
        expected = len(self.differentiated)
        self.complain_if(0 < expected != len(dinputs), self._miscounted(len(dinputs)))
        dinputs = (dinputs + [None] * expected)[:expected]
        return dinputs, dparameters

    def _miscounted(self, found: int) -> str:
        """What to say of a backward that returned another number of gradients than there are inputs to differentiate."""
        names = [name for name, _ in self.differentiated]
        if len(names) == 1:
            return f"backward returned {found} gradients for 1 floating-point input: return one array"
        names = [f"d{self.arguments[int(name[6:])]}" if name[6:].isdecimal() else f"that of {name}" for name in names]
        count = "1 gradient" if found == 1 else f"{found} gradients"
        return f"backward returned {count} for {len(names)} floating-point inputs: return a tuple, ({', '.join(names)}), or pass backward="

    def check_accumulation(self, once: list[np.ndarray], wrong: set[str]) -> None:
        """A second pass must double the gradients of parameters, and changes what accumulators hold in the end.

        Args:
            once: the gradients of the first pass.
            wrong: names of the arrays whose gradient is known to be wrong. If theirs is not doubled, that may have another reason.
        """
        ends = self.block.ends if self.block else {}
        _, twice = self.backpropagate()
        for name, line, first, second in zip(self.parameter_names, self.names[len(self.differentiated) :], once, twice, strict=True):
            if first.shape != second.shape or f"{name}: {REPLACED}" in self.problems:
                continue
            near = 1e-9 * np.abs(first).max(initial=0)
            same, doubled = np.abs(second - first).max(initial=0) <= near, np.abs(second - 2 * first).max(initial=0) <= near
            self.complain_if(
                not doubled and (same or line not in wrong),
                f"{name}: backward assigns to .grad instead of adding to it: a second pass did not double it. Write += instead of =",
            )
        for name in wrong & ends.keys():
            self.complain_if(
                self.block is not None and np.array_equal(self.block.ends[name], ends[name]),
                f"{name}: backward writes over the array that it is to add the gradient to: += instead of =",
            )

    def slope(self, array: np.ndarray, direction: np.ndarray, step: float) -> float:
        """The derivative of <cotangents, outputs> along ``direction`` in ``array``, extrapolated from differences at step and step / 2."""
        if time.monotonic() > self.deadline:
            raise OutOfTime
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

    def kinked(self, array: np.ndarray, direction: np.ndarray) -> bool:
        """Whether there is a kink at this very point. There the slopes of the two sides stay apart however small the step is."""
        values, middle, gaps = array.copy(), self.value(), []
        for h in (1e-4 * max(rms(array), 0.01), 1e-5 * max(rms(array), 0.01)):
            sides = []
            for step in (-h, h):
                array[...] = values + step * direction
                sides.append(sum(np.vdot(c, y - z) for c, y, z in zip(self.cotangents, self.value(), middle, strict=True)) / step)
            gaps.append(sides[1] - sides[0])
        array[...] = values
        # a smooth function's gap shrinks as h does, to a tenth; that of a kink stays, and that of a jump grows
        return abs(gaps[1]) >= 0.5 * abs(gaps[0]) and abs(gaps[1]) > 1e-5 * (abs(sides[0]) + abs(sides[1]))

    def compare_beside(self, index: int, rtol: float) -> tuple[float, float, float]:
        """`compare_along` for an array of this index at a point nearby, which has no kink unless they are everywhere."""
        array, parameters, reference = self.arrays[index], self.module.parameters(), self.outputs
        values, grads = array.copy(), [(parameter.grad, parameter.grad.copy()) for parameter in parameters]
        array += 0.03 * max(rms(array), 0.01) * self.generator.standard_normal(array.shape)
        self.module.zero_grad()
        self.outputs = self.value()
        dinputs, dparameters = self.backpropagate()
        gradient, direction = [*dinputs, *dparameters][index], self.generator.standard_normal(array.shape)
        slopes = self.compare_along(direction, array, gradient, float(np.linalg.norm(gradient)), rtol)
        array[...], self.outputs = values, reference
        for parameter, (grad, kept) in zip(parameters, grads, strict=True):
            parameter.grad = grad
            grad[...] = kept
        return slopes

    def compare(self, index: int, gradient: Any, rtol: float, exhaustive: bool = False) -> GradientLine:
        """Hold ``gradient`` against slopes of the array of this index, along one random direction or along each axis."""
        name, array = self.names[index], self.arrays[index]
        if not isinstance(gradient, np.ndarray):
            return GradientLine(name, array.shape, np.nan, np.nan, np.inf, f"missing: backward returned {type(gradient).__name__}")
        if gradient.shape != array.shape:
            verdict, turned = f"its gradient has shape {gradient.shape}", sorted(gradient.shape) == sorted(array.shape)
            return GradientLine(name, array.shape, np.nan, np.nan, np.inf, verdict, "it is transposed" if turned else "")
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
        if error <= rtol:
            return GradientLine(name, array.shape, analytic, numeric, error, "ok")
        if self.kinked(array, direction) and (beside := self.compare_beside(index, rtol))[2] <= rtol:
            return GradientLine(name, array.shape, *beside, "ok", "near a kink, where there is no slope; compared at a point beside it")
        return GradientLine(name, array.shape, analytic, numeric, error, "wrong" + where if gradient.any() else "no gradient arrived")

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


def in_float64(value: Any) -> Any:
    """A copy of an array of floating-point numbers, or of a list of them, laid out in memory as it was; anything else as it is."""
    if isinstance(value, list):
        return [in_float64(item) for item in value]
    return value.astype(np.float64) if is_floating(value) else value
