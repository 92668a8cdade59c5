"""UNet2dModel with block classes of one's own: what they are called with, their gradients, and what config says of them."""

import numpy as np
import pytest

from hcrot.functional import concatenate, plus, split
from hcrot.gradcheck import check_gradients
from hcrot.layers.activation import Tanh
from hcrot.layers.attention import Attention
from hcrot.layers.conv import Conv2d
from hcrot.layers.linear import Linear
from hcrot.models.unet_2d import UNet2dModel
from hcrot.models.unet_2d_blocks import DownBlock2D
from hcrot.module import Module
from support.small_unets import SMALL, draw

TWO = SMALL | {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"), "generator": 0}


class Gated(Module):
    """``num_layers`` times ``h <- h + tanh(conv(h) + linear(temb))``, after a 1x1 convolution; nothing of hcrot's blocks."""

    def __init__(self, in_channels, out_channels, num_layers, *, resnet, attention, downsample, temb_channels, generator):
        assert attention is None and callable(resnet)
        self.widen = Conv2d(in_channels, out_channels, 1, generator=generator)
        self.convs = [Conv2d(out_channels, out_channels, 3, padding=1, generator=generator) for _ in range(num_layers)]
        self.linears = [Linear(temb_channels, out_channels, generator=generator) for _ in range(num_layers)]
        self.acts = [Tanh() for _ in range(num_layers)]
        self.downsamplers = [downsample(out_channels)] if downsample else []

    def forward(self, h, temb, skips):
        h = self.widen(h)
        for conv, linear, act in zip(self.convs, self.linears, self.acts, strict=True):
            h = h + act(conv(h, shift=linear(temb)))
            skips.append(h)
        for downsample in self.downsamplers:
            h = downsample(h)
            skips.append(h)
        return h

    def backward(self, dh, dtemb, dskips):
        for downsample in self.downsamplers:
            dh = downsample.backward(plus(dh, dskips.pop()))
        for conv, linear, act in zip(self.convs[::-1], self.linears[::-1], self.acts[::-1], strict=True):
            dh = plus(dh, dskips.pop())
            d = act.backward(dh)
            dtemb += linear.backward(d.sum(axis=(2, 3)))
            dh = dh + conv.backward(d)
        return self.widen.backward(dh)


class AttentiveUp(Module):
    """All skips at once, one residual block, attention."""

    attends = True

    def __init__(self, in_channels, out_channels, skip_channels, resnet, attention, upsample):
        self.widths = [in_channels, *skip_channels]
        self.resnet, self.attention = resnet(sum(self.widths), out_channels), attention(out_channels)
        self.upsamplers = [upsample(out_channels)] if upsample else []

    def forward(self, h, temb, skips):
        for _ in self.widths[1:]:
            h = concatenate(h, skips.pop())
        h = self.attention(self.resnet(h, temb))
        for upsample in self.upsamplers:
            h = upsample(h, size=skips[-1].shape[2:])
        return h

    def backward(self, dh, dtemb, dskips):
        for upsample in self.upsamplers:
            dh = upsample.backward(dh)
        dh = self.resnet.backward(self.attention.backward(dh), dtemb)
        for count in range(len(self.widths) - 1, 0, -1):
            dh, dskip = split(dh, sum(self.widths[:count]))
            dskips.append(dskip)
        return dh


def test_gradients_and_that_a_step_of_inference_is_the_same():
    model = UNet2dModel(**TWO | {"down_block_types": (Gated, "DownBlock2D"), "up_block_types": (AttentiveUp, AttentiveUp)})
    assert isinstance(model.up_blocks[0].attention, Attention) and model.up_blocks[0].attention.dim_head == SMALL["attention_head_dim"]
    sample, times = draw((2, 1, 7, 5)), np.array([3, 500])
    y = model(sample, times)
    with model.inference():
        for _ in range(3):
            np.testing.assert_array_equal(model(sample, times), y)
    model.forget()
    check_gradients(model, sample.astype(np.float64), times)


def test_a_block_derived_from_hcrots_is_one_without_attention():
    class Plain(DownBlock2D):
        pass

    ours, same = UNet2dModel(**TWO | {"down_block_types": (Plain, Plain)}), UNet2dModel(**TWO)
    sample = draw((2, 1, 8, 8))
    np.testing.assert_array_equal(ours(sample, 3), same(sample, 3))


def test_config_names_the_class_and_makes_no_network():
    model = UNet2dModel(**TWO | {"down_block_types": ("DownBlock2D", Gated)})
    assert model.config["down_block_types"] == ["DownBlock2D", f"{__name__}.Gated"]
    with pytest.raises(NotImplementedError, match=r"own, expected the class itself, as in UNet2dModel\(down_block_types=\(Gated, "):
        UNet2dModel.from_config(model.config)


def test_no_folder_is_written_that_names_a_class(tmp_path):
    model = UNet2dModel(**TWO | {"down_block_types": ("DownBlock2D", Gated)})
    with pytest.raises(ValueError, match="UNet2dModel makes no network of the model's config: .*own, expected the class itself"):
        model.save_pretrained(tmp_path / "network")
    assert not (tmp_path / "network").exists()


class Forgetful(DownBlock2D):
    def forward(self, h, temb, skips):
        h = super().forward(h, temb, skips)
        skips.pop()
        return h


class Greedy(DownBlock2D):
    def backward(self, dh, dtemb, dskips):
        dh = super().backward(dh, dtemb, dskips)
        dskips.pop()
        return dh


def test_a_block_that_breaks_the_contract_is_named():
    sample = draw((1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"UNet2dModel: Forgetful\.forward must leave 3 skips, it left 2"):
        UNet2dModel(**TWO | {"down_block_types": (Forgetful, "DownBlock2D")})(sample, 1)
    model = UNet2dModel(**TWO | {"down_block_types": ("DownBlock2D", Greedy)})
    with pytest.raises(ValueError, match=r"UNet2dModel: Greedy\.backward must leave 3 dskips, it left 2"):
        model.backward(model(sample, 1))
    with pytest.raises(ValueError, match="down_block_types: <class 'int'> is not known"):
        UNet2dModel(**TWO | {"down_block_types": (int, "DownBlock2D")})
