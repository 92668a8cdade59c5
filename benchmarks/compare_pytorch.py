"""Train the same network with the same weights in hcrot and in PyTorch, in turn, and print how their times compare.

    python benchmarks/compare_pytorch.py                       every line of the table (some minutes)
    python benchmarks/compare_pytorch.py --only seed-train-64  one line

Both use the same number of threads. Steps alternate, one of hcrot's, one of PyTorch's, so that whatever else the machine does falls on
both; the figure to quote is the ratio of the medians. A training step is forward, backward, clipping to norm 1 and AdamW. Memory is the
peak of a process that does nothing but two training steps, less what the process held just before.

Needs PyTorch and diffusers: ``pip install -e ".[parity]"``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

SEED = dict(sample_size=14, in_channels=1, out_channels=1, block_out_channels=(32, 64, 32), norm_num_groups=32, num_class_embeds=10,
            down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3)  # fmt: skip
MNIST28 = dict(sample_size=28, in_channels=1, out_channels=1, block_out_channels=(32, 64, 64), norm_num_groups=8, num_class_embeds=10,
               down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
               up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))  # fmt: skip

CASES = {
    "seed-train-64": (SEED, "train", 64),
    "seed-train-512": (SEED, "train", 512),
    "mnist28-train-64": (MNIST28, "train", 64),
    "seed-forward-1": (SEED, "forward", 1),
    "seed-forward-10": (SEED, "forward", 10),
    "seed-memory-512": (SEED, "memory", 512),
}


def make_batch(config: dict, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Noisy images (batch, C, S, S), noise of the same shape, timesteps and class labels (batch,)."""
    rng = np.random.default_rng(0)
    shape = (batch, config["in_channels"], config["sample_size"], config["sample_size"])
    images, noise = rng.standard_normal((2, *shape), dtype=np.float32)
    return images, noise, rng.integers(0, 1000, batch), rng.integers(0, 10, batch)


def hcrot_worker(config: dict, task: str, batch: int, threads: int, weights: dict | None = None):
    """A function that does one step in hcrot."""
    import hcrot

    hcrot.set_num_threads(threads)
    model = hcrot.UNet2dModel(**config, generator=np.random.default_rng(0))
    if weights:
        model.load_state_dict(weights)
    images, noise, timesteps, labels = make_batch(config, batch)
    optimizer = hcrot.AdamW(model.parameters(), lr=1e-4)

    def train():
        optimizer.zero_grad()
        loss, dout = hcrot.mse_loss(model(images, timesteps, labels), noise)
        model.backward(dout)
        hcrot.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        return loss

    def forward():
        with model.inference():
            return model(images, 500, labels)

    return forward if task == "forward" else train


def torch_model(config: dict):
    """diffusers' network; on sizes that diffusers cannot halve and double back (14x14 on three levels) its way up is told the size."""
    import diffusers
    import torch

    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**config)
    levels = len(config["block_out_channels"])
    if config["sample_size"] % 2 ** (levels - 1):
        size = config["sample_size"]
        for level, block in enumerate(model.up_blocks[:-1]):
            target = -(-size // 2 ** (levels - 2 - level))
            upsample = block.upsamplers[0]
            upsample.forward = lambda x, output_size=None, up=upsample, to=target: up.conv(
                torch.nn.functional.interpolate(x, size=(to, to), mode="nearest")
            )
    return model


def torch_worker(config: dict, task: str, batch: int, threads: int, model=None):
    """A function that does one step in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    model = model or torch_model(config)
    images, noise, timesteps, labels = map(torch.from_numpy, make_batch(config, batch))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(images, timesteps, labels).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def forward():
        with torch.no_grad():
            return model(images, 500, labels).sample.numpy()

    return forward if task == "forward" else train


def compare(config: dict, task: str, batch: int, threads: int, seconds: float) -> tuple[float, float]:
    """Medians of hcrot's and PyTorch's times for one step, in seconds; the steps alternate for about ``seconds``."""
    model = torch_model(config)
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    workers = [hcrot_worker(config, task, batch, threads, weights), torch_worker(config, task, batch, threads, model)]
    first = [np.asarray(work()) for work in workers]
    assert np.allclose(first[0], first[1], rtol=1e-4, atol=1e-4), "the two do not compute the same thing"
    times = [[], []]
    for work in workers:
        work()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times[0]) < 5:
        for spent, work in zip(times, workers, strict=True):
            time.sleep(0.01)  # lets the other's idle threads stop spinning
            begin = time.perf_counter()
            work()
            spent.append(time.perf_counter() - begin)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_memory(library: str, config: dict, batch: int, threads: int) -> float:
    """MB by which two training steps raise the peak of the process that runs this."""
    worker = {"hcrot": hcrot_worker, "torch": torch_worker}[library]
    worker(config, "train", 2, threads)()  # whatever is loaded or compiled on first use does not count
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # sets the peak back to what is held now, as compiling may have held more
    before = peak_resident()
    work = worker(config, "train", batch, threads)
    work()
    work()
    return peak_resident() - before


def peak_resident() -> float:
    """The most memory that this process has held, in MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES), help="which lines of the table")
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (default 2)")
    parser.add_argument("--seconds", type=float, default=20, help="how long to time each line (default 20)")
    parser.add_argument("--json", help="also write the figures into this file")
    parser.add_argument("--peak-memory-of", choices=("hcrot", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_memory_of:
        config, _, batch = CASES[options.only[0]]
        print(peak_memory(options.peak_memory_of, config, batch, options.threads))
        return
    figures = {}
    print(f"{'case':20} {'hcrot':>12} {'PyTorch':>12} {'ratio':>7}", flush=True)
    for name in options.only:
        config, task, batch = CASES[name]
        if task == "memory":
            command = [sys.executable, __file__, "--only", name, "--threads", str(options.threads), "--peak-memory-of"]
            ours, theirs = (float(subprocess.check_output([*command, library])) for library in ("hcrot", "torch"))
            unit = "MB"
        else:
            ours, theirs = (1000 * t for t in compare(config, task, batch, options.threads, options.seconds))
            unit = "ms"
        figures[name] = {"hcrot": ours, "torch": theirs, "unit": unit, "ratio": ours / theirs}
        print(f"{name:20} {ours:9.1f} {unit} {theirs:9.1f} {unit} {ours / theirs:7.2f}", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
