"""The commands of the workbook, on one small exercise and one small bug."""

import json

import pytest

import hcrot
from hcrot.commands import main
from hcrot.learn import workbook
from support.workbook_proof import prove_bug, prove_exercise

EXERCISE = '''"""Twice a number, backward.

Write both.
"""

import numpy as np

import hcrot


class Twice(hcrot.Module):
    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(True)
        # yours: begin
        return 2 * x
        # yours: end

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.saved()
        # yours: begin
        dx = 2 * dy
        return dx
        # yours: end


# kept back: the learner's file ends here

HINTS = ["How does y move when x does?", "By two for each one."]
LEADS = {"float division": "Nothing has to be divided here."}
DERIVATION = """
y = 2 x, so dL/dx = dL/dy dy/dx = 2 dL/dy, entry by entry, for arrays of any shape. The sum rule says that each entry is alone.
"""
WRONG = {"not doubled": ("dx = 2 * dy", "dx = 1 * dy")}


def check(yours, check):
    check.gradients(yours.Twice(), check.normal(2, 3))
'''

BUG = '''"""A mean over a batch.

The mean of each column.
"""

import numpy as np


def mean(x: np.ndarray) -> np.ndarray:
    """Along the first axis.

    A loop, so that every step can be seen.
    """
    total = np.zeros(x.shape[1])
    for row in x:
        total += row
    # bug: begin
    return total
    # bug: mended
    return total / len(x)
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = "The larger the batch, the larger the mean."
HINTS = ["Try a batch of one.", "Then one of two equal rows."]
EXPLANATION = """
A mean is a sum divided by the number of terms. Without the division the learning rate has to change with the batch size.
"""


def check(yours, check):
    check.equal("the mean of equal rows", yours.mean(np.ones((4, 3))), np.ones(3))
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of a learner's, and a workbook of two tasks."""
    for kind, name, text in (("exercises", "02_1_twice", EXERCISE), ("bugs", "07_mean_of_rows", BUG)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{name}.py").write_text(text)
    monkeypatch.setattr(workbook, "HERE", tmp_path)
    workbook.tasks.cache_clear()
    workbook.kept_back.cache_clear()
    yield tmp_path / "mine"
    workbook.tasks.cache_clear()
    workbook.kept_back.cache_clear()


def call(*words):
    with pytest.raises(SystemExit) as ended:
        main(["learn", *map(str, words)])
    return ended.value.code


def replaced(path, *pairs):
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


def test_an_exercise_from_start_to_solution(folder):
    hole = workbook.HOLE
    answer = hcrot.learn.start("02-1", folder)
    path = folder / "02_1_twice.py"
    text = path.read_text()
    assert text.count(f"        {hole}\n") == 2 and text.endswith(f"{hole}\n") and "2 *" not in text and "HINTS" not in text
    assert str(path) in str(answer) and "Write both" in str(answer) and "hcrot learn check 02-1" in str(answer)
    with pytest.raises(FileExistsError, match="02_1_twice.py is there already"):
        hcrot.learn.start("02-1", folder)

    line = text[: text.index(hole)].count("\n") + 1
    assert f"line {line} of 02_1_twice.py is still to be written" in str(hcrot.learn.check("2-1", folder))
    replaced(path, (hole, "return 2 * x"), (hole, "return -2 * dy"))
    answer = hcrot.learn.check("twice", folder)
    assert not answer and "is a sign wrong?" in str(answer) and answer.facts["tries"] == 2
    replaced(path, ("return -2 * dy", "return broken(dy)"), ("class Twice", "def broken(dy):\n    return 3 @ dy\n\n\nclass Twice"))
    line = path.read_text().partition("3 @ dy")[0].count("\n") + 1
    said = str(hcrot.learn.check("02_1_twice", folder))
    assert f"line {line} of 02_1_twice.py raised a ValueError" in said and said.splitlines()[3] == "    return 3 @ dy"
    replaced(path, ("return broken(dy)", "return (2 * dy"))
    assert "cannot be read as Python" in str(hcrot.learn.check("02-1", folder))
    replaced(path, ("return (2 * dy", "return 2 * dy"))
    answer = hcrot.learn.check("02-1", folder)
    assert answer and "right, after 5 checks" in str(answer)
    assert "2 * dy" in str(hcrot.learn.solution("02-1", folder)) and "entry by entry" in str(hcrot.learn.solution("02-1", folder))
    assert "done, solution seen" in str(hcrot.learn.contents(folder))
    hcrot.learn.start("02-1", folder, again=True)
    assert path.read_text() == text


def test_what_a_learner_may_do_wrong_gets_a_sentence(folder):
    hcrot.learn.start("02-1", folder)
    path = folder / "02_1_twice.py"
    replaced(path, ("class Twice", "class Thrice"))
    assert "02_1_twice.py has no Twice" in str(hcrot.learn.check("02-1", folder))
    replaced(path, ("class Thrice", "raise SystemExit(3)\nclass Twice"))
    assert "raised a SystemExit: 3" in str(hcrot.learn.check("02-1", folder))
    with pytest.raises(ValueError, match="there is no exercise '02-9'; did you mean 02-1"):
        hcrot.learn.hint("02-9", folder)
    with pytest.raises(FileNotFoundError, match="hcrot learn start bug-07"):
        hcrot.learn.check("bug-7", folder)
    with pytest.raises(TypeError, match="got 2"):
        hcrot.learn.start(2, folder)


@pytest.mark.parametrize(("line", "said"), [
    ("dy @ x", "In a product A @ B, A must have as many columns as B has rows. Here these are 3 and 2."),
    ("np.dot(dy, x)", "Here these are 3 and 2."),
    ("dy + dy.T", "in another order: is a transpose missing"),
    ("dy + np.ones(6)", "6 numbers, but they are grouped otherwise: is a reshape missing?"),
    ("dy + dy.sum(axis=1)", "two sizes fit if they are equal or one of them is 1. Should it be @, or is a sum missing"),
    ("dy.sum(axis=0).__iadd__(dy)", "is a sum missing"),
    ("dy.__setitem__(0, np.ones(2))", "is a sum missing"),
    ("dy.reshape(4, -1)", "the sizes of the new shape, multiplied, must be 6."),
    ("dy.transpose(0, 1, 2)", "transpose needs a number for each axis"),
    ("1.0 / 0", "Nothing has to be divided here."),
])  # fmt: skip
def test_errors_about_shapes_are_explained(folder, line, said):
    hcrot.learn.start("02-1", folder)
    path = folder / "02_1_twice.py"
    replaced(path, (workbook.HOLE, "self.x = x; return 2 * x"), (workbook.HOLE, f"x = self.x; return {line}"))
    lines = str(hcrot.learn.check("02-1", folder)).split("\n")
    assert lines[3].endswith(f"return {line}") and said in " ".join(lines[4:])


def test_the_bug_hunt_keeps_score_and_the_command_line_says_the_same(folder, capsys):
    assert call("start", "bug-07", "--folder", folder) == 0
    assert "The larger the batch" in capsys.readouterr().out
    path = folder / "bug_07_mean_of_rows.py"
    text = path.read_text()
    assert text.startswith("# The larger the batch, the larger the mean.\n") and "return total\n" in text and "len(x)" not in text
    assert call("check", "bug-07", "--folder", folder) == 1
    said = capsys.readouterr().out
    assert "4 times too large" in said and "2 more" in said
    assert call("hint", "mean_of_rows", "--folder", folder) == 0
    assert "hint 1 of 2: Try a batch of one." in capsys.readouterr().out
    replaced(path, ("return total", "print('mine')\n    return total / len(x)"))
    assert call("check", "bug-07", "--folder", folder, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["passed"] and facts["points"] == 3 and facts["tries"] == 2
    hcrot.learn.hint("bug-07", folder)
    hcrot.learn.solution("bug-07", folder)
    assert hcrot.learn.check("bug-07", folder).facts["points"] == 3, "help after the find costs nothing"
    assert "These were all hints" in str(hcrot.learn.hint("bug-07", folder))
    assert call("--folder", folder) == 0
    assert "1 of 1 found, 3 of 4 points" in (listed := capsys.readouterr().out)
    assert "chapter 02: the linear layer\n  02-1  ★ Twice a number, backward.\n" in listed
    assert "★ The way to your own Conv2d.backward in about an hour" in listed
    assert "found, 3 points, 2 hints, solution seen" in listed


def test_who_reads_the_solution_first_gets_no_points(folder):
    hcrot.learn.start("bug-07", folder)
    said = str(hcrot.learn.solution("bug-07", folder))
    assert "-    return total\n+    return total / len(x)" in said and "number of terms" in said
    replaced(folder / "bug_07_mean_of_rows.py", ("return total", "return total / len(x)"))
    assert hcrot.learn.check("bug-07", folder).facts["points"] == 0


@pytest.mark.parametrize(("words", "message"), [
    (["list", "02-1"], "list takes no exercise, got 02-1"), (["check"], "which one? For example: hcrot learn check 02-1"),
    (["hint", "02-1", "--again"], "--again belongs to start"), (["start", "nonsense"], "there is no exercise 'nonsense'"),
])  # fmt: skip
def test_bad_words_are_refused(folder, words, message, capsys):
    assert call(*words, "--folder", folder) == 2
    assert message in capsys.readouterr().err


def test_the_proofs_hold_for_these_two_and_can_fail(folder):
    exercise, bug = workbook.tasks()
    prove_exercise(exercise)
    prove_bug(bug)
    unnoticed = ("1 * dy", "2 * dy"), ("check.gradients(", "(lambda *a: 0)("), ("# yours: end\n\n", "# yours:end\n\n"), ('"dx = 2', '"x')
    for old, new in unnoticed:
        with pytest.raises(AssertionError):
            prove_exercise(workbook.Task(exercise.path, False, exercise.source.replace(old, new)))
    for old, new in (("total / len(x)", "1 * total"), ("return total\n", "return total / len(x)\n"), ("# bug: end", "# bug: stop")):
        with pytest.raises(AssertionError):
            prove_bug(workbook.Task(bug.path, True, bug.source.replace(old, new)))
