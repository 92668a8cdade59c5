"""Optimizers, and the clipping of gradients. They see parameters, never layers, and write them in place.

A training step ends in the open: ``model.backward(dout)``, ``clip_grad_norm(...)``, ``optimizer.step()``,
``optimizer.zero_grad()``; or, in one pass over memory, ``optimizer.step(max_grad_norm=..., ema=..., zero_grad=True)``.
Notation: p a parameter's values, g its gradient. Names, defaults and formulas are PyTorch's.
"""

import math
from collections.abc import Iterable

import numpy as np

from hcrot.kernels.jit import prepare
from hcrot.kernels.optim import Arrays, adam, update_velocity
from hcrot.kernels.plain import is_plain
from hcrot.module import Parameter
from hcrot.training.checks import checked_flag, checked_number
from hcrot.training.clipping import clip_grad_norm
from hcrot.training.optimizer import Optimizer
from hcrot.training.parameter_groups import Part

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm"]


class SGD(Optimizer):
    """Stochastic gradient descent (momentum and Nesterov's variant as in Sutskever et al. 2013).

        g <- g + weight_decay p                      with maximize, g is -gradient from here on
        u <- momentum u + (1 - dampening) g          the velocity, kept if momentum > 0; g at the first step; 0 where subnormal
        p <- p - lr u                                or, with nesterov, p - lr (g + momentum u)

    Args:
        params: see :class:`Optimizer`, as for ``lr``, ``weight_decay``, ``maximize`` and ``others``.
        momentum: >= 0.
        dampening: how much of the gradient to leave out of the velocity, >= 0 and < 1.
        nesterov: look ahead; needs momentum, and no dampening.

    Example:
        >>> weight = hcrot.Parameter(np.ones(1, np.float32))
        >>> optimizer = hcrot.SGD([weight], lr=0.1, momentum=0.5)
        >>> for _ in range(2):
        ...     weight.grad[...] = 1
        ...     optimizer.step()
        ...     print(weight.data.round(3))                       # 0.1 down, then 0.15
        [0.9]
        [0.75]
    """

    shown = ("momentum", "dampening", "nesterov")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        **others: bool | None,
    ):
        self.momentum = checked_number("SGD", "momentum", momentum)
        self.dampening = checked_number("SGD", "dampening", dampening, below=1)
        self.nesterov = checked_flag("SGD", "nesterov", nesterov)
        if nesterov and (not self.momentum or self.dampening):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening 0, got {momentum=} and {dampening=}")
        super().__init__(params, lr, weight_decay, ("velocity",) if self.momentum else (), maximize, **others)

    def update(self, p: np.ndarray, g: np.ndarray, lr: float, weight_decay: float, step: int, *state: np.ndarray) -> None:
        if weight_decay:
            g = g + weight_decay * p
        if self.momentum:
            (u,) = state
            update_velocity(u, g if step == 1 or not self.dampening else (1 - self.dampening) * g, self.momentum)
            g = g + self.momentum * u if self.nesterov else u
        p -= lr * g


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); weight decay, if any, is an L2 penalty added to the gradient.

        g <- g + weight_decay p                      with maximize, g is -gradient from here on
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        p <- p - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)

    With ``amsgrad`` the last line divides by the largest v so far (Reddi et al. 2018, On the Convergence of Adam and Beyond,
    algorithm 2). That variant is written in NumPy and takes several times as long.

    Args:
        params: see :class:`Optimizer`, as for ``lr``, ``weight_decay``, ``maximize`` and ``others``.
        betas: (beta1, beta2), each at least 0 and less than 1.
        eps: >= 0.
        amsgrad: keep the largest v, as ``"v_max"``.

    Example:
        >>> weight = hcrot.Parameter(np.array([1, 1], np.float32))
        >>> weight.grad += np.array([0.001, -100], np.float32)
        >>> hcrot.Adam([weight], lr=0.1).step()
        >>> weight.data.round(3)                                  # each number goes its lr, whatever the size of its gradient
        array([0.9, 1.1], dtype=float32)
    """

    decoupled = False
    shown = ("betas", "eps", "amsgrad")

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **others: bool | None,
    ):
        owner = type(self).__name__
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{owner}: betas must be two numbers, got {betas!r}")
        self.betas = tuple(checked_number(owner, "betas", beta, below=1) for beta in betas)
        self.eps = checked_number(owner, "eps", eps)
        self.amsgrad = checked_flag(owner, "amsgrad", amsgrad)
        super().__init__(params, lr, weight_decay, ("m", "v", "v_max") if amsgrad else ("m", "v"), maximize, **others)
        if not is_plain():
            prepare()

    def update_part(
        self, part: Part, lr: float, scale: float, averages: Arrays | None, average_rate: float, zero_grad: bool
    ) -> None:
        if self.amsgrad:
            super().update_part(part, lr, scale, averages, average_rate, zero_grad)
            return
        decay, l2 = (part.weight_decay, 0.0) if self.decoupled else (0.0, part.weight_decay)
        (m, v), (beta1, beta2), step = part.state.values(), self.betas, self.step_count - part.missed
        numbers = (lr, beta1, beta2, self.eps, decay, l2, scale)
        adam(part.data, part.grad, m, v, step, *numbers, averages, average_rate, zero_grad)

    def update(self, p: np.ndarray, g: np.ndarray, lr: float, weight_decay: float, step: int, *state: np.ndarray) -> None:
        """With amsgrad; without it, the kernel of :meth:`update_part` does the work."""
        (m, v, v_max), (beta1, beta2) = state, self.betas
        if self.decoupled:
            p *= 1 - lr * weight_decay
        elif weight_decay:
            g = g + weight_decay * p
        for mean, beta, new in ((m, beta1, g), (v, beta2, np.square(g))):
            update_velocity(mean, (1 - beta) * new, beta)
        np.maximum(v_max, v, out=v_max)
        p -= lr / (1 - beta1**step) * m / (np.sqrt(v_max) / math.sqrt(1 - beta2**step) + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    The gradient is left alone; instead, before the step, ``p <- (1 - lr weight_decay) p``. Arguments as for
    :class:`Adam`.

    Example:
        >>> weight = hcrot.Parameter(np.array([1, 1], np.float32))
        >>> optimizer = hcrot.AdamW([weight], lr=0.1, weight_decay=0)
        >>> weight.grad += np.array([3, -5], np.float32)
        >>> optimizer.step()
        >>> weight.data                                       # the first step is lr long, whatever the gradient
        array([0.9, 1.1], dtype=float32)
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **others: bool | None,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, **others)
