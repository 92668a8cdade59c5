"""The backward pass of a block, from that of its layers.

The block is y = x + second(SiLU(first(x))). Its layers know their own backward: layer.backward(dout) adds to the gradients of the layer's
parameters and returns the gradient of the layer's input. Write the block's backward: it returns dx.
"""

import numpy as np

import hcrot


class Block(hcrot.Module):
    """y = x + second(SiLU(first(x))) for x (N, features)."""

    def __init__(self, features: int, hidden: int, generator: np.random.Generator | int | None = None):
        generator = np.random.default_rng(generator)
        self.first = hcrot.Linear(features, hidden, generator=generator)
        self.activation = hcrot.SiLU()
        self.second = hcrot.Linear(hidden, features, generator=generator)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x + self.second(self.activation(self.first(x)))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        # yours: begin
        dh = self.second.backward(dy)
        dh = self.activation.backward(dh)
        return dy + self.first.backward(dh)
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Go through forward's line from the end to the beginning. How often is x used in it?",
    "The last thing that forward does is a sum: in y = a + b both terms get dy. One goes back through second, activation and first.",
    "x is used twice, in the sum and by first: dx is dy plus what self.first.backward returns.",
]

DERIVATION = """
Name what happens: h = first(x), a = SiLU(h), z = second(a), y = x + z. Backward is the same lines in the opposite order:

    y = x + z        dx (first use) = dy,  dz = dy
    z = second(a)    da = second.backward(dz)
    a = SiLU(h)      dh = activation.backward(da)
    h = first(x)     dx (second use) = first.backward(dh)

The two uses of x add: dx = dy + first.backward(dh). The term dy is why residual networks train well: whatever the layers do, the gradient
has a way back on which nothing is multiplied (He, Zhang, Ren & Sun 2016, Identity mappings in deep residual networks, equation 5).
"""

WRONG = {
    "the way past the layers is forgotten": ("return dy + self.first.backward(dh)", "return self.first.backward(dh)"),
    "the activation is forgotten": ("        dh = self.activation.backward(dh)\n", ""),
    "the layers are forgotten": ("return dy + self.first.backward(dh)", "self.first.backward(dh)\n        return dy"),
}


def check(yours, check: Check) -> None:
    for n, features, hidden in ((3, 4, 6), (1, 2, 5)):
        check.gradients(yours.Block(features, hidden, generator=0), check.normal(n, features))
