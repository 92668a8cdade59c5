"""Arrays that nobody trains: plain arrays that the output depends on, and parameters on which it does not."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hcrot.accumulators import is_floating
from hcrot.gradcheck.report import GradientLine
from hcrot.gradcheck.trial import Trial, rms
from hcrot.module import Module

__all__ = ["check_plain_arrays", "without_effect", "writeable_arrays"]


def plain_arrays(module: Module) -> Iterator[tuple[str, np.ndarray]]:
    """The name and value of every floating-point array at or below ``module`` that is an attribute, or in a list or dict that is one."""

    def within(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
        if is_floating(value):
            yield name, value
        elif isinstance(value, (list, tuple, dict)):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from within(f"{name}[{key!r}]", item)

    for prefix, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute != "_kept":
                for name, array in within(f"{prefix + '.' if prefix else ''}{attribute}", value):
                    yield f"{name} ({type(part).__name__})", array


def writeable_arrays(module: Module) -> set[str]:
    """The names of those that are not read-only: asked of the module itself, since every array of a copy can be written to."""
    return {name for name, array in plain_arrays(module) if array.flags.writeable}


def check_plain_arrays(trial: Trial, suspects: set[str]) -> None:
    """An array that changes the output but is no Parameter is learned by nobody, and no comparison has looked at it.

    Args:
        trial: whose problems grow by a sentence for each.
        suspects: names of the arrays to look at.
    """
    for name, array in plain_arrays(trial.module):
        trial.complain_if(
            name in suspects and _has_effect(trial, array),
            f"{name} is a plain array that the output depends on: no gradient reaches it and no state_dict holds it. "
            "Make it a Parameter (with trainable=False if it is a constant)",
        )


def without_effect(trial: Trial, lines: list[GradientLine]) -> list[str]:
    """A sentence about the arrays on which the output does not depend at all, [] if there are none. Their gradient is rightly zero."""
    names = [
        line.name
        for line, array in zip(lines, trial.arrays, strict=True)
        if line.verdict == "ok" and line.analytic == 0 and not _has_effect(trial, array)
    ]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return [f"no effect on the output: {listed}. Does forward use {'it' if len(names) == 1 else 'them'}?"] if names else []


def _has_effect(trial: Trial, array: np.ndarray) -> bool:
    """Whether other values of the array give another output: near ones and far ones, as what lies behind a ReLU may be at rest here."""
    values, direction = array.copy(), (rms(array) or 1) * trial.generator.standard_normal(array.shape)
    for factor in (1, -1, 10, -10):
        array[...] = values + factor * direction
        outputs = trial.value()
        array[...] = values
        if any(not np.array_equal(y, reference, equal_nan=True) for y, reference in zip(outputs, trial.outputs, strict=True)):
            return True
    return False
