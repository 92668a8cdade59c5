"""The one-dimensional transforms of Winograd's F(4, 3), whose derivation is in ``winograd.py``, each written once.

A transform takes a few values and returns a few others. It is written with ``+``, ``-`` and a number times a value only. So the values may
be NumPy arrays, or registers of the vector unit for which ``winograd_tiles.py`` generates code. Each says what its matrix says, with fewer
operations: the points come in pairs ``p, -p``, whose rows share their even and their odd part.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = [
    "A", "B", "INPUT_TRANSFORM", "KERNEL_TRANSFORM", "OUTPUT_TRANSFORM", "Transform", "in_two_dimensions", "transform_input",
    "transform_kernel", "transform_kernel_adjoint", "transform_output", "transform_output_adjoint",
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

Transform = Callable[..., tuple[Any, ...]]
"""From some values to others."""


def transform_input(d0, d1, d2, d3, d4, d5):
    """``B^T d``."""
    even, odd = d4 - 2 * d2, A * (d3 - 2 * d1)
    even_b, odd_b = d4 - 0.5 * d2, B * (d3 - 0.5 * d1)
    return d0 - 2.5 * d2 + d4, even + odd, even - odd, even_b + odd_b, even_b - odd_b, d1 - 2.5 * d3 + d5


def transform_output(m0, m1, m2, m3, m4, m5):
    """``A^T m``."""
    sum_a, difference_a, sum_b, difference_b = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    y1 = A * difference_a + B * difference_b
    y3 = A**3 * difference_a + B**3 * difference_b + m5
    return m0 + sum_a + sum_b, y1, 0.5 * sum_a + 2 * sum_b, y3


def transform_output_adjoint(y0, y1, y2, y3):
    """``A y``."""
    even, odd = y0 + 0.5 * y2, A * y1 + A**3 * y3
    even_b, odd_b = y0 + 2 * y2, B * y1 + B**3 * y3
    return y0, even + odd, even - odd, even_b + odd_b, even_b - odd_b, y3


def transform_kernel(g0, g1, g2):
    """``G g``."""
    even, odd = (-1 / 1.5) * (g0 + 0.5 * g2), (-A / 1.5) * g1
    even_b, odd_b = (1 / 6) * (g0 + 2 * g2), (B / 6) * g1
    return g0, even + odd, even - odd, even_b + odd_b, even_b - odd_b, g2


def transform_kernel_adjoint(u0, u1, u2, u3, u4, u5):
    """``G^T u``."""
    sum_a, sum_b = (-1 / 1.5) * (u1 + u2), (1 / 6) * (u3 + u4)
    return u0 + sum_a + sum_b, (-A / 1.5) * (u1 - u2) + (B / 6) * (u3 - u4), 0.5 * sum_a + 2 * sum_b + u5


def in_two_dimensions(transform: Transform, values: Sequence[Any]) -> list[Any]:
    """``T d T^T`` for a square d: the transform of each column, then of each row of what came out.

    Args:
        transform: from n values to m.
        values: n * n of them, row by row.

    Returns:
        m * m values, row by row.
    """
    n = round(len(values) ** 0.5)
    columns = [transform(*values[j::n]) for j in range(n)]
    return [value for row in zip(*columns, strict=True) for value in transform(*row)]
