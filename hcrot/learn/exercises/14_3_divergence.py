"""The divergence of two normal distributions as a layer.

Forward takes four arrays of one shape, the means and the logarithms of the variances of q and of p, and returns entry by entry

    y = 1/2 [ log_v_p - log_v_q - 1 + (exp(log_v_q) + (m_q - m_p)^2) exp(-log_v_p) ].

Write backward: it takes dy and returns the gradients of all four, in the same order. A network that learns its variance needs the last.
"""

import numpy as np

import hcrot


class Divergence(hcrot.Module):
    def forward(self, m_q: np.ndarray, log_v_q: np.ndarray, m_p: np.ndarray, log_v_p: np.ndarray) -> np.ndarray:
        self.save(m_q, log_v_q, m_p, log_v_p)
        return 0.5 * (log_v_p - log_v_q - 1 + (np.exp(log_v_q) + (m_q - m_p) ** 2) * np.exp(-log_v_p))

    def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        m_q, log_v_q, m_p, log_v_p = self.saved()
        # yours: begin
        dm_q = dy * (m_q - m_p) * np.exp(-log_v_p)
        dlog_v_q = dy * 0.5 * (np.exp(log_v_q - log_v_p) - 1)
        dlog_v_p = dy * 0.5 * (1 - (np.exp(log_v_q) + (m_q - m_p) ** 2) * np.exp(-log_v_p))
        return dm_q, dlog_v_q, -dm_q, dlog_v_p
        # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "Each entry of y depends on the entries at the same place only: differentiate the formula, and multiply with dy.",
    "The means enter as (m_q - m_p)^2 only, so the gradient of m_p is the negative of that of m_q.",
    "The derivative of exp(-log_v_p) by log_v_p is -exp(-log_v_p), and the factor in front of it stays: 1/2 [1 - (...) exp(-log_v_p)].",
]
DERIVATION = """
y = 1/2 [l_p - l_q - 1 + (exp(l_q) + d^2) exp(-l_p)], d = m_q - m_p. Entry by entry

    dy/dm_q = d exp(-l_p)                  dy/dm_p = -dy/dm_q
    dy/dl_q = 1/2 [exp(l_q - l_p) - 1]     dy/dl_p = 1/2 [1 - (exp(l_q) + d^2) exp(-l_p)]

All four are zero where both distributions agree: there the divergence has its minimum, 0. In the bound of a diffusion model, q is the
posterior and known; dy/dm_p and dy/dl_p flow into the network. Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.1.
"""
WRONG = {
    "a half too much": ("dm_q = dy * (", "dm_q = dy * 0.5 * ("),
    "the sign of the means": ("dlog_v_q, -dm_q,", "dlog_v_q, dm_q,"),
    "a sign of the variance": ("dlog_v_q = dy * 0.5 * (", "dlog_v_q = -dy * 0.5 * ("),
}


def check(yours, check: Check) -> None:
    for shape in ((3, 4), (2, 1, 3, 5)):
        check.gradients(yours.Divergence(), *(check.normal(*shape) for _ in range(4)))
