"""The examples of applications run on a small checkpoint, draw their pictures, and refuse in one sentence what they cannot do."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hcrot
from support.ddpm_example import TINY, load_script, refusal

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ["diffusion_clip", "editing", "guidance", "interpolation", "inverse_problems", "likelihood", "samplers"]


def make_checkpoint(folder, **options):
    model = hcrot.UNet2dModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, generator=0, **{"num_class_embeds": 11, **options},
    )  # fmt: skip
    hcrot.save_checkpoint(folder, model, hcrot.DDPMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2"))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("example") / "checkpoint")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example") / "classifier"
    hcrot.DigitClassifier(image_size=8, channels=(2, 3, 4), num_features=5, generator=0).save_pretrained(folder)
    return folder


@pytest.fixture
def example(monkeypatch, tmp_path):
    """``example(name, *arguments)`` runs one as a user does, in an empty folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module = importlib.import_module(name)
        importlib.import_module("trained").run(module.main)
        return Path("runs", name)

    return run


def picture(path):
    with Image.open(path) as image:
        assert len(image.convert("L").getcolors()) > 20
        return image.size


def test_interpolation(example, checkpoint, capsys):
    folder = example("interpolation", "--checkpoint", checkpoint, "--inference-steps", 5, "--columns", 3)
    width, height = picture(folder / "interpolation.png")
    assert width > height and "interpolation.png" in capsys.readouterr().out


def test_editing(example, checkpoint, capsys):
    folder = example("editing", "--checkpoint", checkpoint, "--inference-steps", 4, "--to", 1)
    picture(folder / "editing.png")
    assert "is off by" in capsys.readouterr().out


def test_inverse_problems(example, checkpoint, capsys):
    folder = example("inverse_problems", "--checkpoint", checkpoint, "--inference-steps", 3, "--images", 8)
    for name in ("deblurring", "super-resolution", "mri"):
        picture(folder / f"{name}.png")
    header, *rows, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["PSNR", "in", "dB", "measured", "A+", "y", "DDNM", "DPS"]
    values = np.array([row.split()[1:] for row in rows], float)
    assert values.shape == (3, 4) and np.isfinite(values).all()


def test_diffusion_clip(example, checkpoint, classifier, capsys):
    arguments = ["--classifier", classifier, "--inference-steps", 3, "--chain", 2, "--images", 20, "--epochs", 2, "--identity", 0.1]
    folder = example("diffusion_clip", "--checkpoint", checkpoint, *arguments)
    picture(folder / "diffusion_clip.png")
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[:3]] == ["real", "before", "after"] and "off by 0.000" in rows[0]


def test_guidance(example, checkpoint, classifier, capsys):
    arguments = ["--classifier", classifier, "--inference-steps", 2, "--images", 20, "--scales", 1, 3]
    folder = example("guidance", "--checkpoint", checkpoint, *arguments)
    picture(folder / "guidance.png")
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:5]]
    assert names == ["w = 1", "w = 3", "w = 3, t 0 to 400", "by the classifier"]


def test_samplers_count_the_calls_of_the_network(example, checkpoint, classifier, capsys):
    common = ["--checkpoint", checkpoint, "--classifier", classifier, "--images", 20, "--calls", 4, 7]
    folder = example("samplers", *common)
    picture(folder / "samplers.png")
    rows = json.loads((folder / "samplers.json").read_text())["rows"]
    module = importlib.import_module("samplers")
    assert [(row["sampler"], row["calls"]) for row in rows] == [  # Heun makes 2 N - 1 calls, and so never an even number of them
        (name, 3 if (name, calls) == ("Heun", 4) else calls) for name in module.SAMPLERS for calls in (4, 7)
    ]  # fmt: skip
    assert "Euler ancestral" in capsys.readouterr().out
    example("samplers", *common, "--guidance-scale", 2, "--samplers", "DDIM")
    guided = json.loads((folder / "samplers.json").read_text())["rows"]
    assert [(row["steps"], row["calls"]) for row in guided] == [(4, 8), (7, 14)]


def test_likelihood(example, checkpoint, capsys):
    folder = example("likelihood", "--checkpoint", checkpoint, "--images", 10, "--tolerance", 0.1)
    picture(folder / "likelihood.png")
    table = json.loads((folder / "likelihood.json").read_text())
    figures = [table[name]["bits_per_dimension"] for name in ("bound", "flow", "bound minus flow")]
    assert np.isfinite(figures).all() and figures[0] - figures[1] == pytest.approx(figures[2])
    assert "+-" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_without_a_checkpoint_they_say_how_to_get_one(example, name, capsys):
    with pytest.raises(SystemExit) as stop:
        example(name)
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    assert message.startswith(f"{name}.py: ") and "examples/mnist_ddpm.py --dataset digits" in message


@pytest.mark.parametrize("arguments", [["guidance"], ["samplers", "--guidance-scale", 2]])
def test_guidance_needs_a_network_that_knows_no_label(example, arguments, tmp_path, classifier, capsys):
    plain = make_checkpoint(tmp_path / "plain", num_class_embeds=10)
    with pytest.raises(SystemExit):
        example(*arguments, "--checkpoint", plain, "--classifier", classifier)
    assert "was trained without --label-dropout" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_help_explains(example, name, capsys):
    with pytest.raises(SystemExit) as stop:
        example(name, "--help")
    text = capsys.readouterr().out
    assert stop.value.code == 0 and f"python examples/{name}.py" in text and "--checkpoint" in text


def test_mnist_ddpm_trains_with_withheld_labels_and_draws_with_guidance(monkeypatch, tmp_path, capsys):
    script = load_script(monkeypatch, tmp_path)
    assert "needs --label-dropout" in refusal(script, capsys, "--dataset", "digits", *TINY, "--guidance-scale", 2)
    script.run("--dataset", "digits", *TINY, "--label-dropout", 0.5, "--guidance-scale", 2, "--output", "guided")
    model = hcrot.load_model("guided/checkpoint")
    assert model.config["num_class_embeds"] == 11
    script.run("--dataset", "digits", "--sample-only", "guided/checkpoint", "--inference-steps", 3, "--output", "plain")
    with Image.open("guided/samples.png") as one, Image.open("plain/samples.png") as other:
        assert np.asarray(one).shape == np.asarray(other).shape and np.any(np.asarray(one) != np.asarray(other))
    script.run("--dataset", "digits", *TINY, "--output", "unguided")
    message = refusal(script, capsys, "--sample-only", "unguided/checkpoint", "--guidance-scale", 2, "--output", "no")
    assert "was trained without --label-dropout" in message
