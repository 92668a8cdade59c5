"""Classifier-free guidance.

The noise is predicted twice, with the label and without; what is used is eps = without + scale (with - without) (Ho & Salimans 2022).
Both are computed in one batch.
"""

from collections.abc import Callable

import numpy as np


def guided(
    model: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, labels: np.ndarray, none: int, scale: float
) -> np.ndarray:
    """The guided prediction.

    Args:
        model: ``model(x, labels)`` predicts the noise.
        x: x_t (N, ...).
        labels: (N,), the classes wanted.
        none: the label that means "of any class".
        scale: 0 ignores the labels, 1 is the model as it is, more exaggerates what the labels change.
    """
    if scale < 0:
        raise ValueError(f"guided: scale must be at least 0, got {scale}")
    both = model(np.concatenate([x, x]), np.concatenate([labels, np.full_like(labels, none)]))
    # bug: begin
    without, with_label = np.split(both, 2)
    # bug: mended
    with_label, without = np.split(both, 2)
    # bug: end
    return without + scale * (with_label - without)


# kept back: the learner's file ends here

SYMPTOM = """
The higher the guidance scale, the less the digits look like the one that I asked for. With a scale of 7 I get anything but it. With a
scale of 0, which should ignore the label, I get exactly my digit.
"""

HINTS = [
    "Scale 0 and scale 1: which of the two predictions must come out, and which does?",
    "Replace the model by lambda x, labels: labels.astype(float), so that you can see what is what.",
    "In which order are the two halves put together, and in which are they taken apart?",
]

EXPLANATION = """
The labelled half came first and was taken for the second. Then eps = with + scale (without - with): guidance away from the label. At a
scale of one half nothing would be seen at all. Two things of the same shape in one array have no names: take them apart where they were
put together, or use a model whose answer says which is which.
"""


def check(yours, check) -> None:
    x, labels = np.zeros((4, 2)), np.array([1, 2, 3, 2])
    seen = []

    def model(x, labels):
        seen.append(len(labels))
        return labels[:, None] * np.ones_like(x)

    for scale, expected in ((0.0, np.full(4, 9.0)), (1.0, labels.astype(float)), (3.0, 9 + 3.0 * (labels - 9))):
        found = yours.guided(model, x, labels, 9, scale)
        check.equal("the shape of the guided prediction", np.shape(found), (4, 2))
        text = f"scale {scale}: a model that answers with its label (9 means any), asked for {labels.tolist()},"
        check.that(np.allclose(found[:, 0], expected), f"{text} gives {found[:, 0].tolist()}, expected {expected.tolist()}")
    check.that(set(seen) == {8}, "the two predictions are not computed in one batch of twice the size")
