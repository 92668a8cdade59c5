"""The options of mnist_ddpm.py: their defaults, presets and how the command line is read."""

import argparse
from argparse import Namespace

from hcrot.schedulers.schedules import BETA_SCHEDULES, TIMESTEP_SPACINGS
from hcrot.tools.arguments import Parser, number


def image_size(text: str) -> int | str:
    return text if text == "native" else number(int, 1)(text)


OPTIONS = {  # name: (default, how to read it, what it is)
    "dataset": ("mnist", str, "mnist, or digits, the 1,797 of 8x8 pixels that come with hcrot: three minutes"),
    "data_dir": (None, str, "folder with MNIST's four files (default: a cache folder, downloaded once)"),
    "images": (None, number(int, 1), "train on the first so many images only (default: all)"),
    "image_size": (14, image_size, "14, 28, another divisor of 28, or native"),
    "channels": ([32, 64, 32], number(int, 1), "width of each level; from one to the next the image is halved"),
    "attention": ([], number(int, 0), "levels with attention, 0 being the first (default: none; the middle block always has it)"),
    "groups": (8, number(int, 1), "groups of GroupNorm; divides every width"),
    "schedule": ("squaredcos_cap_v2", str, "how noise grows with time"),
    "epochs": (3.0, number(float, 1e-6), "passes over the images; may be a fraction"),
    "minutes": (None, number(float, 1e-6), "instead of --epochs: train for about so long"),
    "batch_size": (128, number(int, 1), "images in a step"),
    "parts": (None, number(int, 1), "cut a step's images into so many parts, for as many processes or fewer (default: one for each)"),
    "lr": (1e-3, float, "AdamW's highest learning rate"),
    "lr_schedule": ("cosine", str, "how the learning rate falls"),
    "warmup": (100, number(int, 0), "steps in which the learning rate rises; at most a tenth of all"),
    "lr_drop": (None, number(float, 0), "epoch from which on the learning rate is a tenth (default: never)"),
    "clip": (1.0, number(float, 0), "highest norm of the gradient; 0: any"),
    "label_dropout": (0.0, number(float, 0), "share of labels that are withheld; 0.1 makes --guidance-scale possible"),
    "ema_decay": (0.999, float, "of the moving average of the weights, which draws the pictures; 0: the weights themselves draw"),
    "save_every": (200, number(int, 1), "steps from checkpoint to checkpoint"),
    "inference_steps": (50, number(int, 1), "steps from noise to a picture"),
    "timestep_spacing": ("leading", str, "where those steps lie; the checkpoint keeps it"),
    "guidance_scale": (1.0, number(float, 0), "how much more of its digit a picture is to have; needs --label-dropout; 1: no more"),
    "seed": (0, number(int, 0), "the same seed, the same run"),
    "threads": (None, number(int, 1), "of hcrot's kernels, in each process (default: every core, or this process's share)"),
}
CHOICES = {"dataset": ("mnist", "digits"), "schedule": tuple(BETA_SCHEDULES), "lr_schedule": ("constant", "linear", "cosine")}
CHOICES["timestep_spacing"] = tuple(TIMESTEP_SPACINGS)
CHANGEABLE = {"data_dir", "epochs", "save_every", "inference_steps", "guidance_scale"}  # with --resume

NEW = {"label_dropout": 0.0, "guidance_scale": 1.0, "timestep_spacing": "leading", "parts": 1}  # what runs of earlier versions do not have

MNIST = {name: default for name, (default, _, _) in OPTIONS.items()}
DIGITS = MNIST | {"dataset": "digits", "image_size": "native", "channels": [32, 64], "epochs": 60.0, "batch_size": 64}
SEED = MNIST | {"images": 5120, "epochs": 41.0, "batch_size": 512, "lr_schedule": "constant", "warmup": 0, "lr_drop": 25.0}
SEED |= {"groups": 32, "clip": 0.0, "ema_decay": 0.0, "inference_steps": 800, "timestep_spacing": "linspace"}


def parse_arguments(description: str) -> tuple[Namespace, dict]:
    """All arguments, and those of OPTIONS that were given."""
    parser = Parser(
        usage="%(prog)s [options]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Ctrl-C, SIGTERM and SIGHUP save and stop. A run is never overwritten: go on with it (--resume) or choose another --output.",
    )
    run = parser.add_argument_group("what to do")
    run.add_argument("--output", metavar="FOLDER", help="default: runs/mnist_ddpm; with --sample-only runs/mnist_ddpm_samples")
    run.add_argument("--preset", choices=["seed"], help="defaults of the experiment that hcrot started from")
    again = f"go on with the run in --output, with its options; only {', '.join(sorted(CHANGEABLE))} can be given anew"
    run.add_argument("--resume", action="store_true", help=again)
    run.add_argument("--sample-only", metavar="CHECKPOINT", help="do not train, draw from this one")
    judge = "have 1,000 samples judged by what examples/mnist_cnn.py has trained (default: runs/mnist_cnn/checkpoint)"
    run.add_argument("--evaluate", metavar="CLASSIFIER", nargs="?", const="runs/mnist_cnn/checkpoint", help=judge)
    details = parser.add_argument_group("options of the run, with defaults for MNIST")
    for name, (default, kind, text) in OPTIONS.items():
        several = {"nargs": "+" if default else "*"} if isinstance(default, list) else {}
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text += "" if shown in (None, "") else f" (default: {shown})"
        flag, choices = "--" + name.replace("_", "-"), CHOICES.get(name)
        details.add_argument(flag, type=kind, choices=choices, default=argparse.SUPPRESS, help=text, **several)
    arguments = parser.parse_args()
    given = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
    if {"epochs", "minutes"} <= given.keys():
        parser.error("--epochs and --minutes exclude each other")
    return arguments, given
