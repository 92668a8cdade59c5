"""Cross-entropy between classes, or probabilities of classes, and the softmax of logits."""

from typing import Literal, overload

import numpy as np

from hcrot.init import is_int, is_real
from hcrot.training.checks import NOT_TAKEN_BY_LOSSES, SINGLE_OR_DOUBLE, check_floating, check_no_others, check_reduction, kind_of

__all__ = ["cross_entropy"]


@overload
def cross_entropy(
    logits: np.ndarray, labels: np.ndarray | int, reduction: Literal["mean", "sum"] = ..., ignore_index: int = ...,
    label_smoothing: float = ..., weight: np.ndarray | None = ..., **others: None
) -> tuple[float, np.ndarray]: ...


@overload
def cross_entropy(
    logits: np.ndarray, labels: np.ndarray | int, reduction: str, ignore_index: int = ...,
    label_smoothing: float = ..., weight: np.ndarray | None = ..., **others: None
) -> tuple[float | np.ndarray, np.ndarray]: ...


def cross_entropy(
    logits: np.ndarray,
    labels: np.ndarray | int,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weight: np.ndarray | None = None,
    **others: None,
) -> tuple[float | np.ndarray, np.ndarray]:
    """Cross-entropy between the labels and softmax(logits), over axis 1. As PyTorch's ``cross_entropy``.

    The probabilities p of the K classes come from the logits z by

        log p_k = z_k - max(z) - log sum_j exp(z_j - max(z)),

    which neither overflows nor takes the logarithm of zero, however large z is. The target q is 1 for the label's class and 0
    for the others, or it is given as probabilities. Label smoothing by e (Szegedy et al. 2016, section 7) makes it
    ``(1 - e) q + e / K``, and a weight w_k for each class makes it ``a_k = w_k q_k``. Then

        value = -s sum(sum_k a_k log p_k),    dout_k = s (p_k sum_j a_j - a_k)

    with s = 1 for ``"sum"``, and s = 1/n for ``"mean"``. n is the number of positions. With integer labels and class weights,
    n is the sum of the weights of the labels.

    Positions whose label is ``ignore_index`` take no part: they add nothing to the sum, do not count in n, and their
    ``dout`` is zero. Where n is 0, because every label is ignored or has weight 0, the mean is NaN, and so is ``dout`` except
    where labels are ignored.

    Args:
        logits: ``(N, K)`` or ``(N, K, d1, ...)``, float32 or float64; or ``(K,)``, without a batch.
        labels: ``(N,)`` or ``(N, d1, ...)`` integers in 0..K-1 or ``ignore_index``, for ``(K,)`` one integer. Or
            probabilities: floating point, of the shape of the logits. As in PyTorch, nobody checks that they sum to one.
        reduction: "mean", "sum" or "none". With "none" the value is an array of the shape of the integer labels, and ``dout`` is
            the gradient of its sum; given the gradient u of each value, the seed of the backward pass is ``u[:, None] * dout``.
        ignore_index: the label that marks what to leave out. Probabilities have none.
        label_smoothing: e, from 0 to 1.
        weight: ``(K,)`` floating point, a weight for each class.

    Returns:
        the value and its gradient with respect to ``logits``.

    Raises:
        TypeError: the logits are not floating point, the labels neither integers nor floating point, or an unknown keyword.
        ValueError: shapes do not match or are empty, a label is out of range, or an option is.

    Example:
        >>> value, dlogits = hcrot.cross_entropy(np.zeros((1, 4)), np.array([2]))
        >>> round(value, 4), dlogits                          # log 4; softmax minus one-hot
        (1.3863, array([[ 0.25,  0.25, -0.75,  0.25]]))
    """
    check_no_others("cross_entropy", others, NOT_TAKEN_BY_LOSSES)
    check_reduction("cross_entropy", reduction)
    check_floating("cross_entropy", "logits", logits, SINGLE_OR_DOUBLE)
    if logits.ndim == 0 or logits.size == 0:
        raise ValueError(f"cross_entropy: logits must have the shape (N, K, ...) or (K,) and not be empty, got {logits.shape}")
    if not is_real(label_smoothing) or not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be from 0 to 1, got {label_smoothing!r}")
    if logits.ndim == 1:
        if is_int(labels):
            labels = np.asarray(labels)
        labels = labels[np.newaxis] if isinstance(labels, np.ndarray) else labels
        value, dout = cross_entropy(logits[np.newaxis], labels, reduction, ignore_index, label_smoothing, weight)
        return (np.squeeze(value, 0) if isinstance(value, np.ndarray) else value), dout[0]

    class_weights = None if weight is None else _checked_weight(weight, logits)
    counted: np.ndarray | bool
    if isinstance(labels, np.ndarray) and np.issubdtype(labels.dtype, np.floating):
        _check_probabilities(labels, logits, ignore_index)
        counted, n = True, float(logits.size // logits.shape[1])
        losses, dout = _for_probabilities(logits, labels, float(label_smoothing), class_weights)
    else:
        counted = np.expand_dims(_checked_labels(labels, logits, ignore_index), 1)
        classes = np.where(counted, np.expand_dims(labels, 1), 0).astype(np.intp)
        label_weights = np.ones(1, logits.dtype) if class_weights is None else class_weights.ravel()[classes]
        n = float(np.sum(label_weights, where=counted, dtype=np.float64)) if class_weights is not None else float(np.count_nonzero(counted))
        losses, dout = _for_classes(logits, classes, float(label_smoothing), class_weights, label_weights)

    if reduction != "none":
        scale = 1.0 if reduction == "sum" else 1 / n if n else np.nan
        dout *= scale
    np.copyto(dout, 0, where=np.logical_not(counted))
    if reduction == "none":
        return np.where(counted, losses, 0)[:, 0], dout
    return scale * float(np.sum(losses, where=counted, dtype=np.float64)), dout


def _for_classes(
    logits: np.ndarray, classes: np.ndarray, smoothing: float, class_weights: np.ndarray | None, label_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``-sum_k a_k log p_k`` and ``p sum(a) - a`` at each position; ``a`` is never made, since most of it is zero or constant."""
    log_p, rest = _log_softmax(logits), smoothing / logits.shape[1]
    own = (1 - smoothing) * label_weights
    with np.errstate(invalid="ignore"):  # 0 times infinity is NaN here as in PyTorch
        losses = -own * np.take_along_axis(log_p, classes, axis=1)
        if smoothing:
            losses -= rest * (log_p if class_weights is None else class_weights * log_p).sum(axis=1, keepdims=True)
    dout = np.exp(log_p)
    if class_weights is not None:
        dout *= own + rest * class_weights.sum()
    dout -= rest if class_weights is None else rest * class_weights
    np.put_along_axis(dout, classes, np.take_along_axis(dout, classes, axis=1) - own, axis=1)
    return losses, dout


def _for_probabilities(
    logits: np.ndarray, probabilities: np.ndarray, smoothing: float, class_weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The same, for a target that is given as probabilities."""
    a = (1 - smoothing) * probabilities.astype(logits.dtype) + smoothing / logits.shape[1]
    if class_weights is not None:
        a *= class_weights
    log_p = _log_softmax(logits)
    with np.errstate(invalid="ignore"):
        losses = -(a * log_p).sum(axis=1, keepdims=True)
    dout = np.exp(log_p)
    dout *= a.sum(axis=1, keepdims=True)
    dout -= a
    return losses, dout


def _log_softmax(z: np.ndarray) -> np.ndarray:
    """``z - max(z) - log sum exp(z - max(z))`` over axis 1, in the memory order of ``z``."""
    shifted = np.subtract(z, z.max(axis=1, keepdims=True), out=np.empty_like(z))
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _checked_weight(weight: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The weights of the classes, (1, K, 1, ...), in the logits' dtype."""
    check_floating("cross_entropy", "weight", weight, (np.floating,))
    if weight.shape != logits.shape[1:2]:
        raise ValueError(f"cross_entropy: weight must be one for each of {logits.shape[1]} classes, got shape {weight.shape}")
    return weight.astype(logits.dtype).reshape(-1, *(1,) * (logits.ndim - 2))[np.newaxis]


def _checked_labels(labels: np.ndarray | int, logits: np.ndarray, ignore_index: int) -> np.ndarray:
    """Where the labels count; all errors of integer labels."""
    if not isinstance(labels, np.ndarray) or not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"cross_entropy: labels must be an array of integers, or of probabilities, got {kind_of(labels)}")
    num_classes, expected = logits.shape[1], logits.shape[:1] + logits.shape[2:]
    if labels.shape != expected:
        raise ValueError(f"cross_entropy: labels {labels.shape} do not fit logits {logits.shape}, expected {expected}")
    counted = labels != ignore_index
    bad = labels[counted & ((labels < 0) | (labels >= num_classes))]
    if bad.size:
        raise ValueError(f"cross_entropy: expected labels 0..{num_classes - 1} or {ignore_index=}, got {bad[0]}")
    return counted


def _check_probabilities(probabilities: np.ndarray, logits: np.ndarray, ignore_index: int) -> None:
    if probabilities.shape != logits.shape:
        raise ValueError(
            f"cross_entropy: labels of {probabilities.dtype} are probabilities and must have the shape of the logits, {logits.shape}, got "
            f"{probabilities.shape}; numbers of classes must be integers"
        )
    if ignore_index >= 0:
        raise ValueError(f"cross_entropy: {ignore_index=} needs integer labels, got probabilities")
