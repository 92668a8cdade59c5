"""The network of a diffusion model: a U-Net that sees a noisy image, the time and a class, and predicts the noise.

Read from top to bottom: residual block, down block, mid block, up block, U-Net. Each ``backward`` is its ``forward`` read upwards, after
one law:

    What a module alone consumes, its backward returns. What many modules share, the caller owns an accumulator for, and backward
    adds to it.

So ``forward(h, temb, skips) -> h`` becomes ``backward(dh, dtemb, dskips) -> dh``. ``temb``, the embedding of time and class, is shared by
all residual blocks: each adds its gradient to ``dtemb``. ``skips`` is a stack: the way down pushes and the way up pops; in backward time
runs the other way, so the way up pushes ``dskips`` and the way down pops. Constructors push and pop channel widths by the same discipline.

Names, arguments and parameter keys are those of diffusers' ``UNet2DModel`` (0.42), whose weights load unchanged. Unlike it, any image size
works: the way up goes to the size of the skip that waits, where diffusers always doubles and fails on sizes that are not divisible.

Notation: B images, H x W pixels, E width of ``temb``. Sources: Ho et al. 2020 (appendix B) for the network, Ronneberger et al. 2015 for
the U.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from hcrot import init
from hcrot.kernels.channels import concatenate, pixel_sums, split
from hcrot.layers.activation import SiLU
from hcrot.layers.attention import Attention
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.dropout import Dropout
from hcrot.layers.embedding import Embedding, TimestepEmbedding, Timesteps
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNormSiLU
from hcrot.layers.resample import Downsample, Upsample
from hcrot.module import Identity, Module


class ResnetBlock2D(Module):
    """Two convolutions beside a shortcut, told the time in between.

        h = conv1(silu(norm1(x))) + time_emb_proj(temb)          one number per image and channel, the same for every pixel
        y = conv2(dropout(silu(norm2(h)))) + shortcut(x)         shortcut: a 1x1 convolution if the width changes, else x itself

    ``temb`` comes with its SiLU already applied: the U-Net computes it once for all blocks.

    Args:
        in_channels, out_channels: widths of x and y.
        temb_channels: E.
        groups, eps: of both GroupNorms.
        dropout: probability.
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, in_channels, H, W), temb (B, E) -> y (B, out_channels, H, W). ``backward(dy, dtemb) -> dx`` adds to ``dtemb`` (B, E).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        groups: int = 32,
        eps: float = 1e-5,
        dropout: float = 0.0,
        *,
        generator: np.random.Generator | None = None,
    ):
        generator = init.default_generator(generator)
        self.norm1 = GroupNormSiLU(groups, in_channels, eps)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1, generator=generator)
        self.time_emb_proj = Linear(temb_channels, out_channels, generator=generator)
        self.norm2 = GroupNormSiLU(groups, out_channels, eps)
        self.dropout = Dropout(dropout, generator=generator) if dropout else Identity()
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, generator=generator)
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1, generator=generator) if in_channels != out_channels else Identity()

    def forward(self, x: np.ndarray, temb: np.ndarray) -> np.ndarray:
        h = self.conv1(self.norm1(x), shift=self.time_emb_proj(temb))
        return self.conv2(self.dropout(self.norm2(h)), residual=self.conv_shortcut(x))

    def backward(self, dy: np.ndarray, dtemb: np.ndarray) -> np.ndarray:
        dh = self.norm2.backward(self.dropout.backward(self.conv2.backward(dy)))
        dtemb += self.time_emb_proj.backward(pixel_sums(dh))
        return self.norm1.backward(self.conv1.backward(dh)) + self.conv_shortcut.backward(dy)


class Level(Module):
    """What down and up blocks share: residual blocks, each followed by attention where the block has any, and a resampler at most."""

    attentions: list[Module]
    resnets: list[ResnetBlock2D]

    def layer(self, index: int, h: np.ndarray, temb: np.ndarray) -> np.ndarray:
        h = self.resnets[index](h, temb)
        return self.attentions[index](h) if self.attentions else h

    def layer_backward(self, index: int, dh: np.ndarray, dtemb: np.ndarray) -> np.ndarray:
        if self.attentions:
            dh = self.attentions[index].backward(dh)
        return self.resnets[index].backward(dh, dtemb)


class DownBlock2D(Level):
    """Residual blocks (with attention in ``AttnDownBlock2D``) and, but for the last level, a halving; every result is pushed as a skip.

    Args:
        in_channels, out_channels: widths before and after.
        num_layers: residual blocks.
        downsample_padding: 1, or 0 for diffusers' one-sided padding; None for no downsampling.
        attention: function ``channels -> Attention``, or None for a block without.
        resnet: function ``(in_channels, out_channels) -> ResnetBlock2D``.
        generator: source of initial values.

    Shapes:
        h (B, in_channels, H, W) -> (B, out_channels, ceil(H / 2), ceil(W / 2)), with padding 0 H // 2; the
        last block keeps the size.
    """

    def __init__(self, in_channels, out_channels, num_layers, downsample_padding, *, attention, resnet, generator):
        self.attentions, self.resnets = [], []
        for _ in range(num_layers):
            self.resnets.append(resnet(in_channels, out_channels))
            if attention:
                self.attentions.append(attention(out_channels))
            in_channels = out_channels
        self.downsamplers = []
        if downsample_padding is not None:
            self.downsamplers.append(Downsample(out_channels, padding=downsample_padding, generator=generator))

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        for index in range(len(self.resnets)):
            h = self.layer(index, h, temb)
            skips.append(h)
        for downsample in self.downsamplers:
            h = downsample(h)
            skips.append(h)
        return h

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        for downsample in self.downsamplers:
            dh = downsample.backward(dh + dskips.pop())
        for index in reversed(range(len(self.resnets))):
            dh = self.layer_backward(index, dh + dskips.pop(), dtemb)
        return dh


class UNetMidBlock2D(Level):
    """Residual block, attention (optional), residual block, at the lowest resolution.

    Args:
        channels: width throughout.
        attention, resnet: as of :class:`DownBlock2D`.

    Shapes:
        h (B, channels, H, W) -> the same.
    """

    def __init__(self, channels, *, attention, resnet):
        self.attentions = [attention(channels)] if attention else []
        self.resnets = [resnet(channels, channels), resnet(channels, channels)]

    def forward(self, h: np.ndarray, temb: np.ndarray) -> np.ndarray:
        return self.resnets[1](self.layer(0, h, temb), temb)

    def backward(self, dh: np.ndarray, dtemb: np.ndarray) -> np.ndarray:
        return self.layer_backward(0, self.resnets[1].backward(dh, dtemb), dtemb)


class UpBlock2D(Level):
    """Residual blocks (with attention in ``AttnUpBlock2D``), each joined by a skip from the way down, and, but for the last level, an
    enlargement to the size of the skip that waits.

    Args:
        in_channels, out_channels: widths before and after.
        skip_channels: width of each skip that the block will pop, in the order of popping.
        upsample: whether there is an enlargement.
        attention, resnet, generator: as of :class:`DownBlock2D`.

    Shapes:
        h (B, in_channels, H, W) -> (B, out_channels, H', W'), H' x W' being the size of the next skip.
    """

    def __init__(self, in_channels, out_channels, skip_channels, upsample, *, attention, resnet, generator):
        self.attentions, self.resnets, self.widths = [], [], []
        for skip in skip_channels:
            self.widths.append(in_channels)
            self.resnets.append(resnet(in_channels + skip, out_channels))
            if attention:
                self.attentions.append(attention(out_channels))
            in_channels = out_channels
        self.upsamplers = [Upsample(out_channels, generator=generator)] if upsample else []

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        for index in range(len(self.resnets)):
            h = self.layer(index, concatenate(h, skips.pop()), temb)
        for upsample in self.upsamplers:
            h = upsample(h, size=skips[-1].shape[2:])
        return h

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        for upsample in self.upsamplers:
            dh = upsample.backward(dh)
        for index in reversed(range(len(self.resnets))):
            dh, dskip = split(self.layer_backward(index, dh, dtemb), self.widths[index])
            dskips.append(dskip)
        return dh


class UNet2dModel(Module):
    """diffusers' ``UNet2DModel``: same arguments, same parameter keys, same numbers; ``forward`` returns the array itself.

        emb  = time_embedding(sinusoids(timesteps)) + class_embedding(class_labels)
        h    = conv_in(sample), down blocks (each result a skip), mid block, up blocks (each joined by a skip)
        y    = conv_out(silu(conv_norm_out(h)))

    Shapes:
        sample (B, in_channels, H, W), float32 (float64 after ``astype``); timesteps an int or (B,); class_labels an int or (B,) ints.
        Returns (B, out_channels, H, W). ``backward(dout) -> dsample`` (time and class have no gradient; their embeddings learn).

    Raises:
        ValueError: in the constructor, arguments that do not fit together; in forward, a sample, timesteps or labels that do not fit.
        NotImplementedError: names an argument of diffusers' that hcrot does not have yet.
    """

    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,  # for the user's own loops; any size works in forward
        in_channels: int = 3,
        out_channels: int = 3,
        center_input_sample: bool = False,  # forward begins with 2 sample - 1
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,  # E; None: 4 block_out_channels[0]
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,  # cosines first
        down_block_types: Sequence[str] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",
        up_block_types: Sequence[str] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels: Sequence[int] = (224, 448, 672, 896),  # width of each level
        layers_per_block: int = 2,  # residual blocks of a down block; an up block has one more
        mid_block_scale_factor: float = 1,
        downsample_padding: int = 1,
        downsample_type: str = "conv",
        upsample_type: str = "conv",
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,  # width of a head; None: one head
        norm_num_groups: int = 32,
        attn_norm_num_groups: int | None = None,  # of the mid attention; None: norm_num_groups
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "default",
        add_attention: bool = True,  # whether the mid block has attention
        class_embed_type: str | None = None,
        num_class_embeds: int | None = None,  # number of classes; None: no class conditioning
        num_train_timesteps: int | None = None,
        *,
        generator: np.random.Generator | None = None,
    ):
        arguments = {name: value for name, value in locals().items() if name in self.argument_names()}
        self.config = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
        check_arguments(arguments)
        generator = init.default_generator(generator)
        widths = tuple(block_out_channels)
        temb_channels = time_embedding_dim or 4 * widths[0]

        def resnet(channels_in: int, channels_out: int) -> ResnetBlock2D:
            return ResnetBlock2D(channels_in, channels_out, temb_channels, norm_num_groups, norm_eps, dropout, generator=generator)

        def attention(channels: int, groups: int = norm_num_groups) -> Attention:
            return Attention(channels, attention_head_dim, norm_num_groups=groups, eps=norm_eps, generator=generator)

        def mid_attention(channels: int) -> Attention:
            return attention(channels, norm_num_groups if attn_norm_num_groups is None else attn_norm_num_groups)

        parts = {"resnet": resnet, "generator": generator}
        self.conv_in = Conv2d(in_channels, widths[0], 3, padding=1, generator=generator)
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(widths[0], temb_channels, generator=generator)
        self.class_embedding = Embedding(num_class_embeds, temb_channels, generator=generator) if num_class_embeds else None
        self.temb_act = SiLU()

        # the stack of skips, as widths: pushed here as the down blocks push arrays, popped below as the up blocks pop them
        skips, width, last = [widths[0]], widths[0], len(widths) - 1
        self.down_blocks = []
        for level, (kind, out) in enumerate(zip(down_block_types, widths, strict=True)):
            padding = None if level == last else downsample_padding
            attend = attention if kind.startswith("Attn") else None
            self.down_blocks.append(DownBlock2D(width, out, layers_per_block, padding, attention=attend, **parts))
            skips += [out] * (layers_per_block + (level != last))
            width = out

        self.up_blocks = []
        for level, (kind, out) in enumerate(zip(up_block_types, reversed(widths), strict=True)):
            popped = [skips.pop() for _ in range(layers_per_block + 1)]
            attend = attention if kind.startswith("Attn") else None
            self.up_blocks.append(UpBlock2D(width, out, popped, level != last, attention=attend, **parts))
            width = out
        assert not skips

        attend = mid_attention if add_attention else None
        self.mid_block = UNetMidBlock2D(widths[-1], attention=attend, resnet=resnet) if mid_block_type else None
        self.conv_norm_out = GroupNormSiLU(norm_num_groups, widths[0], norm_eps)
        self.conv_out = Conv2d(widths[0], out_channels, 3, padding=1, generator=generator)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, generator: np.random.Generator | None = None) -> "UNet2dModel":
        """The network, with new weights, that a config.json of diffusers (or ``config`` of another network) describes.

        Args:
            config: the constructor's arguments by name. Missing ones take their defaults; names that begin with an underscore, such as
                ``_class_name`` and ``_diffusers_version``, are none of them and ignored.
            generator: source of the initial weights.

        Raises:
            ValueError: a key that is no argument; the message names all of them. Further what the constructor raises.
        """
        arguments = {name: value for name, value in config.items() if not name.startswith("_")}
        unknown = sorted(arguments.keys() - set(cls.argument_names()))
        if unknown:
            raise ValueError(f"UNet2dModel.from_config: {', '.join(unknown)}: no such argument")
        return cls(**arguments, generator=generator)

    @classmethod
    def argument_names(cls) -> list[str]:
        """diffusers' constructor arguments: the keys of ``config`` and of config.json."""
        names = inspect.signature(cls).parameters
        return [name for name in names if name != "generator"]

    def forward(self, sample: np.ndarray, timesteps: int | np.ndarray, class_labels: int | np.ndarray | None = None) -> np.ndarray:
        dtype = self.conv_in.weight.data.dtype
        check_images("UNet2dModel: sample", sample, self.config["in_channels"], dtype)
        temb = self.embed(per_image("timesteps", timesteps, len(sample)), class_labels, dtype)
        if self.config["center_input_sample"]:
            sample = 2 * sample - 1
        h = self.conv_in(sample)
        skips = [h]
        for block in self.down_blocks:
            h = block(h, temb, skips)
        if self.mid_block:
            h = self.mid_block(h, temb)
        for block in self.up_blocks:
            h = block(h, temb, skips)
        assert not skips
        self.save(temb.shape)
        return self.conv_out(self.conv_norm_out(h))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        dtemb, dskips = np.zeros(self.saved(), dout.dtype), []
        dh = self.conv_norm_out.backward(self.conv_out.backward(dout))
        for block in reversed(self.up_blocks):
            dh = block.backward(dh, dtemb, dskips)
        if self.mid_block:
            dh = self.mid_block.backward(dh, dtemb)
        for block in reversed(self.down_blocks):
            dh = block.backward(dh, dtemb, dskips)
        dsample = self.conv_in.backward(dh + dskips.pop())
        assert not dskips
        self.embed_backward(dtemb)
        return 2 * dsample if self.config["center_input_sample"] else dsample

    def embed(self, timesteps: np.ndarray, class_labels: int | np.ndarray | None, dtype: np.dtype) -> np.ndarray:
        """``silu(time_embedding(sinusoids(timesteps)) + class_embedding(class_labels))``: (B,) and (B,) -> (B, E)."""
        if (class_labels is None) != (self.class_embedding is None):
            fault = "class_labels missing: the model was built with" if class_labels is None else "class_labels given, but the model has"
            raise ValueError(f"UNet2dModel: {fault} num_class_embeds {self.config['num_class_embeds']}")
        emb = self.time_embedding(self.time_proj(timesteps, dtype))
        if self.class_embedding:
            emb = emb + self.class_embedding(per_image("class_labels", class_labels, len(timesteps)))
        return self.temb_act(emb)

    def embed_backward(self, dtemb: np.ndarray) -> None:
        demb = self.temb_act.backward(dtemb)
        if self.class_embedding:
            self.class_embedding.backward(demb)
        self.time_embedding.backward(demb)


def per_image(name: str, value: int | np.ndarray, batch: int) -> np.ndarray:
    """``value`` as an array (batch,): a single number is meant for every image.

    Raises:
        ValueError: an array of another shape; the message names the argument.
    """
    array = np.asarray(value)
    if array.shape not in ((), (1,), (batch,)):
        raise ValueError(f"UNet2dModel: {name} must be a number or an array of shape ({batch},), one per image, got shape {array.shape}")
    return np.broadcast_to(array.reshape(-1), (batch,))


NOT_YET = {
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D", None),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default",),
    "class_embed_type": (None,),
    "num_train_timesteps": (None,),
}
"""The values of diffusers' arguments that hcrot has so far, where it does not have all."""

OPTIONAL_SIZES = ("num_class_embeds", "time_embedding_dim", "attention_head_dim", "attn_norm_num_groups")
"""Arguments that are None or an int of at least 1."""


def check_arguments(arguments: dict) -> None:
    """Raise before any work if the constructor's arguments do not fit together (ValueError) or ask for what is not there yet
    (NotImplementedError); the message names the argument, what came and what was expected."""
    for name, known in NOT_YET.items():
        if arguments[name] not in known:
            raise NotImplementedError(f"UNet2dModel: {name}={arguments[name]!r} is not there yet; known: {known}")
    widths = arguments["block_out_channels"]
    if not isinstance(widths, Sequence) or not widths:
        raise ValueError(f"UNet2dModel: block_out_channels must be a sequence of widths, one for each level, got {widths!r}")
    for side in ("down", "up"):
        kinds = arguments[f"{side}_block_types"]
        known = (f"{side.capitalize()}Block2D", f"Attn{side.capitalize()}Block2D")
        if len(kinds) != len(widths):
            raise ValueError(f"UNet2dModel: {side}_block_types has {len(kinds)} entries, block_out_channels has {len(widths)}")
        for kind in kinds:
            if kind not in known:
                raise NotImplementedError(f"UNet2dModel: {side}_block_types: {kind!r} is not there yet; known: {known}")
    if arguments["downsample_padding"] not in (0, 1):
        raise ValueError(f"UNet2dModel: downsample_padding must be 0 or 1, got {arguments['downsample_padding']!r}")
    init.check_positive(
        "UNet2dModel",
        in_channels=arguments["in_channels"],
        out_channels=arguments["out_channels"],
        layers_per_block=arguments["layers_per_block"],
        norm_num_groups=arguments["norm_num_groups"],
        **{f"block_out_channels[{level}]": width for level, width in enumerate(widths)},
        **{name: arguments[name] for name in OPTIONAL_SIZES if arguments[name] is not None},
    )
    for name, low, high in (("dropout", 0, 1), ("norm_eps", 0, math.inf), ("freq_shift", -math.inf, math.inf)):
        if not isinstance(arguments[name], Real) or not low <= arguments[name] <= high:
            raise ValueError(f"UNet2dModel: {name} must be a number from {low} to {high}, got {arguments[name]!r}")
    for level, width in enumerate(widths):
        if width % arguments["norm_num_groups"]:
            raise ValueError(
                f"UNet2dModel: block_out_channels[{level}] {width} is not divisible by norm_num_groups {arguments['norm_num_groups']}"
            )
