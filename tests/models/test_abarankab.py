"""The U-Net of abarankab's DDPM: names of the original, the class's bias, and what it says to bad input."""

import numpy as np
import pytest

from hcrot.models.abarankab import ResidualBlock, UNet, get_norm
from support.small_unets import draw

SMALL = {"img_channels": 1, "base_channels": 4, "channel_mults": (1, 2), "num_res_blocks": 1, "num_groups": 2, "generator": 0}

NAMES = {
    "time_mlp.1.weight": (6, 4),
    "time_mlp.3.bias": (6,),
    "init_conv.weight": (4, 1, 3, 3),
    "downs.0.norm_1.weight": (4,),
    "downs.0.conv_1.bias": (4,),
    "downs.0.conv_2.1.weight": (4, 4, 3, 3),
    "downs.0.time_bias.weight": (4, 6),
    "downs.0.class_bias.weight": (10, 4),
    "downs.1.downsample.weight": (4, 4, 3, 3),
    "downs.2.residual_connection.weight": (8, 4, 1, 1),
    "downs.2.attention.to_qkv.weight": (24, 8, 1, 1),
    "mid.0.attention.norm.bias": (8,),
    "mid.0.attention.to_out.weight": (8, 8, 1, 1),
    "mid.1.conv_1.weight": (8, 8, 3, 3),
    "ups.0.conv_1.weight": (8, 16, 3, 3),
    "ups.1.conv_1.weight": (8, 12, 3, 3),
    "ups.2.upsample.1.weight": (8, 8, 3, 3),
    "ups.4.class_bias.weight": (10, 4),
    "out_norm.weight": (4,),
    "out_conv.bias": (1,),
}


def test_parameters_have_the_names_and_shapes_of_the_original():
    model = UNet(**SMALL, time_emb_dim=6, num_classes=10, attention_resolutions=(1,))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert NAMES.items() <= shapes.items()
    assert not [name for name in shapes if name.startswith(("mid.1.attention", "downs.0.attention", "downs.0.residual"))]


def test_a_class_adds_its_row_between_the_convolutions():
    block = ResidualBlock(4, 4, 0.0, num_classes=3, norm=None, generator=0)
    x, rows = draw((2, 4, 3, 5)), block.class_bias.weight.data
    with block.inference():
        first, second = (block(x, y=np.full(2, label)) for label in (0, 1))
        block.conv_1.bias.data += rows[1] - rows[0]
        np.testing.assert_allclose(block(x, y=np.zeros(2, int)), second, atol=1e-6)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        ({}, {"time": 3}, "UNet: time came, but the network was built without it"),
        ({"time_emb_dim": 6}, {}, "UNet: time is missing: the network was built with it"),
        ({"num_classes": 3}, {}, "UNet: y is missing: the network was built with it"),
        ({"num_classes": 3}, {"y": np.array([1])}, r"UNet: y must be of shape \(2,\), one class per image, got shape \(1,\)"),
        ({"num_classes": 3}, {"y": np.array([1, 3])}, "index 3 is not from 0 to 2"),
        ({"initial_pad": 1, "channel_mults": (1, 1, 1)}, {}, "with initial_pad 1, must be multiples of 4, got 10x10"),
        ({"norm": "ln"}, {}, "get_norm: norm must be 'in', 'bn', 'gn' or None, got 'ln'"),
        ({"activation": "tanh"}, {}, "activation must be one of silu, .*, got 'tanh'"),
        ({"base_channels": 3}, {}, "base_channels even, got .* 3"),
        ({"initial_pad": -1}, {}, "initial_pad must be an int of at least 0, got -1"),
        ({"attention_resolutions": (2,)}, {}, "attention_resolutions has 2, expected ints from 0 to 1"),
    ],
)
def test_bad_input(options, inputs, message):
    with pytest.raises(ValueError, match=message):
        UNet(**SMALL | options)(draw((2, 1, 8, 8)), **inputs)


def test_padded_images_keep_their_size():
    assert UNet(**SMALL, initial_pad=2)(draw((1, 1, 6, 4))).shape == (1, 1, 6, 4)
    assert get_norm("in", 6, 4).num_groups == 6
