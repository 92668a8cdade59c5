"""Losses: functions that return their value and its gradient, the seed of the backward pass.

``value, dout = mse_loss(prediction, target)``, then ``model.backward(dout)``. Throughout, ``d = prediction - target``,
n is the number of terms the mean is taken over, and s is 1/n for ``reduction="mean"`` and 1 for ``reduction="sum"``.
Values are summed in float64. ``dout`` has the dtype, the shape and the memory order of the prediction. NaN and infinity
in the input come out as NaN and infinity.
"""

import math
from numbers import Real

import numpy as np


def mse_loss(prediction: np.ndarray, target: np.ndarray, reduction: str = "mean") -> tuple[float, np.ndarray]:
    """Squared error: ``value = s sum(d^2)``, ``dout = 2 s d``.

    Args:
        prediction: float32 or float64, any shape.
        target: floating point, the same shape.
        reduction: "mean" or "sum".

    Returns:
        the value and its gradient with respect to ``prediction``.

    Raises:
        TypeError: one of the two is not a floating-point array.
        ValueError: shapes differ or are empty, or the reduction is unknown.
    """
    difference, scale = _difference("mse_loss", prediction, target, reduction)
    return scale * float(np.square(difference, dtype=np.float64).sum()), 2 * scale * difference


def l1_loss(prediction: np.ndarray, target: np.ndarray, reduction: str = "mean") -> tuple[float, np.ndarray]:
    """Absolute error: ``value = s sum(|d|)``, ``dout = s sign(d)``, with sign(0) = 0.

    Arguments, results and errors are those of :func:`mse_loss`.
    """
    difference, scale = _difference("l1_loss", prediction, target, reduction)
    return scale * float(np.abs(difference).sum(dtype=np.float64)), scale * np.sign(difference)


def smooth_l1_loss(
    prediction: np.ndarray, target: np.ndarray, reduction: str = "mean", beta: float = 1.0
) -> tuple[float, np.ndarray]:
    """Squared error near zero, absolute error beyond ``beta`` (Girshick 2015, Fast R-CNN, eq. 3).

    Each term is ``d^2 / (2 beta)`` where ``|d| < beta``, else ``|d| - beta / 2``. With ``c = clip(d, -beta, beta)``
    both cases are

        value = s sum(c (d - c / 2) / beta),    dout = s c / beta

    Args:
        beta: where the two meet, > 0. The others, the results and the errors are those of :func:`mse_loss`.
    """
    if not isinstance(beta, Real) or not 0 < beta < math.inf:
        raise ValueError(f"smooth_l1_loss: beta must be a finite number > 0 (l1_loss is its limit 0), got {beta!r}")
    difference, scale = _difference("smooth_l1_loss", prediction, target, reduction)
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
    _check_floating("cross_entropy", "logits", logits, (np.float32, np.float64))
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


def _difference(owner: str, prediction: np.ndarray, target: np.ndarray, reduction: str) -> tuple[np.ndarray, float]:
    """``prediction - target`` in the dtype and memory order of the prediction, and s; all checks on the way."""
    _check_reduction(owner, reduction)
    _check_floating(owner, "prediction", prediction, (np.float32, np.float64))
    _check_floating(owner, "target", target, (np.floating,))
    if prediction.shape != target.shape:
        raise ValueError(f"{owner}: prediction {prediction.shape} and target {target.shape} must have the same shape")
    if prediction.size == 0:
        raise ValueError(f"{owner}: prediction and target are empty, shape {prediction.shape}")
    difference = np.subtract(prediction, target, out=np.empty_like(prediction))
    return difference, 1 / prediction.size if reduction == "mean" else 1.0


def _check_reduction(owner: str, reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f'{owner}: reduction must be "mean" or "sum", got {reduction!r}')


def _check_floating(owner: str, name: str, array: np.ndarray, kinds: tuple[type, ...]) -> None:
    if not isinstance(array, np.ndarray) or not any(np.issubdtype(array.dtype, kind) for kind in kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{owner}: {name} must be an array of {expected}, got {_kind(array)}")


def _kind(value: object) -> str:
    return f"one of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
