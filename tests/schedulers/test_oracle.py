"""Every sampler against an oracle: for data N(0, s^2) the best prediction is known, so is the variance of the samples.

With x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps and x_0 ~ N(0, s^2), the variance of x_t is v = abar s^2 + 1 - abar, and
the best prediction of any linear target y is cov(y, x_t)/v x_t:

    E[eps | x_t] = sqrt(1 - abar)/v x_t      E[x_0 | x_t] = sqrt(abar) s^2/v x_t

A sampler fed with it is a chain x_s = gain x_t + sigma z, so var <- gain^2 var + sigma^2 from var = 1 says exactly what
comes out. A further scheduler joins by a line in CHAINS: how it is made, and its gain and sigma from the paper.
"""

import numpy as np
import pytest

from hcrot.schedulers import DDPMScheduler

DATA_STD = 0.5


def best_prediction(prediction_type, abar):
    """The factor of x_t in the best prediction, a float."""
    variance = abar * DATA_STD**2 + 1 - abar
    eps, x0 = np.sqrt(1 - abar) / variance, np.sqrt(abar) * DATA_STD**2 / variance
    return {"epsilon": eps, "sample": x0, "v_prediction": np.sqrt(abar) * eps - np.sqrt(1 - abar) * x0}[prediction_type]


def ddpm_chain(abar_t, abar_s, t, variance_type):
    """gain and sigma of the step t -> s: Ho et al. 2020, eq. 7, at x_0 = E[x_0 | x_t]."""
    beta = 1 - abar_t / abar_s
    x0 = best_prediction("sample", abar_t)
    gain = np.sqrt(abar_s) * beta / (1 - abar_t) * x0 + np.sqrt(1 - beta) * (1 - abar_s) / (1 - abar_t)
    variance = beta if variance_type.startswith("fixed_large") else (1 - abar_s) / (1 - abar_t) * beta
    return gain, np.sqrt(variance) if t > 0 else 0.0


def closed_form_std(scheduler, chain, **options):
    """The standard deviation of the samples by the recursion, in float64 from the betas alone."""
    abar = np.append(np.cumprod(1 - scheduler.betas.astype(np.float64)), 1.0)  # the last stands at s = -1
    variance = 1.0
    for t, s in zip(scheduler.timesteps, [*scheduler.timesteps[1:], -1], strict=True):
        gain, sigma = chain(abar[t], abar[s], t, **options)
        variance = gain**2 * variance + sigma**2
    return np.sqrt(variance)


def predict(scheduler, x, t):
    return float(best_prediction(scheduler.config["prediction_type"], float(scheduler.alphas_cumprod[t]))) * x


def std_of_linear_form(scheduler):
    """The same from the scheduler's own step: of the pair x = (1, 0), z = (0, 1) it makes (gain, sigma)."""
    variance = 1.0
    x, z = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    for t in scheduler.timesteps:
        gain, sigma = scheduler.step(predict(scheduler, x, t), t, x, noise=z).prev_sample
        variance = gain**2 * variance + sigma**2
    return np.sqrt(variance)


def sampled_std(scheduler, count, rng):
    x = rng.standard_normal(count, dtype=np.float32)
    for t in scheduler.timesteps:
        x = scheduler.step(predict(scheduler, x, t), t, x, generator=rng).prev_sample
    assert x.dtype == np.float32
    return np.sqrt(np.mean(x.astype(np.float64) ** 2))


def ddpm(**options):
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False, **options)


CHAINS = {
    f"ddpm-{variance_type}": (ddpm, ddpm_chain, {"variance_type": variance_type})
    for variance_type in ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
}
SPACINGS = ("linspace", "leading", "trailing")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [10, 50, 800, 1000])
@pytest.mark.parametrize("name", CHAINS)
def test_step_follows_the_closed_form(name, steps, spacing, prediction_type):
    make, chain, options = CHAINS[name]
    scheduler = make(prediction_type=prediction_type, timestep_spacing=spacing, **options)
    scheduler.set_timesteps(steps)
    # what float32 coefficients leave of the smallest betas costs 3e-4 of the result at 1000 steps, in diffusers too
    np.testing.assert_allclose(std_of_linear_form(scheduler), closed_form_std(scheduler, chain, **options), rtol=5e-4)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(("steps", "count"), [(10, 200_000), (50, 200_000), (800, 10_000), (1000, 10_000)])
@pytest.mark.parametrize("name", CHAINS)
def test_samples_follow_the_closed_form(name, steps, count, prediction_type):
    make, chain, options = CHAINS[name]
    scheduler = make(prediction_type=prediction_type, timestep_spacing="linspace", **options)
    scheduler.set_timesteps(steps)
    expected = closed_form_std(scheduler, chain, **options)
    standard_error = expected / np.sqrt(2 * count)
    assert abs(sampled_std(scheduler, count, np.random.default_rng(steps)) - expected) < 4 * standard_error


@pytest.mark.parametrize(
    ("steps", "expected", "without_stride"), [(10, 0.376, 0.980), (50, 0.462, 0.927), (800, 0.499, 0.533)]
)
def test_the_step_removes_the_noise_of_its_whole_stride(steps, expected, without_stride):
    """B45: the step went to t - 1 whatever the stride. Its figures come of sampling, hence 2 %."""
    scheduler = ddpm(timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    std = std_of_linear_form(scheduler)
    assert abs(std / expected - 1) < 0.02
    assert abs(std / without_stride - 1) > 0.05


def test_more_steps_come_closer_to_the_data():
    stds = []
    for steps in (10, 50, 200, 1000):
        scheduler = ddpm(timestep_spacing="linspace")
        scheduler.set_timesteps(steps)
        stds.append(std_of_linear_form(scheduler))
    assert stds == sorted(stds) and abs(stds[-1] - DATA_STD) < 0.003
