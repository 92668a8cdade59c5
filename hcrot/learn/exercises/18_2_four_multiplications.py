"""F(2, 3): two outputs of a kernel of three taps, with four multiplications.

Write `slide(d, g, times)`, which returns (d0 g0 + d1 g1 + d2 g2, d1 g0 + d2 g1 + d3 g2). Every product of something made of d with
something made of g goes through times(a, b), which counts. You may call it four times. Sums and differences are free. So are
multiplications of a g, or of a sum of g's, with a constant such as 0.5: they are done once for each kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any


def slide(d: Sequence[Any], g: Sequence[Any], times: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    # yours: begin
    m0 = times(d[0] - d[2], g[0])
    m1 = times(d[1] + d[2], 0.5 * (g[0] + g[1] + g[2]))
    m2 = times(d[2] - d[1], 0.5 * (g[0] - g[1] + g[2]))
    m3 = times(d[1] - d[3], g[2])
    return m0 + m1 + m2, m1 - m2 - m3
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The points are 0, 1, -1 and infinity. G g has g0, (g0 + g1 + g2)/2, (g0 - g1 + g2)/2 and g2.",
    "B^T d has d0 - d2, d1 + d2, d2 - d1 and d1 - d3 (a sign may be moved to the outputs).",
    "The outputs are m0 + m1 + m2 and m1 - m2 - m3.",
]
DERIVATION = """
m1 + m2 = d2 (g0 + g2) + d1 g1, and m0 = d0 g0 - d2 g0: their sum is d0 g0 + d1 g1 + d2 g2. m1 - m2 = d1 (g0 + g2) + d2 g1, and
m3 = d1 g2 - d3 g2: their difference is d1 g0 + d2 g1 + d3 g2. The formulas are y = A^T [(G g) * (B^T d)] for the points 0, 1, -1 and
infinity; that three taps and two outputs need at least 3 + 2 - 1 = 4 multiplications is Winograd's theorem (1980).
"""
WRONG = {
    "six multiplications": (
        "return m0 + m1 + m2, m1 - m2 - m3",
        "return m0 + m1 + m2, times(d[1], g[0]) + times(d[2], g[1]) + times(d[3], g[2])",
    ),
    "a sign": ("m1 - m2 - m3", "m1 - m2 + m3"),
    "the half forgotten": ("0.5 * (g[0] + g[1] + g[2])", "(g[0] + g[1] + g[2])"),
}


class Linear:
    """A sum of the d's or of the g's. Two of them cannot be multiplied, except by `times`."""

    def __init__(self, kind: str, parts: dict):
        self.kind, self.parts = kind, parts

    def __add__(self, other):
        if isinstance(other, (int, float)) and other == 0:
            return self
        if not isinstance(other, Linear) or other.kind != self.kind:
            raise TypeError(f"a sum of {self.kind} and of something else")
        keys = {*self.parts, *other.parts}
        return Linear(self.kind, {key: self.parts.get(key, 0) + other.parts.get(key, 0) for key in keys})

    __radd__ = __add__

    def __mul__(self, factor):
        if not isinstance(factor, (int, float)):
            raise TypeError("this multiplication is not counted: use times(a, b)")
        if self.kind != "g" and abs(factor) != 1:
            raise TypeError("only a g, or a sum of g's, may be multiplied by a constant: what is made of d costs anew for each tile")
        return Linear(self.kind, {key: value * factor for key, value in self.parts.items()})

    __rmul__ = __mul__

    def __truediv__(self, factor):
        return self * (1 / factor)

    def __sub__(self, other):
        return self + other * -1

    def __neg__(self):
        return self * -1


def check(yours, check: Check) -> None:
    count = 0

    def times(a, b):
        nonlocal count
        count += 1
        kinds = {getattr(a, "kind", None), getattr(b, "kind", None)}
        check.that(kinds == {"d", "g"}, "times takes something made of d and something made of g")
        a, b = (a, b) if a.kind == "d" else (b, a)
        return Linear("products", {(i, j): x * y for i, x in a.parts.items() for j, y in b.parts.items()})

    d, g = ([Linear(kind, {index: 1}) for index in range(size)] for kind, size in (("d", 4), ("g", 3)))
    found = yours.slide(d, g, times)
    check.that(isinstance(found, tuple) and len(found) == 2, "expected two outputs")
    for output, total in enumerate(found):
        check.that(isinstance(total, Linear) and total.kind == "products", f"output {output} is not a sum of products")
        parts = {key: value for key, value in total.parts.items() if abs(value) > 1e-12}
        wanted = {(output + k, k): 1.0 for k in range(3)}
        text = " + ".join(f"{value:g} d{i} g{j}" for (i, j), value in sorted(parts.items())) or "0"
        same = parts.keys() == wanted.keys() and all(abs(value - 1) < 1e-9 for value in parts.values())
        check.that(same, f"output {output} is {text}, expected d{output} g0 + d{output + 1} g1 + d{output + 2} g2")
    check.that(count <= 4, f"times was called {count} times, 4 are allowed")
