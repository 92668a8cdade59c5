"""DDIMScheduler beside diffusers' own: tables, every step, whole trajectories over drawn options, a real network."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.schedulers import DDIMScheduler  # noqa: E402
from support.scheduler_parity import PREDICTION_TYPES, SCHEDULES, SHAPE, SPACINGS, difference, toy_model, trajectories  # noqa: E402

LIMITS = (
    {},
    {"clip_sample": False},
    {"clip_sample_range": 2.0},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5},
)


def both(**options):
    return DDIMScheduler(**options), diffusers.DDIMScheduler(**options)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_are_equal(schedule, set_alpha_to_one, zero_snr):
    options = {"beta_schedule": schedule, "set_alpha_to_one": set_alpha_to_one, "rescale_betas_zero_snr": zero_snr}
    ours, theirs = both(**options)
    for name in ("betas", "alphas", "alphas_cumprod", "final_alpha_cumprod"):
        mine, yours = getattr(ours, name), getattr(theirs, name).numpy()
        # PyTorch's float32 square root, which rescaling takes, is off in the last bit now and then; quotients of the
        # last few, which come near 0, show it most
        atol = 0 if not zero_snr else 1e-6 if name.endswith("cumprod") else 1e-5
        np.testing.assert_allclose(mine, yours, rtol=0, atol=atol)
        assert mine.dtype == yours.dtype
    assert ours.init_noise_sigma == theirs.init_noise_sigma and ours.order == theirs.order
    assert (ours.alphas_cumprod[-1] == 0) == zero_snr


@pytest.mark.parametrize("count", [1, 2, 7, 10, 50, 999, 1000])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_equal(spacing, offset, count):
    ours, theirs = both(timestep_spacing=spacing, steps_offset=offset)
    ours.set_timesteps(count)
    theirs.set_timesteps(count)
    if spacing == "leading" and offset == 1 and count == 1000:
        theirs.timesteps -= 1  # diffusers starts at 1000, out of range
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(("eta", "use_clipped"), [(0.0, False), (0.0, True), (0.3, True), (1.0, False)])
def test_step_is_equal_at_every_timestep(eta, use_clipped, prediction_type, limit):
    rng = np.random.default_rng(1)
    ours, theirs = both(prediction_type=prediction_type, **limit)
    ours.set_timesteps(250)
    theirs.set_timesteps(250)
    for t in ours.timesteps:
        sample, output, noise = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(3))
        mine = ours.step(output, t, sample, eta, use_clipped, noise=noise)
        yours = theirs.step(
            torch.from_numpy(output), int(t), torch.from_numpy(sample), eta, use_clipped, variance_noise=torch.from_numpy(noise)
        )
        assert difference(mine.prev_sample, yours.prev_sample) < 2e-6
        # sqrt(abar_t), down to 6e-3, divides in the estimate by epsilon, and PyTorch's float32 sqrt may be a bit off
        division = np.sqrt(ours.alphas_cumprod[t]) if prediction_type == "epsilon" else 1
        assert difference(mine.pred_original_sample, yours.pred_original_sample) * division < 2e-6


def drawn_options(count):
    rng = np.random.default_rng(2)
    for _ in range(count):
        yield {
            "num_train_timesteps": int(rng.choice([100, 777, 1000])),
            "beta_schedule": str(rng.choice(SCHEDULES)),
            "beta_end": float(rng.choice([0.01, 0.02])),
            "set_alpha_to_one": bool(rng.integers(2)),
            "steps_offset": int(rng.integers(2)),
            "prediction_type": str(rng.choice(PREDICTION_TYPES)),
            "timestep_spacing": str(rng.choice(SPACINGS)),
            **LIMITS[rng.integers(len(LIMITS))],
        }


@pytest.mark.parametrize("steps", [5, 10, 20, 50])
@pytest.mark.parametrize("options", list(drawn_options(24)))
def test_trajectories_are_equal(options, steps):
    rng = np.random.default_rng(3)
    ours, theirs = both(**options)
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    eta, use_clipped = float(rng.choice([0.0, 0.5, 0.95])), bool(rng.integers(2))
    mine = rng.standard_normal(SHAPE, dtype=np.float32)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        mine = ours.step(toy_model(mine, t), t, mine, eta, use_clipped, noise=noise).prev_sample
        noise = torch.from_numpy(noise)
        yours = theirs.step(toy_model(yours, their_t), int(their_t), yours, eta, use_clipped, variance_noise=noise).prev_sample
        assert difference(mine, yours) < 1e-5


def test_where_rounding_may_make_diffusers_nan_this_goes_on():
    """eta = 1 from abar_t = 2e-9: of x_t nothing is left, x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s) z. On some processors diffusers takes
    the root of a number that rounding made negative."""
    rng = np.random.default_rng(8)
    ours, _ = both(beta_schedule="squaredcos_cap_v2", prediction_type="sample", timestep_spacing="trailing")
    sample, output, noise = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(3))
    for count in range(2, 50):
        ours.set_timesteps(count)
        abar_s = ours.alphas_cumprod[ours.previous_timestep(999)]
        expected = np.sqrt(abar_s) * np.clip(output, -1, 1) + np.sqrt(1 - abar_s) * noise
        np.testing.assert_allclose(ours.step(output, 999, sample, 1.0, noise=noise).prev_sample, expected, atol=5e-3)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
@pytest.mark.parametrize("steps", [5, 10, 20, 50])
def test_trajectories_from_zero_snr_are_equal(steps, prediction_type):
    ours, theirs = both(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type=prediction_type)
    for mine, yours in trajectories(ours, theirs, steps, np.random.default_rng(4)):
        assert difference(mine, yours) < 1e-5


@pytest.mark.parametrize("spacing", SPACINGS)
def test_following_the_timesteps_equals_diffusers_where_they_are_one_stride_apart(spacing):
    rng = np.random.default_rng(5)
    ours, theirs = both(timestep_spacing=spacing, num_train_timesteps=100)
    ours.set_timesteps(10, follow_timesteps=True)
    theirs.set_timesteps(10)
    sample, output = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
    following = [*ours.timesteps[1:], -1]
    for t, s in zip(ours.timesteps, following, strict=True):
        mine = ours.step(output, t, sample).prev_sample
        yours = theirs.step(torch.from_numpy(output), int(t), torch.from_numpy(sample)).prev_sample
        assert (difference(mine, yours) < 2e-6) == (t - s == 10 or (s == -1 and t < 10))


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_real_unet_makes_the_same_images_from_the_same_noise(eta, monkeypatch):
    """DDIMPipeline of diffusers beside the same loop here, with one network in PyTorch."""
    torch.manual_seed(6)
    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, **blocks
    )
    rng = np.random.default_rng(7)
    noises = [rng.standard_normal((2, 1, 8, 8), dtype=np.float32) for _ in range(11)]
    ours, theirs = both(beta_schedule="squaredcos_cap_v2")
    left = iter(noises)
    for module in ("pipelines.ddim.pipeline_ddim", "schedulers.scheduling_ddim"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", lambda *_, **__: torch.from_numpy(next(left)))
    pipeline = diffusers.DDIMPipeline(unet, theirs)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=10, eta=eta, output_type="np").images

    ours.set_timesteps(10)
    sample = noises[0]
    for t, noise in zip(ours.timesteps, noises[1:], strict=True):
        with torch.no_grad():
            output = unet(torch.from_numpy(sample), int(t)).sample.numpy()
        sample = ours.step(output, t, sample, eta, noise=noise).prev_sample
    np.testing.assert_allclose(np.clip(sample / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1), images, atol=1e-5)
