"""What is proven of every exercise and every bug."""

from hcrot.learn import workbook
from hcrot.learn.workbook import HOLE, Task


def judged(task: Task, source: str) -> str:
    return workbook.verdict(task, source, task.path.with_name(f"yours_{task.path.name}"))


def prove_texts(task: Task) -> None:
    """The learner's file is Python, has a title, no marker and nothing that is kept back; there are hints that lead in steps."""
    assert "\n# kept back" in task.source
    for text in (task.given, task.solved):
        compile(text, task.path.name, "exec")
        assert "kept back" not in text and "HINTS" not in text
        assert not any(f"# {word}: " in text for word in ("yours", "bug")), "a marker is left: is it spelled as the others?"
    assert 3 < len(task.title) < 75
    assert len(task.kept.HINTS) >= 2 and all(len(hint) > 15 for hint in task.kept.HINTS)


def prove_exercise(task: Task) -> None:
    prove_texts(task)
    assert HOLE in task.given and len(task.kept.DERIVATION.strip()) > 100
    assert judged(task, task.solved) == ""
    assert "is still to be written" in judged(task, task.given)
    assert task.kept.WRONG
    for name, (right, wrong) in task.kept.WRONG.items():
        assert right in task.solved, f"WRONG, {name}: the solution has no {right!r}"
        assert right not in task.given, f"WRONG, {name}: {right!r} is not within the hole"
        assert judged(task, task.solved.replace(right, wrong)), f"{name} passes the check"


def prove_bug(task: Task) -> None:
    prove_texts(task)
    assert task.given.count("\n") > 12 and len(task.kept.EXPLANATION.strip()) > 100
    assert judged(task, task.solved) == ""
    message = judged(task, task.given)
    assert message, "the defect passes the check"
    assert " raised a " not in message, f"the defect shows itself as an error: {message}"
