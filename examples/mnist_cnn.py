"""Train a small convolutional network to read handwritten digits.

    python examples/mnist_cnn.py                    99 % on MNIST's test set, in about a minute on two cores
    python examples/mnist_cnn.py --images 5000      how long does an epoch over 5,000 images take?

The second is an experiment that hcrot's predecessor made: 60 seconds with naive convolutions, 40 with im2col. The classifier that is
left in OUTPUT/checkpoint can also judge what a diffusion model draws.
"""

import argparse
import json
import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from scipy.special import softmax
from tqdm import tqdm

import hcrot
from hcrot.data import DIGITS_MAX, Batches, DataUnavailable, load_digits, load_mnist, prepare_images
from hcrot.files.json_and_arrays import replacing
from hcrot.files.lock import run_lock
from hcrot.tools.metrics import accuracy
from hcrot.tools.plotting import image_strip, plot_loss
from hcrot.tools.stopping import end_on_signals


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")  # one sentence, without the usage before it


def whole_number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


parser = Parser(prog="mnist_cnn.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
option = parser.add_argument
option("--dataset", choices=["mnist", "digits"], default="mnist",
       help="MNIST, or the 1,797 digits of 8x8 pixels that come with hcrot and stand in for MNIST where it can't be had (default: mnist)")
option("--data-dir", type=Path, help="folder with MNIST's four files (default: a cache folder, into which they are downloaded once)")
option("--images", type=whole_number, help="train on the first so many images only (default: all)")
option("--image-size", type=whole_number, help="shrink images to this height and width by averaging, 14 say (default: native, 28 or 8)")
option("--epochs", type=whole_number, help="passes over the training images (default: 5 on MNIST, 20 on the bundled digits)")
option("--batch-size", type=whole_number, default=64, help="images per step (default: 64)")
option("--lr", type=float, default=2e-3, help="AdamW's learning rate at its highest (default: 0.002)")
option("--seed", type=int, default=0, help="of the initial values and of the order of the images (default: 0)")
option("--threads", type=whole_number, help="threads of hcrot's kernels (default: one for each core)")
option("--output", type=Path, default=Path("runs/mnist_cnn"),
       help="folder to write to; an earlier run in it is replaced (default: runs/mnist_cnn)")


def load(args: argparse.Namespace) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The data set's name, images (N, 1, S, S) in [-1, 1] and labels (N,) to train on, the same to test on."""
    if args.dataset == "digits" and args.data_dir:
        raise ValueError("--data-dir is for MNIST's files, but --dataset digits asks for the bundled ones")
    dataset = args.dataset
    if dataset == "mnist":
        try:
            train, test, full = load_mnist("train", args.data_dir), load_mnist("test", args.data_dir), 255
        except DataUnavailable as error:
            print(f"{error}: training on the bundled 8x8 digits instead.")
            dataset = "digits"
    if dataset == "digits":
        images, labels = load_digits()
        is_test = np.arange(len(images)) % 5 == 0  # every fifth
        train, test, full = (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test]), DIGITS_MAX
    images, test_images = (prepare_images(images, full, args.image_size) for images, _ in (train, test))
    return dataset, images, train[1], test_images, test[1]


def main(arguments: list[str] | None = None) -> None:
    args = parser.parse_args(arguments)
    with ExitStack() as held:
        try:
            args.output.mkdir(parents=True, exist_ok=True)
            held.enter_context(run_lock(args.output))
        except OSError as error:
            parser.error(str(error))
        train(args)


def train(args: argparse.Namespace) -> None:
    """Train and test, epoch after epoch; leave the classifier, the metrics and the pictures in ``args.output``."""
    try:
        dataset, images, labels, test_images, test_labels = load(args)
        if args.images and args.images > len(images):
            raise ValueError(f"--images {args.images} is more than the {len(images)} that there are to train on")
        if args.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {args.seed}")
        if args.threads:
            hcrot.set_num_threads(args.threads)
        images, labels = images[: args.images], labels[: args.images]
        rng = np.random.default_rng(args.seed)
        model = hcrot.DigitClassifier(image_size=images.shape[2], generator=rng)
        optimizer = hcrot.AdamW(model.parameters(), lr=args.lr)
        epochs = args.epochs or {"mnist": 5, "digits": 20}[dataset]
        found = {"dataset": dataset, "images": len(images), "image_size": images.shape[2]}
        found |= {"epochs": epochs, "threads": hcrot.get_num_threads()}
        with replacing(args.output / "config.json") as unfinished:
            unfinished.write_text(json.dumps({**vars(args), **found}, indent=2, default=str) + "\n", encoding="utf-8")
        lines = args.output / "metrics.jsonl"
        lines.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    batches = Batches(images, labels, batch_size=args.batch_size, generator=rng)
    total_steps = epochs * len(batches)
    schedule = hcrot.get_scheduler("cosine", optimizer, num_warmup_steps=total_steps // 20, num_training_steps=total_steps)
    name = f"{dataset}, {len(images):,} images of {images.shape[2]}x{images.shape[3]}"
    print(f"{name}, {model.num_parameters():,} parameters, {hcrot.get_num_threads()} threads")

    losses, accuracies, seconds = [], [], []
    bar = tqdm(total=total_steps, unit="step", disable=sys.stderr is None)  # None: a program without a console
    with open(lines, "a", encoding="utf-8", buffering=1) as metrics, bar:  # line by line
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            for batch, batch_labels in batches:
                loss, dlogits = hcrot.cross_entropy(model(batch), batch_labels)
                model.backward(dlogits)
                optimizer.step()
                optimizer.zero_grad()

                losses.append(loss)
                metrics.write(json.dumps({"step": len(losses), "loss": loss, "lr": optimizer.lr}) + "\n")
                if not math.isfinite(loss):
                    sys.exit(f"mnist_cnn.py: the loss became {loss} at step {len(losses)}: try a lower --lr than {args.lr:g}")
                schedule.step()
                bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", refresh=False)
                bar.update()
            seconds.append(time.perf_counter() - start)

            logits, _ = model.read(test_images)
            accuracies.append(accuracy(logits, test_labels))
            model.save_pretrained(args.output / "checkpoint")
            metrics.write(json.dumps({"step": len(losses), "epoch": epoch, "seconds": seconds[-1], "accuracy": accuracies[-1]}) + "\n")
            with bar.external_write_mode():
                print(f"epoch {epoch}: {seconds[-1]:.2f} s, {len(images) / seconds[-1]:,.0f} images/s, test accuracy {accuracies[-1]:.2%}")

    ends = [epoch * len(batches) for epoch in range(1, epochs + 1)]
    errors = [100 * (1 - share) for share in accuracies]
    plot_loss(range(1, total_steps + 1), losses, args.output / "loss.png",
              title=f"Reading digits: {name}", evaluations={"test errors, %": (ends, errors)})

    right = np.take_along_axis(softmax(logits, axis=1), test_labels[:, None].astype(int), axis=1)[:, 0]
    hardest = right.argsort(kind="stable")[:10]
    titles = [f"{test_labels[index]} → {logits[index].argmax()}" for index in hardest]
    image_strip(test_images[hardest], titles, args.output / "hardest.png", pixels=84,
                title=f"The hardest of {len(test_images):,} test images, and how they are read ({accuracies[-1]:.2%} are read rightly)")
    print(f"fastest epoch {min(seconds):.2f} s; the classifier is in {args.output / 'checkpoint'}, pictures beside it")


if __name__ == "__main__":
    end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped; the classifier is what it was after the last whole epoch.")
        sys.exit(130)
