"""Every exercise: the solution passes, the hole does not, nor does any of the typical wrong answers."""

import pytest

from hcrot.learn.workbook import CHAPTERS, tasks
from support.workbook_proof import prove_exercise


@pytest.mark.parametrize("task", [pytest.param(task, id=task.name) for task in tasks() if not task.is_bug])
def test_an_exercise_tells_right_from_wrong(task):
    prove_exercise(task)


def test_numbers_are_given_once():
    numbers = [task.number for task in tasks()]
    assert len(set(numbers)) == len(numbers)
    assert {task.path.name[:2] for task in tasks() if not task.is_bug} <= CHAPTERS.keys()
