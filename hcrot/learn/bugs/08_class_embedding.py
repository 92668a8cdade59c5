"""The table that turns a digit's label into a vector.

y = W[label] with labels (N,) and W (classes, D). backward has no gradient to return: a label cannot be changed a little.
"""

import numpy as np

import hcrot


class Embedding(hcrot.Module):
    """y = W[label]."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, generator: np.random.Generator):
        self.weight = hcrot.Parameter(generator.standard_normal((num_embeddings, embedding_dim)))

    def forward(self, labels: np.ndarray) -> np.ndarray:
        if labels.min() < 0 or labels.max() >= len(self.weight.data):
            raise ValueError(f"Embedding: labels range from {labels.min()} to {labels.max()}, expected 0 .. {len(self.weight.data) - 1}")
        self.save(labels)
        return self.weight.data[labels]

    def backward(self, dy: np.ndarray) -> None:
        labels = self.saved()
        # bug: begin
        self.weight.grad[labels] += dy
        # bug: mended
        np.add.at(self.weight.grad, labels, dy)
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
With a batch of 4 the model learns to tell the digits apart. With a batch of 512 it does not: each digit drawn looks like any other. Only
the embedding of the classes hardly moves, the rest of the network is trained well.
"""

HINTS = [
    "A batch of 512 with ten classes: what is in it that a batch of 4 seldom has?",
    "Give backward the labels [1, 1, 2] and a dy of ones. What must row 1 of the gradient be? What is it?",
    "grad[labels] += dy reads grad[labels] once, adds, and writes once. Look for a function of NumPy that does not buffer.",
]

EXPLANATION = """
`a[index] += b` means `a[index] = a[index] + b`: an index that occurs twice is written twice, and the last one wins. With 512 labels of
ten classes, about 98 percent of the gradients were lost. The predecessor had it (B04; there even with `=`). np.add.at adds for each
occurrence.
"""


def check(yours, check) -> None:
    layer, dy = yours.Embedding(5, 3, generator=check.generator), check.normal(40, 3)
    labels = check.integers(5, 40)
    layer(labels)
    layer.backward(dy)
    layer(labels[:1])
    layer.backward(dy[:1])
    expected = np.eye(5)[labels].T @ dy
    expected[labels[0]] += dy[0]
    worst = np.abs(layer.weight.grad - expected).max()
    check.that(worst < 1e-9, f"after two batches, of 40 and of 1, the gradient of the table is off by up to {worst:.2g}")
