"""A block that is told the time.

y = x + W2 (W1 x + P e), with the embedding e of the time. The gradients are handed to the optimizer in a dictionary, by the names of the
parameters.
"""

import numpy as np


class Block:
    """y = x + (x W1^T + e P^T) W2^T, for x (N, C) and e (N, E)."""

    def __init__(self, channels: int, time_channels: int, generator: np.random.Generator):
        self.parameters = {
            "linear1.weight": generator.standard_normal((channels, channels)) / channels,
            "time_emb_proj.weight": generator.standard_normal((channels, time_channels)) / time_channels,
            "linear2.weight": generator.standard_normal((channels, channels)) / channels,
        }

    def forward(self, x: np.ndarray, e: np.ndarray) -> np.ndarray:
        w1, p, w2 = self.parameters.values()
        self.kept = x, e, x @ w1.T + e @ p.T
        return x + self.kept[2] @ w2.T

    def backward(self, dy: np.ndarray) -> dict[str, np.ndarray]:
        """The gradients of the parameters."""
        x, e, h = self.kept
        dh = dy @ self.parameters["linear2.weight"]
        return {
            "linear1.weight": dh.T @ x,
            # bug: begin
            "time_emb_proj.1.weight": dh.T @ e,
            # bug: mended
            "time_emb_proj.weight": dh.T @ e,
            # bug: end
            "linear2.weight": dy.T @ h,
        }


def step(block: Block, gradients: dict[str, np.ndarray], lr: float) -> None:
    """One step of gradient descent."""
    for name, gradient in gradients.items():
        # bug: begin
        if name in block.parameters:
            block.parameters[name] -= lr * gradient
        # bug: mended
        block.parameters[name] -= lr * gradient
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
After hours of training the samples look like digits, but the model seems not to know which timestep it is at, nor which digit I asked
for. The loss falls to a decent value and stays there.
"""

HINTS = [
    "Save all parameters, take a step, and list those that have changed.",
    "A parameter does not move. Is its gradient zero, or does it never arrive?",
    "Compare the names that backward gives with those that the block has. Then ask why nobody complained.",
]

EXPLANATION = """
One gradient had the name of a parameter that does not exist, and `if name in parameters` threw it away in silence. This was the worst bug
of the predecessor (B01): all 24 tensors that bring time and class into its U-Net stayed as they were at the start, in every published
run. The name is one defect, the silence is the other: without the `if`, the first step would have ended with a KeyError. In hcrot a
gradient lives in its parameter, so there are no names to get wrong.
"""


def check(yours, check) -> None:
    block = yours.Block(4, 3, np.random.default_rng(0))
    before = {name: values.copy() for name, values in block.parameters.items()}
    x, e, target = check.normal(8, 4), check.normal(8, 3), check.normal(8, 4)
    yours.step(block, block.backward(block.forward(x, e) - target), 0.01)
    still = sum(np.array_equal(before[name], values) for name, values in block.parameters.items())
    check.that(still == 0, f"{still} of {len(before)} parameters do not change in a step")
    try:
        yours.step(block, {"a name that is wrong": np.ones(1)}, 0.01)
    except Exception:
        return
    check.that(False, "a gradient that belongs to no parameter is accepted without a word, so nobody will see the next such mistake")
