"""Check the gradients of a layer or network of your own: every analytic gradient against differences of outputs, in float64.

    hcrot check mylayers.py:Swish --input 2x3x5x7
    hcrot check mynet.py:Net --arguments "channels=8, groups=2" --input 2x3x8x8 --input 2:int1000

The class is called with --arguments and has to be a hcrot.Module with forward and backward. Each --input is an array of its forward, of
random numbers: 2x3x5x7 of that shape, 2:int1000 of two integers below 1000. Exit status 1: a gradient is wrong. Then the parts are checked
by themselves, and the report says which is the first wrong one, and what its wrong values have in common.
"""

import argparse
import ast
import importlib.util
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcrot.tools.arguments import number, print_json

__all__ = ["add_arguments", "run"]

if TYPE_CHECKING:
    import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("module", metavar="MODEL.py:Class", help="a file and the name of a class, or of a function that makes a Module")
    parser.add_argument("--input", metavar="SHAPE", action="append", required=True, help="one array of forward; see above")
    parser.add_argument("--arguments", metavar="TEXT", default="", help='of the class, as in Python: "8, groups=2"; literals only')
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of all random numbers (default: %(default)s)")
    parser.add_argument(
        "--explain", metavar="SECONDS", type=number(float, 0), default=10.0,
        help="how long to look for the mistake if there is one; 0: not at all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="as one line of JSON")


def run(options: Namespace) -> int:
    import numpy as np

    import hcrot

    rng = np.random.default_rng(options.seed)
    module = made_module(options.module, options.arguments)
    inputs = [made_input(text, rng) for text in options.input]
    try:
        report = hcrot.check_gradients(module, *inputs, generator=rng, explain=options.explain)
    except hcrot.GradientError as error:
        report = error.report
    if options.json:
        print_json({"passed": report.passed, "worst_error": report.worst_error, "report": str(report)})
    else:
        print(report)
    return 0 if report.passed else 1


def made_module(text: str, arguments: str) -> Any:
    """The module that ``file.py:Class`` with these arguments makes."""
    import hcrot

    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise ValueError(f"expected MODEL.py:Class, got {text}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no file of Python")
    source = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))  # for what the file imports from beside it
    sys.modules[spec.name] = source
    spec.loader.exec_module(source)
    if not hasattr(source, name):
        raise ValueError(f"{path} has no {name}")
    positional, named = parsed_arguments(arguments)
    module = getattr(source, name)(*positional, **named)
    if not isinstance(module, hcrot.Module):
        raise TypeError(f"{text} gives a {type(module).__name__}, expected a hcrot.Module")
    return module


def parsed_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the named arguments of a call, which have to be literals."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
        return [ast.literal_eval(argument) for argument in call.args], named
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ValueError(f"--arguments: expected literals such as \"8, groups=2\", got {text!r}") from error


def made_input(text: str, rng: "np.random.Generator") -> "np.ndarray":
    match = re.fullmatch(r"(\d+(?:x\d+)*)(?::int(\d+))?", text)
    if not match:
        raise ValueError(f"--input: expected a shape such as 2x3x5x7, or 2:int1000 for integers below 1000, got {text}")
    shape = tuple(map(int, match[1].split("x")))
    return rng.integers(int(match[2]), size=shape) if match[2] else rng.standard_normal(shape)
