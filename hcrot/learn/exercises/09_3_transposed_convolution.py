"""A transposed convolution that paints, and its two gradients.

x has the shape (N, C, H, W) and the weight (C, O, K, K). Each input pixel (h, w) paints its kernel, times its value, onto the output, with
the upper left corner at (stride h, stride w); overlapping strokes add up, over all input channels. The output is just large enough:
stride (H - 1) + K rows. No padding, no bias.
"""

import numpy as np

import hcrot


class TransposedConvolution(hcrot.Module):
    """y[n, o, stride h + i, stride w + j] += weight[c, o, i, j] x[n, c, h, w]."""

    def __init__(self, weight: np.ndarray, stride: int):
        self.weight = hcrot.Parameter(weight)
        self.stride = stride

    def places(self, i: int, j: int, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the output at which the weights (i, j) of all pixels are painted."""
        s = self.stride
        return slice(i, i + s * (height - 1) + 1, s), slice(j, j + s * (width - 1) + 1, s)

    def forward(self, x: np.ndarray) -> np.ndarray:
        images, _, height, width = x.shape
        _, channels, kernel, _ = self.weight.shape
        self.save(x)
        # yours: begin
        size = [self.stride * (length - 1) + kernel for length in (height, width)]
        y = np.zeros((images, channels, *size))
        for i in range(kernel):
            for j in range(kernel):
                rows, columns = self.places(i, j, height, width)
                y[:, :, rows, columns] += np.einsum("nchw,co->nohw", x, self.weight.data[:, :, i, j])
        return y
        # yours: end

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x = self.saved()
        _, _, height, width = x.shape
        kernel = self.weight.shape[2]
        # yours: begin
        dx = np.zeros(x.shape)
        for i in range(kernel):
            for j in range(kernel):
                rows, columns = self.places(i, j, height, width)
                stroke = dy[:, :, rows, columns]
                dx += np.einsum("nohw,co->nchw", stroke, self.weight.data[:, :, i, j])
                self.weight.grad[:, :, i, j] += np.einsum("nchw,nohw->co", x, stroke)
        return dx
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Loop over the K K weights of the kernel, not over pixels: weight (i, j) goes from all pixels to the places that `places` gives.",
    "np.einsum('nchw,co->nohw', x, w) multiplies the channels of every pixel by the matrix w (C, O).",
    "Backward reads dy at the same places: dx is a sum over i, j and o, and dW[:, :, i, j] one over images and pixels.",
]
DERIVATION = """
For fixed (i, j), forward is   y[n, o, s h + i, s w + j] += sum_c W[c, o, i, j] x[n, c, h, w].   With d = dy[n, o, s h + i, s w + j]:

    dx[n, c, h, w]   = sum over o, i, j of W[c, o, i, j] d          (N, C, H, W)
    dW[c, o, i, j]   = sum over n, h, w of x[n, c, h, w] d          (C, O, K, K)

The first line is a convolution with stride s of dy, from O to C channels: forward is the transpose of a convolution, so backward is that
convolution. Source: Dumoulin & Visin 2016, chapter 4.
"""
WRONG = {
    "strokes overwrite": ("y[:, :, rows, columns] += ", "y[:, :, rows, columns] = "),
    "the weight's gradient is set": ("self.weight.grad[:, :, i, j] += ", "self.weight.grad[:, :, i, j] = "),
    "the kernel is turned": ("np.einsum(\"nohw,co->nchw\", stroke, self.weight.data[:, :, i, j])",
                             "np.einsum(\"nohw,co->nchw\", stroke, self.weight.data[:, :, j, i])"),
}  # fmt: skip


def check(yours, check: Check) -> None:
    for size, kernel, stride in (((3, 4), 3, 2), ((2, 3), 4, 2), ((2, 2), 2, 3)):
        weight, x = check.normal(2, 3, kernel, kernel), check.normal(2, 2, *size)
        layer = hcrot.ConvTranspose2d(2, 3, kernel, stride, bias=False).astype(np.float64)
        layer.weight.data[...] = weight
        with hcrot.plain():
            y = layer(x)
        what = f"y for {size} pixels, kernel {kernel}, stride {stride}"
        check.equal(what, yours.TransposedConvolution(weight, stride)(x), y)
        check.gradients(yours.TransposedConvolution(weight, stride), x)
