"""Learn to draw pictures like those in a folder: the training loop of `hcrot train`, flat, to be read and to be changed.

    python examples/train_images.py flowers                    thirty minutes; subfolders are classes
    python examples/train_images.py flowers --resume           go on with a run that was stopped
    python examples/train_images.py flowers --resolution 32 --num-epochs 100 --random-flip --prediction-type v_prediction

Options are those of diffusers' train_unconditional.py, also with underscores; --help lists what differs. They and the files in
runs/flowers/ are those of `hcrot train`. So `hcrot sample runs/flowers` draws, and `hcrot export` writes a pipeline for diffusers. Either
program goes on with a run of the other, and with one batch to a step both come to the same weights, bit for bit.

Read `train`, and below it how `main` calls it: once, or for pictures of 64 pixels and more twice. Then the first network learns to draw
them small, and the second one to enlarge them: it learns what the small picture, enlarged, lacks, and sees that beside the noise
(hcrot/pipelines/cascade.py). Left to `hcrot train` are several processes, TensorBoard, and steps that are counted again while time passes.
"""

import json
import math
import sys
import time
from argparse import Namespace
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from tqdm import tqdm

import hcrot
from hcrot.commands.train import CHANGEABLE, OPTIONS, add_options, choose_network, load_data, networks, saved_options, share_work
from hcrot.commands.train_loop import ASKED_TO_STOP, TRAINING, draw, held_back, learned, lr_schedule, network, save, stand_ins, try_out
from hcrot.data import Batches, prepare_images, random_flip, random_shift
from hcrot.files.json_and_arrays import write_json
from hcrot.files.runs import lock_run, open_metrics
from hcrot.files.wishes import SamplesOnTheWay, forget_wishes, rate_asked_for, stop_asked_for
from hcrot.pipelines.cascade import parted
from hcrot.tools.arguments import Parser, RawText, refusing_bad_input
from hcrot.tools.plotting import rehearse
from hcrot.tools.stopping import end_on_signals, stop_request
from hcrot.training.distributed import Ranks, one_process
from hcrot.training.progress import seconds_of_a_batch, target_of

ALONE = Ranks()  # one process


def train(
    images: np.ndarray, labels: np.ndarray, classes: list[str], options: Namespace, folder: Path, resume: bool, part: str
) -> None:  # fmt: skip
    """Train on pictures uint8 (N, C, H, W) and labels (N,) of so many classes, or of none; leave checkpoint and pictures in the folder.

    ``part`` is "whole", or of two networks "small" or "large"; of the large one ``options.small`` is the size of the small pictures.
    """

    # the network, the noise, and what makes the network learn ---------------------------------------------------------

    rng = np.random.default_rng(options.seed)
    rows, judged = held_back(len(images), np.random.default_rng([options.seed, 1]))
    model = network(options, images.shape[1], images.shape[2], len(classes), rng)
    noising = {"beta_schedule": options.ddpm_beta_schedule, "prediction_type": options.prediction_type}
    scheduler = hcrot.DDPMScheduler(options.ddpm_num_steps, **noising)
    batches = Batches(rows, batch_size=min(options.train_batch_size, len(rows)), generator=rng)
    parts = options.gradient_accumulation_steps
    adam = {"betas": (options.adam_beta1, options.adam_beta2), "eps": options.adam_epsilon, "weight_decay": options.adam_weight_decay}
    optimizer = hcrot.AdamW(model.parameters(), lr=options.learning_rate, **adam)
    warmup = {"use_ema_warmup": True, "inv_gamma": options.ema_inv_gamma, "power": options.ema_power}
    ema = hcrot.EMA(model.parameters(), options.ema_max_decay, **warmup)

    first = rows[: batches.batch_size]  # measured in any case, because dropout draws numbers for it
    duration = seconds_of_a_batch(model, stand_ins(options, images[first]), 0, labels[first] if classes else None)

    state, step, seconds = {"optimizer": optimizer, "batches": batches, "rng": rng}, 0, 0.0
    if resume and (folder / "checkpoint").is_dir():
        step, seconds = hcrot.load_checkpoint(folder / "checkpoint", model, ema=ema, state=state).values()
        optimizer.initial_lr = options.learning_rate  # which may have been given anew
    if options.num_epochs is None:  # as many as there is time for
        options.num_epochs = (step * parts + TRAINING * 60 * options.minutes / duration) / len(batches)
    steps = max(1, math.ceil(options.num_epochs * len(batches) / parts))
    schedule = lr_schedule(options, optimizer, step, steps)
    every = max(1, round(options.save_images_epochs * len(batches) / parts)) if options.save_images_epochs else math.ceil(steps / 5)
    asked = folder.parent if part == "small" else folder  # where wishes are looked for, and where samples on the way go
    samples = SamplesOnTheWay(asked, every, "small-" if part == "small" else "")
    write_json(folder / "config.json", vars(options))
    write_json(folder / "classes.json", {"classes": classes})
    rehearse(folder)  # what would fail after training fails now

    # the training loop ------------------------------------------------------------------------------------------------

    print(f"{model.num_parameters():,} parameters; {steps:,} steps of {parts * batches.batch_size} pictures. Into {folder}/")
    stream, average = chain.from_iterable(repeat(batches)), 0.0  # epoch after epoch
    bar = tqdm(total=steps, initial=step, unit="step", disable=sys.stderr is None)
    with open_metrics(folder, step) as metrics, stop_request() as stop, bar:
        while step < steps and not stop:
            start, loss = time.perf_counter(), 0.0
            for _ in range(parts):
                [rows] = next(stream)
                clean = prepare_images(images[rows])
                if options.random_flip:
                    clean = random_flip(clean, rng)
                if options.random_shift:
                    clean = random_shift(clean, options.random_shift, rng)
                clean, enlarged = parted(clean, options.small, rng) if options.small else (clean, clean[:, :0])

                noise = rng.standard_normal(clean.shape, dtype=np.float32)
                timesteps = rng.integers(len(scheduler), size=len(clean))
                noisy = scheduler.add_noise(clean, noise, timesteps)
                target = target_of(scheduler, options.prediction_type, clean, noise, timesteps)
                kinds = hcrot.drop_labels(labels[rows], len(classes), options.label_dropout, rng) if classes else None

                prediction = model(np.concatenate([noisy, enlarged], axis=1), timesteps, kinds)
                loss_of_batch, dout = hcrot.mse_loss(prediction, target)
                model.backward(dout / np.float32(parts))  # adds to the gradients
                loss += loss_of_batch / parts
            lr = optimizer.lr
            norm = optimizer.step(max_grad_norm=options.max_grad_norm or math.inf, ema=ema, zero_grad=True)
            if norm is None or not math.isfinite(loss + norm):
                raise ValueError(f"diverged after step {step} (loss {loss}, gradient norm {norm}): try a smaller --learning-rate")
            schedule.step()

            step, seconds, average = step + 1, seconds + time.perf_counter() - start, 0.98 * (average or loss) + 0.02 * loss
            numbers = {"step": step, "epoch": step * parts / len(batches), "loss": loss, "lr": lr, "grad_norm": norm, "seconds": seconds}
            metrics.write(json.dumps(numbers) + "\n")
            bar.set_postfix_str(f"loss {average:.4f}", refresh=False)
            bar.update()
            if stop_asked_for(asked):
                stop.exit_code = stop.exit_code or ASKED_TO_STOP
            rate = rate_asked_for(asked)
            if rate is not None:
                options.learning_rate = optimizer.initial_lr = rate
                schedule = lr_schedule(options, optimizer, step, steps)
                write_json(folder / "config.json", vars(options))
            if step % options.checkpointing_steps == 0:
                save(ALONE, folder, model, scheduler, ema, state, step, seconds, options.checkpoints_total_limit)
            picture = samples.due(step) if step < steps and not stop else None
            if picture:
                with samples.timed(), ema.swapped_in():
                    draw(model, scheduler, classes[:3], options, picture, progress=False)
        save(ALONE, folder, model, scheduler, ema, state, step, seconds, options.checkpoints_total_limit)
    if stop:
        with suppress(OSError):  # the terminal may be gone
            print(f"Stopped and saved after step {step:,} of {steps:,}. To go on: the same command with --resume", flush=True)
        sys.exit(stop.exit_code)

    learned(model, scheduler, ema, images, labels, judged, classes, options, folder, part)


def main(words: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=RawText)
    parser.add_argument("data", metavar="FOLDER", help="of pictures; or one with CIFAR-10's binary files, or the words mnist or digits")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="default: runs/<name of the data>")
    anew = ", ".join(sorted(CHANGEABLE))
    parser.add_argument("--resume", action="store_true", help=f"go on with the run; only {anew} can be given anew")
    add_options(parser)
    arguments = parser.parse_args(words)
    given = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
    if {"minutes", "num_epochs"} <= given.keys():
        parser.error("--minutes and --num-epochs exclude each other")

    folder = arguments.output or Path("runs") / Path(arguments.data).resolve().name
    with refusing_bad_input(parser.prog), one_process("use hcrot train"):
        if not arguments.resume and (folder / "config.json").exists():
            raise FileExistsError(f"{folder} already holds a run: go on with it (--resume) or choose another folder (--output)")
        with lock_run(folder, arguments.resume):
            forget_wishes(folder)
            options = saved_options(folder, given) if arguments.resume else Namespace(**{n: o[0] for n, o in OPTIONS.items()} | given)
            share_work(options, ALONE)  # none to share with: threads, and one batch to a step unless options say otherwise
            images, labels, classes = load_data(arguments.data, options)
            classes = classes if options.classes else []
            if not arguments.resume:
                choose_network(options, images.shape[2])
            todo = networks(options, given, images, folder, arguments.resume)  # one, or two after each other
            for _, its_options, pictures, place in todo[1:]:
                try_out(its_options, pictures, classes)  # what would fail when the first one has learned fails now
                write_json(place / "config.json", vars(its_options))  # and what is killed before that goes on as it was asked for
            for part, its_options, pictures, place in todo:
                place.mkdir(exist_ok=True)
                train(pictures, labels, classes, its_options, place, arguments.resume, part)


if __name__ == "__main__":
    end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
