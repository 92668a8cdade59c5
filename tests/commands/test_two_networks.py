"""hcrot train with two networks, one that draws small pictures and one that enlarges them, as a user has it."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import hcrot
from hcrot.commands import train_loop
from hcrot.files.wishes import ask_to_stop
from hcrot.training.progress import ErrorByTime, StepsInTime
from support.commands import call, draw_squares

TINY = ["--channels", "8", "8", "--layers-per-block", "1", "--train-batch-size", "8", "--inference-steps", "2"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_squares(tmp_path_factory.mktemp("data") / "squares", 16)


@pytest.fixture(scope="module")
def words(pictures, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HCROT_DATA", str(tmp_path_factory.mktemp("cache")))
        yield ["train", pictures, "--resolution", 16, "--small", 8, *TINY]


@pytest.fixture(scope="module")
def printed():
    """What the run says."""
    return io.StringIO()


@pytest.fixture(scope="module")
def run(words, tmp_path_factory, printed):
    folder = tmp_path_factory.mktemp("runs") / "squares"
    with contextlib.redirect_stdout(printed):
        assert call(*words, "--num-epochs", 1, "--output", folder) == 0
    return folder


def test_five_lines_tell_of_both(run, printed):
    found, small, told, large, told_of_large = printed.getvalue().splitlines()
    assert "24 colour pictures of 16x16" in found and f"Into {run}/small/" in small and large.endswith(f"Into {run}/")
    for line in (told, told_of_large):
        errors, means = re.match(r"Error on .* held back, by quarter .*: (.*); mean (.* averaged .* the last .*?)\. ", line).groups()
        assert len(errors.split(", ")) == 4 and len(re.findall(r"\d\.\d{4}", means)) == 3
    assert told.count(" Undertrained: ") == 1 and told_of_large.endswith(f" Look at {run}/samples.png; to draw more: hcrot sample {run}")
    assert "rained: " not in told_of_large


def test_both_learn_one_after_the_other(run, capsys):
    config, inner = (json.loads((place / "config.json").read_text()) for place in (run, run / "small"))
    assert (config["small"], config["channels"]) == (8, [8, 8]) and (inner["small"], inner["resolution"]) == (0, 8)
    assert inner["channels"] != [8, 8] and inner["train_batch_size"] == config["train_batch_size"] == 8
    large, small = (hcrot.load_model(place / "checkpoint") for place in (run, run / "small"))
    assert (large.config["in_channels"], large.config["out_channels"], large.config["sample_size"]) == (6, 3, 16)
    assert (small.config["in_channels"], small.config["sample_size"]) == (3, 8)
    for place in (run, run / "small"):
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3] and (place / "samples.png").is_file()
    on_the_way = {f"samples-{part}{step}.png" for part in ("", "small-") for step in (1, 2)}
    assert {path.name for path in run.glob("samples*")} == {"samples.png"} | on_the_way
    assert call("info", run) == 0
    shown = capsys.readouterr().out
    assert "3 channels of 16 pixels" in shown and "enlarges" in shown


@pytest.mark.parametrize(("last", "part", "said"), [
    (0.01, "whole", "Trained: at the noisiest time the error is 0.01, of 0.05"), (0.06, "small", "Undertrained: at the noisiest time"),
    (None, "whole", "Whether it is trained cannot be said"), (None, "large", None),
])  # fmt: skip
def test_the_verdict_is_said_where_there_is_one(last, part, said):
    found = ErrorByTime((0.1, 0.2, 0.3, 0.4), last, 0.05)
    errors, *verdict = train_loop.report(found, found, 0.5, True, part)
    assert "0.1000, 0.2000, 0.3000, 0.4000; mean 0.2500 " in errors and len(verdict) == (said is not None)
    assert said is None or verdict[0].startswith(said)


def test_what_was_learned_is_drawn_and_judged(run, pictures, tmp_path, capsys):
    drawn = tmp_path / "drawn.npz"
    assert call("sample", run, "--steps", 2, "--number", 2, "--output", drawn, tmp_path / "drawn.gif") == 0
    with np.load(drawn) as arrays:
        assert arrays["images"].shape[0] == 4 and 16 in arrays["images"].shape
    assert call("sample", run, "--steps", 2, "--count", 5, "--shard-size", 3, "--output", tmp_path / "many") == 0
    assert len(list((tmp_path / "many").glob("*.npz"))) == 2
    capsys.readouterr()
    assert call("evaluate", run, "--data", pictures, "--number", 16, "--steps", 2, "--epochs", 1, "--json") == 0
    assert "label_agreement" in json.loads(capsys.readouterr().out)
    alone = tmp_path / "alone"
    shutil.copytree(run / "checkpoint", alone / "checkpoint")
    assert call("sample", alone) == 2
    assert "the network that draws them is expected in" in capsys.readouterr().err


def test_what_was_learned_is_exported(run, tmp_path, capsys):
    exported = tmp_path / "squares"
    assert call("export", run, exported) == 0
    shown = capsys.readouterr().out
    assert f"DiffusionPipeline.from_pretrained('{exported}', trust_remote_code=True)" in shown and "pipe(['blue'], " in shown
    index = json.loads((exported / "model_index.json").read_text())
    assert index["id2label"] == {"0": "blue", "1": "red"} and index["null_label"] == 2 and "small_unet" in index
    drawn = []
    for place in (run, exported):
        assert call("sample", place, "--steps", 2, "--number", 1, "--classes", "red", "--output", tmp_path / "drawn.npz") == 0
        with np.load(tmp_path / "drawn.npz") as arrays:
            drawn.append(arrays["images"])
    np.testing.assert_array_equal(*drawn)
    assert call("export", run / "small", exported, "--sampler", "ddim", "--json") == 0
    assert "small_unet/config.json" not in json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    assert call("export", Path(hcrot.__file__).parent / "view" / "digits", tmp_path / "digits") == 2
    assert "cannot draw pictures of 14x14 with a network of 3 levels: 4 has to divide" in capsys.readouterr().err


def test_a_run_that_was_stopped_in_either_network_goes_on(words, tmp_path, monkeypatch):
    folder, planned = tmp_path / "run", []

    class Stopping(StepsInTime):
        def planned(self, step, steps):
            planned.append(self.seconds)
            if len(planned) in (2, 4):
                ask_to_stop(folder)
            return 4

    monkeypatch.setattr("hcrot.commands.train_loop.StepsInTime", Stopping)
    assert call(*words, "--minutes", 10, "--output", folder) == 143
    assert not (folder / "metrics.jsonl").exists() and len((folder / "small" / "metrics.jsonl").read_text().splitlines()) == 2
    assert call("train", words[1], "--output", folder, "--resume") == 143
    assert [len((place / "metrics.jsonl").read_text().splitlines()) for place in (folder / "small", folder)] == [4, 2]
    assert call("train", words[1], "--output", folder, "--resume") == 0
    assert [len((place / "metrics.jsonl").read_text().splitlines()) for place in (folder / "small", folder)] == [4, 4]
    assert planned[0] == planned[-1] == pytest.approx(0.95 * 60 * 5)


def test_what_is_asked_between_the_networks_is_heard_and_the_small_one_is_judged(words, tmp_path, monkeypatch, capsys):
    folder, learned = tmp_path / "run", train_loop.learned

    def asking(*arguments):
        ask_to_stop(folder)
        return learned(*arguments)

    monkeypatch.setattr("hcrot.commands.train_loop.learned", asking)
    (folder / "small").mkdir(parents=True)
    assert call(*words, "--num-epochs", 0.3, "--random-shift", 3, "--output", folder) == 143
    assert json.loads((folder / "small" / "config.json").read_text())["random_shift"] == 1
    assert json.loads((folder / "config.json").read_text())["random_shift"] == 3
    monkeypatch.undo()
    shutil.rmtree(folder / "checkpoint")  # as if the second one had not got so far
    assert call("sample", folder) == 2
    assert "the network that enlarges has no checkpoint yet" in capsys.readouterr().err
    assert call("train", words[1], "--output", folder, "--resume", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["undertrained"] is found["small"]["undertrained"] is True
    assert found["error_at_the_end"] == found["small"]["error_at_the_end"]


def test_options_of_the_second_network_are_refused_before_the_first_learns(words, tmp_path, capsys):
    assert call(*words, "--attention", 9, "--output", tmp_path / "run") == 2
    assert "--attention [9]: the levels of --channels are 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists() and not (tmp_path / "run" / "small").exists()


@pytest.mark.parametrize("small", [4, 7, 16])
def test_a_small_size_that_cannot_be_is_refused(small, words, tmp_path, capsys):
    assert call(*words[:4], "--small", small, "--output", tmp_path / "run") == 2
    assert f"--small {small}: expected at least 8, and a divisor of the size 16" in capsys.readouterr().err
