"""The network of a diffusion model: a U-Net that sees a noisy image, the time and a class, and predicts the noise.

Its blocks, and the law by which gradients travel between them, are in ``unet_2d_blocks.py``; read that first. Here they are put together.
The way through them, and how time and class become ``temb``, is in ``unet_2d_base.py``. What arguments may be is in
``unet_2d_arguments.py``.

Names, arguments and parameter keys are those of diffusers' ``UNet2DModel`` (0.42), whose weights load unchanged. Unlike it, any image size
works: the way up goes to the size of the skip that waits, where diffusers always doubles and fails on sizes that are not divisible.

Notation: B images, H x W pixels, E width of ``temb``. Sources: Ho et al. 2020 (appendix B) for the network.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.layers.attention import Attention
from hcrot.layers.conv import Conv2d
from hcrot.layers.embedding import Embedding, GaussianFourierProjection, TimestepEmbedding, Timesteps
from hcrot.layers.norm import GroupNormSiLU
from hcrot.layers.resample import Downsample, Upsample
from hcrot.models.unet_2d_arguments import check_arguments, parts_of
from hcrot.models.unet_2d_base import UNetBase, class_embedding
from hcrot.models.unet_2d_blocks import ACTIVATIONS, DownBlock2D, ResnetBlock2D, UNetMidBlock2D, UpBlock2D
from hcrot.module import Module

__all__ = ["UNet2dModel"]


class UNet2dModel(UNetBase):
    """diffusers' ``UNet2DModel``: same arguments, same parameter keys, same numbers; ``forward`` returns the array itself.

        temb = act(time_embedding(time_proj(timesteps)) + class_embedding(class_labels))
        h    = conv_in(sample), down blocks (each result a skip), mid block, up blocks (each joined by a skip)
        y    = conv_out(silu(conv_norm_out(h)))                with time_embedding_type "fourier" divided by timesteps

    ``act_fn`` is the activation of the residual blocks and of temb; the last one and that within time_embedding are always SiLU, as in
    diffusers. Where that does something unintended, this does not: a timestep that is a Python float is not cut to an integer, an unknown
    ``mid_block_type`` or ``class_embed_type`` is an error, and so is a head wider than the attention's channels.

    A block type may be a class of one's own, a Module, in the place of a name. It is called

        MyDown(in_channels, out_channels, num_layers, resnet=, attention=, downsample=)       forward(h, temb, skips) -> h
        MyUp(in_channels, out_channels, skip_channels, resnet=, attention=, upsample=)        backward(dh, dtemb, dskips) -> dh

    as :class:`DownBlock2D` and :class:`UpBlock2D` are, which one may derive from. ``resnet(in, out)``, ``attention(channels)``,
    ``downsample(channels)`` and ``upsample(channels)`` make parts as the other arguments say. Attention is None unless the class has an
    attribute ``attends = True``, downsample is None at the lowest level and upsample at the highest. A constructor that has parameters
    ``temb_channels`` (E) or ``generator`` gets them, too. ``MyDown`` pushes ``num_layers`` skips of out_channels, and what it returns as
    one more if it halves; ``MyUp`` pops skips of the widths ``skip_channels``, in this order, and goes to the size of ``skips[-1]`` if it
    enlarges. backward pushes and pops gradients in the opposite order, and adds the gradient of temb to dtemb. ``config`` then holds the
    class's name, ``module.MyDown``, from which no network can be made: from_config refuses it.

    Shapes:
        sample (B, in_channels, H, W), float32 (float64 after ``astype``). timestep, a number or (B,): integers from 0 to
        num_train_timesteps - 1 if they are "learned", else any numbers, above 0 for "fourier". class_labels, by ``class_embed_type``:
        for None an integer or (B,), below num_class_embeds; for "timestep" a number or (B,), embedded like a timestep; for "identity"
        (B, E) of the sample's dtype, the embedding itself. Returns (B, out_channels, H, W).

        ``backward(dout) -> dsample``; with class_embed_type "identity" ``(dsample, dclass_labels)``.

    Raises:
        ValueError: in the constructor, an argument out of range, or some that do not fit together; in forward, a sample, timesteps or
            labels that do not fit. TypeError: labels or "learned" timesteps that must be integers and are not.
        NotImplementedError: a block of diffusers' that hcrot does not have: those with FIR filters, k-diffusion's, and other networks'.

    Example:
        >>> model = hcrot.UNet2dModel(
        ...     sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4, num_class_embeds=10,
        ...     down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, generator=0,
        ... )
        >>> model(np.zeros((2, 1, 8, 8), np.float32), 500, np.array([3, 7])).shape
        (2, 1, 8, 8)
        >>> model.backward(np.ones((2, 1, 8, 8), np.float32)).shape
        (2, 1, 8, 8)
    """

    class_name = "UNet2DModel"

    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,  # for the user's own loops; any size works in forward
        in_channels: int = 3,
        out_channels: int = 3,
        center_input_sample: bool = False,  # forward begins with 2 sample - 1
        time_embedding_type: str = "positional",  # sinusoids; "fourier": of random frequency, of ln(t); "learned": a table
        time_embedding_dim: int | None = None,  # E; None: 4 block_out_channels[0]
        freq_shift: float = 0,  # of the sinusoids, see Timesteps
        flip_sin_to_cos: bool = True,  # cosines first
        down_block_types: Sequence[str | type[Module]] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",  # None: no mid block
        up_block_types: Sequence[str | type[Module]] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels: Sequence[int] = (224, 448, 672, 896),  # width of each level
        layers_per_block: int = 2,  # residual blocks of a down block; an up block has one more
        mid_block_scale_factor: float = 1,  # what the mid block's parts divide their results by
        downsample_padding: int = 1,  # 0: one row and column, below and to the right
        downsample_type: str = "conv",  # of AttnDownBlock2D; "resnet": a residual block halves
        upsample_type: str = "conv",  # of AttnUpBlock2D
        dropout: float = 0.0,  # in residual blocks
        act_fn: str = "silu",  # or "swish", which is the same, "mish", "gelu", "relu"
        attention_head_dim: int | None = 8,  # width of a head; None: one head
        norm_num_groups: int = 32,
        attn_norm_num_groups: int | None = None,  # of the mid attention; None: norm_num_groups, with "scale_shift" no norm
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "default",  # the time shifts before norm2; "scale_shift": scales and shifts after it
        add_attention: bool = True,  # whether the mid block has attention
        class_embed_type: str | None = None,  # a table of num_class_embeds; "timestep": like a time; "identity": labels are embeddings
        num_class_embeds: int | None = None,  # number of classes; None: no table, and without class_embed_type no class conditioning
        num_train_timesteps: int | None = None,  # size of the table of "learned" times
        *,
        attention_heads: int | None = None,  # not diffusers': heads of attention_head_dim each; None: as many as fit into the channels
        generator: np.random.Generator | int | None = None,
    ):
        arguments = {name: value for name, value in locals().items() if name in UNet2dModel.argument_names()}
        check_arguments(arguments)
        if attention_heads is None:  # what diffusers does not know is written only where it is used
            del arguments["attention_heads"]
        self.config = {name: plain_argument(value) for name, value in arguments.items()}
        generator = init.default_generator("UNet2dModel", generator)
        act_fn, widths, layers_per_block = act_fn.lower(), self.config["block_out_channels"], int(layers_per_block)
        temb_channels = time_embedding_dim or 4 * widths[0]
        time_channels = 2 * widths[0] if time_embedding_type == "fourier" else widths[0]
        scale_shift, last = resnet_time_scale_shift == "scale_shift", len(widths) - 1

        def resnet(channels_in: int, channels_out: int, **options: Any) -> ResnetBlock2D:
            options |= {"groups": norm_num_groups, "eps": norm_eps, "dropout": dropout, "act_fn": act_fn, "scale_shift": scale_shift}
            return ResnetBlock2D(channels_in, channels_out, temb_channels, **options, generator=generator)

        def attention(channels: int, groups: int | None = norm_num_groups, factor: float = 1) -> Attention:
            options: dict[str, Any] = {"norm_num_groups": groups, "eps": norm_eps, "rescale_output_factor": factor}
            return Attention(channels, attention_head_dim, **options, heads=attention_heads, generator=generator)

        downsamplers: dict[str, Callable[[int], Module]] = {
            "conv": lambda channels: Downsample(channels, padding=downsample_padding, generator=generator),
            "resnet": lambda channels: resnet(channels, channels, resample="down"),
        }
        upsamplers: dict[str, Callable[[int], Module]] = {
            "conv": lambda channels: Upsample(channels, generator=generator),
            "resnet": lambda channels: resnet(channels, channels, resample="up"),
        }
        shared = {"temb_channels": temb_channels, "generator": generator}

        def down(level: int, channels_in: int, channels_out: int, num_layers: int) -> Module:
            kind = down_block_types[level]
            attends, how = parts_of(kind, downsample_type)
            parts = {"attention": attention if attends else None, "downsample": None if level == last else downsamplers[how]}
            return block(kind, DownBlock2D, shared)(channels_in, channels_out, num_layers, resnet=resnet, **parts)

        def up(level: int, channels_in: int, channels_out: int, skip_channels: list[int]) -> Module:
            kind = up_block_types[last - level]
            attends, how = parts_of(kind, upsample_type)
            parts = {"attention": attention if attends else None, "upsample": upsamplers[how] if level else None}
            return block(kind, UpBlock2D, shared)(channels_in, channels_out, skip_channels, resnet=resnet, **parts)

        self.conv_in = Conv2d(in_channels, widths[0], 3, padding=1, generator=generator)
        if time_embedding_type == "fourier":
            self.time_proj = GaussianFourierProjection(widths[0], scale=16, generator=generator)
        elif time_embedding_type == "learned":
            assert num_train_timesteps is not None  # by check_arguments
            self.time_proj = Embedding(num_train_timesteps, widths[0], generator=generator)
        else:
            self.time_proj = Timesteps(widths[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(time_channels, temb_channels, generator=generator)
        self.class_embedding = class_embedding(class_embed_type, num_class_embeds, time_channels, temb_channels, generator)
        self.temb_act = ACTIVATIONS[act_fn]()
        self.add_blocks(widths, [layers_per_block] * len(widths), down, up)
        self.mid_block = None
        if mid_block_type:
            default_groups = None if scale_shift else norm_num_groups
            groups = default_groups if attn_norm_num_groups is None else attn_norm_num_groups
            self.mid_block = UNetMidBlock2D(
                widths[-1],
                resnet=partial(resnet, output_scale_factor=mid_block_scale_factor),
                attention=partial(attention, groups=groups, factor=mid_block_scale_factor) if add_attention else None,
            )
        self.conv_norm_out = GroupNormSiLU(norm_num_groups, widths[0], norm_eps)
        self.conv_out = Conv2d(widths[0], out_channels, 3, padding=1, generator=generator)

    def forward(self, sample: np.ndarray, timestep: float | np.ndarray, class_labels: float | np.ndarray | None = None) -> np.ndarray:
        return self.predict(sample, timestep, class_labels)


def block(kind: str | type[Module], ours: type[Module], shared: dict[str, Any]) -> Callable[..., Module]:
    """What makes a block of this kind: ``ours`` for a name, else the class itself, with what it asks for of ``shared``."""
    if isinstance(kind, str):
        return ours
    names = inspect.signature(kind).parameters
    return partial(kind, **{name: value for name, value in shared.items() if name in names})
