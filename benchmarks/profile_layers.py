"""Where the time of a training step goes: seconds by kind of layer, forward and backward.

    python benchmarks/profile_layers.py                                        the 28x28 network at batch 64
    python benchmarks/profile_layers.py --before old/profile_layers.json       beside an earlier profile, of an older hcrot say

Every module's forward and backward is wrapped in a timer. What a module spends in its parts counts as theirs, so a block's own share is
what it does itself: joining and splitting channels, adding gradients.

The column "floor" is the least time that the kernels' calls can take on this machine (``floors.py``), and "/ floor" says how many times as
long the layers take: kernels that are slower than memory and products allow, Python between them, and what NumPy does.
"""

import argparse
import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import Parser, Table, alternate, draw_bars, duration, headline, picture, set_threads, whole_number, write_results
from floors import floor_of, rates
from networks import NETWORKS, make_batch

import hcrot
from hcrot.files.json_and_arrays import read_json
from hcrot.kernels.launch import recorded

OTHERS = "everything else"


class Clock:
    """Seconds by name, in which time spent in something timed inside counts for that alone.

    Attributes:
        spent: seconds by name.
        calls: while a list is here, to which the kernels' calls are added, ``made`` gets those of each name.
    """

    def __init__(self):
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.calls: list[tuple] | None = None
        self.made: defaultdict[str, list[tuple]] = defaultdict(list)
        self._inside = [("", 0.0)]

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        self._hand_out()
        self._inside.append((name, 0.0))
        begin = time.perf_counter()
        yield
        whole = time.perf_counter() - begin
        self._hand_out()
        self.spent[name] += whole - self._inside.pop()[1]
        outer, inside = self._inside[-1]
        self._inside[-1] = outer, inside + whole

    def _hand_out(self) -> None:
        """Calls since the last time belong to the innermost name."""
        if self.calls:
            self.made[self._inside[-1][0]] += self.calls
            self.calls.clear()

    def watch(self, module: hcrot.Module) -> None:
        """Time every call of the module's forward and backward from now on."""
        for way in ("forward", "backward"):
            setattr(module, way, self._timed(f"{kind(module)}|{way}", getattr(module, way)))

    def _timed(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments, **options):
            with self.timing(name):
                return function(*arguments, **options)

        return call


def kind(module: hcrot.Module) -> str:
    """A module's class and, for a convolution, its kernel; blocks, which only join their parts, are one kind."""
    if isinstance(module, hcrot.Conv2d):
        height, width, stride = module.geometry[:3]
        return f"Conv2d {height}x{width}" + (f", stride {stride}" if stride > 1 else "")
    return "joining blocks" if type(module).__module__.startswith("hcrot.models") else type(module).__name__


def profile(config: dict, batch: int, seconds: float) -> tuple[dict[str, dict[str, float]], float, float, dict[str, float]]:
    """Seconds by kind and part of a step, medians of some steps' own; a whole step's; a step's without timers; the floor of each kind."""
    model = hcrot.UNet2dModel(**config, generator=np.random.default_rng(0))
    optimizer = hcrot.AdamW(model.parameters(), lr=1e-4)
    images, noise, timesteps, labels = make_batch(config, batch)
    clock = Clock()

    def step() -> None:
        _, dout = hcrot.mse_loss(model(images, timesteps, labels), noise)
        model.backward(dout)
        with clock.timing("clipping and AdamW|step"):
            optimizer.step(max_grad_norm=1.0, zero_grad=True)

    bare = alternate({"step": step}, seconds)["step"]
    for module in model.modules():
        clock.watch(module)
    records = []

    def watched_step() -> None:
        clock.spent.clear()
        with clock.timing("loss|step"):
            step()
        records.append(dict(clock.spent))

    alternate({"step": watched_step}, seconds)
    del records[0]  # the call that does not count
    with recorded() as clock.calls:
        watched_step()
    peak, bandwidth = rates()
    floors: defaultdict[str, float] = defaultdict(float)
    for name, calls in clock.made.items():
        floors[name.split("|")[0]] += sum(floor_of(call, peak, bandwidth) for call in calls)
    print(f"A large product runs at {peak / 1e9:.0f} GFLOP/s, large arrays are added at {bandwidth / 1e9:.0f} GB/s.\n")
    medians = {name: statistics.median(record[name] for record in records) for name in records[0]}
    whole = statistics.median(sum(record.values()) for record in records)
    parts: dict[str, dict[str, float]] = {}
    for name, spent in medians.items():
        of, way = name.split("|")
        parts.setdefault(of, {})[way] = spent
    return dict(sorted(parts.items(), key=lambda item: -sum(item[1].values()))), whole, bare, dict(floors)


def draw(options: argparse.Namespace, parts: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> None:
    """Bars for every kind that takes a hundredth of the step; one for all others together."""
    series = {"before": summary(before)} if before else {}
    series["now"] = summary(parts)
    names = {name: max(part.get(name, 0) for part in series.values()) for part in series.values() for name in part}
    names = sorted(names.keys() - {OTHERS}, key=lambda name: -names[name]) + [OTHERS]
    with picture(options.output / "profile_layers.png", 9, [1.2 + (0.5 if before else 0.36) * len(names)]) as axes:
        draw_bars(axes[0, 0], names, {label: [part.get(name) for name in names] for label, part in series.items()}, "{:.1f}".format)
        axes[0, 0].set_title(f"Where a training step's time goes: {options.network}, batch {options.batch}", loc="left", size=11)
        axes[0, 0].set_xlabel("ms of a step, forward and backward")
        if before:
            axes[0, 0].legend(frameon=False, loc="lower right")


def summary(parts: dict[str, dict[str, float]]) -> dict[str, float]:
    """Milliseconds by kind, those that take less than a hundredth of the whole in one."""
    spent = {name: 1000 * sum(part.values()) for name, part in parts.items()}
    large = {name: value for name, value in spent.items() if value >= 0.01 * sum(spent.values())}
    return large | {OTHERS: sum(spent.values()) - sum(large.values())}


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=20)
    parser.add_threads()
    parser.add_argument("--network", choices=NETWORKS, default="mnist28", help="what is trained (default: %(default)s)")
    parser.add_argument("--batch", type=whole_number, help="images (default: 64, with --quick 4)")
    parser.add_argument("--before", type=Path, help="the JSON of an earlier profile, to be shown beside this one")
    options = parser.parse_args(arguments)
    options.batch = options.batch or (4 if options.quick else 64)
    if options.quick:
        options.seconds = min(options.seconds, 1.0)
    try:
        set_threads(options.threads)
        before = read_json(options.before)["parts"] if options.before else {}
        options.output.mkdir(parents=True, exist_ok=True)
    except KeyError:
        parser.error(f"--before {options.before} is no JSON that profile_layers.py wrote")
    except (OSError, ValueError) as error:
        parser.error(str(error))

    headline(f"A training step of {options.network}, batch {options.batch}, by layer", options)
    parts, whole, bare, floors = profile(NETWORKS[options.network], options.batch, options.seconds)
    titles = ["kind", "forward", "backward", "of the step", "floor", "/ floor", *(["before", "now/before"] if before else [])]
    table = Table(titles, options.markdown, 28)
    for name, part in parts.items():
        both = sum(part.values())
        cells = [name, duration(part.get("forward")), duration(part.get("backward", part.get("step"))), f"{both / whole:.1%}"]
        floor = floors.get(name)
        cells += [duration(floor), f"{both / floor:.1f}" if floor else "-"]
        if before:
            earlier = sum(before.get(name, {}).values())
            cells += [duration(earlier or None), f"{both / earlier:.2f}" if earlier else "-"]
        table.row(*cells)
    print(f"\nA step takes {duration(whole)} with these timers and {duration(bare)} without.")
    write_results(options, "profile_layers", parts=parts, whole=whole, bare=bare, floors=floors)
    draw(options, parts, before)


if __name__ == "__main__":
    main()
