"""``hcrot.summary``: what a network is made of, what comes out of each part, and what it costs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcrot.eyes.calls import Call, check_module, kept_bytes, seeing
from hcrot.eyes.tree import Branch, TreeReport, branches, check_depth, shape_text, subject_of, table_of
from hcrot.module import Module
from hcrot.shown import Table, as_bytes

__all__ = ["Summary", "SummaryLine", "summary"]


@dataclass(frozen=True)
class SummaryLine:
    """One module; the numbers are those of it and of everything below it.

    Attributes:
        name: as in ``named_modules``; "" for the network itself.
        kind: its class.
        depth: in the tree, 0 for the network itself.
        output: the shape of what its last forward returned; "" if it was not called.
        calls: how often its forward was called.
        parameters: how many numbers are learned. A parameter of two modules counts in the first.
        multiplications: how many multiply-adds all its forwards took.
        kept: bytes that were kept for backward.
    """

    name: str
    kind: str
    depth: int
    output: str
    calls: int
    parameters: int
    multiplications: int
    kept: int


class Summary(TreeReport[SummaryLine]):
    """What :func:`summary` found. Printed it is a table; in a notebook, too.

    Attributes:
        lines: one for each module, depth first; the first is the network.
        parameters, trainable: how many numbers are learned, and how many of them are not frozen.
        multiplications: multiply-adds of one forward.
        kept: bytes kept for backward; ``parameter_bytes``: those of the parameters themselves, without gradients.
        uncounted: names of modules with a matrix of their own that do not say how often they multiply.
    """

    def __init__(self, tree: list[Branch], measured: dict[str, "_Measured"], depth: int | None, ran: bool):
        self._tree, self._depth, self._ran = tree, depth, ran
        nothing = _Measured()
        self.lines: list[SummaryLine] = []
        for branch in tree:
            own = measured.get(branch.name, nothing)
            below = [measured.get(name, nothing) for name in branch.below]
            sums = [sum(getattr(one, what) for one in below) for what in ("parameters", "multiplications", "kept")]
            self.lines.append(SummaryLine(branch.name, type(branch.module).__name__, branch.depth, own.output, own.calls, *sums))
        parameters = tree[0].module.parameters()
        self.parameters, self.multiplications, self.kept = self.lines[0].parameters, self.lines[0].multiplications, self.lines[0].kept
        self.trainable = sum(parameter.data.size for parameter in parameters if parameter.trainable)
        self.parameter_bytes = sum(parameter.data.nbytes for parameter in parameters)
        self.uncounted = [name for name, one in measured.items() if one.uncounted]

    def table(self) -> Table:
        """What is printed."""
        lines = {line.name: line for line in self.lines}

        def cells(branch: Branch) -> list[str]:
            line = lines[branch.name]
            if branch.again:
                return ["as above", "", "", ""]
            output = line.output + (f" x {line.calls}" if line.calls > 1 else "")
            numbers = [f"{number:,}" if number else "" for number in (line.parameters, line.multiplications)]
            return [output, *numbers, as_bytes(line.kept) if line.kept else ""]

        notes = [f"{self.parameters:,} parameters ({as_bytes(self.parameter_bytes)}), {self.trainable:,} trainable"]
        if self._ran:
            notes[0] += f"; {self.multiplications:,} multiplications; {as_bytes(self.kept)} kept for backward"
        if self.uncounted:
            notes.append(f"not counted are the multiplications of {', '.join(self.uncounted)}: give its class a method multiplications")
        titles = ("output", "parameters", "multiplications", "kept")
        return table_of("", self._tree, titles, cells, self._depth, notes)


@dataclass
class _Measured:
    """Of one module, without its parts."""

    output: str = ""
    calls: int = 0
    parameters: int = 0
    multiplications: int = 0
    kept: int = 0
    uncounted: bool = False

    def add(self, call: Call, counted: dict[int, np.ndarray]) -> None:
        self.output, self.calls = shape_text(call.result), self.calls + 1
        self.kept += kept_bytes(call, counted)
        count = getattr(call.module, "multiplications", None)
        if count is not None:
            self.multiplications += int(count(call.result, *call.inputs))
        elif not type(call.module).__module__.startswith("hcrot."):
            own = [value for value in vars(call.module).values() if hasattr(value, "grad")]
            self.uncounted = any(parameter.data.ndim > 1 for parameter in own)


def summary(model: Module, *inputs: Any, depth: int | None = None) -> Summary:
    """The tree of a network with the shape of each output, parameters, multiplications and the bytes kept for backward.

    One forward in training mode runs on a copy that shares the weights, so nothing of the model changes. Without inputs there is none, and
    the table has the parameters alone.

    Each number of a line counts everything below it. *Multiplications* are the multiply-adds of products of matrices: of convolutions (as
    the formula has them; Winograd's algorithm takes fewer), linear layers and attention. What is done once for each number, in norms,
    activations and sums, is left out. A layer of one's own says its number by a method, without its parts'::

        def multiplications(self, y, *inputs):            # what forward returned, and what it was called with
            return y.size * self.weight.shape[1]

    *Kept* is the memory behind the arrays that forward handed to ``Module.save``. What several layers keep counts once, for the first of
    them; parameters, which are there anyway, do not count, but the inputs do.

    Args:
        model: any Module.
        inputs: what it is called with: arrays of the sizes to be looked at, timesteps, labels.
        depth: how many levels are printed below the first; None: all.

    Raises:
        TypeError: ``model`` is no Module. ValueError: ``depth`` is not as described. And whatever the forward raises for these inputs.

    Example:
        >>> print(hcrot.summary(hcrot.Sequential(hcrot.Linear(4, 8), hcrot.SiLU()), np.ones((2, 4), np.float32)))
        layer          output  parameters  multiplications   kept
        Sequential     (2, 8)          40               64   96 B
        ├─ 0 (Linear)  (2, 8)          40               64   32 B
        └─ 1 (SiLU)    (2, 8)                                64 B
        40 parameters (160 B), 40 trainable; 64 multiplications; 96 B kept for backward
    """
    check_module("summary", model)
    check_depth("summary", depth)
    tree, measured = branches(model), dict[str, _Measured]()
    counted: dict[int, np.ndarray] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in counted and not parameter.constant:
            owner = measured.setdefault(name.rpartition(".")[0], _Measured())
            owner.parameters += math.prod(parameter.shape)
        counted |= {id(parameter): parameter.data, id(parameter.data): parameter.data}
    if inputs:
        subject = subject_of(model, own_gradients=False)

        def done(call: Call) -> None:
            measured.setdefault(call.name, _Measured()).add(call, counted)

        with seeing(subject, done):
            subject(*(list(value) if isinstance(value, list) else value for value in inputs))
    return Summary(tree, measured, depth, bool(inputs))
