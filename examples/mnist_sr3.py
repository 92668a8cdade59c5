"""Make small pictures of digits large with SR3 (Saharia et al. 2021), a diffusion model that sees the small picture.

    python examples/mnist_sr3.py                                  the bundled digits, 4x4 to 8x8: two minutes on two cores
    python examples/mnist_sr3.py --dataset mnist                  MNIST, 7x7 to 28x28: ten minutes, and a few to measure
    python examples/mnist_sr3.py --checkpoint runs/mnist_sr3/checkpoint     measure and draw again what was learned

Into runs/mnist_sr3/ it writes the checkpoint, loss.png, metrics.jsonl, digits.png (small, enlarged by bicubic interpolation, by SR3,
truth), evaluation.json and config.json. Digits that it was not trained on are measured: PSNR, in dB, and SSIM, both best when high.
Diffusion draws one of the large pictures that fit the small one. The mean of several of them is nearer to the truth than each, and less
sharp; both are measured.
"""

import argparse
import json
import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

import hcrot
from hcrot.data import DIGITS_MAX, Batches, load_digits, load_mnist, prepare_images, resize
from hcrot.files.json_and_arrays import replacing
from hcrot.files.lock import run_lock
from hcrot.models.sr3 import make_beta_schedule
from hcrot.tools.metrics import psnr, ssim
from hcrot.tools.plotting import image_grid, plot_loss, rehearse
from hcrot.tools.stopping import end_on_signals, stop_request

TRAIN_STEPS = 2000  # SR3's, with betas from 1e-6 to 1e-2
AT_ONCE = 50  # images to sample in a batch
DEFAULTS = {  # SSIM's window of 11 is larger than the bundled digits
    "digits": {"factor": 2, "channels": [32, 64], "minutes": 2.0, "batch_size": 32, "lr": 1e-3, "window": 7},
    "mnist": {"factor": 4, "channels": [32, 64, 64], "minutes": 10.0, "batch_size": 32, "lr": 1e-3, "window": 11},
}
OF_TRAINING = ("minutes", "steps", "channels", "batch_size", "lr")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")  # one sentence, without the usage before it


def whole_number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


parser = Parser(prog="mnist_sr3.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
option = parser.add_argument
option("--dataset", choices=list(DEFAULTS), default="digits", help="the 1,797 digits that come with hcrot, or MNIST (default: digits)")
option("--data-dir", type=Path, help="folder with MNIST's four files (default: a cache folder, into which they are downloaded once)")
option("--minutes", type=positive, help="train for so long (default: 2 for the bundled digits, 10 for MNIST)")
option("--steps", type=whole_number, help="instead of --minutes: train for so many steps")
option("--checkpoint", type=Path, help="do not train, use the network in this folder")
option("--channels", type=whole_number, nargs="+", help="width of each level of the network (default: 32 64, for MNIST 32 64 64)")
option("--batch-size", type=whole_number, help="images in a step (default: 32)")
option("--lr", type=positive, help="AdamW's learning rate at its highest (default: 0.001)")
option("--sample-steps", type=whole_number, default=20, help=f"steps from noise to a picture, which divide {TRAIN_STEPS} (default: 20)")
option("--samples", type=whole_number, default=4, help="how many pictures are drawn for each small one, for their mean (default: 4)")
option("--test-images", type=whole_number, default=500, help="how many digits are measured, if there are so many (default: 500)")
option("--seed", type=int, default=0, help="of initial values, order of images and noise (default: 0)")
option("--threads", type=whole_number, help="threads of hcrot's kernels (default: one for each core)")
option("--output", type=Path, default=Path("runs/mnist_sr3"),
       help="folder to write to; an earlier run in it is replaced (default: runs/mnist_sr3)")


def main(arguments: list[str] | None = None) -> None:
    args = parser.parse_args(arguments)
    given = ["--" + name.replace("_", "-") for name in OF_TRAINING if getattr(args, name) is not None]
    for name, default in DEFAULTS[args.dataset].items():
        if getattr(args, name, None) is None:
            setattr(args, name, default)
    with ExitStack() as held:
        try:
            if args.checkpoint and given:
                raise ValueError(f"--checkpoint does not train: it does not go with {', '.join(given)}")
            if {"--minutes", "--steps"} <= set(given):
                raise ValueError("--minutes and --steps exclude each other")
            if TRAIN_STEPS % args.sample_steps:
                raise ValueError(f"--sample-steps {args.sample_steps} does not divide {TRAIN_STEPS}")
            if args.seed < 0:
                raise ValueError(f"--seed must be at least 0, got {args.seed}")
            if args.threads:
                hcrot.set_num_threads(args.threads)
            images, test_images, test_labels = load(args)
            model = hcrot.SR3UNet.from_pretrained(args.checkpoint) if args.checkpoint else new_model(args)
            if model.image_channels != 1:
                raise ValueError(f"--checkpoint: its network is for images of {model.image_channels} channels, digits have 1")
            args.output.mkdir(parents=True, exist_ok=True)
            held.enter_context(run_lock(args.output))
            rehearse(args.output)  # what would fail after training fails now
            with replacing(args.output / "config.json") as unfinished:
                unfinished.write_text(json.dumps(vars(args), indent=2, default=str) + "\n", encoding="utf-8")
        except (OSError, ValueError, ImportError) as error:
            parser.error(str(error))
        if not args.checkpoint:
            train(model, images, args)
        measure(model, test_images, test_labels, args)


def load(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 1, S, S) in [-1, 1] to train on, others to test on, and the labels of those."""
    if args.dataset == "mnist":
        images, _ = load_mnist("train", args.data_dir)
        (test_images, test_labels), full = load_mnist("test", args.data_dir), 255
    else:
        if args.data_dir:
            raise ValueError("--data-dir is for MNIST's files, but --dataset digits asks for the bundled ones")
        digits, labels = load_digits()
        is_test = np.arange(len(digits)) % 5 == 0  # every fifth
        images, test_images, test_labels, full = digits[~is_test], digits[is_test], labels[is_test], DIGITS_MAX
    count = args.test_images
    return prepare_images(images, full), prepare_images(test_images[:count], full), test_labels[:count]


def new_model(args: argparse.Namespace) -> hcrot.SR3UNet:
    return hcrot.SR3UNet(
        image_channels=1,
        block_out_channels=args.channels,
        attention_levels=(),
        layers_per_block=1,
        dropout=0.0,
        norm_num_groups=8,
        noise_level_scale=1000.0,
        generator=args.seed,
    )


def shrunk(images: np.ndarray, args: argparse.Namespace) -> np.ndarray:
    """The small pictures (B, 1, S / factor, S / factor)."""
    return resize(images, images.shape[-1] // args.factor)


def diffusion(model: hcrot.SR3UNet, args: argparse.Namespace, generator: np.random.Generator) -> hcrot.SR3Diffusion:
    """SR3's betas for training; for sampling, those that lead through every n-th of its noise levels."""
    betas = make_beta_schedule("linear", TRAIN_STEPS, 1e-6, 1e-2)
    abar = np.append(1.0, np.cumprod(1 - betas))[:: TRAIN_STEPS // args.sample_steps]
    return hcrot.SR3Diffusion(model, betas, 1 - abar[1:] / abar[:-1], generator=generator)


def train(model: hcrot.SR3UNet, images: np.ndarray, args: argparse.Namespace) -> None:
    """Train on images (N, 1, S, S) in [-1, 1]; leave the average of the weights in the model and in ``args.output``."""
    rng = np.random.default_rng([args.seed, 1])
    sr3 = diffusion(model, args, rng)
    batches = Batches(images, batch_size=args.batch_size, generator=rng)
    optimizer = hcrot.AdamW(model.parameters(), lr=args.lr)
    ema = hcrot.EMA(model.parameters(), decay=0.998)
    size = images.shape[-1]
    print(f"{len(images):,} images, {size // args.factor}x{size // args.factor} to {size}x{size}, {model.num_parameters():,} parameters")

    losses, seconds, done = [], 0.0, 0.0  # done: from 0 to 1
    total = args.steps or round(60 * args.minutes)
    bar = tqdm(total=total, unit="step" if args.steps else "s", disable=sys.stderr is None)  # None: a program without a console
    lines = args.output / "metrics.jsonl"
    with stop_request() as stop, open(lines, "w", encoding="utf-8", buffering=1) as metrics, bar:  # line by line
        while done < 1 and not stop:
            for (clean,) in batches:
                start = time.perf_counter()
                optimizer.lr = args.lr * min(1, (len(losses) + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * done))
                loss, dout = sr3.loss(clean, resize(shrunk(clean, args), size))
                model.backward(dout)
                norm = optimizer.step(max_grad_norm=1.0, ema=ema, zero_grad=True)
                if not math.isfinite(loss + norm):
                    sys.exit(f"Diverged at step {len(losses) + 1} (loss {loss}, gradient norm {norm}): try a smaller --lr.")

                losses.append(loss)
                seconds += time.perf_counter() - start
                metrics.write(json.dumps({"step": len(losses), "loss": loss, "lr": optimizer.lr, "seconds": seconds}) + "\n")
                now = len(losses) if args.steps else min(round(seconds), total)
                bar.set_postfix_str(f"loss {np.mean(losses[-50:]):.4f}, step {len(losses)}", refresh=False)
                bar.update(now - bar.n)
                done = len(losses) / args.steps if args.steps else seconds / (60 * args.minutes)
                if done >= 1 or stop:
                    break
    for parameter, average in zip(ema.parameters, ema.averages, strict=True):
        parameter.data[...] = average
    model.save_pretrained(args.output / "checkpoint")
    if stop:
        print(f"Stopped and saved after step {len(losses):,}. To measure it: {sys.argv[0]} --checkpoint {args.output / 'checkpoint'}")
        sys.exit(stop.exit_code)
    plot_loss(range(1, len(losses) + 1), losses, args.output / "loss.png", title="Mean absolute error of the predicted noise")


def measure(model: hcrot.SR3UNet, truth: np.ndarray, labels: np.ndarray, args: argparse.Namespace) -> None:
    """evaluation.json, and digits.png, one of each digit: what bicubic interpolation and SR3 make of the small pictures of ``truth``."""
    sr3 = diffusion(model, args, np.random.default_rng([args.seed, 2]))
    small = shrunk(truth, args)
    condition = resize(small, truth.shape[-1])
    samples = np.empty((args.samples, *truth.shape), np.float32)
    starts = range(0, len(truth), AT_ONCE)
    bar = tqdm(total=args.samples * len(starts) * args.sample_steps, desc="sampling", unit="step", disable=sys.stderr is None)
    with bar:
        for sample in samples:
            for start in starts:
                part = slice(start, start + AT_ONCE)
                for step, x in enumerate(sr3.steps(condition[part], eta=0.0)):
                    sample[part] = x
                    bar.update(min(step, 1))  # the first is the noise that it begins with

    how = f"DDIM, {args.sample_steps} steps, eta 0"
    found = {"bicubic": np.clip(condition, -1, 1), f"SR3, one sample ({how})": samples[0]}
    if args.samples > 1:
        found[f"SR3, mean of {args.samples} samples ({how})"] = samples.mean(axis=0)
    figures = {
        name: {"psnr": float(psnr(images, truth, 2).mean()), "ssim": float(ssim(images, truth, 2, window_size=args.window).mean())}
        for name, images in found.items()
    }
    with replacing(args.output / "evaluation.json") as unfinished:
        unfinished.write_text(json.dumps({"test_images": len(truth), **figures}, indent=2) + "\n", encoding="utf-8")
    window = f"a window of {args.window}x{args.window}"
    print(f"Means over {len(truth)} digits that were not trained on; SSIM with {window}:")
    for name, figure in figures.items():
        gain = "" if name == "bicubic" else f"   {figure['psnr'] - figures['bicubic']['psnr']:+.2f} dB"
        print(f"  {name:<48} PSNR {figure['psnr']:.2f} dB   SSIM {figure['ssim']:.4f}{gain}")

    shown = [int(np.argmax(labels == digit)) for digit in np.unique(labels)]
    enlarged = small.repeat(args.factor, axis=2).repeat(args.factor, axis=3)
    rows = {"low": np.clip(enlarged, -1, 1), "bic": found["bicubic"], "SR3": np.clip(samples[0], -1, 1)}
    rows |= {"mean": np.clip(samples.mean(axis=0), -1, 1)} if args.samples > 1 else {}
    rows |= {"true": truth}
    sheet = np.concatenate([images[shown] for images in rows.values()])
    mean = f", mean of {args.samples}" if args.samples > 1 else ""
    title = f"{small.shape[-1]}x{small.shape[-1]} to {truth.shape[-1]}x{truth.shape[-1]}: small, bicubic, SR3 (one sample{mean}), truth"
    image_grid(sheet, args.output / "digits.png", columns=len(shown), row_labels=list(rows), title=title)
    print(f"Everything is in {args.output}/.")


if __name__ == "__main__":
    end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
