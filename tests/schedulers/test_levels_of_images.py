"""Each image at a level of its own: noised between the timesteps, and denoised from a t of its own."""

import numpy as np
import pytest

from hcrot import schedulers

SHAPE = (4, 2, 5, 3)
IMAGES, NOISE, OUTPUT = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
STEPPING = [
    (schedulers.DDPMScheduler, {}, {}),
    (schedulers.DDPMScheduler, {"variance_type": "fixed_large", "thresholding": True, "sample_max_value": 2.0}, {}),
    (schedulers.DDPMScheduler, {"variance_type": "learned_range", "prediction_type": "v_prediction"}, {}),
    (schedulers.DDIMScheduler, {"timestep_spacing": "trailing"}, {"eta": 0.7}),
    (schedulers.DDIMScheduler, {"prediction_type": "sample", "set_alpha_to_one": False}, {"use_clipped_model_output": True}),
    (schedulers.DDIMInverseScheduler, {"prediction_type": "v_prediction"}, {}),
]


# add_noise_at -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_levels_of_the_grid_are_those_of_add_noise_and_others_lie_between(dtype):
    scheduler, t = schedulers.DDPMScheduler(), np.array([0, 10, 500, 999])
    images, noise = IMAGES.astype(dtype), np.asfortranarray(NOISE.astype(dtype))
    noisy = scheduler.add_noise_at(images, noise, scheduler.alphas_cumprod[t])
    np.testing.assert_allclose(noisy, scheduler.add_noise(images, noise, t), rtol=0, atol=5e-7)
    level = np.array([1.0, 0.999999, 0.3, 0.0])
    noisy, column = scheduler.add_noise_at(images, noise, level), level[:, None, None, None]
    assert noisy.dtype == dtype and noisy.strides == images.strides
    np.testing.assert_allclose(noisy, np.sqrt(column) * images + np.sqrt(1 - column) * noise, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(noisy[[0, 3]], [images[0], noise[3]])
    np.testing.assert_array_equal(scheduler.add_noise_at(images, noise, 0.3)[2], noisy[2])


@pytest.mark.parametrize(
    ("scheduler", "signal"),
    [
        (schedulers.EulerDiscreteScheduler(), 1.0),
        (schedulers.EDMDPMSolverMultistepScheduler(), 1.0),
        (schedulers.ScoreSdeVeScheduler(), 1.0),
        (schedulers.FlowMatchEulerDiscreteScheduler(), 0.75),
        (schedulers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), None),
        (schedulers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"), 0.75),
    ],
)
def test_where_sigmas_are_the_levels_they_are_taken(scheduler, signal):
    signal, sigma = (0.25, 0.75) if signal is None else (signal, 0.25)
    np.testing.assert_allclose(scheduler.add_noise_at(IMAGES, NOISE, 0.25), signal * IMAGES + sigma * NOISE, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("level", "error", "message"),
    [
        (1.5, ValueError, "level ranges from 1.5 to 1.5, expected 0 .. 1"),
        (np.array([0.5, -1.0, 0.5, np.nan]), ValueError, "level ranges from nan to nan, expected 0 .. 1"),
        ([0.5, 0.5], ValueError, r"level has shape \(2,\), expected one number or \(4,\)"),
        (True, TypeError, "level has dtype bool"),
    ],
)
def test_bad_levels_are_refused(level, error, message):
    with pytest.raises(error, match=f"DDPMScheduler.add_noise_at: {message}"):
        schedulers.DDPMScheduler().add_noise_at(IMAGES, NOISE, level)
    with pytest.raises(ValueError, match="EDMEulerScheduler.add_noise_at: level ranges from inf to inf, expected 0 .. inf"):
        schedulers.EDMEulerScheduler().add_noise_at(IMAGES, NOISE, np.inf)


# one t per image in step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "options", "step_options"), STEPPING)
def test_a_batch_of_timesteps_is_stepped_as_image_by_image(cls, options, step_options):
    """The same bits, with the last step, which adds no noise, beside others that do."""
    scheduler = cls(**options)
    scheduler.set_timesteps(10)
    output = np.concatenate([OUTPUT, 0.1 * NOISE], axis=1) if options.get("variance_type") == "learned_range" else OUTPUT
    takes_noise = cls is not schedulers.DDIMInverseScheduler
    for t in (scheduler.timesteps[[9, 0, 4, 4]], scheduler.timesteps[[3] * 4]):
        given = {"noise": NOISE} if takes_noise else {}
        got = scheduler.step(output, t, np.asfortranarray(IMAGES), **step_options, **given)
        assert got.prev_sample.dtype == np.float32 and got.prev_sample.flags.f_contiguous
        for k in range(4):
            given = {"noise": NOISE[[k]]} if takes_noise else {}
            alone = scheduler.step(output[[k]], int(t[k]), IMAGES[[k]], **step_options, **given)
            np.testing.assert_array_equal(got.prev_sample[[k]], alone.prev_sample)
            np.testing.assert_array_equal(got.pred_original_sample[[k]], alone.pred_original_sample)


def test_one_generator_draws_for_all_images_and_none_is_needed_where_no_noise_is_added():
    scheduler = schedulers.DDPMScheduler()
    scheduler.set_timesteps(10)
    last, first = scheduler.timesteps[[9] * 4], scheduler.timesteps[[0] * 4]
    scheduler.step(OUTPUT, last, IMAGES)
    ours, one = (scheduler.step(OUTPUT, t, IMAGES, np.random.default_rng(1)).prev_sample for t in (first, int(first[0])))
    np.testing.assert_array_equal(ours, one)
    with pytest.raises(ValueError, match="adds noise, expected a numpy.random.Generator"):
        scheduler.step(OUTPUT, np.array([last[0], last[0], last[0], first[0]]), IMAGES)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "PNDMScheduler", "HeunDiscreteScheduler"])
def test_schedulers_that_remember_steps_want_one_timestep(name):
    scheduler = getattr(schedulers, name)()
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match=rf"{name}.step: timestep has shape \(4,\), expected one .*a batch is denoised as a whole"):
        scheduler.step(OUTPUT, scheduler.timesteps[:4], IMAGES)


@pytest.mark.parametrize(("name", "options", "step_options"), [
    ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}, {"s_churn": 3.0, "s_tmin": 2.0}),
    ("EulerAncestralDiscreteScheduler", {}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, {}),
    ("EDMEulerScheduler", {}, {}),
])  # fmt: skip
def test_euler_steps_each_image_from_its_own_level(name, options, step_options):
    def fresh():
        scheduler = getattr(schedulers, name)(**options)
        scheduler.set_timesteps(10)
        return scheduler

    scheduler = fresh()
    for t in (scheduler.timesteps[[9, 0, 4, 4]], scheduler.timesteps[[3] * 4]):
        x = np.asfortranarray(IMAGES)
        seen, got = scheduler.scale_model_input(x, t), scheduler.step(OUTPUT, t, x, noise=NOISE, **step_options).prev_sample
        for k in range(4):
            alone = fresh()
            np.testing.assert_array_equal(seen[[k]], alone.scale_model_input(IMAGES[[k]], t[k]))
            expected = alone.step(OUTPUT[[k]], t[k], IMAGES[[k]], noise=NOISE[[k]], **step_options).prev_sample
            np.testing.assert_array_equal(got[[k]], expected)
    rngs = [np.random.default_rng(2) for _ in range(2)]
    (several,) = scheduler.step(OUTPUT, t, IMAGES, generator=rngs[0], return_dict=False, **step_options)[:1]
    np.testing.assert_array_equal(several, fresh().step(OUTPUT, t[0], IMAGES, generator=rngs[1], **step_options).prev_sample)
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state
    with pytest.raises(ValueError, match=f"{name}.step: timestep has shape .*3,.*expected one number"):
        scheduler.step(OUTPUT, t[:3], IMAGES)
    with pytest.raises(ValueError, match=f"{name}.step: timestep -7.0 is not one of the 10"):
        scheduler.step(OUTPUT, np.append(t[:3], -7.0), IMAGES)
