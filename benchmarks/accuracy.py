"""How far float32 is from the truth in a 3x3 convolution and its gradients, by each algorithm, and in PyTorch.

    python benchmarks/accuracy.py                 # the shapes of the networks, and 1,280 channels
    python benchmarks/accuracy.py --markdown

The truth is the same convolution in float64. What is printed is the largest difference, divided by the largest number of the result: the
figure by which algorithms are compared (Barabasz et al. 2020). Weights are those of a new layer, and 10 and 100 times as large, while the
images are normal numbers: then every sum grows alike, and so does its error. A single pixel of 10,000 among such numbers is the other
extreme: Winograd's algorithm lets it touch every output of its tile, also those whose kernel does not see it.
"""

import argparse
from typing import NamedTuple

import numpy as np
from common import Parser, Table, has_torch, headline, picture, write_results

from hcrot.kernels.conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from hcrot.kernels.im2col import make_geometry

SAME = make_geometry(3, padding=1)


class Shape(NamedTuple):
    """Of a convolution: batch, channels in and out, pixels of a side."""

    batch: int
    channels: int
    outputs: int
    size: int


SHAPES = [
    Shape(16, 32, 32, 14),
    Shape(16, 64, 64, 14),
    Shape(16, 32, 32, 28),
    Shape(16, 128, 64, 28),
    Shape(8, 256, 256, 8),
    Shape(2, 1280, 1280, 8),
]
FACTORS = (1, 10, 100)
RESULTS = ("forward", "dx", "dweight")
ALGORITHMS = ("winograd", "im2col")


def draw(shape: Shape, factor: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, weight and gradient of the output, in float64, memory channels-last; every number is one that float32 has."""
    x, dy = (rng.standard_normal((shape.batch, shape.size, shape.size, width), np.float32) for width in (shape.channels, shape.outputs))
    bound = factor / np.sqrt(9 * shape.channels)
    weight = rng.uniform(-bound, bound, (3, 3, shape.channels, shape.outputs)).astype(np.float32)
    return tuple(array.astype(float).transpose(axes) for array, axes in ((x, (0, 3, 1, 2)), (weight, (3, 2, 0, 1)), (dy, (0, 3, 1, 2))))


def by_hcrot(x: np.ndarray, weight: np.ndarray, dy: np.ndarray, algorithm: str) -> dict[str, np.ndarray]:
    size = x.shape[2:]
    return {
        "forward": conv2d(x, weight, None, SAME, None, algorithm),
        "dx": conv2d_input_gradient(dy, weight, SAME, *size, algorithm),
        "dweight": conv2d_weight_gradient(x, dy, SAME, algorithm)[0],
    }


def by_pytorch(x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    images, kernels, gradient = (torch.from_numpy(np.ascontiguousarray(array)).requires_grad_() for array in (x, weight, dy))
    y = torch.conv2d(images, kernels, padding=1)
    dx, dweight = torch.autograd.grad(y, (images, kernels), gradient)
    return {name: result.detach().numpy() for name, result in zip(RESULTS, (y, dx, dweight), strict=True)}


def errors(shape: Shape, factor: float, with_torch: bool) -> dict[str, dict[str, float]]:
    """The relative error of each result, by who computed it."""
    arrays = draw(shape, factor, np.random.default_rng(0))
    truth = by_hcrot(*arrays, "im2col")
    rounded = [array.astype(np.float32) for array in arrays]
    found = {algorithm: by_hcrot(*rounded, algorithm) for algorithm in ALGORITHMS}
    if with_torch:
        found["PyTorch"] = by_pytorch(*rounded)
    return {
        who: {name: float(np.abs(results[name] - truth[name]).max() / np.abs(truth[name]).max()) for name in RESULTS}
        for who, results in found.items()
    }


def spill(size: int = 12, channels: int = 32, pixel: float = 1e4) -> dict[str, float]:
    """By how much one large pixel moves, at most, the outputs that do not see it."""
    x, weight, _ = (array.astype(np.float32) for array in draw(Shape(1, channels, channels, size), 1, np.random.default_rng(0)))
    large = x.copy()
    large[0, 0, 5, 5] = pixel
    moved = {}
    for algorithm in ALGORITHMS:
        difference = np.abs(conv2d(large, weight, None, SAME, None, algorithm) - conv2d(x, weight, None, SAME, None, algorithm))
        difference[:, :, 4:7, 4:7] = 0
        moved[algorithm] = float(difference.max())
    return moved


def plot(options: argparse.Namespace, rows: list[dict]) -> None:
    """For each shape, the largest error of the three results, by who computed it."""
    first = [row for row in rows if row["factor"] == 1]
    with picture(options.output / "accuracy.png", 8, [3.6]) as axes:
        axis, names = axes[0, 0], list(first[0]["errors"])
        for place, (who, colour) in enumerate(zip(names, ("#14507f", "#7fa8c9", "#b9c4cc"), strict=False)):
            heights = [max(row["errors"][who].values()) for row in first]
            axis.bar(np.arange(len(first)) + 0.27 * (place - 1), heights, 0.25, color=colour, label=who)
        axis.set_yscale("log")
        axis.set_xticks(range(len(first)), [f"{row['channels']} -> {row['outputs']}\n{row['size']}x{row['size']}" for row in first])
        axis.set_title("Largest error of forward, dx and dweight / largest number", loc="left", size=11)
        axis.legend(frameon=False)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=None)
    parser.add_threads()
    options = parser.parse_args(arguments)
    parser.prepare(options)
    headline("Rounding of 3x3 convolutions in float32", options)
    with_torch = has_torch()
    who = [*ALGORITHMS, *(["PyTorch"] if with_torch else [])]
    table = Table(["channels, pixels, weights", *(f"{name}, {result}" for name in who for result in RESULTS)], options.markdown, 34)
    rows = []
    for shape in SHAPES[:2] if options.quick else SHAPES:
        for factor in FACTORS:
            found = errors(shape, factor, with_torch)
            rows.append({**shape._asdict(), "factor": factor, "errors": found})
            name = f"{shape.channels} -> {shape.outputs}, {shape.size}x{shape.size}, {factor} times"
            table.row(name, *(f"{found[name][result]:.1e}" for name in who for result in RESULTS))
    moved = spill()
    print(f"\nA pixel of 10,000 moves outputs that do not see it by {moved['winograd']:.1e} (winograd) and {moved['im2col']:.1e} (im2col).")
    write_results(options, "accuracy", rows=rows, spill=moved)
    plot(options, rows)


if __name__ == "__main__":
    main()
