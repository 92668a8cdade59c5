"""How long training takes, and how far a diffusion model has come: its error at early and late times."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcrot.init import as_generator
from hcrot.module import Module
from hcrot.schedulers.base import NoiseScheduler

__all__ = ["ErrorByTime", "StepsInTime", "error_by_time", "errors_by_quarter", "means_by_quarter", "seconds_of_a_batch", "target_of"]

ENOUGH = {"epsilon": 0.005, "v_prediction": 0.08, "sample": 0.08}
"""Of the error in excess at the end of time: more than this, and samples begin wrong. Of noise, finished runs on MNIST have
0.001; one on colour pictures that drew coloured noise had 0.026. Of v, one that drew colours without shapes had 0.10, one
that drew faces and animals at 16x16 0.074."""


@dataclass(frozen=True)
class ErrorByTime:
    """What :func:`error_by_time` has measured.

    Attributes:
        quarters: the mean squared error of the prediction in each quarter of the time, early (little noise) to late.
        last: the error at the time from which sampling starts, in excess of what it has to be there.
        enough: what ``last`` may be in a network that has learned enough to draw.
    """

    quarters: tuple[float, ...]
    last: float
    enough: float

    @property
    def mean(self) -> float:
        """Over all times."""
        return sum(self.quarters) / len(self.quarters)

    @property
    def undertrained(self) -> bool:
        """Whether pictures will begin from a wrong guess, and look like noise or like a flat colour."""
        return not self.last <= self.enough


def error_by_time(
    model: Module,
    scheduler: NoiseScheduler,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    generator: np.random.Generator | int,
    batch_size: int = 64,
    condition: np.ndarray | None = None,
) -> ErrorByTime:
    """The error of a noise-predicting network (or one of v or x_0, as the scheduler's ``prediction_type`` says) by time.

        e(t) = E |m(x_t, t) - target|^2 / D,    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise

    Each image is noised once in each quarter, at times spread evenly, and once at the end of time. At the end x_t is nearly all noise:
    a network that predicts noise can copy it, e(T) -> 0; one that predicts x_0 or v can say no more than the mean image, e(T) -> Var(x_0).
    What is above that is ``last``. An undertrained network has a large one long after its loss looks small, and sampling starts there.

    Args:
        model: called as ``model(x_t, t)`` or ``model(x_t, t, labels)``.
        scheduler: that it was trained with.
        images: (N, C, H, W) in [-1, 1] that were not trained on, if there are such.
        labels: (N,), for a model with classes.
        generator: of the noise, or its seed; with the same seed two networks are compared on the same noise.
        batch_size: images at a time.
        condition: (N, K, H, W), joined to x_t along channels, for a network that sees other images besides.

    Raises:
        ValueError: no images.
    """
    if len(images) == 0:
        raise ValueError("error_by_time: expected at least one image, got none")
    rng = as_generator("error_by_time", generator)
    kind, total = scheduler.config["prediction_type"], len(scheduler)
    spread = (np.arange(len(images)) + 0.5) / len(images)
    levels = [(quarter + spread) * total / 4 for quarter in range(4)] + [np.full(len(images), total - 1)]
    errors = []
    for times in levels:
        t, squares = times.astype(np.int64), 0.0
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            clean = images[rows]
            noise = rng.standard_normal(clean.shape).astype(clean.dtype)
            noisy = scheduler.add_noise(clean, noise, t[rows])
            inputs: list[Any] = [noisy if condition is None else np.concatenate([noisy, condition[rows]], axis=1), t[rows]]
            target = target_of(scheduler, kind, clean, noise, t[rows])
            with model.inference():
                output = model(*inputs) if labels is None else model(*inputs, labels[rows])
            squares += float(np.square(output[:, : clean.shape[1]] - target, dtype=np.float64).sum())
        errors.append(squares / images.size)
    unavoidable = 0.0 if kind == "epsilon" else float(np.var(images, axis=0, dtype=np.float64).mean())
    scale = 1.0 if kind == "epsilon" else max(unavoidable, 1e-6)
    return ErrorByTime(tuple(errors[:4]), (errors[4] - unavoidable) / scale, ENOUGH[kind])


def errors_by_quarter(prediction: np.ndarray, target: np.ndarray, timesteps: np.ndarray, total: int) -> np.ndarray:
    """For each quarter of the times, little noise first, the sum of the mean squared errors of its pictures, and their number: (2, 4).

    Args:
        prediction, target: (B, C, H, W).
        timesteps: (B,), below ``total``.
    """
    errors, quarters = np.square(prediction - target, dtype=np.float64).mean(axis=(1, 2, 3)), 4 * timesteps // total
    return np.stack([np.bincount(quarters, errors, 4), np.bincount(quarters, minlength=4)])


def means_by_quarter(sums: np.ndarray) -> list[float | None]:
    """What :func:`errors_by_quarter` has summed, as means; None where there was no picture."""
    return [float(error / count) if count else None for error, count in zip(*sums, strict=True)]


def target_of(scheduler: NoiseScheduler, kind: str, clean: np.ndarray, noise: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    """What a network of this prediction_type is to say of x_t."""
    if kind == "epsilon":
        return noise
    return clean if kind == "sample" else scheduler.get_velocity(clean, noise, timesteps)


def seconds_of_a_batch(model: Module, *inputs: Any) -> float:
    """How long forward and backward of these inputs take, by the median of five; the call before them, which compiles kernels, does not
    count. The gradients are zero afterwards."""
    durations = []
    for _ in range(6):
        start = time.perf_counter()
        model.backward(model(*inputs))
        durations.append(time.perf_counter() - start)
    model.zero_grad()
    return float(np.median(durations[1:]))


class StepsInTime:
    """How many steps a run is to have that is to last for some time: at its 20th step, and when a tenth, three and six tenths of its steps
    are done, the number is planned anew. The first batches may have been slow, and other programs on the machine come and go.

    Args:
        seconds: that the run may last.
        first: the step where it begins, 0 for a new run.
        steps: its last step, as planned by the time of a batch.
    """

    def __init__(self, seconds: float, first: int, steps: int):
        self.seconds, self.first, self.began = seconds, first + 1, 0.0
        self.moments = {first + number for number in (20, *((steps - first) * tenths // 10 for tenths in (1, 3, 6))) if number > 1}

    def planned(self, step: int, steps: int) -> int:
        """The last step, after ``step`` of ``steps``; called after each. The first, in which kernels may be compiled, is not timed."""
        now = time.perf_counter()
        if step == self.first:
            self.began = now
        if step not in self.moments or step <= self.first:
            return steps
        return max(step, self.first + int((step - self.first) * self.seconds / (now - self.began)))
