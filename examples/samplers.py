"""How good are a few steps? All samplers on one trained network, each with as many network calls as the others.

    python examples/mnist_ddpm.py --dataset digits --label-dropout 0.1          the network
    python examples/mnist_cnn.py --dataset digits                              the classifier that judges
    python examples/samplers.py
    python examples/samplers.py --guidance-scale 2             guided: each step calls the network for twice as many images

A classifier reads what each sampler has drawn: how often it is the digit asked for (label agreement), and how far the pictures are from as
many real ones (Fréchet distance, to be compared between equal numbers only). Calls are counted at the network itself, per image: most
samplers call it once a step, Heun twice, and guidance doubles that. All begin with the same noise.

Into runs/samplers/ it writes samplers.png, both figures against the number of calls, and samplers.json, the table that it prints. Left out
are the samplers whose networks are trained otherwise: FlowMatchEuler (velocities between data and noise), EDMEuler, EDMDPMSolverMultistep
and ScoreSdeVe (noise that is added to unscaled images), and ScoreSdeVp (noise of another schedule).
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import hcrot
from hcrot import pipelines
from hcrot.files.json_and_arrays import replacing
from hcrot.schedulers import NoiseScheduler
from hcrot.tools.arguments import number
from hcrot.tools.metrics import accuracy, frechet_distance
from trained import add_classifier, judge, null_label, options_of, real_digits, run, trained

SAMPLERS: dict[str, tuple[type[NoiseScheduler], dict[str, Any], str]] = {  # name: (class, its own options, colour)
    "DDPM": (hcrot.DDPMScheduler, {}, "#111111"),
    "DDIM": (hcrot.DDIMScheduler, {}, "#7f7f7f"),
    "PNDM": (hcrot.PNDMScheduler, {"skip_prk_steps": True}, "#b3541e"),
    "DPM-Solver++": (hcrot.DPMSolverMultistepScheduler, {}, "#14507f"),
    "UniPC": (hcrot.UniPCMultistepScheduler, {}, "#17a2b8"),
    "Euler": (hcrot.EulerDiscreteScheduler, {}, "#2e8b57"),
    "Euler ancestral": (hcrot.EulerAncestralDiscreteScheduler, {}, "#9acd32"),
    "Heun": (hcrot.HeunDiscreteScheduler, {}, "#8e44ad"),
}


class Counted(hcrot.Module):
    """The network, and how many images it has been called with."""

    def __init__(self, model: hcrot.UNet2dModel):
        self.model, self.config, self.images = model, model.config, 0

    def forward(self, x: np.ndarray, timestep: Any, labels: np.ndarray) -> np.ndarray:
        self.images += len(x)
        return self.model(x, timestep, labels)


def set_steps(scheduler: NoiseScheduler, calls: int) -> int:
    """As many steps as need at most so many predictions, one for each of the scheduler's timesteps; or one step."""
    for steps in range(calls, 0, -1):
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) <= calls:
            break
    return steps


def main() -> None:
    parser = options_of(__doc__, "samplers")
    add_classifier(parser)
    few = [5, 10, 20, 50]
    parser.add_argument("--calls", type=number(int, 2), nargs="+", default=few, help="predictions for a picture (default: 5 10 20 50)")
    parser.add_argument("--images", type=number(int, 20), default=500, help="pictures for each point (default: %(default)s)")
    parser.add_argument("--guidance-scale", type=number(float, 0), default=1.0, help="needs --label-dropout; 1: none (default: 1)")
    parser.add_argument("--samplers", choices=SAMPLERS, nargs="+", default=list(SAMPLERS), metavar="NAME", help="some of: %(choices)s")
    options = parser.parse_args()
    model, trained_with = trained(options)
    classifier = judge(options)
    real, real_labels = real_digits(model, options)
    if len(real) < 2 * options.images:
        raise ValueError(f"--images {options.images}: twice as many real digits are needed, there are {len(real)}")
    spread = np.linspace(0, len(real) - 1, 2 * options.images).round().astype(int)  # over all writers
    logits, features = classifier.read(real[spread])
    some, others = features[::2], features[1::2]
    least, best = frechet_distance(others, some), accuracy(logits, real_labels[spread])
    labels = np.arange(options.images) % 10
    guided = {} if options.guidance_scale == 1 else {"guidance_scale": options.guidance_scale, "null_label": null_label(model, options)}

    counted, rows = Counted(model), []
    print(f"{'':18}{'steps':>6}{'calls':>7}{'agreement':>11}{'distance':>10}{'seconds':>9}")
    bar = tqdm([(name, calls) for name in options.samplers for calls in options.calls], desc="points", disable=sys.stderr is None)
    for name, calls in bar:
        kind, own, _ = SAMPLERS[name]
        scheduler = kind.from_config(trained_with.config, **own)
        steps, counted.images, start = set_steps(scheduler, calls), 0, time.perf_counter()
        images = pipelines.sample(counted, scheduler, generator=options.seed, class_labels=labels, progress=False, **guided)
        seconds, (logits, features) = time.perf_counter() - start, classifier.read(images)
        row = {"sampler": name, "steps": steps, "calls": counted.images / len(images)}
        row |= {"label_agreement": accuracy(logits, labels), "frechet_distance": frechet_distance(features, some), "seconds": seconds}
        rows.append(row)
        with bar.external_write_mode():
            figures = f"{row['label_agreement']:11.1%}{row['frechet_distance']:10.2f}{seconds:9.1f}"
            print(f"{name:18}{steps:6}{row['calls']:7g}{figures}", flush=True)
    print(f"{'real digits':31}{best:11.1%}{least:10.2f}")

    path = options.output / "samplers.png"
    draw(rows, best, least, path, f"{options.images} digits each, guidance {options.guidance_scale:g}")
    table = {"images": options.images, "guidance_scale": options.guidance_scale, "rows": rows}
    table |= {"label_agreement_of_real_digits": best, "frechet_distance_of_real_digits": least}
    with replacing(path.with_suffix(".json")) as unfinished:
        unfinished.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"Picture: {path}, table: {path.with_suffix('.json')}")


def draw(rows: list[dict[str, Any]], best: float, least: float, path: Path, title: str) -> None:
    """Both figures against the number of network calls, a line for each sampler; dashed, what real digits have."""
    figure = Figure(figsize=(10, 4.6), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, key, scale, of_real, name in (
        (left, "label_agreement", 100, best, "label agreement, %"), (right, "frechet_distance", 1, least, "Fréchet distance"),
    ):  # fmt: skip
        for sampler in dict.fromkeys(row["sampler"] for row in rows):
            points = [(row["calls"], scale * row[key]) for row in rows if row["sampler"] == sampler]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.5, color=SAMPLERS[sampler][2], label=sampler)
        axis.axhline(scale * of_real, color="#555555", linestyle="--", linewidth=1, label="real digits")
        axis.set(xscale="log", xlabel="network calls per picture", ylabel=name)
        ticks = sorted({row["calls"] for row in rows})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_xticks([], minor=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.6)
    right.set_yscale("log")
    left.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(title, fontsize=10)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png")


if __name__ == "__main__":
    run(main)
