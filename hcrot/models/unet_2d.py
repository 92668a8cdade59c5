"""The network of a diffusion model: a U-Net that sees a noisy image, the time and a class, and predicts the noise.

Its blocks, and the law by which gradients travel between them, are in ``unet_2d_blocks.py``; read that first. Here they are put together,
and time and class become ``temb``. What arguments may be is in ``unet_2d_arguments.py``.

Names, arguments and parameter keys are those of diffusers' ``UNet2DModel`` (0.42), whose weights load unchanged. Unlike it, any image size
works: the way up goes to the size of the skip that waits, where diffusers always doubles and fails on sizes that are not divisible.

Notation: B images, H x W pixels, E width of ``temb``. Sources: Ho et al. 2020 (appendix B) for the network.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.files.pretrained import Pretrained
from hcrot.kernels.channels import plus
from hcrot.layers.attention import Attention
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.embedding import Embedding, GaussianFourierProjection, TimestepEmbedding, Timesteps
from hcrot.layers.norm import GroupNormSiLU
from hcrot.layers.resample import Downsample, Upsample
from hcrot.models.unet_2d_arguments import check_arguments, parts_of
from hcrot.models.unet_2d_blocks import ACTIVATIONS, DownBlock2D, ResnetBlock2D, UNetMidBlock2D, UpBlock2D
from hcrot.module import Identity, Module, check_gradient
from hcrot.plan import planned

__all__ = ["UNet2dModel"]


class UNet2dModel(Pretrained):
    """diffusers' ``UNet2DModel``: same arguments, same parameter keys, same numbers; ``forward`` returns the array itself.

        temb = act(time_embedding(time_proj(timesteps)) + class_embedding(class_labels))
        h    = conv_in(sample), down blocks (each result a skip), mid block, up blocks (each joined by a skip)
        y    = conv_out(silu(conv_norm_out(h)))                with time_embedding_type "fourier" divided by timesteps

    ``act_fn`` is the activation of the residual blocks and of temb; the last one and that within time_embedding are always SiLU, as in
    diffusers. Where that does something unintended, this does not: a timestep that is a Python float is not cut to an integer, an unknown
    ``mid_block_type`` or ``class_embed_type`` is an error, and so is a head wider than the attention's channels.

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
        down_block_types: Sequence[str] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",  # None: no mid block
        up_block_types: Sequence[str] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
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
        generator: np.random.Generator | int | None = None,
    ):
        arguments = {name: value for name, value in locals().items() if name in UNet2dModel.argument_names()}
        self.config = {name: plain_argument(value) for name, value in arguments.items()}
        check_arguments(arguments)
        generator = init.default_generator("UNet2dModel", generator)
        act_fn, widths, layers_per_block = act_fn.lower(), self.config["block_out_channels"], int(layers_per_block)
        temb_channels = time_embedding_dim or 4 * widths[0]
        time_channels = 2 * widths[0] if time_embedding_type == "fourier" else widths[0]
        scale_shift = resnet_time_scale_shift == "scale_shift"

        def resnet(channels_in: int, channels_out: int, **options: Any) -> ResnetBlock2D:
            options |= {"groups": norm_num_groups, "eps": norm_eps, "dropout": dropout, "act_fn": act_fn, "scale_shift": scale_shift}
            return ResnetBlock2D(channels_in, channels_out, temb_channels, **options, generator=generator)

        def attention(channels: int, groups: int | None = norm_num_groups, factor: float = 1) -> Attention:
            options: dict[str, Any] = {"norm_num_groups": groups, "eps": norm_eps, "rescale_output_factor": factor}
            return Attention(channels, attention_head_dim, **options, generator=generator)

        downsamplers: dict[str, Callable[[int], Module]] = {
            "conv": lambda channels: Downsample(channels, padding=downsample_padding, generator=generator),
            "resnet": lambda channels: resnet(channels, channels, resample="down"),
        }
        upsamplers: dict[str, Callable[[int], Module]] = {
            "conv": lambda channels: Upsample(channels, generator=generator),
            "resnet": lambda channels: resnet(channels, channels, resample="up"),
        }

        self.conv_in = Conv2d(in_channels, widths[0], 3, padding=1, generator=generator)
        if time_embedding_type == "fourier":
            self.time_proj: Module = GaussianFourierProjection(widths[0], scale=16, generator=generator)
        elif time_embedding_type == "learned":
            assert num_train_timesteps is not None  # by check_arguments
            self.time_proj = Embedding(num_train_timesteps, widths[0], generator=generator)
        else:
            self.time_proj = Timesteps(widths[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(time_channels, temb_channels, generator=generator)
        if class_embed_type == "timestep":
            self.class_embedding: Module | None = TimestepEmbedding(time_channels, temb_channels, generator=generator)
        elif class_embed_type == "identity":
            self.class_embedding = Identity()
        else:
            self.class_embedding = Embedding(num_class_embeds, temb_channels, generator=generator) if num_class_embeds else None
        self.temb_act = ACTIVATIONS[act_fn]()

        # the stack of skips, as widths: pushed here as the down blocks push arrays, popped below as the up blocks pop them
        skips, width, last = [widths[0]], widths[0], len(widths) - 1
        self.down_blocks: list[DownBlock2D] = []
        for level, (kind, out) in enumerate(zip(down_block_types, widths, strict=True)):
            attend, how = parts_of(kind, downsample_type)
            attend_with, downsample = attention if attend else None, None if level == last else downsamplers[how]
            self.down_blocks.append(
                DownBlock2D(width, out, layers_per_block, resnet=resnet, attention=attend_with, downsample=downsample)
            )
            skips += [out] * (layers_per_block + (level != last))
            width = out

        self.up_blocks: list[UpBlock2D] = []
        for level, (kind, out) in enumerate(zip(up_block_types, reversed(widths), strict=True)):
            popped = [skips.pop() for _ in range(layers_per_block + 1)]
            attend, how = parts_of(kind, upsample_type)
            attend_with, upsample = attention if attend else None, None if level == last else upsamplers[how]
            self.up_blocks.append(UpBlock2D(width, out, popped, resnet=resnet, attention=attend_with, upsample=upsample))
            width = out
        assert not skips

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
        dtype = self.conv_in.weight.data.dtype
        check_images("UNet2dModel: sample", sample, self.config["in_channels"], dtype)
        timesteps = per_image("timestep", timestep, len(sample))
        temb = self.embed(timesteps, class_labels, dtype)
        if self.config["center_input_sample"]:
            sample = 2 * sample - 1
        y = self.body(sample, temb)
        divisor = timesteps.astype(dtype)[:, None, None, None] if self.config["time_embedding_type"] == "fourier" else None
        self.save(temb.shape, y.shape, divisor)
        return y if divisor is None else y / divisor

    @planned
    def body(self, sample: np.ndarray, temb: np.ndarray) -> np.ndarray:
        """What the network makes of images (B, C, H, W) and temb (B, E)."""
        h = self.conv_in(sample)
        skips = [h]
        for down_block in self.down_blocks:
            h = down_block(h, temb, skips)
        if self.mid_block:
            h = self.mid_block(h, temb)
        for up_block in self.up_blocks:
            h = up_block(h, temb, skips)
        assert not skips
        return self.conv_out(self.conv_norm_out(h))

    def backward(self, dout: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        temb_shape, shape, divisor = self.saved()
        check_gradient("UNet2dModel", dout, shape, self.conv_in.weight.data.dtype)
        dtemb = np.zeros(temb_shape, dout.dtype)
        dskips: list[np.ndarray] = []
        dh = self.conv_norm_out.backward(self.conv_out.backward(dout if divisor is None else dout / divisor))
        for up_block in reversed(self.up_blocks):
            dh = up_block.backward(dh, dtemb, dskips)
        if self.mid_block:
            dh = self.mid_block.backward(dh, dtemb)
        for down_block in reversed(self.down_blocks):
            dh = down_block.backward(dh, dtemb, dskips)
        dsample = self.conv_in.backward(plus(dh, dskips.pop()))
        assert not dskips
        if self.config["center_input_sample"]:
            dsample = 2 * dsample
        dclass = self.embed_backward(dtemb)
        return dsample if dclass is None or self.config["class_embed_type"] != "identity" else (dsample, dclass)

    def embed(self, timesteps: np.ndarray, class_labels: float | np.ndarray | None, dtype: np.dtype) -> np.ndarray:
        """temb (B, E) from timesteps (B,) and class_labels."""
        kind, batch = self.config["class_embed_type"], len(timesteps)
        if (class_labels is None) != (self.class_embedding is None):
            fault = "missing: the model was built with" if class_labels is None else "given, but the model has"
            raise ValueError(
                f"UNet2dModel: class_labels {fault} class_embed_type {kind!r} and num_class_embeds {self.config['num_class_embeds']}"
            )
        labels: Any = class_labels
        if kind == "identity":
            check_class_embedding(labels, (batch, self.time_embedding.linear_2.weight.shape[0]), dtype)
        elif self.class_embedding:
            labels = per_image("class_labels", labels, batch)
        # times and "timestep" labels go through time_proj together: one call serves both
        waves = self.time_proj(np.concatenate([timesteps, labels]) if kind == "timestep" else timesteps).astype(dtype, copy=False)
        emb = self.time_embedding(waves[:batch])
        if self.class_embedding:
            emb = emb + self.class_embedding(waves[batch:] if kind == "timestep" else labels)
        return self.temb_act(emb)

    def embed_backward(self, dtemb: np.ndarray) -> np.ndarray | None:
        """The gradient of what class_embedding got; None for labels from a table, or without labels."""
        demb = self.temb_act.backward(dtemb)
        dclass = self.class_embedding.backward(demb) if self.class_embedding else None
        dwaves = self.time_embedding.backward(demb)
        if isinstance(self.time_proj, Embedding):
            self.time_proj.backward(np.concatenate([dwaves, dclass]) if self.config["class_embed_type"] == "timestep" else dwaves)
        return dclass


def per_image(name: str, value: float | np.ndarray, batch: int) -> np.ndarray:
    """``value`` as an array (batch,): a single number is meant for every image.

    Raises:
        ValueError: an array of another shape; the message names the argument.
    """
    array = np.asarray(value)
    if array.shape not in ((), (1,), (batch,)):
        raise ValueError(f"UNet2dModel: {name} must be a number or an array of shape ({batch},), one per image, got shape {array.shape}")
    return np.broadcast_to(array.reshape(-1), (batch,))


def check_class_embedding(labels: np.ndarray, shape: tuple[int, int], dtype: np.dtype) -> None:
    """Raise a ValueError unless class_labels are embeddings of this shape and dtype."""
    if not isinstance(labels, np.ndarray) or labels.shape != shape or labels.dtype != dtype:
        got = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise ValueError(f"UNet2dModel: class_labels must be embeddings, {dtype} {shape}, for class_embed_type 'identity', got {got}")
