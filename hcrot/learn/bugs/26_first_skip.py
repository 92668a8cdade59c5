"""A U-Net in miniature.

On the way down each result is kept; on the way up each is added again, the latest first. Every layer is y = x W.
"""

import numpy as np

import hcrot


class Matrix(hcrot.Module):
    """y = x W."""

    def __init__(self, channels: int, generator: np.random.Generator):
        self.weight = hcrot.Parameter(generator.standard_normal((channels, channels)) / np.sqrt(channels))

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(x)
        return x @ self.weight.data

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.weight.grad += self.saved().T @ dy
        return dy @ self.weight.data.T


class UNet(hcrot.Module):
    """conv_in, two layers down, two layers up; what conv_in and the first layer down give is added on the way up."""

    def __init__(self, channels: int, *, generator: np.random.Generator):
        self.conv_in = Matrix(channels, generator)
        self.down = [Matrix(channels, generator) for _ in range(2)]
        self.up = [Matrix(channels, generator) for _ in range(2)]

    def forward(self, x: np.ndarray) -> np.ndarray:
        h = self.conv_in(x)
        skips = []
        for layer in self.down:
            skips.append(h)
            h = layer(h)
        for layer in self.up:
            h = layer(h) + skips.pop()
        return h

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dskips = []
        for layer in reversed(self.up):
            dskips.append(dy)
            dy = layer.backward(dy)
        # bug: begin
        dy = self.down[1].backward(dy)
        dy = self.down[0].backward(dy + dskips.pop())
        return self.conv_in.backward(dy)
        # bug: mended
        for layer in reversed(self.down):
            dy = layer.backward(dy) + dskips.pop()
        return self.conv_in.backward(dy)
        # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
The model trains and draws decent digits. Only the very first layer learns less than in the reference implementation, and the images lack
their finest details.
"""

HINTS = [
    "hcrot.check_gradients(UNet(3, generator=np.random.default_rng(0)), x): which parameters are right, and which are not?",
    "All layers are right but the first one. What does the first one feed, besides the next layer?",
    "Print len(dskips) at the end of backward. What was pushed has to be popped.",
]

EXPLANATION = """
The output of conv_in is used twice: by the first layer down, and as the outermost skip. The gradient of that skip was put on the stack
and never taken off. It is the shortest path from the loss to the first layer, so its gradient was wrong by 37 percent in the predecessor
(B03). The cheap protection is to assert at the end that the stack is empty.
"""


def check(yours, check) -> None:
    net, x = yours.UNet(3, generator=np.random.default_rng(0)), check.normal(4, 3)
    check.agree(net, x)
