"""The schedulers that go by sigma without torch: the walk, their formulas, memory order, dtype, bad input."""

import inspect

import numpy as np
import pytest

from hcrot import schedulers
from hcrot.schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from hcrot.schedulers.multistep import exponential_weight
from hcrot.schedulers.sigmas import SIGMA_SPACINGS, timesteps_of_sigmas, training_sigmas
from support.memory_order import channels_last

SHAPE = (3, 2, 5, 4)
ALL = (
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
SDE = {"algorithm_type": "sde-dpmsolver++"}
VARIANTS = [
    *((cls, {}) for cls in ALL),
    (DPMSolverMultistepScheduler, {**SDE, "solver_order": 3}),
    (UniPCMultistepScheduler, {"solver_order": 3}),
    (FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}),
]


def walk(scheduler, x, seed=0):
    rng = np.random.default_rng(seed)
    for t in scheduler.timesteps:
        output = 0.5 * np.tanh(scheduler.scale_model_input(x, t)) + 1e-4 * float(t)
        x = scheduler.step(output, t, x, generator=rng).prev_sample
    return x


# tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [1e-9, 1e-4, 0.3, 2.0, 12.0, -1e-4, -0.3, -2.0, -12.0])
def test_exponential_weights_are_their_integrals(h):
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u = (nodes + 1) / 2
    for power in range(5):
        integral = h * np.sum(weights / 2 * np.exp(-h * (1 - u)) * u**power)
        assert exponential_weight(power, h) == pytest.approx(integral, rel=1e-12)


@pytest.mark.parametrize("name", SIGMA_SPACINGS)
def test_spaced_sigmas_go_from_end_to_end_down(name):
    for count in (2, 3, 10, 100):
        sigmas = SIGMA_SPACINGS[name](80.0, 0.002, count)
        assert sigmas.shape == (count,) and np.all(np.diff(sigmas) < 0)
        np.testing.assert_allclose(sigmas[[0, -1]], [80.0, 0.002], rtol=1e-6)
    if name == "use_karras_sigmas":
        np.testing.assert_allclose(np.diff(sigmas ** (1 / 7)), np.diff(sigmas ** (1 / 7))[0], rtol=1e-9)
    elif name in ("use_exponential_sigmas", "use_lu_lambdas"):
        np.testing.assert_allclose(np.diff(np.log(sigmas)), np.diff(np.log(sigmas))[0], rtol=1e-9)
    else:  # the distribution function of Beta(0.6, 0.6) is symmetric about 1/2
        np.testing.assert_allclose(sigmas + sigmas[::-1], 80.002, rtol=1e-9)


def test_timesteps_of_sigmas_undo_the_training_schedule():
    training = training_sigmas(DDPMScheduler().alphas_cumprod)
    np.testing.assert_allclose(timesteps_of_sigmas(training, training), np.arange(1000), atol=1e-9)
    between = np.sqrt(training[1:].astype(np.float64) * training[:-1])
    np.testing.assert_allclose(timesteps_of_sigmas(between, training), np.arange(999) + 0.5, atol=1e-3)
    np.testing.assert_array_equal(timesteps_of_sigmas(np.array([1e9, 1e-9]), training), [999, 0])


def test_solvers_of_several_steps_do_not_visit_the_last_timestep():
    for cls in (DPMSolverMultistepScheduler, UniPCMultistepScheduler):
        scheduler = cls()
        scheduler.set_timesteps(10)
        assert scheduler.timesteps.tolist() == [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]
        scheduler = cls(timestep_spacing="leading", steps_offset=1)
        scheduler.set_timesteps(10)
        assert scheduler.timesteps.tolist() == [901, 811, 721, 631, 541, 451, 361, 271, 181, 91]
        with pytest.raises(ValueError, match="1000 is more than the 999 timesteps that timestep_spacing 'leading'"):
            cls(timestep_spacing="leading").set_timesteps(1000)


def test_trailing_timesteps_end_within_range():
    """diffusers goes on to -1 for 61 steps."""
    for cls in ALL[:-1]:
        scheduler = cls(timestep_spacing="trailing")
        scheduler.set_timesteps(61)
        assert scheduler.timesteps.min() >= 0 and scheduler.num_inference_steps == 61
        assert len(scheduler.sigmas) == len(scheduler.timesteps) + 1


# one step is another scheduler's ------------------------------------------------------------------------------


def test_ancestral_steps_are_those_of_ddpm():
    rng = np.random.default_rng(0)
    ancestral = EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
    ddpm = DDPMScheduler(timestep_spacing="trailing", clip_sample=False)
    ancestral.set_timesteps(20)
    ddpm.set_timesteps(20)
    y = rng.standard_normal(SHAPE)
    x = y * np.hypot(1, float(ancestral.sigmas[0]))
    for t, sigma_next in zip(ddpm.timesteps, ancestral.sigmas[1:], strict=True):
        z = rng.standard_normal(SHAPE)
        x = ancestral.step(np.tanh(ancestral.scale_model_input(x, t)), t, x, noise=z).prev_sample
        y = ddpm.step(np.tanh(y), t, y, noise=z).prev_sample
        np.testing.assert_allclose(x / np.hypot(1, float(sigma_next)), y, rtol=1e-4, atol=1e-5)


def test_first_order_steps_are_those_of_ddim():
    x = np.random.default_rng(1).standard_normal(SHAPE)
    ends = []
    for scheduler in (
        DDIMScheduler(timestep_spacing="trailing", clip_sample=False),
        DPMSolverMultistepScheduler(timestep_spacing="trailing", solver_order=1),
        UniPCMultistepScheduler(timestep_spacing="trailing", solver_order=1, disable_corrector=range(20)),
        EulerDiscreteScheduler(timestep_spacing="trailing"),
    ):
        scheduler.set_timesteps(20)
        exploding = isinstance(scheduler, EulerDiscreteScheduler)
        ends.append(walk(scheduler, x * np.hypot(1, float(scheduler.sigmas[0])) if exploding else x))
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], rtol=1e-4, atol=1e-5)


def test_flow_steps_go_along_the_velocity():
    scheduler = FlowMatchEulerDiscreteScheduler()
    rng = np.random.default_rng(2)
    image, noise = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    scheduler.set_timesteps(7)
    x = noise
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[1:], strict=True):
        np.testing.assert_allclose(x, scheduler.scale_noise(image, t, noise), atol=1e-6)
        x = scheduler.step(scheduler.get_velocity(image, noise, t), t, x).prev_sample
        np.testing.assert_allclose(x, (1 - sigma) * image + sigma * noise, atol=1e-6)


def test_inverted_flow_goes_from_noise_to_image():
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    rng = np.random.default_rng(3)
    image, noise = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    scheduler.set_timesteps(7)
    assert np.all(np.diff(scheduler.timesteps) > 0) and scheduler.sigmas[-1] == 1
    x = noise
    for t in scheduler.timesteps:
        np.testing.assert_allclose(x, scheduler.scale_noise(image, t, noise), atol=1e-6)
        x = scheduler.step(scheduler.get_velocity(image, noise, t), t, x).prev_sample
    np.testing.assert_allclose(x, image, atol=1e-6)


# the walk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_a_second_walk_is_the_first_again(cls, options):
    scheduler = cls(**options)
    scheduler.set_timesteps(9)
    x = np.random.default_rng(4).standard_normal(SHAPE, dtype=np.float32) * np.float32(scheduler.init_noise_sigma)
    first = walk(scheduler, x)
    np.testing.assert_array_equal(walk(scheduler, x), first)  # the last step has ended the first walk
    rng = np.random.default_rng(5)
    for t in scheduler.timesteps[:4]:
        scheduler.step(x, t, x, generator=rng)
    scheduler.set_timesteps(9)
    np.testing.assert_array_equal(walk(scheduler, x), first)


@pytest.mark.parametrize("cls", ALL)
def test_a_walk_may_start_inside(cls):
    """With the last steps of a walk that starts there, whatever was walked before."""
    scheduler, fresh = cls(), cls()
    scheduler.set_timesteps(9)
    fresh.set_timesteps(9)
    x = np.random.default_rng(6).standard_normal(SHAPE)
    walk(scheduler, x)
    ends = []
    for each in (scheduler, fresh):
        rng, y = np.random.default_rng(7), x
        for t in each.timesteps[6:]:
            y = each.step(np.tanh(y), t, y, generator=rng).prev_sample
        ends.append(y)
    np.testing.assert_array_equal(*ends)


def test_a_walk_begins_at_the_beginning_where_its_first_timestep_comes_twice():
    """diffusers begins with the second, and runs out of sigmas at the end."""
    scheduler = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    x = walk(scheduler, np.random.default_rng(16).standard_normal(SHAPE))
    assert np.all(np.isfinite(x))
    x0 = scheduler.add_noise(x, np.zeros_like(x), scheduler.timesteps[0]) / x
    np.testing.assert_allclose(x0, 1 / np.hypot(1, float(scheduler.sigmas[0])), rtol=1e-6)


@pytest.mark.parametrize("cls", ALL)
def test_a_step_out_of_turn_is_refused_and_changes_nothing(cls):
    x = np.random.default_rng(8).standard_normal(SHAPE)
    scheduler = cls()
    with pytest.raises(ValueError, match=rf"{cls.__name__}\.step: set_timesteps was not called"):
        scheduler.step(x, 999, x)
    scheduler.set_timesteps(9)
    expected = walk(scheduler, x)
    rng, y = np.random.default_rng(0), x
    for i, t in enumerate(scheduler.timesteps):
        if i in (1, 4):
            with pytest.raises(ValueError, match=rf"{cls.__name__}\.step: timestep .* is out of order, expected {t}"):
                scheduler.step(y, scheduler.timesteps[0], y, generator=rng)
            with pytest.raises(ValueError, match="model_output has shape"):
                scheduler.step(y[:1], t, y, generator=rng)
            with pytest.raises(ValueError, match="timestep has shape"):
                scheduler.step(y, scheduler.timesteps[:1], y, generator=rng)
        output = 0.5 * np.tanh(scheduler.scale_model_input(y, t)) + 1e-4 * float(t)
        y = scheduler.step(output, t, y, generator=rng).prev_sample
    np.testing.assert_array_equal(y, expected)
    with pytest.raises(ValueError, match=r"timestep 12\.25 is not one of the"):
        scheduler.step(x, 12.25, x)


@pytest.mark.parametrize("cls", [HeunDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_a_walk_keeps_to_one_shape_and_dtype(cls):
    scheduler = cls()
    scheduler.set_timesteps(9)
    x = np.random.default_rng(9).standard_normal(SHAPE)
    y = scheduler.step(x, scheduler.timesteps[0], x).prev_sample
    for other, error in ((y[:2], ValueError), (y.astype(np.float32), TypeError)):
        with pytest.raises(error, match="before has|earlier sample has"):
            scheduler.step(other, scheduler.timesteps[1], other)


# what goes in and comes out -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_memory_order_are_kept_and_arguments_left_alone(cls, options, dtype):
    rng = np.random.default_rng(10)
    plain, strided = cls(**options), cls(**options)
    plain.set_timesteps(6)
    strided.set_timesteps(6)
    x = rng.standard_normal(SHAPE).astype(dtype)
    y = channels_last(x)
    for t in plain.timesteps:
        output, noise = (rng.standard_normal(SHAPE).astype(dtype) for _ in range(2))
        kept = [array.copy() for array in (output, x, noise)]
        injected = {"noise": noise} if "noise" in inspect.signature(plain.step).parameters else {}
        arrays = plain.step(channels_last(output), t, x, **injected, return_dict=False)
        for array, before in zip((output, x, noise), kept, strict=True):
            np.testing.assert_array_equal(array, before)
        for array in arrays:
            assert array.dtype == dtype and array.flags.c_contiguous
            assert not any(np.shares_memory(array, one) for one in (output, x, noise))
        x = arrays[0]
        y = strided.step(output, t, y, **injected).prev_sample
        assert y.dtype == dtype and y.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5 * np.max(np.abs(x)))


@pytest.mark.parametrize(("cls", "options"), VARIANTS)
def test_what_a_walk_remembers_is_its_own(cls, options):
    """Arrays that were handed in or returned may be written into by their owner."""
    scheduler = cls(**options)
    scheduler.set_timesteps(6)
    x = np.random.default_rng(11).standard_normal(SHAPE)
    expected = walk(scheduler, x)
    rng, y = np.random.default_rng(0), x.copy()
    for t in scheduler.timesteps:
        output = 0.5 * np.tanh(scheduler.scale_model_input(y, t)) + 1e-4 * float(t)
        returned = scheduler.step(output, t, y, generator=rng).prev_sample
        y[...] = np.nan
        output[...] = np.nan
        y = returned.copy()
        returned[...] = np.nan
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("cls", [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler])
def test_noise_is_added_in_the_exploding_form(cls):
    rng = np.random.default_rng(12)
    scheduler = cls()
    x0, eps = rng.standard_normal((2, *SHAPE), dtype=np.float32)
    sigma = np.sqrt(1 / scheduler.alphas_cumprod - 1)
    noisy = scheduler.add_noise(x0, eps, [0, 10, 999])
    np.testing.assert_allclose(noisy, x0 + sigma[[0, 10, 999]].reshape(3, 1, 1, 1) * eps, rtol=1e-5, atol=1e-5)
    v = scheduler.get_velocity(x0, eps, [0, 10, 999])
    np.testing.assert_allclose(v, DDPMScheduler(beta_start=scheduler.config["beta_start"], beta_end=scheduler.config["beta_end"])
                               .get_velocity(x0, eps, [0, 10, 999]), rtol=1e-4, atol=1e-5)  # fmt: skip
    scheduler.set_timesteps(10)
    index = 3
    t, level = scheduler.timesteps[index], float(scheduler.sigmas[index])
    np.testing.assert_allclose(scheduler.add_noise(x0, eps, t), x0 + level * eps, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scheduler.scale_model_input(x0, t), x0 / np.hypot(1, level), rtol=1e-6)
    with pytest.raises(ValueError, match="timestep 5 is not one of the"):
        scheduler.add_noise(x0, eps, 5)


def test_noise_at_spaced_levels_is_theirs():
    """A timestep stands for a level between two of training's, and an image is noised to that level."""
    rng = np.random.default_rng(13)
    x0, eps = rng.standard_normal((2, *SHAPE))
    scheduler = DPMSolverMultistepScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(10)
    level = float(scheduler.sigmas[4])
    expected = (x0 + level * eps) / np.hypot(1, level)
    np.testing.assert_allclose(scheduler.add_noise(x0, eps, scheduler.timesteps[4]), expected, rtol=1e-6)


def test_noise_is_drawn_only_where_it_is_added():
    x = np.random.default_rng(14).standard_normal(SHAPE)
    for scheduler, options in (
        (EulerDiscreteScheduler(), {"s_churn": 1.0}),
        (EulerAncestralDiscreteScheduler(), {}),
        (DPMSolverMultistepScheduler(**SDE), {}),
        (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), {}),
    ):
        scheduler.set_timesteps(3)
        first, _, last = scheduler.timesteps
        with pytest.raises(ValueError, match="adds noise, expected a numpy.random.Generator as generator"):
            scheduler.step(x, first, x, **options)
        with pytest.raises(ValueError, match="either a generator or noise"):
            scheduler.step(x, first, x, generator=np.random.default_rng(0), noise=x, **options)
        with pytest.raises(TypeError, match="generator is the int 0, which would draw the same noise"):
            scheduler.step(x, first, x, generator=0, **options)
        generator = np.random.default_rng(0)
        z = np.random.default_rng(0).standard_normal(SHAPE)
        drawn = scheduler.step(x, first, x, generator=generator, **options).prev_sample
        scheduler.set_timesteps(3)
        np.testing.assert_array_equal(scheduler.step(x, first, x, noise=z, **options).prev_sample, drawn)
        scheduler.set_timesteps(3)
        if not options:
            state = generator.bit_generator.state
            scheduler.step(x, last, x, generator=generator)
            assert generator.bit_generator.state == state


@pytest.mark.parametrize("s_churn", [-0.1, np.nan])
def test_churn_does_not_go_down(s_churn):
    scheduler, x = EulerDiscreteScheduler(), np.zeros(SHAPE)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=f"EulerDiscreteScheduler.step: s_churn is {s_churn}, expected a number of at least 0"):
        scheduler.step(x, scheduler.timesteps[0], x, s_churn)


def test_arguments_of_another_scheduler_have_no_effect():
    """`config` keeps them for the next one."""
    x = 3 * np.random.default_rng(15).standard_normal(SHAPE)
    clipping = DDPMScheduler(clip_sample=True, prediction_type="sample")
    thresholding = DDPMScheduler(thresholding=True, rescale_betas_zero_snr=True, clip_sample=False, prediction_type="sample")
    for cls, other in (
        (DPMSolverMultistepScheduler, clipping),
        (UniPCMultistepScheduler, clipping),
        (HeunDiscreteScheduler, thresholding),
    ):
        outputs = []
        for scheduler in (cls.from_config(other.config), cls(prediction_type="sample")):
            scheduler.set_timesteps(4)
            outputs.append(scheduler.step(x, scheduler.timesteps[0], x).prev_sample)
        np.testing.assert_array_equal(*outputs)


def test_all_are_exported():
    assert {cls.__name__ for cls in ALL} < set(schedulers.__all__)
