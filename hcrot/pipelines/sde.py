"""From noise to samples, and from samples to their density, with nothing but a score: Song et al. 2021, arXiv:2011.13456.

(a) .. (d) are lines of hcrot/schedulers/sde.py, whose notation holds. A score is any `score(x, t)`, with x (B, ...) and t (B,) float64,
that returns an array like x; a `Module` is called in inference. Here is what one does with it:

    predictor_corrector     (c), step by step, each followed by steps of Langevin's dynamics         algorithms 1 to 5
    annealed_langevin       Langevin's dynamics alone, from level to level                              Song & Ermon 2019, algorithm 1
    probability_flow        (d), an ordinary differential equation, from any time to any other          section 4.3
    log_likelihood          the density along (d), by the instantaneous change of variables [39]:

    (e)  log p_0(x(0)) = log p_1(x(1)) + int_0^1 div u(x(t), t) dt,  u = c x - g^2/2 score(x, t)
         div u = c D - g^2/2 tr J,  J = d score/dx, D numbers a point
    (f)  tr J = E[e^T J e] for any e with E[e e^T] = I        Hutchinson 1989; Skilling 1989

J itself is never made. Of a Module, e^T J is what `backward(e)` returns for a forward at x: so (f) is the dot product of e with the
gradient of the input that the hand-written backward gives. With the D unit vectors for e the sum is the trace itself.

A network that predicts the noise, as most do, gives the score by `ScoreOfNoise`.
"""

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from tqdm import tqdm

from hcrot.init import as_generator, check_positive, is_real
from hcrot.module import Module
from hcrot.pipelines.guidance import gradients_as_they_were
from hcrot.schedulers.config import checked_choice, checked_positive
from hcrot.schedulers.score_sde_ve import langevin_step_size
from hcrot.schedulers.sde import SDE, VESDE

__all__ = ["Score", "ScoreOfNoise", "annealed_langevin", "log_likelihood", "predictor_corrector", "probability_flow"]

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
PREDICTORS = ("reverse_diffusion", "euler_maruyama", "none")
CORRECTORS = ("langevin", "none")
PROBES = ("rademacher", "normal", "exact")


class ScoreOfNoise(Module):
    """``score(x, t) = -model(x, time_scale t)/s(t)``, since by (b) the score of x(t) given x_0 is -z/s(t).

    Backward: ``dx = model.backward(-dout/s(t))``.

    Args:
        model: called as model(x, t) with t (B,), it predicts z; its backward returns dx.
        sde: whose s(t) it is.
        time_scale: what the model's timesteps are in units of t, such as 999 for a model of DDPM's.

    Shapes:
        x (B, ...), t (B,) -> (B, ...) of the model's dtype.

    Raises:
        TypeError: model is no Module, or sde no SDE. ValueError: a time_scale of 0 or below; in forward, a time where s(t) = 0.
    """

    def __init__(self, model: Module, sde: SDE, time_scale: float = 1.0):
        for name, value, kind in (("model", model, Module), ("sde", sde, SDE)):
            if not isinstance(value, kind):
                raise TypeError(f"ScoreOfNoise: {name} is a {type(value).__name__}, expected a {kind.__name__}")
        self.model, self.sde = model, sde
        self.time_scale = checked_positive("ScoreOfNoise: time_scale", time_scale)

    def forward(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        std = self.sde.std(t)
        if not np.all(std > 0):
            raise ValueError("ScoreOfNoise: s(t) is 0 at t = 0, where there is no score, expected times above 0")
        per_noise = (-1 / std).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        self.save(per_noise)
        return self.model(x, self.time_scale * t) * per_noise

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self.model.backward(dout * self.saved())


# sampling -----------------------------------------------------------------------------------------------------------


def predictor_corrector(
    score: Score,
    sde: SDE,
    shape: tuple[int, ...],
    *,
    generator: np.random.Generator | int,
    num_steps: int = 1000,
    predictor: str = "reverse_diffusion",
    corrector: str = "langevin",
    corrector_steps: int = 1,
    snr: float = 0.16,
    sampling_eps: float = 1e-3,
    denoise: bool = True,
    dtype: Any = np.float32,
    progress: bool = False,
) -> np.ndarray:
    """Solve (c) from t = 1 to sampling_eps in N equal steps: algorithm 1, and with the SDEs VE and VP algorithms 2 and 3.

    From t to t - dt, with a and G those of `sde.step_forward` and z ~ N(0, I):

        reverse_diffusion   x' = (2 - a) x + G^2 score(x, t) + G z                                       [46]
        euler_maruyama      x' = x - (f - g^2 score(x, t)) dt + g sqrt(dt) z
        langevin            x' = x + eps score(x, t - dt) + sqrt(2 eps) z,  eps = 2 a^2 (snr |z|/|score|)^2      algorithms 4 and 5

    Args:
        score, sde: what was learned, and of which process.
        shape: of the samples, (B, ...).
        generator: draws x(1) and all z; an int to seed one with.
        num_steps: N.
        predictor: "reverse_diffusion", "euler_maruyama" or "none".
        corrector: "langevin" or "none".
        corrector_steps: how often the corrector follows each predictor.
        snr: of langevin.
        sampling_eps: where to end, between 0 and 1, both exclusive.
        denoise: whether to return E[x_0 | x] at the end instead of x, which still has noise of s(sampling_eps).
        dtype: float32 or float64, of the samples.
        progress: whether to show a bar on stderr.

    Returns:
        samples, of this shape and dtype.

    Raises:
        TypeError, ValueError: an argument that is not as described; predictor and corrector both "none"; a score of another shape.
    """
    owner, rng = "predictor_corrector", as_generator("predictor_corrector", generator)
    _check_sde(owner, sde)
    checked_choice(f"{owner}: predictor", predictor, PREDICTORS)
    checked_choice(f"{owner}: corrector", corrector, CORRECTORS)
    if predictor == corrector == "none":
        raise ValueError(f"{owner}: predictor and corrector are both 'none', expected one of them to do something")
    num_steps, corrector_steps = check_positive(owner, num_steps=num_steps, corrector_steps=corrector_steps)
    snr, end = checked_positive(f"{owner}: snr", snr), _checked_time(owner, "sampling_eps", sampling_eps)
    evaluate, dt = _Evaluation(owner, score), (1 - end) / num_steps

    x = sde.prior_sample(shape, rng, dtype)
    with evaluate.inference():
        for step in tqdm(range(num_steps), desc="sampling", disable=not progress or sys.stderr is None):
            t = 1 - step * dt
            a, noise_scale = sde.step_forward(t, dt)
            if predictor == "reverse_diffusion":
                x = (2 - a) * x + noise_scale**2 * evaluate(x, t) + noise_scale * rng.standard_normal(shape, dtype=dtype)
            elif predictor == "euler_maruyama":
                z = rng.standard_normal(shape, dtype=dtype)
                x = x - dt * sde.reverse_drift(x, t, evaluate(x, t)) + float(sde.diffusion(t)) * math.sqrt(dt) * z
            for _ in range(corrector_steps if corrector == "langevin" else 0):
                slope, z = evaluate(x, t - dt), rng.standard_normal(shape, dtype=dtype)
                size = a**2 * langevin_step_size(owner, slope, z, snr)
                x = x + size * slope + math.sqrt(2 * size) * z
        return sde.denoised(x, end, evaluate(x, end)) if denoise else x


def annealed_langevin(
    score: Score,
    sigmas: Sequence[float] | np.ndarray,
    sample: np.ndarray,
    *,
    generator: np.random.Generator | int,
    steps_per_level: int = 100,
    step_size: float = 2e-5,
    denoise: bool = True,
    progress: bool = False,
) -> np.ndarray:
    """Langevin's dynamics at falling levels of noise: Song & Ermon 2019, arXiv:1907.05600, algorithm 1.

    At level sigma_i of sigma_1 .. sigma_L

        x' = x + alpha_i/2 score(x, sigma_i) + sqrt(alpha_i) z,  alpha_i = step_size sigma_i^2/sigma_L^2,  z ~ N(0, I)

    Args:
        score: called with the level in place of t: score(x, sigma), sigma (B,).
        sigmas: strictly falling positive numbers.
        sample: where to start, (B, ...) float32 or float64.
        generator: draws all z; an int to seed one with.
        steps_per_level: T of the paper.
        step_size: epsilon of the paper.
        denoise: whether to return x + sigma_L^2 score, the estimate of x_0, at the end (Jolicoeur-Martineau et al. 2020, arXiv:2009.05475).
        progress: whether to show a bar on stderr.

    Returns:
        samples, of the shape and dtype of sample.

    Raises:
        TypeError, ValueError: an argument that is not as described; a score of another shape.
    """
    owner, rng = "annealed_langevin", as_generator("annealed_langevin", generator)
    levels = np.asarray(sigmas)
    if levels.dtype.kind not in "iuf" or levels.ndim != 1 or levels.size == 0 or np.any(np.diff(levels) >= 0) or not levels[-1] > 0:
        raise ValueError(f"{owner}: sigmas {sigmas} is not a strictly falling list of positive numbers")
    (steps_per_level,) = check_positive(owner, steps_per_level=steps_per_level)
    step_size, x, evaluate = checked_positive(f"{owner}: step_size", step_size), _checked_points(owner, sample), _Evaluation(owner, score)
    with evaluate.inference():
        for sigma in tqdm(levels.astype(float), desc="sampling", disable=not progress or sys.stderr is None):
            alpha = step_size * float(sigma / levels[-1]) ** 2
            for _ in range(steps_per_level):
                x = x + alpha / 2 * evaluate(x, sigma) + math.sqrt(alpha) * rng.standard_normal(x.shape, dtype=x.dtype.type)
        return x + float(levels[-1]) ** 2 * evaluate(x, float(levels[-1])) if denoise else x


# the probability flow -------------------------------------------------------------------------------------------------


def probability_flow(
    score: Score, sde: SDE, sample: np.ndarray, times: Sequence[float] = (1.0, 1e-3), *, rtol: float = 1e-5, atol: float = 1e-5
) -> np.ndarray:
    """Solve (d), by the method of Dormand & Prince (scipy.integrate.solve_ivp): where each point goes, and by which way.

    Every noise becomes one sample, and every sample, with the times the other way round, one noise.

    Args:
        score, sde: what was learned, and of which process.
        sample: x at the first of the times, (B, ...) float32 or float64; noise is `sde.prior_sample(shape, generator)`.
        times: N >= 2 of them, within 0 .. 1, strictly rising or strictly falling.
        rtol, atol: how exact each step is to be, relative to x or absolute.

    Returns:
        (N, B, ...), x at each of the times, of the dtype of sample.

    Raises:
        TypeError, ValueError: an argument that is not as described; a score of another shape.
        RuntimeError: the solver gave up.
    """
    owner, chosen = "probability_flow", np.asarray(times, dtype=np.float64)
    _check_sde(owner, sde)
    x, evaluate = _checked_points(owner, sample), _Evaluation(owner, score)
    steps = np.diff(chosen)
    if chosen.ndim != 1 or chosen.size < 2 or not (np.all(steps > 0) or np.all(steps < 0)) or chosen.min() < 0 or chosen.max() > 1:
        raise ValueError(f"{owner}: times {times} is not a strictly rising or falling list of two or more numbers within 0 .. 1")

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        point = flat.reshape(x.shape).astype(x.dtype)
        return sde.flow_drift(point, t, evaluate(point, t)).ravel()

    with evaluate.inference():
        return _solved(owner, slope, chosen, x.ravel(), rtol, atol).reshape(len(chosen), *x.shape).astype(x.dtype)


def log_likelihood(
    model: Module,
    sde: SDE,
    sample: np.ndarray,
    *,
    generator: np.random.Generator | int | None = None,
    probes: str = "rademacher",
    num_probes: int = 1,
    sampling_eps: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray]:
    """log p of each point by (e), solved from sampling_eps to 1 like `probability_flow`, with its divergence by (f).

    The density is that of x(sampling_eps), which is data with noise of s(sampling_eps). With "exact" it is as exact as the solver;
    otherwise it is unbiased, and its error falls as 1/sqrt(num_probes). The probes stay the same from step to step.

    Args:
        model: the score as a Module, in training mode, called as model(x, t) with t (B,), whose backward returns dx. What it computes must
            not be random: no dropout. The gradients of its parameters are afterwards what they were.
        sde: the process whose score it is.
        sample: x, (B, ...) float32 or float64.
        generator: draws the probes; an int to seed one with. "exact" takes none.
        probes: "rademacher" (entries +-1, the smallest error of the two), "normal", or "exact": all D unit vectors, for small D.
        num_probes: how many e the mean of (f) is taken over; each is another point for the model. "exact" takes none but 1.
        sampling_eps: where to start, between 0 and 1, both exclusive.
        rtol, atol: see `probability_flow`.

    Returns:
        log p (B,) float64, in nats, and x(1) that each point came to, of the shape and dtype of sample.

    Raises:
        TypeError, ValueError: an argument that is not as described; a score of another shape.
        RuntimeError: the solver gave up.
    """
    owner = "log_likelihood"
    _check_sde(owner, sde)
    if not isinstance(model, Module):
        raise TypeError(f"{owner}: model is a {type(model).__name__}, expected a Module, for its backward")
    if not model.training:
        raise ValueError(f"{owner}: model is in inference, where forward keeps nothing for backward, expected model.train() before")
    x, start = _checked_points(owner, sample), _checked_time(owner, "sampling_eps", sampling_eps)
    directions = _directions(owner, x, checked_choice(f"{owner}: probes", probes, PROBES), num_probes, generator)
    count, batch, size = len(directions), len(x), x[0].size
    share = 1.0 if probes == "exact" else 1 / count
    evaluate, stacked = _Evaluation(owner, model), directions.reshape(count * batch, *x.shape[1:])

    def slope(t: float, state: np.ndarray) -> np.ndarray:
        """dx/dt and div u, all points one after another."""
        point = state[: x.size].reshape(x.shape).astype(x.dtype)
        score = evaluate(np.concatenate([point] * count), t)[:batch]
        products = np.multiply(stacked, model.backward(stacked), dtype=np.float64).reshape(count, batch, size)
        trace = share * products.sum(axis=(0, 2))
        divergence = float(sde.drift_rate(t)) * size - 0.5 * float(sde.diffusion(t)) ** 2 * trace
        return np.concatenate([sde.flow_drift(point, t, score).ravel(), divergence])

    with gradients_as_they_were(model):
        end = _solved(owner, slope, np.array([start, 1.0]), np.append(x.ravel(), np.zeros(batch)), rtol, atol)[-1]
    latent = end[: x.size].reshape(x.shape).astype(x.dtype)
    return sde.prior_log_density(latent) + end[x.size :], latent


# parts ----------------------------------------------------------------------------------------------------------------


class _Evaluation:
    """The score at one time for all points, checked."""

    def __init__(self, owner: str, score: Score):
        if not callable(score):
            raise TypeError(f"{owner}: score is a {type(score).__name__}, expected a function of x and t, or a Module")
        self.owner, self.score = owner, score

    def __call__(self, x: np.ndarray, t: float) -> np.ndarray:
        value = self.score(x, np.full(len(x), t))
        if not isinstance(value, np.ndarray) or value.shape != x.shape or value.dtype != x.dtype:
            came = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(f"{self.owner}: the score returned {came}, expected {x.dtype} of shape {x.shape}")
        return value

    def inference(self) -> Any:
        return self.score.inference() if isinstance(self.score, Module) else nullcontext()


def _directions(owner: str, x: np.ndarray, probes: str, num_probes: int, generator: np.random.Generator | int | None) -> np.ndarray:
    """The e of (f), (number, *x.shape) in the dtype of x."""
    (num_probes,) = check_positive(owner, num_probes=num_probes)
    if probes == "exact":
        if generator is not None or num_probes != 1:
            raise ValueError(f"{owner}: probes 'exact' takes neither a generator nor num_probes, for there is nothing to draw")
        units = np.eye(x[0].size, dtype=x.dtype).reshape(-1, 1, *x.shape[1:])
        return np.repeat(units, len(x), axis=1)
    if generator is None:
        raise ValueError(f"{owner}: generator is None, expected a numpy.random.Generator or an int, for probes {probes!r}")
    rng, shape = as_generator(owner, generator), (num_probes, *x.shape)
    return (2 * rng.integers(2, size=shape) - 1 if probes == "rademacher" else rng.standard_normal(shape)).astype(x.dtype)


def _solved(
    owner: str, slope: Callable[[float, np.ndarray], np.ndarray], times: np.ndarray, state: np.ndarray, rtol: float, atol: float
) -> np.ndarray:
    """The state at each of the times, (N, state.size) float64."""
    rtol, atol = checked_positive(f"{owner}: rtol", rtol), checked_positive(f"{owner}: atol", atol)
    solution = solve_ivp(slope, (times[0], times[-1]), state.astype(np.float64), t_eval=times, rtol=rtol, atol=atol, method="RK45")
    if not solution.success:
        raise RuntimeError(f"{owner}: the solver gave up: {solution.message}")
    return solution.y.T


def _check_sde(owner: str, sde: SDE) -> None:
    if not isinstance(sde, SDE):
        raise TypeError(f"{owner}: sde is a {type(sde).__name__}, expected an SDE such as {VESDE()}")


def _checked_time(owner: str, name: str, value: Any) -> float:
    if not is_real(value) or not 0 < value < 1:
        raise ValueError(f"{owner}: {name} is {value!r}, expected a number between 0 and 1")
    return float(value)


def _checked_points(owner: str, sample: np.ndarray) -> np.ndarray:
    if not isinstance(sample, np.ndarray) or sample.dtype not in (np.float32, np.float64) or sample.ndim < 2 or sample.size == 0:
        came = f"{sample.dtype} of shape {sample.shape}" if isinstance(sample, np.ndarray) else type(sample).__name__
        raise ValueError(f"{owner}: sample is {came}, expected (B, ...) float32 or float64, and not empty")
    return sample
