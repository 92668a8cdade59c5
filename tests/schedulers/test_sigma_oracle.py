"""The schedulers that go by sigma against an oracle: for data N(MU, STD^2) the best prediction and all solutions are known.

With x = a x_0 + b eps, sigma = b/a, the distribution of x/a is N(MU, STD^2 + sigma^2), and the probability flow equation
keeps each point's place in it: (x/a - MU)/sqrt(STD^2 + sigma^2) is constant on its solutions. The best predictions are

    E[x_0 | x] = MU + a STD^2/v (x - a MU),  E[eps | x] = b/v (x - a MU),  v = a^2 STD^2 + b^2

All is affine in the noise that was drawn, so a walk from the coefficients (1, start, noise of step 1, ..) ends with those
of the samples: their mean and standard deviation come out without sampling.
"""

import inspect

import numpy as np
import pytest

from hcrot import schedulers

MU, STD = 0.3, 0.5
COUNTS = (25, 50, 100, 200)
SPACED = {"use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}
UNCUT = {**SPACED, "lower_order_final": False}


FLOW, FLOW_PREDICTIONS = {"use_flow_sigmas": True}, ("flow_prediction", "epsilon", "sample")


def levels(sigma, flow):
    """a and b."""
    return (1 - sigma, sigma) if flow else (1 / np.hypot(1, sigma), sigma / np.hypot(1, sigma))


def best_prediction(kind, signal, noise, x, mean):
    """Of x given as coefficients, the first of which is that of 1 and takes the mean."""
    deviation = x.copy()
    deviation[0] -= signal * mean
    v = signal**2 * STD**2 + noise**2
    eps, x0 = noise / v * deviation, signal * STD**2 / v * deviation
    x0[0] += mean
    return {"epsilon": eps, "sample": x0, "v_prediction": signal * eps - noise * x0, "flow_prediction": eps - x0}[kind]


def walk(scheduler, count, by_timestep=False, **options):
    """The coefficients of 1, of the start's place and of each step's noise in the samples, divided by a; the last sigma."""
    scheduler.set_timesteps(count)
    flow = isinstance(scheduler, schedulers.FlowMatchEulerDiscreteScheduler) or scheduler.config.get("use_flow_sigmas", False)
    exploding = hasattr(scheduler, "_denoised")
    sigmas = scheduler.sigmas.astype(np.float64)
    takes_noise = "noise" in inspect.signature(scheduler.step).parameters
    signal, noise = levels(sigmas[0], flow)
    x = np.zeros(2 + len(scheduler.timesteps))
    x[:2] = signal * MU, np.hypot(signal * STD, noise)
    x /= signal if exploding else 1
    for i, t in enumerate(scheduler.timesteps):
        z = np.eye(len(x))[2 + i]
        sigma = sigmas[i]
        if by_timestep:
            training = np.sqrt(1 / scheduler.alphas_cumprod.astype(np.float64) - 1)
            sigma = np.interp(t, np.arange(len(training)), training)
        kind = scheduler.config.get("prediction_type", "flow_prediction")
        output = best_prediction(kind, *levels(sigma, flow), scheduler.scale_model_input(x, t), MU)
        x = scheduler.step(output, t, x, **({"noise": z} if takes_noise else {}), **options).prev_sample
    signal, noise = levels(sigmas[-1], flow)
    return x / (1 if exploding else signal), noise / signal


def errors(scheduler, counts=COUNTS, place=1.3):
    """What a deterministic walk from this place is off the exact solution."""
    found = []
    for count in counts:
        (mean, slope, *noise), last = walk(scheduler, count)
        assert not np.any(noise)
        found.append(abs(mean + slope * place - MU - place * np.hypot(STD, last)))
    return np.array(found)


def deviations(scheduler, counts=COUNTS, **options):
    """What the samples' mean is off, and their standard deviation relatively, of a walk with noise."""
    means, stds = [], []
    for count in counts:
        x, last = walk(scheduler, count, **options)
        means.append(x[0] - MU)
        stds.append(np.linalg.norm(x[1:]) / np.hypot(STD, last) - 1)
    return np.array(means), np.array(stds)


def orders(found, counts=COUNTS):
    return np.log(np.abs(found[:-1] / found[1:])) / np.log(np.divide(counts[1:], counts[:-1]))


def dpm(**options):
    return schedulers.DPMSolverMultistepScheduler(**UNCUT, **options)


def unipc(**options):
    return schedulers.UniPCMultistepScheduler(**SPACED, **options)


DETERMINISTIC = {
    "euler": (schedulers.EulerDiscreteScheduler(**SPACED), 1),
    "flow": (schedulers.FlowMatchEulerDiscreteScheduler(), 1),
    "flow, shifted": (schedulers.FlowMatchEulerDiscreteScheduler(shift=3.0), 1),
    **{
        f"{algorithm} {order} {kind}": (dpm(algorithm_type=algorithm, solver_order=order, solver_type=kind), min(order, 2))
        for algorithm in ("dpmsolver", "dpmsolver++")  # order 3 is of order 2 as published: see dpmsolver_multistep.py
        for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"))
    },
    **{
        f"unipc {order} {kind} {predict_x0}": (unipc(solver_order=order, solver_type=kind, predict_x0=predict_x0), order + 1)
        for predict_x0 in (True, False)
        for order, kind in ((1, "bh1"), (1, "bh2"), (2, "bh1"), (2, "bh2"))
    },
    **{
        f"dpmsolver, flow, {kind} {algorithm}": (dpm(**FLOW, prediction_type=kind, algorithm_type=algorithm), 2)
        for kind in FLOW_PREDICTIONS
        for algorithm in ("dpmsolver", "dpmsolver++")
    },
    **{
        f"unipc, flow, {kind} {predict_x0}": (unipc(**FLOW, prediction_type=kind, predict_x0=predict_x0), 3)
        for kind in FLOW_PREDICTIONS
        for predict_x0 in (True, False)
    },
    "unipc 2 uncorrected": (unipc(solver_order=2, disable_corrector=list(range(200))), 2),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_walks_converge_to_the_exact_solution_with_their_order(name):
    scheduler, order = DETERMINISTIC[name]
    found = errors(scheduler)
    assert np.all(np.abs(orders(found)[1:] - order) < 0.15), (found, orders(found))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("cls", [schedulers.DPMSolverMultistepScheduler, schedulers.UniPCMultistepScheduler])
def test_the_levels_of_flow_matching_lead_to_the_data(cls, shift):
    """They begin where lambda is all but infinite, so the first steps do not shrink with the others."""
    scheduler = cls(**FLOW, prediction_type="flow_prediction", flow_shift=shift)
    found = errors(scheduler, (25, 400), place=0.5)
    assert found[1] < found[0] / 10 and found[1] < 1e-3, found


@pytest.mark.parametrize("algorithm", ["dpmsolver", "dpmsolver++"])
def test_order_3_is_closer_than_order_2(algorithm):
    second, third = (errors(dpm(algorithm_type=algorithm, solver_order=order)) for order in (2, 3))
    assert np.all(third < 0.51 * second) and np.all(third[1:] < 0.4 * second[1:])


@pytest.mark.parametrize("predict_x0", [True, False])
def test_unipc_3_converges_with_order_4(predict_x0):
    found = errors(unipc(solver_order=3, predict_x0=predict_x0), (100, 200, 400))
    assert np.all(np.abs(orders(found, (100, 200, 400)) - 4) < 0.25), found
    assert found[-1] < 2e-8


def test_heun_converges_with_order_2_down_to_the_last_level():
    """Its last step, to 0, is Euler's: compared at the level before."""
    found = []
    for count in COUNTS:
        scheduler = schedulers.HeunDiscreteScheduler(use_exponential_sigmas=True, clip_sample=False)
        scheduler.set_timesteps(count)
        sigmas = scheduler.sigmas.astype(np.float64)
        x = np.array([MU + 1.3 * np.hypot(STD, sigmas[0])])
        for i, t in enumerate(scheduler.timesteps[:-1]):
            output = best_prediction("epsilon", *levels(sigmas[i], False), scheduler.scale_model_input(x, t), MU)
            x = scheduler.step(output, t, x).prev_sample
        found.append(abs(x[0] - MU - 1.3 * np.hypot(STD, sigmas[-2])))
    assert np.all(np.abs(orders(np.array(found))[1:] - 2) < 0.15), found


STOCHASTIC = {
    "sde-dpmsolver++, flow": (dpm(**FLOW, prediction_type="flow_prediction", algorithm_type="sde-dpmsolver++"), {}, 2),
    "ancestral": (schedulers.EulerAncestralDiscreteScheduler(), {}, 1),
    **{
        f"churn {kind}": (schedulers.EulerDiscreteScheduler(prediction_type=kind), {"s_churn": 10.0}, 1)
        for kind in ("epsilon", "sample", "v_prediction")
    },
    **{
        f"sde-dpmsolver++ {order} {kind}": (
            dpm(algorithm_type="sde-dpmsolver++", solver_order=order, solver_type=kind), {}, min(order, 2)
        )
        for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"))
    },
    **{
        f"sde-dpmsolver {order} {kind}": (dpm(algorithm_type="sde-dpmsolver", solver_order=order, solver_type=kind), {}, 2)
        for order, kind in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", STOCHASTIC)
def test_samples_with_noise_converge_to_the_mean_and_the_spread_of_the_data(name):
    scheduler, options, order = STOCHASTIC[name]
    counts = (100, 200, 400)
    means, stds = deviations(scheduler, counts, **options)
    assert np.all(np.abs(means) < 1e-12)
    assert np.all(np.abs(orders(stds, counts) - order) < 0.2), (stds, orders(stds, counts))
    assert np.abs(stds[-1]) < (0.05 if order == 1 else 1e-3)


def test_stochastic_flow_sampling_does_not_keep_the_spread():
    """As its docstring says: a mean with new noise spreads less than the data, however many the steps."""
    means, stds = deviations(schedulers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), (100, 400))
    assert np.all(np.abs(means) < 1e-12) and np.all(np.abs(stds + 0.3) < 0.02)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_a_model_trained_with_ddpm_is_sampled_with_any(name, spacing, kind):
    """A model knows timesteps only, so they have to be those of the sigmas."""
    trained = schedulers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing=spacing, prediction_type=kind)
    scheduler = getattr(schedulers, name).from_config(trained.config)
    assert scheduler.config["timestep_spacing"] == spacing and scheduler.config["beta_schedule"] == "squaredcos_cap_v2"
    x, _ = walk(scheduler, 100, by_timestep=True)
    assert abs(x[0] - MU) < 0.02 and abs(np.linalg.norm(x[1:]) / STD - 1) < 0.1


def test_drawn_samples_have_the_mean_and_the_spread_that_the_coefficients_say():
    rng = np.random.default_rng(0)
    for scheduler in (
        schedulers.EulerAncestralDiscreteScheduler(),
        schedulers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
    ):
        expected, _ = walk(scheduler, 20)
        scheduler.set_timesteps(20)
        x = rng.standard_normal(200_000, dtype=np.float32) * np.float32(scheduler.init_noise_sigma)
        for i, t in enumerate(scheduler.timesteps):
            signal, noise = levels(float(scheduler.sigmas[i]), False)
            model_input = scheduler.scale_model_input(x, t)
            output = noise / (signal**2 * STD**2 + noise**2) * (model_input - signal * MU)
            x = scheduler.step(output.astype(np.float32), t, x, generator=rng).prev_sample
        std = np.linalg.norm(expected[1:])
        assert abs(np.mean(x, dtype=np.float64) - expected[0]) < 5 * std / np.sqrt(len(x)) + 2e-3  # it starts at N(0, .)
        assert abs(np.std(x, dtype=np.float64) / std - 1) < 5 / np.sqrt(2 * len(x)) + 2e-3


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_float32_is_close_to_float64_on_the_cosine_schedule(kind):
    """Its sigmas begin 20291, 647: steps over such gaps lose digits unless written well (diffusers' lose five of seven)."""
    for name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"):
        ends = []
        for dtype in (np.float32, np.float64):
            scheduler = getattr(schedulers, name)(beta_schedule="squaredcos_cap_v2", prediction_type=kind)
            scheduler.set_timesteps(10)
            rng = np.random.default_rng(1)
            x = (rng.standard_normal((2, 5)) * scheduler.init_noise_sigma).astype(np.float32).astype(dtype)
            for t in scheduler.timesteps:
                model_input = scheduler.scale_model_input(x, t)
                noise = {"noise": rng.standard_normal(x.shape).astype(np.float32).astype(dtype)}
                x = scheduler.step(0.9 * model_input / (1 + 0.1 * model_input**2), t, x, **noise).prev_sample
                assert x.dtype == dtype
            ends.append(x)
        assert np.max(np.abs(ends[0] - ends[1])) < 2e-6 * np.max(np.abs(ends[1]))
