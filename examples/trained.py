"""What the examples of applications share: a network that mnist_ddpm.py has trained, real digits of its size, and their options."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import hcrot
from hcrot.data import DIGITS_MAX, load_digits, load_mnist, prepare_images
from hcrot.schedulers import NoiseScheduler
from hcrot.tools.arguments import Parser, number, refusing_bad_input
from hcrot.tools.plotting import rehearse


def options_of(description: str, name: str, steps: int | None = None) -> argparse.ArgumentParser:
    """The options that each example has; its pictures go to runs/``name``. Without ``steps`` it has no --inference-steps."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    advice = "what examples/mnist_ddpm.py has left (default: runs/mnist_ddpm/checkpoint)"
    parser.add_argument("--checkpoint", metavar="FOLDER", type=Path, default=Path("runs/mnist_ddpm/checkpoint"), help=advice)
    parser.add_argument("--data-dir", metavar="FOLDER", help="folder with MNIST's four files (default: a cache folder, downloaded once)")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=Path("runs") / name, help="default: %(default)s")
    if steps is not None:
        parser.add_argument("--inference-steps", type=number(int, 1), default=steps, help="steps to a picture (default: %(default)s)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="the same seed, the same pictures (default: %(default)s)")
    return parser


def trained(options: argparse.Namespace) -> tuple[hcrot.UNet2dModel, NoiseScheduler]:
    """The network and its scheduler; the folder for pictures is made."""
    try:
        model, scheduler = hcrot.load_model(options.checkpoint), hcrot.DDPMScheduler.from_pretrained(options.checkpoint)
    except FileNotFoundError as error:
        advice = f"to train a network, in three minutes: {sys.executable} examples/mnist_ddpm.py --dataset digits"
        raise FileNotFoundError(f"{error}; {advice}") from error
    options.output.mkdir(parents=True, exist_ok=True)
    rehearse(options.output)
    return model.eval(), scheduler


def add_classifier(parser: argparse.ArgumentParser) -> None:
    """The option that says where :func:`judge` finds a classifier."""
    advice = "what examples/mnist_cnn.py has left (default: %(default)s)"
    parser.add_argument("--classifier", metavar="FOLDER", default="runs/mnist_cnn/checkpoint", help=advice)


def judge(options: argparse.Namespace) -> hcrot.DigitClassifier:
    """The classifier of :func:`add_classifier`."""
    try:
        return hcrot.DigitClassifier.from_pretrained(options.classifier)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; to train a classifier: {sys.executable} examples/mnist_cnn.py --dataset digits") from error


def null_label(model: hcrot.UNet2dModel, options: argparse.Namespace) -> int:
    """The label that means "any digit", which guidance needs."""
    if model.config["num_class_embeds"] != 11:
        raise ValueError(f"{options.checkpoint} was trained without --label-dropout: it knows no digit without a label")
    return 10


def real_digits(model: hcrot.UNet2dModel, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Digits that the network was not trained on, of its size, (N, 1, H, W) in [-1, 1], and their labels: MNIST's test images, or for a
    network of 8x8 pixels the bundled ones (which it was trained on: there are no others)."""
    size = model.config["sample_size"]
    if size == 8:
        images, labels = load_digits()
        return prepare_images(images, DIGITS_MAX, None), labels.astype(np.int64)
    images, labels = load_mnist("test", options.data_dir)
    return prepare_images(images, size=size), labels.astype(np.int64)


def first_of_each(labels: np.ndarray, digits: list[int]) -> list[int]:
    """Where each of these digits comes first."""
    return [int(np.argmax(labels == digit)) for digit in digits]


def run(main: Callable[[], None]) -> None:
    """An example from its first line to its last."""
    try:
        with refusing_bad_input(Path(sys.argv[0]).name):
            main()
    except KeyboardInterrupt:
        sys.exit(130)
