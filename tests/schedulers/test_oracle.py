"""Every sampler against an oracle: for data N(mu, s^2) the best prediction is known, so is the distribution of the samples.

With x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps and x_0 ~ N(mu, s^2), x_t has the mean sqrt(abar) mu and the variance
v = abar s^2 + 1 - abar, and with d_t = x_t - sqrt(abar) mu the best predictions are

    E[eps | x_t] = sqrt(1 - abar)/v d_t      E[x_0 | x_t] = mu + sqrt(abar) s^2/v d_t

A sampler fed with it is a chain d_s = gain d_t + sigma z, so var <- gain^2 var + sigma^2 from var = 1 says exactly what
comes out. A further scheduler joins by a line in CHAINS: how it is made, and its gain and sigma from the paper.

A sampler without noise maps x_T to x_0, and with more and more steps that map becomes the one of the differential equation
dx/sqrt(abar) = E[eps | x] d(lambda), whose solution is d_t/sqrt(v_t) = constant. Such a scheduler joins by a line in FLOWS.
"""

from functools import partial

import numpy as np
import pytest

from hcrot.schedulers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler, PNDMScheduler

DATA_MEAN, DATA_STD = 0.3, 0.5


def variance_at(abar):
    return abar * DATA_STD**2 + 1 - abar


def best_prediction(prediction_type, abar):
    """The factor of d_t in the best prediction, a float."""
    eps, x0 = np.sqrt(1 - abar) / variance_at(abar), np.sqrt(abar) * DATA_STD**2 / variance_at(abar)
    return {"epsilon": eps, "sample": x0, "v_prediction": np.sqrt(abar) * eps - np.sqrt(1 - abar) * x0}[prediction_type]


def ddpm_chain(abar_t, abar_s, t, variance_type):
    """gain and sigma of the step t -> s: Ho et al. 2020, eq. 7, at x_0 = E[x_0 | x_t]."""
    beta = 1 - abar_t / abar_s
    x0 = best_prediction("sample", abar_t)
    gain = np.sqrt(abar_s) * beta / (1 - abar_t) * x0 + np.sqrt(1 - beta) * (1 - abar_s) / (1 - abar_t)
    variance = beta if variance_type.startswith("fixed_large") else (1 - abar_s) / (1 - abar_t) * beta
    return gain, np.sqrt(variance) if t > 0 else 0.0


def ddim_chain(abar_t, abar_s, t, eta):
    """gain and sigma of the step t -> s: Song et al. 2020, eq. 12 and 16."""
    sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    x0, eps = best_prediction("sample", abar_t), best_prediction("epsilon", abar_t)
    return np.sqrt(abar_s) * x0 + np.sqrt(max(1 - abar_s - sigma**2, 0)) * eps, sigma


def closed_form_std(scheduler, chain, **options):
    """The standard deviation of the samples by the recursion, in float64 from the betas alone."""
    abar = np.append(np.cumprod(1 - scheduler.betas.astype(np.float64)), 1.0)  # the last stands at s = -1
    variance = 1.0
    for t, s in zip(scheduler.timesteps, [*scheduler.timesteps[1:], -1], strict=True):
        gain, sigma = chain(abar[t], abar[s], t, **options)
        variance = gain**2 * variance + sigma**2
    return np.sqrt(variance)


def predict(scheduler, x, t):
    prediction_type, abar = scheduler.config["prediction_type"], float(scheduler.alphas_cumprod[t])
    at_mean = {"epsilon": 0.0, "sample": DATA_MEAN, "v_prediction": -((1 - abar) ** 0.5) * DATA_MEAN}[prediction_type]
    return at_mean + float(best_prediction(prediction_type, abar)) * (x - abar**0.5 * DATA_MEAN)


def std_of_linear_form(scheduler):
    """The same from the scheduler's own step: of d = (0, 1, 0), z = (0, 0, 1) it makes (0, gain, sigma), and the mean stays."""
    variance = 1.0
    z = np.array([0.0, 0.0, 1.0])
    for t in scheduler.timesteps:
        x = np.sqrt(float(scheduler.alphas_cumprod[t])) * DATA_MEAN + np.array([0.0, 1.0, 0.0])
        mean, *moved = scheduler.step(predict(scheduler, x, t), t, x, noise=z).prev_sample
        s = scheduler.previous_timestep(t)
        np.testing.assert_allclose(mean, DATA_MEAN * (np.sqrt(float(scheduler.alphas_cumprod[s])) if s >= 0 else 1), rtol=1e-3)
        gain, sigma = moved - mean
        variance = gain**2 * variance + sigma**2
    return np.sqrt(variance)


def samples(scheduler, count, rng):
    x = rng.standard_normal(count, dtype=np.float32)
    for t in scheduler.timesteps:
        x = scheduler.step(predict(scheduler, x, t), t, x, generator=rng).prev_sample
    assert x.dtype == np.float32
    return x.astype(np.float64)


def ddpm(**options):
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False, **options)


def ddim(eta, **options):
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False, **options)
    scheduler.set_timesteps = partial(scheduler.set_timesteps, follow_timesteps=True)
    scheduler.step = partial(scheduler.step, eta=eta)
    return scheduler


CHAINS = {
    f"ddpm-{variance_type}": (ddpm, ddpm_chain, {"variance_type": variance_type})
    for variance_type in ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
} | {f"ddim-eta-{eta}": (ddim, ddim_chain, {"eta": eta}) for eta in (0.0, 0.5, 1.0)}
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
    drawn = samples(scheduler, count, np.random.default_rng(steps))
    assert abs(drawn.std() - expected) < 4 * expected / np.sqrt(2 * count)
    assert abs(drawn.mean() - DATA_MEAN) < 4 * expected / np.sqrt(count)


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


def follow_the_flow(scheduler, steps):
    """Where points end, and where the differential equation would have led them."""
    scheduler.set_timesteps(steps, follow_timesteps=True)
    x = start = np.linspace(-2, 2, 5)
    for t in scheduler.timesteps:
        x = scheduler.step(predict(scheduler, x, t), t, x).prev_sample
    if isinstance(scheduler, DDIMInverseScheduler):
        first, last = scheduler.initial_alpha_cumprod, scheduler.alphas_cumprod[scheduler.timesteps[-1]]
    else:
        first, last = scheduler.alphas_cumprod[scheduler.timesteps[0]], scheduler.final_alpha_cumprod
    first, last = float(first), float(last)
    stretch = np.sqrt(variance_at(last) / variance_at(first))
    return x, np.sqrt(last) * DATA_MEAN + stretch * (start - np.sqrt(first) * DATA_MEAN)


STEPS = (25, 50, 100, 200)
UNCLIPPED = {"clip_sample": False}
INVERSE_OF_X0 = {"clip_sample": False, "set_alpha_to_one": False}
FLOWS = {  # the scheduler, its options, error of any point at 200 steps, by what part the error shrinks from 25 steps to 200
    "ddim-epsilon": (DDIMScheduler, {"prediction_type": "epsilon", **UNCLIPPED}, 0.02, 1 / 7),
    "ddim-sample": (DDIMScheduler, {"prediction_type": "sample", **UNCLIPPED}, 0.02, 1 / 7),
    "ddim-v": (DDIMScheduler, {"prediction_type": "v_prediction", **UNCLIPPED}, 0.02, 1 / 7),
    "inverse-epsilon": (DDIMInverseScheduler, {"prediction_type": "epsilon", **UNCLIPPED}, 0.02, 1 / 5),
    "inverse-sample": (DDIMInverseScheduler, {"prediction_type": "sample", **INVERSE_OF_X0}, 0.2, 1 / 20),
    "inverse-v": (DDIMInverseScheduler, {"prediction_type": "v_prediction", **UNCLIPPED}, 0.05, 1 / 7),
    "pndm-epsilon": (PNDMScheduler, {"prediction_type": "epsilon"}, 2e-4, 1 / 6),
    "pndm-sample": (PNDMScheduler, {"prediction_type": "sample"}, 2e-3, 1 / 16),
    "pndm-v": (PNDMScheduler, {"prediction_type": "v_prediction"}, 0.02, 1 / 7),
    "plms-epsilon": (PNDMScheduler, {"prediction_type": "epsilon", "skip_prk_steps": True}, 2e-4, 1 / 6),
    "plms-to-image": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": True}, 5e-4, 1 / 2),
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", FLOWS)
def test_samplers_without_noise_converge_to_the_flow(name, spacing):
    make, options, largest, part = FLOWS[name]
    errors = []
    for steps in STEPS:
        reached, exact = follow_the_flow(make(timestep_spacing=spacing, **options), steps)
        errors.append(np.max(np.abs(reached - exact)))
    assert errors[-1] < largest
    assert errors[-1] < part * errors[0]


def test_better_slopes_are_worth_their_name():
    """With 50 steps the error of PNDM is a hundredth of DDIM's."""
    errors = {}
    for name in ("ddim-epsilon", "pndm-epsilon", "plms-epsilon"):
        make, options, *_ = FLOWS[name]
        reached, exact = follow_the_flow(make(timestep_spacing="linspace", **options), 50)
        errors[name] = np.max(np.abs(reached - exact))
    assert max(errors["pndm-epsilon"], errors["plms-epsilon"]) < errors["ddim-epsilon"] / 50
