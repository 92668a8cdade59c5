"""The decoder of the variational bound: the mass of a level, by quadrature, and its slope, as far out as floats go."""

import numpy as np
import pytest

from hcrot.training.variational_bound import HALF_LEVEL, _decoder


def scaled_mass(m, h):
    """log of Phi(m + h) - Phi(m - h) and its derivative as m and h shrink like 1/sigma, m >= 0, by quadrature.

    At v from the end nearer to the mean, at b = m - h, the density is phi(b) exp(-b v - v^2/2): a bump around -b of
    width 1, or a slope of length 1/b. E[u^2] - 1 is the derivative of log P by log sigma, u being the distance b + v.
    """
    b = m - h
    centre = max(0.0, -b)
    low, high = max(0.0, centre - 12.0), min(2 * h, centre + min(12.0, 60 / max(b, 1e-9)))
    nodes, weights = np.polynomial.legendre.leggauss(400)
    v = low + (high - low) * (nodes + 1) / 2
    exponent = -b * v - 0.5 * v**2
    density = np.exp(exponent - exponent.max()) * weights * (high - low) / 2
    log_mass = -0.5 * b**2 - 0.5 * np.log(2 * np.pi) + exponent.max() + np.log(density.sum())
    return log_mass, density @ (b + v) ** 2 / density.sum() - 1


@pytest.mark.parametrize("h", [1e-12, 1e-7, 0.99e-5, 1.01e-5, 1e-3, 0.1, 1.0, 2.5, 8.0, 30.0])
def test_mass_of_inner_levels(h):
    sigma = HALF_LEVEL / h
    for m in (0.0, 1e-9, 0.3, 1.0, 1.7, 4.0, h - 1, h, h + 1, 30.0, 1e3, 1e6):
        if m >= 0:
            log_mass, shrinking = scaled_mass(m, h)
            for sign in (1, -1):
                nll, slope = _decoder(np.array([0.2]), np.array([sign * m * sigma]), np.array([2 * np.log(sigma)]))
                np.testing.assert_allclose(nll, -log_mass, rtol=1e-9, atol=1e-12)
                np.testing.assert_allclose(slope, -0.5 * shrinking, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("log_variance", [-12.0, -9.0, -4.0, 0.0, 5.0, 12.5, 25.0])
@pytest.mark.parametrize("mean", [-3.0, -1.0, -0.7, 0.01, 0.9999, 2.0])
def test_masses_of_all_levels_are_one(mean, log_variance):
    levels = np.arange(256) / 127.5 - 1
    nll, slope = _decoder(levels, levels - mean, np.full(256, log_variance))
    assert np.exp(-nll).sum() == pytest.approx(1, rel=1e-12)
    assert np.exp(-nll) @ slope == pytest.approx(0, abs=1e-10)
    float32 = (np.arange(256, dtype=np.float32) / np.float32(127.5) - 1).astype(np.float64)
    assert np.exp(-_decoder(float32, float32 - mean, np.full(256, log_variance))[0]).sum() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("x", [-1.0, 127 / 127.5 - 1, 1.0])
def test_decoder_slope(x):
    error, log_variance = np.meshgrid(np.linspace(-0.3, 0.3, 41), np.linspace(-14, 2, 9))
    x = np.full_like(error, x)
    _, slope = _decoder(x, error, log_variance)
    above, below = (_decoder(x, error, log_variance + step)[0] for step in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("log_variance", [-60.0, -46.0, -9.0, 0.0, 40.0, 90.0])
def test_decoder_is_finite_where_its_value_is(log_variance):
    """Saturated pixels, predictions far away, and log-variances out of all bounds (the least that diffusers has: -46)."""
    x, mean = (grid.ravel() for grid in np.meshgrid([-1.0, 0.1, 1.0], [-1e4, -50, -1.5, -1, 0.1, 0.3, 1, 1.5, 50, 1e4]))
    with np.errstate(all="raise", under="ignore"):
        nll, slope = _decoder(x, x - mean, np.full_like(x, log_variance))
    assert np.isfinite(nll).all() and np.isfinite(slope).all() and (nll >= 0).all()
    sigma, beyond = np.exp(0.5 * log_variance), np.abs(x - mean) > HALF_LEVEL + 40 * np.exp(0.5 * log_variance)
    hopeless = beyond & (np.sign(mean - x) != x)
    distance = (np.abs(x - mean)[hopeless] - HALF_LEVEL) / sigma
    np.testing.assert_allclose(nll[hopeless], 0.5 * distance**2, rtol=0.01)
    np.testing.assert_allclose(slope[hopeless], -0.5 * distance**2, rtol=0.01)
    np.testing.assert_array_equal(nll[beyond & ~hopeless], 0)  # beyond an end all is the end's
