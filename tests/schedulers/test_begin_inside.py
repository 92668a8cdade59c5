"""Every scheduler begun at every one of its timesteps, as for image to image; beside diffusers in tests/parity.

The model knows the image x_0, and says what its prediction type asks for, so whatever is left of noise is the scheduler's doing.
"""

import numpy as np
import pytest

from hcrot import schedulers
from hcrot.schedulers import DDIMInverseScheduler, PNDMScheduler
from hcrot.schedulers.base import NoiseScheduler

SHAPE = (2, 3, 5, 4)
STEPS = 10
X0, EPS = np.random.default_rng(0).uniform(-1, 1, SHAPE), np.random.default_rng(1).standard_normal(SHAPE)
SAMPLE = {"prediction_type": "sample"}
TO_MIN = {"final_sigmas_type": "sigma_min"}
FOLLOWING = {"follow_timesteps": True}
DPM, UNIPC, FLOW = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"
CASES = {  # the scheduler's arguments and those of set_timesteps; the first ones are all of them, see the test of their names
    "DDPMScheduler": (SAMPLE, {}),
    "DDIMScheduler": (SAMPLE, {}),
    "DDIMInverseScheduler": ({**SAMPLE, "set_alpha_to_one": False}, FOLLOWING),
    "PNDMScheduler": ({**SAMPLE, "set_alpha_to_one": True}, FOLLOWING),
    "EulerDiscreteScheduler": (SAMPLE, {}),
    "EulerAncestralDiscreteScheduler": (SAMPLE, {}),
    "HeunDiscreteScheduler": (SAMPLE, {}),
    DPM: (SAMPLE, {}),
    UNIPC: (SAMPLE, {}),
    FLOW: ({}, {}),
    "DDIMScheduler following": ({**SAMPLE, "timestep_spacing": "trailing"}, FOLLOWING),
    "PNDMScheduler skipping": ({**SAMPLE, "set_alpha_to_one": True, "skip_prk_steps": True}, FOLLOWING),
    "PNDMScheduler trailing": ({**SAMPLE, "set_alpha_to_one": True, "timestep_spacing": "trailing"}, FOLLOWING),
    "HeunDiscreteScheduler spaced": ({**SAMPLE, "use_karras_sigmas": True}, {}),
    f"{DPM} third": ({**SAMPLE, "solver_order": 3}, {}),
    f"{DPM} noise": ({"algorithm_type": "dpmsolver", **TO_MIN}, {}),
    f"{DPM} reverse": ({**SAMPLE, "algorithm_type": "sde-dpmsolver++"}, {}),
    f"{DPM} flow": ({**SAMPLE, "use_flow_sigmas": True}, {}),
    f"{UNIPC} third": ({**SAMPLE, "solver_order": 3, "disable_corrector": [2, 5]}, {}),
    f"{UNIPC} flow": ({**SAMPLE, "use_flow_sigmas": True, "flow_shift": 3.0}, {}),
    f"{FLOW} stochastic": ({"stochastic_sampling": True}, {}),
    f"{FLOW} shifted": ({"shift": 3.0, "use_karras_sigmas": True}, {}),
}
DRAWING = ("DDPMScheduler", "EulerAncestralDiscreteScheduler", f"{DPM} reverse", f"{FLOW} stochastic")


def prepared(name):
    options, choices = CASES[name]
    scheduler = getattr(schedulers, name.split()[0])(**options)
    scheduler.set_timesteps(STEPS, **choices)
    return scheduler


def may_begin(scheduler):
    """The entries of `timesteps` at which a walk may begin: of two equal ones the second, but the very first."""
    count = len(scheduler.timesteps)
    if isinstance(scheduler, PNDMScheduler):
        return [0, *range(2, count)] if scheduler.config.skip_prk_steps else [0, 4, 8, *range(12, count)]
    return range(0, count, scheduler.order)


def output(scheduler, x, t, index):
    if "Flow" in type(scheduler).__name__:
        return (x - X0) / float(scheduler.sigmas[index])
    return X0 if scheduler.config.prediction_type == "sample" else EPS


def walk(scheduler, x, begin):
    """The sample at the beginning and after each step."""
    rng, samples = np.random.default_rng(2), [x]
    for index, t in enumerate(scheduler.timesteps[begin:], begin):
        x = scheduler.step(output(scheduler, x, t, index), t, x, generator=rng).prev_sample
        samples.append(x)
    return samples


def noised(scheduler, index):
    return scheduler.add_noise(X0, EPS, scheduler.timesteps[index])


def test_all_schedulers_are_here():
    everything = {name for name in schedulers.__all__ if isinstance(getattr(schedulers, name), type)}
    everything = {name for name in everything if issubclass(getattr(schedulers, name), NoiseScheduler)} - {"NoiseScheduler"}
    everything -= {name for name in everything if name.startswith(("EDM", "ScoreSde"))}  # see test_edm.py and test_score_sde.py
    assert everything == {name for name in CASES if " " not in name}


@pytest.mark.parametrize("name", [name for name in CASES if "Inverse" not in name])
def test_a_walk_from_anywhere_ends_at_the_image(name):
    scheduler = prepared(name)
    smallest = 0.0 if scheduler.config.get("final_sigmas_type") != "sigma_min" else float(scheduler.sigmas[-1])
    last = scheduler.timesteps[-1] if name == "DDPMScheduler" else 0  # "leading" ends at 0 there
    assert last == 0
    for begin in may_begin(scheduler):
        scheduler = prepared(name)
        reached = walk(scheduler, noised(scheduler, begin), begin)[-1]
        np.testing.assert_allclose(reached, (X0 + smallest * EPS) / np.hypot(1, smallest), atol=2e-5)


@pytest.mark.parametrize("name", [name for name in CASES if name not in DRAWING])
def test_every_step_leads_to_the_level_of_the_next_timestep(name):
    """x_t = a_t x_0 + b_t eps all the way, if the walk began so."""
    scheduler = prepared(name)
    for begin in may_begin(scheduler):
        scheduler = prepared(name)
        if isinstance(scheduler, DDIMInverseScheduler):  # its steps lead to their timesteps, and come from the one before
            start = noised(scheduler, begin - 1) if begin else np.sqrt(1 - scheduler.initial_alpha_cumprod) * EPS
            start = start if begin else start + np.sqrt(scheduler.initial_alpha_cumprod) * X0
            expected = [noised(scheduler, index) for index in range(begin, STEPS)]
        else:
            start = noised(scheduler, begin)
            expected = [noised(scheduler, index) for index in range(begin + 1, len(scheduler.timesteps))]
        for after, level in zip(walk(scheduler, start, begin)[1:], expected, strict=False):
            np.testing.assert_allclose(after, level, atol=2e-4 * max(1, np.abs(level).max()))


@pytest.mark.parametrize("name", CASES)
def test_what_was_before_leaves_no_trace(name):
    begin = may_begin(prepared(name))[3]
    scheduler = prepared(name)
    start = noised(scheduler, begin)
    expected = walk(scheduler, start, begin)
    walk(prepared(name), start, begin)
    scheduler.set_timesteps(STEPS, **CASES[name][1])
    x = noised(scheduler, 0)
    for index, t in enumerate(scheduler.timesteps[:3]):  # a walk given up
        x = scheduler.step(output(scheduler, x, t, index), t, x, generator=np.random.default_rng(5)).prev_sample
    scheduler.set_timesteps(STEPS, **CASES[name][1])
    for again, before in zip(walk(scheduler, start, begin), expected, strict=True):
        np.testing.assert_array_equal(again, before)


# where none may begin -------------------------------------------------------------------------------------------


def test_heun_begins_with_its_first_evaluation():
    """From the first of two equal timesteps the walk is refused at the second, which it has begun with.

    But for the last two: the second of them ends the walk, and another may begin there.
    """
    for begin in range(1, 2 * STEPS - 3, 2):
        scheduler = prepared("HeunDiscreteScheduler")
        with pytest.raises(ValueError, match=f"HeunDiscreteScheduler.step: timestep .* out of order, expected .*number {begin + 2} of 19"):
            walk(scheduler, noised(scheduler, begin), begin)


@pytest.mark.parametrize("choices", [{}, FOLLOWING])
def test_no_run_begins_inside_a_runge_kutta_step(choices):
    for begin in (1, 2, 3, 5, 6, 7, 9, 10, 11):
        scheduler = PNDMScheduler(1000)
        scheduler.set_timesteps(STEPS, **choices)
        inside = begin % 4 != 3  # the last of the four is told the timestep at which the next step begins
        message = "inside a Runge-Kutta step, where no run may begin; expected 900, 800, 700, 600 or a later one"
        if not inside:
            message = f"is out of order, expected {scheduler.timesteps[begin + 2]} as step {begin + 2} .*the run began at"
        with pytest.raises(ValueError, match=f"PNDMScheduler.step: timestep {scheduler.timesteps[begin]} {'is ' * inside}{message}"):
            walk(scheduler, EPS, begin)


def test_a_beginning_refused_is_none():
    scheduler = PNDMScheduler(1000)
    scheduler.set_timesteps(STEPS)
    with pytest.raises(ValueError, match="inside a Runge-Kutta step"):
        scheduler.step(EPS, 850, EPS)
    scheduler.step(EPS, 800, EPS)
    with pytest.raises(ValueError, match="timestep 800 is out of order, expected 750 as step 5 of 19"):
        scheduler.step(EPS, 800, EPS)


def test_the_second_of_two_equal_timesteps_is_where_a_following_run_begins():
    scheduler = prepared("PNDMScheduler skipping")
    with pytest.raises(ValueError, match="timestep 800 is out of order, expected 700 as step 3 of 11"):
        walk(scheduler, noised(scheduler, 1), 1)


def test_begun_later_pndm_leaves_out_a_step():
    """As in diffusers, unless it follows its timesteps: the derivation in hcrot/schedulers/pndm.py says why."""
    scheduler, begin = PNDMScheduler(skip_prk_steps=True), 10
    for choices, steps_left_out in ((FOLLOWING, 0), ({}, 1)):
        scheduler.set_timesteps(50, **choices)
        reached = walk(scheduler, noised(scheduler, begin), begin)[-1]
        abar = scheduler.alphas_cumprod.astype(np.float64)
        ratio = np.sqrt((1 - abar) / abar)  # a step changes x/sqrt(abar) by the difference of two of them, times eps
        second, third = scheduler.timesteps[begin + 1 : begin + 3]
        told = third if steps_left_out else second  # x is at the level of the second one
        taken_for = noised(scheduler, begin + 1) / np.sqrt(abar[told])
        np.testing.assert_allclose(reached, np.sqrt(abar[0]) * (taken_for - (ratio[told] - ratio[0]) * EPS), atol=2e-4)
