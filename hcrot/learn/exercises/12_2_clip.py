"""Clipping by the global norm.

Take the length of all gradients together, the root of the sum of all their squares. If it is more than ``max_norm``, scale every gradient
by max_norm / length, in place. Return the length before clipping.
"""

import numpy as np

import hcrot


def clip(parameters: list[hcrot.Parameter], max_norm: float) -> float:
    """The common norm of all gradients; afterwards it is at most max_norm."""
    # yours: begin
    norm = float(np.sqrt(sum((p.grad**2).sum() for p in parameters)))
    if norm > max_norm:
        for p in parameters:
            p.grad *= max_norm / norm
    return norm
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "One norm for all: first the sum of squares over all parameters, then one square root.",
    "Gradients that are short enough stay as they are. Nothing is ever made longer.",
    "p.grad *= factor writes into the gradient; return the norm that you had before.",
]
DERIVATION = """
|g|^2 = sum over all parameters and all their numbers of g^2. With the factor f = min(1, max_norm / |g|) the length becomes |f g| = f |g|,
which is max_norm where it was larger, and |g| where it was not. All gradients get the same factor, so the direction of the step stays.
Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
"""
WRONG = {
    "each by itself": (
        "        for p in parameters:\n            p.grad *= max_norm / norm\n",
        "        for p in parameters:\n            p.grad *= min(1, max_norm / np.sqrt((p.grad**2).sum()))\n",
    ),
    "short ones are made longer": ("if norm > max_norm:", "if norm > 0:"),
    "the sum of norms": ("np.sqrt(sum((p.grad**2).sum() for p in parameters))", "sum(np.sqrt((p.grad**2).sum()) for p in parameters)"),
}


def check(yours, check: Check) -> None:
    for shapes, scale, limit in ((((2, 3), (4,)), 10.0, 1.0), (((3,), (1, 2), (2, 2)), 0.01, 1.0), (((5,), (2,)), 1.0, 0.5)):
        parameters = [hcrot.Parameter(check.normal(*shape)) for shape in shapes]
        gradients = [scale * check.normal(*shape) for shape in shapes]
        for p, g in zip(parameters, gradients, strict=True):
            p.grad[...] = g
        arrays = [p.grad for p in parameters]
        norm = np.linalg.norm(np.concatenate([g.ravel() for g in gradients]))
        check.equal("the returned norm", yours.clip(parameters, limit), norm)
        for index, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            check.that(p.grad is arrays[index], f"gradient {index} is a new array: clip has to write into p.grad")
            check.equal(f"gradient {index}, norm {norm:.3g}, max_norm {limit:g}", p.grad, g * min(1, limit / norm))
