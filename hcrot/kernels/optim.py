"""The Adam update. Notation: p parameter, g gradient, m and v running means of g and g^2, all flat arrays of one dtype.

Why a kernel: the update is memory traffic. NumPy makes some ten passes over the arrays and temporaries, the loop one.
"""

import math

import numpy as np

from hcrot.kernels.jit import jit


def adam_reference(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    l2: float,
) -> None:
    """One step of Adam (Kingma & Ba 2015, algorithm 1) with weight decay in both ways (Loshchilov & Hutter 2019).

        g <- g + l2 p                                       a penalty, as in Adam
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        p <- (1 - lr decay) p                               decoupled, as in AdamW
        p <- p - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)

    Args:
        p, g, m, v: ``(n,)``, all float32 or all float64; p, m and v are updated in place, g is only read.
        step: number of this step, the first is 1.
        lr, beta1, beta2, eps, decay, l2: Python floats, rounded to the arrays' dtype.
    """
    g = g + l2 * p
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * (g * g)
    p *= 1 - lr * decay
    p -= lr / (1 - beta1**step) * m / (np.sqrt(v) / math.sqrt(1 - beta2**step) + eps)


@jit
def adam(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    l2: float,
) -> None:
    """See :func:`adam_reference`. Fast because

    - it is one pass over the arrays;
    - every scalar is rounded to the arrays' dtype before the loop: one float64 among them would halve the vector lanes.
    """
    real = p.dtype.type
    rate1, rate2 = real(1 - beta1), real(1 - beta2)
    keep, step_size, root = real(1 - lr * decay), real(lr / (1 - beta1**step)), real(math.sqrt(1 - beta2**step))
    beta1, beta2, eps, l2 = real(beta1), real(beta2), real(eps), real(l2)
    for i in range(p.size):
        gi = g[i] + l2 * p[i]
        m[i] = beta1 * m[i] + rate1 * gi
        v[i] = beta2 * v[i] + rate2 * (gi * gi)
        p[i] = keep * p[i] - step_size * m[i] / (np.sqrt(v[i]) / root + eps)
