"""GaussianDiffusion against an oracle, against the formulas, and its refusals."""

import numpy as np
import pytest

from hcrot.diffusion import GaussianDiffusion, generate_cosine_schedule, generate_linear_schedule
from hcrot.module import Module, Parameter
from hcrot.schedulers.ddpm import DDPMScheduler
from hcrot.training.ema import EMA
from support.small_unets import draw, tiny_model

pytestmark = pytest.mark.usefixtures("one_kernel_thread")

MEAN, STD = 0.3, 0.5
BETAS = generate_linear_schedule(40, 0.004, 0.2)


class BestNoise(Module):
    """E[eps | x_t] for data N(MEAN, STD^2): sqrt(1 - abar)/v (x_t - sqrt(abar) MEAN), v = abar STD^2 + 1 - abar."""

    def __init__(self, betas):
        self.config, self.betas = {"in_channels": 2}, betas

    def forward(self, x, t):
        abar = np.cumprod(1 - self.betas)[t][:, None, None, None].astype(x.dtype)
        return np.sqrt(1 - abar) / (abar * STD**2 + 1 - abar) * (x - np.sqrt(abar) * MEAN)


class Scaled(Module):
    """eps = weight x + label, which shows whose weights and labels are used."""

    def __init__(self, weight=1.0):
        self.weight = Parameter(np.full(1, weight, np.float32))

    def forward(self, x, t, y=None):
        self.save(x)
        return self.weight.data * x + (0 if y is None else y[:, None, None, None].astype(x.dtype))

    def backward(self, dout):
        x = self.saved()
        self.weight.grad += (dout * x).sum()
        return dout * self.weight.data


def process(model=None, betas=BETAS, **options):
    return GaussianDiffusion(Scaled() if model is None else model, betas, **{"generator": 0, **options})


# ---------------------------------------------------------------- schedules and buffers


@pytest.mark.parametrize(("low", "high"), [(2e-4, 1e-2), (1e-2, 2e-4)])
def test_linear_schedule_of_two_thousand_steps_in_both_directions(low, high):
    betas = generate_linear_schedule(2000, low, high)
    assert (betas.shape, betas[0], betas[-1]) == ((2000,), low, high)
    assert betas[500] == pytest.approx(low + 500 / 1999 * (high - low), rel=1e-12)
    diffusion = process(betas=betas)
    assert diffusion.alphas_cumprod[-1] == pytest.approx(3.6e-5, rel=0.02)
    assert diffusion.alphas_cumprod[1000] == pytest.approx(7e-2 if low < high else 5e-4, rel=0.1)


def test_cosine_schedule_has_the_cosine_as_its_product():
    T, s = 50, 0.02
    betas = generate_cosine_schedule(T, s)
    assert betas[-1] == 0.999
    expected = [np.cos(((t + 1) / T + s) / (1 + s) * np.pi / 2) ** 2 / np.cos(s / (1 + s) * np.pi / 2) ** 2 for t in range(T - 1)]
    np.testing.assert_allclose(np.cumprod(1 - betas)[:-1], expected, rtol=1e-10)
    assert (generate_cosine_schedule(9) == generate_cosine_schedule(9, 0.008)).all()


def test_buffers_are_what_their_names_say():
    diffusion = process()
    abar = np.cumprod(1 - BETAS)
    expected = {
        "betas": BETAS,
        "alphas": 1 - BETAS,
        "alphas_cumprod": abar,
        "sqrt_alphas_cumprod": np.sqrt(abar),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - abar),
        "reciprocal_sqrt_alphas": (1 - BETAS) ** -0.5,
        "remove_noise_coeff": BETAS / np.sqrt(1 - abar),
        "sigma": np.sqrt(BETAS),
    }
    for name, values in expected.items():
        assert getattr(diffusion, name).dtype == np.float32
        np.testing.assert_allclose(getattr(diffusion, name), values, rtol=1e-6, err_msg=name)
    assert len(diffusion) == 40


# ---------------------------------------------------------------- forward process and loss


def test_q_sample_has_the_mean_and_variance_of_q_xt_x0():
    diffusion, t = process(), np.array([0, 7, 39])
    x0 = np.broadcast_to(np.array([0.8, -0.4, 0.5])[:, None, None, None], (3, 1, 150, 101)).copy()
    mean, variance = diffusion.q_xt_x0(x0, t)
    assert (mean.shape, variance.shape) == (x0.shape, (3, 1, 1, 1))
    abar = np.cumprod(1 - BETAS)[t]
    np.testing.assert_allclose(mean[:, 0, 0, 0], np.sqrt(abar) * [0.8, -0.4, 0.5], rtol=1e-6)
    np.testing.assert_allclose(variance.ravel(), 1 - abar, rtol=1e-6)
    noisy = diffusion.q_sample(x0, t)
    error = 4 / np.sqrt(x0[0].size)
    assert (np.abs(noisy.mean(axis=(1, 2, 3)) - mean[:, 0, 0, 0]) < error * np.sqrt(1 - abar)).all()
    np.testing.assert_allclose(noisy.var(axis=(1, 2, 3)), 1 - abar, rtol=error * np.sqrt(2))
    noise = draw(x0.shape, np.float64)
    expected = mean + np.sqrt(variance) * noise
    for method in (diffusion.q_sample, diffusion.perturb_x):
        np.testing.assert_allclose(method(x0, t, noise), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_loss_and_its_gradient(loss):
    """The value by hand, the gradient of every parameter by differences."""
    model = tiny_model().astype(np.float64)
    diffusion = process(model, loss=loss, image_size=(5, 6), num_classes=3)
    x0, noise = draw((4, 1, 5, 6), np.float64), draw((4, 1, 5, 6), np.float64, seed=2)
    t, y = np.array([3, 0, 39, 12]), np.array([2, 0, 1, 1])

    def value():
        with model.inference():
            return diffusion.get_losses(x0, t, y, noise)[0]

    first, dout = diffusion.get_losses(x0, t, y, noise)
    model.backward(dout)
    with model.inference():
        difference = model(diffusion.perturb_x(x0, t, noise), t, y) - noise
    assert first == pytest.approx(np.abs(difference).mean() if loss == "l1" else np.square(difference).mean(), rel=1e-12)
    rng, h = np.random.default_rng(3), 1e-6
    for name, parameter in model.named_parameters():
        direction = rng.standard_normal(parameter.shape)
        parameter.data += h * direction
        above = value()
        parameter.data -= 2 * h * direction
        below = value()
        parameter.data += h * direction
        assert (above - below) / (2 * h) == pytest.approx((parameter.grad * direction).sum(), rel=2e-5, abs=2e-9), name


def test_loss_simple_draws_times_uniformly_and_loss_and_backward_is_both():
    seen = []

    class Spy(Scaled):
        def forward(self, x, t, y=None):
            seen.append(t)
            return super().forward(x, t)

    model = Spy(0.5)
    x0 = draw((4000, 1, 1, 1))
    process(model).loss_simple(x0)
    model.forget()
    counts = np.bincount(seen[0], minlength=40)
    assert counts.size == 40
    assert ((counts - 100) ** 2 / 100).sum() < 39 + 5 * np.sqrt(78)
    value, dout = process(model).loss_simple(x0, noise=draw(x0.shape, seed=3))
    model.backward(dout)
    gradient = model.weight.grad.copy()
    model.zero_grad()
    assert process(model).loss_and_backward(x0, noise=draw(x0.shape, seed=3)) == value
    np.testing.assert_array_equal(model.weight.grad, gradient)
    assert gradient.any()


# ---------------------------------------------------------------- reverse process


def closed_form(betas, sigma):
    """Mean and standard deviation of what comes out: x_s = m_s + gain (x_t - m_t) + sigma z, and all is Gaussian."""
    abar = np.cumprod(1 - betas)
    variance, mean = 1.0, 0.0
    for t in reversed(range(len(betas))):
        slope = np.sqrt(1 - abar[t]) / (abar[t] * STD**2 + 1 - abar[t])
        gain = (1 - betas[t] / np.sqrt(1 - abar[t]) * slope) / np.sqrt(1 - betas[t])
        centre = np.sqrt(abar[t]) * MEAN
        mean = centre / np.sqrt(1 - betas[t]) + gain * (mean - centre)
        variance = gain**2 * variance + (sigma[t] ** 2 if t else 0)
    return mean, np.sqrt(variance)


@pytest.mark.parametrize("kind", ["betas", "descending", "fixed_small"])
def test_sampling_with_the_best_prediction_gives_the_data(kind):
    betas = BETAS[::-1] if kind == "descending" else BETAS
    scheduler, sigma = betas.copy(), np.sqrt(betas)
    if kind == "fixed_small":
        scheduler = DDPMScheduler(40, beta_start=0.004, beta_end=0.2, clip_sample=False)
        abar = np.cumprod(1 - betas)
        sigma = np.sqrt((1 - np.append(1, abar[:-1])) / (1 - abar) * betas)
    diffusion = GaussianDiffusion(BestNoise(betas), scheduler, image_size=(30, 21), generator=4)
    images = diffusion.sample(40)
    assert (images.shape, images.dtype) == ((40, 2, 30, 21), np.float32)
    mean, std = closed_form(betas, sigma)
    assert images.mean() == pytest.approx(mean, abs=4 * std / np.sqrt(images.size))
    assert images.std() == pytest.approx(std, rel=4 / np.sqrt(2 * images.size))
    assert mean == pytest.approx(MEAN, abs=0.02)
    assert std == pytest.approx(STD, abs=0.13 if kind == "descending" else 0.06)  # of 40 steps; more of them come nearer


def test_clipping_is_that_of_the_scheduler():
    scheduler = DDPMScheduler(40, beta_start=0.004, beta_end=0.2, clip_sample_range=0.7)
    x, t = draw((3, 1, 4, 5), np.float64), 21
    ours = process(Scaled(0.2), scheduler).remove_noise(x, t)
    theirs = scheduler.step(0.2 * x, t, x, noise=np.zeros_like(x)).prev_sample
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    unclipped = process(Scaled(0.2)).remove_noise(x, t)
    assert np.abs(unclipped - ours).max() > 0.01
    scheduler = DDPMScheduler(40, beta_start=0.004, beta_end=0.2, clip_sample=False)
    np.testing.assert_allclose(unclipped, scheduler.step(0.2 * x, t, x, noise=np.zeros_like(x)).prev_sample, rtol=1e-4)


def test_there_is_no_noise_at_the_last_step():
    diffusion, x = process(), draw((3, 1, 4, 5))
    np.testing.assert_array_equal(diffusion.p_sample(x, 0), diffusion.remove_noise(x, 0))
    t = np.array([5, 0, 39])
    step, mean = diffusion.p_sample(x, t), diffusion.remove_noise(x, t)
    np.testing.assert_array_equal(step[1], mean[1])
    assert (np.abs(step - mean)[[0, 2]].reshape(2, -1).std(axis=1) > 0.3 * np.sqrt(BETAS[[5, 39]])).all()


def test_a_sequence_is_all_that_sampling_passes_through():
    make = lambda: process(Scaled(0.1), image_size=(4, 5), image_channels=3, num_classes=2)  # noqa: E731
    y = np.array([1, 0])
    sequence, images = make().sample_sequence(2, y), make().sample(2, y)
    assert len(sequence) == 41
    assert all(x.shape == (2, 3, 4, 5) for x in sequence)
    np.testing.assert_array_equal(sequence[-1], images)
    np.testing.assert_array_equal(sequence[0], np.random.default_rng(0).standard_normal((2, 3, 4, 5), dtype=np.float32))
    np.testing.assert_array_equal(sequence[-1], make().remove_noise(sequence[-2], 0, y))
    assert np.abs(make().sample(2, 1 - y) - images).max() > 0.1  # the labels reach the network


def test_the_average_samples_unless_it_is_told_not_to():
    model = Scaled(0.9)
    ema = EMA(model.parameters())
    model.weight.data[...] = 0.2
    diffusion, x = process(model, ema=ema, image_size=4, image_channels=1), draw((2, 1, 4, 4))
    np.testing.assert_array_equal(diffusion.remove_noise(x, 9), process(Scaled(0.9)).remove_noise(x, 9))
    np.testing.assert_array_equal(diffusion.remove_noise(x, 9, use_ema=False), process(Scaled(0.2)).remove_noise(x, 9))
    for use_ema, weight in ((True, 0.9), (False, 0.2)):
        diffusion.generator = np.random.default_rng(1)
        expected = process(Scaled(weight), image_size=4, image_channels=1, generator=1)
        np.testing.assert_array_equal(diffusion.sample(2, use_ema=use_ema), expected.sample(2))
    assert model.weight.data == np.float32(0.2)


def test_sampling_keeps_nothing_for_backward():
    model = tiny_model()
    process(model, betas=BETAS[:3], num_classes=3, image_size=(5, 6)).sample(2, np.array([0, 2]))
    assert all(part._kept is None for part in model.modules())


# ---------------------------------------------------------------- refusals

IMAGES, LABELS = np.zeros((2, 1, 5, 6), np.float32), np.array([0, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l3"}, "loss must be one of l1, l2, got 'l3'"),
        ({"image_size": (5, 0)}, r"image_size must be an int of at least 1 or \(height, width\), got \(5, 0\)"),
        ({"image_size": 2.5}, "image_size must be"),
        ({"num_classes": 0}, "num_classes must be an int of at least 1, got 0"),
        ({"betas": np.array([0.1, 1.0])}, r"strictly between 0 and 1, got shape \(2,\), 0.1 to 1"),
        ({"betas": np.array([1e-20, 0.1])}, "strictly between 0 and 1"),
        ({"betas": np.zeros(0)}, r"got shape \(0,\)"),
        ({"betas": [0.1]}, "a DDPMScheduler or an array of floats, the betas, got list"),
        ({"betas": DDPMScheduler(prediction_type="sample")}, "prediction_type is 'sample', expected 'epsilon'"),
        ({"betas": DDPMScheduler(variance_type="learned")}, "variance_type is 'learned', expected 'fixed_large' or 'fixed_small'"),
        ({"betas": DDPMScheduler(thresholding=True)}, "thresholding is True, expected False"),
        ({"ema": 0.99}, "ema must be a hcrot.EMA, got float"),
        ({"ema": EMA(Scaled().parameters())}, "got 1 parameters, of which 0 are among the model's 1"),
        ({"model": abs}, "model must be a hcrot.Module, got builtin_function_or_method"),
    ],
)
def test_the_constructor_refuses(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        process(**options)


def test_a_scheduler_that_skips_steps_is_refused():
    scheduler = DDPMScheduler(40)
    scheduler.set_timesteps(10)
    with pytest.raises(ValueError, match="the scheduler visits 10 timesteps, expected all 40"):
        process(betas=scheduler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES[:, :, :4], 0, LABELS), r"height of the images is 4, expected 5"),
        ((IMAGES[:, :, :, :5], 0, LABELS), r"width of the images is 5, expected 6"),
        ((IMAGES[0], 0, LABELS), r"expected images of shape \(batch, channels, height, width\), got shape \(1, 5, 6\)"),
        ((IMAGES.astype(int), 0, LABELS), "images must be float32 or float64, got int64"),
        ((IMAGES, 40, LABELS), "expected timesteps 0 .. 39, got 40 .. 40"),
        ((IMAGES, np.array([1, 2, 3]), LABELS), "one for each of 2 images, got 3"),
        ((IMAGES, 0.5, LABELS), "timesteps must be integers"),
        ((IMAGES, 0), "y is missing"),
        ((IMAGES, 0, LABELS[:1]), r"y must have the shape \(2,\), as the number of images is 2, got \(1,\)"),
        ((IMAGES, 0, np.array([0, 3])), "y ranges from 0 to 3, expected 0 .. 2"),
        ((IMAGES, 0, [0, 1]), "y must be an array of integers, got list"),
    ],
)
@pytest.mark.parametrize("method", ["get_losses", "remove_noise", "p_sample"])
def test_methods_refuse(method, arguments, message):
    diffusion = process(image_size=(5, 6), num_classes=3)
    with pytest.raises((ValueError, TypeError), match=f"GaussianDiffusion.{method}: .*{message}"):
        getattr(diffusion, method)(*arguments)


def test_more_refusals():
    labelled, bare = process(image_size=(5, 6), num_classes=3, image_channels=1), process()
    with pytest.raises(ValueError, match=r"sample: y must have the shape \(3,\), as batch_size is 3, got \(2,\)"):
        labelled.sample(3, LABELS)
    with pytest.raises(ValueError, match="sample_sequence: y is missing"):
        labelled.sample_sequence(3)
    with pytest.raises(ValueError, match="loss_simple: y is missing"):
        labelled.loss_simple(IMAGES)
    with pytest.raises(ValueError, match="loss_simple: height"):
        labelled.loss_simple(IMAGES[:, :, 1:], y=LABELS)
    with pytest.raises(ValueError, match="y was given, but num_classes is None"):
        bare.get_losses(IMAGES, 0, LABELS)
    with pytest.raises(ValueError, match="sample: image_size is None"):
        bare.sample(2)
    with pytest.raises(ValueError, match="sample: image_channels is None"):
        process(image_size=4).sample(2)
    with pytest.raises(ValueError, match="batch_size must be an int of at least 1, got 0"):
        labelled.sample(0)
    with pytest.raises(ValueError, match=r"perturb_x: noise must be an array like the images, float32 of shape \(2, 1, 5, 6\)"):
        bare.perturb_x(IMAGES, 0, IMAGES[:1])
    with pytest.raises(ValueError, match=r"must return shape \(2, 1, 5, 6\), as it received, got shape \(2, 1, 1, 1\)"):
        process(type("Narrow", (Module,), {"forward": lambda self, x, t: x[:, :, :1, :1]})()).remove_noise(IMAGES, 0)
    for call in (lambda: generate_linear_schedule(0, 0.1, 0.2), lambda: generate_linear_schedule(5, 0.0, 0.2)):
        with pytest.raises(ValueError, match="generate_linear_schedule: (T|low) must be"):
            call()
    for call in (lambda: generate_cosine_schedule(2.5), lambda: generate_cosine_schedule(5, -1)):
        with pytest.raises(ValueError, match="generate_cosine_schedule: (T|s) must be"):
            call()


def test_repr():
    assert repr(process(image_size=4)) == "GaussianDiffusion(Scaled, T=40, loss='l2', image_size=(4, 4), num_classes=None, ema=False)"
