"""Losses: functions that return their value and its gradient, the seed of the backward pass.

``value, dout = mse_loss(prediction, target)``, then ``model.backward(dout)``. Throughout, ``d = prediction - target``,
n is the number of terms the mean is taken over, and s is 1/n for ``reduction="mean"`` and 1 for ``reduction="sum"``.
Values are summed in float64. ``dout`` has the dtype, the shape and the memory order of the prediction. NaN and infinity
in the input come out as NaN and infinity.

With ``reduction="none"`` the value is the array of all terms, in the dtype of the prediction, and s is 1: ``dout`` is the
gradient of their sum. Each entry of the prediction belongs to one term, so the gradient of any function of the terms is
``dout`` times that function's derivatives. For a mean with weights of one's own::

    terms, dout = mse_loss(prediction, target, reduction="none")
    loss = (weights * terms).mean()
    model.backward(weights * dout / terms.size)

Diffusion models are trained with :func:`mse_loss`, which :func:`min_snr_weights` and :func:`p2_weights` give a weight
for each image, or with :func:`flow_matching_loss`. `hcrot.training.variational_bound` has the loss that learns variances too.
"""

import math
from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from hcrot.init import is_real
from hcrot.schedulers.config import checked_choice, checked_positive
from hcrot.training.checks import (
    NOT_TAKEN_BY_LOSSES,
    SINGLE_OR_DOUBLE,
    check_floating,
    check_no_others,
    check_reduction,
    checked_alphas_cumprod,
    checked_timesteps,
)
from hcrot.training.cross_entropy import cross_entropy

__all__ = [
    "cross_entropy",
    "flow_matching_loss",
    "huber_loss",
    "l1_loss",
    "min_snr_weights",
    "mse_loss",
    "p2_weights",
    "smooth_l1_loss",
]


@overload
def mse_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: Literal["mean", "sum"] = ..., weights: np.ndarray | None = ..., **others: None
) -> tuple[float, np.ndarray]: ...


@overload
def mse_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str, weights: np.ndarray | None = ..., **others: None
) -> tuple[float | np.ndarray, np.ndarray]: ...


def mse_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str = "mean", weights: np.ndarray | None = None, **others: None
) -> tuple[float | np.ndarray, np.ndarray]:
    """Squared error: ``value = s sum(w d^2)``, ``dout = 2 s w d``, with one weight w for each image, or all w = 1.

    Args:
        prediction: float32 or float64, any shape; ``(B, ...)`` if there are weights.
        target: floating point, the same shape.
        reduction: "mean" (over all entries, not divided by the sum of the weights, as in diffusers), "sum" or "none".
        weights: ``(B,)`` floating point.

    Returns:
        the value and its gradient with respect to ``prediction``.

    Raises:
        TypeError: one of the arrays is not a floating-point array.
            Also for an unknown keyword.
        ValueError: shapes differ or are empty, the reduction is unknown, or ``size_average``, ``reduce`` or ``weight`` of PyTorch.

    Example:
        >>> hcrot.mse_loss(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
        (2.0, array([0., 2.]))
    """
    return _squared_error("mse_loss", prediction, "target", target, reduction, weights, others)


@overload
def flow_matching_loss(
    prediction: np.ndarray, original_samples: np.ndarray, noise: np.ndarray, reduction: Literal["mean", "sum"] = ...,
    weights: np.ndarray | None = ..., **others: None
) -> tuple[float, np.ndarray]: ...


@overload
def flow_matching_loss(
    prediction: np.ndarray, original_samples: np.ndarray, noise: np.ndarray, reduction: str,
    weights: np.ndarray | None = ..., **others: None
) -> tuple[float | np.ndarray, np.ndarray]: ...


def flow_matching_loss(
    prediction: np.ndarray,
    original_samples: np.ndarray,
    noise: np.ndarray,
    reduction: str = "mean",
    weights: np.ndarray | None = None,
    **others: None,
) -> tuple[float | np.ndarray, np.ndarray]:
    """Squared error of a velocity field: :func:`mse_loss` with the target ``noise - x_0``.

    Lipman et al. 2023 (arXiv:2210.02747, eq. 23) and rectified flow (Liu et al. 2023, arXiv:2209.03003, eq. 1), in the
    direction of FlowMatchEulerDiscreteScheduler. The straight path from the image x_0 at sigma = 0 to the noise at 1,

        x_sigma = (1 - sigma) x_0 + sigma noise,    d x_sigma / d sigma = noise - x_0,

    has the same velocity at each sigma. What minimises the loss is the mean velocity of the paths through a point,
    ``u(x, sigma) = E[noise - x_0 | x_sigma = x]``, and following it from sigma = 1 to 0 turns noise into images.

    Args:
        prediction: the model's output at (x_sigma, sigma), float32 or float64, any shape; ``(B, ...)`` with weights.
        original_samples: x_0, floating point, the same shape.
        noise: what x_sigma was made with, floating point, the same shape.
        reduction, weights: as in :func:`mse_loss`, whose results and errors these are.

    Example:
        >>> x_0, noise = np.array([1.0, 2.0]), np.array([3.0, 2.0])
        >>> hcrot.flow_matching_loss(noise - x_0, x_0, noise)                      # the right velocity, from the image to the noise
        (0.0, array([0., 0.]))
    """
    for name, array in (("original_samples", original_samples), ("noise", noise)):
        check_floating("flow_matching_loss", name, array, (np.floating,))
    if noise.shape != original_samples.shape:
        shapes = f"original_samples {original_samples.shape} and noise {noise.shape}"
        raise ValueError(f"flow_matching_loss: {shapes} must have the same shape")
    velocity = noise - original_samples
    return _squared_error("flow_matching_loss", prediction, "noise - original_samples", velocity, reduction, weights, others)


def min_snr_weights(
    alphas_cumprod: np.ndarray,
    timesteps: np.ndarray | Sequence[int],
    gamma: float = 5.0,
    prediction_type: str = "epsilon",
) -> np.ndarray:
    """Weights for :func:`mse_loss` that keep timesteps with little noise from dominating the loss; Hang et al. 2023, arXiv:2303.09556.

    With ``snr = abar/(1 - abar)`` the paper weights the error of x_0 by ``min(snr, gamma)`` (section 3.4). Since by
    (b), (f) and (g) of `hcrot.schedulers.ddpm`

        |eps - eps'|^2 = snr |x_0 - x_0'|^2 = snr/(snr + 1) |v - v'|^2,

    the same loss has, for a model that predicts

        epsilon:       min(snr, gamma)/snr = gamma/max(snr, gamma)      (1 where snr = 0; diffusers' examples give NaN)
        sample:        min(snr, gamma)
        v_prediction:  min(snr, gamma)/(snr + 1)

    Args:
        alphas_cumprod: abar, ``(T,)`` as a scheduler has it.
        timesteps: t of each image, ``(B,)`` integers in 0 .. T-1.
        gamma: the snr above which the weight of x_0 stops growing, > 0.
        prediction_type: "epsilon", "sample" or "v_prediction".

    Returns:
        ``(B,)`` of the dtype of alphas_cumprod.

    Raises:
        TypeError: alphas_cumprod is not a floating-point array, timesteps are not integers, or gamma is no number.
        ValueError: an argument of another shape or out of range, or an unknown prediction type.

    Example:
        >>> abar = hcrot.DDPMScheduler().alphas_cumprod
        >>> hcrot.min_snr_weights(abar, [0, 100, 900]).round(3)                # little noise, little weight
        array([0.001, 0.586, 1.   ], dtype=float32)
    """
    gamma = checked_positive("min_snr_weights: gamma", gamma)
    snr = _signal_to_noise("min_snr_weights", alphas_cumprod, timesteps)
    weights = gamma / np.maximum(snr, gamma) * _noise_error("min_snr_weights", prediction_type, snr)
    return weights.astype(alphas_cumprod.dtype)


def p2_weights(
    alphas_cumprod: np.ndarray,
    timesteps: np.ndarray | Sequence[int],
    gamma: float = 1.0,
    k: float = 1.0,
    prediction_type: str = "epsilon",
) -> np.ndarray:
    """Weights for :func:`mse_loss` that favour the steps where content is decided; Choi et al. 2022, arXiv:2204.00227.

    The error of the noise is weighted by ``1/(k + snr)^gamma`` (eq. 8, with L_simple as its lambda); the errors of
    other predictions such that the loss is the same, by the identity in :func:`min_snr_weights`.

    Args:
        gamma: how strongly steps of little noise are weighted down, > 0; the paper takes 0.5 or 1.
        k: keeps the weight finite where there is nothing but noise, > 0.

    The other arguments, the result and the errors are those of :func:`min_snr_weights`.

    Example:
        >>> abar = hcrot.DDPMScheduler().alphas_cumprod
        >>> hcrot.p2_weights(abar, [0, 100, 900]).round(3)
        array([0.   , 0.105, 1.   ], dtype=float32)
    """
    gamma, k = checked_positive("p2_weights: gamma", gamma), checked_positive("p2_weights: k", k)
    snr = _signal_to_noise("p2_weights", alphas_cumprod, timesteps)
    weights = (k + snr) ** -gamma * _noise_error("p2_weights", prediction_type, snr)
    return weights.astype(alphas_cumprod.dtype)


@overload
def l1_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: Literal["mean", "sum"] = ..., **others: None
) -> tuple[float, np.ndarray]: ...


@overload
def l1_loss(prediction: np.ndarray, target: np.ndarray, reduction: str, **others: None) -> tuple[float | np.ndarray, np.ndarray]: ...


def l1_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str = "mean", **others: None
) -> tuple[float | np.ndarray, np.ndarray]:
    """Absolute error: ``value = s sum(|d|)``, ``dout = s sign(d)``, with sign(0) = 0.

    Arguments, results and errors are those of :func:`mse_loss`, without its weights.

    Example:
        >>> hcrot.l1_loss(np.array([1.0, 4.0]), np.array([1.0, 1.0]))          # mean of 0 and 3; the sign, over 2
        (1.5, array([0. , 0.5]))
    """
    difference = _difference("l1_loss", prediction, "target", target, reduction, others)
    return _reduced(reduction, np.abs(difference), 1.0, np.sign(difference))


@overload
def smooth_l1_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: Literal["mean", "sum"] = ..., beta: float = ..., **others: None
) -> tuple[float, np.ndarray]: ...


@overload
def smooth_l1_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str, beta: float = ..., **others: None
) -> tuple[float | np.ndarray, np.ndarray]: ...


def smooth_l1_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str = "mean", beta: float = 1.0, **others: None
) -> tuple[float | np.ndarray, np.ndarray]:
    """Squared error near zero, absolute error beyond ``beta`` (Girshick 2015, Fast R-CNN, eq. 3).

    Each term is ``d^2 / (2 beta)`` where ``|d| < beta``, else ``|d| - beta / 2``. With ``c = clip(d, -beta, beta)``
    both cases are

        value = s sum(c (d - c / 2) / beta),    dout = s c / beta

    Args:
        beta: where the two meet, > 0. The others, the results and the errors are those of :func:`l1_loss`.

    Example:
        >>> hcrot.smooth_l1_loss(np.array([0.5, 4.0]), np.zeros(2), reduction="sum", beta=2.0)      # 0.5^2 / 4; 4 - 1
        (3.0625, array([0.25, 1.  ]))
    """
    if not is_real(beta) or not 0 < beta < math.inf:
        raise ValueError(f"smooth_l1_loss: beta must be a finite number > 0 (l1_loss is its limit 0), got {beta!r}")
    difference = _difference("smooth_l1_loss", prediction, "target", target, reduction, others)
    clipped = np.clip(difference, -float(beta), float(beta))
    terms = np.multiply(clipped, difference - 0.5 * clipped, dtype=np.float64)
    return _reduced(reduction, terms / float(beta), 1 / float(beta), clipped)


@overload
def huber_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: Literal["mean", "sum"] = ..., delta: float = ..., **others: None
) -> tuple[float, np.ndarray]: ...


@overload
def huber_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str, delta: float = ..., **others: None
) -> tuple[float | np.ndarray, np.ndarray]: ...


def huber_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str = "mean", delta: float = 1.0, **others: None
) -> tuple[float | np.ndarray, np.ndarray]:
    """``delta`` times :func:`smooth_l1_loss` with ``beta = delta`` (Huber 1964, Robust Estimation of a Location Parameter).

    Each term is ``d^2 / 2`` where ``|d| < delta``, else ``delta (|d| - delta / 2)``. With ``c = clip(d, -delta, delta)``

        value = s sum(c (d - c / 2)),    dout = s c

    Args:
        delta: where the two meet, > 0. The others, the results and the errors are those of :func:`l1_loss`.

    Example:
        >>> hcrot.huber_loss(np.array([0.5, 4.0]), np.zeros(2), reduction="sum")      # 0.5^2 / 2 near 0; 4 - 1/2 beyond 1
        (3.625, array([0.5, 1. ]))
    """
    if not is_real(delta) or not 0 < delta < math.inf:
        raise ValueError(f"huber_loss: delta must be a finite number > 0, got {delta!r}")
    difference = _difference("huber_loss", prediction, "target", target, reduction, others)
    clipped = np.clip(difference, -float(delta), float(delta))
    return _reduced(reduction, np.multiply(clipped, difference - 0.5 * clipped, dtype=np.float64), 1.0, clipped)


def _signal_to_noise(owner: str, alphas_cumprod: np.ndarray, timesteps: np.ndarray | Sequence[int]) -> np.ndarray:
    """abar/(1 - abar) at each image's timestep, (B,) float64."""
    abar = checked_alphas_cumprod(owner, alphas_cumprod)
    abar = abar[checked_timesteps(owner, timesteps, len(abar))]
    return abar / (1 - abar)


def _noise_error(owner: str, prediction_type: str, snr: np.ndarray) -> np.ndarray | float:
    """The squared error of the noise in units of that of the prediction, by the identity in `min_snr_weights`."""
    units = {"epsilon": 1.0, "sample": snr, "v_prediction": snr / (snr + 1)}
    return units[checked_choice(f"{owner}: prediction_type", prediction_type, units)]


def _squared_error(
    owner: str, prediction: np.ndarray, name: str, target: np.ndarray, reduction: str, weights: np.ndarray | None, others: dict
) -> tuple[float | np.ndarray, np.ndarray]:
    """`mse_loss`, for a target called name in messages."""
    difference = _difference(owner, prediction, name, target, reduction, others)
    weighted = difference
    if weights is not None:
        check_floating(owner, "weights", weights, (np.floating,))
        if weights.shape != prediction.shape[:1]:
            raise ValueError(f"{owner}: weights {weights.shape} must be one for each image of prediction {prediction.shape}")
        weighted = difference * weights.astype(difference.dtype).reshape(-1, *(1,) * (difference.ndim - 1))
    return _reduced(reduction, np.multiply(weighted, difference, dtype=np.float64), 2.0, weighted)


def _difference(owner: str, prediction: np.ndarray, name: str, target: np.ndarray, reduction: str, others: dict) -> np.ndarray:
    """``prediction - target`` in the dtype and memory order of the prediction; all checks on the way."""
    check_no_others(owner, others, NOT_TAKEN_BY_LOSSES)
    check_reduction(owner, reduction)
    check_floating(owner, "prediction", prediction, SINGLE_OR_DOUBLE)
    check_floating(owner, name, target, (np.floating,))
    if prediction.shape != target.shape:
        raise ValueError(f"{owner}: prediction {prediction.shape} and {name} {target.shape} must have the same shape")
    if prediction.size == 0:
        raise ValueError(f"{owner}: prediction and {name} are empty, shape {prediction.shape}")
    return np.subtract(prediction, target, out=np.empty_like(prediction))


def _reduced(reduction: str, terms: np.ndarray, factor: float, slopes: np.ndarray) -> tuple[float | np.ndarray, np.ndarray]:
    """The value of terms whose derivatives are ``factor * slopes``, and its gradient."""
    if reduction == "none":
        return terms.astype(slopes.dtype, copy=False), factor * slopes
    scale = 1 / terms.size if reduction == "mean" else 1.0
    return scale * float(terms.sum(dtype=np.float64)), factor * scale * slopes
