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
    import hcrot
    from hcrot.commands.sample import load, place_of
    from hcrot.files.checkpoint import STATE_NAME
    from hcrot.files.json_and_arrays import read_json
    from hcrot.files.runs import SMALL
    from hcrot.kernels.plain import why_slow
    from hcrot.pipelines.cascade import enlarges
    from hcrot.schedulers.base import NoiseScheduler

    place = place_of(checkpoint)
    model = hcrot.load_model(place)
    scheduler: NoiseScheduler | None = None
    names: list[str] = []
    with suppress(FileNotFoundError):  # a network alone
        _, scheduler, names = load(checkpoint)
    config, count = model.config, sum(parameter.data.size for parameter in model.parameters())
    facts: dict[str, Any] = {
        "folder": str(place),
        "network": f"{type(model).__name__}, {count:,} numbers, {sum(p.data.nbytes for p in model.parameters()) / 1e6:.1f} MB in memory",
        "pictures": f"{config['out_channels']} channels of {config['sample_size']} pixels",
        "levels": [f"{width} ({kind})" for width, kind in zip(config["block_out_channels"], config["down_block_types"], strict=True)],
    }
    if enlarges(model):
        facts["enlarges"] = f"small pictures, which the network in {place.parent / SMALL} draws"
    if config["num_class_embeds"]:
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
    facts["files"] = [f"{path.name} ({path.stat().st_size:,} bytes)" for path in sorted(place.iterdir()) if path.is_file()]
    opened: tuple[str, ...] = f"hcrot.load_model({str(place)!r})", f"diffusers: UNet2DModel.from_pretrained({str(place)!r})"
    if scheduler:
        opened += (f"hcrot export {checkpoint} FOLDER writes a pipeline for diffusers",)
    facts["opened by"] = list(opened)
    if why_slow():
        facts["speed here"] = why_slow()
    return facts
