"""The losses against PyTorch's, the weightings and the flow-matching loss as diffusers' training examples compute them."""

import numpy as np
import pytest

from hcrot.training.losses import (
    cross_entropy,
    flow_matching_loss,
    l1_loss,
    min_snr_weights,
    mse_loss,
    p2_weights,
    smooth_l1_loss,
)

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
compute_snr = pytest.importorskip("diffusers.training_utils").compute_snr
F = torch.nn.functional

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-13}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def assert_same(loss, torch_loss, x, dtype):
    value, dout = loss(x)
    leaf = torch.from_numpy(x).requires_grad_()
    expected = torch_loss(leaf)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=TOLERANCE[dtype])
    gradient = leaf.grad.numpy()
    assert dout.dtype == gradient.dtype
    np.testing.assert_allclose(dout, gradient, rtol=0, atol=TOLERANCE[dtype] * np.abs(gradient).max())


@dtypes
@reductions
@pytest.mark.parametrize(
    ("loss", "torch_loss", "options"),
    [
        (mse_loss, F.mse_loss, {}),
        (l1_loss, F.l1_loss, {}),
        (smooth_l1_loss, F.smooth_l1_loss, {}),
        (smooth_l1_loss, F.smooth_l1_loss, {"beta": 0.37}),
    ],
)
def test_regression(loss, torch_loss, options, reduction, dtype):
    prediction, target = np.random.default_rng(1).normal(size=(2, 3, 5, 7, 3)).astype(dtype)
    target[0, 0] = prediction[0, 0]
    assert_same(
        lambda x: loss(x, target, reduction, **options),
        lambda x: torch_loss(x, torch.from_numpy(target), reduction=reduction, **options),
        prediction,
        dtype,
    )


@dtypes
@reductions
@pytest.mark.parametrize("scale", [1, 300])
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.15}, {"ignore_index": 1}, {"label_smoothing": 0.15, "ignore_index": 1}]
)
@pytest.mark.parametrize("shape", [(9, 5), (2, 5, 3, 4)])
def test_cross_entropy(shape, options, scale, reduction, dtype):
    rng = np.random.default_rng(2)
    logits = (scale * rng.normal(size=shape)).astype(dtype)
    labels = rng.integers(5, size=shape[:1] + shape[2:])
    assert_same(
        lambda x: cross_entropy(x, labels, reduction, **options),
        lambda x: F.cross_entropy(x, torch.from_numpy(labels), reduction=reduction, **options),
        logits,
        dtype,
    )


@dtypes
@pytest.mark.parametrize("gamma", [5.0, 1.0])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2"])
def test_min_snr(beta_schedule, prediction_type, gamma, dtype):
    scheduler = diffusers.DDPMScheduler(beta_schedule=beta_schedule)
    timesteps = np.array([0, 10, 250, 500, 999])
    prediction, target = np.random.default_rng(3).normal(size=(2, 5, 3, 5, 3)).astype(dtype)

    snr = compute_snr(scheduler, torch.from_numpy(timesteps))
    expected = torch.minimum(snr, torch.full_like(snr, gamma))
    if prediction_type == "epsilon":
        expected = expected / snr
    elif prediction_type == "v_prediction":
        expected = expected / (snr + 1)

    weights = min_snr_weights(scheduler.alphas_cumprod.numpy(), timesteps, gamma, prediction_type)
    np.testing.assert_allclose(weights, expected.numpy(), rtol=1e-6)
    assert_same(
        lambda x: mse_loss(x, target, weights=expected.numpy()),
        lambda x: (F.mse_loss(x, torch.from_numpy(target), reduction="none").mean(dim=(1, 2, 3)) * expected).mean(),
        prediction,
        dtype,
    )


@pytest.mark.parametrize(("gamma", "k"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.3)])
def test_p2(gamma, k):
    """As in the paper's code, which predicts the noise: (k + abar/(1 - abar))^-gamma."""
    scheduler = diffusers.DDPMScheduler()
    timesteps = np.arange(0, 1000, 37)
    expected = (k + compute_snr(scheduler, torch.from_numpy(timesteps))) ** -gamma
    np.testing.assert_allclose(p2_weights(scheduler.alphas_cumprod.numpy(), timesteps, gamma, k), expected, rtol=1e-5)


@dtypes
@reductions
def test_flow_matching(reduction, dtype):
    """The target is the velocity by which diffusers' scheduler gets from scale_noise's mixture back to the image."""
    prediction, x0, noise = np.random.default_rng(4).normal(size=(3, 2, 3, 5, 7)).astype(dtype)
    target = torch.from_numpy(noise) - torch.from_numpy(x0)
    assert_same(
        lambda x: flow_matching_loss(x, x0, noise, reduction),
        lambda x: F.mse_loss(x, target, reduction=reduction),
        prediction,
        dtype,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(7)
    sample = scheduler.scale_noise(torch.from_numpy(x0), scheduler.timesteps[:1].repeat(2), torch.from_numpy(noise))
    for t in scheduler.timesteps:
        sample = scheduler.step(target, t, sample).prev_sample
    np.testing.assert_allclose(sample, x0, atol=1e-5)
