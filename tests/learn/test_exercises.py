"""Every exercise: the solution passes, the hole does not, nor does any of the typical wrong answers."""

import re

import pytest

from hcrot.learn.languages import CHAPTERS
from hcrot.learn.workbook import find, tasks
from support.workbook_proof import judged, prove_exercise


@pytest.mark.parametrize("task", [pytest.param(task, id=task.name) for task in tasks() if not task.is_bug])
def test_an_exercise_tells_right_from_wrong(task):
    prove_exercise(task)


AXES = "weight.grad has the axes (o, c, i, j); what you add to it has others."
DW = "dW.reshape(kernel_h, kernel_w, channels, outputs).transpose(3, 2, 0, 1)"


@pytest.mark.parametrize(("number", "right", "wrong", "said"), [
    ("02-1", "dy @ self.weight.data", "dy @ self.weight.data.T", "Here these are 2 and 5. Write the two shapes side by side"),
    ("05-1", "dx[n, c, at] += ", "dx[n, c, at] = ", "dx for ones.* each use overwrote the one before.*: \\+= instead of =$"),
    ("05-1", "dw[o, c, i] += ", "dw[o, c, i] = ", "dw for ones.* each use overwrote the one before"),
    ("05-1", "db[o] += ", "db[o] = ", "db for ones.* each use overwrote the one before"),
    ("05-1", "if 0 <= at < x.shape[2]:", "if at < x.shape[2]:", "the last entry has too much: at = -1 is over the edge"),
    ("05-3", "columns] += ", "columns] = ", "the slices of two taps overlap, and the later one overwrote the earlier"),
    ("06-2", "along] += ", "along] = ", "the later copies overwrote the earlier ones"),
    ("06-3", DW, DW.replace("3, 2, 0, 1", "2, 3, 1, 0"), re.escape(AXES)),
    ("06-3", DW, "dW", re.escape(AXES)),
    ("06-3", f"+= {DW}", f"= {DW.replace('3, 2, 0, 1', '3, 2, 1, 0')}", "dW has the right numbers in a wrong order"),
    ("06-3", "self.bias.grad += dY.sum(axis=0)", "self.bias.grad = dY.sum(axis=1)", "db is not dy summed over n, p and q"),
    ("10-2", "np.add.at(self.weight.grad, indices, dy)", "self.weight.grad[indices] += dy", "index 1 came twice, and only one"),
])  # fmt: skip
def test_likely_mistakes_are_told(number, right, wrong, said):
    task = find(number)
    assert right in task.solved
    assert re.search(said, judged(task, task.solved.replace(right, wrong)).replace("\n", " "))


@pytest.mark.parametrize("number", ["02-1", "06-3"])
def test_gradients_that_are_set_get_one_sentence(number):
    task = find(number)
    message = judged(task, task.solved.replace(".grad += ", ".grad = "))
    assert message.count("\n") == 1 and message.endswith("place: write += instead of =") and "weight and bias: " in message


def test_numbers_are_given_once():
    numbers = [task.number for task in tasks()]
    assert len(set(numbers)) == len(numbers)
    assert {task.path.name[:2] for task in tasks() if not task.is_bug} <= CHAPTERS["en"].keys() == CHAPTERS["ko"].keys()
