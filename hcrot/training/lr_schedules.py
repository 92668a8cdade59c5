"""Learning-rate schedules: pure functions from the step to a factor, and what multiplies an optimizer's rate by it.

Names and values are those of diffusers' ``get_scheduler``. All but ``constant`` can warm up: the factor of step k is
``k / W`` for the first W steps, so the very first has rate 0. After that the progress is ``t = (k - W) / (K - W)``, for
K training steps, and stays at 1 when training goes on for longer (diffusers' cosine would rise again).
"""

import math
from collections.abc import Callable
from typing import Any

from hcrot.training.checks import check_state, checked_count
from hcrot.training.optimizer import Optimizer

__all__ = ["LRSchedule", "constant", "constant_with_warmup", "cosine", "get_scheduler", "linear"]


class _Factor:
    """A function of the step that shows what it is, such as ``cosine(100, 2000)``."""

    def __init__(self, text: str, function: Callable[[int], float]):
        self._text, self._function = text, function

    def __call__(self, step: int) -> float:
        return self._function(step)

    def __repr__(self) -> str:
        return self._text


def constant() -> Callable[[int], float]:
    """The factor 1 at every step."""
    return _Factor("constant()", lambda step: 1.0)


def constant_with_warmup(num_warmup_steps: int) -> Callable[[int], float]:
    """Warm-up, then the factor 1.

    Args:
        num_warmup_steps: W, >= 0.
    """
    return _after_warmup("constant_with_warmup", num_warmup_steps, 0, lambda progress: 1.0)


def linear(num_warmup_steps: int, num_training_steps: int) -> Callable[[int], float]:
    """Warm-up, then ``1 - t``.

    Args:
        num_warmup_steps: W, >= 0.
        num_training_steps: K, warm-up included.
    """
    return _after_warmup("linear", num_warmup_steps, num_training_steps, lambda progress: 1 - progress)


def cosine(num_warmup_steps: int, num_training_steps: int) -> Callable[[int], float]:
    """Warm-up, then ``(1 + cos(pi t)) / 2`` (Loshchilov & Hutter 2017, SGDR, eq. 5).

    Args:
        num_warmup_steps: W, >= 0.
        num_training_steps: K, warm-up included.
    """
    return _after_warmup(
        "cosine", num_warmup_steps, num_training_steps, lambda progress: 0.5 * (1 + math.cos(math.pi * progress))
    )


def _after_warmup(
    name: str, num_warmup_steps: int, num_training_steps: int, shape: Callable[[float], float]
) -> Callable[[int], float]:
    warmup = checked_count(name, "num_warmup_steps", num_warmup_steps)
    decay = max(1, checked_count(name, "num_training_steps", num_training_steps) - warmup)
    text = f"{name}({warmup})" if name == "constant_with_warmup" else f"{name}({warmup}, {num_training_steps})"
    return _Factor(text, lambda step: step / warmup if step < warmup else shape(min(1.0, (step - warmup) / decay)))


class LRSchedule:
    """Keeps ``optimizer.lr`` at ``base_lr * factor(step)``; :meth:`step` is called once after each optimizer step.

    The base rate is ``optimizer.initial_lr``. The first schedule sets it to the optimizer's ``lr``, and the optimizer's
    ``state_dict`` keeps it. So a schedule that is made again, after another one or on an optimizer that was restored in the
    middle of a schedule, begins from the first rate and not from what the schedule before made of it. As in PyTorch's
    ``LambdaLR``.

    Args:
        optimizer: its rate is set to that of the first step at once.
        factor: a function of the step, such as ``cosine(100, 2000)``.
        last_epoch: the step after which to go on, on an optimizer that has an ``initial_lr``; the name is PyTorch's. With -1
            the schedule begins at step 0.

    Attributes:
        base_lr: the rate where the factor is 1.
        step_count: the number of steps so far.

    Raises:
        TypeError: ``optimizer`` is no optimizer, or ``factor`` no function.
        ValueError: ``last_epoch`` is neither -1 nor an integer >= 0, or there is no ``initial_lr`` to go on from.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float], last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"LRSchedule: optimizer must be an Optimizer, got {type(optimizer).__name__}")
        if not callable(factor):
            raise TypeError(f"LRSchedule: factor must be a function of the step, got {type(factor).__name__}")
        if last_epoch != -1:
            last_epoch = checked_count("LRSchedule", "last_epoch", last_epoch)
        if optimizer.initial_lr is None:
            if last_epoch != -1:
                raise ValueError(
                    f"LRSchedule: last_epoch={last_epoch} goes on with a schedule, but the optimizer has had none: load its "
                    "state_dict first, or set optimizer.initial_lr"
                )
            optimizer.initial_lr = float(optimizer.lr)
        self.optimizer = optimizer
        self.factor = factor
        self.base_lr = float(optimizer.initial_lr)
        self.step_count = int(last_epoch) + 1
        self._set_lr()

    def __repr__(self) -> str:
        factor = getattr(self.factor, "__name__", repr(self.factor))
        return f"LRSchedule({factor}, base_lr={self.base_lr:g}, step={self.step_count}, lr={self._last_lr:g})"

    def step(self) -> None:
        """Go on to the next step's rate."""
        self.step_count += 1
        self._set_lr()

    def get_last_lr(self) -> list[float]:
        """The rate that this schedule has set last, one for each group of the optimizer's parameters."""
        return [self._last_lr * group.lr_ratio for group in self.optimizer.groups]

    def state_dict(self) -> dict[str, Any]:
        """``"step"`` (int) and ``"base_lr"`` (float)."""
        return {"step": self.step_count, "base_lr": self.base_lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state`` and set the optimizer's rate and ``initial_lr``. The factor is the caller's and not a part of the state.

        Raises:
            ValueError: names everything that is missing, unexpected or wrong; nothing has changed.
        """
        check_state("LRSchedule", state, arrays={}, counts=("step",), numbers=("base_lr",))
        self.step_count = int(state["step"])
        self.base_lr = self.optimizer.initial_lr = float(state["base_lr"])
        self._set_lr()

    def _set_lr(self) -> None:
        self.optimizer.lr = self._last_lr = self.base_lr * self.factor(self.step_count)


def get_scheduler(
    name: str, optimizer: Optimizer, num_warmup_steps: int = 0, num_training_steps: int | None = None, *, last_epoch: int = -1
) -> LRSchedule:
    """A schedule by diffusers' name for it.

    Args:
        name: "constant" (which has neither warm-up nor end), "constant_with_warmup", "linear" or "cosine".
        optimizer: whose learning rate to set.
        num_warmup_steps: W.
        num_training_steps: K; "linear" and "cosine" need it.
        last_epoch: see :class:`LRSchedule`.

    Raises:
        ValueError: unknown name, or a number that is missing or out of range.
    """
    if name in ("linear", "cosine") and num_training_steps is None:
        raise ValueError(f"get_scheduler: {name!r} needs num_training_steps")
    total = 0 if num_training_steps is None else num_training_steps
    factors = {
        "constant": constant,
        "constant_with_warmup": lambda: constant_with_warmup(num_warmup_steps),
        "linear": lambda: linear(num_warmup_steps, total),
        "cosine": lambda: cosine(num_warmup_steps, total),
    }
    if name not in factors:
        raise ValueError(f"get_scheduler: unknown schedule {name!r}, expected one of {', '.join(factors)}")
    return LRSchedule(optimizer, factors[name](), last_epoch)
