"""Configurations of schedulers: the arguments checked, and kept in files of the format of diffusers."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hcrot.files import DIFFUSERS_VERSION, read_json, replacing, write_json

CONFIG_NAME = "scheduler_config.json"

Scheduler = TypeVar("Scheduler", bound="SchedulerConfig")


class SchedulerConfig:
    """Saving and loading for a scheduler whose constructor leaves its arguments by name in `config`."""

    config: dict[str, Any]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the configuration to folder/scheduler_config.json; the folder is made if need be.

        A file that is there is replaced in one move, so a reader meets the old one or the new one, whole.
        """
        names = {"_class_name": type(self).__name__, "_diffusers_version": DIFFUSERS_VERSION}
        with replacing(Path(folder) / CONFIG_NAME) as unfinished:
            write_json(unfinished, {**names, **self.config})

    @classmethod
    def from_pretrained(cls: type[Scheduler], folder: str | os.PathLike[str]) -> Scheduler:
        """The scheduler configured by folder/scheduler_config.json, whether hcrot or diffusers wrote it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not JSON, or JSON but not an object; further what `from_config` raises.
        """
        return cls.from_config(read_json(Path(folder) / CONFIG_NAME))

    @classmethod
    def from_config(cls: type[Scheduler], config: Mapping[str, Any]) -> Scheduler:
        """The scheduler with these arguments; missing ones take their defaults, private ones (_class_name) are dropped.

        Unknown ones are ignored with a warning, so that configurations of other schedulers and releases can be read.

        Raises:
            TypeError, ValueError, NotImplementedError: whatever the constructor has against the arguments.
        """
        public = {name: value for name, value in config.items() if not name.startswith("_")}
        unknown = sorted(public.keys() - inspect.signature(cls).parameters.keys())
        if unknown:
            warnings.warn(f"{cls.__name__}: unknown configuration keys {unknown} are ignored", stacklevel=2)
        return cls(**{name: value for name, value in public.items() if name not in unknown})


# Each of these returns the value of an argument as JSON can hold it, or raises; `what` is "Class: argument".


def checked_choice(what: str, value: str, choices: Collection[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{what} {value!r} is unknown, expected one of {', '.join(choices)}")
    return value


def checked_boolean(what: str, value: bool) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{what} is {value!r}, expected True or False")
    return bool(value)


def checked_integer(what: str, value: int, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{what} is {value!r}, expected an integer")
    if value < minimum:
        raise ValueError(f"{what} is {value}, expected at least {minimum}")
    return int(value)


def checked_positive(what: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} is {value!r}, expected a number")
    if not 0 < value < np.inf:
        raise ValueError(f"{what} is {value}, expected a positive number")
    return float(value)


def checked_betas(
    what: str, value: np.ndarray | Sequence[float] | None, num_train_timesteps: int
) -> list[float] | None:
    if value is None:
        return None
    betas = np.asarray(value)
    if betas.dtype.kind not in "fiu" or betas.shape != (num_train_timesteps,):
        expected = f"one number for each of {num_train_timesteps} num_train_timesteps"
        raise ValueError(f"{what} has shape {betas.shape} and dtype {betas.dtype}, expected {expected}")
    return betas.tolist()
