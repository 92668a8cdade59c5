"""Files of JSON and of arrays, and writing so that nobody ever meets half of one."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """The name of a file beside ``path`` to write to, which takes the place of ``path`` in one move when all went well.

        with replacing("runs/config.json") as unfinished:
            unfinished.write_text(text)

    Missing folders are made. If the block raises, ``path`` is as it was and nothing is left beside it.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name into a safetensors file, in C order, names sorted. Not in one move: that is the caller's affair."""
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    Path(path).write_bytes(safetensors.numpy.save(ordered, metadata={"format": "pt"}))  # save_file would hide it from other users


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays in a safetensors file, by name.

    Raises:
        FileNotFoundError: there is no such file; the message says so if there are weights in the form of a pickle.
        ValueError: the file is damaged, no safetensors file, or has numbers of a kind that NumPy does not (bfloat16).
    """
    path = Path(path)
    if path.suffix in PICKLES:
        raise ValueError(f"{path} is a pickle, which can run any code and is never opened: save as safetensors instead")
    if not path.is_file():
        pickles = sorted(file.name for file in path.parent.glob("*") if file.suffix in PICKLES)
        hint = f"; {', '.join(pickles)} is a pickle, which can run any code and is never opened" if pickles else ""
        raise FileNotFoundError(f"there is no file {path}{hint}")
    try:
        return safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path} has numbers of the type {error}, which NumPy does not have: save as float32") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is no such checkpoint: it has no {path.name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object but {content!r:.60}")
    return content
