"""The U-Net of denoising-diffusion-pytorch against a version in PyTorch that was written for this test: outputs and every gradient.

The version reads its weights from a state dict under the original's names, and computes with PyTorch's functions; autograd does the rest.
"""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812

from hcrot.models.lucidrains import Block, ResnetBlock, Unet  # noqa: E402
from hcrot.models.lucidrains_parts import Attention, LinearAttention  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Reference:
    """The network as functions of a state dict, whose names ``prefix`` precedes."""

    def __init__(self, state, prefix="", groups=None, heads=2):
        self.state = {prefix + name: torch.from_numpy(value.copy()).requires_grad_() for name, value in state.items()}
        self.p, self.heads, self.groups = self.state.get, heads, groups

    def conv(self, name, x):
        weight = self.p(f"{name}.weight")
        return F.conv2d(x, weight, self.p(f"{name}.bias"), padding=weight.shape[2] // 2)

    def linear(self, name, x):
        return F.linear(x, self.p(f"{name}.weight"), self.p(f"{name}.bias"))

    def rms(self, name, x):
        return F.normalize(x, dim=1) * self.p(f"{name}.g") * math.sqrt(x.shape[1])

    def block(self, name, x, scale_shift=None):
        h = self.conv(f"{name}.proj", x)
        if self.groups is None:
            h = self.rms(f"{name}.norm", h)
        else:
            h = F.group_norm(h, self.groups, self.p(f"{name}.norm.weight"), self.p(f"{name}.norm.bias"))
        if scale_shift is not None:
            scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
            h = (scale + 1) * h + shift
        return F.silu(h)

    def resnet(self, name, x, t=None):
        h = self.block(f"{name}.block1", x, None if t is None else self.linear(f"{name}.mlp.1", F.silu(t)))
        h = self.block(f"{name}.block2", h)
        return h + (self.conv(f"{name}.res_conv", x) if f"{name}.res_conv.weight" in self.state else x)

    def attention(self, name, x):
        batch, _, height, width = x.shape
        qkv = self.conv(f"{name}.to_qkv", self.rms(f"{name}.norm", x))
        q, k, v = qkv.reshape(batch, 3, self.heads, -1, height * width).unbind(1)  # (B, h, d, T)
        memory = self.p(f"{name}.mem_kv")
        if f"{name}.to_out.0.weight" in self.state:
            k, v = (torch.cat([m.expand(batch, *m.shape), a], dim=3) for m, a in zip(memory, (k, v), strict=True))
            context = torch.einsum("bhdn,bhen->bhde", k.softmax(dim=3), v)
            o = torch.einsum("bhde,bhdn->bhen", context, q.softmax(dim=2) / math.sqrt(q.shape[2]))
            o = o.reshape(batch, -1, height, width)
            return self.rms(f"{name}.to_out.1", self.conv(f"{name}.to_out.0", o))
        q, k, v = (a.transpose(2, 3) for a in (q, k, v))
        k, v = (torch.cat([m.expand(batch, *m.shape), a], dim=2) for m, a in zip(memory, (k, v), strict=True))
        o = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(dim=3) @ v
        return self.conv(f"{name}.to_out", o.transpose(2, 3).reshape(batch, -1, height, width))

    def times(self, time, theta):
        if "time_mlp.0.weights" in self.state:
            angles = time[:, None] * self.p("time_mlp.0.weights") * 2 * math.pi
            waves = torch.cat([time[:, None], angles.sin(), angles.cos()], dim=1)
        else:
            half = self.p("time_mlp.1.weight").shape[1] // 2
            angles = time[:, None] * theta ** (-torch.arange(half, dtype=time.dtype) / (half - 1))
            waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.linear("time_mlp.3", F.gelu(self.linear("time_mlp.1", waves)))

    def unet(self, x, condition=None, time=None, theta=10000.0, levels=2):
        if condition is not None:
            x = torch.cat([condition, x], dim=1)
        t = self.times(time, theta)
        h = first = self.conv("init_conv", x)
        skips = []
        for i in range(levels):
            h = self.resnet(f"downs.{i}.0", h, t)
            skips.append(h)
            h = self.resnet(f"downs.{i}.1", h, t)
            h = h + self.attention(f"downs.{i}.2", h)
            skips.append(h)
            h = self.conv(f"downs.{i}.3", h) if i == levels - 1 else self.conv(f"downs.{i}.3.1", F.pixel_unshuffle(h, 2))
        h = self.resnet("mid_block1", h, t)
        h = h + self.attention("mid_attn", h)
        h = self.resnet("mid_block2", h, t)
        for i in range(levels):
            h = self.resnet(f"ups.{i}.0", torch.cat([h, skips.pop()], dim=1), t)
            h = self.resnet(f"ups.{i}.1", torch.cat([h, skips.pop()], dim=1), t)
            h = h + self.attention(f"ups.{i}.2", h)
            h = self.conv(f"ups.{i}.3", h) if i == levels - 1 else self.conv(f"ups.{i}.3.1", F.interpolate(h, scale_factor=2.0))
        return self.conv("final_conv", self.resnet("final_res_block", torch.cat([h, first], dim=1), t))


def close(got, expected, tolerance, name):
    """Equal relative to the largest entry."""
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype, name
    assert got.shape == expected.shape, name
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


def draw(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def compare(ours, call, function, inputs, rng, prefix="", groups=None, constants=()):
    """The same weights, inputs and cotangent through ``call(ours, *inputs)`` and ``function(reference, *inputs)``."""
    for parameter in ours.parameters():
        parameter.data += 0.2 * draw(rng, *parameter.shape)
    theirs = Reference(ours.state_dict(), prefix, groups)
    tensors = [torch.from_numpy(value.copy()).requires_grad_() for value in inputs]
    y, expected = call(ours, *inputs), function(theirs, *tensors)
    close(y, expected, 1e-5, "output")
    dout = draw(rng, *y.shape)
    expected.backward(torch.from_numpy(dout))
    gradients = ours.backward(dout)
    gradients = [gradient for gradient in (gradients if isinstance(gradients, tuple) else (gradients,)) if gradient is not None]
    for index, (gradient, tensor) in enumerate(zip(gradients, tensors, strict=True)):
        close(gradient, tensor.grad, 1e-4, f"input {index}")
    for name, parameter in ours.named_parameters():
        if name in constants:
            assert not parameter.grad.any()
        else:
            close(parameter.grad, theirs.state[prefix + name].grad, 1e-4, name)


def plain(module, *inputs):
    return module(*inputs)


@pytest.mark.parametrize("groups", [None, 2])
def test_block(groups, rng):
    x, scale_shift = draw(rng, 3, 4, 5, 7), draw(rng, 3, 12)
    for inputs in ((x, scale_shift), (x,)):
        compare(Block(4, 6, groups, generator=rng), plain, lambda r, *a: r.block("m", *a), inputs, rng, "m.", groups)


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("dim_out", [4, 8])
def test_resnet_block(dim_out, groups, rng):
    x, t = draw(rng, 3, 4, 5, 7), draw(rng, 3, 5)
    ours = ResnetBlock(4, dim_out, time_emb_dim=5, groups=groups, generator=rng)
    compare(ours, plain, lambda r, *a: r.resnet("m", *a), (x, t), rng, "m.", groups)
    ours = ResnetBlock(4, dim_out, groups=groups, generator=rng)
    compare(ours, plain, lambda r, *a: r.resnet("m", *a), (x,), rng, "m.", groups)


@pytest.mark.parametrize("attention", [Attention, LinearAttention])
@pytest.mark.parametrize(("shape", "memory"), [((3, 5, 4, 7), 4), ((1, 4, 1, 1), 1), ((2, 3, 11, 13), 2)])
def test_attention(attention, shape, memory, rng):
    ours = attention(shape[1], 2, 3, memory, generator=rng)
    compare(ours, plain, lambda r, *a: r.attention("m", *a), (draw(rng, *shape),), rng, "m.")


@pytest.mark.parametrize(
    ("options", "theta", "constants"),
    [
        ({}, 10000.0, ()),
        ({"resnet_block_groups": 4, "sinusoidal_pos_emb_theta": 300.0, "learned_variance": True}, 300.0, ()),
        ({"init_dim": 12, "out_dim": 5, "self_condition": True, "learned_sinusoidal_cond": True, "learned_sinusoidal_dim": 6}, 0, ()),
        ({"random_fourier_features": True, "full_attn": (True, False), "attn_dim_head": (3, 5)}, 0, ("time_mlp.0.weights",)),
    ],
)
def test_unet(options, theta, constants, rng):
    options = {"attn_dim_head": 3, "attn_heads": 2} | options
    ours = Unet(8, dim_mults=(1, 2), channels=2, generator=rng, **options)
    inputs = (draw(rng, 3, 2, 6, 10), draw(rng, 3, 2, 6, 10)) if options.get("self_condition") else (draw(rng, 3, 2, 6, 10),)
    time = np.array([0.25, 7, 30], np.float32)

    def call(ours, x, condition=None):
        return ours(x, time, condition)

    def function(reference, x, condition=None):
        return reference.unet(x, condition, torch.from_numpy(time), theta)

    compare(ours, call, function, inputs, rng, groups=options.get("resnet_block_groups"), constants=constants)
