"""The losses against PyTorch's, the weightings and the flow-matching loss as diffusers' training examples compute them."""

import numpy as np
import pytest

from hcrot.training.losses import (
    cross_entropy,
    flow_matching_loss,
    huber_loss,
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
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def assert_same(loss, torch_loss, x, dtype, class_axis=(), terms=0.0):
    """Value and gradient; ``terms`` is the size of the numbers whose difference a gradient is, where that may be small."""
    value, dout = loss(x)
    leaf = torch.from_numpy(x).requires_grad_()
    expected = torch_loss(leaf)
    upstream = np.random.default_rng(9).normal(size=expected.shape).astype(dtype)
    expected.backward(torch.from_numpy(upstream))
    expected = expected.detach().numpy()
    np.testing.assert_allclose(value, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())
    dout = dout * (upstream if upstream.shape == dout.shape else np.expand_dims(upstream, class_axis))
    gradient = leaf.grad.numpy()
    assert dout.dtype == gradient.dtype
    size = max(np.abs(gradient).max(), terms * np.abs(upstream).max())
    np.testing.assert_allclose(dout, gradient, rtol=0, atol=TOLERANCE[dtype] * size)


@dtypes
@reductions
@pytest.mark.parametrize(
    ("loss", "torch_loss", "options"),
    [
        (mse_loss, F.mse_loss, {}),
        (l1_loss, F.l1_loss, {}),
        (smooth_l1_loss, F.smooth_l1_loss, {}),
        (huber_loss, F.huber_loss, {}),
        (huber_loss, F.huber_loss, {"delta": 0.37}),
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


def as_torch(options):
    return {name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}


@dtypes
@reductions
@pytest.mark.parametrize("scale", [1, 300])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.15])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", ["classes", "ignored", "probabilities"])
@pytest.mark.parametrize("shape", [(9, 5), (2, 5, 3, 4), (5,)])
def test_cross_entropy(shape, target, weighted, label_smoothing, scale, reduction, dtype):
    rng = np.random.default_rng(2)
    logits = (scale * rng.normal(size=shape)).astype(dtype)
    labels = np.asarray(rng.integers(5, size=shape[:1] + shape[2:] if len(shape) > 1 else ()))
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    if weighted:
        options["weight"] = rng.uniform(0.2, 3, 5).astype(dtype)
    if target == "ignored":
        options["ignore_index"] = 1
    elif target == "probabilities":
        labels = rng.dirichlet(np.ones(shape[1 if len(shape) > 1 else 0]), size=labels.shape)
        labels = (np.moveaxis(labels, -1, 1) if len(shape) > 1 else labels).astype(dtype)
    assert_same(
        lambda x: cross_entropy(x, labels, **options),
        lambda x: F.cross_entropy(x, torch.from_numpy(labels), **as_torch(options)),
        logits,
        dtype,
        class_axis=() if reduction != "none" else 1 if len(shape) > 1 else 0,
        terms=options["weight"].max() if weighted and reduction != "mean" else 0.0,
    )


@reductions
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, [1.0, 0.5, 2.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((2, 3), [-100, -100]),
        ((2, 3, 2, 2), np.full((2, 2, 2), -100)),
        ((3,), -100),
        ((2, 3), [0, 0]),
        ((2, 3), [0, -100]),
        ((2, 3), np.full((2, 3), 1 / 3, np.float32)),
    ],
)
def test_nan_stands_where_pytorch_has_it(shape, labels, weight, label_smoothing, reduction):
    """Nothing left to take the mean of: every label ignored, or of weight 0."""
    logits, labels = np.random.default_rng(3).normal(size=shape).astype(np.float32), np.asarray(labels)
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "weight": np.array(weight, np.float32) if weight else None}
    value, dout = cross_entropy(logits, labels, **options)
    leaf = torch.from_numpy(logits).requires_grad_()
    expected = F.cross_entropy(leaf, torch.from_numpy(labels), **as_torch(options))
    expected.sum().backward()
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(dout, leaf.grad.numpy(), rtol=1e-5, atol=1e-7)


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
