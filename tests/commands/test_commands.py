"""The command line as a user has it: words in, files and lines out."""

import importlib
import inspect
import io
import json
import math
import os
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

import hcrot
from hcrot.commands import COMMANDS, main
from hcrot.commands.train import LATER, saved_options
from hcrot.files.wishes import ask_for_pictures, ask_for_rate, ask_to_stop
from hcrot.tools.arguments import refusing_bad_input
from hcrot.training.progress import StepsInTime
from support.commands import call, draw_squares

TINY = ["--channels", "8", "8", "--layers-per-block", "1", "--train-batch-size", "8", "--inference-steps", "2", "--attention"]


def hcrot_command(*words, **options):
    return subprocess.run([sys.executable, "-m", "hcrot", *map(str, words)], capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_squares(tmp_path_factory.mktemp("data") / "squares", 8)


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """The folder of a run that has just ended, and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCROT_DATA", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("runs") / "squares"
        ended = hcrot_command(
            "train", pictures, "--resolution", 8, "--num-epochs", 2, "--output", folder, "--random-flip", "--random-shift", 1, *TINY,
            "--checkpointing-steps", 2, "--checkpoints-total-limit", 2, "--save-images-epochs", 1, "--lr-scheduler", "cosine_with_restarts",
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_help_is_quick_and_explains():
    start = time.perf_counter()
    ended = hcrot_command("--help")
    assert ended.returncode == 0 and all(name in ended.stdout for name in COMMANDS)
    script = "import sys; from hcrot.commands import main; main([]); assert not {'numpy', 'numba', 'tqdm'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60).returncode == 0
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_and_answers_by_print_json(command, capsys):
    assert call(command, "--help") == 0
    assert "options:" in capsys.readouterr().out
    source = inspect.getsource(importlib.import_module(f"hcrot.commands.{command}"))
    assert ("--json" in source) == ("print_json(" in source), "anything else that is printed goes to stderr with --json"


@pytest.mark.parametrize(("words", "message"), [
    (["nonsense"], "invalid choice: 'nonsense'"),
    (["train"], "the following arguments are required: DATA"),
    (["train", "nowhere"], "there is no folder nowhere"),
    (["train", "digits", "--minutes", "1", "--num-epochs", "1"], "--minutes and --num-epochs exclude each other"),
    (["train", "digits", "--minutes", "0"], "0 is not a number of at least"),
    (["train", "digits", "--resume", "--output", "empty"], "empty holds no run to resume"),
    (["sample", "nowhere"], "there is no folder"),
    (["sample", "nowhere", "--output", "a.mp4"], "the ending is .mp4, expected .png"),
    (["evaluate"], "expected a CHECKPOINT with --data, or --features"),
    (["check", "nowhere.py:Net", "--input", "2x3"], "there is no file nowhere.py"),
    (["check", "Net", "--input", "2x3"], "expected MODEL.py:Class, got Net"),
])
def test_bad_input_is_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and error.startswith("hcrot")


@pytest.mark.parametrize("error", [zipfile.BadZipFile, EOFError, MemoryError, OSError])
def test_files_that_are_none_and_too_little_memory_are_bad_input(error, capsys):
    with pytest.raises(SystemExit) as ended, refusing_bad_input("hcrot sample"):
        raise error("so it is")
    assert ended.value.code == 2 and capsys.readouterr().err == "hcrot sample: so it is\n"


def test_training_says_what_it_sees_and_leaves_what_it_promises(run):
    folder, printed = run
    lines = printed.splitlines()
    assert "24 colour pictures of 8x8 in 2 classes: blue 12, red 12" in lines[0]
    assert len(lines) == 5 and "held back, by quarter of the time" in lines[2] and " with averaged weights, " in lines[2]
    assert lines[3].startswith("Undertrained: ") and lines[4].startswith("Look at ")
    names = {path.name for path in folder.iterdir()}
    written = {"classes.json", "config.json", "loss.png", "metrics.jsonl", "samples.png", "samples-3.png"}
    assert written | {"checkpoint", "checkpoint-4", "checkpoint-6"} <= names and "checkpoint-2" not in names
    assert Image.open(folder / "samples.png").width > 300
    rates = [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(rates, [1e-3, 5e-4] * 3, atol=1e-9)  # three falls in six steps


def test_a_run_is_not_overwritten_and_options_stay(run, pictures, tmp_path, capsys):
    folder, _ = run
    assert call("train", pictures, "--output", folder) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert call("train", pictures, "--output", folder, "--resume", "--seed", 4) == 2
    assert "seed cannot be given anew" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: value for name, value in config.items() if name not in LATER}))
    assert vars(saved_options(tmp_path, {})) == config, "a run of an earlier version goes on"


def test_resuming_with_minutes_trains_so_much_longer(run, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HCROT_DATA", str(tmp_path))
    folder, _ = run
    before = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    ended = hcrot_command("train", pictures, "--output", folder, "--resume", "--minutes", 0.002, "--json")
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["steps"] > before and len(result["error_by_quarter"]) == 4 and result["undertrained"] is True


def test_a_run_in_work_takes_wishes_and_a_stopped_one_another_rate(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    ask_to_stop(folder)  # of a run that had ended

    class Asking(StepsInTime):
        def planned(self, step, steps):
            if step == 2:
                (folder / "learning_rate").write_text("three")
                ask_for_pictures(folder)
            elif step == 3:
                ask_for_rate(folder, 0.25)
            elif step == 5:
                ask_to_stop(folder)
            return 1000

    monkeypatch.setattr("hcrot.commands.train_loop.StepsInTime", Asking)
    words = ["train", "digits", *TINY, "--minutes", 1, "--lr-scheduler", "constant", "--learning-rate", 0.5, "--output", folder]
    assert call(*words) == 143
    assert "learning_rate: expected a number above 1e-07 and up to 1, got 'three'" in capsys.readouterr().err
    names = {path.name for path in folder.iterdir()}
    assert "samples-now.png" in names and not {"stop", "learning_rate", "draw"} & names
    again = ["--resume", "--num-epochs", 7 / 214]
    assert call("train", "digits", "--output", folder, *again, "--learning-rate", 0.125) == 0
    rates = [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rates == [0.5] * 3 + [0.25] * 2 + [0.125] * 2
    assert json.loads((folder / "config.json").read_text())["learning_rate"] == 0.125


def test_steps_are_planned_anew_while_the_run_goes_on(tmp_path, monkeypatch):
    class Clock(StepsInTime):
        def planned(self, step, steps):
            return 9 if step == 2 else steps

    monkeypatch.setattr("hcrot.commands.train_loop.StepsInTime", Clock)
    monkeypatch.setattr("hcrot.commands.train_loop.seconds_of_a_batch", lambda *_: 0.4)  # so it plans four
    assert call("train", "digits", *TINY, "--minutes", 0.03, "--output", tmp_path / "run") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 9 and lines[-1]["lr"] < lines[2]["lr"]  # which has fallen nearly to 0 only now
    epochs = json.loads((tmp_path / "run" / "config.json").read_text())["num_epochs"]
    assert math.ceil(epochs * math.ceil(1708 / 8)) == 9


def test_drawing_into_files_of_every_kind(run, tmp_path, capsys):
    folder, _ = run
    outputs = [tmp_path / name for name in ("a.png", "b.gif", "c.npz", "pictures")]
    assert call("sample", folder, "--steps", 3, "--number", 3, "--classes", "red", "0", "--guidance-scale", 1.5, "--output", *outputs) == 0
    assert "6 pictures of 8x8" in capsys.readouterr().out
    arrays = np.load(tmp_path / "c.npz")
    assert arrays["images"].shape == (6, 3, 8, 8) and arrays["images"].dtype == np.uint8 and arrays["labels"].tolist() == [1, 1, 1, 0, 0, 0]
    assert sorted(os.listdir(tmp_path / "pictures"))[3:] == ["red-00000.png", "red-00001.png", "red-00002.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "pictures" / "red-00001.png")), arrays["images"][1].transpose(1, 2, 0))
    assert Image.open(tmp_path / "b.gif").n_frames == 4


@pytest.mark.parametrize("sampler", ["ddpm", "pndm", "dpmsolver++", "sde-dpmsolver++", "unipc", "euler", "euler-a", "heun"])
def test_every_sampler_draws(sampler, run, tmp_path):
    assert call("sample", run[0], "--sampler", sampler, "--steps", 4, "--number", 1, "--output", tmp_path / "a.npz") == 0
    images = np.load(tmp_path / "a.npz")["images"]
    assert images.shape == (2, 3, 8, 8) and images.std() > 1


def test_picture_k_does_not_depend_on_how_many_are_drawn(run, tmp_path):
    drawn = []
    for batch, number in ((1, 2), (64, 4)):
        words = ["--classes", "red", "--number", number, "--batch-size", batch, "--steps", 3, "--output", tmp_path / f"{batch}.npz"]
        assert call("sample", run[0], *words) == 0
        drawn.append(np.load(tmp_path / f"{batch}.npz")["images"][:2].astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


@pytest.mark.parametrize(("dropout", "classes", "used"), [(0.1, ["red"], 1.3), (0.1, ["2", "red"], 1.0), (0.0, ["red"], 1.0)])
def test_the_sampler_that_works_is_the_default(dropout, classes, used, run, tmp_path, monkeypatch, capsys):
    """Noise in the steps of DPM-Solver++, from T-1 on, x_0 limited; guided if the network knows "of any class" and is not asked for it."""
    folder, asked = tmp_path / "run", {}
    shutil.copytree(run[0], folder)
    (folder / "config.json").write_text(json.dumps({"label_dropout": dropout}))
    monkeypatch.setattr(hcrot.pipelines, "sample", lambda model, scheduler, **options: asked.update(options, scheduler=scheduler) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["sample", str(folder), "--classes", *classes])
    config = asked["scheduler"].config
    assert (config.algorithm_type, config.timestep_spacing, config.thresholding) == ("sde-dpmsolver++", "trailing", True)
    assert asked["num_inference_steps"] == 25 and asked.get("guidance_scale", 1.0) == used


def test_guided_ddim_takes_the_noise_that_goes_with_what_was_clipped(run, monkeypatch):
    asked = {}
    monkeypatch.setattr(hcrot.pipelines, "sample", lambda *_, **options: asked.update(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["sample", str(run[0]), "--classes", "red", "--sampler", "ddim", "--guidance-scale", "2"])
    assert asked["use_clipped_model_output"] is True


def test_what_cannot_be_drawn_is_refused(run, capsys):
    assert call("sample", run[0], "--classes", "green") == 2
    assert "has no class green, its classes are blue, red" in capsys.readouterr().err
    assert call("sample", run[0], "--classes", "2", "--guidance-scale", "2") == 2
    assert "class 2 has to be the one that means" in capsys.readouterr().err
    assert call("sample", run[0], "--number", 3, "--count", 4) == 2
    assert "--number is of each class and --count of all together" in capsys.readouterr().err
    assert call("sample", run[0], "--shard-size", 3) == 2
    assert "--shard-size is of the files that --count writes" in capsys.readouterr().err


def test_evaluation_judges_pictures_and_files_of_features(run, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HCROT_DATA", str(tmp_path))
    words = ["--data", pictures, "--number", 12, "--steps", 2, "--epochs", 1, "--json"]
    assert call("evaluate", run[0], *words) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["agreement_of_real_pictures"] == 1 and figures["frechet_distance"] > figures["frechet_distance_of_real_from_real"]
    rng = np.random.default_rng(0)
    for name, shift in (("real", 0), ("same", 0), ("far", 9)):
        np.savez(tmp_path / f"{name}.npz", features=rng.standard_normal((40, 3)) + shift)
    assert call("evaluate", "--features", tmp_path / "real.npz", tmp_path / "far.npz", "--json") == 0
    far = json.loads(capsys.readouterr().out)
    assert call("evaluate", "--features", tmp_path / "real.npz", tmp_path / "same.npz", "--json") == 0
    same = json.loads(capsys.readouterr().out)
    (tmp_path / "far.npz").write_bytes((tmp_path / "far.npz").read_bytes()[:100])
    assert call("evaluate", "--features", tmp_path / "real.npz", tmp_path / "far.npz", "--json") == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("hcrot evaluate: ")
    assert far["precision"] == far["recall"] == 0 and same["precision"] > 0.8 and same["recall"] > 0.8
    assert same["frechet_distance"] < 1 < 200 < far["frechet_distance"]


def test_info_tells_what_a_checkpoint_is(run, capsys):
    assert call("info", run[0], "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == ["blue", "red"] and "label 2" in facts["guidance"] and facts["scheduler"] == "DDPMScheduler"
    assert facts["training"].startswith("can go on; progress {'step': ")
    assert call("info", run[0]) == 0
    shown = capsys.readouterr().out
    assert "UNet2dModel" in shown and "speed" not in shown
    with hcrot.plain():
        assert call("info", run[0]) == 0
    assert "many times slower than usual: plain NumPy runs instead of the compiled kernels, because hcrot.set_plain(True) was called" in (
        capsys.readouterr().out
    )


LAYERS = '''
import hcrot

class Half(hcrot.Module):
    def __init__(self, factor, wrong=False):
        self.factor, self.wrong = factor, wrong
    def forward(self, x):
        return self.factor * x
    def backward(self, dout):
        return dout if self.wrong else self.factor * dout

class NoModule:
    pass
'''


def test_check_tells_right_from_wrong(tmp_path, capsys):
    path = tmp_path / "layers.py"
    path.write_text(LAYERS)
    assert call("check", f"{path}:Half", "--arguments", "0.5", "--input", "2x3") == 0
    assert "all agree" in capsys.readouterr().out
    assert call("check", f"{path}:Half", "--arguments", "0.5, wrong=True", "--input", "2x3", "--json") == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False
    clue = "wrong: each analytic value is exactly twice the numeric one, and self.factor is 0.5"
    for words, said in (([], True), (["--explain", "0"], False)):
        assert call("check", f"{path}:Half", "--arguments", "0.5, wrong=True", "--input", "2x3", *words) == 1
        assert (clue in capsys.readouterr().out) == said
    for words, message in (
        ([f"{path}:NoModule", "--input", "2"], "gives a NoModule, expected a hcrot.Module"),
        ([f"{path}:Missing", "--input", "2"], "has no Missing"),
        ([f"{path}:Half", "--arguments", "open('x')", "--input", "2"], "expected literals"),
        ([f"{path}:Half", "--arguments", "1", "--input", "2,3"], "expected a shape such as 2x3x5x7"),
    ):
        assert call("check", *words) == 2
        assert message in capsys.readouterr().err


def test_bench_measures(capsys, monkeypatch):
    from hcrot.commands import bench

    monkeypatch.setattr(bench, "NETWORKS", {"8x8": (8, 1, [8, 8])})
    assert call("bench", "--seconds", "0.02", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["rows"]) == 3 and all(row["hcrot_ms"] > 0 for row in result["rows"]) and "speed" not in result
    monkeypatch.setattr(bench, "alternate", lambda tasks, seconds: [1.0 for _ in tasks])
    with hcrot.plain():
        assert call("bench") == 0
        assert "hcrot is many times slower than usual: plain NumPy runs" in capsys.readouterr().out
        assert call("bench", "--json") == 0
        assert "many times slower" in json.loads(capsys.readouterr().out)["speed"]


@pytest.mark.parametrize("words", [["learn", "list"], ["learn", "--help"], ["--version"]])
def test_a_command_whose_reader_has_gone_ends_without_a_word(words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        assert call(*words) == 141
        monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


def test_another_broken_pipe_is_said(monkeypatch, capsys, tmp_path):
    def broken(*_):
        raise BrokenPipeError("a process of this run has ended")

    monkeypatch.setattr("hcrot.commands.learn.run", broken)
    with open(tmp_path / "printed", "w", encoding="utf-8") as printed:
        monkeypatch.setattr(sys, "stdout", printed)
        assert call("learn") == 2
        monkeypatch.undo()
    assert capsys.readouterr().err == "hcrot learn: a process of this run has ended\n"


def test_an_encoding_without_stars_is_no_error(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert call("learn", "list") == 0
    assert b"  06-3  ? Your own Conv2d.backward." in written.getvalue()
