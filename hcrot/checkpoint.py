"""Checkpoints: folders that diffusers opens, and from which a run goes on bit for bit. No pickle, so loading runs no code.

    config.json                            the U-Net's arguments      } what `UNet2DModel.from_pretrained(folder)` of
    diffusion_pytorch_model.safetensors    its weights                } diffusers reads and `save_pretrained` writes
    scheduler_config.json                  the scheduler's arguments; `DDPMScheduler.from_pretrained(folder)`
    training_state.json                    steps, learning rates, generators, and whatever else is no array
    training_state.safetensors             the parameters and what belongs to them: Adam's moments, averages

The weights in the second file are the ones to sample from: the moving average, if the run keeps one.

A folder is written whole beside its target and flushed to the disk; then the old one is moved aside and the new one moved
in. A process killed between these two moves leaves no folder under the name, but the old one, whole, under the other name,
where loading looks for it. So at any moment there is one checkpoint, with all its files of one and the same step.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from hcrot.ema import EMA
from hcrot.files import read_arrays, read_json, write_arrays
from hcrot.models.unet_2d import UNet2dModel
from hcrot.module import Module
from hcrot.schedulers.config import CONFIG_NAME as SCHEDULER_NAME
from hcrot.schedulers.config import DIFFUSERS_VERSION, SchedulerConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
STATE_NAME = "training_state.json"
ARRAYS_NAME = "training_state.safetensors"

CLASS_NAME = "UNet2DModel"  # diffusers' name for it
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # attention's keys before diffusers 0.15


def save_checkpoint(
    folder: str | os.PathLike,
    model: UNet2dModel,
    scheduler: SchedulerConfig | None = None,
    *,
    ema: EMA | None = None,
    state: Mapping[str, Any] | None = None,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, in the place of the one that is there, in one move.

    Args:
        folder: made with its parents if need be. An earlier checkpoint in it is replaced.
        model: the network.
        scheduler: written for whoever samples from the checkpoint.
        ema: the run's moving average of the model's parameters: the weights to sample from.
        state: what else the run consists of, by name: numpy Generators, and objects with ``state_dict`` and
            ``load_state_dict`` (optimizers, schedules of the learning rate, Batches). None: no training state is written,
            the checkpoint is for sampling.
        progress: what the run itself has to remember, such as its step: anything that JSON can hold. Goes with ``state``.

    Raises:
        FileExistsError: the folder holds a file that this checkpoint does not have and that would be lost.
        TypeError, ValueError: something that is no state, or a name with a dot.
        OSError: the folder cannot be written; the earlier checkpoint is as it was.
    """
    names = {CONFIG_NAME, WEIGHTS_NAME}
    names |= {SCHEDULER_NAME} if scheduler else set()
    names |= {STATE_NAME, ARRAYS_NAME} if state is not None else set()
    others = sorted(set(os.listdir(folder)) - names) if os.path.exists(folder) else []
    if others:
        raise FileExistsError(f"save_checkpoint: {folder} holds {', '.join(others)}, which would be lost: choose another folder")
    if state is not None:
        values, arrays = _split(_states(_parts(model, ema, state)))
        text = json.dumps({"progress": progress, "state": values}, default=_plain)

    with _replacing_folder(folder) as new:
        config = {"_class_name": CLASS_NAME, "_diffusers_version": DIFFUSERS_VERSION, **model.config}
        (new / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True, default=_plain) + "\n", encoding="utf-8", newline="\n")
        with ema.swapped_in() if ema else nullcontext():
            write_arrays(new / WEIGHTS_NAME, model.state_dict())
        if scheduler:
            scheduler.save_pretrained(new)
        if state is not None:
            (new / STATE_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")
            write_arrays(new / ARRAYS_NAME, arrays)


def save_model(model: UNet2dModel, folder: str | os.PathLike) -> None:
    """Write the network alone, for :func:`load_model` and diffusers: a checkpoint without scheduler and training state.

    Raises:
        FileExistsError, OSError: as :func:`save_checkpoint`.
    """
    save_checkpoint(folder, model)


def load_checkpoint(
    folder: str | os.PathLike, model: UNet2dModel, *, ema: EMA | None = None, state: Mapping[str, Any]
) -> Any:
    """Put a run where it was when the checkpoint was written. All or nothing: after an error everything is as it was.

    Args:
        folder: of a checkpoint with training state.
        model, ema, state: the same objects under the same names as in :func:`save_checkpoint`, built with the same arguments;
            their contents are replaced, in place.

    Returns:
        what :func:`save_checkpoint` got as ``progress``.

    Raises:
        FileNotFoundError: no such folder, or one of its files is missing.
        ValueError: a damaged file, or a state of other objects than these; the message names it.
    """
    folder = _find("load_checkpoint", folder)
    content, arrays = read_json(folder / STATE_NAME), read_arrays(folder / ARRAYS_NAME)
    values = content.get("state")
    if "progress" not in content or not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise ValueError(f"{folder / STATE_NAME} holds no training state, expected the keys progress and state")
    parts = _parts(model, ema, state)
    states = _join(values, arrays)
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


def load_model(folder: str | os.PathLike) -> UNet2dModel:
    """The network of a checkpoint that hcrot or diffusers wrote, float32, in training mode.

    Args:
        folder: with config.json and diffusion_pytorch_model.safetensors. As in diffusers, arguments missing in config.json
            take their defaults and unknown ones are ignored with a warning; the weights must fit exactly.

    Raises:
        FileNotFoundError: no such folder, or one of the two files is missing.
        ValueError: a file that is damaged or of another network, weights that do not fit; the message names the file.
        NotImplementedError: the network uses an argument of diffusers' that hcrot does not have yet.
    """
    folder = _find("load_model", folder)
    path = folder / CONFIG_NAME
    config = read_json(path)
    if config.get("_class_name", CLASS_NAME) != CLASS_NAME:
        raise ValueError(f"load_model: {path} describes a {config['_class_name']}, expected a {CLASS_NAME}")
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    unknown = sorted(arguments.keys() - set(UNet2dModel.argument_names()))
    if unknown:
        warnings.warn(f"load_model: {path}: unknown arguments {unknown} are ignored", stacklevel=2)
    weights = {_current_key(key): array for key, array in read_arrays(folder / WEIGHTS_NAME).items()}
    try:
        model = UNet2dModel(**{name: value for name, value in arguments.items() if name not in unknown})
    except (ValueError, TypeError) as error:
        raise ValueError(f"load_model: {path}: {error}") from error
    try:
        model.load_state_dict(weights)
    except ValueError as error:
        raise ValueError(f"load_model: {folder / WEIGHTS_NAME} does not fit {CONFIG_NAME}: {error}") from error
    return model


def _plain(value: Any) -> Any:
    """An array or number of NumPy's as JSON can hold it: some generators' states have arrays, and sizes may be NumPy integers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"checkpoint: {value!r:.60} of type {type(value).__name__} cannot be kept in JSON")


def _current_key(key: str) -> str:
    return ".".join(RENAMED.get(part, part) for part in key.split("."))


# ---------------------------------------------------------------- folders


@contextmanager
def _replacing_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``folder`` when all went well."""
    target = Path(folder).resolve()
    new, aside = target.with_name(f".{target.name}.new"), _aside(target)
    shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed
    new.mkdir(parents=True)
    try:
        yield new
        for path in [*new.iterdir(), new]:
            _flush(path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if target.exists():
        if aside.exists():
            shutil.rmtree(aside)  # left by a process that was killed when the target was in place already
        os.rename(target, aside)
    os.rename(new, target)
    _flush(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _find(owner: str, folder: str | os.PathLike) -> Path:
    """The folder, or the place where a process that was killed while replacing it has left it."""
    path = Path(folder)
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{owner}: {path} is a file, expected a checkpoint's folder")
    aside = _aside(path.resolve())
    if not aside.is_dir():
        raise FileNotFoundError(f"{owner}: there is no folder {path}")
    return aside


def _flush(path: Path) -> None:
    """Wait until the file, or the names in the folder, have reached the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows neither can nor needs to
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- states


def _parts(model: Module, ema: EMA | None, state: Mapping[str, Any]) -> dict[str, Any]:
    parts = {"model": model} | ({"ema": ema} if ema else {})
    for name, part in state.items():
        if name in ("model", "ema") or "." in name:
            raise ValueError(f"checkpoint: state {name!r}: expected a name without dots, other than model and ema")
        if not isinstance(part, np.random.Generator) and not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise TypeError(f"checkpoint: state {name!r} must be a Generator or have a state_dict, got {type(part).__name__}")
    return parts | dict(state)


def _states(parts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: part.bit_generator.state if isinstance(part, np.random.Generator) else part.state_dict()
        for name, part in parts.items()
    }


def _restore(part: Any, state: dict[str, Any]) -> None:
    if isinstance(part, np.random.Generator):
        part.bit_generator.state = state
    else:
        part.load_state_dict(state)


def _split(states: dict[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
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
