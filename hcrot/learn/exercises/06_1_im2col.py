"""im2col.

Write im2col for images x (B, C, H, W). Row (n, p, q) of the result holds what output pixel (p, q) of image n looks at, in the order
(i, j, c): the places of the kernel in reading order, and at each place all channels. So its shape is (B OH OW, KH KW C). The only loops are
those over i and j, which are there already.
"""

import numpy as np


def im2col(x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int) -> np.ndarray:
    """columns (B * OH * OW, KH * KW * C)."""
    kernel_h, kernel_w = kernel
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    batch, channels = x.shape[:2]
    out_h, out_w = (padded.shape[2] - kernel_h) // stride + 1, (padded.shape[3] - kernel_w) // stride + 1
    columns = np.zeros((batch, out_h, out_w, kernel_h, kernel_w, channels))
    for i in range(kernel_h):
        rows = slice(i, i + (out_h - 1) * stride + 1, stride)  # row p stride + i of the padded image, for all p
        for j in range(kernel_w):
            along = slice(j, j + (out_w - 1) * stride + 1, stride)
            # yours: begin
            columns[:, :, :, i, j, :] = padded[:, :, rows, along].transpose(0, 2, 3, 1)
            # yours: end
    # yours: begin
    return columns.reshape(batch * out_h * out_w, kernel_h * kernel_w * channels)
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "columns has the axes (n, p, q, i, j, c). For one i and j, fill columns[:, :, :, i, j, :]. Its axes are (n, p, q, c).",
    "padded[:, :, rows, along] has the axes (n, c, p, q). Bring c to the end: .transpose(0, 2, 3, 1).",
    "In the end only group the axes: columns.reshape(batch * out_h * out_w, -1). No transpose is needed, they stand in the right order.",
]

DERIVATION = """
columns[n, p, q, i, j, c] = padded[n, c, p s + i, q s + j]. For one tap (i, j) the right side for all p and q is a strided slice, with the
axes (n, c, p, q). The left side wants (n, p, q, c): transpose(0, 2, 3, 1).

(n, p, q) counts rows and (i, j, c) counts columns, and the six axes stand in this order, so reshape finishes: it groups and moves nothing.
(Chellapilla, Puri & Simard 2006.)
"""

WRONG = {
    "reshape in the place of a transpose": (
        "padded[:, :, rows, along].transpose(0, 2, 3, 1)", "padded[:, :, rows, along].reshape(batch, out_h, out_w, channels)"
    ),
    "channels first in a row": ("columns.reshape(batch", "columns.transpose(0, 1, 2, 5, 3, 4).reshape(batch"),
    "transposed": ("return columns.reshape", "return columns.T.reshape"),
}  # fmt: skip


def check(yours, check: Check) -> None:
    import hcrot

    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    check.equal("im2col of 1 to 9 with a 2 x 2 kernel", yours.im2col(x, (2, 2), 1, 0), hcrot.im2col(x, 2))
    for shape, kernel, stride, padding in (((2, 3, 4, 5), (2, 3), 1, 0), ((2, 2, 6, 5), (3, 3), 2, 1), ((1, 4, 3, 3), (1, 1), 2, 0)):
        x = check.normal(*shape)
        check.same_as(f"im2col of {shape} with a kernel of {kernel}, stride {stride} and padding {padding}", yours.im2col, hcrot.im2col,
                      x, kernel, stride, padding)  # fmt: skip
