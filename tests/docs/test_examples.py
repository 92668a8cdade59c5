"""The examples in the docstrings: they run, and give what stands below them. ``np``, ``hcrot`` and an empty ``folder`` are there."""

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

import hcrot

ROOT = Path(hcrot.__file__).parents[1]
FILES = [path for path in sorted((ROOT / "hcrot").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
OPTIONS = doctest.NORMALIZE_WHITESPACE


def examples(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples(path, tmp_path):
    for number, test in enumerate(examples(path)):
        folder = tmp_path / str(number)
        folder.mkdir()
        test.globs = {"np": np, "hcrot": hcrot, "folder": folder, **{name: test.globs[name] for name in test.globs if name in test.name}}
        report: list[str] = []
        failed = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append).failed
        assert not failed, "".join(report)


def test_every_public_name_has_an_example():
    """In its own docstring, or in that of one of its methods."""
    found = {test.name for path in FILES for test in examples(path)}
    things = {name: getattr(hcrot, name) for name in hcrot.__all__ if not inspect.ismodule(getattr(hcrot, name))}
    places = {name: f"{thing.__module__}.{thing.__qualname__}" for name, thing in things.items()}
    assert len(places) > 100
    assert not {name for name, place in places.items() if not any(one == place or one.startswith(f"{place}.") for one in found)}
