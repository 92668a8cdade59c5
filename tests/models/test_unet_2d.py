"""UNet2dModel and its blocks: gradients, any image size, conditioning, the state dict, bad input, one golden run."""

import json
from pathlib import Path

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.kernels import jit
from hcrot.losses import mse_loss
from hcrot.models.unet_2d import DownBlock2D, ResnetBlock2D, UNet2dModel, UNetMidBlock2D, UpBlock2D
from hcrot.optim import AdamW

GOLDEN = Path(__file__).parent / "golden_losses.json"

TEST_NET = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "num_class_embeds": 10,
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


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are tiny: on a busy machine threads would only wait for each other."""
    before = jit.get_num_threads()
    jit.set_num_threads(1)
    yield
    jit.set_num_threads(before)


def make(config, **changes):
    return UNet2dModel(**{**config, **changes}, generator=np.random.default_rng(0))


def draw(shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


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


@pytest.mark.parametrize("size", [(7, 7), (5, 9), (1, 1), (2, 3), (14, 14)])
def test_any_image_size(size):
    """Odd and non-square sizes, on which diffusers fails and the predecessor mixed up height and width (B09)."""
    model = make(THREE_LEVELS)
    sample = draw((2, 2, *size), np.float64)
    check_gradients(model, sample, 5, rtol=1e-5)
    assert make(THREE_LEVELS)(sample.astype(np.float32), 5).shape == (2, 3, *size)


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


def test_images_of_a_batch_do_not_see_each_other():
    model, sample = make(TEST_NET), draw((4, 1, 8, 8))
    together = model(sample, np.array([1, 2, 3, 4]), np.array([0, 1, 2, 3]))
    alone = np.concatenate([model(sample[i : i + 1], i + 1, i) for i in range(4)])
    assert np.abs(together - alone).max() < 1e-5 * np.abs(alone).max()


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


def test_from_config_names_every_key_that_is_no_argument():
    with pytest.raises(ValueError, match="from_config: cross_attention_dim, zero_init: no such argument"):
        UNet2dModel.from_config({**TEST_NET, "_name_or_path": "here", "zero_init": True, "cross_attention_dim": 8})


# bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"block_out_channels": (8, 16, 16)}, ValueError, "down_block_types has 2 entries, block_out_channels has 3"),
        ({"up_block_types": ("UpBlock2D",)}, ValueError, "up_block_types has 1 entries"),
        ({"block_out_channels": (8, 18)}, ValueError, r"block_out_channels\[1\] 18 is not divisible by norm_num_groups 4"),
        ({"in_channels": 0}, ValueError, "in_channels must be an int of at least 1, got 0"),
        ({"num_class_embeds": 0}, ValueError, "num_class_embeds must be an int of at least 1, got 0"),
        ({"downsample_padding": 2}, ValueError, "downsample_padding must be 0 or 1, got 2"),
        ({"dropout": 1.5}, ValueError, "1.5"),
        ({"attention_head_dim": 32}, ValueError, "32"),
        ({"attn_norm_num_groups": 0}, ValueError, "attn_norm_num_groups must be an int of at least 1, got 0"),
        ({"norm_eps": "small"}, ValueError, "norm_eps must be a number from 0 to inf, got 'small'"),
        ({"block_out_channels": 8}, ValueError, "block_out_channels must be a sequence of widths, one for each level, got 8"),
        ({"mid_block_type": "Nonsense"}, NotImplementedError, "mid_block_type='Nonsense'"),
        ({"down_block_types": ("DownBlock2D", "AttnSkipDownBlock2D")}, NotImplementedError, "down_block_types.*AttnSkipDownBlock2D"),
        ({"resnet_time_scale_shift": "scale_shift"}, NotImplementedError, "resnet_time_scale_shift='scale_shift'"),
        ({"time_embedding_type": "fourier"}, NotImplementedError, "time_embedding_type='fourier'"),
        ({"class_embed_type": "timestep"}, NotImplementedError, "class_embed_type='timestep'"),
        ({"act_fn": "mish"}, NotImplementedError, "act_fn='mish'"),
        ({"downsample_type": "resnet"}, NotImplementedError, "downsample_type='resnet'"),
        ({"mid_block_scale_factor": 2}, NotImplementedError, "mid_block_scale_factor=2"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        make(TEST_NET, **changes)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((draw((2, 3, 8, 8)), 0, 0), r"sample.*\(batch, 1, height, width\), got \(2, 3, 8, 8\)"),
        ((draw((1, 8, 8)), 0, 0), r"got \(1, 8, 8\)"),
        ((np.zeros((0, 1, 8, 8), np.float32), 0, 0), r"got \(0, 1, 8, 8\)"),
        ((np.zeros((2, 1, 8, 8), np.uint8), 0, 0), "float32 images.*got uint8"),
        ((draw((2, 1, 8, 8), np.float64), 0, 0), "float32 images.*got float64"),
        ((draw((2, 1, 8, 8)), np.arange(3), 0), r"timesteps.*\(2,\).*got shape \(3,\)"),
        ((draw((2, 1, 8, 8)), 0), "class_labels missing"),
        ((draw((2, 1, 8, 8)), 0, np.array([1, 10])), "10"),
        ((draw((2, 1, 8, 8)), 0, np.array([-1, 1])), "-1"),
        ((draw((2, 1, 8, 8)), 0, np.array([0.5, 1])), "float64"),
        ((draw((2, 1, 8, 8)), 0, np.array([1, 2, 3])), r"class_labels.*got shape \(3,\)"),
    ],
)
def test_bad_inputs(inputs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(TEST_NET)(*inputs)


def test_labels_without_class_conditioning():
    with pytest.raises(ValueError, match="class_labels given"):
        make(TEST_NET, num_class_embeds=None)(draw((2, 1, 8, 8)), 0, 1)


# a whole run --------------------------------------------------------------------------------------------------


def test_ten_golden_losses():
    """Ten steps of training, loss by loss; a change of any number anywhere shows. Written by ``python tests/models/test_unet_2d.py``."""
    assert np.allclose(ten_losses(), json.loads(GOLDEN.read_text()), rtol=1e-4)


def ten_losses():
    rng, model = np.random.default_rng(0), make(TEST_NET)
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
