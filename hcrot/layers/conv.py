"""Convolution and transposed convolution: each other's gradient.

Notation: B images, C channels in, O channels out, G groups, KH x KW kernel. The products and their unfolding are in ``kernels/conv.py``.
"""

import numpy as np

from hcrot import init
from hcrot.kernels.channels import pixel_sums
from hcrot.kernels.conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from hcrot.kernels.im2col import make_geometry, output_size, pair
from hcrot.kernels.winograd import applies
from hcrot.module import Module, Parameter, check_gradient, check_term, describe_shape

__all__ = ["Conv2d", "ConvTranspose2d", "check_images", "kernel_order"]


class Conv2d(Module):
    """Cross-correlation of images with learned kernels, as ``torch.nn.Conv2d``.

        y[b, o, oy, ox] = bias[o] + sum_{c, i, j} weight[o, c, i, j] x[b, c, y_i, x_j]
        y_i = oy stride - padding + i dilation,   x_j = ox stride - padding + j dilation,   x = 0 over the edge

    With ``X = im2col(x)`` and W the weight as a matrix: ``y = X W + bias``. Backward: ``dW = X^T dy``, ``dbias = sum dy``,
    ``dx = col2im(dy W^T)``, since col2im is the adjoint of im2col. What is kept is x; X is unfolded again rather than kept.

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
        algorithm: how the sums are done: ``"im2col"``; ``"winograd"`` (3x3, stride 1, dilation 1 only), with a quarter of the
            multiplications and a rounding error of about 1e-6 of the largest output; ``"auto"``: whichever is faster for the shape at
            hand. float64 is always done by im2col.
        generator: source of the initial values, U(-1/sqrt(C/G KH KW), ...) for both.

    Shapes:
        x (B, C, H, W) -> y (B, O, OH, OW) with ``OH = (H + padding - dilation (KH - 1) - 1) // stride + 1``.
        shift (B, O) and residual (B, O, OH, OW), or None. ``weight`` (O, C/G, KH, KW), its memory ordered (KH, KW, C/G, O); ``bias`` (O,).

    Raises:
        ValueError: an argument out of range; in forward, an x that is not (B, C, H, W), or too small for the kernel.
    """

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
        *,
        algorithm: str = "auto",
        generator: np.random.Generator | None = None,
    ):
        init.check_positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        init.check_divisible("Conv2d", groups, in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.geometry = make_geometry(kernel_size, stride, padding, dilation, "Conv2d")
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
            init.default_generator(generator),
        )
        self.weight = Parameter(kernel_order(weight))
        self.bias = Parameter(offset) if bias else None

    def forward(self, x: np.ndarray, shift: np.ndarray | None = None, residual: np.ndarray | None = None) -> np.ndarray:
        check_images("Conv2d", x, self.in_channels, self.weight.data.dtype)
        size = output_size(*x.shape[2:], self.geometry)
        if min(size) < 1:
            raise ValueError(
                f"Conv2d: a {x.shape[2]}x{x.shape[3]} image is too small for kernel_size {self.geometry[:2]}, "
                f"padding {self.geometry[4:8]} and dilation {self.geometry[8:]}"
            )
        if shift is not None:
            check_term("Conv2d: shift", shift, (x.shape[0], self.out_channels), x.dtype)
        if residual is not None:
            check_term("Conv2d: residual", residual, (x.shape[0], self.out_channels, *size), x.dtype)
        self.save(x)
        bias = self.bias.data if self.bias else None
        if shift is not None:
            bias = shift if bias is None else shift + bias
        if self.groups == 1:
            return conv2d(x, self.weight.data, bias, self.geometry, residual, self.algorithm)
        groups = zip(np.split(x, self.groups, axis=1), np.split(self.weight.data, self.groups), strict=True)
        y = np.concatenate([conv2d(part, weight, None, self.geometry, None, self.algorithm) for part, weight in groups], axis=1)
        if bias is not None:
            y += bias.reshape(-1, self.out_channels, 1, 1)
        return y if residual is None else y + residual

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x = self.saved()
        check_gradient("Conv2d", dout, (x.shape[0], self.out_channels, *output_size(*x.shape[2:], self.geometry)), x.dtype)
        if self.groups == 1:
            return self.group_backward(x, dout, slice(None))
        width = self.out_channels // self.groups
        dxs = [
            self.group_backward(part, dy, slice(group * width, (group + 1) * width))
            for group, (part, dy) in enumerate(zip(np.split(x, self.groups, axis=1), np.split(dout, self.groups, axis=1), strict=True))
        ]
        return np.concatenate(dxs, axis=1)

    def group_backward(self, x: np.ndarray, dy: np.ndarray, outputs: slice) -> np.ndarray:
        """dx of the group of input channels x (B, C/G, H, W), whose output channels are ``outputs``; adds to their gradients."""
        dweight, dbias = conv2d_weight_gradient(x, dy, self.geometry, self.algorithm)
        self.weight.grad[outputs] += dweight
        if self.bias:
            self.bias.grad[outputs] += dbias
        return conv2d_input_gradient(dy, self.weight.data[outputs], self.geometry, *x.shape[2:], self.algorithm)

    def describe(self) -> str:
        kernel_h, kernel_w, stride_h, stride_w, *sides, dilation_h, dilation_w = self.geometry
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={(kernel_h, kernel_w)}, stride={(stride_h, stride_w)}"
        return f"{text}, padding={tuple(sides)}, dilation={(dilation_h, dilation_w)}, groups={self.groups}, bias={self.bias is not None}"


class ConvTranspose2d(Module):
    """The adjoint of a convolution used as a layer, as ``torch.nn.ConvTranspose2d``: a stride of 2 doubles the image.

    Each input pixel paints its kernel, scaled, onto the output, ``stride`` apart:

        y[b, o, y' stride - padding + i, x' stride - padding + j] += weight[c, o, i, j] x[b, c, y', x']      (plus bias[o] everywhere)

    It is ``dx`` of the Conv2d from O to C channels with the same weight, so its own backward is that convolution's forward:
    ``dx = conv2d(dy, W)``, ``dW = `` the convolution's weight gradient with the roles of input and output exchanged.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding: an int or ``(h, w)``; padding removes that many pixels from each side of the output.
        output_padding: rows and columns added at the bottom and right of the output, fewer than stride: several output sizes are mapped
            onto one by the convolution, and this chooses among them.
        bias: whether there is a bias.
        generator: source of the initial values, U(-1/sqrt(O KH KW), ...) as in PyTorch.

    Shapes:
        x (B, C, H, W) -> y (B, O, OH, OW) with ``OH = (H - 1) stride - 2 padding + KH + output_padding``.
        ``weight`` (C, O, KH, KW), its memory ordered (KH, KW, O, C); ``bias`` (O,).

    Raises:
        ValueError: an argument out of range; in forward, an x that is not (B, C, H, W) or leaves no output pixel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        bias: bool = True,
        *,
        generator: np.random.Generator | None = None,
    ):
        init.check_positive("ConvTranspose2d", in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.output_padding = pair(output_padding, "ConvTranspose2d: output_padding", minimum=0)
        self.geometry = make_geometry(kernel_size, stride, pair(padding, "ConvTranspose2d: padding", minimum=0), 1, "ConvTranspose2d")
        kernel_h, kernel_w, stride_h, stride_w = self.geometry[:4]
        if self.output_padding[0] >= stride_h or self.output_padding[1] >= stride_w:
            raise ValueError(f"ConvTranspose2d: output_padding {self.output_padding} must be smaller than stride {(stride_h, stride_w)}")
        weight, offset = init.linear_weight_and_bias(
            (in_channels, out_channels, kernel_h, kernel_w),
            out_channels * kernel_h * kernel_w,
            out_channels,
            init.default_generator(generator),
        )
        self.weight = Parameter(kernel_order(weight))
        self.bias = Parameter(offset) if bias else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        check_images("ConvTranspose2d", x, self.in_channels, self.weight.data.dtype)
        kernel_h, kernel_w, stride_h, stride_w, top, bottom, left, right = self.geometry[:8]
        height = (x.shape[2] - 1) * stride_h - top - bottom + kernel_h + self.output_padding[0]
        width = (x.shape[3] - 1) * stride_w - left - right + kernel_w + self.output_padding[1]
        if min(height, width) < 1:
            raise ValueError(f"ConvTranspose2d: a {x.shape[2]}x{x.shape[3]} image leaves no output with padding {(top, left)}")
        self.save(x, (x.shape[0], self.out_channels, height, width))
        y = conv2d_input_gradient(x, self.weight.data, self.geometry, height, width)
        if self.bias:
            y += self.bias.data[:, None, None]
        return y

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x, shape = self.saved()
        check_gradient("ConvTranspose2d", dout, shape, x.dtype)
        dweight, _ = conv2d_weight_gradient(dout, x, self.geometry)
        self.weight.grad += dweight
        if self.bias:
            self.bias.grad += pixel_sums(dout).sum(axis=0)
        return conv2d(dout, self.weight.data, None, self.geometry)

    def describe(self) -> str:
        kernel_h, kernel_w, stride_h, stride_w, top, _, left, _ = self.geometry[:8]
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={(kernel_h, kernel_w)}, stride={(stride_h, stride_w)}"
        return f"{text}, padding={(top, left)}, output_padding={self.output_padding}, bias={self.bias is not None}"


def kernel_order(weight: np.ndarray) -> np.ndarray:
    """The same (O, C, KH, KW) weight, its memory ordered (KH, KW, C, O), as the kernels multiply it."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)


def check_images(name: str, x: np.ndarray, channels: int, dtype: np.dtype) -> None:
    """Raise a ValueError that begins with ``name`` unless x is a (B, ``channels``, H, W) array of ``dtype`` with at least one image."""
    if not isinstance(x, np.ndarray) or x.ndim != 4 or x.shape[1] != channels or x.size == 0:
        shape = describe_shape(x).removeprefix("shape ")
        raise ValueError(f"{name}: expected images of shape (batch, {channels}, height, width), got {shape}")
    if x.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} images, as the weights are, got {x.dtype}")
