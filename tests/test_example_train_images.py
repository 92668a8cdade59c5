"""examples/train_images.py on a folder of tiny pictures: it trains as `hcrot train` does, and what it leaves opens elsewhere."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hcrot
import hcrot.commands
from hcrot.kernels import jit
from hcrot.models import UNet2dModel

SCRIPT = Path(__file__).parents[1] / "examples" / "train_images.py"
TINY = ["--resolution", "8", "--channels", "8", "8", "--layers-per-block", "1", "--attention", "--ddpm_num_inference_steps", "2",
        "--threads", "1"]
SHORT = [*TINY, "--train_batch_size=6", "--adam_beta1", "0.8", "--ema_inv_gamma", "2", "--lr-scheduler", "constant", "--dropout", "0.1",
         "--random-flip", "--random-shift", "1", "--prediction-type", "v_prediction", "--save-images-epochs", "0.5"]  # fmt: skip


@pytest.fixture(scope="module")
def train_images():
    """The example's main, which takes its words as a list."""
    spec = importlib.util.spec_from_file_location("train_images", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def runs(train_images, tmp_path_factory):
    """A folder with pictures, twelve in two classes, and ``run``, a run of two epochs that was interrupted after the first one."""
    place, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(12):
        kind = place / "pictures" / ("blue", "red")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(kind / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCROT_DATA", str(place / "cache"))
        patch.setattr(jit, "_threads", None)  # what --threads sets ends with the test
        train_images([*words(place), "--num-epochs", "1"])
        train_images([*words(place), "--num-epochs", "2", "--resume"])
        yield place


@pytest.fixture
def metrics(runs):
    return lambda name: [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]


def words(place, name="run"):
    return [str(place / "pictures"), "--output", str(place / name), *SHORT]


def test_the_weights_are_those_of_hcrot_train_bit_for_bit(runs, metrics):
    with pytest.raises(SystemExit) as ended:
        hcrot.commands.main(["train", *words(runs, "command"), "--num-epochs", "2"])
    assert not ended.value.code
    for use_ema in (True, False):
        one, other = (UNet2dModel.from_pretrained(runs / name / "checkpoint", use_ema=use_ema) for name in ("run", "command"))
        for name, array in one.state_dict().items():
            np.testing.assert_array_equal(array, other.state_dict()[name], err_msg=name)
    compared = ("step", "epoch", "loss", "lr", "grad_norm")  # hcrot train writes more
    ours, theirs = ([{name: numbers[name] for name in compared} for numbers in metrics(run)] for run in ("run", "command"))
    assert ours == theirs and [numbers["step"] for numbers in ours] == [1, 2, 3, 4]
    files, theirs = ({path.name for path in (runs / name).iterdir()} for name in ("run", "command"))
    assert files | {"samples-2.png"} == theirs  # after step 2 it was over, then
    config, theirs = (json.loads((runs / name / "config.json").read_text()) for name in ("run", "command"))
    assert config == theirs and config["inference_steps"] == 2 and config["train_batch_size"] == 6


def test_two_networks_are_those_of_hcrot_train_bit_for_bit(train_images, runs, capsys):
    more = ["--resolution", "16", "--small", "8", "--num-epochs", "1", "--save-images-epochs", "2"]
    train_images([*words(runs, "two"), *more])
    with pytest.raises(SystemExit) as ended:
        hcrot.commands.main(["train", *words(runs, "both"), *more])
    assert not ended.value.code
    for part in ("small/checkpoint", "checkpoint"):
        one, other = (UNet2dModel.from_pretrained(runs / name / part).state_dict() for name in ("two", "both"))
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], err_msg=f"{part}: {name}")
    assert sorted(path.name for path in (runs / "two").iterdir()) == sorted(path.name for path in (runs / "both").iterdir())


def test_it_says_what_it_sees_and_draws_on_the_way(train_images, runs, metrics, capsys):
    more = ["--num-epochs", "2", "--gradient-accumulation-steps", "2", "--save-images-epochs", "1", "--no-classes"]
    train_images([*words(runs, "parts"), *more])
    lines = capsys.readouterr().out.splitlines()
    assert "12 colour pictures of 8x8 in 2 classes: blue 6, red 6" in lines[0] and "2 steps of 12 pictures" in lines[1]
    assert len(lines) == 5 and "too few to hold any back, by quarter of the time" in lines[2] and "with averaged weights" in lines[2]
    assert lines[3].startswith("Undertrained: ")
    assert Image.open(runs / "parts" / "samples-1.png").width > 300 and Image.open(runs / "parts" / "samples.png").width > 300
    whole, parts = metrics("run")[0], metrics("parts")[0]
    assert parts["epoch"] == 2 * whole["epoch"]
    for name in ("loss", "grad_norm"):
        assert 0.5 < parts[name] / whole[name] < 1.2, "expected means over twice as many pictures, not sums"


def test_diffusers_and_hcrot_sample_open_the_checkpoint(runs):
    with pytest.raises(SystemExit) as ended:
        hcrot.commands.main(["sample", str(runs / "run"), "--classes", "red", "--number", "2", "--steps", "2",
                             "--output", str(runs / "drawn.npz")])  # fmt: skip
    assert not ended.value.code
    assert np.load(runs / "drawn.npz")["images"].shape == (2, 3, 8, 8)

    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    theirs, ours = diffusers.UNet2DModel.from_pretrained(runs / "run" / "checkpoint").eval(), hcrot.load_model(runs / "run" / "checkpoint")
    x, t, labels = np.random.default_rng(1).standard_normal((3, 3, 8, 8), dtype=np.float32), np.array([0, 500, 999]), np.array([0, 1, 2])
    with torch.no_grad():
        expected = theirs(*map(torch.from_numpy, (x, t, labels))).sample.numpy()
    with ours.eval().inference():
        np.testing.assert_allclose(ours(x, t, labels), expected, atol=1e-5)
    assert diffusers.DDPMScheduler.from_pretrained(runs / "run" / "checkpoint").config.prediction_type == "v_prediction"


@pytest.mark.parametrize(("more", "message"), [
    (["--resolution", "7"], "7 is not a number of at least 8"),
    (["--minutes", "1", "--num-epochs", "1"], "--minutes and --num-epochs exclude each other"),
    (["--tensorboard"], "unrecognized arguments: --tensorboard"),
    ([], "run already holds a run: go on with it (--resume)"),
    (["--resume", "--seed", "4"], "seed cannot be given anew"),
])  # fmt: skip
def test_bad_options_are_refused_in_a_sentence(more, message, train_images, runs, capsys):
    with pytest.raises(SystemExit) as ended:
        train_images([*words(runs), *more])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and len(error.splitlines()) == 1
