"""The backward pass with loops over the kernel only.

forward of exercise 05-2 does, for each tap (i, j) of the kernel,

    taps = a strided slice of the padded image, (B, C, OH, OW)
    y += np.einsum("oc,bcpq->bopq", w[:, :, i, j], taps)

Write backward for x (B, C, H, W), w (O, C, KH, KW) and dy (B, O, OH, OW), with the same two loops. It returns dx, dw and db. Inside the
loops, add to dpadded, which is as large as the padded image; then the padding is cut off.
"""

import numpy as np


def backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dw and db."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    out_h, out_w = dy.shape[2:]
    for i in range(w.shape[2]):
        rows = slice(i, i + (out_h - 1) * stride + 1, stride)
        for j in range(w.shape[3]):
            columns = slice(j, j + (out_w - 1) * stride + 1, stride)
            # yours: begin
            dw[:, :, i, j] += np.einsum("bopq,bcpq->oc", dy, padded[:, :, rows, columns])
            dpadded[:, :, rows, columns] += np.einsum("oc,bopq->bcpq", w[:, :, i, j], dy)
            # yours: end
    dx = dpadded[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]]
    # yours: begin
    db = dy.sum(axis=(0, 2, 3))
    # yours: end
    return dx, dw, db


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "The line y += w * taps turns round: one line adds to dw[:, :, i, j], one adds to the slice of dpadded. Both read dy.",
    'In np.einsum keep the letters of forward. dw is (o, c), made of dy "bopq" and taps "bcpq": what vanishes is summed over.',
    'dpadded[:, :, rows, columns] += np.einsum("oc,bopq->bcpq", w[:, :, i, j], dy), and db sums dy over all axes but o.',
]

DERIVATION = """
One tap of forward is y_bopq += sum_c w_oc t_bcpq, with t the slice. It is a linear layer with o and c as its features, at every (b, p, q):

    dw_oc   = sum_{b,p,q} dy_bopq t_bcpq       w is used at all b, p, q
    dt_bcpq = sum_o dy_bopq w_oc               t is used by all o

The slice t was read from the padded image, so dt is added to the same slice of dpadded. Slices of different taps overlap: they add.
np.pad copied x into the middle of the padded image, so dx is the middle of dpadded. The gradient of the zeros around goes nowhere.
(Dumoulin & Visin 2016, chapter 4, draws dx as a convolution with the kernel turned round.)
"""

WRONG = {
    "the slices overwrite each other": ("dpadded[:, :, rows, columns] += ", "dpadded[:, :, rows, columns] = "),
    "the bias is a mean": ("dy.sum(axis=(0, 2, 3))", "dy.mean(axis=(0, 2, 3))"),
    "one image only": ('np.einsum("bopq,bcpq->oc", dy,', 'np.einsum("bopq,bcpq->oc", dy[:1],'),
}


def check(yours, check: Check) -> None:
    from hcrot.learn import loops

    ones, taps = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    overwritten = {"the slices of two taps overlap, and the later one overwrote the earlier: += instead of =": ones}
    dx, _, _ = yours.backward(np.ones((1, 1, 2, 2)), ones.copy(), taps, 1, 0)
    check.equal("dx for ones, how often each pixel is used,", dx, [[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]], mistakes=overwritten)
    for shape, kernel, stride, padding in (((2, 2, 4, 5), (2, 3), 1, 0), ((2, 3, 5, 6), (3, 3), 2, 1)):
        x, w = check.normal(*shape), check.normal(2, shape[1], *kernel)
        dy = check.normal(*loops.conv2d(x, w, np.zeros(2), stride, padding).shape)
        found, expected = (f(dy.copy(), x.copy(), w.copy(), stride, padding) for f in (yours.backward, loops.conv2d_backward))
        for name, one, other in zip(("dx", "dw", "db"), found, expected, strict=True):
            check.equal(f"{name} with stride {stride} and padding {padding}", one, other)
