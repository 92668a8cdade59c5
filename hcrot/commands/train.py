"""Learn to draw pictures like those in a folder: a denoising diffusion model (Ho, Jain & Abbeel 2020), trained on the CPU.

    hcrot train flowers                         thirty minutes; subfolders are classes
    hcrot train flowers --resume                go on with a run that was stopped
    hcrot train flowers --minutes 120 --random-flip --label-dropout 0.1
    hcrot train mnist --resolution 32
    hcrot train digits --minutes 3
    mpiexec -n 4 hcrot train flowers            four processes, here or on four machines; see docs/scaling.md

Pictures of 64 pixels and more, a multiple of 4, are drawn small by one network and enlarged by a second, each in half of the time (see
hcrot/pipelines/cascade.py; --small 0: by one network).

Into runs/<name of the folder> it writes the checkpoint, samples-<step>.png on the way and samples.png at the end, loss.png, metrics.jsonl
and config.json. hcrot export makes a pipeline for diffusers of it. The training loop is in hcrot/commands/train_loop.py, to be read.

While it goes on:  touch runs/flowers/stop                     it saves and ends, as by Ctrl-C
                   echo 3e-4 > runs/flowers/learning_rate      the highest learning rate, from the next step on
                   touch runs/flowers/draw                     samples-now.png
"""

import argparse
import json
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcrot.tools.arguments import number, print_json

__all__ = ["OPTIONS", "add_arguments", "add_options", "load_data", "networks", "run"]

if TYPE_CHECKING:
    import numpy as np

    from hcrot.training.distributed import Ranks

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
LR_SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle")
YES_NO = argparse.BooleanOptionalAction

OPTIONS: dict[str, tuple[Any, dict[str, Any], str]] = {  # name: (default, how to read it, what it is); names are diffusers' script's
    "resolution": (None, {"type": number(int, 8)}, "height and width that pictures get (default: 64; mnist 28, digits 8, CIFAR-10 32)"),
    "center_crop": (True, {"action": YES_NO}, "cut the middle out; otherwise stretch the whole picture to a square"),
    "random_flip": (False, {"action": YES_NO}, "mirror half of the pictures"),
    "random_shift": (0, {"type": number(int, 0)}, "move pictures by up to so many pixels"),
    "grey": (None, {"action": YES_NO}, "without colour (default: if no picture has colour)"),
    "strict": (False, {"action": YES_NO}, "refuse a folder with a picture that cannot be read, instead of leaving it out"),
    "data_dir": (None, {"metavar": "FOLDER"}, "of mnist: where its four files are (default: a cache folder, downloaded once)"),
    "minutes": (30.0, {"type": number(float, 1e-3)}, "train for about so long, with a network that fits; with --resume: so much longer"),
    "num_epochs": (None, {"type": number(float, 1e-6)}, "instead of --minutes: passes over the pictures"),
    "small": (
        None,
        {"type": number(int, 0)}, "first learn to draw pictures of so many pixels, then to enlarge them, by two networks; 0: by one "
        "(default: a quarter of the resolution, from 64 on, if 4 divides it)"
    ),
    "channels": (None, {"type": number(int, 1), "nargs": "+"},
                 "width of each level (default: by resolution and minutes); of two networks this and the next two are of the second"),
    "layers_per_block": (None, {"type": number(int, 1)}, "residual blocks of a level (default: by resolution and minutes)"),
    "attention": (None, {"type": number(int, 0), "nargs": "*"}, "levels with attention, 0 being the first (default: that of 8 pixels)"),
    "dropout": (0.0, {"type": number(float, 0, 1)}, "in residual blocks"),
    "train_batch_size": (None, {"type": number(int, 1)}, "pictures at a time (default: by resolution and minutes)"),
    "gradient_accumulation_steps": (
        None, {"type": number(int, 1)}, "batches to a step of the optimizer, shared out among processes (default: one for each process)"
    ),
    "learning_rate": (1e-3, {"type": number(float, 0)}, "AdamW's highest learning rate"),
    "lr_scheduler": ("cosine", {"choices": LR_SCHEDULES}, "how the learning rate falls"),
    "lr_warmup_steps": (
        100, {"type": number(int, 0)}, "steps in which the learning rate rises; at most a tenth of all (one_cycle: three tenths, always)"
    ),
    "lr_num_cycles": (3, {"type": number(int, 1)}, "of cosine_with_restarts: how often the learning rate falls"),
    "lr_power": (2.0, {"type": number(float, 1e-3)}, "of polynomial: 1 falls in a straight line, more falls early"),
    "adam_beta1": (0.9, {"type": number(float, 0, 1)}, "AdamW's, of the mean of the gradient"),
    "adam_beta2": (0.999, {"type": number(float, 0, 1)}, "AdamW's, of the mean of its square"),
    "adam_epsilon": (1e-8, {"type": number(float, 0)}, "AdamW's, what is added to the root of that mean"),
    "adam_weight_decay": (0.01, {"type": number(float, 0)}, "AdamW's"),
    "max_grad_norm": (1.0, {"type": number(float, 0)}, "highest norm of the gradient; 0: any"),
    "ema_max_decay": (0.9995, {"type": number(float, 0, 1)}, "of the moving average of the weights, which draws the pictures"),
    "ema_power": (0.75, {"type": number(float, 1e-3)}, "how fast its memory grows: 1 - (1 + step / inv_gamma)^-power"),
    "ema_inv_gamma": (1.0, {"type": number(float, 1e-3)}, "inv_gamma in that formula"),
    "prediction_type": (
        None, {"choices": ("epsilon", "v_prediction", "sample")}, "what the network says of a noisy picture (default: by resolution)"
    ),
    "ddpm_num_steps": (1000, {"type": number(int, 2)}, "times of the noise"),
    "ddpm_beta_schedule": ("squaredcos_cap_v2", {"choices": SCHEDULES}, "how noise grows with time"),
    "classes": (True, {"action": YES_NO}, "subfolders are classes that can be asked for"),
    "label_dropout": (0.1, {"type": number(float, 0, 1)}, "share of labels that are withheld, for guidance; 0: no guidance"),
    "guidance_scale": (1.3, {"type": number(float, 0)}, "how much more of its class a picture is to have; 1: no more"),
    "inference_steps": (25, {"type": number(int, 1)}, "steps from noise to a picture (of the default sampler of hcrot sample)"),
    "save_images_epochs": (None, {"type": number(float, 1e-6)}, "epochs from samples to samples (default: five times in the run)"),
    "checkpointing_steps": (200, {"type": number(int, 1)}, "steps from checkpoint to checkpoint"),
    "checkpoints_total_limit": (1, {"type": number(int, 1)}, "how many checkpoints are kept; above 1 also as checkpoint-<step>"),
    "seed": (0, {"type": number(int, 0)}, "the same seed, the same run"),
    "threads": (None, {"type": number(int, 1)}, "of hcrot's kernels, in each process (default: every core, or this process's share)"),
}
CHANGEABLE = {"data_dir", "minutes", "num_epochs", "learning_rate", "guidance_scale", "inference_steps", "save_images_epochs",
              "checkpointing_steps", "checkpoints_total_limit"}  # with --resume  # fmt: skip

ALSO = {"inference_steps": ["ddpm_num_inference_steps"]}
"""Further names of options, which diffusers' script has."""

ABOUT = """Names and meanings are those of diffusers' train_unconditional.py, with dashes or underscores. Other than there: training ends
after --minutes, pictures are cut in the middle, the learning rate and its warm-up are those of small networks, adam_beta1 is 0.9 and not
0.95, adam_weight_decay 0.01 and not 1e-6, and averages of the weights are always kept (there: --use_ema)."""

LATER = {"lr_num_cycles": 3, "lr_power": 2.0, "small": 0,
         "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "ema_inv_gamma": 1.0}  # fmt: skip
"""Options that runs of earlier versions do not have, and what they were trained with."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a folder of pictures, or of CIFAR-10's or MNIST's files, mnist, or digits")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="default: runs/<name of the data>")
    parser.add_argument("--resume", action="store_true", help=f"go on with the run; only {', '.join(sorted(CHANGEABLE))} can be given anew")
    parser.add_argument("--json", action="store_true", help="print what is known at the end as one line of JSON")
    parser.add_argument("--tensorboard", action="store_true", help="write files for TensorBoard, too (pip install 'hcrot[tensorboard]')")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of OPTIONS. What nobody gives is not among what the parser returns."""
    details = parser.add_argument_group("options of the run", ABOUT)
    for name, (default, how, text) in OPTIONS.items():
        if default is not None:
            text += f" (default: {({True: 'yes', False: 'no'}.get(default, default) if isinstance(default, bool) else default)})"
        words = ["--" + also.replace("_", "-") for also in (name, *ALSO.get(name, ()))]
        details.add_argument(*words, default=argparse.SUPPRESS, help=text, **how)


def run(arguments: Namespace) -> int:
    from hcrot.commands.train_loop import train, try_out
    from hcrot.files.json_and_arrays import write_json
    from hcrot.files.runs import SMALL, lock_run
    from hcrot.files.wishes import forget_wishes
    from hcrot.tools.tensorboard import check_installed
    from hcrot.training.distributed import job

    if arguments.tensorboard:
        check_installed()
    given = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
    if {"minutes", "num_epochs"} <= given.keys():
        raise ValueError("--minutes and --num-epochs exclude each other")
    options = Namespace(**{name: default for name, (default, _, _) in OPTIONS.items()} | given)
    if not arguments.resume:
        refuse_options(arguments.data, given, options)
    folder = arguments.output or Path("runs") / Path(arguments.data).resolve().name
    with job() as ranks, ExitStack() as held:
        with ranks.first_goes_ahead():
            if ranks.first:
                if not arguments.resume and any((place / "checkpoint").is_dir() for place in (folder, folder / SMALL)):
                    raise FileExistsError(f"{folder} already holds a run: go on with it (--resume) or choose another folder (--output)")
                if not arguments.resume and (folder / "config.json").exists():
                    saved_options(folder, {})  # a try that failed before its first checkpoint; what is no run's is refused
                held.enter_context(lock_run(folder, arguments.resume))
                forget_wishes(folder)
            if arguments.resume:
                options = saved_options(folder, given)
                refuse_options(arguments.data, given, options)
            images, labels, classes = load_data(arguments.data, options)
        if not classes and given.keys() & OF_CLASSES:
            raise ValueError(f"{flag(min(given.keys() & OF_CLASSES), given)} is about classes: {arguments.data} has none")
        if not arguments.resume:
            choose_network(options, images.shape[2])
        share_work(options, ranks)
        ranks.say_idle(options.gradient_accumulation_steps, "--gradient-accumulation-steps")
        if classes and not options.classes:
            labels, classes = labels * 0, []
        again = f"{f'mpiexec -n {ranks.size} ' * (ranks.size > 1)}hcrot train {arguments.data} --output {folder} --resume"
        results = {}
        todo = networks(options, given, images, folder, arguments.resume)
        if len(todo) > 1:
            for _, how, pixels, _ in todo:
                try_out(how, pixels, classes)
            for _, how, _, place in todo if ranks.first else []:
                place.mkdir(exist_ok=True)
                write_json(place / "config.json", vars(how))  # what is killed before it learns goes on as it was asked for
        for part, how, pixels, place in todo:
            results[part] = train(pixels, labels, classes, how, place, arguments.resume, again, ranks, arguments.tensorboard, part)
        if arguments.json:
            small = results.get("small", {})  # whose pictures begin from nothing, so it tells whether the run has learned enough
            judged = {name: small[name] for name in ("error_at_the_end", "undertrained") if name in small}
            print_json(results[part] | judged | ({"small": small} if small else {}))
    return 0


OF_CLASSES = {"guidance_scale", "label_dropout"}


def flag(name: str, given: dict[str, Any]) -> str:
    """The option as it was written."""
    return f"--{'no-' * (given[name] is False)}{name.replace('_', '-')}"


def refuse_options(data: str, given: dict[str, Any], options: Namespace) -> None:
    """Find out before there is a folder whether an option was given that would change nothing, or would end the run when it draws.

    Raises:
        ValueError: names it, and why.
    """
    from hcrot.data.mnist import mnist_folder

    if options.inference_steps > options.ddpm_num_steps:
        raise ValueError(f"--inference-steps {options.inference_steps} is more than --ddpm-num-steps {options.ddpm_num_steps}")
    reasons: dict[str, str] = {}
    if data in ("mnist", "digits") or cifar10_in(data) or mnist_folder(Path(data)):
        reasons |= dict.fromkeys(("center_crop", "strict"), f"is for a folder of pictures: {data} holds square ones, in a few files")
    if data != "mnist":
        reasons["data_dir"] = f"says where the files of mnist are: DATA is {data}"
    if options.lr_scheduler in ("constant", "one_cycle"):
        reasons["lr_warmup_steps"] = f"changes nothing with --lr-scheduler {options.lr_scheduler}"
    for name, scheduler in (("lr_num_cycles", "cosine_with_restarts"), ("lr_power", "polynomial")):
        if options.lr_scheduler != scheduler:
            reasons[name] = f"is of --lr-scheduler {scheduler}: it is {options.lr_scheduler}"
    if not options.label_dropout:
        reasons["guidance_scale"] = "needs a network that was trained to be guided: --label-dropout is 0"
    if not options.classes:
        reasons |= dict.fromkeys(("guidance_scale", "label_dropout"), "is about classes: --no-classes leaves none")
    for name in given:
        if name in reasons:
            raise ValueError(f"{flag(name, given)} {reasons[name]}")


def cifar10_in(data: str) -> bool:
    return (Path(data) / "cifar-10-batches-bin").is_dir() or (Path(data) / "data_batch_1.bin").is_file()


def load_data(data: str, options: Namespace) -> "tuple[np.ndarray, np.ndarray, list[str]]":
    """Pictures uint8 (N, C, H, W), labels (N,) and the names of the classes; [] if there are none. Says on stdout what it found.

    Raises:
        ValueError: all pictures are as good as black. The errors of what reads them.
    """
    import numpy as np

    from hcrot.data import CIFAR10_CLASSES, DIGITS_MAX, ImageFolder, load_cifar10, load_digits, load_mnist, resize
    from hcrot.data.images import refuse_dark, with_channels
    from hcrot.data.mnist import mnist_folder

    enlarged = 0
    if data == "digits":
        images, labels = load_digits()
        images, classes = (images.astype(np.uint16) * 255 // DIGITS_MAX).astype(np.uint8)[:, None], [str(digit) for digit in range(10)]
    elif data == "mnist" or mnist_folder(Path(data)):
        images, labels = load_mnist("train", options.data_dir if data == "mnist" else data)
        images, classes = images[:, None], [str(digit) for digit in range(10)]
    elif cifar10_in(data):
        (images, labels), classes = load_cifar10(data), list(CIFAR10_CLASSES)
    else:
        channels = None if options.grey is None else 1 if options.grey else 3
        pictures = ImageFolder(data, options.resolution or 64, channels=channels, center_crop=options.center_crop, strict=options.strict)
        images, labels, classes, enlarged = pictures.images, pictures.labels, pictures.classes, pictures.enlarged
    refuse_dark(data, images)
    if options.grey is not None:
        images = with_channels(images, 1 if options.grey else 3)
    if options.resolution not in (None, images.shape[2]):
        images = resize(images, options.resolution)
    numbers = np.bincount(labels, minlength=len(classes))[: len(classes)]
    counts = ", ".join(f"{name} {count:,}" for name, count in zip(classes, numbers, strict=True))
    kind, size = "grey" if images.shape[1] == 1 else "colour", f"{images.shape[2]}x{images.shape[3]}"
    print(f"{data}: {len(images):,} {kind} pictures of {size}" + (f" in {len(classes)} classes: {counts}" if classes else ", no classes"))
    if enlarged > len(images) // 10:
        print(f"{enlarged:,} of them are smaller than {size} and were enlarged: --resolution may be less")
    return images, labels.astype(np.int64), classes


SMALL_SHARE = 0.5  # of the minutes, for the first of two networks
NETWORKS = {  # (resolution up to, minutes from): (channels, layers_per_block, train_batch_size), by the time of a step on two cores
    (16, 0): ([32, 64], 2, 64),
    (32, 0): ([32, 64, 64], 1, 64),
    (32, 25): ([32, 64, 96], 1, 64),
    (32, 100): ([48, 96, 128], 2, 64),
    (64, 0): ([16, 32, 64, 64], 1, 16),
    (64, 25): ([24, 48, 96, 96], 1, 16),
    (64, 100): ([32, 64, 128, 128], 1, 16),
    (4096, 0): ([16, 32, 64, 96, 96], 1, 16),
}


SMALL_NETWORKS = {16: ([64, 96, 128], 1, 32)}  # as above, of the first of two networks; of larger ones those above
ENLARGERS = {64: ([24, 48, 64], 1, 16), 4096: ([16, 32, 48, 64], 1, 16)}  # resolution up to: as above, of the second of two networks


def choose_network(options: Namespace, size: int) -> None:
    """Fill in what was not given, by the size of the pictures and the time there is.

    Raises:
        ValueError: the small pictures are too small, or their size does not divide that of the large ones.
    """
    if options.small is None:
        options.small = size // 4 if size >= 64 and size % 4 == 0 else 0
    if options.small and (options.small < 8 or size % options.small or size == options.small):
        raise ValueError(f"--small {options.small}: expected at least 8, and a divisor of the size {size} of the pictures")
    minutes = options.minutes if options.num_epochs is None else 30
    if options.small:
        channels, layers, batch = ENLARGERS[min(largest for largest in ENLARGERS if size <= largest or largest == 4096)]
        options.prediction_type = options.prediction_type or "sample"  # at first it says zero, which is the small picture, enlarged
    else:
        ceiling = min(largest for largest, _ in NETWORKS if size <= largest or largest == 4096)
        least = max(least for largest, least in NETWORKS if largest == ceiling and least <= minutes)
        channels, layers, batch = NETWORKS[ceiling, least]
    options.channels, options.layers_per_block = options.channels or channels, options.layers_per_block or layers
    options.train_batch_size = options.train_batch_size or batch
    # of large pictures a young network that predicts noise draws noise, one that predicts v draws blurred pictures
    options.prediction_type = options.prediction_type or ("epsilon" if size <= 32 else "v_prediction")
    if options.attention is None:
        options.attention = [level for level in range(len(options.channels)) if size >> level == 8 and not options.small]


def networks(
    options: Namespace, given: dict[str, Any], images: "np.ndarray", folder: Path, resume: bool
) -> "list[tuple[str, Namespace, np.ndarray, Path]]":
    """What to train, one after the other: a name of it, its options, pictures and folder.

    One network, "whole"; or "small", whose run is in a folder inside that of the run, and "large", which share the minutes.
    """
    from hcrot.data import resize
    from hcrot.files.runs import SMALL

    if not options.small:
        return [("whole", options, images, folder)]
    inner = folder / SMALL
    if resume and (inner / "config.json").is_file():
        first = saved_options(inner, {name: value for name, value in given.items() if name in CHANGEABLE})
    else:
        channels, layers, batch = SMALL_NETWORKS.get(options.small, (None, None, None))
        own = {
            "resolution": options.small, "small": 0, "random_shift": options.random_shift * options.small // images.shape[2],
            "channels": channels, "layers_per_block": layers, "attention": None,
            "train_batch_size": given.get("train_batch_size", batch), "prediction_type": given.get("prediction_type", "v_prediction"),
        }  # fmt: skip
        first = Namespace(**vars(options) | own)
        choose_network(first, options.small)
    if not resume or "minutes" in given:
        options.minutes, first.minutes = (1 - SMALL_SHARE) * options.minutes, SMALL_SHARE * options.minutes
    return [("small", first, resize(images, options.small), inner), ("large", options, images, folder)]


def share_work(options: Namespace, ranks: "Ranks") -> None:
    """Parts of a step, and threads; with several processes both are of the run, because the last bits of its weights depend on them."""
    import hcrot

    options.gradient_accumulation_steps = options.gradient_accumulation_steps or ranks.size
    if options.threads:
        hcrot.set_num_threads(options.threads)
    elif ranks.size > 1:
        options.threads = hcrot.get_num_threads()


def saved_options(folder: Path, given: dict[str, Any]) -> Namespace:
    """Those of the run, and what was given anew."""
    path = folder / "config.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        saved = None
    if isinstance(saved, dict):
        saved = LATER | saved
    if not isinstance(saved, dict) or saved.keys() != OPTIONS.keys():
        raise ValueError(f"{path} is not the configuration of a run of hcrot train")
    changed = [name for name, value in given.items() if name not in CHANGEABLE and value != saved[name]]
    if changed:
        raise ValueError(f"--resume goes on with the options of the run: {', '.join(changed)} cannot be given anew")
    return Namespace(**saved | given | ({"num_epochs": None} if "minutes" in given else {}))
