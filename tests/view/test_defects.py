"""Every defect is found by the gradient check, and without one nothing is."""

import pytest

from hcrot.view.breaking import about, checked, network, run
from hcrot.view.defects import DEFECTS, plant
from hcrot.view.messages import Request

LAYERS = {"GroupNormSiLU": "conv_norm_out", "Conv2d": "conv_out", "Linear": "time_embedding.linear_2",
          "ResnetBlock2D": "mid_block.resnets.1", "DownBlock2D": "down_blocks.0", "UpBlock2D": "up_blocks.0"}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_in_each_kind_of_layer(name):
    model = network(0)
    parts = dict(model.named_modules())
    places = [layer for layer in LAYERS.values() if DEFECTS[name].fits(parts[layer])]
    assert places
    for layer in places:
        plant(parts[layer], DEFECTS[name])
        found = checked(model, layer, 0)
        assert not found["passed"] and (found["wrong"] or found["problems"]), layer
    offered = {defect["name"]: defect["layers"] for defect in about()["defects"]}
    assert set(places) <= set(offered[name])


@pytest.mark.parametrize("layer", LAYERS.values())
def test_a_right_layer_passes(layer):
    assert checked(network(0), layer, 0)["passed"]


def test_both_networks_begin_alike_and_part():
    sent = []
    run(None, Request({"defect": "sign", "layer": "mid_block.resnets.1.conv2", "steps": 2, "seed": 0, "lr": 0.01}), sent.append)
    losses = [message for message in sent if message["kind"] == "losses"]
    assert losses[0]["right"] == losses[0]["broken"] and losses[1]["right"] != losses[1]["broken"]
    assert [message["kind"] for message in sent] == ["checked", "losses", "losses", "drawn"]
    assert sent[-1]["right"]["shape"] == sent[-1]["broken"]["shape"] == [10, 1, 8, 8]
