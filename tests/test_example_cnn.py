"""examples/mnist_cnn.py end to end on the bundled digits: its files, its data, and every bad thing a user does."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcrot.data import DIGITS_MAX, DataUnavailable, load_digits, prepare_images
from hcrot.kernels import jit
from hcrot.models.digit_classifier import DigitClassifier
from hcrot.tools.metrics import accuracy

SCRIPT = Path(__file__).parents[1] / "examples" / "mnist_cnn.py"
FILES = ["checkpoint", "config.json", "hardest.png", "loss.png", "metrics.jsonl"]


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script as a module, in an empty folder."""
    spec = importlib.util.spec_from_file_location("mnist_cnn", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jit, "_threads", None)  # what --threads sets ends with the test
    return module


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def small_mnist(split, data_dir):
    """Something in the place of MNIST: bright squares whose side says the label."""
    labels = np.arange({"train": 60, "test": 20}[split], dtype=np.uint8) % 10
    images = np.zeros((len(labels), 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[: 2 * label + 4, : 2 * label + 4] = 255
    return images, labels


def test_the_digits_are_learned_and_the_classifier_is_kept(tmp_path):
    command = [sys.executable, SCRIPT, "--dataset", "digits", "--epochs", "8", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *sys.path])}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8", check=True)
    folder = tmp_path / "runs" / "mnist_cnn"
    assert sorted(os.listdir(folder)) == FILES and os.listdir(tmp_path) == ["runs"]
    assert "digits, 1,437 images of 8x8" in run.stdout and "epoch 8: " in run.stdout and "fastest epoch" in run.stdout

    steps = [line for line in lines(folder) if "loss" in line]
    epochs = [line for line in lines(folder) if "accuracy" in line]
    assert [line["step"] for line in steps] == list(range(1, 8 * 23 + 1))
    assert [line["step"] for line in epochs] == list(range(23, 8 * 23 + 1, 23))
    assert steps[-1]["loss"] < 0.5 < 2 < steps[0]["loss"]
    assert 0.93 < epochs[-1]["accuracy"] <= 1

    config = json.loads((folder / "config.json").read_text())
    expected = {"dataset": "digits", "images": 1437, "image_size": 8, "epochs": 8, "batch_size": 64, "seed": 0, "threads": 1}
    assert expected.items() <= config.items()

    images, labels = load_digits()
    classifier = DigitClassifier.from_pretrained(folder / "checkpoint")
    logits, _ = classifier.read(prepare_images(images[::5], DIGITS_MAX))
    assert accuracy(logits, labels[::5]) == pytest.approx(epochs[-1]["accuracy"], abs=1e-12)
    for name in ("loss.png", "hardest.png"):
        with Image.open(folder / name) as picture:
            assert len(picture.convert("L").getcolors()) > 20


def test_the_same_seed_is_the_same_run_and_replaces_the_earlier_one(script, tmp_path):
    results = []
    for seed in (3, 4, 3):
        script.main(["--dataset", "digits", "--images", "100", "--epochs", "1", "--seed", str(seed), "--output", "run"])
        weights = (tmp_path / "run" / "checkpoint" / "model.safetensors").read_bytes()
        results.append((weights, [line["loss"] for line in lines("run") if "loss" in line]))
    assert results[0] == results[2] != results[1]
    assert sorted(os.listdir("run")) == FILES and len(results[0][1]) == 2


@pytest.mark.parametrize(("options", "size"), [([], 28), (["--image-size", "14"], 14)])
def test_mnist_in_its_own_size_and_smaller(script, monkeypatch, capsys, options, size):
    monkeypatch.setattr(script, "load_mnist", small_mnist)
    script.main([*options, "--images", "50", "--epochs", "1", "--batch-size", "20", "--output", "run"])
    assert f"mnist, 50 images of {size}x{size}" in capsys.readouterr().out
    assert DigitClassifier.from_pretrained("run/checkpoint").config["image_size"] == size
    config = json.loads(Path("run/config.json").read_text())
    assert config["image_size"] == size and config["dataset"] == "mnist" and len(lines("run")) == 4


def test_without_mnist_the_bundled_digits_are_taken_and_why_is_said(script, monkeypatch, capsys):
    def unavailable(split, data_dir):
        raise DataUnavailable("MNIST is not here")

    monkeypatch.setattr(script, "load_mnist", unavailable)
    script.main(["--images", "64", "--epochs", "1", "--output", "run"])
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == "MNIST is not here: training on the bundled 8x8 digits instead."
    assert second.startswith("digits, 64 images of 8x8")
    assert json.loads(Path("run/config.json").read_text())["dataset"] == "digits"


DIGITS = ["--dataset", "digits"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*DIGITS, "--epochs", "0"], "argument --epochs: expected a whole number of at least 1, got '0'"),
        ([*DIGITS, "--batch-size", "-3"], "argument --batch-size: expected a whole number"),
        ([*DIGITS, "--images", "many"], "argument --images: expected a whole number"),
        ([*DIGITS, "--images", "1438"], "--images 1438 is more than the 1437 that there are to train on"),
        ([*DIGITS, "--image-size", "3"], "size must divide the height and width 8x8, got 3"),
        ([*DIGITS, "--lr", "-1"], "lr must be a finite number >= 0, got -1.0"),
        ([*DIGITS, "--lr", "nan"], "lr must be a finite number >= 0, got nan"),
        ([*DIGITS, "--seed", "-1"], "--seed must be at least 0, got -1"),
        ([*DIGITS, "--threads", "100000"], "threads must be an int from 1 to"),
        ([*DIGITS, "--data-dir", "."], "--data-dir is for MNIST's files"),
        ([*DIGITS, "--output", "file"], "file"),
        ([*DIGITS, "--output", "file/below"], "file"),
        (["--data-dir", "nowhere"], "folder nowhere does not exist"),
        (["--data-dir", "broken"], "train-images-idx3-ubyte: truncated idx file"),
        (["--dataset", "cats"], "invalid choice: 'cats'"),
        (["--depth", "5"], "unrecognized arguments: --depth 5"),
    ],
)
def test_bad_input_ends_in_one_sentence_before_anything_is_trained(script, capsys, arguments, message):
    Path("file").write_text("in the way")
    Path("broken").mkdir()
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        Path("broken", name).write_bytes(b"\0\0\x08\x03")
    with pytest.raises(SystemExit) as stop:
        script.main([*(["--output", "run"] if "--output" not in arguments else []), *arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mnist_cnn.py: ") and message in line
    assert not Path("run", "metrics.jsonl").exists() and Path("file").read_text() == "in the way"


def test_a_run_that_diverges_stops_and_says_so(script, monkeypatch):
    with pytest.raises(SystemExit) as stop, np.errstate(all="ignore"):
        script.main([*DIGITS, "--images", "640", "--lr", "1e30", "--epochs", "4", "--output", "run"])
    assert str(stop.value.code).startswith("mnist_cnn.py: the loss became ") and "try a lower --lr than 1e+30" in stop.value.code


def test_help_explains(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "--images 5000" in text
    for name in ("dataset", "data-dir", "images", "image-size", "epochs", "batch-size", "lr", "seed", "threads", "output"):
        assert f"--{name} " in text
