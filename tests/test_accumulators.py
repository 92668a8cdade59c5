"""check_gradients calls blocks with accumulators by itself: right ones pass, and each classical mistake is found and named."""

import numpy as np
import pytest

from hcrot.functional import pixel_sums
from hcrot.gradcheck import check_gradients
from hcrot.kernels.channels import plus, split
from hcrot.layers.attention import Attention
from hcrot.layers.resample import Downsample, Upsample
from hcrot.models.lucidrains import DownLevel, ResnetBlock
from hcrot.models.unet_2d_blocks import DownBlock2D, ResnetBlock2D, UNetMidBlock2D, UpBlock2D
from hcrot.module import Identity, Module
from support.gradcheck import failure, verdicts

RNG = np.random.default_rng(0)
H, TEMB, SKIP_1, SKIP_2, LARGER = (RNG.standard_normal(shape) for shape in ((2, 4, 3, 5), (2, 6), (2, 2, 3, 5), (2, 4, 3, 5), (2, 3, 5, 9)))


def resnet(channels_in, channels_out):
    return ResnetBlock2D(channels_in, channels_out, 6, groups=2, generator=RNG)


def attention(channels):
    return Attention(channels, 2, 2, generator=RNG)


def down(kind=DownBlock2D):
    return kind(4, 6, 2, resnet=resnet, attention=attention, downsample=lambda channels: Downsample(channels, generator=RNG))


def up(kind=UpBlock2D):
    return kind(4, 6, [4, 2], resnet=resnet, upsample=lambda channels: Upsample(channels, generator=RNG))


def names(report):
    return [line.name for line in report.lines if line.name.startswith("input")]


def test_the_blocks_of_the_unet_need_no_words():
    """The lowest skip is not popped: the up block only looks at its size. What the down block pushes counts as output."""
    given = [LARGER.astype(np.float32), SKIP_1, SKIP_2]
    assert names(check_gradients(up(), H, TEMB, given)) == ["input 0", "input 1", "input 2[1]", "input 2[2]"]
    assert [array is before for array, before in zip(given, [given[0], SKIP_1, SKIP_2], strict=True)] == [True] * 3
    for skips in ([], [LARGER]):
        assert names(check_gradients(down(), H, TEMB, skips)) == ["input 0", "input 1"]
    assert names(check_gradients(resnet(4, 6), H, TEMB)) == ["input 0", "input 1"]
    assert names(check_gradients(UNetMidBlock2D(4, resnet=resnet, attention=attention), H, TEMB)) == ["input 0", "input 1"]


def test_accumulators_whose_names_say_nothing_belong_to_the_last_inputs():
    blocks = [ResnetBlock(4, 4, time_emb_dim=6, groups=2, generator=RNG) for _ in range(2)]
    report = check_gradients(DownLevel(*blocks, Attention(4, 2, residual_connection=False, generator=RNG), Identity()), H, TEMB, [])
    assert names(report) == ["input 0", "input 1"]


class Shifted(Module):
    """``y = x + t[:, :, None, None] + skip``, with the inputs in another order than usual; subclasses break its backward."""

    def forward(self, t, skips, x):
        self.save(True)
        return x + t[:, :, None, None] + skips.pop()

    def backward(self, dy, dt, dskips):
        self.saved()
        dt += pixel_sums(dy)
        dskips.append(dy.copy())
        return dy.copy()


class NoTime(Shifted):
    def backward(self, dy, dt, dskips):
        return super().backward(dy, dt.copy(), dskips)


class TimeAnew(Shifted):
    def backward(self, dy, dt, dskips):
        dx = super().backward(dy, np.zeros_like(dt), dskips)
        dt[...] = pixel_sums(dy)
        return dx


class NoSkip(Shifted):
    def backward(self, dy, dt, dskips):
        return super().backward(dy, dt, [])


class TwoSkips(Shifted):
    def backward(self, dy, dt, dskips):
        dskips.append(dy)
        return super().backward(dy, dt, dskips)


class OthersSkip(Shifted):
    def backward(self, dy, dt, dskips):
        dskips.pop()
        dskips.append(np.zeros_like(dy))
        return super().backward(dy, dt, dskips)


@pytest.mark.parametrize(
    ("kind", "wrong", "problem"),
    [
        (NoTime, {"input 0": "no gradient arrived"}, ""),
        (TimeAnew, {"input 0": "wrong"}, "input 0: backward writes over the array that it is to add the gradient to"),
        (NoSkip, {"input 1[1]": "missing: backward returned NoneType"}, "input 1: backward left 0 gradients on the stack, expected 1"),
        (TwoSkips, {}, "input 1: backward left 2 gradients on the stack, expected 1"),
        (OthersSkip, {}, "input 1: backward took or changed gradients of arrays that forward left on the stack"),
    ],
)
def test_mistakes_with_accumulators(kind, wrong, problem):
    t = RNG.standard_normal((2, 4))
    check_gradients(Shifted(), t, [LARGER, SKIP_2], H)
    report = failure(kind(), t, [LARGER, SKIP_2], H)
    assert {name: verdict for name, verdict in verdicts(report).items() if verdict != "ok"} == wrong
    assert len(report.problems) == bool(problem)
    assert all(found.startswith(problem) for found in report.problems)


class DownWithoutASkip(DownBlock2D):
    def backward(self, dh, dtemb, dskips):
        for downsample in self.downsamplers:
            dh = downsample.backward(plus(dh, dskips.pop()))
        for index in reversed(range(len(self.resnets))):
            dskips.pop()
            dh = self.layer_backward(index, dh, dtemb)
        return dh


class DownThatLeavesASkip(DownBlock2D):
    def backward(self, dh, dtemb, dskips):
        return super().backward(dh, dtemb, [*dskips])


class UpThatSwapsSkips(UpBlock2D):
    def backward(self, dh, dtemb, dskips):
        dh = super().backward(dh, dtemb, dskips)
        dskips[-2:] = dskips[:-3:-1]
        return dh


class UpWithoutTime(UpBlock2D):
    def backward(self, dh, dtemb, dskips):
        for upsample in self.upsamplers:
            dh = upsample.backward(dh)
        for index in reversed(range(len(self.resnets))):
            dh, dskip = split(self.layer_backward(index, dh, dtemb if index else np.zeros_like(dtemb)), self.widths[index])
            dskips.append(dskip)
        return dh


class MidThatForgetsTime(UNetMidBlock2D):
    def backward(self, dh, dtemb):
        return self.layer_backward(0, self.resnets[1].backward(dh, np.zeros_like(dtemb)), dtemb)


class ResnetThatWritesOver(ResnetBlock2D):
    def backward(self, dy, dtemb):
        added = np.zeros_like(dtemb)
        dx = super().backward(dy, added)
        dtemb[...] = added
        return dx


@pytest.mark.parametrize(
    ("block", "skips", "suspect", "problem"),
    [
        (down(DownWithoutASkip), [[]], "input 0", ""),
        (down(DownThatLeavesASkip), [[]], None, "input 2: backward left 3 gradients on the stack, expected 0"),
        (up(UpThatSwapsSkips), [[LARGER, SKIP_1, SKIP_2]], "input 2[1]", ""),
        (up(UpWithoutTime), [[LARGER, SKIP_1, SKIP_2]], "input 1", ""),
        (MidThatForgetsTime(4, resnet=resnet), [], "input 1", ""),
        (ResnetThatWritesOver(4, 4, 6, groups=2, generator=RNG), [], "input 1", "input 1: backward writes over the array"),
    ],
)
def test_broken_blocks(block, skips, suspect, problem):
    report = failure(block, H, TEMB, *skips)
    assert suspect is None or verdicts(report)[suspect] != "ok"
    assert any(found.startswith(problem) for found in report.problems) or not problem


class Strange(Module):
    def forward(self, x):
        return x

    def backward(self, dout, residual, more):
        return dout


def test_arguments_of_backward_that_belong_to_nothing_are_refused():
    with pytest.raises(TypeError, match=r"Strange.backward takes residual, more besides .* 1 outputs, and there are 1 inputs .* backward="):
        check_gradients(Strange(), H)
