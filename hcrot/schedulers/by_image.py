"""A timestep for each image, for the schedulers whose step remembers nothing of the steps before."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from hcrot.schedulers.base import SchedulerOutput

__all__ = ["one_timestep_per_image"]


class _RowsOfNoise(np.random.Generator):
    """Draws for the whole batch, once, and gives the noise of some images: so image k gets what it would get were all at one level."""

    def __init__(self, generator: np.random.Generator, shape: tuple[int, ...]):
        super().__init__(generator.bit_generator)
        self.generator, self.shape, self.rows = generator, shape, np.arange(0)
        self.drawn: np.ndarray | None = None

    # NumPy's has more arguments, which no scheduler needs.
    def standard_normal(self, size: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:  # type: ignore[override]
        if self.drawn is None:
            self.drawn = self.generator.standard_normal(self.shape, dtype=dtype)
        return self.drawn[self.rows]


def one_timestep_per_image(step: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates `step` of a `SigmaScheduler`: timestep may be (B,), and images of one timestep are then stepped together.

    The numbers are those of image by image, to the bit. Such a step belongs to no walk: the next one may be at any timestep.
    """
    signature = inspect.signature(step)

    @functools.wraps(step)
    def stepped(self: Any, *arguments: Any, **options: Any) -> Any:
        given = signature.bind(self, *arguments, **options).arguments
        timestep, sample, generator = np.asarray(given["timestep"]), given["sample"], given.get("generator")
        if timestep.ndim == 0 or timestep.shape != np.shape(sample)[:1]:
            return step(self, *arguments, **options)
        arrays = {name: given[name] for name in ("model_output", "noise", "pred_original_sample") if given.get(name) is not None}
        self._check_timesteps_are_set("step")
        self._check_arrays("step", sample=sample, **arrays)
        self._check_source_of_noise(generator, given.get("noise"))
        self._indices("step", timestep)
        shared = None if generator is None else _RowsOfNoise(generator, sample.shape)
        moved, estimates = np.empty_like(sample), np.empty_like(sample)
        for t in np.unique(timestep):
            (rows,) = np.nonzero(timestep == t)
            if shared is not None:
                shared.rows = rows
            self._restart()
            own = {name: array[rows] for name, array in {**arrays, "sample": sample}.items()}
            output = step(**{**given, **own, "timestep": t, "generator": shared, "return_dict": True})
            moved[rows] = output.prev_sample
            if output.pred_original_sample is not None:
                estimates[rows] = output.pred_original_sample
        self._restart()
        return SchedulerOutput(moved, None if output.pred_original_sample is None else estimates).returned(given.get("return_dict", True))

    return stepped
