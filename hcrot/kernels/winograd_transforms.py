"""The one-dimensional transforms of Winograd's F(4, 3), whose derivation is in ``winograd.py``, each applied to many positions at once.

Each is one loop over long contiguous rows that reads every row once and writes every row once: on such rows the vector units do little
but load and store.
"""

import math

import numpy as np

from hcrot.kernels.jit import distinct_jit

__all__ = [
    "A", "B", "INPUT_TRANSFORM", "KERNEL_TRANSFORM", "OUTPUT_TRANSFORM", "transform_input", "transform_kernel", "transform_kernel_adjoint",
    "transform_output", "transform_output_adjoint",
]  # fmt: skip

A = math.sqrt(0.5)
B = math.sqrt(2.0)
KERNEL_TRANSFORM = np.array([[1, 0, 0], *([[1 / s, p / s, p * p / s] for p, s in ((A, -1.5), (-A, -1.5), (B, 6), (-B, 6))]), [0, 0, 1]])
"""G (6, 3)."""
OUTPUT_TRANSFORM = np.array([[1, 0, 0, 0], *([[1, p, p**2, p**3] for p in (A, -A, B, -B)]), [0, 0, 0, 1]]).T
"""A^T (4, 6)."""
INPUT_TRANSFORM = np.array(
    [
        [1, 0, -2.5, 0, 1, 0],
        *([0, -2 * p, -2, p, 1, 0] for p in (A, -A)),
        *([0, -p / 2, -0.5, p, 1, 0] for p in (B, -B)),
        [0, 1, 0, -2.5, 0, 1],
    ]
)
"""B^T (6, 6)."""


@distinct_jit
def transform_input(d0, d1, d2, d3, d4, d5, v0, v1, v2, v3, v4, v5):
    """``v = B^T d`` for each position of the six arrays."""
    kind = d0.dtype.type
    a, b, half, two, middle = kind(A), kind(B), kind(0.5), kind(2), kind(2.5)
    for k in range(v0.size):
        x1, x2, x3, x4 = d1[k], d2[k], d3[k], d4[k]
        even, odd = x4 - two * x2, a * (x3 - two * x1)
        even_b, odd_b = x4 - half * x2, b * (x3 - half * x1)
        v0[k] = d0[k] - middle * x2 + x4
        v1[k] = even + odd
        v2[k] = even - odd
        v3[k] = even_b + odd_b
        v4[k] = even_b - odd_b
        v5[k] = x1 - middle * x3 + d5[k]


@distinct_jit
def transform_output(m0, m1, m2, m3, m4, m5, y0, y1, y2, y3):
    """``y = A^T m`` for each position of the six arrays."""
    kind = m0.dtype.type
    a, b, half, two, a3, b3 = kind(A), kind(B), kind(0.5), kind(2), kind(A**3), kind(B**3)
    for k in range(y0.size):
        sum_a, difference_a = m1[k] + m2[k], m1[k] - m2[k]
        sum_b, difference_b = m3[k] + m4[k], m3[k] - m4[k]
        y0[k] = m0[k] + sum_a + sum_b
        y1[k] = a * difference_a + b * difference_b
        y2[k] = half * sum_a + two * sum_b
        y3[k] = a3 * difference_a + b3 * difference_b + m5[k]


@distinct_jit
def transform_output_adjoint(y0, y1, y2, y3, m0, m1, m2, m3, m4, m5):
    """``m = A y`` for each position of the four arrays."""
    kind = y0.dtype.type
    a, b, half, two, a3, b3 = kind(A), kind(B), kind(0.5), kind(2), kind(A**3), kind(B**3)
    for k in range(m0.size):
        even, odd = y0[k] + half * y2[k], a * y1[k] + a3 * y3[k]
        even_b, odd_b = y0[k] + two * y2[k], b * y1[k] + b3 * y3[k]
        m0[k] = y0[k]
        m1[k] = even + odd
        m2[k] = even - odd
        m3[k] = even_b + odd_b
        m4[k] = even_b - odd_b
        m5[k] = y3[k]


@distinct_jit
def transform_kernel(g0, g1, g2, u0, u1, u2, u3, u4, u5):
    """``u = G g`` for each position of the three arrays."""
    kind = g0.dtype.type
    a, b, half, two, third, sixth = kind(A), kind(B), kind(0.5), kind(2), kind(-1 / 1.5), kind(1 / 6)
    for k in range(u0.size):
        even, odd = third * (g0[k] + half * g2[k]), third * a * g1[k]
        even_b, odd_b = sixth * (g0[k] + two * g2[k]), sixth * b * g1[k]
        u0[k] = g0[k]
        u1[k] = even + odd
        u2[k] = even - odd
        u3[k] = even_b + odd_b
        u4[k] = even_b - odd_b
        u5[k] = g2[k]


@distinct_jit
def transform_kernel_adjoint(u0, u1, u2, u3, u4, u5, g0, g1, g2):
    """``g = G^T u`` for each position of the six arrays."""
    kind = u0.dtype.type
    a, b, half, two, third, sixth = kind(A), kind(B), kind(0.5), kind(2), kind(-1 / 1.5), kind(1 / 6)
    for k in range(g0.size):
        sum_a, sum_b = third * (u1[k] + u2[k]), sixth * (u3[k] + u4[k])
        g0[k] = u0[k] + sum_a + sum_b
        g1[k] = third * a * (u1[k] - u2[k]) + sixth * b * (u3[k] - u4[k])
        g2[k] = half * sum_a + two * sum_b + u5[k]
