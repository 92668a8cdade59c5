"""What check_gradients says of wrong values: each layer here has a mistake that people make."""

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.gradcheck.clues import ratio_clue
from hcrot.module import Module, Parameter
from support.gradcheck import Affine, failure

RNG = np.random.default_rng(3)
X = RNG.standard_normal((5, 3))
IMAGES = RNG.standard_normal((2, 7, 3, 5))


class Square(Module):
    """``y = w x^2``, whose backward has x for 2 x."""

    def __init__(self, size=3):
        self.weight = Parameter(np.linspace(0.5, 1.5, size, dtype=np.float32))

    def forward(self, x):
        self.save(x)
        return self.weight.data * x * x

    def backward(self, dout):
        x = self.saved()
        self.weight.grad += (dout * x * x).sum(axis=0)
        return dout * self.weight.data * x


class SubtractsWrong(Module):
    """``y = a - b``, with the sign of db forgotten."""

    def forward(self, a, b):
        self.save(True)
        return a - b

    def backward(self, dout):
        self.saved()
        return dout, dout.copy()


class Scores(Module):
    """``q k^T / sqrt(d)``, with the scale forgotten in backward."""

    def forward(self, q, k):
        self.save(q, k)
        return q @ k.T / np.sqrt(q.shape[1])

    def backward(self, dout):
        q, k = self.saved()
        return dout @ k, dout.T @ q


class MeanOfPixels(Module):
    """The mean over height and width, whose backward is that of a sum."""

    def forward(self, x):
        self.save(x.shape)
        return x.mean(axis=(2, 3))

    def backward(self, dout):
        return np.broadcast_to(dout[:, :, None, None], self.saved()).copy()


class MeanLoss(Module):
    """The mean of squares over the batch, with twice the batch's size for the size."""

    def forward(self, x):
        self.save(x)
        return np.square(x).sum(axis=1).mean(keepdims=True)

    def backward(self, dout):
        x = self.saved()
        return 2 * x * dout / len(x) ** 2


class Scaled(Affine):
    """``0.3 (x W^T + b)``, with the constant forgotten in backward."""

    def __init__(self):
        super().__init__()
        self.gain = 0.3

    def forward(self, x):
        return super().forward(x) * self.gain


class Transposed(Affine):
    def backward(self, dout):
        x = self.saved()
        self.weight.grad += x.T @ dout
        self.bias.grad += dout.sum(axis=0)
        return dout @ self.weight.data


class OtherShape(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.weight.grad = self.weight.grad.T
        return dx


class Filter(Module):
    """A correlation with three taps; the gradient of its weight is that of a convolution, and the one of its input forgets the edges."""

    def __init__(self):
        self.weight = Parameter(np.array([0.5, -1, 2], np.float32))

    def forward(self, x):
        self.save(x)
        return sum(self.weight.data[k] * x[:, k : k + 4] for k in range(3))

    def backward(self, dout):
        x = self.saved()
        self.weight.grad += np.array([(dout * x[:, 2 - k : 6 - k]).sum() for k in range(3)])
        dx = np.zeros_like(x)
        for k in range(3):
            dx[:, k : k + 4] += self.weight.data[k] * dout
        dx[:, 0] = 0
        return dx


class Nan(Affine):
    def backward(self, dout):
        return super().backward(dout) / 0.0


CASES = [
    (Square(), [X], "input 0", "each analytic value is exactly half of the numeric one"),
    (SubtractsWrong(), [X, X * X], "input 1", "the sign is wrong"),
    (Scores(), [RNG.random((2, 8)), RNG.random((4, 8))], "input 1", "analytic / numeric = 2.828 = sqrt(8), and dimension 1 of q is 8"),
    (MeanOfPixels(), [IMAGES], "input 0", "analytic / numeric = 15, and dimensions 2 and 3 of x are 3 x 5"),
    (MeanLoss(), [X], "input 0", "analytic / numeric = 0.2 = 1/5, and dimension 0 of x is 5"),
    (Scaled(), [X], "weight", "analytic / numeric = 3.333 = 1/0.3, and self.gain is 0.3"),
    (Transposed(3, 3), [X], "weight", "it is transposed, axis 0 for axis 1"),
    (OtherShape(), [X], "weight", "it is transposed"),
    (Filter(), [RNG.standard_normal((2, 6))], "weight", "it is reversed along axis 0"),
    (Filter(), [RNG.standard_normal((2, 6))], "input 0", "only in 2 of 12 entries, zero there: (0, 0), (1, 0)"),
    (Nan(), [X], "input 0", "it is not finite"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("module", "inputs", "array", "expected"), CASES)
def test_a_mistake_is_read_off_the_values(module, inputs, array, expected):
    report = failure(module, *inputs)
    found = {line.name.partition(" (")[0]: line for line in report.lines}
    assert found[array].clue == expected
    assert expected in str(report)
    assert all((line.verdict == "ok") <= (line.clue == "") for line in report.lines)
    assert not any(line.clue for line in failure(module, *inputs, explain=0).lines if line.clue != "it is transposed")


def test_values_that_have_nothing_in_common_get_no_clue():
    class Noise(Affine):
        def backward(self, dout):
            return super().backward(dout) + np.cos(np.arange(15).reshape(5, 3))

    assert failure(Noise(), X).lines[0].finding == "wrong"


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (2.0, "each analytic value is exactly twice the numeric one"),
        (-1.0, "the sign is wrong"),
        (-0.5, "the sign is wrong, and each analytic value is exactly half of the numeric one"),
        (0.75, "analytic / numeric = 0.75 = 3/4"),
        (12.0, "analytic / numeric = 12"),
        (1 / 300, "analytic / numeric = 0.003333 = 1/300"),
        (3**-0.5, "analytic / numeric = 0.5774 = sqrt(1/3)"),
        (7 / 6, "analytic / numeric = 1.167 = 7/(7 - 1), and dimension 1 of x is 7"),
        (49.0, "analytic / numeric = 49 = 7^2, and dimension 1 of x is 7"),
        (1.23456, "analytic / numeric = 1.23456"),
        (0.5 * (1 + 1e-4), "analytic / numeric = 0.50005"),
    ],
)
def test_ratios_in_words(ratio, said):
    assert ratio_clue(ratio, {7.0: "dimension 1 of x is 7"}) == said


class UsedTwice(Module):
    """``y = tanh(tanh(x W) W)``, with the gradient of the second use written over by that of the first."""

    def __init__(self, assigns):
        self.weight, self.assigns = Parameter(RNG.standard_normal((3, 3)).astype(np.float32)), assigns

    def forward(self, x):
        h = np.tanh(x @ self.weight.data)
        y = np.tanh(h @ self.weight.data)
        self.save(x, h, y)
        return y

    def backward(self, dout):
        x, h, y = self.saved()
        for before, after in ((h, y), (x, h)):
            dout = dout * (1 - after * after)
            if self.assigns:
                self.weight.grad[...] = before.T @ dout
            else:
                self.weight.grad += before.T @ dout
            dout = dout @ self.weight.data.T
        return dout


def test_a_gradient_that_is_replaced_is_said_so_where_it_is_wrong_too():
    assert check_gradients(UsedTwice(False), X).passed
    report = failure(UsedTwice(True), X)
    assert report.lines[1].verdict == "wrong"
    assert [problem.split(" instead")[0] for problem in report.problems] == ["weight: backward assigns to .grad"]
    assert failure(Square(), X).problems == ()


class DrawsAnew(Affine):
    """Drops entries of the weight's gradient at random, other ones each time."""

    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(1)

    def backward(self, dout):
        self.weight.grad += (dout.T @ self.saved()) * self.generator.random(self.weight.shape).round()
        self.bias.grad += dout.sum(axis=0)
        return dout @ self.weight.data


def test_a_wrong_gradient_that_varies_is_not_called_assigned():
    module = DrawsAnew()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(module), "named_generators", lambda self: iter(()))
        report = failure(module, X)
    assert report.lines[1].verdict == "wrong" and report.problems == ()


@pytest.mark.parametrize("explain", [-1, "long", np.nan])
def test_the_time_to_explain_is_a_number(explain):
    with pytest.raises(ValueError, match="check_gradients: explain must be a number of seconds"):
        check_gradients(Affine(), X, explain=explain)
