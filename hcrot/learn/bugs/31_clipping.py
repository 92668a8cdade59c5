"""Clipping gradients by their norm.

If the norm of all gradients of a network together is above a limit, all are scaled by one factor, so that it becomes the limit.
"""

import numpy as np


def clip_grad_norm(gradients: list[np.ndarray], max_norm: float) -> float:
    """Scale the arrays, in place.

    Args:
        gradients: those of all parameters.
        max_norm: the limit.

    Returns:
        the norm before.
    """
    if max_norm <= 0:
        raise ValueError(f"clip_grad_norm: max_norm must be above 0, got {max_norm}")
    norm = float(np.sqrt(sum(np.square(gradient).sum() for gradient in gradients)))
    for gradient in gradients:
        # bug: begin
        size = float(np.linalg.norm(gradient))
        if size > max_norm:
            gradient *= max_norm / size
        # bug: mended
        if norm > max_norm:
            gradient *= max_norm / norm
        # bug: end
    return norm


# kept back: the learner's file ends here

SYMPTOM = """
I clip to 1, but the step is much longer than that. And whenever clipping cuts, training turns to another direction: layers with small
gradients suddenly move as much as the others.
"""

HINTS = [
    "Compute the norm of everything after clipping, for two arrays.",
    "Divide the gradients after clipping by those before. How many factors are there?",
    "What is compared with the limit: the norm of all, or that of each?",
]

EXPLANATION = """
Each array was clipped by itself. A vector whose parts are scaled by different factors points elsewhere, so it is not the gradient any
more, and with 100 arrays its norm may be up to ten times the limit. Clipping by the global norm keeps the direction (Pascanu et al. 2013,
arXiv:1211.5063).
"""


def check(yours, check) -> None:
    before = [3 * check.normal(3, 4), 0.1 * check.normal(5), check.normal(2)]
    gradients = [gradient.copy() for gradient in before]
    norm = yours.clip_grad_norm(gradients, 1.0)
    flat, earlier = np.concatenate([g.ravel() for g in gradients]), np.concatenate([g.ravel() for g in before])
    check.equal("the norm that is returned", norm, np.linalg.norm(earlier))
    check.equal("the norm after clipping to 1", np.linalg.norm(flat), 1.0)
    check.equal("the cosine between the gradients before and after", flat @ earlier / np.linalg.norm(earlier), 1.0)
    again = yours.clip_grad_norm(gradients, 5.0)
    check.equal("the norm before clipping to 5, after clipping to 1", again, 1.0)
    check.equal("the gradients after clipping to 5", np.concatenate([g.ravel() for g in gradients]), flat)
