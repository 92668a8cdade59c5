"""Checkpoints: folders that diffusers opens, and from which a run goes on bit for bit. No pickle, so loading runs no code.

    config.json                            the U-Net's arguments      } what `UNet2DModel.from_pretrained(folder)` of
    diffusion_pytorch_model.safetensors    its weights                } diffusers reads and `save_pretrained` writes
    scheduler_config.json                  the scheduler's arguments; `DDPMScheduler.from_pretrained(folder)`
    training_state.json                    steps, learning rates, generators (dropout's, too), whatever else is no array
    training_state.safetensors             the parameters and what belongs to them: Adam's moments, averages

The weights in the second file are the ones to sample from: the moving average, if the run keeps one. A folder takes the place of an
earlier one in one move (:mod:`hcrot.files.json_and_arrays`), so there is always one checkpoint, with all its files of one and the same
step, even while several processes save into one folder. The last two files carry the same digest of the state in both, ``save_id``: if
something else (a copy broken off, files of two runs put together by hand) has mixed two checkpoints, loading says so.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hcrot.files.json_and_arrays import plain, read_arrays_and_metadata, read_folder, read_json, replacing_folder, write_arrays
from hcrot.files.pretrained import ARRAYS_NAME, CONFIG_NAME, MODEL_FILES, SCHEDULER_NAME, check_network, write_model
from hcrot.module import Module

STATE_NAME = "training_state.json"
GENERATORS = "model.generators"
"""Under which name the network's own generators are kept; no name of a state has a dot."""

__all__ = ["Average", "Scheduler", "load_checkpoint", "save_checkpoint"]


class Scheduler(Protocol):
    """What a checkpoint needs of a scheduler."""

    def save_pretrained(self, folder: str | os.PathLike[str], /) -> None: ...


class Average(Protocol):
    """What a checkpoint needs of a moving average of the parameters, such as :class:`hcrot.EMA`."""

    def swapped_in(self) -> AbstractContextManager: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


def save_checkpoint(
    folder: str | os.PathLike,
    model: Module,
    scheduler: Scheduler | None = None,
    *,
    ema: Average | None = None,
    state: Mapping[str, Any] | None = None,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, in the place of the one that is there, in one move.

    Args:
        folder: made with its parents if need be. An earlier checkpoint in it is replaced.
        model: the network, any Module. Of a class that is no `Pretrained`, config.json has the ``config``, if there is one, and says
            how the weights are loaded.
        scheduler: written for whoever samples from the checkpoint.
        ema: the run's moving average of the model's parameters: the weights to sample from.
        state: what else the run consists of, by name: numpy Generators, and objects with ``state_dict`` and
            ``load_state_dict`` (optimizers, schedules of the learning rate, Batches). None: no training state is written,
            the checkpoint is for sampling.
        progress: what the run itself has to remember, such as its step: anything that JSON can hold. Goes with ``state``.

    Raises:
        FileExistsError: the folder holds a file that this checkpoint does not have and that would be lost.
        TypeError, ValueError: another model or scheduler than these, something that is no state, or a name with a dot; a `Pretrained`
            that is not what its config describes, because a part was replaced, for one.
        RuntimeError: within ``swapped_in()`` of ``ema`` or of an average in ``state``, where the model holds the averages.
        OSError: the folder cannot be written; the earlier checkpoint is as it was.

    Example:
        >>> model = hcrot.Linear(2, 2, generator=0)
        >>> optimizer = hcrot.AdamW(model.parameters())
        >>> hcrot.save_checkpoint(folder / "run", model, state={"optimizer": optimizer}, progress={"step": 5})
        >>> hcrot.load_checkpoint(folder / "run", model, state={"optimizer": optimizer})
        {'step': 5}
    """
    check_network("save_checkpoint", model)
    if scheduler is not None and not hasattr(scheduler, "save_pretrained"):
        raise TypeError(f"save_checkpoint: scheduler is a {type(scheduler).__name__}, expected a noise scheduler; others belong in state=")
    others = [SCHEDULER_NAME] * bool(scheduler) + [STATE_NAME, ARRAYS_NAME] * (state is not None)
    for part in [ema, *(state or {}).values()]:
        if hasattr(part, "check_not_swapped_in"):
            part.check_not_swapped_in("state_dict, for save_checkpoint")
    if state is not None:
        values, arrays = _split(_states(_parts(model, ema, state)))
        save_id = _digest(json.dumps(values, default=plain), arrays)
        text = json.dumps({"save_id": save_id, "progress": progress, "state": values}, default=plain)

    with replacing_folder("save_checkpoint", folder, "|".join([MODEL_FILES, *map(re.escape, others)])) as new:
        with ema.swapped_in() if ema else nullcontext():
            write_model(new, model)
        if scheduler:
            scheduler.save_pretrained(new)
        if state is not None:
            (new / STATE_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")
            write_arrays(new / ARRAYS_NAME, arrays, ("save_id", save_id))


def load_checkpoint(
    folder: str | os.PathLike, model: Module, *, ema: Average | None = None, state: Mapping[str, Any]
) -> Any:
    """Put a run where it was when the checkpoint was written. All or nothing: after an error everything is as it was.

    Args:
        folder: of a checkpoint with training state.
        model, ema, state: the same objects under the same names as in :func:`save_checkpoint`, built with the same arguments;
            their contents are replaced, in place.

    Returns:
        what :func:`save_checkpoint` got as ``progress``.

    Raises:
        FileNotFoundError: no such folder, or one of its files is missing; of a checkpoint for sampling, the message says how it is loaded.
        ValueError: a damaged file, files of two different saves, or a state of other objects than these; the message names it.

    Warns:
        UserWarning: an earlier version of hcrot wrote the checkpoint, without the generators of the network's dropout. The run goes on, but
            drops other numbers than the run that was saved would have.

    Example:
        >>> model = hcrot.Linear(2, 2)
        >>> hcrot.save_checkpoint(folder / "run", model, state={}, progress={"step": 5})
        >>> model.weight.data[...] = 0
        >>> hcrot.load_checkpoint(folder / "run", model, state={}), bool(model.weight.data.any())
        ({'step': 5}, True)
    """
    folder, content, arrays = read_folder("load_checkpoint", folder, _read_state)
    values = content.get("state")
    if "progress" not in content or not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise ValueError(f"{folder / STATE_NAME} holds no training state, expected the keys progress and state")
    parts = _parts(model, ema, state)
    states = _join(values, arrays)
    if GENERATORS in parts and GENERATORS not in states:
        names = ", ".join(parts.pop(GENERATORS).state_dict())
        message = f"load_checkpoint: {folder} holds no state of the network's generators ({names}); they stay as they are"
        warnings.warn(message, stacklevel=2)
    if states.keys() != parts.keys():
        raise ValueError(f"load_checkpoint: {folder} holds the state of {sorted(states)}, expected {sorted(parts)}")
    before = _states(parts)
    try:
        for name, part in parts.items():
            _restore(part, states[name])
    except Exception as error:
        for restored, part in parts.items():
            _restore(part, before[restored])
        raise ValueError(f"load_checkpoint: {folder} does not fit this run's {name}: {error}") from error
    return content["progress"]


def _read_state(folder: Path) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    if (folder / CONFIG_NAME).is_file() and not (folder / STATE_NAME).is_file():
        hint = "for sampling, load the network by load_model(folder) or load_model(folder, model)"
        raise FileNotFoundError(f"load_checkpoint: there is no file {folder / STATE_NAME}; {hint}")
    content, (arrays, metadata) = read_json(folder / STATE_NAME), read_arrays_and_metadata(folder / ARRAYS_NAME)
    ids = content.get("save_id"), metadata.get("save_id")  # earlier versions wrote none
    if ids[0] != ids[1]:
        both = f"{STATE_NAME} and {ARRAYS_NAME} in {folder}"
        raise ValueError(f"load_checkpoint: {both} are of two different saves (save_id {ids[0]!r:.40} and {ids[1]!r:.40})")
    return folder, content, arrays


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


# ---------------------------------------------------------------- states


class _Generators:
    """The random generators that the modules of a network hold, each under the first of its names: one may serve several modules."""

    def __init__(self, model: Module):
        first = {id(generator): (name, generator) for name, generator in reversed(list(model.named_generators()))}
        self.generators = dict(sorted(first.values(), key=lambda pair: pair[0]))

    def state_dict(self) -> dict[str, Any]:
        return {name: generator.bit_generator.state for name, generator in self.generators.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.keys() != self.generators.keys():
            raise ValueError(f"the generators are {sorted(state)}, expected {sorted(self.generators)}")
        for name, generator in self.generators.items():
            generator.bit_generator.state = state[name]


def _parts(model: Module, ema: Average | None, state: Mapping[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {"model": model} | ({"ema": ema} if ema else {})
    if any(True for _ in model.named_generators()):
        parts[GENERATORS] = _Generators(model)
    for name, part in state.items():
        if name in ("model", "ema") or "." in name:
            raise ValueError(f"checkpoint: state {name!r}: expected a name without dots, other than model and ema")
        if not isinstance(part, np.random.Generator) and not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise TypeError(f"checkpoint: state {name!r} must be a Generator or have a state_dict, got {type(part).__name__}")
    return parts | dict(state)


def _states(parts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: part.bit_generator.state if isinstance(part, np.random.Generator) else part.state_dict()
        for name, part in parts.items()
    }


def _restore(part: Any, state: Mapping[str, Any]) -> None:
    if isinstance(part, np.random.Generator):
        part.bit_generator.state = state
    else:
        part.load_state_dict(state)


def _split(states: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """What goes into JSON, by part and name, and the arrays, by ``part.name``."""
    values: dict[str, dict[str, Any]] = {part: {} for part in states}
    arrays = {}
    for part, state in states.items():
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                arrays[f"{part}.{name}"] = value
            else:
                values[part][name] = value
    return values, arrays


def _join(values: dict[str, dict[str, Any]], arrays: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """The inverse of :func:`_split`."""
    states = {part: dict(state) for part, state in values.items()}
    for key, array in arrays.items():
        part, _, name = key.partition(".")
        states.setdefault(part, {})[name] = array
    return states
