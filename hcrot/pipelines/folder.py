"""Whole pipelines in diffusers' folders, and networks alone.

A pipeline's folder holds ``model_index.json``, which says what there is, ``unet/`` and ``scheduler/``; diffusers opens it with
``DDPMPipeline.from_pretrained`` or ``DDIMPipeline.from_pretrained`` if the network is a UNet2DModel or a UNet2DConditionModel.

Those two of diffusers know neither classes nor two networks, nor every sampler. What they cannot draw gets its own pipeline beside it, the
file ``pipeline.py`` (:mod:`hcrot.pipelines.diffusers_pipeline`). Since that is a program, diffusers wants to be told that it may run it:
``DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)``. Of two networks the first one is in ``small_unet/`` and
``small_scheduler/``.

The network may be any Module. Those that config.json describes, the subclasses of :class:`hcrot.files.pretrained.Pretrained`, are found
by their ``class_name`` and made anew. Of others there are the weights, to be loaded into a network that the caller makes.
"""

import importlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hcrot.schedulers
from hcrot.files.configs import chosen_arguments, warn_of_unknown_keys
from hcrot.files.finding import PIPELINE_NAME, describe_contents, find_file, places_of, read_local_folder
from hcrot.files.json_and_arrays import DIFFUSERS_VERSION, read_json, replacing_folder, write_json
from hcrot.files.pretrained import (
    CONFIG_NAME,
    HOW_TO_LOAD,
    MODEL_FILES,
    SCHEDULER_NAME,
    Pretrained,
    check_network,
    described,
    read_weights,
    size_in_bytes,
    write_model,
)
from hcrot.init import is_int
from hcrot.models.digit_classifier import DigitClassifier
from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_condition import UNet2DConditionModel
from hcrot.module import Module
from hcrot.schedulers.base import NoiseScheduler

__all__ = ["classes_of", "load", "load_model", "load_small", "save", "save_model"]

MORE_NETWORKS = ("hcrot.models.abarankab", "hcrot.models.ddpm_unet", "hcrot.models.lucidrains")
"""Imported when a network is looked for: they hold some that `import hcrot` leaves out."""

OWN_PIPELINE = Path(__file__).with_name("diffusers_pipeline.py")
OWN_CLASS = ["pipeline", "HcrotPipeline"]  # a file in the folder without its .py, and a class in it
OWN_SAMPLERS = ("PNDMScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
                "HeunDiscreteScheduler", "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")  # fmt: skip
"""Those whose steps diffusers' DDPMPipeline gets wrong: it does not scale the noise or the input, or hands on what they do not take."""

SMALL = "small_"
KNOWN = ("unet", "scheduler", f"{SMALL}unet", f"{SMALL}scheduler", "id2label", "null_label")


def save(
    folder: str | os.PathLike,
    model: Module,
    scheduler: NoiseScheduler,
    *,
    small: tuple[Module, NoiseScheduler] | None = None,
    classes: Sequence[str] = (),
    null_label: int | None = None,
    max_shard_size: int | str = "10GB",
) -> None:
    """Write a pipeline's folder, in the place of the one that is there, in one move.

    Args:
        folder: made with its parents if need be. An earlier pipeline in it is replaced.
        model, scheduler: what the pipeline consists of; the model may be any Module.
        small: of two networks the first one, whose pictures ``model`` enlarges, and its scheduler (:mod:`hcrot.pipelines.cascade`).
        classes: the names of the network's classes, the first ones if it has more.
        null_label: the label that means "of any class", if the network was trained for guidance.
        max_shard_size: as in `UNet2dModel.save_pretrained`.

    Raises:
        TypeError: another model or scheduler than these.
        ValueError: names or a null_label that the network has no classes for; networks that are no such two.
        FileExistsError, ValueError, OSError: as `UNet2dModel.save_pretrained`.
    """
    parts = {"": (model, scheduler)} | ({SMALL: small} if small else {})
    for prefix, (network, sampler) in parts.items():
        check_network("pipelines.save", network)
        if not isinstance(sampler, NoiseScheduler):
            raise TypeError(f"pipelines.save: {prefix}scheduler is a {type(sampler).__name__}, expected a noise scheduler")
    _check_classes([network for network, _ in parts.values()], classes, null_label)
    limit = size_in_bytes(max_shard_size)
    own = isinstance(model, UNet2dModel) and (small is not None or _has_classes(model) or type(scheduler).__name__ in OWN_SAMPLERS)
    stock = "DDIMPipeline" if type(scheduler).__name__ == "DDIMScheduler" else "DDPMPipeline"
    index: dict[str, Any] = {"_class_name": OWN_CLASS if own else stock, "_diffusers_version": DIFFUSERS_VERSION}
    for prefix, (network, sampler) in parts.items():
        index[f"{prefix}unet"] = [_library(network), described(network)["_class_name"]]
        index[f"{prefix}scheduler"] = ["diffusers", type(sampler).__name__]
    if own:
        index |= {"id2label": {str(number): name for number, name in enumerate(classes)}, "null_label": null_label}
    of_a_part = rf"({SMALL})?(unet/({MODEL_FILES})|scheduler/{re.escape(SCHEDULER_NAME)})"
    program = "|pipeline\\.py" if _is_own_program(Path(folder) / "pipeline.py") else ""
    with replacing_folder("pipelines.save", folder, rf"{re.escape(PIPELINE_NAME)}|{of_a_part}{program}") as new:
        write_json(new / PIPELINE_NAME, index)
        if own:
            shutil.copyfile(OWN_PIPELINE, new / f"{OWN_CLASS[0]}.py")
        for prefix, (network, sampler) in parts.items():
            (new / f"{prefix}unet").mkdir()
            write_model(new / f"{prefix}unet", network, limit)
            sampler.save_pretrained(new / f"{prefix}scheduler")


def _is_own_program(path: Path) -> bool:
    """Whether it is diffusers_pipeline.py, of this version or another one. Somebody else's program is not to be lost."""
    begins = OWN_PIPELINE.read_bytes().partition(b"\n")[0]
    return path.is_file() and path.read_bytes().startswith(begins)


def _has_classes(model: Module) -> bool:
    config = getattr(model, "config", {})
    return config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None


def _check_classes(networks: list[Module], classes: Sequence[str], null_label: int | None) -> None:
    """Raise a ValueError unless the networks go together and have so many classes."""
    configs = [getattr(network, "config", {}) for network in networks]
    if len(networks) > 1:
        (sees, says), draws = ([config.get(f"{way}_channels") for way in ("in", "out")] for config in configs)
        if says is None or sees != 2 * says or draws != [says, says]:
            came = f"{sees} in_channels and {says} out_channels, and small has {draws[0]} and {draws[1]}"
            raise ValueError(f"pipelines.save: with small, a network of 2 C in_channels and C out_channels is expected, got {came}")
    for config in configs:
        count = config.get("num_class_embeds") or 0
        labelled = null_label is None or (is_int(null_label) and 0 <= null_label < count)
        if isinstance(classes, str) or len(classes) > count or not labelled:
            came = f"classes {list(classes)!r:.60} and null_label {null_label!r}"
            raise ValueError(f"pipelines.save: the network has {count} labels, which {came} do not fit")


def load(folder: str | os.PathLike, *, variant: str | None = None, model: Module | None = None) -> tuple[Any, NoiseScheduler]:
    """The model and the scheduler of a pipeline's folder that hcrot or diffusers wrote; both may lie in the folder itself, too.

    Args:
        folder: of a pipeline, or what :func:`hcrot.save_checkpoint` wrote, with a scheduler.
        variant: which of several files of weights, as in `UNet2dModel.from_pretrained`.
        model: as in :func:`load_model`.

    Raises:
        FileNotFoundError: no such folder, or one of the files is missing; the message says what is there.
        ValueError: a file that is damaged, a pipeline of something else, weights that do not fit; the message names the file.
        NotImplementedError: a model or a scheduler that hcrot does not have; the message says what to do.
    """
    if model is not None and not isinstance(model, Module):
        raise TypeError(f"pipelines.load: model is a {type(model).__name__}, expected a Module")
    return read_local_folder("pipelines.load", folder, lambda place: _load(place, variant, model))


def load_small(folder: str | os.PathLike, *, variant: str | None = None) -> tuple[Any, NoiseScheduler] | None:
    """Of a pipeline of two networks the first one, with its scheduler: ``cascade(load_small(folder), load(folder), generator=0)``.

    None of a pipeline of one network. Arguments and errors are those of :func:`load`.
    """

    def read(place: Path) -> tuple[Any, NoiseScheduler] | None:
        index = read_json(place / PIPELINE_NAME) if (place / PIPELINE_NAME).is_file() else {}
        return _load(place, variant, None, SMALL) if f"{SMALL}unet" in index else None

    return read_local_folder("pipelines.load_small", folder, read)


def classes_of(folder: str | os.PathLike) -> tuple[list[str], int | None]:
    """The names of a pipeline's classes and the label that means "of any class", as :func:`save` was given them; [] and None without."""
    path = Path(folder) / PIPELINE_NAME
    index = read_json(path) if path.is_file() else {}
    return list((index.get("id2label") or {}).values()), index.get("null_label")


def _load(folder: Path, variant: str | None, model: Module | None, prefix: str = "") -> tuple[Module, NoiseScheduler]:
    path = folder / PIPELINE_NAME
    if path.is_file():
        index = read_json(path)
        parts: dict[str, Any] = {name: index.get(name) for name in (f"{prefix}unet", f"{prefix}scheduler")}
        for name, part in parts.items():
            if not isinstance(part, list) or len(part) != 2 or not isinstance(part[1], str):
                raise ValueError(f"pipelines.load: {path} says of {name} {part!r:.60}, expected a library and a class")
        (library, network), (_, wanted) = parts.values()
        warn_of_unknown_keys("pipelines.load", chosen_arguments("pipelines.load", index).keys() - KNOWN)
        config_path = find_file("pipelines.load", folder, SCHEDULER_NAME, f"{prefix}scheduler" if prefix else None, usual="scheduler")
        config = read_json(config_path)
    else:
        path = config_path = _scheduler_of_a_checkpoint(folder)
        config, about = read_json(config_path), read_json(folder / CONFIG_NAME)
        library, network = "" if HOW_TO_LOAD in about else "hcrot", about.get("_class_name", UNet2dModel.class_name)
        wanted = config.get("_class_name")
    kind = vars(hcrot.schedulers).get(wanted) if isinstance(wanted, str) else None
    known = _network_class(network) if library in ("hcrot", "diffusers") else None
    if (known is None and model is None) or not (isinstance(kind, type) and issubclass(kind, NoiseScheduler)):
        hint = "" if known or model else ": make the network and say pipelines.load(folder, model=network)"
        raise NotImplementedError(f"pipelines.load: {path} asks for {network} with {wanted}, hcrot has no such two{hint}")
    try:
        scheduler = kind.from_config(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"pipelines.load: {config_path}: {error}") from error
    if model is not None:
        return _filled("pipelines.load", folder, model, variant), scheduler
    assert known is not None
    return known.from_pretrained(folder, subfolder=f"{prefix}unet" if prefix else None, variant=variant), scheduler


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


def save_model(model: Module, folder: str | os.PathLike) -> None:
    """The network alone, any Module, in a folder: a checkpoint without scheduler and training state.

    Raises:
        TypeError: it is no Module, or has a ``config`` that JSON cannot hold.
        FileExistsError, ValueError, OSError: as `UNet2dModel.save_pretrained`.

    Example:
        >>> hcrot.save_model(hcrot.DigitClassifier(8, generator=0), folder / "model")
        >>> hcrot.load_model(folder / "model").__class__.__name__
        'DigitClassifier'
    """
    check_network("save_model", model)
    if isinstance(model, DigitClassifier):  # in files of its own
        model.save_pretrained(folder)
        return
    with replacing_folder("save_model", folder, MODEL_FILES) as new:
        write_model(new, model)


def load_model(folder: str | os.PathLike, model: Module | None = None) -> Any:
    """The network in a folder that :func:`save_model`, :func:`hcrot.save_checkpoint`, :func:`save` or diffusers wrote.

    Args:
        folder: of a network, of a checkpoint, or of a whole pipeline.
        model: a network to load the weights into, of any class; it is what is returned. None: config.json says what network to make.

    Raises:
        FileNotFoundError: no such folder, or one of the files is missing; the message says what is there.
        ValueError: a file that is damaged, or weights that do not fit; the message names the file.
        NotImplementedError: config.json names no network that hcrot can make; the message says what to do.
        TypeError: model is no Module.

    Example:
        >>> hcrot.save_model(hcrot.Linear(2, 3), folder / "linear")
        >>> hcrot.load_model(folder / "linear", hcrot.Linear(2, 3))            # a network without a config is made by its owner
        Linear(2, 3, bias=True)
    """
    if model is not None:
        if not isinstance(model, Module):
            raise TypeError(f"load_model: model is a {type(model).__name__}, expected a Module")
        return read_local_folder("load_model", folder, lambda place: _filled("load_model", place, model, None))
    path, config = read_local_folder("load_model", folder, _read_config)
    name = config.get("_class_name", UNet2dModel.class_name)
    kind = None if HOW_TO_LOAD in config else _network_class(name)
    if kind is None:
        raise NotImplementedError(
            f"load_model: {path} describes a {name!r:.60}, which hcrot cannot make: make the network and say load_model(folder, network)"
        )
    return kind.from_pretrained(folder)


def _read_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = find_file("load_model", folder, CONFIG_NAME, None, usual="unet")
    return path, read_json(path)


def _filled(owner: str, folder: Path, model: Module, variant: str | None) -> Module:
    """The model, with the weights in the folder."""
    path = find_file(owner, folder, CONFIG_NAME, None, usual="unet")
    source, weights = read_weights(path.parent, variant)
    try:
        model.load_state_dict(weights)
    except ValueError as error:
        raise ValueError(f"{owner}: {source} does not fit the {type(model).__name__}: {error}") from error
    return model


def _library(model: Module) -> str:
    """In which library a pipeline's folder says that the network's class is."""
    if not isinstance(model, Pretrained):
        return type(model).__module__
    return "diffusers" if model.class_name in (UNet2dModel.class_name, UNet2DConditionModel.class_name) else "hcrot"


def _network_class(name: Any) -> Any:
    """The class that config.json calls so, of hcrot or of the user's, the latest if there are several; None if there is none."""
    for module in MORE_NETWORKS:
        importlib.import_module(module)
    classes = {kind.class_name: kind for kind in _derived(Pretrained) if "class_name" in vars(kind)}
    return {**classes, DigitClassifier.__name__: DigitClassifier}.get(name) if isinstance(name, str) else None


def _derived(kind: type) -> Iterator[Any]:
    derived: type
    for derived in kind.__subclasses__():
        yield derived
        yield from _derived(derived)
