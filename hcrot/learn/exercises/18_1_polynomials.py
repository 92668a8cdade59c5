"""Two polynomials multiplied by their values.

A polynomial is an array of coefficients, the lowest first. Write `multiply(a, b, points)`: it evaluates a and b at the points and at
infinity (where the value is the highest coefficient), multiplies the values point by point, and finds the coefficients of the product by
interpolation. There are len(a) + len(b) - 2 points, so with infinity as many as the product has coefficients.

Do not multiply out: what comes from np.convolve or np.polymul does not count.
"""

from collections.abc import Sequence

import numpy as np


def evaluation(points: Sequence[float], count: int) -> np.ndarray:
    """The matrix (len(points) + 1, count) that takes `count` coefficients to the values at the points, and at infinity last."""
    # yours: begin
    infinity = np.zeros(count)
    infinity[-1] = 1
    return np.array([*([float(p) ** k for k in range(count)] for p in points), infinity])
    # yours: end


def multiply(a: np.ndarray, b: np.ndarray, points: Sequence[float]) -> np.ndarray:
    # yours: begin
    values = (evaluation(points, len(a)) @ a) * (evaluation(points, len(b)) @ b)
    return np.linalg.solve(evaluation(points, len(a) + len(b) - 1), values)
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The row of a point p is 1, p, p^2 and so on. The row of infinity is 0 .. 0, 1: it reads off the highest coefficient.",
    "One multiplication for each point: (evaluation(points, len(a)) @ a) * (evaluation(points, len(b)) @ b).",
    "The product has len(a) + len(b) - 1 coefficients c with evaluation(points, len(a) + len(b) - 1) @ c = values: np.linalg.solve.",
]
DERIVATION = """
The value of a product is the product of the values, at every point, and at infinity too: the highest coefficient of a b is that of a times
that of b. A polynomial of n coefficients is fixed by its values at n points, as the matrix of powers (Vandermonde) can be inverted when the
points differ. So n multiplications do, in the place of len(a) len(b). Toom 1963, Cook 1966; with the points 0, 1 and infinity Karatsuba.
The adjoint of this product, with a fixed, is a kernel that slides: Winograd's algorithm.
"""
WRONG = {
    "infinity has the lowest coefficient": ("infinity[-1] = 1", "infinity[0] = 1"),
    "the points' powers begin with 1": ("float(p) ** k for", "float(p) ** (k + 1) for"),
    "a sum of values": ("@ a) * (", "@ a) + ("),
}


def check(yours, check: Check) -> None:
    expected = np.array([[1, 0, 0], [1, 2, 4], [1, -3, 9], [0, 0, 1]])
    check.equal("evaluation([0, 2, -3], 3)", yours.evaluation([0, 2, -3], 3), expected)
    given, counts = yours.evaluation, []

    def watched(points, count):
        counts.append(count)
        return given(points, count)

    yours.evaluation = watched
    for points, sizes in (((0, 1), (2, 2)), ((0, 1, -1), (3, 2)), ((0, 1, -1, 2, -2), (3, 4)), ((0.5,), (1, 2))):
        counts.clear()
        a, b = check.normal(sizes[0]), check.normal(sizes[1])
        check.equal(f"the product of {sizes} coefficients by the points {points}", yours.multiply(a, b, points), np.convolve(a, b))
        check.that({*sizes} <= {*counts}, f"multiply did not ask evaluation for the values of {sizes} coefficients")
    yours.evaluation = given
