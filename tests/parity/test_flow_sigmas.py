"""DPM-Solver and UniPC beside diffusers' own where they sample flow matching, and with as many steps as were trained."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import schedulers  # noqa: E402
from support.scheduler_parity import SHAPE, toy_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers")

DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
PREDICTIONS = [{"prediction_type": name} for name in ("flow_prediction", "epsilon", "sample")]
SHIFTS = [{"flow_shift": shift} for shift in (0.5, 3.0, 7.0)]
TO_MIN = {"final_sigmas_type": "sigma_min"}
COMMON = [
    *PREDICTIONS,
    *SHIFTS,
    {**SHIFTS[1], "solver_order": 1},
    {**SHIFTS[1], "solver_order": 3},
    TO_MIN,
    {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
    {"timestep_spacing": "trailing", "steps_offset": 1},
]
OPTIONS = {
    DPM: [
        *COMMON,
        {"solver_type": "heun"},
        {"lower_order_final": False},
        {"euler_at_final": True, **TO_MIN},
        {"lambda_min_clipped": -3.0},
        {"algorithm_type": "dpmsolver", **TO_MIN, "prediction_type": "epsilon"},
        {"algorithm_type": "dpmsolver", **TO_MIN, "prediction_type": "sample", "solver_type": "heun"},
    ],
    UNIPC: [
        *COMMON,
        {"use_karras_sigmas": True},
        {"use_karras_sigmas": True, **TO_MIN, "sigma_min": 0.1, "sigma_max": 50.0},
        {"shift_terminal": 0.1},
        {"shift_terminal": 0.02, **SHIFTS[1]},
        {"solver_type": "bh1", **TO_MIN},
        {"predict_x0": False, **TO_MIN, "prediction_type": "epsilon"},
        {"predict_x0": False, **TO_MIN, "prediction_type": "sample"},
        {"disable_corrector": [0, 2]},
    ],
}
CASES = [(name, options) for name in OPTIONS for options in OPTIONS[name]]


def both(name, **options):
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", **options}
    return getattr(schedulers, name)(**options), getattr(diffusers, name)(**options)


def largest_difference(ours, theirs, before=0.0):
    assert ours.shape == theirs.shape
    return np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), before)


def assert_same_tables(ours, theirs):
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=5e-7, atol=1e-9)


def walked_together(ours, theirs, start=0):
    """How many steps agree, from the same noise, each walk by its own: all, or those before diffusers' samples are NaN."""
    theirs.set_begin_index(start)
    mine = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    yours, agreed, finite = torch.from_numpy(mine), 0, True
    for t, their_t in zip(ours.timesteps[start:], theirs.timesteps[start:], strict=True):
        before = float(np.max(np.abs(mine)))
        mine = ours.step(toy_model(mine, t), t, mine).prev_sample
        assert mine.dtype == np.float32 and np.all(np.isfinite(mine))
        if finite:
            try:
                yours = theirs.step(toy_model(yours, their_t), their_t, yours).prev_sample
            except torch.linalg.LinAlgError:
                yours = torch.full(SHAPE, torch.nan)
            finite = bool(torch.all(torch.isfinite(yours)))
        if finite:
            assert largest_difference(mine, yours.numpy(), before) < 1e-5
            agreed += 1
    return agreed


@pytest.mark.parametrize(("name", "options"), CASES)
def test_tables_are_equal(name, options):
    ours, theirs = both(name, **options)
    for count in (1, 2, 5, 10, 20, 50, 100, 333, 1000):
        if count == 1 and "shift_terminal" in options:
            continue  # 0/0 in diffusers
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        assert_same_tables(ours, theirs)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_trajectories_are_equal(name, options):
    for steps in (1, 2, 5, 10, 20, 50):
        if steps == 1 and "shift_terminal" in options:
            continue
        ours, theirs = both(name, **options)
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        # the polynomial of the noise multiplies x_s by a_t/a_s, a thousand and more at first: too much for float32
        of_noise = not options.get("predict_x0", True) or options.get("algorithm_type") == "dpmsolver"
        start = int(np.argmax(ours.sigmas < 0.9)) if of_noise else 0
        assert walked_together(ours, theirs, start) == steps - start


@pytest.mark.parametrize("options", [{"solver_order": 1}, {"solver_order": 2}, {"solver_type": "heun"}, SHIFTS[1]])
def test_the_reverse_process_is_equal(options):
    ours, theirs = both(DPM, algorithm_type="sde-dpmsolver++", **options)
    for steps in (5, 20):
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        rng = np.random.default_rng(0)
        mine = rng.standard_normal(SHAPE, dtype=np.float32)
        yours = torch.from_numpy(mine)
        for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
            z = rng.standard_normal(SHAPE, dtype=np.float32)
            mine = ours.step(toy_model(mine, t), t, mine, noise=z).prev_sample
            yours = theirs.step(toy_model(yours, their_t), their_t, yours, variance_noise=torch.from_numpy(z)).prev_sample
            assert largest_difference(mine, yours.numpy()) < 1e-5


@pytest.mark.parametrize(("name", "kind"), [(DPM, "exponential"), (UNIPC, "exponential"), (UNIPC, "linear")])
def test_dynamic_shifting_is_equal(name, kind):
    for mu in (0.7, 1.15):
        ours, theirs = both(name, use_dynamic_shifting=True, time_shift_type=kind)
        for steps in (5, 20):
            ours.set_timesteps(steps, mu=mu)
            theirs.set_timesteps(steps, mu=mu)
            assert_same_tables(ours, theirs)
            assert walked_together(ours, theirs) == steps


def test_chosen_sigmas_are_equal():
    ours, theirs = both(UNIPC, flow_shift=3.0)
    sigmas = np.linspace(1, 0.1, 8)
    ours.set_timesteps(sigmas=sigmas)
    theirs.set_timesteps(sigmas=sigmas.copy())
    assert_same_tables(ours, theirs)
    assert walked_together(ours, theirs) == 8


@pytest.mark.parametrize("name", [DPM, UNIPC])
def test_noise_is_added_equally(name):
    ours, theirs = both(name, flow_shift=3.0)
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    rng = np.random.default_rng(5)
    images, noise = (rng.standard_normal((4, 3, 2, 2)).astype(np.float32) for _ in range(2))
    chosen = [2, 5, 6, 9]
    noisy = theirs.add_noise(torch.from_numpy(images), torch.from_numpy(noise), theirs.timesteps[chosen])
    assert largest_difference(ours.add_noise(images, noise, ours.timesteps[chosen]), noisy.numpy()) < 1e-6


# as many steps as were trained --------------------------------------------------------------------------------

PLAIN = {"use_flow_sigmas": False, "prediction_type": "epsilon"}


@pytest.mark.parametrize("options", [{}, {"solver_order": 1}, {"solver_order": 3}, TO_MIN, {"solver_type": "heun"}])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("trained", [25, 50])
@pytest.mark.parametrize("name", [DPM, UNIPC])
def test_as_many_steps_as_were_trained(name, trained, spacing, options):
    """ "linspace" then visits one timestep twice: there diffusers' multistep solvers divide by zero, and these go on."""
    for steps in (trained - 1, trained):
        ours, theirs = both(name, **PLAIN, num_train_timesteps=trained, timestep_spacing=spacing, **options)
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        assert len(ours.timesteps) == steps
        assert_same_tables(ours, theirs)
        twice = len(set(ours.timesteps.tolist())) < steps
        assert twice == (spacing == "linspace" and steps == trained)
        compared = walked_together(ours, theirs)
        assert compared >= trained // 2 - 1 if twice else compared == steps


@pytest.mark.parametrize("name", [DPM, UNIPC])
def test_a_thousand_steps(name):
    ours, theirs = both(name, **PLAIN)
    ours.set_timesteps(1000)
    theirs.set_timesteps(1000)
    assert_same_tables(ours, theirs)
