"""A value that is used twice.

The forward pass is y = a b + a^2, number by number, for two arrays a and b of the same shape. Write backward: it gets dy, the gradient of
the loss with respect to y, and returns da and db.
"""

import numpy as np


def forward(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """y = a b + a^2."""
    return a * b + a * a


def backward(dy: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """da and db, for any dy of the shape of y."""
    # yours: begin
    da = dy * b + dy * a + dy * a
    db = dy * a
    return da, db
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "How often does a stand on the right side of y = a b + a a? Each time is a use, and each use sends one gradient back.",
    "Of a product, the gradient of one factor is dy times the other factor. In a a both factors are a.",
    "da = dy * b + dy * a + dy * a. What is db?",
]

DERIVATION = """
Name each use: y = a1 b + a2 a3. By the rule of one multiplication

    da1 = dy b,    db = dy a1,    da2 = dy a3,    da3 = dy a2.

All three are the same a. When a moves, all move, and the changes of the loss add up:

    da = dy b + dy a + dy a = dy (b + 2 a),    db = dy a.

School agrees: the slope of a b + a^2 with respect to a is b + 2 a.
"""

WRONG = {
    "only the first use": ("dy * b + dy * a + dy * a", "dy * b"),
    "a square is used once": ("dy * b + dy * a + dy * a", "dy * b + dy * a"),
    "dy is forgotten": ("db = dy * a", "db = a"),
}


def check(yours, check: Check) -> None:
    for shape in ((1,), (5,), (2, 3)):
        a, b, dy = check.normal(*shape), check.normal(*shape), check.normal(*shape)
        found = yours.backward(dy.copy(), a.copy(), b.copy())
        check.that(isinstance(found, tuple) and len(found) == 2, "backward must return two arrays, da and db")
        for wrong, lead in (
            (dy * (b + a), "a a uses a twice, and one of the two uses is missing in da"),
            (dy * b, "a is used in a a, too: that is missing in da"),
            (b + 2 * a, "da has no dy: each use sends back dy times the other factor"),
        ):
            check.that(np.shape(found[0]) != shape or not np.allclose(found[0], wrong), lead)
        check.equal("da", found[0], dy * (b + 2 * a))
        check.equal("db", found[1], dy * a)
