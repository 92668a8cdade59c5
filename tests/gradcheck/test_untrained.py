"""check_gradients tells of arrays that nobody trains, and of Parameters that are taken for arrays."""

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.module import Module, Parameter, Sequential
from support.gradcheck import Affine, failure, verdicts

X = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)


class Masked(Affine):
    """``(x W^T + b) mask``: a mask which is a plain array, as such, in a list or in a dict of lists."""

    def __init__(self, kind, writeable=True):
        super().__init__()
        mask = np.array([1.0, 0.5, 0.25, 2.0])
        mask.flags.writeable = writeable
        self.mask = {"array": mask, "list": [mask], "dict": {"a": [mask]}}[kind]

    def values(self):
        return {np.ndarray: lambda m: m, list: lambda m: m[0], dict: lambda m: m["a"][0]}[type(self.mask)](self.mask)

    def forward(self, x):
        return super().forward(x) * self.values()

    def backward(self, dout):
        return super().backward(dout * self.values())


@pytest.mark.parametrize(("kind", "name"), [("array", "1.mask"), ("list", "1.mask[0]"), ("dict", "1.mask['a'][0]")])
def test_a_weight_that_is_no_parameter_is_reported(kind, name):
    """It was passed as "all agree"."""
    report = failure(Sequential(Affine(3, 3), Masked(kind)), X)
    assert [problem.split(":")[0] for problem in report.problems] == [f"{name} (Masked) is a plain array that the output depends on"]
    assert set(verdicts(report).values()) == {"ok"}


def test_a_read_only_array_is_a_constant():
    module = Masked("array", False)
    assert check_gradients(module, X).passed
    assert not module.mask.flags.writeable


class ForgetsBias(Affine):
    def forward(self, x):
        self.save(x)
        return x @ self.weight.data.T

    def backward(self, dout):
        self.weight.grad += dout.T @ self.saved()
        return dout @ self.weight.data


class AddsToAnUnusedBias(Affine):
    def forward(self, x):
        self.save(x)
        return x @ self.weight.data.T


def test_a_parameter_without_effect_is_named():
    """That is no wrong gradient: it may be on purpose. A bias that is used, of zero gradient by symmetry, is not named."""
    report = check_gradients(Sequential(ForgetsBias(), Affine(4, 2)), X)
    assert report.notes == ("no effect on the output: 0.bias (ForgetsBias). Does forward use it?",)
    assert report.notes[0] in str(report) and report.notes[0] in report._repr_html_()
    assert check_gradients(Affine(), X).notes == ()
    line = failure(AddsToAnUnusedBias(), X).lines[2]
    assert line.finding == "wrong: the output does not depend on this array, so its gradient is zero"


class Gate(Module):
    """``y = x + max(w, 0)``: no gradient arrives at a negative w, which has an effect all the same."""

    def __init__(self):
        self.weight = Parameter(np.array([-1, -2, -0.5], np.float32))

    def forward(self, x):
        self.save(x)
        return x + np.maximum(self.weight.data, 0)

    def backward(self, dout):
        self.saved()
        self.weight.grad += dout.sum(axis=0) * (self.weight.data > 0)
        return dout


def test_a_parameter_of_no_slope_may_have_an_effect():
    report = check_gradients(Gate(), X, randomize=False)
    assert report.lines[1].analytic == 0 and report.notes == ()


class NoData(Affine):
    def forward(self, x):
        self.save(x)
        return x @ self.weight + self.bias.data


class NoDataInPython(Affine):
    def forward(self, x):
        self.save(x)
        return x @ (2 * self.weight).T


class NoDataForAMethod(Affine):
    def forward(self, x):
        self.save(x)
        return x @ self.weight.T


class AddsToTheParameter(Affine):
    def backward(self, dout):
        self.weight += dout.T @ self.saved()
        return dout @ self.weight.data


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        (NoData, TypeError, r"write parameter.data for its values, .*line \d+: return x @ self.weight \+ self.bias.data\)"),
        (NoDataInPython, TypeError, r"a Parameter is not an array: write parameter.data for its values .*\(2 \* self.weight\).T\)"),
        (NoDataForAMethod, AttributeError, r"no attribute T; arrays have it: write parameter.data.T \(.*return x @ self.weight.T\)"),
        (AddsToTheParameter, TypeError, r"parameter.grad for its gradient \(test_untrained.py, line \d+: self.weight \+= dout.T"),
    ],
)
def test_a_parameter_taken_for_an_array_is_said_so(kind, error, said):
    with pytest.raises(error, match="^check_gradients: .*" + said):
        check_gradients(kind(), X)


class PutsAnArray(Affine):
    def backward(self, dout):
        dx = dout @ self.weight.data
        self.weight = dout.T @ self.saved()
        self.bias.grad += dout.sum(axis=0)
        return dx


class NormsItsWeight(Affine):
    def forward(self, x):
        self.weight.data = self.weight.data / np.linalg.norm(self.weight.data)
        return super().forward(x)


def test_a_parameter_replaced_by_an_array_is_named():
    report = failure(PutsAnArray(), X)
    assert report.problems[0].startswith("weight: backward put something else in the place of this Parameter, ndarray: write self.weight")
    assert verdicts(report) == {"input 0": "ok", "weight (PutsAnArray)": "no gradient arrived", "bias (PutsAnArray)": "ok"}
    assert "0.weight: forward replaced the array .data" in str(failure(Sequential(NormsItsWeight()), X))


class ReturnsNothing(Affine):
    def backward(self, dout):
        super().backward(dout)


def test_the_part_that_returned_nothing_is_named():
    with pytest.raises(TypeError, match=r"the backward of 1 \(ReturnsNothing\) returned None: return .* After that came "):
        check_gradients(Sequential(Affine(3, 3), ReturnsNothing(), Affine(4, 2)), X)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_output_that_is_not_finite_is_said_so():
    assert failure(Affine(), np.full((2, 3), np.inf)).problems[0] == "the output for these inputs is not finite: choose others"
