"""Pictures from noise, step by step, in columns that differ in what one has changed."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import hcrot
from hcrot.pipelines.cascade import enlarging
from hcrot.pipelines.generators import GeneratorPerImage
from hcrot.pipelines.sample import Step
from hcrot.samplers import sampler_of
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.predictions import predicted_original_sample
from hcrot.view.messages import Request, pack
from hcrot.view.networks import Loaded, Networks
from hcrot.view.worker import Report

__all__ = ["Predictions", "draw", "ending", "warm_up"]

COLUMNS = 4


def draw(networks: Networks, request: Request, report: Report) -> None:
    """Draw the same digits in each column; the columns take turns, so that they appear side by side.

    Reports a "step" for each step of each column (see :meth:`Predictions.frame`), and at last the "picture" itself. Where a second network
    enlarges what the first one has drawn, its steps follow those of the first.
    """
    loaded = networks.get(request)
    labels = loaded.labels(request)
    columns = request.parts("columns", COLUMNS)
    loops = {index: frames_of(loaded, labels, column, request) for index, column in enumerate(columns)}
    step = 0
    while loops:
        for index in list(loops):
            frame = next(loops[index], None)
            if frame is None:
                del loops[index]
            else:
                report({"kind": "step" if frame["t"] >= 0 else "picture", "column": index, "step": step, **frame})
        step += 1


def frames_of(loaded: Loaded, labels: np.ndarray | None, column: Request, request: Request) -> Iterator[dict[str, Any]]:
    """What one column shows, frame by frame. A column that cannot be drawn is refused by this call."""
    sampler = loaded.sampler(column)
    options = loaded.how(column, labels, sampler)
    count, seed = request.whole("count", 1, 12) if labels is None else len(labels), column.whole("seed", 0, 2**31)
    noise = GeneratorPerImage([np.random.default_rng([seed, index]) for index in range(count)])  # each picture its own
    loop, predictions = hcrot.pipelines.steps(loaded.model, sampler, generator=noise, **options), Predictions(loaded.scheduler, sampler)

    def frames() -> Iterator[dict[str, Any]]:
        for step in loop:
            yield predictions.frame(step)
        small = np.clip(step.prev_sample, -1, 1)
        yield from ending(loaded, small, labels, column.values["sampler"], column, noise)

    return frames()


def ending(
    loaded: Loaded, pictures: np.ndarray, labels: np.ndarray | None, sampler: str, request: Request, noise: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """The frames after the last step of the network that draws: of the second one's steps, if there is one, and of the pictures, t = -1."""
    if loaded.large:
        model, scheduler = loaded.large
        second = sampler_of(sampler, scheduler)
        predictions, steps = Predictions(scheduler, second), request.whole("steps", 1, len(scheduler))
        how: dict[str, Any] = {"num_inference_steps": steps, "class_labels": labels, "progress": False}
        enlarged, loop = enlarging(model, second, pictures, generator=noise, **how)
        for step in loop:
            yield {"second": True, **predictions.frame(step, enlarged)}
        pictures = np.clip(enlarged + step.prev_sample, -1, 1)
    packed = pack(pictures)
    yield {"t": -1, "x": packed, "x0": packed}


class Predictions:
    """What a sampler is told by the network, for the x_0 of samplers that keep theirs to themselves (multistep ones).

    Args:
        scheduler: the network's, which says what its predictions mean.
        sampler: from now on its latest prediction is noted.
    """

    def __init__(self, scheduler: NoiseScheduler, sampler: NoiseScheduler):
        self.scheduler, self.latest = scheduler, np.zeros(0)
        own = sampler.step

        @functools.wraps(own)  # the sampling loop asks what it takes
        def step(model_output: np.ndarray, *arguments: Any, **options: Any) -> Any:
            self.latest = model_output
            return own(model_output, *arguments, **options)

        sampler.step = step  # type: ignore[method-assign]

    def frame(self, step: Step, enlarged: np.ndarray | float = 0.0) -> dict[str, Any]:
        """What the page shows of a step: t, x_t, and the x_0 that is predicted. x_t is scaled where its noise is not of size 1.

        What the second network draws comes to ``enlarged``, the first one's pictures.
        """
        size = max(1.0, float(np.sqrt(np.mean(np.square(step.sample)))))
        x0 = step.pred_original_sample
        if x0 is None:
            x0 = predicted_original_sample(self.scheduler, self.latest, step.timestep, step.sample)
        return {"t": float(step.timestep), "x": pack(enlarged + step.sample / size), "x0": pack(np.clip(enlarged + x0, -1, 1))}


def warm_up(networks: Networks) -> None:
    """Load the bundled network and draw one picture with it, so that kernels are compiled before somebody waits for them."""
    request = Request({"network": "digits", "labels": [0], "columns": [{"sampler": "ddim", "steps": 2, "guidance": 2, "seed": 0}]})
    draw(networks, request, lambda message: None)
