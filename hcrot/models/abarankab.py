"""The U-Net of github.com/abarankab/DDPM: a class acts on every residual block by a table of its own, and time may be absent.

    temb = act(time_mlp(sinusoids(time_emb_scale time)))
    h    = init_conv(x), downs (each result a skip), mid, ups (each ResidualBlock joined by a skip)
    y    = out_conv(act(out_norm(h)))

It is the network of ``unet_2d.py`` but for these: the class does not go the way of the time; the norm is of groups, instances or batches,
or there is none; the activation, the last one included, is ReLU, Mish or SiLU; images are padded by zeros and the result is cut, so that
28x28 is halved as 32x32. Names of parameters and arguments are the original's, but ``activation``, which is a function there. The rules by
which gradients travel are in ``unet_2d_blocks.py``.

Where the original is wrong, this is not: attention splits its channels into thirds, the middle calls its blocks one by one, and skips are
joined along channels (there, ``torch.split`` without a size, a call of a list, and ``torch.cat`` along the batch fail in forward).

Notation: B images, C channels, E width of ``temb``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hcrot import init
from hcrot.files.configs import plain_argument
from hcrot.files.pretrained import Pretrained
from hcrot.kernels.attention import attention, attention_backward
from hcrot.kernels.channels import concatenate, pixel_sums, plus, split
from hcrot.layers import resample
from hcrot.layers.activation import SiLU
from hcrot.layers.attention import attention_map, images, tokens
from hcrot.layers.batch_norm import BatchNorm2d
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.dropout import Dropout
from hcrot.layers.embedding import Embedding, Timesteps
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm
from hcrot.models.times import check_times
from hcrot.models.unet_2d_blocks import ACTIVATIONS
from hcrot.module import Identity, Module, Sequential, check_gradient

__all__ = ["AttentionBlock", "Downsample", "ResidualBlock", "UNet", "Upsample", "get_norm"]


def get_norm(norm: str | None, num_channels: int, num_groups: int) -> Module:
    """"in": each channel of each image by itself; "bn": each channel over the batch; "gn": groups of channels; None: none."""
    if norm == "in":
        return GroupNorm(num_channels, num_channels)
    if norm == "bn":
        return BatchNorm2d(num_channels)
    if norm == "gn":
        return GroupNorm(num_groups, num_channels)
    if norm is None:
        return Identity()
    raise ValueError(f"get_norm: norm must be 'in', 'bn', 'gn' or None, got {norm!r}")


class AttentionBlock(Module):
    """``y = x + to_out(softmax(q k^T / sqrt(C)) v)`` with ``q, k, v = to_qkv(norm(x))``: one head, over all pixels.

    Args:
        in_channels: C.
        norm, num_groups: see :func:`get_norm`.
        generator: source of initial values.

    Shapes:
        x (B, C, H, W) -> y, the same. ``to_qkv.weight`` (3C, C, 1, 1), ``to_out.weight`` (C, C, 1, 1), their biases, those of ``norm``.

    Raises:
        ValueError: an argument out of range; in forward, an x of another shape or dtype.
    """

    def __init__(
        self, in_channels: int, norm: str | None = "gn", num_groups: int = 32, *, generator: np.random.Generator | int | None = None
    ):
        generator = init.default_generator("AttentionBlock", generator)
        self.norm = get_norm(norm, in_channels, num_groups)
        self.to_qkv = Conv2d(in_channels, 3 * in_channels, 1, generator=generator)
        self.to_out = Conv2d(in_channels, in_channels, 1, generator=generator)

    def forward(self, x: np.ndarray) -> np.ndarray:
        q, k, v = np.split(tokens(self.to_qkv(self.norm(x))), 3, axis=2)
        o, logsum = attention(q, k, v, 1)
        self.save(q, k, v, logsum, x.shape)
        return self.to_out(images(o, x.shape), residual=x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        q, k, v, logsum, shape = self.saved()
        check_gradient("AttentionBlock", dout, shape, q.dtype)
        do = tokens(self.to_out.backward(dout))
        dqkv = np.concatenate(attention_backward(do, q, k, v, logsum, 1), axis=2)
        return plus(dout, self.norm.backward(self.to_qkv.backward(images(dqkv, shape))))

    def multiplications(self, y: np.ndarray, x: np.ndarray) -> int:
        """Multiply-adds of a forward without the layers inside, for :func:`hcrot.summary`: ``q k^T`` and P v, T T C for each image."""
        return 2 * x.size * x.shape[2] * x.shape[3]

    def attention_map(self, q: np.ndarray, k: np.ndarray, *others: object) -> np.ndarray:
        """The softmax, for :func:`hcrot.watch`, of what forward saves."""
        return attention_map(q, k, 1)


class ResidualBlock(Module):
    """Two convolutions around which x goes straight on. Time and class are added between the two, each as one number per channel.

        h = conv_1(act(norm_1(x))) + time_bias(temb) + class_bias(y)
        z = attention(conv_2(dropout(act(norm_2(h)))) + residual_connection(x))

    ``class_bias`` is a table with a row for each class. Its gradient, and that of the time's bias, are those of h summed over pixels.
    temb comes with its activation already applied: the U-Net computes it once for all blocks.

    Args:
        in_channels, out_channels: widths of x and z.
        dropout: probability.
        time_emb_dim: E; None: the block has no time.
        num_classes: rows of the table; None: the block has no class.
        activation: "relu", "mish", "silu" or "gelu".
        norm, num_groups: see :func:`get_norm`.
        use_attention: whether there is attention at the end.
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, in_channels, H, W), temb (B, E) or None, y (B,) integers or None -> z (B, out_channels, H, W). ``backward(dz, dtemb) -> dx``
        adds to ``dtemb`` (B, E), which is None in a block without time.

    Raises:
        ValueError: an argument out of range; in forward, a time or class that is missing or not asked for, or arrays of another shape or
            dtype.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dropout: float = 0.1,
        time_emb_dim: int | None = None,
        num_classes: int | None = None,
        activation: str = "relu",
        norm: str | None = "gn",
        num_groups: int = 32,
        use_attention: bool = False,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        if activation not in ACTIVATIONS:
            raise ValueError(f"ResidualBlock: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        generator = init.default_generator("ResidualBlock", generator)
        self.norm_1 = get_norm(norm, in_channels, num_groups)
        self.act_1 = ACTIVATIONS[activation]()
        self.conv_1 = Conv2d(in_channels, out_channels, 3, padding=1, generator=generator)
        self.norm_2 = get_norm(norm, out_channels, num_groups)
        self.act_2 = ACTIVATIONS[activation]()
        convolution = Conv2d(out_channels, out_channels, 3, padding=1, generator=generator)
        self.conv_2 = Sequential(Dropout(dropout, generator=generator), convolution)
        self.time_bias = None if time_emb_dim is None else Linear(time_emb_dim, out_channels, generator=generator)
        self.class_bias = None if num_classes is None else Embedding(num_classes, out_channels, generator=generator)
        widens = in_channels != out_channels
        self.residual_connection = Conv2d(in_channels, out_channels, 1, generator=generator) if widens else Identity()
        self.attention = AttentionBlock(out_channels, norm, num_groups, generator=generator) if use_attention else Identity()

    def forward(self, x: np.ndarray, temb: np.ndarray | None = None, y: np.ndarray | None = None) -> np.ndarray:
        check_conditions("ResidualBlock", temb=(temb, self.time_bias), y=(y, self.class_bias))
        biases = [self.time_bias(temb)] if self.time_bias and temb is not None else []
        biases += [self.class_bias(y)] if self.class_bias and y is not None else []
        h = self.conv_1(self.act_1(self.norm_1(x)), shift=sum(biases[1:], biases[0]) if biases else None)
        h = self.conv_2(self.act_2(self.norm_2(h)))
        return self.attention(plus(h, self.residual_connection(x)))

    def backward(self, dz: np.ndarray, dtemb: np.ndarray | None = None) -> np.ndarray:
        dz = self.attention.backward(dz)
        dh = self.norm_2.backward(self.act_2.backward(self.conv_2.backward(dz)))
        dbias = pixel_sums(dh)
        if self.class_bias:
            self.class_bias.backward(dbias)
        if self.time_bias:
            assert dtemb is not None  # its owner knows that there is a time
            dtemb += self.time_bias.backward(dbias)
        dx = self.norm_1.backward(self.act_1.backward(self.conv_1.backward(dh)))
        return plus(dx, self.residual_connection.backward(dz))


def check_conditions(name: str, **conditions: tuple[object, object]) -> None:
    """Raise a ValueError unless each condition came exactly where there is a layer for it."""
    for argument, (value, layer) in conditions.items():
        if (value is None) != (layer is None):
            fault = "is missing: the network was built with it" if value is None else "came, but the network was built without it"
            raise ValueError(f"{name}: {argument} {fault}")


class Downsample(Module):
    """Every second pixel of a 3x3 convolution.

    Shapes:
        x (B, C, H, W) -> y (B, C, H/2, W/2), C being ``in_channels``. Parameters: ``downsample.weight``, ``.bias``.

    Raises:
        ValueError: in_channels below 1; in forward, an x of another shape or dtype.
    """

    def __init__(self, in_channels: int, *, generator: np.random.Generator | int | None = None):
        self.downsample = Conv2d(in_channels, in_channels, 3, stride=2, padding=1, generator=generator)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.downsample(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self.downsample.backward(dout)


class Upsample(Module):
    """Each pixel four times, then a 3x3 convolution.

    Shapes:
        x (B, C, H, W) -> y (B, C, 2H, 2W), C being ``in_channels``. Parameters: ``upsample.1.weight``, ``.bias``.

    Raises:
        ValueError: in_channels below 1; in forward, an x of another shape or dtype.
    """

    def __init__(self, in_channels: int, *, generator: np.random.Generator | int | None = None):
        convolution = Conv2d(in_channels, in_channels, 3, padding=1, generator=generator)
        self.upsample = Sequential(resample.Upsample(in_channels, use_conv=False), convolution)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.upsample(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self.upsample.backward(dout)


class UNet(Pretrained):
    """The network: from noisy images, their times and their classes to the noise in them.

    Args:
        img_channels: of the images.
        base_channels: width after the first convolution, even; also the number of sinusoids.
        channel_mults: width of each level over base_channels.
        num_res_blocks: residual blocks of a level on the way down; there is one more on the way up.
        time_emb_dim: E; None: a network without time.
        time_emb_scale: what times are multiplied by.
        num_classes: None: a network without classes.
        activation: "relu", "mish", "silu" or "gelu", everywhere but in time_mlp, where it is SiLU.
        dropout: probability, in residual blocks.
        attention_resolutions: levels that have attention, 0 the first. The middle always has it.
        norm, num_groups: see :func:`get_norm`.
        initial_pad: rows and columns of zeros on each side of the images.
        generator: source of initial values and of dropout's noise.

    Shapes:
        x (B, img_channels, H, W), float32 (float64 after ``astype``), H and W, padded, divisible by 2 to the number of halvings; time, a
        number or (B,), and y (B,) integers, each only if there is a layer for it -> (B, img_channels, H, W). ``backward(dout) -> dx``.

    Raises:
        ValueError: an argument out of range; in forward, images, times or classes that do not fit, are missing, or not asked for.
        TypeError: in forward, times that are no numbers, or classes that are no integers.
    """

    class_name = "AbarankabUNet"

    def __init__(
        self,
        img_channels: int,
        base_channels: int,
        channel_mults: Sequence[int] = (1, 2, 4, 8),
        num_res_blocks: int = 2,
        time_emb_dim: int | None = None,
        time_emb_scale: float = 1.0,
        num_classes: int | None = None,
        activation: str = "relu",
        dropout: float = 0.1,
        attention_resolutions: Sequence[int] = (),
        norm: str | None = "gn",
        num_groups: int = 32,
        initial_pad: int = 0,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        arguments = locals()
        self.config = {name: plain_argument(arguments[name]) for name in UNet.argument_names()}
        self.img_channels, base_channels, num_res_blocks = init.check_positive(
            "UNet", img_channels=img_channels, base_channels=base_channels, num_res_blocks=num_res_blocks
        )
        widths = [base_channels * init.check_positive("UNet", channel_mults=mult)[0] for mult in channel_mults]
        if not widths or base_channels % 2:
            raise ValueError(f"UNet: channel_mults must not be empty, base_channels even, got {channel_mults!r} and {base_channels}")
        if not init.is_int(initial_pad) or initial_pad < 0:
            raise ValueError(f"UNet: initial_pad must be an int of at least 0, got {initial_pad!r}")
        for level in attention_resolutions:
            if not init.is_int(level) or level not in range(len(widths)):
                raise ValueError(f"UNet: attention_resolutions has {level!r}, expected ints from 0 to {len(widths) - 1}")
        self.time_emb_scale, self.initial_pad, self.multiple = float(time_emb_scale), int(initial_pad), 2 ** (len(widths) - 1)
        generator = init.default_generator("UNet", generator)

        def block(channels_in: int, channels_out: int, attends: bool) -> ResidualBlock:
            options: dict[str, Any] = {"time_emb_dim": time_emb_dim, "num_classes": num_classes, "num_groups": num_groups}
            return ResidualBlock(
                channels_in, channels_out, dropout, activation=activation, norm=norm, use_attention=attends, **options, generator=generator
            )

        self.time_mlp = None
        if time_emb_dim is not None:
            linears = [Linear(width, time_emb_dim, generator=generator) for width in (base_channels, time_emb_dim)]
            self.time_mlp = Sequential(Timesteps(base_channels, flip_sin_to_cos=False), linears[0], SiLU(), linears[1])
        self.num_classes = num_classes
        self.temb_act = None if time_emb_dim is None else ACTIVATIONS[activation]()
        self.init_conv = Conv2d(img_channels, base_channels, 3, padding=1, generator=generator)
        self.downs: list[Module] = []
        skips, width = [base_channels], base_channels
        for level, out in enumerate(widths):
            for _ in range(num_res_blocks):
                self.downs.append(block(width, out, level in attention_resolutions))
                width = out
                skips.append(width)
            if level != len(widths) - 1:
                self.downs.append(Downsample(width, generator=generator))
                skips.append(width)
        self.mid = [block(width, width, attends) for attends in (True, False)]
        self.ups: list[Module] = []
        self.widths = []  # of what comes from below, at each residual block on the way up
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(num_res_blocks + 1):
                self.widths.append(width)
                self.ups.append(block(width + skips.pop(), out, level in attention_resolutions))
                width = out
            if level:
                self.ups.append(Upsample(width, generator=generator))
        assert not skips
        self.out_norm = get_norm(norm, base_channels, num_groups)
        self.out_act = ACTIVATIONS[activation]()
        self.out_conv = Conv2d(widths[0], img_channels, 3, padding=1, generator=generator)

    def forward(self, x: np.ndarray, time: float | np.ndarray | None = None, y: np.ndarray | None = None) -> np.ndarray:
        dtype, pad = self.init_conv.weight.data.dtype, self.initial_pad
        check_images("UNet: x", x, self.img_channels, dtype)
        check_conditions("UNet", time=(time, self.time_mlp), y=(y, self.num_classes))
        if y is not None and np.shape(y) != (len(x),):
            raise ValueError(f"UNet: y must be of shape ({len(x)},), one class per image, got shape {np.shape(y)}")
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))) if pad else x
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            expected = f"height and width, with initial_pad {pad}, must be multiples of {self.multiple}"
            raise ValueError(f"UNet: {expected}, got {x.shape[2]}x{x.shape[3]}")
        temb = None
        if self.time_mlp and self.temb_act and time is not None:
            waves, *layers = self.time_mlp
            temb = waves(self.time_emb_scale * check_times("UNet", time, len(x)).astype(np.float64), dtype)
            for layer in (*layers, self.temb_act):
                temb = layer(temb)
        h = self.init_conv(x)
        skips = [h]
        for down in self.downs:
            h = down(h, temb, y) if isinstance(down, ResidualBlock) else down(h)
            skips.append(h)
        for middle in self.mid:
            h = middle(h, temb, y)
        for up in self.ups:
            h = up(concatenate(h, skips.pop()), temb, y) if isinstance(up, ResidualBlock) else up(h)
        out = self.out_conv(self.out_act(self.out_norm(h)))
        self.save(None if temb is None else temb.shape, out.shape)
        return out[:, :, pad : out.shape[2] - pad, pad : out.shape[3] - pad]

    def backward(self, dout: np.ndarray) -> np.ndarray:
        temb_shape, (batch, channels, height, width) = self.saved()
        pad = self.initial_pad
        check_gradient("UNet", dout, (batch, channels, height - 2 * pad, width - 2 * pad), self.init_conv.weight.data.dtype)
        dtemb = None if temb_shape is None else np.zeros(temb_shape, dout.dtype)
        dout = np.pad(dout, ((0, 0), (0, 0), (pad, pad), (pad, pad))) if pad else dout
        dh = self.out_norm.backward(self.out_act.backward(self.out_conv.backward(dout)))
        dskips, widths = [], self.widths.copy()
        for up in reversed(self.ups):
            if isinstance(up, ResidualBlock):
                dh, dskip = split(up.backward(dh, dtemb), widths.pop())
                dskips.append(dskip)
            else:
                dh = up.backward(dh)
        for middle in reversed(self.mid):
            dh = middle.backward(dh, dtemb)
        for down in reversed(self.downs):
            dh = plus(dh, dskips.pop())
            dh = down.backward(dh, dtemb) if isinstance(down, ResidualBlock) else down.backward(dh)
        dx = self.init_conv.backward(plus(dh, dskips.pop()))
        if self.time_mlp and self.temb_act and dtemb is not None:
            for layer in (self.temb_act, *reversed(list(self.time_mlp)[1:])):
                dtemb = layer.backward(dtemb)
        return dx[:, :, pad : height - pad, pad : width - pad]
