"""Your own Conv2d.backward.

forward is given. Write backward: it gets dy (B, O, OH, OW), ADDS to the gradients of weight and bias, and returns dx (B, C, H, W).

The names: R = B OH OW rows, one for each output pixel, and M = KH KW C numbers in a window.
    X  (R, M)   the windows as rows, by hcrot.im2col. Its columns are counted by (i, j, c).
    W  (M, O)   the weight as a matrix
    Y  (R, O)   the output, its rows counted by (n, p, q)
hcrot.col2im(dX, shape, kernel, stride, padding) goes the way from X to x: it adds each entry of dX to the pixel whose copy stands at that
place of X. shape is that of x.
"""

import numpy as np

import hcrot


class Conv2d(hcrot.Module):
    """A convolution of images x (B, C, H, W) with kernels of the shape kernel = (KH, KW)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int = 1, padding: int = 0, generator=None):
        generator = np.random.default_rng(generator)
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = hcrot.Parameter(generator.standard_normal((out_channels, in_channels, *kernel)))
        self.bias = hcrot.Parameter(generator.standard_normal(out_channels))

    def weight_as_matrix(self) -> np.ndarray:
        """W (M, O): from the axes (o, c, i, j) to (i, j, c, o), then M = KH KW C in one."""
        return self.weight.data.transpose(2, 3, 1, 0).reshape(-1, len(self.weight.data))

    def forward(self, x: np.ndarray) -> np.ndarray:
        (batch, _, height, width), (kernel_h, kernel_w), outputs = x.shape, self.kernel, len(self.weight.data)
        out_h = (height + 2 * self.padding - kernel_h) // self.stride + 1
        out_w = (width + 2 * self.padding - kernel_w) // self.stride + 1
        X = hcrot.im2col(x, self.kernel, self.stride, self.padding)
        Y = X @ self.weight_as_matrix() + self.bias.data
        self.save(X, x.shape)
        return Y.reshape(batch, out_h, out_w, outputs).transpose(0, 3, 1, 2)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        X, shape = self.saved()  # shape is that of x
        W = self.weight_as_matrix()
        # yours: begin
        channels, (kernel_h, kernel_w), outputs = shape[1], self.kernel, dy.shape[1]
        dY = dy.transpose(0, 2, 3, 1).reshape(-1, outputs)
        dW = X.T @ dY
        self.weight.grad += dW.reshape(kernel_h, kernel_w, channels, outputs).transpose(3, 2, 0, 1)
        self.bias.grad += dY.sum(axis=0)
        dX = dY @ W.T
        return hcrot.col2im(dX, shape, self.kernel, self.stride, self.padding)
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Four steps, from the end of forward to its beginning: dy to dY (R, O); dW = X^T dY and db; dX = dY W^T; dx = col2im(dX).",
    "The rows of dY are counted by (n, p, q), its columns by o. dy has the axes (n, o, p, q): first transpose(0, 2, 3, 1), then reshape.",
    "dW (M, O) has the rows (i, j, c). So dW.reshape(KH, KW, C, O) has the axes (i, j, c, o): transpose them to (o, c, i, j).",
    "self.weight.grad += dW.reshape(KH, KW, C, O).transpose(3, 2, 0, 1); self.bias.grad += dY.sum(axis=0); dX = dY @ W.T; then col2im.",
]

DERIVATION = """
forward is x -> X (im2col) -> Y = X W + b -> y (reshape, transpose). Backward goes through it from the end.

    y = transpose(reshape(Y))     dY = reshape(transpose(dy))                    numbers move, none changes
    Y = X W + b                   dW = X^T dY       (M, R) (R, O)                chapter 02: W_mo is used in every row of Y
                                  db = sum of the rows of dY
                                  dX = dY W^T       (R, O) (O, M)                X_rm is used in every column of Y
    X = im2col(x)                 dx = col2im(dX)                                the adjoint of a linear map

weight_as_matrix takes the weight's axes (o, c, i, j) to (i, j, c, o) and groups the first three. Its way back is to open the group,
reshape(KH, KW, C, O), and to transpose (i, j, c, o) to (o, c, i, j), which is transpose(3, 2, 0, 1).
(Chellapilla, Puri & Simard 2006; Dumoulin & Visin 2016, section 4.1.)
"""

WRONG = {
    "reshape without transpose": ("dy.transpose(0, 2, 3, 1).reshape(-1, outputs)", "dy.reshape(-1, outputs)"),
    "dW only reshaped": (
        "dW.reshape(kernel_h, kernel_w, channels, outputs).transpose(3, 2, 0, 1)", "dW.T.reshape(self.weight.grad.shape)"
    ),
    "gradient replaced": ("self.weight.grad += ", "self.weight.grad[...] = "),
    "the bias is a mean": ("dY.sum(axis=0)", "dY.mean(axis=0)"),
    "stride and padding forgotten": ("col2im(dX, shape, self.kernel, self.stride, self.padding)", "col2im(dX, shape, self.kernel)"),
}  # fmt: skip


LEADS = {
    "shapes (4,3,2,5) (": "weight.grad has the axes (o, c, i, j); what you add to it has others. Open the rows of dW, so that "
    "its axes are (i, j, c, o). Then ask for each new axis, o first, where it stands there."
}
"""By the weight's shape in :func:`lead`, which no other array there has."""


def lead(yours, check: Check) -> None:
    """Where every size is another one, say which order of axes is wrong."""
    layer = yours.Conv2d(3, 4, (2, 5), 1, 0, generator=0)
    x = check.normal(2, 3, 7, 11)
    dy = check.normal(2, 4, 6, 7)
    reference = hcrot.Conv2d(3, 4, (2, 5)).astype(np.float64)
    reference.load_state_dict(layer.state_dict())
    with hcrot.plain():
        reference(x)
        reference.backward(dy)
    layer.zero_grad()
    layer(x)
    layer.backward(dy)
    rows = "db is not dy summed over n, p and q: is o the last axis before you reshape dy?"
    check.that(layer.bias.grad.shape == (4,) and np.allclose(layer.bias.grad, reference.bias.grad), rows)
    found, expected = layer.weight.grad, reference.weight.grad
    right = found.shape == expected.shape and np.allclose(found, expected)
    moved = not right and found.size == expected.size and np.allclose(np.sort(found, axis=None), np.sort(expected, axis=None))
    order = "dW has the right numbers in a wrong order: open its rows as (i, j, c), then bring (i, j, c, o) to (o, c, i, j)"
    check.that(not moved, order)


def check(yours, check: Check) -> None:
    lead(yours, check)
    for shape, outputs, kernel, stride, padding in (((1, 1, 3, 3), 1, (2, 2), 1, 0), ((2, 3, 5, 4), 2, (3, 2), 1, 0),
                                                    ((2, 2, 6, 5), 4, (3, 3), 2, 1)):  # fmt: skip
        check.gradients(yours.Conv2d(shape[1], outputs, kernel, stride, padding, generator=0), check.normal(*shape))
    layer = yours.Conv2d(3, 4, (3, 3), 2, 1, generator=0)
    reference = hcrot.Conv2d(3, 4, 3, 2, 1).astype(np.float64)
    reference.load_state_dict(layer.state_dict())
    x = check.normal(2, 3, 7, 6)
    dy = check.normal(*layer(x).shape)
    reference(x)
    check.equal("dx, compared with hcrot.Conv2d,", layer.backward(dy), reference.backward(dy))
    check.equal("the weight's gradient, compared with hcrot.Conv2d,", layer.weight.grad, reference.weight.grad)
