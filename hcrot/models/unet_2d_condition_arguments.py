"""What the arguments of ``UNet2DConditionModel`` may be, and what of diffusers' is left out."""

from collections.abc import Sequence
from typing import Any

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.models.unet_2d_arguments import LARGEST, RANGES, check_blocks, check_freq_shift, check_numbers, complain

__all__ = ["BLOCK_TYPES", "CHOICES", "LEFT_OUT", "PER_LEVEL", "SUPPORTED", "by_level", "check_arguments"]

BLOCK_TYPES = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
LEFT_OUT = {
    "SimpleCrossAttn": "it attends to text and pixels at once, as DeepFloyd's networks do",
    "Attn": "it attends to pixels alone",
    "Resnet": "it resamples in a residual block, as DeepFloyd's networks do",
    "KDown": "it belongs to k-diffusion's networks",
    "KUp": "it belongs to k-diffusion's networks",
    "KCrossAttn": "it belongs to k-diffusion's networks",
}
"""diffusers' other blocks by a part of their names, and what they are."""

CHOICES = {
    "center_input_sample": (False, True),
    "flip_sin_to_cos": (False, True),
    "downsample_padding": (0, 1),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "use_linear_projection": (False, True),
    "upcast_attention": (False, True),
}
SUPPORTED = {
    "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None, "timestep", "identity"),
    "time_embedding_type": ("positional",),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "addition_embed_type": (None,),
    "addition_time_embed_dim": (None,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "projection_class_embeddings_input_dim": (None,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False, True),
    "cross_attention_norm": (None,),
}
"""Arguments that may be something else in diffusers. Those of the text of SDXL, Kandinsky and DeepFloyd are among them."""

SIZES = ("in_channels", "out_channels", "norm_num_groups", "conv_in_kernel", "conv_out_kernel", "addition_embed_type_num_heads")
OPTIONAL_SIZES = ("num_class_embeds", "time_embedding_dim")
PER_LEVEL = ("layers_per_block", "attention_head_dim", "transformer_layers_per_block", "cross_attention_dim")


def by_level(name: str, value: Any, num_levels: int) -> list[Any]:
    """``value`` of each level: an argument that is no sequence holds for all.

    Raises:
        ValueError: a sequence of another length.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * num_levels
    if len(value) != num_levels:
        raise ValueError(f"UNet2DConditionModel: {name} has {len(value)} entries, block_out_channels has {num_levels}")
    return list(value)


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise before any work if the constructor's arguments are out of range or do not fit together.

    Args:
        arguments: every argument of diffusers', by name.

    Raises:
        ValueError: names the argument, what came and what was expected. NotImplementedError: what diffusers has and hcrot has not.
    """
    owner = "UNet2DConditionModel"
    for name, values in SUPPORTED.items():
        if arguments[name] not in values:
            raise NotImplementedError(f"{owner}: {name} {arguments[name]!r} is not supported, only {' and '.join(map(repr, values))}")
    for name, choices in CHOICES.items():
        if arguments[name] not in choices:
            complain(owner, name, " or ".join(map(repr, choices)), arguments[name])
    check_numbers(owner, arguments, RANGES, SIZES, OPTIONAL_SIZES)
    widths = arguments["block_out_channels"]
    for name, known in BLOCK_TYPES.items():
        if any(isinstance(kind, type) for kind in arguments[name]):
            raise NotImplementedError(f"{owner}: {name}: only UNet2dModel takes block classes of one's own")
        check_blocks(owner, name, arguments[name], len(widths), known, LEFT_OUT)
    for name in PER_LEVEL:
        for level, value in enumerate(by_level(name, arguments[name], len(widths))):
            if isinstance(value, Sequence):
                raise NotImplementedError(f"{owner}: {name}[{level}] {value!r} is not supported, only one number for a level")
            init.check_positive(owner, **{f"{name}[{level}]": value})
            if value > LARGEST:
                complain(owner, f"{name}[{level}]", f"at most {LARGEST}", value)
    for level, value in enumerate(by_level("only_cross_attention", arguments["only_cross_attention"], len(widths))):
        if not isinstance(value, bool):
            complain(owner, f"only_cross_attention[{level}]", "False or True", value)
    _check_fit(owner, {name: plain_argument(value) for name, value in arguments.items()})


def _check_fit(owner: str, arguments: dict[str, Any]) -> None:
    """Raise unless groups divide, and heads fit into, the widths, and all levels attend to one context."""
    widths, groups = arguments["block_out_channels"], arguments["norm_num_groups"]
    heads = by_level("attention_head_dim", arguments["attention_head_dim"], len(widths))
    for level, width in enumerate(widths):
        if width % groups:
            raise ValueError(f"{owner}: block_out_channels[{level}] {width} is not divisible by norm_num_groups {groups}")
        if heads[level] > width:
            complain(owner, "attention_head_dim", f"at most block_out_channels[{level}] {width}, as so many heads", heads[level])
    contexts = arguments["cross_attention_dim"]
    if isinstance(contexts, list) and len(set(contexts)) > 1:
        complain(owner, "cross_attention_dim", "the same for all levels, as they get the same context", contexts)
    for name in ("conv_in_kernel", "conv_out_kernel"):
        if arguments[name] % 2 == 0:
            complain(owner, name, "odd, so that the image keeps its size", arguments[name])
    check_freq_shift(owner, arguments["freq_shift"], widths[0] // 2)
