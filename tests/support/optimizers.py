"""Optimizers, and parameters for them to move."""

import numpy as np
import pytest

from hcrot.module import Parameter
from hcrot.training.optim import SGD, Adam, AdamW

SHAPES = [(3, 2, 5), (7,), (1, 1), ()]

OPTIMIZERS = {
    "sgd": lambda params, **options: SGD(params, lr=0.1, **options),
    "sgd_nesterov": lambda params, **options: SGD(params, lr=0.1, momentum=0.8, nesterov=True, **options),
    "sgd_dampening": lambda params, **options: SGD(params, lr=0.1, momentum=0.6, dampening=0.3, **options),
    "adam": lambda params, **options: Adam(params, lr=0.1, **options),
    "amsgrad": lambda params, **options: AdamW(params, lr=0.1, amsgrad=True, **options),
    "adamw": lambda params, **options: AdamW(params, lr=0.1, **options),
}
every_optimizer = pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def parameters(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(np.asarray(rng.normal(size=shape), dtype)) for shape in SHAPES]


def fill_gradients(params, rng):
    for parameter in params:
        parameter.grad[...] = rng.normal(size=parameter.shape)


def train(params, optimizer, rng, steps):
    for _ in range(steps):
        fill_gradients(params, rng)
        optimizer.step()


def one_parameter(value, gradient):
    parameter = Parameter(np.array(value, np.float64))
    parameter.grad[...] = gradient
    return parameter
