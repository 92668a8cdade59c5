"""The command lines on the pages and in the README: the commands are there and take those options. The README's program runs."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from hcrot.commands import COMMANDS
from hcrot.tools.arguments import Parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(page for folder in (".", "how-to", "course") for page in sorted((ROOT / "docs" / folder).glob("*.md")))]


def commands(text):
    """What stands behind ``hcrot`` on the lines of a page that are for a terminal: in a block without a language, or indented."""
    blocks = re.findall(r"^```(?:text)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4,}.*$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    for line in "\n".join([*blocks, *indented]).splitlines():
        found = re.match(r" *(?:mpiexec .*)?hcrot (.*?)(?:   .*)?$", line)
        if found and not found[1].endswith("."):  # a sentence in an indented note
            yield found[1].strip()


LINES = {line for page in PAGES for line in commands(page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("line", sorted(LINES))
def test_a_command_takes_what_a_page_shows(line):
    command, *words = shlex.split(line)
    assert command in COMMANDS
    parser = Parser(prog=f"hcrot {command}")
    importlib.import_module(f"hcrot.commands.{command}").add_arguments(parser)
    parser.parse_args(words)


def test_command_lines_are_found():
    assert {"sample runs/flowers", "learn hint bug-07", "learn start 01-1", "view"} <= LINES
    assert any("--resume" in line for line in LINES)


def test_the_program_in_the_readme_learns(capsys):
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(compile(program, "README.md", "exec"), names)
    assert names["loss"] < 0.01 * np.mean(names["target"] ** 2)
    assert ", all agree" in capsys.readouterr().out
