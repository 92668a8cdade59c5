"""Exercises and the bug hunt: their files are read, holes are cut into them, and what a learner makes of them is checked.

``hcrot/learn/exercises/`` has one file for each exercise, ``hcrot/learn/bugs/`` one for each bug. A file has two parts, the learner's and,
below a line that begins with ``# kept back``, what learners do not get: hints, the derivation and ``check(yours, check)``.

In an exercise, the learner's file has a ``raise NotImplementedError`` in place of what stands between two markers, and the solution is
what stands there. A bug has the defect and the mended lines one after the other:

    # yours: begin                   # bug: begin
    dx = dy @ self.weight.data       dx = dy @ self.weight.data.T
    # yours: end                     # bug: mended
                                     dx = dy @ self.weight.data
                                     # bug: end

Whoever writes an exercise shows that its check can fail: ``WRONG`` has, by name, texts of the solution and what to put in their place.
``LEADS`` may have, for words of an error that the learner's code raises, a sentence on what they mean in this exercise.
What is said of a task in other languages is in ``hcrot/learn/languages.py``.
"""

import difflib
import re
import sys
import textwrap
import traceback
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hcrot.files.json_and_arrays import replacing
from hcrot.learn.checks import Check, Wrong, error_lead
from hcrot.learn.languages import Text, chapter, filled, padded, said, translation
from hcrot.learn.progress import POINTS, blank, language_of, note, scores

__all__ = ["FOLDER", "HOLE", "ONE_HOUR", "Answer", "Task", "check", "contents", "find", "hint", "solution", "start", "tasks", "verdict"]

FOLDER = "hcrot_exercises"
"""Where a learner's files are, if no other folder is named."""

ONE_HOUR = ("01-1", "02-1", "06-3")
"""The exercises of the one-hour road to a backward pass of a convolution. They have a star in the list and on the pages."""

HOLE = 'raise NotImplementedError("yours")'
HERE = Path(__file__).parent
EXERCISE = re.compile(r"^( *)# yours: begin\n(.*?)^ *# yours: end\n", re.MULTILINE | re.DOTALL)
BUG = re.compile(r"^ *# bug: begin\n(.*?)^ *# bug: mended\n(.*?)^ *# bug: end\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Task:
    """One exercise or bug.

    Attributes:
        path: the file that ships with hcrot.
        is_bug: whether it belongs to the bug hunt.
        source: the text of that file.
        language: what it says to learners is in this language, or in English if it is not translated.
    """

    path: Path
    is_bug: bool
    source: str = field(repr=False)
    language: str = "en"

    @property
    def number(self) -> str:
        """``02-1``, or ``bug-07``: what a learner calls it."""
        first, second = self.path.stem.split("_")[:2]
        return f"bug-{first}" if self.is_bug else f"{first}-{second}"

    @property
    def name(self) -> str:
        """``02_1_linear_backward``, or ``bug_07_two_convolutions``: what the learner's file is called."""
        return f"bug_{self.path.stem}" if self.is_bug else self.path.stem

    def chapter(self, language: str = "en") -> str:
        """``bug hunt``, or the chapter's number and what it is about."""
        return said(language, "bug hunt") if self.is_bug else chapter(language, self.path.stem.split("_")[0])

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        text = translation(self.path, self.language)
        return text.title if text else self.source.removeprefix('"""').partition("\n")[0].strip()

    @property
    def text(self) -> Text:
        """What is said of it."""
        kept = self.kept
        why, symptom = (kept.EXPLANATION, kept.SYMPTOM) if self.is_bug else (kept.DERIVATION, "")
        task = (kept.__doc__ or "").partition("\n")[2]
        english = Text(self.title, task.strip("\n").rstrip(), tuple(kept.HINTS), why.strip("\n").rstrip(), symptom.strip())
        return translation(self.path, self.language) or english

    @property
    def upper(self) -> str:
        """The learner's part, with the markers."""
        text = translation(self.path, self.language)
        source = self.source.partition("\n# kept back")[0].rstrip() + "\n"
        return f'"""{text.title}\n\n{text.task}\n"""' + source.split('"""', 2)[2] if text else source

    @property
    def given(self) -> str:
        """What the learner begins with."""
        if self.is_bug:
            return self.symptom_as_comment + BUG.sub(r"\1", self.upper)
        return EXERCISE.sub(rf"\1{HOLE}\n", self.upper)

    @property
    def solved(self) -> str:
        """The learner's part, done."""
        return BUG.sub(r"\2", self.upper) if self.is_bug else EXERCISE.sub(r"\2", self.upper)

    @property
    def symptom_as_comment(self) -> str:
        return textwrap.indent(filled(self.text.symptom), "# ", lambda line: True) + "\n\n"

    @property
    def kept(self) -> ModuleType:
        """The whole file, done, as a module: it has HINTS, ``check`` and so on."""
        return kept_back(self)


@cache
def kept_back(task: Task) -> ModuleType:
    patched = BUG.sub(r"\2", task.source) if task.is_bug else task.source
    return executed(f"hcrot_learn_{task.name}", patched, task.path)


def executed(name: str, source: str, path: Path) -> ModuleType:
    """A module made of a text, which tracebacks say is that of ``path``."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look there for what their annotations name
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


@cache
def tasks(language: str = "en") -> tuple[Task, ...]:
    """All exercises in the order of the chapters, then all bugs."""
    found = []
    for folder, is_bug in (("exercises", False), ("bugs", True)):
        paths = sorted((HERE / folder).glob("[0-9]*.py"))
        found += [Task(path, is_bug, path.read_text(encoding="utf-8"), language) for path in paths]
    return tuple(found)


def spelled(name: str) -> str:
    """A name as files spell it: ``2-1`` is ``02_1``, ``Bug-7`` is ``bug_07``."""
    words = name.removesuffix(".py").lower().replace("-", "_").split("_")
    place = 1 if words[0] == "bug" else 0
    return "_".join(word.zfill(2) if index == place and word.isdigit() else word for index, word in enumerate(words))


def find(name: str, language: str = "en") -> Task:
    """The task of this number or name: ``02-1``, ``02_1_linear_backward``, ``linear_backward``, ``bug-07``.

    Raises:
        TypeError: the name is no text. ValueError: no task has it, or several have.
    """
    if not isinstance(name, str):
        raise TypeError(f"an exercise has a name such as '02-1' or 'bug-07', got {name!r}")
    wanted = spelled(name)
    fitting = [task for task in tasks(language) if wanted in (task.name, spelled(task.number), "_".join(task.name.split("_")[2:]))]
    if not fitting:
        names = {alias: task.number for task in tasks() for alias in (task.number, task.name)}
        near = sorted({names[alias] for alias in difflib.get_close_matches(name, names, 3)})
        meant = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"there is no exercise {name!r}{meant} (`hcrot learn list` has all)")
    if len(fitting) > 1:
        raise ValueError(f"{name!r} may be {' or '.join(task.number for task in fitting)}")
    return fitting[0]


# ---------------------------------------------------------------- what is right


def verdict(task: Task, source: str, path: Path) -> str:
    """What is wrong with a learner's text, in words that lead; "" if it passes.

    Args:
        task: what it is an answer to.
        source: the text.
        path: where it is, for the messages.
    """
    try:
        yours = executed(f"hcrot_learn_yours_{task.name}", source, path)
        task.kept.check(yours, Check())
    except Wrong as error:
        return str(error)
    except SyntaxError as error:
        return f"{path.name} cannot be read as Python: line {error.lineno}: {error.msg}\n    {(error.text or '').strip()}"
    except (Exception, SystemExit) as error:
        return raised(error, source, path, getattr(task.kept, "LEADS", {}))
    return ""


def raised(error: BaseException, source: str, path: Path, leads: dict[str, str]) -> str:
    """What to say when running a learner's text raised an error: which of its lines was being run, and what the error may mean."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, NotImplementedError) and str(error) == "yours" and lines:
        return f"line {lines[-1]} of {path.name} is still to be written"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if not lines or lines[-1] is None:
        if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
            return f"{path.name} has no {error.name}"
        return f"the check could not use what {path.name} gave it: {said}"
    line = source.splitlines()[lines[-1] - 1].strip()
    lead = next((sentence for words, sentence in leads.items() if words in said), error_lead(said))
    return f"line {lines[-1]} of {path.name} raised a {said.strip()}\n    {line}\n{filled(lead)}".rstrip()


# ---------------------------------------------------------------- what a learner does


@dataclass(frozen=True, repr=False)
class Answer:
    """What a command of this room has to say. Printed, or at the end of a notebook's cell, it is a text.

    Attributes:
        text: the text.
        facts: the same for programs.
        passed: False after a check that failed; also its truth.
    """

    text: str
    facts: dict[str, Any]
    passed: bool = True

    def __repr__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return self.passed


def start(name: str, folder: str | Path = FOLDER, again: bool = False, language: str | None = None) -> Answer:
    """Write the file to work on into the learner's folder.

    Args:
        name: see :func:`find`.
        folder: made if need be.
        again: whether a file that is there already is replaced by a new one.
        language: "en" or "ko". The folder remembers it: all that is done there later speaks it, too. None: what the folder speaks.

    Raises:
        ValueError: no such exercise or language. FileExistsError: the file is there, and ``again`` is False. OSError: it cannot be written.
    """
    speaking = language_of(folder, language)
    task = find(name, speaking)
    path = Path(folder) / f"{task.name}.py"
    if path.exists() and not again:
        raise FileExistsError(f"{path} is there already: go on with it, or overwrite it with --again")
    with replacing(path) as unfinished:
        unfinished.write_text(task.given, encoding="utf-8")
    note(folder, task.name, language=language)
    what = said(speaking, "mend" if task.is_bug else "fill")
    asked = f"{task.title}\n\n{filled(task.text.symptom) if task.is_bug else task.text.task}".strip()
    steps = [f"    hcrot learn {f'{step} {task.number}':<18}{said(speaking, step)}" for step in ("check", "hint", "solution")]
    text = "\n".join([f"{task.number}: {asked}", "", said(speaking, "wrote", path=path, what=what), *steps])
    return Answer(text, {"number": task.number, "title": task.title, "file": str(path)})


def check(name: str, folder: str | Path = FOLDER, language: str | None = None) -> Answer:
    """Check the learner's file; false if something is wrong with it, and the text says what, in English.

    Args:
        name: see :func:`find`.
        folder: where the file is.
        language: of all but the message of the check. None: what the folder speaks.

    Raises:
        ValueError: no such exercise or language. FileNotFoundError: it was never started in this folder.
    """
    language = language_of(folder, language)
    task = find(name, language)
    number, path = task.number, Path(folder) / f"{task.name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: `hcrot learn start {number}` writes it")
    problem = verdict(task, path.read_text(encoding="utf-8"), path)
    kept = note(folder, task.name, tries=1, solved=not problem)
    if problem:
        left = len(task.text.hints) - kept["hints"]
        more = said(language, "more hints" if left else "explained", number=number, left=left)
        text = f"{said(language, 'not yet', number=number)}\n\n{problem}\n\n{more}"
    elif task.is_bug:
        text = f"{said(language, 'mended', number=number, points=kept['points'], possible=POINTS)}\n\n{filled(task.text.why)}"
    else:
        text = said(language, "right", number=number, tries=kept["tries"])
        if number in ONE_HOUR[:-1]:
            text += said(language, "next", number=ONE_HOUR[ONE_HOUR.index(number) + 1])
    facts = {"number": number, "passed": not problem, "message": problem, **kept}
    return Answer(text, facts, not problem)


def hint(name: str, folder: str | Path = FOLDER, language: str | None = None) -> Answer:
    """The next hint; after the last one, all of them.

    Raises:
        ValueError: no such exercise or language.
    """
    language = language_of(folder, language)
    task = find(name, language)
    number, hints = task.number, task.text.hints
    shown = note(folder, task.name)["hints"]
    if shown >= len(hints):
        lines = [f"{index}. {line}" for index, line in enumerate(hints, 1)]
        text = "\n".join([said(language, "all hints"), *lines, said(language, "the rest", number=number)])
        return Answer(text, {"number": number, "hints": list(hints), "left": 0})
    note(folder, task.name, hints=1)
    left = len(hints) - shown - 1
    text = filled(said(language, "this hint", number=number, index=shown + 1, count=len(hints), hint=hints[shown]))
    return Answer(text, {"number": number, "hints": list(hints[: shown + 1]), "left": left})


def solution(name: str, folder: str | Path = FOLDER, language: str | None = None) -> Answer:
    """The solution, and why; it is noted that it was seen.

    Raises:
        ValueError: no such exercise or language.
    """
    language = language_of(folder, language)
    task = find(name, language)
    note(folder, task.name, seen=True)
    shown, why = task.solved, task.text.why
    if task.is_bug:
        before, after = BUG.sub(r"\1", task.upper).splitlines(), task.solved.splitlines()
        names = said(language, "defective"), said(language, "mended lines")
        shown, why = "\n".join(difflib.unified_diff(before, after, *names, lineterm="", n=2)), filled(why)
    text = f"{task.number}: {task.title}\n\n{shown.strip()}\n\n{why.strip()}"
    return Answer(text, {"number": task.number, "solution": task.solved, "explanation": why.strip()})


def contents(folder: str | Path = FOLDER, language: str | None = None) -> Answer:
    """All exercises and bugs, what is done, and the score of the bug hunt; in the facts the chapters have their English names.

    Raises:
        ValueError: no such language.
    """
    language = language_of(folder, language)
    score, listed, shown = scores(folder), [], ""
    lines = [said(language, "star")]
    bugs = [score.get(task.name, {}) for task in tasks() if task.is_bug]
    found, points = sum(kept.get("solved", False) for kept in bugs), sum(kept.get("points", 0) for kept in bugs)
    possible = POINTS * len(bugs)
    for task in tasks(language):
        kept = score.get(task.name, {})
        if task.chapter(language) != shown:
            shown = task.chapter(language)
            head = said(language, "score", found=found, bugs=len(bugs), points=points, possible=possible) if task.is_bug else ""
            lines += ["", shown + head]
        done = said(language, "found", count=kept.get("points")) if task.is_bug else said(language, "done")
        words = [done] if kept.get("solved") else [said(language, "begun")] if kept else []
        words += [said(language, "hints", count=kept["hints"])] if kept.get("hints") else []
        words += [said(language, "seen")] if kept.get("seen") else []
        star = "★" if task.number in ONE_HOUR else ""
        lines.append(f"  {task.number:<6}{star:<1} {padded(task.title, 70)} {', '.join(words)}".rstrip())
        about = {"number": task.number, "name": task.name, "title": task.title, "chapter": task.chapter(), "one_hour": bool(star)}
        listed.append({**about, **blank(), **kept})
    facts = {"tasks": listed, "bugs_found": found, "bugs": len(bugs), "points": points, "points_possible": possible}
    return Answer("\n".join(lines), facts)
