"""How probable are real digits under a trained network? Bits per dimension in two ways, side by side.

    python examples/mnist_ddpm.py --dataset digits            the network
    python examples/likelihood.py

    bound       the variational bound of the sampler with noise, a sum over all timesteps (Ho et al. 2020, eq. 5)
    flow        the probability flow, without noise: the change of density along it, by the hand-written backward (Song et al. 2021)

Each digit is told its label, so this is the likelihood given the label. Both count images of 256 levels: the flow's density becomes a
probability by uniform dequantization, noise as wide as a level. (The bundled digits have 17 levels, which neither of the two is told.)

It prints both means with their standard errors. Into runs/likelihood/ it writes likelihood.png (both figures of each digit, where along the
noise the bits are spent, the most and the least probable digits) and likelihood.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from hcrot.files.json_and_arrays import replacing
from hcrot.pipelines.likelihood import bits_per_dimension_by_flow
from hcrot.tools.arguments import number
from hcrot.training.variational_bound import VariationalBound, bits_per_dimension
from trained import options_of, real_digits, run, trained


def main() -> None:
    parser = options_of(__doc__, "likelihood")
    parser.add_argument("--images", type=number(int, 2), default=100, help="how many digits are measured (default: %(default)s)")
    parser.add_argument("--probes", type=number(int, 1), default=1, help="of Hutchinson's estimate (default: %(default)s)")
    parser.add_argument("--tolerance", type=number(float, 1e-9), default=1e-4, help="of the flow's solver (default: %(default)s)")
    options = parser.parse_args()
    model, scheduler = trained(options)
    images, labels = (array[: options.images] for array in real_digits(model, options))

    bar = tqdm(total=len(scheduler), desc="bound", disable=sys.stderr is None)

    def predict(x: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
        bar.update()
        return model(x, timesteps, labels)

    with bar, model.inference():
        variance = scheduler.config["variance_type"]
        bound = bits_per_dimension(predict, images, scheduler.alphas_cumprod, options.seed, variance_type=variance)
    accuracy = {"num_probes": options.probes, "rtol": options.tolerance, "atol": options.tolerance}
    print("The flow is being solved ...", flush=True)
    flow = bits_per_dimension_by_flow(model, scheduler, images, generator=options.seed, class_labels=labels, **accuracy)

    table = {"images": len(images), "variance_type": variance}
    for name, values in (("bound", bound.total), ("flow", flow), ("bound minus flow", bound.total - flow)):
        mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
        table[name] = {"bits_per_dimension": mean, "standard_error": error}
        print(f"{name:18}{mean:8.3f} +- {error:.3f} bits per dimension")
    path = options.output / "likelihood.png"
    draw(images, bound, flow, path)
    with replacing(path.with_suffix(".json")) as unfinished:
        unfinished.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"Picture: {path}")


def draw(images: np.ndarray, bound: VariationalBound, flow: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(11, 3.6), dpi=90, layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=[1, 1, 1.1])
    each, terms = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[:, 1])
    each.scatter(bound.total, flow, s=12, color="#14507f", linewidths=0)
    ends = [min(flow.min(), bound.total.min()), max(flow.max(), bound.total.max())]
    each.plot(ends, ends, color="#999999", linewidth=1, linestyle="--")
    each.set(xlabel="bits per dimension, bound", ylabel="bits per dimension, flow", title="each digit")
    spent = np.cumsum(bound.terms.mean(axis=0)[::-1])[::-1]  # of all timesteps that sampling visits up to this one
    terms.plot(np.arange(len(spent)), spent, color="#b3541e")
    terms.set(xlabel="timestep t", title="bits spent from T down to t", xscale="symlog")
    terms.set_xlim(0, len(spent))
    for axis in (each, terms):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.6)
    order, shown = np.argsort(flow), 5
    for row, (title, chosen) in enumerate((("most probable", order[:shown]), ("least probable", order[-shown:]))):
        axis = figure.add_subplot(grid[row, 2])
        axis.imshow(np.concatenate(np.pad(images[chosen, 0], ((0, 0), (1, 1), (1, 1))), axis=1), cmap="gray", vmin=-1, vmax=1)
        axis.set(title=title, xticks=[], yticks=[])
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png")


if __name__ == "__main__":
    run(main)
