"""Interpolation, editing, guidance and inverse problems: against closed forms for Gaussian images, and gradients against differences."""

import numpy as np
import pytest

import hcrot
from hcrot import pipelines
from hcrot.pipelines import editing, guidance, interpolation, inverse_problems
from hcrot.pipelines.editing import low_pass, noised_from
from hcrot.pipelines.guidance import gradient_through
from hcrot.pipelines.interpolation import slerp
from hcrot.schedulers import DDIMScheduler, DDPMScheduler
from hcrot.schedulers.predictions import levels, predicted_original_sample, prediction_of
from support import small_unets


def gaussian_scheduler(kind=DDPMScheduler, **options):
    return kind(**{"num_train_timesteps": 200, "beta_schedule": "squaredcos_cap_v2", "clip_sample": False, **options})


class Gaussian(hcrot.Module):
    """What a perfect network says of images whose pixels are N(mean, std^2): eps = sigma (x - signal mean) / (signal^2 std^2 + sigma^2)."""

    def __init__(self, scheduler, mean=0.5, std=0.2):
        self.scheduler, self.mean, self.std, self.calls = scheduler, mean, std, 0
        self.config = {"sample_size": 4, "in_channels": 1}
        self.dtype_source = hcrot.Parameter(np.zeros(1, np.float32))

    def forward(self, x, t):
        self.calls += 1
        signal, sigma = levels(self.scheduler, t)
        slope = sigma / (signal**2 * self.std**2 + sigma**2)
        self.save(slope)
        return (slope * (x - signal * self.mean)).astype(x.dtype)

    def backward(self, dout):
        return (self.saved() * dout).astype(dout.dtype)


def images(*shape, seed=0):
    return (0.5 + 0.2 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


# ---------------------------------------------------------------- predictions


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_predictions_and_images_are_each_others_inverse(kind):
    scheduler, rng = gaussian_scheduler(prediction_type=kind), np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, 3, 1, 4, 4))
    t = 120
    x = scheduler.add_noise(x0, eps, t)
    truth = {"epsilon": eps, "sample": x0, "v_prediction": scheduler.get_velocity(x0, eps, t)}[kind]
    np.testing.assert_allclose(predicted_original_sample(scheduler, truth, t, x), x0, atol=1e-5)
    np.testing.assert_allclose(prediction_of(scheduler, x0, t, x), truth, atol=1e-5)
    for wrong, error in ((200, ValueError), (-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="timestep must be"):
            levels(scheduler, wrong)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_gradient_through_a_network(kind):
    """Of a weighted sum of x_0, against differences, in float64; the network's gradients and modes are left alone."""
    rng = np.random.default_rng(1)
    model = small_unets.tiny_model(in_channels=2, out_channels=2).astype(np.float64)
    for parameter in model.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
        parameter.grad += 3
    model.eval()
    scheduler, t, labels = gaussian_scheduler(prediction_type=kind), 90, np.array([0, 2])
    x, weights, direction = rng.standard_normal((3, 2, 2, 5, 6))

    def value(x):
        with model.inference():
            return np.sum(weights * predicted_original_sample(scheduler, model(x, t, labels), t, x))

    _, slope = gradient_through(model, scheduler, x, t, (labels,), lambda x0: weights)
    h = 1e-5
    numeric = (value(x + h * direction) - value(x - h * direction)) / (2 * h)
    assert np.sum(slope * direction) == pytest.approx(numeric, rel=1e-6)
    assert not model.training and all(np.all(parameter.grad == 3) for parameter in model.parameters())


def test_dropout_does_not_disturb_the_gradient():
    model = small_unets.tiny_model(in_channels=1, out_channels=1, dropout=0.5)
    x = images(1, 1, 5, 6)
    first, second = (gradient_through(model, gaussian_scheduler(), x, 50, (1,), np.ones_like) for _ in range(2))
    np.testing.assert_array_equal(first[1], second[1])
    assert {module.p for module in model.modules() if isinstance(module, hcrot.Dropout)} == {0.5}


# ---------------------------------------------------------------- guidance by a classifier


class Linear(hcrot.Module):
    """Logits that are linear in the image's mean: class 1 is bright, class 0 is dark."""

    def forward(self, x):
        self.save(x.shape)
        mean = x.mean(axis=(1, 2, 3))
        return np.stack([-8 * mean, 8 * mean], axis=1)

    def backward(self, dout):
        shape = self.saved()
        slope = 8 * (dout[:, 1] - dout[:, 0]) / np.prod(shape[1:])
        return np.broadcast_to(slope[:, None, None, None], shape).astype(np.float32)


def test_a_classifier_pulls_towards_its_class():
    scheduler = gaussian_scheduler(DDIMScheduler)
    scheduler.set_timesteps(20)
    model, classes = Gaussian(scheduler, mean=0.0), np.array([0, 0, 1, 1])
    found = {}
    for scale in (0.0, 1.0, 4.0):
        guided = guidance.GuidedByClassifier(model, scheduler, Linear(), classes, scale)
        drawn = pipelines.sample(guided, scheduler, generator=0, batch_size=4, progress=False)
        found[scale] = drawn.mean(axis=(1, 2, 3))
    plain = pipelines.sample(model, scheduler, generator=0, batch_size=4, progress=False).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found[0.0], plain, atol=1e-4)
    for classes_of, sign in ((slice(0, 2), -1), (slice(2, 4), 1)):
        assert np.all(sign * (found[1.0] - found[0.0])[classes_of] > 0.001)
        assert np.all(sign * (found[4.0] - found[1.0])[classes_of] > 0.001)


# ---------------------------------------------------------------- operators and inverse problems

OPERATORS = {
    "inpainting": inverse_problems.Inpainting(np.arange(48).reshape(6, 8) % 3 > 0),
    "super-resolution": inverse_problems.SuperResolution(2),
    "blur": inverse_problems.Blur(np.array([[0.1, 0.2, 0.3], [0.0, 0.3, 0.1]])),
    "gaussian": inverse_problems.Blur.gaussian(0.6, least=0.0),
    "mri": inverse_problems.MRI(np.array([0, 1, 0, 1, 1, 0])),
    "random mri": inverse_problems.MRI.random(6, 0.5, np.random.default_rng(0)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_linear_with_their_adjoints_and_pseudo_inverses(name):
    operator, rng = OPERATORS[name], np.random.default_rng(2)
    x, other = rng.standard_normal((2, 3, 2, 6, 8))
    y = operator.forward(x)
    np.testing.assert_allclose(operator.forward(2 * x + other), 2 * y + operator.forward(other), atol=1e-12)
    weights = rng.standard_normal(y.shape)
    assert np.sum(y * weights) == pytest.approx(np.sum(x * operator.adjoint(weights)))
    if name != "blur":  # which gives up what it has nearly lost
        np.testing.assert_allclose(operator.forward(operator.pseudo_inverse(y)), y, atol=1e-9)
    back = operator.pseudo_inverse(y)
    np.testing.assert_allclose(operator.pseudo_inverse(operator.forward(back)), back, atol=1e-9)
    assert operator.forward(x.astype(np.float32)).dtype == operator.adjoint(y.astype(np.float32)).dtype == np.float32


def test_blur_is_a_convolution_and_mri_a_projection():
    from scipy.ndimage import convolve

    x, kernel = np.random.default_rng(0).standard_normal((1, 1, 6, 8)), np.array([[0.1, 0.2, 0.3], [0.0, 0.3, 0.1], [0.2, 0.0, 0.4]])
    np.testing.assert_allclose(inverse_problems.Blur(kernel).forward(x)[0, 0], convolve(x[0, 0], kernel, mode="wrap"), atol=1e-12)
    scanner = OPERATORS["mri"]
    measured = np.fft.fftshift(np.fft.fft2(scanner.forward(x))[0, 0], axes=0)
    truth = np.fft.fftshift(np.fft.fft2(x)[0, 0], axes=0)
    np.testing.assert_allclose(measured[[1, 3, 4]], truth[[1, 3, 4]], atol=1e-12)
    np.testing.assert_allclose(measured[[0]], 0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: inverse_problems.Inpainting(np.array([0.5])), "mask must have 0 and 1 only"),
        (lambda: inverse_problems.SuperResolution(0), "factor"),
        (lambda: inverse_problems.SuperResolution(4).forward(np.zeros((1, 1, 6, 8))), "do not divide"),
        (lambda: inverse_problems.Blur(np.ones(3)), r"kernel must have the shape \(KH, KW\)"),
        (lambda: inverse_problems.Blur.gaussian(-1), "std must be a positive number"),
        (lambda: inverse_problems.Blur(np.ones((7, 1))).forward(np.zeros((1, 1, 6, 8))), "is larger than images of 6x8"),
        (lambda: inverse_problems.MRI(np.zeros(6)), "not all 0"),
        (lambda: inverse_problems.MRI(np.ones(5)).forward(np.zeros((1, 1, 6, 8))), "for images of height 5, got 6"),
    ],
)
def test_bad_operators_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_projection_fits_the_measurement_and_draws_the_rest():
    scheduler = gaussian_scheduler(DDIMScheduler)
    scheduler.set_timesteps(100)
    truth = np.clip(images(200, 1, 4, 4), -1, 1)
    mask = np.arange(16).reshape(4, 4) < 6
    operator = inverse_problems.Inpainting(mask)
    drawn = inverse_problems.ddnm(Gaussian(scheduler), scheduler, operator, operator.forward(truth), generator=1, eta=1.0, progress=False)
    np.testing.assert_allclose(drawn * mask, truth * mask, atol=1e-5)
    unknown = drawn[:, :, ~mask]
    assert unknown.mean() == pytest.approx(0.5, abs=0.02) and unknown.std() == pytest.approx(0.2, abs=0.03)
    assert abs(np.corrcoef(unknown.ravel(), truth[:, :, ~mask].ravel())[0, 1]) < 0.1


def test_posterior_sampling_comes_nearer_to_the_measurement():
    scheduler = gaussian_scheduler(DDIMScheduler)
    scheduler.set_timesteps(50)
    truth, operator = images(50, 1, 4, 4), inverse_problems.SuperResolution(2)
    y = operator.forward(truth)
    errors = {}
    for zeta in (0.0, 0.3):
        drawn = inverse_problems.dps(Gaussian(scheduler), scheduler, operator, y, zeta=zeta, generator=1, progress=False)
        errors[zeta] = np.sqrt(np.mean((operator.forward(drawn) - y) ** 2))
    assert errors[0.3] < 0.3 * errors[0.0]
    with pytest.raises(ValueError, match="zeta must be"):
        inverse_problems.dps(Gaussian(scheduler), scheduler, operator, y, zeta=-1, generator=1)


# ---------------------------------------------------------------- editing


def test_sdedit_begins_with_the_picture_at_its_level():
    scheduler = gaussian_scheduler()
    scheduler.set_timesteps(40)
    model, picture = Gaussian(scheduler), np.full((100, 1, 4, 4), -0.8, np.float32)
    means = [editing.sdedit(model, scheduler, picture, start_timestep=t, generator=0, progress=False).mean() for t in (10, 90, 195)]
    assert means[0] < -0.3 and means[0] < means[1] < means[2] and means[2] == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="below all timesteps"):
        editing.sdedit(model, scheduler, picture, start_timestep=-5, generator=0)


@pytest.mark.parametrize("repeats", [1, 3])
def test_inpainting_keeps_what_is_known(repeats):
    scheduler = gaussian_scheduler()
    model, truth, mask = Gaussian(scheduler), images(60, 1, 4, 4), np.arange(16).reshape(4, 4) % 2 == 0
    drawn = editing.inpaint(model, scheduler, truth, mask, generator=3, repeats=repeats, num_inference_steps=100, progress=False)
    np.testing.assert_array_equal(drawn[:, :, mask], np.clip(truth[:, :, mask], -1, 1))
    hole = drawn[:, :, ~mask]
    assert hole.mean() == pytest.approx(0.5, abs=0.03) and hole.std() == pytest.approx(0.2, abs=0.04)
    assert model.calls == 99 * repeats + 1
    for wrong, message in (({"mask": 0.5 * mask}, "0 and 1 only"), ({"mask": mask, "repeats": 0}, "repeats must be")):
        with pytest.raises(ValueError, match=message):
            editing.inpaint(model, scheduler, truth, generator=3, **wrong)


def test_noise_upon_noise_reaches_the_higher_level():
    scheduler, rng = gaussian_scheduler(), np.random.default_rng(0)
    x = scheduler.add_noise(np.full((1, 1, 300, 300), 2.0), rng.standard_normal((1, 1, 300, 300)), 40)
    higher = noised_from(scheduler, x, 40, 120, rng)
    signal, sigma = levels(scheduler, 120)
    assert higher.mean() == pytest.approx(2 * signal, abs=0.01) and higher.std() == pytest.approx(sigma, abs=0.01)


def test_ilvr_keeps_the_large_shapes():
    scheduler = gaussian_scheduler()
    model, references = Gaussian(scheduler), images(20, 1, 4, 4, seed=5)
    drawn = editing.ilvr(model, scheduler, references, factor=2, generator=0, num_inference_steps=20, progress=False)
    inside = np.abs(drawn).max(axis=(1, 2, 3)) < 1  # not clipped
    np.testing.assert_allclose(low_pass(drawn, 2)[inside], low_pass(references, 2)[inside], atol=1e-5)
    assert inside.sum() > 10 and np.abs(drawn - references).max() > 0.1
    free = editing.ilvr(model, scheduler, references, factor=2, generator=0, until=200, num_inference_steps=20, progress=False)
    assert np.abs(low_pass(free, 2) - low_pass(references, 2)).max() > 0.1
    np.testing.assert_allclose(low_pass(low_pass(references, 2), 2), low_pass(references, 2), atol=1e-6)
    with pytest.raises(ValueError, match="factor 3 does not divide"):
        low_pass(references, 3)


def test_more_steps_bring_the_way_back_nearer():
    """Although the configuration clips, and the images lie beyond where it does."""
    config = gaussian_scheduler(clip_sample=True)
    model, truth, errors = Gaussian(config, mean=1.5, std=0.5), 3 * images(20, 1, 4, 4), []
    for count in (10, 50, 200):
        noise = editing.invert(model, config, truth, num_inference_steps=count, progress=False)
        again = editing.regenerate(model, config, noise, num_inference_steps=count, progress=False)
        errors.append(np.abs(again - truth).max())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.3 * errors[0]
    assert noise.std() == pytest.approx(0.6 / 0.5, abs=0.1)  # of the images and of the model


# ---------------------------------------------------------------- interpolation


def test_interpolation_begins_at_its_level_and_ends_at_its_images():
    scheduler = gaussian_scheduler(DDIMScheduler)
    scheduler.set_timesteps(40)
    first, second = np.full((1, 4, 4), 0.9, np.float32), np.full((1, 4, 4), 0.1, np.float32)
    model = Gaussian(scheduler)
    row = interpolation.interpolate(model, scheduler, first, second, timestep=60, weights=[0, 0.25, 0.5, 1], generator=0, progress=False)
    assert model.calls == np.sum(scheduler.timesteps <= 60)
    means = row.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means[1], 0.75 * means[0] + 0.25 * means[3], atol=1e-4)
    assert np.all(np.diff(means) < -0.05)
    ends = interpolation.interpolate(model, scheduler, second, first, timestep=60, weights=[1], generator=0, progress=False)
    np.testing.assert_allclose(ends[0], row[0], atol=1e-5)


def test_mixtures_keep_the_length_of_their_noise():
    a, b = np.random.default_rng(0).standard_normal((2, 1, 100, 100))
    assert slerp(a, b, 0.5).std() == pytest.approx(1, abs=0.02) and (0.5 * (a + b)).std() == pytest.approx(0.71, abs=0.02)
    np.testing.assert_allclose(slerp(a, b, 0), a)
    np.testing.assert_allclose(slerp(a, b, 1), b)
    np.testing.assert_allclose(slerp(a, 2 * a, 0.5), 1.5 * a)
    scheduler = gaussian_scheduler(DDIMScheduler)
    scheduler.set_timesteps(40)
    found = {}
    for shared in (True, False):
        row = interpolation.interpolate(Gaussian(scheduler, mean=0.0, std=0.5), scheduler, np.zeros((1, 40, 40), np.float32),
                                    np.zeros((1, 40, 40), np.float32), timestep=199, weights=[0, 0.5], generator=0,
                                    shared_noise=shared, progress=False)  # fmt: skip
        found[shared] = row.std(axis=(1, 2, 3))
    for stds in found.values():
        assert stds[1] == pytest.approx(stds[0], rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [1.5]}, "weights must be numbers from 0 to 1"),
        ({"weights": []}, "weights must be numbers from 0 to 1"),
        ({"second": np.zeros((1, 4, 5), np.float32)}, "must be two images"),
        ({"timestep": -1}, "below all timesteps"),
    ],
)
def test_bad_interpolations_are_refused(changes, message):
    scheduler = gaussian_scheduler(DDIMScheduler)
    arguments = {"first": images(1, 4, 4), "second": images(1, 4, 4), "timestep": 60, "weights": [0.5], "generator": 0, **changes}
    with pytest.raises(ValueError, match=message):
        interpolation.interpolate(Gaussian(scheduler), scheduler, **arguments)


def test_the_files_are_found_where_they_are_looked_for():
    import hcrot.pipelines as found

    assert found.editing.sdedit is editing.sdedit and found.inverse_problems.dps is inverse_problems.dps
    with pytest.raises(AttributeError, match="has no attribute 'edit'"):
        _ = found.edit


def test_an_image_may_be_inverted_up_to_a_level():
    scheduler = gaussian_scheduler()
    model, truth, visited = Gaussian(scheduler), images(20, 1, 4, 4), list(range(120, -1, -4))
    noise = editing.invert(model, scheduler, truth, timesteps=visited, progress=False)
    signal, sigma = levels(scheduler, 120)
    expected = np.sqrt(signal**2 * 0.2**2 + sigma**2)
    assert noise.std() == pytest.approx(expected, rel=0.1) and noise.mean() == pytest.approx(signal * 0.5, abs=0.1)
    again = editing.regenerate(model, scheduler, noise, timesteps=visited, progress=False)
    assert np.abs(again - truth).max() < 0.1 < np.abs(noise - truth).max()
    with pytest.raises(ValueError, match="expected one of num_inference_steps, timesteps"):
        editing.invert(model, scheduler, truth, progress=False)
