"""A learned shift of the last axis.

y = x + b for x of any shape (..., C), with b (C,): tokens (N, T, C) as well as rows (N, C).
"""

import numpy as np

import hcrot


class Shift(hcrot.Module):
    """y = x + b."""

    def __init__(self, channels: int):
        self.bias = hcrot.Parameter(np.zeros(channels))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x.shape)
        return x + self.bias.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        shape = self.saved()
        if dy.shape != shape:
            raise ValueError(f"Shift.backward: expected dy of shape {shape}, got {dy.shape}")
        # bug: begin
        self.bias.grad += dy.sum(axis=(0, 1))
        # bug: mended
        self.bias.grad += dy.sum(axis=tuple(range(dy.ndim - 1)))
        # bug: end
        return dy


# kept back: the learner's file ends here

SYMPTOM = """
In the transformer this layer is fine. In the small network for tables all its values are always equal to each other, whatever it learns.
There is no error message.
"""

HINTS = [
    "Run one backward for x of the shape (4, 3, 5) and one for x of (4, 5), and print the gradient of the bias.",
    "What is the shape of what is added to the gradient, in each case? NumPy adds a single number to every entry.",
    "The sum goes over all axes but the last one, however many there are.",
]

EXPLANATION = """
The sum over the axes (0, 1) is right for three axes. For two it sums everything to a single number, and `+=` adds that number to every
entry without a word. This was the predecessor's LayerNorm (B26): its gradient for two-dimensional input was one number. Where
broadcasting can hide a wrong shape, look at the shape.
"""


def check(yours, check) -> None:
    for shape in ((4, 3, 5), (4, 5), (2, 3, 2, 5), (5,)):
        layer, dy = yours.Shift(5), check.normal(*shape)
        layer(check.normal(*shape))
        layer.backward(dy)
        right = np.allclose(layer.bias.grad, dy.reshape(-1, 5).sum(axis=0))
        check.that(right, f"for an input of the shape {shape}, a step along the gradient does not lower the loss as it should")
