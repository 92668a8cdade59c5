"""What is asked of a training run while it goes on: files in its folder, which it takes away when it has read them.

    touch runs/flowers/stop                       it ends the step in hand and saves, as at SIGTERM
    echo 3e-4 > runs/flowers/learning_rate        the highest learning rate, from the next step on
    touch runs/flowers/draw                       samples-now.png; a tenth of the run's time at most is spent on that (SamplesOnTheWay)

So another terminal can ask, another machine that shares the folder, or a page. Of a run of two networks the one that learns
listens, or the next one.
"""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hcrot.files.json_and_arrays import replacing

__all__ = [
    "SamplesOnTheWay",
    "ask_for_pictures",
    "ask_for_rate",
    "ask_to_stop",
    "forget_wishes",
    "pictures_asked_for",
    "rate_asked_for",
    "stop_asked_for",
]

STOP, RATE, DRAW = "stop", "learning_rate", "draw"
RATES = (1e-7, 1.0)  # the polynomial schedule ends at 1e-7


def ask_to_stop(folder: Path) -> None:
    """Ask the run of this folder to save and end."""
    (folder / STOP).touch()


def ask_for_pictures(folder: Path) -> None:
    """Ask the run of this folder to draw."""
    (folder / DRAW).touch()


def ask_for_rate(folder: Path, rate: float) -> None:
    """Ask the run of this folder for another learning rate."""
    with replacing(folder / RATE) as unfinished:
        unfinished.write_text(f"{rate!r}\n", encoding="utf-8")


def forget_wishes(folder: Path) -> None:
    """Take away what was asked of a run that had ended."""
    for name in (STOP, RATE, DRAW):
        _taken(folder / name)


def stop_asked_for(folder: Path) -> bool:
    """Whether the run is to end; takes the wish away."""
    return _taken(folder / STOP)


def pictures_asked_for(folder: Path) -> bool:
    """Whether the run is to draw; takes the wish away."""
    return _taken(folder / DRAW)


class SamplesOnTheWay:
    """When a run draws before its end, and where to: every so many steps into samples-<step>.png, and when it is asked to, into
    samples-now.png. A wish waits until nine times as long has passed as the last drawing took::

        path = samples.due(step)
        if path:
            with samples.timed():
                ...                                                           # draw into path

    Args:
        folder: of the run.
        every: so many steps.
        part: stands before the step, or before "now".
    """

    def __init__(self, folder: Path, every: int, part: str = ""):
        self.folder, self.every, self.part = folder, every, part
        self.rested = 0.0  # when the next wish may be fulfilled

    def due(self, step: int) -> Path | None:
        """The file to draw now, after so many steps, or None. Takes the wish away that it fulfils."""
        if step % self.every == 0:
            return self.folder / f"samples-{self.part}{step}.png"
        asked = time.perf_counter() >= self.rested and pictures_asked_for(self.folder)
        return self.folder / f"samples-{self.part}now.png" if asked else None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Within the ``with`` block the run draws."""
        start = time.perf_counter()
        yield
        self.rested = 10 * time.perf_counter() - 9 * start


def rate_asked_for(folder: Path) -> float | None:
    """The learning rate that is wished for, or None; takes the wish away. What is no such number is said on stderr and left undone."""
    path, taken = folder / RATE, folder / f".{RATE}.taken"
    try:
        if not path.read_bytes().strip():
            return None  # somebody is writing it
        path.replace(taken)  # what is asked from now on is read the next time
        text = taken.read_text(encoding="utf-8", errors="replace").strip()
        taken.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        _left(path, error)
        return None
    with suppress(ValueError):
        if RATES[0] < float(text) <= RATES[1]:
            return float(text)
    print(f"{path}: expected a number above {RATES[0]:g} and up to {RATES[1]:g}, got {text[:40]!r}", file=sys.stderr)
    return None


def _taken(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        _left(path, error)
        return False
    return True


def _left(path: Path, error: OSError) -> None:
    """Say once that a wish could not be taken: a run does not end because of one."""
    warnings.warn(f"{path} is left as it is: {error.strerror}", stacklevel=3)
