"""One step of the loop of hcrot/pipelines/sample.py with `ScoreSdeVeScheduler` or `ScoreSdeVpScheduler`, which have no `step`.

Predictor-corrector sampling (Song et al. 2021, arXiv:2011.13456, algorithm 1), as in diffusers' ScoreSdeVePipeline: at each time Langevin's
steps mend the distribution, then the predictor goes to the next time; the last one adds no noise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from hcrot.schedulers.base import SchedulerOutput
from hcrot.schedulers.config import checked_integer, checked_positive
from hcrot.schedulers.score_sde import ScoreSdeScheduler

__all__ = ["score_step"]


def score_step(
    predict: Callable[[np.ndarray, Any], np.ndarray],
    scheduler: ScoreSdeScheduler,
    timestep: float,
    sample: np.ndarray,
    generator: np.random.Generator,
    last: bool,
    *,
    correct_steps: int | None = None,
    snr: float | None = None,
    time_scale: float = 1.0,
) -> SchedulerOutput:
    """Correct, then predict.

    Args:
        predict: the network, of x and of `scheduler.noise_conditioning(t)`; it says the score for VE, and the noise for VP.
        last: whether the data comes next, so that the mean is returned.
        correct_steps: how often `step_correct` is called. None: as the scheduler's config says, 0 for VP.
        snr: of `step_correct`. None: its own.
        time_scale: what the network's times are in units of those of `noise_conditioning`: 999 if it learned 999 t.

    Returns:
        x', and E[x_0 | x] of the x that was predicted from.
    """
    count = scheduler.config.get("correct_steps", 0) if correct_steps is None else correct_steps
    count = checked_integer("pipelines.sample: correct_steps", count, minimum=0)
    told = scheduler.noise_conditioning(timestep) * checked_positive("pipelines.sample: time_scale", time_scale)
    x = sample
    for _ in range(count):
        x = scheduler.corrected(predict(x, told), timestep, x, generator, snr)
    output = predict(x, told)
    moved, mean = scheduler.predicted(output, timestep, x, generator)
    x0 = scheduler.sde.denoised(x, float(timestep), scheduler.score(output, timestep))
    return SchedulerOutput(mean if last else moved, x0)
