"""What UNet2dModel says to arguments that are out of range or do not fit together, and what its block types mean."""

import numpy as np
import pytest

from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_arguments import BLOCK_TYPES, parts_of
from support.small_unets import SMALL

TEST_NET = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
ATTENTION_ABOVE = {"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}


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
        ({"norm_eps": "small"}, ValueError, "norm_eps must be a finite number from 0 to inf, got 'small'"),
        ({"norm_eps": float("inf")}, ValueError, "norm_eps must be a finite number from 0 to inf, got inf"),
        ({"norm_eps": float("nan")}, ValueError, "norm_eps must be a finite number from 0 to inf, got nan"),
        ({"norm_eps": True}, ValueError, "norm_eps must be a finite number from 0 to inf, got True"),
        ({"freq_shift": float("-inf")}, ValueError, "freq_shift must be a finite number"),
        ({"mid_block_scale_factor": float("nan")}, ValueError, "mid_block_scale_factor must be a finite number"),
        ({"sample_size": 10**18}, ValueError, "sample_size must be at most 16777216, got 1000000000000000000"),
        ({"num_train_timesteps": 10**18}, ValueError, "num_train_timesteps must be at most 16777216"),
        ({"block_out_channels": 8}, ValueError, "block_out_channels must be a sequence of widths, one for each level, got 8"),
        ({"block_out_channels": (8, 2.5)}, ValueError, r"block_out_channels\[1\] must be an int of at least 1, got 2.5"),
        ({"sample_size": 0}, ValueError, "sample_size must be an int of at least 1, got 0"),
        ({"sample_size": (8, -1)}, ValueError, r"sample_size\[1\] must be an int of at least 1, got -1"),
        ({"sample_size": (8, 8, 8)}, ValueError, r"sample_size must be .* got \(8, 8, 8\)"),
        ({"center_input_sample": "no"}, ValueError, "center_input_sample must be False or True, got 'no'"),
        ({"flip_sin_to_cos": None}, ValueError, "flip_sin_to_cos must be False or True, got None"),
        ({"add_attention": "mid"}, ValueError, "add_attention must be False or True, got 'mid'"),
        ({"time_embedding_type": "sinus"}, ValueError, "time_embedding_type must be 'positional' or 'fourier' or 'learned', got 'sinus'"),
        ({"time_embedding_dim": 0}, ValueError, "time_embedding_dim must be an int of at least 1, got 0"),
        ({"freq_shift": 4}, ValueError, r"freq_shift must be less than 4, half of block_out_channels\[0\], got 4"),
        ({"freq_shift": None}, ValueError, "freq_shift must be a finite number from -inf to inf, got None"),
        ({"down_block_types": "DownBlock2D"}, ValueError, "down_block_types must be a sequence of names.*got 'DownBlock2D'"),
        ({"down_block_types": ("DownBlock2D", "UpBlock2D")}, ValueError, "down_block_types: 'UpBlock2D' is not known.*AttnDownBlock2D"),
        ({"up_block_types": ("UpBlock2D", None)}, ValueError, "up_block_types: None is not known"),
        ({"mid_block_type": "Nonsense"}, ValueError, "mid_block_type must be 'UNetMidBlock2D' or None, got 'Nonsense'"),
        ({"layers_per_block": 0}, ValueError, "layers_per_block must be an int of at least 1, got 0"),
        ({"mid_block_scale_factor": 0}, ValueError, "mid_block_scale_factor must be a number other than 0, got 0"),
        ({"mid_block_scale_factor": "2"}, ValueError, "mid_block_scale_factor must be a finite number .*, got '2'"),
        ({"downsample_type": "pool"}, ValueError, "downsample_type must be 'conv' or 'resnet', got 'pool'"),
        ({"upsample_type": None}, ValueError, "upsample_type must be 'conv' or 'resnet', got None"),
        ({"act_fn": "tanh"}, ValueError, "act_fn must be 'silu' or 'swish' or 'mish' or 'gelu' or 'relu', got 'tanh'"),
        ({"act_fn": None}, ValueError, "act_fn must be .* got None"),
        ({"norm_num_groups": None}, ValueError, "norm_num_groups must be an int of at least 1, got None"),
        ({"attn_norm_num_groups": 3}, ValueError, r"block_out_channels\[1\] 16 is not divisible by attn_norm_num_groups 3"),
        ({"attention_head_dim": 17}, ValueError, r"attention_head_dim must be at most block_out_channels\[1\] 16, .* got 17"),
        (ATTENTION_ABOVE | {"attention_head_dim": 9}, ValueError, r"attention_head_dim .* block_out_channels\[0\] 8, .* got 9"),
        ({"resnet_time_scale_shift": "ada_group"}, ValueError, "resnet_time_scale_shift must be .* or 'scale_shift', got 'ada_group'"),
        ({"class_embed_type": "projection"}, ValueError, "class_embed_type must be None or 'timestep' or 'identity', got 'projection'"),
        ({"time_embedding_type": "learned"}, ValueError, "num_train_timesteps must be .* 'learned', got None"),
        ({"num_train_timesteps": 0}, ValueError, "num_train_timesteps must be an int of at least 1, got 0"),
        ({"down_block_types": ("DownBlock2D", "AttnSkipDownBlock2D")}, NotImplementedError, "there is no AttnSkipDown.*FIR"),
        ({"up_block_types": ("KUpBlock2D", "UpBlock2D")}, NotImplementedError, "up_block_types: there is no KUpBlock2D: .*k-diffusion"),
        ({"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}, NotImplementedError, "there is no CrossAttnDownBlock2D: .*text"),
        ({"up_block_types": ("UpDecoderBlock2D", "UpBlock2D")}, NotImplementedError, "there is no UpDecoderBlock2D: .*autoencoder"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        UNet2dModel(**TEST_NET | changes)


def test_parts_of_blocks():
    for kinds in BLOCK_TYPES.values():
        plain, attending, resnet = kinds
        for prefix in ("", "UNetRes"):
            assert parts_of(prefix + plain, "resnet") == parts_of(prefix + plain, "conv") == (False, "conv")
            assert [parts_of(prefix + attending, how) for how in ("conv", "resnet")] == [(True, "conv"), (True, "resnet")]
            assert parts_of(prefix + resnet, "conv") == (False, "resnet")


INTS = (
    "in_channels", "out_channels", "layers_per_block", "norm_num_groups", "attention_head_dim", "num_class_embeds", "downsample_padding",
)  # fmt: skip


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shift", ["default", "scale_shift"])
def test_integers_of_numpy_are_as_pythons(tmp_path, kind, shift):
    """With uint8, which ends at 255, 4 x 64 channels of the time embedding are too many."""
    options = SMALL | {"block_out_channels": (64, 128), "num_class_embeds": 3, "downsample_padding": 1, "resnet_time_scale_shift": shift}
    numpys = options | {name: kind(options[name]) for name in INTS}
    numpys |= {"block_out_channels": tuple(map(kind, (64, 128))), "sample_size": (kind(8), kind(8))}
    model, same = UNet2dModel(**numpys, generator=0), UNet2dModel(**options | {"sample_size": (8, 8)}, generator=0)
    assert model.config == same.config and repr(model) == repr(same)
    values = [value for name in INTS for value in (model.config[name], *model.config["block_out_channels"], *model.config["sample_size"])]
    assert {type(value) for value in values} == {int}
    model.save_pretrained(tmp_path)
    assert UNet2dModel.from_pretrained(tmp_path).config == same.config


def test_small_integers_of_numpy_that_do_not_fit_together():
    with pytest.raises(ValueError, match=r"block_out_channels\[0\] 8 is not divisible by norm_num_groups 300"):
        UNet2dModel(**SMALL | {"block_out_channels": (np.uint8(8), np.uint8(16)), "norm_num_groups": 300})


def test_heads_of_any_width_are_written_only_where_they_are_used(tmp_path):
    model = UNet2dModel(**SMALL, attention_heads=3, generator=0)
    assert model.down_blocks[1].attentions[0].to_q.weight.shape == (3 * SMALL["attention_head_dim"], 16)
    model.save_pretrained(tmp_path)
    again = UNet2dModel.from_pretrained(tmp_path)
    assert again.config == model.config and again.config["attention_heads"] == 3
    assert "attention_heads" not in UNet2dModel(**SMALL, generator=0).config
    with pytest.raises(ValueError, match="attention_heads must be an int of at least 1, got 0"):
        UNet2dModel(**SMALL, attention_heads=0)
