"""Images from measurements: blurred, too small, or by a scanner that was stopped early (MRI), restored with a trained network.

    python examples/inverse_problems.py
    python examples/inverse_problems.py --images 200           the table for 200 digits; the picture shows eight

Each measurement is y = A x + noise. Beside the measurement and the pseudo-inverse A+ y, which knows nothing of digits, stand two ways that
do: by projection (DDNM) and by posterior sampling (DPS), whose gradient goes through the network by its hand-written backward.

Into runs/inverse_problems/ it writes a picture for each problem. It prints the PSNR in dB, higher is nearer to the truth. It runs on a
checkpoint of examples/mnist_ddpm.py.
"""

import numpy as np

import hcrot
from hcrot.pipelines.inverse_problems import MRI, Blur, LinearOperator, SuperResolution, ddnm, dps
from hcrot.tools.arguments import number
from hcrot.tools.metrics import psnr
from hcrot.tools.plotting import image_grid
from trained import options_of, real_digits, run, trained


def decibels(truth: np.ndarray, found: np.ndarray) -> float:
    """The mean PSNR of images in [-1, 1]."""
    return float(np.mean(psnr(np.clip(found, -1, 1), truth, data_range=2)))


def main() -> None:
    parser = options_of(__doc__, "inverse_problems", steps=100)
    parser.add_argument("--images", type=number(int, 8), default=24, help="how many digits are restored (default: %(default)s)")
    advice = "DPS: length of its steps down the slope (default: width of the image / 14, for the slope of a norm has about length 1)"
    parser.add_argument("--zeta", type=number(float, 0), help=advice)
    parser.add_argument("--noise", type=number(float, 0), default=0.05, help="its standard deviation (default: %(default)s)")
    options = parser.parse_args()
    model, scheduler = trained(options)
    images, labels = real_digits(model, options)
    truth, classes = images[: options.images], labels[: options.images]
    size, rng = model.config["sample_size"], np.random.default_rng(options.seed)
    zeta = size / 14 if options.zeta is None else options.zeta
    problems: dict[str, LinearOperator] = {
        "deblurring": Blur.gaussian(size / 10, least=0.15),
        "super-resolution": SuperResolution(2),
        "MRI": MRI.random(size, 0.4, rng, middle=0.2),
    }
    ddim = hcrot.DDIMScheduler.from_config(scheduler.config)
    print(f"{'PSNR in dB':18}{'measured':>10}{'A+ y':>10}{'DDNM':>10}{'DPS':>10}")
    for name, operator in problems.items():
        y = operator.forward(truth)
        y = (y + options.noise * rng.standard_normal(y.shape)).astype(np.float32)
        shown = operator.pseudo_inverse(y) if y.shape != truth.shape else y
        common = {"class_labels": classes, "num_inference_steps": options.inference_steps}
        projected = ddnm(model, ddim, operator, y, generator=options.seed, eta=0.85, **common)
        sampled = dps(model, scheduler, operator, y, zeta=zeta, generator=options.seed, **common)
        results = [shown, operator.pseudo_inverse(y), projected, sampled]
        print(f"{name:18}" + "".join(f"{decibels(truth, result):10.1f}" for result in results), flush=True)
        rows = np.concatenate([np.clip(result[:8], -1, 1) for result in [*results, truth]])
        path = options.output / f"{name.lower()}.png"
        image_grid(rows, path, columns=8, row_labels=["measured", "A+ y", "DDNM", "DPS", "truth"])
    print(f"The pictures are in {options.output}/.")


if __name__ == "__main__":
    run(main)
