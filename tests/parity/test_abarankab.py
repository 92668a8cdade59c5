"""The U-Net of abarankab's DDPM against one in PyTorch, written from its formulas: forward, the input's gradient and every parameter's."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402, N812

from hcrot.models.abarankab import UNet  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_kernel_thread", "one_torch_thread")

SMALL = {"img_channels": 2, "base_channels": 4, "channel_mults": (1, 2), "num_res_blocks": 1, "num_groups": 2, "dropout": 0.0}
CONFIGS = {
    "time and class": {"time_emb_dim": 6, "num_classes": 3, "activation": "silu", "attention_resolutions": (1,), "initial_pad": 2},
    "neither, of instances": {"norm": "in", "activation": "mish"},
    "class alone, of batches": {"norm": "bn", "num_classes": 3, "activation": "mish"},
    "time alone, without norm": {"norm": None, "time_emb_dim": 6, "time_emb_scale": 0.5, "activation": "silu", "num_res_blocks": 2},
}


class Reference:
    """The network as functions of its parameters."""

    def __init__(self, parameters, options):
        self.p, self.options = parameters, {"norm": "gn", "initial_pad": 0, "time_emb_scale": 1.0, "attention_resolutions": ()} | options
        self.act = getattr(F, self.options["activation"])

    def conv(self, name, x, **options):
        weight = self.p[f"{name}.weight"]
        return F.conv2d(x, weight, self.p[f"{name}.bias"], padding=weight.shape[2] // 2, **options)

    def norm(self, name, x):
        kind = self.options["norm"]
        if kind is None:
            return x
        weight, bias = self.p[f"{name}.weight"], self.p[f"{name}.bias"]
        if kind == "bn":
            return F.batch_norm(x, None, None, weight, bias, training=True)
        return F.group_norm(x, x.shape[1] if kind == "in" else self.options["num_groups"], weight, bias)

    def attention(self, name, x):
        q, k, v = self.conv(f"{name}.to_qkv", self.norm(f"{name}.norm", x)).flatten(2).chunk(3, dim=1)
        weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) / math.sqrt(x.shape[1]), dim=-1)
        return x + self.conv(f"{name}.to_out", torch.einsum("bqk,bck->bcq", weights, v).reshape(x.shape))

    def block(self, name, x, temb, y):
        h = self.conv(f"{name}.conv_1", self.act(self.norm(f"{name}.norm_1", x)))
        if temb is not None:
            h = h + F.linear(temb, self.p[f"{name}.time_bias.weight"], self.p[f"{name}.time_bias.bias"])[:, :, None, None]
        if y is not None:
            h = h + self.p[f"{name}.class_bias.weight"][y][:, :, None, None]
        h = self.conv(f"{name}.conv_2.1", self.act(self.norm(f"{name}.norm_2", h)))
        h = h + (self.conv(f"{name}.residual_connection", x) if f"{name}.residual_connection.weight" in self.p else x)
        return self.attention(f"{name}.attention", h) if f"{name}.attention.to_qkv.weight" in self.p else h

    def __call__(self, x, time, y):
        pad, p, temb = self.options["initial_pad"], self.p, None
        if time is not None:
            half = self.options["base_channels"] // 2
            angles = self.options["time_emb_scale"] * time[:, None] * 10000 ** (-torch.arange(half) / half)
            waves = torch.cat([angles.sin(), angles.cos()], dim=1)
            temb = F.silu(F.linear(waves, p["time_mlp.1.weight"], p["time_mlp.1.bias"]))
            temb = self.act(F.linear(temb, p["time_mlp.3.weight"], p["time_mlp.3.bias"]))
        h = self.conv("init_conv", F.pad(x, (pad,) * 4))
        skips, index = [h], 0
        while f"downs.{index}.conv_1.weight" in p or f"downs.{index}.downsample.weight" in p:
            halves = f"downs.{index}.downsample.weight" in p
            h = self.conv(f"downs.{index}.downsample", h, stride=2) if halves else self.block(f"downs.{index}", h, temb, y)
            skips.append(h)
            index += 1
        h = self.block("mid.1", self.block("mid.0", h, temb, y), temb, y)
        for index in range(len({name.split(".")[1] for name in p if name.startswith("ups.")})):
            if f"ups.{index}.upsample.1.weight" in p:
                h = self.conv(f"ups.{index}.upsample.1", F.interpolate(h, scale_factor=2))
            else:
                h = self.block(f"ups.{index}", torch.cat([h, skips.pop()], dim=1), temb, y)
        y = self.conv("out_conv", self.act(self.norm("out_norm", h)))
        return y[:, :, pad : y.shape[2] - pad, pad : y.shape[3] - pad]


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_every_gradient(name):
    options = SMALL | CONFIGS[name]
    rng, ours = np.random.default_rng(0), UNet(**options, generator=0)
    for key, parameter in ours.named_parameters():
        if "norm" in key and parameter.trainable:
            parameter.data += 0.3 * rng.standard_normal(parameter.shape, np.float32)
    parameters = {key: torch.tensor(p.data, requires_grad=True) for key, p in ours.named_parameters() if p.trainable}
    x = rng.standard_normal((3, 2, 4, 6), np.float32)
    time = np.array([0, 1, 250]) if ours.time_mlp else None
    y = np.array([2, 0, 2]) if ours.num_classes else None
    theirs = torch.tensor(x, requires_grad=True)
    expected = Reference(parameters, options)(theirs, *[None if array is None else torch.from_numpy(array) for array in (time, y)])
    output = ours(x, time, y)
    scale = float(expected.detach().abs().max())
    np.testing.assert_allclose(output, expected.detach().numpy(), atol=1e-5 * scale, rtol=0)

    cotangent = rng.standard_normal(output.shape, np.float32)
    expected.backward(torch.from_numpy(cotangent))
    gradients = {"x": (ours.backward(cotangent), theirs.grad)}
    gradients |= {key: (p.grad, parameters[key].grad) for key, p in ours.named_parameters() if p.trainable}
    largest = max(float(gradient.abs().max()) for _, gradient in gradients.values())
    for key, (mine, other) in gradients.items():
        # a bias before a norm of its channel alone has a gradient of zero but for rounding
        bound = 1e-4 * max(float(other.abs().max()), largest / 100)
        np.testing.assert_allclose(mine, other.numpy(), atol=bound, rtol=0, err_msg=key)
