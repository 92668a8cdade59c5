"""Write what a run has learned as a pipeline that diffusers opens, with its classes and with both networks, if there are two.

    hcrot export runs/flowers flowers
    hcrot export runs/flowers flowers --sampler ddim

Then, where PyTorch and diffusers are installed, on a GPU, too, and without hcrot:

    pipe = DiffusionPipeline.from_pretrained("flowers", trust_remote_code=True)
    pipe(["rose", "daisy"], num_inference_steps=25, guidance_scale=1.3).images[0].save("rose.png")

trust_remote_code lets diffusers run flowers/pipeline.py, which knows classes and two networks. A network without classes that draws alone
is opened without it. hcrot itself opens the folder, too: hcrot sample flowers. The weights are the averaged ones.
"""

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any

from hcrot.samplers import BEST, SAMPLERS
from hcrot.tools.arguments import print_json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a run, a checkpoint, or a pipeline")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="to write; a pipeline that is there is replaced")
    parser.add_argument("--sampler", choices=list(SAMPLERS), default=BEST, help="what it draws with (default: %(default)s)")
    parser.add_argument("--max-shard-size", metavar="SIZE", default="10GB", help="of a file of weights, as 200MB (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print what was written as one line of JSON")


def run(options: Namespace) -> int:
    import hcrot
    from hcrot.commands.sample import load, load_small, null_label_of
    from hcrot.files.finding import PIPELINE_NAME
    from hcrot.files.json_and_arrays import read_json
    from hcrot.samplers import sampler_of

    model, scheduler, names = load(options.checkpoint)
    small = load_small(options.checkpoint, model, options.sampler)
    for network in (model, *(small[:1] if small else ())):
        refuse_odd_sizes(network.config)
    null = null_label_of(options.checkpoint, model.config["num_class_embeds"])
    hcrot.pipelines.save(
        options.folder, model, sampler_of(options.sampler, scheduler), small=small, classes=names, null_label=null,
        max_shard_size=options.max_shard_size,
    )  # fmt: skip
    written = sorted(path.relative_to(options.folder).as_posix() for path in options.folder.rglob("*") if path.is_file())
    if options.json:
        print_json({"folder": str(options.folder), "files": written, "classes": names, "null_label": null})
        return 0
    stock = isinstance(read_json(options.folder / PIPELINE_NAME)["_class_name"], str)
    drawn = f"[{names[0]!r}], " if names else "[0], " if model.config["num_class_embeds"] else ""
    print(f"A pipeline is in {options.folder}/. To draw with diffusers:")
    print(f"    pipe = DiffusionPipeline.from_pretrained({str(options.folder)!r}{'' if stock else ', trust_remote_code=True'})")
    print(f"    pipe({drawn}num_inference_steps=25{', guidance_scale=1.3' if null is not None else ''}).images")
    return 0


def refuse_odd_sizes(config: dict[str, Any]) -> None:
    """Find out whether each level's pictures have half the size of those of the level above.

    Raises:
        ValueError: they have not. diffusers' network doubles sizes on the way up, and hcrot's goes back to those that there were.
    """
    size, levels = config["sample_size"], len(config["block_out_channels"])
    height, width = (size, size) if isinstance(size, int) else size
    if height % 2 ** (levels - 1) or width % 2 ** (levels - 1):
        raise ValueError(
            f"diffusers cannot draw pictures of {height}x{width} with a network of {levels} levels: {2 ** (levels - 1)} has to divide "
            "their height and width. hcrot can; for diffusers train with another --resolution, or fewer --channels"
        )
