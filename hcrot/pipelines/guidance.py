"""Networks around a network: what is predicted is changed before the scheduler sees it, and a gradient goes through it.

Each is a :class:`~hcrot.Module` that is called like the network inside, so every loop and every scheduler of the variance-preserving
process takes it. One whose forward runs backwards says so by ``needs_backward``: the loop then calls it outside of inference. Let x = x_t,
m the network's prediction, and x_0 = a x + b m (``schedulers/predictions.py``).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hcrot.layers.dropout import Dropout
from hcrot.module import Module
from hcrot.schedulers.base import NoiseScheduler
from hcrot.schedulers.predictions import levels, predicted_original_sample, prediction_of, slopes

__all__ = ["CorrectedModel", "GuidedByClassifier", "differentiable", "gradient_through", "gradients_as_they_were"]

Correction = Callable[[np.ndarray, np.ndarray, Any], np.ndarray]
"""``(x_0, x_t, t)`` -> another x_0, of the same shape."""


class CorrectedModel(Module):
    """A network whose estimate of x_0 is changed by a function: it says what would have meant the new x_0.

    Args:
        model: the network, called ``model(x, t)`` or ``model(x, t, class_labels)``.
        scheduler: of the variance-preserving process that it was trained with.
        correct: ``(x_0, x_t, t) -> x_0``.

    It has no backward of its own: it serves sampling.
    """

    def __init__(self, model: Module, scheduler: NoiseScheduler, correct: Correction):
        self.model, self.scheduler, self.correct = model, scheduler, correct
        self.config = getattr(model, "config", {})

    def forward(self, x: np.ndarray, timestep: Any, *labels: np.ndarray) -> np.ndarray:
        x0 = predicted_original_sample(self.scheduler, self.model(x, timestep, *labels), timestep, x)
        return prediction_of(self.scheduler, self.correct(x0, x, timestep), timestep, x)


class GuidedByClassifier(Module):
    """A network and a classifier that pulls towards a class (Dhariwal & Nichol 2021, algorithm 2; Song et al. 2021, eq. 14).

        eps = eps(x) - scale sigma grad_x log p(class | x_0(x))

    The classifier reads the estimate of x_0, so an ordinary one, trained on clean images, serves. Its gradient goes back through the
    classifier, through x_0 = a x + b m, and through the network: by both backwards.

    Args:
        model, scheduler: as for :class:`CorrectedModel`.
        classifier: images -> logits (B, K).
        classes: (B,) integers.
        scale: how hard it pulls.
    """

    needs_backward = True

    def __init__(self, model: Module, scheduler: NoiseScheduler, classifier: Module, classes: np.ndarray, scale: float = 1.0):
        self.model, self.scheduler, self.classifier = model, scheduler, classifier
        self.classes, self.scale = np.asarray(classes), float(scale)
        self.config = getattr(model, "config", {})

    def forward(self, x: np.ndarray, timestep: Any, *labels: np.ndarray) -> np.ndarray:
        def pull(x0: np.ndarray) -> np.ndarray:
            """The gradient of log p by x_0: through log softmax, then through the classifier."""
            logits = self.classifier(x0)
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            dlogits = -p / p.sum(axis=1, keepdims=True)
            dlogits[np.arange(len(p)), self.classes] += 1
            return self.classifier.backward(dlogits)

        with differentiable(self.classifier):
            prediction, dx = gradient_through(self.model, self.scheduler, x, timestep, labels, pull)
        signal, sigma = levels(self.scheduler, timestep)
        x0 = predicted_original_sample(self.scheduler, prediction, timestep, x)
        # eps - scale sigma dx in place of eps moves x_0 = (x - sigma eps) / signal by scale sigma^2 / signal dx
        moved = x0 + (self.scale * sigma**2 / signal * dx).astype(x.dtype, copy=False)
        return prediction_of(self.scheduler, moved, timestep, x)


@contextmanager
def gradients_as_they_were(model: Module) -> Iterator[None]:
    """Parameters are frozen, which spares the arithmetic of their gradients. Those belong to whoever trains the model: if a module adds
    to them all the same, afterwards they are what they were."""
    kept = [(parameter, parameter.grad.copy()) for _, parameter in model.named_parameters()]
    free = [parameter for parameter in model.parameters() if parameter.trainable]
    try:
        for parameter in free:
            parameter.trainable = False
        yield
    finally:
        for parameter in free:
            parameter.trainable = True
        for parameter, gradient in kept:
            parameter.grad[...] = gradient


@contextmanager
def differentiable(model: Module) -> Iterator[None]:
    """Within the block the network keeps what its backward needs, in eval mode, too, and drops nothing. Afterwards its modes and the
    gradients of its parameters are what they were."""
    modes = [(module, module._training) for module in model.modules()]
    drops = [(module, module.p) for module in model.modules() if isinstance(module, Dropout)]
    model.train()
    for dropout, _ in drops:
        dropout.p = 0.0
    try:
        with gradients_as_they_were(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for dropout, p in drops:
            dropout.p = p


def gradient_through(
    model: Module,
    scheduler: NoiseScheduler,
    x: np.ndarray,
    timestep: Any,
    labels: tuple[np.ndarray, ...],
    gradient: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The prediction m(x), and the gradient by x of a function f of the estimate x_0 = a x + b m(x):

        df/dx = a g + b J^T g      with g = df/dx_0 and J = dm/dx, whose product with g is what ``model.backward`` returns

    Args:
        gradient: ``x_0 -> g``.

    The gradients of the network's parameters are as they were before, and so are its modes (see :func:`differentiable`).
    """
    with differentiable(model):
        prediction = model(x, timestep, *labels)
        g = gradient(predicted_original_sample(scheduler, prediction, timestep, x))
        a, b = slopes(scheduler, timestep)
        through = model.backward((b * g).astype(x.dtype, copy=False))
    dx = through[0] if isinstance(through, tuple) else through
    return prediction, (a * g + dx).astype(x.dtype, copy=False)
