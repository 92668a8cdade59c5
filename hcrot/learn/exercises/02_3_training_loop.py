"""A training loop.

Write train: it does `steps` steps of gradient descent with the mean squared error, and returns the list of the losses, each as it was
before its step. You have model(x), hcrot.mse_loss(prediction, target) -> (value, dout), model.backward(dout), and model.parameters(), each
of which has .data and .grad. Change .data in place.
"""

import numpy as np

import hcrot


def train(model: hcrot.Module, x: np.ndarray, target: np.ndarray, steps: int, learning_rate: float) -> list[float]:
    """The losses. Each step moves every parameter by learning_rate times its gradient, downhill."""
    losses = []
    for _ in range(steps):
        # yours: begin
        loss, dout = hcrot.mse_loss(model(x), target)
        losses.append(loss)
        model.zero_grad()
        model.backward(dout)
        for parameter in model.parameters():
            parameter.data -= learning_rate * parameter.grad
        # yours: end
    return losses


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Four things in a step: forward, loss, backward, and a move of each parameter against its gradient. Then compare with the second step.",
    "backward ADDS to .grad. What is in .grad when the second step begins?",
    "model.zero_grad() before model.backward(dout), then parameter.data -= learning_rate * parameter.grad for each parameter.",
]

DERIVATION = """
A step of size r along a direction v changes the loss by about r <gradient, v>. Among all v of one length, that is lowest for v against the
gradient: so each parameter moves by -learning_rate * gradient (Cauchy 1847, gradient descent).

Gradients add, within a pass because values are used several times, and over passes because some trainings collect several batches before
they move. So the loop has to say where a new sum begins: zero_grad. Without it each step goes along the sum of all gradients since the
beginning, which looks like momentum that never fades: the loss swings and grows.
"""

WRONG = {
    "gradients are never set to zero": ("        model.zero_grad()\n", ""),
    "uphill": ("parameter.data -= ", "parameter.data += "),
    "the loss after the step": ("losses.append(loss)", "losses.append(0.9 * loss)"),
}


def check(yours, check: Check) -> None:
    x, target = check.normal(8, 3), check.normal(8, 2)
    model, reference = (hcrot.Linear(3, 2, generator=0).astype(np.float64) for _ in range(2))
    for parameter in model.parameters():
        parameter.grad += 100.0  # left by somebody else
    losses, expected = yours.train(model, x, target, 4, 0.1), []
    for _ in range(4):
        loss, dout = hcrot.mse_loss(reference(x), target)
        expected.append(loss)
        reference.zero_grad()
        reference.backward(dout)
        for parameter in reference.parameters():
            parameter.data -= 0.1 * parameter.grad
    check.equal("the list of losses", losses, expected)
    check.equal("the weight after 4 steps", model.weight.data, reference.weight.data)
    check.equal("the bias after 4 steps", model.bias.data, reference.bias.data)
