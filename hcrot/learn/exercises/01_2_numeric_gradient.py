"""The judge: a gradient by finite differences.

Write numeric_gradient: it gets a function that turns an array into one number, and an array x of any shape, and returns the gradient at x:
an array of the shape of x with a two-sided quotient for each entry. x must be unchanged in the end.
"""

from collections.abc import Callable

import numpy as np


def numeric_gradient(function: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """The slope of function with respect to each entry of x, (f(x + h) - f(x - h)) / 2h with h added to that entry alone."""
    gradient = np.zeros_like(x)
    # yours: begin
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += h
        below[index] -= h
        gradient[index] = (function(above) - function(below)) / (2 * h)
    # yours: end
    return gradient


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "One entry at a time: all others have to stay as they are. `for index in np.ndindex(x.shape)` goes over all entries of any shape.",
    "Work on copies: `above = x.copy()`, `above[index] += h`, and the same below. So x is never changed.",
    "gradient[index] = (function(above) - function(below)) / (2 * h)",
]

DERIVATION = """
With e_k an array that is 1 at entry k and 0 elsewhere, Taylor's formula says

    f(x + h e_k) = f + h f_k + h^2/2 f_kk + h^3/6 f_kkk + ...
    f(x - h e_k) = f - h f_k + h^2/2 f_kk - h^3/6 f_kkk + ...

where f_k is the slope that we want. In the difference the terms with even powers cancel:

    (f(x + h e_k) - f(x - h e_k)) / 2h = f_k + h^2/6 f_kkk + ...

So the error shrinks with h^2 (Nocedal & Wright, Numerical Optimization, section 8.1). Each entry costs two calls of f. A network has
millions of entries, so this is a judge and no way to train: there, one backward pass gives all slopes for the price of about two forwards.
"""

WRONG = {
    "one-sided": ("(function(above) - function(below)) / (2 * h)", "(function(above) - function(x)) / h"),
    "not divided by two": ("/ (2 * h)", "/ h"),
    "x itself is changed": ("above, below = x.copy(), x.copy()", "above, below = x, x.copy()"),
}


def check(yours, check: Check) -> None:
    x = check.normal(2, 3)
    check.same_as("numeric_gradient of sum(x^3)", yours.numeric_gradient, lambda f, x, h: 3 * x**2, lambda x: (x**3).sum(), x, 1e-4)
    y = check.normal(4)
    expected = np.cos(y) * np.roll(y, 1) + np.roll(np.sin(y), -1)
    found = yours.numeric_gradient(lambda y: float((np.sin(y) * np.roll(y, 1)).sum()), y)
    check.equal("numeric_gradient of a function that mixes its entries", found, expected)
