"""check_gradients finds the first wrong module of a tree: the smallest ones that are wrong by themselves."""

import numpy as np

import hcrot
from hcrot.gradcheck import check_gradients, parts
from hcrot.layers.activation import SiLU
from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm
from hcrot.models.unet_2d_blocks import DownBlock2D, ResnetBlock2D
from hcrot.module import Module, Sequential
from support.gradcheck import Affine, failure, verdicts

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 3))


class HalfSiLU(SiLU):
    """A mistake of values."""

    def backward(self, dout, *rest):
        return super().backward(dout, *rest) / 2


class ForgetsWeight(Affine):
    """A mistake of a parameter alone: what it returns is right."""

    def backward(self, dout):
        kept = self.weight.grad.copy()
        dx = super().backward(dout)
        self.weight.grad[...] = kept
        return dx


class Forks(Module):
    """``y = a(x) + b(x)``, two branches; a subclass forgets one."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    def forward(self, x):
        return self.a(x) + self.b(x)

    def backward(self, dout):
        db = self.b.backward(dout)
        return self.a.backward(dout) + db


class ForgetsBranch(Forks):
    def backward(self, dout):
        self.b.backward(dout)
        return self.a.backward(dout)


def test_the_first_wrong_layer_of_a_sequential():
    report = failure(Sequential(Linear(3, 4), SiLU(), HalfSiLU(), Linear(4, 2), SiLU()), X)
    half = "the mistake is in 2 (HalfSiLU); checked by itself, input 0: wrong: each analytic value is exactly half of the numeric one"
    assert report.notes == (half,)
    assert str(report).splitlines()[1] == f"  {half}"
    assert half in report._repr_html_()
    assert not any(line.clue for line in report.lines), "what follows from it is not explained again"


def test_every_smallest_wrong_module_and_nothing_around_it():
    tree = Sequential(Forks(Linear(3, 3), Sequential(HalfSiLU(), Linear(3, 3))), Sequential(ForgetsWeight(), Linear(4, 2)))
    assert [note.split("; checked")[0] for note in failure(tree, X).notes] == [
        "the mistake is in 0.b.0 (HalfSiLU)",
        "the mistake is in 1.0 (ForgetsWeight)",
    ]
    many = Sequential(*(HalfSiLU() for _ in range(5)))
    assert failure(many, X).notes[3] == "2 more modules are wrong by themselves: 3, 4"


def test_a_module_of_right_parts():
    inner = failure(Sequential(Linear(3, 3), ForgetsBranch(Linear(3, 3), SiLU())), X)
    assert inner.notes[0].startswith("the mistake is in 1 (ForgetsBranch), whose parts are right; checked by itself, input 0: wrong")
    whole = failure(ForgetsBranch(Linear(3, 3), SiLU()), X)
    assert whole.notes == ("every part of ForgetsBranch is right by itself: the mistake is in its own forward or backward",)
    assert failure(HalfSiLU(), X).notes == ()


class HalfNorm(GroupNorm):
    def backward(self, dout, *rest):
        return super().backward(dout, *rest) * 0.5


def test_parts_with_accumulators_and_stacks():
    """Blocks of a U-Net hand a stack and dtemb from part to part; forward has popped it by the time that it returns."""

    def resnet(channels_in, channels_out):
        return ResnetBlock2D(channels_in, channels_out, 6, groups=2, generator=RNG)

    h, temb = RNG.standard_normal((1, 4, 2, 3)), RNG.standard_normal((1, 6))

    class NoTime(ResnetBlock2D):
        def backward(self, dy, dtemb):
            return super().backward(dy, dtemb.copy())

    block = DownBlock2D(4, 4, 2, resnet=resnet)
    block.resnets[1].__class__ = NoTime
    notes = failure(block, h, temb, []).notes
    assert [note.split("; checked")[0] for note in notes] == ["the mistake is in resnets.1 (NoTime), whose parts are right"]
    assert "input 1: no gradient arrived" in notes[0]


class Pops(Module):
    """``y = x + skip``, of which forward takes the skip from a stack; the gradient of it is halved."""

    def forward(self, x, skips):
        self.save(True)
        return x + skips.pop()

    def backward(self, dy, dskips):
        self.saved()
        dskips.append(dy / 2)
        return dy


class HasAStack(Module):
    def __init__(self):
        self.part = Pops()

    def forward(self, x):
        return self.part(x, [2 * x])

    def backward(self, dy):
        dskips = []
        dx = self.part.backward(dy, dskips)
        return dx + 2 * dskips.pop()


def test_a_part_gets_the_stack_as_it_was_before_it_popped():
    note = failure(HasAStack(), X).notes[0]
    assert note.startswith("the mistake is in part (Pops); checked by itself, input 1[0]: wrong: each analytic value is exactly half of")


class ByName(Module):
    """Calls its part by keyword, with the number of a step."""

    def __init__(self, part):
        self.part = part

    def forward(self, x):
        return self.part(x, step=2)

    def backward(self, dout):
        return self.part.backward(dout)


class Step(Module):
    def __init__(self, factor):
        self.factor = factor

    def forward(self, x, gain=1.0, step=0):
        self.save(gain * step)
        return x * step * gain

    def backward(self, dout):
        return dout * self.saved() * self.factor


class OnlyByName(Step):
    def forward(self, x, *, step):
        return super().forward(x, step=step)


def test_options_and_parts_that_cannot_be_checked():
    assert check_gradients(ByName(Step(1)), X).passed
    assert "(Step); checked by itself" in failure(ByName(Step(2)), X).notes[0]
    report = failure(Sequential(ByName(OnlyByName(2)), SiLU()), X)
    assert report.notes[0].startswith("the mistake is in 0 (ByName), whose parts are right") or "cannot be checked so" in report.notes[0]


class ColumnsOnly(Affine):
    """Right for a dout in C order, which is what a check of it alone would hand over."""

    def backward(self, dout):
        return super().backward(dout if dout.flags.c_contiguous else -dout)


class Turns(Module):
    def forward(self, x):
        self.save(True)
        return np.ascontiguousarray(x.T)

    def backward(self, dout):
        self.saved()
        return dout.T


def test_a_part_gets_a_cotangent_laid_out_as_in_the_whole():
    assert check_gradients(ColumnsOnly(), X).passed
    assert failure(Sequential(ColumnsOnly(), Turns()), X).notes[0].startswith("the mistake is in 0 (ColumnsOnly)")


def test_explaining_ends_in_time_and_can_be_turned_off(monkeypatch):
    tree = Sequential(Linear(3, 4), HalfSiLU())
    assert failure(tree, X, explain=0).notes == ()
    short = failure(tree, X, explain=1e-9)
    assert short.notes == () and verdicts(short)["input 0"] == "wrong"
    monkeypatch.setattr(parts, "_faults", lambda *_: 1 / 0)
    assert failure(tree, X).notes == ()


def test_a_report_of_many_arrays_shows_the_wrong_ones():
    layers = [Linear(3, 3, generator=index) for index in range(7)]
    report = failure(Sequential(ForgetsWeight(3, 3), *layers), X)
    text = str(report)
    assert "0.weight (ForgetsWeight)" in text and "16 others agree" in text and "1.weight" not in text
    assert "6.bias (Linear)" in str(hcrot.check_gradients(Sequential(*layers), X))
