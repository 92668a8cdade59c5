"""The schedulers of EDM without torch: oracles, targets of training, dtypes, bad input."""

import numpy as np
import pytest

import hcrot
from hcrot.schedulers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler
from support.memory_order import channels_last

SHAPE = (2, 3, 5, 4)
X0, EPS = np.random.default_rng(0).standard_normal((2, *SHAPE))
VARIANTS = [
    (EDMEulerScheduler, {}),
    (EDMDPMSolverMultistepScheduler, {}),
    (EDMDPMSolverMultistepScheduler, {"solver_order": 3}),
    (EDMDPMSolverMultistepScheduler, {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}),
]
LEVELS = [{}, {"prediction_type": "v_prediction", "sigma_data": 0.7}, {"sigma_schedule": "exponential", "rho": 3.0}]


def network_that_knows(scheduler, x, index, x0):
    """F with D = x_0, by (e) of hcrot/schedulers/edm.py solved for F."""
    sigma, data = float(scheduler.sigmas[index]), scheduler.config.sigma_data
    output = (x0 - data**2 / (sigma**2 + data**2) * x) * np.hypot(sigma, data) / (sigma * data)
    return -output if scheduler.config.prediction_type == "v_prediction" else output


@pytest.mark.parametrize("begin", [0, 4, 9])
@pytest.mark.parametrize("options", LEVELS)
@pytest.mark.parametrize(("cls", "variant"), VARIANTS)
def test_a_walk_from_anywhere_ends_at_the_image(cls, variant, options, begin):
    scheduler = cls(**variant, **options)
    scheduler.set_timesteps(10)
    rng = np.random.default_rng(1)
    x = scheduler.add_noise(X0, EPS, scheduler.timesteps[begin])
    for index, t in enumerate(scheduler.timesteps[begin:], begin):
        x = scheduler.step(network_that_knows(scheduler, x, index, X0), t, x, generator=rng).prev_sample
    np.testing.assert_allclose(x, X0, atol=1e-6)


@pytest.mark.parametrize(("cls", "options", "order"), [
    (EDMEulerScheduler, {}, 1),
    (EDMDPMSolverMultistepScheduler, {"solver_order": 1}, 1),
    (EDMDPMSolverMultistepScheduler, {"solver_order": 2}, 2),
    (EDMDPMSolverMultistepScheduler, {"solver_order": 2, "solver_type": "heun"}, 2),
    (EDMDPMSolverMultistepScheduler, {"solver_order": 3}, 2),
])  # fmt: skip
def test_normal_data_are_reached_with_the_order_of_the_solver(cls, options, order):
    """x_0 ~ N(0, 0.3^2): D = 0.09 x/(0.09 + sigma^2), and the exact flow scales x by sqrt of the variances."""
    errors = []
    for steps in (40, 80):
        scheduler = cls(sigma_min=0.02, sigma_max=10.0, final_sigmas_type="sigma_min", **options)
        scheduler.set_timesteps(steps)
        x = np.ones((1, 1))
        for index, t in enumerate(scheduler.timesteps):
            sigma = float(scheduler.sigmas[index])
            x = scheduler.step(network_that_knows(scheduler, x, index, x * 0.09 / (0.09 + sigma**2)), t, x).prev_sample
        exact = np.sqrt((0.09 + 0.02**2) / (0.09 + 10.0**2))
        errors.append(abs(x.item() / exact - 1))
    assert errors[1] < 0.05
    assert np.log2(errors[0] / errors[1]) > order - 0.25


@pytest.mark.parametrize("cls", [EDMEulerScheduler, EDMDPMSolverMultistepScheduler])
@pytest.mark.parametrize("data", [0.5, 1.0])
def test_the_target_of_training_makes_the_estimate_exact(cls, data):
    scheduler = cls(prediction_type="v_prediction", sigma_data=data)
    scheduler.set_timesteps(7)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        noisy, target = scheduler.add_noise(X0, EPS, t), scheduler.get_velocity(X0, EPS, t)
        np.testing.assert_allclose(scheduler.precondition_outputs(noisy, target, sigma), X0, atol=1e-9)
        scaled = scheduler.precondition_inputs(data * EPS + sigma * X0, sigma)  # both N(0, 1), so the sum has variance 1
        np.testing.assert_allclose(scaled.std(), np.std((data * EPS + sigma * X0) / np.hypot(sigma, data)), rtol=1e-6)


@pytest.mark.parametrize(("cls", "variant"), VARIANTS)
def test_dtype_stays_and_nothing_is_written_into(cls, variant):
    for dtype in (np.float32, np.float64):
        for order in (np.ascontiguousarray, channels_last):
            scheduler = cls(**variant)
            scheduler.set_timesteps(4)
            x, handed = order(X0.astype(dtype)), []
            for t in scheduler.timesteps:
                output = order(0.5 * np.tanh(scheduler.scale_model_input(x, t)))
                handed += [(x, x.copy()), (output, output.copy())]
                x = scheduler.step(output, t, x, generator=np.random.default_rng(1)).prev_sample
                assert x.dtype == dtype and x.strides == handed[0][0].strides
            for array, copy in handed:
                np.testing.assert_array_equal(array, copy)


def test_exports():
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler"):
        assert getattr(hcrot, name) is getattr(hcrot.schedulers, name)


@pytest.mark.parametrize(("cls", "options", "message"), [
    (EDMEulerScheduler, {"sigma_min": 2.0, "sigma_max": 1.0}, "EDMEulerScheduler: sigma_max is 1.0, expected more than sigma_min 2.0"),
    (EDMEulerScheduler, {"sigma_schedule": "beta"}, "sigma_schedule 'beta' is unknown, expected one of karras, exponential"),
    (EDMEulerScheduler, {"prediction_type": "sample"}, "prediction_type 'sample' is unknown"),
    (EDMDPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver"}, "algorithm_type 'dpmsolver' is unknown"),
    (EDMDPMSolverMultistepScheduler, {"solver_order": 4}, "solver_order is 4, expected 1, 2 or 3"),
    (EDMDPMSolverMultistepScheduler, {"rho": 0}, "rho is 0, expected a positive number"),
])  # fmt: skip
def test_bad_arguments(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_bad_calls():
    scheduler = EDMEulerScheduler()
    x = np.zeros(SHAPE)
    with pytest.raises(ValueError, match="EDMEulerScheduler.step: set_timesteps was not called"):
        scheduler.step(x, 0.1, x)
    for arguments, message in (
        ({}, "expected one of num_inference_steps, timesteps, sigmas, got none"),
        ({"num_inference_steps": 3, "sigmas": [0.0, 1.0]}, "got num_inference_steps and sigmas"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"sigmas": [1.0, 0.0]}, "is not a strictly ascending list"),
        ({"timesteps": [0.5, 0.5]}, "is not a strictly descending list"),
        ({"timesteps": [999, 500, 0]}, r"timesteps range from 0 to 999, expected log\(sigma\)/4 .* -1.55365 .. 1.09551"),
        ({"sigmas": [0.0, 80.0]}, "sigmas range from 0.0 to 80.0, expected 0 .. 1"),
    ):
        with pytest.raises(ValueError, match=message):
            scheduler.set_timesteps(**arguments)
    with pytest.raises(ValueError, match="sigmas cannot be chosen with sigma_schedule 'exponential'"):
        EDMEulerScheduler(sigma_schedule="exponential").set_timesteps(sigmas=[0.0, 1.0])
    scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match="model_output has shape"):
        scheduler.step(x[:1], scheduler.timesteps[0], x)
    with pytest.raises(ValueError, match="s_churn is -1, expected a number of at least 0"):
        scheduler.step(x, scheduler.timesteps[0], x, s_churn=-1)
    with pytest.raises(ValueError, match="adds noise, expected a numpy.random.Generator"):
        scheduler.step(x, scheduler.timesteps[0], x, s_churn=1.0)
    for method in (scheduler.precondition_inputs, lambda one, sigma: scheduler.precondition_outputs(one, one, sigma)):
        with pytest.raises(ValueError, match="sigma is 0, expected positive numbers"):
            method(x, 0)


@pytest.mark.parametrize("options", [{}, {"sigma_schedule": "exponential", "final_sigmas_type": "sigma_min"}])
@pytest.mark.parametrize("cls", [EDMEulerScheduler, EDMDPMSolverMultistepScheduler])
def test_timesteps_may_be_listed(cls, options):
    """c_noise says the level: a list of all levels is the walk itself, and of every third one a shorter one."""
    spaced, listed = cls(**options), cls(**options)
    spaced.set_timesteps(10)
    for every in (1, 3):
        timesteps = spaced.timesteps[::every]
        listed.set_timesteps(timesteps=timesteps)
        np.testing.assert_array_equal(listed.timesteps, timesteps)
        np.testing.assert_allclose(listed.sigmas, np.append(spaced.sigmas[:-1:every], spaced.sigmas[-1]), rtol=1e-6)
        assert listed.previous_timestep(timesteps[1]) == timesteps[2] and listed.previous_timestep(timesteps[-1]) == -1
        x = np.ones(SHAPE)
        listed.step(x, timesteps[0], x)
