"""DDPMScheduler without torch: timesteps, the formulas of both processes, memory order, dtype, bad input."""

import numpy as np
import pytest

from hcrot.schedulers import DDPMScheduler, SchedulerOutput
from support.memory_order import channels_last

SHAPE = (3, 2, 5, 4)
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def draw(rng, dtype=np.float64, count=3):
    return [rng.standard_normal(SHAPE).astype(dtype) for _ in range(count)]


# timesteps ----------------------------------------------------------------------------------------------------


def test_all_timesteps_before_set_timesteps():
    scheduler = DDPMScheduler(5)
    assert scheduler.timesteps.tolist() == [4, 3, 2, 1, 0]
    assert scheduler.num_inference_steps is None
    assert [scheduler.previous_timestep(t) for t in range(5)] == [-1, 0, 1, 2, 3]


def test_custom_timesteps_lead_from_one_to_the_next():
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(timesteps=[950, 400, 90, 3])
    assert scheduler.timesteps.tolist() == [950, 400, 90, 3]
    assert scheduler.num_inference_steps == 4
    assert [scheduler.previous_timestep(t) for t in scheduler.timesteps] == [400, 90, 3, -1]


def test_previous_timestep_strides_with_the_timesteps():
    # B45: the step removed one step's noise whatever the stride
    scheduler = DDPMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(10)
    assert scheduler.previous_timestep(999) == 888
    assert scheduler.previous_timestep(0) == -1


# the forward process ------------------------------------------------------------------------------------------


def test_add_noise_and_velocity_are_the_formulas():
    rng = np.random.default_rng(0)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x0, noise = draw(rng, count=2)
    timesteps = np.array([0, 431, 999])
    noisy = scheduler.add_noise(x0, noise, timesteps)
    velocity = scheduler.get_velocity(x0, noise, timesteps)
    for i, t in enumerate(timesteps):
        abar = float(scheduler.alphas_cumprod[t])
        np.testing.assert_allclose(noisy[i], abar**0.5 * x0[i] + (1 - abar) ** 0.5 * noise[i], rtol=1e-13)
        np.testing.assert_allclose(velocity[i], abar**0.5 * noise[i] - (1 - abar) ** 0.5 * x0[i], rtol=1e-13)


def test_add_noise_computes_in_the_dtype_of_the_images():
    scheduler = DDPMScheduler()
    x0, noise = draw(np.random.default_rng(17), np.float32, count=2)
    abar = scheduler.alphas_cumprod[437]
    np.testing.assert_array_equal(scheduler.add_noise(x0, noise, 437), np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise)


@pytest.mark.parametrize("timesteps", [7, np.int64(7), np.array(7), [7], np.array([7]), np.array([7, 7, 7], np.int32)])
def test_add_noise_takes_one_timestep_for_all(timesteps):
    rng = np.random.default_rng(1)
    scheduler = DDPMScheduler()
    x0, noise = draw(rng, count=2)
    expected = scheduler.add_noise(x0, noise, [7, 7, 7])
    np.testing.assert_array_equal(scheduler.add_noise(x0, noise, timesteps), expected)


def test_add_noise_takes_any_number_of_axes():
    scheduler = DDPMScheduler()
    x0, noise = np.ones(4), np.zeros(4)
    expected = np.sqrt(scheduler.alphas_cumprod[[0, 1, 2, 3]].astype(np.float64))
    np.testing.assert_array_equal(scheduler.add_noise(x0, noise, [0, 1, 2, 3]), expected)


# the reverse step ---------------------------------------------------------------------------------------------


def model_output_for(prediction_type, scheduler, x0, noise, t):
    """What a model that knows x_0 and eps predicts."""
    return {"epsilon": noise, "sample": x0, "v_prediction": scheduler.get_velocity(x0, noise, t)}[prediction_type]


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_step_finds_the_image_behind_a_perfect_prediction(prediction_type, t):
    rng = np.random.default_rng(2)
    scheduler = DDPMScheduler(prediction_type=prediction_type, clip_sample=False)
    x0, noise, z = draw(rng)
    noisy = scheduler.add_noise(x0, noise, t)
    output = scheduler.step(model_output_for(prediction_type, scheduler, x0, noise, t), t, noisy, noise=z)
    np.testing.assert_allclose(output.pred_original_sample, x0, atol=2e-5)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("variance_type", [*VARIANCE_TYPES, None])
def test_step_is_the_posterior(variance_type, spacing):
    """Against mu_tilde, beta_tilde and beta in float64 from the betas alone; B46: every variance type and spacing."""
    rng = np.random.default_rng(3)
    betas = np.linspace(0.02, 0.2, 30)
    scheduler = DDPMScheduler(
        30, trained_betas=betas, variance_type=variance_type, timestep_spacing=spacing, clip_sample=False
    )
    scheduler.set_timesteps(7)
    abar = np.append(np.cumprod(1 - betas), 1.0)  # the last is abar at s = -1
    for t, s in zip(scheduler.timesteps, [*scheduler.timesteps[1:], -1], strict=True):
        x0, noise, z = draw(rng)
        noisy = np.sqrt(abar[t]) * x0 + np.sqrt(1 - abar[t]) * noise
        alpha = abar[t] / abar[s]
        mean = np.sqrt(abar[s]) * (1 - alpha) / (1 - abar[t]) * x0
        mean += np.sqrt(alpha) * (1 - abar[s]) / (1 - abar[t]) * noisy
        small = (1 - abar[s]) / (1 - abar[t]) * (1 - alpha)
        sigma = np.sqrt(1 - alpha if variance_type in ("fixed_large", "fixed_large_log") else small) if t > 0 else 0.0
        result = scheduler.step(noise, t, noisy, noise=z)
        np.testing.assert_allclose(result.prev_sample, mean + sigma * z, atol=2e-6)
        assert np.all(np.isfinite(result.prev_sample))


@pytest.mark.parametrize(
    ("num_train_timesteps", "betas", "atol"), [(40, (0.02, 0.3), 3e-6), (1000, (1e-4, 0.02), 3e-4)]
)
def test_all_steps_equal_the_line_of_algorithm_2(num_train_timesteps, betas, atol):
    """x_{t-1} = (x_t - beta/sqrt(1 - abar) eps)/sqrt(alpha) + sigma z; small ones cancel in float32, hence the atol."""
    rng = np.random.default_rng(4)
    scheduler = DDPMScheduler(num_train_timesteps, *betas, variance_type="fixed_large", clip_sample=False)
    beta = scheduler.betas.astype(np.float64)
    abar = np.cumprod(1 - beta)
    for t in scheduler.timesteps:
        x, eps, z = draw(rng)
        x = np.sqrt(abar[t]) * x + np.sqrt(1 - abar[t]) * eps
        expected = (x - beta[t] / np.sqrt(1 - abar[t]) * eps) / np.sqrt(1 - beta[t]) + np.sqrt(beta[t]) * z * (t > 0)
        np.testing.assert_allclose(scheduler.step(eps, t, x, noise=z).prev_sample, expected, atol=atol)


def test_clipping_can_be_switched_off_and_set():
    # B46
    sample = np.full(SHAPE, 3.0)
    for options, limit in [({}, 1.0), ({"clip_sample_range": 2.5}, 2.5), ({"clip_sample": False}, 4.0)]:
        scheduler = DDPMScheduler(prediction_type="sample", **options)
        for value in (4.0, -4.0):
            estimate = scheduler.step(np.full(SHAPE, value), 0, sample).pred_original_sample
            np.testing.assert_array_equal(estimate, np.full(SHAPE, np.sign(value) * limit))


def test_thresholding_takes_the_quantile_of_each_image():
    values = np.linspace(-4, 4, 41).reshape(1, 1, 41) * np.array([0.1, 0.5, 1.0]).reshape(3, 1, 1)
    options = {"thresholding": True, "dynamic_thresholding_ratio": 0.5, "sample_max_value": 1.5, "prediction_type": "sample"}
    estimate = DDPMScheduler(**options).step(values, 0, values).pred_original_sample
    medians = np.array([0.2, 1.0, 2.0]).reshape(3, 1, 1)  # of the absolute values
    s = np.clip(medians, 1, 1.5)
    np.testing.assert_allclose(estimate, np.clip(values, -s, s) / s, rtol=1e-15)
    assert np.abs(estimate[0]).max() == pytest.approx(0.4) and np.abs(estimate[2]).max() == 1


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_learned_variance_is_that_of_the_second_half_of_the_channels(variance_type):
    rng = np.random.default_rng(18)
    x, eps, z = draw(rng)
    betas = np.linspace(0.02, 0.2, 30)
    scheduler = DDPMScheduler(30, trained_betas=betas, variance_type=variance_type)
    fixed = DDPMScheduler(30, trained_betas=betas)
    abar, t = np.cumprod(1 - betas), 20
    learned = rng.uniform(-1, 1, SHAPE)
    small, large = (1 - abar[t - 1]) / (1 - abar[t]) * betas[t], betas[t]
    variance = np.maximum(learned, 1e-20) if variance_type == "learned" else small ** ((1 - learned) / 2) * large ** ((1 + learned) / 2)
    result = scheduler.step(np.concatenate([eps, learned], axis=1), t, x, noise=z).prev_sample
    mean = fixed.step(eps, t, x, noise=np.zeros(SHAPE)).prev_sample
    np.testing.assert_allclose(result, mean + np.sqrt(variance) * z, atol=1e-6)
    if variance_type == "learned_range":  # its ends are the fixed variances
        for end, name in ((-1.0, "fixed_small"), (1.0, "fixed_large")):
            output = np.concatenate([eps, np.full(SHAPE, end)], axis=1)
            other = DDPMScheduler(30, trained_betas=betas, variance_type=name)
            expected = other.step(eps, t, x, noise=z).prev_sample
            np.testing.assert_allclose(scheduler.step(output, t, x, noise=z).prev_sample, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (3, 3, 5, 4), (3,)])
def test_learned_variance_needs_twice_the_channels(shape):
    scheduler = DDPMScheduler(variance_type="learned")
    with pytest.raises(ValueError, match="DDPMScheduler.step: variance_type 'learned' needs twice the channels"):
        scheduler.step(np.zeros(shape), 5, np.zeros(SHAPE), np.random.default_rng(0))


def test_zero_snr_ends_in_pure_noise():
    """Lin et al. 2023, algorithm 1: sqrt(abar) keeps its start, ends at 0, and is otherwise an affine image of what it was."""
    plain, scheduler = DDPMScheduler(), DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert scheduler.alphas_cumprod[-1] == 0 and scheduler.betas[-1] == 1
    root, rescaled = np.sqrt(plain.alphas_cumprod), np.sqrt(scheduler.alphas_cumprod)
    np.testing.assert_allclose(rescaled, (root - root[-1]) * root[0] / (root[0] - root[-1]), atol=2e-6)

    x0, noise, z = draw(np.random.default_rng(19))
    np.testing.assert_array_equal(scheduler.add_noise(x0, noise, 999), noise)
    result = scheduler.step(-x0, 999, noise, noise=z)  # v = -x_0 at abar_t = 0
    np.testing.assert_array_equal(result.pred_original_sample, np.clip(x0, -1, 1))
    assert np.all(np.isfinite(result.prev_sample))


def test_pure_noise_says_nothing_of_the_image():
    scheduler = DDPMScheduler(rescale_betas_zero_snr=True)
    x, eps, z = draw(np.random.default_rng(20))
    with pytest.raises(ValueError, match="DDPMScheduler.step: prediction_type 'epsilon' says nothing of x_0"):
        scheduler.step(eps, 999, x, noise=z)
    with pytest.raises(ValueError, match="DDPMScheduler.set_timesteps: prediction_type 'epsilon' says nothing of x_0"):
        scheduler.set_timesteps(timesteps=[999, 3])
    assert np.all(np.isfinite(scheduler.step(eps, 998, x, noise=z).prev_sample))


def test_no_noise_at_timestep_zero():
    x, eps, z = draw(np.random.default_rng(5))
    generator = np.random.default_rng(6)
    scheduler = DDPMScheduler(variance_type="fixed_large")
    state = generator.bit_generator.state
    without = scheduler.step(eps, 0, x).prev_sample
    np.testing.assert_array_equal(scheduler.step(eps, 0, x, generator).prev_sample, without)
    np.testing.assert_array_equal(scheduler.step(eps, 0, x, noise=z).prev_sample, without)
    assert generator.bit_generator.state == state


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_comes_from_the_generator_alone(dtype):
    # B46: the global state was the only source
    x, eps = draw(np.random.default_rng(7), dtype, count=2)
    scheduler = DDPMScheduler()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = scheduler.step(eps, 500, x, np.random.default_rng(8)).prev_sample
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    again = scheduler.step(eps, 500, x, np.random.default_rng(8)).prev_sample
    z = np.random.default_rng(8).standard_normal(SHAPE, dtype=dtype)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, scheduler.step(eps, 500, x, noise=z).prev_sample)
    assert np.any(first != scheduler.step(eps, 500, x, np.random.default_rng(9)).prev_sample)


def test_step_returns_a_named_pair_or_a_tuple():
    x, eps, z = draw(np.random.default_rng(10))
    scheduler = DDPMScheduler()
    output = scheduler.step(eps, 10, x, noise=z)
    assert isinstance(output, SchedulerOutput)
    prev_sample, pred_original_sample = scheduler.step(eps, 10, x, noise=z, return_dict=False)
    np.testing.assert_array_equal(prev_sample, output.prev_sample)
    np.testing.assert_array_equal(pred_original_sample, output.pred_original_sample)


@pytest.mark.parametrize("timestep", [500, np.int64(500), np.uint16(500), np.array(500)])
def test_step_takes_any_one_integer(timestep):
    x, eps, z = draw(np.random.default_rng(11))
    scheduler = DDPMScheduler()
    expected = scheduler.step(eps, 500, x, noise=z).prev_sample
    np.testing.assert_array_equal(scheduler.step(eps, timestep, x, noise=z).prev_sample, expected)


def test_what_other_schedulers_scale_stays():
    sample = np.ones(SHAPE)
    scheduler = DDPMScheduler()
    assert scheduler.scale_model_input(sample, 5) is sample
    assert scheduler.init_noise_sigma == 1.0 and scheduler.order == 1


# dtype, memory order, aliasing --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_dtype_is_kept(prediction_type, dtype):
    x, eps, z = draw(np.random.default_rng(12), dtype)
    scheduler = DDPMScheduler(prediction_type=prediction_type)
    assert scheduler.add_noise(x, eps, [1, 2, 3]).dtype == dtype
    assert scheduler.get_velocity(x, eps, 4).dtype == dtype
    for source in ({"noise": z}, {"generator": np.random.default_rng(13)}):
        output = scheduler.step(eps, 500, x, **source)
        assert output.prev_sample.dtype == output.pred_original_sample.dtype == dtype


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("order_of_others", [channels_last, np.ascontiguousarray])
@pytest.mark.parametrize("order_of_sample", [channels_last, np.ascontiguousarray])
def test_results_follow_the_memory_order_of_the_sample(order_of_sample, order_of_others, prediction_type):
    x, eps, z = draw(np.random.default_rng(14))
    ordered_x, ordered_eps, ordered_z = order_of_sample(x), order_of_others(eps), order_of_others(z)
    scheduler = DDPMScheduler(prediction_type=prediction_type)

    def results(x, eps, z):
        stepped = scheduler.step(eps, 500, x, noise=z)
        drawn = scheduler.step(eps, 500, x, np.random.default_rng(15))
        return [
            scheduler.add_noise(x, eps, [5, 50, 500]),
            scheduler.get_velocity(x, eps, [5, 50, 500]),
            stepped.prev_sample,
            stepped.pred_original_sample,
            drawn.prev_sample,
        ]

    for expected, result in zip(results(x, eps, z), results(ordered_x, ordered_eps, ordered_z), strict=True):
        np.testing.assert_array_equal(result, expected)
        assert result.strides == ordered_x.strides


@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_inputs_are_untouched_and_results_are_new(prediction_type, clip_sample):
    arrays = draw(np.random.default_rng(16))
    copies = [array.copy() for array in arrays]
    x, eps, z = arrays
    scheduler = DDPMScheduler(prediction_type=prediction_type, clip_sample=clip_sample)
    output = scheduler.step(eps, 500, x, noise=z)
    results = [
        output.prev_sample,
        output.pred_original_sample,
        scheduler.add_noise(x, eps, 3),
        scheduler.get_velocity(x, eps, 3),
    ]
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert not any(np.shares_memory(array, result) for result in results)
