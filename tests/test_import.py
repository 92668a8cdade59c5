"""What ``import hcrot`` gives."""

import importlib
import subprocess
import sys

import pytest

import hcrot
from hcrot import names


def test_every_public_name_is_there():
    assert all(hasattr(hcrot, name) for name in hcrot.__all__)
    assert len(hcrot.__all__) == len(set(hcrot.__all__))
    assert hcrot.__all__ == names.__all__


def test_submodules_are_imported_when_first_used():
    script = "import sys, hcrot; assert 'hcrot.data' not in sys.modules; hcrot.data.load_digits, hcrot.metrics.accuracy"
    script += "; hcrot.functional.plus, hcrot.plotting.plot_loss"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_names_of_earlier_versions_can_be_imported():
    script = "import hcrot.plotting, hcrot.metrics as m, hcrot.tools.plotting as t; from hcrot.plotting import plot_loss"
    script += "; from hcrot.metrics import accuracy; assert hcrot.plotting is t and m.accuracy is accuracy"
    script += "; import importlib; assert importlib.import_module('hcrot.plotting') is t and t.__spec__.name == 'hcrot.tools.plotting'"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_importing_is_light():
    """Nothing but the standard library, until a name is used."""
    script = "import sys, hcrot; assert {'metrics', 'plotting', 'Conv2d'} <= set(dir(hcrot)) and not {'numpy', 'tqdm'} & sys.modules.keys()"
    script += "; hcrot.Conv2d; assert 'numpy' in sys.modules and not {'torch', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hcrot' has no attribute 'nonsense'"):
        hcrot.nonsense  # noqa: B018


@pytest.mark.parametrize("room", ["layers", "models", "schedulers", "data"])
def test_a_room_can_be_imported_with_a_star(room):
    names: dict = {}
    exec(f"from hcrot.{room} import *", names)
    module = importlib.import_module(f"hcrot.{room}")
    assert module.__doc__
    assert set(module.__all__) <= names.keys()
    assert len(module.__all__) > 2
