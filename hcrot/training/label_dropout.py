"""Labels that are now and then withheld, for classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, algorithm 1)."""

import numpy as np

from hcrot.init import as_generator, is_int, is_real

__all__ = ["drop_labels"]


def drop_labels(labels: np.ndarray, null_label: int, probability: float, generator: np.random.Generator | int) -> np.ndarray:
    """Each label, or with a probability the one that means "no class".

    A network that is trained so tells images of a class and images of any class, and sampling can point away from the latter:
    ``hcrot.pipelines.sample(..., guidance_scale=2, null_label=...)``. It needs one class more: ``num_class_embeds=11`` for ten digits, and
    10 as ``null_label``.

    Args:
        labels: (B,) integers.
        null_label: an int that is no class.
        probability: of each label's being dropped, from 0 to 1; the paper has 0.1 to 0.2.
        generator: draws which; not touched with probability 0.

    Returns:
        (B,), of the labels' dtype; the labels themselves with probability 0.

    Raises:
        TypeError, ValueError: labels that are no integers, a null_label among them, a probability out of range.

    Example:
        >>> hcrot.drop_labels(np.arange(8), null_label=10, probability=0.5, generator=0)
        array([ 0, 10, 10, 10,  4,  5,  6,  7])
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise TypeError(f"drop_labels: labels must be integers of shape (B,), got {labels.dtype} {labels.shape}")
    if not is_int(null_label) or np.any(labels == null_label):
        raise ValueError(f"drop_labels: null_label must be an int that is no label, got {null_label!r}")
    if not is_real(probability) or isinstance(probability, bool) or not 0 <= probability <= 1:
        raise ValueError(f"drop_labels: probability must be a number from 0 to 1, got {probability!r}")
    if probability == 0:
        return labels
    dropped = as_generator("drop_labels", generator).random(len(labels)) < probability
    return np.where(dropped, null_label, labels).astype(labels.dtype)
