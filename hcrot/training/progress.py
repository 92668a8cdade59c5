"""How long training takes, and how far a diffusion model has come: its error at early and late times."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcrot.init import as_generator
from hcrot.module import Module
from hcrot.schedulers.base import NoiseScheduler

__all__ = [
    "ErrorByTime", "StepsInTime", "TrainingPictures", "error_by_time", "errors_by_quarter", "means_by_quarter", "seconds_of_a_batch",
    "target_of", "training_pictures",
]  # fmt: skip

ENOUGH = {"epsilon": 0.005, "v_prediction": 0.05, "sample": 0.05}
"""Of the error in excess at the end of time: more than this, and samples begin wrong. Of noise, finished runs on MNIST have
0.001; one on colour pictures that drew coloured noise had 0.026. Of v, one that drew colours without shapes had 0.068, one
that drew faces and animals at 16x16 0.026."""

PURE_NOISE = 1e-3  # abar_T of a schedule whose last x_t is taken for noise alone; "laplace" has 0.03, and 100 times of "linear" 0.36
FLAT = 1e-4  # a variance below this is that of pictures which are all the same


@dataclass(frozen=True)
class ErrorByTime:
    """What :func:`error_by_time` has measured.

    Attributes:
        quarters: the mean squared error of the prediction in each quarter of the time, early (little noise) to late.
        last: the error at the time from which sampling starts, in excess of what it has to be there; None where nobody can say.
        enough: what ``last`` may be in a network that has learned enough to draw.
    """

    quarters: tuple[float, ...]
    last: float | None
    enough: float

    @property
    def mean(self) -> float:
        """Over all times."""
        return sum(self.quarters) / len(self.quarters)

    @property
    def undertrained(self) -> bool | None:
        """Whether pictures will begin from a wrong guess, and look like noise or like a flat colour; None if ``last`` is."""
        return None if self.last is None else not self.last <= self.enough


@dataclass(frozen=True)
class TrainingPictures:
    """What there was to learn of a picture that noise hides.

    Attributes:
        images: (M, C, H, W), some of the pictures that a network was trained on. labels: (M,), if it was told their classes.
        means: (K, C, H, W), the mean picture of each class; without classes K = 1.
    """

    images: np.ndarray
    labels: np.ndarray | None
    means: np.ndarray

    def variances(self) -> tuple[float, float]:
        """Of a pixel: around the mean of the picture's class, and around the mean of all of these pictures."""
        kinds = self.labels if self.labels is not None else np.zeros(len(self.images), np.int64)
        overall = self.images.mean(axis=0, dtype=np.float64)
        within = [np.square(image - self.means[kind], dtype=np.float64).mean() for image, kind in zip(self.images, kinds, strict=True)]
        return float(np.mean(within)), float(np.mean([np.square(image - overall).mean() for image in self.images]))


def training_pictures(shown: Iterable[tuple[np.ndarray, np.ndarray | None]], classes: int, keep: int = 256) -> TrainingPictures:
    """:class:`TrainingPictures` from batches, in random order, as training shows them.

    Args:
        shown: pictures (B, C, H, W) and labels (B,), or None for these; at least one batch. Only one is in memory at a time.
        classes: K, or 0.
        keep: M, or all if there are fewer.
    """
    sums, counts = np.zeros(()), np.zeros(max(classes, 1))
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for pictures, kinds in shown:
        member = np.eye(max(classes, 1))[kinds if kinds is not None else np.zeros(len(pictures), np.int64)]
        sums, counts = sums + np.tensordot(member, pictures, (0, 0)), counts + member.sum(axis=0)
        if sum(len(kept) for kept in images) < keep:
            images.append(pictures)
            labels += [] if kinds is None else [kinds]
    means = (sums / np.maximum(counts, 1)[:, None, None, None]).astype(images[0].dtype)
    return TrainingPictures(np.concatenate(images)[:keep], np.concatenate(labels)[:keep] if labels else None, means)


def error_by_time(
    model: Module,
    scheduler: NoiseScheduler,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    generator: np.random.Generator | int,
    batch_size: int = 64,
    condition: np.ndarray | None = None,
    trained: TrainingPictures | None = None,
) -> ErrorByTime:
    """The error of a noise-predicting network (or one of v or x_0, as the scheduler's ``prediction_type`` says) by time.

        e(t) = E |m(x_t, t) - target|^2 / D,    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise

    Each image is noised once in each quarter, at times spread evenly. ``last`` is about the end of time, T, where x_T is nearly all noise.
    There the most that can be said of x_0 is the mean mu of its class, and who says that has the error

        e*(T) = w E |x_0 - mu|^2 / D,    w = 1 of x_0,    1 / (1 - abar_T) of v,    abar_T / (1 - abar_T), nearly 0, of noise

    What is above that is ``last``; of x_0 and v it is a share of the variance of the pictures. An undertrained network has a large one long
    after its loss looks small, and sampling starts there. It is measured on the pictures that were trained on. These cannot be learned by
    heart from x_T, their mean is what is there to be learned, and so few as two are enough: of a network that says a + mu they make
    ``last`` |a|^2, whatever the pictures. Of few others the mean would be another one by chance.

    Args:
        model: called as ``model(x_t, t)`` or ``model(x_t, t, labels)``.
        scheduler: that it was trained with.
        images: (N, C, H, W) in [-1, 1] that were not trained on, if there are such.
        labels: (N,), for a model with classes.
        generator: of the noise, or its seed; with the same seed two networks are compared on the same noise.
        batch_size: images at a time.
        condition: (N, K, H, W), joined to x_t along channels, for a network that sees other images besides.
        trained: from :func:`training_pictures`. There is no ``last`` without them, for a network with a condition, which says something
            of x_0, for pictures that are all the same, and for a scheduler at whose last time a picture still shows.

    Raises:
        ValueError: no images.
    """
    if len(images) == 0:
        raise ValueError("error_by_time: expected at least one image, got none")
    rng = as_generator("error_by_time", generator)
    kind, total = scheduler.config["prediction_type"], len(scheduler)

    def error(clean: np.ndarray, labels: np.ndarray | None, t: np.ndarray) -> float:
        squares = 0.0
        for start in range(0, len(clean), batch_size):
            rows = slice(start, start + batch_size)
            x = clean[rows]
            noise = rng.standard_normal(x.shape).astype(x.dtype)
            noisy = scheduler.add_noise(x, noise, t[rows])
            inputs: list[Any] = [noisy if condition is None else np.concatenate([noisy, condition[rows]], axis=1), t[rows]]
            target = target_of(scheduler, kind, x, noise, t[rows])
            with model.inference():
                output = model(*inputs) if labels is None else model(*inputs, labels[rows])
            squares += float(np.square(output[:, : x.shape[1]] - target, dtype=np.float64).sum())
        return squares / clean.size

    spread = (np.arange(len(images)) + 0.5) / len(images)
    quarters = tuple(error(images, labels, ((quarter + spread) * total / 4).astype(np.int64)) for quarter in range(4))
    left, last = float(scheduler.alphas_cumprod[-1]), None
    if trained is not None and condition is None and left < PURE_NOISE:
        within, variance = trained.variances()
        unavoidable = within * {"epsilon": left / (1 - left), "v_prediction": 1 / (1 - left), "sample": 1}[kind]
        scale = 1.0 if kind == "epsilon" else variance
        if scale > FLAT:
            at_the_end = error(trained.images, trained.labels, np.full(len(trained.images), total - 1))
            last = (at_the_end - unavoidable) / scale
    return ErrorByTime(quarters, last, ENOUGH[kind])


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
