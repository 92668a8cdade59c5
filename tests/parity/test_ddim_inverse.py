"""DDIMInverseScheduler beside diffusers' own: tables, every step, whole trajectories over drawn options."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.schedulers import DDIMInverseScheduler  # noqa: E402
from support.scheduler_parity import PREDICTION_TYPES, SCHEDULES, SHAPE, difference, trajectories  # noqa: E402

SPACINGS = ("leading", "trailing")
CLIPS = ({}, {"clip_sample": False}, {"clip_sample_range": 2.0})


def both(**options):
    return DDIMInverseScheduler(**options), diffusers.DDIMInverseScheduler(**options)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_are_equal_bit_for_bit(schedule, set_alpha_to_one):
    ours, theirs = both(beta_schedule=schedule, set_alpha_to_one=set_alpha_to_one)
    for name in ("betas", "alphas", "alphas_cumprod", "initial_alpha_cumprod", "timesteps"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name).numpy())
    assert ours.init_noise_sigma == theirs.init_noise_sigma and ours.order == theirs.order and len(ours) == len(theirs)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_equal(spacing, offset):
    ours, theirs = both(timestep_spacing=spacing, steps_offset=offset)
    for count in (1, 2, 7, 10, 50, 61, 999):  # 61 is one of those at which diffusers has -1 too
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        expected = theirs.timesteps.numpy()
        np.testing.assert_array_equal(ours.timesteps, expected[expected >= 0])


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_step_is_equal_at_every_timestep(prediction_type, clip):
    rng = np.random.default_rng(1)
    ours, theirs = both(prediction_type=prediction_type, set_alpha_to_one=prediction_type != "sample", **clip)
    ours.set_timesteps(250)
    theirs.set_timesteps(250)
    for t in ours.timesteps:
        sample, output = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
        mine = ours.step(output, t, sample)
        yours = theirs.step(torch.from_numpy(output), int(t), torch.from_numpy(sample))
        # sqrt(abar_s), down to 6e-3, divides in the estimate by epsilon, and PyTorch's float32 sqrt may be a bit off
        division = np.sqrt(ours.alphas_cumprod[t]) if prediction_type == "epsilon" else 1
        assert difference(mine.prev_sample, yours.prev_sample) < 2e-6
        assert difference(mine.pred_original_sample, yours.pred_original_sample) * division < 2e-6


@pytest.mark.parametrize("largest", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_thresholding_is_that_of_ddim(prediction_type, largest):
    """diffusers' inverse takes the argument and does nothing; its DDIM says what it means."""
    limits = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": largest}
    options = {"prediction_type": prediction_type, "set_alpha_to_one": False}
    ours = DDIMInverseScheduler(**options, **limits)
    theirs = diffusers.DDIMInverseScheduler(**options, clip_sample=False)
    forth = diffusers.DDIMScheduler(**limits)
    rng = np.random.default_rng(6)
    for steps in (5, 50):
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        for t in ours.timesteps:
            sample, output = (3 * rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
            mine = ours.step(output, t, sample)
            free = theirs.step(torch.from_numpy(output), int(t), torch.from_numpy(sample))
            x0 = forth._threshold_sample(free.pred_original_sample)
            noisier = free.prev_sample + theirs.alphas_cumprod[t].sqrt() * (x0 - free.pred_original_sample)
            assert difference(mine.pred_original_sample, x0) < 1e-5
            assert difference(mine.prev_sample, noisier) < 1e-5


def drawn_options(count):
    rng = np.random.default_rng(2)
    for _ in range(count):
        set_alpha_to_one = bool(rng.integers(2))
        yield {
            "num_train_timesteps": int(rng.choice([100, 777, 1000])),
            "beta_schedule": str(rng.choice(SCHEDULES)),
            "beta_end": float(rng.choice([0.01, 0.02])),
            "set_alpha_to_one": set_alpha_to_one,
            "steps_offset": int(rng.integers(2)),
            # from x_0 the noise in an image without noise cannot be told: diffusers divides by zero, this raises
            "prediction_type": str(rng.choice(["epsilon", "v_prediction"] + ["sample"] * (not set_alpha_to_one))),
            "timestep_spacing": str(rng.choice(SPACINGS)),
            **CLIPS[rng.integers(len(CLIPS))],
        }


@pytest.mark.parametrize("steps", [5, 10, 20, 50])
@pytest.mark.parametrize("options", list(drawn_options(24)))
def test_trajectories_are_equal(options, steps):
    ours, theirs = both(**options)
    for mine, yours in trajectories(ours, theirs, steps, np.random.default_rng(3)):
        assert difference(mine, yours) < 1e-5


@pytest.mark.parametrize("steps", [5, 10, 20, 50])
def test_trajectories_to_zero_snr_are_equal(steps):
    ours, theirs = both(rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    for mine, yours in trajectories(ours, theirs, steps, np.random.default_rng(4)):
        assert difference(mine, yours) < 1e-5
