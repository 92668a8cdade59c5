"""What lies between two digits: both are noised to a level, mixed there, and the network draws what the mixture could be.

    python examples/interpolation.py                           a 3 becomes an 8, at four levels
    python examples/interpolation.py --digits 1 7

Into runs/interpolation/ it writes interpolation.png: a row for each level t, a column for each weight. At a low level the two show through
each other. The higher it is, the more the pictures between are digits of their own (figure 8 of Ho et al. 2020). It runs on a checkpoint of
examples/mnist_ddpm.py.
"""

import numpy as np

import hcrot
from hcrot.pipelines.interpolation import interpolate
from hcrot.tools.plotting import image_grid
from trained import first_of_each, options_of, real_digits, run, trained

LEVELS = (0.1, 0.3, 0.5, 0.7)
"""As shares of T."""


def main() -> None:
    parser = options_of(__doc__, "interpolation", steps=100)
    digits = {"type": int, "nargs": 2, "choices": range(10), "default": [3, 8], "metavar": "N"}
    parser.add_argument("--digits", **digits, help="from which to which (default: 3 8)")
    parser.add_argument("--columns", type=int, default=9, help="pictures in a row (default: %(default)s)")
    options = parser.parse_args()
    model, scheduler = trained(options)
    images, labels = real_digits(model, options)
    first, second = images[first_of_each(labels, options.digits)]
    ddim = hcrot.DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(options.inference_steps)
    weights = np.linspace(0, 1, options.columns)
    classes = np.where(weights < 0.5, *options.digits)  # what the network is told
    rows = []
    for level in LEVELS:
        t = round(level * len(scheduler))
        row = interpolate(model, ddim, first, second, timestep=t, weights=weights, generator=options.seed, class_labels=classes)
        rows.append(np.concatenate([[first], row, [second]]))
    path, names = options.output / "interpolation.png", [f"t = {round(level * len(scheduler))}" for level in LEVELS]
    image_grid(np.concatenate(rows), path, columns=options.columns + 2, row_labels=names)
    print(f"{path}: in each row the two digits at its ends, and between them what the network made of their mixtures.")


if __name__ == "__main__":
    run(main)
