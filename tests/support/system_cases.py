"""A case of every module of the systems that hcrot grew out of: lucidrains' network, that of the paper-with-code post, abarankab's,
SR3's and Stable Diffusion's."""

import numpy as np

from hcrot.layers import conv
from hcrot.models import abarankab, ddpm_unet, lucidrains, lucidrains_parts, sr3, transformer_2d, unet_2d_condition
from support.case import (
    LABELS,
    Case,
    attention_of,
    block_backward,
    block_inputs,
    context_backward,
    down_backward,
    down_forward,
    images,
    level_up_forward,
    resnet_of,
    up_backward,
)


def down_level(generator):
    """A level of lucidrains' from 4 channels to 6, for embeddings of 5."""
    blocks = [lucidrains.ResnetBlock(4, 4, time_emb_dim=5, groups=2, generator=generator) for _ in range(2)]
    linear_attention = lucidrains_parts.LinearAttention(4, 2, 3, 2, generator=generator)
    return lucidrains.DownLevel(*blocks, linear_attention, conv.Conv2d(4, 6, 3, 2, generator=generator))


def up_level(generator):
    blocks = [lucidrains.ResnetBlock(6, 4, time_emb_dim=5, groups=None, generator=generator) for _ in range(2)]
    full_attention = lucidrains_parts.Attention(4, 1, 5, 3, generator=generator)
    return lucidrains.UpLevel(*blocks, full_attention, conv.ConvTranspose2d(4, 3, 2, 2, generator=generator))


def small_lucidrains_unet(generator, **options):
    return lucidrains.Unet(
        4, 6, dim_mults=(1, 2), channels=2, attn_dim_head=(3, 2), attn_heads=2, resnet_block_groups=2, generator=generator, **options
    )


SYSTEM_CASES = [
    Case("RMSNorm of pixels", lambda g: lucidrains_parts.RMSNorm(4), images),
    Case("SinusoidalPosEmb", lambda g: lucidrains_parts.SinusoidalPosEmb(6, 50), lambda draw: (LABELS.astype(draw(1).dtype),)),
    Case(
        "RandomOrLearnedSinusoidalPosEmb",
        lambda g: lucidrains_parts.RandomOrLearnedSinusoidalPosEmb(6, generator=g),
        lambda draw: (LABELS,),
    ),
    Case("Attention with memory", lambda g: lucidrains_parts.Attention(4, 2, 3, 2, generator=g), images),
    Case("LinearAttention", lambda g: lucidrains_parts.LinearAttention(4, 2, 3, 2, generator=g), images),
    Case("Block", lambda g: lucidrains.Block(4, 6, 3, generator=g), images, backward=lambda module, dy: module.backward(dy)[0]),
    Case("Block that scales and shifts", lambda g: lucidrains.Block(4, 6, None, generator=g), lambda draw: (draw(3, 4, 5, 6), draw(3, 12))),
    Case("ResnetBlock", lambda g: lucidrains.ResnetBlock(4, 6, time_emb_dim=5, groups=2, generator=g), block_inputs),
    Case(
        "ResnetBlock without time",
        lambda g: lucidrains.ResnetBlock(4, 4, groups=None, dropout=0.2, generator=g),
        images,
        backward=lambda module, dy: module.backward(dy)[0],
        random=True,
    ),
    Case("DownLevel", down_level, block_inputs, down_forward, down_backward),
    Case("UpLevel", up_level, lambda draw: (*block_inputs(draw), draw(3, 2, 5, 6), draw(3, 2, 5, 6)), level_up_forward, up_backward),
    Case("Unet of lucidrains", small_lucidrains_unet, lambda draw: (draw(4, 2, 4, 6), LABELS)),
    Case(
        "Unet of lucidrains that sees its last estimate and learns frequencies",
        lambda g: small_lucidrains_unet(g, self_condition=True, learned_sinusoidal_cond=True, learned_sinusoidal_dim=6, full_attn=True),
        lambda draw: (draw(4, 2, 4, 6), LABELS, draw(4, 2, 4, 6)),
    ),
    Case(
        "Down",
        lambda g: ddpm_unet.Down(
            4, 6, resnet=resnet_of(g), attention=attention_of(g), downsample=lambda width: conv.Conv2d(width, width, 3, 2, generator=g)
        ),
        block_inputs,
        down_forward,
        down_backward,
    ),
    Case(
        "Up",
        lambda g: ddpm_unet.Up(4, 2, resnet=resnet_of(g), upsample=lambda width: conv.ConvTranspose2d(width, width, 4, 2, 1, generator=g)),
        lambda draw: (*block_inputs(draw), draw(3, 4, 5, 6), draw(3, 4, 5, 6), draw(3, 2, 5, 6)),
        level_up_forward,
        up_backward,
    ),
    Case(
        "UNet of the post",
        lambda g: ddpm_unet.UNet(2, 4, (2,), (True,), (True,), 2, 2, 0.2, True, generator=g),
        lambda draw: (draw(4, 2, 4, 6), LABELS),
        random=True,
    ),
    Case(
        "SR3UNet",
        lambda g: sr3.SR3UNet(2, (4, 6), (1,), 1, norm_num_groups=2, dropout=0.2, noise_level_scale=50, generator=g),
        lambda draw: (draw(3, 2, 5, 7), draw(3, 2, 5, 7)),
        lambda module, x, condition: module(x, condition, np.array([0.9, 0.02, 0.5])),
        random=True,
    ),
    Case("GEGLU", lambda g: transformer_2d.GEGLU(4, 3, generator=g), lambda draw: (draw(3, 5, 4),)),
    Case("FeedForward", lambda g: transformer_2d.FeedForward(4, generator=g), lambda draw: (draw(3, 5, 4),)),
    Case(
        "BasicTransformerBlock",
        lambda g: transformer_2d.BasicTransformerBlock(4, 2, 3, 3, generator=g),
        lambda draw: (draw(3, 5, 4), draw(3, 2, 3)),
        backward=context_backward,
    ),
    Case(
        "Transformer2DModel",
        lambda g: transformer_2d.Transformer2DModel(4, 2, 3, 3, 2, 2, only_cross_attention=True, generator=g),
        lambda draw: (draw(3, 4, 5, 2), draw(3, 2, 3)),
        backward=context_backward,
    ),
    Case(
        "Transformer2DModel with linear layers",
        lambda g: transformer_2d.Transformer2DModel(4, 1, 3, 3, 1, 2, True, generator=g),
        lambda draw: (draw(3, 4, 5, 2), draw(3, 2, 3)),
        backward=context_backward,
    ),
    Case(
        "UNet2DConditionModel",
        lambda g: unet_2d_condition.UNet2DConditionModel(
            **{"in_channels": 2, "out_channels": 3, "block_out_channels": (4, 6), "norm_num_groups": 2, "layers_per_block": 1},
            **{"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")},
            **{"cross_attention_dim": 3, "attention_head_dim": 2, "class_embed_type": "identity", "generator": g},
        ),
        lambda draw: (draw(3, 2, 5, 7), np.array([0, 999, 3]), draw(3, 2, 3), draw(3, 16)),
    ),
    Case("AttentionBlock", lambda g: abarankab.AttentionBlock(4, "in", generator=g), images),
    Case(
        "ResidualBlock",
        lambda g: abarankab.ResidualBlock(4, 6, 0.2, 5, 4, "mish", "gn", 2, generator=g),
        lambda draw: (*block_inputs(draw), LABELS[:3]),
        backward=block_backward,
        random=True,
    ),
    Case("Downsample of abarankab's", lambda g: abarankab.Downsample(4, generator=g), images),
    Case("Upsample of abarankab's", lambda g: abarankab.Upsample(4, generator=g), images),
    Case(
        "UNet of abarankab's",
        lambda g: abarankab.UNet(2, 4, (1, 2), 1, 6, 1, 4, "silu", 0, (1,), "gn", 2, 1, generator=g),
        lambda draw: (draw(4, 2, 4, 6), LABELS, LABELS),
    ),
    Case(
        "UNet of abarankab's without time and class",
        lambda g: abarankab.UNet(2, 4, (1, 2), 1, activation="mish", norm="bn", generator=g),
        lambda draw: (draw(4, 2, 4, 6),),
        random=True,
    ),
]
