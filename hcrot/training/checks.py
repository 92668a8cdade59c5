"""Checks that losses, optimizers, learning-rate schedules and the moving average share. ``owner`` is who asks, for the message."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hcrot.init import is_int, is_real
from hcrot.module import Parameter

__all__ = [
    "NOT_TAKEN_BY_LOSSES",
    "SINGLE_OR_DOUBLE",
    "check_floating",
    "check_no_others",
    "check_reduction",
    "check_state",
    "checked_alphas_cumprod",
    "checked_count",
    "checked_flag",
    "checked_number",
    "checked_timesteps",
    "kind_of",
    "parameter_list",
    "parameters_text",
]

SINGLE_OR_DOUBLE = (np.float32, np.float64)
REDUCTIONS = ("mean", "sum", "none")
NOT_TAKEN_BY_LOSSES = {
    "size_average": 'write reduction="mean" or "sum"',
    "reduce": 'write reduction="mean" or "none"',
    "weight": 'use reduction="none", and multiply the values and dout',
}
"""Keywords of PyTorch's losses that ours do not take, and what to type."""


def parameter_list(owner: str, parameters: Iterable[Parameter]) -> list[Parameter]:
    """The distinct parameters, in order.

    Raises:
        TypeError: not an iterable of Parameter.
        ValueError: there is none.
    """
    expected = "expected a list of Parameter, such as model.parameters()"
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{owner}: {expected}, got {type(parameters).__name__}")
    parameters = list(parameters)
    for index, parameter in enumerate(parameters):
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{owner}: {expected}, but item {index} is of type {type(parameter).__name__}")
    if not parameters:
        raise ValueError(f"{owner}: the list of parameters is empty")
    return list(dict.fromkeys(parameters))


def parameters_text(parameters: list[Parameter]) -> str:
    """How many parameters and values there are, for ``repr``, such as "112 (1.2 M values, 3 frozen)"."""
    number = sum(parameter.data.size for parameter in parameters)
    frozen = sum(not parameter.trainable for parameter in parameters)
    values = str(number) if number < 1e4 else f"{number / 1e3:.1f} k" if number < 1e6 else f"{number / 1e6:.1f} M"
    return f"{len(parameters)} ({values} values{f', {frozen} frozen' if frozen else ''})"


def checked_number(owner: str, name: str, value: float, positive: bool = False, below: float = math.inf) -> float:
    """``value`` as a float if it is a finite number at least 0 (more than 0 if ``positive``) and less than ``below``;
    else ValueError."""
    if isinstance(value, bool) or not is_real(value) or not 0 <= value < below or (positive and value == 0):
        bounds = (">" if positive else ">=") + " 0" + (f" and < {below}" if below < math.inf else "")
        raise ValueError(f"{owner}: {name} must be a finite number {bounds}, got {value!r}")
    return float(value)


def checked_flag(owner: str, name: str, value: bool) -> bool:
    """``value`` as a bool if it is one; else TypeError."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{owner}: {name} must be True or False, got {value!r}")
    return bool(value)


def checked_count(owner: str, name: str, value: Any) -> int:
    """``value`` as an int if it is an integer at least 0; else ValueError."""
    if not is_int(value) or value < 0:
        raise ValueError(f"{owner}: {name} must be an integer >= 0, got {value!r}")
    return int(value)


def check_state(
    owner: str,
    state: dict[str, Any],
    arrays: dict[str, np.ndarray],
    counts: tuple[str, ...],
    numbers: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> None:
    """Raise one ValueError that names everything in which ``state`` is not what is to be loaded.

    Args:
        owner: the class that loads it, for the message.
        state: what came.
        arrays: the names of its arrays, each with an array of the same shape and dtype.
        counts: the names of its integers >= 0.
        numbers: the names of its finite numbers >= 0.
        optional: which of all these names may be missing.
    """
    expected = (*counts, *numbers, *arrays)
    problems = [f"missing {name}" for name in expected if name not in state and name not in optional]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    for name in state.keys() & set(expected):
        value = state[name]
        if name in arrays:
            found = (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value).__name__
            wanted = (arrays[name].dtype, arrays[name].shape)
            if found != wanted:
                problems.append(f"{name} is {_described(found)}, expected {_described(wanted)}")
        else:
            try:
                (checked_count if name in counts else checked_number)(owner, name, value)
            except ValueError as error:
                problems.append(str(error).removeprefix(f"{owner}: "))
    if problems:
        raise ValueError(f"{owner}.load_state_dict: " + "; ".join(sorted(problems)))


def _described(found: tuple | str) -> str:
    return found if isinstance(found, str) else f"{found[0]} of shape {found[1]}"


def check_reduction(owner: str, reduction: str) -> None:
    """Raise a ValueError unless it is "mean", "sum" or "none"."""
    if reduction not in REDUCTIONS:
        raise ValueError(f'{owner}: reduction must be "mean", "sum" or "none", got {reduction!r}')


def check_no_others(owner: str, others: dict[str, Any], not_taken: dict[str, str], defaults: tuple = (None,)) -> None:
    """Raise an error for keywords that ``owner`` does not take.

    Args:
        owner: a function or class, for the message.
        others: what came.
        not_taken: options of PyTorch, each with the end of the message: why not, or what to type.
        defaults: what these may be.

    Raises:
        TypeError: an unknown keyword.
        ValueError: an option of PyTorch that is not at its default.
    """
    for name, value in others.items():
        if name not in not_taken:
            raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}")
        if not any(value is default for default in defaults):
            raise ValueError(f"{owner}: {name} is an option of PyTorch that is not taken here: {not_taken[name]}")


def check_floating(owner: str, name: str, array: np.ndarray, kinds: tuple[type, ...]) -> None:
    """Raise a TypeError that names owner and array unless it is an array of one of these kinds of numbers."""
    if not isinstance(array, np.ndarray) or not any(np.issubdtype(array.dtype, kind) for kind in kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{owner}: {name} must be an array of {expected}, got {kind_of(array)}")


def checked_alphas_cumprod(owner: str, alphas_cumprod: np.ndarray) -> np.ndarray:
    """abar of a scheduler, (T,), strictly falling from below 1 to 0 or above, as float64; raises what owner documents."""
    check_floating(owner, "alphas_cumprod", alphas_cumprod, SINGLE_OR_DOUBLE)
    if alphas_cumprod.ndim != 1 or alphas_cumprod.size == 0:
        raise ValueError(f"{owner}: alphas_cumprod must have the shape (T,) and not be empty, got {alphas_cumprod.shape}")
    abar = alphas_cumprod.astype(np.float64)
    if not (abar[0] < 1 and abar[-1] >= 0 and np.all(np.diff(abar) < 0)):
        ends = f"from {abar[0]:g} to {abar[-1]:g}"
        raise ValueError(f"{owner}: alphas_cumprod must fall strictly, from below 1 to no less than 0, got numbers {ends}")
    return abar


def checked_timesteps(owner: str, timesteps: np.ndarray | Sequence[int], num_train_timesteps: int) -> np.ndarray:
    """t of each image, (B,) int64 in 0 .. T-1; raises what owner documents."""
    t = np.asarray(timesteps)
    if t.dtype.kind not in "iu":
        raise TypeError(f"{owner}: timesteps must be integers, got dtype {t.dtype}")
    if t.ndim != 1 or t.size == 0:
        raise ValueError(f"{owner}: timesteps must have the shape (B,), one for each image, got {t.shape}")
    if t.min() < 0 or t.max() >= num_train_timesteps:
        raise ValueError(f"{owner}: expected timesteps 0 .. {num_train_timesteps - 1}, got {t.min()} .. {t.max()}")
    return t.astype(np.int64)


def kind_of(value: object) -> str:
    """What ``value`` is, for a message."""
    return f"one of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
