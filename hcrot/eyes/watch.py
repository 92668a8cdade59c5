"""``hcrot.watch``: every output and every gradient of a network while it trains or draws, by the name of the layer."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hcrot.eyes.calls import Call, arrays_in, check_module, seeing
from hcrot.eyes.tree import Branch, branches, shape_text, table_of
from hcrot.init import is_int
from hcrot.module import Module, Parameter
from hcrot.shown import Table

__all__ = ["Event", "NotFinite", "Numbers", "Seen", "Watch", "watch"]


@dataclass(frozen=True)
class Event:
    """What a callback is told: a module has returned from its forward, or its backward was called and has returned.

    Attributes:
        name: the module's, as in ``named_modules``; "" for the model itself.
        module: whose it is.
        kind: "output" after a forward, "gradient" after a backward.
        arrays: the output, or the gradient of the output; several if forward returns several. They cannot be written to. They may change
            later, so keep copies.
    """

    name: str
    module: Module
    kind: str
    arrays: tuple[np.ndarray, ...]

    @property
    def array(self) -> np.ndarray:
        """The first of ``arrays``."""
        return self.arrays[0]


@dataclass(frozen=True)
class Numbers:
    """An array in a few numbers. All but ``size`` and ``not_finite`` are of its finite entries; NaN if there are none.

    Attributes:
        shape: of the array. size: how many entries. not_finite: how many are NaN or infinite. zeros: how many are 0.
        norm: the root of the sum of squares. rms: the root of their mean. mean, std, min, max: as NumPy's.
        counts, edges: a histogram of some bins from min to max, as ``np.histogram`` returns it. Of numbers that are so near each other that
            there are not as many between them, it reaches a little further.
    """

    shape: tuple[int, ...]
    size: int
    not_finite: int
    zeros: int
    norm: float
    rms: float
    mean: float
    std: float
    min: float
    max: float
    counts: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, bins: int) -> "Numbers":
        finite = array[np.isfinite(array)].astype(np.float64)
        if finite.size == 0:
            nan, counts, edges = float("nan"), np.zeros(bins, np.intp), np.linspace(0, 1, bins + 1)
            return cls(array.shape, array.size, array.size, 0, nan, nan, nan, nan, nan, nan, counts, edges)
        with np.errstate(all="ignore"):  # a look must not fail where the program that is looked at has NumPy raise errors
            norm, zeros = float(np.linalg.norm(finite)), finite.size - np.count_nonzero(finite)
            mean, std, least, most = map(float, (finite.mean(), finite.std(), finite.min(), finite.max()))
            counts, edges = _histogram(finite, bins, least, most)
        not_finite, rms = array.size - finite.size, norm / finite.size**0.5
        return cls(array.shape, array.size, not_finite, zeros, norm, rms, mean, std, least, most, counts, edges)


def _histogram(values: np.ndarray, bins: int, least: float, most: float) -> tuple[np.ndarray, np.ndarray]:
    """As ``np.histogram``, which refuses a range that holds fewer numbers than it has bins, or that is no number itself."""
    if not np.isfinite(most - least):
        counts, edges = _histogram(values / 4, bins, least / 4, most / 4)
        return counts, 4 * edges
    margin = 2 * bins * max(np.spacing(max(-least, most)), np.finfo(np.float64).tiny)
    if most - least < margin:
        margin = max(margin, 0.5 if least == most else 0)  # NumPy's, around a single number
        least, most = least - margin, most + margin
    return np.histogram(values, bins, (least, most))


@dataclass
class Seen:
    """What was seen of one module.

    Attributes:
        name, kind: the module's name, and its class.
        calls: how often its forward was called.
        output, gradient: the latest output, and the latest gradient of an output, in numbers; None: there was none.
        outputs, gradients: copies of all of them, if ``keep`` names the module, in the order in which they came.
        attention: maps (batch, heads, queries, keys), if ``attention`` is on; each row adds up to 1.
    """

    name: str
    kind: str
    calls: int = 0
    output: Numbers | None = None
    gradient: Numbers | None = None
    outputs: list[np.ndarray] = field(default_factory=list)
    gradients: list[np.ndarray] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class NotFinite:
    """The first array with NaN or infinity in it: which layer's, and where it came from."""

    name: str
    kind: str
    what: str
    count: int
    size: int
    origin: str

    def __str__(self) -> str:
        where = f"{self.name or 'the model'} ({self.kind})"
        return f"{where}: {self.count} of {self.size} numbers of its {self.what} are not finite; {self.origin}"


class Watch:
    """What was seen so far: ``seen["mid_block.attentions.0"].output.rms``. Printed it is a table; in a notebook, too.

    Attributes:
        layers: a :class:`Seen` by name, for each module that was called, in the order of the tree.
        first_not_finite: the first array with NaN or infinity in it, or None. An error in a callback ends the pass, so one that raises
            when this is no longer None stops there.
    """

    def __init__(self, model: Module, callback: Callable[[Event], Any] | None, keep: Collection[str], attention: bool, bins: int):
        self._tree, self._callback, self._keep, self._attention, self._bins = branches(model), callback, set(keep), attention, bins
        self._seen: dict[str, Seen] = {}
        self._num_outputs: dict[str, int] = {}
        self.first_not_finite: NotFinite | None = None

    @property
    def layers(self) -> dict[str, Seen]:
        return {branch.name: self._seen[branch.name] for branch in self._tree if branch.name in self._seen and not branch.again}

    def __getitem__(self, name: str) -> Seen:
        """What was seen of a module, by its name."""
        if name not in self._seen:
            raise KeyError(f"watch: no module {name!r} was called; these were: {', '.join(self._seen) or 'none'}")
        return self._seen[name]

    def _note(self, call: Call) -> None:
        """After a forward or a backward."""
        seen = self._seen.setdefault(call.name, Seen(call.name, type(call.module).__name__))
        if call.way == "forward":
            arrays, what = arrays_in(call.result), "output"
            self._num_outputs[call.name], seen.calls = len(arrays), seen.calls + 1
            if self._attention and hasattr(call.module, "attention_map"):
                seen.attention += [call.module.attention_map(*values) for values in call.offered]
        else:
            arrays, what = arrays_in(call.inputs)[: self._num_outputs.get(call.name, 1)], "gradient"
        if self.first_not_finite is None:
            self._look_for_not_finite(call)
        if not arrays:
            return
        numbers = Numbers.of(arrays[0], self._bins)
        if what == "output":
            seen.output = numbers
        else:
            seen.gradient = numbers
        if call.name in self._keep:
            (seen.outputs if what == "output" else seen.gradients).append(arrays[0].copy())
        if self._callback is not None:
            views = tuple(array.view() for array in arrays)
            for view in views:
                view.flags.writeable = False
            self._callback(Event(call.name, call.module, what, views))

    def _look_for_not_finite(self, call: Call) -> None:
        """What a call returned: parts return before the whole does, so the innermost layer is found."""
        for array in arrays_in(call.result):
            count = array.size - np.count_nonzero(np.isfinite(array))
            if count == 0:
                continue
            parameters = {name: value.data for name, value in vars(call.module).items() if isinstance(value, Parameter)}
            spoilt = [name for name, data in parameters.items() if not np.isfinite(data).all()]
            if not all(np.isfinite(given).all() for given in arrays_in((call.inputs, call.options))):
                origin = "they came in with what it was given"
            elif spoilt:
                origin = f"its parameter {' and '.join(spoilt)} is not finite"
            else:
                origin = "what it was given was finite"
            what = "output" if call.way == "forward" else "input's gradient"
            self.first_not_finite = NotFinite(call.name, type(call.module).__name__, what, count, array.size, origin)
            return

    def table(self) -> Table:
        """What is printed."""
        layers = self.layers

        def cells(branch: Branch) -> list[str]:
            seen = layers.get(branch.name)
            if branch.again or seen is None:
                return ["as above" if branch.again else "", *[""] * 5]
            y, dy = seen.output, seen.gradient
            output = [shape_text(y), *(f"{number:.3g}" for number in (y.rms, y.min, y.max))] if y else [""] * 4
            zeros = f"{y.zeros / y.size:.0%}" if y and y.zeros else ""
            return [*output, zeros, f"{dy.rms:.3g}" if dy else ""]

        titles = ("output", "rms", "min", "max", "zeros", "gradient's rms")
        notes = [f"not finite first: {self.first_not_finite}"] if self.first_not_finite else []
        return table_of("", self._tree, titles, cells, None, notes)

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


@contextmanager
def watch(
    model: Module,
    callback: Callable[[Event], Any] | None = None,
    *,
    keep: Collection[str] | bool = (),
    attention: bool = False,
    bins: int = 32,
) -> Iterator[Watch]:
    """Within the ``with`` block, see the output of every module and the gradient of every output, in training and in inference.

    The numbers that the model computes are the same. Watching costs a look at each array; a model that is not watched pays nothing. Calls
    in other threads are not seen. Do not enter or leave the block while another thread uses the model.

    Args:
        model: any Module.
        callback: called with an :class:`Event` for every output and every gradient, parts before the whole.
        keep: names of modules (as in ``model.named_modules()``) of which all outputs and gradients are copied; True: of all.
        attention: whether to keep the maps of attention layers: those of hcrot, and of one's own with a method
            ``attention_map(*saved) -> (batch, heads, queries, keys)``, which is given what forward handed to ``save``.
        bins: of the histograms.

    Yields:
        a :class:`Watch`, which also holds after the block.

    Raises:
        TypeError: ``model`` is no Module, or ``callback`` cannot be called. ValueError: ``keep`` names a module that is not there, or
            ``bins`` is below 1.

    Example:
        >>> model = hcrot.Sequential(hcrot.Linear(2, 2, generator=0), hcrot.ReLU())
        >>> with hcrot.watch(model) as seen:
        ...     loss, dout = hcrot.mse_loss(model(np.ones((3, 2), np.float32)), np.zeros((3, 2), np.float32))
        ...     dx = model.backward(dout)
        >>> seen["1"].output.min >= 0, seen["0"].gradient.rms > 0, seen.first_not_finite
        (True, True, None)
    """
    check_module("watch", model)
    if callback is not None and not callable(callback):
        raise TypeError(f"watch: callback must be a function of an Event, got {type(callback).__name__}")
    if not is_int(bins) or bins < 1:
        raise ValueError(f"watch: bins must be an int of at least 1, got {bins!r}")
    names = {name for name, _ in model.named_modules()}
    kept = (names if keep else set()) if isinstance(keep, bool) else {keep} if isinstance(keep, str) else set(keep)
    if kept - names:
        raise ValueError(f"watch: keep names {sorted(kept - names)[0]!r}, and the model has no module of that name")
    seen = Watch(model, callback, kept, attention, int(bins))
    with seeing(model, seen._note):
        yield seen
