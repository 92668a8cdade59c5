"""ScoreSdeVeScheduler and ScoreSdeVpScheduler beside diffusers' own: tables, and whole walks with the same noise."""

import importlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler as TheirVp  # noqa: E402

from hcrot.schedulers import ScoreSdeVeScheduler, ScoreSdeVpScheduler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers")

SHAPE = (3, 2, 5, 4)
VE_OPTIONS = [
    {},
    {"snr": 0.3, "correct_steps": 2},
    {"sigma_min": 0.1, "sigma_max": 20.0},
    {"sampling_eps": 0.01, "num_train_timesteps": 100},
]
VP_OPTIONS = [{}, {"beta_min": 0.5, "beta_max": 8.0}, {"sampling_eps": 0.05, "num_train_timesteps": 100}]


def difference(ours, theirs):
    theirs = theirs.numpy()
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))


def inject(monkeypatch, scheduler, noise):
    module = importlib.import_module(type(scheduler).__module__)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(noise))


def toy_score(x, level):
    """Depends on the sample and the level, not linearly; elementary operations only, so NumPy and PyTorch agree in all but the last bit."""
    variance = 1 + level * level
    return -x / variance * (0.9 + 0.1 / (1 + x * x / variance))


@pytest.mark.parametrize("options", VE_OPTIONS)
def test_tables_of_ve_are_equal(options):
    ours, theirs = ScoreSdeVeScheduler(**options), diffusers.ScoreSdeVeScheduler(**options)
    assert ours.init_noise_sigma == theirs.init_noise_sigma and len(ours) == len(theirs)
    for count in (None, 1, 2, 7, 50, 333):
        if count:
            for one in (ours, theirs):
                one.set_timesteps(count)
                one.set_sigmas(count)
        for name in ("timesteps", "sigmas", "discrete_sigmas"):
            mine, yours = getattr(ours, name), getattr(theirs, name).numpy()
            assert mine.dtype == yours.dtype
            np.testing.assert_allclose(mine, yours, rtol=3e-6)


def test_the_arguments_of_set_timesteps_and_set_sigmas():
    ours, theirs = ScoreSdeVeScheduler(), diffusers.ScoreSdeVeScheduler()
    for one in (ours, theirs):
        one.set_timesteps(9, 0.2)
        one.set_sigmas(9, 0.5, 30.0)
    for name in ("timesteps", "sigmas", "discrete_sigmas"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name).numpy(), rtol=3e-6)


@pytest.mark.parametrize("options", VE_OPTIONS)
def test_walks_of_ve_are_equal(options, monkeypatch):
    ours, theirs = ScoreSdeVeScheduler(**options), diffusers.ScoreSdeVeScheduler(**options)
    for one in (ours, theirs):
        one.set_timesteps(20)
        one.set_sigmas(20)
    rng = np.random.default_rng(0)
    mine = rng.standard_normal(SHAPE, dtype=np.float32) * np.float32(ours.init_noise_sigma)
    yours = torch.from_numpy(mine)
    for t, their_t, sigma, their_sigma in zip(ours.timesteps, theirs.timesteps, ours.sigmas, theirs.sigmas, strict=True):
        for _ in range(ours.config.correct_steps):
            noise = rng.standard_normal(SHAPE, dtype=np.float32)
            inject(monkeypatch, theirs, noise)
            mine = ours.step_correct(toy_score(mine, sigma), mine, noise=noise).prev_sample
            yours = theirs.step_correct(toy_score(yours, their_sigma), yours).prev_sample
            assert difference(mine, yours) < 1e-5
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        inject(monkeypatch, theirs, noise)
        ours_out = ours.step_pred(toy_score(mine, sigma), t, mine, noise=noise)
        their_out = theirs.step_pred(toy_score(yours, their_sigma), their_t, yours)
        mine, yours = ours_out.prev_sample, their_out.prev_sample
        assert difference(mine, yours) < 1e-5
        assert difference(ours_out.prev_sample_mean, their_out.prev_sample_mean) < 1e-5


def test_every_time_belongs_to_the_level_that_it_has_in_diffusers(monkeypatch):
    ours, theirs = ScoreSdeVeScheduler(), diffusers.ScoreSdeVeScheduler()
    for one in (ours, theirs):
        one.set_timesteps(1000)
        one.set_sigmas(1000)
    sample, noise = np.zeros((1000, 1), np.float32), np.ones((1000, 1), np.float32)
    inject(monkeypatch, theirs, noise)
    mine = ours.step_pred(sample, ours.timesteps, sample, noise=noise).prev_sample
    yours = theirs.step_pred(torch.from_numpy(sample), theirs.timesteps, torch.from_numpy(sample)).prev_sample
    np.testing.assert_allclose(mine, yours.numpy(), rtol=3e-4)  # differences of neighbouring squares


def test_add_noise_of_ve_is_equal():
    ours, theirs = ScoreSdeVeScheduler(), diffusers.ScoreSdeVeScheduler()
    images, noise = np.random.default_rng(1).standard_normal((2, 4, 3, 5, 2), dtype=np.float32)
    levels = [0, 7, 1000, 1999]
    theirs_noisy = theirs.add_noise(torch.from_numpy(images), torch.from_numpy(noise), torch.tensor(levels))
    np.testing.assert_allclose(ours.add_noise(images, noise, levels), theirs_noisy.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", VP_OPTIONS)
@pytest.mark.parametrize("per_image", [False, True])
def test_walks_of_vp_are_equal(options, per_image, monkeypatch):
    ours, theirs = ScoreSdeVpScheduler(**options), TheirVp(**options)
    ours.set_timesteps(50)
    theirs.set_timesteps(50)
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-6)
    rng = np.random.default_rng(2)
    mine = rng.standard_normal(SHAPE, dtype=np.float32)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        inject(monkeypatch, theirs, noise)
        if per_image:
            t, their_t = np.full(len(mine), t), their_t * torch.ones(len(mine))
        mine, my_mean = ours.step_pred(0.5 * mine, mine, t, noise=noise)
        yours, your_mean = theirs.step_pred(0.5 * yours, yours, their_t)
        # theirs has s(t) = sqrt(1 - exp(..)) in float32, which near t = 0.001 has three digits left
        assert difference(mine, yours) < 5e-5 and difference(my_mean, your_mean) < 5e-5


@pytest.mark.parametrize(("name", "cls"), [("ScoreSdeVeScheduler", ScoreSdeVeScheduler), ("ScoreSdeVpScheduler", ScoreSdeVpScheduler)])
def test_configurations_are_exchanged(name, cls, tmp_path):
    theirs = getattr(diffusers, name, TheirVp)
    cls(num_train_timesteps=50, sampling_eps=0.125).save_pretrained(tmp_path / "ours")
    theirs(num_train_timesteps=50, sampling_eps=0.125).save_pretrained(tmp_path / "theirs")
    ours_text, their_text = (json.loads((tmp_path / who / "scheduler_config.json").read_text()) for who in ("ours", "theirs"))
    assert ours_text == their_text
    assert cls.from_pretrained(tmp_path / "theirs").config == cls(num_train_timesteps=50, sampling_eps=0.125).config
    assert theirs.from_pretrained(tmp_path / "ours").config.num_train_timesteps == 50
