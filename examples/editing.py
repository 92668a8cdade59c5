"""Pictures changed by a trained network, in four ways:

    scribble      lines of a child's hand become a digit (SDEdit): noise is added up to a level and taken away again
    hole          the middle of digits is cut out and filled anew (RePaint)
    likeness      new digits with the large shapes of given ones (ILVR)
    other digit   a digit is turned into its noise (DDIM, backwards), which is drawn again under another label

    python examples/editing.py
    python examples/editing.py --to 9                          the other digit is a 9

Into runs/editing/ it writes editing.png, a row for each, before and after. It runs on a checkpoint of examples/mnist_ddpm.py.
"""

import numpy as np

from hcrot.pipelines.editing import ilvr, inpaint, invert, regenerate, sdedit
from hcrot.tools.plotting import image_grid
from trained import first_of_each, options_of, real_digits, run, trained

SCRIBBLES = {
    0: ["..##..", ".#..#.", "#....#", "#....#", ".#..#.", "..##.."],
    1: ["..#...", "..#...", "..#...", "..##..", "...#..", "...#.."],
    4: ["#...#.", "#...#.", "#####.", "....#.", "....#.", "....#."],
    7: ["#####.", "....#.", "...#..", "..#...", "..#...", ".#...."],
}
"""Each drawn on 6 x 6 squares."""


def scribbles(size: int) -> np.ndarray:
    """The scribbles (4, 1, size, size) in [-1, 1], each pixel that of the square it falls into, with a margin around."""
    margin = max(1, size // 8)
    places = np.minimum(np.arange(size - 2 * margin) * 6 // (size - 2 * margin), 5)
    drawn = np.full((len(SCRIBBLES), 1, size, size), -1, np.float32)
    for picture, rows in zip(drawn, SCRIBBLES.values(), strict=True):
        squares = np.array([[1.0 if square == "#" else -1.0 for square in row] for row in rows], np.float32)
        picture[0, margin : size - margin, margin : size - margin] = squares[np.ix_(places, places)]
    return drawn


def main() -> None:
    parser = options_of(__doc__, "editing", steps=100)
    parser.add_argument("--level", type=float, default=0.5, help="scribble: share of T up to which noise is added (default: %(default)s)")
    parser.add_argument("--to", type=int, choices=range(10), default=8, metavar="N", help="what the other digit is (default: %(default)s)")
    options = parser.parse_args()
    model, scheduler = trained(options)
    images, labels = real_digits(model, options)
    size, steps, rng = model.config["sample_size"], options.inference_steps, np.random.default_rng(options.seed)
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    rough, classes = scribbles(size), np.array(list(SCRIBBLES))
    level = round(options.level * len(scheduler))
    drawn = sdedit(model, scheduler, rough, start_timestep=level, class_labels=classes, generator=rng, num_inference_steps=steps)
    rows["scribble"] = rough, drawn

    whole, classes = images[first_of_each(labels, [2, 3, 5, 9])], np.array([2, 3, 5, 9])
    mask = np.ones((size, size), bool)
    mask[size // 3 : -(size // 3), :] = False
    filled = inpaint(model, scheduler, whole, mask, class_labels=classes, generator=rng, repeats=3, num_inference_steps=steps)
    rows["hole"] = np.where(mask, whole, 0), filled

    factor = 2 if size % 2 == 0 else 1
    alike = ilvr(model, scheduler, whole, factor=factor, class_labels=classes, generator=rng, num_inference_steps=steps)
    rows["likeness"] = whole, alike

    noise = invert(model, scheduler, whole, num_inference_steps=steps, class_labels=classes)
    again = regenerate(model, scheduler, noise, num_inference_steps=steps, class_labels=classes)
    other = regenerate(model, scheduler, noise, num_inference_steps=steps, class_labels=np.full(4, options.to))
    rows["other digit"] = whole, np.clip(other, -1, 1)

    path = options.output / "editing.png"
    pictures = np.concatenate([np.concatenate([before, after]) for before, after in rows.values()])
    image_grid(pictures, path, columns=8, row_labels=list(rows))
    error = np.abs(again - whole).mean()
    print(f"{path}: on the left before, on the right after. A digit turned into noise and back is off by {error:.3f} a pixel, of 2.")


if __name__ == "__main__":
    run(main)
