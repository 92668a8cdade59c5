"""Every bug of the bug hunt: its check finds the defect, and passes when it is mended."""

import pytest

from hcrot.learn.workbook import tasks
from support.workbook_proof import prove_bug

BUGS = [task for task in tasks() if task.is_bug]


@pytest.mark.parametrize("task", [pytest.param(task, id=task.name) for task in BUGS])
def test_a_bug_is_found_by_its_check(task):
    prove_bug(task)
