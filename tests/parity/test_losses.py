"""The losses against PyTorch's."""

import numpy as np
import pytest

from hcrot.losses import cross_entropy, l1_loss, mse_loss, smooth_l1_loss

torch = pytest.importorskip("torch")
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
