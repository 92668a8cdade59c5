"""Images and their labels in a random order.

Both are shuffled, so that batches are mixed, and split into batches.
"""

from collections.abc import Iterator

import numpy as np


def shuffled(
    images: np.ndarray, labels: np.ndarray, batch_size: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches of images with their labels, all once, in a random order.

    Args:
        images: (N, ...).
        labels: (N,).
    """
    if len(images) != len(labels):
        raise ValueError(f"shuffled: {len(images)} images, but {len(labels)} labels")
    # bug: begin
    images = generator.permutation(images)
    labels = generator.permutation(labels)
    # bug: mended
    order = generator.permutation(len(images))
    images, labels = images[order], labels[order]
    # bug: end
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size], labels[start : start + batch_size]


# kept back: the learner's file ends here

SYMPTOM = """
The diffusion model draws beautiful digits, but never the one that I ask for. The classifier that I train on the same batches stays at 10
percent.
"""

HINTS = [
    "Look at the data first: show one batch as pictures, with the labels as titles.",
    "A classifier at 10 percent of ten classes guesses. What do images tell about their labels here?",
    "How many random orders are drawn?",
]

EXPLANATION = """
Images and labels were shuffled with an order of their own each. Everything that does not depend on the labels still works, so that the
model draws well and only guidance by label fails. One look at a batch with its labels as titles would have shown it: always look at what
goes into the network, after all the code that prepares it.
"""


def check(yours, check) -> None:
    labels = np.arange(30)
    images = labels[:, None] * np.ones(4)
    seen, order = [], np.random.default_rng(1)
    for batch, named in yours.shuffled(images, labels, 8, order):
        strangers = int((batch[:, 0] != named).sum())
        check.that(strangers == 0, f"in a batch of {len(batch)}, {strangers} images do not show what their label says")
        seen += list(named)
    check.that(sorted(seen) == list(range(30)) and seen != list(range(30)), "not all images come once, in a random order")
