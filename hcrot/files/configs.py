"""Configurations as diffusers keeps them: a constructor's arguments by name, and what to do with keys that are no arguments."""

import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

__all__ = ["chosen_arguments", "level_of_the_caller", "plain_argument", "warn_of_unknown_keys"]

USE_DEFAULTS = "_use_default_values"
PACKAGE = __name__.partition(".")[0]


def chosen_arguments(owner: str, config: Mapping[str, Any], not_chosen: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a configuration that somebody chose.

    Left out are private names such as ``_class_name``, and the arguments whose values nobody chose: those in ``not_chosen`` and those
    that ``_use_default_values`` lists in the configuration. They are to take the default values of whoever reads the configuration.

    Args:
        owner: whom an error message names, such as "UNet2dModel.from_config".
        config: arguments by name.
        not_chosen: names of further arguments to leave out.

    Raises:
        TypeError: ``config`` is no mapping.
        ValueError: ``_use_default_values`` is no list of names.
    """
    if not isinstance(config, Mapping):
        hint = f"; its arguments are {type(config).__name__}.config" if hasattr(config, "config") else ""
        raise TypeError(f"{owner}: config is a {type(config).__name__}, expected arguments by name{hint}")
    listed = config.get(USE_DEFAULTS, [])
    if not isinstance(listed, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{owner}: {USE_DEFAULTS} is {listed!r:.60}, expected a list of names of arguments")
    left_out = {*listed, *not_chosen}
    return {name: value for name, value in config.items() if not name.startswith("_") and name not in left_out}


def warn_of_unknown_keys(owner: str, unknown: Collection[str]) -> None:
    """Say in one warning, at the line of whoever called hcrot, which keys of a configuration have no effect. No keys, no warning."""
    if unknown:
        names = ", ".join(map(repr, sorted(unknown)[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        warnings.warn(f"{owner}: unknown configuration keys are ignored: {names}", stacklevel=level_of_the_caller())


def level_of_the_caller() -> int:
    """For `warnings.warn`: how many frames above the function that calls this the first one outside of hcrot is."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        level, frame = level + 1, frame.f_back
    return level


def plain_argument(value: Any) -> Any:
    """A constructor argument as config.json holds it: lists for tuples, Python's numbers for NumPy's, names for classes."""
    if isinstance(value, (tuple, list)):
        return [plain_argument(item) for item in value]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return value.item() if isinstance(value, np.generic) else value
