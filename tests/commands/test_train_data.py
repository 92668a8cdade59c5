"""What hcrot train says of its data and options before it trains: files of other programs, and options that would change nothing."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from hcrot.commands import main, train_loop
from hcrot.commands.train import OPTIONS, load_data
from support.commands import call, draw_squares
from support.mnist_files import idx_bytes

TINY = ["--channels", "8", "--layers-per-block", "1", "--train-batch-size", "8", "--inference-steps", "2", "--attention"]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HCROT_DATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(monkeypatch):
    """The pictures and names of classes that the training loop is handed, which does nothing else."""
    handed = []
    monkeypatch.setattr(train_loop, "train", lambda images, labels, classes, *_: handed.append((images, classes)) or {})
    return handed


@pytest.fixture
def cifar10(tmp_path):
    records = [np.concatenate([[[number], [3]], RNG.integers(0, 256, (2, 3072))], axis=1).astype(np.uint8) for number in range(5)]
    for number, record in enumerate(records, start=1):
        record.tofile(tmp_path / f"data_batch_{number}.bin")
    return np.concatenate(records)[:, 1:].reshape(-1, 3, 32, 32)


def test_cifar10s_files_are_read_in_colour_or_grey(cifar10, trained, capsys):
    assert call("train", ".") == call("train", ".", "--grey", "--output", "grey") == 0
    (images, classes), (grey, _) = trained
    np.testing.assert_array_equal(images, cifar10)
    assert len(classes) == 10 and "10 grey pictures of 32x32 in 10 classes: airplane 1, automobile 1" in capsys.readouterr().out
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in cifar10]
    np.testing.assert_array_equal(grey[:, 0], expected)


@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw"])
def test_mnists_files_are_read_wherever_torchvision_puts_them(place, trained, tmp_path, capsys):
    (tmp_path / "root" / place).mkdir(parents=True)
    pixels = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
    (tmp_path / "root" / place / "train-images-idx3-ubyte").write_bytes(idx_bytes(pixels))
    (tmp_path / "root" / place / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(12, dtype=np.uint8) % 10))
    for data in {"root", f"root/{place}"}:
        assert call("train", data, "--no-grey", "--output", data.replace("/", "-")) == 0
        images, classes = trained.pop()
        np.testing.assert_array_equal(images, np.repeat(pixels[:, None], 3, axis=1))
        assert len(classes) == 10
    assert "12 colour pictures of 28x28 in 10 classes: 0 2, 1 2" in capsys.readouterr().out


def test_pictures_of_zeros_and_ones_are_refused_once(tmp_path, capsys):
    for number in range(3):
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(RNG.integers(0, 2, (8, 8), dtype=np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    assert call("train", "masks", *TINY) == 2
    assert capsys.readouterr().err.splitlines() == [
        "hcrot train: masks: the largest of all pixels is 1, and a full one is 255, so all pictures would be as good as black: "
        "save them with values up to 255"
    ]
    Image.new("L", (8, 8), 200).save(tmp_path / "masks" / "bright.png")
    images, _, _ = load_data("masks", Namespace(**{name: default for name, (default, _, _) in OPTIONS.items()}))
    assert len(images) == 4, "a dark picture among others may be one"


@pytest.mark.parametrize(("words", "message"), [
    (["digits", "--label-dropout", "3"], "argument --label-dropout: 3 is not a number from 0 to 1"),
    (["digits", "--dropout", "1.5"], "argument --dropout: 1.5 is not a number from 0 to 1"),
    (["digits", "--ema-max-decay", "2"], "argument --ema-max-decay: 2 is not a number from 0 to 1"),
    (["digits", "--ddpm-num-steps", "10"], "--inference-steps 25 is more than --ddpm-num-steps 10"),
    (["digits", "--no-center-crop"], "--no-center-crop is for a folder of pictures: digits holds square ones, in a few files"),
    (["mnist", "--strict"], "--strict is for a folder of pictures: mnist holds square ones, in a few files"),
    ([".", "--center-crop"], "--center-crop is for a folder of pictures: . holds square ones, in a few files"),
    (["flowers", "--data-dir", "raw"], "--data-dir says where the files of mnist are: DATA is flowers"),
    (["digits", "--lr-num-cycles", "2"], "--lr-num-cycles is of --lr-scheduler cosine_with_restarts: it is cosine"),
    (["digits", "--lr-power", "2"], "--lr-power is of --lr-scheduler polynomial: it is cosine"),
    (["digits", "--lr-warmup-steps", "2", "--lr-scheduler", "constant"], "--lr-warmup-steps changes nothing with --lr-scheduler constant"),
    (["digits", "--guidance-scale", "2", "--label-dropout", "0"],
     "--guidance-scale needs a network that was trained to be guided: --label-dropout is 0"),
    (["digits", "--guidance-scale", "2", "--no-classes"], "--guidance-scale is about classes: --no-classes leaves none"),
    (["digits", "--label-dropout", "0.2", "--no-classes"], "--label-dropout is about classes: --no-classes leaves none"),
])  # fmt: skip
def test_an_option_that_cannot_be_or_changes_nothing_is_refused_before_the_folder_is_made(words, message, cifar10, tmp_path, capsys):
    assert call("train", *words, "--output", "run") == 2
    assert capsys.readouterr().err.splitlines() == [f"hcrot train: {message}"]
    assert not (tmp_path / "run").exists()


def test_guidance_of_pictures_without_classes_is_refused(tmp_path, capsys):
    draw_squares(tmp_path / "squares", 8)
    assert call("train", "squares/red", "--guidance-scale", 2, "--resolution", 8) == 2
    assert "--guidance-scale is about classes: squares/red has none" in capsys.readouterr().err


def test_a_run_that_failed_before_its_first_checkpoint_does_not_block_the_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_loop.hcrot, "mse_loss", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train", "digits", *TINY, "--num-epochs", "0.01", "--seed", "5"])
    monkeypatch.undo()
    monkeypatch.setenv("HCROT_DATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert json.loads((tmp_path / "runs/digits/config.json").read_text())["seed"] == 5
    capsys.readouterr()
    assert call("train", "digits", *TINY, "--num-epochs", 0.01, "--seed", 6, "--json") == 0
    assert json.loads((tmp_path / "runs/digits/config.json").read_text())["seed"] == 6
    printed = capsys.readouterr()
    assert json.loads(printed.out)["steps"] == 3 and "1,797 grey pictures" in printed.err
    assert call("train", "digits") == 2
    assert "runs/digits already holds a run" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs/digits/checkpoint")
    (tmp_path / "runs/digits/config.json").write_text("{}")
    assert call("train", "digits") == 2
    assert "config.json is not the configuration of a run of hcrot train" in capsys.readouterr().err
