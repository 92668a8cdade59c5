"""The rooms of the library and what imports what, drawn from the import statements of its files."""

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hcrot.learn.figures.style import BACKWARD, FORWARD, KEPT, NOISE, PAGE, PARAMETER, arrow, box, canvas

__all__ = ["imports", "rooms"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
COLOURS = {
    PARAMETER: ("parameter", "passes", "shown", "module", "init", "accumulators", "gradcheck", "eyes"),
    NOISE: ("kernels", "plan"),
    FORWARD: ("layers", "functional", "models"),
    KEPT: ("files", "data", "tools"),
    BACKWARD: ("schedulers", "training", "pipelines", "diffusion"),
}  # the rest, where a user comes in, is green
ABOVE, WIDTH, HEIGHT, ACROSS, DOWN = 0.3, 2.3, 0.7, 2.65, 1.5


@cache
def imports() -> dict[str, frozenset[str]]:
    """For each room, a folder of the library or a file that stands alone, the rooms that its files import."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        room = "hcrot" if parts == ("__init__",) else parts[0]
        targets = found.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module == "hcrot":
                targets |= {f"hcrot.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                targets.add(node.module or "")
    mine = {name: {target.split(".")[1] for target in targets if target.startswith("hcrot.")} for name, targets in found.items()}
    for name, targets in found.items():
        if "hcrot" in targets:
            mine[name].add("hcrot")
    return {name: frozenset(mine[name] & found.keys() - {name}) for name in found}


def reached(graph: dict[str, frozenset[str]], room: str) -> set[str]:
    """Everything that a room imports, and what that imports, and so on."""
    direct = graph[room]
    return set(direct).union(*(reached(graph, target) for target in direct))


def rows(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """The rooms in rows, each below all that it imports; within a row, in the order of the middle of what they import."""

    def depth(room: str) -> int:
        return 1 + max(map(depth, graph[room]), default=-1)

    def level(room: str) -> int:  # what imports nothing stands just above the first that imports it
        return depth(room) if graph[room] else min(depth(user) for user in graph if room in graph[user]) - 1

    found: list[list[str]] = []
    place: dict[str, float] = {}
    for number in range(1 + max(map(level, graph))):
        row = [room for room in graph if level(room) == number]
        row.sort(key=lambda room: sum(place[target] for target in graph[room]) / max(len(graph[room]), 1))
        place |= {room: index - (len(row) - 1) / 2 for index, room in enumerate(row)}
        found.append(row)
    return found


def rooms() -> "Figure":
    """Each room below those that it imports. What it imports by way of another room needs no arrow of its own."""
    from matplotlib.patches import Rectangle

    graph = imports()
    table = rows(graph)
    width = max(map(len, table)) * ACROSS
    figure, axes = canvas(width, len(table) * DOWN, scale=0.55)
    colours = {room: colour for colour, names in COLOURS.items() for room in names}
    corner = {}
    for level, row in enumerate(table):
        for index, room in enumerate(row):
            corner[room] = (width / 2 + (index - len(row) / 2) * ACROSS + (ACROSS - WIDTH) / 2, ABOVE + level * DOWN)
    for room, targets in graph.items():
        for target in targets - set().union(*(reached(graph, other) for other in targets)):
            (x, y), (x1, y1) = corner[room], corner[target]
            arrow(axes, (x + WIDTH / 2, y), (x1 + WIDTH / 2, y1 + HEIGHT), colour=colours.get(target, PARAMETER))
    for room, (x, y) in corner.items():
        axes.add_patch(Rectangle((x, y), WIDTH, HEIGHT, facecolor=PAGE, linewidth=0))  # arrows pass behind a room
        box(axes, x, y, WIDTH, HEIGHT, room, colours.get(room, PARAMETER))
    for patch in axes.patches:
        patch.set_zorder(4)
    for text in axes.texts:
        text.set_zorder(5 if text.get_text() else 3)
    return figure
