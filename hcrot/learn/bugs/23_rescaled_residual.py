"""A residual that is scaled.

y = (x + f(x)) / s with a layer f and a number s, as in diffusers' ``output_scale_factor``.
"""

import numpy as np

import hcrot


class ScaledResidual(hcrot.Module):
    """y = (x + f(x)) / s.

    Args:
        inner: f, whose output has the shape of its input.
        factor: s.
    """

    def __init__(self, inner: hcrot.Module, factor: float):
        self.inner, self.factor = inner, factor

    def forward(self, x: np.ndarray) -> np.ndarray:
        return (x + self.inner(x)) / self.factor

    def backward(self, dy: np.ndarray) -> np.ndarray:
        # bug: begin
        dy /= self.factor
        return dy + self.inner.backward(dy)
        # bug: mended
        dsum = dy / self.factor
        return dsum + self.inner.backward(dsum)
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
In a chain of layers it works. Where the output of this layer is used in two places, the other place gets gradients that are too small by
just the factor s. With s = 1 all is right.
"""

HINTS = [
    "Which array do the two places share?",
    "Keep a copy of dy, call backward, and compare.",
    "Nobody may write into an array that was handed in. What does `a /= b` do that `a = a / b` does not?",
]

EXPLANATION = """
`dy /= s` divides the caller's array, not a private copy. Where the caller hands the same array to a second branch afterwards, that branch
gets the scaled one. The predecessor's Attention did this (B33), and its users only saw that a skip connection learned too slowly.
hcrot.check_gradients compares dy before and after, and says "dout 0 was written to".
"""


def check(yours, check) -> None:
    class Triple(hcrot.Module):
        def forward(self, x):
            return 3 * x

        def backward(self, dy):
            return 3 * dy

    first, second = yours.ScaledResidual(Triple(), 2.0), hcrot.Identity()
    x, dy = check.normal(4, 3), check.normal(4, 3)
    before = dy.copy()
    first(x)
    dx = first.backward(dy)
    check.equal("the gradient of the input", dx, 2 * before)
    second(x)
    off = np.abs(second.backward(dy) - before).max()
    check.that(off < 1e-12, f"a second branch that only passes on its gradient hands on one that is off by up to {off:.2g}")
