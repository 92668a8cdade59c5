"""Locks that end with their process: for a run's folder, and for files that are being written.

A lock belongs to an open file, so the operating system ends it when its process ends, however that happens; no process number is ever
guessed to be alive or dead. Unix: ``flock``, which also works on folders and between containers that share one. Windows: one byte of
the file is locked; folders cannot be locked there. A file system without locks (some network drives) is treated like Windows's folders.
"""

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["AnotherProcessWrites", "run_lock"]

LOCK_NAME = ".lock"
FAR = 1 << 30  # the byte that Windows locks: beyond the process number, which others are to read
UNTOUCHED_SECONDS = 24 * 60 * 60  # after which a file that cannot be locked is taken for abandoned


class AnotherProcessWrites(BlockingIOError):
    """The run's folder is locked by another process, or by this one already. The message is one line that names the process."""


@contextmanager
def run_lock(folder: str | os.PathLike) -> Iterator[None]:
    """Within the ``with`` block no other process enters such a block for the same folder.

        with run_lock("runs/mnist"):
            train()

    It is for the folder of a run. (The checkpoint's folder inside it cannot be locked, because each save replaces it.) Meanwhile the folder
    holds the file ``.lock`` with the number of the process in it. A process that is killed leaves the file, but not the lock. Processes
    forked within the block do not hold the lock. Where the file system has no locks a warning says so.

    Raises:
        AnotherProcessWrites: the folder is locked.
        FileNotFoundError: there is no such folder.
        OSError: the folder cannot be written.
    """
    path = Path(folder) / LOCK_NAME
    descriptor = _lock_file(path)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # else this is a forked process
            _held.remove(descriptor)
            if sys.platform != "win32":
                path.unlink(missing_ok=True)  # while it is locked, so that it is no other process's
            os.close(descriptor)
            if sys.platform == "win32":
                with suppress(OSError):  # another process may be looking at it
                    path.unlink()


def _lock_file(path: Path) -> int:
    """The descriptor of the file, locked, with the number of this process in it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = acquire(descriptor)
            if locked is False:
                raise AnotherProcessWrites(f"{_owner(path)} is writing this run: {path.parent}")
            if locked is None:
                warnings.warn(f"{path.parent} is on a file system without locks: see to it that no other process writes it", stacklevel=4)
            if is_at(path, descriptor):  # else whoever had the lock has removed the file
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _owner(path: Path) -> str:
    for _ in range(50):
        with suppress(OSError, ValueError):
            number = int(path.read_bytes())
            return f"this process (pid {number})" if number == os.getpid() else f"another process (pid {number})"
        time.sleep(0.01)  # it has locked the file a moment ago and not yet written its number
    return "another process"


_held: set[int] = set()  # the descriptors of this process's run locks


def _let_go() -> None:
    """A forked process does not hold its parent's locks: else a worker that outlives the parent would."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


# ---------------------------------------------------------------- files and folders that are being written


def acquire(descriptor: int, wait: bool = False, shared: bool = False) -> bool | None:
    """Lock an open file. False: another has locked it, and we were not to ``wait``. None: it cannot be locked.

    Any number of processes can have it locked ``shared`` (on Windows: only one).
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file still has this name."""
    try:
        there, ours = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


@contextmanager
def in_work(path: Path) -> Iterator[bool]:
    """Lock a file or folder that this process has just made. False: another one took it for abandoned before that and removed it."""
    if sys.platform == "win32":  # an open file cannot be moved there
        yield True
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        acquire(descriptor, wait=True)
        yield is_at(path, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Whether whoever wrote this file or folder (see :func:`in_work`) has ended; within the block it can be removed.

    Where it cannot be locked: whether it has not been touched for a day.
    """
    descriptor, locked = None, None
    try:
        if sys.platform != "win32":
            descriptor = os.open(path, os.O_RDONLY)
            locked = acquire(descriptor)
        yield time.time() - path.stat().st_mtime > UNTOUCHED_SECONDS if locked is None else locked
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def in_use(folder: Path, to_read: bool, seconds: float) -> Iterator[None]:
    """Lock the folder that is there now, so that it is not replaced while it is read: readers share the lock, a writer has it alone.

    The lock is no guarantee: after this many ``seconds``, or where folders cannot be locked, the block is entered without it.
    """
    descriptor, end = None, time.monotonic() + seconds
    try:
        while sys.platform != "win32":
            try:
                descriptor = os.open(folder, os.O_RDONLY)
            except OSError:
                break
            locked = acquire(descriptor, shared=to_read)
            if locked is None or (locked and is_at(folder, descriptor)) or time.monotonic() >= end:
                break
            os.close(descriptor)  # it has been replaced, or another process is in there
            descriptor = None
            time.sleep(0.001 if to_read else 0.01)  # so that somebody who saves without pause does not keep readers out
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
