"""docs/reference: no public name is missing, none is there twice, and each is one."""

import importlib
import re
from pathlib import Path

import pytest
from test_architecture import GRAPH, room

import hcrot
from hcrot.learn.figures import architecture

PAGES = sorted((Path(__file__).parents[2] / "docs" / "reference").glob("*.md"))
SHOWN = [name for page in PAGES for name in re.findall(r"^::: (hcrot\.\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)]


def test_every_public_name_is_shown_once():
    names = [name.removeprefix("hcrot.") for name in SHOWN]
    assert set(hcrot.__all__) <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["data", "pipelines", "functional"])
def test_every_name_of_a_room_is_shown(name):
    module = importlib.import_module(f"hcrot.{name}")
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = {public for public in module.__all__ if not re.search(rf"hcrot\.{name}\.(\w+\.)?{public}\b", text)}
    assert f"hcrot.{name}" in SHOWN or not missing


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_shown_is_there_and_documented(shown):
    try:
        thing = importlib.import_module(shown)
    except ModuleNotFoundError:
        thing = getattr(importlib.import_module(shown.rpartition(".")[0]), shown.rpartition(".")[2])
    assert thing.__doc__


def test_the_drawing_of_the_rooms_shows_what_they_import():
    expected = {room(name): set() for name in GRAPH}
    for name, targets in GRAPH.items():
        expected[room(name)] |= {room(target) for target in targets} - {room(name)}
    assert architecture.imports() == expected
    assert all(set(targets) <= architecture.reached(expected, name) for name, targets in expected.items())
