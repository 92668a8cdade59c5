"""Score-based networks with classes through `pipelines.sample`: predictor and corrector, guided, against the known distribution."""

import numpy as np
import pytest

import hcrot
from hcrot import pipelines
from hcrot.schedulers import ScoreSdeVeScheduler, ScoreSdeVpScheduler

MEANS, STD, NULL = np.array([-0.3, 0.25, 0.1]), 0.05, 2  # of the pixels of each class; the last one stands for "no class"
LABELS = np.arange(200) % 2


class Known(hcrot.Module):
    """What a perfect network says of pixels N(MEANS[label], STD^2): the score at the level it is told, or for VP the noise at a time."""

    config = {"sample_size": 2, "in_channels": 1}

    def __init__(self, scheduler, time_scale=1.0):
        self.weight = hcrot.Parameter(np.zeros(1))
        self.sde, self.of_levels = scheduler.sde, isinstance(scheduler, ScoreSdeVeScheduler)
        self.time_scale, self.calls = time_scale, 0

    def forward(self, x, told, labels):
        self.calls += 1
        mean = MEANS[labels][:, None, None, None]
        if self.of_levels:
            return (mean - x) / (STD**2 + told**2)
        signal, std = (float(of(told / self.time_scale)) for of in (self.sde.signal, self.sde.std))
        return std * (x - signal * mean) / ((signal * STD) ** 2 + std**2)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize(("scheduler", "options"), [
    (ScoreSdeVeScheduler(sigma_max=5.0), {"num_inference_steps": 60}),
    (ScoreSdeVeScheduler(sigma_max=5.0), {"timesteps": np.linspace(1, 0.01, 60) ** 1.2, "correct_steps": 0}),
    (ScoreSdeVpScheduler(), {"num_inference_steps": 120, "time_scale": 999.0}),
    (ScoreSdeVpScheduler(), {"num_inference_steps": 150, "correct_steps": 1, "snr": 0.1}),
])  # fmt: skip
def test_classes_come_out_as_they_are_guided(scheduler, options, guidance_scale):
    """Of normal data with one variance the guided score is that of the mean moved away from the null label's."""
    model = Known(scheduler, options.get("time_scale", 1.0))
    drawn = pipelines.sample(
        model, scheduler, generator=0, class_labels=LABELS, guidance_scale=guidance_scale, null_label=NULL, progress=False, **options
    )
    corrections = options.get("correct_steps", scheduler.config.get("correct_steps", 0))
    assert model.calls == len(scheduler.timesteps) * (1 + corrections)
    for label in (0, 1):
        pixels = drawn[label == LABELS]
        assert abs(pixels.mean() - (MEANS[NULL] + guidance_scale * (MEANS[label] - MEANS[NULL]))) < 0.02
        assert 0.5 * STD < pixels.std() < 1.6 * STD


def test_the_walk_is_that_of_diffusers_pipeline():
    scheduler, rng = ScoreSdeVeScheduler(sigma_max=5.0), np.random.default_rng(1)
    model = Known(scheduler)
    found = list(pipelines.steps(model, scheduler, generator=1, class_labels=LABELS, num_inference_steps=5, progress=False))
    x = rng.standard_normal((200, 1, 2, 2)) * scheduler.init_noise_sigma
    for step, t, sigma in zip(found, scheduler.timesteps, scheduler.sigmas.tolist(), strict=True):
        x = scheduler.step_correct(model(x, sigma, LABELS), x, rng).prev_sample
        output = scheduler.step_pred(model(x, sigma, LABELS), t, x, rng)
        x = output.prev_sample if t > scheduler.timesteps[-1] else output.prev_sample_mean
        np.testing.assert_allclose(step.prev_sample, x, rtol=1e-10)
    np.testing.assert_allclose(found[-1].pred_original_sample, x, atol=1e-3)
    assert found[-1].prev_timestep == -1


def test_misspelt_and_foreign_options_are_refused():
    scheduler = ScoreSdeVeScheduler()
    with pytest.raises(TypeError, match="unknown option 'eta'; ScoreSdeVeScheduler.step takes correct_steps, snr, time_scale"):
        pipelines.sample(Known(scheduler), scheduler, generator=0, class_labels=0, num_inference_steps=2, eta=1.0)
    with pytest.raises(ValueError, match="pipelines.sample: correct_steps is -1, expected at least 0"):
        pipelines.sample(Known(scheduler), scheduler, generator=0, class_labels=0, num_inference_steps=2, correct_steps=-1, progress=False)
