"""More of a digit than the network gives: classifier-free guidance, and guidance by a classifier's gradient.

    python examples/mnist_ddpm.py --dataset digits --label-dropout 0.1          the network; it must have seen images without label
    python examples/mnist_cnn.py --dataset digits                              the classifier, which also judges
    python examples/guidance.py

With scale w the prediction is m(no label) + w (m(label) - m(no label)). The network is drawn from with several scales, and the classifier
reads what came out: how often it is the digit asked for, and how far the pictures are from real ones (Fréchet distance). The larger the
scale, the clearer the digit, and from some scale on the more alike are all of them. Guided only where little noise is left, they stay
various (--interval). For comparison the classifier itself pulls.

Into runs/guidance/ it writes guidance.png, a row for each scale.
"""

import numpy as np

import hcrot
from hcrot import pipelines
from hcrot.pipelines.guidance import GuidedByClassifier
from hcrot.tools.arguments import number
from hcrot.tools.metrics import accuracy, frechet_distance
from hcrot.tools.plotting import image_grid
from trained import add_classifier, judge, null_label, options_of, real_digits, run, trained


def main() -> None:
    parser = options_of(__doc__, "guidance", steps=20)
    add_classifier(parser)
    scales = [0.0, 1.0, 1.5, 2.0, 3.0, 5.0]
    parser.add_argument("--scales", type=number(float, 0), nargs="+", default=scales, help="values of w (default: 0 1 1.5 2 3 5)")
    parser.add_argument("--interval", type=number(float, 0), nargs=2, metavar=("LOWEST", "HIGHEST"), default=[0, 400],
                        help="timesteps between which the second half of the rows is guided (default: 0 400)")  # fmt: skip
    parser.add_argument("--images", type=number(int, 20), default=500, help="pictures for each line of the table (default: %(default)s)")
    options = parser.parse_args()
    model, scheduler = trained(options)
    any_digit, classifier = null_label(model, options), judge(options)
    real = classifier.read(real_digits(model, options)[0][: options.images])[1]
    labels = np.arange(options.images) % 10
    with_noise = {"algorithm_type": "sde-dpmsolver++", "solver_order": 1, "timestep_spacing": "trailing", "thresholding": True}
    solver = hcrot.DPMSolverMultistepScheduler.from_config(scheduler.config, **with_noise)
    rows, names = [], []

    def show(name: str, images: np.ndarray) -> None:
        logits, features = classifier.read(images)
        print(f"{name:24}{accuracy(logits, labels):10.1%}{frechet_distance(features, real):12.1f}", flush=True)
        rows.append(images[:20])
        names.append(name)

    print(f"{'guidance':24}{'agreement':>10}{'distance':>12}")
    common = {"generator": options.seed, "class_labels": labels, "num_inference_steps": options.inference_steps}
    lowest, highest = options.interval
    for place, interval in (("", None), (f", t {lowest:g} to {highest:g}", (lowest, highest))):
        for scale in [scale for scale in options.scales if interval is None or scale > 1]:
            guided = {"guidance_scale": scale, "guidance_interval": interval, "null_label": any_digit}
            show(f"w = {scale:g}{place}", pipelines.sample(model, solver, **guided, **common))
    pulled = GuidedByClassifier(model, solver, classifier, labels, scale=1.0)
    show("by the classifier", pipelines.sample(pulled, solver, **common | {"class_labels": np.full(options.images, any_digit)}))
    path = options.output / "guidance.png"
    image_grid(np.concatenate(rows), path, columns=20, row_labels=names)
    print(f"Pictures: {path}")


if __name__ == "__main__":
    run(main)
