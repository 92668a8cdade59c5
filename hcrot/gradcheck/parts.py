"""Which module of a tree is the first wrong one? Each part is checked by itself, on the inputs that it got, the smallest parts first.

A part that is wrong makes every module around it wrong. So those are not looked at, and what is left are the smallest wrong modules. If all
parts of a module are right by themselves and the module is wrong, the mistake is in its own forward or backward.

A part's cotangent is random, like that of the whole, and lies in memory as the one that the part got does. The one that it got may be
zero, or constant, if the mistake is above.
"""

import copy
import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hcrot.accumulators import as_tuple
from hcrot.eyes.calls import Call, seeing
from hcrot.gradcheck.clues import clue, named_sizes
from hcrot.gradcheck.report import GradientLine
from hcrot.gradcheck.trial import OutOfTime, Trial, in_float64, rms
from hcrot.module import Module

__all__ = ["explained", "first_wrong", "returned_nothing"]

STEP = 1e-4
"""Of the differences that clues are taken from."""

LISTED = 3
"""How many wrong modules and arrays are told of; the others are counted."""


@dataclass
class Met:
    """What a part was called with: by the first forward, and by the backward that answers it."""

    module: Module
    inputs: tuple
    options: dict[str, Any]
    douts: tuple = ()
    parts: list[str] = field(default_factory=list)


def first_wrong(trial: Trial, rtol: float) -> tuple[list[str], bool]:
    """Find the smallest wrong modules below one that is wrong.

    Args:
        trial: of the whole. Its deadline holds for the parts, too.
        rtol: of :func:`check_gradients`.

    Returns:
        sentences for the report, and whether a part is wrong. If not, the mistake is in the module's own methods, or could not be found.
    """
    met = _parts_met(trial)
    wrong: dict[str, str] = {}
    unknown: list[str] = []
    right = 0
    for name, part in met.items():
        if any(below in wrong for below in part.parts):
            wrong[name] = ""
            continue
        try:
            faults = _faults(part, trial, rtol)
        except OutOfTime:
            return _sentences(wrong, met), any(wrong.values())
        except Exception:  # what it needs may come from the module around it, and the whole has run
            unknown.append(name)
            continue
        if faults:
            wrong[name] = faults
        right += not faults
    if any(wrong.values()) or not right:
        return _sentences(wrong, met), any(wrong.values())
    kind = type(trial.module).__name__
    if unknown:
        names = ", ".join(unknown[:LISTED])
        return [f"{right} parts of {kind} are right by themselves; {len(unknown)} cannot be checked so: {names}"], False
    return [f"every part of {kind} is right by itself: the mistake is in its own forward or backward"], False


def _sentences(wrong: dict[str, str], met: dict[str, Met]) -> list[str]:
    """One for each of the smallest wrong modules."""
    smallest = {name: faults for name, faults in wrong.items() if faults}
    found = []
    for name, faults in list(smallest.items())[:LISTED]:
        inside = ", whose parts are right" if met[name].parts else ""
        found.append(f"the mistake is in {name} ({type(met[name].module).__name__}){inside}; checked by itself, {faults}")
    if len(smallest) > LISTED:
        found.append(f"{len(smallest) - LISTED} more modules are wrong by themselves: {', '.join(list(smallest)[LISTED : 3 * LISTED])}")
    return found


def _parts_met(trial: Trial) -> dict[str, Met]:
    """The parts below a trial's module that were called, in the order in which their forwards returned: the smallest first."""
    begun: dict[str, Met] = {}
    found: dict[str, Met] = {}

    def begin(call: Call) -> None:
        if call.way == "forward" and call.name not in begun:
            begun[call.name] = Met(call.module, tuple(map(in_float64, call.inputs)), call.options)

    def done(call: Call) -> None:
        if call.way == "backward" and call.name in found:
            found[call.name].douts = call.inputs  # the last one answers the first forward
        elif call.name in begun and call.name not in found:
            found[call.name] = begun[call.name]

    with seeing(trial.module, done, begin):
        trial.backpropagate()
    found.pop("", None)
    for name, part in found.items():
        part.parts = [below for below in found if below.startswith(f"{name}.")]
    return found


def _faults(part: Met, whole: Trial, rtol: float) -> str:
    """What is wrong with the gradients of a part, "" if nothing is.

    A gradient that it does not return is not held against it: the module around it may have no use for it.
    """
    bound = inspect.signature(part.module.forward).bind(*part.inputs, **part.options)
    if part.options:
        bound.apply_defaults()
    if bound.kwargs:
        raise TypeError("an argument goes by its name only")
    subject = copy.deepcopy(part.module)
    subject.zero_grad()
    trial = Trial(subject, bound.args, None, None, whole.generator, part.douts)
    trial.deadline = whole.deadline
    dinputs, dparameters = trial.backpropagate()
    gradients = [*dinputs, *dparameters]
    counted = not any(problem.startswith("backward returned") for problem in trial.problems)
    judged = range(0 if counted else len(dinputs), len(gradients))
    compared = [index for index in judged if isinstance(gradients[index], np.ndarray)]
    lines = [trial.compare(index, gradients[index], rtol) for index in compared]
    wrong = [explained(trial, index, gradients[index], line) for index, line in zip(compared, lines, strict=True) if line.verdict != "ok"]
    more = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
    return "; ".join(f"{line.name.partition(' (')[0]}: {line.finding}" for line in wrong[:LISTED]) + more


def explained(trial: Trial, index: int, gradient: Any, line: GradientLine) -> GradientLine:
    """A line whose verdict is about values, with a clue to what is wrong about them."""
    array = trial.arrays[index]
    if line.clue or not isinstance(gradient, np.ndarray) or gradient.shape != array.shape or gradient.dtype != array.dtype:
        return line
    inputs = {name: value for name, value in zip(trial.arguments, trial.inputs, strict=True) if isinstance(value, np.ndarray)}
    outputs = {"the output" if len(trial.outputs) == 1 else f"output {k}": y for k, y in enumerate(trial.outputs)}
    sizes = named_sizes(vars(trial.module), inputs | outputs | {line.name.partition(" (")[0]: array})
    step = STEP * max(rms(array), 0.01)
    return replace(line, clue=clue(gradient, lambda direction: trial.slope(array, direction, step), trial.generator, sizes))


def returned_nothing(trial: Trial) -> str:
    """Which part's backward returned None before the backward of the whole failed, "" for none."""
    last: list[Call] = []

    def done(call: Call) -> None:
        last[:] = [call]

    try:
        with seeing(trial.module, done):
            trial.backpropagate()
    except Exception:
        if last and last[0].way == "backward" and as_tuple(last[0].result) == (None,):
            return f"{last[0].name} ({type(last[0].module).__name__})"
    return ""
