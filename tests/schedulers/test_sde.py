"""The three SDEs: their four functions of time against each other, and against walks of the equation itself."""

import numpy as np
import pytest

from hcrot.schedulers import SDE, VESDE, VPSDE, SubVPSDE
from support.memory_order import channels_last

SDES = [VESDE(0.01, 50.0), VESDE(0.2, 3.0), VPSDE(), VPSDE(0.5, 0.5), SubVPSDE()]
T = np.linspace(0, 1, 2001)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_signal_and_std_solve_their_equations(sde):
    """dm/dt = c m and d(s^2)/dt = 2 c s^2 + g^2, which say what (a) of hcrot/schedulers/sde.py makes of mean and variance."""
    m, variance, c, g = sde.signal(T), sde.std(T) ** 2, sde.drift_rate(T), sde.diffusion(T)
    inside = slice(2, -2)
    np.testing.assert_allclose(np.gradient(m, T)[inside], (c * m)[inside], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.gradient(variance, T)[inside], (2 * c * variance + g**2)[inside], rtol=1e-3, atol=1e-5)
    assert m[0] == 1 and variance[0] == (sde.sigma_min**2 if isinstance(sde, VESDE) else 0)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_steps_forward_lead_to_the_marginals(sde):
    """x(t) = a x(t - dt) + G z, over and over: mean and variance, which need no random numbers."""
    count, mean, variance = 2000, 1.0, float(sde.std(0.0)) ** 2
    for k in range(count):
        a, noise = sde.step_forward((k + 1) / count, 1 / count)
        mean, variance = a * mean, a**2 * variance + noise**2
    assert mean == pytest.approx(float(sde.signal(1.0)), rel=0.03)
    assert variance == pytest.approx(float(sde.std(1.0)) ** 2, rel=0.01)


def test_sub_vp_has_less_noise_than_vp_and_the_same_signal():
    vp, sub = VPSDE(), SubVPSDE()
    np.testing.assert_array_equal(vp.signal(T), sub.signal(T))
    assert np.all(sub.std(T[1:]) < vp.std(T[1:]))
    np.testing.assert_allclose(vp.signal(T) ** 2 + vp.std(T) ** 2, 1, rtol=1e-12)
    np.testing.assert_allclose(sub.std(T), vp.std(T) ** 2, rtol=1e-9)


def test_vp_with_the_steps_of_ddpm():
    """1000 steps of [10] have DDPM's beta from 1e-4 to 0.02."""
    a, noise = VPSDE().step_forward(1.0, 1e-3)
    assert noise**2 == pytest.approx(0.02) and a**2 == pytest.approx(0.98)


def test_ve_finds_the_time_of_a_level():
    sde = SDES[0]
    np.testing.assert_allclose(sde.time_of_std(sde.std(T)), T, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_what_is_done_with_points(sde, dtype):
    x, z, score = channels_last(np.random.default_rng(0).standard_normal((3, 3, 2, 5, 4)).astype(dtype)[0]), *(
        np.random.default_rng(seed).standard_normal((3, 2, 5, 4)).astype(dtype) for seed in (1, 2)
    )
    t = np.array([0.1, 0.5, 1.0])
    c, g, m, s = (values.reshape(3, 1, 1, 1) for values in (sde.drift_rate(t), sde.diffusion(t), sde.signal(t), sde.std(t)))
    handed = [array.copy() for array in (x, z, score)]
    for found, expected in (
        (sde.drift(x, t), c * x),
        (sde.marginal(x, t)[0], m * x),
        (sde.add_noise(x, z, t), m * x + s * z),
        (sde.reverse_drift(x, t, score), c * x - g**2 * score),
        (sde.flow_drift(x, t, score), c * x - g**2 / 2 * score),
        (sde.denoised(x, t, score), (x + s**2 * score) / m),
    ):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=2e-5 if dtype == np.float32 else 1e-12, atol=1e-4 if dtype == np.float32 else 1e-9)
    np.testing.assert_allclose(sde.flow_drift(x, 0.5, score)[1], sde.flow_drift(x, t, score)[1], rtol=1e-6)
    assert sde.marginal(x, t)[1].shape == (3, 1, 1, 1) and sde.marginal(x, 0.5)[1].shape == (1, 1, 1, 1)
    np.testing.assert_allclose(sde.denoised(sde.add_noise(x, z, t), t, -z / s.astype(dtype)), x, rtol=1e-3, atol=0.2)
    for array, copy in zip((x, z, score), handed, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_prior(sde):
    x = sde.prior_sample((20000, 3), np.random.default_rng(3))
    assert x.dtype == np.float32 and x.std() == pytest.approx(sde.prior_std, rel=0.01)
    values = np.array([[0.5, -1.0]]) * sde.prior_std
    by_hand = np.sum(-0.5 * np.array([0.25, 1.0]) - 0.5 * np.log(2 * np.pi) - np.log(sde.prior_std))
    np.testing.assert_allclose(sde.prior_log_density(values), [by_hand], rtol=1e-12)


X = np.zeros((2, 3))


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: VESDE(0, 1.0), ValueError, "VESDE: sigma_min is 0, expected a positive number"),
    (lambda: VESDE(1.0, 0.5), ValueError, "VESDE: sigma_max is 0.5, expected more than sigma_min 1.0"),
    (lambda: SubVPSDE(2.0, 1.0), ValueError, "SubVPSDE: beta_max is 1.0, expected at least beta_min 2.0"),
    (lambda: VPSDE().std(1.5), ValueError, "VPSDE: t ranges from 1.5 to 1.5, expected numbers from 0 to 1"),
    (lambda: VPSDE().std("now"), TypeError, "VPSDE: t has dtype <U3, expected numbers from 0 to 1"),
    (lambda: VPSDE().std(np.nan), ValueError, "VPSDE: t ranges from nan"),
    (lambda: VPSDE().drift(X, [0.1, 0.2, 0.3]), ValueError, r"VPSDE.drift: t has shape \(3,\), expected one number or \(2,\)"),
    (lambda: VPSDE().drift([[1.0]], 0.1), TypeError, "VPSDE.drift: x is a list, expected"),
    (lambda: VPSDE().drift(np.zeros((2, 3), int), 0.1), TypeError, r"x is an array of int64 and shape \(2, 3\), expected"),
    (lambda: VPSDE().add_noise(X, X[:1], 0.1), ValueError, r"add_noise: noise is float64 of shape \(1, 3\), expected float64 of shape"),
    (lambda: VPSDE().flow_drift(X, 0.1, X.astype(np.float32)), ValueError, "flow_drift: score is float32"),
    (lambda: VPSDE().step_forward(1.0, 0.1), ValueError, r"beta\(t\) dt is 2 at t = 1, expected less than 1: take more steps"),
    (lambda: SDE().std(0.5), NotImplementedError, "SDE has no std"),
])  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
