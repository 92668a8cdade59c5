"""How much slower a step becomes when other programs use the same cores, in hcrot and in PyTorch.

    python benchmarks/company.py                         # one busy process
    python benchmarks/company.py --busy 2 --seconds 5

A laptop is seldom idle. With one core of two kept busy by another process half of the machine is gone, and a step should take about twice
its time. It takes longer where threads wait for each other: at the end of each kernel the fast ones wait for the one whose core was taken
away. A step is timed with the machine to itself, then beside processes that do nothing but count, then alone again.
"""

import argparse
import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from common import OwnProcess, Parser, Table, alternate, duration, has_torch, headline, picture, whole_number, write_results
from networks import NETWORKS, hcrot_step, torch_step

CASES = {
    "seed, train, batch 64": ("seed", "train", 64),
    "seed, forward, batch 1": ("seed", "forward", 1),
    "seed, forward, batch 100": ("seed", "forward", 100),
}
QUICK = ["seed, forward, batch 1"]

AIM = 2.2
"""Time beside one busy process on two cores / time alone, that is asked of a step."""


def count_for_ever() -> None:
    """What the others do."""
    number = 0
    while True:
        number += 1


@contextmanager
def company(processes: int) -> Iterator[None]:
    """So many busy processes within the block."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=count_for_ever, daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def measure(name: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step alone, in company and alone again, by library."""
    network, task, batch = CASES[name]
    config = NETWORKS[network]
    with ExitStack() as stack:
        steps = {"hcrot": stack.enter_context(OwnProcess(options.threads, hcrot_step, config, task, batch))}
        if has_torch():
            steps["PyTorch"] = stack.enter_context(OwnProcess(options.threads, torch_step, config, task, batch))
        times: dict[str, list[float]] = {library: [] for library in steps}
        for busy in (0, options.busy, 0):
            with company(busy):
                for library, spent in alternate(steps, options.seconds).items():
                    times[library].append(spent)
    return times


def draw(options: argparse.Namespace, rows: list[dict]) -> None:
    """For each step and library, how many times as long it takes."""
    with picture(options.output / "company.png", 8, [1.0 + 0.8 * len(rows)]) as axes:
        axis, libraries = axes[0, 0], list(rows[0]["slower"])
        for place, (library, colour) in enumerate(zip(libraries, ("#14507f", "#b9c4cc"), strict=False)):
            places = [number + 0.38 * (place - 0.5) for number in range(len(rows))]
            axis.barh(places, [row["slower"][library] for row in rows], 0.36, color=colour, label=library)
        axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.axvline(1, color="#999999", linewidth=0.8)
        if options.threads == 2 and options.busy == 1:
            axis.axvline(AIM, color="#b3541e", linewidth=0.8)
        axis.set_title(f"Time of a step beside {options.busy} busy / time alone, {options.threads} threads", loc="left", size=11)
        axis.legend(frameon=False)


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=10)
    parser.add_threads()
    parser.add_argument("--busy", type=whole_number, default=1, help="processes that keep a core busy (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    parser.prepare(options)

    headline(f"Steps beside {options.busy} busy", options)
    table = Table(["step", "library", "alone", "in company", "alone again", "slower"], options.markdown, 26)
    rows = []
    for name in QUICK if options.quick else CASES:
        times = measure(name, options)
        slower = {library: 2 * busy / (before + after) for library, (before, busy, after) in times.items()}
        rows.append({"name": name, "times": times, "slower": slower})
        for library, spent in times.items():
            table.row(name, library, *map(duration, spent), f"{slower[library]:.2f}")
    write_results(options, "company", rows=rows)
    draw(options, rows)


if __name__ == "__main__":
    main()
