"""What a convolution has to do, and what has to move.

A convolution reads x (N, C, H, W), has O output channels and a square kernel of K x K, any stride and padding. Write `cost`, which returns
three ints:

    multiplications   one for each number of y and each number of the window that it is made of (zeros over the edge count, too)
    least             bytes to read x and the weight once and to write y once (no bias), with numbers of 4 bytes
    columns           bytes of the matrix that im2col makes of the whole batch
"""


def cost(N: int, C: int, H: int, W: int, O: int, K: int, stride: int, padding: int) -> tuple[int, int, int]:  # noqa: E741
    # yours: begin
    out_h, out_w = (H + 2 * padding - K) // stride + 1, (W + 2 * padding - K) // stride + 1
    pixels, window = N * out_h * out_w, C * K * K
    return pixels * O * window, 4 * (N * C * H * W + O * window + pixels * O), 4 * pixels * window
    # yours: end


# kept back: the learner's file ends here

import numpy as np  # noqa: E402

import hcrot  # noqa: E402
from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "First the size of the output: (H + 2 padding - K) // stride + 1, and the same with W.",
    "Each number of y is a sum of C K K products. y has N O out_h out_w numbers.",
    "im2col's matrix has a row for each pixel of the output, in all images, and C K K columns.",
]
DERIVATION = """
With P = N out_h out_w pixels of output, y has P O numbers of C K K products each: P O C K K multiplications. The least traffic is
4 (N C H W + O C K K + P O) bytes. The unfolded matrix has P C K K numbers: for stride 1 and a padding that keeps the size it is K K times
as large as x. Written to memory and read again, it can cost more time than the products; hence unfolding block by block, in a cache.
"""
WRONG = {
    "the stride is forgotten": ("- K) // stride + 1, (W", "- K) + 1, (W"),
    "numbers in place of bytes": ("4 * (N * C * H * W", "(N * C * H * W"),
    "columns for each output channel": ("4 * pixels * window", "4 * pixels * window * O"),
}


def check(yours, check: Check) -> None:
    for N, C, H, W, O, K, stride, padding in ((2, 3, 8, 8, 5, 3, 1, 1), (1, 4, 9, 7, 2, 3, 2, 1), (3, 1, 6, 11, 4, 5, 1, 0)):  # noqa: E741
        layer = hcrot.Conv2d(C, O, K, stride=stride, padding=padding, generator=0)
        x = np.zeros((N, C, H, W), np.float32)
        with hcrot.plain():
            y, columns = layer(x), hcrot.im2col(x, K, stride, padding)
        found = yours.cost(N, C, H, W, O, K, stride, padding)
        expected = (layer.multiplications(y), x.nbytes + layer.weight.data.nbytes + y.nbytes, columns.nbytes)
        for what, one, other in zip(("multiplications", "least", "columns"), found, expected, strict=True):
            check.equal(f"{what} for x {x.shape}, O={O}, K={K}, stride={stride}, padding={padding}", one, other)
