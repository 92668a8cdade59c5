"""Dropout.

In training each entry is zeroed with probability p, and the others are divided by 1 - p, so that the mean stays. In inference y = x.
"""

import numpy as np

import hcrot


class Dropout(hcrot.Module):
    """y = x m / (1 - p), where the mask m is 1 with probability 1 - p."""

    def __init__(self, p: float, *, generator: np.random.Generator):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1), got {p}")
        self.p, self.generator = p, generator

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """1 / (1 - p) where an entry stays, 0 where it goes."""
        return (self.generator.random(shape) >= self.p) / (1 - self.p)

    def forward(self, x: np.ndarray) -> np.ndarray:
        if not self.training:
            return x
        mask = self.mask(x.shape)
        self.save(mask)
        return x * mask

    def backward(self, dy: np.ndarray) -> np.ndarray:
        # bug: begin
        mask = self.saved()
        return dy * self.mask(mask.shape)
        # bug: mended
        return dy * self.saved()
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
With dropout of 0.1 training is a little slower than it should be. With 0.5 it does not learn any more. The mean and the number of zeros
are right in both directions.
"""

HINTS = [
    "Let x be all ones and p one half. Print y, then the gradient for dy of all ones.",
    "An entry that was dropped cannot change the loss. Is its gradient zero?",
    "How many times is the generator asked in one pass?",
]

EXPLANATION = """
backward drew a mask of its own. An entry that was dropped got a gradient, and one that stayed got none. The gradient then points in a
direction that is right only for the share of entries where both masks agree. What is random in forward has to be kept for backward.
hcrot.check_gradients rewinds the generators before each forward, and so sees it at once.
"""


def check(yours, check) -> None:
    layer = yours.Dropout(0.5, generator=np.random.default_rng(3))
    y = layer(np.ones((6, 7)))
    dx = layer.backward(np.ones((6, 7)))
    check.that(set(np.unique(y)) == {0.0, 2.0}, "in training, ones have to become 0 or 2 with p of one half")
    blamed = int(((y == 0) & (dx != 0)).sum())
    check.that(blamed == 0, f"{blamed} entries of 42 could not change the output, but receive a gradient")
    check.agree(layer, check.normal(3, 4))
    layer.eval()
    check.equal("the output in inference", layer(np.ones(4)), np.ones(4))
