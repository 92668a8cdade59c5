"""check_gradients at points where there is no slope: a right gradient passes, and a wrong one does not."""

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.activation import ReLU
from hcrot.layers.pooling import MaxPool2d
from hcrot.module import Module, Sequential
from support.gradcheck import Affine, failure, verdicts


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)


class Leaky(ReLU):
    """What its backward says of negative numbers belongs to another layer."""

    def backward(self, dout, *rest):
        return super().backward(dout, *rest) + 0.1 * dout


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_right_gradient_is_not_called_wrong_at_a_kink(x, exhaustive):
    """ReLU at zero, and MaxPool of equal numbers, as in images with a black background."""
    at_zero = np.where(np.arange(x.size).reshape(x.shape) % 3 == 1, 0, x)
    clue = "near a kink, where there is no slope; compared at a point beside it"
    report = check_gradients(ReLU(), at_zero, exhaustive=exhaustive)
    assert [line.finding for line in report.lines] == [f"ok: {clue}"]
    assert report.worst_error < 1e-6
    assert [line.clue for line in check_gradients(ReLU(), x).lines] == [""]
    assert verdicts(failure(Leaky(), at_zero, exhaustive=exhaustive))["input 0"].startswith("wrong")
    black = np.zeros((1, 2, 4, 6))
    black[0, 0, 1, 1:4] = 1
    assert check_gradients(MaxPool2d(2), black).lines[0].clue == clue


class SquareWithoutZero(Module):
    """``x^2``, which is smooth, with a wrong gradient at 0 alone."""

    def forward(self, x):
        self.save(x)
        return x * x

    def backward(self, dout):
        x = self.saved()
        return dout * np.where(x == 0, 1, 2 * x)


def test_what_is_right_beside_a_point_without_a_kink_does_not_excuse_the_point(x):
    at_zero = np.where(np.arange(x.size).reshape(x.shape) == 1, 0, x)
    assert check_gradients(SquareWithoutZero(), x).passed
    assert verdicts(failure(SquareWithoutZero(), at_zero)) == {"input 0": "wrong"}


def test_gradients_are_not_changed_by_a_look_beside_a_kink(x):
    """A layer before ReLU: the pass beside the kink adds to its gradients, which the later passes are held against."""
    model = Sequential(Affine(3, 3), ReLU())
    model.layers[0].weight.data[:] = 0
    assert "near a kink" in str(check_gradients(model, x, randomize=False))
