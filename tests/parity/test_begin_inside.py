"""Walks begun at each of the timesteps beside diffusers', begun as its image-to-image pipelines do."""

import importlib
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import schedulers  # noqa: E402
from support.scheduler_parity import SHAPE, difference, toy_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers")

STEPS = 10
TO_MIN = {"final_sigmas_type": "sigma_min"}
TRAILING = {"timestep_spacing": "trailing"}
PNDM, HEUN = "PNDMScheduler", "HeunDiscreteScheduler"
CASES = [
    ("DDPMScheduler", {}),
    ("DDPMScheduler", TRAILING),
    ("DDIMScheduler", {}),
    ("DDIMScheduler", TRAILING),
    ("DDIMInverseScheduler", {}),
    ("DDIMInverseScheduler", TRAILING),
    *((PNDM, {"skip_prk_steps": True, "timestep_spacing": spacing}) for spacing in ("leading", "trailing", "linspace")),
    *((PNDM, {"skip_prk_steps": True, "steps_offset": 1, "prediction_type": kind}) for kind in ("epsilon", "v_prediction")),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", {}),
    (HEUN, {}),
    (HEUN, {"timestep_spacing": "trailing", "use_beta_sigmas": True}),
    *(("DPMSolverMultistepScheduler", {"solver_order": order}) for order in (1, 2, 3)),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", **TO_MIN}),
    *(("UniPCMultistepScheduler", {"solver_order": order}) for order in (1, 2, 3)),
    ("UniPCMultistepScheduler", {"disable_corrector": [3, 5], "solver_type": "bh1", **TO_MIN}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
]


def both(name, options, steps=STEPS):
    ours, theirs = getattr(schedulers, name)(**options), getattr(diffusers, name)(**options)
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-6)
    return ours, theirs


def assert_same_walk(ours, theirs, begin, monkeypatch):
    """Each by its own steps from an image that each has noised itself."""
    rng = np.random.default_rng(begin)
    module, injectable = importlib.import_module(type(theirs).__module__), "noise" in inspect.signature(ours.step).parameters
    if hasattr(theirs, "set_begin_index"):
        theirs.set_begin_index(begin)
    image, noise = rng.uniform(-1, 1, SHAPE).astype(np.float32), rng.standard_normal(SHAPE, dtype=np.float32)
    mine = ours.add_noise(image, noise, ours.timesteps[begin])
    levels = theirs.timesteps[begin : begin + 1]
    images, drawn = torch.from_numpy(image), torch.from_numpy(noise)
    if hasattr(theirs, "scale_noise"):
        yours = theirs.scale_noise(images, levels, drawn)
    else:  # its inverse scheduler cannot add noise
        yours = theirs.add_noise(images, drawn, levels) if hasattr(theirs, "add_noise") else torch.from_numpy(mine)
    assert difference(mine, yours) < 1e-6
    for t, their_t in zip(ours.timesteps[begin:], theirs.timesteps[begin:], strict=True):
        z = rng.standard_normal(SHAPE, dtype=np.float32)
        if injectable:
            monkeypatch.setattr(module, "randn_tensor", lambda *_, _z=z, **__: torch.from_numpy(_z))
        before = float(np.max(np.abs(mine)))
        shown = theirs.scale_model_input(yours, their_t) if hasattr(theirs, "scale_model_input") else yours
        told = int(their_t) if isinstance(ours, schedulers.PNDMScheduler | schedulers.DDIMInverseScheduler) else their_t
        output = toy_model(ours.scale_model_input(mine, t), t)
        mine = ours.step(output, t, mine, **({"noise": z} if injectable else {})).prev_sample
        yours = theirs.step(toy_model(shown, their_t), told, yours).prev_sample
        assert difference(mine, yours, least=before) < 1e-5


@pytest.mark.parametrize(("name", "options"), CASES)
def test_walks_from_every_timestep_are_equal(name, options, monkeypatch):
    count = len(both(name, options)[0].timesteps)
    for begin in range(0, count, 2 if name == HEUN else 1):  # Heun's method begins with the first of two evaluations
        assert_same_walk(*both(name, options), begin, monkeypatch)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 50])
def test_pndm_of_few_and_many_steps(steps, monkeypatch):
    options = {"skip_prk_steps": True, "beta_schedule": "scaled_linear", "steps_offset": 1}
    count = len(both(PNDM, options, steps)[0].timesteps)
    for begin in range(0, count, 1 if count < 10 else 7):
        assert_same_walk(*both(PNDM, options, steps), begin, monkeypatch)


@pytest.mark.parametrize("begin", [4, 8, 12, 15])
def test_where_diffusers_runge_kutta_steps_go_wrong_these_do_not(begin):
    """It counts them from the first timestep, wherever the run began; or, after them, lacks what they would have left."""
    ours, theirs = both(PNDM, {})
    rng = np.random.default_rng(0)
    image, noise = rng.uniform(-1, 1, SHAPE).astype(np.float32), rng.standard_normal(SHAPE, dtype=np.float32)
    mine = ours.add_noise(image, noise, ours.timesteps[begin])
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps[begin:], theirs.timesteps[begin:], strict=True):
        mine = ours.step(noise, t, mine).prev_sample
        yours = theirs.step(torch.from_numpy(noise), int(their_t), yours).prev_sample
    assert np.max(np.abs(mine - image)) < 0.1  # abar of the end is not 1
    assert float((yours - torch.from_numpy(image)).abs().max()) > 0.5
