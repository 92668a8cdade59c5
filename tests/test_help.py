"""What ``help`` shows of the package and of its rooms: their own docstring first, then their own names."""

import importlib
import inspect
import pydoc

import numpy as np
import pytest

ROOMS = ["hcrot", "hcrot.data", "hcrot.functional", "hcrot.layers", "hcrot.learn", "hcrot.models", "hcrot.pipelines", "hcrot.schedulers"]


def shown(module):
    return pydoc.plain(pydoc.render_doc(module))


def stripped(text):
    return [line.strip(" |") for line in text.splitlines() if line.strip(" |")]


@pytest.mark.parametrize("name", ROOMS)
def test_help_begins_with_the_docstring(name):
    module = importlib.import_module(name)
    title, *rest = stripped(inspect.getdoc(module))
    lines = stripped(shown(module))
    assert lines[1:3] == ["NAME", f"{name} - {title}"]
    assert lines[3 : 3 + len(rest) + 1] == (["DESCRIPTION", *rest] if rest else ["PACKAGE CONTENTS"])


@pytest.mark.parametrize("name", ROOMS)
def test_help_has_every_public_name_and_nothing_of_numpys_generator(name):
    module = importlib.import_module(name)
    lines = stripped(shown(module))
    for public in module.__all__:
        value = getattr(module, public)
        assert any(public in line for line in lines), public
        if callable(value):
            assert inspect.getdoc(value), public
            assert stripped(inspect.getdoc(value))[0] in lines, public
    assert len(lines) < 20_000
    for method in ("standard_normal", "integers", "multivariate_hypergeometric"):
        assert stripped(getattr(np.random.Generator, method).__doc__)[1] not in lines
    assert stripped(np.random.Generator.__doc__)[1] not in lines


def test_help_of_the_pipelines_is_short():
    import hcrot.pipelines

    text = shown(hcrot.pipelines)
    assert len(text.splitlines()) < 200
    assert "CLASSES" not in text
    places = [text.index(f"\n    {name}(") for name in ("ddim", "ddpm", "load", "sample", "save")]
    assert places == sorted(places)
