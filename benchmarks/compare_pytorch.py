"""Train the same networks with the same weights in hcrot and in PyTorch, in turn, and print how their times compare.

    python benchmarks/compare_pytorch.py                             every line but torch.compile's (a quarter of an hour)
    python benchmarks/compare_pytorch.py --compile                   torch.compile beside them; compiling takes minutes
    python benchmarks/compare_pytorch.py --only seed-train-64        one line
    python benchmarks/compare_pytorch.py --isa avx2                  as on a processor without AVX-512

Each library has a process of its own, and all the same number of threads. They take turns, a tenth of a second of steps (at least one)
each, so that whatever else the machine does falls on all; the figure to quote is the ratio of the medians. A training step is forward,
backward, clipping to norm 1 and AdamW; a forward step is one denoising forward. Before it is timed, the first step's loss or output is
compared.

Memory is the peak of a process that does nothing but two training steps, less what the process held just before. ``start-up`` times new
processes: the import, less what Python itself takes to start, and from launch to the end of the first training step, with kernels to be
compiled and with cached ones. ``steady`` watches the memory of a training run of many steps.

Needs PyTorch and diffusers (``pip install -e ".[parity]"``), except for start-up and steady.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from common import (
    COLOURS,
    OwnProcess,
    Parser,
    Table,
    alternate,
    check_close,
    draw_bars,
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
from networks import NETWORKS, SEED, hcrot_step, memory_over_steps, peak_memory, torch_model, torch_step

import hcrot

CASES = {
    "seed-train-64": ("seed", "train", 64, 0.38),
    "seed-train-512": ("seed", "train", 512, 0.42),
    "mnist28-train-64": ("mnist28", "train", 64, 0.40),
    "rgb32-train-16": ("rgb32", "train", 16, 0.40),
    "seed-forward-1": ("seed", "forward", 1, 0.18),
    "seed-forward-10": ("seed", "forward", 10, 0.28),
    "seed-forward-100": ("seed", "forward", 100, 0.38),
    "ddpm-cifar10-32-forward-1": ("ddpm-cifar10-32", "forward", 1, 0.50),
    "seed-memory-512": ("seed", "memory", 512, 0.55),
}
"""Network, task, batch and the ratio hcrot / PyTorch that is aimed at, if there is an aim."""

QUICK = ("seed-train-64", "rgb32-train-16", "seed-forward-1", "seed-forward-10", "seed-memory-512", "steady")
QUICK_BATCH = 4


# ---------------------------------------------------------------- beside PyTorch


def compare(config: dict, task: str, batch: int, threads: int, seconds: float, compiled: bool) -> tuple[dict[str, float], str]:
    """Medians of the time of one step by library, in seconds, and why torch.compile is not among them, if it should and failed."""
    weights = {name: value.detach().numpy() for name, value in torch_model(config).state_dict().items()}
    failure = ""
    with ExitStack() as stack:

        def own_process(make: Callable, *arguments: object) -> OwnProcess:
            return stack.enter_context(OwnProcess(threads, make, config, task, batch, *arguments))

        steps = {"hcrot": own_process(hcrot_step, weights), "PyTorch": own_process(torch_step)}
        expected = steps["PyTorch"]()
        check_close(f"hcrot, {task} at batch {batch}", expected, steps["hcrot"](), 1e-4)
        if compiled:
            step = own_process(torch_step, True)
            try:
                found = step()
            except RuntimeError as error:  # of whatever compiler torch.compile needs and does not find
                failure = f"torch.compile fails on this machine: {first_line(error)}"
            else:
                check_close(f"torch.compile, {task} at batch {batch}", expected, found, 1e-4)
                steps["torch.compile"] = step
        return alternate(steps, seconds), failure


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def run_case(name: str, options: argparse.Namespace, table: Table) -> dict:
    """Measure one line of the table, print it, and return its figures."""
    network, task, batch, aim = CASES[name]
    batch = min(batch, QUICK_BATCH) if options.quick else batch
    config, failure = NETWORKS[network], ""
    if task == "memory":
        figures = {library: in_own_process(peak_memory, library, config, batch, options.threads) for library in ("hcrot", "PyTorch")}
        form: Callable[[float | None], str] = in_megabytes
    else:
        figures, failure = compare(config, task, batch, options.threads, options.seconds, options.compile)
        form = duration
    ratio = figures["hcrot"] / figures["PyTorch"]
    ratio_compiled = figures["hcrot"] / figures["torch.compile"] if "torch.compile" in figures else None
    label = f"{network}, {task}, batch {batch}"
    cells = [label, form(figures["hcrot"]), form(figures["PyTorch"]), f"{ratio:.2f}", "-" if aim is None else f"{aim:.2f}"]
    if options.compile:
        cells += [form(figures.get("torch.compile")), "-" if ratio_compiled is None else f"{ratio_compiled:.2f}"]
    table.row(*cells)
    if failure:
        print(f"  {failure}", flush=True)
    unit = "MB" if task == "memory" else "s"
    return {"name": name, "label": label, "unit": unit, **figures, "ratio": ratio, "at most": aim, "failure": failure}


def in_megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} MB"


# ---------------------------------------------------------------- hcrot alone


FIRST_STEP = "from networks import SEED, {0}_step as make; make(SEED, 'train', 64)()"


def seconds_of(code: str, **environment: str) -> float:
    """Seconds from the launch of a new Python process to its end, when all it does is ``code``."""
    folders = [str(Path(__file__).parent), str(Path(hcrot.__file__).parents[1])]
    environment["PYTHONPATH"] = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=os.environ | environment, check=True)
    return time.perf_counter() - start


def start_up(options: argparse.Namespace) -> list[dict]:
    """Print how long a user waits before anything happens, and return it."""
    rows = []
    table = Table(["in a new process", "hcrot", "at most", *(["PyTorch"] if has_torch() else [])], options.markdown, width=36)

    def row(name: str, seconds: float, aim: float | None, theirs: float | None) -> None:
        table.row(name, duration(seconds), duration(aim), *([duration(theirs)] if has_torch() else []))
        rows.append({"name": name, "hcrot": seconds, "at most": aim, "PyTorch": theirs})

    bare = statistics.median(seconds_of("") for _ in range(5))

    def to_import(name: str) -> float:
        return statistics.median(seconds_of(f"import {name}") for _ in range(5)) - bare

    to_import_hcrot = to_import("hcrot")
    row("import", to_import_hcrot, None, to_import("torch") if has_torch() else None)
    row("import, beyond what Numba's takes", to_import_hcrot - to_import("numba"), 0.1, None)
    theirs = seconds_of(FIRST_STEP.format("torch")) if has_torch() else None
    with tempfile.TemporaryDirectory() as folder:
        first, *later = (seconds_of(FIRST_STEP.format("hcrot"), NUMBA_CACHE_DIR=folder) for _ in range(4))
    row("first training step, empty cache", first, 12, theirs)
    row("first training step, kernels cached", statistics.median(later), 1, theirs)
    return rows


def steady(options: argparse.Namespace) -> list[tuple[int, float]]:
    """Watch the memory of a training run; print how much it grows after its first tenth, and return ``(step, MB)``."""
    batch = QUICK_BATCH if options.quick else 64
    held = in_own_process(memory_over_steps, SEED, batch, options.steps, options.threads)
    late = [megabyte for step, megabyte in held if step > options.steps / 10]
    print(f"steady memory, seed, batch {batch}: {late[0]:.1f} MB after a tenth of {options.steps:,} steps, "
          f"{late[-1]:.1f} MB at the end, between them {min(late):.1f} to {max(late):.1f} MB", flush=True)  # fmt: skip
    return held


# ---------------------------------------------------------------- picture


def draw(options: argparse.Namespace, rows: list[dict], starts: list[dict], held: list[tuple[int, float]]) -> None:
    """A panel for whatever was measured: ratios, waiting times, the memory of a long run."""
    panels: list[tuple[float, Callable]] = []
    if rows:
        panels.append((1.2 + 0.5 * len(rows), lambda axis: draw_ratios(axis, rows)))
    if starts:
        panels.append((1.2 + 0.5 * len(starts), lambda axis: draw_starts(axis, starts)))
    if held:
        panels.append((2.4, lambda axis: draw_memory(axis, held)))
    with picture(options.output / "compare_pytorch.png", 9.5, [height for height, _ in panels]) as axes:
        for axis, (_, draw_panel) in zip(axes[:, 0], panels, strict=True):
            draw_panel(axis)


def draw_ratios(axis, rows: list[dict]) -> None:
    series = {"hcrot": [row["ratio"] for row in rows]}
    if any("torch.compile" in row for row in rows):
        series["torch.compile"] = [row["torch.compile"] / row["PyTorch"] if "torch.compile" in row else None for row in rows]
    draw_bars(axis, [row["label"] for row in rows], series, "{:.2f}".format, inside=True)
    aims = {place - 0.2 * (len(series) - 1): row["at most"] for place, row in enumerate(rows) if row["at most"] is not None}
    axis.plot(list(aims.values()), list(aims), "D", color="white", markeredgecolor="black", markersize=7, label="aim of hcrot")
    axis.axvline(1, color=COLOURS["PyTorch"], linewidth=1.4, label="PyTorch, eager")
    axis.set_title("Time or memory of a step as a fraction of PyTorch's (less is better)", loc="left", size=11)
    axis.set_xlabel("ratio of the medians")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def draw_starts(axis, starts: list[dict]) -> None:
    libraries = [library for library in ("hcrot", "PyTorch") if starts[0][library] is not None]
    draw_bars(axis, [row["name"] for row in starts], {library: [row[library] for row in starts] for library in libraries}, duration)
    axis.set_title("Waiting in a new process, from its launch (less is better)", loc="left", size=11)
    axis.set_xlabel("seconds")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def draw_memory(axis, held: list[tuple[int, float]]) -> None:
    axis.plot(*zip(*held, strict=True), color=COLOURS["hcrot"], linewidth=1.8)
    axis.set_ylim(0, 1.25 * max(megabytes for _, megabytes in held))
    axis.set_xlim(0)
    axis.set_title("Memory held by hcrot's process while it trains", loc="left", size=11)
    axis.set_xlabel("training step")
    axis.set_ylabel("MB")
    axis.grid(color="#dddddd", linewidth=0.6)


AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",  # the name alone leaves AVX-512 on
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""The environment in which hcrot, NumPy and PyTorch use no more than AVX2, whatever the processor has."""


def play_avx2(arguments: list[str]) -> int:
    """Run this script in that environment, with a cache of kernels of its own; its exit status."""
    with tempfile.TemporaryDirectory() as cache:
        return subprocess.run([sys.executable, __file__, *arguments], env=os.environ | AVX2 | {"NUMBA_CACHE_DIR": cache}).returncode


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=20)
    parser.add_threads()
    names = [*CASES, "start-up", "steady"]
    parser.add_argument("--only", choices=names, nargs="+", help="which lines (default: all)")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--steps", type=whole_number, help="training steps of the steady run (default: 2000, with --quick 100)")
    parser.add_argument("--isa", choices=["native", "avx2"], default="native", help="the instructions to use (default: all there are)")
    options = parser.parse_args(arguments)
    if options.isa == "avx2" and os.environ.get("NUMBA_CPU_NAME") != AVX2["NUMBA_CPU_NAME"]:
        sys.exit(play_avx2(sys.argv[1:] if arguments is None else arguments))
    options.only = options.only or (QUICK if options.quick else names)
    options.steps = options.steps or (100 if options.quick else 2000)
    if options.quick:
        options.seconds = min(options.seconds, 1.0)
    chosen = [name for name in options.only if name in CASES]
    try:
        if chosen and not has_torch():
            raise ValueError('needs PyTorch and diffusers, pip install -e ".[parity]"; without them there are --only start-up steady')
        set_threads(options.threads)
        if {"seed-memory-512", "steady"} & set(options.only):
            resident()
        options.output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    headline("hcrot beside PyTorch", options)
    rows, starts, held = [], [], []
    if chosen:
        titles = ["network, task, batch", "hcrot", "PyTorch", "ratio", "at most", *(["compiled", "ratio"] if options.compile else [])]
        table = Table(titles, options.markdown, width=28)
        rows = [run_case(name, options, table) for name in chosen]
        print()
    if "start-up" in options.only:
        starts = start_up(options)
        print()
    if "steady" in options.only:
        held = steady(options)
    write_results(options, "compare_pytorch", rows=rows, start_up=starts, steady=held)
    draw(options, rows, starts, held)


if __name__ == "__main__":
    main()
