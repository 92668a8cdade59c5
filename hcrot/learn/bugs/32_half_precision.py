"""The norm of gradients that are kept in half precision.

Half the memory: gradients are float16. Their norm decides whether a step is taken at all: a step with a norm that is not finite is skipped.
"""

import numpy as np


def grad_norm(gradients: list[np.ndarray]) -> float:
    """sqrt of the sum of all squares.

    Args:
        gradients: float16 arrays.
    """
    total = 0.0
    for gradient in gradients:
        # bug: begin
        total += float(np.square(gradient).sum())
        # bug: mended
        total += float(np.square(gradient.astype(np.float64)).sum())
        # bug: end
    return float(np.sqrt(total))


def should_step(gradients: list[np.ndarray]) -> bool:
    """Whether the gradients can be used."""
    return bool(np.isfinite(grad_norm(gradients)))


# kept back: the learner's file ends here

SYMPTOM = """
More than half of all steps are skipped because the norm is "inf", but I print the gradients and none is larger than 300. And late in
training the norm is reported as 0 although the gradients are not zero.
"""

HINTS = [
    "What is the largest number of float16? np.finfo(np.float16) knows, and also the smallest.",
    "Square 300. Square 0.0001. In float16.",
    "In which precision is the square taken, and the sum?",
]

EXPLANATION = """
float16 ends at 65504, so the square of 256 is infinity already; and the square of anything below 0.0001 or so is zero. The numbers were
turned into float64 only after they had been squared and summed. Sums and squares of half-precision numbers are taken in a wider type. The
sum overflows, too: twenty squares of 60 are more than 65504.
"""


def check(yours, check) -> None:
    cases = {
        "sixteen gradients of 300": np.full((4, 4), 300, np.float16),
        "nine gradients of 0.00001": np.full(9, 1e-5, np.float16),
        "fifty gradients of 100": np.full(50, 100, np.float16),
    }
    with np.errstate(over="ignore"):
        for name, gradient in cases.items():
            exact = float(np.linalg.norm(gradient.astype(np.float64)))
            norm = yours.grad_norm([gradient])
            check.that(abs(norm - exact) <= 1e-3 * exact, f"the norm of {name} is {norm:.4g}, expected {exact:.4g}")
        check.that(yours.should_step(list(cases.values())), "gradients that are all finite are refused")
        check.that(not yours.should_step([np.array([np.inf], np.float16)]), "a gradient of infinity is accepted")
