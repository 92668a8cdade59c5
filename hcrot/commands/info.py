"""What a checkpoint holds: the network, its size, the noise schedule, the training, and which programs can open it.

    hcrot info runs/flowers
"""

import argparse
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from hcrot.tools.arguments import print_json

__all__ = ["add_arguments", "facts_of", "run"]

OF_DIFFUSERS = ("UNet2DModel", "UNet2DConditionModel")  # the networks that both libraries have


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a run, a checkpoint, a network, or a pipeline")
    parser.add_argument("--json", action="store_true", help="as one line of JSON")


def run(options: Namespace) -> int:
    facts = facts_of(options.checkpoint)
    if options.json:
        print_json(facts)
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):<{width}}  {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return 0


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """What is known of a checkpoint, by name, in the order in which it is worth telling."""
    from hcrot.commands.sample import place_of
    from hcrot.files.checkpoint import STATE_NAME
    from hcrot.files.finding import PIPELINE_NAME, find_file
    from hcrot.files.json_and_arrays import read_json
    from hcrot.files.pretrained import CONFIG_NAME, read_weights
    from hcrot.files.runs import SMALL
    from hcrot.kernels.plain import why_slow
    from hcrot.models.unet_2d import UNet2dModel
    from hcrot.pipelines.cascade import enlarges

    place = place_of(checkpoint)
    model, scheduler = network_and_scheduler(place)
    if model is None:  # what its files say
        file = find_file("info", place, CONFIG_NAME, None, usual="unet")
        config, arrays = read_json(file), list(read_weights(file.parent, None)[1].values())
        kind = str(config.get("_class_name"))
    else:
        config, arrays = getattr(model, "config", {}), [parameter.data for parameter in model.parameters()]
        kind = type(model).__name__
    names_file = place.parent / "classes.json"
    names = read_json(names_file)["classes"] if names_file.is_file() and scheduler else []
    facts: dict[str, Any] = {
        "folder": str(place),
        "network": f"{kind}, {sum(a.size for a in arrays):,} numbers, {sum(a.nbytes for a in arrays) / 1e6:.1f} MB in memory",
    }
    if {"out_channels", "sample_size"} <= config.keys():
        facts["pictures"] = f"{config['out_channels']} channels of {config['sample_size']} pixels"
    if {"block_out_channels", "down_block_types"} <= config.keys():
        levels = zip(config["block_out_channels"], config["down_block_types"], strict=True)
        facts["levels"] = [f"{width} ({kind})" for width, kind in levels]
    else:
        facts["config"] = [f"{name}: {value}" for name, value in config.items() if not name.startswith("_")]
    if isinstance(model, UNet2dModel) and enlarges(model):
        facts["enlarges"] = f"small pictures, which the network in {place.parent / SMALL} draws"
    if config.get("num_class_embeds"):
        facts["classes"] = names or [f"{config['num_class_embeds']} without names"]
        if names and config["num_class_embeds"] == len(names) + 1:
            facts["guidance"] = f"possible: label {len(names)} means \"of any class\""
    if scheduler:
        kept = scheduler.config
        facts["scheduler"] = type(scheduler).__name__
        facts["noise"] = f"{kept['num_train_timesteps']} times, {kept.get('beta_schedule', 'own')}; predicts {kept['prediction_type']}"
    state = place / STATE_NAME
    if state.is_file():
        facts["training"] = f"can go on; progress {read_json(state).get('progress')}"
    is_pipeline = (place / PIPELINE_NAME).is_file()
    paths = sorted(path for path in (*place.iterdir(), *(place.glob("*/*") if is_pipeline else ())) if path.is_file())
    facts["files"] = [f"{path.relative_to(place).as_posix()} ({path.stat().st_size:,} bytes)" for path in paths]
    facts["opened by"] = opened_by(place, model, read_json(place / PIPELINE_NAME) if is_pipeline else None)
    if scheduler and isinstance(model, UNet2dModel) and not is_pipeline:
        facts["opened by"].append(f"diffusers: what hcrot export {checkpoint} FOLDER writes")
    if why_slow():
        facts["speed here"] = why_slow()
    return facts


def network_and_scheduler(place: Path) -> tuple[Any, Any]:
    """None for a scheduler that is not there, or for what is of a class that hcrot cannot make.

    Raises:
        FileNotFoundError, ValueError: there is no network, or it is damaged.
    """
    import hcrot

    with suppress(FileNotFoundError, NotImplementedError):
        return hcrot.pipelines.load(place)
    with suppress(NotImplementedError):
        return hcrot.load_model(place), None
    return None, None


def opened_by(place: Path, model: Any, index: dict[str, Any] | None) -> list[str]:
    """What one types, in hcrot and in diffusers, for this network; ``index`` is what a pipeline's folder says of itself."""
    folder = repr(str(place))
    if model is None:
        return [f"hcrot.load_model({folder}, network), with a network of the same parameters"]
    lines = [f"hcrot.load_model({folder})"]
    network = getattr(model, "class_name", type(model).__name__)
    if index is not None:
        lines.append(f"hcrot.pipelines.load({folder})")
    if network in OF_DIFFUSERS:
        if index is not None:
            kind = index.get("_class_name", "DiffusionPipeline")
            named = isinstance(kind, str)  # else a class in a file of the folder
            lines.append(f"diffusers: {kind}.from_pretrained({folder})" if named else
                         f"diffusers: DiffusionPipeline.from_pretrained({folder}, trust_remote_code=True)")  # fmt: skip
        part = ", subfolder='unet'" if (place / "unet").is_dir() else ""
        lines.append(f"diffusers: {network}.from_pretrained({folder}{part})")
    return lines
