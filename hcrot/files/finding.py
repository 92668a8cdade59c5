"""Where in a folder the file of a network or of a scheduler is. If it is not there, the error says what is, and what to type."""

import os
import re
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TypeVar

from hcrot.files.json_and_arrays import read_folder

__all__ = ["PIPELINE_NAME", "describe_contents", "find_file", "places_of", "read_local_folder"]

PIPELINE_NAME = "model_index.json"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SHOWN = 8

Result = TypeVar("Result")


def read_local_folder(owner: str, folder: str | os.PathLike, read: Callable[[Path], Result]) -> Result:
    """:func:`hcrot.files.json_and_arrays.read_folder`, whose error explains how to get a folder that has a name of Hugging Face's hub.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError, OSError: as `read_folder`.
    """
    try:
        return read_folder(owner, folder, read)
    except FileNotFoundError as error:
        name = os.fspath(folder)
        if not isinstance(name, str) or not HUB_NAME.fullmatch(name) or Path(name).parent.exists():
            raise
        own = name.partition("/")[2]
        raise FileNotFoundError(
            f"{owner}: there is no folder {name}. If this is a name of the Hugging Face hub: hcrot downloads nothing. "
            f"Type `hf download {name} --local-dir {own}` in a shell (pip install huggingface_hub), then load {own!r}"
        ) from error


def find_file(owner: str, folder: Path, file: str, subfolder: str | os.PathLike | None, usual: str) -> Path:
    """The path of ``file`` in a folder that is there.

    Args:
        owner: whom an error message names.
        folder: of one part (a network, a scheduler), or of a whole pipeline.
        file: its name, such as "config.json".
        subfolder: where in the folder it is. None: in ``usual`` if the folder is a pipeline's that has one, else in the folder itself.
        usual: the name of the part in a pipeline, such as "unet".

    Raises:
        TypeError: subfolder is no name.
        FileNotFoundError: there is no such file; the message lists the subfolders that have one, or what is there.
    """
    if subfolder is None:
        of_pipeline = (folder / PIPELINE_NAME).is_file() and (folder / usual).is_dir()
        subfolder = usual if of_pipeline else ""
    elif not isinstance(subfolder, str | os.PathLike):
        raise TypeError(f"{owner}: subfolder is {subfolder!r:.60}, expected the name of a folder, or None")
    path = folder / subfolder / file
    if path.is_file():
        return path
    places = places_of(folder, file)
    here = path.parent if path.parent.is_dir() else folder
    hint = f"say subfolder={' or '.join(map(repr, places))}" if places else describe_contents(here)
    raise FileNotFoundError(f"{owner}: there is no file {path}; {hint}")


def places_of(folder: Path, file: str) -> list[str]:
    """The first subfolders, at most two levels down, that hold such a file."""
    found = (path.parent for pattern in (f"*/{file}", f"*/*/{file}") for path in folder.glob(pattern))
    return sorted(path.relative_to(folder).as_posix() for path in islice(found, SHOWN))


def describe_contents(folder: Path) -> str:
    """What is in the folder, in a few words."""
    return f"{folder} holds {_first(sorted(path.name + '/' * path.is_dir() for path in folder.iterdir()))}"


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "") or "nothing"
