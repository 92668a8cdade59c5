"""What a check of gradients found: a line for each array, the report of all lines, and the error that carries it."""

from dataclasses import dataclass

from hcrot.shown import Table

__all__ = ["GradientError", "GradientLine", "GradientReport"]

AGREEING = 12
"""So many right lines are printed beside wrong ones; if there are more, they are only counted."""


@dataclass(frozen=True)
class GradientLine:
    """What was found for one array.

    Attributes:
        name: ``input 0``, or the parameter's name and the class it belongs to.
        shape: the array's shape.
        analytic, numeric: the two slopes, along the direction in which they differ most; NaN if they could not be compared.
        error: ``|analytic - numeric|`` relative to the gradient's size (plus the rounding error that a difference can't go below).
        verdict: ``ok``, or what is wrong.
        clue: what the wrong values have in common, as a hint to the mistake, or where a right one was compared; "" for nothing.
    """

    name: str
    shape: tuple[int, ...]
    analytic: float
    numeric: float
    error: float
    verdict: str
    clue: str = ""

    @property
    def finding(self) -> str:
        """Verdict and clue."""
        return f"{self.verdict}: {self.clue}" if self.clue else self.verdict


@dataclass(frozen=True, repr=False)
class GradientReport:
    """All that :func:`check_gradients` found; printed, it explains.

    Attributes:
        module: the class that was checked.
        rtol: the largest error that counts as agreement.
        lines: one per floating-point input and per parameter.
        problems: what is wrong beside the gradients' values, a sentence each.
        notes: where the mistake is, and what may be one though every gradient is right, a sentence each.
    """

    module: str
    rtol: float
    lines: tuple[GradientLine, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.problems and all(line.verdict == "ok" for line in self.lines)

    @property
    def worst_error(self) -> float:
        return max((line.error for line in self.lines), default=0.0)

    def __repr__(self) -> str:
        wrong = sum(line.verdict != "ok" for line in self.lines)
        verdict = f"{wrong} wrong" if wrong else "all agree" if self.passed else "all agree, but:"
        width = max((len(line.name) for line in self.lines), default=0)
        rows = [f"gradients of {self.module}: {len(self.lines)} compared with differences of outputs to {self.rtol:g}, {verdict}"]
        rows += [f"  {sentence}" for sentence in self.problems + self.notes]
        shown = [line for line in self.lines if line.verdict != "ok"] if len(self.lines) - wrong > AGREEING and wrong else self.lines
        rows += [
            f"  {line.name:<{width}}  {str(line.shape):<16} analytic {line.analytic:+.9e}  numeric {line.numeric:+.9e}"
            f"  relative error {line.error:.1e}  {line.finding}"
            for line in shown
        ]
        rows += [f"  {len(self.lines) - wrong} others agree"] if len(shown) < len(self.lines) else []
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        rows = [[a.name, a.finding, str(a.shape), f"{a.analytic:+.9e}", f"{a.numeric:+.9e}", f"{a.error:.1e}"] for a in self.lines]
        titles = ("array", "verdict", "shape", "analytic", "numeric", "relative error")
        return Table(repr(self).partition("\n")[0], titles, rows, 2, self.problems + self.notes).html()


class GradientError(AssertionError):
    """A gradient is wrong or missing. ``report`` holds the :class:`GradientReport`, which is also the message.

    Example:
        >>> class Halved(hcrot.Linear):
        ...     def backward(self, dout):
        ...         return super().backward(dout) / 2
        >>> try:
        ...     hcrot.check_gradients(Halved(2, 2), np.ones((1, 2)))
        ... except hcrot.GradientError as error:
        ...     print([line.name for line in error.report.lines if line.verdict != "ok"])
        ['input 0']
    """

    def __init__(self, report: GradientReport):
        super().__init__(str(report))
        self.report = report
