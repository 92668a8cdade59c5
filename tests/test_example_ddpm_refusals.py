"""examples/mnist_ddpm.py and every bad thing that a user does to it: one sentence, before any work."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hcrot.files.checkpoint import save_checkpoint
from hcrot.models.unet_2d import UNet2dModel
from hcrot.schedulers import DDPMScheduler
from support.ddpm_example import TINY, lines, load_script, refusal


@pytest.fixture
def script(monkeypatch, tmp_path):
    return load_script(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--schedule cosine", "invalid choice: 'cosine'"),
        ("--lr-schedule sawtooth", "invalid choice: 'sawtooth'"),
        ("--dataset cifar", "invalid choice: 'cifar'"),
        ("--preset huge", "invalid choice: 'huge'"),
        ("--epochs 1 --minutes 1", "exclude each other"),
        ("--epochs 0", "--epochs"),
        ("--epochs nan", "--epochs"),
        ("--minutes -1", "--minutes"),
        ("--batch-size 0", "--batch-size: 0 is not a number of at least 1"),
        ("--batch-size many", "--batch-size: invalid int value: 'many'"),
        ("--seed -1", "--seed"),
        ("--lr -1", "lr must be"),
        ("--lr nan", "lr must be"),
        ("--ema-decay 2", "decay"),
        ("--clip -1", "--clip"),
        ("--inference-steps 1001", "num_inference_steps 1001 is more than the 1000"),
        ("--threads 1000", "threads must be"),
        ("--images 5000", "--images 5000 is more than the 1797 there are"),
        ("--image-size 3", "size must divide"),
        ("--channels 10", "block_out_channels[0] 10 is not divisible by norm_num_groups 8"),
        ("--channels", "channels"),
        ("--attention 2", "--attention [2]: the levels of --channels are 0 to 1"),
        ("--colour red", "unrecognized arguments"),
        ("--resume", "runs/mnist_ddpm holds no run to resume"),
        ("--sample-only nowhere", "there is no folder nowhere"),
        ("--evaluate nowhere", "--evaluate: "),
    ],
)
def test_bad_options(script, capsys, arguments, message):
    if arguments.split()[0] not in ("--resume", "--sample-only", "--dataset"):
        arguments = f"--dataset digits {arguments}"
    assert message in refusal(script, capsys, *arguments.split())
    assert not Path("runs/mnist_ddpm/checkpoint").exists()


def test_wrong_data_folder(script, capsys):
    assert "folder nowhere does not exist" in refusal(script, capsys, "--data-dir", "nowhere")


def test_unwritable_output(script, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    for output in ("file", "file/inside"):
        assert "file" in refusal(script, capsys, "--dataset", "digits", *TINY, "--output", output)
        assert "file" in refusal(script, capsys, "--sample-only", checkpoint(), "--output", output)


def checkpoint(**options):
    """The folder of an untrained model's checkpoint."""
    arguments = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "num_class_embeds": 10, "norm_num_groups": 2}
    blocks = {"block_out_channels": [2], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    model = UNet2dModel(**arguments | blocks | {"attention_head_dim": 2} | options, generator=np.random.default_rng(0))
    save_checkpoint("a checkpoint", model, DDPMScheduler())
    return "a checkpoint"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 3}, "no model of digits"),
        ({"num_class_embeds": None}, "no model of digits"),
        ({"sample_size": None}, "sample_size is None"),
    ],
)
def test_sampling_from_another_kind_of_model(script, capsys, options, message):
    assert message in refusal(script, capsys, "--sample-only", checkpoint(**options))


@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"])
def test_sampling_from_a_broken_checkpoint(script, capsys, name):
    path = Path(checkpoint()) / name
    os.truncate(path, path.stat().st_size // 2)
    assert name in refusal(script, capsys, "--sample-only", "a checkpoint")
    path.unlink()
    assert name in refusal(script, capsys, "--sample-only", "a checkpoint")
    assert not Path("runs").exists()


def test_resuming_from_a_broken_run(script, capsys):
    script.run("--dataset", "digits", *TINY)
    folder = Path("runs/mnist_ddpm")
    os.truncate(folder / "checkpoint" / "training_state.safetensors", 100)
    assert "training_state.safetensors" in refusal(script, capsys, "--resume")
    for text in ("{", "[]", "{}"):
        (folder / "config.json").write_text(text)
        assert "config.json" in refusal(script, capsys, "--resume")


def test_metrics_that_say_nothing_clear(script, capsys):
    script.run("--dataset", "digits", *TINY)
    metrics = Path("runs/mnist_ddpm/metrics.jsonl")
    for damage in ("{}", "[1, {}", "\x00}"):
        metrics.write_text(damage + "\n")
        assert "metrics.jsonl is damaged" in refusal(script, capsys, "--resume", "--epochs", 3)
    metrics.unlink()
    script.run("--resume", "--epochs", 3)
    assert [line["step"] for line in lines("runs/mnist_ddpm")] == [7, 8, 9]


def test_pictures_are_tried_before_training(script, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "matplotlib" in refusal(script, capsys, "--dataset", "digits", *TINY)
    assert "matplotlib" in refusal(script, capsys, "--sample-only", checkpoint())
    assert os.listdir("runs/mnist_ddpm") == os.listdir("runs/mnist_ddpm_samples") == []


def test_divergence_is_reported(script):
    with pytest.raises(SystemExit) as stop, np.errstate(all="ignore"):
        script.run("--dataset", "digits", *TINY, "--lr", 1e30, "--warmup", 0)
    assert "try a smaller --lr" in stop.value.code
