"""Writing files so that nobody ever meets half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
