"""Bits per dimension by flow and by bound, of normal data, whose network and likelihood are formulas; and what is refused."""

import numpy as np
import pytest
from scipy.special import ndtr

import hcrot
from hcrot.pipelines.likelihood import WIDTH, LevelsSDE, ScoreOfLevels, bits_per_dimension_by_flow
from hcrot.training.variational_bound import bits_per_dimension

SPREAD = 0.25
SCHEDULER = hcrot.DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")


class NoiseOfNormalData(hcrot.Module):
    """E[eps | x_k] = s x/(abar SPREAD^2 + s^2), for data ~ N(0, SPREAD^2), at whole timesteps and, by log SNR, between them."""

    def __init__(self, alphas_cumprod):
        self.log_snr = np.log(alphas_cumprod.astype(np.float64)) - np.log1p(-alphas_cumprod.astype(np.float64))

    def forward(self, x, timestep):
        abar = 1 / (1 + np.exp(-np.interp(timestep, np.arange(len(self.log_snr)), self.log_snr)))
        slope = (np.sqrt(1 - abar) / (abar * SPREAD**2 + 1 - abar)).astype(x.dtype)[:, None, None, None]
        self.save(slope)
        return slope * x

    def backward(self, dout):
        return self.saved() * dout


@pytest.fixture(scope="module")
def normal_images():
    """(200, 1, 3, 5) of 256 levels, and their true bits per dimension: of the mass that each level has."""
    drawn = np.clip(SPREAD * np.random.default_rng(0).standard_normal((200, 1, 3, 5)), -1, 1)
    images = np.round((drawn + 1) / WIDTH) * WIDTH - 1
    mass = ndtr((images + WIDTH / 2) / SPREAD) - ndtr((images - WIDTH / 2) / SPREAD)
    return images, -np.log2(mass).mean(axis=(1, 2, 3))


def test_the_flow_finds_the_likelihood_of_normal_data(normal_images):
    images, true = normal_images
    model = NoiseOfNormalData(SCHEDULER.alphas_cumprod)
    found = bits_per_dimension_by_flow(model, SCHEDULER, images, generator=1, rtol=1e-6, atol=1e-6)
    assert abs(found.mean() - true.mean()) < 0.001
    np.testing.assert_allclose(found, true, atol=0.02)  # it is also right digit by digit: u moves each pixel by half a level at most


def test_the_bound_is_reached_where_each_step_has_its_true_variance(normal_images):
    """Each x_s given x_t is normal, with a variance that the network may learn. Then all terms but the decoder's measure what the forward
    process has in common with the backward one, and the mean over data is the entropy, as by the flow."""
    images, true = normal_images
    abar = SCHEDULER.alphas_cumprod.astype(np.float64)
    before = np.append(1, abar[:-1])
    beta, unknown = 1 - abar / before, SPREAD**2 * (1 - abar) / (abar * SPREAD**2 + 1 - abar)
    variance = beta * (1 - before) / (1 - abar) + (np.sqrt(before) * beta / (1 - abar)) ** 2 * unknown
    model = NoiseOfNormalData(SCHEDULER.alphas_cumprod)

    def predict(x, timesteps):
        noise = model(x, timesteps)
        return np.concatenate([noise, np.full_like(noise, variance[timesteps[0]])], axis=1)

    with model.inference():
        options = {"variance_type": "learned", "clip_sample": False}
        learned = bits_per_dimension(predict, images, SCHEDULER.alphas_cumprod, 2, **options).total
        fixed = bits_per_dimension(model, images, SCHEDULER.alphas_cumprod, 2, variance_type="fixed_large", clip_sample=False).total
    error = 3 * np.std(learned - true) / np.sqrt(len(true))
    assert abs((learned - true).mean()) < error < 0.1
    assert fixed.mean() > learned.mean() + error


def test_the_process_passes_through_the_levels_and_has_the_slopes_of_its_levels():
    sde = LevelsSDE(SCHEDULER.alphas_cumprod)
    log_snr = np.log(SCHEDULER.alphas_cumprod / (1 - SCHEDULER.alphas_cumprod.astype(np.float64)))
    times = (log_snr[0] - log_snr) / (log_snr[0] - log_snr[-1])
    np.testing.assert_allclose(sde.timestep(times), np.arange(100), atol=2e-3)
    np.testing.assert_allclose(sde.signal(times) ** 2, SCHEDULER.alphas_cumprod, rtol=1e-5)
    np.testing.assert_allclose(sde.signal(times) ** 2 + sde.std(times) ** 2, 1)
    t, step = np.array([0.1, 0.5, 0.9]), 1e-6
    slope = (np.log(sde.signal(t + step)) - np.log(sde.signal(t - step))) / (2 * step)
    np.testing.assert_allclose(sde.drift_rate(t), slope, rtol=1e-6)
    np.testing.assert_allclose(sde.diffusion(t) ** 2, -2 * slope, rtol=1e-6)


class TwoClasses(NoiseOfNormalData):
    """The same for label 0, and half of it for label 1."""

    def __init__(self, alphas_cumprod):
        super().__init__(alphas_cumprod)
        self.halved = hcrot.Parameter(np.array([1.0, 0.5]))

    def forward(self, x, timestep, labels):
        self.labels = labels
        return self.halved.data[labels][:, None, None, None] * super().forward(x, timestep)

    def backward(self, dout):
        self.halved.grad += 1.0
        return self.halved.data[self.labels][:, None, None, None] * super().backward(dout)


def test_labels_reach_their_images_and_the_network_stays_as_it_was(normal_images):
    images, _ = normal_images
    images, model = images[:4], TwoClasses(SCHEDULER.alphas_cumprod).eval()
    plain = bits_per_dimension_by_flow(NoiseOfNormalData(SCHEDULER.alphas_cumprod), SCHEDULER, images, generator=4)
    found, repeated = (
        bits_per_dimension_by_flow(model, SCHEDULER, images, generator=4, class_labels=np.array([0, 1, 1, 0]), num_probes=probes)
        for probes in (1, 3)
    )
    for one in (found, repeated):  # of a slope that is the same in all directions each probe tells the whole
        np.testing.assert_allclose(one[[0, 3]], plain[[0, 3]], atol=0.02)
        assert np.all(np.abs(one[1:3] - plain[1:3]) > 0.1)
    assert not model.training and np.all(model.halved.grad == 0)
    score = ScoreOfLevels(TwoClasses(SCHEDULER.alphas_cumprod), LevelsSDE(SCHEDULER.alphas_cumprod), np.array([0, 1, 1, 0]))
    t, rng = np.array([0.1, 0.2, 0.6, 0.9]), np.random.default_rng(5)
    dout, way = rng.standard_normal((2, *images.shape))
    with score.inference():
        along = score(images + 1e-4 * way, t) - score(images - 1e-4 * way, t)
    score(images, t)
    assert np.sum(score.backward(dout) * way) == pytest.approx(np.sum(dout * along) / 2e-4, rel=1e-6)


@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"scheduler": hcrot.DDPMScheduler(prediction_type="sample")}, ValueError, "prediction_type is 'sample', expected 'epsilon'"),
    ({"scheduler": "ddpm"}, TypeError, "scheduler is a str, expected one with alphas_cumprod"),
    ({"scheduler": hcrot.FlowMatchEulerDiscreteScheduler()}, TypeError, "FlowMatchEulerDiscreteScheduler, expected one with"),
    ({"scheduler": hcrot.DDPMScheduler(1)}, ValueError, r"alphas_cumprod has shape \(1,\) and goes from"),
    ({"images": np.zeros((2, 1, 3, 3), int)}, ValueError, r"images is int64 \(2, 1, 3, 3\), expected"),
    ({"class_labels": np.zeros(3, int)}, ValueError, r"class_labels has shape \(3,\), expected \(2,\), one for each image"),
    ({"generator": None}, TypeError, "generator must be a numpy.random.Generator"),
])  # fmt: skip
def test_bad_input(changed, error, message):
    given = {"model": NoiseOfNormalData(SCHEDULER.alphas_cumprod), "scheduler": SCHEDULER, "images": np.zeros((2, 1, 3, 3)), "generator": 0}
    with pytest.raises(error, match=message):
        bits_per_dimension_by_flow(**given | changed)
