"""Stopping and going on.

A run is saved as a dictionary of copies. Going on from it must give the very numbers that a run without a pause would have given.
"""

import numpy as np


class Momentum:
    """w <- w - lr u with u <- 0.9 u + gradient, for one array, in place."""

    def __init__(self, weights: np.ndarray, lr: float):
        self.weights, self.lr = weights, lr
        self.velocity = np.zeros_like(weights)

    def step(self, gradient: np.ndarray) -> None:
        self.velocity *= 0.9
        self.velocity += gradient
        self.weights -= self.lr * self.velocity


def save(optimizer: Momentum) -> dict[str, np.ndarray]:
    """All that is needed to go on."""
    # bug: begin
    return {"weights": optimizer.weights.copy()}
    # bug: mended
    return {"weights": optimizer.weights.copy(), "velocity": optimizer.velocity.copy()}
    # bug: end


def load(optimizer: Momentum, state: dict[str, np.ndarray]) -> None:
    """Bring the optimizer into the state that was saved."""
    # bug: begin
    optimizer.weights[...] = state["weights"]
    # bug: mended
    optimizer.weights[...] = state["weights"]
    optimizer.velocity[...] = state["velocity"]
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
Each time I resume a run, the curve of the loss has a dent: it is worse for a while and then goes on as before. The loss just before the
pause and just after it are the same.
"""

HINTS = [
    "Run ten steps; then five, save, load into a new optimizer, and five more. Compare the weights step by step.",
    "The weights agree right after loading, and not one step later. What else does a step depend on?",
    "List all arrays that step changes. Are all of them saved?",
]

EXPLANATION = """
The optimizer's own memory was lost. For Adam that means m, v and the number of steps: after a resume its first steps are as large as
those of a new run. The list of what a run is made of is long: weights, their moving average, the optimizer's state, the position in the
learning-rate schedule, the random generators, the place within the epoch. The proof is always the same: interrupted and uninterrupted
runs agree bit by bit.
"""


def check(yours, check) -> None:
    gradients = [check.normal(3) for _ in range(8)]
    whole = yours.Momentum(np.ones(3), 0.1)
    for gradient in gradients:
        whole.step(gradient)
    first, second = yours.Momentum(np.ones(3), 0.1), yours.Momentum(np.zeros(3), 0.1)
    for gradient in gradients[:4]:
        first.step(gradient)
    state = yours.save(first)
    first.step(gradients[4])
    yours.load(second, state)
    for gradient in gradients[4:]:
        second.step(gradient)
    off = np.abs(second.weights - whole.weights).max()
    check.that(off == 0, f"a run that was saved and loaded after 4 of 8 steps ends up to {off:.3g} away from one without a pause")
