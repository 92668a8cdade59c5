"""The U-Net of the paper-with-code post against a version in PyTorch that was written for this test: output and every gradient."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812

from hcrot.models.ddpm_unet import UNet  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Reference:
    """The network as functions of a state dict, by the post's formulas, with its errors mended."""

    def __init__(self, state, groups, heads):
        self.state = {name: torch.from_numpy(value.copy()).requires_grad_() for name, value in state.items()}
        self.groups, self.heads = groups, heads

    def pair(self, name):
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def conv(self, name, x, **options):
        weight, bias = self.pair(name)
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, **options)

    def norm(self, name, x):
        return F.group_norm(x, self.groups, *self.pair(name))

    def block(self, name, x, t):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = h + F.linear(F.silu(t), *self.pair(f"{name}.time_emb_proj"))[:, :, None, None]
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        return h + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.state else x)

    def attention(self, name, x):
        """One product for q, k and v, as in the post; each head is as wide as x."""
        batch, channels, height, width = x.shape
        tokens = self.norm(f"{name}.group_norm", x).flatten(2).transpose(1, 2)
        weights, biases = (torch.cat([self.state[f"{name}.to_{part}.{kind}"] for part in "qkv"]) for kind in ("weight", "bias"))
        qkv = F.linear(tokens, weights, biases).reshape(batch, -1, 3, self.heads, channels)
        q, k, v = qkv.unbind(2)
        scores = torch.einsum("bihd,bjhd->bijh", q, k) * channels**-0.5
        o = torch.einsum("bijh,bjhd->bihd", scores.softmax(dim=2), v).reshape(batch, -1, self.heads * channels)
        o = F.linear(o, *self.pair(f"{name}.to_out.0"))
        return x + o.transpose(1, 2).reshape(x.shape)

    def layer(self, name, index, x, t):
        h = self.block(f"{name}.resnets.{index}", x, t)
        return self.attention(f"{name}.attentions.{index}", h) if f"{name}.attentions.{index}.to_q.weight" in self.state else h

    def __call__(self, x, time, levels):
        half = self.state["time_embedding.linear_1.weight"].shape[1] // 2
        angles = time[:, None] * 10000 ** (-torch.arange(half, dtype=time.dtype) / (half - 1))
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        t = F.linear(F.silu(F.linear(waves, *self.pair("time_embedding.linear_1"))), *self.pair("time_embedding.linear_2"))
        h = self.conv("conv_in", x)
        skips = []
        for level in range(levels):
            if f"downs.{level}.downsample.weight" in self.state:
                h = self.conv(f"downs.{level}.downsample", h, stride=2)
            skips.append(h)
            for index in range(2):
                h = self.layer(f"downs.{level}", index, h, t)
                skips.append(h)
        h = self.block("middle.resnets.1", self.layer("middle", 0, h, t), t)
        for level in range(levels):
            for index in range(3):
                h = self.layer(f"ups.{level}", index, torch.cat([h, skips.pop()], dim=1), t)
            if f"ups.{level}.upsample.weight" in self.state:
                h = F.conv_transpose2d(h, *self.pair(f"ups.{level}.upsample"), stride=2, padding=1)
        return self.conv("conv_out", F.silu(self.norm("norm_out", h)) if "norm_out.weight" in self.state else h)


def close(got, expected, tolerance, name):
    """Equal relative to the largest entry."""
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype, name
    assert got.shape == expected.shape, name
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ({"n_heads": 1}, 3),
        ({"n_heads": 2, "final_norm": True}, 1),  # the post fails with two heads, and with one image
        ({"factors": (2, 1, 2), "has_attention": (True, False, False), "is_down": (False, False, True)}, 2),
    ],
)
def test_unet(options, batch):
    rng = np.random.default_rng(0)
    options = {"factors": (1, 2), "has_attention": (False, True), "is_down": (False, True)} | options
    ours = UNet(3, 8, n_groups=4, dropout=0, generator=rng, **options)
    for parameter in ours.parameters():
        parameter.data += 0.2 * rng.standard_normal(parameter.shape, dtype=np.float32)
    theirs = Reference(ours.state_dict(), 4, options.get("n_heads", 1))
    x, time = rng.standard_normal((batch, 3, 6, 10), dtype=np.float32), np.array([0, 3, 40])[:batch]
    image = torch.from_numpy(x.copy()).requires_grad_()
    y, expected = ours(x, time), theirs(image, torch.from_numpy(time.astype(np.float32)), len(options["factors"]))
    close(y, expected, 1e-5, "output")
    dout = rng.standard_normal(y.shape, dtype=np.float32)
    expected.backward(torch.from_numpy(dout))
    close(ours.backward(dout), image.grad, 1e-4, "input")
    for name, parameter in ours.named_parameters():
        if name.endswith("to_k.bias"):  # zero but for rounding: the softmax does not see what is added to all keys
            tolerance = 1e-4 * theirs.state[name.replace("bias", "weight")].grad.abs().max()
            assert np.abs(parameter.grad).max() < tolerance
        else:
            close(parameter.grad, theirs.state[name].grad, 1e-4, name)
