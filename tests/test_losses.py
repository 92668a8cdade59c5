"""The losses: values by hand, gradients against central differences, and what comes of extreme and of bad input."""

import numpy as np
import pytest

from hcrot.losses import cross_entropy, l1_loss, mse_loss, smooth_l1_loss

REGRESSION = {
    "mse": mse_loss,
    "l1": l1_loss,
    "smooth_l1": smooth_l1_loss,
    "smooth_l1_beta": lambda prediction, target, reduction="mean": smooth_l1_loss(
        prediction, target, reduction, beta=0.3
    ),
}
regression = pytest.mark.parametrize("loss", REGRESSION.values(), ids=REGRESSION.keys())
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def central_differences(value, x, eps=1e-6):
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] = x[index] + eps
        above = value(moved)
        moved[index] = x[index] - eps
        gradient[index] = (above - value(moved)) / (2 * eps)
    return gradient


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("loss", "expected", "gradient"),
    [
        (mse_loss, (0 + 0.25 + 9 + 4) / 4, [0, -0.25, 1.5, -1]),
        (l1_loss, (0 + 0.5 + 3 + 2) / 4, [0, -0.25, 0.25, -0.25]),
        (smooth_l1_loss, (0 + 0.125 + 2.5 + 1.5) / 4, [0, -0.125, 0.25, -0.25]),
    ],
)
def test_values_by_hand(loss, expected, gradient):
    prediction, target = np.array([1, 0.5, 4, -2], np.float32), np.array([1, 1, 1, 0], np.float32)
    value, dout = loss(prediction, target)
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(dout, gradient, rtol=1e-6)
    total, dtotal = loss(prediction, target, reduction="sum")
    assert total == pytest.approx(4 * value, rel=1e-7)
    np.testing.assert_allclose(dtotal, 4 * dout, rtol=1e-6)


@regression
@reductions
@pytest.mark.parametrize("shape", [(7,), (2, 3, 5, 3)])
def test_regression_gradient(loss, reduction, shape):
    rng = np.random.default_rng(1)
    prediction, target = rng.normal(size=shape), rng.normal(size=shape)
    _, dout = loss(prediction, target, reduction)
    expected = central_differences(lambda x: loss(x, target, reduction)[0], prediction)
    np.testing.assert_allclose(dout, expected, rtol=1e-6, atol=1e-9)


@regression
def test_float32_and_memory_order(loss):
    """dout has the prediction's dtype and memory order, whatever those of the target (B10, B39: float32 targets)."""
    rng = np.random.default_rng(2)
    prediction, target = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    value, dout = loss(prediction, target)
    for target_as in (target, channels_last(target), target.astype(np.float64)):
        before = target_as.copy()
        value_last, dout_last = loss(channels_last(prediction), target_as)
        assert dout_last.dtype == np.float32
        assert dout_last.strides == channels_last(prediction).strides
        np.testing.assert_allclose(dout_last, dout, rtol=1e-6)
        assert value_last == pytest.approx(value, rel=1e-6)
        np.testing.assert_array_equal(target_as, before)
    assert dout.strides == prediction.strides


@regression
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_stays_visible(loss, bad):
    prediction = np.array([1.0, bad, 2.0], np.float32)
    value, dout = loss(prediction, np.zeros(3, np.float32))
    assert np.isnan(value) if np.isnan(bad) else value == np.inf
    assert np.isnan(dout[1]) == np.isnan(bad)
    assert np.isfinite(dout[[0, 2]]).all()


def test_large_float32_errors_do_not_overflow_the_sum():
    value, _ = mse_loss(np.full(3, 1e30, np.float32), np.zeros(3, np.float32))
    assert value == pytest.approx(1e60, rel=1e-6)


@regression
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(3), np.zeros(3, int)), TypeError, "target must be an array of floating, got one of int64"),
        (
            (np.zeros(3, int), np.zeros(3)),
            TypeError,
            "prediction must be an array of float32 or float64, got one of int64",
        ),
        (([1.0], np.zeros(1)), TypeError, "prediction must be .*, got list"),
        ((np.zeros(3, np.float16), np.zeros(3)), TypeError, "got one of float16"),
        (
            (np.zeros((4, 1)), np.zeros(4)),
            ValueError,
            r"prediction \(4, 1\) and target \(4,\) must have the same shape",
        ),
        ((np.zeros((0, 2)), np.zeros((0, 2))), ValueError, "empty"),
        ((np.zeros(3), np.zeros(3), "none"), ValueError, "reduction must be .*, got 'none'"),
    ],
)
def test_bad_input(loss, arguments, error, message):
    with pytest.raises(error, match=f"_loss: .*{message}"):
        loss(*arguments)


@pytest.mark.parametrize("beta", [0, -1.0, np.nan, np.inf, "1"])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match="smooth_l1_loss: beta must be a finite number > 0"):
        smooth_l1_loss(np.zeros(1), np.zeros(1), beta=beta)


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


@reductions
def test_everything_ignored_is_zero(reduction):
    value, dout = cross_entropy(np.ones((2, 3), np.float32), np.array([-100, -100]), reduction)
    assert value == 0
    np.testing.assert_array_equal(dout, np.zeros((2, 3), np.float32))


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
            TypeError,
            "labels must be an array of integers, got one of float64",
        ),
        (np.zeros((2, 3)), [0, 1], {}, TypeError, "labels must be an array of integers, got list"),
        (
            np.zeros((2, 3)),
            np.array([[1], [0]]),
            {},
            ValueError,
            r"labels \(2, 1\) do not fit logits \(2, 3\), expected \(2,\)",
        ),
        (np.zeros((2, 3), int), np.array([0, 1]), {}, TypeError, "logits must be an array of float32 or float64"),
        (np.zeros(3), np.array(1), {}, ValueError, r"logits must have the shape \(N, K, ...\)"),
        (np.zeros((0, 3)), np.zeros(0, int), {}, ValueError, "not be empty"),
        (np.zeros((1, 3)), np.array([1]), {"reduction": "none"}, ValueError, "reduction must be"),
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
