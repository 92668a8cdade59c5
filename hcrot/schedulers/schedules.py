"""Noise schedules beta_0 .. beta_{T-1} and the timesteps visited in sampling: what every scheduler shares.

The betas are float32 and equal those of diffusers bit for bit, so weights, configurations and reference figures carry
over. That fixes the arithmetic as well as the formulas; the functions say where it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = [
    "BETA_SCHEDULES", "TIMESTEP_SPACINGS", "cumulative_alphas", "laplace", "linear", "rescaled_to_zero_snr", "scaled_linear", "sigmoid",
    "spaced_timesteps", "squaredcos_cap_v2",
]  # fmt: skip


def linear(num_train_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """beta_i = beta_start + i/(T-1) (beta_end - beta_start), shape (T,), float32; Ho et al. 2020, section 4."""
    return _linspace(beta_start, beta_end, num_train_timesteps)


def scaled_linear(num_train_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """sqrt(beta_i) is linear in i from sqrt(beta_start) to sqrt(beta_end); shape (T,), float32; Rombach et al. 2022."""
    return _linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2


def squaredcos_cap_v2(num_train_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """abar(u) = cos^2((u + 0.008)/1.008 pi/2); shape (T,), float32; Nichol & Dhariwal 2021, eq. 17.

    beta_start and beta_end don't enter.
    """
    return _from_alpha_bar(num_train_timesteps, lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2)


def laplace(num_train_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """abar(u) = sqrt(snr/(1 + snr)), log snr Laplace-distributed for uniform u; shape (T,), float32; Hang et al. 2024.

    The square root is diffusers'; by the definition of the signal-to-noise ratio, abar is snr/(1 + snr) without it.
    beta_start and beta_end don't enter.
    """

    def alpha_bar(u: float) -> float:
        log_snr = -0.5 * math.copysign(1, 0.5 - u) * math.log(1 - 2 * math.fabs(0.5 - u) + 1e-6)
        snr = math.exp(log_snr)
        return math.sqrt(snr / (1 + snr))

    return _from_alpha_bar(num_train_timesteps, alpha_bar)


def sigmoid(num_train_timesteps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """beta_i = beta_start + (beta_end - beta_start) sigmoid(z_i), z from -6 to 6; shape (T,), float32; Xu et al. 2022.

    PyTorch's sigmoid takes another exp for the elements after the last full block (of 32 with AVX-512, 16 with AVX2)
    than for the others; here there is one. So at a few T, 1000 not among them, a beta differs in its last bit; the
    float32 abar does not.
    """
    gate = np.float32(1) / (np.float32(1) + _exp(-_linspace(-6, 6, num_train_timesteps)))
    return gate * np.float32(beta_end - beta_start) + np.float32(beta_start)


BETA_SCHEDULES: dict[str, Callable[[int, float, float], np.ndarray]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "squaredcos_cap_v2": squaredcos_cap_v2,
    "sigmoid": sigmoid,
    "laplace": laplace,
}


def cumulative_alphas(alphas: np.ndarray) -> np.ndarray:
    """abar_t = product of alpha_0 .. alpha_t, shape (T,), float32, accumulated in float64 as PyTorch does."""
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def rescaled_to_zero_snr(betas: np.ndarray) -> np.ndarray:
    """The betas for which sqrt(abar) is shifted and scaled to end at 0 with its start kept; (T,) float32; last one 1.

    Lin et al. 2023, arXiv:2305.08891, algorithm 1: so that the model is trained on the pure noise that sampling starts
    from. PyTorch's float32 square root is not always rounded correctly, so these betas equal diffusers' to 1e-6 only.
    """
    root = np.sqrt(cumulative_alphas(np.float32(1) - betas))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    abar = root**2
    return np.float32(1) - np.append(abar[:1], abar[1:] / abar[:-1])


def _from_alpha_bar(num_train_timesteps: int, alpha_bar: Callable[[float], float]) -> np.ndarray:
    """beta_i = min(1 - abar((i+1)/T) / abar(i/T), 0.999), evaluated in float64; shape (T,), float32."""
    edges = [alpha_bar(i / num_train_timesteps) for i in range(num_train_timesteps + 1)]
    betas = [min(1 - after / before, 0.999) for before, after in zip(edges[:-1], edges[1:], strict=True)]
    return np.array(betas, dtype=np.float32)


def _linspace(start: float, stop: float, num: int) -> np.ndarray:
    """`num` equally spaced float32 numbers, with PyTorch's rounding (np.linspace differs in the last bit).

    The step is rounded to float32; the first half counts up from start, the second down from stop; each product and
    sum is one fused operation there, and here one in float64, rounded once.
    """
    first, last = np.float32(start), np.float32(stop)
    if num == 1:
        return np.array([first])
    step = float((last - first) / np.float32(num - 1))
    index = np.arange(num)
    up = float(first) + step * index
    down = float(last) - step * (num - 1 - index)
    return np.where(index < num // 2, up, down).astype(np.float32)


def _exp(x: np.ndarray) -> np.ndarray:
    """exp(x) of a float32 array, rounded as in PyTorch's sigmoid on x86 (SLEEF's expf; Shibata & Petrogalli 2020).

    x = q ln 2 + r with |r| <= ln(2)/2, so exp(x) = 2^q exp(r), and exp(r) = 1 + r + r^2 p(r), p a minimax polynomial.
    An exp that is right to the last bit would change the last bit of 29 of the 1000 betas of that schedule.
    """

    def fused_multiply_add(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
        return (a.astype(np.float64) * b + c).astype(np.float32)

    q = np.rint(x * np.float32(1 / math.log(2)))
    r = fused_multiply_add(q, np.float32(-0.69314575), x)  # ln 2 in two parts: q times the first has no rounding error
    r = fused_multiply_add(q, np.float32(-1.4286068e-6), r)
    p = np.full_like(x, 1.9852762e-4)
    for coefficient in (1.3930436e-3, 8.3333608e-3, 4.1666485e-2, 1.6666667e-1, 0.5):
        p = fused_multiply_add(p, r, np.float32(coefficient))
    return np.ldexp(np.float32(1) + fused_multiply_add(r * r, p, r), q.astype(np.int32))


def _linspace_timesteps(num_train_timesteps: int, num_inference_steps: int, steps_offset: int) -> np.ndarray:
    """N points from T-1 to 0, both included (a single one is 0)."""
    return np.linspace(0, num_train_timesteps - 1, num_inference_steps).round()[::-1]


def _leading_timesteps(num_train_timesteps: int, num_inference_steps: int, steps_offset: int) -> np.ndarray:
    """i (T // N) + offset, i = N-1 .. 0, the offset cut down where it would lead past T-1 (as in diffusers it does)."""
    multiples = np.arange(num_inference_steps)[::-1] * (num_train_timesteps // num_inference_steps)
    return multiples + min(steps_offset, num_train_timesteps - 1 - multiples[0])


def _trailing_timesteps(num_train_timesteps: int, num_inference_steps: int, steps_offset: int) -> np.ndarray:
    """T - i T/N - 1, i = 0 .. N-1. A further one at -1, which rounding adds at 62 of the N <= T = 1000, is dropped."""
    steps = np.round(np.arange(num_train_timesteps, 0, -num_train_timesteps / num_inference_steps)) - 1
    return steps[steps >= 0]


TIMESTEP_SPACINGS: dict[str, Callable[[int, int, int], np.ndarray]] = {
    "linspace": _linspace_timesteps,
    "leading": _leading_timesteps,
    "trailing": _trailing_timesteps,
}


def spaced_timesteps(
    timestep_spacing: str, num_train_timesteps: int, num_inference_steps: int, steps_offset: int
) -> np.ndarray:
    """N = num_inference_steps of the T training timesteps, strictly descending within 0 .. T-1; shape (N,), int64.

    Lin et al. 2023, table 2: "linspace" visits both ends, "leading" ends at steps_offset, which no other uses, and
    "trailing" starts at T-1.
    """
    return TIMESTEP_SPACINGS[timestep_spacing](num_train_timesteps, num_inference_steps, steps_offset).astype(np.int64)
