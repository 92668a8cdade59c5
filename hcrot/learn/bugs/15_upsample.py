"""Upsampling by repetition.

Each pixel of x (N, C, H, W) becomes a square of 2 x 2 equal pixels of y (N, C, 2H, 2W).
"""

import numpy as np

import hcrot


class Upsample(hcrot.Module):
    """y[..., i, j] = x[..., i // 2, j // 2]."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x.shape)
        return x.repeat(2, axis=2).repeat(2, axis=3)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        batch, channels, height, width = self.saved()
        squares = dy.reshape(batch, channels, height, 2, width, 2)
        # bug: begin
        return squares.mean(axis=(3, 5))
        # bug: mended
        return squares.sum(axis=(3, 5))
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
In my U-Net the gradient norm falls to a quarter at each level on the way down: the middle block learns sixteen times more slowly than the
outer ones. I took backward from the layer that undoes this one, the mean of 2 x 2 pixels.
"""

HINTS = [
    "hcrot.watch shows the norms of gradients, layer by layer. Between which two is the jump?",
    "Make x a single pixel. It is copied four times. The loss is the sum of all y. How much does the loss change when x grows by 1?",
    "The transpose of a linear map is not its inverse.",
]

EXPLANATION = """
Each pixel has an effect in four places, so its gradient is the sum of the four. The mean is the backward of nothing here; it is the
inverse of the forward. The backward of a linear map y = A x is dx = A^T dy. For a repetition, A^T sums. It is the forward of mean pooling
whose backward divides by four.
"""


def check(yours, check) -> None:
    layer = yours.Upsample()
    check.equal("the shape of the output", np.shape(layer(check.normal(1, 2, 3, 4))), (1, 2, 6, 8))
    layer.forget()
    x, dy = check.normal(2, 3, 2, 4), check.normal(2, 3, 4, 8)
    forward, back = np.vdot(layer(x), dy), np.vdot(x, layer.backward(dy))
    check.that(abs(forward - back) < 1e-9, f"<A x, dy> is {forward:.4f}, <x, A^T dy> is {back:.4f}: for the transpose of A they are equal")
