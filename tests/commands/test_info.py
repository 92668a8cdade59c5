"""hcrot info about networks of every kind and in every folder, and what hcrot sample says of those that it cannot draw with."""

import json

import pytest

import hcrot
from support.commands import call
from support.small_unets import tiny_model

CONDITION = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",), "block_out_channels": (8,),
             "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 8, "attention_head_dim": 2, "sample_size": 8}  # fmt: skip


def facts(folder, capsys):
    capsys.readouterr()
    assert call("info", folder, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_classifier_has_what_any_network_has(tmp_path, capsys):
    hcrot.save_model(hcrot.DigitClassifier(8, generator=0), tmp_path / "judge")
    found = facts(tmp_path / "judge", capsys)
    assert found["network"].startswith("DigitClassifier, ") and {"image_size: 8", "num_classes: 10"} <= set(found["config"])
    assert found["opened by"] == [f"hcrot.load_model({str(tmp_path / 'judge')!r})"]
    assert call("info", tmp_path / "judge") == 0


class OfMyOwn(hcrot.Sequential):
    """A class that a checkpoint cannot make again."""


def test_of_a_network_of_a_class_of_ones_own_the_files_tell(tmp_path, capsys):
    hcrot.save_checkpoint(tmp_path / "own", OfMyOwn(hcrot.Linear(3, 2)), hcrot.DDPMScheduler())
    found = facts(tmp_path / "own", capsys)
    assert found["network"].startswith("OfMyOwn, 8 numbers, ")
    assert found["opened by"] == [f"hcrot.load_model({str(tmp_path / 'own')!r}, network), with a network of the same parameters"]


@pytest.mark.parametrize("kind", ["UNet2DModel", "UNet2DConditionModel"])
def test_a_pipeline_is_opened_as_a_pipeline_and_its_network_from_its_subfolder(kind, tmp_path, capsys):
    model = tiny_model() if kind == "UNet2DModel" else hcrot.UNet2DConditionModel(**CONDITION, generator=0)
    hcrot.pipelines.save(tmp_path / "whole", model, hcrot.DDPMScheduler())
    hcrot.save_checkpoint(tmp_path / "checkpoint", model, hcrot.DDPMScheduler())
    place, alone = str(tmp_path / "whole"), str(tmp_path / "checkpoint")
    found, of_classes = facts(place, capsys), kind == "UNet2DModel"
    opened = f"DDPMPipeline.from_pretrained({place!r})"
    if of_classes:
        opened = f"DiffusionPipeline.from_pretrained({place!r}, trust_remote_code=True)"
    assert found["opened by"][1:] == [
        f"hcrot.pipelines.load({place!r})", f"diffusers: {opened}", f"diffusers: {kind}.from_pretrained({place!r}, subfolder='unet')",
    ]  # fmt: skip
    names = {entry.partition(" ")[0] for entry in found["files"]}
    assert names == {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json",
                     *(["pipeline.py"] if of_classes else [])}  # fmt: skip
    assert found["scheduler"] == "DDPMScheduler"
    exported = [f"diffusers: what hcrot export {alone} FOLDER writes"] if of_classes else []
    assert facts(alone, capsys)["opened by"] == [f"hcrot.load_model({alone!r})", f"diffusers: {kind}.from_pretrained({alone!r})", *exported]
    if kind == "UNet2DConditionModel":
        for folder in (place, alone):
            assert call("sample", folder, "--output", tmp_path / "drawn.png") == 2
            assert "holds a UNet2DConditionModel, expected a UNet2DModel" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_said_to_have_none(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"checkpointing_steps": 200}))
    for command in ("info", "sample"):
        assert call(command, tmp_path) == 2
        assert "this run has no checkpoint yet" in capsys.readouterr().err
