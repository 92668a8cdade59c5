"""Where compiled kernels are kept between runs, and how they are read so that no damage to a file is a damage to a run.

Numba keeps compiled functions in the ``__pycache__`` folder beside their source, or else in the user's cache folder, or in
``NUMBA_CACHE_DIR``. Two things are changed here:

- Where none of them can be written (containers, Nix, servers), Numba refuses to compile at all. Here, kernels are then kept in a folder of
  the user's own below the system's temporary one, and if there is none either, nowhere.
- Numba keeps, per function, an index and numbered files. A file that was cut short raises an error in every later run, and two processes
  that compile at once may take the same number for two kernels. Here, each compiled kernel has a file of its own, named after a hash of all
  that it depends on. A checksum stands before its content. What does not match is compiled again and replaced.

This relies on parts of Numba that are not public: ``Dispatcher._cache``, its ``_cache_file`` with ``load(key)`` and ``save(key, data)``,
and ``numba.core.serialize.dumps``. Where a version of Numba has them no more, its own cache is used as it is.
"""

import functools
import hashlib
import os
import pickle
import stat
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hcrot.kernels.compiler import numba

__all__ = ["KernelFiles", "compile_cached", "compile_function", "drop_outdated", "fallback_folder", "keep_one_file_each", "kept_in"]

compile_function = functools.partial(numba.njit, error_model="numpy", nogil=True, no_cfunc_wrapper=True)
"""Compile a function the way all of hcrot's are."""


def compile_cached(function: Callable, **options: Any) -> Any:
    """``function``, to be compiled when it is first called, or to be read from the disk if an earlier process has compiled it.

    Args:
        function: a Python function.
        options: of ``numba.njit``.

    Returns:
        Numba's dispatcher; with ``NUMBA_DISABLE_JIT=1``, ``function`` itself.
    """
    try:
        compiled = compile_function(cache=True, **options)(function)
    except RuntimeError:  # no locator available: Numba finds no folder that it may write to
        folder = fallback_folder()
        if folder is None:
            return compile_function(**options)(function)
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
        try:
            compiled = compile_function(cache=True, **options)(function)
        finally:
            numba.config.CACHE_DIR = before
    keep_one_file_each(compiled)
    return compiled


@functools.cache
def fallback_folder() -> Path | None:
    """A folder for compiled kernels below the temporary one, that nobody but this user can write to; None if there can be none.

    Compiled kernels are programs. So a folder that somebody else owns or may write to is not used.
    """
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    try:
        folder = Path(tempfile.gettempdir()) / f"hcrot-kernels-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        owned = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
        if not stat.S_ISDIR(found.st_mode) or not owned:
            return None
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


class KernelFiles:
    """The files of one function's compiled versions, in the place of Numba's index and numbered files.

    A file is named after a hash of Numba's key (the types of the arguments, the processor, the function's code), of the function's source
    file and of Numba's version. It holds the SHA-256 of what follows, then the pickled compiled function.

    Args:
        folder: where the files are.
        name: with what their names begin.
        stamp: what identifies this version of the source file.
    """

    def __init__(self, folder: str, name: str, stamp: Any):
        self.folder, self.name, self.stamp = Path(folder), name, stamp

    def path(self, key: Any) -> Path:
        digest = hashlib.sha256(repr((numba.__version__, self.stamp, key)).encode()).hexdigest()[:24]
        return self.folder / f"{self.name}.{digest}.nbc"

    def load(self, key: Any) -> Any:
        """What was saved for ``key``, or None if there is nothing that is whole."""
        try:
            content = self.path(key).read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                return pickle.loads(content[32:])
        except Exception:  # unreadable, or pickled by another version of a library: whatever it is, to compile again mends it
            pass
        return None

    def save(self, key: Any, data: Any) -> None:
        """Write beside the target and rename: other processes see all of a file or nothing. A failure is no error."""
        from numba.core.serialize import dumps

        content = dumps(data)
        target = self.path(key)
        written = target.with_name(f"{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            written.write_bytes(hashlib.sha256(content).digest() + content)
            written.replace(target)
        except OSError:
            written.unlink(missing_ok=True)

    def flush(self) -> None:
        """Remove every file of this function."""
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            path.unlink(missing_ok=True)


def keep_one_file_each(compiled: Any) -> None:
    """Have a dispatcher use :class:`KernelFiles`; where its cache is not what is expected, leave it as it is."""
    cache: Any = getattr(compiled, "_cache", None)
    files: Any = getattr(cache, "_cache_file", None)
    implementation: Any = getattr(cache, "_impl", None)
    if all(hasattr(files, name) for name in ("load", "save", "flush", "_source_stamp")) and hasattr(implementation, "filename_base"):
        cache._cache_file = KernelFiles(cache.cache_path, implementation.filename_base, files._source_stamp)


def kept_in(compiled: Any) -> Path | None:
    """The folder in which a dispatcher's compiled versions are kept, None if nowhere."""
    path = getattr(getattr(compiled, "_cache", None), "cache_path", None)
    return None if path is None else Path(path)


def drop_outdated(folder: Path, sources: Path) -> bool:
    """Whether ``folder`` holds compiled kernels; those older than any kernel's source are removed first.

    Numba itself looks only at the source file of the kernel that is called. It would go on using what that kernel had compiled into it from
    another file before that file changed.
    """
    compiled = [*folder.glob("*.nbc"), *folder.glob("*.nbi")]
    newest = max((source.stat().st_mtime for source in sources.glob("*.py")), default=0.0)
    try:
        fresh = [file for file in compiled if file.stat().st_mtime >= newest]
        if len(fresh) < len(compiled):
            for file in [*compiled, *folder.glob("*.nbc.*.tmp")]:
                file.unlink(missing_ok=True)
    except OSError:  # another process drops them at this moment, or the folder can only be read
        return False
    return len(fresh) == len(compiled) > 0
