"""What is remembered of a learner: one file in the learner's folder, with the language that is spoken there."""

from pathlib import Path
from typing import Any

from hcrot.files.json_and_arrays import read_json, replacing, write_json
from hcrot.learn.languages import known_language

__all__ = ["POINTS", "blank", "language_of", "note", "scores"]

POINTS = 4
"""For a bug that is found without help. Each hint costs one, down to one; who reads the solution first gets none."""

SCORE = "score.json"
LANGUAGE = "language"  # beside the names of tasks, none of which is a single word


def blank() -> dict[str, Any]:
    """What is known of a task that was begun a moment ago."""
    return {"tries": 0, "hints": 0, "seen": False, "solved": False, "points": 0}


def scores(folder: str | Path) -> dict[str, Any]:
    """What is known of each task that was begun, by its name.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(folder) / SCORE
    return read_json(path) if path.is_file() else {}


def language_of(folder: str | Path, asked: str | None = None) -> str:
    """The language that is asked for, else that of the last ``start`` in this folder that named one, else English.

    Raises:
        ValueError: no exercise is written in it, or the file is damaged. TypeError: it is no text.
    """
    return known_language(scores(folder).get(LANGUAGE) if asked is None else asked)


def note(
    folder: str | Path, name: str, tries: int = 0, hints: int = 0, seen: bool = False, solved: bool = False, language: str | None = None
) -> dict[str, Any]:
    """Remember what a learner did, and the language if one is named.

    Args:
        folder: the learner's.
        name: of the task. Only bugs, whose names begin with ``bug``, give points.
        tries, hints: so many more.
        seen: whether the solution was shown.
        solved: whether it is done. Hints and solutions that come after that cost nothing.
        language: spoken from now on.

    Returns:
        What is now known of this task.
    """
    score = scores(folder)
    if language is not None:
        score[LANGUAGE] = language
    kept = score[name] = {**blank(), **score.get(name, {})}
    if solved and not kept["solved"]:
        kept["solved"] = True
        kept["points"] = 0 if kept["seen"] or not name.startswith("bug") else max(1, POINTS - kept["hints"])
    kept["tries"] += tries
    kept["hints"] += hints
    kept["seen"] = kept["seen"] or seen
    with replacing(Path(folder) / SCORE) as unfinished:
        write_json(unfinished, score)
    return kept
