"""clip_grad_norm: one norm of all gradients, summed in float64, and what becomes of one that is not finite."""

import numpy as np
import pytest

from hcrot.module import Parameter
from hcrot.training.optim import SGD, clip_grad_norm
from support.optimizers import fill_gradients, one_parameter, parameters


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clips_all_gradients_together(dtype):
    params = parameters(dtype)
    fill_gradients(params, np.random.default_rng(9))
    gradients = [p.grad.copy() for p in params]
    arrays = [p.grad for p in params]
    expected = np.linalg.norm(np.concatenate([g.reshape(-1).astype(np.float64) for g in gradients]))
    norm = clip_grad_norm(params, 0.5)
    assert type(norm) is float
    assert norm == pytest.approx(expected, rel=1e-12)
    for p, gradient, array in zip(params, gradients, arrays, strict=True):
        assert p.grad is array and p.grad.dtype == dtype
        np.testing.assert_allclose(p.grad, gradient * 0.5 / (norm + 1e-6), rtol=1e-6)
    assert clip_grad_norm(params, 1.0) == pytest.approx(0.5, rel=1e-5)


def test_small_gradients_are_left_as_they_are():
    params = parameters()
    fill_gradients(params, np.random.default_rng(10))
    gradients = [p.grad.copy() for p in params]
    assert clip_grad_norm(params, 1e3) == clip_grad_norm(params, float("inf"))
    for p, gradient in zip(params, gradients, strict=True):
        np.testing.assert_array_equal(p.grad, gradient)


def test_a_tied_gradient_counts_once():
    p = one_parameter([1.0], [3.0])
    assert clip_grad_norm([p, p], 10.0) == 3.0


def test_the_norm_of_gradients_of_two_dtypes():
    p, q = one_parameter([1.0], [3.0]), Parameter(np.zeros(2, np.float32))
    q.grad[...] = [4.0, 0.0]
    assert clip_grad_norm([p, q], 1.0) == 5.0
    np.testing.assert_allclose([p.grad[0], q.grad[0]], [0.6, 0.8], rtol=1e-6)


def test_norm_is_summed_in_float64():
    """In float32 the squares would overflow, or the small ones be lost beside the large."""
    p = Parameter(np.zeros(100_001, np.float32))
    p.grad[...] = 1e-4
    p.grad[0] = 1.0
    assert clip_grad_norm([p], 10.0) == pytest.approx(
        np.sqrt(1 + 100_000 * np.float64(np.float32(1e-4)) ** 2), rel=1e-12
    )
    p.grad[...] = 0
    p.grad[0] = 1e30
    assert clip_grad_norm([p], 1.0) == pytest.approx(1e30, rel=1e-6)
    assert p.grad[0] == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(("bad", "others"), [(np.nan, np.nan), (np.inf, 0.0)])
def test_not_finite_norm_is_returned_and_stays_visible(bad, others):
    p, q = one_parameter([1.0, 1.0], [bad, 1.0]), one_parameter([1.0], [1.0])
    norm = clip_grad_norm([p, q], 1.0)
    np.testing.assert_array_equal(norm, bad)
    np.testing.assert_array_equal(p.grad, [np.nan, others])
    np.testing.assert_array_equal(q.grad, [others])


@pytest.mark.parametrize("size", [1e20, 1e160, 1e300])
def test_a_norm_whose_square_overflows_float64(size):
    p, q = one_parameter([1.0], [3 * size]), one_parameter([1.0], [-4 * size])
    assert SGD([p, q], lr=0.5).step(max_grad_norm=1.0) == pytest.approx(5 * size, rel=1e-14)
    np.testing.assert_allclose([p.data[0], q.data[0]], [0.7, 1.4], rtol=1e-12)
    assert clip_grad_norm([p, q], 1.0) == pytest.approx(5 * size, rel=1e-14)
    np.testing.assert_allclose([p.grad[0], q.grad[0]], [0.6, -0.8], rtol=1e-12)
