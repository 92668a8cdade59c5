"""Whole pipelines in diffusers' folders, and networks alone.

A pipeline's folder holds ``model_index.json``, which says what there is, ``unet/`` and ``scheduler/``; diffusers opens it with
``DDPMPipeline.from_pretrained`` or ``DDIMPipeline.from_pretrained``.
"""

import os
import re
from pathlib import Path
from typing import Any

import hcrot.schedulers
from hcrot.files.configs import chosen_arguments, warn_of_unknown_keys
from hcrot.files.finding import PIPELINE_NAME, describe_contents, find_file, places_of, read_local_folder
from hcrot.files.json_and_arrays import DIFFUSERS_VERSION, read_json, replacing_folder, write_json
from hcrot.files.pretrained import CONFIG_NAME, MODEL_FILES, SCHEDULER_NAME, check_network, size_in_bytes, write_model
from hcrot.models.unet_2d import UNet2dModel
from hcrot.schedulers.base import NoiseScheduler

__all__ = ["load", "load_model", "save", "save_model"]


def save(folder: str | os.PathLike, model: UNet2dModel, scheduler: NoiseScheduler, *, max_shard_size: int | str = "10GB") -> None:
    """Write a pipeline's folder, in the place of the one that is there, in one move.

    Args:
        folder: made with its parents if need be. An earlier pipeline in it is replaced.
        model, scheduler: what the pipeline consists of.
        max_shard_size: as in `model.save_pretrained`.

    Raises:
        TypeError: another model or scheduler than these.
        FileExistsError, ValueError, OSError: as `model.save_pretrained`.
    """
    check_network("pipelines.save", model)
    if not isinstance(scheduler, NoiseScheduler):
        raise TypeError(f"pipelines.save: scheduler is a {type(scheduler).__name__}, expected a noise scheduler")
    limit, kind = size_in_bytes(max_shard_size), type(scheduler).__name__
    index = {
        "_class_name": "DDIMPipeline" if kind == "DDIMScheduler" else "DDPMPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "unet": ["diffusers", model.class_name],
        "scheduler": ["diffusers", kind],
    }
    files = rf"{re.escape(PIPELINE_NAME)}|unet/({MODEL_FILES})|scheduler/{re.escape(SCHEDULER_NAME)}"
    with replacing_folder("pipelines.save", folder, files) as new:
        write_json(new / PIPELINE_NAME, index)
        (new / "unet").mkdir()
        write_model(new / "unet", model, limit)
        scheduler.save_pretrained(new / "scheduler")


def load(folder: str | os.PathLike, *, variant: str | None = None) -> tuple[UNet2dModel, NoiseScheduler]:
    """The model and the scheduler of a pipeline's folder that hcrot or diffusers wrote; both may lie in the folder itself, too.

    Args:
        folder: of a pipeline, or what :func:`hcrot.save_checkpoint` wrote, with a scheduler.
        variant: which of several files of weights, as in `UNet2dModel.from_pretrained`.

    Raises:
        FileNotFoundError: no such folder, or one of the files is missing; the message says what is there.
        ValueError: a file that is damaged, a pipeline of something else, weights that do not fit; the message names the file.
        NotImplementedError: a model or a scheduler that hcrot does not have.
    """
    return read_local_folder("pipelines.load", folder, lambda place: _load(place, variant))


def _load(folder: Path, variant: str | None) -> tuple[UNet2dModel, NoiseScheduler]:
    path = folder / PIPELINE_NAME
    if path.is_file():
        index = read_json(path)
        parts: dict[str, Any] = {name: index.get(name) for name in ("unet", "scheduler")}
        for name, part in parts.items():
            if not isinstance(part, list) or len(part) != 2 or not isinstance(part[1], str):
                raise ValueError(f"pipelines.load: {path} says of {name} {part!r:.60}, expected a library and a class")
        network, wanted = (part[1] for part in parts.values())
        warn_of_unknown_keys("pipelines.load", chosen_arguments("pipelines.load", index).keys() - parts)
        config_path = find_file("pipelines.load", folder, SCHEDULER_NAME, None, usual="scheduler")
        config = read_json(config_path)
    else:
        path = config_path = _scheduler_of_a_checkpoint(folder)
        config = read_json(config_path)
        network, wanted = UNet2dModel.class_name, config.get("_class_name")
    kind = vars(hcrot.schedulers).get(wanted) if isinstance(wanted, str) else None
    if network != UNet2dModel.class_name or not (isinstance(kind, type) and issubclass(kind, NoiseScheduler)):
        raise NotImplementedError(f"pipelines.load: {path} asks for {network} with {wanted}, hcrot has no such two")
    model = UNet2dModel.from_pretrained(folder, variant=variant)
    try:
        return model, kind.from_config(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"pipelines.load: {config_path}: {error}") from error


def _scheduler_of_a_checkpoint(folder: Path) -> Path:
    """The scheduler's file in a folder without model_index.json.

    Raises:
        FileNotFoundError: the folder is not what `save_checkpoint` writes with a scheduler; the message says what can be loaded.
    """
    here, path = (folder / CONFIG_NAME).is_file(), folder / SCHEDULER_NAME
    if here and path.is_file():
        return path
    missing = path if here else folder / PIPELINE_NAME
    pipelines = places_of(folder, PIPELINE_NAME)
    networks = [""] * here + places_of(folder, CONFIG_NAME)
    if pipelines:
        hint = f"pipelines are in its subfolders {', '.join(pipelines)}"
    elif networks:
        more = f", subfolder={networks[0]!r}" if networks[0] else ""
        hint = f"there is a network alone: UNet2dModel.from_pretrained({os.fspath(folder)!r}{more})"
    else:
        hint = describe_contents(folder)
    raise FileNotFoundError(f"pipelines.load: there is no file {missing}; {hint}")


def save_model(model: UNet2dModel, folder: str | os.PathLike) -> None:
    """:meth:`UNet2dModel.save_pretrained`: the network alone, a checkpoint without scheduler and training state."""
    check_network("save_model", model)
    model.save_pretrained(folder)


def load_model(folder: str | os.PathLike) -> UNet2dModel:
    """:meth:`UNet2dModel.from_pretrained`: the network of a checkpoint that hcrot or diffusers wrote."""
    return UNet2dModel.from_pretrained(folder)
