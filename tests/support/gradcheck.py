"""A layer to plant mistakes in, and what check_gradients says of them."""

import numpy as np
import pytest

from hcrot.gradcheck import GradientError, check_gradients
from hcrot.module import Module, Parameter


class Affine(Module):
    """``y = x W^T + b`` in plain NumPy; subclasses break its backward."""

    def __init__(self, inputs=3, outputs=4):
        rng = np.random.default_rng(5)
        self.weight = Parameter(rng.standard_normal((outputs, inputs)).astype(np.float32))
        self.bias = Parameter(np.zeros(outputs, np.float32))

    def forward(self, x):
        self.save(x)
        return x @ self.weight.data.T + self.bias.data

    def backward(self, dout):
        x = self.saved()
        self.weight.grad += dout.T @ x
        self.bias.grad += dout.sum(axis=0)
        return dout @ self.weight.data


def failure(module, *inputs, **options):
    """The report of a check that must fail. It has time to explain, on a busy machine, too."""
    with pytest.raises(GradientError) as caught:
        check_gradients(module, *inputs, **{"explain": 300, **options})
    assert str(caught.value) == str(caught.value.report)
    return caught.value.report


def verdicts(report):
    return {line.name: line.verdict for line in report.lines}
