"""EDMEulerScheduler and EDMDPMSolverMultistepScheduler beside diffusers' own, every option: tables, whole walks with the same noise, files.

diffusers works in float32 throughout, so a step loses some digits where levels are close; tolerances are relative to the step's sample.
"""

import importlib
import inspect
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import schedulers  # noqa: E402
from support.scheduler_parity import toy_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers")

SHAPE = (2, 3, 5, 4)
EULER, DPM = "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"
TO_MIN = {"final_sigmas_type": "sigma_min"}
COMMON = [
    {},
    {"sigma_min": 0.02, "sigma_max": 20.0},
    {"sigma_data": 1.0},
    {"sigma_schedule": "exponential"},
    {"sigma_schedule": "exponential", "prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_max": 500.0},
    {"prediction_type": "v_prediction"},
    {"rho": 3.0},
    {"num_train_timesteps": 100},
    TO_MIN,
]
SDE = {"algorithm_type": "sde-dpmsolver++"}
OPTIONS = {
    EULER: COMMON,
    DPM: [
        *COMMON,
        *({"solver_order": order, "solver_type": kind} for order in (1, 2, 3) for kind in ("midpoint", "heun")),
        *({**SDE, "solver_order": order, "solver_type": kind} for order in (1, 2) for kind in ("midpoint", "heun")),
        {"algorithm_type": "deis", "solver_type": "logrho", **TO_MIN},
        {"lower_order_final": False, "solver_order": 3},
        {"lower_order_final": False, **TO_MIN},
        {"euler_at_final": True, "lower_order_final": False, **TO_MIN},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
    ],
}
CASES = [(name, options) for name in OPTIONS for options in OPTIONS[name]]


def both(name, **options):
    return getattr(schedulers, name)(**options), getattr(diffusers, name)(**options)


def largest_difference(ours, theirs, least=0.0):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    return np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), least)


def assert_same_walk(ours, theirs, monkeypatch, **churn):
    rng = np.random.default_rng(0)
    module = importlib.import_module(type(theirs).__module__)
    mine = rng.standard_normal(SHAPE, dtype=np.float32) * np.float32(ours.init_noise_sigma)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        monkeypatch.setattr(module, "randn_tensor", lambda *_, _noise=noise, **__: torch.from_numpy(_noise))
        before = float(np.max(np.abs(mine)))
        my_input, your_input = ours.scale_model_input(mine, t), theirs.scale_model_input(yours, their_t)
        assert largest_difference(my_input, your_input.numpy()) < 1e-5
        mine = ours.step(toy_model(my_input, t), t, mine, noise=noise, **churn).prev_sample
        yours = theirs.step(toy_model(your_input, their_t), their_t, yours, **churn).prev_sample
        assert mine.dtype == np.float32
        assert largest_difference(mine, yours.numpy(), least=before) < 1e-5


@pytest.mark.parametrize(("name", "options"), CASES)
def test_tables_are_equal(name, options):
    ours, theirs = both(name, **options)
    assert ours.init_noise_sigma == pytest.approx(theirs.init_noise_sigma) and len(ours) == len(theirs)
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-5, atol=1e-6)
    for count in (1, 2, 5, 20, 100):
        if count == 1 and options.get("sigma_schedule") == "exponential":
            continue  # theirs begins at sigma_min there
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=1e-5)


@pytest.mark.parametrize("steps", [4, 18])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_walks_are_equal(name, options, steps, monkeypatch):
    ours, theirs = both(name, **options)
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    assert_same_walk(ours, theirs, monkeypatch)


@pytest.mark.parametrize("churn", [{"s_churn": 4.0}, {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}])
@pytest.mark.parametrize("options", COMMON)
def test_churn_is_equal(options, churn, monkeypatch):
    ours, theirs = both(EULER, **options)
    ours.set_timesteps(12)
    theirs.set_timesteps(12)
    assert_same_walk(ours, theirs, monkeypatch, **churn)


def test_chosen_levels_and_a_known_estimate_are_equal():
    ours, theirs = both(EULER)
    ramp = [0.0, 0.3, 0.35, 0.9, 1.0]
    ours.set_timesteps(sigmas=ramp)
    theirs.set_timesteps(sigmas=torch.tensor(ramp))
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=1e-5)
    x, output, known = np.random.default_rng(1).standard_normal((3, *SHAPE), dtype=np.float32)
    mine = ours.step(output, ours.timesteps[0], x, pred_original_sample=known)
    yours = theirs.step(
        torch.from_numpy(output), theirs.timesteps[0], torch.from_numpy(x), pred_original_sample=torch.from_numpy(known)
    )
    assert largest_difference(mine.prev_sample, yours.prev_sample.numpy()) < 1e-5
    assert mine.pred_original_sample is known


@pytest.mark.parametrize("name", [EULER, DPM])
@pytest.mark.parametrize("options", COMMON)
def test_preconditioning_is_equal(name, options):
    ours, theirs = both(name, **options)
    x, output = np.random.default_rng(2).standard_normal((2, 4, 3, 2, 5), dtype=np.float32)
    sigma = np.array([0.01, 0.5, 3.0, 70.0], np.float32)
    column = sigma.reshape(4, 1, 1, 1)
    tensors = [torch.from_numpy(array) for array in (x, output, column)]
    assert largest_difference(ours.precondition_inputs(x, column), theirs.precondition_inputs(tensors[0], tensors[2]).numpy()) < 1e-6
    assert largest_difference(ours.precondition_outputs(x, output, column), theirs.precondition_outputs(*tensors).numpy()) < 1e-6
    np.testing.assert_allclose(ours.precondition_noise(sigma), theirs.precondition_noise(torch.from_numpy(sigma)).numpy(), rtol=1e-6)
    np.testing.assert_allclose(ours.precondition_noise(3.0), theirs.precondition_noise(3.0).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", [EULER, DPM])
def test_add_noise_is_equal(name):
    ours, theirs = both(name)
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    images, noise = np.random.default_rng(3).standard_normal((2, 4, 3, 2, 2), dtype=np.float32)
    chosen = [2, 5, 6, 9]
    noisy = theirs.add_noise(torch.from_numpy(images), torch.from_numpy(noise), theirs.timesteps[chosen])
    assert largest_difference(ours.add_noise(images, noise, ours.timesteps[chosen]), noisy.numpy()) < 1e-5


@pytest.mark.parametrize(("name", "options"), CASES)
def test_configurations_are_exchanged(name, options, tmp_path):
    ours, theirs = both(name, **options)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    our_text, their_text = ((tmp_path / who / "scheduler_config.json").read_text() for who in ("ours", "theirs"))
    assert our_text == json.dumps(json.loads(their_text), indent=2, sort_keys=True) + "\n"
    assert type(ours).from_pretrained(tmp_path / "theirs").config == ours.config
    assert type(theirs).from_pretrained(tmp_path / "ours").config.rho == ours.config.rho


@pytest.mark.parametrize("name", [EULER, DPM])
def test_arguments_are_those_of_diffusers(name):
    ours, theirs = (inspect.signature(getattr(room, name)).parameters for room in (schedulers, diffusers))
    assert [(key, one.default) for key, one in ours.items()] == [(key, one.default) for key, one in theirs.items()]
