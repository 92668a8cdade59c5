"""Time each 3x3 convolution of a network by itself: im2col, Winograd, what Conv2d chooses, and ``torch.conv2d`` if PyTorch is there.

    python benchmarks/kernels.py                     the convolutions of the 28x28 network at batch 64 (three minutes)
    python benchmarks/kernels.py --network seed --batch 512

The shapes are those that the network's own layers meet in a forward pass; "uses" is how many of its layers have that shape. Rates are
10^9 floating-point operations a second of *direct* arithmetic, 2 B H W O C 9 for a forward pass and three times as many with both
gradients, whatever an algorithm really does: Winograd does with fewer. The ceiling is a large float32 matrix product of NumPy's on as
many threads, timed before and after the convolutions.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import threadpoolctl
from common import (
    OwnProcess,
    Parser,
    Table,
    alternate,
    check_close,
    draw_bars,
    duration,
    has_torch,
    headline,
    picture,
    whole_number,
    write_results,
)
from networks import NETWORKS, make_batch

import hcrot

AIM = 0.60
"""Of a convolution forward and with both gradients, hcrot / PyTorch, that is aimed at."""

LARGE = 2048
"""Rows and columns of the matrices whose product is the ceiling."""

ALGORITHMS = ("im2col", "winograd", "auto")

PASSES = {"forward": 1, "with gradients": 3}
"""What is timed, and how often it does a forward pass's direct arithmetic."""


class Shape(NamedTuple):
    """C channels in, O out, H x W pixels, of a 3x3 convolution of stride 1 and padding 1."""

    channels: int
    outputs: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels} -> {self.outputs}, {self.height}x{self.width}"


def shapes_of(config: dict) -> Counter[Shape]:
    """The 3x3 convolutions of stride 1 that a network's forward pass goes through, in the order in which they first come, counted."""
    model = hcrot.UNet2dModel(**config)
    met: Counter[Shape] = Counter()

    def noting(layer: hcrot.Conv2d, forward: Callable) -> Callable:
        def noted(x: np.ndarray, *rest, **options) -> np.ndarray:
            met[Shape(layer.in_channels, layer.out_channels, *x.shape[2:])] += 1
            return forward(x, *rest, **options)

        return noted

    for layer in model.modules():
        if isinstance(layer, hcrot.Conv2d) and layer.geometry[:4] == (3, 3, 1, 1):
            layer.forward = noting(layer, layer.forward)
    images, _, timesteps, labels = make_batch(config, 1)
    with model.inference():
        model(images, timesteps, labels)
    return met


def arrays(shape: Shape, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (batch, C, H, W) and dy (batch, O, H, W), channels-last, and weight (O, C, 3, 3)."""
    rng = np.random.default_rng(0)
    x, dy = (
        rng.standard_normal((batch, shape.height, shape.width, channels), dtype=np.float32).transpose(0, 3, 1, 2)
        for channels in (shape.channels, shape.outputs)
    )
    return x, dy, rng.standard_normal((shape.outputs, shape.channels, 3, 3), dtype=np.float32)


def hcrot_pass(shape: Shape, batch: int, name: str, algorithm: str) -> Callable[[], np.ndarray]:
    """A function that goes forward or, if name is "with gradients", forward and back, and returns the output or the gradient of x."""
    x, dy, weight = arrays(shape, batch)
    layer = hcrot.Conv2d(shape.channels, shape.outputs, 3, padding=1, algorithm=algorithm)
    layer.load_state_dict({"weight": weight, "bias": np.zeros(shape.outputs, np.float32)})

    def forward() -> np.ndarray:
        with layer.inference():
            return layer(x)

    def both() -> np.ndarray:
        layer(x)
        return layer.backward(dy)

    return forward if name == "forward" else both


def torch_pass(shape: Shape, batch: int, name: str) -> Callable[[], np.ndarray]:
    """:func:`hcrot_pass` in PyTorch, in the memory order that its own networks have, (B, C, H, W)."""
    import torch

    x, dy, weight = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays(shape, batch))
    x, weight, bias = x.requires_grad_(), weight.requires_grad_(), torch.zeros(shape.outputs, requires_grad=True)

    def forward() -> np.ndarray:
        with torch.no_grad():
            return torch.conv2d(x, weight, bias, padding=1).numpy()

    def both() -> np.ndarray:
        y = torch.conv2d(x, weight, bias, padding=1)
        return torch.autograd.grad(y, (x, weight, bias), dy)[0].numpy()

    return forward if name == "forward" else both


def ceiling(threads: int, seconds: float) -> float:
    """10^9 operations a second of NumPy's product of two float32 matrices of LARGE x LARGE."""
    a, b, out = np.random.default_rng(0).standard_normal((3, LARGE, LARGE), dtype=np.float32)
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        spent = alternate({"product": lambda: np.matmul(a, b, out=out)}, seconds, rounds=3)["product"]
    return 2 * LARGE**3 / spent / 1e9


def measure(shape: Shape, batch: int, pytorch: OwnProcess | None, seconds: float) -> dict[str, dict[str, float]]:
    """Seconds by pass ("forward", "with gradients") and by algorithm, of one shape, after all have been found to agree."""
    times = {}
    for name in PASSES:
        works: dict[str, Callable] = {algorithm: hcrot_pass(shape, batch, name, algorithm) for algorithm in ALGORITHMS}
        if pytorch:
            pytorch.renew(torch_pass, shape, batch, name)
            works["PyTorch"] = pytorch
        expected = works["im2col"]()
        for algorithm, work in works.items():
            check_close(f"{algorithm}, {name}, {shape}", expected, work(), 1e-4)
        times[name] = alternate(works, seconds)
    return times


def rows_of(shape: Shape, uses: int, batch: int, times: dict[str, dict[str, float]]) -> list[dict]:
    """A row for each pass: seconds, and the direct operations that they stand for."""
    operations = 2 * 9 * batch * shape.height * shape.width * shape.channels * shape.outputs
    return [
        {"shape": str(shape), "uses": uses, "pass": name, "operations": operations * factor, "seconds": times[name]}
        for name, factor in PASSES.items()
    ]


def total(rows: list[dict], name: str) -> dict:
    """The row of a pass through all the convolutions of the network, each as often as it is used."""
    chosen = [row for row in rows if row["pass"] == name]
    seconds = {algorithm: sum(row["uses"] * row["seconds"][algorithm] for row in chosen) for algorithm in chosen[0]["seconds"]}
    operations = sum(row["uses"] * row["operations"] for row in chosen)
    return {"shape": "all of them", "uses": sum(row["uses"] for row in chosen), "pass": name, "operations": operations, "seconds": seconds}


def rate(row: dict, algorithm: str) -> float:
    return row["operations"] / row["seconds"][algorithm] / 1e9


def print_row(table: Table, row: dict, limit: float) -> None:
    cells = [row["shape"], str(row["uses"]), row["pass"], duration(row["seconds"]["auto"])]
    cells += [f"{rate(row, algorithm):.0f}" for algorithm in row["seconds"]]
    cells += [f"{rate(row, 'auto') / limit:.0%}"]
    if "PyTorch" in row["seconds"]:
        cells += [f"{row['seconds']['auto'] / row['seconds']['PyTorch']:.2f}", f"{AIM:.2f}" if row["pass"] == "with gradients" else ""]
    table.row(*cells)


def draw(options: argparse.Namespace, rows: list[dict], limit: float) -> None:
    names = {"im2col": "im2col", "winograd": "Winograd", "PyTorch": "PyTorch"}
    with picture(options.output / "kernels.png", 13, [1.2 + 0.3 * len(rows)], columns=2) as axes:
        for axis, name in zip(axes[0], PASSES, strict=True):
            chosen = [row for row in rows if row["pass"] == name]
            series = {label: [rate(row, key) for row in chosen] for key, label in names.items() if key in chosen[0]["seconds"]}
            draw_bars(axis, [row["shape"] for row in chosen], series, "{:.0f}".format)
            axis.axvline(limit, color="black", linewidth=1.2, linestyle="--", label="large matrix product")
            axis.set_title(f"3x3 convolution, {name}, batch {options.batch}", loc="left", size=11)
            axis.set_xlabel("GFLOP/s of direct arithmetic (more is better)")
        axes[0, 1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=3)
    parser.add_threads()
    parser.add_argument("--network", choices=NETWORKS, default="mnist28", help="whose convolutions (default: %(default)s)")
    parser.add_argument("--batch", type=whole_number, help="images (default: 64, with --quick 8)")
    options = parser.parse_args(arguments)
    options.batch = options.batch or (8 if options.quick else 64)
    if options.quick:
        options.seconds = min(options.seconds, 0.3)
    parser.prepare(options)

    headline(f"3x3 convolutions of {options.network}, batch {options.batch}", options)
    limit = ceiling(options.threads, options.seconds)
    titles = ["shape", "uses", "pass", "hcrot", "im2col", "Winograd", "auto", *(["PyTorch"] if has_torch() else []), "of ceiling"]
    table = Table([*titles, *(["ratio", "at most"] if has_torch() else [])], options.markdown)
    rows, shapes = [], shapes_of(NETWORKS[options.network])
    with ExitStack() as stack:
        pytorch = stack.enter_context(OwnProcess(options.threads, torch_pass, next(iter(shapes)), 1, "forward")) if has_torch() else None
        for shape, uses in shapes.items():
            found = rows_of(shape, uses, options.batch, measure(shape, options.batch, pytorch, options.seconds))
            for row in found:
                print_row(table, row, limit)
            rows += found
    rows += [total(rows, name) for name in PASSES]
    for row in rows[-len(PASSES) :]:
        print_row(table, row, limit)
    again = ceiling(options.threads, options.seconds)
    print(f"\nRates in GFLOP/s. A large matrix product: {limit:.0f} before, {again:.0f} after.")
    write_results(options, "kernels", ceiling=[limit, again], rows=rows)
    draw(options, rows, limit)


if __name__ == "__main__":
    main()
