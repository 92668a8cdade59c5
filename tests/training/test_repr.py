"""What optimizers, schedules and averages show of themselves."""

import ast
import importlib
import pkgutil

import numpy as np
import pytest

import hcrot.training
from hcrot.module import Parameter
from hcrot.training.ema import EMA
from hcrot.training.lr_schedules import LRSchedule, constant, constant_with_warmup, cosine
from hcrot.training.optim import SGD, Adam, AdamW


def params(*sizes):
    return [Parameter(np.zeros(size, np.float32)) for size in sizes or (3, 4)]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: AdamW(params(1_150_000, 50_000)),
            "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, parameters=2 (1.2 M values), step=0)",
        ),
        (
            lambda: Adam(params(12_345), amsgrad=True, maximize=True),
            "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, amsgrad=True, maximize=True, weight_decay=0.0, "
            "parameters=1 (12.3 k values), step=0)",
        ),
        (
            lambda: SGD([{"params": params(), "weight_decay": 0.1}, {"params": params(9999)}], lr=0.5, momentum=0.9, nesterov=True),
            "SGD(lr=0.5, momentum=0.9, dampening=0.0, nesterov=True, weight_decay=[0.0, 0.1], groups=2, "
            "parameters=3 (10.0 k values), step=0)",
        ),
        (lambda: EMA(params()), "EMA(decay=0.9999, parameters=2 (7 values), step=0)"),
        (
            lambda: EMA(params(), 0.99, min_decay=0.5, update_after_step=7, use_ema_warmup=True),
            "EMA(decay=0.99, min_decay=0.5, update_after_step=7, use_ema_warmup=True, inv_gamma=1.0, power=0.6667, "
            "parameters=2 (7 values), step=0)",
        ),
        (lambda: LRSchedule(SGD(params()), cosine(10, 200)), "LRSchedule(cosine(10, 200), base_lr=0.001, step=0, lr=0)"),
        (lambda: LRSchedule(SGD(params()), constant_with_warmup(3)), "LRSchedule(constant_with_warmup(3), base_lr=0.001, step=0, lr=0)"),
        (lambda: LRSchedule(SGD(params()), constant()), "LRSchedule(constant(), base_lr=0.001, step=0, lr=0.001)"),
        (lambda: LRSchedule(SGD(params()), lambda step: 0.5), "LRSchedule(<lambda>, base_lr=0.001, step=0, lr=0.0005)"),
    ],
)
def test_it_shows_what_it_is(build, text):
    assert repr(build()) == text


def test_it_shows_how_far_it_is_and_what_is_frozen():
    parameters = params()
    optimizer, ema = AdamW(parameters, lr=0.3), EMA(parameters)
    schedule = LRSchedule(optimizer, cosine(0, 4))
    parameters[0].trainable = False
    for _ in range(2):
        optimizer.step(ema=ema)
        schedule.step()
    assert repr(optimizer).startswith("AdamW(lr=0.15, ")
    assert repr(optimizer).endswith("parameters=2 (7 values, 1 frozen), step=2)")
    assert repr(ema).endswith("parameters=2 (7 values, 1 frozen), step=2)")
    assert repr(schedule) == "LRSchedule(cosine(0, 4), base_lr=0.3, step=2, lr=0.15)"
    with ema.swapped_in():
        assert repr(ema).endswith(", swapped in)")


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(hcrot.training.__path__)])
def test_every_file_lists_its_public_names(name):
    """They exist, and every function and class that the file defines is among them or begins with an underscore."""
    module = importlib.import_module(f"hcrot.training.{name}")
    assert module.__all__
    assert all(hasattr(module, public) for public in module.__all__)
    with open(module.__file__, encoding="utf-8") as file:
        definitions = [node.name for node in ast.parse(file.read()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert not [public for public in definitions if not public.startswith("_") and public not in module.__all__]
