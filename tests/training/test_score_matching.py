"""Denoising score matching: the value by its formula, dout by differences, its minimum, bad input."""

import numpy as np
import pytest

from hcrot import denoising_score_matching_loss, mse_loss
from hcrot.schedulers import VPSDE
from support.gaussian_mixture import MixtureScore

RNG = np.random.default_rng(0)
SCORE, NOISE = RNG.standard_normal((2, 4, 3, 5))
STD, WEIGHTS = np.array([0.05, 0.3, 0.7, 1.0]), np.array([0.5, 1.0, 3.0, 0.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_value_and_gradient(reduction, weights):
    value, dout = denoising_score_matching_loss(SCORE, NOISE, STD, weights, reduction)
    column = (STD**2 if weights is None else weights)[:, None, None]
    terms = column * (SCORE + NOISE / STD[:, None, None]) ** 2
    np.testing.assert_allclose(value, {"mean": terms.mean(), "sum": terms.sum(), "none": terms}[reduction], rtol=1e-12)
    direction, step = RNG.standard_normal(SCORE.shape), 1e-5
    ends = [np.sum(denoising_score_matching_loss(SCORE + sign * step * direction, NOISE, STD, weights, reduction)[0]) for sign in (1, -1)]
    assert np.sum(dout * direction) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-7)


def test_with_the_default_weights_it_is_the_loss_of_the_noise():
    predicted = RNG.standard_normal(SCORE.shape)
    value, dout = denoising_score_matching_loss(-predicted / STD[:, None, None], NOISE, STD)
    expected, gradient = mse_loss(predicted, NOISE)
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(dout, -gradient * STD[:, None, None], rtol=1e-9)


@pytest.mark.parametrize("weights", [None, "g"])
def test_the_true_score_has_the_smallest_loss(weights):
    """Of it and its neighbours c score, c around 1; for each the mean over the same 40,000 points."""
    sde, rng = VPSDE(), np.random.default_rng(1)
    data = MixtureScore(sde, [0.4, 0.6], [[1.0, 0.0], [-1.0, 0.5]], [0.3, 0.2])
    t = rng.uniform(0.01, 1, 40_000)
    noise = rng.standard_normal((len(t), 2))
    x = sde.add_noise(data.sample(len(t), rng), noise, t)
    with data.inference():
        score = data(x, t)
    losses = [
        denoising_score_matching_loss(c * score, noise, sde.std(t), None if weights is None else sde.diffusion(t) ** 2)[0]
        for c in (0.9, 0.97, 1.0, 1.03, 1.1)
    ]
    assert np.argmin(losses) == 2


def test_dtypes():
    value, dout = denoising_score_matching_loss(SCORE.astype(np.float32), NOISE, STD.astype(np.float32))
    assert isinstance(value, float) and dout.dtype == np.float32 and dout.shape == SCORE.shape


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((SCORE.astype(int), NOISE, STD), TypeError, "score must be an array of float32 or float64"),
    ((SCORE, NOISE[:1], STD), ValueError, "must have the same shape"),
    ((SCORE, NOISE, STD[:2]), ValueError, r"std \(2,\) must be one for each image of score \(4, 3, 5\)"),
    ((SCORE, NOISE, STD, WEIGHTS[:1]), ValueError, r"weights \(1,\) must be one for each image"),
    ((SCORE, NOISE, STD - 0.05), ValueError, "std must be above 0, got 0.0"),
    ((SCORE, NOISE, STD, None, "max"), ValueError, "reduction must be"),
])  # fmt: skip
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        denoising_score_matching_loss(*arguments)
