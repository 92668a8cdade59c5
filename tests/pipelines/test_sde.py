"""Samplers and likelihoods of score-based models, on data whose score and density are known."""

import numpy as np
import pytest

import hcrot
from hcrot.pipelines.sde import ScoreOfNoise, annealed_langevin, log_likelihood, predictor_corrector, probability_flow
from hcrot.schedulers import VESDE, VPSDE, SubVPSDE
from support.gaussian_mixture import MixtureScore

SDES = [VESDE(0.01, 20.0), VPSDE(), SubVPSDE()]
MIXTURE = ([0.5, 0.3, 0.2], [[1.0, 0.5], [-1.0, 0.8], [0.2, -1.2]], [0.2, 0.3, 0.15])


def oracle(sde):
    return MixtureScore(sde, *MIXTURE)


def assert_moments(samples, data, of_mean, of_covariance):
    mean, covariance = data.moments()
    np.testing.assert_allclose(samples.mean(axis=0), mean, atol=of_mean)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=of_covariance)


def shares(samples, data):
    """How many samples are nearest to each mean."""
    _, means, _ = data.constants
    nearest = np.argmin(((samples[:, None] - means) ** 2).sum(axis=2), axis=1)
    return np.bincount(nearest, minlength=len(means)) / len(samples)


# the oracle -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_oracle_is_the_gradient_of_its_density_and_so_is_its_backward(sde):
    data, rng = oracle(sde), np.random.default_rng(0)
    x, step = rng.standard_normal((7, 2)), 1e-5
    for t in (0.02, 0.5, 1.0):
        differences = [(data.log_density(x + step * e, t) - data.log_density(x - step * e, t)) / (2 * step) for e in np.eye(2)]
        with data.inference():
            np.testing.assert_allclose(data(x, np.full(7, t)), np.stack(differences, axis=1), rtol=1e-6, atol=1e-6)
        hcrot.check_gradients(data, x, forward=lambda one, x, t=t: one(x, np.full(len(x), t)))


# sampling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {},
    {"predictor": "euler_maruyama", "corrector": "none"},
    {"predictor": "reverse_diffusion", "corrector": "none"},
    {"corrector_steps": 2, "snr": 0.1},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_predictor_and_corrector_reach_the_data(sde, options):
    data = oracle(sde)
    samples = predictor_corrector(data, sde, (2000, 2), num_steps=120, generator=1, dtype=np.float64, **options)
    assert_moments(samples, data, of_mean=0.08, of_covariance=0.1)
    np.testing.assert_allclose(shares(samples, data), MIXTURE[0], atol=0.05)


def test_the_corrector_mends_what_a_coarse_predictor_does():
    """25 steps are too few for the predictor: each part of the mixture comes out too wide. And the corrector alone finds the data, too."""
    sde, (_, means, stds) = SDES[0], map(np.array, MIXTURE)
    data, errors = oracle(sde), {}
    for corrector in ("langevin", "none"):
        samples = predictor_corrector(
            data, sde, (4000, 2), num_steps=25, corrector=corrector, corrector_steps=2, generator=2, dtype=np.float64
        )
        nearest = np.argmin(((samples[:, None] - means) ** 2).sum(axis=2), axis=1)
        found = np.array([np.sqrt(np.mean((samples[nearest == k] - means[k]) ** 2)) for k in range(3)])
        errors[corrector] = np.abs(found - stds).mean()
    assert errors["langevin"] < 0.5 * errors["none"]
    alone = predictor_corrector(
        data, sde, (1000, 2), num_steps=100, predictor="none", corrector_steps=5, snr=0.3, generator=3, dtype=np.float64
    )
    assert_moments(alone, data, of_mean=0.3, of_covariance=0.4)


def test_denoising_takes_the_last_noise_away():
    sde = VPSDE()
    data = MixtureScore(sde, [1.0], [[1.0, -2.0]], [1e-3])
    noisy, clean = (
        predictor_corrector(data, sde, (500, 2), num_steps=100, sampling_eps=0.05, denoise=denoise, generator=4)
        for denoise in (False, True)
    )
    assert noisy.dtype == clean.dtype == np.float32
    assert noisy.std(axis=0).min() > 0.9 * sde.std(0.05) and clean.std(axis=0).max() < 0.01


def test_annealed_langevin_reaches_the_data():
    sde = VESDE(0.01, 10.0)
    data = oracle(sde)
    sigmas = np.geomspace(8.0, 0.05, 12)
    start = 8 * np.random.default_rng(5).standard_normal((1500, 2))

    def score(x, sigma):
        return data(x, sde.time_of_std(sigma))

    with data.inference():
        samples = annealed_langevin(score, sigmas, start, steps_per_level=60, step_size=5e-4, generator=6)
    assert_moments(samples, data, of_mean=0.15, of_covariance=0.15)
    np.testing.assert_allclose(shares(samples, data), MIXTURE[0], atol=0.08)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_flow_of_normal_data_is_a_scaling(sde):
    """x_0 ~ N(0, 0.5^2): the flow keeps x/std(x(t))."""
    data = MixtureScore(sde, [1.0], [[0.0, 0.0, 0.0]], [0.5])
    x, times = np.random.default_rng(7).standard_normal((5, 3)), (1.0, 0.6, 0.01)
    path = probability_flow(data, sde, x, times, rtol=1e-8, atol=1e-8)
    spread = np.hypot(0.5 * sde.signal(times), sde.std(times))
    np.testing.assert_allclose(path, (spread / spread[0])[:, None, None] * x, rtol=1e-5)
    back = probability_flow(data, sde, path[-1], times[::-1], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(back[-1], x, rtol=1e-5)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_flow_reaches_the_data(sde):
    data, rng = oracle(sde), np.random.default_rng(8)
    path = probability_flow(data, sde, sde.prior_sample((3000, 2), rng, np.float64), (1.0, 1e-3))
    assert_moments(path[-1], data, of_mean=0.08, of_covariance=0.1)
    np.testing.assert_allclose(shares(path[-1], data), MIXTURE[0], atol=0.04)


# likelihood -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VESDE(0.01, 100.0), *SDES[1:]], ids=repr)
def test_the_likelihood_of_the_mixture_is_the_true_one(sde):
    data, rng = oracle(sde), np.random.default_rng(9)
    x = data.sample(200, rng)
    true = data.log_density(x, 1e-5)
    found, latent = log_likelihood(data, sde, x, probes="exact", rtol=1e-6, atol=1e-6)
    assert found.dtype == np.float64 and found.shape == (200,) and latent.shape == x.shape
    assert abs(found.mean() - true.mean()) < 0.002
    np.testing.assert_allclose(found, true, atol=0.02)  # p_1 is not quite the prior: that is what is left
    np.testing.assert_allclose(latent.std(axis=0), sde.prior_std, rtol=0.2)


@pytest.mark.parametrize("probes", ["rademacher", "normal"])
def test_the_estimate_of_hutchinson_has_the_true_mean(probes):
    """The error of each point falls with the root of the number of probes. With "rademacher" the mean of 400 points is within 0.02 nats."""
    sde = VPSDE()
    data, rng = oracle(sde), np.random.default_rng(10)
    x = data.sample(400, rng)
    true, errors = data.log_density(x, 1e-5), {}
    for num_probes in (1, 16):
        found, _ = log_likelihood(data, sde, x, probes=probes, num_probes=num_probes, generator=11, rtol=1e-4, atol=1e-4)
        errors[num_probes] = found - true
    assert abs(errors[16].mean()) < (0.02 if probes == "rademacher" else 3 * np.std(errors[16]) / 20)
    assert np.std(errors[16]) < 0.5 * np.std(errors[1]) and np.std(errors[1]) > 0.01


def test_another_score_has_another_likelihood():
    """A check of the check: with a score that is 10 % too large the likelihood is off by far more than 0.02 nats."""

    class TooLarge(MixtureScore):
        def forward(self, x, t):
            return 1.1 * super().forward(x, t)

        def backward(self, dout):
            return 1.1 * super().backward(dout)

    x = oracle(SDES[1]).sample(50, np.random.default_rng(12))
    found, _ = log_likelihood(TooLarge(SDES[1], *MIXTURE), SDES[1], x, probes="exact")
    assert abs(np.mean(found - oracle(SDES[1]).log_density(x, 1e-5))) > 0.05


# a network ------------------------------------------------------------------------------------------------------------


class Network(hcrot.Module):
    """Predicts noise from x and t, (B, 3) and (B,)."""

    def __init__(self, generator):
        self.embed = hcrot.Timesteps(4)
        self.first, self.time = hcrot.Linear(3, 8, generator=generator), hcrot.Linear(4, 8, generator=generator)
        self.act, self.last = hcrot.SiLU(), hcrot.Linear(8, 3, generator=generator)

    def forward(self, x, t):
        return self.last(self.act(self.first(x) + self.time(self.embed(t, dtype=x.dtype))))

    def backward(self, dout):
        dh = self.act.backward(self.last.backward(dout))
        self.time.backward(dh)
        return self.first.backward(dh)


def test_gradients_of_the_score_of_noise():
    rng = np.random.default_rng(13)
    score, t = ScoreOfNoise(Network(rng), VPSDE(), time_scale=9.0), np.array([0.05, 0.3, 0.6, 0.9, 1.0])
    hcrot.check_gradients(score, rng.standard_normal((5, 3)), forward=lambda one, x: one(x, t))
    x = rng.standard_normal((5, 3), dtype=np.float32)
    with score.inference():
        np.testing.assert_allclose(score(x, t), -score.model(x, 9 * t) / VPSDE().std(t)[:, None], rtol=1e-5)


def test_likelihood_leaves_the_network_as_it_was_and_is_the_same_twice():
    rng = np.random.default_rng(14)
    score = ScoreOfNoise(Network(rng), VPSDE(0.1, 5.0))
    for parameter in score.parameters():
        parameter.grad += 3.0
    before = score.state_dict()
    x = rng.standard_normal((4, 3), dtype=np.float32)
    one, other = (log_likelihood(score, score.sde, x, generator=15, rtol=1e-3, atol=1e-3)[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert all(np.all(parameter.grad == 3.0) for parameter in score.parameters())
    for name, values in score.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    samples = predictor_corrector(score, score.sde, (4, 3), num_steps=5, generator=16)
    assert samples.dtype == np.float32 and np.all(np.isfinite(samples))
    with pytest.raises(RuntimeError, match="backward needs a forward pass"):
        score.backward(samples)  # sampling kept nothing


# bad input ------------------------------------------------------------------------------------------------------------

X, SDE = np.ones((4, 2)), VPSDE()


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: predictor_corrector(oracle(SDE), "vp", (4, 2), generator=0), TypeError, "sde is a str, expected an SDE such as VESDE"),
    (lambda: predictor_corrector(oracle(SDE), SDE, (4, 2), generator=None), TypeError, "generator must be a numpy.random.Generator"),
    (lambda: predictor_corrector(oracle(SDE), SDE, (4, 2), generator=0, predictor="euler"), ValueError, "predictor 'euler' is unknown"),
    (lambda: predictor_corrector(oracle(SDE), SDE, (4, 2), generator=0, predictor="none", corrector="none"), ValueError, "both 'none'"),
    (lambda: predictor_corrector(oracle(SDE), SDE, (4, 2), generator=0, num_steps=10), ValueError, "beta.t. dt is 1.998 at t = 1"),
    (lambda: predictor_corrector(oracle(SDE), SDE, (4, 2), generator=0, sampling_eps=0), ValueError, "sampling_eps is 0, expected"),
    (lambda: predictor_corrector(3, SDE, (4, 2), generator=0), TypeError, "score is a int, expected a function of x and t"),
    (lambda: probability_flow(lambda x, t: x[:1], SDE, X), ValueError, r"the score returned float64 of shape \(1, 2\), expected"),
    (lambda: probability_flow(oracle(SDE), SDE, X, (0.5, 0.5)), ValueError, "is not a strictly rising or falling list"),
    (lambda: probability_flow(oracle(SDE), SDE, X[0]), ValueError, r"sample is float64 of shape \(2,\), expected"),
    (lambda: annealed_langevin(oracle(SDE), [1.0, 2.0], X, generator=0), ValueError, "is not a strictly falling list"),
    (lambda: annealed_langevin(oracle(SDE), [1.0], X, generator=0, step_size=-1), ValueError, "step_size is -1, expected a positive"),
    (lambda: log_likelihood(lambda x, t: x, SDE, X, generator=0), TypeError, "model is a function, expected a Module"),
    (lambda: log_likelihood(oracle(SDE).eval(), SDE, X, generator=0), ValueError, "model is in inference"),
    (lambda: log_likelihood(oracle(SDE), SDE, X), ValueError, "generator is None, expected a numpy.random.Generator or an int"),
    (lambda: log_likelihood(oracle(SDE), SDE, X, probes="exact", generator=0), ValueError, "'exact' takes neither a generator"),
    (lambda: log_likelihood(oracle(SDE), SDE, X, probes="uniform", generator=0), ValueError, "probes 'uniform' is unknown"),
    (lambda: log_likelihood(oracle(SDE), SDE, X, generator=0, num_probes=0), ValueError, "num_probes must be an int of at least 1"),
    (lambda: ScoreOfNoise(SDE, SDE), TypeError, "ScoreOfNoise: model is a VPSDE, expected a Module"),
    (lambda: ScoreOfNoise(oracle(SDE), SDE)(X, np.zeros(4)), ValueError, "s.t. is 0 at t = 0, where there is no score"),
])  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
