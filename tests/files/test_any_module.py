"""Every network is saved: hcrot's come back by their names, others into a network of the caller's. What its config does not describe is
refused."""

import json

import numpy as np
import pytest

import hcrot
from hcrot import pipelines
from hcrot.files.pretrained import Pretrained
from hcrot.models import abarankab, ddpm_unet, lucidrains
from support.small_unets import tiny_model


class Own(hcrot.Module):
    def __init__(self, width=2):
        self.config = {"width": np.int64(width), "kinds": ("a",)}
        self.layer = hcrot.Linear(width, 3, generator=width)


class WithOwnEnd(hcrot.UNet2dModel):
    class_name = "WithOwnEnd"

    def __init__(self, **options):
        super().__init__(**options)
        self.conv_out = hcrot.Conv2d(self.config["block_out_channels"][0], 1, 1, generator=options.get("generator"))


class WithoutName(hcrot.UNet2dModel):
    pass


def assert_same(model, other):
    assert type(model) is type(other)
    for (name, array), (_, expected) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
        np.testing.assert_array_equal(array, expected, err_msg=name)


@pytest.mark.parametrize(
    "model",
    [
        tiny_model(),
        WithOwnEnd(**tiny_model().config, generator=0),
        hcrot.SR3UNet(1, (4, 8), (), 1, 0.0, 2, generator=0),
        lucidrains.Unet(4, dim_mults=(1, 2), channels=1, attn_dim_head=(2, 2), resnet_block_groups=np.int64(2), generator=0),
        abarankab.UNet(1, 4, (1, 2), 1, 6, num_classes=3, norm="bn", generator=0),
        ddpm_unet.UNet(1, 4, (1, 2), (False, True), (False, True), n_groups=2, generator=0),
    ],
)
def test_every_network_comes_back_by_its_name(tmp_path, model):
    hcrot.save_model(model, tmp_path / "m")
    pipelines.save(tmp_path / "p", model, hcrot.DDIMScheduler())
    hcrot.save_checkpoint(tmp_path / "c", model, hcrot.DDIMScheduler(), state={})
    for loaded in (*(hcrot.load_model(tmp_path / name) for name in "mp"), *(pipelines.load(tmp_path / name)[0] for name in "pc")):
        assert_same(loaded, model)
        assert loaded.config == model.config == json.loads(json.dumps(model.config))
    with pytest.raises(ValueError, match=f"describes a '{model.class_name}', expected a Nothing"):
        type("Nothing", (Pretrained,), {"class_name": "Nothing"}).from_pretrained(tmp_path / "m")


def test_the_classifier_of_digits_has_files_of_its_own(tmp_path):
    model = hcrot.DigitClassifier(8, 3, (2,), 5, generator=0)
    hcrot.save_model(model, tmp_path / "m")
    assert_same(hcrot.load_model(tmp_path / "m"), model)


@pytest.mark.parametrize("make", [Own, lambda width=2: hcrot.Sequential(hcrot.Linear(width, 2, generator=width), hcrot.ReLU())])
def test_other_networks_are_loaded_into_one_that_is_there(tmp_path, make):
    model, name = make(), type(make()).__name__
    hcrot.save_model(model, tmp_path / "m")
    pipelines.save(tmp_path / "p", model, hcrot.DDIMScheduler(40))
    hcrot.save_checkpoint(tmp_path / "c", model, hcrot.DDPMScheduler(), state={}, progress=7)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["_class_name"] == name and "load_model(folder, model)" in config["_how_to_load"]
    assert {key: value for key, value in config.items() if key[0] != "_"} == ({"width": 2, "kinds": ["a"]} if make is Own else {})
    for folder in "mpc":
        with pytest.raises(NotImplementedError, match=rf"config.json describes a '{name}', which .* say load_model\(folder, network\)"):
            hcrot.load_model(tmp_path / folder)
        other = make()
        other.parameters()[0].data[...] = 0
        assert hcrot.load_model(tmp_path / folder, other) is other
        assert_same(other, model)
        with pytest.raises(ValueError, match=f"load_model: .*safetensors does not fit the {name}: .* has shape"):
            hcrot.load_model(tmp_path / folder, make(5))
    for folder in "pc":
        with pytest.raises(NotImplementedError, match=rf"asks for {name} with .* say pipelines.load\(folder, model=network\)"):
            pipelines.load(tmp_path / folder)
        loaded, scheduler = pipelines.load(tmp_path / folder, model=make())
        assert_same(loaded, model)
        assert isinstance(scheduler, hcrot.DDIMScheduler if folder == "p" else hcrot.DDPMScheduler)
    assert hcrot.load_checkpoint(tmp_path / "c", make(), state={}) == 7
    with pytest.raises(FileNotFoundError, match=r"training_state.json; .* load_model\(folder\) or load_model\(folder, model\)"):
        hcrot.load_checkpoint(tmp_path / "m", make(), state={})


def replace(change):
    def changed():
        model = tiny_model()
        change(model)
        return model

    return changed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (replace(lambda m: setattr(m, "conv_out", hcrot.Conv2d(4, 1, 1))), r"conv_out is Conv2d\(.*\), expected Conv2d\("),
        (replace(lambda m: setattr(m, "temb_act", hcrot.ReLU())), r"temb_act is ReLU\(\), expected SiLU\(\)"),
        (replace(lambda m: setattr(m, "mid_block", None)), r"mid_block is missing, expected UNetMidBlock2D\("),
        (replace(lambda m: setattr(m, "more", hcrot.ReLU())), r"more is ReLU\(\), expected nothing"),
        (replace(lambda m: m.down_blocks[0].resnets.pop()), r"down_blocks.0.resnets.0 is missing"),
        (replace(lambda m: m.config.update(norm_eps=0.1)), r"resnets.0.norm1 is GroupNormSiLU\(.*\), expected GroupNormSiLU\("),
        (replace(lambda m: setattr(m, "scale", hcrot.Parameter(np.ones(3, np.float32)))), r"scale has shape \(3,\), expected None"),
        (replace(lambda m: m.config.update(block_out_channels=[4])), "makes no network of the model's config: .* 2 entries"),
        (lambda: WithoutName(**tiny_model().config), "WithoutName would be saved as the UNet2dModel .* class_name = 'WithoutName'"),
    ],
)
def test_what_is_not_as_its_config_says_is_refused(tmp_path, make, message):
    model = make()
    for save in (
        lambda: hcrot.save_model(model, tmp_path / "m"),
        lambda: model.save_pretrained(tmp_path / "m"),
        lambda: hcrot.save_checkpoint(tmp_path / "m", model),
        lambda: pipelines.save(tmp_path / "m", model, hcrot.DDPMScheduler()),
    ):
        with pytest.raises(ValueError, match=message):
            save()
    assert not list(tmp_path.iterdir())


def test_a_config_that_json_cannot_hold(tmp_path):
    model = Own()
    model.config = {"model": model}
    with pytest.raises(TypeError, match="(?s)save_model: the config of the Own must be what JSON can hold: .* of type Own"):
        hcrot.save_model(model, tmp_path / "m")
