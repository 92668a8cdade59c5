"""Networks in folders of diffusers' format: what either library writes, the other opens. No pickle, so loading runs no code.

    config.json                                             the constructor's arguments
    diffusion_pytorch_model.safetensors                     the weights, or, when they are split into shards:
    diffusion_pytorch_model.safetensors.index.json              which array is in which shard
    diffusion_pytorch_model-00001-of-00003.safetensors          ...

Loading is stricter than diffusers', which only warns: exactly the arrays that config.json asks for, each of its shape, or an error and no
network. It takes a small multiple of the file's size in memory, whatever config.json and headers claim.
"""

import inspect
import json
import math
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hcrot import init
from hcrot.files.adapting import adapted
from hcrot.files.blank import Blank, Part, TooLarge, first_difference, parts_of
from hcrot.files.configs import chosen_arguments, plain_argument, warn_of_unknown_keys
from hcrot.files.finding import describe_contents, find_file, read_local_folder
from hcrot.files.json_and_arrays import DIFFUSERS_VERSION, plain, read_arrays, read_json, replacing_folder, write_arrays, write_json
from hcrot.module import IncompatibleKeys, Module

__all__ = [
    "ARRAYS_NAME",
    "CONFIG_NAME",
    "INDEX_NAME",
    "MODEL_FILES",
    "SCHEDULER_NAME",
    "WEIGHTS_NAME",
    "Pretrained",
    "read_weights",
    "size_in_bytes",
    "write_model",
]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
INDEX_NAME = "diffusion_pytorch_model.safetensors.index.json"
SCHEDULER_NAME = "scheduler_config.json"
ARRAYS_NAME = "training_state.safetensors"
WEIGHTS_STEM = "diffusion_pytorch_model"
VARIANT = r"[A-Za-z0-9_]+"
MODEL_FILES = rf"{re.escape(CONFIG_NAME)}|{re.escape(WEIGHTS_NAME)}|{re.escape(INDEX_NAME)}|diffusion_pytorch_model-\d+-of-\d+\.safetensors"

RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # attention's keys before diffusers 0.15
HOW_TO_LOAD = "_how_to_load"
HOW = "make the network as the program that saved it did, and give it to load_model(folder, model) or pipelines.load(folder, model=model)"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

Model = TypeVar("Model", bound="Pretrained")


class Pretrained(Module):
    """A network that folders hold, and that is made again from what they hold: a Module with a ``config``.

    It is saved only if it is what the class makes of ``config``. A network with other parts is a class of its own::

        class MyUNet(hcrot.UNet2dModel):
            class_name = "MyUNet"

            def __init__(self, **options):
                super().__init__(**options)
                self.conv_out = MyLastLayers(self.config["block_out_channels"][0])

    Attributes:
        class_name: what config.json calls it, as diffusers does; each class has its own.
        config: the constructor's arguments by name, as JSON can hold them.
    """

    class_name: str
    config: dict[str, Any]

    def save_pretrained(self, folder: str | os.PathLike, *, max_shard_size: int | str = "10GB") -> None:
        """Write the network into a folder, in the place of the one that is there, in one move.

        Args:
            folder: made with its parents if need be. An earlier network in it is replaced.
            max_shard_size: of a file of weights, in bytes or such as "200MB" (1 MB is 10^6 bytes); an array is never split. What
                fits into one file is one, without an index.

        Raises:
            FileExistsError: the folder holds a file that is no part of a network and that would be lost.
            ValueError: a max_shard_size that is no size; a network that is not what its class makes of its config, because a part was
                replaced, for one: the message names the first part that differs.
            OSError: the folder cannot be written; what was there is as it was.
        """
        check_network(f"{type(self).__name__}.save_pretrained", self)
        limit = size_in_bytes(max_shard_size)
        with replacing_folder(f"{type(self).__name__}.save_pretrained", folder, MODEL_FILES) as new:
            write_model(new, self, limit)

    @classmethod
    def from_config(
        cls: type[Model], config: Mapping[str, Any], *, generator: np.random.Generator | int | None = None
    ) -> Model:
        """The network, with new weights, that a config.json (of diffusers, too) or ``config`` of another network describes.

        Args:
            config: the constructor's arguments by name. Missing ones take their defaults, and so do those that ``_use_default_values``
                lists. Names that begin with an underscore, such as ``_class_name`` and ``_diffusers_version``, are no arguments and
                are ignored. Other keys that are no arguments have no effect on the network, as in diffusers: one warning names them
                all, and they are kept in ``config``, so that saving writes them again.
            generator: source of the initial weights, or its seed.

        Raises:
            TypeError: config is no mapping. ValueError: ``_use_default_values`` is no list of names. Further what the constructor raises.
        """
        owner = f"{cls.__name__}.from_config"
        arguments = chosen_arguments(owner, config)
        others = {name: arguments.pop(name) for name in list(arguments) if name not in cls.argument_names()}
        warn_of_unknown_keys(owner, others)
        model = cls(**arguments, generator=generator)  # type: ignore[call-arg]  # each subclass takes its own
        model.config.update({name: plain_argument(value) for name, value in others.items()})
        return model

    @classmethod
    def argument_names(cls) -> list[str]:
        """The constructor's arguments, those that it hands on as ``**options`` included: the keys of ``config`` and of config.json."""
        names: dict[str, None] = {}
        for kind in cls.__mro__:
            if "__init__" in vars(kind):
                parameters = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
                names |= {p.name: None for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "generator"}
                if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                    break
        return list(names)

    @classmethod
    def from_pretrained(
        cls: type[Model],
        folder: str | os.PathLike,
        *,
        subfolder: str | os.PathLike | None = None,
        variant: str | None = None,
        use_ema: bool = True,
        generator: np.random.Generator | int | None = None,
        **overrides: Any,
    ) -> Model:
        """The network in a folder that hcrot or diffusers wrote, float32 whatever the file has, in training mode.

        Args:
            folder: of a network, of a checkpoint (:mod:`hcrot.files.checkpoint`), or of a whole pipeline.
            subfolder: where in it the network is. None: in ``unet`` if the folder is a pipeline's that has one, else in itself.
            variant: which of several files of weights, such as "fp16" for ``diffusion_pytorch_model.fp16.safetensors``.
            use_ema: of a checkpoint with training state, False takes the weights that the optimizer moved, instead of the moving average
                that runs sample from.
            generator: for the network's own noise, dropout, and for new weights, or its seed; None: a new one, seeded by the operating
                system.
            overrides: arguments of the constructor that take the place of config.json's, to go on with another network than the one
                that was trained: ``from_pretrained(folder, in_channels=1, num_class_embeds=4)``. Parameters that the file lacks, or has
                in another shape, are new, and a warning names them (diffusers: ``ignore_mismatched_sizes=True``).

        Raises:
            TypeError: an override is no argument of the network.
            FileNotFoundError: no such folder, or one of the files is missing.
            ValueError: a file that is damaged or of another network, weights that do not fit; the message names the file.
            NotImplementedError: the network uses what hcrot does not have.
        """
        owner = f"{cls.__name__}.from_pretrained"
        generator = init.default_generator(owner, generator)
        unknown = sorted(overrides.keys() - set(cls.argument_names()))
        if unknown:
            raise TypeError(f"{owner}: {unknown[0]!r} is no argument of {cls.__name__}, which has {', '.join(cls.argument_names())}")

        def read(place: Path) -> tuple[Path, dict[str, Any], Path, dict[str, np.ndarray]]:
            path = find_file(owner, place, CONFIG_NAME, subfolder, usual="unet")
            config = read_json(path)
            if config.get("_class_name", cls.class_name) != cls.class_name:
                raise ValueError(f"{owner}: {path} describes a {config['_class_name']!r:.60}, expected a {cls.class_name}")
            return path, config, *(read_weights(path.parent, variant) if use_ema else read_raw_weights(path.parent))

        path, config, source, weights = read_local_folder(owner, folder, read)
        numbers = sum(array.size for array in weights.values())
        blank = Blank(2 * numbers)  # so that where something is missing, load_state_dict can say what
        try:
            model = cls.from_config(config, generator=blank)
        except NotImplementedError as error:
            raise NotImplementedError(f"{owner}: {path}: {error}") from error
        except TooLarge as error:
            raise ValueError(f"{owner}: {path} describes a network of over {error} numbers, {source} holds {numbers}") from error
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"{owner}: {path}: {error}") from error
        module: Any  # of which some have a generator
        for module in model.modules():
            if getattr(module, "generator", None) is blank:
                module.generator = generator
        try:
            model.load_state_dict(weights)
        except ValueError as error:
            raise ValueError(f"{owner}: {source} does not fit {CONFIG_NAME}: {error}") from error
        return adapted(owner, model, overrides, generator) if overrides else model

    def load_state_dict(self, state: dict[str, np.ndarray], strict: bool = True) -> IncompatibleKeys:
        """:meth:`hcrot.Module.load_state_dict`, whose error explains names that all begin with a word too many.

        Raises:
            ValueError: names, shapes or dtypes that do not fit; nothing has changed then.
        """
        prefix = os.path.commonprefix(list(state)).rpartition(".")[0] + "."
        own = self.state_dict().keys()
        if not own & state.keys() and any(name.removeprefix(prefix) in own for name in state):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: every name begins with {prefix!r} (PyTorch's DataParallel writes 'module.', its "
                f"compile '_orig_mod.'), expected names such as {next(iter(own))!r}: load "
                f"{{name.removeprefix({prefix!r}): array for name, array in state.items()}}"
            )
        return super().load_state_dict(state, strict)


# ---------------------------------------------------------------- the files


def check_network(owner: str, model: Any) -> None:
    """Raise an error that begins with ``owner`` unless a folder can hold what the model is.

    Raises:
        TypeError: it is no Module, or has a ``config`` that JSON cannot hold.
        ValueError: it is not what its class makes of its config; the first part that differs is named.
    """
    if not isinstance(model, Module):
        raise TypeError(f"{owner}: model is a {type(model).__name__}, expected a Module")
    try:
        json.dumps(described(model), default=plain)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{owner}: the config of the {type(model).__name__} must be what JSON can hold: {error}") from error
    if isinstance(model, Pretrained):
        check_as_described(owner, model)


def check_as_described(owner: str, model: Pretrained) -> None:
    """Raise a ValueError, which names the first part that differs, unless the model is what its class makes of its config."""
    kind = next(kind for kind in type(model).__mro__ if "class_name" in vars(kind))
    if kind is not type(model):
        raise ValueError(
            f"{owner}: a {type(model).__name__} would be saved as the {kind.__name__} that it is derived from, and loaded as one: "
            f"give the class its own name, class_name = {type(model).__name__!r}"
        )
    arguments = {name: value for name, value in model.config.items() if name in type(model).argument_names()}
    try:
        text = json.dumps(arguments, default=plain)
        difference = first_difference(parts_of(model), _parts_described(kind, text))  # type: ignore[arg-type]  # mypy: no class is hashable
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{owner}: {type(model).__name__} makes no network of the model's config: {error}") from error
    if difference:
        raise ValueError(
            f"{owner}: the {type(model).__name__} is not what its config describes, and could not be loaded: {difference}. Save its "
            "weights alone (safetensors.numpy.save_file(model.state_dict(), file)), or make it a class, see help(UNet2dModel.__base__)"
        )


@lru_cache(maxsize=16)  # so that a run that saves often makes the network once
def _parts_described(kind: type[Any], arguments: str) -> dict[str, Part]:
    """The parts of the network that a class makes of its config, as JSON."""
    return parts_of(kind(**json.loads(arguments), generator=Blank(math.inf)))


def described(model: Module) -> dict[str, Any]:
    """What config.json says of a network."""
    if isinstance(model, Pretrained):
        return {"_class_name": model.class_name, "_diffusers_version": DIFFUSERS_VERSION, **model.config}
    config = getattr(model, "config", None)
    return {**(config if isinstance(config, Mapping) else {}), "_class_name": type(model).__name__, HOW_TO_LOAD: HOW}


def write_model(folder: Path, model: Module, max_shard_size: int = 10 * UNITS["GB"]) -> None:
    """Write config.json and the weights, in shards of at most so many bytes, into a new folder."""
    write_json(folder / CONFIG_NAME, described(model))
    weights = model.state_dict()
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in weights.items():
        size += array.nbytes
        if shards[-1] and size > max_shard_size:
            shards.append({})
            size = array.nbytes
        shards[-1][name] = array
    if len(shards) == 1:
        write_arrays(folder / WEIGHTS_NAME, weights)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = WEIGHTS_NAME.replace(".", f"-{number:05}-of-{len(shards):05}.")
        write_arrays(folder / file, shard)
        places |= dict.fromkeys(shard, file)
    total = sum(array.nbytes for array in weights.values())
    write_json(folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": places})


def read_weights(folder: Path, variant: str | None = None) -> tuple[Path, dict[str, np.ndarray]]:
    """The arrays of a network by their present names, and the file to name when they do not fit: the weights, or their index.

    Raises:
        FileNotFoundError: there are no weights, or a shard is missing; the message says which other weights are there.
        ValueError: a damaged file; shards that do not hold what their index says; an array under its old and its new name; a variant
            that is no word.
    """
    if variant is not None and (not isinstance(variant, str) or not re.fullmatch(VARIANT, variant)):
        raise ValueError(f"variant is {variant!r:.60}, expected the middle of a file's name, such as 'fp16', or None")
    path, index = (folder / _of_variant(name, variant) for name in (WEIGHTS_NAME, INDEX_NAME))
    if not index.is_file():
        _check_that_weights_are_there(path)
        return path, renamed(path, read_arrays(path))
    if path.is_file():
        raise ValueError(f"{folder} holds both {path.name} and {index.name}: one of them is out of date and has to go")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f"{index} holds no weight_map that says in which file each array is")
    weights: dict[str, np.ndarray] = {}
    for file in sorted(set(places.values())):
        if "/" in file or "\\" in file:
            raise ValueError(f"{index} names the file {file!r}, expected one in the same folder")
        shard, expected = read_arrays(folder / file), {name for name, place in places.items() if place == file}
        if shard.keys() != expected:
            wrong = ", ".join(sorted(shard.keys() ^ expected)[:5])
            raise ValueError(f"{folder / file} does not hold what {index.name} says: they differ in {wrong}")
        weights |= shard
    return index, renamed(index, weights)


def read_raw_weights(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """What the optimizer had made of the network's arrays when a checkpoint was written, and the file to name when they do not fit.

    Raises:
        FileNotFoundError: the folder holds no training state. ValueError: the file is damaged.
    """
    path = folder / ARRAYS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}, in which a checkpoint of hcrot keeps the weights that use_ema=False asks for")
    return path, {name.removeprefix("model."): array for name, array in read_arrays(path).items() if name.startswith("model.")}


def _of_variant(name: str, variant: str | None) -> str:
    """``a.fp16.json`` of ``a.json``."""
    stem, _, ending = name.rpartition(".")
    return name if variant is None else f"{stem}.{variant}.{ending}"


def _check_that_weights_are_there(path: Path) -> None:
    """Raise a FileNotFoundError if the file is missing and the folder holds other weights, which the message names with what to type."""
    others = sorted(file.name for file in path.parent.glob("*.safetensors*") if file.name != path.name)
    if path.is_file() or not others:
        return
    hints = []
    for name in others:
        match = re.fullmatch(rf"{WEIGHTS_STEM}(?:\.({VARIANT}))?\.safetensors(?:\.index(?:\.({VARIANT}))?\.json)?", name)
        if match:
            hints.append(f"variant={match[1] or match[2]!r}")
    hint = f"; say {' or '.join(dict.fromkeys(hints))}" if hints else f", expected weights under the name {path.name}"
    raise FileNotFoundError(f"there is no file {path}; {describe_contents(path.parent)}{hint}")


def renamed(path: Path, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by the names that diffusers gives them today; a ValueError, which names the file, if two get the same."""
    result = {}
    for name, array in weights.items():
        today = ".".join(RENAMED.get(part, part) for part in name.split("."))
        if today in result:
            raise ValueError(f"{path} holds {today} twice, once under an old name")
        result[today] = array
    return result


def size_in_bytes(size: int | str) -> int:
    """200_000_000 of "200MB".

    Raises:
        ValueError: it is neither a positive int nor a number followed by KB, MB, GB or TB.
    """
    if init.is_int(size) and size > 0:
        return int(size)
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B)", size) if isinstance(size, str) else None
    if not match or not float(match[1]):
        raise ValueError(f"max_shard_size must be a positive number of bytes or such as '200MB', got {size!r}")
    return int(float(match[1]) * UNITS[match[2]])
