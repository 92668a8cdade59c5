"""What the U-Nets of ``unet_2d.py`` and ``unet_2d_condition.py`` share: how time and class become ``temb``, and the way through the blocks.

    temb = act(time_embedding(time_proj(timesteps)) + class_embedding(class_labels))
    h    = conv_in(sample), down blocks (each result a skip), mid block, up blocks (each joined by a skip)
    y    = conv_out(silu(conv_norm_out(h)))

The constructors differ, and a network with a text hands the text on to its blocks as ``context``. Its gradient is one more accumulator, as
``dtemb`` is: read ``unet_2d_blocks.py`` first.

Notation: B images, H x W pixels, E width of ``temb``, K tokens of a text, of D numbers each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hcrot.files.pretrained import Pretrained
from hcrot.kernels.channels import plus
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.embedding import Embedding, TimestepEmbedding
from hcrot.layers.norm import GroupNormSiLU
from hcrot.module import Identity, Module, check_gradient
from hcrot.plan import planned

__all__ = ["UNetBase", "class_embedding"]

class UNetBase(Pretrained):
    """A U-Net of diffusers', whose constructor is a subclass's.

    Attributes:
        config: the constructor's arguments by diffusers' names.
        down_blocks, up_blocks, mid_block: see ``unet_2d_blocks.py``.
        num_skips: how many skips lie on the stack after conv_in and after each block, down and up.
    """

    conv_in: Conv2d
    time_proj: Module
    time_embedding: TimestepEmbedding
    class_embedding: Module | None
    temb_act: Module
    down_blocks: list[Module]
    up_blocks: list[Module]
    mid_block: Module | None
    conv_norm_out: GroupNormSiLU
    conv_out: Conv2d

    def add_blocks(
        self,
        widths: Sequence[int],
        layers: Sequence[int],
        down: Callable[[int, int, int, int], Module],
        up: Callable[[int, int, int, list[int]], Module],
    ) -> None:
        """Make ``down_blocks`` and ``up_blocks``.

        Args:
            widths, layers: of each level: its channels, and the number of skips that its down block pushes before it halves.
            down: ``down(level, in_channels, out_channels, num_layers)`` makes a block.
            up: ``up(level, in_channels, out_channels, skip_channels)`` does, with the widths of the skips that it will pop.
        """
        # the stack of skips, as widths: pushed here as the down blocks push arrays, popped below as the up blocks pop them
        skips, width, last = [widths[0]], widths[0], len(widths) - 1
        self.num_skips, self.down_blocks, self.up_blocks = [1], [], []
        for level, (out, num_layers) in enumerate(zip(widths, layers, strict=True)):
            self.down_blocks.append(down(level, width, out, num_layers))
            skips += [out] * (num_layers + (level != last))
            self.num_skips.append(len(skips))
            width = out
        for level in reversed(range(len(widths))):
            popped = [skips.pop() for _ in range(layers[level] + 1)]
            self.up_blocks.append(up(level, width, widths[level], popped))
            self.num_skips.append(len(skips))
            width = widths[level]
        assert not skips

    def predict(
        self, sample: np.ndarray, timestep: float | np.ndarray, class_labels: float | np.ndarray | None, *context: np.ndarray
    ) -> np.ndarray:
        """The forward of both networks; a context has been looked at."""
        name, dtype = type(self).__name__, self.conv_in.weight.data.dtype
        check_images(f"{name}: sample", sample, self.config["in_channels"], dtype)
        timesteps = per_image(name, "timestep", timestep, len(sample))
        temb = self.embed(timesteps, class_labels, dtype)
        if self.config["center_input_sample"]:
            sample = 2 * sample - 1
        y = self.body(sample, temb, *context)
        divisor = timesteps.astype(dtype)[:, None, None, None] if self.config["time_embedding_type"] == "fourier" else None
        self.save(temb.shape, y.shape, [array.shape for array in context], divisor)
        return y if divisor is None else y / divisor

    @planned
    def body(self, sample: np.ndarray, temb: np.ndarray, *context: np.ndarray) -> np.ndarray:
        """What the network makes of images (B, C, H, W), temb (B, E) and a context (B, K, D), if it takes one."""
        h = self.conv_in(sample)
        skips, counts = [h], iter(self.num_skips[1:])
        for down_block in self.down_blocks:
            h = down_block(h, temb, skips, *context)
            self.check_stack("skips", down_block, skips, next(counts))
        if self.mid_block:
            h = self.mid_block(h, temb, *context)
        for up_block in self.up_blocks:
            h = up_block(h, temb, skips, *context)
            self.check_stack("skips", up_block, skips, next(counts))
        return self.conv_out(self.conv_norm_out(h))

    def backward(self, dout: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        temb_shape, shape, context_shapes, divisor = self.saved()
        check_gradient(type(self).__name__, dout, shape, self.conv_in.weight.data.dtype)
        dtemb = np.zeros(temb_shape, dout.dtype)
        dcontext = [np.zeros(context_shape, dout.dtype) for context_shape in context_shapes]
        dskips: list[np.ndarray] = []
        counts = reversed(self.num_skips[:-1])
        dh = self.conv_norm_out.backward(self.conv_out.backward(dout if divisor is None else dout / divisor))
        for up_block in reversed(self.up_blocks):
            dh = up_block.backward(dh, dtemb, dskips, *dcontext)
            self.check_stack("dskips", up_block, dskips, next(counts))
        if self.mid_block:
            dh = self.mid_block.backward(dh, dtemb, *dcontext)
        for down_block in reversed(self.down_blocks):
            dh = down_block.backward(dh, dtemb, dskips, *dcontext)
            self.check_stack("dskips", down_block, dskips, next(counts))
        dsample = self.conv_in.backward(plus(dh, dskips.pop()))
        if self.config["center_input_sample"]:
            dsample = 2 * dsample
        dclass = self.embed_backward(dtemb)
        gradients = (dsample, *dcontext)
        if dclass is not None and self.config["class_embed_type"] == "identity":
            gradients += (dclass,)
        return gradients if len(gradients) > 1 else dsample

    def check_stack(self, name: str, block: Module, stack: list[np.ndarray], expected: int) -> None:
        """Raise a ValueError, for the author of a block of one's own, unless it has left so many arrays on the stack."""
        if len(stack) != expected:
            place = "backward" if name == "dskips" else "forward"
            raise ValueError(f"{type(self).__name__}: {type(block).__name__}.{place} must leave {expected} {name}, it left {len(stack)}")

    def embed(self, timesteps: np.ndarray, class_labels: float | np.ndarray | None, dtype: np.dtype) -> np.ndarray:
        """temb (B, E) from timesteps (B,) and class_labels."""
        name, kind, batch = type(self).__name__, self.config["class_embed_type"], len(timesteps)
        if (class_labels is None) != (self.class_embedding is None):
            fault = "missing: the model was built with" if class_labels is None else "given, but the model has"
            raise ValueError(
                f"{name}: class_labels {fault} class_embed_type {kind!r} and num_class_embeds {self.config['num_class_embeds']}"
            )
        labels: Any = class_labels
        if kind == "identity":
            check_class_embedding(name, labels, (batch, self.time_embedding.linear_2.weight.shape[0]), dtype)
        elif self.class_embedding:
            labels = per_image(name, "class_labels", labels, batch)
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


def class_embedding(
    kind: str | None, num_class_embeds: int | None, time_channels: int, temb_channels: int, generator: np.random.Generator
) -> Module | None:
    """What turns labels into embeddings (B, E), for a ``class_embed_type``; None: there are no classes."""
    if kind == "timestep":
        return TimestepEmbedding(time_channels, temb_channels, generator=generator)
    if kind == "identity":
        return Identity()
    return Embedding(num_class_embeds, temb_channels, generator=generator) if num_class_embeds else None


def per_image(owner: str, name: str, value: float | np.ndarray, batch: int) -> np.ndarray:
    """``value`` as an array (batch,): a single number is meant for every image.

    Raises:
        ValueError: an array of another shape; the message names the argument.
    """
    array = np.asarray(value)
    if array.shape not in ((), (1,), (batch,)):
        raise ValueError(f"{owner}: {name} must be a number or an array of shape ({batch},), one per image, got shape {array.shape}")
    return np.broadcast_to(array.reshape(-1), (batch,))


def check_class_embedding(owner: str, labels: np.ndarray, shape: tuple[int, int], dtype: np.dtype) -> None:
    """Raise a ValueError unless class_labels are embeddings of this shape and dtype."""
    if not isinstance(labels, np.ndarray) or labels.shape != shape or labels.dtype != dtype:
        got = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise ValueError(f"{owner}: class_labels must be embeddings, {dtype} {shape}, for class_embed_type 'identity', got {got}")
