"""DDPMScheduler: timesteps and arrays that its methods refuse, one clear error each."""

import numpy as np
import pytest

from hcrot.schedulers import DDPMScheduler

SHAPE = (3, 2, 5, 4)
IMAGES = np.zeros(SHAPE, np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "expected one of num_inference_steps, timesteps, got none"),
        ({"num_inference_steps": 5, "timesteps": [3, 1]}, ValueError, "got num_inference_steps and timesteps"),
        ({"num_inference_steps": 1001}, ValueError, "1001 is more than the 1000"),
        ({"num_inference_steps": 0}, ValueError, "num_inference_steps is 0"),
        ({"num_inference_steps": 10.0}, TypeError, "num_inference_steps is 10.0"),
        ({"timesteps": [5, 5, 1]}, ValueError, "not a strictly descending list"),
        ({"timesteps": [1, 5]}, ValueError, "not a strictly descending list"),
        ({"timesteps": 5}, ValueError, "not a strictly descending list"),
        ({"timesteps": []}, TypeError, r"shape \(0,\), expected integers"),
        ({"timesteps": [5.0, 1.0]}, TypeError, "dtype float64"),
        ({"timesteps": [1000, 1]}, ValueError, "range from 1 to 1000, expected 0 .. 999"),
        ({"timesteps": [3, -1]}, ValueError, "range from -1 to 3, expected 0 .. 999"),
    ],
)
def test_bad_timesteps_are_refused_and_leave_the_old_ones(arguments, error, message):
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(10)
    before = scheduler.timesteps.tolist()
    with pytest.raises(error, match="DDPMScheduler.set_timesteps.*" + message):
        scheduler.set_timesteps(**arguments)
    assert scheduler.timesteps.tolist() == before


@pytest.mark.parametrize("method", ["add_noise", "get_velocity"])
@pytest.mark.parametrize(
    ("images", "noise", "timesteps", "error", "message"),
    [
        (np.zeros(SHAPE, np.uint8), IMAGES, 5, TypeError, r"has dtype uint8, expected float32 or float64"),
        (np.zeros(SHAPE, np.float16), IMAGES, 5, TypeError, "has dtype float16"),
        (IMAGES.tolist(), IMAGES, 5, TypeError, "is a list, expected a NumPy array"),
        (IMAGES, np.zeros(SHAPE), 5, TypeError, "noise has dtype float64, expected float32 as (orig|sample)"),
        (IMAGES, IMAGES[:1], 5, ValueError, r"noise has shape \(1, 2, 5, 4\), expected \(3, 2, 5, 4\)"),
        (IMAGES, IMAGES, [1, 2], ValueError, r"timesteps has shape \(2,\), expected one integer or \(3,\)"),
        (IMAGES, IMAGES, [[1], [2], [3]], ValueError, r"timesteps has shape \(3, 1\)"),
        (IMAGES, IMAGES, [0, 1, 1000], ValueError, "timesteps range from 0 to 1000, expected 0 .. 999"),
        (IMAGES, IMAGES, -1, ValueError, "timesteps range from -1 to -1"),
        (IMAGES, IMAGES, 5.0, TypeError, "timesteps have dtype float64"),
        (IMAGES, IMAGES, [True, False, True], TypeError, "timesteps have dtype bool"),
    ],
)
def test_bad_input_to_the_forward_process(method, images, noise, timesteps, error, message):
    with pytest.raises(error, match=f"DDPMScheduler.{method}: .*{message}"):
        getattr(DDPMScheduler(), method)(images, noise, timesteps)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"timestep": np.array([500, 5, 500])}, ValueError, "timestep 5 is not one of the 10 timesteps"),
        ({"timestep": [500]}, ValueError, r"timestep has shape \(1,\), expected one integer or \(3,\)"),
        ({"timestep": 500.0}, TypeError, "dtype float64"),
        ({"timestep": 1000}, ValueError, "expected 0 .. 999"),
        ({"timestep": -1}, ValueError, "expected 0 .. 999"),
        ({"timestep": 501}, ValueError, "timestep 501 is not one of the 10 timesteps"),
        ({"model_output": np.zeros((3, 4, 5, 4), np.float32)}, ValueError, r"model_output has shape \(3, 4, 5, 4\)"),
        ({"model_output": np.zeros(SHAPE)}, TypeError, "model_output has dtype float64, expected float32 as sample"),
        ({"sample": np.zeros(SHAPE, np.int64)}, TypeError, "sample has dtype int64"),
        ({"generator": None}, ValueError, "timestep 500 adds noise, expected a numpy.random.Generator"),
        ({"generator": 0}, TypeError, r"generator is the int 0, .* make rng = np.random.default_rng\(0\) once, before the loop"),
        ({"noise": IMAGES}, ValueError, "expected either a generator or noise, got both"),
        ({"generator": None, "noise": IMAGES[:1]}, ValueError, r"noise has shape \(1, 2, 5, 4\)"),
        ({"generator": None, "noise": np.zeros(SHAPE)}, TypeError, "noise has dtype float64"),
    ],
)
def test_bad_input_to_the_reverse_step(changes, error, message):
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(10)
    good = {"model_output": IMAGES, "timestep": 500, "sample": IMAGES, "generator": np.random.default_rng(0)}
    scheduler.step(**good)
    with pytest.raises(error, match="DDPMScheduler.*" + message):
        scheduler.step(**{**good, **changes})
