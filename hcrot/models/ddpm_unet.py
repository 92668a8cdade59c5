"""The U-Net of the post "[Generative Model] DDPM" (kjy, 2024), which follows labml.ai's reading of Ho et al. 2020, appendix B.

Written as the post has it, level by level (the widths are those of its defaults, for images of 32x32):

    32x32   project 3 -> 64;           2 blocks,  64     push x, b1, b2                     2 blocks 64,   1 block 64   -> last convolution
    16x16   halve;                     2 blocks, 128     push halved x, b1, b2              2 blocks 128,  1 block 64   -> double
     8x8    halve;                     2 blocks, 256     push ...        (with attention)   2 blocks 256,  1 block 128  -> double
     4x4    halve;                     2 blocks, 1024    push ...        (with attention)   2 blocks 1024, 1 block 256  -> double
                                       middle: block, attention, block

Each block on the way up is joined by the latest skip that is left. It is the network of ``unet_2d.py`` but for three things: the last block
of a level on the way up is already as narrow as the level above, a transposed convolution doubles the image, and a head of attention is as
wide as the image has channels. So the blocks are those of ``unet_2d_blocks.py``: ``ResnetBlock2D`` is the post's ``ResidualBlock``, and
:class:`hcrot.Attention` its ``SelfAttentionBlock`` with one Linear each for q, k and v, in place of one that is three times as wide.

Where the post is wrong, this is not:

- attention adds its result to its input, not to the normalised input (it overwrote x by ``norm(x)``), and writes into no array in place;
- several heads work (there, ``.view`` of a permuted tensor fails);
- what a network does not use is not built. The post builds attention on all levels, and a halving and a doubling for the first level: 64
  arrays that never receive a gradient. Without them the default network has 168,898,883 values;
- ``final_norm`` adds the GroupNorm and SiLU that the paper has before the last convolution, and the post has not.

Notation: B images, E width of the time embedding.
"""

from collections.abc import Callable, Sequence

import numpy as np

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.files.pretrained import Pretrained
from hcrot.kernels.channels import concatenate, plus, split
from hcrot.layers.activation import SiLU
from hcrot.layers.attention import Attention
from hcrot.layers.conv import Conv2d, ConvTranspose2d, check_images
from hcrot.layers.embedding import TimestepEmbedding, Timesteps
from hcrot.layers.norm import GroupNormSiLU
from hcrot.models.times import check_times
from hcrot.models.unet_2d_blocks import Level, ResnetBlock2D, UNetMidBlock2D
from hcrot.module import Identity, Module, check_gradient

__all__ = ["Down", "UNet", "Up"]


class Down(Level):
    """A halving (not in the first level), then residual blocks with or without attention. All three results are pushed as skips.

    Args:
        in_channels, out_channels: widths before and after.
        resnet, attention, downsample: functions that make the parts; the last two may be None.

    Shapes:
        h (B, in_channels, H, W) -> (B, out_channels, H', W'). ``forward(h, temb, skips)``, ``backward(dh, dtemb, dskips) -> dh``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resnet: Callable[[int, int], ResnetBlock2D],
        attention: Callable[[int], Attention] | None = None,
        downsample: Callable[[int], Module] | None = None,
    ):
        self.downsample = downsample(in_channels) if downsample else Identity()
        self.resnets = [resnet(in_channels, out_channels), resnet(out_channels, out_channels)]
        self.attentions = [attention(out_channels) for _ in self.resnets] if attention else []

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        h = self.downsample(h)
        skips.append(h)
        for index in range(len(self.resnets)):
            h = self.layer(index, h, temb)
            skips.append(h)
        return h

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        for index in reversed(range(len(self.resnets))):
            dh = self.layer_backward(index, plus(dh, dskips.pop()), dtemb)
        return self.downsample.backward(plus(dh, dskips.pop()))


class Up(Level):
    """Three residual blocks with or without attention, each joined by a skip, then a doubling (not in the first level).

    Args:
        in_channels, out_channels: widths before and after; the last of the blocks, and the doubling, have the latter.
        resnet, attention, upsample: functions that make the parts; the last two may be None.

    Shapes:
        h (B, in_channels, H, W) -> (B, out_channels, H', W'). Three skips are popped: two of in_channels, one of out_channels.
        ``forward(h, temb, skips)``, ``backward(dh, dtemb, dskips) -> dh``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resnet: Callable[[int, int], ResnetBlock2D],
        attention: Callable[[int], Attention] | None = None,
        upsample: Callable[[int], Module] | None = None,
    ):
        self.in_channels, widths = in_channels, (in_channels, in_channels, out_channels)
        self.resnets = [resnet(in_channels + width, width) for width in widths]
        self.attentions = [attention(width) for width in widths] if attention else []
        self.upsample = upsample(out_channels) if upsample else Identity()

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        for index in range(len(self.resnets)):
            h = self.layer(index, concatenate(h, skips.pop()), temb)
        return self.upsample(h)

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        dh = self.upsample.backward(dh)
        for index in reversed(range(len(self.resnets))):
            dh, dskip = split(self.layer_backward(index, dh, dtemb), self.in_channels)
            dskips.append(dskip)
        return dh


class UNet(Pretrained):
    """The network: from noisy images and their times to the noise in them.

        temb = silu(linear_2(silu(linear_1(sinusoids(t)))))        the sinusoids are E / 4 numbers, E = 4 proj_channels

    Args:
        img_channels: of the images.
        proj_channels: width of the first convolution, a multiple of 4.
        factors: width of each level over that of the level before; the first is over proj_channels. (1, 2, 2, 4): 64, 128, 256, 1024.
        has_attention: for each level whether its blocks have attention. The post asks for it at 8x8 and 4x4; the paper has it at 16x16,
            ``(False, True, False, False)``. The way up is the mirror of the way down. The middle always has attention.
        is_down: for each level whether it begins by halving, and so ends, on the way up, by doubling.
        n_groups: of every GroupNorm; must divide proj_channels.
        n_heads: of attention, each as wide as there are channels.
        dropout: probability, in residual blocks.
        final_norm: whether GroupNorm and SiLU come before the last convolution, as in the paper.
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, img_channels, H, W), float32 (float64 after ``astype``), H and W multiples of 2 to the number of halvings; t, a number or (B,)
        -> y (B, img_channels, H, W). ``backward(dy) -> dx``.

    Raises:
        ValueError: an argument out of range or of another length than factors, or n_groups that do not divide proj_channels; in forward,
            images or times that do not fit. TypeError: in forward, times that are no numbers.
    """

    class_name = "DDPMUNet"

    def __init__(
        self,
        img_channels: int = 3,
        proj_channels: int = 64,
        factors: Sequence[int] = (1, 2, 2, 4),
        has_attention: Sequence[bool] = (False, False, True, True),
        is_down: Sequence[bool] = (False, True, True, True),
        n_groups: int = 32,
        n_heads: int = 1,
        dropout: float = 0.1,
        final_norm: bool = False,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        arguments = locals()
        self.config = {name: plain_argument(arguments[name]) for name in UNet.argument_names()}
        img_channels, proj_channels, n_groups, n_heads = init.check_positive(
            "UNet", img_channels=img_channels, proj_channels=proj_channels, n_groups=n_groups, n_heads=n_heads
        )
        if proj_channels % 4:
            raise ValueError(f"UNet: proj_channels must be a multiple of 4, got {proj_channels}")
        for name, flags in (("has_attention", has_attention), ("is_down", is_down)):
            if len(flags) != len(factors) or not factors:
                raise ValueError(f"UNet: {name} must have one value for each of the {len(factors)} factors, at least one, got {flags!r}")
        widths = [proj_channels]
        for factor in factors:
            widths.append(widths[-1] * init.check_positive("UNet", factors=factor)[0])
        if proj_channels % n_groups:  # it divides all other widths
            raise ValueError(f"UNet: proj_channels {proj_channels} is not divisible by n_groups {n_groups}")
        generator, width = init.default_generator("UNet", generator), 4 * proj_channels
        self.img_channels, self.multiple = img_channels, 2 ** sum(map(bool, is_down))

        def resnet(channels_in: int, channels_out: int) -> ResnetBlock2D:
            return ResnetBlock2D(channels_in, channels_out, width, n_groups, dropout=dropout, generator=generator)

        def attention(channels: int) -> Attention:
            return Attention(channels, None, n_groups, heads=n_heads, generator=generator)

        def downsample(channels: int) -> Module:
            return Conv2d(channels, channels, 3, stride=2, padding=1, generator=generator)

        def upsample(channels: int) -> Module:
            return ConvTranspose2d(channels, channels, 4, stride=2, padding=1, generator=generator)

        self.conv_in = Conv2d(img_channels, proj_channels, 3, padding=1, generator=generator)
        self.time_proj = Timesteps(proj_channels, flip_sin_to_cos=False, downscale_freq_shift=1)
        self.time_embedding = TimestepEmbedding(proj_channels, width, generator=generator)
        self.temb_act = SiLU()
        levels = list(zip(widths, widths[1:], has_attention, is_down, strict=False))
        self.downs = [
            Down(a, b, resnet=resnet, attention=attention if attends else None, downsample=downsample if halves else None)
            for a, b, attends, halves in levels
        ]
        self.middle = UNetMidBlock2D(widths[-1], resnet=resnet, attention=attention)
        self.ups = [
            Up(b, a, resnet=resnet, attention=attention if attends else None, upsample=upsample if halves else None)
            for a, b, attends, halves in reversed(levels)
        ]
        self.norm_out = GroupNormSiLU(n_groups, proj_channels) if final_norm else Identity()
        self.conv_out = Conv2d(proj_channels, img_channels, 3, padding=1, generator=generator)

    def forward(self, x: np.ndarray, t: float | np.ndarray) -> np.ndarray:
        dtype = self.conv_in.weight.data.dtype
        check_images("UNet: x", x, self.img_channels, dtype)
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(f"UNet: height and width must be multiples of {self.multiple}, got a {x.shape[2]}x{x.shape[3]} image")
        times = check_times("UNet", t, len(x))
        temb = self.temb_act(self.time_embedding(self.time_proj(times, dtype)))
        skips: list[np.ndarray] = []
        h = self.conv_in(x)
        for down in self.downs:
            h = down(h, temb, skips)
        h = self.middle(h, temb)
        for up in self.ups:
            h = up(h, temb, skips)
        assert not skips
        y = self.conv_out(self.norm_out(h))
        self.save(temb.shape, y.shape)
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        temb_shape, shape = self.saved()
        check_gradient("UNet", dout, shape, self.conv_in.weight.data.dtype)
        dtemb = np.zeros(temb_shape, dout.dtype)
        dskips: list[np.ndarray] = []
        dh = self.norm_out.backward(self.conv_out.backward(dout))
        for up in reversed(self.ups):
            dh = up.backward(dh, dtemb, dskips)
        dh = self.middle.backward(dh, dtemb)
        for down in reversed(self.downs):
            dh = down.backward(dh, dtemb, dskips)
        assert not dskips
        self.time_embedding.backward(self.temb_act.backward(dtemb))
        return self.conv_in.backward(dh)
