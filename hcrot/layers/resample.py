"""Doubling and halving of images, as in diffusers' ``Upsample2D`` and ``Downsample2D``."""

import numpy as np

from hcrot import init
from hcrot.kernels.im2col import pair
from hcrot.kernels.resample import nearest, nearest_gradient
from hcrot.layers.activation import check_floating
from hcrot.layers.arguments import without
from hcrot.layers.conv import Conv2d, check_images
from hcrot.layers.pooling import AvgPool2d
from hcrot.module import Module, check_gradient

__all__ = ["Downsample", "Upsample", "check_channels", "check_input"]

NOT_OF_TORCH = (
    "Upsample is diffusers' Upsample2D, which doubles by nearest neighbour; torch.nn.Upsample(scale_factor=2) is "
    "Upsample(channels, use_conv=False), and its forward takes any size=(height, width)"
)


class Upsample(Module):
    """Each pixel is repeated (nearest neighbour), then a 3x3 convolution smooths: ``y = conv(nearest(x))``.

    Output pixel ``o`` of O shows input pixel ``o I // O``, per axis. Backward: each input pixel sums over the output pixels that show it.

    Args:
        channels: C, channels in.
        out_channels: O, channels out; by default C.
        use_conv: whether there is the convolution; without, O must be C and nothing is learned.
        generator: source of the convolution's initial values.

    Shapes:
        x (B, C, H, W) -> y (B, O, *size), by default (B, O, 2H, 2W). ``conv.weight`` (O, C, 3, 3), ``conv.bias`` (O,).

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64.
        ValueError: an argument out of range; in forward, an x that is not (B, C, H, W) or a size that is not one or two ints of at least 1.

    Example:
        >>> hcrot.Upsample(1, use_conv=False)(np.array([[[[1, 2]]]], np.float32))
        array([[[[1., 1., 2., 2.],
                 [1., 1., 2., 2.]]]], dtype=float32)
    """

    @without(**dict.fromkeys(("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"), NOT_OF_TORCH))
    def __init__(
        self, channels: int, out_channels: int | None = None, use_conv: bool = True, *, generator: np.random.Generator | int | None = None
    ):
        self.channels, out_channels = check_channels("Upsample", channels, out_channels, use_conv)
        generator = init.default_generator("Upsample", generator)
        self.conv = Conv2d(channels, out_channels, 3, padding=1, generator=generator) if use_conv else None

    def forward(self, x: np.ndarray, size: int | tuple[int, int] | None = None) -> np.ndarray:
        """``size`` is the height and width to go to, larger or smaller; None doubles both."""
        check_input("Upsample", x, self.channels, self.conv)
        old_h, old_w = x.shape[2:]
        height, width = (2 * old_h, 2 * old_w) if size is None else pair(size, "Upsample: size")
        self.save(old_h, old_w, (*x.shape[:2], height, width), x.dtype)
        y = nearest(x, height, width)
        return self.conv(y) if self.conv else y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        height, width, shape, dtype = self.saved()
        if self.conv:
            dout = self.conv.backward(dout)
        else:
            check_gradient("Upsample", dout, shape, dtype)
        return nearest_gradient(dout, height, width)

    def describe(self) -> str:
        return "" if self.conv else str(self.channels)


class Downsample(Module):
    """Every second pixel of a 3x3 convolution, or the mean of each 2x2 square.

    Args:
        channels: C, channels in.
        out_channels: O, channels out; by default C.
        use_conv: the convolution (of stride 2), or, if False, the mean; then O must be C and nothing is learned.
        padding: of the convolution: 1 on all sides, or 0, which stands for diffusers' one row below and one column to the right.
        generator: source of the convolution's initial values.

    Shapes:
        x (B, C, H, W) -> y (B, O, OH, OW): ``OH = ceil(H / 2)`` with padding 1, ``H // 2`` with padding 0 and for the mean, which leaves
        out the last row or column of an odd image. ``conv.weight`` (O, C, 3, 3), ``conv.bias`` (O,).

    Raises:
        TypeError: in forward, an x that is neither float32 nor float64.
        ValueError: an argument out of range; in forward, an x that is not (B, C, H, W) or too small.

    Example:
        >>> hcrot.Downsample(1, use_conv=False)(np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4))
        array([[[[2.5, 4.5]]]], dtype=float32)
        >>> hcrot.Downsample(1)(np.ones((1, 1, 5, 8), np.float32)).shape
        (1, 1, 3, 4)
    """

    def __init__(
        self,
        channels: int,
        out_channels: int | None = None,
        use_conv: bool = True,
        padding: int = 1,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        self.channels, out_channels = check_channels("Downsample", channels, out_channels, use_conv)
        if not init.is_int(padding) or padding not in (0, 1):
            raise ValueError(f"Downsample: padding must be 0 or 1, got {padding!r}")
        sides = (1, 1, 1, 1) if padding else (0, 1, 0, 1)
        generator = init.default_generator("Downsample", generator)
        self.conv = Conv2d(channels, out_channels, 3, stride=2, padding=sides, generator=generator) if use_conv else AvgPool2d(2)

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_input("Downsample", x, self.channels, self.conv)
        return self.conv(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return self.conv.backward(dout)


def check_channels(name: str, channels: int, out_channels: int | None, use_conv: bool) -> tuple[int, int]:
    """``channels`` and ``out_channels``, the former again for None, as ints.

    Raises:
        ValueError: a width is out of range or could not change; the message begins with ``name``.
    """
    channels, out_channels = init.check_positive(name, channels=channels, out_channels=channels if out_channels is None else out_channels)
    if not use_conv and out_channels != channels:
        raise ValueError(f"{name}: without a convolution out_channels {out_channels} must be channels {channels}")
    return channels, out_channels


def check_input(name: str, x: np.ndarray, channels: int, conv: Module | None) -> None:
    """Raise an error that begins with ``name`` unless x is (B, ``channels``, H, W) and floating-point, of the convolution's dtype."""
    check_floating(name, x)
    check_images(name, x, channels, conv.weight.data.dtype if isinstance(conv, Conv2d) else x.dtype)
