"""Pictures from pictures: a scribble that is finished, a hole that is filled, and what lies between two."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hcrot.pipelines import editing, interpolation, sample
from hcrot.pipelines.generators import GeneratorPerImage
from hcrot.pipelines.sample import Step
from hcrot.samplers import BEST, sampler_of
from hcrot.schedulers.base import NoiseScheduler
from hcrot.view.draw import Predictions, ending
from hcrot.view.messages import Request, pack
from hcrot.view.networks import Loaded, Networks
from hcrot.view.worker import Report

__all__ = ["finish", "fill", "morph", "pick"]

REPEATS = 4  # of each step of RePaint: hole and rim agree better, and it takes so many times longer


def finish(networks: Networks, request: Request, report: Report) -> None:
    """SDEdit: noise is added to the scribble up to a level, and removed again. Reports "step"s, and "images" at the end."""
    loaded, rng = networks.get(request), seeded(request)
    images, labels = several(loaded, request)
    level, sampler = request.whole("level", 0, len(loaded.scheduler) - 1), loaded.sampler(request)
    drawn = editing.sdedit(
        loaded.model, sampler, images, start_timestep=max(level, lowest(loaded, request)), generator=rng,
        after_step=reporting(loaded, sampler, report), **loaded.how(request, labels, sampler),
    )  # fmt: skip
    end(ending(loaded, drawn, labels, request.values["sampler"], request, rng), report)


def fill(networks: Networks, request: Request, report: Report) -> None:
    """RePaint: what is known of the picture stays, the hole is drawn anew. Reports "step"s, and "images" at the end."""
    loaded, rng = networks.get(request), seeded(request)
    images, labels = several(loaded, request)
    hole = request.pixels("hole", loaded.shape[1:]) > 127
    if not hole.any():
        raise ValueError("there is no hole: rub out a part of the picture first")
    sampler = sampler_of("ddpm", loaded.scheduler)  # RePaint needs a sampler that keeps nothing from step to step
    drawn = editing.inpaint(
        loaded.model, sampler, images, ~hole, repeats=REPEATS, generator=rng, after_step=reporting(loaded, sampler, report),
        **loaded.how(request, labels, sampler),
    )  # fmt: skip
    end(ending(loaded, drawn, labels, BEST, request, rng), report)


def morph(networks: Networks, request: Request, report: Report) -> None:
    """What lies between two pictures, which are noised to a level with the same noise, mixed there, and drawn from there on.

    Each is the first picture of a class and a seed; ``labels`` has the two. Those between have no class, or, where the network
    knows no picture without one, that of the nearer end.
    """
    loaded = networks.get(request)
    labels, count = loaded.labels(request), request.whole("count", 3, 15)
    if labels is not None and len(labels) != 2:
        raise ValueError(f"labels must be two classes, got {len(labels)}")
    seeds = [request.whole("seed", 0, 2**31), request.whole("other_seed", 0, 2**31)]
    ends = [first_picture(loaded, None if labels is None else labels[k : k + 1], seed, request) for k, seed in enumerate(seeds)]
    level = max(request.whole("level", 0, len(loaded.scheduler) - 1), lowest(loaded, request))
    weights, sampler = np.linspace(0, 1, count), sampler_of("ddim", loaded.scheduler)
    options = loaded.how(request, None, sampler)
    if labels is not None:
        between = np.where(weights < 0.5, *labels) if loaded.null is None else np.full(count, loaded.null)
        options["class_labels"] = np.where(weights == 0, labels[0], np.where(weights == 1, labels[1], between))
    drawn = interpolation.interpolate(
        loaded.model, sampler, *ends, timestep=level, weights=list(weights), generator=seeded(request),
        after_step=reporting(loaded, sampler, report), **options,
    )  # fmt: skip
    row = np.concatenate([ends[0][None], drawn[1:-1], ends[1][None]])
    noise = GeneratorPerImage([seeded(request) for _ in row])  # the same for all: what is alike stays alike
    end(ending(loaded, row, options.get("class_labels"), "ddim", request, noise), report)


def pick(networks: Networks, request: Request, report: Report) -> None:
    """A picture of the network's own to scribble on, or to rub out. Reports "images"."""
    loaded = networks.get(request)
    picture = first_picture(loaded, loaded.labels(request), request.whole("seed", 0, 2**31), request)
    report({"kind": "images", "images": pack(picture[None])})


def first_picture(loaded: Loaded, labels: np.ndarray | None, seed: int, request: Request) -> np.ndarray:
    """(C, H, W), drawn by DDIM without noise in its steps: the same seed, the same picture, with whatever number of steps nearly."""
    sampler = sampler_of("ddim", loaded.scheduler)
    options = loaded.how(request, None if labels is None else labels[:1], sampler)
    return sample(loaded.model, sampler, generator=[np.random.default_rng([seed, 0])], **options)[0]


def several(loaded: Loaded, request: Request) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture of a request as often as answers are wanted, in [-1, 1], and their labels."""
    count = request.whole("count", 1, 8)
    pixels = request.pixels("picture", loaded.shape)
    image = np.broadcast_to(pixels.astype(np.float32) / 127.5 - 1, (count, *loaded.shape))
    labels = loaded.labels(request)
    return np.ascontiguousarray(image), None if labels is None else np.resize(labels, count)


def lowest(loaded: Loaded, request: Request) -> int:
    """The lowest of the timesteps that so many steps visit, below which no loop can begin."""
    return -(-len(loaded.scheduler) // request.whole("steps", 1, len(loaded.scheduler)))


def seeded(request: Request) -> np.random.Generator:
    return np.random.default_rng(request.whole("seed", 0, 2**31))


def end(frames: Iterator[dict[str, Any]], report: Report) -> None:
    """Report the steps of the second network, if there is one, and the pictures."""
    for index, frame in enumerate(frames):
        if frame["t"] >= 0:
            report({"kind": "step", "step": index, **frame})
    report({"kind": "images", "images": frame["x"]})


def reporting(loaded: Loaded, sampler: NoiseScheduler, report: Report) -> Callable[[Step], None]:
    """For ``after_step``: it reports each step and changes nothing."""
    count, predictions = 0, Predictions(loaded.scheduler, sampler)

    def after(step: Step) -> None:
        nonlocal count
        report({"kind": "step", "step": count, **predictions.frame(step)})
        count += 1

    return after
