"""What things show of themselves: tables in text, and in a notebook (``_repr_html_``) in HTML.

Colours are left to the notebook, so tables are as readable in a dark theme as in a light one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = ["Table", "as_bytes", "module_html", "tree_prefixes"]

CELL = "padding:1px 10px 1px 0;white-space:pre;border:none;text-align:"


@dataclass(frozen=True)
class Table:
    """Rows of text under titles, with sentences above and below.

    Attributes:
        head: above the table.
        titles: of the columns; () for none.
        rows: as many cells as there are titles.
        left: how many columns are aligned to the left; numbers, after them, are to the right.
        notes: sentences below.
    """

    head: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [list(self.titles), *map(list, self.rows)] if self.titles else list(map(list, self.rows))
        widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)] if lines else []
        text = [self.head] if self.head else []
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line[: self.left], widths, strict=False)]
            cells += [cell.rjust(width) for cell, width in zip(line[self.left :], widths[self.left :], strict=True)]
            text.append("  ".join(cells).rstrip())
        return "\n".join([*text, *self.notes])

    def html(self) -> str:
        """The same as HTML; every cell is escaped."""

        def row(cells: Sequence[str], tag: str) -> str:
            styles = [CELL + ("left" if index < self.left else "right") for index in range(len(cells))]
            parts = [f'<{tag} style="{style}">{escape(cell)}</{tag}>' for cell, style in zip(cells, styles, strict=True)]
            return f"<tr>{''.join(parts)}</tr>"

        head = f"<div><b>{escape(self.head)}</b></div>" if self.head else ""
        titles = f"<thead>{row(self.titles, 'th')}</thead>" if self.titles else ""
        body = "".join(row(cells, "td") for cells in self.rows)
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.notes)
        return f'<div>{head}<table style="border-collapse:collapse">{titles}<tbody>{body}</tbody></table>{notes}</div>'


def as_bytes(count: float) -> str:
    """A number of bytes as text, in units of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def tree_prefixes(depths: Sequence[int]) -> list[str]:
    """What stands before each line of a tree, ``├─ `` and so on, given the depth of each line, depth first; the root has 0."""
    prefixes: list[str] = []
    going_on: dict[int, bool] = {}  # whether a later line of this depth has the same parent
    for depth in reversed(depths):
        last = not going_on.get(depth, False)
        going_on = {level: on for level, on in going_on.items() if level < depth} | {depth: True}
        branches = "".join("│  " if going_on.get(level, False) else "   " for level in range(1, depth))
        prefixes.append(branches + ("└─ " if last else "├─ ") if depth else "")
    return prefixes[::-1]


def module_html(module: Any) -> str:
    """In a notebook a Module shows itself as a tree, to be unfolded, with the number of parameters of each part."""
    return "".join(_unfolding(module, ""))


def _unfolding(module: Any, name: str) -> Iterator[str]:
    count = module.num_parameters()
    text = f"{type(module).__name__}({module.describe()})" + (f": {count:,} parameters" if count else "")
    text = escape(f"({name}): {text}" if name else text)
    parts = list(module.named_children())
    if not parts:
        yield f'<div style="margin-left:1.2em">{text}</div>'
        return
    yield f'<details style="margin-left:1.2em"{"" if name else " open"}><summary>{text}</summary>'
    for part_name, part in parts:
        yield from _unfolding(part, part_name)
    yield "</details>"
