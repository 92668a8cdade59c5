"""What wrong values have in common: a constant ratio, a permutation, a few entries. The mistake is often to be read off it.

The slopes of a right gradient g along directions v_1 ... v_K are <g, v_k>. If those of differences are n_k, and <T(g), v_k> = c n_k for
one constant c and all k, then T(g) is c times the right gradient: K equations, one unknown. T is nothing (a constant factor), a swap of two
axes (transposed), or a reversal of axes (a flipped kernel).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import combinations

import numpy as np

__all__ = ["clue", "named_sizes", "ratio_clue"]

TOLERANCE = 1e-5
"""How far values may be from c times the others, relative to the largest."""

FEW = 64
"""Of arrays up to this size every entry is compared."""

FORMS: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("{}", lambda n: n),
    ("1/{}", lambda n: 1 / n),
    ("sqrt({})", lambda n: math.sqrt(n)),
    ("1/sqrt({})", lambda n: 1 / math.sqrt(n)),
    ("{}^2", lambda n: n * n),
    ("1/{}^2", lambda n: 1 / (n * n)),
    ("{0}/({0} - 1)", lambda n: n / (n - 1)),
    ("({0} - 1)/{0}", lambda n: (n - 1) / n),
)
"""What formulas do with a size: sums for means, the scale of attention, the variance of a sample."""


def clue(gradient: np.ndarray, slope: Callable[[np.ndarray], float], generator: np.random.Generator, sizes: Mapping[float, str]) -> str:
    """What is to be said of a wrong gradient, "" for nothing.

    Args:
        gradient: the analytic one, of the shape of the array that it belongs to.
        slope: the numeric slope along a direction.
        generator: source of directions.
        sizes: what numbers of this module and its arrays mean (:func:`named_sizes`).
    """
    directions = [generator.standard_normal(gradient.shape) for _ in range(4)]
    numeric = np.array([slope(direction) for direction in directions])
    if not np.isfinite(numeric).all() or not np.isfinite(gradient).all():
        return "it is not finite"
    if np.abs(numeric).max() <= 1e-9 * np.linalg.norm(gradient):
        return "the output does not depend on this array, so its gradient is zero"
    if not gradient.any():
        return ""
    for words, candidate in _variants(gradient):
        ratio = _constant_ratio(np.array([np.vdot(candidate, direction) for direction in directions]), numeric)
        if ratio is not None:
            factor = "" if words and abs(ratio - 1) <= TOLERANCE else ratio_clue(ratio, sizes)
            return " and ".join(filter(None, (words, factor)))
    return _few_entries(gradient, slope) if gradient.size <= FEW else ""


def _variants(gradient: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Words and T(gradient) for each T that leaves the shape as it is."""
    yield "", gradient
    pairs = list(combinations(range(gradient.ndim), 2))
    for first, second in pairs:
        if gradient.shape[first] == gradient.shape[second] > 1:
            yield f"it is transposed, axis {first} for axis {second}", gradient.swapaxes(first, second)
    for axes in [*((axis,) for axis in range(gradient.ndim)), *pairs]:
        if min(gradient.shape[axis] for axis in axes) > 1:
            yield f"it is reversed along {'axis' if len(axes) == 1 else 'axes'} {' and '.join(map(str, axes))}", np.flip(gradient, axes)


def _constant_ratio(analytic: np.ndarray, numeric: np.ndarray) -> float | None:
    """The c of ``analytic = c numeric``, None if there is none."""
    ratio = float(np.vdot(analytic, numeric) / np.vdot(numeric, numeric))
    return ratio if np.abs(analytic - ratio * numeric).max() <= TOLERANCE * np.abs(analytic).max() else None


def _few_entries(gradient: np.ndarray, slope: Callable[[np.ndarray], float]) -> str:
    """Which entries are wrong, if some are right."""
    axes = np.eye(gradient.size).reshape(gradient.size, *gradient.shape)
    numeric = np.array([slope(axis) for axis in axes]).reshape(gradient.shape)
    wrong = np.abs(gradient - numeric) > TOLERANCE * max(np.abs(numeric).max(), np.abs(gradient).max())
    count = int(np.count_nonzero(wrong))
    if not 0 < count < gradient.size:
        return ""
    listed = [str(tuple(map(int, index))) for index in np.argwhere(wrong)[:4]]
    zero = "" if gradient[wrong].any() else ", zero there"
    return f"only in {count} of {gradient.size} entries{zero}: {', '.join(listed)}{', ...' if count > 4 else ''}"


def ratio_clue(ratio: float, sizes: Mapping[float, str]) -> str:
    """A sentence about analytic values that are all ``ratio`` times the numeric ones.

    Example:
        >>> ratio_clue(8**0.5, {8: "dimension 1 of x is 8"})
        'analytic / numeric = 2.828 = sqrt(8), and dimension 1 of x is 8'
        >>> ratio_clue(-0.5, {})
        'the sign is wrong, and each analytic value is exactly half of the numeric one'
    """
    size = abs(ratio)
    half, twice = (abs(size / number - 1) <= TOLERANCE for number in (0.5, 2))
    form, meaning = _form(size, sizes)
    if half or twice:  # not by sqrt(4) where there is a 4
        meaning = next((meaning for number, meaning in sizes.items() if number in (0.5, 2)), "")
    if abs(size - 1) <= TOLERANCE:
        said = meaning = ""
    elif half or twice:
        said = f"each analytic value is exactly {'twice' if twice else 'half of'} the numeric one"
    else:
        number = f"{size:.4g}" if form else f"{size:.6g}"
        said = f"analytic / numeric = {number}" + (f" = {form}" if form not in ("", number) else "")
    said += f", and {meaning}" if meaning else ""
    return ", and ".join(filter(None, ("the sign is wrong" if ratio < 0 else "", said)))


def _form(ratio: float, sizes: Mapping[float, str]) -> tuple[str, str]:
    """A formula for a number, and what the size in it is; "" for what is not known."""

    def near(value: float) -> bool:
        return abs(value - ratio) <= TOLERANCE * ratio

    for form, function in FORMS:
        for number, meaning in sizes.items():
            if number != 1 and near(function(number)):
                return form.format(f"{number:g}"), meaning
    for form, value in (("{}", ratio), ("sqrt({})", ratio * ratio)):
        fraction = Fraction(max(value, 1 / value)).limit_denominator(16)
        simple = fraction.numerator <= (1000 if fraction.denominator == 1 else 16)  # among many more, one is always near
        fraction = fraction if value >= 1 else 1 / fraction
        if simple and near(float(fraction) if form == "{}" else math.sqrt(fraction)):
            return form.format(fraction), ""
    return "", ""


def named_sizes(attributes: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> dict[float, str]:
    """What numbers mean: the attributes of a module, the dimensions of arrays, and products of these.

    Args:
        attributes: of the module; those that are no numbers are left out.
        arrays: by the names that a sentence calls them.

    Returns:
        for each number above 0 but 1, the first of its meanings, as a sentence: ``{15: "dimensions 2 and 3 of x are 3 x 5"}``.
    """
    found: dict[float, str] = {}
    for name, value in attributes.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value not in (0, 1) and math.isfinite(value):
            found.setdefault(abs(float(value)), f"self.{name} is {value:g}")
    for count in range(1, 5):
        for name, array in arrays.items():
            for axes in combinations(range(array.ndim), count) if array.ndim <= 5 else ():
                shape = [array.shape[axis] for axis in axes]
                if count == 1:
                    meaning = f"dimension {axes[0]} of {name} is {shape[0]}"
                else:
                    listed = f"{', '.join(map(str, axes[:-1]))} and {axes[-1]}"
                    meaning = f"dimensions {listed} of {name} are {' x '.join(map(str, shape))}"
                if math.prod(shape) > 1 and (count == 1 or min(shape) > 1):
                    found.setdefault(float(math.prod(shape)), meaning)
    found.pop(1.0, None)
    return found
