"""The U-Net of denoising-diffusion-pytorch (github.com/lucidrains/denoising-diffusion-pytorch, ``Unet``), with a hand-written backward.

Read from top to bottom: blocks, levels, the network. With it differ from ``unet_2d.py`` (Ho et al. 2020):

    a block is      conv -> norm -> scale and shift by the time -> SiLU         there: norm -> SiLU -> conv
    attention       linear attention on all levels but the last, each with a few learned keys and values beside those of the image
    going down      four pixels become four times the channels, then a 1x1 convolution
    skips           the first convolution's output is joined again at the very end

Parameters have the names and shapes of the original as of version 2.0 (2024): ``unet.load_state_dict`` takes the weights of its ``Unet``
of the same arguments unchanged. ``resnet_block_groups=8`` puts into residual blocks, instead of RMSNorm, the GroupNorm that they had until
May 2024; its names, ``norm.weight`` and ``norm.bias``, are theirs, too.

Gradients go as ``unet_2d_blocks.py`` says: a level's backward adds the gradient of the time embedding to ``dtemb``, and what down levels
push onto ``skips`` and up levels pop, backward pushes onto ``dskips`` and pops in the opposite order.

Notation: B images, C channels, H x W pixels, E width of the time embedding.
"""

from collections.abc import Sequence

import numpy as np

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.files.pretrained import Pretrained
from hcrot.kernels.channels import concatenate, plus, split
from hcrot.layers.activation import GELU, SiLU
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.dropout import Dropout
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm
from hcrot.layers.pixel_shuffle import PixelUnshuffle
from hcrot.layers.resample import Upsample
from hcrot.models.lucidrains_parts import Attention, LinearAttention, RandomOrLearnedSinusoidalPosEmb, RMSNorm, SinusoidalPosEmb
from hcrot.models.times import check_times
from hcrot.models.unet_2d_blocks import ScaleShift
from hcrot.module import Identity, Module, Sequential, check_gradient

__all__ = ["Block", "DownLevel", "ResnetBlock", "Unet", "UpLevel"]


class Block(Module):
    """``y = dropout(silu((1 + scale) norm(conv(x)) + shift))``; without scale and shift, ``y = dropout(silu(norm(conv(x))))``.

    Args:
        dim, dim_out: widths of x and y.
        groups: of a GroupNorm; None: RMSNorm.
        dropout: probability.
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, dim, H, W), scale_shift (B, 2 dim_out), scales first, or None -> y (B, dim_out, H, W).
        ``backward(dy) -> dx, dscale_shift``; the latter is None where there was none.

    Raises:
        ValueError: an argument out of range; in forward, arrays of other shapes or dtypes.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        groups: int | None = 8,
        dropout: float = 0.0,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        generator = init.default_generator("Block", generator)
        self.proj = Conv2d(dim, dim_out, 3, padding=1, generator=generator)
        self.norm = RMSNorm(dim_out) if groups is None else GroupNorm(groups, dim_out)
        self.scale_shift = ScaleShift()
        self.act = SiLU()
        self.dropout = Dropout(dropout, generator=generator) if dropout else Identity()

    def forward(self, x: np.ndarray, scale_shift: np.ndarray | None = None) -> np.ndarray:
        if scale_shift is not None and scale_shift.shape != (len(x), 2 * self.proj.out_channels):
            expected = (len(x), 2 * self.proj.out_channels)
            raise ValueError(f"Block: scale_shift must be of shape {expected}, two numbers per image and channel, got {scale_shift.shape}")
        h = self.norm(self.proj(x))
        self.save(scale_shift is not None)
        return self.dropout(self.act(h if scale_shift is None else self.scale_shift(h, scale_shift)))

    def backward(self, dout: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        conditioned = self.saved()
        dh, dscale_shift = self.act.backward(self.dropout.backward(dout)), None
        if conditioned:
            dh, dscale_shift = self.scale_shift.backward(dh)
        return self.proj.backward(self.norm.backward(dh)), dscale_shift


class ResnetBlock(Module):
    """Two blocks and a way around them; the time scales and shifts in the first.

        y = block2(block1(x, linear(silu(time_emb)))) + res_conv(x)        res_conv: 1x1 if the width changes, else x itself

    Args:
        dim, dim_out: widths of x and y.
        time_emb_dim: E; None: the block takes no time.
        groups: of both GroupNorms; None: RMSNorm.
        dropout: probability, in the first block.
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, dim, H, W), time_emb (B, E) or None -> y (B, dim_out, H, W). ``backward(dy) -> dx, dtime_emb``; the latter is None where there
        was none: a block that could take a time may do without. Keys: ``mlp.1``, ``block1.proj``, ``block1.norm``, ..., ``res_conv``.

    Raises:
        ValueError: an argument out of range; in forward, a time_emb for a block without time_emb_dim, or arrays of other shapes or dtypes.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        *,
        time_emb_dim: int | None = None,
        groups: int | None = 8,
        dropout: float = 0.0,
        generator: np.random.Generator | int | None = None,
    ):
        generator = init.default_generator("ResnetBlock", generator)
        self.mlp = None if time_emb_dim is None else Sequential(SiLU(), Linear(time_emb_dim, 2 * dim_out, generator=generator))
        self.block1 = Block(dim, dim_out, groups, dropout, generator=generator)
        self.block2 = Block(dim_out, dim_out, groups, generator=generator)
        self.res_conv = Conv2d(dim, dim_out, 1, generator=generator) if dim != dim_out else Identity()

    def forward(self, x: np.ndarray, time_emb: np.ndarray | None = None) -> np.ndarray:
        if time_emb is not None and self.mlp is None:
            raise ValueError("ResnetBlock: time_emb given, but the block was built without time_emb_dim")
        scale_shift = None if self.mlp is None or time_emb is None else self.mlp(time_emb)
        h = self.block2(self.block1(x, scale_shift))
        return plus(h, self.res_conv(x))

    def backward(self, dout: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        dh, _ = self.block2.backward(dout)
        dx, dscale_shift = self.block1.backward(dh)
        dtime_emb = None if self.mlp is None or dscale_shift is None else self.mlp.backward(dscale_shift)
        return plus(dx, self.res_conv.backward(dout)), dtime_emb


class DownLevel(Sequential):
    """Two residual blocks, attention, and what leads to the next level: keys ``0`` to ``3``. Two skips are pushed.

        h = block1(x, t), pushed;   h = block2(h, t);   h = h + attention(h), pushed;   y = resample(h)

    Shapes:
        x (B, C, H, W), t (B, E), skips, a list -> y. ``backward(dy, dtemb, dskips) -> dx``.
    """

    def forward(self, x: np.ndarray, t: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:  # type: ignore[override]  # not one array alone
        block1, block2, attention, resample = self.layers
        h = block1(x, t)
        skips.append(h)
        h = block2(h, t)
        h = plus(h, attention(h))
        skips.append(h)
        return resample(h)

    def backward(self, dout: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:  # type: ignore[override]
        block1, block2, attention, resample = self.layers
        dh = plus(resample.backward(dout), dskips.pop())
        dh = plus(dh, attention.backward(dh))
        dh = take(block2.backward(dh), dtemb)
        return take(block1.backward(plus(dh, dskips.pop())), dtemb)


class UpLevel(Sequential):
    """The mirror of :class:`DownLevel`: before each residual block a skip is popped and joined. Keys ``0`` to ``3``.

        h = block1([x, skip], t);   h = block2([h, skip], t);   h = h + attention(h);   y = resample(h)

    Shapes:
        x (B, C, H, W), t (B, E), skips, a list -> y. ``backward(dy, dtemb, dskips) -> dx``.
    """

    def forward(self, x: np.ndarray, t: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:  # type: ignore[override]  # not one array alone
        block1, block2, attention, resample = self.layers
        self.save(x.shape[1])
        h = block1(concatenate(x, skips.pop()), t)
        h = block2(concatenate(h, skips.pop()), t)
        return resample(plus(h, attention(h)))

    def backward(self, dout: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:  # type: ignore[override]
        block1, block2, attention, resample = self.layers
        width = self.saved()
        dh = resample.backward(dout)
        dh = plus(dh, attention.backward(dh))
        for block in (block2, block1):  # x and block1's result are equally wide
            dh, dskip = split(take(block.backward(dh), dtemb), width)
            dskips.append(dskip)
        return dh


class Unet(Pretrained):
    """The network. Arguments, their names, order and defaults are the original's, but for ``flash_attn``, which changes no number.

    Args:
        dim: width to begin with; the time embedding is 4 dim wide.
        init_dim: width of the first convolution; None: dim.
        out_dim: channels of the output; None: channels, twice as many with learned_variance.
        dim_mults: width of each level's end, times dim. Each level but the last halves the image.
        channels: of the images.
        self_condition: whether forward takes the last estimate of x_0 beside x (Chen et al. 2022).
        learned_variance: whether there are twice as many channels out.
        learned_sinusoidal_cond: whether the frequencies of the time embedding are learned, random ones at first.
        random_fourier_features: whether they are random and stay so.
        learned_sinusoidal_dim: numbers of sines and cosines then.
        sinusoidal_pos_emb_theta: the longest period of the fixed sinusoids, over 2 pi.
        dropout: probability, in residual blocks.
        attn_dim_head, attn_heads: width and number of heads of attention, a number or one per level. Their product need not be C.
        full_attn: whether a level has full instead of linear attention, a bool or one per level; None: the last one has. The middle has.
        resnet_block_groups: of GroupNorm in residual blocks, as until May 2024; None: RMSNorm, as since.
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, channels, H, W), float32 (float64 after ``astype``), H and W multiples of 2^(levels - 1); time, a number or (B,);
        x_self_cond like x, or None for zeros -> y (B, out_dim, H, W). ``backward(dy) -> dx``; ``-> dx, dx_self_cond`` if that was given.

    Raises:
        ValueError: an argument out of range or of another length than dim_mults; in forward, images or times that do not fit, or an
            x_self_cond for a network that was built without.
    """

    class_name = "LucidrainsUnet"

    def __init__(
        self,
        dim: int,
        init_dim: int | None = None,
        out_dim: int | None = None,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
        channels: int = 3,
        self_condition: bool = False,
        learned_variance: bool = False,
        learned_sinusoidal_cond: bool = False,
        random_fourier_features: bool = False,
        learned_sinusoidal_dim: int = 16,
        sinusoidal_pos_emb_theta: float = 10000,
        dropout: float = 0.0,
        attn_dim_head: int | Sequence[int] = 32,
        attn_heads: int | Sequence[int] = 4,
        full_attn: bool | Sequence[bool] | None = None,
        *,
        resnet_block_groups: int | None = None,
        generator: np.random.Generator | int | None = None,
    ):
        arguments = locals()
        self.config = {name: plain_argument(arguments[name]) for name in Unet.argument_names()}
        dim, channels = init.check_positive("Unet", dim=dim, channels=channels)
        if not dim_mults:
            raise ValueError("Unet: dim_mults must name at least one level, got ()")
        (init_dim,) = init.check_positive("Unet", init_dim=dim if init_dim is None else init_dim)
        (out_dim,) = init.check_positive("Unet", out_dim=channels * (2 if learned_variance else 1) if out_dim is None else out_dim)
        widths = [init_dim, *(dim * init.check_positive("Unet", dim_mults=mult)[0] for mult in dim_mults)]
        levels = len(dim_mults)
        sizes, heads = per_level("attn_dim_head", attn_dim_head, levels), per_level("attn_heads", attn_heads, levels)
        full = per_level("full_attn", [*[False] * (levels - 1), True] if full_attn is None else full_attn, levels)
        generator = init.default_generator("Unet", generator)
        self.channels, self.out_dim, self.self_condition, self.factor = channels, out_dim, bool(self_condition), 2 ** (levels - 1)

        def resnet(dim_in: int, dim_out: int) -> ResnetBlock:
            return ResnetBlock(
                dim_in, dim_out, time_emb_dim=4 * dim, groups=resnet_block_groups, dropout=dropout, generator=generator
            )

        def attention(width: int, level: int, whole: int) -> Module:
            return (Attention if whole else LinearAttention)(width, heads[level], sizes[level], generator=generator)

        def convolution(dim_in: int, dim_out: int) -> Conv2d:
            return Conv2d(dim_in, dim_out, 3, padding=1, generator=generator)

        def down(dim_in: int, dim_out: int) -> Module:
            return Sequential(PixelUnshuffle(2), Conv2d(4 * dim_in, dim_out, 1, generator=generator))

        def up(dim_in: int, dim_out: int) -> Module:
            return Sequential(Upsample(dim_in, use_conv=False), convolution(dim_in, dim_out))

        self.init_conv = Conv2d(channels * (2 if self_condition else 1), init_dim, 7, padding=3, generator=generator)
        if learned_sinusoidal_cond or random_fourier_features:
            waves: Module = RandomOrLearnedSinusoidalPosEmb(learned_sinusoidal_dim, random_fourier_features, generator=generator)
            num_waves = learned_sinusoidal_dim + 1
        else:
            waves, num_waves = SinusoidalPosEmb(dim, sinusoidal_pos_emb_theta), dim
        self.time_mlp = Sequential(
            waves, Linear(num_waves, 4 * dim, generator=generator), GELU(), Linear(4 * dim, 4 * dim, generator=generator)
        )
        self.downs: list[DownLevel] = []
        self.ups: list[UpLevel] = []
        for level, (dim_in, dim_out) in enumerate(zip(widths, widths[1:], strict=False)):
            last = level == levels - 1
            self.downs.append(
                DownLevel(
                    resnet(dim_in, dim_in),
                    resnet(dim_in, dim_in),
                    attention(dim_in, level, full[level]),
                    (convolution if last else down)(dim_in, dim_out),
                )
            )
        self.mid_block1 = resnet(widths[-1], widths[-1])
        self.mid_attn = attention(widths[-1], levels - 1, True)
        self.mid_block2 = resnet(widths[-1], widths[-1])
        for level in reversed(range(levels)):
            dim_in, dim_out = widths[level], widths[level + 1]
            self.ups.append(
                UpLevel(
                    resnet(dim_in + dim_out, dim_out),
                    resnet(dim_in + dim_out, dim_out),
                    attention(dim_out, level, full[level]),
                    (up if level else convolution)(dim_out, dim_in),
                )
            )
        self.final_res_block = resnet(2 * init_dim, init_dim)
        self.final_conv = Conv2d(init_dim, out_dim, 1, generator=generator)

    def forward(self, x: np.ndarray, time: float | np.ndarray, x_self_cond: np.ndarray | None = None) -> np.ndarray:
        dtype = self.init_conv.weight.data.dtype
        check_images("Unet: x", x, self.channels, dtype)
        if x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(f"Unet: height and width must be multiples of {self.factor}, got a {x.shape[2]}x{x.shape[3]} image")
        times = check_times("Unet", time, len(x))
        if x_self_cond is not None:
            if not self.self_condition:
                raise ValueError("Unet: x_self_cond given, but the network was built with self_condition=False")
            if not isinstance(x_self_cond, np.ndarray) or x_self_cond.shape != x.shape or x_self_cond.dtype != dtype:
                raise ValueError(f"Unet: x_self_cond must be like x, {dtype} {x.shape}, got {getattr(x_self_cond, 'shape', x_self_cond)}")
        if self.self_condition:
            x = concatenate(np.zeros_like(x) if x_self_cond is None else x_self_cond, x)
        t = self.time_mlp(times.astype(dtype))
        first = h = self.init_conv(x)
        skips: list[np.ndarray] = []
        for down in self.downs:
            h = down(h, t, skips)
        h = self.mid_block1(h, t)
        h = plus(h, self.mid_attn(h))
        h = self.mid_block2(h, t)
        for up in self.ups:
            h = up(h, t, skips)
        assert not skips
        h = self.final_res_block(concatenate(h, first), t)
        y = self.final_conv(h)
        self.save(y.shape, t.shape, x_self_cond is not None)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        shape, temb_shape, conditioned = self.saved()
        check_gradient("Unet", dout, shape, self.init_conv.weight.data.dtype)
        dtemb = np.zeros(temb_shape, dout.dtype)
        dskips: list[np.ndarray] = []
        dh = take(self.final_res_block.backward(self.final_conv.backward(dout)), dtemb)
        dh, dfirst = split(dh, dh.shape[1] // 2)
        for up in reversed(self.ups):
            dh = up.backward(dh, dtemb, dskips)
        dh = take(self.mid_block2.backward(dh), dtemb)
        dh = plus(dh, self.mid_attn.backward(dh))
        dh = take(self.mid_block1.backward(dh), dtemb)
        for down in reversed(self.downs):
            dh = down.backward(dh, dtemb, dskips)
        assert not dskips
        waves, *layers = self.time_mlp
        for layer in reversed(layers):
            dtemb = layer.backward(dtemb)
        if isinstance(waves, RandomOrLearnedSinusoidalPosEmb):
            waves.backward(dtemb)
        dx = self.init_conv.backward(plus(dh, dfirst))
        if not self.self_condition:
            return dx
        dcondition, dx = split(dx, self.channels)
        return (dx, dcondition) if conditioned else dx


def take(gradients: tuple[np.ndarray, np.ndarray | None], dtemb: np.ndarray) -> np.ndarray:
    """Of the two gradients of a residual block that got the time: the second is added to dtemb, the first handed on."""
    dx, dtime_emb = gradients
    assert dtime_emb is not None
    dtemb += dtime_emb
    return dx


def per_level(name: str, value: int | Sequence[int], levels: int) -> list[int]:
    """``value``, one for all levels or one for each, as a list; a ValueError that names the argument if it has another length."""
    values = [value] * levels if isinstance(value, (int, np.integer)) else list(value)
    if len(values) != levels:
        raise ValueError(f"Unet: {name} must be one value, or one for each of the {levels} levels in dim_mults, got {value!r}")
    return values
