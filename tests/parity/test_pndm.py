"""PNDMScheduler beside diffusers' own: tables, timesteps, whole trajectories over drawn options."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.schedulers import PNDMScheduler  # noqa: E402
from support.scheduler_parity import SCHEDULES, SPACINGS, difference, trajectories  # noqa: E402


def both(**options):
    return PNDMScheduler(**options), diffusers.PNDMScheduler(**options)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_are_equal_bit_for_bit(schedule, set_alpha_to_one):
    ours, theirs = both(beta_schedule=schedule, set_alpha_to_one=set_alpha_to_one)
    for name in ("betas", "alphas", "alphas_cumprod", "final_alpha_cumprod"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name).numpy())
    assert ours.init_noise_sigma == theirs.init_noise_sigma and ours.order == theirs.order and len(ours) == len(theirs)


@pytest.mark.parametrize("skip_prk_steps", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_equal(spacing, offset, skip_prk_steps):
    ours, theirs = both(timestep_spacing=spacing, steps_offset=offset, skip_prk_steps=skip_prk_steps)
    for count in (1, 2, 3, 4, 5, 7, 10, 50, 999)[0 if skip_prk_steps else 3 :]:
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())


def test_where_diffusers_leaves_the_range_this_stays():
    """In diffusers "trailing" goes on to -1 at 61 steps, and "leading" with an offset starts at T for N = T."""
    for options, count in (({"timestep_spacing": "trailing"}, 61), ({"steps_offset": 1}, 1000)):
        ours, theirs = both(skip_prk_steps=True, **options)
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        assert theirs.timesteps.min() < 0 or theirs.timesteps.max() == 1000
        assert ours.timesteps.min() >= 0 and ours.timesteps.max() <= 999


def drawn_options(count):
    rng = np.random.default_rng(2)
    for i in range(count):
        yield {
            "num_train_timesteps": int(rng.choice([100, 777, 1000])),
            "beta_schedule": str(rng.choice(SCHEDULES)),
            "beta_end": float(rng.choice([0.01, 0.02])),
            "skip_prk_steps": i % 2 == 0,
            "set_alpha_to_one": bool(rng.integers(2)),
            "prediction_type": str(rng.choice(["epsilon", "v_prediction"])),
            "timestep_spacing": str(rng.choice(SPACINGS)),
            "steps_offset": int(rng.integers(2)),
        }


@pytest.mark.parametrize("steps", [5, 10, 20, 50])
@pytest.mark.parametrize("options", list(drawn_options(32)))
def test_trajectories_are_equal(options, steps):
    # From abar_t = 4e-9, where the cosine schedule ends, phi subtracts numbers some 1e4 times its result. In float32 that
    # leaves errors up to 9e-4 against float64 coefficients, diffusers' (5e-4) no less than these.
    ours, theirs = both(**options)
    ours.set_timesteps(steps)
    abar = ours.alphas_cumprod[ours.timesteps[0]]
    tolerance = 1e-5 if abar > 1e-6 else 1e-7 / np.sqrt(abar)
    for mine, yours in trajectories(ours, theirs, steps, np.random.default_rng(3)):
        assert difference(mine, yours) < tolerance


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_trajectories_of_few_steps_are_equal(steps):
    for mine, yours in trajectories(*both(skip_prk_steps=True), steps, np.random.default_rng(4)):
        assert difference(mine, yours) < 1e-5


@pytest.mark.parametrize("skip_prk_steps", [False, True])
def test_trajectories_of_a_run_with_more_steps_than_half_are_equal(skip_prk_steps):
    """T // N // 2 = 0: the middle of a step is one of its ends."""
    ours, theirs = both(num_train_timesteps=50, beta_end=0.1, skip_prk_steps=skip_prk_steps)
    for mine, yours in trajectories(ours, theirs, 40, np.random.default_rng(5)):
        assert difference(mine, yours) < 1e-5
