"""A fully connected layer.

y = x W^T + b with x (N, in), W (out, in) and b (out,). backward takes dy (N, out) and returns dx (N, in).
"""

import numpy as np

import hcrot


class Linear(hcrot.Module):
    """y = x W^T + b."""

    def __init__(self, in_features: int, out_features: int, *, generator: np.random.Generator):
        self.weight = hcrot.Parameter(generator.standard_normal((out_features, in_features)) / np.sqrt(in_features))
        self.bias = hcrot.Parameter(np.zeros(out_features))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return x @ self.weight.data.T + self.bias.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x = self.saved()
        # bug: begin
        self.weight.grad[...] = dy.T @ x
        # bug: mended
        self.weight.grad += dy.T @ x
        # bug: end
        self.bias.grad += dy.sum(axis=0)
        return dy @ self.weight.data


# kept back: the learner's file ends here

SYMPTOM = """
Memory is short, so I take two halves of a batch one after the other and step once. It should learn as from the whole batch at once, but
the step differs. With one batch per step everything is fine.
"""

HINTS = [
    "Make the smallest case: one layer, two inputs. Compare the gradients after both at once with those after one and then the other.",
    "hcrot.check_gradients(Linear(3, 2, generator=np.random.default_rng(0)), np.ones((4, 3))) knows about more than one pass.",
    "The law of hcrot/module.py: backward adds to the gradient of a parameter. Which line does not?",
]

EXPLANATION = """
The gradient of the weight was set (`grad[...] = `), so the second half of the batch wiped out the first. A loss that is a sum of two
terms has a gradient that is the sum of two gradients. So each backward has to add. The same fault shows wherever a layer is used twice in
one network. It is so common that hcrot.check_gradients makes a second pass and looks whether the gradients have doubled.
"""


def check(yours, check) -> None:
    x, dy = check.normal(6, 3), check.normal(6, 2)
    layer = yours.Linear(3, 2, generator=np.random.default_rng(0))
    layer(x)
    layer.backward(dy)
    whole = [parameter.grad.copy() for parameter in layer.parameters()]
    layer.zero_grad()
    for half in (slice(0, 2), slice(2, 6)):
        layer(x[half])
        layer.backward(dy[half])
    for parameter, grad in zip(layer.parameters(), whole, strict=True):
        check.that(np.allclose(parameter.grad, grad), "two halves of a batch give other gradients than the whole batch")
    check.agree(layer, x)
