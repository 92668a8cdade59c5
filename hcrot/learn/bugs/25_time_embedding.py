"""A chain of blocks that all hear the same time.

h_0 = x, h_(i+1) = h_i + tanh(h_i + e W_i), y = h_n, where e is the embedding of the time. backward returns the gradients of x and of e.
"""

import numpy as np

import hcrot


class Blocks(hcrot.Module):
    """x (N, C) and e (N, E) -> y (N, C), through ``depth`` blocks."""

    def __init__(self, channels: int, time_channels: int, depth: int, *, generator: np.random.Generator):
        self.depth = depth
        for index in range(depth):
            weight = generator.standard_normal((time_channels, channels)) / np.sqrt(time_channels)
            setattr(self, f"weight{index}", hcrot.Parameter(weight))

    def weight(self, index: int) -> hcrot.Parameter:
        return getattr(self, f"weight{index}")

    def forward(self, x: np.ndarray, e: np.ndarray) -> np.ndarray:
        branches = []
        for index in range(self.depth):
            branches.append(np.tanh(x + e @ self.weight(index).data))
            x = x + branches[-1]
        self.save(e, branches)
        return x

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e, branches = self.saved()
        de = np.zeros_like(e)
        for index in reversed(range(self.depth)):
            dsum = dy * (1 - branches[index] ** 2)
            self.weight(index).grad += e.T @ dsum
            # bug: begin
            de = dsum @ self.weight(index).data.T
            # bug: mended
            de += dsum @ self.weight(index).data.T
            # bug: end
            dy = dy + dsum
        return dy, de


# kept back: the learner's file ends here

SYMPTOM = """
With one block the network that makes the time's embedding is trained. With twelve blocks it hardly learns: its gradient is as small as
with one, although now twelve blocks listen to it.
"""

HINTS = [
    "hcrot.check_gradients(blocks, x, e) with depth 1 and with depth 2: which array is wrong?",
    "How many paths lead from e to the output? What does the chain rule say of several paths?",
    "Print de after each block.",
]

EXPLANATION = """
e is used by every block, so its gradient is the sum over all blocks. Each block overwrote what the later ones had contributed, and in the
end only the first block was heard. In a U-Net the gradient of the time's embedding ("dtemb") has to be an accumulator that goes through
all blocks. Whatever is used in several places gets a += in backward.
"""


def check(yours, check) -> None:
    for depth in (1, 3):
        blocks = yours.Blocks(3, 2, depth, generator=np.random.default_rng(0))
        check.agree(blocks, check.normal(4, 3), check.normal(4, 2))
