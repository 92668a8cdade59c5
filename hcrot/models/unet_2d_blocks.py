"""What the U-Net in ``unet_2d.py`` is made of: residual block, down block, mid block, up block.

Read from top to bottom. Each ``backward`` is its ``forward`` read upwards. Two rules say where gradients go:

    An input that goes to one module only: that module's backward returns its gradient.
    An input that goes to many modules: the caller makes one array of zeros for its gradient. Each module's backward adds to it.

So ``forward(h, temb, skips) -> h`` becomes ``backward(dh, dtemb, dskips) -> dh``. ``temb``, the embedding of time and class, goes to all
residual blocks: each adds its gradient to ``dtemb``. ``skips`` is a stack. In forward, the down blocks push onto it and the up blocks pop
from it. Backward runs in the opposite order: the up blocks push onto ``dskips`` and the down blocks pop. Constructors push and pop the
channel widths in the same way. The blocks of a network with a text have one more input, ``context``, that goes to many modules:
``forward(h, temb, skips, context)`` becomes ``backward(dh, dtemb, dskips, dcontext)``.

diffusers has a class for each kind of block (``AttnDownBlock2D``, ``ResnetDownsampleBlock2D``, ...). Here one block is all of them: it is
handed functions that make its parts, ``resnet(in_channels, out_channels)``, and ``attention(channels)``, ``downsample(channels)`` and
``upsample(channels)``, which may be None. If ``attention`` makes :class:`Transformer2DModel`, which takes the context, the block is
diffusers' ``CrossAttnDownBlock2D``, ``CrossAttnUpBlock2D`` or ``UNetMidBlock2DCrossAttn``.

Notation: B images, C channels, H x W pixels, E width of ``temb``. Sources: Ho et al. 2020 (appendix B) for the network, Ronneberger et al.
2015 for the U, Dhariwal & Nichol 2021 for scale and shift from the time and for resampling inside a residual block.
"""

from collections.abc import Callable

import numpy as np

from hcrot import init
from hcrot.kernels.channels import concatenate, pixel_sums, plus, split
from hcrot.layers.activation import GELU, Mish, ReLU, SiLU
from hcrot.layers.conv import Conv2d
from hcrot.layers.dropout import Dropout
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm, GroupNormSiLU
from hcrot.layers.resample import Downsample, Upsample
from hcrot.module import Identity, Module, check_gradient

__all__ = [
    "ACTIVATIONS", "ActivatedGroupNorm", "DownBlock2D", "Level", "ResnetBlock2D", "ScaleShift", "UNetMidBlock2D", "UpBlock2D",
    "activated_norm", "resampler",
]  # fmt: skip

ACTIVATIONS = {"silu": SiLU, "swish": SiLU, "mish": Mish, "gelu": GELU, "relu": ReLU}
"""diffusers' ``act_fn``, in lower case."""


class ActivatedGroupNorm(GroupNorm):
    """``y = act(GroupNorm(x))``: for other activations what :class:`GroupNormSiLU` is for SiLU, but in two passes.

    Args:
        num_groups, num_channels, eps: GroupNorm's. act: the activation, a module.

    Shapes:
        x (B, C, ...) -> y, the same.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float, act: Module):
        super().__init__(num_groups, num_channels, eps)
        self.act = act

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.act(super().forward(x))

    def backward(self, dout: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        return super().backward(self.act.backward(dout), residual)


class ScaleShift(Module):
    """``y = (1 + scale) x + shift``, with one scale and one shift per image and channel, the same for every pixel.

    After a GroupNorm it is what Dhariwal & Nichol 2021 (section 3) call adaptive group normalisation. Backward: ``dx = (1 + scale) dy``,
    ``dscale = sum dy x`` and ``dshift = sum dy``, both over the pixels. Kept are x and scale.

    Shapes:
        x (B, C, H, W), scale_shift (B, 2C), scales first -> y (B, C, H, W). ``backward(dy) -> dx, dscale_shift``.

    Example:
        >>> layer = hcrot.ScaleShift()
        >>> layer(np.full((1, 1, 1, 2), 10, np.float32), np.array([[1, 3]], np.float32))   # (1 + 1) 10 + 3
        array([[[[23., 23.]]]], dtype=float32)
        >>> layer.backward(np.ones((1, 1, 1, 2), np.float32))
        (array([[[[2., 2.]]]], dtype=float32), array([[20.,  2.]], dtype=float32))
    """

    def forward(self, x: np.ndarray, scale_shift: np.ndarray) -> np.ndarray:
        scale, shift = np.split(scale_shift[:, :, None, None], 2, axis=1)
        self.save(x, scale)
        return (1 + scale) * x + shift

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, scale = self.saved()
        check_gradient("ScaleShift", dy, x.shape, x.dtype)
        return (1 + scale) * dy, np.concatenate([pixel_sums(dy * x), pixel_sums(dy)], axis=1)


class ResnetBlock2D(Module):
    """Two convolutions and a shortcut around them. The time embedding is added between the two.

        h = conv1(act(norm1(x))) + time_emb_proj(temb)          one number per image and channel, the same for every pixel
        y = conv2(dropout(act(norm2(h)))) + shortcut(x)         shortcut: a 1x1 convolution if the width changes, else x itself

    With ``scale_shift``, the time acts after the norm: ``act((1 + scale) norm2(h) + shift)``, with scale and shift from time_emb_proj. With
    ``resample``, ``act(norm1(x))`` and x are both doubled or halved in size before they go on. ``temb`` comes with its activation already
    applied: the U-Net computes it once for all blocks.

    Args:
        in_channels, out_channels: widths of x and y.
        temb_channels: E.
        groups, eps: of both GroupNorms.
        dropout: probability.
        act_fn: a key of ``ACTIVATIONS``.
        scale_shift: whether the time scales and shifts after norm2 instead of shifting before it.
        output_scale_factor: what y, the shortcut included, is divided by.
        resample: None, ``"up"`` (pixels are repeated) or ``"down"`` (the mean of each 2x2 square).
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, in_channels, H, W), temb (B, E) -> y (B, out_channels, H, W), in other sizes with resample: for "up" the option ``size`` of
        forward, by default (2H, 2W), for "down" (H // 2, W // 2). ``backward(dy, dtemb) -> dx`` adds to ``dtemb`` (B, E).

    Raises:
        ValueError: an argument out of range; in forward, arrays of other shapes or dtypes, or images too small to halve.

    Example:
        >>> block, dtemb = hcrot.ResnetBlock2D(4, 8, temb_channels=16, groups=2), np.zeros((1, 16), np.float32)
        >>> block(np.ones((1, 4, 5, 7), np.float32), np.ones((1, 16), np.float32)).shape
        (1, 8, 5, 7)
        >>> block.backward(np.ones((1, 8, 5, 7), np.float32), dtemb).shape, bool(dtemb.any())      # dtemb was added to
        ((1, 4, 5, 7), True)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        groups: int = 32,
        eps: float = 1e-5,
        dropout: float = 0.0,
        act_fn: str = "silu",
        scale_shift: bool = False,
        output_scale_factor: float = 1.0,
        resample: str | None = None,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        for name, value, known in (("act_fn", act_fn, tuple(ACTIVATIONS)), ("resample", resample, (None, "up", "down"))):
            if value not in known:
                raise ValueError(f"ResnetBlock2D: {name} must be one of {known}, got {value!r}")
        if output_scale_factor == 0:
            raise ValueError("ResnetBlock2D: output_scale_factor must not be 0")
        in_channels, out_channels, temb_channels = init.check_positive(
            "ResnetBlock2D", in_channels=in_channels, out_channels=out_channels, temb_channels=temb_channels
        )
        generator = init.default_generator("ResnetBlock2D", generator)
        self.output_scale_factor = float(output_scale_factor)
        self.norm1 = activated_norm(groups, in_channels, eps, act_fn)
        self.resample, self.resample_shortcut = resampler(resample, in_channels), resampler(resample, in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1, generator=generator)
        self.time_emb_proj = Linear(temb_channels, 2 * out_channels if scale_shift else out_channels, generator=generator)
        self.norm2 = GroupNorm(groups, out_channels, eps) if scale_shift else activated_norm(groups, out_channels, eps, act_fn)
        self.scale_shift = ScaleShift() if scale_shift else None
        self.act = ACTIVATIONS[act_fn]() if scale_shift else None
        self.dropout = Dropout(dropout, generator=generator) if dropout else Identity()
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, generator=generator)
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1, generator=generator) if in_channels != out_channels else Identity()

    def forward(self, x: np.ndarray, temb: np.ndarray, **size: tuple[int, int]) -> np.ndarray:
        h = self.resample(self.norm1(x), **size)
        t = self.time_emb_proj(temb)
        if self.scale_shift and self.act:
            n = self.norm2(self.conv1(h))
            h = self.act(self.scale_shift(n, t))
        else:
            h = self.norm2(self.conv1(h, shift=t))
        y = self.conv2(self.dropout(h), residual=self.conv_shortcut(self.resample_shortcut(x, **size)))
        return y if self.output_scale_factor == 1 else y / self.output_scale_factor

    def backward(self, dy: np.ndarray, dtemb: np.ndarray) -> np.ndarray:
        dy = dy if self.output_scale_factor == 1 else dy / self.output_scale_factor
        dh = self.dropout.backward(self.conv2.backward(dy))
        if self.scale_shift and self.act:
            dn, dt = self.scale_shift.backward(self.act.backward(dh))
            dh = self.norm2.backward(dn)
        else:
            dh = self.norm2.backward(dh)
            dt = pixel_sums(dh)
        dtemb += self.time_emb_proj.backward(dt)
        around = self.resample_shortcut.backward(self.conv_shortcut.backward(dy))
        return self.norm1.backward(self.resample.backward(self.conv1.backward(dh)), residual=around)


def activated_norm(groups: int, channels: int, eps: float, act_fn: str) -> GroupNorm:
    """GroupNorm and activation as one layer, for SiLU in one pass."""
    act = ACTIVATIONS[act_fn]
    return GroupNormSiLU(groups, channels, eps) if act is SiLU else ActivatedGroupNorm(groups, channels, eps, act())


def resampler(kind: str | None, channels: int) -> Module:
    """What a residual block with ``resample=kind`` puts both its branches through; nothing is learned."""
    if kind is None:
        return Identity()
    return {"up": Upsample, "down": Downsample}[kind](channels, use_conv=False)


class Level(Module):
    """What down and up blocks share: residual blocks, each followed by attention where the block has any, and a resampler at most."""

    attentions: list[Module]
    resnets: list[ResnetBlock2D]

    def layer(self, index: int, h: np.ndarray, temb: np.ndarray, *context: np.ndarray) -> np.ndarray:
        h = self.resnets[index](h, temb)
        return self.attentions[index](h, *context) if self.attentions else h

    def layer_backward(self, index: int, dh: np.ndarray, dtemb: np.ndarray, *dcontext: np.ndarray) -> np.ndarray:
        if self.attentions:
            dh = self.attentions[index].backward(dh, *dcontext)
        return self.resnets[index].backward(dh, dtemb)

    def resized(self, resampler: Module, h: np.ndarray, temb: np.ndarray, **size: tuple[int, int]) -> np.ndarray:
        """h through the resampler. A residual block takes the time embedding, too; a convolution does not."""
        return resampler(h, temb, **size) if isinstance(resampler, ResnetBlock2D) else resampler(h, **size)

    def resized_backward(self, resampler: Module, dh: np.ndarray, dtemb: np.ndarray) -> np.ndarray:
        return resampler.backward(dh, dtemb) if isinstance(resampler, ResnetBlock2D) else resampler.backward(dh)


class DownBlock2D(Level):
    """Residual blocks, with or without attention, then a halving (not in the last level). Every result is pushed as a skip.

    Args:
        in_channels, out_channels: widths before and after.
        num_layers: residual blocks.
        resnet, attention, downsample: functions that make the parts.

    Shapes:
        h (B, in_channels, H, W) -> (B, out_channels, H', W'), H' x W' being what downsample makes of H x W: ceil(H / 2) for a convolution
        with padding 1, else H // 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        resnet: Callable[[int, int], ResnetBlock2D],
        attention: Callable[[int], Module] | None = None,
        downsample: Callable[[int], Module] | None = None,
    ):
        self.attentions, self.resnets = [], []
        for _ in range(num_layers):
            self.resnets.append(resnet(in_channels, out_channels))
            if attention:
                self.attentions.append(attention(out_channels))
            in_channels = out_channels
        self.downsamplers = [downsample(out_channels)] if downsample else []

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray], *context: np.ndarray) -> np.ndarray:
        for index in range(len(self.resnets)):
            h = self.layer(index, h, temb, *context)
            skips.append(h)
        for downsample in self.downsamplers:
            h = self.resized(downsample, h, temb)
            skips.append(h)
        return h

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray], *dcontext: np.ndarray) -> np.ndarray:
        for downsample in self.downsamplers:
            dh = self.resized_backward(downsample, plus(dh, dskips.pop()), dtemb)
        for index in reversed(range(len(self.resnets))):
            dh = self.layer_backward(index, plus(dh, dskips.pop()), dtemb, *dcontext)
        return dh


class UNetMidBlock2D(Level):
    """Residual block, attention (if any), residual block, at the lowest resolution.

    Args:
        channels: width throughout.
        resnet, attention: functions that make the parts.

    Shapes:
        h (B, channels, H, W) -> the same.
    """

    def __init__(
        self,
        channels: int,
        *,
        resnet: Callable[[int, int], ResnetBlock2D],
        attention: Callable[[int], Module] | None = None,
    ):
        self.attentions = [attention(channels)] if attention else []
        self.resnets = [resnet(channels, channels), resnet(channels, channels)]

    def forward(self, h: np.ndarray, temb: np.ndarray, *context: np.ndarray) -> np.ndarray:
        return self.resnets[1](self.layer(0, h, temb, *context), temb)

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, *dcontext: np.ndarray) -> np.ndarray:
        return self.layer_backward(0, self.resnets[1].backward(dh, dtemb), dtemb, *dcontext)


class UpBlock2D(Level):
    """Residual blocks, with or without attention, each joined by a skip from the way down, and, but for the last level, an enlargement to
    the size of the skip that waits.

    Args:
        in_channels, out_channels: widths before and after.
        skip_channels: width of each skip that the block will pop, in the order of popping.
        resnet, attention, upsample: functions that make the parts.

    Shapes:
        h (B, in_channels, H, W) -> (B, out_channels, H', W'), H' x W' being the size of the next skip.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        skip_channels: list[int],
        *,
        resnet: Callable[[int, int], ResnetBlock2D],
        attention: Callable[[int], Module] | None = None,
        upsample: Callable[[int], Module] | None = None,
    ):
        self.attentions, self.resnets, self.widths = [], [], []
        for skip in skip_channels:
            self.widths.append(in_channels)
            self.resnets.append(resnet(in_channels + skip, out_channels))
            if attention:
                self.attentions.append(attention(out_channels))
            in_channels = out_channels
        self.upsamplers = [upsample(out_channels)] if upsample else []

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray], *context: np.ndarray) -> np.ndarray:
        for index in range(len(self.resnets)):
            h = self.layer(index, concatenate(h, skips.pop()), temb, *context)
        for upsample in self.upsamplers:
            height, width = skips[-1].shape[2:]
            h = self.resized(upsample, h, temb, size=(height, width))
        return h

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray], *dcontext: np.ndarray) -> np.ndarray:
        for upsample in self.upsamplers:
            dh = self.resized_backward(upsample, dh, dtemb)
        for index in reversed(range(len(self.resnets))):
            dh, dskip = split(self.layer_backward(index, dh, dtemb, *dcontext), self.widths[index])
            dskips.append(dskip)
        return dh
