"""Time and memory of a training step against the batch, the size of the images and the width of the network, with 1 and 2 threads.

    python benchmarks/scaling.py                           both libraries, all three (nine minutes)
    python benchmarks/scaling.py --libraries hcrot         without PyTorch

One of the three is varied, the other two stay at batch 16, 16x16 pixels, width 32. The network is the seed network with 8 groups, its
levels as wide as the width, twice that, and the width again. The workers of a line are timed in turn. Memory is what two training
steps add to the peak of a process of their own, with as many threads as the most that are timed.
"""

import argparse
from contextlib import ExitStack

from common import (
    COLOURS,
    OwnProcess,
    Parser,
    Table,
    alternate,
    duration,
    has_torch,
    headline,
    in_own_process,
    picture,
    resident,
    set_threads,
    whole_number,
    write_results,
)
from networks import SEED, STEPS, peak_memory

import hcrot

BASE = {"batch": 16, "size": 16, "width": 32}
SWEEPS = {"batch": (1, 4, 16, 64, 256), "size": (8, 16, 32, 64), "width": (8, 16, 32, 64, 128)}
QUICK = {"batch": (1, 4), "size": (8, 12), "width": (8, 16)}
TITLES = {"batch": "images in a batch", "size": "pixels on each side", "width": "width of the first level"}


def config_of(size: int, width: int) -> dict:
    """The network at a size of image and a width."""
    return SEED | {"sample_size": size, "block_out_channels": (width, 2 * width, width), "norm_num_groups": 8}


def measure(point: dict[str, int], options: argparse.Namespace) -> dict:
    """Seconds of a training step by library and threads, and MB by library, at one batch, size and width."""
    config = config_of(point["size"], point["width"])
    with ExitStack() as stack:
        workers = {
            worker(library, threads): stack.enter_context(OwnProcess(threads, STEPS[library], config, "train", point["batch"]))
            for library in options.libraries
            for threads in options.threads
        }
        seconds = alternate(workers, options.seconds, rounds=3)
    arguments = (config, point["batch"], max(options.threads))
    return {"seconds": seconds, "memory": {library: in_own_process(peak_memory, library, *arguments) for library in options.libraries}}


def worker(library: str, threads: int) -> str:
    return f"{library}, {threads} thread{'s' * (threads > 1)}"


def draw(options: argparse.Namespace, rows: list[dict]) -> None:
    from matplotlib.ticker import LogLocator

    with picture(options.output / "scaling.png", 4.4 * len(options.only), (3.6, 3.6), columns=len(options.only)) as axes:
        for column, sweep in enumerate(options.only):
            chosen = [row for row in rows if row["sweep"] == sweep]
            values = [row["value"] for row in chosen]
            for library in options.libraries:
                look = {"color": COLOURS[library], "marker": "o", "markersize": 4}
                for threads in options.threads:
                    name, style = worker(library, threads), "-" if threads == max(options.threads) else ":"
                    axes[0, column].plot(values, [1000 * row["seconds"][name] for row in chosen], style, label=name, **look)
                axes[1, column].plot(values, [row["memory"][library] for row in chosen], label=library, **look)
            for axis in axes[:, column]:
                axis.set_xscale("log", base=2)
                axis.set_yscale("log")
                axis.set_xticks(values, values)
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter("")
                axis.grid(color="#dddddd", linewidth=0.6)
                axis.set_xlabel(TITLES[sweep])
        axes[0, 0].set_ylabel("ms of a training step (logarithmic)")
        axes[1, 0].set_ylabel("MB of a training step (logarithmic)")
        for axis in axes[:, 0]:
            axis.legend(frameon=False, loc="upper left")


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=6)
    most = min(2, hcrot.get_num_threads())
    libraries = [library for library in STEPS if library == "hcrot" or has_torch()]
    parser.add_argument("--threads", type=whole_number, nargs="+", default=sorted({1, most}), help="how many (default: %(default)s)")
    parser.add_argument("--libraries", choices=libraries, nargs="+", default=libraries, help="which (default: those that are installed)")
    parser.add_argument("--only", choices=SWEEPS, nargs="+", default=list(SWEEPS), help="what to vary (default: all three)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds = min(options.seconds, 0.3)
    try:
        for threads in options.threads:
            set_threads(threads)
        resident()
        options.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    headline("A training step against batch, size and width", options)
    workers = [worker(library, threads) for library in options.libraries for threads in options.threads]
    table = Table(["varied", *workers, *(f"{library}, memory" for library in options.libraries)], options.markdown, 12)
    rows = []
    for sweep in options.only:
        for value in (QUICK if options.quick else SWEEPS)[sweep]:
            found = measure(BASE | {sweep: value}, options)
            table.row(
                f"{sweep} {value}",
                *(duration(found["seconds"][name]) for name in workers),
                *(f"{found['memory'][library]:.0f} MB" for library in options.libraries),
            )
            rows.append({"sweep": sweep, "value": value, **found})
    write_results(options, "scaling", rows=rows)
    draw(options, rows)


if __name__ == "__main__":
    main()
