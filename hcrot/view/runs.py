"""Training runs: ``hcrot train`` as a process of its own for each that is started here, and metrics.jsonl of any run of the folder.

The page asks for what is new once a second, and every tab is answered from one copy of the numbers. Neither several tabs nor a slow one
cost a run more than the reading of the lines that it adds, and the drawing of samples once a minute while somebody looks.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hcrot.files.json_and_arrays import read_json, write_json
from hcrot.files.runs import SMALL
from hcrot.files.wishes import ask_for_pictures, ask_for_rate, ask_to_stop
from hcrot.view.messages import Request

__all__ = ["Runs", "Tail", "thinned"]

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
STARTED = "view.json"  # in a run's folder: on what it was started here
LOG = "train.log"
POINTS = 300  # of a curve
FRESH = 60.0  # seconds: a run that was started elsewhere and has written nothing for so long counts as stopped
QUARTERS = 4
NAMES = ("step", "loss", "grad_norm", "lr")
NUMBERS = (*NAMES, *range(QUARTERS))  # of a line
RATES = (2e-7, 1.0)  # learning rates
DRAWN_EVERY = 60.0  # seconds, while somebody watches a run
AT_ONCE = 2  # runs that are in work, started here


class Runs:
    """The runs of a folder.

    Args:
        folder: need not be there yet.
        data: what may be trained on.
    """

    def __init__(self, folder: Path, data: list[str]):
        self.folder, self.data = folder, data
        self._started: dict[str, subprocess.Popen] = {}
        self._tails: dict[str, Tail] = {}
        self._lock = threading.Lock()

    def listed(self, request: Request) -> dict[str, Any]:
        """Names and states, the latest first."""
        files = [file for pattern in ("metrics.jsonl", f"{SMALL}/metrics.jsonl", LOG) for file in self.folder.glob(f"*/{pattern}")]
        latest: dict[str, float] = {}
        for file in files:
            name = file.relative_to(self.folder).parts[0]
            latest[name] = max(latest.get(name, 0.0), file.stat().st_mtime)
        names = sorted(latest, key=lambda name: -latest[name])
        return {"runs": [{"name": name, "state": self.state(name)} for name in names if re.fullmatch(NAME, name)]}

    def state(self, name: str) -> str:
        """"running", "running elsewhere" or "stopped"."""
        process = self._started.get(name)
        if process is not None and process.poll() is None:
            return "running"
        metrics = self.metrics(name)
        fresh = metrics.is_file() and time.time() - metrics.stat().st_mtime < FRESH
        return "running elsewhere" if fresh and process is None and (self.folder / name / ".lock").exists() else "stopped"

    def metrics(self, name: str) -> Path:
        """metrics.jsonl; of a run of two networks that of the one that learns, or has learned last."""
        whole, inner = (self.folder / name / place / "metrics.jsonl" for place in ("", SMALL))
        there = [path for path in (whole, inner) if path.is_file()]
        return max(there, key=lambda path: path.stat().st_mtime, default=whole)

    def follow(self, request: Request) -> dict[str, Any]:
        """What a run has written: curves if there are more lines than the ``lines`` that the tab has, pictures, the end of its log."""
        name = self.named(request)
        with self._lock:
            path = self.metrics(name)
            tail = self._tails.setdefault(str(path), Tail(path))
            tail.read()
            curves = tail.curves(ended=self.state(name) == "stopped")
            answer: dict[str, Any] = {"name": name, "state": self.state(name), "lines": tail.shown, "pictures": self.pictures(name),
                                      "last": tail.last or None, "lr": self.rate_of(name)}  # fmt: skip
            if answer["state"] != "stopped" and answer["lr"] is not None and self.age_of_pictures(name) > DRAWN_EVERY:
                ask_for_pictures(self.folder / name)
            if tail.shown != request.whole("lines", 0, 2**53):
                answer["curves"] = curves
        return answer | {"log": self.log_of(name)}

    def pictures(self, name: str) -> list[str]:
        """The files of samples, in the order in which they were written; the last picture of the run comes last."""
        named = re.compile(r"samples(-small)?(-\d+|-now)?\.png")
        files = [path for path in (self.folder / name).glob("samples*.png") if named.fullmatch(path.name)]
        return [path.name for path in sorted(files, key=lambda path: path.stat().st_mtime)]

    def age_of_pictures(self, name: str) -> float:
        """Seconds since the last ones; before these, since the run was last given a plan."""
        paths = [self.folder / name / "config.json", *(self.folder / name / picture for picture in self.pictures(name)[-1:])]
        return time.time() - max(path.stat().st_mtime for path in paths if path.exists())

    def rate_of(self, name: str) -> float | None:
        """The highest learning rate of a run of ``hcrot train``; None of another program's."""
        with suppress(OSError, ValueError):
            config = read_json(self.metrics(name).with_name("config.json"))
            if "ddpm_num_steps" in config and isinstance(config.get("learning_rate"), float):
                return config["learning_rate"]
        return None

    def log_of(self, name: str) -> str:
        """The last lines that the process printed, without its bars of progress."""
        path = self.folder / name / LOG
        if not path.is_file():
            return ""
        with open(path, "rb") as file:  # a bar of progress makes the file long; what was said before it is at the beginning
            lines = file.read(8000).decode("utf-8", "replace").splitlines()
            rest = path.stat().st_size - file.tell()
            if rest > 0:
                file.seek(max(-8000, -rest), os.SEEK_END)
                lines = lines[:-1] + file.read().decode("utf-8", "replace").splitlines()[1:]  # without those that are cut
        return "\n".join([line for line in lines if line.strip() and not re.search(r"\d%\||step/s", line)][-6:])

    def start(self, request: Request) -> dict[str, Any]:
        """A new run."""
        name, data = request.text("name"), request.choice("data", self.data)
        if not re.fullmatch(NAME, name):
            raise ValueError(f"name must be letters, digits, - and _, 40 at most, got {name!r}")
        if (self.folder / name).exists():
            raise ValueError(f"there is a run {name} already: resume it, or choose another name")
        options = {
            "--minutes": request.number("minutes", 0.05, 10_000), "--learning-rate": request.number("lr", *RATES),
            "--train-batch-size": request.whole("batch", 1, 4096), "--seed": request.whole("seed", 0, 2**31),
        }  # fmt: skip
        words = [f"{option}={value}" for option, value in options.items()]
        if sum(process.poll() is None for process in self._started.values()) >= AT_ONCE:
            raise ValueError(f"{AT_ONCE} runs are in work already: stop one first")
        (self.folder / name).mkdir(parents=True)
        write_json(self.folder / name / STARTED, {"data": data})
        return self._run(name, data, words)

    def resume(self, request: Request) -> dict[str, Any]:
        """Go on with a run for some more minutes, with this learning rate."""
        name, minutes, rate = self.named(request), request.number("minutes", 0.05, 10_000), request.number("lr", *RATES)
        started = self.folder / name / STARTED
        data = read_json(started).get("data") if started.is_file() else request.choice("data", self.data)
        if data not in self.data:
            raise ValueError(f"{name} was trained on {data}: say hcrot view --data {data}")
        with self._lock:  # two tabs may ask at once
            if self.state(name) != "stopped":
                raise ValueError(f"{name} is {self.state(name)}")
            return self._run(name, data, ["--resume", f"--minutes={minutes}", f"--learning-rate={rate}"])

    def stop(self, request: Request) -> dict[str, Any]:
        """SIGTERM, or a wish in the folder of a run that was started elsewhere: ``hcrot train`` ends the step in hand and saves."""
        name = self.in_work(request)
        process = self._started.get(name)
        if process is not None:
            process.send_signal(signal.SIGTERM)
        else:
            ask_to_stop(self.folder / name)
        return {"name": name}

    def change(self, request: Request) -> dict[str, Any]:
        """Another learning rate for a run, from its next step on."""
        name, rate = self.in_work(request), request.number("lr", *RATES)
        ask_for_rate(self.folder / name, rate)
        return {"name": name}

    def in_work(self, request: Request) -> str:
        """The run of ``hcrot train`` that a request names.

        Raises:
            ValueError: it has ended, or another program writes it.
        """
        name = self.named(request)
        if self.state(name) == "stopped":
            raise ValueError(f"{name} has ended")
        if name not in self._started and self.rate_of(name) is None:
            raise ValueError(f"{name} is no run of hcrot train: only these can be told from here")
        return name

    def named(self, request: Request) -> str:
        """The run that a request names.

        Raises:
            ValueError: there is none of that name directly in the folder.
        """
        name = request.text("name")
        if not re.fullmatch(NAME, name) or not (self.folder / name).is_dir() or (self.folder / name).is_symlink():
            raise ValueError(f"there is no run {name!r}")
        return name

    def _run(self, name: str, data: str, words: list[str]) -> dict[str, Any]:
        command = [sys.executable, "-m", "hcrot", "train", data, "--output", str(self.folder / name), *words]
        with open(self.folder / name / LOG, "ab") as log:
            # in a session of its own: Ctrl-C in the terminal of hcrot view ends the page, not the training
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._started[name] = process
        return {"name": name}


class Tail:
    """The lines of metrics.jsonl, read as they are added.

    Attributes:
        columns: the numbers of the lines, by name: step, loss, grad_norm, lr, and 0 to 3, the quarters of loss_by_quarter. NaN: none.
        last: the last line.
        shown: how many lines are in the curves.
    """

    def __init__(self, path: Path):
        self.path, self.last = path, dict[str, Any]()
        self.columns = empty()
        self.shown, self._curves = 0, thinned(self.columns)
        self._read, self._file = 0, 0

    def curves(self, ended: bool) -> dict[str, Any]:
        """:func:`thinned`, made anew only when the lines have grown by what a point stands for, or when the run has ended."""
        count = len(self.columns["step"])
        grown = count - self.shown
        if grown < 0 or grown >= max(1, self.shown // POINTS) or ended and grown:
            self.shown, self._curves = count, thinned(self.columns)
        return self._curves

    def read(self) -> None:
        """Take in what is new. A file that was replaced, as a resumed run does, is read anew."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return
        if status.st_ino != self._file or status.st_size < self._read:
            self.columns, self.last, self._read, self._file = empty(), {}, 0, status.st_ino
        with open(self.path, "rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and {"step", "loss"} <= row.keys():
                self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """One line more; it is left out if it holds what is no number."""
        try:
            quarters = [*(row.get("loss_by_quarter") or []), *[None] * QUARTERS][:QUARTERS]
            numbers = [math.nan if value is None else float(value) for value in [*map(row.get, NAMES), *quarters]]
        except (TypeError, ValueError):
            return
        self.last = row
        for name, value in zip(NUMBERS, numbers, strict=True):
            self.columns[name].append(value)


def empty() -> dict[Any, array]:
    return {name: array("d") for name in NUMBERS}


def thinned(columns: Mapping[Any, array]) -> dict[str, Any]:
    """Curves by name, of at most POINTS points, each the mean of the steps around it: step, loss, grad_norm, lr, and four of the loss by
    quarter of the time, if the run writes them."""
    count = len(columns["step"])
    parts = np.array_split(np.arange(count), min(POINTS, count)) if count else []
    numbers = {name: np.array(column) for name, column in columns.items()}
    curves: dict[str, Any] = {"step": [int(numbers["step"][part[-1]]) for part in parts]}
    means = {name: [mean(numbers[name][part]) for part in parts] for name in NUMBERS[1:]}
    quarters = [means[k] for k in range(QUARTERS)]
    curves |= {name: means[name] for name in NAMES[1:]}
    return curves | {"quarters": quarters if any(value is not None for curve in quarters for value in curve) else []}


def mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
