"""Learn to draw handwritten digits: a denoising diffusion model (Ho, Jain & Abbeel 2020), trained and sampled on the CPU.

    python examples/mnist_ddpm.py                                               some six minutes on two cores
    python examples/mnist_ddpm.py --resume                                      go on with a run that was stopped
    python examples/mnist_ddpm.py --sample-only runs/mnist_ddpm/checkpoint      draw again from what was learned
    mpiexec -n 4 python examples/mnist_ddpm.py                                  train with four processes (docs/scaling.md)

Into runs/mnist_ddpm/ it writes the checkpoint, loss.png, metrics.jsonl, forward_process.png (noise covering a digit),
reverse_process.png (a 5 appearing out of noise), samples.png (a row for each digit), denoising.gif and config.json.

Read `train`, which holds the training loop, and `sample`, the sampling loop. The rest is pictures and files; the options are in
mnist_ddpm_options.py.
"""

import json
import math
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from tqdm import tqdm

import hcrot
from hcrot.data import DIGITS_MAX, Batches, DataUnavailable, load_digits, load_mnist, prepare_images
from hcrot.files.json_and_arrays import replacing
from hcrot.files.lock import run_lock
from hcrot.files.runs import lock_run, open_metrics, read_metrics
from hcrot.tools.arguments import refusing_bad_input
from hcrot.tools.metrics import accuracy, accuracy_by_class, frechet_distance
from hcrot.tools.plotting import image_grid, image_strip, plot_loss, rehearse, save_gif
from hcrot.tools.stopping import end_on_signals, stop_request
from hcrot.training.distributed import Ranks, job
from hcrot.training.gradient_parts import GradientParts, most_parts
from hcrot.training.lr_schedules import constant_with_warmup, cosine, linear
from hcrot.training.progress import seconds_of_a_batch
from mnist_ddpm_options import CHANGEABLE, DIGITS, MNIST, NEW, SEED, parse_arguments


def main() -> None:
    start = time.perf_counter()
    arguments, given = parse_arguments(__doc__)
    with ExitStack() as held:
        with refusing_bad_input(Path(sys.argv[0]).name):
            ranks = held.enter_context(job())
            if arguments.sample_only:
                folder, checkpoint = Path(arguments.output or "runs/mnist_ddpm_samples"), Path(arguments.sample_only)
                options = Namespace(**MNIST | given)
                if ranks.size > 1:
                    raise ValueError("--sample-only is for one process; to draw with several: mpiexec -n 4 hcrot sample")
                if arguments.resume:
                    raise ValueError("--sample-only does not train: it does not go with --resume")
                if (folder / "config.json").exists():
                    raise FileExistsError(f"{folder} holds a run, whose pictures these would replace: choose another folder (--output)")
                model, scheduler = load_for_sampling(checkpoint, options)
                size = model.config["sample_size"]
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(run_lock(folder))
            else:
                folder = Path(arguments.output or "runs/mnist_ddpm")
                checkpoint = folder / "checkpoint"
                with ranks.first_goes_ahead():
                    if ranks.first:
                        held.enter_context(lock_run(folder, arguments.resume))
                    options, images, labels = options_and_data(arguments, given, folder, ranks)
                size = images.shape[2]
            judge = load_judge(arguments.evaluate, size, options) if arguments.evaluate else None
            if ranks.first:
                rehearse(folder)  # what would fail after training fails now

        if not arguments.sample_only:
            train(images, labels, options, folder, arguments.resume, ranks)
            if not ranks.first:
                return
            model, scheduler = load_for_sampling(checkpoint, options)  # the moving average of the weights
        draw_samples(model, scheduler, options, folder)
        if judge:
            evaluate(model, scheduler, *judge, options, folder)
    print(f"Everything is in {folder}/, {(time.perf_counter() - start) / 60:.1f} minutes after the start.")


def train(images: np.ndarray, labels: np.ndarray, options: Namespace, folder: Path, resume: bool, ranks: Ranks) -> None:
    """Train on images (N, 1, H, W) in [-1, 1] and labels (N,); leave folder/checkpoint, and draw what happened. The ranks, processes that
    mpiexec has started, do the same and share each step's images; the first writes."""

    # the network, the noise, and what makes the network learn ---------------------------------------------------------

    with refusing_bad_input(Path(sys.argv[0]).name):
        rng = np.random.default_rng(options.seed)
        attends = [level in options.attention for level in range(len(options.channels))]
        if sum(attends) < len(set(options.attention)):
            raise ValueError(f"--attention {options.attention}: the levels of --channels are 0 to {len(attends) - 1}")
        model = hcrot.UNet2dModel(
            sample_size=images.shape[2],
            in_channels=1,
            out_channels=1,
            block_out_channels=options.channels,
            down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
            up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
            norm_num_groups=options.groups,
            num_class_embeds=11 if options.label_dropout else 10,  # the last one means "any digit"
            generator=rng,
        )
        scheduler = hcrot.DDPMScheduler(1000, beta_schedule=options.schedule, timestep_spacing=options.timestep_spacing)
        if options.guidance_scale != 1 and not options.label_dropout:
            raise ValueError(f"--guidance-scale {options.guidance_scale} needs --label-dropout, such as 0.1")
        scheduler.set_timesteps(options.inference_steps)  # what is wrong with them shows now, not after training
        parts = GradientParts(model, options.parts, ranks)
        ranks.say_idle(options.parts, "--parts")
        batches = Batches(np.arange(len(images)), batch_size=options.batch_size, generator=rng)
        if options.minutes and not resume:
            at_once = options.parts / most_parts(options.parts, ranks.size)
            options.epochs = at_once * ranks.of_first(epochs_that_fit(options.minutes, model, images, labels, options.batch_size))
        steps = math.ceil(options.epochs * len(batches))
        optimizer = hcrot.AdamW(model.parameters(), lr=options.lr)
        schedule = learning_rate(optimizer, options, steps, len(batches))
        ema = hcrot.EMA(model.parameters(), decay=options.ema_decay)

        state = {"optimizer": optimizer, "schedule": schedule, "batches": batches, "rng": rng}
        step, seconds = 0, 0.0

        def save() -> None:
            ranks.check_equal("the weights", [*(parameter.data for parameter in model.parameters()), *ema.averages])
            with ranks.first_goes_ahead():
                if ranks.first:
                    hcrot.save_checkpoint(folder / "checkpoint", model, scheduler, ema=ema, state=state, progress=[step, seconds])

        if resume:
            step, seconds = hcrot.load_checkpoint(folder / "checkpoint", model, ema=ema, state=state)
        else:
            save()
        if ranks.first:
            with replacing(folder / "config.json") as unfinished:
                unfinished.write_text(json.dumps(vars(options), indent=2) + "\n", encoding="utf-8")
        metrics = open_metrics(folder if ranks.first else None, step)

    # the training loop ------------------------------------------------------------------------------------------------

    height, width = images.shape[2:]
    print(f"{len(images):,} images of {height}x{width}, {model.num_parameters():,} parameters, {steps:,} steps of {batches.batch_size}")
    limit = 60 * options.minutes if options.minutes else math.inf
    stream, average = chain.from_iterable(repeat(batches)), None  # epoch after epoch
    bar = tqdm(total=steps, initial=step, unit="step", disable=ranks.quiet)
    with metrics, stop_request() as stop, bar:
        while step < steps and seconds < limit and not ranks.agree(stop):
            start = time.perf_counter()
            [batch], losses = next(stream), []
            for rows in parts.of(np.array_split(batch, options.parts), rng):
                clean = images[rows]
                noise = rng.standard_normal(clean.shape, dtype=np.float32)
                timesteps = rng.integers(len(scheduler), size=len(clean))
                noisy = scheduler.add_noise(clean, noise, timesteps)

                classes = hcrot.drop_labels(labels[rows], 10, options.label_dropout, rng)
                loss, dout = hcrot.mse_loss(model(noisy, timesteps, classes), noise)
                share = len(rows) / len(batch)
                model.backward(np.float32(share) * dout)
                losses.append(share * loss)
            loss, lr = parts.sum(losses), optimizer.lr
            norm = optimizer.step(max_grad_norm=options.clip or math.inf, ema=ema, zero_grad=True)
            if not math.isfinite(loss + norm):
                sys.exit(f"Diverged after step {step} (loss {loss}, gradient norm {norm}): try a smaller --lr.")
            schedule.step()

            duration = ranks.of_first(time.perf_counter() - start)
            step, seconds, average = step + 1, seconds + duration, 0.98 * (average or loss) + 0.02 * loss
            numbers = {"step": step, "epoch": step / len(batches), "loss": loss, "lr": lr, "grad_norm": norm, "seconds": seconds}
            metrics.write(json.dumps(numbers) + "\n")
            bar.set_postfix_str(f"loss {average:.4f}, {len(batch) / duration:.0f} images/s", refresh=False)
            bar.update()
            if step % options.save_every == 0:
                save()
        save()

    if ranks.agree(stop):  # once more, of a signal that has come to one of them since the last step began
        again = f"{sys.executable} {sys.argv[0]} --resume --output {folder}"
        with suppress(OSError):  # the terminal may be gone
            print(f"Stopped and saved after step {step:,} of {steps:,}. To go on: {again}", flush=True)
        sys.exit(stop.exit_code)
    if ranks.first:
        draw_training(scheduler, images[np.argmax(labels == 5)], options, folder)


def sample(
    model: hcrot.UNet2dModel, scheduler: hcrot.DDPMScheduler, labels: np.ndarray, rng: np.random.Generator, guidance: float = 1.0
) -> Iterator[np.ndarray]:
    """Yield noise and then, after each step, what has become of it: arrays (len(labels), 1, H, W), the last one images."""
    size = model.config["sample_size"]
    x = rng.standard_normal((len(labels), 1, size, size), dtype=np.float32)
    yield x
    for t in tqdm(scheduler.timesteps, desc="sampling", leave=False, disable=sys.stderr is None):
        with model.inference():
            noise = model(x, t, labels)
            if guidance != 1:
                of_any_digit = model(x, t, np.full_like(labels, 10))
                noise = of_any_digit + np.float32(guidance) * (noise - of_any_digit)
        x = scheduler.step(noise, t, x, generator=rng).prev_sample
        yield x


# pictures and figures -------------------------------------------------------------------------------------------------


def draw_training(scheduler: hcrot.DDPMScheduler, image: np.ndarray, options: Namespace, folder: Path) -> None:
    """loss.png, and forward_process.png: the image (1, H, W) under more and more noise."""
    history = read_metrics(folder)
    if history:
        title = "Mean squared error of the predicted noise"
        plot_loss([numbers["step"] for numbers in history], [numbers["loss"] for numbers in history], folder / "loss.png", title=title)
    timesteps = np.array([0, 100, 300, 500, 700, 900, 999])
    noise = np.random.default_rng([options.seed, 1]).standard_normal(image.shape, dtype=np.float32)
    noisy = scheduler.add_noise(np.stack([image] * 7), np.stack([noise] * 7), timesteps)
    titles = [f"t = {t}" for t in timesteps]
    image_strip(noisy, titles, folder / "forward_process.png", title="Forward process: a digit becomes noise")


def draw_samples(model: hcrot.UNet2dModel, scheduler: hcrot.DDPMScheduler, options: Namespace, folder: Path) -> None:
    """samples.png, ten of each digit; reverse_process.png, how the first 5 appeared; denoising.gif, how the first of each did."""
    rng = np.random.default_rng([options.seed, 2])
    frames = np.stack(list(sample(model, scheduler, np.arange(10).repeat(10), rng, options.guidance_scale)))
    image_grid(frames[-1], folder / "samples.png", columns=10, row_labels=[str(digit) for digit in range(10)])

    titles = [f"t = {t}" for t in scheduler.timesteps] + ["done"]
    stations = np.unique(np.linspace(0, len(frames) - 1, 8).round().astype(int))
    path, title = folder / "reverse_process.png", "Reverse process: noise becomes a 5"
    image_strip(frames[stations, 50], [titles[station] for station in stations], path, title=title)

    shown = np.unique(np.linspace(0, len(frames) - 1, 60).round().astype(int))
    save_gif(list(frames[shown, ::10]), folder / "denoising.gif", columns=5)


def load_judge(checkpoint: str, size: int, options: Namespace) -> tuple[hcrot.DigitClassifier, np.ndarray, float]:
    """A classifier that examples/mnist_cnn.py has trained, what it sees in up to 1,000 real images that it was not trained on, and how
    far these are from as many others."""
    advice = f"{sys.executable} examples/mnist_cnn.py --dataset {options.dataset} --image-size {size}"
    try:
        classifier = hcrot.DigitClassifier.from_pretrained(checkpoint)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--evaluate: {error}; to train a classifier: {advice}") from error
    if classifier.config["image_size"] != size:
        reads = classifier.config["image_size"]
        raise ValueError(f"--evaluate: {checkpoint} reads images of {reads}x{reads}, these are {size}x{size}; to train one: {advice}")
    if options.dataset == "digits":
        real = prepare_images(load_digits()[0][::5], DIGITS_MAX, size)
    else:
        try:
            real = prepare_images(load_mnist("test", options.data_dir)[0][:2000], size=size)
        except DataUnavailable as error:
            raise DataUnavailable(f"--evaluate: {error}; if the bundled digits were learned: --dataset digits") from error
    some, others = np.array_split(classifier.read(real)[1], 2)
    return classifier, some, frechet_distance(others, some)


def evaluate(
    model: hcrot.UNet2dModel,
    scheduler: hcrot.DDPMScheduler,
    classifier: hcrot.DigitClassifier,
    real: np.ndarray,
    least: float,
    options: Namespace,
    folder: Path,
) -> None:
    """evaluation.json: how many of 1,000 samples the classifier takes for the digit asked for, and how far they are from real images,
    beside how far those are from as many others, which is the least to expect."""
    rng, labels = np.random.default_rng([options.seed, 3]), np.arange(1000) % 10
    drawn = [list(sample(model, scheduler, hundred, rng, options.guidance_scale))[-1] for hundred in np.split(labels, 10)]
    images = np.concatenate(drawn)
    logits, features = classifier.read(images)
    figures = {
        "label_agreement": accuracy(logits, labels),
        "by_digit": accuracy_by_class(logits, labels).tolist(),
        "frechet_distance": frechet_distance(features[: len(real)], real),
        "frechet_distance_of_real_images": least,
        "inference_steps": options.inference_steps,
        "guidance_scale": options.guidance_scale,
    }
    with replacing(folder / "evaluation.json") as unfinished:
        unfinished.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    distance = figures["frechet_distance"]
    print(f"Label agreement {figures['label_agreement']:.1%}, Fréchet distance {distance:.1f} (real from real images: {least:.1f})")


# files ----------------------------------------------------------------------------------------------------------------


def options_and_data(arguments: Namespace, given: dict, folder: Path, ranks: Ranks) -> tuple[Namespace, np.ndarray, np.ndarray]:
    """The options of the run, images (N, 1, H, W) in [-1, 1] and labels (N,)."""
    if arguments.resume:
        options = saved_options(folder, given)
    elif ranks.first and (folder / "config.json").exists():
        raise FileExistsError(f"{folder} already holds a run: go on with it (--resume) or choose another folder (--output)")
    else:
        options = Namespace(**{"seed": SEED, "digits": DIGITS}.get(arguments.preset or given.get("dataset"), MNIST) | given)
    if options.threads:
        hcrot.set_num_threads(options.threads)
    shared = {"parts": options.parts or ranks.size} | ({"threads": hcrot.get_num_threads()} if ranks.size > 1 else {})
    vars(options).update(shared)  # the last bits of the weights depend on them
    try:
        return options, *load_data(options)
    except DataUnavailable as reason:
        if arguments.resume or arguments.preset:
            raise
        print(f"{reason}: training on the bundled 8x8 digits instead.")
        options = Namespace(**DIGITS | given | shared | {"dataset": "digits"})
        return options, *load_data(options)


def load_data(options: Namespace) -> tuple[np.ndarray, np.ndarray]:
    if options.dataset == "digits":
        (images, labels), full = load_digits(), DIGITS_MAX
    else:
        (images, labels), full = load_mnist("train", options.data_dir), 255
    if options.images and options.images > len(images):
        raise ValueError(f"--images {options.images} is more than the {len(images)} there are")
    images = prepare_images(images[: options.images], full, None if options.image_size == "native" else options.image_size)
    return images, labels[: options.images].astype(np.int64)


def saved_options(folder: Path, given: dict) -> Namespace:
    path = folder / "config.json"
    fixed = sorted(given.keys() - CHANGEABLE)
    if fixed:
        raise ValueError(f"--resume goes on with the options of the run: {', '.join(fixed)} cannot be given anew")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        saved = None
    if not isinstance(saved, dict) or (NEW | saved).keys() != MNIST.keys():
        raise ValueError(f"{path} is not the configuration of a run")
    return Namespace(**NEW | saved | given | ({"minutes": None} if "epochs" in given else {}))


def load_for_sampling(checkpoint: Path, options: Namespace) -> tuple[hcrot.UNet2dModel, hcrot.DDPMScheduler]:
    if options.threads:
        hcrot.set_num_threads(options.threads)
    if (checkpoint / "checkpoint").is_dir():
        raise FileNotFoundError(f"{checkpoint} is a whole run: its checkpoint is {checkpoint / 'checkpoint'}")
    model, scheduler = hcrot.load_model(checkpoint), hcrot.DDPMScheduler.from_pretrained(checkpoint)
    classes = model.config["num_class_embeds"]
    if [model.config[name] for name in ("in_channels", "out_channels")] != [1, 1] or classes not in (10, 11):
        raise ValueError(f"{checkpoint} is no model of digits: expected one channel and ten classes")
    if options.guidance_scale != 1 and classes == 10:
        raise ValueError(f"--guidance-scale {options.guidance_scale}: {checkpoint} was trained without --label-dropout")
    if not isinstance(model.config["sample_size"], int):
        raise ValueError(f"{checkpoint}: sample_size is {model.config['sample_size']}, expected one number")
    scheduler.set_timesteps(options.inference_steps)
    return model, scheduler


# what the training loop needs besides ---------------------------------------------------------------------------------


def learning_rate(optimizer: hcrot.AdamW, options: Namespace, steps: int, steps_per_epoch: int) -> hcrot.LRSchedule:
    warmup = min(options.warmup, steps // 10)
    shapes = {"constant": constant_with_warmup(warmup), "linear": linear(warmup, steps), "cosine": cosine(warmup, steps)}
    shape, drop = shapes[options.lr_schedule], math.inf if options.lr_drop is None else options.lr_drop * steps_per_epoch
    return hcrot.LRSchedule(optimizer, lambda step: shape(step) * (0.1 if step >= drop else 1.0))


def epochs_that_fit(minutes: float, model: hcrot.UNet2dModel, images: np.ndarray, labels: np.ndarray, batch_size: int) -> float:
    """For how many epochs there is time, judging by a few forward and backward passes, which take nearly all of it."""
    seconds_per_image = 1.1 * seconds_of_a_batch(model, images[:batch_size], 0, labels[:batch_size]) / min(batch_size, len(images))
    return float(60 * minutes / seconds_per_image / len(images))


if __name__ == "__main__":
    end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
