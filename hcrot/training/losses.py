"""Losses: functions that return their value and its gradient, the seed of the backward pass.

``value, dout = mse_loss(prediction, target)``, then ``model.backward(dout)``. Throughout, ``d = prediction - target``,
n is the number of terms the mean is taken over, and s is 1/n for ``reduction="mean"`` and 1 for ``reduction="sum"``.
Values are summed in float64. ``dout`` has the dtype, the shape and the memory order of the prediction. NaN and infinity
in the input come out as NaN and infinity.

Diffusion models are trained with :func:`mse_loss`, which :func:`min_snr_weights` and :func:`p2_weights` give a weight
for each image, or with :func:`flow_matching_loss`. `hcrot.training.variational_bound` has the loss that learns variances too.
"""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from hcrot.schedulers.config import checked_choice, checked_positive

SINGLE_OR_DOUBLE = (np.float32, np.float64)


def mse_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str = "mean", weights: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Squared error: ``value = s sum(w d^2)``, ``dout = 2 s w d``, with one weight w for each image, or all w = 1.

    Args:
        prediction: float32 or float64, any shape; ``(B, ...)`` if there are weights.
        target: floating point, the same shape.
        reduction: "mean" (over all entries, not divided by the sum of the weights, as in diffusers) or "sum".
        weights: ``(B,)`` floating point.

    Returns:
        the value and its gradient with respect to ``prediction``.

    Raises:
        TypeError: one of the arrays is not a floating-point array.
        ValueError: shapes differ or are empty, or the reduction is unknown.
    """
    return _squared_error("mse_loss", prediction, "target", target, reduction, weights)


def flow_matching_loss(
    prediction: np.ndarray,
    original_samples: np.ndarray,
    noise: np.ndarray,
    reduction: str = "mean",
    weights: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
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
    """
    for name, array in (("original_samples", original_samples), ("noise", noise)):
        check_floating("flow_matching_loss", name, array, (np.floating,))
    if noise.shape != original_samples.shape:
        shapes = f"original_samples {original_samples.shape} and noise {noise.shape}"
        raise ValueError(f"flow_matching_loss: {shapes} must have the same shape")
    velocity = noise - original_samples
    return _squared_error("flow_matching_loss", prediction, "noise - original_samples", velocity, reduction, weights)


def min_snr_weights(
    alphas_cumprod: np.ndarray,
    timesteps: np.ndarray | Sequence[int],
    gamma: float = 5.0,
    prediction_type: str = "epsilon",
) -> np.ndarray:
    """Weights for :func:`mse_loss` that keep the steps of little noise from ruling it; Hang et al. 2023, arXiv:2303.09556.

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
        gamma: the snr above which the weight of x_0 stops to grow, > 0.
        prediction_type: "epsilon", "sample" or "v_prediction".

    Returns:
        ``(B,)`` of the dtype of alphas_cumprod.

    Raises:
        TypeError: alphas_cumprod is not a floating-point array, timesteps are not integers, or gamma is no number.
        ValueError: an argument of another shape or out of range, or an unknown prediction type.
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
    """
    gamma, k = checked_positive("p2_weights: gamma", gamma), checked_positive("p2_weights: k", k)
    snr = _signal_to_noise("p2_weights", alphas_cumprod, timesteps)
    weights = (k + snr) ** -gamma * _noise_error("p2_weights", prediction_type, snr)
    return weights.astype(alphas_cumprod.dtype)


def l1_loss(prediction: np.ndarray, target: np.ndarray, reduction: str = "mean") -> tuple[float, np.ndarray]:
    """Absolute error: ``value = s sum(|d|)``, ``dout = s sign(d)``, with sign(0) = 0.

    Arguments, results and errors are those of :func:`mse_loss`, without its weights.
    """
    difference, scale = _difference("l1_loss", prediction, "target", target, reduction)
    return scale * float(np.abs(difference).sum(dtype=np.float64)), scale * np.sign(difference)


def smooth_l1_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str = "mean", beta: float = 1.0
) -> tuple[float, np.ndarray]:
    """Squared error near zero, absolute error beyond ``beta`` (Girshick 2015, Fast R-CNN, eq. 3).

    Each term is ``d^2 / (2 beta)`` where ``|d| < beta``, else ``|d| - beta / 2``. With ``c = clip(d, -beta, beta)``
    both cases are

        value = s sum(c (d - c / 2) / beta),    dout = s c / beta

    Args:
        beta: where the two meet, > 0. The others, the results and the errors are those of :func:`l1_loss`.
    """
    if not isinstance(beta, Real) or not 0 < beta < math.inf:
        raise ValueError(f"smooth_l1_loss: beta must be a finite number > 0 (l1_loss is its limit 0), got {beta!r}")
    difference, scale = _difference("smooth_l1_loss", prediction, "target", target, reduction)
    clipped = np.clip(difference, -float(beta), float(beta))
    value = np.multiply(clipped, difference - 0.5 * clipped, dtype=np.float64).sum() / beta
    return scale * float(value), scale / float(beta) * clipped


def cross_entropy(
    logits: np.ndarray,
    labels: np.ndarray,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[float, np.ndarray]:
    """Cross-entropy between the labels and softmax(logits), over axis 1.

    With ``log p = z - max(z) - log sum_k exp(z_k - max(z))``, which neither overflows nor takes the logarithm of zero
    however large the logits z, label y and the smoothed target ``q_k = (1 - e) [k = y] + e / K`` (Szegedy et al. 2016,
    section 7):

        value = -s sum(sum_k q_k log p_k),    dout = s (p - q)

    Positions whose label is ``ignore_index`` take no part: they add nothing to the sum, do not count in n, and their
    ``dout`` is zero. Where nothing is left, the value is 0 (PyTorch's mean is then NaN).

    Args:
        logits: ``(N, K)`` or ``(N, K, d1, ...)``, float32 or float64.
        labels: ``(N,)`` or ``(N, d1, ...)``, integers in 0..K-1 or ``ignore_index``.
        reduction: "mean" (over what is not ignored) or "sum".
        ignore_index: the label that marks what to leave out.
        label_smoothing: e, from 0 to 1.

    Returns:
        the value and its gradient with respect to ``logits``.

    Raises:
        TypeError: the logits are not floating point, or the labels not integers.
        ValueError: shapes do not match or are empty, a label is out of range, or an option is.
    """
    _check_reduction("cross_entropy", reduction)
    check_floating("cross_entropy", "logits", logits, SINGLE_OR_DOUBLE)
    if logits.ndim < 2 or logits.size == 0:
        raise ValueError(f"cross_entropy: logits must have the shape (N, K, ...) and not be empty, got {logits.shape}")
    if not isinstance(labels, np.ndarray) or not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"cross_entropy: labels must be an array of integers, got {_kind(labels)}")
    num_classes, expected = logits.shape[1], logits.shape[:1] + logits.shape[2:]
    if labels.shape != expected:
        raise ValueError(f"cross_entropy: labels {labels.shape} do not fit logits {logits.shape}, expected {expected}")
    if not isinstance(label_smoothing, Real) or not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be from 0 to 1, got {label_smoothing!r}")
    counted = labels != ignore_index
    bad = labels[counted & ((labels < 0) | (labels >= num_classes))]
    if bad.size:
        raise ValueError(f"cross_entropy: expected labels 0..{num_classes - 1} or {ignore_index=}, got {bad[0]}")

    smoothing = float(label_smoothing)
    scale = 1 / max(1, int(np.count_nonzero(counted))) if reduction == "mean" else 1.0
    label_index = np.expand_dims(np.where(counted, labels, 0), 1).astype(np.intp)
    counted = np.expand_dims(counted, 1)

    log_p = _log_softmax(logits)
    losses = (smoothing - 1) * np.take_along_axis(log_p, label_index, axis=1)
    if smoothing:
        losses -= smoothing * log_p.mean(axis=1, keepdims=True)

    dout = np.exp(log_p)
    dout -= smoothing / num_classes
    np.put_along_axis(dout, label_index, np.take_along_axis(dout, label_index, axis=1) - (1 - smoothing), axis=1)
    dout *= scale
    np.copyto(dout, 0, where=~counted)
    return scale * float(losses[counted].sum(dtype=np.float64)), dout


def _log_softmax(z: np.ndarray) -> np.ndarray:
    """``z - max(z) - log sum exp(z - max(z))`` over axis 1, in the memory order of ``z``."""
    shifted = np.subtract(z, z.max(axis=1, keepdims=True), out=np.empty_like(z))
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def checked_alphas_cumprod(owner: str, alphas_cumprod: np.ndarray) -> np.ndarray:
    """abar of a scheduler, (T,), strictly falling from below 1 to 0 or above, as float64; raises what owner documents."""
    check_floating(owner, "alphas_cumprod", alphas_cumprod, SINGLE_OR_DOUBLE)
    if alphas_cumprod.ndim != 1 or alphas_cumprod.size == 0:
        raise ValueError(f"{owner}: alphas_cumprod must have the shape (T,) and not be empty, got {alphas_cumprod.shape}")
    abar = alphas_cumprod.astype(np.float64)
    if not (abar[0] < 1 and abar[-1] >= 0 and np.all(np.diff(abar) < 0)):
        ends = f"from {abar[0]:g} to {abar[-1]:g}"
        raise ValueError(f"{owner}: alphas_cumprod must fall strictly, from below 1 to no less than 0, got numbers {ends}")
    return abar


def checked_timesteps(owner: str, timesteps: np.ndarray | Sequence[int], num_train_timesteps: int) -> np.ndarray:
    """t of each image, (B,) int64 in 0 .. T-1; raises what owner documents."""
    t = np.asarray(timesteps)
    if t.dtype.kind not in "iu":
        raise TypeError(f"{owner}: timesteps must be integers, got dtype {t.dtype}")
    if t.ndim != 1 or t.size == 0:
        raise ValueError(f"{owner}: timesteps must have the shape (B,), one for each image, got {t.shape}")
    if t.min() < 0 or t.max() >= num_train_timesteps:
        raise ValueError(f"{owner}: expected timesteps 0 .. {num_train_timesteps - 1}, got {t.min()} .. {t.max()}")
    return t.astype(np.int64)


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
    owner: str, prediction: np.ndarray, name: str, target: np.ndarray, reduction: str, weights: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """`mse_loss`, for a target called name in messages."""
    difference, scale = _difference(owner, prediction, name, target, reduction)
    weighted = difference
    if weights is not None:
        check_floating(owner, "weights", weights, (np.floating,))
        if weights.shape != prediction.shape[:1]:
            raise ValueError(f"{owner}: weights {weights.shape} must be one for each image of prediction {prediction.shape}")
        weighted = difference * weights.astype(difference.dtype).reshape(-1, *(1,) * (difference.ndim - 1))
    return scale * float(np.multiply(weighted, difference, dtype=np.float64).sum()), 2 * scale * weighted


def _difference(
    owner: str, prediction: np.ndarray, name: str, target: np.ndarray, reduction: str
) -> tuple[np.ndarray, float]:
    """``prediction - target`` in the dtype and memory order of the prediction, and s; all checks on the way."""
    _check_reduction(owner, reduction)
    check_floating(owner, "prediction", prediction, SINGLE_OR_DOUBLE)
    check_floating(owner, name, target, (np.floating,))
    if prediction.shape != target.shape:
        raise ValueError(f"{owner}: prediction {prediction.shape} and {name} {target.shape} must have the same shape")
    if prediction.size == 0:
        raise ValueError(f"{owner}: prediction and {name} are empty, shape {prediction.shape}")
    difference = np.subtract(prediction, target, out=np.empty_like(prediction))
    return difference, 1 / prediction.size if reduction == "mean" else 1.0


def _check_reduction(owner: str, reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f'{owner}: reduction must be "mean" or "sum", got {reduction!r}')


def check_floating(owner: str, name: str, array: np.ndarray, kinds: tuple[type, ...]) -> None:
    """Raise a TypeError that names owner and array unless it is an array of one of these kinds of numbers."""
    if not isinstance(array, np.ndarray) or not any(np.issubdtype(array.dtype, kind) for kind in kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{owner}: {name} must be an array of {expected}, got {_kind(array)}")


def _kind(value: object) -> str:
    return f"one of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
