"""Gradients by differences of values."""

import numpy as np


def central_differences(value, x, eps=1e-6):
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] = x[index] + eps
        above = value(moved)
        moved[index] = x[index] - eps
        gradient[index] = (above - value(moved)) / (2 * eps)
    return gradient
