"""A U-Net that listens to a text: the network of Stable Diffusion (Rombach et al. 2022), small or large.

It is the network of ``unet_2d.py``, and takes one input more: a text, or whatever else there is, as K vectors. A transformer behind each
residual block lets every pixel take what it needs from them (``transformer_2d.py``). The way through the blocks is in ``unet_2d_base.py``.

Names, arguments and parameter keys are those of diffusers' ``UNet2DConditionModel`` (0.42), whose weights load unchanged.

Notation: B images, H x W pixels, E width of ``temb``, K tokens of the text, of D numbers each.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.layers.conv import Conv2d
from hcrot.layers.embedding import TimestepEmbedding, Timesteps
from hcrot.layers.norm import GroupNormSiLU
from hcrot.layers.resample import Downsample, Upsample
from hcrot.models.transformer_2d import Transformer2DModel
from hcrot.models.unet_2d_base import UNetBase, class_embedding
from hcrot.models.unet_2d_blocks import ACTIVATIONS, DownBlock2D, ResnetBlock2D, UNetMidBlock2D, UpBlock2D
from hcrot.models.unet_2d_condition_arguments import PER_LEVEL, by_level, check_arguments
from hcrot.module import Module, describe_shape

__all__ = ["UNet2DConditionModel"]


class UNet2DConditionModel(UNetBase):
    """diffusers' ``UNet2DConditionModel``: same arguments, same parameter keys, same numbers; ``forward`` returns the array itself.

    What loads: the networks of Stable Diffusion 1 and 2, and all that are made of ``CrossAttnDownBlock2D``, ``DownBlock2D``,
    ``CrossAttnUpBlock2D`` and ``UpBlock2D`` around a ``UNetMidBlock2DCrossAttn`` or none, with the arguments that have a comment below.
    Refused by name, with a NotImplementedError: other blocks, and every value of the arguments without a comment but its default, as SDXL,
    Kandinsky, DeepFloyd IF and GLIGEN need them. ``forward`` has no masks, and no residuals of a ControlNet.

    ``attention_head_dim`` is the number of heads, each of ``C // attention_head_dim`` numbers: diffusers keeps the wrong name, as files do.

    Shapes:
        sample (B, in_channels, H, W), float32 (float64 after ``astype``), of any size; timestep, a number or (B,);
        encoder_hidden_states (B, K, D) of the sample's dtype, D = cross_attention_dim; class_labels as :class:`UNet2dModel` takes them.
        Returns (B, out_channels, H, W).

        ``backward(dout) -> dsample, dencoder_hidden_states``; with class_embed_type "identity" also dclass_labels, as the third.

    Raises:
        ValueError: in the constructor, an argument out of range, or some that do not fit together; in forward, an input that does not fit.
        TypeError: labels that must be integers and are not. NotImplementedError: what is refused, see above.

    Example:
        >>> model = hcrot.UNet2DConditionModel(
        ...     in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        ...     cross_attention_dim=6, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        ...     up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ... )
        >>> image, text = np.ones((2, 1, 8, 8), np.float32), np.ones((2, 3, 6), np.float32)      # a text of 3 tokens
        >>> model(image, 500, text).shape, [gradient.shape for gradient in model.backward(image)]
        ((2, 1, 8, 8), [(2, 1, 8, 8), (2, 3, 6)])
    """

    class_name = "UNet2DConditionModel"

    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,  # for the user's own loops; any size works in forward
        in_channels: int = 4,
        out_channels: int = 4,
        center_input_sample: bool = False,  # forward begins with 2 sample - 1
        flip_sin_to_cos: bool = True,  # cosines first
        freq_shift: float = 0,  # of the sinusoids, see Timesteps
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2DCrossAttn",  # None: no mid block
        up_block_types: Sequence[str] = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        only_cross_attention: bool | Sequence[bool] = False,  # for each level: pixels attend to the text alone; the mid block's to both
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),  # width of each level
        layers_per_block: int | Sequence[int] = 2,  # residual blocks of a down block; an up block has one more
        downsample_padding: int = 1,  # 0: one row and column, below and to the right
        mid_block_scale_factor: float = 1,  # what the mid block's residual blocks divide their results by
        dropout: float = 0.0,  # in residual blocks
        act_fn: str = "silu",  # or "swish", which is the same
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,  # of the residual blocks and at the end
        cross_attention_dim: int | Sequence[int] = 1280,  # D
        transformer_layers_per_block: int | Sequence[int] = 1,  # BasicTransformerBlocks behind a residual block, for each level
        reverse_transformer_layers_per_block: None = None,
        encoder_hid_dim: None = None,
        encoder_hid_dim_type: None = None,
        attention_head_dim: int | Sequence[int] = 8,  # number of heads, for each level
        num_attention_heads: None = None,
        dual_cross_attention: bool = False,
        use_linear_projection: bool = False,  # linear layers in the place of 1x1 convolutions before and after a transformer
        class_embed_type: str | None = None,  # a table of num_class_embeds; "timestep": like a time; "identity": labels are embeddings
        addition_embed_type: None = None,
        addition_time_embed_dim: None = None,
        num_class_embeds: int | None = None,  # number of classes
        upcast_attention: bool = False,  # no effect: attention is never less precise than its inputs
        resnet_time_scale_shift: str = "default",  # the time shifts before norm2; "scale_shift": scales and shifts after it
        resnet_skip_time_act: bool = False,
        resnet_out_scale_factor: float = 1.0,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,  # E; None: 4 block_out_channels[0]
        time_embedding_act_fn: None = None,
        timestep_post_act: None = None,
        time_cond_proj_dim: None = None,
        conv_in_kernel: int = 3,  # odd
        conv_out_kernel: int = 3,  # odd
        projection_class_embeddings_input_dim: None = None,
        attention_type: str = "default",
        class_embeddings_concat: bool = False,
        mid_block_only_cross_attention: bool | None = None,  # no effect on this mid block
        cross_attention_norm: None = None,
        addition_embed_type_num_heads: int = 64,  # no effect without addition_embed_type
        *,
        generator: np.random.Generator | int | None = None,
    ):
        arguments = {name: value for name, value in locals().items() if name in UNet2DConditionModel.argument_names()}
        self.config = {name: plain_argument(value) for name, value in arguments.items()}
        check_arguments(arguments)
        generator = init.default_generator("UNet2DConditionModel", generator)
        widths, last = self.config["block_out_channels"], len(block_out_channels) - 1
        layers, heads, depths, contexts, alone = (
            by_level(name, self.config[name], len(widths)) for name in (*PER_LEVEL, "only_cross_attention")
        )
        self.context_channels, temb_channels = contexts[0], time_embedding_dim or 4 * widths[0]

        def resnet(channels_in: int, channels_out: int, factor: float = 1) -> ResnetBlock2D:
            options: dict[str, Any] = {"groups": norm_num_groups, "eps": norm_eps, "dropout": dropout, "output_scale_factor": factor}
            options["scale_shift"] = resnet_time_scale_shift == "scale_shift"
            return ResnetBlock2D(channels_in, channels_out, temb_channels, **options, generator=generator)

        def transformer(level: int, alone: bool, channels: int) -> Transformer2DModel:
            sizes = (channels, heads[level], channels // heads[level], contexts[level], depths[level], norm_num_groups)
            return Transformer2DModel(*sizes, use_linear_projection, alone, generator=generator)

        def attention(kind: str, level: int) -> partial[Transformer2DModel] | None:
            return partial(transformer, level, alone[level]) if "CrossAttn" in kind else None

        def downsample(channels: int) -> Module:
            return Downsample(channels, padding=downsample_padding, generator=generator)

        def down(level: int, channels_in: int, channels_out: int, num_layers: int) -> Module:
            attend, halve = attention(down_block_types[level], level), None if level == last else downsample
            return DownBlock2D(channels_in, channels_out, num_layers, resnet=resnet, attention=attend, downsample=halve)

        def up(level: int, channels_in: int, channels_out: int, skip_channels: list[int]) -> Module:
            attend, double = attention(up_block_types[last - level], level), partial(Upsample, generator=generator) if level else None
            return UpBlock2D(channels_in, channels_out, skip_channels, resnet=resnet, attention=attend, upsample=double)

        self.conv_in = Conv2d(in_channels, widths[0], conv_in_kernel, padding=conv_in_kernel // 2, generator=generator)
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(widths[0], temb_channels, generator=generator)
        self.class_embedding = class_embedding(class_embed_type, num_class_embeds, widths[0], temb_channels, generator)
        self.temb_act = ACTIVATIONS[act_fn]()
        self.add_blocks(widths, layers, down, up)
        self.mid_block = None
        if mid_block_type:
            self.mid_block = UNetMidBlock2D(
                widths[-1], resnet=partial(resnet, factor=mid_block_scale_factor), attention=partial(transformer, last, False)
            )
        self.conv_norm_out = GroupNormSiLU(norm_num_groups, widths[0], norm_eps)
        self.conv_out = Conv2d(widths[0], out_channels, conv_out_kernel, padding=conv_out_kernel // 2, generator=generator)

    def forward(
        self,
        sample: np.ndarray,
        timestep: float | np.ndarray,
        encoder_hidden_states: np.ndarray,
        class_labels: float | np.ndarray | None = None,
    ) -> np.ndarray:
        context, dtype = encoder_hidden_states, self.conv_in.weight.data.dtype
        if not isinstance(context, np.ndarray) or context.ndim != 3 or context.shape[2] != self.context_channels or context.size == 0:
            expected = f"(batch, tokens, {self.context_channels})"
            raise ValueError(f"UNet2DConditionModel: encoder_hidden_states must be of shape {expected}, got {describe_shape(context)}")
        if context.dtype != dtype:
            raise ValueError(f"UNet2DConditionModel: encoder_hidden_states must be {dtype}, as the weights are, got {context.dtype}")
        if len(context) != len(sample):
            raise ValueError(f"UNet2DConditionModel: encoder_hidden_states must be {len(sample)}, one per image, got {len(context)}")
        return self.predict(sample, timestep, class_labels, context)
