"""Convolution of sequences: that of images one pixel high."""

import numpy as np

from hcrot import init
from hcrot.kernels.channels import pixel_sums
from hcrot.kernels.conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from hcrot.kernels.im2col import make_geometry, output_size
from hcrot.layers.arguments import PLACE, without
from hcrot.layers.conv import group_slices
from hcrot.module import Module, Parameter, check_gradient, describe_shape

__all__ = ["Conv1d"]


class Conv1d(Module):
    """Cross-correlation of sequences with learned kernels, as ``torch.nn.Conv1d``.

        y[b, o, t] = bias[o] + sum_{c, i} weight[o, c, i] x[b, c, t stride - padding + i dilation],     x = 0 over the edge

    The kernels are Conv2d's, for images of height 1. Backward: ``dweight``, ``dbias`` and ``dx`` as there. What is kept is x.

    Args:
        in_channels, out_channels: C and O.
        kernel_size: K.
        stride, dilation: distance between the places of the output, and between those of the kernel.
        padding: zeros on each side; ``"valid"``: 0; ``"same"``: as many as keep the length, which needs stride 1.
        groups: G; must divide C and O. Channels are split into G parts, each with a layer of its own.
        bias: whether there is a bias.
        padding_mode: only ``"zeros"``; :class:`hcrot.Conv2d` has the others.
        generator: source of the initial values, U(-1/sqrt(C/G K), ...) for both.

    Shapes:
        x (B, C, L) -> y (B, O, OL) with ``OL = (L + 2 padding - dilation (K - 1) - 1) // stride + 1``. A single sequence x (C, L) ->
        y (O, OL). ``weight`` (O, C/G, K), its memory ordered (K, C/G, O); ``bias`` (O,).

    Raises:
        ValueError: an argument out of range; in forward, an x of another shape or dtype, or too short for the kernel.

    Example:
        >>> layer = hcrot.Conv1d(1, 1, kernel_size=2, bias=False)
        >>> layer.weight.data[...] = [-1, 1]
        >>> layer(np.array([[[1, 4, 9, 16]]], np.float32))                                 # what each number adds to the one before
        array([[[3., 5., 7.]]], dtype=float32)
    """

    @without(**PLACE)
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        generator: np.random.Generator | int | None = None,
    ):
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size, "stride": stride}
        sizes |= {"dilation": dilation, "groups": groups}
        in_channels, out_channels, kernel_size, stride, dilation, groups = init.check_positive("Conv1d", **sizes)
        init.check_divisible("Conv1d", groups, in_channels=in_channels, out_channels=out_channels)
        if padding_mode != "zeros":
            raise ValueError(f"Conv1d: padding_mode must be 'zeros', got {padding_mode!r}")
        if not isinstance(padding, str) and (not init.is_int(padding) or padding < 0):
            raise ValueError(f"Conv1d: padding must be an int of at least 0, 'valid' or 'same', got {padding!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        sides = padding if isinstance(padding, str) else (0, int(padding))
        self.geometry = make_geometry((1, kernel_size), (1, stride), sides, (1, dilation), "Conv1d")
        fan_in = in_channels // groups * kernel_size
        weight, offset = init.linear_weight_and_bias(
            (out_channels, in_channels // groups, kernel_size), fan_in, out_channels, init.default_generator("Conv1d", generator)
        )
        self.weight = Parameter(np.ascontiguousarray(weight.T).T)
        self.bias = Parameter(offset) if bias else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        if not isinstance(x, np.ndarray) or x.ndim not in (2, 3) or x.shape[-2] != self.in_channels or x.size == 0:
            raise ValueError(f"Conv1d: expected sequences of shape ([batch,] {self.in_channels}, length), got {describe_shape(x)}")
        if x.dtype != self.weight.data.dtype:
            raise ValueError(f"Conv1d: expected {self.weight.data.dtype} sequences, as the weights are, got {x.dtype}")
        ndim, x = x.ndim, (x if x.ndim == 3 else x[None])[:, :, None]
        if output_size(1, x.shape[3], self.geometry)[1] < 1:
            raise ValueError(
                f"Conv1d: a sequence of {x.shape[3]} is too short for kernel_size {self.geometry[1]}, padding {self.geometry[6]} "
                f"and dilation {self.geometry[9]}"
            )
        self.save(x, ndim)
        parts = [
            conv2d(x[:, inputs], self.weight.data[outputs, :, None], self.bias.data[outputs] if self.bias else None, self.geometry)
            for inputs, outputs in self.slices()
        ]
        y = (parts[0] if self.groups == 1 else np.concatenate(parts, axis=1))[:, :, 0]
        return y if ndim == 3 else y[0]

    def backward(self, dout: np.ndarray) -> np.ndarray:
        x, ndim = self.saved()
        length = output_size(1, x.shape[3], self.geometry)[1]
        check_gradient("Conv1d", dout, (len(x), self.out_channels, length)[3 - ndim :], x.dtype)
        dy, parts = (dout if ndim == 3 else dout[None])[:, :, None], []
        for inputs, outputs in self.slices():
            if self.weight.trainable:
                dweight, dbias = conv2d_weight_gradient(x[:, inputs], dy[:, outputs], self.geometry)
                self.weight.grad[outputs] += dweight[:, :, 0]
            if self.bias and self.bias.trainable:
                self.bias.grad[outputs] += dbias if self.weight.trainable else pixel_sums(dy[:, outputs]).sum(axis=0)
            parts.append(conv2d_input_gradient(dy[:, outputs], self.weight.data[outputs, :, None], self.geometry, 1, x.shape[3]))
        dx = (parts[0] if self.groups == 1 else np.concatenate(parts, axis=1))[:, :, 0]
        return dx if ndim == 3 else dx[0]

    def slices(self) -> list[tuple[slice, slice]]:
        """The channels in and out of each group."""
        return list(zip(group_slices(self.in_channels, self.groups), group_slices(self.out_channels, self.groups), strict=True))

    def multiplications(self, y: np.ndarray, x: np.ndarray) -> int:
        """Multiply-adds of a forward, for :func:`hcrot.summary`: C/G K for each number of y."""
        return y.size * self.weight.data[0].size

    def describe(self) -> str:
        _, kernel, _, stride, _, _, left, right, _, dilation = self.geometry
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={kernel}, stride={stride}, padding={(left, right)}, "
            f"dilation={dilation}, groups={self.groups}, bias={self.bias is not None}"
        )
