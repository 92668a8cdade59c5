"""Conv1d: its formula written out, gradients, initial values, bad input."""

import numpy as np
import pytest

import hcrot
from hcrot.gradcheck import check_gradients


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_formula_written_out(rng):
    layer = hcrot.Conv1d(3, 2, 4, stride=2, padding=1, dilation=2, generator=rng).astype(np.float64)
    x = rng.standard_normal((2, 3, 9))
    y = layer(x)
    assert y.shape == (2, 2, 3)
    for b, o, t in np.ndindex(y.shape):
        expected = layer.bias.data[o]
        for c in range(3):
            for i in range(4):
                place = 2 * t - 1 + 2 * i
                expected += layer.weight.data[o, c, i] * x[b, c, place] if 0 <= place < 9 else 0
        np.testing.assert_allclose(y[b, o, t], expected)


@pytest.mark.parametrize(
    ("arguments", "shape"), [((4, 3, 3), (2, 4, 7)), ((4, 6, 2, 2, 1, 3, 2, False), (3, 4, 5)), ((1, 2, 5, 1, "same"), (1, 3))]
)
def test_gradients(arguments, shape, rng):
    check_gradients(hcrot.Conv1d(*arguments, generator=rng), rng.standard_normal(shape), generator=rng)


def test_initial_values_are_pytorchs():
    layer = hcrot.Conv1d(8, 200, 5, groups=2, generator=0)
    for array in (layer.weight.data, layer.bias.data):
        assert 0.95 / np.sqrt(20) < np.abs(array).max() <= 1 / np.sqrt(20)


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hcrot.Conv1d(4, 4, 0), "Conv1d: kernel_size must be an int of at least 1, got 0"),
        (lambda: hcrot.Conv1d(4, 6, 3, groups=4), "Conv1d: out_channels 6 is not divisible by groups 4"),
        (lambda: hcrot.Conv1d(4, 6, 3, padding=-1), "Conv1d: padding must be an int of at least 0, 'valid' or 'same', got -1"),
        (lambda: hcrot.Conv1d(4, 6, 3, padding="full"), "Conv1d: padding must be ints, 'same' or 'valid', got 'full'"),
        (lambda: hcrot.Conv1d(4, 6, 3, 2, "same"), "Conv1d: padding 'same' needs stride 1"),
        (lambda: hcrot.Conv1d(4, 6, 3, padding_mode="reflect"), "Conv1d: padding_mode must be 'zeros', got 'reflect'"),
        (lambda: hcrot.Conv1d(4, 6, 3, device="cpu"), "Conv1d: device='cpu' is not supported"),
        (lambda: hcrot.Conv1d(4, 6, 3)(zeros(2, 3, 9)), r"expected sequences of shape \(\[batch,\] 4, length\), got shape \(2, 3, 9\)"),
        (lambda: hcrot.Conv1d(4, 6, 3)(np.zeros((2, 4, 9))), "expected float32 sequences, as the weights are, got float64"),
        (lambda: hcrot.Conv1d(4, 6, 3)(zeros(2, 4, 2)), "a sequence of 2 is too short for kernel_size 3, padding 0 and dilation 1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
