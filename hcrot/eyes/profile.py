"""``hcrot.profile``: where the time of a forward and a backward goes, layer by layer."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcrot.accumulators import BlockCall, is_floating
from hcrot.eyes.calls import Call, arrays_in, check_module, kept_bytes, seeing
from hcrot.eyes.tree import Branch, TreeReport, branches, check_depth, shape_text, subject_of, table_of
from hcrot.init import check_positive
from hcrot.module import Module
from hcrot.shown import Table, as_bytes

__all__ = ["Profile", "ProfileLine", "profile"]


@dataclass(frozen=True)
class ProfileLine:
    """One module.

    Attributes:
        name: as in ``named_modules``; "" for the network itself.
        kind: its class.
        depth: in the tree, 0 for the network itself.
        output: the shape of what its last forward returned; "" if it was not called.
        forward, backward: seconds, parts included.
        own_forward, own_backward: seconds without those of its parts.
        output_bytes: of what its forwards returned. kept: bytes that it and its parts kept for backward.
    """

    name: str
    kind: str
    depth: int
    output: str
    forward: float
    backward: float
    own_forward: float
    own_backward: float
    output_bytes: int
    kept: int

    @property
    def own(self) -> float:
        return self.own_forward + self.own_backward


class Profile(TreeReport[ProfileLine]):
    """What :func:`profile` found. Printed it is a table; in a notebook, too.

    Attributes:
        lines: one for each module, depth first; the first is the network.
        forward, backward: seconds of the whole.
        by_kind: seconds by class, without those of parts, the largest first.
    """

    def __init__(self, tree: list[Branch], measured: dict[str, "_Times"], depth: int | None):
        self._tree, self._depth = tree, depth
        self.lines: list[ProfileLine] = []
        nothing = _Times()
        for branch in tree:
            own = nothing if branch.again else measured.get(branch.name, nothing)
            kept = sum(measured.get(name, nothing).kept for name in branch.below)
            numbers = (own.forward, own.backward, own.own_forward, own.own_backward, own.output_bytes, kept)
            self.lines.append(ProfileLine(branch.name, type(branch.module).__name__, branch.depth, own.output, *numbers))
        self.forward, self.backward = self.lines[0].forward, self.lines[0].backward
        kinds: defaultdict[str, float] = defaultdict(float)
        for line in self.lines:
            kinds[line.kind] += line.own
        self.by_kind = dict(sorted(kinds.items(), key=lambda item: -item[1]))

    def table(self) -> Table:
        """What is printed."""
        lines, whole = {line.name: line for line in self.lines}, self.forward + self.backward

        def cells(branch: Branch) -> list[str]:
            line = lines[branch.name]
            if branch.again:
                return ["as above", *[""] * 5]
            times = [f"{1e3 * seconds:.2f} ms" if seconds else "" for seconds in (line.forward, line.backward)]
            bytes_ = [as_bytes(count) if count else "" for count in (line.output_bytes, line.kept)]
            return [line.output, *times, f"{line.own / whole:.1%}" if line.own else "", *bytes_]

        kinds = [f"{kind} {seconds / whole:.1%}" for kind, seconds in self.by_kind.items() if seconds >= 0.01 * whole]
        notes = [f"forward {1e3 * self.forward:.2f} ms, backward {1e3 * self.backward:.2f} ms; by class: {', '.join(kinds)}"]
        titles = ("output", "forward", "backward", "itself", "output bytes", "kept")
        return table_of("", self._tree, titles, cells, self._depth, notes)


@dataclass
class _Times:
    """Of one module in one pass; ``forward`` and ``backward`` with its parts, all else without."""

    output: str = ""
    forward: float = 0.0
    backward: float = 0.0
    own_forward: float = 0.0
    own_backward: float = 0.0
    output_bytes: int = 0
    kept: int = 0


def profile(model: Module, *inputs: Any, repeats: int = 5, depth: int | None = None) -> Profile:
    """The time of forward and backward of every module, and the bytes of its output and of what it keeps.

    Passes run on a copy that shares the weights, in training mode, so nothing of the model changes. After one that does not count (kernels
    are compiled, memory is asked for) there are ``repeats``; shown is the one whose time is the median. ``itself`` is the share of a module
    without its parts, so these shares add up to the whole. A module without a backward shows its forward alone.

    Args:
        model: any Module. A block whose backward adds to what its caller hands in, as those of a U-Net, is called as such.
        inputs: what it is called with.
        repeats: how many passes, at least 1.
        depth: how many levels are printed below the first; None: all.

    Raises:
        TypeError: ``model`` is no Module. ValueError: no inputs, or a number out of range. And whatever forward or backward raise.

    Example:
        >>> print(hcrot.profile(hcrot.Linear(3, 2), np.ones((4, 3), np.float32)))           # doctest: +ELLIPSIS
        layer   output  forward  backward  itself  output bytes  kept
        Linear  (4, 2)  ... ms   ... ms  100.0%          32 B  48 B
        forward ... ms, backward ... ms; by class: Linear 100.0%
    """
    check_module("profile", model)
    check_depth("profile", depth)
    (repeats,) = check_positive("profile", repeats=repeats)
    if not inputs:
        raise ValueError("profile: inputs are missing, expected what the model is called with")
    subject, generator = subject_of(model, own_gradients=True), np.random.default_rng(0)
    block = BlockCall(subject, inputs, generator, lambda wrong, problem: None)
    passes: list[dict[str, _Times]] = []
    parameters = {id(parameter.data): parameter.data for _, parameter in subject.named_parameters()}
    counted = dict(parameters)

    def done(call: Call) -> None:
        times = passes[-1].setdefault(call.name, _Times())
        if call.way == "backward":
            times.backward += call.seconds
            times.own_backward += call.own_seconds
            return
        times.forward += call.seconds
        times.own_forward += call.own_seconds
        times.output = shape_text(call.result)
        times.output_bytes += sum(array.nbytes for array in arrays_in(call.result))
        times.kept += kept_bytes(call, counted)

    with seeing(subject, done):
        for _ in range(repeats + 1):
            passes.append({})
            counted = dict(parameters)
            outputs = block.forward(subject)
            douts = [generator.standard_normal(y.shape).astype(y.dtype) for y in outputs if is_floating(y)]
            if type(subject).backward is not Module.backward:
                block.backward(subject, *douts)
            subject.forget()
    passes = sorted(passes[1:], key=lambda times: times[""].forward + times[""].backward)
    return Profile(branches(model), passes[(repeats - 1) // 2], depth)
