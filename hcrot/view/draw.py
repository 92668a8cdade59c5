"""Pictures from noise, step by step, in columns that differ in what one has changed."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import hcrot
from hcrot.pipelines.sample import Step
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.predictions import predicted_original_sample
from hcrot.view.messages import Request, pack
from hcrot.view.networks import Loaded, Networks
from hcrot.view.worker import Report

__all__ = ["Predictions", "draw", "warm_up"]

COLUMNS = 4


def draw(networks: Networks, request: Request, report: Report) -> None:
    """Draw the same digits in each column; the columns take turns, so that they appear side by side.

    Reports a "step" for each step of each column (see :meth:`Predictions.frame`), and at last the "picture" itself.
    """
    loaded = networks.get(request)
    labels = loaded.labels(request)
    columns = request.parts("columns", COLUMNS)
    loops = {index: steps_of(loaded, labels, column, request) for index, column in enumerate(columns)}
    step = 0
    while loops:
        for index in list(loops):
            loop, predictions = loops[index]
            current = next(loop, None)
            if current is None:
                del loops[index]
                continue
            report({"kind": "step", "column": index, "step": step, **predictions.frame(current)})
            if current.prev_timestep == -1:
                picture = pack(np.clip(current.prev_sample, -1, 1))
                report({"kind": "picture", "column": index, "step": step + 1, "t": -1, "x": picture, "x0": picture})
        step += 1


def steps_of(loaded: Loaded, labels: np.ndarray | None, column: Request, request: Request) -> tuple[Iterator[Step], "Predictions"]:
    """The loop of one column, and what its sampler is told."""
    sampler = loaded.sampler(column)
    count, seed = request.whole("count", 1, 12) if labels is None else len(labels), column.whole("seed", 0, 2**31)
    generators = [np.random.default_rng([seed, index]) for index in range(count)]  # each picture its own, however many are drawn
    predictions = Predictions(loaded, sampler)
    return hcrot.pipelines.steps(loaded.model, sampler, generator=generators, **loaded.how(column, labels, sampler)), predictions


class Predictions:
    """What a sampler is told by the network, for the x_0 of samplers that keep theirs to themselves (multistep ones).

    Args:
        loaded: the network, whose scheduler says what its predictions mean.
        sampler: from now on its latest prediction is noted.
    """

    def __init__(self, loaded: Loaded, sampler: NoiseScheduler):
        self.scheduler, self.latest = loaded.scheduler, np.zeros(0)
        own = sampler.step

        @functools.wraps(own)  # the sampling loop asks what it takes
        def step(model_output: np.ndarray, *arguments: Any, **options: Any) -> Any:
            self.latest = model_output
            return own(model_output, *arguments, **options)

        sampler.step = step  # type: ignore[method-assign]

    def frame(self, step: Step) -> dict[str, Any]:
        """What the page shows of a step: t, x_t, and the x_0 that is predicted. x_t is scaled where its noise is not of size 1."""
        size = max(1.0, float(np.sqrt(np.mean(np.square(step.sample)))))
        x0 = step.pred_original_sample
        if x0 is None:
            x0 = predicted_original_sample(self.scheduler, self.latest, step.timestep, step.sample)
        return {"t": float(step.timestep), "x": pack(step.sample / size), "x0": pack(np.clip(x0, -1, 1))}


def warm_up(networks: Networks) -> None:
    """Load the bundled network and draw one picture with it, so that kernels are compiled before somebody waits for them."""
    request = Request({"network": "digits", "labels": [0], "columns": [{"sampler": "ddim", "steps": 2, "guidance": 2, "seed": 0}]})
    draw(networks, request, lambda message: None)
