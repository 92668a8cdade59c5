"""What imports what: the table in docs/architecture.md, held against every import statement of the library."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "hcrot").rglob("*.py"))
TEXTS = {"hcrot.learn.exercises", "hcrot.learn.bugs"}
"""Folders whose files are handed to learners. Nobody imports from them, so they have no public names."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(name: str, source: str) -> set[str]:
    """The files of hcrot that a file imports, also within functions; ``from a import b`` means a.b where that is a file."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return {target for target in found if target in MODULES} - {name}


GRAPH = {name: imports(name, path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def room(name: str) -> str:
    """``hcrot.layers.conv`` is in ``layers``, ``hcrot.module`` in ``module``, and ``hcrot`` itself in ``hcrot``."""
    return name.split(".")[1] if "." in name else "hcrot"


def table() -> dict[str, set[str]]:
    """For each room of the table, in order, the rooms that it may import."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| .* \| (.*) \|$", text, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", allowed)) for names, allowed in rows for name in re.findall(r"`(\w+)`", names)}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The files of one circle of imports, [] if there is none: take away files that import nothing that is left until none can be."""
    left = {name: set(targets) for name, targets in graph.items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in free}
    return sorted(left)


def test_the_table_lists_every_room_and_points_up_the_page_only():
    rooms = list(table())
    assert set(rooms) == {room(name) for name in MODULES} 
    for index, (name, allowed) in enumerate(table().items()):
        assert allowed <= set(rooms[:index]), name


@pytest.mark.parametrize("name", [name for name in MODULES])
def test_a_file_imports_what_its_room_may(name):
    assert {room(target) for target in GRAPH[name]} <= table()[room(name)] | {room(name)}


def test_no_files_import_each_other_in_a_circle():
    assert circle(GRAPH) == []


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_imports_of_every_kind_are_seen():
    source = """
import hcrot.data.mnist
from hcrot import init
from .norm import GroupNorm
def later():
    from ..kernels import conv
    from hcrot.module import Module
"""
    found = imports("hcrot.layers.conv", source)
    assert found == {"hcrot.data.mnist", "hcrot.init", "hcrot.layers.norm", "hcrot.kernels.conv", "hcrot.module"}


def test_the_tests_have_the_folders_of_the_library():
    folders = {path.name for path in (ROOT / "hcrot").iterdir() if (path / "__init__.py").exists()}
    assert folders <= {path.name for path in (ROOT / "tests").iterdir()}


def targets(node: ast.stmt) -> list[ast.expr]:
    """What a statement assigns to."""
    return node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []


@pytest.mark.parametrize("name", [name for name in MODULES if name.rpartition(".")[0] not in TEXTS])
def test_every_file_says_what_is_public(name):
    """``__all__`` names things that are there, and what a reader of the docstrings may rely on."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    named = [node for node in tree.body if "__all__" in (getattr(target, "id", "") for target in targets(node))]
    assert len(named) == 1, f"{name} has no __all__"
    public = ast.literal_eval(named[0].value)
    attempts = [node for attempt in tree.body if isinstance(attempt, ast.Try) for node in attempt.body]  # hcrot/kernels/compiler.py
    imported = [node for node in [*tree.body, *attempts] if isinstance(node, (ast.Import, ast.ImportFrom))]
    defined = {alias.asname or alias.name.partition(".")[0] for node in imported for alias in node.names}
    defined |= {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    defined |= {getattr(target, "id", "") for node in tree.body for target in targets(node)}
    stars = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    defined |= {public for node in stars for public in importlib.import_module(node.module).__all__}
    assert set(public) <= defined
    assert len(set(public)) == len(public)
