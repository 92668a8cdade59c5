"""A network as the lines of a table: its modules in order, their depth, and sums over everything below."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from hcrot.module import Module
from hcrot.shown import Table, tree_prefixes

__all__ = ["Branch", "Named", "TreeReport", "branches", "check_depth", "shape_text", "subject_of", "table_of"]


class Named(Protocol):
    """A line of a report."""

    @property
    def name(self) -> str:
        """Of the module, as in ``named_modules``."""
        raise NotImplementedError


Line = TypeVar("Line", bound=Named)


@dataclass(frozen=True)
class Branch:
    """A module in the tree of a network.

    Attributes:
        name: as in ``named_modules``; "" for the network itself.
        label: its own part of the name, and its class.
        module: the module.
        depth: 0 for the network itself.
        again: whether it stood in the tree before, under another name.
        below: the names of it and of everything below it, each module once.
    """

    name: str
    label: str
    module: Module
    depth: int
    again: bool
    below: tuple[str, ...]


def branches(model: Module) -> list[Branch]:
    """Every module, depth first. What stands in the tree a second time is a line without parts."""
    seen: set[int] = set()

    def walk(module: Module, name: str, own: str, depth: int) -> Iterator[Branch]:
        label = f"{own} ({type(module).__name__})" if own else type(module).__name__
        if id(module) in seen:
            yield Branch(name, label, module, depth, True, ())
            return
        seen.add(id(module))
        parts = [
            part
            for child_name, child in module.named_children()
            for part in walk(child, f"{name}.{child_name}" if name else child_name, child_name, depth + 1)
        ]
        yield Branch(name, label, module, depth, False, (name, *(part.name for part in parts if not part.again)))
        yield from parts

    return list(walk(model, "", "", 0))


def subject_of(model: Module, own_gradients: bool) -> Module:
    """A copy to be run: it shares the values of what is learned, so it takes little memory, and nothing of the model changes.

    What a forward may change is the copy's own: constants such as running means, generators, and what is kept. A model in eval mode is
    switched to training as a whole; else its parts keep their modes.

    Args:
        own_gradients: whether backward will run.
    """
    shared: dict[int, Any] = {id(module._kept): None for module in model.modules()}  # what waits for its backward is not copied
    for _, parameter in model.named_parameters():
        if not parameter.constant:
            shared[id(parameter.data)] = parameter.data
            if not own_gradients:
                shared[id(parameter.grad)] = parameter.grad
    subject = copy.deepcopy(model, shared)
    return subject if subject.training else subject.train()


def check_depth(owner: str, depth: int | None) -> None:
    """Raise a ValueError that begins with ``owner`` unless depth is None or a number of levels."""
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise ValueError(f"{owner}: depth must be None or an int of at least 0, got {depth!r}")


def shape_text(value: Any) -> str:
    """The shape of an array, those of the arrays of a tuple, or the type of anything else."""
    if hasattr(value, "shape"):
        return str(tuple(value.shape))
    if isinstance(value, (tuple, list)):
        return ", ".join(map(shape_text, value))
    return type(value).__name__


def table_of(
    head: str, tree: list[Branch], titles: tuple[str, ...], cells: Callable[[Branch], list[str]], depth: int | None, notes: list[str]
) -> Table:
    """A line for each module down to ``depth``; beside its name what ``cells`` says of it, the first of these aligned to the left."""
    shown = [branch for branch in tree if depth is None or branch.depth <= depth]
    names = [prefix + branch.label for prefix, branch in zip(tree_prefixes([branch.depth for branch in shown]), shown, strict=True)]
    rows = [[name, *cells(branch)] for name, branch in zip(names, shown, strict=True)]
    return Table(head, ("layer", *titles), rows, 2, notes)


class TreeReport(Generic[Line]):
    """A line for each module, found by its name. Printed it is a table; in a notebook, too.

    Attributes:
        lines: depth first; the first is the network.
    """

    lines: list[Line]

    def __getitem__(self, name: str) -> Line:
        """The line of a module by its name."""
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(f"{type(self).__name__.lower()}: there is no module {name!r}")

    def table(self) -> Table:
        """What is printed."""
        raise NotImplementedError(f"{type(self).__name__} has no table")

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()
