"""The way up of a U-Net, with joined channels.

Each layer of the way up gets its input beside a skip: y = tanh([h, skip] W). forward takes the skips from the end of a list; backward
returns the gradients of h and of all skips, in the order of the list.
"""

import numpy as np


class UpBlock:
    """One layer for each skip; h and all skips are (N, C).

    Args:
        channels: C.
        depth: how many skips.
    """

    def __init__(self, channels: int, depth: int, generator: np.random.Generator):
        self.weights = [generator.standard_normal((2 * channels, channels)) / np.sqrt(2 * channels) for _ in range(depth)]

    def forward(self, h: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        self.kept = []
        for weight, skip in zip(self.weights, reversed(skips), strict=True):
            h = np.tanh(np.concatenate([h, skip], axis=1) @ weight)
            self.kept.append(h)
        return h

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        dskips = []
        for weight, h in zip(reversed(self.weights), reversed(self.kept), strict=True):
            djoined = (dy * (1 - h**2)) @ weight.T
            dy, dskip = np.split(djoined, 2, axis=1)
            # bug: begin
            dskips.insert(0, dskip)
            # bug: mended
            dskips.append(dskip)
            # bug: end
        return dy, dskips


# kept back: the learner's file ends here

SYMPTOM = """
All gradients have the right shapes and sizes. With one skip per block the check passes. With three, the layers of the way down get wrong
gradients, except the one in the middle.
"""

HINTS = [
    "Three are given and the middle one is right: what does that look like?",
    "In forward, which skip of the list is used first? So in backward, which one is reached first?",
    "Reverse twice, or not at all. Change one skip by a little and see which gradient tells about it.",
]

EXPLANATION = """
forward goes through the list from its end. backward goes the opposite way, so it reaches the first skip first, and appending is right.
The reversal was done once too often. All skips of one block have the same shape, so nothing complains; the middle one of three is its own
mirror image. Use stacks for both directions: what is pushed last in one is popped first in the other.
"""


def check(yours, check) -> None:
    for depth in (1, 2, 3):
        block = yours.UpBlock(3, depth, np.random.default_rng(depth))
        h, dy, skips = check.normal(2, 3), check.normal(2, 3), [check.normal(2, 3) for _ in range(depth)]
        block.forward(h, skips)
        dh, dskips = block.backward(dy)
        check.that(len(dskips) == depth, f"expected {depth} gradients of skips, got {len(dskips)}")
        for array, gradient in zip([h, *skips], [dh, *dskips], strict=True):
            values, direction, step = array.copy(), check.normal(2, 3), 1e-5
            array[...] = values + step * direction
            above = np.vdot(dy, block.forward(h, skips))
            array[...] = values - step * direction
            slope = (above - np.vdot(dy, block.forward(h, skips))) / (2 * step)
            array[...] = values
            agrees = abs(np.vdot(gradient, direction) - slope) < 1e-6
            check.that(agrees, f"with {depth} skips, a gradient that arrives on the way down is not the slope of the output")
