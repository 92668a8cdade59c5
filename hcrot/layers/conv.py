"""Convolution and transposed convolution: each other's gradient.

Notation: B images, C channels in, O channels out, G groups, KH x KW kernel. The products and their unfolding are in ``kernels/conv.py``.
"""

import numpy as np

from hcrot import init
from hcrot.kernels.channels import pixel_sums, plus_row
from hcrot.kernels.conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from hcrot.kernels.im2col import make_geometry, output_size, pair
from hcrot.kernels.winograd import applies
from hcrot.layers.arguments import PLACE, without
from hcrot.layers.padding import MODES, Pad2d
from hcrot.module import Module, Parameter, check_gradient, check_term, describe_shape

__all__ = ["Conv2d", "ConvTranspose2d", "check_images", "kernel_order"]


class Conv2d(Module):
    """Cross-correlation of images with learned kernels, as ``torch.nn.Conv2d``.

        y[b, o, oy, ox] = bias[o] + sum_{c, i, j} weight[o, c, i, j] x[b, c, y_i, x_j]
        y_i = oy stride - padding + i dilation,   x_j = ox stride - padding + j dilation,   x = 0 over the edge

    With ``X = im2col(x)`` and W the weight as a matrix: ``y = X W + bias``. Backward: ``dW = X^T dy``, ``dbias = sum dy``,
    ``dx = col2im(dy W^T)``, since col2im is the adjoint of im2col. What is kept is x (padded, if padding_mode is not zeros);
    X is unfolded again rather than kept.

    Two more terms can be added where y is written, which saves a pass through memory for each: ``shift``, one number per image and output
    channel, and ``residual``, an array like y. Their gradients, the sums of dy over each image's pixels and dy itself, are for their owner
    to take; backward returns dx alone.

    With G groups, channels are split into G parts that are convolved separately, output part g seeing input part g only.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, dilation: an int or ``(h, w)``.
        padding: zeros around the image: an int, ``(h, w)``, ``(top, bottom, left, right)``, ``"same"`` or ``"valid"``.
        groups: G; must divide C and O.
        bias: whether there is a bias.
        padding_mode: what padding consists of: ``"zeros"``, or the image's own pixels, by ``"reflect"``, ``"replicate"`` or ``"circular"``
            (see :class:`hcrot.layers.padding.Pad2d`).
        algorithm: how the sums are done: ``"im2col"``; ``"winograd"`` (3x3, stride 1, dilation 1 only), with a quarter of the
            multiplications and a rounding error of some 1e-6 of the largest output, also in outputs near a large number whose kernel
            does not see it (by 0.0006 for a pixel of 10,000 among normal ones; docs/performance.md has figures); ``"auto"``: whichever
            is faster for the shape at hand. float64 is always done by im2col.
        generator: source of the initial values, U(-1/sqrt(C/G KH KW), ...) for both.

    Shapes:
        x (B, C, H, W) -> y (B, O, OH, OW) with ``OH = (H + padding - dilation (KH - 1) - 1) // stride + 1``.
        shift (B, O) and residual (B, O, OH, OW), or None. A single image comes, as all else, without B: x (C, H, W) -> y (O, OH, OW).
        ``weight`` (O, C/G, KH, KW), its memory ordered (KH, KW, C/G, O); ``bias`` (O,).

    Raises:
        ValueError: an argument out of range; in forward, an x of another shape or dtype, or too small for the kernel or for the padding.

    Example:
        >>> layer = hcrot.Conv2d(3, 8, 3, padding=1, generator=0)
        >>> layer(np.zeros((2, 3, 5, 7), np.float32)).shape
        (2, 8, 5, 7)
        >>> hcrot.Conv2d(3, 8, 3, stride=2, generator=0)(np.zeros((2, 3, 5, 7), np.float32)).shape
        (2, 8, 2, 3)
    """

    @without(**PLACE)
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        algorithm: str = "auto",
        generator: np.random.Generator | int | None = None,
    ):
        in_channels, out_channels, groups = init.check_positive(
            "Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        init.check_divisible("Conv2d", groups, in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        if padding_mode != "zeros" and padding_mode not in MODES:
            raise ValueError(f"Conv2d: padding_mode must be one of 'zeros', {', '.join(map(repr, MODES))}, got {padding_mode!r}")
        self.geometry = make_geometry(kernel_size, stride, padding, dilation, "Conv2d")
        self.pad = None if padding_mode == "zeros" else Pad2d(self.geometry[4:8], padding_mode)
        if self.pad:
            self.geometry = (*self.geometry[:4], 0, 0, 0, 0, *self.geometry[8:])
        if algorithm not in ("auto", "im2col", "winograd"):
            raise ValueError(f"Conv2d: algorithm must be 'auto', 'im2col' or 'winograd', got {algorithm!r}")
        kernel_h, kernel_w, stride_h, stride_w, *_, dilation_h, dilation_w = self.geometry
        if algorithm == "winograd" and not applies(self.geometry):
            raise ValueError(
                f"Conv2d: algorithm 'winograd' needs kernel_size 3, stride 1 and dilation 1, "
                f"got {(kernel_h, kernel_w)}, {(stride_h, stride_w)} and {(dilation_h, dilation_w)}"
            )
        self.algorithm = algorithm
        weight, offset = init.linear_weight_and_bias(
            (out_channels, in_channels // groups, kernel_h, kernel_w),
            in_channels // groups * kernel_h * kernel_w,
            out_channels,
            init.default_generator("Conv2d", generator),
        )
        self.weight = Parameter(kernel_order(weight))
        self.bias = Parameter(offset) if bias else None

    def forward(self, x: np.ndarray, shift: np.ndarray | None = None, residual: np.ndarray | None = None) -> np.ndarray:
        check_images("Conv2d", x, self.in_channels, self.weight.data.dtype, single=True)
        if x.ndim == 3:
            shift, residual = (None if term is None else term[None] for term in (shift, residual))
        ndim, x = x.ndim, x if x.ndim == 4 else x[None]
        if self.pad:
            x = self.pad(x)
        size = output_size(x.shape[2], x.shape[3], self.geometry)
        if min(size) < 1:
            raise ValueError(
                f"Conv2d: a {x.shape[2]}x{x.shape[3]} image is too small for kernel_size {self.geometry[:2]}, "
                f"padding {self.geometry[4:8]} and dilation {self.geometry[8:]}"
            )
        if shift is not None:
            check_term("Conv2d: shift", shift, (x.shape[0], self.out_channels), x.dtype)
        if residual is not None:
            check_term("Conv2d: residual", residual, (x.shape[0], self.out_channels, *size), x.dtype)
        self.save(x, ndim)
        bias = self.bias.data if self.bias else None
        if shift is not None:
            bias = shift if bias is None else plus_row(shift, bias)
        if self.groups == 1:
            y = conv2d(x, self.weight.data, bias, self.geometry, residual, self.algorithm)
        else:
            y = self.grouped_forward(x, bias, residual)
        return y if ndim == 4 else y[0]

    def grouped_forward(self, x: np.ndarray, bias: np.ndarray | None, residual: np.ndarray | None) -> np.ndarray:
        """y (B, O, OH, OW), group by group; bias (O,) or (B, O)."""
        groups = zip(np.split(x, self.groups, axis=1), np.split(self.weight.data, self.groups), strict=True)
        y = np.concatenate([conv2d(part, weight, None, self.geometry, None, self.algorithm) for part, weight in groups], axis=1)
        if bias is not None:
            y += bias.reshape(-1, self.out_channels, 1, 1)
        return y if residual is None else y + residual

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x, ndim = self.saved()
        shape = (x.shape[0], self.out_channels, *output_size(x.shape[2], x.shape[3], self.geometry))
        check_gradient("Conv2d", dout, shape[4 - ndim :], x.dtype)
        dout = dout if ndim == 4 else dout[None]
        if self.groups == 1:
            dx = self.group_backward(x, dout, slice(None))
        else:
            parts = zip(group_slices(self.out_channels, self.groups), np.split(x, self.groups, axis=1), strict=True)
            dx = np.concatenate([self.group_backward(part, dout[:, outputs], outputs) for outputs, part in parts], axis=1)
        if self.pad:
            dx = self.pad.backward(dx)
        return dx if ndim == 4 else dx[0]

    def group_backward(self, x: np.ndarray, dy: np.ndarray, outputs: slice) -> np.ndarray:
        """dx of the group of input channels x (B, C/G, H, W), whose output channels are ``outputs``; adds to their gradients."""
        if self.weight.trainable:
            dweight, dbias = conv2d_weight_gradient(x, dy, self.geometry, self.algorithm)
            self.weight.grad[outputs] += dweight
        if self.bias and self.bias.trainable:
            self.bias.grad[outputs] += dbias if self.weight.trainable else pixel_sums(dy).sum(axis=0)
        return conv2d_input_gradient(dy, self.weight.data[outputs], self.geometry, x.shape[2], x.shape[3], self.algorithm)

    def multiplications(self, y: np.ndarray, *inputs: np.ndarray) -> int:
        """Multiply-adds of a forward, as the formula has them, for :func:`hcrot.summary`: C/G KH KW for each number of y."""
        return y.size * self.weight.data[0].size

    def describe(self) -> str:
        kernel_h, kernel_w, stride_h, stride_w, *_, dilation_h, dilation_w = self.geometry
        sides = self.pad.sides if self.pad else self.geometry[4:8]
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={(kernel_h, kernel_w)}, stride={(stride_h, stride_w)}"
        text += f", padding={sides}, dilation={(dilation_h, dilation_w)}, groups={self.groups}, bias={self.bias is not None}"
        text += f", padding_mode={self.pad.mode!r}" if self.pad else ""
        return text if self.algorithm == "auto" else f"{text}, algorithm={self.algorithm!r}"


class ConvTranspose2d(Module):
    """The adjoint of a convolution used as a layer, as ``torch.nn.ConvTranspose2d``: a stride of 2 doubles the image.

    Each input pixel paints its kernel, scaled, onto the output, ``stride`` apart:

        y[b, o, y' stride - padding + i dilation, x' stride - padding + j dilation] += weight[c, o, i, j] x[b, c, y', x']

    and bias[o] is added everywhere.

    It is ``dx`` of the Conv2d from O to C channels with the same weight, so its own backward is that convolution's forward:
    ``dx = conv2d(dy, W)``, ``dW = `` the convolution's weight gradient with the roles of input and output exchanged.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding: an int or ``(h, w)``; padding removes that many pixels from each side of the output.
        output_padding: rows and columns added at the bottom and right of the output, fewer than stride: several output sizes are mapped
            onto one by the convolution, and this chooses among them.
        groups: G; must divide C and O. Channels are split into G parts, each with a layer of its own.
        bias: whether there is a bias.
        dilation: distance between the places of the kernel, an int or ``(h, w)``.
        padding_mode: only ``"zeros"``, as in PyTorch.
        generator: source of the initial values, U(-1/sqrt(O/G KH KW), ...) as in PyTorch.

    Shapes:
        x (B, C, H, W) -> y (B, O, OH, OW) with ``OH = (H - 1) stride - 2 padding + dilation (KH - 1) + 1 + output_padding``.
        A single image x (C, H, W) -> y (O, OH, OW). ``weight`` (C, O/G, KH, KW), its memory ordered (KH, KW, O/G, C); ``bias`` (O,).

    Raises:
        ValueError: an argument out of range; in forward, an x of another shape or dtype, or one that leaves no output pixel.

    Example:
        >>> layer = hcrot.ConvTranspose2d(1, 1, kernel_size=2, stride=2, bias=False)
        >>> layer.weight.data[...] = [[1, 2], [3, 4]]
        >>> layer(np.array([[[[1, 10]]]], np.float32))                                      # each pixel paints the kernel
        array([[[[ 1.,  2., 10., 20.],
                 [ 3.,  4., 30., 40.]]]], dtype=float32)
    """

    @without(**PLACE)
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "zeros",
        *,
        generator: np.random.Generator | int | None = None,
    ):
        in_channels, out_channels, groups = init.check_positive(
            "ConvTranspose2d", in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        init.check_divisible("ConvTranspose2d", groups, in_channels=in_channels, out_channels=out_channels)
        if padding_mode != "zeros":
            raise ValueError(f"ConvTranspose2d: padding_mode must be 'zeros', got {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.output_padding = pair(output_padding, "ConvTranspose2d: output_padding", minimum=0)
        pads = pair(padding, "ConvTranspose2d: padding", minimum=0)
        self.geometry = make_geometry(kernel_size, stride, pads, dilation, "ConvTranspose2d")
        kernel_h, kernel_w, stride_h, stride_w = self.geometry[:4]
        if self.output_padding[0] >= stride_h or self.output_padding[1] >= stride_w:
            raise ValueError(f"ConvTranspose2d: output_padding {self.output_padding} must be smaller than stride {(stride_h, stride_w)}")
        weight, offset = init.linear_weight_and_bias(
            (in_channels, out_channels // groups, kernel_h, kernel_w),
            out_channels // groups * kernel_h * kernel_w,
            out_channels,
            init.default_generator("ConvTranspose2d", generator),
        )
        self.weight = Parameter(kernel_order(weight))
        self.bias = Parameter(offset) if bias else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_images("ConvTranspose2d", x, self.in_channels, self.weight.data.dtype, single=True)
        ndim, x = x.ndim, x if x.ndim == 4 else x[None]
        kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right, dilation_h, dilation_w = self.geometry
        height = (x.shape[2] - 1) * stride_h - top - bottom + dilation_h * (kernel_h - 1) + 1 + self.output_padding[0]
        width = (x.shape[3] - 1) * stride_w - left - right + dilation_w * (kernel_w - 1) + 1 + self.output_padding[1]
        if min(height, width) < 1:
            raise ValueError(f"ConvTranspose2d: a {x.shape[2]}x{x.shape[3]} image leaves no output with padding {(top, left)}")
        self.save(x, (x.shape[0], self.out_channels, height, width)[4 - ndim :])
        if self.groups == 1:
            y = conv2d_input_gradient(x, self.weight.data, self.geometry, height, width)
        else:
            parts = zip(np.split(x, self.groups, axis=1), np.split(self.weight.data, self.groups), strict=True)
            y = np.concatenate([conv2d_input_gradient(*part, self.geometry, height, width) for part in parts], axis=1)
        if self.bias:
            y += self.bias.data[:, None, None]
        return y if ndim == 4 else y[0]

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x, shape = self.saved()
        check_gradient("ConvTranspose2d", dout, shape, x.dtype)
        dy = dout if dout.ndim == 4 else dout[None]
        if self.bias and self.bias.trainable:
            self.bias.grad += pixel_sums(dy).sum(axis=0)
        if self.groups == 1:
            dx = self.group_backward(x, dy, slice(None))
        else:
            parts = zip(group_slices(self.in_channels, self.groups), np.split(dy, self.groups, axis=1), strict=True)
            dx = np.concatenate([self.group_backward(x[:, inputs], part, inputs) for inputs, part in parts], axis=1)
        return dx if dout.ndim == 4 else dx[0]

    def group_backward(self, x: np.ndarray, dy: np.ndarray, inputs: slice) -> np.ndarray:
        """dx of the group of input channels x (B, C/G, H, W), numbered ``inputs``, that made dy (B, O/G, OH, OW); adds to dweight."""
        if self.weight.trainable:
            dweight, _ = conv2d_weight_gradient(dy, x, self.geometry)
            self.weight.grad[inputs] += dweight
        return conv2d(dy, self.weight.data[inputs], None, self.geometry)

    def multiplications(self, y: np.ndarray, x: np.ndarray) -> int:
        """Multiply-adds of a forward, for :func:`hcrot.summary`: O/G KH KW for each number of x."""
        return x.size * self.weight.data[0].size

    def describe(self) -> str:
        kernel_h, kernel_w, stride_h, stride_w, top, _, left, _, *dilation = self.geometry
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={(kernel_h, kernel_w)}, stride={(stride_h, stride_w)}"
        text += f", padding={(top, left)}, output_padding={self.output_padding}, groups={self.groups}, bias={self.bias is not None}"
        return f"{text}, dilation={tuple(dilation)}"


def kernel_order(weight: np.ndarray) -> np.ndarray:
    """The same (O, C, KH, KW) weight, its memory ordered (KH, KW, C, O), as the kernels multiply it."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)


def group_slices(channels: int, groups: int) -> list[slice]:
    """The channels of each group."""
    width = channels // groups
    return [slice(group * width, (group + 1) * width) for group in range(groups)]


def check_images(name: str, x: np.ndarray, channels: int, dtype: np.dtype, single: bool = False) -> None:
    """Raise a ValueError that begins with ``name`` unless x is a (B, ``channels``, H, W) array of ``dtype`` with at least one image.

    With ``single``, one image (``channels``, H, W) is as good.
    """
    axes = (3, 4) if single else (4,)
    if not isinstance(x, np.ndarray) or x.ndim not in axes or x.shape[-3] != channels or x.size == 0:
        shape = describe_shape(x).removeprefix("shape ")
        batch = "[batch,]" if single else "batch,"
        raise ValueError(f"{name}: expected images of shape ({batch} {channels}, height, width), got {shape}")
    if x.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} images, as the weights are, got {x.dtype}")
