"""A trained network with other arguments, to be trained further: what still fits is kept, the rest is new and named."""

import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from hcrot.files.configs import level_of_the_caller

__all__ = ["adapted"]

SHOWN = 6

Model = TypeVar("Model", bound=Any)


def adapted(owner: str, model: Model, overrides: Mapping[str, Any], generator: np.random.Generator) -> Model:
    """The network that ``model.config`` with these overrides describes, with every parameter of ``model`` that fits by name and shape.

    Args:
        owner: whom messages name.
        model: a `Pretrained` network; stays as it is.
        overrides: arguments of its constructor.
        generator: source of the initial values of the other parameters.

    Raises:
        ValueError, TypeError, NotImplementedError: there is no such network; the message names the overrides.

    Warns:
        UserWarning: which parameters are new, and which of the old ones have no place; in one line. None, if all have found theirs.
    """
    given = ", ".join(f"{name}={value!r}" for name, value in overrides.items())
    names = type(model).argument_names()
    try:
        result = type(model)(**{name: value for name, value in {**model.config, **overrides}.items() if name in names}, generator=generator)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise type(error)(f"{owner}: with {given}: {error}") from error
    result.config.update({name: value for name, value in model.config.items() if name not in names})
    old, shapes = model.state_dict(), {name: parameter.shape for name, parameter in result.named_parameters()}
    keys = result.load_state_dict({name: array for name, array in old.items() if shapes.get(name) == array.shape}, strict=False)
    new = [f"{name} {shapes[name]}" + (f", was {old[name].shape}" if name in old else "") for name in keys.missing_keys]
    gone = [name for name in old if name not in shapes]
    if new or gone:
        parts = [f"new and untrained: {_first(new)}"] * bool(new) + [f"left out: {_first(gone)}"] * bool(gone)
        warnings.warn(f"{owner}: {given}: {'. '.join(parts)}", stacklevel=level_of_the_caller())
    return result


def _first(names: list[str]) -> str:
    return "; ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
