"""What the checks of exercises and bugs share: comparisons whose messages lead."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import hcrot

__all__ = ["Check", "Wrong", "error_lead"]


class Wrong(AssertionError):
    """An answer is wrong; the message says what was found, what was expected and, where it can be guessed, why."""


class Check:
    """Draws inputs and compares. Every method but :meth:`normal` and :meth:`integers` raises :class:`Wrong`.

    Args:
        seed: of all random numbers.
    """

    def __init__(self, seed: int = 0):
        self.generator = np.random.default_rng(seed)
        self.directions = np.random.default_rng([seed, 1])

    def normal(self, *shape: int) -> np.ndarray:
        """Numbers from N(0, 1), float64, of this shape."""
        return self.generator.standard_normal(shape)

    def integers(self, below: int, *shape: int) -> np.ndarray:
        """Integers from 0 to ``below`` - 1, of this shape."""
        return self.generator.integers(below, size=shape)

    def that(self, condition: bool, message: str) -> None:
        """The condition holds, or ``message`` is what is wrong."""
        if not condition:
            raise Wrong(message)

    def equal(
        self, what: str, found: Any, expected: Any, tolerance: float = 1e-6, mistakes: Mapping[str, Any] | None = None
    ) -> None:
        """Two arrays, or numbers, agree: first their shapes, then their values.

        Args:
            what: the name of what was found, for the message.
            found: what the learner's code has made.
            expected: what it has to be.
            tolerance: the largest difference allowed, relative to the largest number expected, or to 1 if that is larger.
            mistakes: what a likely mistake makes of it, by the sentence that tells of this mistake.
        """
        expected = np.asarray(expected)
        self.that(found is not None, f"{what} is None, expected an array of the shape {expected.shape}: is a return missing?")
        try:
            found = np.asarray(found, np.result_type(expected, np.float64))
        except (TypeError, ValueError):
            raise Wrong(f"{what} is a {type(found).__name__}, expected numbers of the shape {expected.shape}") from None
        if found.shape != expected.shape:
            raise Wrong(f"{what} has the shape {found.shape}, expected {expected.shape}{shape_lead(found.shape, expected.shape)}")
        if np.isnan(found).any() and not np.isnan(expected).any():
            raise Wrong(f"{what} has NaN in {int(np.isnan(found).sum())} of {found.size} places")
        different = ~np.isclose(found, expected, rtol=0, atol=tolerance * max(1.0, float(np.abs(expected).max(initial=0))), equal_nan=True)
        if different.any():
            gap = np.where(different, np.abs(found - expected), -1.0)
            worst = tuple(map(int, np.unravel_index(int(np.argmax(gap)), found.shape)))
            place = f"{what} at {worst}" if worst else what
            count = f"; {int(different.sum())} of {found.size} numbers differ" if found.size > 1 else ""
            told = [sentence for sentence, values in (mistakes or {}).items() if np.allclose(found, values, rtol=0, atol=tolerance)]
            lead = f": {told[0]}" if told else factor_lead(found, expected, tolerance)
            raise Wrong(f"{place} is {found[worst]:.6g}, expected {expected[worst]:.6g}{count}{lead}")

    def same_as(self, what: str, yours: Callable, reference: Callable, *inputs: Any, tolerance: float = 1e-6) -> None:
        """Two functions, given copies of the same inputs, return the same; the learner's leaves its inputs as they were."""
        copies = [value.copy() if isinstance(value, np.ndarray) else value for value in inputs]
        found = yours(*copies)
        for index, (copy, value) in enumerate(zip(copies, inputs, strict=True)):
            unchanged = not isinstance(value, np.ndarray) or np.array_equal(copy, value, equal_nan=True)
            self.that(unchanged, f"{what}: your code writes into input {index}, which is the caller's array: work on a copy")
        expected = reference(*inputs)
        if isinstance(expected, tuple):
            came = len(found) if isinstance(found, (tuple, list)) else type(found).__name__
            self.that(came == len(expected), f"{what}: expected {len(expected)} results, got {came}")
            for index, (one, other) in enumerate(zip(found, expected, strict=True)):
                self.equal(f"{what}, result {index}", one, other, tolerance)
        else:
            self.equal(what, found, expected, tolerance)

    def gradients(self, module: hcrot.Module, *inputs: Any, **options: Any) -> None:
        """:func:`hcrot.check_gradients` agrees; if it does not, the message says of each gradient what may be wrong with it.

        Its cotangent comes from another generator than the inputs. Drawn by the same seed it could equal them, and along itself an array
        that is normalised has no slope to compare.
        """
        try:
            hcrot.check_gradients(module, *inputs, **{"generator": self.directions, "explain": 0, **options})
        except hcrot.GradientError as error:
            wrong = [gradient_lead(line) for line in error.report.lines if line.verdict != "ok"]
            heading = f"the gradients of {error.report.module} for {', '.join(map(described, inputs))}:"
            raise Wrong("\n  ".join([heading, *said_once(error.report.problems), *wrong])) from None

    def agree(self, module: hcrot.Module, *inputs: Any, **options: Any) -> None:
        """As :meth:`gradients`, but the message doesn't tell which gradient is wrong: that is for the learner to find."""
        try:
            hcrot.check_gradients(module, *inputs, **{"generator": self.directions, "explain": 0, **options})
        except hcrot.GradientError as error:
            shapes = ", ".join(map(described, inputs))
            raise Wrong(f"{error.report.module} does not pass hcrot.check_gradients for {shapes}: its report tells more") from None

    def adds(self, module: hcrot.Module, *inputs: Any) -> None:
        """Two passes one after the other leave twice the gradients of one."""
        module.astype(np.float64).zero_grad()
        dout = self.generator.standard_normal(module(*inputs).shape)
        module.backward(dout)
        once = {name: parameter.grad.copy() for name, parameter in module.named_parameters()}
        module(*inputs)
        module.backward(dout)
        for name, parameter in module.named_parameters():
            doubled = np.allclose(parameter.grad, 2 * once[name], rtol=1e-9)
            self.that(doubled, f"after two passes the gradient of {name} is not the sum of both: backward has to add (+=), not set it")

    def refuses(self, what: str, call: Callable[[], Any], error: type[Exception] | tuple[type[Exception], ...], *words: str) -> None:
        """``call()`` raises the error, with all the words in its message."""
        name = error.__name__ if isinstance(error, type) else " or ".join(kind.__name__ for kind in error)
        try:
            call()
        except error as raised:
            missing = [word for word in words if word not in str(raised)]
            self.that(not missing, f"{what}: the message {str(raised)!r} does not say {' and '.join(map(repr, missing))}")
        else:
            raise Wrong(f"{what}: expected a {name}, but nothing was raised")


def described(value: Any) -> str:
    """An argument in few words: of arrays, also of those in a list or tuple, their shapes."""
    if isinstance(value, np.ndarray):
        return f"an input of the shape {value.shape}"
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, np.ndarray) for item in value):
        kind, shapes = type(value).__name__, [str(item.shape) for item in value]
        return f"a {kind} of arrays of the shapes {listed(shapes)}" if len(value) > 1 else f"a {kind} of one array of the shape {shapes[0]}"
    return repr(value)


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def said_once(problems: Sequence[str]) -> list[str]:
    """Problems ``name: sentence``, those with the same sentence as one: ``weight and bias: sentence``."""
    names: dict[str, list[str]] = {}
    for problem in problems:
        name, colon, sentence = problem.partition(": ")
        names.setdefault(sentence if colon else problem, []).extend([name] if colon else [])
    return [": ".join([listed(of), sentence] if of else [sentence]) for sentence, of in names.items()]


def shape_lead(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What a wrong shape may mean, or ""."""
    if len(found) > 1 and found[::-1] == expected:
        return ": is a transpose missing?"
    if len(found) > len(expected):
        return ": is a sum over some axes missing?"
    if len(found) < len(expected):
        return ": is there a sum over too many axes, or keepdims missing?"
    return ""


def ratio_lead(ratio: float) -> str:
    """What a constant factor may mean, or "" if it is no simple number."""
    if abs(ratio + 1) < 1e-4:
        return ": it is the negative: is a sign wrong?"
    for size in range(2, 101):
        if abs(ratio / size - 1) < 1e-4:
            return f": it is {size} times too large: is it added {size} times, or is a division by {size} missing, or a mean a sum?"
        if abs(ratio * size - 1) < 1e-4:
            return f": it is {size} times too small: is a factor {size} missing, or a sum a mean?"
    return ""


def factor_lead(found: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """What it may mean that all of ``found`` is the same multiple of what was expected, or ""."""
    size = float(np.vdot(expected, expected).real)
    if not size or not np.isfinite(found).all():
        return ""
    ratio = float(np.vdot(expected, found).real) / size
    proportional = np.allclose(found, ratio * expected, rtol=0, atol=max(tolerance, 1e-9) * float(np.abs(found).max()))
    return ratio_lead(ratio) if proportional else ""


def gradient_lead(line: Any) -> str:
    """One line of a gradient report as a sentence that leads."""
    name, verdict = line.name, line.verdict
    if verdict.startswith("missing"):
        return f"of {name} there is none: {verdict.partition(': ')[2]}. Is a return missing?"
    if verdict.startswith("its gradient has shape"):
        shape = tuple(int(size) for size in verdict.partition("(")[2].rstrip(")").split(",") if size.strip())
        return f"that of {name} has the shape {shape}, it must be that of {name}, {line.shape}{shape_lead(shape, line.shape)}"
    if verdict.startswith("its gradient is"):
        return f"that of {name}: {verdict}"
    if verdict.startswith("no gradient arrived"):
        return f"that of {name} stays zero, but the output depends on it (slope {line.numeric:+.4g}): backward never adds to it"
    lead = ratio_lead(line.analytic / line.numeric) if line.numeric else ""
    slopes = f"along some direction backward says {line.analytic:+.6g}, differences of outputs say {line.numeric:+.6g}"
    return f"that of {name} is wrong: {slopes}{lead}"


PRODUCT = re.compile(r"in its core dimension .*size (\d+) is different from (\d+)|not aligned: (\d+) \(dim \d+\) != (\d+) \(dim")
BROADCAST = re.compile(r"not be broadcast together with shapes \(([\d,]*)\) \(([\d,]*)\)")
INTO = re.compile(r"input array from shape \(([\d,]*)\) into shape \(([\d,]*)\)")
OUTPUT = re.compile(r"output operand with shape \(([\d,]*)\) doesn't match the broadcast shape \(([\d,]*)\)")
RESHAPE = re.compile(r"cannot reshape array of size (\d+)")
AXES = re.compile(r"axes don't match array|repeated axis in transpose")


def error_lead(message: str) -> str:
    """What an error of NumPy's about shapes means, as sentences of their own, or ""."""
    if found := PRODUCT.search(message):
        columns, rows = (found[2], found[1]) if found[1] else (found[3], found[4])
        return (
            f"In a product A @ B, A must have as many columns as B has rows. Here these are {columns} and {rows}. "
            "Write the two shapes side by side: the inner sizes must be equal."
        )
    if found := RESHAPE.search(message):
        return f"reshape keeps all numbers: the sizes of the new shape, multiplied, must be {found[1]}."
    if AXES.search(message):
        return "transpose needs a number for each axis of the array, and each of them once."
    for pattern in (BROADCAST, INTO, OUTPUT):
        if found := pattern.search(message):
            one, other = (tuple(int(size) for size in text.split(",") if size) for text in found.groups())
            return shapes_lead(one, other)
    return ""


def shapes_lead(one: tuple[int, ...], other: tuple[int, ...]) -> str:
    """What it may mean that two shapes do not fit each other."""
    if sorted(one) == sorted(other):
        return (
            "Both shapes have the same sizes in another order: is a transpose missing, or should it be another one? "
            "In transpose, the numbers say for each new axis where it stands in the old order."
        )
    if math.prod(one) == math.prod(other):
        return f"Both have {math.prod(one)} numbers, but they are grouped otherwise: is a reshape missing?"
    rule = "Shapes are compared from the last axis on, and two sizes fit if they are equal or one of them is 1."
    return f"{rule} Should it be @, or is a sum missing, or is there one over the wrong axes?"
