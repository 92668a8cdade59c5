"""The road of a convolution: from Python loops over NumPy's im2col to a fused kernel and Winograd. Same numbers out, one row each.

    python benchmarks/convolution_story.py                        on MNIST, or the bundled digits where it cannot be had (five minutes)
    python benchmarks/convolution_story.py --dataset digits

Three tasks, those of the experiment that hcrot grew out of and one more:

    example    a 2x2 kernel over a 3x3 image, forward: what a call costs
    epoch      training hcrot's digit classifier on 5,000 images, batch 64, all its convolutions done one way
    layer      a 3x3 convolution of a U-Net, 64 -> 64 channels, 14x14 pixels, 64 images, forward and both gradients

What might take longer than ``--patience`` seconds is timed on some of the images and scaled up, which is marked by "about". Every row's
results on the layer, and its loss and gradients on the classifier's first images, are compared with the first row's before it is timed.
"""

import argparse
import statistics
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import Parser, Table, check_close, duration, headline, picture, positive, set_threads, whole_number, write_results
from convolution_routes import ROUTES, WINOGRAD

import hcrot
from hcrot.data import DIGITS_MAX, DataUnavailable, load_digits, load_mnist, prepare_images

BATCH = 64
TASKS = ("example", "epoch", "layer")


def gradients_of(module: hcrot.Module, run: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """What ``run`` returns, then every gradient that it adds to the module's parameters."""
    module.zero_grad()
    return [run(), *(parameter.grad.copy() for parameter in module.parameters())]


def compare(name: str, expected: list[np.ndarray], found: list[np.ndarray]) -> None:
    for one, other in zip(expected, found, strict=True):
        check_close(name, one, other, 1e-4)


def scaled(seconds_of: Callable[[int], float], images: int, patience: float) -> tuple[float, bool]:
    """Seconds that ``images`` take, and whether that is scaled up from fewer, as all might take longer than ``patience``.

    Args:
        seconds_of: runs some number of images and returns how long they took.
    """
    seconds_of(1)
    some, spent = 1, seconds_of(1)
    while some < images and spent < patience / 4:
        some = min(4 * some, images)
        spent = seconds_of(some)
    return spent * images / some, some < images


# ---------------------------------------------------------------- the tasks


class Example:
    """The worked example of the experiment: [[.1, .2], [.3, .4]] over 1 .. 9 gives [[3.7, 4.7], [6.7, 7.7]]."""

    def __init__(self):
        self.x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
        self.layer = hcrot.Conv2d(1, 1, 2)
        self.layer.load_state_dict({"weight": np.array([[[[0.1, 0.2], [0.3, 0.4]]]]), "bias": np.zeros(1)})

    def time(self, route: Callable, repeats: int) -> float:
        """Median seconds of a call, of seven times ``repeats``."""
        layer = route(self.layer).eval()
        check_close("example", np.array([[[[3.7, 4.7], [6.7, 7.7]]]]), layer(self.x), 1e-6)
        return statistics.median(timeit.repeat(lambda: layer(self.x), number=repeats, repeat=7)) / repeats


class Layer:
    """One layer of a U-Net, forward and back."""

    def __init__(self, channels: int):
        rng = np.random.default_rng(0)
        self.layer = hcrot.Conv2d(channels, channels, 3, padding=1, generator=rng)
        self.x, self.dy = rng.standard_normal((2, BATCH, 14, 14, channels), dtype=np.float32).transpose(0, 1, 4, 2, 3)

    def results(self, route: Callable) -> list[np.ndarray]:
        """dx and the gradients of one image."""
        layer = route(self.layer)
        return gradients_of(layer, lambda: layer.backward(layer(self.x[:1]) * self.dy[:1]))

    def time(self, route: Callable, patience: float) -> tuple[float, bool]:
        """Median seconds of a pass over the batch, and whether it is scaled up."""
        layer = route(self.layer)

        def seconds_of(images: int) -> float:
            begin = time.perf_counter()
            layer(self.x[:images])
            layer.backward(self.dy[:images])
            return time.perf_counter() - begin

        seconds, is_scaled = scaled(seconds_of, BATCH, patience)
        rounds = min(50, int(patience / seconds)) if not is_scaled else 0
        return (statistics.median(seconds_of(BATCH) for _ in range(rounds)) if rounds else seconds), is_scaled


class Epoch:
    """An epoch of the digit classifier with every convolution done one way."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def classifier(self, route: Callable) -> hcrot.DigitClassifier:
        model = hcrot.DigitClassifier(image_size=self.images.shape[2], generator=np.random.default_rng(0))
        layers = model.body.layers
        layers[:] = [route(layer) if isinstance(layer, hcrot.Conv2d) else layer for layer in layers]
        return model

    def results(self, route: Callable) -> list[np.ndarray]:
        """Loss of the first image, and every gradient."""
        model = self.classifier(route)

        def run() -> np.ndarray:
            loss, dlogits = hcrot.cross_entropy(model(self.images[:1]), self.labels[:1])
            model.backward(dlogits)
            return np.array(loss)

        return gradients_of(model, run)

    def time(self, route: Callable, patience: float) -> tuple[float, bool]:
        """Seconds of an epoch, and whether it is scaled up."""
        model = self.classifier(route)
        optimizer = hcrot.AdamW(model.parameters(), lr=1e-3)

        def seconds_of(images: int) -> float:
            begin = time.perf_counter()
            for start in range(0, images, BATCH):
                chosen = slice(start, min(start + BATCH, images))
                _, dlogits = hcrot.cross_entropy(model(self.images[chosen]), self.labels[chosen])
                model.backward(dlogits)
                optimizer.step()
                optimizer.zero_grad()
            return time.perf_counter() - begin

        return scaled(seconds_of, len(self.images), patience)


def load(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The first images (N, 1, S, S) in [-1, 1] and labels (N,) of the training set."""
    if options.dataset == "mnist":
        try:
            images, labels = load_mnist("train", options.data_dir)
            return prepare_images(images[: options.images]), labels[: options.images]
        except DataUnavailable as error:
            print(f"{error}: taking the bundled 8x8 digits instead.")
    images, labels = load_digits()
    return prepare_images(images[: options.images], DIGITS_MAX), labels[: options.images]


# ---------------------------------------------------------------- showing


def about(seconds: float | None, is_scaled: bool) -> str:
    return ("about " if is_scaled else "") + duration(seconds)


def draw(options: argparse.Namespace, rows: list[dict], titles: dict[str, str]) -> None:
    colours = ["#b3541e"] * 3 + ["#d9a066"] * 2 + ["#3f8fc4", "#14507f"]
    with picture(options.output / "convolution_story.png", 13, [3.6], columns=len(TASKS)) as axes:
        for axis, task in zip(axes[0], TASKS, strict=True):
            known = [(place, row[task], row[f"{task} is scaled"]) for place, row in enumerate(rows) if row[task] is not None]
            places, seconds = [place for place, _, _ in known], [value for _, value, _ in known]
            axis.barh(places, seconds, color=[colours[place] for place in places])
            axis.set_xscale("log")
            axis.set_xlim(min(seconds) / 3, max(seconds) * 12)
            for place, value, is_scaled in known:
                axis.annotate(about(value, is_scaled), (value, place), (4, 0), textcoords="offset points", va="center", size=8)
            axis.set_yticks(range(len(rows)), [row["route"] for row in rows] if axis is axes[0, 0] else [""] * len(rows))
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.xaxis.set_major_formatter(lambda value, position: duration(value).replace(".00", "").replace(".0", ""))
            axis.grid(axis="x", color="#dddddd", linewidth=0.6)
            axis.set_title(titles[task], loc="left", size=10)
            axis.set_xlabel("time (logarithmic; less is better)")


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=None)
    parser.add_threads()
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist", help="of the epoch (default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files (default: a cache folder, filled once by download)")
    parser.add_argument("--images", type=whole_number, help="images of the epoch (default: 5000, with --quick 200)")
    parser.add_argument("--patience", type=positive, help="seconds for each figure (default: 30, with --quick 0.3)")
    options = parser.parse_args(arguments)
    options.images = options.images or (200 if options.quick else 5000)
    options.patience = options.patience or (0.3 if options.quick else 30)
    try:
        set_threads(options.threads)
        options.output.mkdir(parents=True, exist_ok=True)
        images, labels = load(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    headline("The road of a convolution", options)
    channels = 8 if options.quick else 64
    size = f"{images.shape[2]}x{images.shape[3]}"
    titles = {
        "example": "2x2 kernel over 3x3, forward",
        "epoch": f"CNN, an epoch of {len(images):,} images, {size}",
        "layer": f"3x3, {channels} -> {channels}, 14x14, batch {BATCH}, and gradients",
    }
    example, epoch, layer = Example(), Epoch(images, labels), Layer(channels)
    table = Table(["convolution by", *titles.values()], options.markdown, width=30)
    first, expected = next(iter(ROUTES.values())), {}
    for task in (epoch, layer):
        expected[task] = task.results(first)
    rows = []
    for name, route in ROUTES.items():
        for task in (epoch, layer):
            compare(name, expected[task], task.results(route))
        row = {"route": name, "example": None, "example is scaled": False}
        if name != WINOGRAD:  # which is for kernels of 3x3 only
            row["example"] = example.time(route, 10 if options.quick else 1000)
        row["epoch"], row["epoch is scaled"] = epoch.time(route, options.patience)
        row["layer"], row["layer is scaled"] = layer.time(route, options.patience)
        table.row(name, *(about(row[task], row[f"{task} is scaled"]) for task in TASKS))
        rows.append(row)
    write_results(options, "convolution_story", titles=titles, rows=rows)
    draw(options, rows, titles)


if __name__ == "__main__":
    main()
