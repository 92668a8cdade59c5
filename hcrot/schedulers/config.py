"""Configurations of schedulers: the arguments checked, and kept in files of the format of diffusers."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np

from hcrot.files.configs import chosen_arguments, warn_of_unknown_keys
from hcrot.files.finding import find_file, read_local_folder
from hcrot.files.json_and_arrays import DIFFUSERS_VERSION, read_json, replacing, write_json
from hcrot.files.pretrained import SCHEDULER_NAME
from hcrot.init import is_int, is_real
from hcrot.shown import Table

__all__ = [
    "Check", "Config", "Scheduler", "SchedulerConfig", "checked_betas", "checked_boolean", "checked_choice", "checked_fraction",
    "checked_integer", "checked_optional", "checked_positive", "register_to_config",
]  # fmt: skip

Scheduler = TypeVar("Scheduler", bound="SchedulerConfig")
Check = Callable[[str, Any], Any]


class Config(dict[str, Any]):
    """Arguments by name, read as config["beta_end"] or config.beta_end, and never written.

    `from_config` makes a scheduler with other arguments: DDIMScheduler.from_config(config, timestep_spacing="trailing").

    Attributes:
        not_chosen: the names of those arguments that nobody chose, so that they are the defaults of their scheduler.

    Raises:
        AttributeError: no argument has that name.
        TypeError: an argument is set, removed or added.
    """

    not_chosen: frozenset[str]

    def __init__(self, arguments: Mapping[str, Any], not_chosen: Collection[str] = ()) -> None:
        super().__init__(arguments)
        object.__setattr__(self, "not_chosen", frozenset(not_chosen))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"config has no argument {name!r}, it has {', '.join(self)}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.not_chosen)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("config is read-only, expected another scheduler instead: from_config(config, argument=value)")

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


class SchedulerConfig:
    """Saving and loading for a scheduler whose constructor is decorated with `register_to_config`.

    Attributes:
        checks: for every argument of the constructor by name, what returns its value as JSON can hold it, or raises.
        config: the checked arguments by name, read-only, see `Config`; further what `from_config` was given for other
            schedulers to find again.
        beyond_diffusers: names of arguments that diffusers' class lacks: in `config`, and so in files, only if chosen.
    """

    beyond_diffusers: ClassVar[frozenset[str]] = frozenset()
    checks: ClassVar[Mapping[str, Check]] = {}
    config: Config
    _arguments: dict[str, Any]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the configuration to folder/scheduler_config.json; the folder is made if need be.

        A file that is there is replaced in one move, so a reader meets the old one or the new one, whole.
        """
        names = {"_class_name": type(self).__name__, "_diffusers_version": DIFFUSERS_VERSION}
        with replacing(Path(folder) / SCHEDULER_NAME) as unfinished:
            write_json(unfinished, {**names, **self.config})

    @classmethod
    def from_pretrained(
        cls: type[Scheduler], folder: str | os.PathLike[str], *, subfolder: str | os.PathLike[str] | None = None, **overrides: Any
    ) -> Scheduler:
        """The scheduler that a scheduler_config.json describes, whichever scheduler of hcrot or diffusers wrote it.

        Args:
            folder: of a scheduler, of a checkpoint, or of a whole pipeline.
            subfolder: where in it the file is. None: in `scheduler` if the folder is a pipeline's that has one, else in itself.
            overrides: as in `from_config`.

        Raises:
            FileNotFoundError: there is no such folder or file; the message says what is there.
            ValueError: the file is not JSON, or JSON but not an object; further what `from_config` raises.
        """
        owner = f"{cls.__name__}.from_pretrained"
        config = read_local_folder(owner, folder, lambda place: read_json(find_file(owner, place, SCHEDULER_NAME, subfolder, "scheduler")))
        return cls.from_config(config, **overrides)

    @classmethod
    def from_config(cls: type[Scheduler], config: Mapping[str, Any], **overrides: Any) -> Scheduler:
        """The scheduler with these arguments, which may be the `config` of another: model trained with one, sampled with any.

        overrides are arguments of this scheduler that take the place of those in config. So
        DDIMScheduler.from_config(ddpm.config, timestep_spacing="trailing") is DDIM with the noise levels of ddpm, and
        with other timesteps.

        As in diffusers, arguments that are missing, or that nobody chose when the other scheduler was made, take the
        defaults of this one. A file does not tell what was chosen, unless it lists what was not as _use_default_values:
        so read from a file the other arguments count as chosen. Arguments that this scheduler does not have are kept in
        `config` for the next one. If no scheduler has them, one warning names them all. Private ones (_class_name) are
        dropped.

        Raises:
            TypeError: config is no mapping, or an override is no argument of this scheduler (diffusers ignores it).
            ValueError: _use_default_values is no list of names.
            TypeError, ValueError: what the constructor raises for these arguments.
        """
        owner = f"{cls.__name__}.from_config"
        chosen = chosen_arguments(owner, config, config.not_chosen if isinstance(config, Config) else ())
        strange = sorted(overrides.keys() - cls._argument_names())
        if strange:
            raise TypeError(f"{owner}: it has no argument {strange[0]!r}, but {', '.join(cls._argument_list())}")
        others = {name: chosen.pop(name) for name in chosen.keys() - cls._argument_names()}
        warn_of_unknown_keys(owner, others.keys() - set().union(*(one._argument_names() for one in _subclasses(SchedulerConfig))))
        scheduler = cls(**{**chosen, **overrides})
        scheduler.config = Config({**scheduler.config, **others}, scheduler.config.not_chosen)
        return scheduler

    def _changed_arguments(self) -> dict[str, str]:
        """The arguments that differ from their defaults, as text; of a list of more than five entries two and the last."""
        parameters = inspect.signature(type(self)).parameters
        changed = {}
        for name, value in self._arguments.items():
            if name in parameters and value == self.checks[name](name, parameters[name].default):
                continue
            long = isinstance(value, list) and len(value) > 5
            changed[name] = f"[{value[0]!r}, {value[1]!r}, ..., {value[-1]!r}]" if long else repr(value)
        return changed

    def _repr_html_(self) -> str:
        """In a notebook: every argument, and which of them differ from their defaults."""
        changed = self._changed_arguments()
        rows = [[name, changed.get(name, repr(value)), "" if name in changed else "default"] for name, value in self._arguments.items()]
        return Table(repr(self), ("argument", "value", ""), rows, 3).html()

    @classmethod
    def _argument_list(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    @classmethod
    def _argument_names(cls) -> set[str]:
        return set(cls._argument_list())


def register_to_config(init: Callable[..., None]) -> Callable[..., None]:
    """Decorates the constructor of a scheduler: checks every argument, leaves them in `config`, then calls it with them.

    Raises:
        TypeError, ValueError: an argument that the constructor does not have, or that its check refuses.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked_init(self: SchedulerConfig, *arguments: Any, **named: Any) -> None:
        try:
            bound = signature.bind(self, *arguments, **named)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        chosen = set(bound.arguments)
        bound.apply_defaults()
        values = list(bound.arguments.items())[1:]  # without self
        config = {name: self.checks[name](f"{type(self).__name__}: {name}", value) for name, value in values}
        self._arguments = config  # without what `config` may keep for other schedulers, which must have no effect here
        left_out = self.beyond_diffusers - chosen
        kept = {name: value for name, value in config.items() if name not in left_out}
        self.config = Config(kept, not_chosen=kept.keys() - chosen)
        init(self, **config)

    return checked_init


def _subclasses(of: type[SchedulerConfig]) -> list[type[SchedulerConfig]]:
    direct: list[type[SchedulerConfig]] = of.__subclasses__()
    return direct + [cls for parent in direct for cls in _subclasses(parent)]


# Each of these returns the value of an argument as JSON can hold it, or raises; `what` is "Class: argument".


def checked_choice(what: str, value: str, choices: Collection[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{what} {value!r} is unknown, expected one of {', '.join(choices)}")
    return value


def checked_boolean(what: str, value: bool) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{what} is {value!r}, expected True or False")
    return bool(value)


def checked_optional(what: str, value: Any, check: Check) -> Any:
    return None if value is None else check(what, value)


def checked_integer(what: str, value: Any, minimum: int) -> int:
    if not is_int(value):
        raise TypeError(f"{what} is {value!r}, expected an integer")
    if value < minimum:
        raise ValueError(f"{what} is {value}, expected at least {minimum}")
    return int(value)


def checked_positive(what: str, value: Any) -> float:
    if isinstance(value, bool) or not is_real(value):
        raise TypeError(f"{what} is {value!r}, expected a number")
    if not 0 < value < np.inf:
        raise ValueError(f"{what} is {value}, expected a positive number")
    return float(value)


def checked_fraction(what: str, value: float) -> float:
    """From 0, exclusive, to 1, inclusive."""
    if checked_positive(what, value) > 1:
        raise ValueError(f"{what} is {value}, expected at most 1")
    return float(value)


def checked_ratio(what: str, value: Any) -> float:
    """From 0 to 1, both inclusive."""
    return 0.0 if is_real(value) and not isinstance(value, bool) and value == 0 else checked_fraction(what, value)


def checked_betas(what: str, value: np.ndarray | Sequence[float] | None) -> list[float] | None:
    """Their number is compared with num_train_timesteps when the scheduler is made."""
    if value is None:
        return None
    betas = np.asarray(value)
    if betas.dtype.kind not in "fiu" or betas.ndim != 1:
        raise ValueError(f"{what} has shape {betas.shape} and dtype {betas.dtype}, expected a list of numbers")
    return betas.tolist()
