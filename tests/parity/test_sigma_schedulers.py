"""The schedulers that go by sigma beside diffusers' own: tables, whole trajectories with injected noise, files.

Differences are relative to the largest entry of a step's sample, before or after it. On "squaredcos_cap_v2", whose largest
sigma is 20291, some of diffusers' steps lose up to five of float32's seven digits; there ours are compared with theirs only
where the step is not one of those, and with float64 in tests/schedulers/test_sigma_oracle.py everywhere.
"""

import importlib
import inspect
import json
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import schedulers  # noqa: E402
from support.scheduler_parity import difference, toy_model, trajectories  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers")

SHAPE = (2, 3, 5, 4)
EULER, ANCESTRAL, HEUN = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"
DPM, UNIPC, FLOW = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"
NAMES = (EULER, ANCESTRAL, HEUN, DPM, UNIPC, FLOW)
SPACED = [{f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")]
TIMESTEPS = [
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
]
PREDICTIONS = [{"prediction_type": name} for name in ("epsilon", "sample", "v_prediction")]
TO_MIN = {"final_sigmas_type": "sigma_min"}
COMMON = [*TIMESTEPS, *PREDICTIONS]
OPTIONS = {
    EULER: [
        *COMMON,
        *SPACED,
        *({**spaced, **TO_MIN, "timestep_spacing": "leading"} for spaced in SPACED),
        {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 50.0},
        {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True},
        {"timestep_type": "continuous"},
        TO_MIN,
    ],
    ANCESTRAL: [*TIMESTEPS, {}, {"prediction_type": "v_prediction"}],
    HEUN: [*COMMON, *SPACED, {"clip_sample": True}, {"clip_sample": True, "clip_sample_range": 2.0, **SPACED[0]}],
    DPM: [
        *COMMON,
        *SPACED,
        {"use_lu_lambdas": True},
        *({"solver_order": order, "solver_type": kind} for order in (1, 2, 3) for kind in ("midpoint", "heun")),
        *({"algorithm_type": "sde-dpmsolver++", "solver_order": order} for order in (1, 2)),
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", **SPACED[0]},
        *({"algorithm_type": "dpmsolver", **TO_MIN, "solver_order": order} for order in (1, 2, 3)),
        *({"algorithm_type": "dpmsolver", **TO_MIN, "thresholding": True, **predicted} for predicted in PREDICTIONS),
        *({"algorithm_type": "sde-dpmsolver", **TO_MIN, "solver_type": kind} for kind in ("midpoint", "heun")),
        {"lower_order_final": False, **TO_MIN},
        {"lower_order_final": False, "solver_order": 3},
        {"euler_at_final": True, "lower_order_final": False, **TO_MIN},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
        *({"lambda_min_clipped": -3.0, **spacing} for spacing in TIMESTEPS),
    ],
    UNIPC: [
        *COMMON,
        *SPACED,
        *({"solver_order": order} for order in (1, 2, 3)),
        *({"solver_order": order, "solver_type": "bh1", **TO_MIN} for order in (1, 2, 3)),
        *({"predict_x0": False, **TO_MIN, "solver_order": order} for order in (1, 2, 3)),
        *({"predict_x0": False, **TO_MIN, **predicted} for predicted in PREDICTIONS),
        {"lower_order_final": False, **TO_MIN},
        {"use_karras_sigmas": True, **TO_MIN, "sigma_min": 0.1, "sigma_max": 50.0},
        {"disable_corrector": [0, 1, 3]},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
    ],
    FLOW: [
        {},
        {"shift": 3.0},
        *SPACED,
        {"shift": 2.0, "shift_terminal": 0.1},
        {"shift": 0.5, "use_karras_sigmas": True},
        {"stochastic_sampling": True, "shift": 3.0},
        {"invert_sigmas": True, "shift": 3.0},
    ],
}
CASES = [(name, options) for name in NAMES for options in OPTIONS[name]]
BETAS = [{"beta_schedule": "linear"}, {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}]


def both(name, **options):
    return getattr(schedulers, name)(**options), getattr(diffusers, name)(**options)


def largest_difference(ours, theirs, *, least=0.0):
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    return np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), least)


def assert_same_walk(ours, theirs, monkeypatch, tolerance, **churn):
    """From the same noise to the end, each by its own steps."""
    rng = np.random.default_rng(0)
    theirs.set_begin_index(0)  # else it skips a step where the first timestep occurs twice, and runs out of sigmas
    module = importlib.import_module(type(theirs).__module__)
    injectable = "noise" in inspect.signature(ours.step).parameters
    mine = rng.standard_normal(SHAPE, dtype=np.float32) * np.float32(ours.init_noise_sigma)
    yours = torch.from_numpy(mine)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        noise = rng.standard_normal(SHAPE, dtype=np.float32)
        if injectable:
            monkeypatch.setattr(module, "randn_tensor", lambda *_, _noise=noise, **__: torch.from_numpy(_noise))
        before = float(np.max(np.abs(mine)))
        model_sample = theirs.scale_model_input(yours, their_t) if hasattr(theirs, "scale_model_input") else yours
        output = toy_model(ours.scale_model_input(mine, t), t)
        mine = ours.step(output, t, mine, **({"noise": noise} if injectable else {}), **churn).prev_sample
        yours = theirs.step(toy_model(model_sample, their_t), their_t, yours, **churn).prev_sample
        assert mine.dtype == np.float32
        assert largest_difference(mine, yours.numpy(), least=before) < tolerance


# tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_tables_are_equal(name, options, schedule):
    ours, theirs = both(name, **options, **({} if name == FLOW else {"beta_schedule": schedule}))
    for count in (1, 2, 5, 10, 20, 50, 100, 333):
        if count == 1 and "shift_terminal" in options:
            continue  # 0/0 in diffusers
        ours.set_timesteps(count)
        theirs.set_timesteps(count)
        if theirs.timesteps[-1] == -1:  # "trailing" with lambda_min_clipped goes too far there
            theirs.timesteps, theirs.sigmas = theirs.timesteps[:-1], theirs.sigmas[[*range(len(ours.timesteps)), -1]]
        assert largest_difference(ours.timesteps, theirs.timesteps.numpy(), least=1.0) < 1e-6
        np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=5e-7, atol=1e-7)
        np.testing.assert_allclose(ours.init_noise_sigma, float(getattr(theirs, "init_noise_sigma", 1)), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_tables_before_set_timesteps_are_equal(name):
    ours, theirs = both(name)
    if name == HEUN:  # its timesteps are already doubled in diffusers
        theirs.sigmas, theirs.timesteps = theirs.sigmas[[0, *range(1, 1999, 2), 1999]], theirs.timesteps[::2]
    their_sigmas = theirs.sigmas.numpy()
    if name in (DPM, UNIPC):  # in ascending order there, though timesteps descend
        their_sigmas = np.append(their_sigmas[::-1], 0)
    if name == FLOW:
        their_sigmas = np.append(their_sigmas, 0)
    np.testing.assert_allclose(ours.sigmas, their_sigmas, rtol=2e-7)
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())


@pytest.mark.parametrize("name", [EULER, ANCESTRAL, DPM, UNIPC])
def test_tables_at_zero_terminal_snr_are_equal(name):
    ours, theirs = both(name, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    assert ours.alphas_cumprod[-1] == theirs.alphas_cumprod[-1].item() == 2.0**-24
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=1e-5)


def test_chosen_timesteps_and_sigmas_are_equal():
    for name, timesteps in ((EULER, [900.5, 500, 20]), (HEUN, [900, 500, 20]), (DPM, [900, 500, 20])):
        ours, theirs = both(name)
        ours.set_timesteps(timesteps=timesteps)
        theirs.set_timesteps(timesteps=timesteps)
        np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
        np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=5e-7)
    for name, last in ((EULER, [0.0]), (FLOW, [])):
        ours, theirs = both(name)
        ours.set_timesteps(sigmas=[0.9, 0.5, 0.2, *last])
        theirs.set_timesteps(sigmas=[0.9, 0.5, 0.2, *last])
        assert largest_difference(ours.timesteps, theirs.timesteps.numpy()) < 1e-6
        np.testing.assert_array_equal(ours.sigmas, theirs.sigmas.numpy())


@pytest.mark.parametrize("time_shift_type", ["exponential", "linear"])
def test_dynamic_shifting_is_equal(time_shift_type, monkeypatch):
    ours, theirs = both(FLOW, use_dynamic_shifting=True, time_shift_type=time_shift_type)
    ours.set_timesteps(20, mu=0.7)
    theirs.set_timesteps(20, mu=0.7)
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=5e-7)
    assert_same_walk(ours, theirs, monkeypatch, 1e-6)


# trajectories -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_trajectories_are_equal(name, options, betas, monkeypatch):
    for steps in (5, 10, 20, 50):
        ours, theirs = both(name, **options, **({} if name == FLOW else betas))
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        # five long steps with the polynomial of the noise amplify float32's roundings a thousandfold, here and there
        amplified = steps == 5 and not options.get("predict_x0", True)
        assert_same_walk(ours, theirs, monkeypatch, 2e-4 if amplified else 1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [case for case in CASES if case[0] in (DPM, UNIPC) and not {"predict_x0", "algorithm_type"} & case[1].keys()],
)
def test_trajectories_are_equal_on_the_cosine_schedule(name, options, monkeypatch):
    for steps in (5, 10, 20, 50):
        ours, theirs = both(name, **options, beta_schedule="squaredcos_cap_v2")
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        assert_same_walk(ours, theirs, monkeypatch, 1e-5)


@pytest.mark.parametrize("options", [*PREDICTIONS, {"use_karras_sigmas": True}])
@pytest.mark.parametrize("churn", [{"s_churn": 5.0}, {"s_churn": 80.0, "s_tmin": 0.1, "s_tmax": 50.0, "s_noise": 1.01}])
def test_churn_is_equal(churn, options, monkeypatch):
    for steps in (5, 20):
        ours, theirs = both(EULER, **options)
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        assert_same_walk(ours, theirs, monkeypatch, 1e-5, **churn)


def test_a_walk_may_start_inside():
    """As with diffusers, which then begins with the second of two equal timesteps."""
    for name in NAMES:
        ours, theirs = both(name)
        ours.set_timesteps(10)
        theirs.set_timesteps(10)
        rng = np.random.default_rng(1)
        mine, output = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
        t = ours.timesteps[7]
        if name == ANCESTRAL:
            continue  # draws its noise
        yours = theirs.step(torch.from_numpy(output), theirs.timesteps[7], torch.from_numpy(mine)).prev_sample
        assert largest_difference(ours.step(output, t, mine).prev_sample, yours.numpy()) < 1e-6


def test_learned_variances_are_left_alone():
    ours, theirs = both(DPM, variance_type="learned_range")
    ours.set_timesteps(5)
    theirs.set_timesteps(5)
    rng = np.random.default_rng(2)
    sample, output = rng.standard_normal((2, 3, 4, 4)), rng.standard_normal((2, 6, 4, 4))
    yours = theirs.step(torch.from_numpy(output), theirs.timesteps[0], torch.from_numpy(sample)).prev_sample
    assert largest_difference(ours.step(output, ours.timesteps[0], sample).prev_sample, yours.numpy()) < 1e-6


# where diffusers is wrong -------------------------------------------------------------------------------------


def test_the_third_order_of_the_reverse_process_differs_by_a_sign():
    """diffusers' weight of D_2 tends to -1 as h goes to 0, where W_2(2h)/2 tends to 0; they differ by a_t exactly."""
    ours, theirs = both(DPM, algorithm_type="sde-dpmsolver++", solver_order=3)
    ours.set_timesteps(50)
    theirs.set_timesteps(50)
    rng = np.random.default_rng(3)
    outputs = rng.standard_normal((3, *SHAPE), dtype=np.float32)
    zero = np.zeros(SHAPE, np.float32)
    x0 = []
    for i in range(3):
        x = rng.standard_normal(SHAPE, dtype=np.float32)
        sigma = float(ours.sigmas[i])
        x0.append((x * np.hypot(1, sigma) - sigma * outputs[i]).astype(np.float64))
        mine = ours.step(outputs[i], ours.timesteps[i], x, noise=zero).prev_sample
        yours = theirs.step(
            torch.from_numpy(outputs[i]), theirs.timesteps[i], torch.from_numpy(x), variance_noise=torch.zeros(SHAPE)
        ).prev_sample
    lambdas = -np.log(ours.sigmas[:4].astype(np.float64))
    h, h_0, h_1 = lambdas[3] - lambdas[2], lambdas[2] - lambdas[1], lambdas[1] - lambdas[0]
    curvature = h**2 * ((x0[2] - x0[1]) / h_0 - (x0[1] - x0[0]) / h_1) / (h_0 + h_1)
    signal = 1 / np.hypot(1, float(ours.sigmas[3]))
    assert largest_difference(mine - yours.numpy(), signal * curvature) < 1e-4


@pytest.mark.parametrize("name", [DPM, UNIPC])
def test_diffusers_adds_noise_in_reverse_before_set_timesteps(name):
    ours, theirs = both(name)
    images, noise = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    expected = np.sqrt(1 - ours.alphas_cumprod[10])
    np.testing.assert_allclose(ours.add_noise(images, noise, 10), expected, rtol=1e-6)
    reversed_ = theirs.add_noise(torch.from_numpy(images), torch.from_numpy(noise), torch.tensor([10])).numpy()
    np.testing.assert_allclose(reversed_, np.sqrt(1 - ours.alphas_cumprod[989]), rtol=1e-6)


@pytest.mark.parametrize("options", [{"predict_x0": False}, {"lower_order_final": False}, {"solver_type": "bh1"}])
def test_unipc_ends_at_zero(options):
    """Where diffusers has NaN."""
    ours, theirs = both(UNIPC, **options)
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    x = np.random.default_rng(4).standard_normal(SHAPE, dtype=np.float32)
    y = torch.from_numpy(x)
    for t, their_t in zip(ours.timesteps, theirs.timesteps, strict=True):
        x, y = ours.step(0.1 * x, t, x).prev_sample, theirs.step(0.1 * y, their_t, y).prev_sample
    assert np.all(np.isfinite(x)) and not np.all(np.isfinite(y.numpy()))


# training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [EULER, ANCESTRAL, HEUN, DPM, UNIPC])
@pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}])
def test_add_noise_is_equal(name, options):
    ours, theirs = both(name, **(options if name != ANCESTRAL else {}))
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    rng = np.random.default_rng(5)
    images, noise = (rng.standard_normal((4, 3, 2, 2)).astype(np.float32) for _ in range(2))
    chosen = [2, 5, 6, 9]
    noisy = theirs.add_noise(torch.from_numpy(images), torch.from_numpy(noise), theirs.timesteps[chosen])
    assert largest_difference(ours.add_noise(images, noise, ours.timesteps[chosen]), noisy.numpy()) < 1e-6


def test_scale_noise_is_equal():
    ours, theirs = both(FLOW, shift=3.0)
    rng = np.random.default_rng(6)
    images, noise = (rng.standard_normal((4, 3, 2, 2)).astype(np.float32) for _ in range(2))
    chosen = [0, 100, 500, 999]
    noisy = theirs.scale_noise(torch.from_numpy(images), theirs.timesteps[chosen], torch.from_numpy(noise))
    assert largest_difference(ours.scale_noise(images, ours.timesteps[chosen], noise), noisy.numpy()) < 1e-6


# files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_configurations_are_exchanged(name, tmp_path):
    for k, options in enumerate([{}, *OPTIONS[name]]):
        ours, theirs = both(name, **options)
        ours.save_pretrained(tmp_path / f"ours{k}")
        theirs.save_pretrained(tmp_path / f"theirs{k}")
        our_text, their_text = ((tmp_path / f"{who}{k}" / "scheduler_config.json").read_text() for who in ("ours", "theirs"))
        assert our_text == json.dumps(json.loads(their_text), indent=2, sort_keys=True) + "\n"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert type(ours).from_pretrained(tmp_path / f"theirs{k}").config == ours.config
        loaded = type(theirs).from_pretrained(tmp_path / f"ours{k}")
        assert {key: loaded.config[key] for key in ours.config} == ours.config


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("source", ["DDPMScheduler", *NAMES[:-1]])
def test_configurations_of_one_scheduler_make_another(source, name):
    chosen = {"num_train_timesteps": 500, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    if source != "DDPMScheduler":
        chosen |= {"timestep_spacing": "trailing", "use_karras_sigmas": True} if source != ANCESTRAL else {}
    ours = getattr(schedulers, name).from_config(getattr(schedulers, source)(**chosen).config)
    theirs = getattr(diffusers, name).from_config(getattr(diffusers, source)(**chosen).config)
    ours.set_timesteps(10)
    theirs.set_timesteps(10)
    assert largest_difference(ours.timesteps, theirs.timesteps.numpy()) < 1e-6
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=5e-7)
    own = inspect.signature(type(ours)).parameters
    assert {key: ours.config[key] for key in own} == {key: theirs.config[key] for key in own}


@pytest.mark.parametrize("name", [DPM, UNIPC])
def test_what_from_config_chooses_is_a_file_of_diffusers(name, tmp_path):
    """DDPM's clipping as thresholding: the same numbers there, from T-1 on, where they would be noise without it."""
    ours = getattr(schedulers, name).from_config(schedulers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").config)
    ours.save_pretrained(tmp_path)
    theirs = getattr(diffusers, name).from_pretrained(tmp_path)
    assert theirs.config["thresholding"] is True
    for mine, yours in trajectories(ours, theirs, 6, np.random.default_rng(0)):
        assert difference(mine, yours) < 1e-4 and np.abs(mine).max() < 6
