"""Programs started by mpiexec; and one that trains a small network, to be run with any number of ranks."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import hcrot
from hcrot.training.distributed import Ranks, job
from hcrot.training.gradient_parts import GradientParts

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
PARTS = 4
FEWER = (2, 1)  # parts than three ranks


def start(ranks, *words, **options):
    """A program in Python, started by mpiexec if there is more than one rank."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [*([MPIEXEC, "-n", str(ranks)] if ranks > 1 else []), sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(process):
    """Exit status and what was printed."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def numbers_of(mpiexec):
    """The process numbers of the ranks, which are grandchildren of mpiexec's, by rank."""
    found = {}
    for proxy in children(mpiexec.pid):
        for child in children(proxy):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(variable[9:]): child for variable in variables if variable.startswith(b"PMI_RANK=")}
    return [found[rank] for rank in range(len(found))]


def children(number):
    return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


def train(ranks: Ranks, count: int = PARTS) -> dict:
    """Losses, norms and a hash of the weights after four steps of so many parts; the last has only three images."""
    hcrot.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = hcrot.UNet2dModel(
        in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=2, dropout=0.1, num_class_embeds=3,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), generator=rng,
    )  # fmt: skip
    optimizer, ema = hcrot.AdamW(model.parameters(), lr=1e-2), hcrot.EMA(model.parameters())
    parts = GradientParts(model, count, ranks)
    images, found = rng.standard_normal((10, 1, 8, 8), dtype=np.float32), []
    for size in (10, 9, 8, 3):
        losses = []
        for rows in parts.of(np.array_split(rng.permutation(10)[:size], count), rng):
            noise = rng.standard_normal((len(rows), 1, 8, 8), dtype=np.float32)
            loss, dout = hcrot.mse_loss(model(images[rows] + noise, rng.integers(1000, size=len(rows)), rows % 3), noise)
            model.backward(dout / np.float32(count))
            losses.append(loss / count)
        found.append([parts.sum(losses), optimizer.step(max_grad_norm=1.0, ema=ema, zero_grad=True)])
    weights = [*(parameter.data for parameter in model.parameters()), *ema.averages]
    ranks.check_equal("the weights", weights)
    return {"steps": found, "weights": hashlib.sha256(b"".join(array.tobytes() for array in weights)).hexdigest()}


class Stop:
    exit_code = 0


def main() -> None:
    """Print what has come out, as JSON, on rank 0."""
    with job() as ranks:
        stop, result = Stop(), train(ranks)
        if ranks.size == 3:
            result["fewer_parts"] = [train(ranks, count) for count in FEWER]
        if ranks.rank == 1:
            stop.exit_code = 143
        result |= {"before": ranks.of_first(7 + ranks.rank), "agreed": ranks.agree(stop) and stop.exit_code, "size": ranks.size}
        try:
            ranks.check_equal("these numbers", [np.array([ranks.rank // 2])])
        except RuntimeError as error:
            result["drifted"] = str(error)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
