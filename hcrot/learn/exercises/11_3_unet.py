"""The backward pass of a whole U-Net.

The blocks are done, with their backward passes. Write the U-Net's: backward(dy) returns (dx, dtemb). The gradient of temb is a sum over all
blocks: make an array of zeros and hand it to each of them. Make a stack for the gradients of the skips, and leave nothing on it.
"""

import numpy as np

import hcrot


class Block(hcrot.Module):
    """y = SiLU(conv(x) + time(temb)); backward adds to dtemb."""

    def __init__(self, channels: int, out_channels: int, width: int, generator: np.random.Generator):
        self.conv = hcrot.Conv2d(channels, out_channels, 3, padding=1, generator=generator)
        self.time = hcrot.Linear(width, out_channels, generator=generator)
        self.act = hcrot.SiLU()

    def forward(self, x: np.ndarray, temb: np.ndarray) -> np.ndarray:
        return self.act(self.conv(x) + self.time(temb)[:, :, None, None])

    def backward(self, dy: np.ndarray, dtemb: np.ndarray) -> np.ndarray:
        dh = self.act.backward(dy)
        dtemb += self.time.backward(dh.sum(axis=(2, 3)))
        return self.conv.backward(dh)


class Down(hcrot.Module):
    """A block and a halving, both laid on the stack."""

    def __init__(self, channels: int, out_channels: int, width: int, generator: np.random.Generator):
        self.block, self.halve = Block(channels, out_channels, width, generator), hcrot.AvgPool2d(2)

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        h = self.block(h, temb)
        skips.append(h)
        h = self.halve(h)
        skips.append(h)
        return h

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        dh = self.halve.backward(dh + dskips.pop())
        return self.block.backward(dh + dskips.pop(), dtemb)


class Up(hcrot.Module):
    """A block that joins a skip of the same size; then perhaps a doubling, to the size of the next skip."""

    def __init__(self, channels: int, skip_channels: int, out_channels: int, width: int, generator: np.random.Generator, double: bool):
        self.channels = channels
        self.block = Block(channels + skip_channels, out_channels, width, generator)
        self.doubling = [hcrot.Upsample(out_channels, use_conv=False)] if double else []

    def forward(self, h: np.ndarray, temb: np.ndarray, skips: list[np.ndarray]) -> np.ndarray:
        h = self.block(np.concatenate([h, skips.pop()], axis=1), temb)
        for double in self.doubling:
            h = double(h, skips[-1].shape[2:])
        return h

    def backward(self, dh: np.ndarray, dtemb: np.ndarray, dskips: list[np.ndarray]) -> np.ndarray:
        for double in self.doubling:
            dh = double.backward(dh)
        djoined = self.block.backward(dh, dtemb)
        dskips.append(djoined[:, self.channels :])
        return djoined[:, : self.channels]


class UNet(hcrot.Module):
    """conv_in, a down block, a middle block, three up blocks, conv_out."""

    def __init__(self, channels: int, width: int, *, generator: np.random.Generator | int | None = None):
        generator = np.random.default_rng(generator)
        c = channels
        self.conv_in = hcrot.Conv2d(1, c, 3, padding=1, generator=generator)
        self.downs = [Down(c, 2 * c, width, generator)]
        self.mid = Block(2 * c, 2 * c, width, generator)
        self.ups = [Up(2 * c, 2 * c, c, width, generator, True), Up(c, 2 * c, c, width, generator, False),
                    Up(c, c, c, width, generator, False)]  # fmt: skip
        self.conv_out = hcrot.Conv2d(c, 1, 3, padding=1, generator=generator)

    def forward(self, x: np.ndarray, temb: np.ndarray) -> np.ndarray:
        self.save(temb.shape)
        h = self.conv_in(x)
        skips = [h]
        for down in self.downs:
            h = down(h, temb, skips)
        h = self.mid(h, temb)
        for up in self.ups:
            h = up(h, temb, skips)
        return self.conv_out(h)

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = self.saved()
        # yours: begin
        dtemb = np.zeros(shape, dy.dtype)
        dskips = []
        dh = self.conv_out.backward(dy)
        for up in reversed(self.ups):
            dh = up.backward(dh, dtemb, dskips)
        dh = self.mid.backward(dh, dtemb)
        for down in reversed(self.downs):
            dh = down.backward(dh, dtemb, dskips)
        return self.conv_in.backward(dh + dskips.pop()), dtemb
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Read forward upwards. The blocks of a list come in reversed(...) order.",
    "dtemb = np.zeros(shape, dy.dtype) before the first block; every block adds to this one array.",
    "After the down blocks one gradient is left on the stack. Which array was laid down before the first block?",
]
DERIVATION = """
Each line of forward, from the last to the first, becomes a line of backward:

    y = conv_out(h)               dh = conv_out.backward(dy)
    for up in ups                 for up in reversed(ups):       dh = up.backward(dh, dtemb, dskips)       appends to dskips
    h = mid(h, temb)              dh = mid.backward(dh, dtemb)
    for down in downs             for down in reversed(downs):   dh = down.backward(dh, dtemb, dskips)     pops from dskips
    skips = [h]                   dh + dskips.pop(): the result of conv_in went down and over the bridge
    h = conv_in(x)                dx = conv_in.backward(...)

temb went to five blocks: dtemb is the sum of their five gradients. Source: Ho et al. 2020, appendix B; Ronneberger et al. 2015.
"""
WRONG = {
    "the first skip is forgotten": ("self.conv_in.backward(dh + dskips.pop())", "self.conv_in.backward(dh)"),
    "the middle block's part of dtemb is lost": ("self.mid.backward(dh, dtemb)", "self.mid.backward(dh, np.zeros(shape, dy.dtype))"),
    "the order of the blocks": ("for up in reversed(self.ups):", "for up in self.ups:"),
}


def check(yours, check: Check) -> None:
    with hcrot.plain():
        model, x, temb = yours.UNet(2, 3, generator=0), check.normal(1, 1, 3, 4), check.normal(1, 3)
        check.gradients(model, x, temb)
