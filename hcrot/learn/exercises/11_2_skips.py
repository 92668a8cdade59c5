"""A down block and an up block, and the stack between them.

Forward is done. Down lays its result on the stack ``skips`` and halves. Up doubles, takes the array on top of the stack, joins it along the
channels and applies its convolution. Write both backward passes. ``dskips`` is a stack of gradients: where forward appends, backward
pops, and where forward pops, backward appends.
"""

import numpy as np

import hcrot


class Down(hcrot.Module):
    """A convolution, whose result is laid on the stack, then the mean of 2x2 squares."""

    def __init__(self, channels: int, out_channels: int, *, generator: np.random.Generator | int | None = None):
        self.conv = hcrot.Conv2d(channels, out_channels, 3, padding=1, generator=generator)
        self.halve = hcrot.AvgPool2d(2)

    def forward(self, h: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        h = self.conv(h)
        skips.append(h)
        return self.halve(h)

    def backward(self, dh: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        # yours: begin
        dh = self.halve.backward(dh) + dskips.pop()
        return self.conv.backward(dh)
        # yours: end


class Up(hcrot.Module):
    """Doubling to the size of the array on top of the stack, which is joined; then a convolution."""

    def __init__(self, channels: int, skip_channels: int, out_channels: int, *, generator: np.random.Generator | int | None = None):
        self.channels = channels
        self.double = hcrot.Upsample(channels, use_conv=False)
        self.conv = hcrot.Conv2d(channels + skip_channels, out_channels, 3, padding=1, generator=generator)

    def forward(self, h: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        skip = skips.pop()
        h = self.double(h, skip.shape[2:])
        return self.conv(np.concatenate([h, skip], axis=1))

    def backward(self, dh: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        # yours: begin
        djoined = self.conv.backward(dh)
        dskips.append(djoined[:, self.channels :])
        return self.double.backward(djoined[:, : self.channels])
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Down: the convolution's result was used twice, by halve and by whoever took it from the stack. What is its gradient?",
    "Up: joining put h into the first channels and the skip into the others. Cut the gradient of the joined array there.",
    "Up: append the skip's part to dskips, and send h's part back through double. self.channels is where to cut.",
]
DERIVATION = """
Down: s = conv(h), y = halve(s), and s goes to the stack as well. s is used twice, so
    ds = halve.backward(dy) + dskips.pop(),    dh = conv.backward(ds).
Up: y = conv([double(h), s]) with s from the stack. Joining moves numbers, so its backward cuts:
    dj = conv.backward(dy),    dh = double.backward(dj[:, :C]),    ds = dj[:, C:], appended to dskips.
Backward runs in the opposite order of forward, so the gradients lie on dskips exactly as those who need them come: the last skip that was
laid down was taken first in forward; its gradient is laid down last and taken first in backward. Source: Ronneberger et al. 2015.
"""
WRONG = {
    "the skip's gradient is not added": (" + dskips.pop()", " + 0 * dskips.pop()"),
    "the bottom of the stack": (" + dskips.pop()", " + dskips.pop(0)"),
    "the stack is left alone": ("dh = self.halve.backward(dh) + dskips.pop()", "dh = self.halve.backward(dh)"),
    "cut at the wrong place": (
        "dskips.append(djoined[:, self.channels :])\n        return self.double.backward(djoined[:, : self.channels])",
        "dskips.append(djoined[:, : -self.channels])\n        return self.double.backward(djoined[:, -self.channels :])",
    ),
}


def check(yours, check: Check) -> None:
    with hcrot.plain():
        for size in ((4, 6), (5, 7)):
            check.gradients(yours.Down(2, 3, generator=0), check.normal(2, 2, *size), [check.normal(2, 3, *size)])
            small = check.normal(2, 2, size[0] // 2, size[1] // 2)
            check.gradients(yours.Up(2, 2, 3, generator=0), small, [check.normal(2, 2, *size), check.normal(2, 2, *size)])
            check.gradients(yours.Up(2, 4, 3, generator=0), small, [check.normal(2, 4, *size)])
