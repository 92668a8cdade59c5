"""DDIMScheduler and DDIMInverseScheduler without torch: the formulas, where steps lead, noise, inversion, bad input."""

import numpy as np
import pytest

from hcrot.schedulers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler

SHAPE = (3, 2, 5, 4)
SPACINGS = ("linspace", "leading", "trailing")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def draw(rng, count=3):
    return [rng.standard_normal(SHAPE) for _ in range(count)]


def prepared(steps, cls=DDIMScheduler, follow_timesteps=False, **options):
    scheduler = cls(**options)
    scheduler.set_timesteps(steps, follow_timesteps=follow_timesteps)
    return scheduler


def outputs_of_a_model_that_knows(x0, eps, abar):
    return {"epsilon": eps, "sample": x0, "v_prediction": np.sqrt(abar) * eps - np.sqrt(1 - abar) * x0}


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_step_keeps_the_image_and_moves_to_the_level_of_noise_below(eta, prediction_type):
    """Equation 12 in float64 from the betas alone."""
    rng = np.random.default_rng(0)
    betas = np.linspace(0.02, 0.2, 30)
    scheduler = prepared(10, num_train_timesteps=30, trained_betas=betas, prediction_type=prediction_type, clip_sample=False)
    abar = np.append(np.cumprod(1 - betas), 1.0)  # the last is abar at s = -1
    for t in scheduler.timesteps:
        s = max(t - 3, -1)
        x0, eps, z = draw(rng)
        noisy = np.sqrt(abar[t]) * x0 + np.sqrt(1 - abar[t]) * eps
        sigma = eta * np.sqrt((1 - abar[s]) / (1 - abar[t]) * (1 - abar[t] / abar[s]))
        expected = np.sqrt(abar[s]) * x0 + np.sqrt(1 - abar[s] - sigma**2) * eps + sigma * z
        output = outputs_of_a_model_that_knows(x0, eps, abar[t])[prediction_type]
        result = scheduler.step(output, t, noisy, eta, noise=z)
        np.testing.assert_allclose(result.prev_sample, expected, atol=3e-6)
        np.testing.assert_allclose(result.pred_original_sample, x0, atol=3e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_eta_one_is_ddpm(spacing):
    """Where nothing is clipped; with what float32 coefficients of either leave."""
    rng = np.random.default_rng(1)
    options = {"clip_sample": False, "timestep_spacing": spacing, "beta_schedule": "squaredcos_cap_v2"}
    ddim, ddpm = prepared(20, follow_timesteps=True, **options), DDPMScheduler(**options)
    ddpm.set_timesteps(20)
    for t in ddim.timesteps[1:-1]:  # the cosine schedule's first division is by 5e-5
        x, eps, z = draw(rng)
        expected = ddpm.step(eps, t, x, noise=z).prev_sample
        np.testing.assert_allclose(ddim.step(eps, t, x, 1.0, noise=z).prev_sample, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_use_clipped_model_output_takes_the_noise_from_the_clipped_image(prediction_type):
    x, output = draw(np.random.default_rng(2), 2)
    scheduler = prepared(10, prediction_type=prediction_type)
    abar_t, abar_s = (float(scheduler.alphas_cumprod[t]) for t in (500, 400))
    result = scheduler.step(output, 500, x, use_clipped_model_output=True)
    x0 = result.pred_original_sample
    assert np.abs(x0).max() == 1
    eps = (x - np.sqrt(abar_t) * x0) / np.sqrt(1 - abar_t)
    np.testing.assert_allclose(result.prev_sample, np.sqrt(abar_s) * x0 + np.sqrt(1 - abar_s) * eps, atol=1e-6)
    assert np.any(np.abs(result.prev_sample - scheduler.step(output, 500, x).prev_sample) > 0.01)


def test_steps_lead_a_stride_down_or_to_the_next_timestep():
    quirk, follow = (prepared(7, timestep_spacing="linspace", follow_timesteps=f) for f in (False, True))
    assert quirk.timesteps.tolist() == follow.timesteps.tolist() == [999, 832, 666, 500, 333, 166, 0]
    assert [quirk.previous_timestep(t) for t in quirk.timesteps] == [857, 690, 524, 358, 191, 24, -1]
    assert [follow.previous_timestep(t) for t in follow.timesteps] == [832, 666, 500, 333, 166, 0, -1]
    follow.set_timesteps(7)
    assert follow.previous_timestep(999) == 857  # each call decides anew


def test_timesteps_stay_in_range_where_those_of_diffusers_do_not():
    for options, count in (({"timestep_spacing": "trailing"}, 61), ({"steps_offset": 1}, 1000)):
        for cls in (DDIMScheduler, DDIMInverseScheduler):
            scheduler = prepared(count, cls, **options)
            assert len(scheduler.timesteps) == count
            assert scheduler.timesteps.min() >= 0 and scheduler.timesteps.max() <= 999


def test_set_alpha_to_one_decides_where_the_last_step_leads():
    x, eps = draw(np.random.default_rng(3), 2)
    for set_alpha_to_one in (True, False):
        scheduler = prepared(10, set_alpha_to_one=set_alpha_to_one, clip_sample=False)
        result = scheduler.step(eps, 0, x)
        expected = result.pred_original_sample if set_alpha_to_one else x  # abar_0 to abar_0: nothing moves
        np.testing.assert_allclose(result.prev_sample, expected, atol=1e-6)


def test_the_generator_is_used_where_there_is_noise_alone():
    x, eps = draw(np.random.default_rng(4), 2)
    scheduler, generator = prepared(10), np.random.default_rng(5)
    state = generator.bit_generator.state
    scheduler.step(eps, 500, x, generator=generator)
    scheduler.step(eps, 0, x, 1.0, generator=generator)  # sigma = 0 on the way to the image
    assert generator.bit_generator.state == state
    drawn = scheduler.step(eps, 500, x, 0.5, generator=generator).prev_sample
    z = np.random.default_rng(5).standard_normal(SHAPE)
    np.testing.assert_array_equal(drawn, scheduler.step(eps, 500, x, 0.5, noise=z).prev_sample)


# inversion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_inversion_moves_to_the_level_of_noise_above(prediction_type):
    rng = np.random.default_rng(6)
    options = {"prediction_type": prediction_type, "clip_sample": False, "set_alpha_to_one": False}
    scheduler = prepared(10, DDIMInverseScheduler, **options)
    assert scheduler.timesteps.tolist() == list(range(0, 1000, 100))
    abar = np.append(scheduler.alphas_cumprod, scheduler.alphas_cumprod[0]).astype(np.float64)
    for t, s in zip(scheduler.timesteps, [-1, *scheduler.timesteps[:-1]], strict=True):
        x0, eps = draw(rng, 2)
        x = np.sqrt(abar[s]) * x0 + np.sqrt(1 - abar[s]) * eps
        result = scheduler.step(outputs_of_a_model_that_knows(x0, eps, abar[s])[prediction_type], t, x)
        np.testing.assert_allclose(result.prev_sample, np.sqrt(abar[t]) * x0 + np.sqrt(1 - abar[t]) * eps, atol=2e-5)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_sampling_undoes_inversion(spacing, follow):
    """Step for step, if both are told the same noise."""
    rng = np.random.default_rng(7)
    options = {"clip_sample": False, "timestep_spacing": spacing, "num_train_timesteps": 100, "beta_end": 0.1}
    forth, back = (prepared(10, cls, follow, **options) for cls in (DDIMInverseScheduler, DDIMScheduler))
    x = image = rng.standard_normal(SHAPE)
    noises = [rng.standard_normal(SHAPE) for _ in forth.timesteps]
    for t, eps in zip(forth.timesteps, noises, strict=True):
        x = forth.step(eps, t, x).prev_sample
    assert np.abs(x - image).max() > 0.5
    for t, eps in zip(back.timesteps, reversed(noises), strict=True):
        x = back.step(eps, t, x).prev_sample
    np.testing.assert_allclose(x, image, atol=1e-4)


def test_an_image_says_nothing_of_its_noise():
    scheduler = DDIMInverseScheduler(prediction_type="sample")
    for follow in (False, True):
        with pytest.raises(ValueError, match="DDIMInverseScheduler.set_timesteps: x_0 says nothing of the noise where alphas_cumprod is 1"):
            scheduler.set_timesteps(10, follow_timesteps=follow)
    assert scheduler.num_inference_steps is None
    scheduler = DDIMInverseScheduler(prediction_type="sample", timestep_spacing="trailing")
    scheduler.set_timesteps(7)  # its first step comes from timestep 0, not from the image
    x, output = draw(np.random.default_rng(8), 2)
    assert np.all(np.isfinite(scheduler.step(output, 142, x).prev_sample))


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_pure_noise_says_nothing_of_the_image(spacing):
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing=spacing)
    with pytest.raises(ValueError, match="DDIMScheduler.set_timesteps: prediction_type 'epsilon' says nothing of x_0 where"):
        scheduler.set_timesteps(10)
    assert scheduler.num_inference_steps is None
    DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="leading").set_timesteps(10)
    DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing=spacing, prediction_type="sample").set_timesteps(10)
    DDIMInverseScheduler(rescale_betas_zero_snr=True, timestep_spacing=spacing).set_timesteps(10)  # it only leads there


# bad input ----------------------------------------------------------------------------------------------------

IMAGES = np.zeros(SHAPE, np.float32)


@pytest.mark.parametrize("cls", [DDIMScheduler, DDIMInverseScheduler])
def test_set_timesteps_comes_first(cls):
    with pytest.raises(ValueError, match=f"{cls.__name__}.step: set_timesteps was not called"):
        cls().step(IMAGES, 999, IMAGES)
    with pytest.raises(ValueError, match=f"{cls.__name__}.previous_timestep: set_timesteps was not called"):
        cls().previous_timestep(999)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"timestep": 501}, ValueError, "timestep 501 is not one of the 10 timesteps"),
        ({"eta": 1.5}, ValueError, "DDIMScheduler.step: eta is 1.5, expected a number from 0 to 1"),
        ({"eta": -0.1}, ValueError, "eta is -0.1"),
        ({"eta": float("nan")}, ValueError, "eta is nan"),
        ({"eta": 0.5}, ValueError, "DDIMScheduler.step: timestep 500 adds noise, expected a numpy.random.Generator"),
        ({"generator": 0}, TypeError, r"generator is the int 0, .* make rng = np.random.default_rng\(0\) once, before the loop"),
        ({"generator": np.random.default_rng(0), "noise": IMAGES}, ValueError, "expected either a generator or noise, got both"),
        ({"noise": IMAGES[:1]}, ValueError, r"noise has shape \(1, 2, 5, 4\)"),
        ({"model_output": IMAGES.astype(np.float64)}, TypeError, "model_output has dtype float64"),
    ],
)
def test_bad_input_to_the_step(changes, error, message):
    good = {"model_output": IMAGES, "timestep": 500, "sample": IMAGES}
    scheduler = prepared(10)
    scheduler.step(**good)
    with pytest.raises(error, match=message):
        scheduler.step(**{**good, **changes})
