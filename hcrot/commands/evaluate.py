"""How good the pictures are that a checkpoint draws, beside real ones.

    hcrot evaluate runs/flowers --data flowers
    hcrot evaluate runs/mnist --data mnist --number 1000 --sampler ddim --steps 50 --guidance-scale 1
    hcrot evaluate --features real.npz drawn.npz

First a small classifier learns the classes of the real pictures, or, if they have none, which way up they are (Gidaris et al. 2018). Its
last layer but one gives the features. Measured is: label agreement, the share of pictures that the classifier takes for what was asked
for; the Fréchet distance of the features to those of real pictures, less is better; precision, the share of pictures that look real;
recall, the share of what is real that is drawn. Half of the real pictures teach the classifier, a quarter is what drawn ones are compared
with, and so is the last quarter, for a measure: "of real from real". All three depend on how many pictures are compared, the distance very
much, so it is equally many of each. Distances of different judges, or of different numbers of pictures, cannot be compared.
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
LEAST_PICTURES = 16  # so that a quarter is enough for precision and recall


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
    parser.add_argument("--threads", type=number(int, 1), help="of hcrot's kernels (default: every core)")
    parser.add_argument("--json", action="store_true", help="as one line of JSON")


def run(options: Namespace) -> int:
    if options.features:
        refuse_what_is_not_used(options)
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


def refuse_what_is_not_used(options: Namespace) -> None:
    """Raise a ValueError if anything was said besides --features and --json."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    silent = vars(parser.parse_args([]))
    more = [name for name, value in silent.items() if name not in ("features", "json") and getattr(options, name) != value]
    if more:
        names = ", ".join("CHECKPOINT" if name == "checkpoint" else "--" + name.replace("_", "-") for name in more)
        raise ValueError(f"--features are compared as they are: {names} would have no effect")


def read_features(path: Path) -> "np.ndarray":
    from hcrot.files.json_and_arrays import open_npz

    with open_npz(path, "features") as arrays:
        features: np.ndarray = arrays["features"]
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise ValueError(f"--features: {path} has features of shape {features.shape} and dtype {features.dtype}, expected numbers (N, D)")
    return features


def compare(real: "np.ndarray", drawn: "np.ndarray") -> dict[str, float]:
    """Fréchet distance, precision and recall of features (N, D), of equally many of both."""
    from hcrot.tools.metrics import frechet_distance, precision_and_recall

    count = min(len(real), len(drawn))
    precision, recall = precision_and_recall(real[:count], drawn[:count])
    return {"frechet_distance": frechet_distance(real[:count], drawn[:count]), "precision": precision, "recall": recall}


def judged(options: Namespace) -> dict[str, Any]:
    import numpy as np

    import hcrot
    from hcrot.commands.sample import draw, guidance_of, load, load_small
    from hcrot.samplers import SAMPLERS, sampler_of
    from hcrot.tools.metrics import accuracy

    if options.sampler not in SAMPLERS:
        raise ValueError(f"--sampler: expected one of {', '.join(SAMPLERS)}, got {options.sampler}")
    if options.threads:
        hcrot.set_num_threads(options.threads)
    model, scheduler, names = load(options.checkpoint)
    small = load_small(options.checkpoint, model, options.sampler)
    count = model.config["num_class_embeds"]
    rng = np.random.default_rng([options.seed, 7])
    real, kinds, classes = real_pictures(options, model, names if count else [], rng)
    taught, compared = (len(real) * part // 4 for part in (2, 3))
    classifier = trained_judge(real[:taught], kinds[:taught], len(classes), options.epochs, rng)
    labels = None
    if count is not None:  # the same classes as the real ones that stand beside them
        labels = np.resize(kinds[compared:] if classes else np.arange(count), options.number)
    options.guidance_scale = guidance_of(options.guidance_scale, options.checkpoint, labels, count)
    pictures, _ = draw(model, sampler_of(options.sampler, scheduler), labels, options, small=small)
    logits, features = classifier.read(pictures)
    real_logits, seen = classifier.read(real[taught:])
    some, others = seen[: compared - taught], seen[compared - taught :]
    equal = min(len(some), len(features))
    figures: dict[str, Any] = {"pictures_compared": equal} | compare(some[:equal], features[:equal])
    figures |= {f"{name}_of_real_from_real": value for name, value in compare(some[:equal], others[:equal]).items()}
    if classes and labels is not None:
        figures["label_agreement"] = accuracy(logits, labels)
        figures["agreement_of_real_pictures"] = accuracy(real_logits, kinds[taught:])
    return figures


def real_pictures(
    options: Namespace, model: Any, names: list[str], rng: "np.random.Generator"
) -> "tuple[np.ndarray, np.ndarray, list[str]]":
    """Those of --data in random order, at most 20,000, as the network's run prepared them; their labels, and the names of their classes.

    Raises:
        ValueError: they are too few, or have not the channels or the classes of the network.
    """
    from hcrot.commands.sample import place_of
    from hcrot.commands.train import load_data
    from hcrot.data import prepare_images
    from hcrot.files.json_and_arrays import read_json

    file, channels = place_of(options.checkpoint).parent / "config.json", model.config["out_channels"]
    cropped = read_json(file).get("center_crop", True) if file.is_file() else True
    wanted = {"resolution": model.config["sample_size"], "grey": channels == 1, "center_crop": cropped, "strict": False}
    images, labels, classes = load_data(options.data, Namespace(**wanted, data_dir=options.data_dir))
    if images.shape[1] != channels:
        raise ValueError(f"--data: pictures of {options.data} have {images.shape[1]} channels, and the network draws {channels}")
    if classes and names and classes != names:
        raise ValueError(f"--data: the classes of {options.data} are {', '.join(classes)}, and those of the network {', '.join(names)}")
    if len(classes) > (model.config["num_class_embeds"] or len(classes)):
        raise ValueError(f"--data: {options.data} has {len(classes)} classes, and the network {model.config['num_class_embeds']}")
    if len(images) < LEAST_PICTURES:
        raise ValueError(f"--data: {options.data} has {len(images)} pictures, expected at least {LEAST_PICTURES} to compare with")
    rows = rng.permutation(len(images))[:20_000]
    return prepare_images(images[rows]), labels[rows], classes


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
