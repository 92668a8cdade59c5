"""What the benchmarks share: their options, timing in turn, memory, tables, pictures, and what machine this is.

The figure to quote is a ratio of medians of one run: workers are timed in turn, so that whatever else the machine does falls on all.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np

import hcrot
from hcrot.files.json_and_arrays import replacing

PAUSE = 0.01
"""Seconds before each burst, in which idle threads of the worker before stop spinning."""

BURST = 0.1
"""Seconds that a worker works when it is its turn, if it is not busier with a single piece of work."""

COLOURS = {
    "hcrot": "#14507f",
    "Winograd": "#3f8fc4",
    "im2col": "#9ec3e6",
    "PyTorch": "#b3541e",
    "torch.compile": "#e3aa84",
    "before": "#c9c9c9",
    "now": "#14507f",
}


# ---------------------------------------------------------------- options


class Parser(argparse.ArgumentParser):
    """The options of every benchmark; a mistake ends in one sentence.

    Args:
        description: the script's docstring.
        seconds: how long each line of the table is timed if ``--seconds`` is not given; None: the script has no such option.
    """

    def __init__(self, description: str, seconds: float | None):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        folder = Path("runs/benchmarks")
        self.add_argument("--output", type=Path, default=folder, help="folder for the JSON and the plot (default: %(default)s)")
        self.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
        self.add_argument("--quick", action="store_true", help="a minute at most, to see that it runs; its figures mean little")
        if seconds is not None:
            self.add_argument("--seconds", type=positive, default=seconds, help="how long each line is timed (default: %(default)s)")

    def add_threads(self) -> None:
        """Add ``--threads``, of each library."""
        default = min(2, hcrot.get_num_threads())
        self.add_argument("--threads", type=whole_number, default=default, help="threads of each library (default: %(default)s)")

    def prepare(self, options: argparse.Namespace) -> None:
        """Set the threads, if there is such an option, and make the folder for the results."""
        try:
            if "threads" in options:
                set_threads(options.threads)
            options.output.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            self.error(str(error))

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")


def whole_number(text: str) -> int:
    """An int of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def has_torch() -> bool:
    """Whether PyTorch and diffusers are installed, found out without importing them."""
    return all(importlib.util.find_spec(name) for name in ("torch", "diffusers"))


def set_threads(threads: int) -> None:
    """Let hcrot, and PyTorch if it has been imported, use so many threads from now on.

    Raises:
        ValueError: more than hcrot was started with.
    """
    hcrot.set_num_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


# ---------------------------------------------------------------- measuring


class OwnProcess:
    """A worker that lives in a process of its own, where ``make(*arguments)`` builds it; calling it does its work there.

    Each library is so timed as its users have it. In one process they would share more than the machine: hcrot's setting of how the C
    library keeps freed memory speeds PyTorch up by a fifth, and each library's idle threads spin beside the other's work.

    Args:
        threads: of the libraries in the process.
        make: a function of a module; returns a function without arguments.
        arguments: of make; they are pickled.

    Raises:
        RuntimeError: when asked for work, with what went wrong in the process.
    """

    def __init__(self, threads: int, make: Callable, *arguments: Any):
        context = get_context("spawn")
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=serve, args=(far_end, threads, make, arguments), daemon=True)
        self.process.start()
        far_end.close()

    def __call__(self) -> Any:
        return self.ask("work")

    def burst(self) -> float:
        """:func:`burst` of the worker, by the clock of its process."""
        return self.ask("burst")

    def renew(self, make: Callable, *arguments: Any) -> None:
        """Have another worker built in the same process, in place of the present one: loading a library anew would take seconds."""
        self.connection.send((make, arguments))

    def ask(self, request: str) -> Any:
        self.connection.send(request)
        try:
            failure, answer = self.connection.recv()
        except EOFError:
            failure, answer = "its process has ended", None
        if failure:
            raise RuntimeError(failure)
        return answer

    def __enter__(self) -> "OwnProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.process.join()


def serve(connection: Any, threads: int, make: Callable, arguments: tuple) -> None:
    """What the process of :class:`OwnProcess` does: build the worker when it is first asked for work, and answer until nobody asks."""
    work = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if isinstance(request, tuple):
            work, (make, arguments) = None, request
            continue
        try:
            if work is None:
                work = make(*arguments)
                set_threads(threads)
            connection.send((None, burst(work) if request == "burst" else work()))
        except Exception as error:
            connection.send((f"{type(error).__name__}: {error}", None))


def burst(work: Callable[[], object]) -> float:
    """Seconds a call, of calls back to back for a tenth of a second (at least one) after one that does not count: training and sampling
    are steps back to back, and the first after a pause finds cold caches and sleeping threads."""
    work()
    begin, calls, spent = time.perf_counter(), 0, 0.0
    while calls == 0 or spent < BURST:
        work()
        calls, spent = calls + 1, time.perf_counter() - begin
    return spent / calls


def alternate(workers: Mapping[str, Callable[[], object]], seconds: float, rounds: int = 5) -> dict[str, float]:
    """Time the workers' bursts in turn for about ``seconds``, at least ``rounds`` each, after one call that does not count.

    Returns:
        the median of each worker's times, in seconds.
    """
    for work in workers.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in workers}
    start, done = time.perf_counter(), 0
    while done < rounds or time.perf_counter() - start < seconds:
        for name, work in workers.items():
            time.sleep(PAUSE)
            times[name].append(work.burst() if isinstance(work, OwnProcess) else burst(work))
        done += 1
    return {name: statistics.median(spent) for name, spent in times.items()}


def check_close(name: str, expected: np.ndarray, found: np.ndarray, tolerance: float) -> None:
    """Raise an AssertionError unless two arrays differ by at most ``tolerance`` times the largest number of the first."""
    difference = np.abs(np.asarray(found) - np.asarray(expected)).max() / np.abs(expected).max()
    if not difference <= tolerance:
        raise AssertionError(f"{name}: the results differ by {difference:.1e} of the largest number, which is above {tolerance:.0e}")


def in_own_process(function: Callable, *arguments: Any) -> Any:
    """``function(*arguments)``, computed in a new process that has done nothing before. The function must be one of a module."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def resident(peak: bool = False) -> float:
    """MB (of 2^20 bytes) that this process holds in memory, or the most that it has held since :func:`forget_peak`.

    Raises:
        OSError: this is not Linux.
    """
    field = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        raise OSError("memory is measured on Linux only, through /proc/self/status") from None
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def forget_peak() -> None:
    """Set the peak of :func:`resident` back to what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def machine() -> dict[str, str | int]:
    """CPU, cores and versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "scipy")}
    if has_torch():
        versions |= {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "architecture": llvmlite.binding.get_host_cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "system": platform.system(),
        "python": platform.python_version(),
        "hcrot": hcrot.__version__,
        **versions,
    }


# ---------------------------------------------------------------- showing


class Table:
    """A table that is printed row by row, as its figures become known.

    Args:
        columns: their titles; the first is for names.
        markdown: print it as Markdown.
        width: of the first column.
    """

    def __init__(self, columns: Sequence[str], markdown: bool, width: int = 24):
        self.markdown = markdown
        self.widths = [width, *(max(9, len(title)) for title in columns[1:])]
        self.row(*columns)
        if markdown:
            print("| --- |" + " ---: |" * (len(columns) - 1), flush=True)

    def row(self, *cells: str) -> None:
        if self.markdown:
            print(f"| {' | '.join(cells)} |", flush=True)
            return
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells[1:], self.widths[1:], strict=True))
        print("  ".join((f"{cells[0]:{self.widths[0]}}", *aligned)), flush=True)


def duration(seconds: float | None) -> str:
    """Three significant digits with their unit: 1.23 s, 45.6 ms, 7.89 us."""
    if seconds is None:
        return "-"
    unit, scale = next(((unit, scale) for unit, scale in (("s", 1), ("ms", 1e3)) if seconds * scale >= 0.9995), ("µs", 1e6))
    number = seconds * scale
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"


def headline(title: str, options: argparse.Namespace) -> None:
    """Print what is measured, and where."""
    here = machine()
    versions = ", ".join(f"{name} {here[name]}" for name in ("python", "numpy", "numba", "torch") if name in here)
    quick = "; --quick: figures mean little" if options.quick else ""
    quick += "; playing AVX2" if getattr(options, "isa", "native") == "avx2" else ""
    print(f"{title}: {here['cpu']} ({here['architecture']}), {here['cores']} cores; {versions}{quick}\n", flush=True)


def write_results(options: argparse.Namespace, name: str, **figures: Any) -> None:
    """Write ``name.json`` into the output folder: the machine, the options (but for folders) and the figures."""
    chosen = {option: value for option, value in vars(options).items() if not isinstance(value, Path)}
    content = {"benchmark": name, "machine": machine(), "options": chosen, **figures}
    with replacing(options.output / f"{name}.json") as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    print(f"\nFigures and plot: {options.output / name}.json and .png")


@contextmanager
def picture(path: Path, width: float, heights: Sequence[float], columns: int = 1) -> Iterator[np.ndarray]:
    """Axes (rows, columns) to draw on, a row for each height; when done they are tidied up and written as a PNG. Sizes are in inches."""
    from matplotlib.figure import Figure
    from matplotlib.style import context

    with context("default"), replacing(path) as unfinished:
        figure = Figure(figsize=(width, sum(heights)), dpi=150, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
        axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
        yield axes
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_axisbelow(True)
        figure.savefig(unfinished, format="png")


def draw_bars(
    axis: Any, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], form: Callable[[float], str], inside: bool = False
) -> None:
    """Horizontal bars, one group for each label from top to bottom, in it one bar for each series, its figure written behind its end.

    Args:
        axis: matplotlib's; its scale is set before.
        series: values by name, as many as there are labels; None leaves a gap. A name's colour is that of COLOURS.
        form: writes a value.
        inside: write it before the end, where none of the bars is short and something else lies behind them.
    """
    height = 0.8 / len(series)
    for index, (name, values) in enumerate(series.items()):
        known = [(place, value) for place, value in enumerate(values) if value is not None]
        places = [place + (index - (len(series) - 1) / 2) * height for place, _ in known]
        axis.barh(places, [value for _, value in known], height * 0.92, color=COLOURS[name], label=name)
        for place, (_, value) in zip(places, known, strict=True):
            ground = {"facecolor": COLOURS[name] if inside else "white", "edgecolor": "none", "pad": 0.6}
            style = {"ha": "right", "color": "white"} if inside else {"ha": "left"}
            offset = (-8 if inside else 4, 0)
            axis.annotate(form(value), (value, place), offset, textcoords="offset points", va="center", size=8, bbox=ground, **style)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.margins(x=0.1)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
