"""A step of AdamW.

``step`` changes every parameter in place: first the decay, p <- (1 - lr decay) p, then Adam with both bias corrections. ``self.m`` and
``self.v`` hold the running means of the gradient and of its square, one array for each parameter; ``self.t`` counts the steps.
"""

import numpy as np

import hcrot


class AdamW:
    """m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, p <- (1 - lr decay) p - lr mhat / (sqrt(vhat) + eps)."""

    def __init__(self, parameters: list[hcrot.Parameter], lr: float, betas: tuple[float, float], eps: float, decay: float):
        self.parameters, self.lr, self.betas, self.eps, self.decay = parameters, lr, betas, eps, decay
        self.t = 0
        self.m = [np.zeros_like(p.data) for p in parameters]
        self.v = [np.zeros_like(p.data) for p in parameters]

    def step(self) -> None:
        # yours: begin
        self.t += 1
        b1, b2 = self.betas
        for p, m, v in zip(self.parameters, self.m, self.v, strict=True):
            m[...] = b1 * m + (1 - b1) * p.grad
            v[...] = b2 * v + (1 - b2) * p.grad**2
            mhat, vhat = m / (1 - b1**self.t), v / (1 - b2**self.t)
            p.data *= 1 - self.lr * self.decay
            p.data -= self.lr * mhat / (np.sqrt(vhat) + self.eps)
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Count first: the first step has t = 1, or the correction divides by 1 - b^0 = 0.",
    "m = b1 * m + ... makes a new array and leaves the old one in the list; m[...] = ... writes into it.",
    "mhat = m / (1 - b1**t), vhat = v / (1 - b2**t), and eps is added to the root of vhat, not under it.",
]
DERIVATION = """
Unrolled, m_t = (1 - b) sum_k b^k g_(t-k), a sum whose weights add up to (1 - b)(1 + b + ... + b^(t-1)) = 1 - b^t. Divided by that it is a
weighted mean. The same holds for v and g^2. So the first step is lr g / |g|, whatever the size of g is.

The decay acts on p itself: added to the gradient it would be divided by sqrt(vhat), and parameters with large gradients would not shrink.
Source: Kingma & Ba 2015, algorithm 1 and section 3; Loshchilov & Hutter 2019, algorithm 2.
"""
WRONG = {
    "no correction of v": ("v / (1 - b2**self.t)", "v"),
    "decay in the gradient": (
        "            m[...] = b1 * m + (1 - b1) * p.grad\n",
        "            p.grad += self.decay * p.data\n            m[...] = b1 * m + (1 - b1) * p.grad\n",
    ),
    "the means are forgotten": ("m[...] = b1 * m", "m = b1 * m"),
    "eps under the root": ("(np.sqrt(vhat) + self.eps)", "np.sqrt(vhat + self.eps)"),
}


def check(yours, check: Check) -> None:
    for lr, betas, eps, decay in ((0.1, (0.9, 0.999), 1e-8, 0.01), (0.05, (0.5, 0.8), 0.1, 0.0)):
        starts = [check.normal(2, 3), check.normal(4)]
        own, other = ([hcrot.Parameter(start.copy()) for start in starts] for _ in range(2))
        arrays = [p.data for p in own]
        with hcrot.plain():
            mine, reference = yours.AdamW(own, lr, betas, eps, decay), hcrot.AdamW(other, lr, betas, eps, decay)
            for step in range(1, 4):
                for p, q in zip(own, other, strict=True):
                    p.grad[...] = q.grad[...] = check.normal(*p.shape)
                mine.step()
                reference.step()
                for index, (p, q) in enumerate(zip(own, other, strict=True)):
                    check.that(p.data is arrays[index], f"parameter {index} is a new array: step has to write into p.data")
                    check.equal(f"parameter {index} after step {step}, betas {betas}, eps {eps}, decay {decay}", p.data, q.data)
