"""Data whose density and score are known at every time of an SDE: a mixture of round normal distributions.

    p_t(x) = sum_k w_k N(x; m mu_k, v_k I),  v_k = m^2 sigma_k^2 + s^2,  m = m(t), s = s(t) of the SDE
    score = sum_k r_k a_k,  a_k = (m mu_k - x)/v_k,  r_k = w_k N(x; m mu_k, v_k I)/p_t(x)
    d score/dx = sum_k r_k (a_k a_k^T - I/v_k) - score score^T,  a symmetric matrix, so J^T dout = J dout
"""

import numpy as np

import hcrot


class MixtureScore(hcrot.Module):
    """The score at (x, t), x (B, D), t (B,), with its exact backward; K components of weights (K,), means (K, D) and stds (K,)."""

    def __init__(self, sde, weights, means, stds):
        self.sde = sde
        self.constants = tuple(np.array(part, np.float64) for part in (weights, means, stds))
        for constant in self.constants:
            constant.flags.writeable = False  # so check_gradients does not take it for a weight that nobody trains

    def parts(self, x, t):
        """The logarithms of w_k N_k (B, K), a_k (B, K, D) and v_k (B, K)."""
        weights, means, stds = self.constants
        m, s = (np.broadcast_to(level, len(x))[:, None] for level in (self.sde.signal(t), self.sde.std(t)))
        v = m**2 * stds**2 + s**2
        towards = m[:, :, None] * means - x[:, None, :]
        logs = np.log(weights) - 0.5 * np.sum(towards**2, axis=2) / v - x.shape[1] / 2 * np.log(2 * np.pi * v)
        return logs, towards / v[:, :, None], v

    def log_density(self, x, t):
        logs, _, _ = self.parts(x, np.full(len(x), t))
        top = logs.max(axis=1, keepdims=True)
        return (top + np.log(np.exp(logs - top).sum(axis=1, keepdims=True)))[:, 0]

    def sample(self, count, rng):
        """x_0, (count, D)."""
        weights, means, stds = self.constants
        k = rng.choice(len(weights), size=count, p=weights)
        return means[k] + stds[k, None] * rng.standard_normal((count, means.shape[1]))

    def moments(self):
        """Mean (D,) and covariance (D, D) of x_0."""
        weights, means, stds = self.constants
        mean = weights @ means
        centred = means - mean
        return mean, (weights[:, None] * centred).T @ centred + weights @ stds**2 * np.eye(len(mean))

    def forward(self, x, t):
        logs, a, v = self.parts(x.astype(np.float64), t)
        r = np.exp(logs - logs.max(axis=1, keepdims=True))
        r /= r.sum(axis=1, keepdims=True)
        score = np.einsum("bk,bkd->bd", r, a)
        self.save(r, a, v, score)
        return score.astype(x.dtype)

    def backward(self, dout):
        r, a, v, score = self.saved()
        along = r * np.einsum("bkd,bd->bk", a, dout)
        dx = np.einsum("bk,bkd->bd", along, a)
        dx -= np.sum(r / v, axis=1, keepdims=True) * dout
        dx -= np.sum(score * dout, axis=1, keepdims=True) * score
        return dx.astype(dout.dtype)
