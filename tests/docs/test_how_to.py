"""The command lines on the pages and in the README: the commands are there and take those options."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from hcrot.commands import COMMANDS
from hcrot.tools.arguments import Parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
LINES = {
    line.strip()
    for page in PAGES
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in re.findall(r"^(?:mpiexec .*)?hcrot (.*?)(?:   .*)?$", block, re.MULTILINE)
}


@pytest.mark.parametrize("line", sorted(LINES))
def test_a_command_takes_what_a_page_shows(line):
    command, *words = shlex.split(line)
    assert command in COMMANDS
    parser = Parser(prog=f"hcrot {command}")
    importlib.import_module(f"hcrot.commands.{command}").add_arguments(parser)
    parser.parse_args(words)


def test_command_lines_are_found():
    assert "sample runs/flowers" in LINES and any("--resume" in line for line in LINES)
