"""What the arguments of ``UNet2dModel`` may be: everything that diffusers' ``UNet2DModel`` knows but the blocks in ``LEFT_OUT``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.models.unet_2d_blocks import ACTIVATIONS
from hcrot.module import Module

__all__ = [
    "BLOCK_TYPES", "CHOICES", "LARGEST", "LEFT_OUT", "OPTIONAL_SIZES", "RANGES", "SIZES", "check_arguments", "check_blocks",
    "check_freq_shift", "check_numbers", "complain", "parts_of",
]  # fmt: skip

BLOCK_TYPES = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
}
LEFT_OUT = {
    "Skip": "it hands FIR-filtered images on beside the features, as score SDE's networks do",
    "CrossAttn": "it attends to a text, as UNet2DConditionModel does",
    "KDown": "it belongs to k-diffusion's networks",
    "KUp": "it belongs to k-diffusion's networks",
    "coder": "it belongs to an autoencoder",
}
"""diffusers' other blocks by a part of their names, and what they are."""

CHOICES = {
    "center_input_sample": (False, True),
    "time_embedding_type": ("positional", "fourier", "learned"),
    "flip_sin_to_cos": (False, True),
    "mid_block_type": ("UNetMidBlock2D", None),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (False, True),
    "class_embed_type": (None, "timestep", "identity"),
}
RANGES = {
    "dropout": (0, 1),
    "norm_eps": (0, math.inf),
    "freq_shift": (-math.inf, math.inf),
    "mid_block_scale_factor": (-math.inf, math.inf),
}
SIZES = ("in_channels", "out_channels", "layers_per_block", "norm_num_groups")
OPTIONAL_SIZES = (
    "num_class_embeds", "time_embedding_dim", "attention_head_dim", "attn_norm_num_groups", "num_train_timesteps", "attention_heads",
)  # fmt: skip
"""Arguments that may be None, where SIZES may not."""


LARGEST = 2**24
"""No size is larger. A damaged configuration is then one clear error, not a request for more memory than there is."""


def parts_of(kind: str | type[Module], resample_type: str) -> tuple[bool, str]:
    """Whether a block of this type has attention, and how it resamples, "conv" or "resnet".

    As in diffusers, only blocks with attention ask the argument ``resample_type``, and a type may have the prefix of the first releases.
    A class of one's own has attention if its attribute ``attends`` says so.
    """
    if not isinstance(kind, str):
        attends = bool(getattr(kind, "attends", False))
        return attends, resample_type if attends else "conv"
    kind = kind.removeprefix("UNetRes")
    if kind.startswith("Attn"):
        return True, resample_type
    return False, "resnet" if kind.startswith("Resnet") else "conv"


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise before any work if the constructor's arguments are out of range or do not fit together.

    Args:
        arguments: every argument by name.

    Raises:
        ValueError: names the argument, what came and what was expected. NotImplementedError: a block in ``LEFT_OUT``, or a configuration
            with the name of somebody's own class.
    """
    owner = "UNet2dModel"
    for name, choices in CHOICES.items():
        if arguments[name] not in choices:
            complain(owner, name, " or ".join(map(repr, choices)), arguments[name])
    if not isinstance(arguments["act_fn"], str) or arguments["act_fn"].lower() not in ACTIVATIONS:
        complain(owner, "act_fn", " or ".join(map(repr, ACTIVATIONS)), arguments["act_fn"])
    check_numbers(owner, arguments, RANGES, SIZES, OPTIONAL_SIZES)
    for name, known in BLOCK_TYPES.items():
        check_blocks(owner, name, arguments[name], len(arguments["block_out_channels"]), known, LEFT_OUT)

    # NumPy's small integers overflow when they meet larger ones
    arguments = {name: value if name in BLOCK_TYPES else plain_argument(value) for name, value in arguments.items()}
    _check_groups_and_heads(owner, arguments)
    kind, half = arguments["time_embedding_type"], arguments["block_out_channels"][0] // 2
    if kind == "learned" and arguments["num_train_timesteps"] is None:
        complain(owner, "num_train_timesteps", "the number of times to learn for time_embedding_type 'learned'", None)
    if kind == "positional":
        check_freq_shift(owner, arguments["freq_shift"], half)


def check_numbers(
    owner: str, arguments: dict[str, Any], ranges: Mapping[str, tuple[float, float]], sizes: Sequence[str], optional_sizes: Sequence[str]
) -> None:
    """Raise a ValueError unless numbers are within their ranges, and sizes, those of the levels and of the images included, are sizes."""
    for name, (low, high) in ranges.items():
        value = arguments[name]
        if not init.is_real(value) or isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
            complain(owner, name, f"a finite number from {low} to {high}", value)
    if arguments["mid_block_scale_factor"] == 0:
        complain(owner, "mid_block_scale_factor", "a number other than 0", 0)
    found = {name: arguments[name] for name in sizes}
    found |= {name: arguments[name] for name in optional_sizes if arguments[name] is not None}
    widths, sample_size = arguments["block_out_channels"], arguments["sample_size"]
    if not isinstance(widths, Sequence) or not widths:
        complain(owner, "block_out_channels", "a sequence of widths, one for each level", widths)
    found |= {f"block_out_channels[{level}]": width for level, width in enumerate(widths)}
    if isinstance(sample_size, Sequence) and len(sample_size) == 2:
        found |= {"sample_size[0]": sample_size[0], "sample_size[1]": sample_size[1]}
    elif sample_size is not None:
        found["sample_size"] = sample_size
    init.check_positive(owner, **found)
    for name, size in found.items():
        if size > LARGEST:
            complain(owner, name, f"at most {LARGEST}", size)


def check_blocks(owner: str, name: str, kinds: Any, num_levels: int, known: Sequence[str], left_out: Mapping[str, str]) -> None:
    """Raise unless the argument ``name`` has a block of a known type, or a class of one's own, for each level."""
    if isinstance(kinds, str) or not isinstance(kinds, Sequence):
        complain(owner, name, "a sequence of names, one for each level", kinds)
    if len(kinds) != num_levels:
        raise ValueError(f"{owner}: {name} has {len(kinds)} entries, block_out_channels has {num_levels}")
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Module):
            continue
        if not isinstance(kind, str) or kind.removeprefix("UNetRes") not in known:
            if isinstance(kind, str) and "." in kind:
                raise NotImplementedError(
                    f"{owner}: {name}: {kind} is the name of a block class of somebody's own, expected the class itself, "
                    f"as in {owner}({name}=({kind.rpartition('.')[2]}, ...)): a configuration cannot make it; load_state_dict loads weights"
                )
            for part, reason in left_out.items():
                if part in str(kind):
                    raise NotImplementedError(f"{owner}: {name}: there is no {kind}: {reason}; known: {', '.join(known)}")
            raise ValueError(f"{owner}: {name}: {kind!r} is not known; known: {', '.join(known)}")


def check_freq_shift(owner: str, freq_shift: float, half: int) -> None:
    """Raise a ValueError unless the frequencies of :class:`Timesteps` fall."""
    if freq_shift >= half:
        complain(owner, "freq_shift", f"less than {half}, half of block_out_channels[0]", freq_shift)


def complain(owner: str, name: str, expected: str, value: Any) -> NoReturn:
    """Raise a ValueError that says what an argument must be."""
    raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}")


def _check_groups_and_heads(owner: str, arguments: dict[str, Any]) -> None:
    """Raise unless groups divide, and heads fit into, the widths that they are meant for."""
    widths, head_dim = arguments["block_out_channels"], arguments["attention_head_dim"]
    mid_attention = arguments["mid_block_type"] is not None and arguments["add_attention"]
    divided = [("norm_num_groups", level) for level in range(len(widths))]
    if mid_attention and arguments["attn_norm_num_groups"] is not None:
        divided.append(("attn_norm_num_groups", len(widths) - 1))
    for name, level in divided:
        if widths[level] % arguments[name]:
            raise ValueError(f"{owner}: block_out_channels[{level}] {widths[level]} is not divisible by {name} {arguments[name]}")
    kinds = zip(arguments["down_block_types"], reversed(arguments["up_block_types"]), strict=True)
    attending = [level for level, pair in enumerate(kinds) if any(parts_of(kind, "conv")[0] for kind in pair)]
    for level in attending + [len(widths) - 1] * bool(mid_attention):
        if arguments["attention_heads"] is None and head_dim is not None and head_dim > widths[level]:
            complain(owner, "attention_head_dim", f"at most block_out_channels[{level}] {widths[level]}, the width that attends", head_dim)
