"""Options of the Euler and Heun schedulers beside diffusers' own: log_linear, chosen sigmas, and the schedule "exp"."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import schedulers  # noqa: E402
from support.scheduler_parity import SHAPE, toy_model  # noqa: E402

EULER, HEUN, FLOW = "EulerDiscreteScheduler", "HeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"
COUNTS = (1, 2, 5, 10, 20, 50, 100)


def both(name, **options):
    return getattr(schedulers, name)(**options), getattr(diffusers, name)(**options)


def assert_same_walk(ours, theirs, tolerance=1e-5):
    """The tables, and every step from the same sample: those of one walk, so that no rounding is carried along."""
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.init_noise_sigma, float(getattr(theirs, "init_noise_sigma", 1)), rtol=1e-6)
    theirs.set_begin_index(0)
    mine = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32) * np.float32(ours.init_noise_sigma)
    for i, (t, their_t) in enumerate(zip(ours.timesteps, theirs.timesteps, strict=True)):
        if i % ours.order == 0:  # Heun's method keeps the sample of the first of its two evaluations
            yours = torch.from_numpy(mine)
            before = float(np.max(np.abs(mine)))
        model_sample = theirs.scale_model_input(yours, their_t) if hasattr(theirs, "scale_model_input") else yours
        mine = ours.step(toy_model(ours.scale_model_input(mine, t), t), t, mine).prev_sample
        yours = theirs.step(toy_model(model_sample, float(their_t)), their_t, yours).prev_sample
        assert np.max(np.abs(mine - yours.numpy())) < tolerance * max(before, float(yours.abs().max()))


PREDICTIONS = ("epsilon", "sample", "v_prediction")
LOG_LINEAR = [
    *({"timestep_spacing": spacing} for spacing in ("linspace", "leading", "trailing")),
    *({"prediction_type": name} for name in PREDICTIONS),
    *({f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")),
    {"final_sigmas_type": "sigma_min"},
    {"timestep_type": "continuous", "prediction_type": "v_prediction"},
    {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 50.0},
    {"beta_schedule": "scaled_linear"},
]


@pytest.mark.parametrize("options", LOG_LINEAR)
def test_log_linear_interpolation_is_equal(options):
    for count in COUNTS:
        ours, theirs = both(EULER, interpolation_type="log_linear", **options)
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        assert_same_walk(ours, theirs)


def test_log_linear_interpolation_of_chosen_timesteps_is_equal():
    ours, theirs = both(EULER, interpolation_type="log_linear")
    ours.set_timesteps(timesteps=[900, 500, 20])
    theirs.set_timesteps(timesteps=[900, 500, 20])
    assert_same_walk(ours, theirs)


@pytest.mark.parametrize("churn", [{"s_churn": 5.0}, {"s_churn": 80.0, "s_noise": 1.01}])
def test_churn_of_log_linear_sigmas_is_equal(churn, monkeypatch):
    ours, theirs = both(EULER, interpolation_type="log_linear")
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    rng = np.random.default_rng(3)
    mine = rng.standard_normal(SHAPE, dtype=np.float32) * np.float32(ours.init_noise_sigma)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        z = rng.standard_normal(SHAPE, dtype=np.float32)
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_euler_discrete.randn_tensor", lambda *_, _z=z, **__: torch.from_numpy(_z)
        )
        output = toy_model(ours.scale_model_input(mine, t), t)
        yours = theirs.step(
            toy_model(theirs.scale_model_input(yours, their_t), float(their_t)), their_t, yours, **churn
        ).prev_sample
        mine = ours.step(output, t, mine, noise=z, **churn).prev_sample
        assert np.max(np.abs(mine - yours.numpy())) < 1e-5 * max(1, float(yours.abs().max()))


@pytest.mark.parametrize("interpolation", ["linear", "log_linear"])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("last", ["zero", "sigma_min"])
def test_the_sigmas_of_one_walk_make_another(last, prediction_type, interpolation):
    """sigma_min ends with two equal ones, above zero."""
    options = {"final_sigmas_type": last, "prediction_type": prediction_type, "interpolation_type": interpolation}
    for count in COUNTS:
        ours, theirs = both(EULER, **options)
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        ours.set_timesteps(sigmas=ours.sigmas)
        theirs.set_timesteps(sigmas=theirs.sigmas)
        assert_same_walk(ours, theirs)


@pytest.mark.parametrize("spacing", ["karras", "exponential", "beta"])
def test_chosen_sigmas_take_the_place_of_a_spacing(spacing):
    for name, sigmas in ((EULER, [14.0, 3.0, 3.0, 0.5, 0.2]), (FLOW, [0.9, 0.5, 0.2])):
        ours, theirs = both(name, **{f"use_{spacing}_sigmas": True})
        ours.set_timesteps(sigmas=sigmas)
        theirs.set_timesteps(sigmas=sigmas)
        assert_same_walk(ours, theirs)


@pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}, {"clip_sample": True}])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_the_schedule_exp_is_equal(prediction_type, options):
    ours, theirs = both(HEUN, beta_schedule="exp", prediction_type=prediction_type, **options)
    np.testing.assert_array_equal(ours.betas, theirs.betas.numpy())
    np.testing.assert_array_equal(ours.alphas_cumprod, theirs.alphas_cumprod.numpy())
    for count in COUNTS[2:]:  # one step from 403 to 0.01 multiplies diffusers' roundings by the ratio of the two
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        assert_same_walk(ours, theirs)
