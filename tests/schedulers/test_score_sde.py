"""ScoreSdeVeScheduler and ScoreSdeVpScheduler without torch: walks on data whose score is known, levels, bad input."""

import numpy as np
import pytest

from hcrot.schedulers import ScoreSdeVeScheduler, ScoreSdeVpScheduler

MEAN, STD = 2.0, 0.5  # of the data


def test_ve_reaches_the_distribution_of_the_data():
    scheduler, rng = ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=20.0), np.random.default_rng(0)
    scheduler.set_timesteps(150)
    scheduler.set_sigmas(150)
    x = rng.standard_normal((2000, 2)) * scheduler.init_noise_sigma
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=True):
        x = scheduler.step_correct((MEAN - x) / (STD**2 + sigma**2), x, rng).prev_sample
        out = scheduler.step_pred((MEAN - x) / (STD**2 + sigma**2), t, x, rng)
        x = out.prev_sample
    assert x.dtype == np.float64
    assert abs(out.prev_sample_mean.mean() - MEAN) < 0.06 and abs(out.prev_sample_mean.std() - STD) < 0.04


def test_vp_reaches_the_distribution_of_the_data():
    scheduler, rng = ScoreSdeVpScheduler(), np.random.default_rng(1)
    scheduler.set_timesteps(300)
    x = rng.standard_normal((2000, 2))
    for t in scheduler.timesteps:
        signal, std = scheduler.sde.signal(t), scheduler.sde.std(t)
        noise = std * (x - signal * MEAN) / ((signal * STD) ** 2 + std**2)  # -s score
        x, mean = scheduler.step_pred(noise, x, t, rng)
    assert abs(mean.mean() - MEAN) < 0.06 and abs(mean.std() - STD) < 0.04


def test_the_levels_of_vp_are_those_of_its_sde():
    scheduler = ScoreSdeVpScheduler()
    images, noise = np.random.default_rng(2).standard_normal((2, 3, 2, 5, 4))
    t = np.array([0.1, 0.5, 1.0])
    np.testing.assert_allclose(scheduler.add_noise(images, noise, t), scheduler.sde.add_noise(images, noise, t), rtol=1e-14)
    signal, std = (level.reshape(3, 1, 1, 1) for level in (scheduler.sde.signal(t), scheduler.sde.std(t)))
    np.testing.assert_allclose(scheduler.get_velocity(images, noise, t), signal * noise - std * images, rtol=1e-12)


def test_what_is_not_there_is_refused_by_name():
    x = np.zeros((2, 3))
    for cls in (ScoreSdeVeScheduler, ScoreSdeVpScheduler):
        with pytest.raises(NotImplementedError, match=f"{cls.__name__}.step: expected a call of step_pred"):
            cls().step(x, 1.0, x)
    with pytest.raises(NotImplementedError, match="get_velocity: expected a scheduler that preserves the variance"):
        ScoreSdeVeScheduler().get_velocity(x, x, 1)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ScoreSdeVeScheduler(sigma_min=2.0, sigma_max=1.0), "sigma_max is 1.0, expected more than sigma_min 2.0"),
    (lambda: ScoreSdeVeScheduler(sampling_eps=1.0), "sampling_eps is 1.0, expected less than 1"),
    (lambda: ScoreSdeVeScheduler(correct_steps=-1), "correct_steps is -1, expected at least 0"),
    (lambda: ScoreSdeVpScheduler(beta_min=2.0, beta_max=1.0), "beta_max is 1.0, expected at least beta_min 2.0"),
    (lambda: ready().set_sigmas(5), "num_inference_steps is 5, expected 4 as there are timesteps"),
    (lambda: unready().step_pred(X, 1.0, X, RNG), r"4 timesteps and 2000 sigmas, expected set_sigmas\(4\) after set_timesteps\(4\)"),
    (lambda: ready().step_pred(X, 1.5, X, RNG), "timestep ranges from 1.5 to 1.5, expected numbers from 0 to 1"),
    (lambda: ready().step_pred(X, [1.0, 0.5, 0.1], X, RNG), r"timestep has shape \(3,\), expected one number or \(2,\)"),
    (lambda: ready().step_pred(X[:1], 1.0, X, RNG), "model_output has shape"),
    (lambda: ready().step_pred(X, 1.0, X), "expected a numpy.random.Generator as generator"),
    (lambda: ready().step_pred(X, 1.0, X, RNG, noise=X), "expected either a generator or noise, got both"),
    (lambda: ready().step_correct(0 * X, X, RNG), "step_correct: the mean norm of the score is 0.0, expected a positive number"),
    (lambda: ready().add_noise(X, X, 4), r"timesteps range from 4 to 4, expected 0 .. 3"),
    (lambda: ready(ScoreSdeVpScheduler).step_pred(X, X, 0.0, RNG), "t is 0, where there is no noise to predict"),
    (lambda: ScoreSdeVpScheduler().step_pred(X, X, 1.0, RNG), "set_timesteps was not called"),
])  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# lists of times -----------------------------------------------------------------------------------------------------


def test_listed_times_lead_from_one_to_the_next():
    """VE: exact however long the steps are, for a point at 0, whose score is -x/sigma^2. VP: equally spaced, the same as by number."""
    ve, times = ScoreSdeVeScheduler(sigma_min=0.1, sigma_max=10.0), [1.0, 0.7, 0.25]
    ve.set_timesteps(timesteps=times)
    x = np.full((2, 3), 4.0)
    for t, following in zip(ve.timesteps, [*ve.timesteps[1:], None], strict=True):
        sigma, below = float(ve.sde.std(t)), 0.0 if following is None else float(ve.sde.std(following))
        got = ve.step_pred(-x / sigma**2, t, x, noise=np.zeros_like(x)).prev_sample
        np.testing.assert_allclose(got, x * below**2 / sigma**2, rtol=1e-5, atol=1e-6)
        assert ve.previous_timestep(t) == (-1 if following is None else following)
    with pytest.raises(ValueError, match="step_pred: time 0.5 is not one of the 3"):
        ve.step_pred(x, 0.5, x, RNG)

    spaced, listed = ScoreSdeVpScheduler(), ScoreSdeVpScheduler()
    spaced.set_timesteps(4)
    listed.set_timesteps(timesteps=[1.0, 0.75, 0.5, 0.25])
    for ours, theirs in zip(listed.step_pred(X, 2 * X, 0.75, noise=X), spaced.step_pred(X, 2 * X, 0.75, noise=X), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    score, z, beta = -X / spaced.sde.std(0.5), 3 * X, spaced.sde.beta(0.5)
    size = 2 * np.exp(-beta / 4) * (0.2 * 3 * spaced.sde.std(0.5)) ** 2  # all rows have one norm
    for scheduler in (spaced, listed):
        got = scheduler.step_correct(X, 2 * X, 0.5, noise=z, snr=0.2)
        np.testing.assert_allclose(got, 2 * X + size * score + np.sqrt(2 * size) * z, rtol=1e-12)


@pytest.mark.parametrize("cls", [ScoreSdeVeScheduler, ScoreSdeVpScheduler])
@pytest.mark.parametrize(("arguments", "message"), [
    ({}, "expected one of num_inference_steps, timesteps, got none"),
    ({"timesteps": [0.5, 0.7]}, "is not a strictly descending list"),
    ({"timesteps": [999, 500]}, "timesteps range from 500 to 999, expected times of the SDE, above 0 and at most 1"),
])  # fmt: skip
def test_bad_lists_of_times(cls, arguments, message):
    with pytest.raises(ValueError, match=f"{cls.__name__}.set_timesteps: .*{message}"):
        cls().set_timesteps(**arguments)


X, RNG = np.ones((2, 3)), np.random.default_rng(3)


def unready():
    scheduler = ScoreSdeVeScheduler()
    scheduler.set_timesteps(4)
    return scheduler


def ready(cls=ScoreSdeVeScheduler):
    scheduler = cls()
    scheduler.set_timesteps(4)
    if cls is ScoreSdeVeScheduler:
        scheduler.set_sigmas(4)
    return scheduler
