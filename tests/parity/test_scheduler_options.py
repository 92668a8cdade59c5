"""Every value of every option of every scheduler beside diffusers: one at a time, and drawn pairs of them.

What hcrot refuses stands in REFUSED, and where diffusers has no number or a wrong one in DIFFERENT, each with the reason. What is
in neither has to be equal; what is in one of them and does not happen any more has to leave it.
"""

import importlib
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import schedulers  # noqa: E402
from hcrot.schedulers.base import NoiseScheduler  # noqa: E402
from hcrot.schedulers.schedules import BETA_SCHEDULES  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers", "ignore::FutureWarning:diffusers"),
    pytest.mark.usefixtures("one_torch_thread"),
]

DDPM, DDIM, INVERSE, PNDM = "DDPMScheduler", "DDIMScheduler", "DDIMInverseScheduler", "PNDMScheduler"
EULER, ANCESTRAL, HEUN = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"
DPM, UNIPC, FLOW = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"
NAMES = (DDPM, DDIM, INVERSE, PNDM, EULER, ANCESTRAL, HEUN, DPM, UNIPC, FLOW)
SHAPE = (2, 3, 2, 2)
FEW = 20  # so many are trained where as many are visited
PAIRS = 60

BOOL = (False, True)
VALUES = {  # "ascending" stands for a list of as many as are trained
    "num_train_timesteps": (100, 1000), "beta_start": (0.001,), "beta_end": (0.012,), "beta_schedule": tuple(BETA_SCHEDULES),
    "trained_betas": ("ascending", None), "prediction_type": ("epsilon", "sample", "v_prediction"), "clip_sample": BOOL,
    "clip_sample_range": (2.0,), "thresholding": BOOL, "dynamic_thresholding_ratio": (0.5,), "sample_max_value": (1.5,),
    "set_alpha_to_one": BOOL, "steps_offset": (0, 1), "timestep_spacing": ("linspace", "leading", "trailing"),
    "rescale_betas_zero_snr": BOOL, "skip_prk_steps": BOOL, "interpolation_type": ("linear", "log_linear"),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"),
    "use_karras_sigmas": (None, *BOOL), "use_exponential_sigmas": (None, *BOOL), "use_beta_sigmas": (None, *BOOL),
    "use_lu_lambdas": (None, *BOOL), "sigma_min": (None, 0.1), "sigma_max": (None, 50.0), "timestep_type": ("discrete", "continuous"),
    "final_sigmas_type": ("zero", "sigma_min"), "solver_order": (1, 2, 3), "solver_type": ("midpoint", "heun", "bh1", "bh2", "logrho"),
    "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"), "lower_order_final": BOOL,
    "euler_at_final": BOOL, "use_flow_sigmas": BOOL, "flow_shift": (3.0,), "lambda_min_clipped": (-3.0,), "use_dynamic_shifting": BOOL,
    "time_shift_type": ("exponential", "linear"), "predict_x0": BOOL, "disable_corrector": ([], [0, 2]), "solver_p": (None, DPM),
    "shift_terminal": (None, 0.1), "shift": (0.5, 3.0), "base_shift": (0.4,), "max_shift": (1.3,), "base_image_seq_len": (128,),
    "max_image_seq_len": (2048,), "invert_sigmas": BOOL, "stochastic_sampling": BOOL,
}  # fmt: skip
FLOWING = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
TO_MIN = {"final_sigmas_type": "sigma_min"}
KARRAS = {"use_karras_sigmas": True}
NEEDS = {  # with which other options one says something, or is refused: these are walked as well
    "clip_sample_range": [{"clip_sample": True}], "dynamic_thresholding_ratio": [{"thresholding": True}],
    "sample_max_value": [{"thresholding": True}], "algorithm_type": [TO_MIN], "predict_x0": [TO_MIN], "solver_type": [TO_MIN],
    "lower_order_final": [TO_MIN], "rescale_betas_zero_snr": [{"prediction_type": "v_prediction", "timestep_spacing": "trailing"}],
    "sigma_min": [KARRAS], "sigma_max": [KARRAS], "timestep_type": [{"prediction_type": "v_prediction"}],
    "use_beta_sigmas": [KARRAS], "invert_sigmas": [{"stochastic_sampling": True}],
    "steps_offset": [{"timestep_spacing": "leading"}],
}  # fmt: skip
MULTISTEP_NEEDS = {
    "flow_shift": [FLOWING], "use_flow_sigmas": [{"prediction_type": "flow_prediction"}], "shift_terminal": [FLOWING],
    "use_dynamic_shifting": [FLOWING], "time_shift_type": [{**FLOWING, "use_dynamic_shifting": True}],
    "prediction_type": [{"use_flow_sigmas": True}], "use_karras_sigmas": [FLOWING], "use_exponential_sigmas": [FLOWING],
    "thresholding": [{"predict_x0": False, **TO_MIN}],
    "solver_order": [{"algorithm_type": "sde-dpmsolver++"}, {"algorithm_type": "sde-dpmsolver", **TO_MIN}],
}  # fmt: skip

SIGMA, MULTISTEP = (EULER, HEUN, DPM, UNIPC, FLOW), (DPM, UNIPC)
UNKNOWN = ("sigmoid", "laplace", "exp")
KINDS = ("karras", "exponential", "beta")


def spacings(o):
    return sum(bool(value) for name, value in o.items() if name in ("use_lu_lambdas", *(f"use_{kind}_sigmas" for kind in KINDS)))


# Of which schedulers, with which options o and number of steps n; what the message says, which says why too.
REFUSED = [
    (SIGMA, lambda o, n: spacings(o) > 1, "expected at most one of use_karras_sigmas"),
    ((FLOW,), lambda o, n: o["stochastic_sampling"] and o["invert_sigmas"], "stochastic_sampling ends at sigma = 0, expected invert_sig"),
    ((FLOW, UNIPC), lambda o, n: o["shift_terminal"] and n == 1, "with shift_terminal expected sigmas that end below 1"),  # 0/0 there
    ((UNIPC,), lambda o, n: o["shift_terminal"] and not o["use_flow_sigmas"], "shift_terminal expected use_flow_sigmas=True"),
    (MULTISTEP, lambda o, n: o["prediction_type"] == "flow_prediction", "'flow_prediction' expected use_flow_sigmas=True"),
    (MULTISTEP, lambda o, n: o["prediction_type"] == "v_prediction" and o["use_flow_sigmas"], "cannot go with use_flow_sigmas=True, for v"),
    (MULTISTEP, lambda o, n: o["use_dynamic_shifting"], "use_dynamic_shifting=True expected use_flow_sigmas=True"),
    (MULTISTEP, lambda o, n: o["timestep_spacing"] == "leading" and n == o["num_train_timesteps"], "'leading' has to choose from"),
    ((DPM,), lambda o, n: o["algorithm_type"] in ("dpmsolver", "sde-dpmsolver"), "cannot end at final_sigmas_type 'zero'"),
    ((DPM,), lambda o, n: o["time_shift_type"] == "linear", "time_shift_type 'linear' is unknown"),  # also in diffusers, in set_timesteps
    ((UNIPC,), lambda o, n: o["solver_p"], "is not implemented"),
    ((PNDM,), lambda o, n: n < 4, "expected at least 4, or skip_prk_steps=True"),  # diffusers raises later, or takes steps of other lengths
    ((DDPM, DDIM), lambda o, n: o["rescale_betas_zero_snr"], "'epsilon' says nothing of x_0 where alphas_cumprod is 0"),  # x/0 there
    ((INVERSE,), lambda o, n: o["prediction_type"] == "sample", "x_0 says nothing of the noise where alphas_cumprod is 1"),  # 0/0 there
]
# Of which schedulers, with which options and number of steps; what diffusers does.
DIFFERENT = [
    ((DDPM,), lambda o, n: o["beta_schedule"] == "exp", "lacks a schedule"),
    ((HEUN,), lambda o, n: o["beta_schedule"] in ("sigmoid", "laplace"), "lacks a schedule"),
    ((DDIM, INVERSE, PNDM, EULER, ANCESTRAL, DPM, UNIPC), lambda o, n: o["beta_schedule"] in UNKNOWN, "lacks a schedule"),
    ((INVERSE,), lambda o, n: o["timestep_spacing"] == "linspace", "lacks a spacing"),
    ((INVERSE,), lambda o, n: o["thresholding"], "lacks an argument"),
    ((PNDM, ANCESTRAL), lambda o, n: o["prediction_type"] == "sample", "lacks a prediction type"),
    (NAMES[:7], lambda o, n: o["steps_offset"] and n == o["num_train_timesteps"], "begins at T"),
    ((DDPM,), lambda o, n: o["variance_type"] in ("fixed_large_log", "learned"), "is NaN"),  # roots of what may be negative
    (MULTISTEP, lambda o, n: n == o["num_train_timesteps"], "is NaN"),  # where "linspace" has a timestep twice, or "trailing" goes too far
    ((DPM,), lambda o, n: o["algorithm_type"] == "deis" and o["final_sigmas_type"] == "zero", "lacks the end"),  # though it is "++"
    ((DPM,), lambda o, n: o["use_flow_sigmas"] and spacings(o), "has other timesteps, and is NaN"),
    ((UNIPC,), lambda o, n: o["use_flow_sigmas"] and spacings(o) and not o["use_karras_sigmas"], "has other timesteps, and is NaN"),
    ((UNIPC,), lambda o, n: o["final_sigmas_type"] == "zero" and _is_far(o), "is NaN"),  # in the last step
    ((UNIPC,), lambda o, n: o["thresholding"] and not o["predict_x0"], "is another number"),  # it does not threshold
    ((DPM,), lambda o, n: o["algorithm_type"] == "sde-dpmsolver++" and o["solver_order"] == 3, "is another number"),  # a wrong sign
    ((DPM,), lambda o, n: o["algorithm_type"] == "sde-dpmsolver" and o["solver_order"] == 3, "lacks an order"),
]


def _is_far(o):
    """Options of UniPC with which diffusers takes the infinite step to sigma = 0."""
    return o["solver_type"] == "bh1" or not o["predict_x0"] or not o["lower_order_final"]


def signature(cls):
    return {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}


def values(name, option):
    extra = ("flow_prediction",) if option == "prediction_type" and name in MULTISTEP else ()
    return (*VALUES[option], *extra)


def tolerance(options):
    """Of a step, relative to the largest entry before or after it.

    PyTorch's float32 root is not always rounded correctly, which the difference of nearly equal roots near abar_t = 0 shows.
    """
    return 5e-3 if options.get("rescale_betas_zero_snr") else 1e-4


def outcome(name, options, count):
    """("refused", message) or ("differs", what diffusers does) or ("equal", ""), or an AssertionError."""
    cls, their_cls = getattr(schedulers, name), getattr(diffusers, name)
    arguments = {"mu": 0.7} if options.get("use_dynamic_shifting") else {}
    try:
        ours = cls(**options)
        ours.set_timesteps(count, **arguments)
    except (ValueError, TypeError, NotImplementedError) as error:
        assert name in str(error)
        return "refused", str(error)
    finds, theirs = "equal", None
    try:
        # diffusers names None as a value of use_karras_sigmas and the like, and adds it to a number
        known = {key: value for key, value in options.items() if key in signature(their_cls)}
        theirs = their_cls(**{key: False if key.startswith("use_") and value is None else value for key, value in known.items()})
        theirs.set_timesteps(count, **arguments)
    except (ValueError, NotImplementedError):
        theirs, finds = None, "lacks"
    if options.get("thresholding") and "thresholding" not in signature(their_cls):
        theirs, finds = None, "lacks"
    if theirs is not None:
        if hasattr(theirs, "set_begin_index"):
            theirs.set_begin_index(0)
        if not np.allclose(ours.timesteps, theirs.timesteps.numpy(), rtol=1e-6, atol=1e-4):
            theirs, finds = None, "begins at T" if name != FLOW and theirs.timesteps.max() == len(ours) else "has other timesteps"
        elif hasattr(ours, "sigmas"):
            np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=0.1 * tolerance(options), atol=1e-7)
    return ("equal", "") if (found := walk(name, options, ours, theirs) or finds) == "equal" else ("differs", found)


def walk(name, options, ours, theirs):
    """Both walks on outputs that depend on nothing; what diffusers does where it stops short of equal numbers, or ""."""
    module, rng, found = importlib.import_module(getattr(diffusers, name).__module__), np.random.default_rng(0), ""
    injectable = "noise" in inspect.signature(ours.step).parameters
    channels = 6 if name == DDPM and "learned" in str(options.get("variance_type")) else 3
    mine = rng.standard_normal(SHAPE) * float(ours.init_noise_sigma)
    yours = torch.from_numpy(mine)
    with pytest.MonkeyPatch.context() as patch:
        for index, t in enumerate(ours.timesteps):
            output, z = rng.standard_normal((2, channels, 2, 2)), rng.standard_normal(SHAPE)
            before = np.max(np.abs(mine))
            step = ours.step(output, t, mine, **({"noise": z} if injectable else {}))
            mine = step.prev_sample
            assert np.all(np.isfinite(mine))
            if theirs is None or found:
                continue
            if hasattr(module, "randn_tensor"):
                patch.setattr(module, "randn_tensor", lambda *_, _z=z, **__: torch.from_numpy(_z))
            told = theirs.timesteps[index]
            if hasattr(theirs, "scale_model_input"):
                theirs.scale_model_input(yours, told)
            try:
                their_step = theirs.step(torch.from_numpy(output), int(told) if name in (INVERSE, PNDM) else told, yours)
            except (NotImplementedError, ValueError, UnboundLocalError, torch.linalg.LinAlgError) as error:
                found = "is NaN" if isinstance(error, torch.linalg.LinAlgError) else "lacks"
                continue
            yours = their_step.prev_sample
            found = compared(step, their_step, before, tolerance(options))
    return found


def compared(ours, theirs, before, limit):
    for mine, yours in ((ours.prev_sample, theirs.prev_sample), (ours.pred_original_sample, getattr(theirs, "pred_original_sample", None))):
        if yours is None or mine is None:
            continue
        if not torch.all(torch.isfinite(yours)):
            return "is NaN"
        difference = np.max(np.abs(mine - yours.numpy()))
        if difference > limit * max(1.0, before, float(yours.abs().max())):
            return "is another number"
    return ""


def check(name, cases):
    """No case but those of the tables is refused or differs; the entries of the tables that were needed."""
    needed, strange = set(), []
    for options, count in cases:
        resolved = {**signature(getattr(schedulers, name)), **options}
        if options.get("trained_betas") == "ascending":
            options = {**options, "trained_betas": np.linspace(0.001, 0.015, resolved["num_train_timesteps"]).tolist()}
        shown = {key: value for key, value in options.items() if key != "trained_betas"}
        try:
            kind, found = outcome(name, options, count)
        except AssertionError as error:
            kind, found = "differs", str(error)
        if kind == "equal":
            continue
        table = REFUSED if kind == "refused" else DIFFERENT
        entries = [
            number
            for number, (names, applies, text) in enumerate(table)
            if name in names and applies(resolved, count) and (text in found if kind == "refused" else text.startswith(found))
        ]
        needed |= {(kind, number) for number in entries}
        if not entries:
            strange.append(f"{name}({shown}), {count} steps, {kind}: {found}")
    assert not strange, "\n".join(strange)
    return needed


def as_many_as_trained(options, name):
    """Options of a scheduler trained on FEW timesteps, with as much noise at the end as others have."""
    more = {"num_train_timesteps": FEW}
    if "beta_end" in signature(getattr(schedulers, name)):
        more["beta_end"] = 0.3
    return {**options, **more}


def test_all_schedulers_and_all_options_are_walked():
    classes = {name for name, cls in vars(schedulers).items() if isinstance(cls, type) and issubclass(cls, NoiseScheduler)}
    elsewhere = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler"}
    assert classes - {"NoiseScheduler"} - elsewhere == set(NAMES)  # those: tests/parity/test_edm.py and test_score_sde.py
    assert {option for name in NAMES for option in signature(getattr(schedulers, name))} == VALUES.keys()
    for names, _, _ in [*REFUSED, *DIFFERENT]:
        assert set(names) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_one_option_at_a_time(name):
    own = signature(getattr(schedulers, name))
    cases = []
    for option in own:
        for needed in ({}, *NEEDS.get(option, ()), *(MULTISTEP_NEEDS.get(option, ()) if name in MULTISTEP else ())):
            for value in values(name, option):
                options = {**{key: known for key, known in needed.items() if key in own}, option: value}
                cases += [(options, count) for count in ((1, 7) if needed else (1, 2, 7))]
                cases.append((as_many_as_trained(options, name), FEW))
        cases.append((options, 50))
    needed = check(name, cases)
    for kind, table in (("refused", REFUSED), ("differs", DIFFERENT)):
        unused = [f"{kind}: {entry[2]}" for number, entry in enumerate(table) if name in entry[0] and (kind, number) not in needed]
        assert not unused, unused


@pytest.mark.parametrize("name", NAMES)
def test_drawn_pairs_of_options(name):
    rng, own, cases = np.random.default_rng(16), signature(getattr(schedulers, name)), []
    for _ in range(PAIRS):
        options = {}
        for option in rng.choice(list(own), 2, replace=False).tolist():
            choices = values(name, option)
            options[option] = choices[rng.integers(len(choices))]
        count = (1, 2, 7, FEW)[rng.integers(4)]
        cases.append((as_many_as_trained(options, name) if count == FEW else options, count))
    check(name, cases)
