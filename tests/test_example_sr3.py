"""examples/mnist_sr3.py end to end on the bundled digits, and what it refuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcrot.data import load_digits
from hcrot.kernels import jit
from hcrot.models.sr3 import SR3UNet

SCRIPT = Path(__file__).parents[1] / "examples" / "mnist_sr3.py"
FILES = ["checkpoint", "config.json", "digits.png", "evaluation.json", "loss.png", "metrics.jsonl"]
SHORT = ["--steps", "40", "--channels", "8", "16", "--test-images", "30", "--sample-steps", "4", "--threads", "1"]


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script as a module, in an empty folder."""
    spec = importlib.util.spec_from_file_location("mnist_sr3", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jit, "_threads", None)  # what --threads sets ends with the test
    return module


def evaluation(folder):
    return json.loads((Path(folder) / "evaluation.json").read_text())


def test_a_run_as_a_user_starts_it_and_what_it_leaves(tmp_path, script, capsys):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *sys.path])}
    run = subprocess.run(
        [sys.executable, SCRIPT, *SHORT], cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", check=True
    )
    folder = tmp_path / "runs" / "mnist_sr3"
    assert sorted(os.listdir(folder)) == FILES
    assert "1,437 images, 4x4 to 8x8" in run.stdout
    assert "40/40" in run.stderr
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == list(range(1, 41))
    assert np.mean([line["loss"] for line in steps[-5:]]) < 0.9 * steps[0]["loss"]
    first = evaluation(folder)
    names = ["bicubic", "SR3, one sample (DDIM, 4 steps, eta 0)", "SR3, mean of 4 samples (DDIM, 4 steps, eta 0)"]
    assert list(first) == ["test_images", *names]
    assert first["test_images"] == 30
    assert all(f"{first[name]['psnr']:.2f} dB" in run.stdout for name in names)
    assert first[names[2]]["psnr"] > first[names[1]]["psnr"]
    with Image.open(folder / "digits.png") as picture:
        assert picture.size[0] > 400
        assert len(picture.convert("L").getcolors()) > 50
    assert SR3UNet.from_pretrained(folder / "checkpoint").config["block_out_channels"] == [8, 16]

    script.main(["--checkpoint", str(folder / "checkpoint"), "--output", "again", *SHORT[5:]])  # the weights that were measured are kept
    assert evaluation("again") == first
    assert "loss.png" not in os.listdir("again")
    assert "Means over 30 digits" in capsys.readouterr().out


def test_bicubic_is_measured_as_it_is(script):
    """By another way: Pillow's resize and the formula."""
    script.main([*SHORT, "--output", "run", "--samples", "1", "--steps", "1"])
    psnrs = []
    for digit in load_digits()[0][::5][:30]:
        truth = digit / np.float32(8) - 1
        small = Image.fromarray(truth).resize((4, 4), Image.Resampling.BICUBIC)
        large = np.clip(np.asarray(small.resize((8, 8), Image.Resampling.BICUBIC)), -1, 1)
        psnrs.append(10 * np.log10(4 / np.mean((large - truth) ** 2)))
    assert evaluation("run")["bicubic"]["psnr"] == pytest.approx(np.mean(psnrs), abs=1e-3)
    assert len(evaluation("run")) == 3  # no mean of one sample


def test_minutes_end_the_training(script):
    script.main([*SHORT[2:], "--output", "run", "--minutes", "0.01", "--samples", "1"])
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["seconds"] >= 0.6
    assert all(line["seconds"] < 0.6 for line in lines[:-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample-steps", "3"], "--sample-steps 3 does not divide 2000"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--minutes", "1", "--steps", "5"], "--minutes and --steps exclude each other"),
        (["--minutes", "0"], "expected a number above 0, got '0'"),
        (["--steps", "1.5"], "expected a whole number of at least 1, got '1.5'"),
        (["--data-dir", "x"], "--data-dir is for MNIST's files, but --dataset digits asks for the bundled ones"),
        (["--dataset", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--checkpoint", "x", "--lr", "1", "--steps", "3"], "--checkpoint does not train: it does not go with --steps, --lr"),
        (["--channels", "12"], "12"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(script, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        script.main(arguments)
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not Path("runs").exists()


def test_help_is_the_docstring_and_every_option(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert script.__doc__.strip() in shown
    assert all(option in shown for option in ("--minutes", "--dataset", "--data-dir", "--checkpoint", "--samples"))
