"""Optimizers, and the clipping of gradients. They see parameters, never layers, and write them in place.

A training step ends in the open: ``model.backward(dout)``, ``clip_grad_norm(...)``, ``optimizer.step()``,
``optimizer.zero_grad()``. Notation: p a parameter's values, g its gradient. Names, defaults and formulas are PyTorch's.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from hcrot.kernels.jit import prepare
from hcrot.kernels.optim import adam
from hcrot.module import Parameter, flat


@dataclass
class ParameterGroup:
    """Parameters that share options: they learn at ``lr_ratio`` times the optimizer's ``lr``."""

    parameters: list[Parameter]
    lr_ratio: float
    weight_decay: float


class Optimizer:
    """What all optimizers share: groups, state, and the loop over the parameters. Subclasses write :meth:`update`.

    Args:
        params: parameters, such as ``model.parameters()``, or groups as in PyTorch: dicts with the key ``"params"``
            and, if they differ from the arguments, ``"lr"`` and ``"weight_decay"``. To spare norms and biases decay::

                AdamW([{"params": [p for p in parameters if p.data.ndim > 1]},
                       {"params": [p for p in parameters if p.data.ndim <= 1], "weight_decay": 0.0}])

            A parameter listed twice (tied weights) is updated once.
        lr: learning rate, > 0.
        weight_decay: for groups that do not say.
        state_names: what to keep for each parameter, an array of zeros like it for each name.

    Attributes:
        lr: the learning rate, to be set at will between steps. A group with its own ``"lr"`` keeps its ratio to it.
        step_count: the number of steps taken.

    Raises:
        TypeError: something in ``params`` is not a Parameter.
        ValueError: no parameter, one in two groups, an unknown key in a group, or a number out of range.
    """

    def __init__(
        self, params: Iterable[Parameter] | Iterable[dict], lr: float, weight_decay: float, state_names: tuple[str, ...]
    ):
        owner = type(self).__name__
        self.lr = checked_number(owner, "lr", lr, positive=True)
        self.step_count = 0
        self.groups = _groups(owner, params, self.lr, checked_number(owner, "weight_decay", weight_decay))
        self.parameters = [parameter for group in self.groups for parameter in group.parameters]
        if len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"{owner}: a parameter appears in more than one group")
        self.state = {name: [np.zeros_like(parameter.data) for parameter in self.parameters] for name in state_names}
        self._arrays = [(parameter.data, parameter.grad) for parameter in self.parameters]

    def update(self, p: np.ndarray, g: np.ndarray, lr: float, weight_decay: float, *state: np.ndarray) -> None:
        """Update one parameter, and its state arrays (in the order of ``state_names``), in place."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def step(self) -> None:
        """Update every parameter in place from its gradient; the gradients are left as they are.

        Raises:
            RuntimeError: a parameter has other arrays than when the optimizer was built; no parameter has changed.
        """
        for index, (parameter, (data, grad)) in enumerate(zip(self.parameters, self._arrays, strict=True)):
            if parameter.data is not data or parameter.grad is not grad:
                raise RuntimeError(
                    f"{type(self).__name__}: the arrays of parameter {index}, shape {data.shape}, were replaced after "
                    "the optimizer was built; write into them, and call Module.astype before building an optimizer"
                )
        self.step_count += 1
        group_of = [group for group in self.groups for _ in group.parameters]
        for group, parameter, *state in zip(group_of, self.parameters, *self.state.values(), strict=True):
            self.update(parameter.data, parameter.grad, float(self.lr) * group.lr_ratio, group.weight_decay, *state)

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        for parameter in self.parameters:
            parameter.grad.fill(0)

    def state_dict(self) -> dict[str, Any]:
        """What a run needs, besides the parameters, to go on bit for bit.

        Returns:
            ``"step"`` (int) and ``"lr"`` (float), which JSON keeps exactly, and a copy of each state array under
            ``"<name>.<index of the parameter>"``, such as ``"m.0"``, for safetensors. Betas, decay and groups are the
            constructor's and not part of it.
        """
        return {"step": self.step_count, "lr": float(self.lr)} | {
            name: array.copy() for name, array in self._state_by_name().items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``: all or nothing, with exactly the names, shapes and dtypes of :meth:`state_dict`.

        Raises:
            ValueError: names everything that is missing, unexpected or wrong; the optimizer has not changed.
        """
        arrays = self._state_by_name()
        check_state(type(self).__name__, state, arrays, counts=("step",), numbers=("lr",))
        self.step_count, self.lr = int(state["step"]), float(state["lr"])
        for name, array in arrays.items():
            array[...] = state[name]

    def _state_by_name(self) -> dict[str, np.ndarray]:
        return {f"{name}.{index}": array for name, arrays in self.state.items() for index, array in enumerate(arrays)}


class SGD(Optimizer):
    """Stochastic gradient descent (momentum and Nesterov's variant as in Sutskever et al. 2013).

        g <- g + weight_decay p
        u <- momentum u + g                          the velocity, kept if momentum > 0
        p <- p - lr u                                or, with nesterov, p - lr (g + momentum u)

    Args:
        params: see :class:`Optimizer`, as for ``lr`` and ``weight_decay``.
        momentum: >= 0.
        nesterov: look ahead; needs momentum.
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        self.momentum = checked_number("SGD", "momentum", momentum)
        self.nesterov = nesterov
        if nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs momentum > 0, got momentum 0")
        super().__init__(params, lr, weight_decay, ("velocity",) if self.momentum else ())

    def update(self, p: np.ndarray, g: np.ndarray, lr: float, weight_decay: float, *state: np.ndarray) -> None:
        if weight_decay:
            g = g + weight_decay * p
        if self.momentum:
            (u,) = state
            u *= self.momentum
            u += g
            g = g + self.momentum * u if self.nesterov else u
        p -= lr * g


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1); weight decay, if any, is an L2 penalty added to the gradient.

        g <- g + weight_decay p
        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        p <- p - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)

    Args:
        params: see :class:`Optimizer`, as for ``lr`` and ``weight_decay``.
        betas: (beta1, beta2), each at least 0 and less than 1.
        eps: >= 0.
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        owner = type(self).__name__
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"{owner}: betas must be two numbers, got {betas!r}")
        self.betas = tuple(checked_number(owner, "betas", beta, below=1) for beta in betas)
        self.eps = checked_number(owner, "eps", eps)
        super().__init__(params, lr, weight_decay, ("m", "v"))
        prepare()

    def update(self, p: np.ndarray, g: np.ndarray, lr: float, weight_decay: float, *state: np.ndarray) -> None:
        decay, l2 = (weight_decay, 0.0) if self.decoupled else (0.0, weight_decay)
        adam(*map(flat, (p, g, *state)), self.step_count, lr, *self.betas, self.eps, decay, l2)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    The gradient is left alone; instead, before the step, ``p <- (1 - lr weight_decay) p``. Arguments as for
    :class:`Adam`.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients so that their common 2-norm is at most ``max_norm`` (Pascanu et al. 2013, algorithm 1).

        norm = sqrt(sum of g^2 over all parameters),    g <- min(1, max_norm / (norm + 1e-6)) g

    In place. As in PyTorch, a norm that is not finite is not hidden: an infinite one makes finite gradients zero and
    infinite ones NaN, a NaN makes all of them NaN. Who would rather skip such a step looks at the norm before stepping.

    Args:
        parameters: such as ``model.parameters()``.
        max_norm: > 0; infinity measures, and clips no finite gradient.

    Returns:
        the norm before clipping, summed in float64.

    Raises:
        TypeError, ValueError: no parameters, or ``max_norm`` is not a number > 0.
    """
    parameters = parameter_list("clip_grad_norm", parameters)
    if not isinstance(max_norm, Real) or not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be a number > 0, got {max_norm!r}")
    # Not a dot product: NumPy's is threaded, and its threads would go on spinning beside the kernels'.
    norm = math.sqrt(sum(float(np.square(parameter.grad, dtype=np.float64).sum()) for parameter in parameters))
    coefficient = float(max_norm) / (norm + 1e-6)
    if not coefficient >= 1:
        for parameter in parameters:
            parameter.grad *= coefficient
    return norm


# ---------------------------------------------------------------- checks, which the schedules and the average share


def parameter_list(owner: str, parameters: Iterable[Parameter]) -> list[Parameter]:
    """The distinct parameters, in order.

    Raises:
        TypeError: not an iterable of Parameter.
        ValueError: there is none.
    """
    expected = "expected a list of Parameter, such as model.parameters()"
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{owner}: {expected}, got {type(parameters).__name__}")
    parameters = list(parameters)
    for index, parameter in enumerate(parameters):
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{owner}: {expected}, but item {index} is of type {type(parameter).__name__}")
    if not parameters:
        raise ValueError(f"{owner}: the list of parameters is empty")
    return list(dict.fromkeys(parameters))


def checked_number(owner: str, name: str, value: float, positive: bool = False, below: float = math.inf) -> float:
    """``value`` as a float if it is a finite number at least 0 (more than 0 if ``positive``) and less than ``below``;
    else ValueError."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < below or (positive and value == 0):
        bounds = (">" if positive else ">=") + " 0" + (f" and < {below}" if below < math.inf else "")
        raise ValueError(f"{owner}: {name} must be a finite number {bounds}, got {value!r}")
    return float(value)


def checked_count(owner: str, name: str, value: int) -> int:
    """``value`` as an int if it is an integer at least 0; else ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{owner}: {name} must be an integer >= 0, got {value!r}")
    return int(value)


def check_state(
    owner: str,
    state: dict[str, Any],
    arrays: dict[str, np.ndarray],
    counts: tuple[str, ...],
    numbers: tuple[str, ...] = (),
) -> None:
    """Raise one ValueError that names everything in which ``state`` is not what is to be loaded.

    Args:
        owner: the class that loads it, for the message.
        state: what came.
        arrays: the names of its arrays, each with an array of the same shape and dtype.
        counts: the names of its integers >= 0.
        numbers: the names of its finite numbers >= 0.
    """
    expected = (*counts, *numbers, *arrays)
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    for name in state.keys() & set(expected):
        value = state[name]
        if name in arrays:
            found = (value.dtype, value.shape) if isinstance(value, np.ndarray) else type(value).__name__
            wanted = (arrays[name].dtype, arrays[name].shape)
            if found != wanted:
                problems.append(f"{name} is {_described(found)}, expected {_described(wanted)}")
        else:
            try:
                (checked_count if name in counts else checked_number)(owner, name, value)
            except ValueError as error:
                problems.append(str(error).removeprefix(f"{owner}: "))
    if problems:
        raise ValueError(f"{owner}.load_state_dict: " + "; ".join(sorted(problems)))


def _described(found: tuple | str) -> str:
    return found if isinstance(found, str) else f"{found[0]} of shape {found[1]}"


def _groups(owner: str, params: Iterable, lr: float, weight_decay: float) -> list[ParameterGroup]:
    params = list(params) if isinstance(params, Iterable) else params
    if not isinstance(params, list) or not any(isinstance(item, dict) for item in params):
        return [ParameterGroup(parameter_list(owner, params), 1.0, weight_decay)]
    groups = []
    for index, group in enumerate(params):
        name = f"{owner}: group {index}"
        if not isinstance(group, dict) or "params" not in group or not group.keys() <= {"params", "lr", "weight_decay"}:
            found = sorted(map(str, group)) if isinstance(group, dict) else type(group).__name__
            raise ValueError(f'{name}: expected a dict with "params" and perhaps "lr" and "weight_decay", got {found}')
        group_lr = checked_number(name, "lr", group.get("lr", lr), positive=True)
        group_decay = checked_number(name, "weight_decay", group.get("weight_decay", weight_decay))
        groups.append(ParameterGroup(parameter_list(name, group["params"]), group_lr / lr, group_decay))
    return groups
