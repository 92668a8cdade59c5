"""The U-Net of denoising-diffusion-pytorch: names of the original, formulas, conditions, bad input."""

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.models.lucidrains import Block, ResnetBlock, Unet
from hcrot.models.lucidrains_parts import LinearAttention, RandomOrLearnedSinusoidalPosEmb, RMSNorm, SinusoidalPosEmb
from hcrot.training.losses import mse_loss
from hcrot.training.optim import Adam

SMALL = {"dim": 4, "dim_mults": (1, 2), "channels": 2, "attn_dim_head": 2, "attn_heads": 2}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


NAMES = {
    "init_conv.weight": (8, 3, 7, 7),
    "time_mlp.1.weight": (32, 8),
    "time_mlp.3.bias": (32,),
    "downs.0.0.mlp.1.weight": (16, 32),
    "downs.0.0.block1.proj.weight": (8, 8, 3, 3),
    "downs.0.0.block1.norm.g": (1, 8, 1, 1),
    "downs.0.1.block2.proj.bias": (8,),
    "downs.0.2.mem_kv": (2, 4, 32, 4),
    "downs.0.2.norm.g": (1, 8, 1, 1),
    "downs.0.2.to_qkv.weight": (384, 8, 1, 1),
    "downs.0.2.to_out.0.weight": (8, 128, 1, 1),
    "downs.0.2.to_out.0.bias": (8,),
    "downs.0.2.to_out.1.g": (1, 8, 1, 1),
    "downs.0.3.1.weight": (8, 32, 1, 1),
    "downs.1.2.mem_kv": (2, 4, 4, 32),
    "downs.1.2.to_out.weight": (8, 128, 1, 1),
    "downs.1.3.weight": (16, 8, 3, 3),
    "mid_block1.block1.proj.weight": (16, 16, 3, 3),
    "mid_attn.mem_kv": (2, 4, 4, 32),
    "mid_attn.to_out.bias": (16,),
    "ups.0.0.res_conv.weight": (16, 24, 1, 1),
    "ups.0.3.1.weight": (8, 16, 3, 3),
    "ups.1.2.to_out.1.g": (1, 8, 1, 1),
    "ups.1.3.weight": (8, 8, 3, 3),
    "final_res_block.block1.proj.weight": (8, 16, 3, 3),
    "final_conv.weight": (3, 8, 1, 1),
}
"""Of the original's ``Unet(8, dim_mults=(1, 2))``, one of every kind."""


def test_parameters_have_the_names_and_shapes_of_the_original():
    shapes = {name: value.shape for name, value in Unet(8, dim_mults=(1, 2), generator=0).state_dict().items()}
    assert NAMES.items() <= shapes.items()
    assert not [name for name in shapes if name.startswith("downs.0.0.res_conv")]
    assert "time_mlp.0.weights" in Unet(8, dim_mults=(1,), learned_sinusoidal_cond=True, generator=0).state_dict()


def test_group_norm_as_in_the_post():
    state = ResnetBlock(4, 8, time_emb_dim=3, generator=0).state_dict()
    assert {name for name in state if "norm" in name} == {f"block{i}.norm.{name}" for i in (1, 2) for name in ("weight", "bias")}


def test_the_time_acts_in_the_first_block_only_after_the_norm(rng):
    block = ResnetBlock(4, 8, time_emb_dim=3, groups=2, generator=rng)
    x, t = draw(rng, 2, 4, 3, 5), draw(rng, 2, 3)
    scale, shift = np.split((t / (1 + np.exp(-t)) @ block.mlp[1].weight.data.T + block.mlp[1].bias.data)[:, :, None, None], 2, axis=1)
    with block.inference():
        h = block.block1.norm(block.block1.proj(x)) * (1 + scale) + shift
        h = block.block2(h / (1 + np.exp(-h)))
        np.testing.assert_allclose(block(x, t), h + block.res_conv(x), rtol=1e-4, atol=1e-5)


def test_a_pixel_of_zeros_has_no_direction():
    norm = RMSNorm(3).astype(np.float64)
    x = np.zeros((1, 3, 1, 2))
    x[0, :, 0, 1] = 3, 0, 4
    y = norm(x)
    np.testing.assert_allclose(y[0, :, 0], np.array([[0, 0, 0], [0.6, 0, 0.8]]).T * np.sqrt(3))
    assert np.isfinite(norm.backward(np.ones_like(y))).all()


def test_linear_attention_written_out(rng):
    layer = LinearAttention(4, 2, 3, 2, generator=rng).astype(np.float64)
    x = rng.standard_normal((1, 4, 2, 3))
    with layer.inference():
        q, k, v = (part.reshape(2, 3, 6) for part in np.split(layer.to_qkv(layer.norm(x))[0], 3))
        o = np.zeros((2, 3, 6))
        for head in range(2):
            keys, values = (np.concatenate([layer.mem_kv.data[i, head], a[head]], axis=1) for i, a in enumerate((k, v)))
            weights = np.exp(keys) / np.exp(keys).sum(axis=1, keepdims=True)  # (d, m + T), over pixels
            for n in range(6):
                share = np.exp(q[head, :, n]) / np.exp(q[head, :, n]).sum()
                o[head, :, n] = sum(share[d] * (weights[d] * values).sum(axis=1) for d in range(3)) / np.sqrt(3)
        np.testing.assert_allclose(layer(x), layer.to_out(o.reshape(1, 6, 2, 3)))


def test_sinusoids_written_out():
    y = SinusoidalPosEmb(6, 100)(np.array([3.0]))
    np.testing.assert_allclose(y[0], [np.sin(3), np.sin(0.3), np.sin(0.03), np.cos(3), np.cos(0.3), np.cos(0.03)])
    assert SinusoidalPosEmb(6)(np.array([3])).dtype == np.float32


def test_random_frequencies_are_not_learned(rng):
    kept, learned = (RandomOrLearnedSinusoidalPosEmb(6, random, generator=rng) for random in (True, False))
    assert not kept.parameters()
    assert len(learned.parameters()) == 1
    kept(np.array([1, 2]))
    kept.backward(draw(rng, 2, 7))
    assert not kept.weights.grad.any()
    check_gradients(learned, np.array([1, 2]), generator=rng)


def test_gradients_with_random_frequencies_of_one_level(rng):
    """Those of other networks are checked in tests/test_contract.py."""
    model = Unet(**SMALL | {"dim_mults": (1,), "full_attn": False}, random_fourier_features=True, generator=rng)
    check_gradients(model, rng.standard_normal((2, 2, 3, 5)), np.array([3, 11]), generator=rng)


def test_self_conditioning(rng):
    model = Unet(**SMALL, self_condition=True, generator=rng)
    x, last, time = draw(rng, 2, 2, 4, 2), draw(rng, 2, 2, 4, 2), np.array([3, 11])
    with model.inference():
        np.testing.assert_array_equal(model(x, time), model(x, time, np.zeros_like(x)))
        assert np.abs(model(x, time) - model(x, time, last)).max() > 1e-3
    model(x, time)
    assert model.backward(x).shape == x.shape  # without an estimate there is one gradient


def test_it_learns(rng):
    model = Unet(**SMALL, dropout=0.1, generator=rng)
    x, target, time = draw(rng, 4, 2, 4, 4), draw(rng, 4, 2, 4, 4), np.array([0, 1, 5, 50])
    optimizer, losses = Adam(model.parameters(), lr=1e-2), []
    for _ in range(30):
        loss, dout = mse_loss(model(x, time), target)
        model.backward(dout)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    assert losses[-1] < 0.5 * losses[0]


def test_one_time_for_all_images(rng):
    model = Unet(**SMALL, generator=rng).eval()
    x = draw(rng, 3, 2, 4, 4)
    np.testing.assert_array_equal(model(x, 7), model(x, np.array([7, 7, 7])))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: Unet(0), ValueError, "Unet: dim must be an int of at least 1, got 0"),
        (lambda x: Unet(4, dim_mults=()), ValueError, r"Unet: dim_mults must name at least one level, got \(\)"),
        (lambda x: Unet(4, dim_mults=(1, 0)), ValueError, "Unet: dim_mults must be an int of at least 1, got 0"),
        (lambda x: Unet(4, attn_heads=(2, 2)), ValueError, r"Unet: attn_heads must be one value, or one for each of the 4 levels"),
        (lambda x: Unet(4, full_attn=(True,)), ValueError, r"Unet: full_attn must be one value"),
        (lambda x: Unet(4, resnet_block_groups=3), ValueError, "num_channels 4 is not divisible by num_groups 3"),
        (lambda x: Unet(**SMALL)(x[:, :1], 0), ValueError, r"Unet: x: expected images of shape \(batch, 2, height, width\)"),
        (lambda x: Unet(**SMALL)(x[:, :, :3], 0), ValueError, "height and width must be multiples of 2, got a 3x4 image"),
        (lambda x: Unet(**SMALL)(x, np.zeros(3)), ValueError, r"Unet: time must be a number or .* of shape \(2,\), .* got shape \(3,\)"),
        (lambda x: Unet(**SMALL)(x, "noon"), TypeError, "Unet: time must be integers or floating-point numbers"),
        (lambda x: Unet(**SMALL)(x, 0, x), ValueError, "x_self_cond given, but the network was built with self_condition=False"),
        (lambda x: Unet(**SMALL, self_condition=True)(x, 0, x[:1]), ValueError, r"x_self_cond must be like x, float32 \(2, 2, 4, 4\)"),
        (lambda x: ResnetBlock(2, 8)(x, x[:, :, 0, 0]), ValueError, "time_emb given, but the block was built without time_emb_dim"),
        (lambda x: Block(2, 8)(x, np.zeros((2, 8), np.float32)), ValueError, r"scale_shift must be of shape \(2, 16\), .* got \(2, 8\)"),
        (lambda x: SinusoidalPosEmb(5), ValueError, "SinusoidalPosEmb: dim must be even and at least 4, got 5"),
        (lambda x: SinusoidalPosEmb(4, 0), ValueError, "SinusoidalPosEmb: theta must be a finite number above 0, got 0"),
        (lambda x: RandomOrLearnedSinusoidalPosEmb(5), ValueError, "dim must be even, got 5"),
    ],
)
def test_refusals(call, error, message, rng):
    with pytest.raises(error, match=message):
        call(draw(rng, 2, 2, 4, 4))
