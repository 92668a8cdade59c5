"""A trained network taken further: other arguments, part of a state, the weights or their average."""

import warnings

import numpy as np
import pytest

import hcrot
from hcrot.module import Module
from support.small_unets import tiny_model


def test_other_arguments_keep_what_fits_and_name_what_is_new(tmp_path):
    trained = tiny_model(1)
    trained.save_pretrained(tmp_path / "m")
    with pytest.warns(UserWarning) as caught:
        model = hcrot.UNet2dModel.from_pretrained(tmp_path / "m", num_class_embeds=4, in_channels=3, generator=5)
    [warning] = caught
    assert str(warning.message) == (
        "UNet2dModel.from_pretrained: num_class_embeds=4, in_channels=3: new and untrained: "
        "conv_in.weight (4, 3, 3, 3), was (4, 1, 3, 3); class_embedding.weight (4, 16), was (3, 16)"
    )
    assert warning.filename == __file__
    old, fresh = trained.state_dict(), tiny_model(num_class_embeds=4, in_channels=3).state_dict()
    for name, array in model.state_dict().items():
        if name in ("conv_in.weight", "class_embedding.weight"):
            assert array.shape == fresh[name].shape and len(np.unique(array)) == array.size, "initialised, neither zeros nor anything old"
        else:
            np.testing.assert_array_equal(array, old[name], err_msg=name)
    assert (model.config["num_class_embeds"], model.config["in_channels"]) == (4, 3)
    model.save_pretrained(tmp_path / "again")
    with warnings.catch_warnings(action="error"):
        again = hcrot.UNet2dModel.from_pretrained(tmp_path / "again")
        same = hcrot.UNet2dModel.from_pretrained(tmp_path / "again", dropout=0.5, generator=5)
    for name, array in again.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[name])
        np.testing.assert_array_equal(array, same.state_dict()[name])
    assert same.config["dropout"] == 0.5


def test_new_weights_come_from_the_generator_and_lost_ones_are_named(tmp_path):
    tiny_model(1).save_pretrained(tmp_path / "m")
    with pytest.warns(UserWarning, match=r"num_class_embeds=None: left out: class_embedding.weight$"):
        plain = hcrot.UNet2dModel.from_pretrained(tmp_path / "m", num_class_embeds=None)
    plain.save_pretrained(tmp_path / "plain")
    tables = []
    for seed in (5, 5, 6):
        with pytest.warns(UserWarning, match=r"num_class_embeds=4: new and untrained: class_embedding.weight \(4, 16\)$"):
            model = hcrot.UNet2dModel.from_pretrained(tmp_path / "plain", num_class_embeds=4, generator=seed)
        tables.append(model.state_dict()["class_embedding.weight"])
    assert (tables[0] == tables[1]).all() and (tables[0] != tables[2]).all()


def test_bad_overrides(tmp_path):
    tiny_model().save_pretrained(tmp_path / "m")
    with pytest.raises(TypeError, match="UNet2dModel.from_pretrained: 'in_chanels' is no argument of UNet2dModel, which has sample"):
        hcrot.UNet2dModel.from_pretrained(tmp_path / "m", in_chanels=1)
    with pytest.raises(ValueError, match="UNet2dModel.from_pretrained: with in_channels=-1: .*in_channels"):
        hcrot.UNet2dModel.from_pretrained(tmp_path / "m", in_channels=-1)


def test_the_average_or_the_weights_of_a_checkpoint(tmp_path):
    model = tiny_model(1)
    ema = hcrot.EMA(model.parameters(), 0.5)
    averaged = model.state_dict()
    for parameter in model.parameters():
        parameter.data += 1
    hcrot.save_checkpoint(tmp_path / "c", model, ema=ema, state={})
    for options, expected in (({}, averaged), ({"use_ema": True}, averaged), ({"use_ema": False}, model.state_dict())):
        found = hcrot.UNet2dModel.from_pretrained(tmp_path / "c", **options).state_dict()
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=f"{options} {name}")
    hcrot.save_checkpoint(tmp_path / "d", model, ema=ema)
    with pytest.raises(FileNotFoundError, match="training_state.safetensors, in which .* use_ema=False asks for"):
        hcrot.UNet2dModel.from_pretrained(tmp_path / "d", use_ema=False)


class Two(Module):
    def __init__(self, width):
        self.body, self.head = hcrot.Linear(2, 3), hcrot.Linear(3, width)


def test_a_loose_load_tells_what_was_missing_and_unexpected():
    source, target = Two(4), Two(4)
    state = source.state_dict()
    before = target.head.weight.data.copy()
    del state["head.weight"]
    keys = target.load_state_dict(state | {"tail": np.ones(3)}, strict=False)
    assert keys == (["head.weight"], ["tail"])
    assert (keys.missing_keys, keys.unexpected_keys) == (["head.weight"], ["tail"])
    np.testing.assert_array_equal(target.body.weight.data, source.body.weight.data)
    np.testing.assert_array_equal(target.head.weight.data, before)
    assert target.load_state_dict(source.state_dict()) == ([], [])
    with pytest.raises(ValueError, match=r"Two.load_state_dict: head.weight has shape \(5, 3\), expected \(4, 3\)"):
        target.load_state_dict({"head.weight": np.ones((5, 3)), "body.bias": np.full(3, 7.0)}, strict=False)
    assert (target.body.bias.data != 7).all(), "all or nothing"
