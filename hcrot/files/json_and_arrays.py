"""Files of JSON and of arrays, and writing so that nobody ever meets half a file or half a folder.

A folder is written whole beside its target and flushed to the disk; then the old one is moved aside and the new one moved
in. A process killed between these two moves leaves no folder under the name, but the old one, whole, under the other name,
where :func:`find_folder` looks for it. So at any moment there is one folder, with all its files of one and the same save.

Several processes may write one target at the same time. The last one wins, and its files are the only ones there. Each writes under
names of its own:

    .NAME.<process id>-<random>.part    a file that is being written
    .NAME.<process id>-<random>.new     a folder that is being written, or removed
    .NAME.<process id>-<random>.old     a folder that was moved aside, whole; ``.NAME.old`` in earlier versions

What is being written is locked by its process. The lock ends with the process, so whoever writes the same target next can tell what
a killed process has left from what a living one still needs, and removes the former.
"""

import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from hcrot.files.lock import abandoned, in_use, in_work

__all__ = [
    "DIFFUSERS_VERSION", "DTYPES", "NEVER_OPENED", "PICKLES", "TRIES", "Result", "find_folder", "open_npz", "parse_json", "plain",
    "read_arrays", "read_arrays_and_metadata", "read_folder", "read_json", "replacing", "replacing_folder", "write_arrays", "write_json",
]  # fmt: skip

DIFFUSERS_VERSION = "0.42.1"  # the release whose file format and behaviour is followed; diffusers writes its own there

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
NEVER_OPENED = "is a pickle, which can run any code and is never opened"

DTYPES = {  # safetensors' names, and how the numbers lie in the file; those of bfloat16 are the upper halves of float32
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1",
}  # fmt: skip

TRIES = 100  # to read a folder that others replace all the time, or to replace it
PATIENCE = 10.0  # seconds that a save waits for a process that reads the old folder, and a reader for a save
Result = TypeVar("Result")


# ---------------------------------------------------------------- a file


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
    _remove_abandoned(path, "part")
    with _unfinished(path, "part") as unfinished:
        try:
            yield unfinished
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], about: tuple[str, str] = ("format", "pt")) -> None:
    """Write arrays by name into a safetensors file, in C order, names sorted. Not in one move: that is the caller's affair.

    Args:
        path: the file.
        arrays: those to write.
        about: the one entry of the file's metadata, a name and its value. Of several, safetensors would choose the order at random,
            and equal arrays would not make equal files.
    """
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    Path(path).write_bytes(safetensors.numpy.save(ordered, metadata=dict([about])))  # save_file would hide it from other users


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays in a safetensors file, by name, each of the dtype it has there; bfloat16, which NumPy lacks, becomes float32.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_arrays_and_metadata`.
    """
    return read_arrays_and_metadata(path)[0]


def read_arrays_and_metadata(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """:func:`read_arrays`, and what the file's header says about the whole of them.

    Raises:
        FileNotFoundError: there is no such file; the message says so if there are weights in the form of a pickle.
        ValueError: the file is damaged, no safetensors file, or has numbers of a kind that is not known (8-bit floats).
    """
    path = Path(path)
    if path.suffix in PICKLES:
        raise ValueError(f"{path} {NEVER_OPENED}: save as safetensors instead")
    if not path.is_file():
        pickles = sorted(file.name for file in path.parent.glob("*") if file.suffix in PICKLES)
        raise FileNotFoundError(f"there is no file {path}" + (f"; {', '.join(pickles)} {NEVER_OPENED}" if pickles else ""))
    content = path.read_bytes()
    try:
        tensors = safetensors.deserialize(content)  # takes no more memory than the file has bytes, whatever its header says
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])  # safetensors lets names pass that come twice
        arrays = {name: _array(name, tensor["dtype"], tensor["shape"], tensor["data"]) for name, tensor in tensors}
        return arrays, header.get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file that hcrot reads: {error}") from error


def _array(name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype not in DTYPES:
        raise ValueError(f"{name} has numbers of type {dtype}, expected one of {', '.join(DTYPES)}")
    array = np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array


@contextmanager
def open_npz(path: str | os.PathLike, needed: str) -> Iterator[Any]:
    """NumPy's file of arrays by name, whose arrays are read when they are asked for, within the ``with`` block.

    Args:
        path: the file.
        needed: the name of an array that must be there.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it, or an array that the block asks for, is damaged, a pickle or a single array; or the array is not there.
    """
    try:
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False) if zipfile.is_zipfile(path) else None
            names = list(arrays) if isinstance(arrays, np.lib.npyio.NpzFile) else None
            if names and needed in names:
                yield arrays
                return
    except (ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or holds something else than numbers") from error
    if names is None:
        raise ValueError(f"{path} is damaged, or no file of arrays by name (.npz)")
    raise ValueError(f"{path} has no array {needed}, but {', '.join(names) or 'none at all'}")


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write an object as diffusers formats it: two spaces, keys sorted; NumPy's numbers and arrays as plain ones. Not in one move.

    Raises:
        TypeError: something that JSON cannot hold.
    """
    text = json.dumps(content, indent=2, sort_keys=True, default=plain)
    Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")


def plain(value: Any) -> Any:
    """An array or number of NumPy's as JSON can hold it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{value!r:.60} of type {type(value).__name__} cannot be kept in JSON")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else, or has a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object but {content!r:.60}")
    return content


def parse_json(text: bytes) -> Any:
    """What the text, in UTF-8, says; a ValueError if that is not clear: a key twice in an object, or brackets nested thousands deep."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {name!r} comes twice")
        content[name] = value
    return content


# ---------------------------------------------------------------- a folder


@contextmanager
def replacing_folder(owner: str, folder: str | os.PathLike, files: str) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``folder`` when all went well; else everything is as it was.

    Args:
        owner: whom an error message names.
        folder: made with its parents if need be.
        files: regular expression of the files, by their paths in the folder, that an earlier save may have left and that may go.

    Raises:
        FileExistsError: the folder holds another file, which would be lost.
        OSError: the folder cannot be written.
    """
    target = Path(folder).resolve()
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(target.stat().st_mode):  # looked at once: between two looks another process may move it aside
            raise NotADirectoryError(f"{owner}: {folder} is a file, expected a folder")
    others = sorted(islice((name for name in _names_in(target) if not re.fullmatch(files, name)), 5))
    if others:
        raise FileExistsError(f"{owner}: {folder} holds {', '.join(others)}, which would be lost: choose another folder")

    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target, "new")
    with _unfinished(target, "new") as new:
        try:
            yield new
            for path in [*new.rglob("*"), new]:
                _flush(path)
            _move_in(new, target)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _names_in(folder: Path) -> Iterator[str]:
    """The files and links below it, by their paths in it; those of a folder that another process is removing are left out."""
    for place, folders, files in os.walk(folder):
        for name in files + [name for name in folders if os.path.islink(os.path.join(place, name))]:
            yield (Path(place) / name).relative_to(folder).as_posix()


def _move_in(new: Path, target: Path) -> None:
    """Put ``new`` in the place of ``target``. What was there is removed, and what was moved aside earlier and never replaced.

    Another process may do the same at the same moment. Then one of the two finds the place taken when it moves in, and begins again.
    Only folders that were aside before ``new`` moved in may be removed: one moved aside since may be the only whole one.
    """
    for attempt in range(1, TRIES + 1):
        outdated, aside = _beside(target, "old"), _name_beside(target, "old")
        try:
            with suppress(FileNotFoundError), in_use(target, to_read=False, seconds=PATIENCE):
                os.rename(target, aside)
                outdated.append(aside)
            os.rename(new, target)
            break
        except OSError as error:
            taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST) or os.name == "nt"  # Windows moves nothing that is being read
            if not taken or attempt == TRIES:
                with suppress(OSError):
                    os.rename(aside, target)
                raise
        time.sleep(0.01)
    _flush(target.parent)
    for folder in outdated:
        trash = _name_beside(target, "new")  # so that nobody ever meets a half under a name that promises a whole
        with suppress(OSError):  # another process has removed it
            os.rename(folder, trash)
            shutil.rmtree(trash)


def read_folder(owner: str, folder: str | os.PathLike, read: Callable[[Path], Result]) -> Result:
    """What ``read`` makes of the folder, all of it from one save: if another process replaces the folder meanwhile, it is read again.

    Args:
        owner: whom an error message names.
        folder: as in :func:`find_folder`, whose errors are raised, too.
        read: is given the place where the folder is. What it raises is raised, unless the folder was being replaced.

    Raises:
        OSError: the folder was replaced again and again.
    """
    for attempt in range(TRIES):
        place = find_folder(owner, folder)
        with in_use(place, to_read=True, seconds=PATIENCE) if attempt else nullcontext():  # from the second time on saves wait for us
            before = _identity(place)
            try:
                result = read(place)
            except Exception:
                # an old folder that is being removed loses what is in its subfolders before it changes itself
                if before is not None and _identity(place) == before and find_folder(owner, folder) == place:
                    raise
            else:
                if before is not None and _identity(place) == before:
                    return result
    raise OSError(f"{owner}: {folder} was replaced {TRIES} times while it was being read")


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """What no two saves share, not even where a new folder gets the number of a removed one; None: there is no such folder."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def find_folder(owner: str, folder: str | os.PathLike) -> Path:
    """The folder, or the place where a process that was killed while replacing it has left it.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is a file.
    """
    path = Path(folder)
    if path.is_dir():
        return path
    if path.is_file():
        kind = NEVER_OPENED if path.suffix in PICKLES else "is a file"
        raise ValueError(f"{owner}: {path} {kind}, expected a folder")
    for _ in range(5):  # another process may be replacing it, so that it is now here and now there
        times = {}
        for aside in _beside(path.resolve(), "old"):
            with suppress(FileNotFoundError):
                times[aside] = aside.stat().st_mtime_ns
        if times:
            return max(times, key=times.__getitem__)  # the newest
        if path.is_dir():
            return path
    raise FileNotFoundError(f"{owner}: there is no folder {path}")


# ---------------------------------------------------------------- names beside a target


def _name_beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def _beside(target: Path, kind: str) -> list[Path]:
    """The names of this kind that are there, whoever made them."""
    own = r"\.\d+-[0-9a-f]{8}"
    pattern = rf"\.{re.escape(target.name)}({own}){'?' if kind == 'old' else ''}\.{kind}"
    try:
        return [target.with_name(name) for name in sorted(os.listdir(target.parent)) if re.fullmatch(pattern, name)]
    except FileNotFoundError:
        return []


@contextmanager
def _unfinished(target: Path, kind: str) -> Iterator[Path]:
    """A new file ("part") or folder ("new") beside the target, locked by this process."""
    while True:
        path = _name_beside(target, kind)
        path.mkdir() if kind == "new" else path.touch(exist_ok=False)
        with in_work(path) as ours:
            if ours:
                yield path
                return


def _remove_abandoned(target: Path, kind: str) -> None:
    """Remove what processes that have ended left beside the target."""
    for path in _beside(target, kind):
        with suppress(OSError), abandoned(path) as over:  # another process may be removing it, too
            if over and kind == "new":
                shutil.rmtree(path)
            elif over:
                path.unlink()


def _flush(path: Path) -> None:
    """Wait until the file, or the names in the folder, have reached the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows neither can nor needs to
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
