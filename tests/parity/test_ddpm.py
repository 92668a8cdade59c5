"""DDPMScheduler beside diffusers' own: betas, timesteps, every step, whole trajectories."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.schedulers import DDPMScheduler  # noqa: E402
from support import scheduler_parity  # noqa: E402
from support.scheduler_parity import PREDICTION_TYPES, SHAPE, SPACINGS, toy_model  # noqa: E402

SCHEDULES = (*scheduler_parity.SCHEDULES, "sigmoid", "laplace")
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large")  # diffusers' fixed_large_log is NaN

difference = partial(scheduler_parity.difference, least=1.0)  # unclipped estimates of x_0 reach 1e4


def both(*arguments, **options):
    return DDPMScheduler(*arguments, **options), diffusers.DDPMScheduler(*arguments, **options)


def assert_steps_equal(ours, theirs, output, t, sample, noise):
    mine = ours.step(output, t, sample, noise=noise)
    yours = theirs.step(torch.from_numpy(output), int(t), torch.from_numpy(sample))
    assert difference(mine.prev_sample, yours.prev_sample) < 1e-6
    # sqrt(abar_t), down to 5e-5, divides in the estimate by epsilon, and PyTorch's float32 sqrt may be a bit off
    division = np.sqrt(ours.alphas_cumprod[t]) if ours.config["prediction_type"] == "epsilon" else 1
    assert difference(mine.pred_original_sample, yours.pred_original_sample) * division < 1e-6


@pytest.fixture
def inject(monkeypatch):
    """inject(z) makes diffusers' next steps use the noise z."""

    def replace(noise):
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.from_numpy(noise)
        )

    return replace


@pytest.mark.parametrize("ends", [(1e-4, 0.02), (2e-4, 1e-2), (0.00085, 0.012), (1e-2, 2e-4)])
@pytest.mark.parametrize("num_train_timesteps", [1, 2, 7, 50, 100, 1000, 2000, 4000])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_equal_bit_for_bit(schedule, num_train_timesteps, ends):
    if schedule == "sigmoid" and "AVX" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("PyTorch's sigmoid rounds otherwise without AVX2 or AVX-512")
    ours, theirs = both(num_train_timesteps, *ends, schedule)
    np.testing.assert_array_equal(ours.betas, theirs.betas.numpy())
    np.testing.assert_array_equal(ours.alphas, theirs.alphas.numpy())
    np.testing.assert_array_equal(ours.alphas_cumprod, theirs.alphas_cumprod.numpy())


def test_trained_betas_are_equal_bit_for_bit():
    betas = np.random.default_rng(0).uniform(1e-4, 0.05, 300).tolist()
    ours, theirs = both(300, trained_betas=betas)
    np.testing.assert_array_equal(ours.betas, theirs.betas.numpy())
    np.testing.assert_array_equal(ours.alphas_cumprod, theirs.alphas_cumprod.numpy())


@pytest.mark.parametrize("num_train_timesteps", [2, 100, 1000])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_betas_rescaled_to_zero_snr_are_equal(schedule, num_train_timesteps):
    """PyTorch's float32 square root is off in the last bit now and then; quotients of the last few show it most."""
    ours, theirs = both(num_train_timesteps, beta_schedule=schedule, rescale_betas_zero_snr=True)
    np.testing.assert_allclose(ours.betas, theirs.betas.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=0, atol=1e-6)
    assert ours.betas.dtype == np.float32 and ours.betas[-1] == theirs.betas[-1] == 1


@pytest.mark.parametrize("count", [1, 2, 7, 10, 50, 999, 1000])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_equal(spacing, offset, count):
    ours, theirs = both(timestep_spacing=spacing, steps_offset=offset)
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    ours.set_timesteps(count)
    theirs.set_timesteps(count)
    if spacing == "leading" and offset == 1 and count == 1000:
        theirs.timesteps -= 1  # diffusers starts at 1000, out of range
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    assert [ours.previous_timestep(t) for t in ours.timesteps] == [
        theirs.previous_timestep(t) for t in theirs.timesteps
    ]


def test_trailing_timesteps_are_equal_but_for_minus_one():
    ours, theirs = both(timestep_spacing="trailing")
    cut = []
    for count in range(1, 1001):
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        expected = theirs.timesteps.numpy()
        if expected[-1] == -1:
            cut.append(count)
            expected = expected[:-1]
        np.testing.assert_array_equal(ours.timesteps, expected)
    assert len(cut) == 62


THRESHOLDING = {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5}


@pytest.mark.parametrize("clip", [{}, {"clip_sample_range": 2.0}, {"clip_sample": False}, THRESHOLDING])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
def test_step_is_equal_at_every_timestep(variance_type, prediction_type, clip, inject):
    rng = np.random.default_rng(1)
    ours, theirs = both(variance_type=variance_type, prediction_type=prediction_type, **clip)
    sample, output, noise = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(3))
    inject(noise)
    for t in ours.timesteps:
        assert_steps_equal(ours, theirs, output, t, sample, noise)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_step_is_equal_for_every_schedule_and_spacing(spacing, schedule, inject):
    rng = np.random.default_rng(2)
    ours, theirs = both(beta_schedule=schedule, timestep_spacing=spacing, steps_offset=1)
    ours.set_timesteps(37)
    theirs.set_timesteps(37)
    for t in ours.timesteps:
        sample, output, noise = (rng.standard_normal(SHAPE) for _ in range(3))
        inject(noise)
        assert_steps_equal(ours, theirs, output, t, sample, noise)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_step_with_a_learned_variance_is_equal_at_every_timestep(variance_type, prediction_type, dtype, inject):
    rng = np.random.default_rng(5)
    ours, theirs = both(variance_type=variance_type, prediction_type=prediction_type)
    sample, prediction, noise = (rng.standard_normal(SHAPE).astype(dtype) for _ in range(3))
    variance = rng.uniform(0 if variance_type == "learned" else -1.2, 1.2, SHAPE).astype(dtype)
    output = np.concatenate([prediction, variance], axis=1)
    inject(noise)
    for t in ours.timesteps:
        assert_steps_equal(ours, theirs, output, t, sample, noise)


@pytest.mark.parametrize("ratio", [1e-3, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("largest", [0.5, 1.0, 1.7, 100.0])
def test_thresholding_is_equal(largest, ratio):
    """Images of several sizes of values, so that s is cut off below, above and not at all."""
    rng = np.random.default_rng(6)
    options = {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": largest}
    ours, theirs = both(prediction_type="sample", **options)
    sizes = np.array([0.3, 1.0, 2.0, 50.0], np.float32).reshape(-1, 1, 1, 1)
    for dtype in (np.float32, np.float64):
        output, sample = ((sizes * rng.standard_normal((4, 3, 5, 7))).astype(dtype) for _ in range(2))
        yours = theirs.step(torch.from_numpy(output), 0, torch.from_numpy(sample)).pred_original_sample
        assert difference(ours.step(output, 0, sample).pred_original_sample, yours) < 1e-6


def assert_trajectories_equal(ours, theirs, inject, **timesteps):
    """From the same noise to the end, each by its own steps, with the same noise in each."""
    rng = np.random.default_rng(3)
    ours.set_timesteps(**timesteps)
    theirs.set_timesteps(**timesteps)
    mine = rng.standard_normal(SHAPE, dtype=np.float32)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        inject(noise)
        mine = ours.step(toy_model(mine, t), t, mine, noise=noise).prev_sample
        yours = theirs.step(toy_model(yours, their_t), their_t, yours).prev_sample
        assert difference(mine, yours) < 2e-6


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [5, 10, 50, [950, 600, 599, 20, 3]])
def test_trajectories_are_equal(steps, spacing, schedule, inject):
    ours, theirs = both(beta_schedule=schedule, timestep_spacing=spacing)
    assert_trajectories_equal(ours, theirs, inject, **{"timesteps" if isinstance(steps, list) else "num_inference_steps": steps})


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_trajectories_configured_by_the_file_of_a_dpm_solver_are_equal(steps, inject, tmp_path):
    """Its variance_type is null, for which diffusers takes beta_tilde."""
    diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear").save_pretrained(tmp_path)
    ours, theirs = DDPMScheduler.from_pretrained(tmp_path), diffusers.DDPMScheduler.from_pretrained(tmp_path)
    assert ours.config["variance_type"] is theirs.config.variance_type is None
    assert_trajectories_equal(ours, theirs, inject, num_inference_steps=steps)


def drawn_options(count):
    rng = np.random.default_rng(7)
    limits = ({}, {"clip_sample": False}, {"clip_sample_range": 2.0}, THRESHOLDING)
    for _ in range(count):
        zero_snr = bool(rng.integers(2))
        yield {
            "num_train_timesteps": int(rng.choice([100, 777, 1000])),
            "beta_schedule": str(rng.choice(SCHEDULES)),
            "beta_end": float(rng.choice([0.01, 0.02])),
            "rescale_betas_zero_snr": zero_snr,
            "variance_type": str(rng.choice([*VARIANCE_TYPES, "learned_range"])),
            "steps_offset": int(rng.integers(2)),
            "prediction_type": str(rng.choice(PREDICTION_TYPES[zero_snr:])),  # epsilon says nothing of x_0 at abar_t = 0
            "timestep_spacing": str(rng.choice(SPACINGS)),
            **limits[rng.integers(len(limits))],
        }


@pytest.mark.parametrize("steps", [5, 10, 20, 50])
@pytest.mark.parametrize("options", list(drawn_options(24)))
def test_trajectories_over_all_options_are_equal(options, steps, inject):
    rng = np.random.default_rng(8)
    ours, theirs = both(**options)
    theirs.alphas_cumprod = torch.from_numpy(ours.alphas_cumprod)  # rescaled, the last bit of some differs (see above)
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    learned = options["variance_type"] == "learned_range"
    mine = rng.standard_normal(SHAPE, dtype=np.float32)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        inject(noise)
        output, their_output = toy_model(mine, t), toy_model(yours, their_t)
        if learned:
            output = np.concatenate([output, toy_model(noise, t)], axis=1)
            their_output = torch.cat([their_output, toy_model(torch.from_numpy(noise), their_t)], dim=1)
        mine = ours.step(output, t, mine, noise=noise).prev_sample
        yours = theirs.step(their_output, their_t, yours).prev_sample
        assert difference(mine, yours) < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_add_noise_and_velocity_are_equal(schedule, dtype):
    rng = np.random.default_rng(4)
    ours, theirs = both(beta_schedule=schedule)
    images, noise = (rng.standard_normal((64, 2, 3, 3)).astype(dtype) for _ in range(2))
    for t in (np.linspace(0, 999, 64).astype(np.int64), np.array([437]), np.array(999)):
        theirs_t = torch.from_numpy(t)
        noisy = theirs.add_noise(torch.from_numpy(images), torch.from_numpy(noise), theirs_t)
        velocity = theirs.get_velocity(torch.from_numpy(images), torch.from_numpy(noise), theirs_t)
        assert difference(ours.add_noise(images, noise, t), noisy) < 1e-6
        assert difference(ours.get_velocity(images, noise, t), velocity) < 1e-6
