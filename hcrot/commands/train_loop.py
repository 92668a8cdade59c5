"""The training loop of ``hcrot train``, from the network to the last picture. Read `train`."""

import json
import math
import shutil
import sys
import time
from argparse import Namespace
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import hcrot
from hcrot.data import Batches, prepare_images, random_flip, random_shift
from hcrot.files.json_and_arrays import write_json
from hcrot.files.runs import SMALL, open_metrics, read_metrics
from hcrot.files.wishes import SamplesOnTheWay, rate_asked_for, stop_asked_for
from hcrot.pipelines.cascade import cascade, parted
from hcrot.samplers import BEST, sampler_of
from hcrot.tools.plotting import image_grid, plot_loss, rehearse
from hcrot.tools.stopping import stop_request
from hcrot.tools.tensorboard import open_events
from hcrot.training.distributed import Ranks
from hcrot.training.gradient_parts import GradientParts, most_parts
from hcrot.training.progress import (
    ErrorByTime,
    StepsInTime,
    error_by_time,
    errors_by_quarter,
    means_by_quarter,
    seconds_of_a_batch,
    target_of,
    training_pictures,
)  # fmt: skip

__all__ = [
    "ASKED_TO_STOP", "TRAINING", "as_shown", "draw", "held_back", "learned", "lr_schedule", "network", "save", "stand_ins", "train",
    "try_out",
]  # fmt: skip

HELD_BACK = 20  # one picture in so many is not trained on, so that the run can tell learning from learning by heart
SAMPLES = 8  # of each class
TRAINING = 0.75  # share of the time that forward and backward take; the rest is for the optimizer, noise and pictures
KNOWN = (1024, 20_000)  # so many pictures, some of them again and again where there are few, tell what there was to learn
ASKED_TO_STOP = 143  # the exit code: that of SIGTERM
LOOPING = 0.95  # share that all of it takes before the last pictures


def train(
    images: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    options: Namespace,
    folder: Path,
    resume: bool,
    again: str,
    ranks: Ranks,
    tensorboard: bool = False,
    part: str = "whole",
) -> dict[str, Any]:
    """Train on pictures uint8 (N, C, H, W) and labels (N,); leave the checkpoint and the pictures in the folder.

    Args:
        resume: whether to go on from the checkpoint that is there.
        again: the command that goes on with this run, for who stops it.
        ranks: the processes that do it together; the first one writes and prints.
        tensorboard: whether to write the numbers of metrics.jsonl into files for TensorBoard, too.
        part: "whole", or of a run of two networks "small" or "large", for what is printed.

    Returns:
        What is known at the end, for ``--json``; {} of a process that is not the first.
    """

    # the network, the noise, and what makes the network learn ---------------------------------------------------------

    rng = np.random.default_rng(options.seed)
    rows, judged = held_back(len(images), np.random.default_rng([options.seed, 1]))
    model = network(options, images.shape[1], images.shape[2], len(classes), rng)
    scheduler = hcrot.DDPMScheduler(
        num_train_timesteps=options.ddpm_num_steps, beta_schedule=options.ddpm_beta_schedule, prediction_type=options.prediction_type
    )
    batches = Batches(rows, batch_size=min(options.train_batch_size, len(rows)), generator=rng)
    count = options.gradient_accumulation_steps
    parts = GradientParts(model, count, ranks)
    adam: dict[str, Any] = {"betas": (options.adam_beta1, options.adam_beta2), "eps": options.adam_epsilon}
    optimizer = hcrot.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.adam_weight_decay, **adam)
    warmup: dict[str, Any] = {"use_ema_warmup": True, "inv_gamma": options.ema_inv_gamma, "power": options.ema_power}
    ema = hcrot.EMA(model.parameters(), options.ema_max_decay, **warmup)
    first = rows[: batches.batch_size]
    duration = ranks.of_first(seconds_of_a_batch(model, stand_ins(options, images[first]), 0, labels[first] if classes else None))
    state: dict[str, Any] = {"optimizer": optimizer, "batches": batches, "rng": rng}
    step, seconds = 0, 0.0
    if resume and (folder / "checkpoint").is_dir():
        step, seconds = hcrot.load_checkpoint(folder / "checkpoint", model, ema=ema, state=state).values()
        optimizer.initial_lr = options.learning_rate  # which may have been given anew
    by_the_clock = options.num_epochs is None
    if by_the_clock:
        at_once = count / most_parts(count, ranks.size)
        options.num_epochs = (int(step) * count + TRAINING * 60 * options.minutes / duration * at_once) / len(batches)
    asked = folder.parent if part == "small" else folder  # where wishes are looked for, and where samples on the way go
    steps = max(1, math.ceil(options.num_epochs * len(batches) / count))
    schedule = lr_schedule(options, optimizer, step, steps)
    clock = StepsInTime(LOOPING * 60 * options.minutes, step, steps) if by_the_clock else None
    if ranks.first:
        write_json(folder / "config.json", vars(options))
        write_json(folder / "classes.json", {"classes": classes})
        rehearse(folder)  # what would fail after training fails now

    # learning ---------------------------------------------------------------------------------------------------------

    size = count * batches.batch_size
    number = f"{'about ' * by_the_clock}{steps:,} steps of {size}, {options.num_epochs:.3g} passes"
    print(f"A network of {model.num_parameters():,} numbers; {number}. Into {folder}/")
    every = max(1, round(options.save_images_epochs * len(batches) / count)) if options.save_images_epochs else math.ceil(steps / 5)
    samples = SamplesOnTheWay(asked, every, "small-" if part == "small" else "")
    stream, average = chain.from_iterable(repeat(batches)), 0.0  # epoch after epoch
    bar = tqdm(total=steps, initial=step, unit="step", disable=ranks.quiet)
    tensorboard = tensorboard and ranks.first
    events_file = open_events(folder, step, tensorboard)
    with open_metrics(folder if ranks.first else None, step) as metrics, events_file as events, stop_request() as stop, bar:
        while step < steps and not ranks.agree(stop):
            start, losses, errors = time.perf_counter(), [], []
            for rows in parts.of([next(stream)[0] for _ in range(count)], rng):
                clean, kinds = as_shown(images[rows], options, rng), labels[rows]
                clean, condition = parted(clean, options.small, rng) if options.small else (clean, None)
                noise = rng.standard_normal(clean.shape, dtype=np.float32)
                timesteps = rng.integers(len(scheduler), size=len(clean))
                noisy = scheduler.add_noise(clean, noise, timesteps)
                target = target_of(scheduler, options.prediction_type, clean, noise, timesteps)
                if classes:
                    kinds = hcrot.drop_labels(kinds, len(classes), options.label_dropout, rng)
                seen = noisy if condition is None else np.concatenate([noisy, condition], axis=1)
                prediction = model(seen, timesteps, kinds if classes else None)
                loss, dout = hcrot.mse_loss(prediction, target)
                model.backward(dout / np.float32(count))
                losses.append(loss / count)
                errors.append(errors_by_quarter(prediction, target, timesteps, len(scheduler)))
            loss, lr = parts.sum(losses), optimizer.lr
            norm = optimizer.step(max_grad_norm=options.max_grad_norm or math.inf, ema=ema, zero_grad=True)
            if norm is None or not math.isfinite(loss + norm):
                raise ValueError(f"diverged after step {step} (loss {loss}, gradient norm {norm}): try a smaller --learning-rate")
            schedule.step()

            step, seconds = step + 1, seconds + time.perf_counter() - start
            average = 0.98 * (average or loss) + 0.02 * loss
            numbers = {"step": step, "epoch": step * count / len(batches), "loss": loss, "lr": lr, "grad_norm": norm, "seconds": seconds}
            numbers["loss_by_quarter"] = means_by_quarter(parts.total(errors, (2, 4)))
            metrics.write(json.dumps(numbers) + "\n")
            for name in ("loss", "lr", "grad_norm") if tensorboard else ():
                events.add_scalar(name, numbers[name], step)
            bar.set_postfix_str(f"loss {average:.4f}", refresh=False)
            bar.update()
            planned = clock.planned(step, steps) if clock else steps
            if clock and step in clock.moments:  # the same steps for all processes
                planned = int(ranks.of_first(planned))
            if ranks.first and stop_asked_for(asked):
                stop.exit_code = stop.exit_code or ASKED_TO_STOP
            rate = ranks.of_first((rate_asked_for(asked) if ranks.first else None) or options.learning_rate)
            if planned != steps or rate != options.learning_rate:
                steps, options.num_epochs, bar.total = planned, planned * count / len(batches), planned
                options.learning_rate = optimizer.initial_lr = rate
                schedule = lr_schedule(options, optimizer, step, steps)
                if ranks.first:
                    write_json(folder / "config.json", vars(options))
            if step % options.checkpointing_steps == 0:
                save(ranks, folder, model, scheduler, ema, state, step, seconds, options.checkpoints_total_limit)
            picture = samples.due(step) if ranks.first and step < steps and not stop else None
            if picture:
                with samples.timed(), ema.swapped_in():
                    draw(model, scheduler, classes[:3], options, picture, progress=False)
        save(ranks, folder, model, scheduler, ema, state, step, seconds, options.checkpoints_total_limit)
    if ranks.agree(stop):  # once more, of a signal that has come to one of them since the last step began
        with suppress(OSError):  # the terminal may be gone
            print(f"Stopped and saved after step {step:,} of {steps:,}. To go on: {again}", flush=True)
        sys.exit(stop.exit_code)
    if not ranks.first:
        return {}

    raw, averaged = learned(model, scheduler, ema, images, labels, judged, classes, options, folder, part)
    return {
        "steps": steps,
        "seconds": seconds,
        "error_by_quarter": averaged.quarters,
        "error_of_raw_weights_by_quarter": raw.quarters,
        "error_at_the_end": averaged.last,
        "undertrained": averaged.undertrained,
    }


def lr_schedule(options: Namespace, optimizer: hcrot.AdamW, step: int, steps: int) -> hcrot.LRSchedule:
    """Of the steps from ``step`` on, in a run of so many."""
    warmup = min(options.lr_warmup_steps, steps // 10)
    shape = {"num_cycles": options.lr_num_cycles, "power": options.lr_power}
    return hcrot.get_scheduler(options.lr_scheduler, optimizer, warmup, steps, **shape, last_epoch=step - 1)


def network(options: Namespace, channels: int, size: int, classes: int, rng: np.random.Generator) -> hcrot.UNet2dModel:
    attends = [level in options.attention for level in range(len(options.channels))]
    if sum(attends) < len(set(options.attention)):
        raise ValueError(f"--attention {options.attention}: the levels of --channels are 0 to {len(attends) - 1}")
    groups = next(groups for groups in (8, 4, 2, 1) if all(width % groups == 0 for width in options.channels))
    return hcrot.UNet2dModel(
        sample_size=size,
        in_channels=2 * channels if options.small else channels,
        out_channels=channels,
        block_out_channels=options.channels,
        layers_per_block=options.layers_per_block,
        down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        norm_num_groups=groups,
        dropout=options.dropout,
        num_class_embeds=classes + 1 if classes else None,  # the last one means "of any class"
        generator=rng,
    )


def try_out(options: Namespace, images: np.ndarray, classes: list[str]) -> None:
    """Let a network that will be trained later meet a picture now.

    Raises:
        ValueError: of options that do not go together.
    """
    model = network(options, images.shape[1], images.shape[2], len(classes), np.random.default_rng(0))
    with model.eval().inference():
        model(stand_ins(options, images[:1]), 0, 0 if classes else None)


def stand_ins(options: Namespace, images: np.ndarray) -> np.ndarray:
    """What has the shape of a network's input: a second network sees two pictures at once."""
    return np.repeat(prepare_images(images), 2 if options.small else 1, axis=1)


def as_shown(images: np.ndarray, options: Namespace, rng: np.random.Generator) -> np.ndarray:
    """Pictures uint8 as training shows them, prepared, and mirrored and moved at random if the options say so."""
    clean = prepare_images(images)
    if options.random_flip:
        clean = random_flip(clean, rng)
    return random_shift(clean, options.random_shift, rng) if options.random_shift else clean


def held_back(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures to train on, and which to judge by: one in HELD_BACK, at most 256. Of too few, all are for both."""
    order, judged = rng.permutation(count), min(count // HELD_BACK, 256)
    return (np.sort(order[judged:]), order[:judged]) if judged else (order, order)


def save(
    ranks: Ranks, folder: Path, model: hcrot.UNet2dModel, scheduler: Any, ema: hcrot.EMA, state: dict[str, Any], step: int, seconds: float,
    limit: int,
) -> None:  # fmt: skip
    """folder/checkpoint, and if ``limit`` is above 1 the latest ones also as checkpoint-<step>, so many of them."""
    ranks.check_equal("the weights", [*(parameter.data for parameter in model.parameters()), *ema.averages])
    progress = {"step": step, "seconds": seconds}
    with ranks.first_goes_ahead():
        if ranks.first:
            hcrot.save_checkpoint(folder / "checkpoint", model, scheduler, ema=ema, state=state, progress=progress)
            keep_copy(folder, step, limit)


def keep_copy(folder: Path, step: int, limit: int) -> None:
    latest, copy = folder / "checkpoint", folder / f"checkpoint-{step}"
    if limit > 1 and not copy.exists():
        unfinished = folder / ".checkpoint.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(latest, unfinished)
        unfinished.rename(copy)
        kept = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
        for old in kept[: len(kept) - limit]:
            shutil.rmtree(old)


def draw(model: hcrot.UNet2dModel, scheduler: Any, classes: list[str], options: Namespace, path: Path, progress: bool = True) -> None:
    """A row of pictures for each of these classes, the first ones of the network's; the same noise each time."""
    labels = np.arange(len(classes)).repeat(SAMPLES) if classes else None
    null = (model.config["num_class_embeds"] or 1) - 1
    guided: dict[str, Any] = {"guidance_scale": options.guidance_scale, "null_label": null} if classes and options.label_dropout else {}
    sampler = sampler_of(BEST, scheduler)
    rng = np.random.default_rng([options.seed, 3])
    how: dict[str, Any] = {
        "class_labels": labels,
        "batch_size": None if classes else 4 * SAMPLES,
        "num_inference_steps": options.inference_steps,
        "progress": progress,
    }
    if options.small:
        first, its_scheduler = hcrot.pipelines.load(path.parent / SMALL / "checkpoint")
        pictures = cascade((first.eval(), sampler_of(BEST, its_scheduler)), (model, sampler), generator=rng, guided=guided, **how)
    else:
        pictures = hcrot.pipelines.sample(model, sampler, generator=rng, **guided, **how)
    image_grid(pictures, path, columns=SAMPLES, row_labels=classes or None)


def learned(
    model: hcrot.UNet2dModel,
    scheduler: hcrot.DDPMScheduler,
    ema: hcrot.EMA,
    images: np.ndarray,
    labels: np.ndarray,
    judged: np.ndarray,
    classes: list[str],
    options: Namespace,
    folder: Path,
    part: str = "whole",
) -> tuple[ErrorByTime, ErrorByTime]:
    """Say and draw what a run has learned from pictures uint8 (N, C, H, W), judged by those whose numbers are ``judged``: errors of the
    weights and of their averages."""
    history = read_metrics(folder)
    plot_loss([n["step"] for n in history], [n["loss"] for n in history], folder / "loss.png", title="Mean squared error of the prediction")
    pictures, kinds = prepare_images(images[judged]), labels[judged] if classes else None
    pictures, condition = parted(pictures, options.small, options.seed) if options.small else (pictures, None)
    held = len(judged) < len(images)
    how: dict[str, Any] = {"generator": options.seed, "condition": condition}
    if part != "large":  # at the noisiest time it sees a small picture, so it does not begin from nothing
        rng = np.random.default_rng([options.seed, 4])
        rest = np.setdiff1d(np.arange(len(images)), judged) if held else judged
        order = np.resize(rng.permutation(rest), np.clip(len(rest), *KNOWN))
        parts = np.array_split(order, len(order) // 64)
        shown = ((as_shown(images[rows], options, rng), labels[rows] if classes else None) for rows in parts)
        how["trained"] = training_pictures(shown, len(classes))
    raw = error_by_time(model, scheduler, pictures, kinds, **how)
    with ema.swapped_in():
        averaged = error_by_time(model, scheduler, pictures, kinds, **how)
        draw(model, scheduler, classes[:8], options, folder / "samples.png")
    lines = report(raw, averaged, float(np.mean([numbers["loss"] for numbers in history[-100:]])), held, part)
    if part != "small":
        lines.append(f"Look at {folder / 'samples.png'}; to draw more: hcrot sample {folder}")
    print(*lines, sep="\n" if part == "whole" else " ")  # a run of two networks is to be read in as few lines
    return raw, averaged


def report(raw: ErrorByTime, averaged: ErrorByTime, last_losses: float, held: bool, part: str) -> list[str]:
    """What the errors say: how large they are, and, where it can be known, whether that is enough."""
    where = "pictures held back" if held else "the pictures, too few to hold any back"
    quarters = ", ".join(f"{value:.4f}" for value in averaged.quarters)
    lines = [f"Error on {where}, by quarter of the time, little noise to much: {quarters}; mean {averaged.mean:.4f} with averaged weights, "
             f"{raw.mean:.4f} with the last ones, in training {last_losses:.4f}."]  # fmt: skip
    if averaged.undertrained:
        lines.append(f"Undertrained: at the noisiest time the error is {averaged.last:.2g}, finished runs are below {averaged.enough:g}. "
                     "Pictures will be noisy or flat. Train longer: --resume --minutes, or a smaller --resolution.")  # fmt: skip
    elif averaged.undertrained is False:
        lines.append(f"Trained: at the noisiest time the error is {averaged.last:.2g}, of {averaged.enough:g} at most.")
    elif part != "large":
        lines.append("Whether it is trained cannot be said: the pictures are all the same, or at the noisiest time they still show.")
    return lines
