"""UNet2DConditionModel against diffusers': keys, forward, the gradients of sample, text and every parameter, and files both ways."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.models.unet_2d_condition import UNet2DConditionModel  # noqa: E402
from support.unet_parity import compare, with_the_weights_of, worst  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_kernel_thread", "one_torch_thread")

TWO = {
    "in_channels": 2,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
}
EVERYWHERE = {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
CONFIGS = {
    "as diffusers' own tests": TWO,
    "as Stable Diffusion 2": TWO | EVERYWHERE | {"use_linear_projection": True, "attention_head_dim": (2, 3), "upcast_attention": True},
    "deep": TWO | {"transformer_layers_per_block": (1, 2), "layers_per_block": (1, 2), "cross_attention_dim": (6, 6)},
    "text alone above": TWO | EVERYWHERE | {"only_cross_attention": (True, False), "act_fn": "swish", "conv_in_kernel": 1},
    "classes": TWO | {"num_class_embeds": 5, "resnet_time_scale_shift": "scale_shift", "mid_block_scale_factor": 2**0.5},
    "embeddings as classes": TWO
    | {"class_embed_type": "identity", "only_cross_attention": True, "center_input_sample": True, "dropout": 0.2, "conv_out_kernel": 5},
    "labels like times": TWO
    | {"class_embed_type": "timestep", "mid_block_type": None, "time_embedding_dim": 20, "downsample_padding": 0, "flip_sin_to_cos": False},
}


def build_both(config):
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(**config)
    return with_the_weights_of(theirs, UNet2DConditionModel(**config, generator=0)), theirs


def draw_inputs(config, size=(8, 12)):
    rng = np.random.default_rng(1)
    kind = config.get("class_embed_type")
    labels = {"identity": rng.standard_normal((3, 32), np.float32), "timestep": np.array([4, 0, 700])}.get(kind)
    labels = np.array([3, 0, 3]) if "num_class_embeds" in config else labels
    images, text = rng.standard_normal((3, 2, *size), np.float32), rng.standard_normal((3, 5, 6), np.float32)
    return images, np.array([0, 250, 999]), text, labels


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_every_gradient(name):
    ours, theirs = build_both(CONFIGS[name])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    inputs = draw_inputs(CONFIGS[name])
    compare(ours, theirs, ours(*inputs), inputs)


def test_sizes_that_are_not_divisible_are_as_in_diffusers():
    ours, theirs = build_both(TWO)
    inputs = draw_inputs(TWO, (7, 9))
    compare(ours, theirs, ours(*inputs), inputs)


def test_files_go_both_ways(tmp_path):
    _, theirs = build_both(CONFIGS["as Stable Diffusion 2"])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = UNet2DConditionModel.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "ours").eval()
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")]
    assert len({str({key: value for key, value in sorted(config.items()) if key != "_diffusers_version"}) for config in configs}) == 1
    images, timesteps, text, _ = draw_inputs({})
    with torch.no_grad(), ours.inference():
        expected = theirs.eval()(*map(torch.from_numpy, (images, timesteps, text))).sample.numpy()
        for _ in range(3):  # the third may follow a plan
            assert worst(ours(images, timesteps, text), expected) < 1e-5
        np.testing.assert_array_equal(again(*map(torch.from_numpy, (images, timesteps, text))).sample.numpy(), expected)


def test_the_network_of_stable_diffusion_has_all_its_arrays():
    """With an eighth of its widths."""
    config = {"cross_attention_dim": 96, "block_out_channels": (40, 80, 160, 160), "norm_num_groups": 8}
    ours = UNet2DConditionModel(**config, generator=0)
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**config)
    assert {key: parameter.shape for key, parameter in ours.named_parameters()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }
