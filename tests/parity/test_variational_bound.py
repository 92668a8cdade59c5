"""The hybrid loss and the bound against the papers' formulas in PyTorch, the gradients against its autograd.

The formulas are written out as in the papers, by the means and variances of q and p; the library never forms the means.
"""

import math

import numpy as np
import pytest

from hcrot.training.variational_bound import bits_per_dimension, hybrid_loss

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

SHAPE = (6, 3, 5, 7)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-9}
predictions = pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])


def column(values):
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


class Reference:
    """Means and log-variances of q(x_s | x_t, x_0) and p(x_s | x_t), for the timestep of each image."""

    def __init__(self, abar, timesteps, prediction_type, variance_type):
        abar = np.asarray(abar, np.float64)
        before = np.append(1.0, abar[:-1])
        beta = 1 - abar / before
        beta_tilde = beta * (1 - before) / (1 - abar)
        beta_tilde = np.append(beta_tilde[1], beta_tilde[1:])
        self.prediction_type, self.variance_type = prediction_type, variance_type
        self.timesteps = column(timesteps)
        self.abar, self.beta, self.beta_tilde = (column(table[timesteps]) for table in (abar, beta, beta_tilde))
        self.x0_weight = column((np.sqrt(before) * beta / (1 - abar))[timesteps])
        self.xt_weight = column((np.sqrt(abar / before) * (1 - before) / (1 - abar))[timesteps])

    def noisy(self, x0, noise):
        return self.abar.sqrt() * x0 + (1 - self.abar).sqrt() * noise

    def target(self, x0, noise):
        velocity = self.abar.sqrt() * noise - (1 - self.abar).sqrt() * x0
        return {"epsilon": noise, "sample": x0, "v_prediction": velocity}[self.prediction_type]

    def mean(self, x0, xt):
        return self.x0_weight * x0 + self.xt_weight * xt

    def predicted_x0(self, prediction, xt):
        if self.prediction_type == "epsilon":
            return (xt - (1 - self.abar).sqrt() * prediction) / self.abar.sqrt()
        if self.prediction_type == "sample":
            return prediction
        return self.abar.sqrt() * xt - (1 - self.abar).sqrt() * prediction

    def log_variance(self, y):
        if self.variance_type == "learned":
            return y.log()
        if self.variance_type == "learned_range":
            fraction = (y + 1) / 2
            return fraction * self.beta.log() + (1 - fraction) * self.beta_tilde.log()
        large = torch.where(self.timesteps == 0, self.beta_tilde, self.beta)
        return (self.beta_tilde if self.variance_type == "fixed_small" else large).log()

    def terms(self, x0, xt, predicted_x0, log_variance):
        """L_t of each number, in bits."""
        true_mean, mean = self.mean(x0, xt), self.mean(predicted_x0, xt)
        posterior = torch.distributions.Normal(true_mean, self.beta_tilde.sqrt())
        model = torch.distributions.Normal(mean, (0.5 * log_variance).exp().expand_as(mean))
        divergence = torch.distributions.kl_divergence(posterior, model)
        below, above = model.cdf(x0 - 1 / 255), model.cdf(x0 + 1 / 255)
        mass = torch.where(x0 < -0.999, above, torch.where(x0 > 0.999, 1 - below, above - below))
        return torch.where(self.timesteps == 0, -mass.clamp(min=1e-300).log(), divergence) / math.log(2)


def case(variance_type, dtype=np.float64):
    """Images of 256 levels with both ends, noise, and an output near enough that no mass of the decoder underflows."""
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 256, SHAPE)
    levels[:, 0, 0, :2] = 0, 255
    x0, noise = levels / 127.5 - 1, rng.normal(size=SHAPE)
    y = rng.normal(size=SHAPE)
    return x0.astype(dtype), noise.astype(dtype), (0.02 * np.exp(y) if variance_type == "learned" else y).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
@predictions
def test_hybrid_loss(prediction_type, variance_type, dtype):
    abar = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=100).alphas_cumprod.numpy()
    timesteps = np.array([0, 1, 99, 0, 40, 2])
    reference = Reference(abar, timesteps, prediction_type, variance_type)
    x0, noise, y = case(variance_type, dtype)
    exact_x0, exact_noise = (torch.from_numpy(array).double() for array in (x0, noise))
    target = reference.target(exact_x0, exact_noise)
    output = np.concatenate([target.numpy() + 0.02 * np.random.default_rng(2).normal(size=SHAPE), y], axis=1).astype(dtype)

    leaf = torch.from_numpy(output.astype(np.float64)).requires_grad_()
    prediction, second = leaf.chunk(2, dim=1)
    xt = reference.noisy(exact_x0, exact_noise)
    predicted_x0 = reference.predicted_x0(prediction.detach(), xt)
    terms = reference.terms(exact_x0, xt, predicted_x0, reference.log_variance(second))
    expected = ((prediction - target) ** 2).mean() + 0.001 * len(abar) * terms.mean()
    expected.backward()

    value, dout = hybrid_loss(output, x0, noise, timesteps, abar, prediction_type, variance_type)
    assert value == pytest.approx(expected.item(), rel=TOLERANCE[dtype])
    assert dout.dtype == dtype
    for half in (slice(0, 3), slice(3, 6)):
        gradient = leaf.grad[:, half].numpy()
        np.testing.assert_allclose(dout[:, half], gradient, rtol=0, atol=TOLERANCE[dtype] * np.abs(gradient).max())


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large", "learned", "learned_range"])
@pytest.mark.parametrize("clip_sample", [False, True])
@predictions
def test_bits_per_dimension(prediction_type, clip_sample, variance_type):
    abar = diffusers.DDPMScheduler(num_train_timesteps=50, beta_end=0.2).alphas_cumprod.numpy()
    x0, _, y = case(variance_type)
    exact_x0 = torch.from_numpy(x0)

    def model(x, timesteps):
        """Right but for a wave, of a sample near x0 and of what follows from it."""
        reference = Reference(abar, timesteps, prediction_type, variance_type)
        noise = (torch.from_numpy(x) - reference.abar.sqrt() * exact_x0) / (1 - reference.abar).sqrt()
        prediction = reference.target(exact_x0, noise) + 0.03 * torch.cos(3 * torch.from_numpy(x))
        return np.concatenate([prediction.numpy(), y], axis=1) if "learned" in variance_type else prediction.numpy()

    bound = bits_per_dimension(model, x0, abar, np.random.default_rng(3), prediction_type, variance_type, clip_sample)

    rng = np.random.default_rng(3)
    for t in range(len(abar)):
        timesteps = np.full(SHAPE[0], t)
        reference = Reference(abar, timesteps, prediction_type, variance_type)
        xt = reference.noisy(exact_x0, torch.from_numpy(rng.standard_normal(SHAPE)))
        predicted_x0 = reference.predicted_x0(torch.from_numpy(model(xt.numpy(), timesteps)[:, :3]), xt)
        if clip_sample:
            predicted_x0 = predicted_x0.clamp(-1, 1)
        terms = reference.terms(exact_x0, xt, predicted_x0, reference.log_variance(torch.from_numpy(y)))
        np.testing.assert_allclose(bound.terms[:, t], terms.mean(dim=(1, 2, 3)), rtol=1e-8)

    q = torch.distributions.Normal(math.sqrt(abar[-1]) * exact_x0, math.sqrt(1 - abar[-1].astype(np.float64)))
    prior = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(dim=(1, 2, 3)) / math.log(2)
    np.testing.assert_allclose(bound.prior, prior, rtol=1e-7)


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_learned_variances_are_those_that_diffusers_samples_with(variance_type):
    """Of a perfect prediction L_t says which variance was meant: 1/2 (l - log beta_tilde - 1 + beta_tilde exp(-l))."""
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=20, variance_type=variance_type, beta_end=0.2)
    abar = scheduler.alphas_cumprod.numpy()
    x0, noise, y = case(variance_type)
    for t in (1, 7, 19):
        output = np.concatenate([noise, y], axis=1)
        value, _ = hybrid_loss(output, x0, noise, [t] * len(x0), abar, variance_type=variance_type, vlb_weight=1.0)
        variance = scheduler._get_variance(t, predicted_variance=torch.from_numpy(y))
        log_variance = variance.log() if variance_type == "learned" else variance
        log_ratio = scheduler._get_variance(t, variance_type="fixed_small").double().log() - log_variance
        nats = 0.5 * (log_ratio.exp() - 1 - log_ratio).mean().item()
        assert value == pytest.approx(20 * nats / math.log(2), rel=1e-4)
