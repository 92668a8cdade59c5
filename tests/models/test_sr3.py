"""SR3: its schedules, its network, and its two algorithms against an oracle and against the paper's formulas."""

import numpy as np
import pytest

from hcrot.data import resize
from hcrot.models.sr3 import BETA_SCHEDULES, SR3Diffusion, SR3UNet, make_beta_schedule
from hcrot.module import Module, Parameter
from hcrot.training.optim import Adam
from support.small_unets import draw

pytestmark = pytest.mark.usefixtures("one_kernel_thread")

BETAS = make_beta_schedule("linear", 30, 0.005, 0.25)
STD = 0.5


class BestNoise(Module):
    """E[eps | x, a] for data N(condition, STD^2): sqrt(1 - a^2)/v (x - a condition), v = a^2 STD^2 + 1 - a^2."""

    def forward(self, x, condition, noise_level):
        a = noise_level[:, None, None, None]
        return (np.sqrt(1 - a**2) / (a**2 * STD**2 + 1 - a**2) * (x - a * condition)).astype(x.dtype)


class Scaled(Module):
    """weight (x + condition + level)"""

    def __init__(self):
        self.weight = Parameter(np.full(1, 0.3, np.float32))

    def forward(self, x, condition, noise_level):
        y = x + condition + noise_level[:, None, None, None].astype(x.dtype)
        self.save(y)
        return self.weight.data.astype(x.dtype) * y

    def backward(self, dout):
        self.weight.grad += (dout * self.saved()).sum()
        return dout * self.weight.data


def small(**options):
    return SR3UNet(**{"image_channels": 1, "block_out_channels": (4, 8), "attention_levels": (), "norm_num_groups": 2, "dropout": 0.0,
                      "layers_per_block": 1, "generator": 0, **options})  # fmt: skip


# ---------------------------------------------------------------- schedules


def test_schedules_by_their_formulas():
    make = lambda name, n=20: make_beta_schedule(name, n, 1e-4, 0.02)  # noqa: E731
    t = np.arange(20)
    np.testing.assert_allclose(np.sqrt(make("quad")), 0.01 + t / 19 * (0.02**0.5 - 0.01), rtol=1e-12)
    np.testing.assert_allclose(make("linear"), 1e-4 + t / 19 * (0.02 - 1e-4), rtol=1e-12)
    np.testing.assert_allclose(make("warmup10"), [1e-4, *[0.02] * 19], rtol=1e-12)
    np.testing.assert_allclose(make("warmup50"), [*(1e-4 + np.arange(10) / 9 * (0.02 - 1e-4)), *[0.02] * 10], rtol=1e-12)
    np.testing.assert_array_equal(make("const"), [0.02] * 20)
    np.testing.assert_allclose(np.cumprod(1 - make("jsd")), 1 - (t + 1) / 20, atol=1e-12)
    angle = np.pi / 2 / 1.008
    expected = np.cos((np.arange(1, 20) / 20 + 0.008) * angle) ** 2 / np.cos(0.008 * angle) ** 2
    np.testing.assert_allclose(np.cumprod(1 - make("cosine"))[:-1], expected, rtol=1e-10)
    assert make("cosine")[-1] == 0.999
    assert all(make(name, n).shape == (n,) for name in BETA_SCHEDULES for n in (1, 2, 7))


# ---------------------------------------------------------------- training


def test_noise_levels_lie_between_neighbours_each_as_likely():
    betas = np.array([0.1, 0.5, 0.9])
    sr3 = SR3Diffusion(Scaled(), betas, generator=0)
    edges = np.sqrt([1, 0.9, 0.45, 0.045])
    np.testing.assert_allclose(sr3.train_levels, edges, rtol=1e-12)
    levels = sr3.noise_levels(6000)
    counts, _ = np.histogram(levels, edges[::-1])
    assert counts.sum() == 6000
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)
    last = levels[levels < edges[2]]
    assert last.mean() == pytest.approx((edges[2] + edges[3]) / 2, abs=5 * (edges[2] - edges[3]) / np.sqrt(12 * len(last)))


def test_the_loss_by_hand():
    model = Scaled()
    sr3 = SR3Diffusion(model, BETAS)
    x0, y, noise = (draw((3, 2, 4, 5), np.float64, seed) for seed in (1, 2, 3))
    levels = np.array([1.0, 0.0, 0.6])
    value, dout = sr3.loss(x0, y, noise, levels)
    a = levels[:, None, None, None]
    noisy = a * x0 + np.sqrt(1 - a**2) * noise
    difference = np.float32(0.3) * (noisy + y + a) - noise
    assert value == pytest.approx(np.abs(difference).sum() / 120, rel=1e-12)
    np.testing.assert_allclose(dout, np.sign(difference) / 120, rtol=1e-12)
    model.forget()
    assert sr3.loss(x0, y, noise, 0.6)[0] == pytest.approx(np.abs(difference_at(0.6, x0, y, noise)).mean(), rel=1e-12)


def difference_at(a, x0, y, noise):
    return np.float32(0.3) * (a * x0 + np.sqrt(1 - a**2) * noise + y + a) - noise


def test_the_gradient_of_the_loss_by_differences():
    model = small().astype(np.float64)
    sr3 = SR3Diffusion(model, BETAS, generator=0)
    x0, y, noise = (draw((3, 1, 5, 6), np.float64, seed) for seed in (1, 2, 3))
    levels = sr3.noise_levels(3)
    _, dout = sr3.loss(x0, y, noise, levels)
    model.backward(dout)
    directions = {name: draw(p.shape, np.float64, seed) for seed, (name, p) in enumerate(model.named_parameters())}

    def moved(h):
        for name, parameter in model.named_parameters():
            parameter.data += h * directions[name]
        with model.inference():
            return sr3.loss(x0, y, noise, levels)[0]

    slope = sum((parameter.grad * directions[name]).sum() for name, parameter in model.named_parameters())
    h = 1e-7
    below, above = moved(-h), moved(2 * h)
    assert (above - below) / (2 * h) == pytest.approx(slope, rel=1e-4)
    assert abs(slope) > 1e-3


def test_a_few_steps_of_training_learn():
    rng = np.random.default_rng(0)
    images = np.clip(resize(rng.standard_normal((16, 1, 2, 2)).astype(np.float32), 8), -1, 1)
    condition = resize(resize(images, 2), 8)
    model = small(noise_level_scale=100.0)
    sr3, optimizer = SR3Diffusion(model, BETAS, generator=0), Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, dout = sr3.loss(images, condition)
        model.backward(dout)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


# ---------------------------------------------------------------- sampling


def test_algorithm_2_is_the_papers_formula():
    condition = draw((2, 1, 4, 5), np.float64)
    betas = np.array([0.1, 0.3, 0.6])
    frames = list(SR3Diffusion(Scaled(), BETAS, betas, generator=3).steps(condition, clip=False))
    rng, abar = np.random.default_rng(3), np.cumprod(1 - betas)
    x = rng.standard_normal(condition.shape)
    np.testing.assert_array_equal(frames[0], x)
    for t in (2, 1, 0):
        eps = np.float64(np.float32(0.3)) * (x + condition + np.sqrt(abar[t]))
        x = (x - betas[t] / np.sqrt(1 - abar[t]) * eps) / np.sqrt(1 - betas[t])
        if t > 0:
            x = x + np.sqrt(betas[t]) * rng.standard_normal(x.shape)
        np.testing.assert_allclose(frames[3 - t], x, rtol=1e-10, atol=1e-12)
    assert len(frames) == 4
    np.testing.assert_array_equal(SR3Diffusion(Scaled(), betas, generator=3).sample(condition, clip=False), frames[-1])


def test_clipping_keeps_the_last_image_in_range():
    condition = 2 + draw((2, 1, 4, 5))
    make = lambda: SR3Diffusion(BestNoise(), BETAS, generator=3)  # noqa: E731
    for eta in (None, 0.5):
        assert np.abs(make().sample(condition, eta=eta)).max() <= 1
        assert np.abs(make().sample(condition, eta=eta, clip=False)).max() > 1.5


@pytest.mark.parametrize("eta", [None, 0.0, 0.4, 1.0])
def test_sampling_with_the_best_prediction_gives_the_data(eta):
    """Of which each pixel's mean is the condition and the standard deviation STD; the chain's is exact by recursion."""
    betas = make_beta_schedule("quad", 60, 1e-4, 0.3)
    condition = np.linspace(-0.8, 0.8, 40, dtype=np.float32).reshape(40, 1, 1, 1) * np.ones((40, 1, 25, 31), np.float32)
    images = SR3Diffusion(BestNoise(), BETAS, betas, generator=1).sample(condition, eta=eta, clip=False)
    assert images.dtype == np.float32
    abar = np.append(1.0, np.cumprod(1 - betas))
    variance, offset = 1.0, -np.sqrt(abar[-1])  # of x - a condition; at first x has mean 0
    for t in reversed(range(1, 61)):
        now, before = abar[t], abar[t - 1]
        beta = 1 - now / before
        v = now * STD**2 + 1 - now
        if eta is None:
            gain = (1 - beta / v) / np.sqrt(1 - beta)
            sigma = np.sqrt(beta) if t > 1 else 0
        else:
            sigma = eta * np.sqrt((1 - before) / (1 - now) * beta)
            gain = np.sqrt(before) * np.sqrt(now) * STD**2 / v + np.sqrt(1 - before - sigma**2) * np.sqrt(1 - now) / v
        variance, offset = gain**2 * variance + sigma**2, gain * offset
    residual = images - condition * (1 + offset)
    assert residual.mean() == pytest.approx(0, abs=4 * STD / np.sqrt(residual.size))
    assert residual.std() == pytest.approx(np.sqrt(variance), rel=4 / np.sqrt(2 * residual.size))
    assert (np.sqrt(variance), offset) == (pytest.approx(STD, abs=0.05), pytest.approx(0, abs=0.05))


def test_without_eta_s_noise_the_first_noise_decides():
    condition = draw((2, 1, 4, 5))
    make = lambda: SR3Diffusion(BestNoise(), BETAS, generator=3)  # noqa: E731
    first, second = make(), make()
    first.sample(condition, eta=0.0)
    second.generator.standard_normal(condition.shape, dtype=np.float32)
    assert first.generator.bit_generator.state == second.generator.bit_generator.state
    assert np.abs(make().sample(condition, eta=0.0) - make().sample(condition, eta=1.0)).max() > 0.1


# ---------------------------------------------------------------- the network


def test_a_network_in_a_folder(tmp_path):
    model = small(attention_levels=(1,), noise_level_scale=20.0, dropout=0.1)
    model.save_pretrained(tmp_path / "sr3")
    again = SR3UNet.from_pretrained(tmp_path / "sr3")
    assert again.config == model.config
    x, condition = draw((2, 1, 6, 7)), draw((2, 1, 6, 7), seed=2)
    with model.inference(), again.inference():
        np.testing.assert_array_equal(again(x, condition, 0.4), model(x, condition, 0.4))
        assert np.abs(model(x, condition, 0.4) - model(x, condition, 0.5)).max() > 1e-5
        assert np.abs(model(x, condition, 0.4) - model(x, x, 0.4)).max() > 1e-3
        np.testing.assert_allclose(model(x, condition, np.array([0.4, 0.9]))[0], model(x, condition, 0.4)[0], rtol=1e-4, atol=1e-6)


def test_attention_is_at_the_levels_asked_for_on_both_ways():
    config = small(attention_levels=(1,)).unet.config
    assert config["down_block_types"] == ["DownBlock2D", "AttnDownBlock2D"]
    assert config["up_block_types"] == ["AttnUpBlock2D", "UpBlock2D"]


def test_the_default_network_is_that_of_the_repository():
    config = SR3UNet(block_out_channels=(32, 64), attention_levels=(), generator=0).config
    assert config["image_channels"] == 3
    assert (config["dropout"], config["layers_per_block"], config["noise_level_scale"]) == (0.2, 2, 1.0)


# ---------------------------------------------------------------- refusals

X = np.zeros((2, 1, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_beta_schedule("sigmoid", 5), "schedule must be one of quad, linear, warmup10, warmup50, const, jsd, cosine, got"),
        (lambda: make_beta_schedule("quad", 0), "n_timestep must be an int of at least 1, got 0"),
        (lambda: make_beta_schedule("quad", 5, 0.0), "linear_start must be a number strictly between 0 and 1, got 0.0"),
        (lambda: make_beta_schedule("quad", 5, 0.1, 1), "linear_end must be"),
        (lambda: make_beta_schedule("cosine", 5, cosine_s=-1), "cosine_s must be"),
        (lambda: small(attention_levels=(2,)), r"attention_levels \(2,\) has 2, expected ints from 0 to 1"),
        (lambda: small(noise_level_scale=0), "noise_level_scale must be a finite number > 0, got 0"),
        (lambda: small(image_channels=0), "SR3UNet: image_channels must be an int of at least 1, got 0"),
        (lambda: small()(X, X[:, :, :4], 0.5), r"condition must have the shape of x, \(2, 1, 5, 6\), got \(2, 1, 4, 6\): enlarge it first"),
        (lambda: small()(X, X.astype(np.float64), 0.5), "SR3UNet: condition: expected float32 images"),
        (lambda: small()(X, X, 1.5), "noise_level must be from 0 to 1, got numbers from 1.5 to 1.5"),
        (lambda: small()(X, X, np.array([0.5])), r"noise_level must be a number, or one for each of 2 images, got float64 of shape \(1,\)"),
        (lambda: small()(X, X, "0.5"), "noise_level must be a number"),
        (lambda: SR3Diffusion(abs, BETAS), "model must be a hcrot.Module, got builtin_function_or_method"),
        (lambda: SR3Diffusion(Scaled(), [0.1]), r"train_betas must be an array of floats of shape \(T,\), not empty, got list"),
        (lambda: SR3Diffusion(Scaled(), BETAS, np.array([0.5, 1.0])), "sample_betas .* must be strictly between 0 and 1, got numbers"),
        (lambda: SR3Diffusion(Scaled(), np.array([0.0, 0.5])), "train_betas must be above 0 and at most 1"),
        (lambda: SR3Diffusion(Scaled(), make_beta_schedule("jsd", 9)), "sample_betas .* must be strictly between 0 and 1"),
        (lambda: SR3Diffusion(Scaled(), BETAS, np.full(100, 0.999)), "sample_betas .* leave nothing of the image"),
        (lambda: SR3Diffusion(Scaled(), BETAS).loss(X, X[:1]), r"loss: condition must be float32 of shape \(2, 1, 5, 6\), as images"),
        (lambda: SR3Diffusion(Scaled(), BETAS).loss(X, X, X[..., 1:]), "loss: noise must be float32 of shape"),
        (lambda: SR3Diffusion(Scaled(), BETAS).loss(X, X, noise_level=-0.1), "loss: noise_level must be from 0 to 1"),
        (lambda: SR3Diffusion(Scaled(), BETAS).sample(X[0]), r"sample: condition must be images of shape \(batch, channels, "),
        (lambda: SR3Diffusion(Scaled(), BETAS).sample(X.astype(int)), "sample: condition must be float32 or float64, got int64"),
        (lambda: SR3Diffusion(Scaled(), BETAS).sample(X, eta=2), "sample: eta must be None or a number from 0 to 1, got 2"),
        (lambda: SR3Diffusion(Scaled(), BETAS).steps(X, eta=-1), "eta must be None"),
        (lambda: SR3Diffusion(Narrow(), BETAS).sample(X), r"model must return shape \(2, 1, 5, 6\), as it received, got"),
    ],
)
def test_refusals(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


class Narrow(Module):
    def forward(self, x, condition, noise_level):
        return x[..., :1]


def test_jsd_may_train_where_other_betas_sample():
    sr3 = SR3Diffusion(Scaled(), make_beta_schedule("jsd", 9), BETAS)
    assert sr3.train_levels[-1] == 0
    assert np.isfinite(sr3.loss(X, X)[0])
