"""How good samples are: what a classifier reads in them, and how far their features lie from those of real images."""

from typing import Any

import numpy as np

__all__ = ["accuracy", "accuracy_by_class", "frechet_distance"]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose largest logit is the label's. Of class-conditional samples, with the classes they were
    asked for as labels, it is their **label agreement**.

    Args:
        logits: (N, K), numbers without NaN; of equal ones the first counts as the largest.
        labels: (N,) integers in 0 .. K-1.

    Returns:
        from 0 to 1.

    Raises:
        TypeError, ValueError: an array of another shape or kind, no rows, NaN, or a label out of range.
    """
    return float(_is_right("accuracy", logits, labels).mean())


def accuracy_by_class(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """:func:`accuracy` among the rows of each label, float64 (K,); NaN for a class that is no row's label.

    Arguments and errors are those of :func:`accuracy`.
    """
    right = _is_right("accuracy_by_class", logits, labels)
    labels = labels.astype(np.intp)  # NumPy does not count uint64
    rows = np.bincount(labels, minlength=logits.shape[1])
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, weights=right, minlength=logits.shape[1]) / rows


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """The Fréchet distance between two clouds of points, each taken for a Gaussian (Heusel et al. 2017, eq. 6).

        d^2 = |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    with means mu and covariances S (of n points, divided by n - 1). It is the squared distance, as is the custom. With
    classifier features in place of Inception's it compares models judged by the same classifier, and nothing else; and
    it falls as n grows, so compare equal n.

    No square root of a matrix is taken: with QR decompositions ``(x - mu) / sqrt(n - 1) = Q R``, hence ``S = R^T R``,

        tr S = |R|_F^2,    tr (S_a S_b)^(1/2) = sum of the singular values of R_a R_b^T

    which stays exact where S is singular: fewer points than features, features that are always zero.

    Args:
        features_a: (N, D), N >= 2, finite; computed in float64 whatever the dtype.
        features_b: (M, D), M >= 2, likewise.

    Returns:
        d^2 >= 0.

    Raises:
        ValueError: fewer than two rows, not two axes, different D, or numbers that are not finite.
    """
    (mean_a, root_a), (mean_b, root_b) = _gaussian("features_a", features_a), _gaussian("features_b", features_b)
    if mean_a.shape != mean_b.shape:
        raise ValueError(
            f"frechet_distance: features_a has {mean_a.size} features and features_b {mean_b.size}, expected equally many"
        )
    traces = np.square(root_a).sum() + np.square(root_b).sum()
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return max(0.0, float(np.square(mean_a - mean_b).sum() + traces - 2 * cross))


def _gaussian(name: str, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu (D,) and R (min(N, D), D) with S = R^T R, float64."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[0] < 2 or features.shape[1] < 1:
        raise ValueError(f"frechet_distance: {name} must have the shape (at least 2, at least 1), got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError(f"frechet_distance: {name} has numbers that are not finite")
    mean = features.mean(axis=0)
    root: Any = np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode="r")  # an array; by NumPy's annotations a pair
    return mean, root


def _is_right(owner: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each row's largest logit is its label's, bool (N,)."""
    if not isinstance(logits, np.ndarray) or logits.ndim != 2 or logits.size == 0:
        came: object = logits.shape if isinstance(logits, np.ndarray) else type(logits).__name__
        raise ValueError(f"{owner}: logits must be an array of shape (N, K) and not be empty, got {came}")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        came = f"an array of {labels.dtype}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise TypeError(f"{owner}: labels must be an array of integers, got {came}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"{owner}: labels {labels.shape} do not fit logits {logits.shape}, expected {logits.shape[:1]}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"{owner}: labels range from {labels.min()} to {labels.max()}, expected 0 .. {logits.shape[1] - 1}"
        )
    if np.isnan(logits).any():
        raise ValueError(f"{owner}: logits have NaN")
    return logits.argmax(axis=1) == labels
