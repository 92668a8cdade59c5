"""How much faster each kernel is in two threads, and in more, than in one.

    python benchmarks/threads.py                        # up to all cores
    python benchmarks/threads.py --threads 2 --batch 16

The arrays are those of the 28x28 network that examples/mnist_ddpm.py trains. In two threads a kernel should take at most 1 / 1.7 of its
time in one. Those that only copy and add are limited by the memory, which one core may use up alone. A kernel that is much slower than it
should be has its threads wait for each other.
"""

import argparse
from collections.abc import Callable

import numpy as np
from common import Parser, Table, alternate, duration, headline, picture, whole_number, write_results

import hcrot
from hcrot.kernels import activation, attention, channels, conv, norm, optim, resample
from hcrot.kernels.im2col import make_geometry

AIM = 1.7
"""Time in one thread / time in two, that is asked of each kernel."""

SAME, HALVING = make_geometry(3, padding=1), make_geometry(3, stride=2, padding=1)


def works(batch: int) -> dict[str, Callable[[], object]]:
    """A call of each kernel, by name."""
    rng = np.random.default_rng(0)

    def images(channels: int, size: int) -> np.ndarray:
        """(batch, channels, size, size), memory channels-last."""
        return rng.standard_normal((batch, size, size, channels), dtype=np.float32).transpose(0, 3, 1, 2)

    def weight(outputs: int, inputs: int, size: int) -> np.ndarray:
        return rng.standard_normal((size, size, inputs, outputs), dtype=np.float32).transpose(3, 2, 0, 1)

    x, dy, wide, small = images(32, 28), images(32, 28), images(64, 28), images(64, 14)
    scale, offset = rng.standard_normal((2, 32), dtype=np.float32)
    _, mean, rstd = norm.group_norm(x, scale, offset, 8, 1e-5, True)
    q, k, v, do = rng.standard_normal((4, batch, 49, 64), dtype=np.float32)
    _, logsum = attention.attention(q, k, v, 8)
    kernel, narrowing, square = weight(32, 32, 3), weight(64, 32, 3), rng.standard_normal((64, 64), dtype=np.float32).T
    half = conv.conv2d(x, narrowing, None, HALVING)
    rows = rng.standard_normal((batch * 196, 64), dtype=np.float32)
    p, g, m, second = (optim.Arrays([rng.random(40_000, dtype=np.float32) for _ in range(40)]) for _ in range(4))
    return {
        "3x3 convolution": lambda: conv.conv2d(x, kernel, None, SAME),
        "its weight gradient": lambda: conv.conv2d_weight_gradient(x, dy, SAME),
        "its input gradient": lambda: conv.conv2d_input_gradient(dy, kernel, SAME, 28, 28),
        "3x3 convolution, stride 2": lambda: conv.conv2d(x, narrowing, None, HALVING),
        "weight gradient of stride 2": lambda: conv.conv2d_weight_gradient(x, half, HALVING),
        "input gradient of stride 2": lambda: conv.conv2d_input_gradient(half, narrowing, HALVING, 28, 28),
        "linear": lambda: conv.linear(rows, square, None),
        "weight gradient of linear": lambda: conv.linear_weight_gradient(rows, rows),
        "group norm and SiLU": lambda: norm.group_norm(x, scale, offset, 8, 1e-5, True),
        "gradient of group norm": lambda: norm.group_norm_backward(dy, x, mean, rstd, scale, offset, True),
        "attention": lambda: attention.attention(q, k, v, 8),
        "gradient of attention": lambda: attention.attention_backward(do, q, k, v, logsum, 8),
        "SiLU": lambda: activation.silu(x),
        "gradient of SiLU": lambda: activation.silu_gradient(x, dy),
        "concatenate": lambda: channels.concatenate(x, dy),
        "split": lambda: channels.split(wide, 32),
        "plus": lambda: channels.plus(x, dy),
        "pixel sums": lambda: channels.pixel_sums(dy),
        "nearest, doubling": lambda: resample.nearest(small, 28, 28),
        "gradient of nearest": lambda: resample.nearest_gradient(wide, 14, 14),
        "squares of gradients": lambda: optim.square_sum(g),
        "Adam": lambda: optim.adam(p, g, m, second, 9, 1e-9, 0.9, 0.999, 1e-8, 0.0, 0.0, 1.0),
    }


def measure(work: Callable[[], object], most: int, seconds: float) -> list[float]:
    """Seconds of a call with 1, 2, ... ``most`` threads."""

    def with_threads(threads: int) -> Callable[[], None]:
        def call() -> None:
            hcrot.set_num_threads(threads)
            work()

        return call

    return list(alternate({str(threads): with_threads(threads) for threads in range(1, most + 1)}, seconds).values())


def draw(options: argparse.Namespace, times: dict[str, list[float]]) -> None:
    """A line for each kernel: speed-up with the most threads, and what is asked of two."""
    with picture(options.output / "threads.png", 8, [1.2 + 0.3 * len(times)]) as axes:
        axis = axes[0, 0]
        speedups = [spent[0] / spent[-1] for spent in times.values()]
        axis.barh(range(len(times)), speedups, color="#14507f")
        for place, value in enumerate(speedups):
            axis.annotate(f"{value:.2f}", (value, place), (4, 0), textcoords="offset points", va="center", size=8)
        axis.set_yticks(range(len(times)), list(times))
        axis.set_ylim(len(times) - 0.5, -0.5)
        axis.axvline(1, color="#999999", linewidth=0.8)
        if options.threads == 2:
            axis.axvline(AIM, color="#b3541e", linewidth=0.8)
        axis.margins(x=0.1)
        axis.set_title(f"Time in one thread / time in {options.threads}, batch {options.batch}", loc="left", size=11)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=3)
    parser.add_threads()
    parser.add_argument("--batch", type=whole_number, help="images (default: 64, with --quick 2)")
    options = parser.parse_args(arguments)
    options.batch = options.batch or (2 if options.quick else 64)
    if options.quick:
        options.seconds = min(options.seconds, 0.05)
    parser.prepare(options)

    headline(f"Kernels in 1 to {options.threads} threads, batch {options.batch}", options)
    counts = range(1, options.threads + 1)
    titles = ["kernel", *(f"{count} thread{'s' * (count > 1)}" for count in counts), *(f"1 / {count}" for count in counts if count > 1)]
    table = Table(titles, options.markdown, 28)
    times = {}
    for name, work in works(options.batch).items():
        spent = times[name] = measure(work, options.threads, options.seconds)
        table.row(name, *map(duration, spent), *(f"{spent[0] / other:.2f}" for other in spent[1:]))
    write_results(options, "threads", times=times)
    draw(options, times)


if __name__ == "__main__":
    main()
