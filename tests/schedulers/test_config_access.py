"""The configuration as users of diffusers handle it: attributes, read-only, other arguments by from_config."""

import copy
import pickle

import numpy as np
import pytest

from hcrot import schedulers

CLASSES = [getattr(schedulers, name) for name in schedulers.__all__ if name.endswith("Scheduler") and name != "NoiseScheduler"]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_argument_is_an_attribute_and_an_entry(cls):
    config = cls().config
    assert config.num_train_timesteps == config["num_train_timesteps"] == (2000 if "ScoreSde" in cls.__name__ else 1000)
    for name, value in config.items():
        assert getattr(config, name) == value
    with pytest.raises(AttributeError, match="config has no argument 'beta_stop', it has (num_train_timesteps|sigma_min), "):
        config.beta_stop  # noqa: B018
    assert not hasattr(config, "beta_stop") and config.get("beta_stop") is None


@pytest.mark.parametrize(
    "write",
    [
        lambda config: setattr(config, "beta_end", 0.5),
        lambda config: setattr(config, "new", 0.5),
        lambda config: setattr(config, "not_chosen", frozenset()),
        lambda config: delattr(config, "beta_end"),
        lambda config: config.__setitem__("beta_end", 0.5),
        lambda config: config.__delitem__("beta_end"),
        lambda config: config.__ior__({"beta_end": 0.5}),
        lambda config: config.update(beta_end=0.5),
        lambda config: config.pop("beta_end"),
        lambda config: config.popitem(),
        lambda config: config.setdefault("new", 0.5),
        lambda config: config.clear(),
    ],
)
def test_nothing_writes_into_it(write):
    scheduler = schedulers.DDIMScheduler(beta_end=0.01)
    before, not_chosen = dict(scheduler.config), scheduler.config.not_chosen
    with pytest.raises(TypeError, match=r"config is read-only, expected another scheduler instead: from_config\(config, "):
        write(scheduler.config)
    assert scheduler.config == before and scheduler.config.not_chosen == not_chosen


def test_a_list_of_betas_is_copied():
    """What the caller's list becomes later does not change the scheduler's."""
    betas = [0.1, 0.2]
    scheduler = schedulers.DDPMScheduler(num_train_timesteps=2, trained_betas=betas)
    betas[0] = 0.5
    assert scheduler.config.trained_betas == [0.1, 0.2]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_scheduler_and_its_config_can_be_copied(duplicate):
    scheduler = schedulers.EulerDiscreteScheduler(beta_end=0.01)
    for config in (duplicate(scheduler.config), duplicate(scheduler).config):
        assert type(config) is type(scheduler.config)
        assert config == scheduler.config and config.not_chosen == scheduler.config.not_chosen
        assert config.beta_end == 0.01


@pytest.mark.parametrize("cls", CLASSES)
def test_overrides_take_the_place_of_what_the_configuration_says(cls):
    trained = schedulers.DDPMScheduler(num_train_timesteps=50, beta_schedule="scaled_linear", timestep_spacing="leading")
    values = {"timestep_spacing": "trailing", "shift": 3.0, "rho": 5.0, "sampling_eps": 0.5}
    name, value = next((name, value) for name, value in values.items() if name in cls().config)
    scheduler = cls.from_config(trained.config, **{name: value})
    assert scheduler.config[name] == value and name not in scheduler.config.not_chosen
    assert scheduler.config.num_train_timesteps == 50 and trained.config.timestep_spacing == "leading"
    assert cls.from_config(scheduler.config).config[name] == value


def test_overrides_of_what_nobody_chose_are_chosen():
    pndm = schedulers.PNDMScheduler()
    ddim = schedulers.DDIMScheduler.from_config(pndm.config, set_alpha_to_one=False)
    assert ddim.config.set_alpha_to_one is False and "set_alpha_to_one" not in ddim.config.not_chosen
    np.testing.assert_array_equal(ddim.final_alpha_cumprod, ddim.alphas_cumprod[0])


def test_an_override_that_the_scheduler_does_not_have_is_refused():
    """Also one that another scheduler has: diffusers drops it without a word."""
    config = schedulers.DDPMScheduler().config
    for name in ("timestep_space", "use_karras_sigmas"):
        with pytest.raises(TypeError, match=f"DDIMScheduler.from_config: it has no argument '{name}', but num_train_timesteps, "):
            schedulers.DDIMScheduler.from_config(config, **{name: True})
    with pytest.raises(ValueError, match="DDIMScheduler: timestep_spacing 'even' is unknown"):
        schedulers.DDIMScheduler.from_config(config, timestep_spacing="even")


# what works where the other scheduler clips ---------------------------------------------------------------------------

CLIPPING = schedulers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")


@pytest.mark.parametrize("of_file", [False, True])
@pytest.mark.parametrize("cls", [schedulers.DPMSolverMultistepScheduler, schedulers.UniPCMultistepScheduler])
def test_what_ddpm_clips_the_multistep_solvers_clip(cls, of_file, tmp_path):
    """A noise of 2 where there is next to no signal: without clipping the first step leads to some thousands."""
    CLIPPING.save_pretrained(tmp_path)
    scheduler = cls.from_pretrained(tmp_path, timestep_spacing="linspace") if of_file else cls.from_config(CLIPPING.config)
    assert scheduler.config.thresholding is True and scheduler.config.sample_max_value == 1
    scheduler.set_timesteps(10)
    sample, signs = np.ones((2, 1, 4, 4), np.float32), np.array([1, -1], np.float32).reshape(2, 1, 1, 1)
    moved = scheduler.step(2 * signs * sample, scheduler.timesteps[0], signs * sample).prev_sample
    sigma, following = (float(level) for level in scheduler.sigmas[:2])
    signal = 1 / np.hypot(1, following)
    expected = following * signal / (sigma / np.hypot(1, sigma)) - signal * (1 - following / sigma)  # x_0 = -1, by line (i)
    np.testing.assert_allclose(moved, expected * signs * sample, rtol=1e-4)
    assert cls.from_config(scheduler.config).config.thresholding is True


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (CLIPPING.config, {"thresholding": False}),
        (schedulers.DDPMScheduler(clip_sample=False).config, {}),
        (schedulers.DDPMScheduler(clip_sample_range=2.0).config, {}),
        (schedulers.DDPMScheduler(prediction_type="v_prediction").config, {}),
        ({"_class_name": "DPMSolverMultistepScheduler", "clip_sample": True}, {}),  # as diffusers writes it
        ({"solver_order": 2, "clip_sample": True}, {}),
        ({}, {}),
    ],
)
def test_nothing_is_clipped_that_was_not(config, overrides):
    assert schedulers.DPMSolverMultistepScheduler.from_config(config, **overrides).config.thresholding is False


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"])
def test_those_that_cannot_clip_keep_the_spacing(name):
    cls = getattr(schedulers, name)
    assert cls.from_config(CLIPPING.config).config.timestep_spacing == "leading"
    assert cls.from_config(CLIPPING.config, timestep_spacing="trailing").config.timestep_spacing == "trailing"
    assert cls.from_config(schedulers.DDPMScheduler(prediction_type="sample").config).config.timestep_spacing == "linspace"
