"""A convolution with loops over the kernel only.

For x (B, C, H, W), w (O, C, KH, KW) and b (O,), write forward so that its only loops are those over i and j, the places ("taps") of the
kernel. For one tap, the pixels that all output pixels look at are a strided slice of the padded image, (B, C, OH, OW): the output is the
sum over the taps of w[:, :, i, j] times such a slice, summed over c.
"""

import numpy as np


def forward(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """y (B, O, OH, OW)."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kernel_h, kernel_w = w.shape[2:]
    out_h, out_w = (padded.shape[2] - kernel_h) // stride + 1, (padded.shape[3] - kernel_w) // stride + 1
    y = np.zeros((len(x), len(w), out_h, out_w)) + b.reshape(1, -1, 1, 1)
    for i in range(kernel_h):
        for j in range(kernel_w):
            # yours: begin
            taps = padded[:, :, i : i + (out_h - 1) * stride + 1 : stride, j : j + (out_w - 1) * stride + 1 : stride]
            y += np.einsum("oc,bcpq->bopq", w[:, :, i, j], taps)
            # yours: end
    return y


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Output (p, q) looks at padded pixel (p stride + i, q stride + j). For all p that is a slice: it begins at i and has the step stride.",
    "The last p is out_h - 1, so the slice of rows is i : i + (out_h - 1) * stride + 1 : stride. The columns go likewise with j and out_w.",
    'The sum over c of w[o, c] times taps[b, c, p, q] is np.einsum("oc,bcpq->bopq", w[:, :, i, j], taps).',
]

DERIVATION = """
The seven loops may run in any order, since they only add. Put i and j outside:

    for each (i, j):  y[b, o, p, q] += sum_c w[o, c, i, j] padded[b, c, p s + i, q s + j]

The other five loops are now one product of arrays, which NumPy does at once. For fixed (i, j) the pixels padded[..., p s + i, q s + j] for
all p and q are a slice with the step s: a view, nothing is copied. A 3 x 3 kernel needs nine rounds instead of millions.
"""

WRONG = {
    "the stride is forgotten": (
        "i : i + (out_h - 1) * stride + 1 : stride, j : j + (out_w - 1) * stride + 1 : stride", "i : i + out_h, j : j + out_w"
    ),
    "the kernel is turned": ('bopq", w[:, :, i, j]', 'bopq", w[:, :, -1 - i, -1 - j]'),
    "only the last tap is kept": ("y += np.einsum", "y = b.reshape(1, -1, 1, 1) + np.einsum"),
}  # fmt: skip


def check(yours, check: Check) -> None:
    from hcrot.learn import loops

    for shape, kernel, stride, padding in (((2, 2, 4, 5), (2, 3), 1, 0), ((1, 3, 5, 6), (3, 3), 2, 1)):
        x, w, b = check.normal(*shape), check.normal(2, shape[1], *kernel), check.normal(2)
        check.same_as(f"y with stride {stride} and padding {padding}", yours.forward, loops.conv2d, x, w, b, stride, padding)
