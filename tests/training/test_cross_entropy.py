"""Cross entropy: its gradient against central differences, values by hand, masked classes and positions, bad input."""

import numpy as np
import pytest

from hcrot.training.losses import cross_entropy
from support.differences import central_differences
from support.memory_order import channels_last

reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


@reductions
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("shape", "num_ignored"), [((6, 4), 0), ((5, 3), 2), ((2, 5, 3), 1), ((2, 3, 2, 3), 4)])
def test_cross_entropy_gradient(reduction, label_smoothing, shape, num_ignored):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=shape)
    labels = rng.integers(shape[1], size=shape[:1] + shape[2:])
    labels.flat[:num_ignored] = -100
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    _, dout = cross_entropy(logits, labels, **options)
    expected = central_differences(lambda z: cross_entropy(z, labels, **options)[0], logits)
    assert dout.shape == logits.shape
    np.testing.assert_allclose(dout, expected, rtol=1e-6, atol=1e-9)


def test_cross_entropy_by_hand():
    logits = np.log(np.array([[1, 2, 5], [4, 4, 2]], np.float64))
    value, dout = cross_entropy(logits, np.array([2, 0]))
    assert value == pytest.approx(-(np.log(5 / 8) + np.log(4 / 10)) / 2)
    np.testing.assert_allclose(dout, np.array([[1 / 8, 2 / 8, 5 / 8 - 1], [0.4 - 1, 0.4, 0.2]]) / 2)
    smoothed, _ = cross_entropy(logits[:1], np.array([2]), label_smoothing=0.3)
    assert smoothed == pytest.approx(-0.8 * np.log(5 / 8) - 0.1 * np.log(1 / 8) - 0.1 * np.log(2 / 8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_huge_logits(dtype):
    """B30, B40: neither softmax nor the logarithm may overflow."""
    logits = np.array([[1000, 0], [-1000, 0], [0, 1e5]], dtype)
    value, dout = cross_entropy(logits, np.array([1, 0, 1]), reduction="sum")
    assert value == 2000
    np.testing.assert_array_equal(dout, np.array([[1, -1], [-1, 1], [0, 0]], dtype))


def test_cross_entropy_of_masked_classes():
    """A logit of -inf is a class that cannot be: the others keep their gradients."""
    value, dout = cross_entropy(np.array([[0.0, -np.inf, 0.0]]), np.array([0]))
    assert value == pytest.approx(np.log(2))
    np.testing.assert_allclose(dout, [[-0.5, 0, 0.5]])


def test_ignored_positions_take_no_part():
    """B40: the marker -100 is never used as an index, and what is ignored may hold anything."""
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(4, 3)), np.array([0, -100, 2, 1])
    value, dout = cross_entropy(logits, labels)
    kept = [0, 2, 3]
    value_kept, dout_kept = cross_entropy(logits[kept], labels[kept])
    assert value == pytest.approx(value_kept, rel=1e-14)
    np.testing.assert_allclose(dout[kept], dout_kept, rtol=1e-14)
    np.testing.assert_array_equal(dout[1], 0)
    logits[1] = np.nan
    value_nan, dout_nan = cross_entropy(logits, labels)
    assert value_nan == value
    np.testing.assert_array_equal(dout_nan, dout)
    value_marked, _ = cross_entropy(logits, np.array([0, 1, 2, 1]), ignore_index=1)
    assert value_marked == pytest.approx(cross_entropy(logits[[0, 2]], labels[[0, 2]])[0], rel=1e-14)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": np.array([1, 2, 0], np.float32)}])
@pytest.mark.parametrize(("reduction", "expected"), [("mean", np.nan), ("sum", 0), ("none", [0, 0])])
def test_everything_ignored_has_no_mean_and_no_gradient(reduction, expected, options):
    value, dout = cross_entropy(np.ones((2, 3), np.float32), np.array([-100, -100]), reduction, **options)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(dout, np.zeros((2, 3), np.float32))


TARGETS = {
    "classes": lambda rng, shape: rng.integers(shape[1], size=shape[:1] + shape[2:]),
    "some_ignored": lambda rng, shape: np.where(
        np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 2)) == 1, -100, rng.integers(shape[1], size=shape[:1] + shape[2:])
    ),
    "probabilities": lambda rng, shape: rng.uniform(size=shape),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5), (2, 3, 1, 3)])
def test_gradients_of_every_target(target, label_smoothing, weighted, shape):
    """By differences, for each reduction; with "none" by the documented rule for the gradient of each value."""
    rng = np.random.default_rng(6)
    logits, target = rng.normal(size=shape), target(rng, shape)
    options = {"label_smoothing": label_smoothing, "weight": rng.uniform(0.5, 2, shape[1]) if weighted else None}
    for reduction in ("mean", "sum"):
        _, dout = cross_entropy(logits, target, reduction, **options)
        expected = central_differences(lambda z, reduction=reduction: cross_entropy(z, target, reduction, **options)[0], logits)
        np.testing.assert_allclose(dout, expected, rtol=1e-6, atol=1e-9)
    values, dout = cross_entropy(logits, target, "none", **options)
    upstream = rng.normal(size=shape[:1] + shape[2:])
    assert values.shape == upstream.shape
    expected = central_differences(lambda z: float((upstream * cross_entropy(z, target, "none", **options)[0]).sum()), logits)
    np.testing.assert_allclose(upstream[:, None] * dout, expected, rtol=1e-6, atol=1e-9)


def test_probabilities_of_one_are_classes():
    rng = np.random.default_rng(7)
    logits, labels = rng.normal(size=(4, 3)), rng.integers(3, size=4)
    for options in ({}, {"label_smoothing": 0.3}):
        value, dout = cross_entropy(logits, labels, **options)
        other, other_dout = cross_entropy(logits, np.eye(3)[labels], **options)
        assert value == pytest.approx(other, rel=1e-14)
        np.testing.assert_allclose(dout, other_dout, atol=1e-15)


@pytest.mark.parametrize("label", [2, np.int64(2), np.array(2, np.uint8)])
def test_one_example_without_a_batch(label):
    logits = np.array([0.3, -1.0, 2.0], np.float32)
    value, dout = cross_entropy(logits, label, label_smoothing=0.1)
    expected, expected_dout = cross_entropy(logits[None], np.array([2]), label_smoothing=0.1)
    assert value == expected and type(value) is float
    np.testing.assert_array_equal(dout, expected_dout[0])
    values, _ = cross_entropy(logits, label, reduction="none")
    assert values.shape == ()


def test_cross_entropy_keeps_dtype_order_and_inputs():
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(size=(2, 4, 3, 5)).astype(np.float32), rng.integers(4, size=(2, 3, 5)).astype(np.uint8)
    before = logits.copy()
    value, dout = cross_entropy(logits, labels, label_smoothing=0.1)
    value_last, dout_last = cross_entropy(channels_last(logits), labels, label_smoothing=0.1)
    assert dout.dtype == dout_last.dtype == np.float32
    assert dout.strides == logits.strides
    assert dout_last.strides == channels_last(logits).strides
    assert type(value) is float
    assert value_last == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(dout_last, dout, atol=1e-7)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    ("logits", "labels", "options", "error", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), {}, ValueError, "expected labels 0..2 or ignore_index=-100, got 3"),
        (np.zeros((2, 3)), np.array([0, -1]), {}, ValueError, "expected labels 0..2 .*, got -1"),
        (
            np.zeros((2, 3)),
            np.array([0.0, 1.0]),
            {},
            ValueError,
            r"labels of float64 are probabilities and must have the shape of the logits, \(2, 3\), got \(2,\)",
        ),
        (np.zeros((2, 3)), [0, 1], {}, TypeError, "labels must be an array of integers, or of probabilities, got list"),
        (np.zeros(3), True, {}, TypeError, "labels must be an array of integers, .* got bool"),
        (np.zeros(3), 3, {}, ValueError, "expected labels 0..2 .*, got 3"),
        (np.zeros((2, 3)), np.zeros((2, 3)), {"ignore_index": 1}, ValueError, "ignore_index=1 needs integer labels, got probabilities"),
        (np.zeros((2, 3)), np.array([0, 1]), {"weight": np.ones(2)}, ValueError, r"weight must be one for each of 3 classes, got shape"),
        (np.zeros((2, 3)), np.array([0, 1]), {"weight": [1.0, 1.0, 1.0]}, TypeError, "weight must be an array of floating, got list"),
        (np.zeros((2, 3)), np.array([0, 1]), {"size_average": False}, ValueError, "size_average is an option of PyTorch that is not taken"),
        (
            np.zeros((2, 3)),
            np.array([[1], [0]]),
            {},
            ValueError,
            r"labels \(2, 1\) do not fit logits \(2, 3\), expected \(2,\)",
        ),
        (np.zeros((2, 3), int), np.array([0, 1]), {}, TypeError, "logits must be an array of float32 or float64"),
        (np.zeros(()), np.array(1), {}, ValueError, r"logits must have the shape \(N, K, ...\) or \(K,\)"),
        (np.zeros((0, 3)), np.zeros(0, int), {}, ValueError, "not be empty"),
        (np.zeros((1, 3)), np.array([1]), {"reduction": "avg"}, ValueError, "reduction must be"),
        (
            np.zeros((1, 3)),
            np.array([1]),
            {"label_smoothing": 1.5},
            ValueError,
            "label_smoothing must be from 0 to 1, got 1.5",
        ),
    ],
)
def test_bad_cross_entropy_input(logits, labels, options, error, message):
    with pytest.raises(error, match=f"cross_entropy: .*{message}"):
        cross_entropy(logits, labels, **options)
