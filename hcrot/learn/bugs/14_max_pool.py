"""Max pooling over windows of two.

y_i = max(x_2i, x_2i+1) along the last axis. The gradient goes to the entry that was the larger one.
"""

import numpy as np


class MaxPool:
    """x (N, L) with L even -> y (N, L / 2)."""

    def __init__(self) -> None:
        # bug: begin
        self.places: list[np.ndarray] = []
        # bug: mended
        self.places: np.ndarray | None = None
        # bug: end

    def forward(self, x: np.ndarray) -> np.ndarray:
        if x.ndim != 2 or x.shape[1] % 2:
            raise ValueError(f"MaxPool: expected (N, L) with L even, got shape {x.shape}")
        windows = x.reshape(len(x), -1, 2)
        # bug: begin
        self.places.append(windows.argmax(axis=2))
        # bug: mended
        self.places = windows.argmax(axis=2)
        # bug: end
        return windows.max(axis=2)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        # bug: begin
        places = self.places[0]
        # bug: mended
        places = self.places
        # bug: end
        dwindows = np.zeros((*dy.shape, 2))
        np.put_along_axis(dwindows, places[..., None], dy[..., None], axis=2)
        return dwindows.reshape(len(dy), -1)


# kept back: the learner's file ends here

SYMPTOM = """
Each layer passes the gradient check. In training the network learns from the first step and then gets stuck, and its memory grows for as
long as it runs.
"""

HINTS = [
    "A fresh layer is right, a used one is wrong. Check the gradient of a layer that has seen another batch before.",
    "Memory grows: something is kept for each batch. What does the layer hold after three batches?",
    "Print what backward reads, for two batches whose larger entries are in different places.",
]

EXPLANATION = """
The places of the maxima were collected in a list that nobody emptied, and backward read the first of them. From the second batch on the
gradients went to the places of the first batch. The predecessor's MaxPool2d was like this (B24). What a layer keeps belongs to one
forward. hcrot's layers keep it with `self.save`, and `self.saved()` hands it over once. A check that uses a layer only once never sees
such a bug; check a second batch.
"""


def check(yours, check) -> None:
    layer = yours.MaxPool()
    for batch in range(1, 4):
        x, dy = check.normal(3, 8), check.normal(3, 4)
        y = layer.forward(x)
        check.equal("the output", y, np.maximum(x[:, ::2], x[:, 1::2]))
        dx, larger = layer.backward(dy), x == np.repeat(y, 2, axis=1)
        arrived = np.allclose(dx, np.repeat(dy, 2, axis=1) * larger)
        check.that(arrived, f"gradients of batch {batch} arrive at entries that were not the larger ones")
