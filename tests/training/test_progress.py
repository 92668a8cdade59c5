"""What is told of a run under way."""

from functools import partial

import numpy as np
import pytest

import hcrot
from hcrot.training.progress import error_by_time, errors_by_quarter, means_by_quarter, target_of, training_pictures


class Says(hcrot.Module):
    """Says that x_0 is the mean picture of the class, whatever it sees, or that mean and ``wrong`` more; without means: nothing."""

    def __init__(self, scheduler, means=None, wrong=0.0):
        self.scheduler, self.means, self.wrong = scheduler, means, wrong

    def forward(self, x, t, labels=None):
        if self.means is None:
            return 0 * x
        clean = self.means[labels if labels is not None and len(self.means) > 1 else 0 * t] + self.wrong
        signal = self.scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        noise = (x - np.sqrt(signal) * clean) / np.sqrt(1 - signal)
        return target_of(self.scheduler, self.scheduler.config.prediction_type, clean, noise, t)


def some_pictures(count, draw):
    """Of three classes, (images, labels). Most of what sets pictures of a class apart is how bright they are, as in real ones."""
    rng = np.random.default_rng([count, draw])
    labels, patterns = rng.integers(3, size=count), np.random.default_rng(0).uniform(-0.5, 0.5, (3, 1, 4, 4))
    light, grain = rng.standard_normal((count, 1, 1, 1)), rng.standard_normal((count, 1, 4, 4))
    return (0.3 + patterns[labels] + 0.3 * light + 0.2 * grain).astype(np.float32), labels


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("count", [24, 100, 300])
def test_who_says_the_mean_of_pure_noise_has_learned_enough_and_nobody_else(count, classes, kind):
    scheduler = hcrot.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=kind)
    for draw in range(3):
        images, labels = some_pictures(count, draw)
        rest, judged = np.split(np.arange(count), [count - count // 20])
        trained = training_pictures([(images[rows], labels[rows] if classes else None) for rows in np.array_split(rest, 2)], classes)
        held = images[judged], labels[judged] if classes else None
        judgement = partial(error_by_time, scheduler=scheduler, images=held[0], labels=held[1], generator=draw, trained=trained)
        perfect, ignorant = (judgement(Says(scheduler, means)) for means in (trained.means, None))
        assert not perfect.undertrained and ignorant.undertrained
        if kind != "epsilon":
            assert abs(perfect.last) < 0.005
            excess = 0.4**2 / images[rest].var(axis=0).mean()
            assert judgement(Says(scheduler, trained.means, 0.4)).last == pytest.approx(excess, rel=0.15)
            overall = images[rest].mean(axis=0, keepdims=True)
            assert judgement(Says(scheduler, overall)).undertrained == (classes > 0), "it is to know the classes if it is told them"


def test_of_what_nobody_can_know_there_is_no_verdict():
    images, _ = some_pictures(9, 0)
    for schedule, pictures, more in (
        ("squaredcos_cap_v2", images, {"condition": images}),
        ("laplace", images, {}),
        ("squaredcos_cap_v2", images * 0 + 0.5, {}),
    ):
        scheduler = hcrot.DDPMScheduler(beta_schedule=schedule, prediction_type="sample")
        trained = training_pictures([(pictures, None)], 0)
        model = Says(scheduler, np.concatenate([trained.means] * 2, axis=1) if more else trained.means)
        found = error_by_time(model, scheduler, pictures, generator=0, trained=trained, **more)
        assert (found.last, found.undertrained) == (None, None) and len(found.quarters) == 4
    assert error_by_time(model, scheduler, images, generator=0).undertrained is None


def test_losses_are_told_by_quarter_of_the_time():
    target = np.zeros((3, 1, 2, 2), np.float32)
    prediction = np.array([1, 3, 5], np.float32)[:, None, None, None] + target
    sums = errors_by_quarter(prediction, target, np.array([0, 249, 999]), 1000)
    assert sums.tolist() == [[10, 0, 0, 25], [2, 0, 0, 1]]
    assert means_by_quarter(sums) == [5.0, None, None, 25.0]
