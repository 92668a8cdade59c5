"""Configurations of schedulers beside diffusers' own: the file there and back, and from each scheduler to each other."""

import itertools
import json
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import schedulers  # noqa: E402

TRAINED = {"num_train_timesteps": 3, "trained_betas": [0.1, 0.2, 0.3], "steps_offset": 1}
OPTIONS = {
    "DDPMScheduler": [
        {},
        {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing", "clip_sample": False},
        {**TRAINED, "variance_type": "fixed_large"},
        {"prediction_type": "v_prediction", "clip_sample_range": 2.5, "beta_start": 1e-3, "beta_end": 0.03},
        {"rescale_betas_zero_snr": True, "variance_type": "learned_range", "thresholding": True, "sample_max_value": 1.5},
    ],
    "DDIMScheduler": [
        {},
        {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing", "set_alpha_to_one": False},
        {**TRAINED, "rescale_betas_zero_snr": True, "clip_sample": False},
        {"prediction_type": "v_prediction", "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.5},
    ],
    "DDIMInverseScheduler": [
        {},
        {"beta_schedule": "scaled_linear", "timestep_spacing": "trailing", "set_alpha_to_one": False},
        {**TRAINED, "rescale_betas_zero_snr": True, "clip_sample": False},
        {"prediction_type": "v_prediction", "clip_sample_range": 2.5},
    ],
    "PNDMScheduler": [
        {},
        {"beta_schedule": "scaled_linear", "timestep_spacing": "trailing", "set_alpha_to_one": True},
        {**TRAINED, "skip_prk_steps": True},
        {"prediction_type": "v_prediction", "beta_start": 0.00085, "beta_end": 0.012},
    ],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]


def both(name, options):
    return getattr(schedulers, name)(**options), getattr(diffusers, name)(**options)


def public(config):
    return {name: value for name, value in config.items() if not name.startswith("_")}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_files_are_exchanged(name, options, tmp_path):
    ours, theirs = both(name, options)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    our_text, their_text = ((tmp_path / who / "scheduler_config.json").read_text() for who in ("ours", "theirs"))
    their_config = json.loads(their_text)
    their_config["_diffusers_version"] = "0.42.1"
    assert our_text == json.dumps(their_config, indent=2, sort_keys=True) + "\n"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(ours).from_pretrained(tmp_path / "theirs").config == ours.config
    loaded = type(theirs).from_pretrained(tmp_path / "ours")
    assert public(loaded.config) == ours.config
    atol = 1e-6 if options.get("rescale_betas_zero_snr") else 0  # PyTorch's float32 square root
    np.testing.assert_allclose(loaded.alphas_cumprod.numpy(), ours.alphas_cumprod, rtol=0, atol=atol)


def drawn_routes(length, count):
    """Options of a first scheduler, and the names of the others its configuration is handed to, one after another."""
    rng = np.random.default_rng(0)
    every = list(itertools.product(range(len(CASES)), *[sorted(OPTIONS)] * length))
    return [every[i] for i in rng.choice(len(every), count, replace=False)]


@pytest.mark.parametrize("route", [(i, name) for i in range(len(CASES)) for name in OPTIONS] + drawn_routes(3, 60))
def test_configurations_travel_through_schedulers_as_in_diffusers(route, tmp_path):
    """Hidden arguments come back to light, ones that nobody chose take the next one's default; after a file all are chosen."""
    first, *names = route
    mine, yours = both(*CASES[first])
    for name in names:
        yours = getattr(diffusers, name).from_config(yours.config)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mine = getattr(schedulers, name).from_config(mine.config)
        assert mine.config == public(yours.config)
        assert mine.config.not_chosen == set(yours.config.get("_use_default_values", ()))

    mine.save_pretrained(tmp_path)
    again = getattr(diffusers, names[0]).from_pretrained(tmp_path)
    assert public(again.config) == getattr(schedulers, names[0]).from_pretrained(tmp_path).config


def test_configurations_of_diffusers_objects_are_read():
    theirs = diffusers.DDPMScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing")
    ours = schedulers.PNDMScheduler.from_config(theirs.config)
    assert ours.config == public(diffusers.PNDMScheduler.from_config(theirs.config).config)
    assert ours.config["set_alpha_to_one"] is False and ours.config["timestep_spacing"] == "trailing"


OVERRIDES = [
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace", "prediction_type": "v_prediction"},
    {"num_train_timesteps": 200, "beta_schedule": "squaredcos_cap_v2"},
]


@pytest.mark.parametrize("overrides", OVERRIDES)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("source", OPTIONS)
def test_overrides_are_those_of_diffusers(source, name, overrides):
    if name == "DDIMInverseScheduler" and overrides.get("timestep_spacing") == "linspace":
        overrides = {**overrides, "timestep_spacing": "leading"}  # diffusers' class has no "linspace"
    for options in [{}, {"steps_offset": 1, "timestep_spacing": "leading", "beta_end": 0.01}]:
        mine, yours = both(source, options)
        mine = getattr(schedulers, name).from_config(mine.config, **overrides)
        yours = getattr(diffusers, name).from_config(yours.config, **overrides)
        assert mine.config == public(yours.config)
        assert mine.config.not_chosen == set(yours.config.get("_use_default_values", ()))
        mine.set_timesteps(10)
        yours.set_timesteps(10)
        np.testing.assert_array_equal(mine.timesteps, yours.timesteps.numpy())
        for key in public(yours.config):
            assert getattr(mine.config, key) == getattr(yours.config, key)
