"""check_gradients finds whatever is wrong with the backward of an affine layer, one planted mistake at a time (B01, B04, B49)."""

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.module import Identity, Sequential
from support.gradcheck import Affine, failure, verdicts


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)


class ForgetsBias(Affine):
    def backward(self, dout):
        x = self.saved()
        self.weight.grad += dout.T @ x
        return dout @ self.weight.data


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_parameter_without_gradient_fails(x, exhaustive):
    report = failure(ForgetsBias(), x, exhaustive=exhaustive)
    assert verdicts(report) == {"input 0": "ok", "weight (ForgetsBias)": "ok", "bias (ForgetsBias)": "no gradient arrived"}
    line = report.lines[2]
    assert line.analytic == 0
    assert abs(line.numeric) > 1e-3


def test_a_failure_names_module_array_and_both_numbers(x):
    report = failure(Sequential(Identity(), ForgetsBias()), x)
    text, line = str(report), report.lines[2]
    assert text.startswith("gradients of Sequential: 3 compared")
    assert "1 wrong" in text
    assert "1.bias (ForgetsBias)" in text
    assert f"{line.analytic:+.9e}" in text
    assert f"{line.numeric:+.9e}" in text


class Constant(Affine):
    """Its bias has no effect at all, so no gradient is the right one."""

    def forward(self, x):
        self.save(x)
        return x @ self.weight.data.T + 0 * self.bias.data

    def backward(self, dout):
        self.weight.grad += dout.T @ self.saved()
        return dout @ self.weight.data


def test_a_gradient_that_is_rightly_zero_passes(x):
    assert check_gradients(Constant(), x).passed


class Assigns(Affine):
    def backward(self, dout):
        x = self.saved()
        self.weight.grad[...] = dout.T @ x
        self.bias.grad += dout.sum(axis=0)
        return dout @ self.weight.data


def test_assigning_instead_of_adding_fails(x):
    report = failure(Assigns(), x)
    assert [problem for problem in report.problems if problem.startswith("weight: backward assigns")]
    assert not [problem for problem in report.problems if problem.startswith("bias")]


class Replaces(Affine):
    def backward(self, dout):
        x = self.saved()
        self.weight.grad = self.weight.grad + dout.T @ x
        self.bias.grad += dout.sum(axis=0)
        return dout @ self.weight.data


def test_replacing_the_gradient_array_fails(x):
    assert "weight: backward replaced the array" in failure(Replaces(), x).problems[0]


class BroadcastsBias(Affine):
    """As ConvTranspose2d once did (B18): a (4, 1) array updated by a (4,) one becomes (4, 4)."""

    def backward(self, dout):
        x = self.saved()
        self.weight.grad += dout.T @ x
        self.bias.grad = self.bias.grad[:, None] + dout.sum(axis=0)
        return dout @ self.weight.data


def test_a_gradient_of_another_shape_fails(x):
    assert verdicts(failure(BroadcastsBias(), x))["bias (BroadcastsBias)"] == "its gradient has shape (4, 4)"


class SinglePrecision(Affine):
    def backward(self, dout):
        x = self.saved()
        self.weight.grad = self.weight.grad.astype(np.float32) + (dout.T @ x).astype(np.float32)
        self.bias.grad += dout.sum(axis=0)
        return (dout @ self.weight.data).astype(np.float32)


def test_a_gradient_of_another_dtype_fails(x):
    found = verdicts(failure(SinglePrecision(), x))
    assert found["input 0"] == "its gradient is float32, not float64"
    assert found["weight (SinglePrecision)"] == "its gradient is float32, not float64"


class RoundsOutput(Affine):
    def forward(self, x):
        return super().forward(x).astype(np.float32)


def test_an_output_of_another_dtype_fails(x):
    assert "the output for float64 inputs is float32" in failure(RoundsOutput(), x).problems


class Transposed(Affine):
    def backward(self, dout):
        x = self.saved()
        self.weight.grad += x.T @ dout
        self.bias.grad += dout.sum(axis=0)
        return dout @ self.weight.data


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_transposed_weight_gradient_fails(exhaustive):
    report = failure(Transposed(3, 3), np.random.default_rng(0).standard_normal((5, 3)), exhaustive=exhaustive)
    assert verdicts(report)["weight (Transposed)"].startswith("wrong")
    assert verdicts(report)["input 0"] == verdicts(report)["bias (Transposed)"] == "ok"


class OneEntryOff(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.weight.grad[2, 1] += 1e-4
        return dx


def test_exhaustive_names_the_entry(x):
    report = failure(OneEntryOff(), x, exhaustive=True)
    assert verdicts(report)["weight (OneEntryOff)"] == "wrong at (2, 1)"
    line = report.lines[1]
    assert abs(line.analytic - line.numeric - 1e-4) < 1e-9


def test_one_random_direction_sees_a_single_wrong_entry(x):
    assert verdicts(failure(OneEntryOff(), x))["weight (OneEntryOff)"] == "wrong"


class Forgets(Affine):
    def backward(self, dout):
        super().backward(dout)


def test_a_missing_input_gradient_fails(x):
    assert verdicts(failure(Forgets(), x))["input 0"] == "missing: backward returned NoneType"


class FlatInput(Affine):
    def backward(self, dout):
        return super().backward(dout).reshape(-1)


def test_an_input_gradient_of_another_shape_fails(x):
    assert verdicts(failure(FlatInput(), x))["input 0"] == "its gradient has shape (15,)"
