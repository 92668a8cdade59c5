"""``examples/mnist_ddpm.py`` as a module, in its smallest setting, and what a run of it leaves."""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "mnist_ddpm.py"
SMALL = ["--images", "40", "--channels", "4", "8", "--groups", "2", "--batch-size", "16", "--save-every", "2", "--inference-steps", "3"]
TINY = [*SMALL, "--epochs", "2"]
STEPS = 6  # ceil(40 / 16) in each of two epochs
PICTURES = ["denoising.gif", "reverse_process.png", "samples.png"]
FILES = sorted(["checkpoint", "config.json", "forward_process.png", "loss.png", "metrics.jsonl", *PICTURES])


def load_script(monkeypatch, tmp_path):
    """The script as a module whose ``run(*arguments)`` is its command line, in an empty folder."""
    spec = importlib.util.spec_from_file_location("mnist_ddpm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # as when it is run
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["examples/mnist_ddpm.py", *map(str, arguments)])
        module.main()

    module.run = run
    return module


def refusal(script, capsys, *arguments, code=2):
    """What the script says on stderr when it exits with ``code``: one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        script.run(*arguments)
    assert stop.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mnist_ddpm.py: ")
    return line


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def result(folder):
    """All that two equal runs share: losses, rates and norms, every file of the checkpoint and every picture, byte by byte."""
    folder = Path(folder)
    numbers = [{key: value for key, value in line.items() if key != "seconds"} for line in lines(folder)]
    states = json.loads((folder / "checkpoint" / "training_state.json").read_text())["state"]
    names = [f"checkpoint/{name}" for name in os.listdir(folder / "checkpoint") if name != "training_state.json"]
    return numbers, states, {name: (folder / name).read_bytes() for name in [*names, *PICTURES, "loss.png", "forward_process.png"]}
