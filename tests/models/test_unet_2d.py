"""UNet2dModel and its blocks: gradients, any image size, conditioning, the state dict, one golden run."""

import json
from pathlib import Path

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.conv import Conv2d
from hcrot.layers.norm import GroupNormSiLU
from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_blocks import DownBlock2D, ResnetBlock2D, UNetMidBlock2D, UpBlock2D
from hcrot.training.losses import mse_loss
from hcrot.training.optim import AdamW
from support.small_unets import TEST_NET, draw, make

pytestmark = pytest.mark.usefixtures("one_kernel_thread")

GOLDEN = Path(__file__).parent / "golden_losses.json"

SMALL = {**TEST_NET, "block_out_channels": (4, 6), "norm_num_groups": 2, "layers_per_block": 1, "attention_head_dim": 3}
ATTENTION_ABOVE = {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D")}
RESNET_SAMPLERS = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "UpBlock2D"),
}
THREE_LEVELS = {
    "in_channels": 2,
    "out_channels": 3,
    "block_out_channels": (4, 8, 8),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "layers_per_block": 1,
}


# gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(4, 6), (6, 6)])
def test_gradients_of_a_residual_block(widths):
    block = ResnetBlock2D(*widths, 5, groups=2, generator=np.random.default_rng(0))

    def backward(block, dy):
        dtemb = np.zeros((3, 5))
        return block.backward(dy, dtemb), dtemb

    check_gradients(block, draw((3, widths[0], 5, 4), np.float64), draw((3, 5), np.float64), backward=backward)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_class_embeds": None},
        {"add_attention": False, "downsample_padding": 0},
        {"mid_block_type": None, "layers_per_block": 1},
        {"center_input_sample": True, "flip_sin_to_cos": False, "freq_shift": 1, "attention_head_dim": None},
        {"dropout": 0.3, "attn_norm_num_groups": 8, "attention_head_dim": 6},
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_gradients_of_the_whole_network(changes):
    """Input and every parameter; repeated labels; the predecessor left 24 tensors without gradient (B01, B02, B03, B04)."""
    model = make(TEST_NET, **changes)
    labels = None if model.class_embedding is None else np.array([3, 3, 9])
    report = check_gradients(model, draw((3, 1, 6, 8), np.float64), np.array([0, 17, 999]), labels, rtol=1e-5)
    assert len(report.lines) == 1 + len(model.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 2, "act_fn": "mish", "dropout": 0.2},
        {"act_fn": "relu"},
        {"mid_block_scale_factor": 1.7},
        ATTENTION_ABOVE | {"downsample_type": "resnet", "upsample_type": "resnet", "dropout": 0.2},
        ATTENTION_ABOVE | {"downsample_type": "resnet", "resnet_time_scale_shift": "scale_shift", "downsample_padding": 0},
        RESNET_SAMPLERS | {"act_fn": "gelu", "time_embedding_dim": 12},
        {"time_embedding_type": "fourier"},
        {"time_embedding_type": "fourier", "class_embed_type": "timestep", "center_input_sample": True},
        {"time_embedding_type": "learned", "num_train_timesteps": 1000, "norm_eps": 1e-2},
        {"time_embedding_type": "learned", "num_train_timesteps": 1000, "class_embed_type": "timestep"},
        {"class_embed_type": "timestep", "num_class_embeds": None},
        {"class_embed_type": "identity"},
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items() if "block_types" not in name),
)
def test_gradients_of_every_option(changes):
    """The options that act in other places than in the networks above; inputs and every parameter."""
    model = make(SMALL, **changes)
    labels = draw((2, 16), np.float64, seed=2) if model.config["class_embed_type"] == "identity" else np.array([3, 9])
    report = check_gradients(model, draw((2, 1, 4, 6), np.float64), np.array([1, 700]), labels, rtol=1e-5)
    assert len(report.lines) == 1 + len(model.parameters()) + (model.config["class_embed_type"] == "identity")


@pytest.mark.parametrize("size", [(7, 7), (5, 9), (1, 1), (2, 3), (14, 14)])
def test_any_image_size(size):
    """Odd and non-square sizes, on which diffusers fails and the predecessor mixed up height and width (B09)."""
    model = make(THREE_LEVELS)
    sample = draw((2, 2, *size), np.float64)
    check_gradients(model, sample, 5, rtol=1e-5)
    assert make(THREE_LEVELS)(sample.astype(np.float32), 5).shape == (2, 3, *size)


@pytest.mark.parametrize("size", [(7, 7), (5, 9), (14, 15)])
def test_any_image_size_that_residual_blocks_can_halve(size):
    model = make(TEST_NET, **RESNET_SAMPLERS)
    check_gradients(model, draw((2, 1, *size), np.float64), 5, np.array([1, 2]), rtol=1e-5)


# conditioning -------------------------------------------------------------------------------------------------


def test_one_number_stands_for_every_image():
    model, sample = make(TEST_NET), draw((3, 1, 8, 8))
    expected = model(sample, np.array([7, 7, 7]), np.array([2, 2, 2]))
    assert np.array_equal(model(sample, 7, 2), expected)
    assert np.array_equal(model(sample, np.array([7]), np.array([2])), expected)
    assert np.array_equal(model(sample, np.int64(7), np.array(2)), expected)


def test_time_and_class_reach_the_output():
    model, sample = make(TEST_NET), draw((1, 1, 8, 8))
    base = model(sample, 7, 2)
    assert np.abs(model(sample, 8, 2) - base).max() > 1e-6
    assert np.abs(model(sample, 7, 3) - base).max() > 1e-6


def test_labels_like_times_are_numbers():
    model, sample = make(TEST_NET, class_embed_type="timestep"), draw((2, 1, 8, 8))
    expected = model(sample, 7, np.array([2, 2]))
    assert np.array_equal(model(sample, np.array([7, 7]), 2.0), expected)
    assert np.abs(model(sample, 7, 2.5) - expected).max() > 1e-6


def test_a_fraction_of_a_timestep_counts():
    """diffusers cuts a Python float to an integer, but keeps a tensor's fraction."""
    model, sample = make(TEST_NET), draw((1, 1, 8, 8))
    assert np.array_equal(model(sample, 7.5, 2), model(sample, np.array([7.5]), 2))
    assert np.abs(model(sample, 7.5, 2) - model(sample, 7, 2)).max() > 1e-6


def test_embeddings_as_labels_get_a_gradient():
    model = make(TEST_NET, class_embed_type="identity")
    y = model(draw((3, 1, 8, 8)), 7, draw((3, 32)))
    dsample, dlabels = model.backward(draw(y.shape))
    assert dsample.shape == (3, 1, 8, 8) and dlabels.shape == (3, 32) and dlabels.dtype == np.float32 and dlabels.any()


def test_random_frequencies_divide_by_the_time_and_are_not_learned():
    """A time of 0 has no logarithm: NaN, as in diffusers."""
    model, sample = make(TEST_NET, time_embedding_type="fourier"), draw((2, 1, 8, 8))
    frequencies = model.time_proj.weight.data.copy()
    assert 8 < np.abs(frequencies).max() < 64  # drawn from N(0, 16^2)
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.backward(model(sample, np.array([3, 500]), 1))
    optimizer.step()
    assert np.array_equal(model.time_proj.weight.data, frequencies)
    assert "time_proj.weight" in model.state_dict() and model.time_embedding.linear_1.weight.shape == (32, 16)
    with np.errstate(divide="ignore", invalid="ignore"):
        assert np.isnan(model(sample, np.array([0, 5]), 1)[0]).all()


def test_non_finite_images_and_times_beyond_training_are_not_refused():
    model, sample = make(TEST_NET), draw((2, 1, 8, 8))
    assert np.isfinite(model(sample, np.array([-5, 10**6]), 1)).all()
    sample[0, 0, 3, 3] = np.nan
    y = model(sample, 5, 1)
    assert np.isnan(y[0]).any() and np.isfinite(y[1]).all()


def test_images_of_a_batch_do_not_see_each_other():
    model, sample = make(TEST_NET), draw((4, 1, 8, 8))
    together = model(sample, np.array([1, 2, 3, 4]), np.array([0, 1, 2, 3]))
    alone = np.concatenate([model(sample[i : i + 1], i + 1, i) for i in range(4)])
    assert np.abs(together - alone).max() < 1e-5 * np.abs(alone).max()


# what diffusers' options mean ----------------------------------------------------------------------------------


def keys(**changes):
    return {name: array.shape for name, array in make(TEST_NET, **changes).state_dict().items()}


def test_the_default_activation_is_fused_with_its_norm():
    for act_fn in ("silu", "swish", "SiLU"):
        resnet = make(TEST_NET, act_fn=act_fn).mid_block.resnets[0]
        assert type(resnet.norm1) is type(resnet.norm2) is GroupNormSiLU
    assert keys(act_fn="relu") == keys()


def test_only_blocks_with_attention_ask_how_to_resample():
    assert keys(downsample_type="resnet", upsample_type="conv") == keys()
    changed = keys(**ATTENTION_ABOVE, downsample_type="resnet", upsample_type="resnet")
    assert "down_blocks.0.downsamplers.0.conv1.weight" in changed and "up_blocks.0.upsamplers.0.time_emb_proj.bias" in changed
    assert "down_blocks.0.downsamplers.0.conv1.weight" in keys(**RESNET_SAMPLERS)


def test_the_first_releases_names_of_blocks():
    old = {side: tuple(f"UNetRes{kind}" for kind in TEST_NET[side]) for side in ("down_block_types", "up_block_types")}
    assert keys(**old) == keys()


def test_heads_that_do_not_divide_the_channels():
    assert keys(attention_head_dim=6)["mid_block.attentions.0.to_q.weight"] == (12, 16)
    assert keys(attention_head_dim=None)["mid_block.attentions.0.to_q.weight"] == (16, 16)
    assert make(TEST_NET, attention_head_dim=None).mid_block.attentions[0].heads == 1


def test_norm_of_the_mid_attention():
    norm = "mid_block.attentions.0.group_norm.weight"
    assert norm in keys() and norm not in keys(resnet_time_scale_shift="scale_shift")
    assert norm in keys(resnet_time_scale_shift="scale_shift", attn_norm_num_groups=2)
    assert make(TEST_NET, attn_norm_num_groups=2).mid_block.attentions[0].group_norm.num_groups == 2
    assert not any("mid_block.attentions" in name for name in keys(add_attention=False))
    assert not any("mid_block" in name for name in keys(mid_block_type=None))


def test_a_table_of_classes_only_without_class_embed_type():
    assert "class_embedding.weight" in keys()
    assert keys(class_embed_type="timestep")["class_embedding.linear_1.weight"] == (32, 8)
    assert not any("class_embedding" in name for name in keys(class_embed_type="identity"))


# state --------------------------------------------------------------------------------------------------------


def test_parameter_counts_and_order():
    """Counts of diffusers' networks (the whole default network has 274,056,163); order as PyTorch's: up blocks before the mid block."""
    seed = {"block_out_channels": (32, 64, 32), "add_attention": True, "num_class_embeds": 10, "in_channels": 1, "out_channels": 1}
    seed |= {"down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3}
    assert make(seed).num_parameters() == 982_593
    model = make(TEST_NET)
    assert model.num_parameters() == 64_513
    names = [name for name, _ in model.named_parameters()]
    tops = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert tops == ["conv_in", "time_embedding", "class_embedding", "down_blocks", "up_blocks", "mid_block", "conv_norm_out", "conv_out"]
    model(draw((1, 1, 4, 4)), 0, 0)
    assert [name for name, _ in model.named_parameters()] == names  # B14: using a network does not add to it


def test_same_generator_same_weights():
    one, two = make(TEST_NET).state_dict(), make(TEST_NET).state_dict()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_config_has_every_argument_of_diffusers():
    config = make(TEST_NET).config
    assert len(config) == 28 and config["block_out_channels"] == [8, 16] and config["norm_eps"] == 1e-5
    assert UNet2dModel(**config, generator=np.random.default_rng(0)).num_parameters() == 64_513


def test_from_config_builds_what_config_json_describes():
    model = make(TEST_NET, downsample_padding=0, norm_eps=1e-6)
    config = json.loads(json.dumps({"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", **model.config}))
    same = UNet2dModel.from_config(config, generator=np.random.default_rng(0))
    assert same.config == model.config
    assert all(np.array_equal(array, model.state_dict()[name]) for name, array in same.state_dict().items())


def test_from_config_takes_defaults_for_what_is_missing():
    config = {name: value for name, value in TEST_NET.items() if name != "num_class_embeds"}
    assert UNet2dModel.from_config(config).config == make(config).config


def test_from_config_names_every_key_that_is_no_argument_and_keeps_it():
    config = {**TEST_NET, "_name_or_path": "here", "zero_init": True, "cross_attention_dim": 8}
    message = "UNet2dModel.from_config: unknown configuration keys are ignored: 'cross_attention_dim', 'zero_init'$"
    with pytest.warns(UserWarning, match=message) as caught:
        model = UNet2dModel.from_config(config, generator=np.random.default_rng(0))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert model.config == {**make(TEST_NET).config, "zero_init": True, "cross_attention_dim": 8}


def test_from_config_takes_defaults_for_what_nobody_chose():
    config = {**TEST_NET, "norm_eps": 0.5, "flip_sin_to_cos": False, "_use_default_values": ["norm_eps", "act_fn"]}
    assert UNet2dModel.from_config(config).config == make(TEST_NET, flip_sin_to_cos=False).config


@pytest.mark.parametrize("config", ["folder", None, [("in_channels", 1)]])
def test_from_config_wants_a_mapping(config):
    with pytest.raises(TypeError, match=f"UNet2dModel.from_config: config is a {type(config).__name__}, expected arguments by name"):
        UNet2dModel.from_config(config)


# a whole run --------------------------------------------------------------------------------------------------


def test_ten_golden_losses():
    """Ten steps of training, loss by loss; a change of any number anywhere shows. Written by ``python tests/models/test_unet_2d.py``."""
    assert np.allclose(ten_losses(), json.loads(GOLDEN.read_text()), rtol=1e-4)


def test_a_run_by_winograd_is_a_run_by_im2col():
    """The same ten steps with every 3x3 convolution forced to either algorithm: losses within 1e-3 of each other, and not the same bits."""
    runs = [ten_losses({**TEST_NET, "block_out_channels": (16, 32)}, algorithm) for algorithm in ("winograd", "im2col")]
    np.testing.assert_allclose(*runs, rtol=1e-3)
    assert runs[0] != runs[1]


def ten_losses(config=TEST_NET, algorithm="auto"):
    rng, model = np.random.default_rng(0), make(config)
    for layer in model.modules():
        if isinstance(layer, Conv2d) and layer.geometry[:4] == (3, 3, 1, 1):
            layer.algorithm = algorithm
    optimizer = AdamW(model.parameters(), lr=3e-3)
    clean, labels = draw((8, 1, 7, 9), seed=2), np.arange(8) % 5
    losses = []
    for _ in range(10):
        noise = rng.standard_normal(clean.shape, dtype=np.float32)
        loss, dout = mse_loss(model(clean + noise, rng.integers(0, 1000, 8), labels), noise)
        losses.append(loss)
        model.backward(dout)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def test_blocks_are_public():
    assert {DownBlock2D, UNetMidBlock2D, UpBlock2D} <= {type(module) for module in make(TEST_NET).modules()}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(ten_losses()) + "\n")
