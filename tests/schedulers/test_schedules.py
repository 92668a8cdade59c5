"""Noise schedules and timestep spacings, against published numbers and hashes of diffusers' arrays."""

import hashlib

import numpy as np
import pytest

from hcrot.schedulers import DDPMScheduler

# schedules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "first", "last", "abar"),
    [
        ("linear", 1e-4, 0.02, 4.03583e-5),
        ("scaled_linear", 1e-4, 0.02, 7.33412e-4),  # B43: without the square the last is 0.141
        ("squaredcos_cap_v2", 4.12842e-5, 0.999, 2.42873e-9),
        ("sigmoid", 1.49205e-4, 0.0199508, 3.96818e-5),  # B44: the name
        ("laplace", 0.0211538, 0.847253, 0.0316228),
        ("exp", 0.0119283, 0.0119283, 6.14438e-6),
    ],
)
def test_schedule_has_the_published_ends(schedule, first, last, abar):
    scheduler = DDPMScheduler(beta_schedule=schedule)
    np.testing.assert_allclose(scheduler.betas[[0, -1]], [first, last], rtol=5e-6)
    np.testing.assert_allclose(scheduler.alphas_cumprod[-1], abar, rtol=5e-6)
    assert len(scheduler) == 1000


# The first 16 digits of the SHA-256 of the float32 arrays that diffusers 0.42.1 makes with PyTorch 2.13.0.
GOLDEN = {
    ("linear", 1000): ("a455de8584c2913e", "b5555536933367c4"),
    ("linear", 100): ("0ae5afd35550f3bb", "8bd5ac83684dad61"),
    ("scaled_linear", 1000): ("e87c300957f6c953", "713621b4d2d4da5d"),
    ("scaled_linear", 100): ("5cf45ebbe58a82a5", "3504404b721d140c"),
    ("squaredcos_cap_v2", 1000): ("ee9cd3d5d1b98fa4", "f32ff0b43921c312"),
    ("squaredcos_cap_v2", 100): ("101ff0c0af0c8a6a", "fbb2f65442476514"),
    ("sigmoid", 1000): ("9766fa22e804e401", "03393b4003d39b4c"),
    ("sigmoid", 100): ("f327450bc7dc1ea4", "707e55b19bf0ba6f"),
    ("laplace", 1000): ("30df9a22d9f35769", "a2900ff0f2f8e0f6"),
    ("laplace", 100): ("f408c0abefcb1217", "cde80a261a9582d2"),
}


@pytest.mark.parametrize(("schedule", "num_train_timesteps"), GOLDEN)
def test_schedule_equals_diffusers_bit_for_bit(schedule, num_train_timesteps):
    # B47: a cumulative product accumulated in float32 has another hash
    scheduler = DDPMScheduler(num_train_timesteps, beta_schedule=schedule)
    arrays = (scheduler.betas, scheduler.alphas_cumprod)
    digests = tuple(hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()[:16] for array in arrays)
    assert digests == GOLDEN[schedule, num_train_timesteps]
    assert scheduler.betas.dtype == scheduler.alphas.dtype == scheduler.alphas_cumprod.dtype == np.float32
    np.testing.assert_array_equal(scheduler.alphas, np.float32(1) - scheduler.betas)


def test_schedule_may_descend_and_have_any_ends():
    scheduler = DDPMScheduler(2000, beta_start=1e-2, beta_end=2e-4)
    assert scheduler.betas[0] == np.float32(1e-2) and scheduler.betas[-1] == np.float32(2e-4)
    assert np.all(np.diff(scheduler.betas) < 0)


@pytest.mark.parametrize("container", [list, tuple, np.array])
def test_trained_betas_replace_the_schedule(container):
    betas = np.linspace(0.01, 0.3, 7)
    scheduler = DDPMScheduler(7, trained_betas=container(betas), beta_schedule="sigmoid")
    np.testing.assert_array_equal(scheduler.betas, betas.astype(np.float32))
    np.testing.assert_allclose(scheduler.alphas_cumprod, np.cumprod(1 - betas), rtol=1e-6)
    assert scheduler.config["trained_betas"] == betas.tolist()


# timesteps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "count", "expected"),
    [
        ("linspace", 10, [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
        ("leading", 10, [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]),
        ("trailing", 10, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
        ("linspace", 7, [999, 832, 666, 500, 333, 166, 0]),
        ("leading", 7, [852, 710, 568, 426, 284, 142, 0]),
        ("trailing", 7, [999, 856, 713, 570, 428, 285, 142]),
        ("linspace", 1, [0]),
        ("leading", 1, [0]),
        ("trailing", 1, [999]),
    ],
)
def test_timesteps_of_each_spacing(spacing, count, expected):
    scheduler = DDPMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(count)
    assert scheduler.timesteps.tolist() == expected
    assert scheduler.timesteps.dtype == np.int64
    assert scheduler.num_inference_steps == count


def test_leading_timesteps_start_at_the_offset():
    scheduler = DDPMScheduler(steps_offset=1)
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]


@pytest.mark.parametrize("offset", [0, 1, 30])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_timesteps_are_in_range_for_every_count(spacing, offset):
    # diffusers appends -1 to "trailing" for 62 counts, and starts "leading" with an offset at 1000
    scheduler = DDPMScheduler(timestep_spacing=spacing, steps_offset=offset)
    for count in range(1, 1001):
        scheduler.set_timesteps(count)
        timesteps = scheduler.timesteps
        assert len(timesteps) == count and timesteps[-1] >= 0 and timesteps[0] < 1000
        assert np.all(np.diff(timesteps) < 0)
