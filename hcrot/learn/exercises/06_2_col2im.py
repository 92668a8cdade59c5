"""col2im, the adjoint of im2col.

Write col2im for columns (B OH OW, KH KW C), ordered as im2col of exercise 06-1 makes them: it sends every entry back to the pixel that
im2col copied it from and adds up what meets there. Entries that came from the padding are dropped. It returns images of the given shape
(B, C, H, W). Then <im2col(x), c> = <x, col2im(c)> for all x and c.
"""

import numpy as np


def col2im(columns: np.ndarray, shape: tuple[int, int, int, int], kernel: tuple[int, int], stride: int, padding: int) -> np.ndarray:
    """images (B, C, H, W)."""
    (kernel_h, kernel_w), (batch, channels, height, width) = kernel, shape
    padded = np.zeros((batch, channels, height + 2 * padding, width + 2 * padding))
    out_h, out_w = (padded.shape[2] - kernel_h) // stride + 1, (padded.shape[3] - kernel_w) // stride + 1
    columns = columns.reshape(batch, out_h, out_w, kernel_h, kernel_w, channels)
    for i in range(kernel_h):
        rows = slice(i, i + (out_h - 1) * stride + 1, stride)
        for j in range(kernel_w):
            along = slice(j, j + (out_w - 1) * stride + 1, stride)
            # yours: begin
            padded[:, :, rows, along] += columns[:, :, :, i, j, :].transpose(0, 3, 1, 2)
            # yours: end
    # yours: begin
    return padded[:, :, padding : padding + height, padding : padding + width]
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Turn im2col's line round: columns[:, :, :, i, j, :] = padded[:, :, rows, along].transpose(0, 2, 3, 1). Add to what was read.",
    "columns[:, :, :, i, j, :] has the axes (n, p, q, c), the slice of padded has (n, c, p, q): .transpose(0, 3, 1, 2).",
    "In the end cut the padding off: rows padding to padding + height, and the columns likewise.",
]

DERIVATION = """
im2col is a linear map made of copies: columns[n, p, q, i, j, c] = padded[n, c, p s + i, q s + j]. Write it as a matrix A with a single 1
in each row. Then <A x, c> = sum_kl A_kl x_l c_k = <x, A^T c>. Row l of A^T has a 1 for each copy of pixel l: it adds up what came from l.

So the line turns round, and = becomes +=: padded[n, c, p s + i, q s + j] += columns[n, p, q, i, j, c]. Within one tap no pixel is met
twice, so a slice with += is right; different taps meet the same pixels. np.pad copied x into the middle: its adjoint cuts that out.
"""

WRONG = {
    "assigned, not added": ("padded[:, :, rows, along] += ", "padded[:, :, rows, along] = "),
    "the padding stays in front": (
        "padded[:, :, padding : padding + height, padding : padding + width]", "padded[:, :, :height, :width]"
    ),
    "reshape in the place of a transpose": (".transpose(0, 3, 1, 2)", ".reshape(batch, channels, out_h, out_w)"),
}  # fmt: skip


def check(yours, check: Check) -> None:
    import hcrot

    copies = yours.col2im(np.ones((4, 4)), (1, 1, 3, 3), (2, 2), 1, 0)
    overwritten = {"the later copies overwrote the earlier ones: += instead of =": np.ones((1, 1, 3, 3))}
    expected = [[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]]
    check.equal("col2im of ones, how often each pixel is copied,", copies, expected, mistakes=overwritten)
    for shape, kernel, stride, padding in (((2, 3, 4, 5), (2, 3), 1, 0), ((2, 2, 6, 5), (3, 3), 2, 1), ((1, 2, 4, 4), (3, 3), 3, 1)):
        case = f"for {shape}, a kernel of {kernel}, stride {stride} and padding {padding}"
        x = check.normal(*shape)
        X = hcrot.im2col(x, kernel, stride, padding)
        c = check.normal(*X.shape)
        images = yours.col2im(c.copy(), shape, kernel, stride, padding)
        check.equal(f"col2im {case}", images, hcrot.col2im(c, shape, kernel, stride, padding))
        check.equal(f"<x, col2im(c)> {case}", (x * images).sum(), (X * c).sum())
