"""A small score network beside an independent one of PyTorch: loss, every gradient, and the likelihood with the Jacobian by autograd."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hcrot  # noqa: E402
from hcrot.pipelines.sde import ScoreOfNoise, log_likelihood  # noqa: E402
from hcrot.schedulers import VESDE, VPSDE, SubVPSDE  # noqa: E402


class Network(hcrot.Module):
    def __init__(self, generator):
        self.first, self.time = hcrot.Linear(3, 7, generator=generator), hcrot.Linear(1, 7, generator=generator)
        self.act, self.last = hcrot.SiLU(), hcrot.Linear(7, 3, generator=generator)

    def forward(self, x, t):
        return self.last(self.act(self.first(x) + self.time(t[:, None].astype(x.dtype))))

    def backward(self, dout):
        dh = self.act.backward(self.last.backward(dout))
        self.time.backward(dh)
        return self.first.backward(dh)


def theirs(weights, x, t, std):
    hidden = x @ weights["first.weight"].T + weights["first.bias"] + t[:, None] @ weights["time.weight"].T + weights["time.bias"]
    return -(torch.nn.functional.silu(hidden) @ weights["last.weight"].T + weights["last.bias"]) / std[:, None]


def relative(ours, theirs):
    return np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))


@pytest.mark.parametrize("likelihood_weights", [False, True])
@pytest.mark.parametrize("sde", [VESDE(0.1, 5.0), VPSDE(), SubVPSDE()], ids=repr)
def test_loss_and_every_gradient(sde, likelihood_weights):
    rng = np.random.default_rng(0)
    score = ScoreOfNoise(Network(rng), sde, time_scale=2.0)
    x0, noise = rng.standard_normal((2, 11, 3), dtype=np.float32)
    t = rng.uniform(0.05, 1, 11)
    std, g = sde.std(t), sde.diffusion(t)
    x = sde.add_noise(x0, noise, t)
    weights = {name.removeprefix("model."): torch.tensor(value, requires_grad=True) for name, value in score.state_dict().items()}
    their_x = torch.tensor(x, requires_grad=True)
    their_std = torch.tensor(std, dtype=torch.float32)
    their_score = theirs(weights, their_x, torch.tensor(2 * t, dtype=torch.float32), their_std)
    factor = torch.tensor(g**2 if likelihood_weights else std**2, dtype=torch.float32)[:, None]
    their_loss = (factor * (their_score + torch.tensor(noise) / their_std[:, None]) ** 2).mean()
    their_loss.backward()

    output = score(x, t)
    loss, dout = hcrot.denoising_score_matching_loss(output, noise, std, g**2 if likelihood_weights else None)
    dx = score.backward(dout)
    assert relative(output, their_score.detach().numpy()) < 1e-5
    assert loss == pytest.approx(their_loss.item(), rel=1e-5)
    assert relative(dx, their_x.grad.numpy()) < 1e-4
    gradients = dict(score.named_parameters())
    assert len(gradients) == len(weights) == 6
    for name, value in weights.items():
        assert relative(gradients[f"model.{name}"].grad, value.grad.numpy()) < 1e-4, name


def test_likelihood():
    """Theirs: a fixed-step Runge-Kutta method, and the trace of the Jacobian that autograd makes."""
    rng, start, steps = np.random.default_rng(1), 0.2, 400
    sde = VPSDE(0.1, 4.0)
    score = ScoreOfNoise(Network(rng), sde).astype(np.float64)
    x = rng.standard_normal((2, 3))
    ours, latent = log_likelihood(score, sde, x, probes="exact", sampling_eps=start, rtol=1e-8, atol=1e-8)
    weights = {name.removeprefix("model."): torch.tensor(value) for name, value in score.state_dict().items()}

    def drift(point, t):
        beta = 0.1 + 3.9 * t
        std = np.sqrt(1 - np.exp(-(0.1 * t + 1.95 * t * t)))
        score = theirs(weights, point[None], torch.tensor([t], dtype=torch.float64), torch.tensor([std], dtype=torch.float64))[0]
        return -0.5 * beta * point - 0.5 * beta * score

    def slope(point, t):
        return drift(point, t), torch.trace(torch.autograd.functional.jacobian(lambda one: drift(one, t), point))

    for k in range(2):
        point, change, dt = torch.tensor(x[k]), 0.0, (1 - start) / steps
        for step in range(steps):
            t = start + step * dt
            first = slope(point, t)
            second = slope(point + dt / 2 * first[0], t + dt / 2)  # the midpoint rule
            point, change = point + dt * second[0], change + dt * second[1]
        normal = -0.5 * float(point @ point) - 1.5 * np.log(2 * np.pi)
        np.testing.assert_allclose(latent[k], point.numpy(), rtol=1e-4, atol=1e-5)
        assert ours[k] == pytest.approx(normal + float(change), abs=1e-4)
