"""Every bug of the bug hunt: its check finds the defect, and passes when it is mended."""

import re

import pytest

from hcrot.learn import notebooks
from hcrot.learn.workbook import tasks
from support.workbook_proof import prove_bug

BUGS = [task for task in tasks() if task.is_bug]


@pytest.mark.parametrize("task", [pytest.param(task, id=task.name) for task in BUGS])
def test_a_bug_is_found_by_its_check(task):
    prove_bug(task)


def test_the_page_of_the_bug_hunt_runs_and_is_the_same_in_korean(capsys):
    english, korean = notebooks.COURSE / "bug-hunt.md", notebooks.COURSE / "bug-hunt.ko.md"
    notebooks.run(english)
    assert "bug-01: found and mended" in capsys.readouterr().out
    pages = [path.read_text(encoding="utf-8") for path in (english, korean)]
    code = [[cell.text for cell in notebooks.cells(page) if cell.kind == "code"] for page in pages]
    assert code[0] == code[1] and len(BUGS) == 50
    sections = [re.findall("^#+ ", page, re.MULTILINE) for page in pages]
    assert sections[0] == sections[1]
