"""How fast this machine trains and draws with hcrot, beside PyTorch if it and diffusers are installed.

    hcrot bench
    hcrot bench --seconds 5 --threads 1

Three networks: the digits of 14x14 that examples/mnist_ddpm.py learns, the same at 28x28, and pictures of 32x32 in colour. The two
libraries take turns, so that what else the machine does hits both. A ratio below 1 says that hcrot is faster.
"""

import argparse
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from hcrot.tools.arguments import number, print_json

__all__ = ["add_arguments", "run"]

NETWORKS = {"14x14": (14, 1, [32, 64, 32]), "28x28": (28, 1, [32, 64, 32]), "32x32 colour": (32, 3, [32, 64, 64])}
BATCH = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=number(float, 0.01), default=2.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--threads", type=number(int, 1), help="of both libraries (default: every core)")
    parser.add_argument("--json", action="store_true", help="as one line of JSON")


def run(options: Namespace) -> int:
    import numpy as np

    import hcrot
    from hcrot.kernels.plain import why_slow

    if options.threads:
        hcrot.set_num_threads(options.threads)
    threads, rows = hcrot.get_num_threads(), []
    for name, (size, channels, widths) in NETWORKS.items():
        x = np.random.default_rng(0).standard_normal((BATCH, channels, size, size), dtype=np.float32)
        mine, theirs = tasks_of_hcrot(x, widths), tasks_of_torch(x, widths, threads)
        for task, own in mine.items():
            seconds = alternate([own, *([theirs[task]] if theirs else [])], options.seconds)
            rows.append({"network": name, "task": task, "hcrot_ms": 1e3 * seconds[0]})
            if theirs:
                rows[-1] |= {"pytorch_ms": 1e3 * seconds[1], "ratio": seconds[0] / seconds[1]}
    if options.json:
        print_json({"threads": threads, "rows": rows} | ({"speed": why_slow()} if why_slow() else {}))
        return 0
    print(f"{threads} threads; medians in milliseconds; a training step is forward, backward and AdamW with {BATCH} pictures")
    print(f"{'network':<14} {'task':<18} {'hcrot':>9} {'PyTorch':>9} {'ratio':>7}")
    for row in rows:
        theirs_text = f"{row['pytorch_ms']:>9.2f} {row['ratio']:>7.2f}" if "ratio" in row else f"{'-':>9} {'-':>7}"
        print(f"{row['network']:<14} {row['task']:<18} {row['hcrot_ms']:>9.2f} {theirs_text}")
    if why_slow():
        print(f"hcrot is {why_slow()}")
    return 0


def alternate(tasks: list[Callable[[], Any]], seconds: float) -> list[float]:
    """The median duration of each task; they take turns until so many seconds have passed for each."""
    import numpy as np

    durations: list[list[float]] = [[] for _ in tasks]
    for task in tasks:
        task()
        task()
    end = time.perf_counter() + seconds * len(tasks)
    while time.perf_counter() < end or not durations[0]:
        for task, times in zip(tasks, durations, strict=True):
            start = time.perf_counter()
            task()
            times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in durations]


def architecture(channels: int, widths: list[int]) -> dict[str, Any]:
    return {
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "down_block_types": ["DownBlock2D"] * len(widths),
        "up_block_types": ["UpBlock2D"] * len(widths),
        "norm_num_groups": 8,
    }


def tasks_of_hcrot(x: Any, widths: list[int]) -> dict[str, Callable[[], Any]]:
    import hcrot

    model = hcrot.UNet2dModel(**architecture(x.shape[1], widths), generator=0)
    optimizer = hcrot.AdamW(model.parameters(), lr=1e-4)

    def train() -> None:
        _, dout = hcrot.mse_loss(model(x, 500), x)
        model.backward(dout)
        optimizer.step(zero_grad=True)

    def draw(count: int) -> None:
        with model.inference():
            model(x[:count], 500)

    return {"training step": train, "drawing, 1 image": lambda: draw(1), f"drawing, {BATCH} images": lambda: draw(BATCH)}


def tasks_of_torch(x: Any, widths: list[int], threads: int) -> dict[str, Callable[[], Any]] | None:
    """The same with PyTorch and diffusers' network; None if they are not installed."""
    try:
        import torch
        from diffusers.models.unets.unet_2d import UNet2DModel
    except ImportError:
        return None
    torch.set_num_threads(threads)
    model = UNet2DModel(**architecture(x.shape[1], widths))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.from_numpy(x)

    def train() -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(images, 500).sample, images).backward()
        optimizer.step()

    def draw(count: int) -> None:
        with torch.inference_mode():
            model(images[:count], 500)

    return {"training step": train, "drawing, 1 image": lambda: draw(1), f"drawing, {BATCH} images": lambda: draw(BATCH)}
