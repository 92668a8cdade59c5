"""What schedulers show of themselves."""

import numpy as np
import pytest

from hcrot import schedulers
from hcrot.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, UniPCMultistepScheduler
from hcrot.schedulers.base import NoiseScheduler

CLASSES = [cls for cls in vars(schedulers).values() if isinstance(cls, type) and issubclass(cls, NoiseScheduler)]
CLASSES = [cls for cls in CLASSES if cls is not NoiseScheduler]


def evaluated(scheduler):
    return eval(repr(scheduler), {cls.__name__: cls for cls in CLASSES})  # noqa: S307


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_are_not_shown(cls):
    scheduler = cls()
    assert repr(scheduler) == f"{cls.__name__}()"
    scheduler.set_timesteps(20)
    assert repr(scheduler) == f"{cls.__name__}(num_inference_steps=20)"
    assert repr(cls.from_config(scheduler.config)) == f"{cls.__name__}()"
    assert repr(cls(num_train_timesteps=len(cls()))) == f"{cls.__name__}()"


@pytest.mark.parametrize("cls", CLASSES)
def test_it_evaluates_back(cls):
    options = {"num_train_timesteps": 500}
    choices = {"beta_schedule": "squaredcos_cap_v2", "shift": 3.0, "use_karras_sigmas": True, "disable_corrector": [0, 2]}
    choices |= {"rho": 5.0, "sampling_eps": 0.5}  # of the schedulers of EDM and of score-based models
    for name, value in choices.items():
        if name in cls().config:
            options[name] = value
    scheduler = cls(**options)
    assert len(options) > 1 and evaluated(scheduler).config == scheduler.config
    assert type(evaluated(scheduler)) is cls


@pytest.mark.parametrize(
    ("scheduler", "text"),
    [
        (
            DDIMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=500),
            "DDIMScheduler(num_train_timesteps=500, beta_schedule='squaredcos_cap_v2')",
        ),
        (PNDMScheduler(skip_prk_steps=np.True_, beta_end=np.float32(0.03125)), "PNDMScheduler(beta_end=0.03125, skip_prk_steps=True)"),
        (
            DDPMScheduler(9, variance_type=None, trained_betas=np.arange(1, 10) / 16, clip_sample=False),
            "DDPMScheduler(num_train_timesteps=9, trained_betas=[0.0625, 0.125, ..., 0.5625], variance_type=None, clip_sample=False)",
        ),
        (DPMSolverMultistepScheduler(algorithm_type="deis", lambda_min_clipped=-5), "DPMSolverMultistepScheduler(lambda_min_clipped=-5.0)"),
        (UniPCMultistepScheduler(disable_corrector=[]), "UniPCMultistepScheduler()"),
        (UniPCMultistepScheduler(disable_corrector=range(30)), "UniPCMultistepScheduler(disable_corrector=[0, 1, ..., 29])"),
    ],
)
def test_it_shows_what_differs_in_one_short_line(scheduler, text):
    assert repr(scheduler) == str(scheduler) == text


def test_it_shows_nothing_that_is_for_other_schedulers():
    trained = DDPMScheduler(variance_type="learned", beta_end=0.5, num_train_timesteps=50)
    assert repr(DDIMScheduler.from_config(trained.config)) == "DDIMScheduler(num_train_timesteps=50, beta_end=0.5)"


def test_it_shows_how_many_steps_were_chosen():
    scheduler = DDPMScheduler(beta_end=0.5, num_train_timesteps=50)
    scheduler.set_timesteps(timesteps=[40, 20, 3])
    assert repr(scheduler) == "DDPMScheduler(num_train_timesteps=50, beta_end=0.5, num_inference_steps=3)"
    scheduler.set_timesteps(7)
    assert repr(scheduler).endswith(", num_inference_steps=7)")
