"""Pseudo numerical methods: Liu, Ren, Lin & Zhao 2022, arXiv:2202.09778; [n] is their equation n.

Notation as in `hcrot.schedulers.ddim`: sampling without noise follows a differential equation in which eps(x, t), the
noise the model sees, is the slope. If eps did not change from t to s, DDIM's step with eta = 0 would be its exact solution:

    (a)  phi(x, eps, t, s) = sqrt(abar_s) x_0 + sqrt(1 - abar_s) eps,  x_0 = (x - sqrt(1 - abar_t) eps) / sqrt(abar_t)

Its coefficient of eps is a difference of nearly equal roots. Multiplied and divided by their sum it is the form of [9]:

    (b)  phi(x, eps, t, s) = sqrt(abar_s/abar_t) x
                             - (abar_s - abar_t) eps / (abar_t sqrt(1 - abar_s) + sqrt(abar_t (1 - abar_t) abar_s))

But eps does change. The classical methods know better slopes than that at the start of a step; to put their slope into
phi, which keeps x at the right level of noise, is what makes them pseudo numerical. With h = t - s and m = t - h/2 between,

    (c)  Runge & Kutta [13]:     e_1 = eps(x_t, t)                         e_2 = eps(phi(x_t, e_1, t, m), m)
                                 e_3 = eps(phi(x_t, e_2, t, m), m)         e_4 = eps(phi(x_t, e_3, t, s), s)
                                 x_s = phi(x_t, (e_1 + 2 e_2 + 2 e_3 + e_4)/6, t, s)
    (d)  Adams & Bashforth [12], with e, e', e'', e''' at t, t + h, t + 2h, t + 3h:
                                 x_s = phi(x_t, (55 e - 59 e' + 37 e'' - 9 e''')/24, t, s)

Classically both are of the fourth order. (d) takes one evaluation instead of four, but the first three steps lack the past
it needs. So the paper's algorithm 2 begins with three steps of (c), and `step` is called four times for each. With
skip_prk_steps it begins with a step that averages the slopes at both of its ends, and goes on with what past there is:

    (e)  e_1 = eps(x_t, t),  e_2 = eps(phi(x_t, e_1, t, s), s),  x_s = phi(x_t, (e_1 + e_2)/2, t, s)
    (f)  x_s = phi(x_t, (3 e - e')/2, t, s),  then  x_s = phi(x_t, (23 e - 16 e' + 5 e'')/12, t, s),  then (d)

With other predictions than epsilon it is the predictions that are combined, as in diffusers, and eps is made of the
combination by (d) of `hcrot.schedulers.ddim`, with x_t at t. That does as well for x_0, which too hardly changes in a step.
But v turns as x and eps turn into each other, so for "v_prediction" the error is of the first order in h, like DDIM's.

A run may also begin at a lower timestep, with an image noised to that level (image to image): at the first timestep of one
of the three steps of (c), not inside one, and at every timestep after them. (d) goes on with what past there is, like (f),
and begins with e alone, which is DDIM's step. (In diffusers the steps of (c) go wrong from a later beginning.)

With skip_prk_steps, and as in diffusers, (e) is taken wherever a run begins. But only the very first step has its lower end
twice in `timesteps`. Of a later one, e_2 is evaluated where the next step was to begin. So that step, from the second
timestep of the run to its third, is left out: from there on x is at a higher level of noise than the model is told.
That is kept here, for the pictures to agree; follow_timesteps=True begins with e alone, then (f), and leaves nothing out.

(b) divides by sqrt(abar_t), and no estimate of x_0 is clipped. From abar_t near 0, where the cosine schedule ends, steps of
"epsilon" go astray, also in diffusers: sampling should start lower, with "leading" spacing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, overload

import numpy as np

from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput
from hcrot.schedulers.config import checked_boolean, register_to_config

__all__ = ["ADAMS_BASHFORTH", "RUNGE_KUTTA", "RUNGE_KUTTA_STEPS", "PNDMScheduler"]

RUNGE_KUTTA = (1 / 6, 2 / 6, 2 / 6, 1 / 6)
ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))  # newest first
RUNGE_KUTTA_STEPS = 3


class PNDMScheduler(NoiseScheduler):
    """The steps (c) and (d), or (e), (f) and (d), with the arguments, defaults and numbers of diffusers' class.

    Args:
        num_train_timesteps, beta_start, beta_end, trained_betas: as in `DDPMScheduler`.
        beta_schedule: as in `DDPMScheduler`; diffusers' class knows "linear", "scaled_linear" and "squaredcos_cap_v2".
        skip_prk_steps: whether (e) and (f) replace the three Runge-Kutta steps of the start.
        set_alpha_to_one: whether abar = 1 at s = -1, the image itself, or abar_0.
        prediction_type: "epsilon", "v_prediction", or "sample", which diffusers' class does not know; see above.
        timestep_spacing, steps_offset: as in `DDPMScheduler`; see `set_timesteps` for where the steps lead.

    Attributes beside those of `NoiseScheduler`:
        timesteps: what `step` is to be called with, in order; some entries occur twice, so that there are N + 9 of them,
            or N + 1 with skip_prk_steps.
        final_alpha_cumprod: abar at s = -1, a float32.

    Example:
        >>> scheduler = hcrot.PNDMScheduler(skip_prk_steps=True)
        >>> scheduler.set_timesteps(5)
        >>> scheduler.timesteps.tolist()                          # the second is visited twice, to begin with
        [800, 600, 600, 400, 200, 0]
    """

    checks: ClassVar = {**NoiseScheduler.checks, "skip_prk_steps": checked_boolean}

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Sequence[float] | None = None,
        skip_prk_steps: bool = False,
        set_alpha_to_one: bool = False,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
    ) -> None:
        super().__init__()
        self.final_alpha_cumprod = np.float32(1) if set_alpha_to_one else self.alphas_cumprod[0]
        self.follow_timesteps = False

    def set_timesteps(
        self, num_inference_steps: int | None = None, *, timesteps: Sequence[int] | None = None, follow_timesteps: bool = False
    ) -> None:
        """Choose the steps of sampling, a number, spaced by timestep_spacing, or a list, and begin a run: forget what was before.

        Args:
            num_inference_steps: N in 1 .. T, at least 4 unless skip_prk_steps.
            timesteps: instead, N strictly descending integers in 0 .. T-1, which steps follow. (The attribute `timesteps` has more entries:
                every place where the model is evaluated.)
            follow_timesteps: False as in diffusers: each step leads T // N lower, and the middle m of (c) is half of
                that. With the spacings "linspace" and "trailing" x is then often not at the level that the model is
                told. True: each step leads to the next of the N timesteps, and from the last to the image; m lies
                halfway.

        Raises:
            TypeError, ValueError: both or neither given, N is no integer or out of range, a list that is not as described.
        """
        self._check_one_given(num_inference_steps=num_inference_steps, timesteps=timesteps)
        follow_timesteps = follow_timesteps or timesteps is not None
        spaced = self._spaced_timesteps(num_inference_steps) if timesteps is None else self._chosen_timesteps(timesteps)
        chosen: list[int] = spaced.tolist()
        stride = len(self) // len(chosen)
        following = [*chosen[1:], -1] if follow_timesteps else [t - stride for t in chosen]
        moves = list(zip(chosen, chosen, following, strict=True))  # the model is told t; the step leads from t to s
        begins: Iterable[int]  # the entries at which a run may begin
        if self.config["skip_prk_steps"]:
            if len(chosen) > 1:
                t, s = chosen[:2]
                moves.insert(1, (s, t if follow_timesteps else s + stride, s))
            begins = range(len(moves))
        elif len(chosen) <= RUNGE_KUTTA_STEPS:
            raise ValueError(
                f"PNDMScheduler.set_timesteps: {len(chosen)} steps, expected at least "
                f"{RUNGE_KUTTA_STEPS + 1}, or skip_prk_steps=True"
            )
        else:
            start = []
            for t, s in zip(chosen[:RUNGE_KUTTA_STEPS], chosen[1:], strict=False):
                middle = (t + s) // 2 if follow_timesteps else s + stride // 2
                first = middle if follow_timesteps else t - stride // 2
                start += [(t, t, first), (middle, t, middle), (middle, t, s), (s, t, s)]
            moves = start + moves[RUNGE_KUTTA_STEPS:]
            begins = (*range(0, len(start), 4), *range(len(start), len(moves)))

        self.num_inference_steps = len(chosen)
        self.timesteps = np.array([told for told, _, _ in moves])
        self.follow_timesteps = follow_timesteps
        self._stride = stride
        self._moves = [(t, s) for _, t, s in moves]
        self._begins = {self.timesteps[index]: index for index in begins}
        self._begin: int | None = None  # the entry at which the run began, None before its first step
        self._steps_taken = 0  # in this run
        self._due = 0  # the entry whose turn it is
        self._past: list[np.ndarray] = []  # e, e', e'', e''' of (d)
        self._stages: list[np.ndarray] = []  # e_1 .. e_4 of (c)
        self._start: Any = None  # x_t of the step that is under way, an array

    @overload
    def step(
        self, model_output: np.ndarray, timestep: int, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[True] = ...
    ) -> SchedulerOutput: ...

    @overload
    def step(
        self, model_output: np.ndarray, timestep: int, sample: np.ndarray, generator: np.random.Generator | None = ..., *,
        return_dict: Literal[False]
    ) -> tuple[np.ndarray, ...]: ...

    def step(
        self,
        model_output: np.ndarray,
        timestep: int,
        sample: np.ndarray,
        generator: np.random.Generator | None = None,
        *,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[np.ndarray, ...]:
        """Where the model is to be evaluated next, or, at the end of a step of (c) to (f), x_s.

        Args:
            model_output: m(sample, timestep), (B, ...) float32 or float64; kept for later steps, not to be written into.
            timestep: the next entry of `timesteps`; first any at which a run may begin, see above.
            sample: what the step before returned, or at the beginning noise, or an image noised to that timestep; of the
                same shape and dtype.
            generator: not touched, nothing is drawn; taken so that the scheduler fits into the loop of the others.
            return_dict: False returns the tuple (prev_sample,).

        Returns:
            prev_sample, (B, ...) of the dtype and memory order of sample; without an estimate of x_0.

        Raises:
            TypeError, ValueError: an array of another dtype or shape; set_timesteps not called; a timestep out of order, at
                which no run may begin, or after the last.
        """
        self._check_timesteps_are_set("step")
        timestep = self._scalar_timestep("step", timestep)
        index = self._index_due(timestep)
        self._check_arrays("step", sample=sample, model_output=model_output, sample_before=self._start)
        self._check_source_of_noise(generator)

        begin = index if self._begin is None else self._begin
        t, s = self._moves[index]
        if not self.config["skip_prk_steps"] and index < 4 * RUNGE_KUTTA_STEPS:
            stage = index % 4
            if stage == 0:
                self._start, self._stages, self._past = sample, [], [model_output, *self._past]
            self._stages.append(model_output)
            slope = _combined(RUNGE_KUTTA, self._stages) if stage == 3 else model_output
        elif self._steps_taken == 1 and self.config["skip_prk_steps"] and (begin == 0 or not self.follow_timesteps):
            slope = _combined((1 / 2, 1 / 2), [*self._past, model_output])
            if begin > 0:
                t, s = timestep + self._stride, timestep
        else:
            self._start, self._past = sample, [model_output, *self._past[:3]]
            slope = _combined(ADAMS_BASHFORTH[len(self._past) - 1], self._past)

        prev_sample = self._phi(self._start, slope, t, s)
        self._begin, self._due, self._steps_taken = begin, index + 1, self._steps_taken + 1
        return SchedulerOutput(prev_sample).returned(return_dict)

    def _index_due(self, t: int) -> int:
        """The entry of `timesteps` that comes next, which has to be this timestep, or where a run begins with it."""
        where, count = "PNDMScheduler.step", len(self.timesteps)
        if self._begin is None:
            if t in self._begins:
                return self._begins[t]
            if t not in self.timesteps:
                raise ValueError(f"{where}: timestep {t} is not one of the {count} set by set_timesteps")
            first, second, third, fourth = list(self._begins)[: RUNGE_KUTTA_STEPS + 1]
            raise ValueError(
                f"{where}: timestep {t} is inside a Runge-Kutta step, where no run may begin; expected {first}, {second}, {third}, "
                f"{fourth} or a later one"
            )
        if self._begin_is_doubled and t == self.timesteps[2]:
            return 2
        if self._due == count:
            raise ValueError(f"{where}: all {count} steps are taken, expected set_timesteps before another run")
        if t != self.timesteps[self._due]:
            raise ValueError(
                f"{where}: timestep {t} is out of order, expected {self.timesteps[self._due]} as step {self._due} of "
                f"{count} (from 0) since set_timesteps, for the run began at {self.timesteps[self._begin]}, step {self._begin}"
            )
        return self._due

    @property
    def _begin_is_doubled(self) -> bool:
        """Whether the run may have begun at the first of the two equal timesteps that skip_prk_steps brings, and not the second."""
        return self._begin == 2 and self._steps_taken == 1 and self.config["skip_prk_steps"] and not self.follow_timesteps

    def _phi(self, x: np.ndarray, slope: np.ndarray, t: int, s: int) -> np.ndarray:
        """Line (b); a new array in the memory order of x."""
        abar_t = self.alphas_cumprod[t]
        abar_s = self.alphas_cumprod[s] if s >= 0 else self.final_alpha_cumprod
        eps = self._estimate_noise(slope, x, np.sqrt(abar_t), np.sqrt(1 - abar_t))
        moved = x * np.sqrt(abar_s / abar_t)
        moved -= eps * ((abar_s - abar_t) / (abar_t * np.sqrt(1 - abar_s) + np.sqrt(abar_t * (1 - abar_t) * abar_s)))
        return moved


def _combined(weights: Sequence[float], slopes: Sequence[np.ndarray]) -> np.ndarray:
    total: Any = sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
    return total
