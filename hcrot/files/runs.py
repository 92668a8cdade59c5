"""The folder of a training run: its lock, and metrics.jsonl, one line of JSON for each step."""

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

from hcrot.files.json_and_arrays import replacing
from hcrot.files.lock import run_lock

__all__ = ["SMALL", "lock_run", "open_metrics", "read_metrics"]

SMALL = "small"
"""Of a run of two networks, the folder inside its folder that holds the run of the first one, which draws small pictures."""


def lock_run(folder: Path, resume: bool) -> AbstractContextManager[None]:
    """Let no other process write this run, whose folder is made if it is a new one.

    Args:
        folder: of the run.
        resume: whether it must be there, with its config.json.

    Raises:
        NotADirectoryError, FileNotFoundError: it is a file, or holds no run to resume. AnotherProcessWrites: it is locked.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output: {folder} is a file, expected a folder")
    if resume and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no run to resume: there is no {folder / 'config.json'}")
    folder.mkdir(parents=True, exist_ok=True)
    return run_lock(folder)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that a crash has cut short is left out. [], if somebody has removed the file.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        metrics = [json.loads(line) for line in lines if line.endswith("}")]
        if not all(isinstance(numbers, dict) and {"step", "loss"} <= numbers.keys() for numbers in metrics):
            raise ValueError("expected a step and a loss in each line")
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return metrics


def open_metrics(folder: Path | None, step: int) -> TextIO:
    """metrics.jsonl, to be added to; what it says about steps after this one, which will be done again, is taken out.

    Without a folder, for who is not the one to write: a file that keeps nothing.
    """
    if folder is None:
        return open(os.devnull, "w", encoding="utf-8")
    path = folder / "metrics.jsonl"
    kept = [numbers for numbers in read_metrics(folder) if numbers["step"] <= step]
    with replacing(path) as unfinished:
        unfinished.write_text("".join(json.dumps(numbers) + "\n" for numbers in kept), encoding="utf-8")
    return open(path, "a", encoding="utf-8", buffering=1)  # line by line
