"""The losses: values by hand, gradients against central differences, and what comes of extreme and of bad input."""

import numpy as np
import pytest

from hcrot.schedulers import DDPMScheduler
from hcrot.training.losses import (
    flow_matching_loss,
    huber_loss,
    l1_loss,
    min_snr_weights,
    mse_loss,
    p2_weights,
    smooth_l1_loss,
)
from support.differences import central_differences
from support.memory_order import channels_last


def flow_matching(prediction, target, reduction="mean"):
    """The flow-matching loss of a path whose velocity is the target."""
    return flow_matching_loss(prediction, -target, np.zeros_like(target), reduction)


def weighted_mse(prediction, target, reduction="mean"):
    return mse_loss(prediction, target, reduction, weights=np.linspace(0.3, 2, len(prediction), dtype=np.float32))


REGRESSION = {
    "mse": mse_loss,
    "weighted_mse": weighted_mse,
    "flow_matching": flow_matching,
    "l1": l1_loss,
    "huber": lambda prediction, target, reduction="mean": huber_loss(prediction, target, reduction, delta=0.3),
    "smooth_l1": smooth_l1_loss,
    "smooth_l1_beta": lambda prediction, target, reduction="mean": smooth_l1_loss(
        prediction, target, reduction, beta=0.3
    ),
}
regression = pytest.mark.parametrize("loss", REGRESSION.values(), ids=REGRESSION.keys())
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


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


def test_weighted_squared_error_by_hand():
    prediction, target = np.array([[1, 0.5], [4, -2]], np.float32), np.array([[1, 1], [1, 0]], np.float32)
    value, dout = mse_loss(prediction, target, weights=np.array([2, 0.5]))
    assert value == pytest.approx((2 * 0.25 + 0.5 * (9 + 4)) / 4, rel=1e-7)
    np.testing.assert_allclose(dout, [[0, -0.5], [0.75, -0.5]], rtol=1e-6)
    assert dout.dtype == np.float32
    assert mse_loss(prediction, target, "sum", np.ones(2))[0] == pytest.approx(13.25)


def test_flow_matching_is_the_squared_error_of_the_velocity():
    rng = np.random.default_rng(6)
    prediction, x0, noise = rng.normal(size=(3, 4, 2, 3, 5))
    weights = rng.uniform(size=4)
    for options in ({}, {"reduction": "sum"}, {"weights": weights}):
        value, dout = flow_matching_loss(prediction, x0, noise, **options)
        expected, dexpected = mse_loss(prediction, noise - x0, **options)
        assert value == expected
        np.testing.assert_array_equal(dout, dexpected)
    sigma = 0.3  # following the velocity back from x_sigma arrives at the image
    np.testing.assert_allclose((1 - sigma) * x0 + sigma * noise - sigma * (noise - x0), x0, atol=1e-12)
    assert flow_matching_loss(noise - x0, x0, noise)[0] == 0


ALPHAS_CUMPROD = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
WEIGHTINGS = pytest.mark.parametrize("weighting", [min_snr_weights, p2_weights])


@WEIGHTINGS
def test_weightings_make_one_loss_of_all_predictions(weighting):
    """The same estimates of x_0, told as noise, image or velocity, have the same weighted loss."""
    rng, scheduler = np.random.default_rng(7), DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x0, noise, dx0 = rng.normal(size=(3, 5, 2, 3, 3))
    timesteps = np.array([0, 50, 400, 800, 999])
    abar = scheduler.alphas_cumprod.astype(np.float64)[timesteps].reshape(-1, 1, 1, 1)
    estimate = x0 + dx0
    noisy = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise
    estimated_noise = (noisy - np.sqrt(abar) * estimate) / np.sqrt(1 - abar)
    pairs = {
        "epsilon": (estimated_noise, noise),
        "sample": (estimate, x0),
        "v_prediction": (
            np.sqrt(abar) * estimated_noise - np.sqrt(1 - abar) * estimate,
            np.sqrt(abar) * noise - np.sqrt(1 - abar) * x0,
        ),
    }
    values = [
        mse_loss(*pair, weights=weighting(scheduler.alphas_cumprod, timesteps, prediction_type=prediction_type))[0]
        for prediction_type, pair in pairs.items()
    ]
    assert values == pytest.approx(values[:1] * 3, rel=1e-6)


def test_weights_by_hand():
    abar = np.array([0.9, 0.75, 0.5, 0.2])  # snr 9, 3, 1, 1/4
    t = [0, 1, 2, 3]
    np.testing.assert_allclose(min_snr_weights(abar, t, gamma=3.0), [1 / 3, 1, 1, 1])
    np.testing.assert_allclose(min_snr_weights(abar, t, 3.0, "sample"), [3, 3, 1, 1 / 4])
    np.testing.assert_allclose(min_snr_weights(abar, t, 3.0, "v_prediction"), [3 / 10, 3 / 4, 1 / 2, 1 / 5])
    np.testing.assert_allclose(p2_weights(abar, t), [1 / 10, 1 / 4, 1 / 2, 4 / 5])
    np.testing.assert_allclose(p2_weights(abar, t, gamma=0.5, k=7.0), np.array([16, 10, 8, 7.25]) ** -0.5)
    np.testing.assert_allclose(p2_weights(abar, t, prediction_type="sample"), [9 / 10, 3 / 4, 1 / 2, 1 / 5])
    np.testing.assert_allclose(p2_weights(abar, [3, 3, 0], prediction_type="v_prediction"), [4 / 25, 4 / 25, 9 / 100])


@WEIGHTINGS
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_weights_are_finite_at_every_step(weighting, prediction_type):
    """No signal at all included: there diffusers' examples divide zero by zero."""
    abar = np.append(ALPHAS_CUMPROD, np.float32(0))
    before = abar.copy()
    weights = weighting(abar, np.arange(1001), prediction_type=prediction_type)
    assert weights.shape == (1001,) and weights.dtype == np.float32
    assert np.isfinite(weights).all() and np.all(weights[:-1] > 0)
    assert weights[-1] == (1 if prediction_type == "epsilon" else 0)
    np.testing.assert_array_equal(abar, before)
    assert weighting(abar.astype(np.float64), [1, 2]).dtype == np.float64


@WEIGHTINGS
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.5, 0.2], [0]), TypeError, "alphas_cumprod must be an array of float32 or float64, got list"),
        ((np.array([0.2, 0.5]), [0]), ValueError, "alphas_cumprod must fall strictly, .* got numbers from 0.2 to 0.5"),
        ((np.array([1.0, 0.5]), [0]), ValueError, "alphas_cumprod must fall strictly, from below 1 to no less than 0"),
        ((np.array([0.5, np.nan]), [0]), ValueError, "alphas_cumprod must fall strictly"),
        ((np.array(0.5), [0]), ValueError, r"alphas_cumprod must have the shape \(T,\) and not be empty, got \(\)"),
        ((np.zeros(0), [0]), ValueError, r"not be empty, got \(0,\)"),
        ((ALPHAS_CUMPROD, [0, 1000]), ValueError, "expected timesteps 0 .. 999, got 0 .. 1000"),
        ((ALPHAS_CUMPROD, [-1]), ValueError, "expected timesteps 0 .. 999, got -1 .. -1"),
        ((ALPHAS_CUMPROD, [1.0]), TypeError, "timesteps must be integers, got dtype float64"),
        ((ALPHAS_CUMPROD, 3), ValueError, r"timesteps must have the shape \(B,\), one for each image, got \(\)"),
        ((ALPHAS_CUMPROD, [3], 0.0), ValueError, "gamma is 0.0, expected a positive number"),
        ((ALPHAS_CUMPROD, [3], None), TypeError, "gamma is None, expected a number"),
    ],
)
def test_bad_weights_input(weighting, arguments, error, message):
    with pytest.raises(error, match=f"^{weighting.__name__}: .*{message}"):
        weighting(*arguments)


@WEIGHTINGS
def test_unknown_prediction_type(weighting):
    with pytest.raises(ValueError, match="prediction_type 'noise' is unknown, expected one of epsilon, sample, v_pred"):
        weighting(ALPHAS_CUMPROD, [0], prediction_type="noise")


def test_bad_k():
    with pytest.raises(ValueError, match="p2_weights: k is 0, expected a positive number"):
        p2_weights(ALPHAS_CUMPROD, [0], k=0)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(3), ValueError, r"weights \(3,\) must be one for each image of prediction \(2, 3\)"),
        (np.ones((2, 3)), ValueError, r"weights \(2, 3\) must be one for each image"),
        (np.ones(2, int), TypeError, "weights must be an array of floating, got one of int64"),
        ([1.0, 1.0], TypeError, "weights must be an array of floating, got list"),
    ],
)
def test_bad_weights_of_losses(weights, error, message):
    zeros = np.zeros((2, 3))
    with pytest.raises(error, match=f"^mse_loss: {message}"):
        mse_loss(zeros, zeros, weights=weights)
    with pytest.raises(error, match=f"^flow_matching_loss: {message}"):
        flow_matching_loss(zeros, zeros, zeros, weights=weights)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(3), np.zeros(3), np.zeros((3, 1))), ValueError, r"original_samples \(3,\) and noise \(3, 1\) must have"),
        ((np.zeros((3, 1)), np.zeros(3), np.zeros(3)), ValueError, r"prediction \(3, 1\) and noise - original_samples \(3,\)"),
        ((np.zeros(3), np.zeros(3, int), np.zeros(3)), TypeError, "original_samples must be .*, got one of int64"),
        ((np.zeros(3), np.zeros(3), [0.0] * 3), TypeError, "noise must be an array of floating, got list"),
        ((np.zeros(3, int), np.zeros(3), np.zeros(3)), TypeError, "prediction must be .*, got one of int64"),
        ((np.zeros(0), np.zeros(0), np.zeros(0)), ValueError, "empty"),
        ((np.zeros(3), np.zeros(3), np.zeros(3), "None"), ValueError, "reduction must be .*, got 'None'"),
    ],
)
def test_bad_flow_matching_input(arguments, error, message):
    with pytest.raises(error, match=f"^flow_matching_loss: .*{message}"):
        flow_matching_loss(*arguments)


def test_large_float32_errors_do_not_overflow_the_sum():
    value, _ = mse_loss(np.full(3, 1e30, np.float32), np.zeros(3, np.float32))
    assert value == pytest.approx(1e60, rel=1e-6)


@pytest.mark.parametrize("loss", [mse_loss, l1_loss, smooth_l1_loss, huber_loss])
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
        ((np.zeros(3), np.zeros(3), "None"), ValueError, "reduction must be .*, got 'None'"),
    ],
)
def test_bad_input(loss, arguments, error, message):
    with pytest.raises(error, match=f"_loss: .*{message}"):
        loss(*arguments)


@pytest.mark.parametrize("beta", [0, -1.0, np.nan, np.inf, "1"])
def test_bad_beta(beta):
    with pytest.raises(ValueError, match="smooth_l1_loss: beta must be a finite number > 0"):
        smooth_l1_loss(np.zeros(1), np.zeros(1), beta=beta)


@pytest.mark.parametrize("delta", [0, -1.0, np.nan, np.inf, "1"])
def test_bad_delta(delta):
    with pytest.raises(ValueError, match="huber_loss: delta must be a finite number > 0"):
        huber_loss(np.zeros(1), np.zeros(1), delta=delta)


@regression
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_reduction_any_function_of_the_terms_can_follow(loss, dtype):
    """The documented rule: dout times the derivatives of what follows; here a sum with random weights."""
    rng = np.random.default_rng(11)
    prediction, target, upstream = rng.normal(size=(3, 2, 3, 5)).astype(dtype)
    terms, dout = loss(prediction, target, "none")
    assert (terms.shape, terms.dtype) == (prediction.shape, dtype)
    assert (dout.shape, dout.dtype) == (prediction.shape, dtype)
    assert float(terms.sum()) == pytest.approx(loss(prediction, target, "sum")[0], rel=1e-5)
    np.testing.assert_array_equal(dout, loss(prediction, target, "sum")[1])
    if dtype == np.float64:
        expected = central_differences(lambda x: float((upstream * loss(x, target, "none")[0]).sum()), prediction)
        np.testing.assert_allclose(upstream * dout, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", [mse_loss, l1_loss, smooth_l1_loss, huber_loss])
@pytest.mark.parametrize("name", ["size_average", "reduce", "weight"])
def test_pytorchs_other_options_are_refused_by_name(loss, name):
    loss(np.zeros(2), np.zeros(2), **{name: None})
    with pytest.raises(ValueError, match=f"_loss: {name} is an option of PyTorch that is not taken here: .*reduction="):
        loss(np.zeros(2), np.zeros(2), **{name: True})
    with pytest.raises(TypeError, match=r"_loss\(\) got an unexpected keyword argument 'wieght'"):
        loss(np.zeros(2), np.zeros(2), wieght=None)
