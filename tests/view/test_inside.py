"""The picture of the U-Net, the bundled network, and what is known of runs."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

import hcrot
from hcrot.view.inside import Inside, graph
from hcrot.view.messages import Request
from hcrot.view.networks import DIGITS, Networks
from hcrot.view.runs import Runs, Tail, thinned


def test_the_bundled_network_is_small_and_in_float16():
    weights = load_file(DIGITS / "unet" / "diffusion_pytorch_model.safetensors")
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float16)}
    assert (DIGITS / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size < 1_000_000


def test_the_picture_has_the_skips_that_the_network_has():
    model = hcrot.UNet2dModel(
        in_channels=1, out_channels=1, block_out_channels=[4, 4], layers_per_block=1, norm_num_groups=2, attention_head_dim=4,
        down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"], generator=0,
    )  # fmt: skip
    nodes, skips = graph(model)
    assert [node["name"] for node in nodes if node["side"] == "down"] == [
        "conv_in", "down_blocks.0.resnets.0", "down_blocks.0.downsamplers.0", "down_blocks.1.resnets.0", "down_blocks.1.attentions.0",
    ]  # fmt: skip
    assert skips == [
        ["down_blocks.1.attentions.0", "up_blocks.0.resnets.0"], ["down_blocks.0.downsamplers.0", "up_blocks.0.resnets.1"],
        ["down_blocks.0.resnets.0", "up_blocks.1.resnets.0"], ["conv_in", "up_blocks.1.resnets.1"],
    ]  # fmt: skip
    assert {node["name"] for node in nodes} <= {name for name, _ in model.named_modules()}


def test_a_look_shows_every_layer_and_leaves_the_network_as_it_was(tmp_path):
    networks, inside, found = Networks(tmp_path), Inside(), []
    asked = {"network": "digits", "labels": [3], "seed": 0, "t": 300}
    inside.look(networks, Request(asked | {"layer": "mid_block.attentions.0"}), found.append)
    network, layer = found
    assert all(node["rms"] > 0 and node["gradient"] > 0 and node["forward"] > 0 for node in network["nodes"])
    assert layer["attention"]["maps"]["shape"] == [4, 1, 16, 16] and layer["output"]["maps"]["shape"] == [32, 1, 4, 4]
    assert "def backward" in layer["backward_source"]
    model = networks.get(Request(asked)).model
    assert not model.training and not any(parameter.grad.any() for parameter in model.parameters())
    inside.look(networks, Request(asked | {"layer": "time_embedding"}), found.append)
    assert found[-1]["output"]["maps"]["shape"] == [1, 1, 1, 128]


def test_metrics_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    tail.read()
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    tail.read()
    assert list(tail.columns["step"]) == [1]
    with open(path, "a") as file:
        file.write('ss": 1.0, "loss_by_quarter": [null, 4.0, null, null]}\nnonsense\n{"step": 3, "loss": "high"}\n')
    tail.read()
    assert list(tail.columns["step"]) == [1, 2]
    new = tmp_path / "new"
    new.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "loss": 0.5}\n' * 3)
    os.replace(new, path)  # as a resumed run does
    tail.read()
    assert len(tail.columns["step"]) == 9 and tail.last["loss"] == 0.5


def test_curves_have_few_points_and_lose_no_step(tmp_path):
    tail = Tail(tmp_path / "metrics.jsonl")
    none = {"step": [], "loss": [], "grad_norm": [], "lr": [], "quarters": []}
    assert thinned(tail.columns) == none
    for n in range(1000):
        tail.add({"step": n, "loss": float(n), "loss_by_quarter": [1.0, None, None, None]})
    curves = thinned(tail.columns)
    assert len(curves["step"]) == 300 and curves["step"][-1] == 999 and curves["quarters"][0] == [1.0] * 300
    assert curves["quarters"][1] == [None] * 300 and curves["loss"][:2] == [1.5, 5.5]
    assert curves["lr"] == [None] * 300


def test_a_run_is_started_as_a_command(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: called.append(command) or FakeProcess())
    runs = Runs(tmp_path, ["digits"])
    asked = {"name": "a", "data": "digits", "minutes": 0.5, "lr": 1e-3, "batch": 16, "seed": 1234567}
    runs.start(Request(asked))
    assert called[0][3:] == ["train", "digits", "--output", str(tmp_path / "a"), "--minutes=0.5", "--learning-rate=0.001",
                             "--train-batch-size=16", "--seed=1234567"]  # fmt: skip
    with pytest.raises(ValueError, match="there is a run a already"):
        runs.start(Request(asked))
    with pytest.raises(ValueError, match="a is running"):
        runs.resume(Request({"name": "a", "minutes": 1, "lr": 1e-3}))
    (tmp_path / "a" / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0}) + "\n")
    (tmp_path / "a" / "samples-5.png").write_bytes(b"")
    (tmp_path / "a" / "train.log").write_text("one\n" + "  3%|#   | 1/30\r 98%|### | 29/30" * 500 + "\n\ntwo\n")
    answer = runs.follow(Request({"name": "a", "lines": 0}))
    assert answer["state"] == "running" and answer["pictures"] == ["samples-5.png"] and answer["curves"]["loss"] == [1.0]
    assert answer["log"] == "one\ntwo"
    assert "curves" not in runs.follow(Request({"name": "a", "lines": 1}))
    with pytest.raises(ValueError, match="a has ended"):
        Runs(tmp_path, ["digits"]).stop(Request({"name": "a"}))


class FakeProcess:
    def poll(self):
        return None
