"""How good the pictures are that a checkpoint draws, beside real ones.

    hcrot evaluate runs/flowers --data flowers
    hcrot evaluate runs/mnist --data mnist --number 1000 --sampler ddim --steps 50 --guidance-scale 1
    hcrot evaluate --features real.npz drawn.npz

First a small classifier learns the classes of the real pictures, or, if they have none, which way up they are (Gidaris et al. 2018). Its
last layer but one gives the features. Measured is: label agreement, the share of pictures that the classifier takes for what was asked
for; the Fréchet distance of the features to those of real pictures, less is better, beside that of real from real; precision, the share
of pictures that look real; recall, the share of what is real that is drawn. Distances of different judges cannot be compared.
"""

import argparse
from argparse import Namespace
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcrot.commands.sample import STEPS
from hcrot.samplers import BEST
from hcrot.tools.arguments import number, print_json

__all__ = ["add_arguments", "run"]

if TYPE_CHECKING:
    import numpy as np

    from hcrot.models.digit_classifier import DigitClassifier

LEAST_STEPS = 200  # of the classifier, where the pictures are few


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, nargs="?", help="as of hcrot sample")
    parser.add_argument("--data", help="the real pictures, as of hcrot train")
    parser.add_argument("--features", metavar="FILE.npz", type=Path, nargs=2,
                        help="instead: real and drawn features of your own, each an array features (N, D)")  # fmt: skip
    parser.add_argument("--number", type=number(int, 8), default=500, help="pictures to draw (default: %(default)s)")
    parser.add_argument("--sampler", default=BEST, help="as of hcrot sample (default: %(default)s)")
    parser.add_argument("--steps", type=number(int, 1), default=STEPS, help="steps from noise to a picture (default: %(default)s)")
    parser.add_argument("--guidance-scale", type=number(float, 0), help="as of hcrot sample, and so is the default")
    parser.add_argument("--batch-size", type=number(int, 1), default=64, help="pictures at a time (default: %(default)s)")
    parser.add_argument("--epochs", type=number(int, 1), default=5, help="passes of the classifier (default: %(default)s)")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where MNIST's four files are")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="as one line of JSON")


def run(options: Namespace) -> int:
    if options.features:
        figures = compare(*map(read_features, options.features))
    elif options.checkpoint and options.data:
        figures = judged(options)
    else:
        raise ValueError("expected a CHECKPOINT with --data, or --features with two files")
    if options.json:
        print_json(figures)
    else:
        for name, value in figures.items():
            print(f"{name.replace('_', ' '):<40} {value:.4g}")
    return 0


def read_features(path: Path) -> "np.ndarray":
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        if "features" not in arrays:
            raise ValueError(f"--features: {path} has no array features, but {', '.join(arrays)}")
        return arrays["features"]


def compare(real: "np.ndarray", drawn: "np.ndarray") -> dict[str, float]:
    """Fréchet distance, precision and recall of features (N, D), of equally many of both."""
    from hcrot.tools.metrics import frechet_distance, precision_and_recall

    count = min(len(real), len(drawn))
    precision, recall = precision_and_recall(real[:count], drawn[:count])
    return {"frechet_distance": frechet_distance(real[:count], drawn[:count]), "precision": precision, "recall": recall}


def judged(options: Namespace) -> dict[str, Any]:
    import numpy as np

    from hcrot.commands.sample import draw, guidance_of, load, load_small
    from hcrot.commands.train import load_data
    from hcrot.data import prepare_images
    from hcrot.samplers import SAMPLERS, sampler_of
    from hcrot.tools.metrics import accuracy, frechet_distance

    if options.sampler not in SAMPLERS:
        raise ValueError(f"--sampler: expected one of {', '.join(SAMPLERS)}, got {options.sampler}")
    model, scheduler, _ = load(options.checkpoint)
    size, count = model.config["sample_size"], model.config["num_class_embeds"]
    grey = model.config["out_channels"] == 1
    wanted = {"resolution": size, "grey": grey, "center_crop": True, "strict": False, "data_dir": options.data_dir}
    real, kinds, classes = load_data(options.data, Namespace(**wanted))
    rng = np.random.default_rng([options.seed, 7])
    rows = rng.permutation(len(real))[:20_000]
    real, kinds = prepare_images(real[rows]), kinds[rows]
    half = len(real) // 2
    classifier = trained_judge(real[:half], kinds[:half], len(classes), options.epochs, rng)
    labels = None if count is None else np.resize(np.arange(len(classes) or count), options.number)
    options.guidance_scale = guidance_of(options.guidance_scale, options.checkpoint, labels, count)
    small = load_small(options.checkpoint, model, options.sampler)
    pictures, _ = draw(model, sampler_of(options.sampler, scheduler), labels, options, small=small)
    logits, features = classifier.read(pictures)
    real_logits, seen = classifier.read(real[half:])
    some, others = np.array_split(seen, 2)
    figures: dict[str, Any] = {"frechet_distance_of_real_from_real": frechet_distance(others, some)} | compare(seen, features)
    if classes and labels is not None:
        figures["label_agreement"] = accuracy(logits, labels)
        figures["agreement_of_real_pictures"] = accuracy(real_logits, kinds[half:])
    return figures


def trained_judge(
    images: "np.ndarray", labels: "np.ndarray", classes: int, epochs: int, rng: "np.random.Generator"
) -> "DigitClassifier":
    """A classifier of the classes; without any, of the four ways in which a picture may be turned."""
    import numpy as np
    from tqdm import tqdm

    import hcrot
    from hcrot.data import Batches

    if classes < 2:
        turned = [np.rot90(images, turns, axes=(2, 3)) for turns in range(4)]
        images, labels, classes = np.concatenate(turned), np.arange(4).repeat(len(images)), 4
    classifier = hcrot.DigitClassifier(images.shape[2], classes, in_channels=images.shape[1], generator=rng)
    optimizer = hcrot.AdamW(classifier.parameters(), lr=1e-3)
    batches = Batches(images, labels, batch_size=32, generator=rng)
    stream = chain.from_iterable(repeat(batches))
    for _ in tqdm(range(max(epochs * len(batches), LEAST_STEPS)), desc="a judge learns", unit="step", leave=False):
        x, kinds = next(stream)
        _, dlogits = hcrot.cross_entropy(classifier(x), kinds)
        classifier.backward(dlogits)
        optimizer.step(zero_grad=True)
    return classifier.eval()
