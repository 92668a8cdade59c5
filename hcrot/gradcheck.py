"""Is backward the derivative of forward? A check of every gradient of a module against differences of its outputs.

Fix a random cotangent c and look at one number, ``L = <c, f(x)>``, the dot product of c with the output. Given c, backward must return the
gradient of L. The slope of L along a direction v can be had in two ways:

    analytic = <gradient, v>
    numeric  = (L(x + h v) - L(x - h v)) / 2h,   taken at h and h/2 and extrapolated: (4 numeric(h/2) - numeric(h)) / 3 has error O(h^4)

The cotangent must be random: with c = 1 (the sum of the outputs) the gradient through softmax or a normalisation is zero, and a backward
that returns zeros would pass. One random v sees an error in any entry, so an array costs four forwards however large it is.

A slope needs a smooth f. ReLU, MaxPool and the like have kinks, and a difference taken across one is wrong by itself. Steps from 1e-3 down
to 1e-5 are tried until one agrees, which steers clear of kinks that are not within 1e-5 of the point. At a kink itself (ReLU of exactly
zero, MaxPool of equal numbers) the slopes on the two sides differ, and there is none to compare with. The check fails then and says so:
choose other inputs.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcrot import init
from hcrot.accumulators import BlockCall, as_tuple, is_floating
from hcrot.module import Module
from hcrot.passes import InplaceError, detect_inplace, one_pass
from hcrot.shown import Table

__all__ = ["GradientError", "GradientLine", "GradientReport", "check_gradients"]

STEPS = (1e-3, 1e-4, 1e-5)
"""Sizes of h to try in turn, in units of the checked array's root mean square (at least 0.01, or h would drown in rounding errors)."""


@dataclass(frozen=True)
class GradientLine:
    """What was found for one array.

    Attributes:
        name: ``input 0``, or the parameter's name and the class it belongs to.
        shape: the array's shape.
        analytic, numeric: the two slopes, along the direction in which they differ most; NaN if they could not be compared.
        error: ``|analytic - numeric|`` relative to the gradient's size (plus the rounding error that a difference can't go below).
        verdict: ``ok``, or what is wrong.
    """

    name: str
    shape: tuple[int, ...]
    analytic: float
    numeric: float
    error: float
    verdict: str


@dataclass(frozen=True, repr=False)
class GradientReport:
    """All that :func:`check_gradients` found; printed, it explains.

    Attributes:
        module: the class that was checked.
        rtol: the largest error that counts as agreement.
        lines: one per floating-point input and per parameter.
        problems: what is wrong beside the gradients' values, a sentence each.
    """

    module: str
    rtol: float
    lines: tuple[GradientLine, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.problems and all(line.verdict == "ok" for line in self.lines)

    @property
    def worst_error(self) -> float:
        return max((line.error for line in self.lines), default=0.0)

    def __repr__(self) -> str:
        wrong = sum(line.verdict != "ok" for line in self.lines)
        verdict = f"{wrong} wrong" if wrong else "all agree" if self.passed else "all agree, but:"
        width = max((len(line.name) for line in self.lines), default=0)
        rows = [f"gradients of {self.module}: {len(self.lines)} compared with differences of outputs to {self.rtol:g}, {verdict}"]
        rows += [f"  {problem}" for problem in self.problems]
        rows += [
            f"  {line.name:<{width}}  {str(line.shape):<16} analytic {line.analytic:+.9e}  numeric {line.numeric:+.9e}"
            f"  relative error {line.error:.1e}  {line.verdict}"
            for line in self.lines
        ]
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        rows = [[a.name, a.verdict, str(a.shape), f"{a.analytic:+.9e}", f"{a.numeric:+.9e}", f"{a.error:.1e}"] for a in self.lines]
        titles = ("array", "verdict", "shape", "analytic", "numeric", "relative error")
        return Table(repr(self).partition("\n")[0], titles, rows, 2, self.problems).html()


class GradientError(AssertionError):
    """A gradient is wrong or missing. ``report`` holds the :class:`GradientReport`, which is also the message."""

    def __init__(self, report: GradientReport):
        super().__init__(str(report))
        self.report = report


def check_gradients(
    module: Module,
    *inputs: Any,
    rtol: float = 1e-6,
    generator: np.random.Generator | int | None = None,
    randomize: bool = True,
    exhaustive: bool = False,
    forward: Callable | None = None,
    backward: Callable | None = None,
) -> GradientReport:
    """Compare the gradient of every floating-point input and every parameter with differences of outputs, in float64.

    Everything happens on copies, in training mode: the module, its gradients, mode and generators and the inputs are left as they were.
    Generators within the module are rewound before each forward, so that dropout drops the same entries each time.

    Args:
        module: what to check.
        inputs: arguments of forward. Floating-point arrays are differentiated; all others (labels, timesteps, numbers, None) are passed on.
            Where backward takes accumulators, as blocks of a U-Net do, a list of arrays is a stack of skip connections, which forward pops
            and pushes; what it pops is differentiated, too (:mod:`hcrot.accumulators`).
        rtol: largest relative error allowed.
        generator: source of directions, cotangent and perturbation, or the seed of a new one; by default always the same.
        randomize: first perturb every parameter by half its size, since an error may hide at a special point (B05: at weight 1, bias 0).
        exhaustive: compare entry by entry instead of along one direction: slow, but tells which entry is wrong.
        forward: ``forward(module, *inputs)`` -> an array or a tuple of arrays; by default ``module(*inputs)``.
        backward: ``backward(module, *douts)`` -> the gradient of the floating-point input, or a tuple of one for each, in order; by default
            ``module.backward(*douts)``, and accumulators after the douts if it takes more. With ``forward`` or ``backward`` given, make
            accumulators here and return them too.

    Returns:
        the report, when everything agrees.

    Raises:
        GradientError: a gradient is wrong, did not arrive, has another shape or dtype, or was assigned where it must be added; an input, a
            dout or an array that a layer keeps for backward was written to; the output depends on an array that is an attribute of a
            module but no Parameter (a constant may be a read-only array, or a Parameter with ``trainable=False``); the point is a kink; or
            forward gives another output each time.
        TypeError: ``module`` is no Module, ``generator`` neither a Generator nor an int, or backward takes arguments that belong to no
            input. ValueError: there is nothing to differentiate, or a seed below 0.

    Example:
        >>> print(hcrot.check_gradients(hcrot.Linear(3, 2, generator=0), np.ones((4, 3))))   # doctest: +ELLIPSIS
        gradients of Linear: 3 compared with differences of outputs to 1e-06, all agree
          input 0          (4, 3)           analytic +7.12290...e-01  numeric +7.12290...e-01  relative error ...  ok
          ...
    """
    if not isinstance(module, Module):
        raise TypeError(f"check_gradients: module must be a Module, got {type(module).__name__}")
    generator = init.as_generator("check_gradients", 0 if generator is None else generator)
    subject = copy.deepcopy(module).astype(np.float64).train()
    for parameter in subject.parameters():
        parameter.trainable = True  # of a frozen one there would be no gradient to check
    subject.zero_grad()
    inputs = tuple(_in_float64(value) for value in inputs)
    if not subject.parameters() and not any(map(is_floating, inputs)):
        raise ValueError(f"check_gradients: {type(module).__name__} has no parameters and was given no floating-point array")
    if randomize:
        for parameter in subject.parameters():
            parameter.data += 0.5 * (_size(parameter.data) or 1) * generator.standard_normal(parameter.shape)

    trial = _Trial(subject, inputs, forward, backward, generator)
    dinputs, dparameters = trial.backpropagate()
    kinds = {name: type(part).__name__ for name, part in subject.named_modules()}
    names = [name for name, _ in trial.differentiated]
    names += [f"{name} ({kinds[name.rpartition('.')[0]]})" for name in trial.parameter_names]
    arrays = [array for _, array in trial.differentiated] + [parameter.data for parameter in subject.parameters()]
    lines = [
        trial.compare(name, array, gradient, rtol, exhaustive)
        for name, array, gradient in zip(names, arrays, [*dinputs, *dparameters], strict=True)
    ]
    if all(line.verdict == "ok" for line in lines):
        trial.check_accumulation(dparameters)
    else:
        trial.check_accumulators({line.name for line in lines if line.verdict != "ok"})
    trial.check_plain_arrays(_writeable_arrays(module))
    report = GradientReport(type(module).__name__, rtol, tuple(lines), tuple(trial.problems))
    if not report.passed:
        raise GradientError(report)
    return report


def _in_float64(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_float64(item) for item in value]
    return value.astype(np.float64) if is_floating(value) else value


def _plain_arrays(module: Module) -> Iterator[tuple[str, np.ndarray]]:
    """The name and value of every floating-point array that is an attribute at or below ``module`` but no Parameter."""
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if is_floating(value):
                yield f"{prefix + '.' if prefix else ''}{name} ({type(part).__name__})", value


def _writeable_arrays(module: Module) -> set[str]:
    """The names of those that are not read-only: asked of the module itself, since every array of a copy can be written to."""
    return {name for name, array in _plain_arrays(module) if array.flags.writeable}


def _size(array: np.ndarray) -> float:
    """The root mean square of an array's entries."""
    return float(np.sqrt(np.square(array).sum() / max(1, array.size)))


class _Trial:
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
        for name, array in _plain_arrays(self.module):
            if name not in suspects:
                continue
            values = array.copy()
            array += (_size(values) or 1) * self.generator.standard_normal(values.shape)
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
        for h in (1e-4 * max(_size(array), 0.01), 1e-5 * max(_size(array), 0.01)):
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
            h = step * max(_size(array), 0.01)
            numeric = float(self.slope(array, direction, h))
            # the outputs carry rounding errors of some 1e-16, which the division by h enlarges: no difference of them is zero
            rounding = 100 * np.finfo(np.float64).eps * self.scale / h
            error = float(abs(analytic - numeric) / (max(abs(analytic), abs(numeric), size) + rounding / rtol + np.finfo(np.float64).tiny))
            if error < best[2]:
                best = (analytic, numeric, error)
            if error <= rtol:
                break
        return best
