"""Data parallel training: two ranks of one thread beside one process of two threads, the sum of gradients by itself, and a cost model of
it that is simulated up to 1,024 machines.

    python benchmarks/machines.py                                          two minutes; needs pip install "hcrot[mpi]"
    python benchmarks/machines.py --latency 2e-6 --bandwidth 12e9          machines with InfiniBand

Steps of both are taken in turn: of the seed network on 64 images, which the ranks share; the ranks take them also with nothing sent before
backward has ended. The model is explained in docs/scaling.md. It is one of many machines with one rank each, whose network has the latency
(seconds) and the bandwidth (bytes a second) that are given.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import Parser, Table, duration, headline, picture, positive, write_results
from networks import SEED

import hcrot
from hcrot.training.distributed import Ranks, job
from hcrot.training.gradient_parts import Bucket, GradientParts

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
SIZES = (1_000, 10_000, 100_000, 1_000_000, 4_000_000)  # numbers
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
OVERHEAD = 2e-6  # assumed: seconds in which a rank gets one message on its way
BATCH, STEPS = 64, 5
STEP, LATE_STEP, END = 0, -2, -1  # orders to a job; a number above 0 is that of the gradients to sum


def work(threads: int, batch: int) -> None:
    """A rank of a job that is told on stdin to take STEPS steps, or by a number to sum so many gradients; it answers in lines of JSON.
    In a LATE_STEP nothing is sent before the whole backward is done."""
    with job() as ranks:
        hcrot.set_num_threads(threads)
        rng = np.random.default_rng(0)
        model = hcrot.UNet2dModel(**SEED, generator=rng)
        optimizer, parts = hcrot.AdamW(model.parameters()), GradientParts(model, ranks.size, ranks)
        images, rows = rng.standard_normal((batch, 1, 14, 14), dtype=np.float32), np.array_split(np.arange(batch), ranks.size)
        while True:
            order = int(ranks.of_first(float(sys.stdin.readline() or END) if ranks.first else 0))
            if order == END:
                return
            ranks.wait()  # the ranks begin together: who has waited long looks seldom
            with patch.object(parts, "_send", lambda part: None) if order == LATE_STEP else nullcontext():
                found = sums(order, ranks) if order > 0 else [step(model, optimizer, parts, images, rows, rng) for _ in range(STEPS)]
            sent = sum(2 * bucket.total.nbytes * (ranks.size - 1) // ranks.size for bucket in parts.buckets)
            print(json.dumps({"seconds": found, "bytes": sent, "buckets": len(parts.buckets)}), flush=True)


def step(model: Any, optimizer: Any, parts: GradientParts, images: np.ndarray, rows: list, rng: np.random.Generator) -> list[float]:
    """How long a step takes, how much of it rank 0 waits for the sum, and how long backward takes."""
    start, losses, backward = time.perf_counter(), [], 0.0
    for mine in parts.of(rows, rng):
        loss, dout = hcrot.mse_loss(model(images[mine], rng.integers(1000, size=len(mine)), mine % 10), images[mine])
        begun = time.perf_counter()
        model.backward(dout / np.float32(parts.count))
        backward += time.perf_counter() - begun
        losses.append(loss / parts.count)
    done = time.perf_counter()
    parts.sum(losses)
    summed = time.perf_counter()
    optimizer.step(max_grad_norm=1.0, zero_grad=True)
    return [time.perf_counter() - start, summed - done, backward]


def sums(size: int, ranks: Ranks) -> list[float]:
    """How long it takes to sum so many gradients of every rank, eleven times."""
    parameter = hcrot.Parameter(np.zeros(size, np.float32))
    bucket, found = Bucket(hcrot.Identity(), [parameter], ranks.size, ranks), []
    for _ in range(11):
        start = time.perf_counter()
        for action in (bucket.begin, bucket.send, bucket.add, bucket.deliver):
            action()
        found.append(time.perf_counter() - start)
    return found


class Job:
    """A job of :func:`work`; called with an order, it returns the answer."""

    def __init__(self, ranks: int, threads: int, batch: int):
        command = [*([str(MPIEXEC), "-n", str(ranks)] if ranks > 1 else []), sys.executable, __file__, "--work", str(threads), str(batch)]
        here = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here)

    def __call__(self, order: int) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate(f"{END}\n", timeout=60)


def fitted(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Latency and bandwidth of ``seconds = latency + bytes/bandwidth``, by least squares of relative errors."""
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    latency, per_byte = np.linalg.lstsq(design, np.ones(len(sizes)), rcond=None)[0]
    return max(float(latency), 0.0), float(1 / max(per_byte, 1e-15))


def communication(ranks: int, size: float, buckets: int, latency: float, bandwidth: float) -> dict[str, float]:
    """Seconds for the sum of ``size`` bytes: by a ring, by a tree, and in the order of the parts as hcrot does."""
    share, depth = 2 * (ranks - 1) / ranks * size / bandwidth, int(np.ceil(np.log2(ranks)))
    return {
        "ring": buckets * 2 * (ranks - 1) * latency + share,
        "tree": 2 * depth * (buckets * latency + size / bandwidth),
        "in order": buckets * 2 * ((ranks - 1) * OVERHEAD + latency * (ranks > 1)) + share,
    }


def simulate(compute: np.ndarray, backward: float, size: float, buckets: int, latency: float, bandwidth: float) -> list[dict[str, float]]:
    """Efficiency by number of ranks, each with work of its own that takes as long as one of the measured steps: each step waits for the
    slowest rank, and then for what of the sum backward, that share of the work, has not hidden, at least that of the last bucket."""
    rng, rows = np.random.default_rng(0), []
    for ranks in RANKS:
        slowest = float(rng.choice(compute, (300, ranks)).max(axis=1).mean())
        row: dict[str, float] = {"ranks": ranks, "stragglers": float(compute.mean()) / slowest}
        for kind, seconds in communication(ranks, size, buckets, latency, bandwidth).items():
            row[kind] = float(compute.mean()) / (slowest + max(seconds - backward * float(compute.mean()), seconds / buckets))
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(__doc__, seconds=60)
    parser.add_argument("--latency", type=positive, default=3e-5, help="of the network, in seconds (default: %(default)s)")
    parser.add_argument("--bandwidth", type=positive, default=1.1e9, help="of the network, bytes a second (default: %(default)s, 10 Gbit)")
    options = parser.parse_args(arguments)
    if MPIEXEC is None:
        parser.error('there is no mpiexec: pip install "hcrot[mpi]"')
    parser.prepare(options)
    headline("Data parallel training", options)
    batch = 4 if options.quick else BATCH
    process, ranks = Job(1, min(2, hcrot.get_num_threads()), batch), Job(2, 1, batch)
    ways = {"1 process of 2 threads": (process, STEP), "2 ranks of 1 thread": (ranks, STEP), "2 ranks, sent late": (ranks, LATE_STEP)}
    steps: dict[str, list[list[float]]] = {name: [] for name in ways}
    for take in (process, ranks):
        take(STEP)  # loads kernels
    end = time.perf_counter() + (1 if options.quick else options.seconds)
    while time.perf_counter() < end:
        for name, (take, order) in ways.items():
            answer = take(order)
            steps[name] += answer["seconds"]
    alone = [float(np.median(ranks(size)["seconds"])) for size in SIZES]
    for take in (process, ranks):
        take.end()

    medians = {name: float(np.median([total for total, _, _ in found])) for name, found in steps.items()}
    one, two, late = medians.values()
    totals, waits, backwards = np.array(steps["2 ranks of 1 thread"]).T
    waiting, waiting_late = float(np.median(waits)), float(np.median(np.array(steps["2 ranks, sent late"])[:, 1]))
    compute = totals - waits
    backward = float(np.median(backwards / compute))
    compute = compute[compute <= np.quantile(compute, 0.99)]  # what other programs have cost does not belong to the machines
    here = fitted(4.0 * np.array(SIZES), np.array(alone))
    rows = simulate(compute, backward, answer["bytes"], answer["buckets"], options.latency, options.bandwidth)

    for name, seconds in medians.items():
        print(f"{name}: {duration(seconds)} for a step of {batch} images")
    print(f"Speed of the ranks: {one / two:.2f} of the process. They wait {duration(waiting)} for the sum of {answer['bytes']:,} bytes.")
    print(f"If they send nothing before backward has ended, steps take {late / two:.3f} times as long; they wait {duration(waiting_late)}.")
    print(f"Backward is {backward:.2f} of a step.")
    print(f"Sums here: {duration(here[0])} and a second for {here[1] / 1e9:.2f} GB\n")
    table = Table(["machines", "stragglers", "ring", "tree", "in order"], options.markdown, 10)
    for row in rows:
        table.row(str(row["ranks"]), *(f"{row[name]:.0%}" for name in ("stragglers", "ring", "tree", "in order")))
    figures = {"steps": medians, "ratio": one / two, "waiting": waiting, "late": late / two, "waiting_late": waiting_late}
    figures |= {"backward": backward, "bytes": answer["bytes"], "sums": alone, "fit": here, "rows": rows}
    write_results(options, "machines", **figures)
    with picture(options.output / "machines.png", 6, [3.4]) as [[axis]]:
        for name in ("stragglers", "ring", "tree", "in order"):
            axis.plot(RANKS, [row[name] for row in rows], marker="o", markersize=3, label=name)
        axis.set_xscale("log", base=2)
        axis.set_ylim(0, 1.05)
        axis.set_xlabel("machines")
        axis.set_ylabel("efficiency")
        axis.legend(frameon=False)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
