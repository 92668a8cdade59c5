"""The schedulers that go by sigma: what their constructors and set_timesteps refuse, and what they read of other solvers."""

import numpy as np
import pytest

from hcrot.schedulers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@pytest.mark.parametrize(
    ("cls", "options", "error", "message"),
    [
        (EulerDiscreteScheduler, {"use_karras_sigmas": True, "use_beta_sigmas": True}, ValueError, "expected at most one of"),
        (EulerDiscreteScheduler, {"interpolation_type": "cubic"}, ValueError, "interpolation_type 'cubic' is unknown"),
        (EulerDiscreteScheduler, {"timestep_type": "other"}, ValueError, "timestep_type 'other' is unknown"),
        (EulerDiscreteScheduler, {"sigma_min": -1.0}, ValueError, "sigma_min is -1.0"),
        (EulerDiscreteScheduler, {"final_sigmas_type": "one"}, ValueError, "final_sigmas_type 'one' is unknown"),
        (HeunDiscreteScheduler, {"beta_schedule": "exponential"}, ValueError, "beta_schedule 'exponential' is unknown"),
        (DPMSolverMultistepScheduler, {"solver_order": 4}, ValueError, "solver_order is 4, expected 1, 2 or 3"),
        (DPMSolverMultistepScheduler, {"solver_order": 0}, ValueError, "solver_order is 0"),
        (DPMSolverMultistepScheduler, {"algorithm_type": "dpm"}, ValueError, "algorithm_type 'dpm' is unknown"),
        (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver"}, ValueError, "'dpmsolver' cannot end at final_sigmas_type"),
        (DPMSolverMultistepScheduler, {"solver_type": "bh3"}, ValueError, "solver_type 'bh3' is unknown"),
        (DPMSolverMultistepScheduler, {"use_flow_sigmas": 1}, TypeError, "use_flow_sigmas is 1"),
        (DPMSolverMultistepScheduler, {"use_dynamic_shifting": True}, ValueError, "use_dynamic_shifting=True expected use_flow_sigmas"),
        (DPMSolverMultistepScheduler, {"prediction_type": "flow_prediction"}, ValueError, "'flow_prediction' expected use_flow_sigmas"),
        (DPMSolverMultistepScheduler, {"time_shift_type": "linear"}, ValueError, "time_shift_type 'linear' is unknown"),
        (
            UniPCMultistepScheduler,
            {"use_flow_sigmas": True, "prediction_type": "v_prediction"},
            ValueError,
            "'v_prediction' cannot go with use_flow_sigmas=True",
        ),
        (UniPCMultistepScheduler, {"flow_shift": 0.0, "use_flow_sigmas": True}, ValueError, "flow_shift is 0.0"),
        (DPMSolverMultistepScheduler, {"lambda_min_clipped": float("nan")}, ValueError, "lambda_min_clipped is nan"),
        (DPMSolverMultistepScheduler, {"lambda_min_clipped": "low"}, TypeError, "lambda_min_clipped is 'low'"),
        (UniPCMultistepScheduler, {"solver_p": 1}, NotImplementedError, "solver_p=1"),
        (UniPCMultistepScheduler, {"shift_terminal": 0.1}, ValueError, "shift_terminal expected use_flow_sigmas=True"),
        (UniPCMultistepScheduler, {"disable_corrector": 3}, TypeError, "disable_corrector is 3"),
        (UniPCMultistepScheduler, {"disable_corrector": [-1]}, ValueError, "disable_corrector is -1"),
        (FlowMatchEulerDiscreteScheduler, {"shift": 0.0}, ValueError, "shift is 0.0"),
        (FlowMatchEulerDiscreteScheduler, {"time_shift_type": "cubic"}, ValueError, "time_shift_type 'cubic'"),
        (FlowMatchEulerDiscreteScheduler, {"invert_sigmas": True, "stochastic_sampling": True}, ValueError, "stochastic_sampling"),
    ],
)
def test_bad_constructor_arguments(cls, options, error, message):
    with pytest.raises(error, match=message) as raised:
        cls(**options)
    assert str(raised.value).startswith(cls.__name__)


@pytest.mark.parametrize(
    ("scheduler", "arguments", "message"),
    [
        (EulerDiscreteScheduler(), {}, "expected one of num_inference_steps, timesteps, sigmas, got none"),
        (EulerDiscreteScheduler(), {"num_inference_steps": 3, "sigmas": [1.0, 0.0]}, "got num_inference_steps and sigmas"),
        (EulerDiscreteScheduler(), {"num_inference_steps": 1001}, "1001 is more than the 1000"),
        (EulerDiscreteScheduler(), {"timesteps": [1, 2]}, "not a strictly descending list"),
        (EulerDiscreteScheduler(), {"timesteps": [1000, 2]}, "range from 2 to 1000, expected 0 .. 999"),
        (EulerDiscreteScheduler(), {"sigmas": [1.0]}, "has 1 numbers, expected two or more"),
        (EulerDiscreteScheduler(), {"sigmas": [1.0, 2.0, 0.0]}, "do not descend"),
        (EulerDiscreteScheduler(), {"sigmas": [1.0, 0.0, 0.0]}, "expected numbers above 0, then one of at least 0"),
        (EulerDiscreteScheduler(), {"sigmas": [1.0, -0.5]}, "expected numbers above 0, then one of at least 0"),
        (EulerDiscreteScheduler(), {"sigmas": [float("nan"), 0.5]}, "is not a list of numbers"),
        (EulerDiscreteScheduler(use_karras_sigmas=True), {"timesteps": [2, 1]}, "cannot be chosen with use_karras_sigmas=True"),
        (EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"), {"timesteps": [2, 1]}, "continuous"),
        (EulerAncestralDiscreteScheduler(), {"num_inference_steps": 0}, "num_inference_steps is 0"),
        (HeunDiscreteScheduler(), {"timesteps": []}, "not a strictly descending list"),
        (DPMSolverMultistepScheduler(), {"timesteps": [3, 3]}, "not a strictly descending list"),
        (DPMSolverMultistepScheduler(lambda_min_clipped=9.0), {"num_inference_steps": 3}, "9.0 leaves no timestep"),
        (
            DPMSolverMultistepScheduler(lambda_min_clipped=4.0, timestep_spacing="leading"),
            {"num_inference_steps": 30},
            "30 is more than the",
        ),
        (UniPCMultistepScheduler(timestep_spacing="leading"), {"num_inference_steps": 1000}, "1000 is more than the 999 timesteps"),
        (DPMSolverMultistepScheduler(**FLOW), {"timesteps": [3, 1]}, "timesteps cannot be chosen with use_flow_sigmas=True"),
        (DPMSolverMultistepScheduler(**FLOW), {"num_inference_steps": 3, "mu": 1.0}, "mu is 1.0 with use_dynamic_shifting=False"),
        (UniPCMultistepScheduler(**FLOW, use_dynamic_shifting=True), {"num_inference_steps": 3}, "mu is None with"),
        (UniPCMultistepScheduler(), {"sigmas": [1.0, 0.5]}, "sigmas can be chosen with use_flow_sigmas=True only"),
        (UniPCMultistepScheduler(), {}, "expected one of num_inference_steps, timesteps, sigmas, got none"),
        (UniPCMultistepScheduler(**FLOW), {"sigmas": [1.5, 0.5]}, "range from 0.5 to 1.5, expected 0 .. 1"),
        (UniPCMultistepScheduler(**FLOW), {"sigmas": [1.0, 0.0]}, "sigmas end with 0"),
        (UniPCMultistepScheduler(**FLOW, use_karras_sigmas=True), {"sigmas": [1.0, 0.5]}, "and without use_karras_sigmas"),
        (UniPCMultistepScheduler(**FLOW, shift_terminal=0.1), {"num_inference_steps": 1}, "expected sigmas that end below 1"),
        (FlowMatchEulerDiscreteScheduler(), {"sigmas": [1.0, 0.0]}, "end with 0"),
        (FlowMatchEulerDiscreteScheduler(), {"num_inference_steps": 3, "mu": 1.0}, "mu is 1.0 with use_dynamic_shifting=False"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), {"num_inference_steps": 3}, "mu is None with"),
        (FlowMatchEulerDiscreteScheduler(shift_terminal=0.1), {"num_inference_steps": 1}, "expected sigmas that end below 1"),
    ],
)  # fmt: skip
def test_bad_choices_of_timesteps(scheduler, arguments, message):
    with pytest.raises(ValueError, match=message):
        scheduler.set_timesteps(**arguments)
    assert scheduler.num_inference_steps is None


def test_solver_types_of_other_solvers_are_read():
    assert DPMSolverMultistepScheduler(solver_type="bh2", algorithm_type="deis").config["solver_type"] == "midpoint"
    assert UniPCMultistepScheduler(solver_type="heun").config["solver_type"] == "bh2"


@pytest.mark.parametrize("cls", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_noise_of_flow_matching_needs_levels(cls):
    """Before set_timesteps the levels are those of the betas, which say nothing of flow matching."""
    image = np.zeros((1, 2), np.float32)
    for method in ("add_noise", "get_velocity"):
        with pytest.raises(ValueError, match=f"{cls.__name__}.{method}: set_timesteps was not called"):
            getattr(cls(**FLOW), method)(image, image, 10)
    scheduler = cls(**FLOW)
    scheduler.set_timesteps(4)
    t = scheduler.timesteps[2]
    level = scheduler.sigmas[2]
    ones = np.ones((1, 2), np.float32)
    np.testing.assert_allclose(scheduler.add_noise(3 * ones, ones, t), (1 - level) * 3 + level, rtol=1e-6)
    np.testing.assert_array_equal(scheduler.get_velocity(3 * ones, ones, t), -2 * ones)
