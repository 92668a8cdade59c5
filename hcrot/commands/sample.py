"""Draw with what was learned.

    hcrot sample runs/flowers                                       samples.png, eight of each class
    hcrot sample runs/flowers --classes rose --number 64 --sampler ddim --steps 50 --guidance-scale 2
    hcrot sample runs/flowers --output drawn.png steps.gif all.npz pictures/
    mpiexec -n 4 hcrot sample runs/flowers --count 1000000 --output million     with four processes; see docs/scaling.md

CHECKPOINT is the folder of a run of hcrot train or examples/mnist_ddpm.py, a checkpoint, or a pipeline of diffusers on this machine.
Picture k depends on the seed and on k alone, however many are drawn at a time. The default sampler is DPM-Solver++ with noise in its
steps: it needs few of them, and what a step got wrong the later ones mend.
"""

import argparse
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcrot.samplers import BEST, SAMPLERS, sampler_of
from hcrot.tools.arguments import number, print_json

__all__ = ["STEPS", "add_arguments", "draw", "guidance_of", "load", "load_small", "null_label_of", "place_of", "run"]

if TYPE_CHECKING:
    import numpy as np

    from hcrot.models.unet_2d import UNet2dModel
    from hcrot.schedulers.base import NoiseScheduler

STEPS = 25
GUIDANCE = 1.3
NUMBER, SHARD_SIZE = 8, 1000
KINDS = (".png", ".gif", ".npz", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="see above")
    parser.add_argument("--output", metavar="PATH", type=Path, nargs="+", default=[Path("samples.png")],
                        help="what to write, by its ending: .png all in a grid, .gif how they appeared, .npz arrays, without an ending "
                             "a folder of single pictures (default: samples.png)")  # fmt: skip
    parser.add_argument("--classes", metavar="CLASS", nargs="+", help="names or numbers of classes (default: all)")
    parser.add_argument("--number", metavar="N", type=number(int, 1), help=f"pictures of each class (default: {NUMBER})")
    parser.add_argument("--count", metavar="N", type=number(int, 1),
                        help="pictures of all classes together, into one folder of .npz files; a job that was killed goes on where it was")
    parser.add_argument("--shard-size", metavar="N", type=number(int, 1), help=f"of --count in a file (default: {SHARD_SIZE})")
    parser.add_argument("--sampler", choices=list(SAMPLERS), default=BEST, help="default: %(default)s")
    parser.add_argument("--steps", type=number(int, 1), default=STEPS, help="steps from noise to a picture (default: %(default)s)")
    parser.add_argument("--guidance-scale", metavar="W", type=number(float, 0),
                        help=f"how much more of its class a picture has; 1: no more (default: {GUIDANCE} after --label-dropout, else 1)")
    parser.add_argument("--batch-size", metavar="N", type=number(int, 1), default=64, help="pictures at a time (default: %(default)s)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="the same seed, the same pictures (default: %(default)s)")
    parser.add_argument("--threads", type=number(int, 1), help="of hcrot's kernels (default: every core)")
    parser.add_argument("--json", action="store_true", help="print what was drawn as one line of JSON")


def run(options: Namespace) -> int:
    import numpy as np

    import hcrot

    for path in options.output:
        if path.suffix not in KINDS:
            raise ValueError(f"--output {path}: the ending is {path.suffix}, expected .png, .gif, .npz, or none for a folder")
    if options.count and options.number:
        raise ValueError("--number is of each class and --count of all together: expected one of the two")
    if options.shard_size and not options.count:
        raise ValueError("--shard-size is of the files that --count writes: expected --count, too")
    options.number, options.shard_size = options.number or NUMBER, options.shard_size or SHARD_SIZE
    if options.threads:
        hcrot.set_num_threads(options.threads)
    model, scheduler, names = load(options.checkpoint)
    small = load_small(options.checkpoint, model, options.sampler)
    classes = chosen_classes(options.classes, names, model.config["num_class_embeds"], options.checkpoint)
    labels = None if classes is None else np.repeat(classes, options.number)
    options.guidance_scale = guidance_of(options.guidance_scale, options.checkpoint, labels, model.config["num_class_embeds"])
    if options.count:
        from hcrot.commands.sample_shards import draw_shards

        return draw_shards(options, model, sampler_of(options.sampler, scheduler), classes, draw, small)
    animated = any(path.suffix == ".gif" for path in options.output)
    images, frames = draw(model, sampler_of(options.sampler, scheduler), labels, options, keep=animated, small=small)
    shown = None if classes is None else [names[k] if k < len(names) else str(k) for k in classes]
    for path in options.output:
        write(path, images, frames, labels, shown, options.number)
    if options.json:
        print_json({"pictures": len(images), "output": [str(path) for path in options.output]})
    else:
        print(f"{len(images)} pictures of {images.shape[2]}x{images.shape[3]}: {', '.join(map(str, options.output))}")
    return 0


def load(checkpoint: Path) -> "tuple[UNet2dModel, NoiseScheduler, list[str]]":
    """Network, scheduler and the names of the classes, [] if they have none."""
    import hcrot
    from hcrot.files.json_and_arrays import read_json
    from hcrot.pipelines.folder import classes_of

    place = place_of(checkpoint)
    refuse_other_networks(place)
    names_file = place.parent / "classes.json"
    if names_file.is_file() and "classes" not in read_json(names_file):
        raise ValueError(f"{names_file} is damaged: it has no classes")
    model, scheduler = hcrot.pipelines.load(place)
    names = read_json(names_file)["classes"] if names_file.is_file() else classes_of(place)[0]
    return model.eval(), scheduler, names


def refuse_other_networks(place: Path) -> None:
    """Raise a ValueError if the network in this folder is none that is told the noisy picture, the time and a class, and no more."""
    from hcrot.files.json_and_arrays import read_json

    pipeline = (place / "model_index.json").is_file() and (place / "unet").is_dir()
    file = (place / "unet" if pipeline else place) / "config.json"
    kind = read_json(file).get("_class_name", "UNet2DModel") if file.is_file() else "UNet2DModel"
    if kind != "UNet2DModel":
        text = ": it is told a text, too, as prompt_embeds of hcrot.pipelines.sample" if kind == "UNet2DConditionModel" else ""
        raise ValueError(f"{place} holds a {kind}, expected a UNet2DModel, which draws by time and class{text}")


def load_small(checkpoint: Path, model: "UNet2dModel", sampler: str) -> "tuple[UNet2dModel, NoiseScheduler] | None":
    """Of a run of two networks the first one, with its sampler; None of a network that draws alone.

    Raises:
        FileNotFoundError: the network enlarges pictures, and there is none beside it that draws them.
    """
    import hcrot
    from hcrot.files.runs import SMALL
    from hcrot.pipelines.cascade import enlarges

    if not enlarges(model):
        return None
    place = place_of(checkpoint).parent / SMALL / "checkpoint"
    first = hcrot.pipelines.load_small(place_of(checkpoint)) or (hcrot.pipelines.load(place) if place.is_dir() else None)
    if first is None:
        raise FileNotFoundError(f"{place_of(checkpoint)} enlarges small pictures: the network that draws them is expected in {place}")
    small, scheduler = first
    return small.eval(), sampler_of(sampler, scheduler)


def place_of(checkpoint: Path) -> Path:
    """The checkpoint itself, where the folder of a run was named.

    Raises:
        FileNotFoundError: the run has none yet.
    """
    from hcrot.files.json_and_arrays import read_json
    from hcrot.files.runs import SMALL

    inner, config = checkpoint / "checkpoint", checkpoint / "config.json"
    if inner.is_dir():
        return inner
    if (checkpoint / SMALL / "checkpoint").is_dir():
        where = f"hcrot sample {checkpoint / SMALL} draws the small pictures"
        raise FileNotFoundError(f"{checkpoint}: the network that enlarges has no checkpoint yet; {where}")
    if config.is_file() and "checkpointing_steps" in read_json(config):
        raise FileNotFoundError(f"{checkpoint}: this run has no checkpoint yet; there is one every --checkpointing-steps steps")
    return checkpoint


def chosen_classes(asked: list[str] | None, names: list[str], count: int | None, checkpoint: Path) -> list[int] | None:
    """Numbers of the classes that were asked for; None of a network without classes."""
    if count is None:
        if asked:
            raise ValueError(f"--classes: {checkpoint} has no classes")
        return None
    known = names or [str(number) for number in range(count)]
    chosen = list(range(len(known))) if asked is None else []
    for word in asked or []:
        if word not in known and not (word.isdecimal() and int(word) < count):
            raise ValueError(f"--classes: {checkpoint} has no class {word}, its classes are {', '.join(known)}")
        chosen.append(known.index(word) if word in known else int(word))
    return chosen


def null_label_of(checkpoint: Path, count: int | None) -> int | None:
    """The last of so many classes where it was trained to mean "of any class"; None: there is no such label."""
    from hcrot.files.json_and_arrays import read_json
    from hcrot.pipelines.folder import classes_of

    file = place_of(checkpoint).parent / "config.json"
    withheld = file.is_file() and read_json(file).get("label_dropout")
    return count - 1 if withheld and count else classes_of(place_of(checkpoint))[1]


def guidance_of(asked: float | None, checkpoint: Path, labels: "np.ndarray | None", count: int | None) -> float:
    """What was asked for; else GUIDANCE where a label means "of any class", and none of it is drawn."""
    if asked is not None:
        return asked
    null = null_label_of(checkpoint, count)
    return GUIDANCE if null is not None and labels is not None and labels.max() < null else 1.0


def draw(
    model: "UNet2dModel", scheduler: "NoiseScheduler", labels: "np.ndarray | None", options: Namespace, keep: bool = False,
    first: int = 0, progress: bool = True, small: "tuple[UNet2dModel, NoiseScheduler] | None" = None,
) -> "tuple[np.ndarray, list[np.ndarray]]":
    """Pictures (N, C, H, W) in [-1, 1], from number ``first`` on, and if ``keep`` says so what they came from, step by step.
    ``small`` is the first of two networks, from :func:`load_small`.

    Raises:
        ValueError: guidance without a label for "of any class".
    """
    import numpy as np
    from tqdm import tqdm

    import hcrot
    from hcrot.pipelines.cascade import cascade

    count, total = model.config["num_class_embeds"], options.number if labels is None else len(labels)
    guided: dict[str, Any] = {}
    if options.guidance_scale != 1:
        if labels is None:
            raise ValueError("--guidance-scale: the network has no classes to be guided to")
        if labels.max() >= count - 1:
            raise ValueError(f"--guidance-scale: class {count - 1} has to be the one that means \"of any class\" (--label-dropout)")
        guided |= {"guidance_scale": options.guidance_scale, "null_label": count - 1}
        if isinstance(scheduler, hcrot.DDIMScheduler):
            guided["use_clipped_model_output"] = True  # a guided x_0 is clipped so often that the noise no longer goes with it
    parts, histories = [], []
    for start in tqdm(range(0, total, options.batch_size), desc="drawing", unit="batch", leave=False, disable=not progress):
        stop = min(start + options.batch_size, total)
        rngs = [np.random.default_rng([options.seed, first + k]) for k in range(start, stop)]
        how: dict[str, Any] = {
            "class_labels": None if labels is None else labels[start:stop],
            "num_inference_steps": options.steps,
            "progress": progress and total <= options.batch_size,
            "trajectory": keep,
        }
        if small:
            drawn = cascade(small, (model, scheduler), generator=rngs, guided=guided, **how)
        else:
            drawn = hcrot.pipelines.sample(model, scheduler, generator=rngs, **guided, **how)
        parts.append(drawn[0] if keep else drawn)
        histories.append(drawn[1] if keep else drawn[:0])
    return np.concatenate(parts), list(np.concatenate(histories, axis=1)) if keep else []


def write(
    path: Path, images: "np.ndarray", frames: "list[np.ndarray]", labels: "np.ndarray | None", names: list[str] | None, columns: int
) -> None:
    import numpy as np

    from hcrot.files.json_and_arrays import replacing
    from hcrot.tools.plotting import as_bytes, image_grid, save_gif

    pixels = as_bytes(images)
    if path.suffix == ".png":
        image_grid(images, path, columns=min(columns, 16), row_labels=names if columns <= 16 else None)
    elif path.suffix == ".gif":
        chosen = np.unique(np.linspace(0, len(frames) - 1, 60).round().astype(int))
        save_gif([np.clip(frames[index], -1, 1) for index in chosen], path, columns=min(columns, 16))
    elif path.suffix == ".npz":
        with replacing(path) as unfinished, open(unfinished, "wb") as file:
            arrays: dict[str, Any] = {"images": pixels} | ({} if labels is None else {"labels": labels})
            np.savez(file, **arrays)
    else:
        from PIL import Image

        path.mkdir(parents=True, exist_ok=True)
        for number_, picture in enumerate(pixels):
            kind = f"{names[number_ // columns]}-" if names else ""
            image = Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))
            with replacing(path / f"{kind}{number_:05}.png") as unfinished:
                image.save(unfinished, "PNG")
