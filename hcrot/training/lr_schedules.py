"""Learning-rate schedules: pure functions from the step to a factor, and what multiplies an optimizer's rate by it.

Names and values are those of diffusers' ``get_scheduler``. All but ``constant`` can warm up: the factor of step k is
``k / W`` for the first W steps, so the very first has rate 0. After that the progress is ``t = (k - W) / (K - W)``, for
K training steps, and stays at 1 when training goes on for longer (diffusers' cosine would rise again).
"""

import math
from collections.abc import Callable
from typing import Any

from hcrot.shown import Table
from hcrot.training.checks import check_state, checked_count, checked_number
from hcrot.training.optimizer import Optimizer

__all__ = [
    "LRSchedule", "constant", "constant_with_warmup", "cosine", "cosine_with_restarts", "get_scheduler", "linear", "one_cycle",
    "polynomial",
]  # fmt: skip

POLYNOMIAL_END = 1e-7
"""diffusers' ``lr_end``, at which the polynomial schedule ends."""


class _Factor:
    """A function of the step that shows what it is, such as ``cosine(100, 2000)``; it does not change after step ``end``."""

    def __init__(self, text: str, function: Callable[[int], float], end: int = 0):
        self._text, self._function, self.end = text, function, end

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


def cosine_with_restarts(num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1) -> Callable[[int], float]:
    """Warm-up, then ``(1 + cos(pi (n t mod 1))) / 2``, and 0 from t = 1 on: n falls, each from the full rate (SGDR, section 3).

    Args:
        num_warmup_steps: W, >= 0.
        num_training_steps: K, warm-up included.
        num_cycles: n, >= 1.
    """
    cycles = checked_count("cosine_with_restarts", "num_cycles", num_cycles)
    if cycles < 1:
        raise ValueError(f"cosine_with_restarts: num_cycles must be an integer >= 1, got {num_cycles!r}")
    return _after_warmup(
        "cosine_with_restarts",
        num_warmup_steps,
        num_training_steps,
        lambda progress: 0.5 * (1 + math.cos(math.pi * (cycles * progress % 1.0))) if progress < 1 else 0.0,
        cycles,
    )


def polynomial(num_warmup_steps: int, num_training_steps: int, power: float = 1.0, end_factor: float = 0.0) -> Callable[[int], float]:
    """Warm-up, then ``e + (1 - e) (1 - t)^p``. (`get_scheduler` takes diffusers' last rate, 1e-7: e is that by the base rate.)

    Args:
        num_warmup_steps: W, >= 0.
        num_training_steps: K, warm-up included.
        power: p, > 0.
        end_factor: e, the last factor, >= 0.
    """
    p = checked_number("polynomial", "power", power, positive=True)
    e = checked_number("polynomial", "end_factor", end_factor)
    return _after_warmup("polynomial", num_warmup_steps, num_training_steps, lambda progress: e + (1 - e) * (1 - progress) ** p, p, e)


def one_cycle(
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Callable[[int], float]:
    """From ``1 / div_factor`` up to 1 and down to ``1 / (div_factor final_div_factor)`` (Smith & Topin 2018, Super-Convergence).

    PyTorch's ``OneCycleLR`` with ``cycle_momentum=False``; its ``max_lr`` is the optimizer's rate. The last factor stays.

    Args:
        total_steps: K, >= 1; the last of them, K - 1, has the last factor.
        pct_start: share of the steps until the highest rate, between 0 and 1; at most 1/2 with three phases.
        anneal_strategy: "cos" or "linear", the shape of each phase.
        div_factor, final_div_factor: > 0.
        three_phase: whether the rate comes down to the first one as it went up, and only then to the last.

    Raises:
        ValueError: an argument out of range.
    """
    total = checked_count("one_cycle", "total_steps", total_steps)
    share = checked_number("one_cycle", "pct_start", pct_start, positive=True)
    if total < 1 or share >= 1 or (three_phase and share > 0.5):
        limits = "total_steps >= 1 and pct_start below 1, or up to 0.5 with three phases"
        raise ValueError(f"one_cycle: expected {limits}, got {total} and {share}")
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(f"one_cycle: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
    first = 1 / checked_number("one_cycle", "div_factor", div_factor, positive=True)
    last = first / checked_number("one_cycle", "final_div_factor", final_div_factor, positive=True)
    ends, factors = [0.0, share * total - 1], [first, 1.0]
    if three_phase:
        ends, factors = [*ends, 2 * share * total - 2], [*factors, first]
    ends, factors = [*ends, total - 1.0], [*factors, last]

    def factor(step: int) -> float:
        step = min(step, total - 1)
        phase = next(number for number in range(1, len(ends)) if step <= ends[number] or number == len(ends) - 1)
        length = ends[phase] - ends[phase - 1]
        t = (step - ends[phase - 1]) / length if length else 1.0
        done = 0.5 * (1 - math.cos(math.pi * t)) if anneal_strategy == "cos" else t
        return factors[phase - 1] + (factors[phase] - factors[phase - 1]) * done

    return _Factor(f"one_cycle({total})", factor, total - 1)


def _after_warmup(
    name: str, num_warmup_steps: int, num_training_steps: int, shape: Callable[[float], float], *others: float
) -> Callable[[int], float]:
    warmup = checked_count(name, "num_warmup_steps", num_warmup_steps)
    decay = max(1, checked_count(name, "num_training_steps", num_training_steps) - warmup)
    numbers = [warmup] if name == "constant_with_warmup" else [warmup, num_training_steps, *others]
    text = f"{name}({', '.join(map(str, numbers))})"
    return _Factor(text, lambda step: step / warmup if step < warmup else shape(min(1.0, (step - warmup) / decay)), int(max(numbers[:2])))


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

    Example:
        >>> optimizer = hcrot.SGD([hcrot.Parameter(np.zeros(1, np.float32))], lr=1.0)
        >>> schedule, rates = hcrot.LRSchedule(optimizer, lambda step: 1 / (1 + step)), []
        >>> for _ in range(3):
        ...     rates.append(round(optimizer.lr, 3))
        ...     schedule.step()
        >>> rates
        [1.0, 0.5, 0.333]
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

    def _repr_html_(self) -> str:
        """In a notebook: the rate on the way to where it stays, and now."""
        end = getattr(self.factor, "end", 0)
        steps = sorted({0, self.step_count} | {round(end * eighth / 8) for eighth in range(9)})
        rows = [[f"{step:,}", f"{self.base_lr * self.factor(step):.4g}", "now" if step == self.step_count else ""] for step in steps]
        return Table(repr(self), ("step", "lr", ""), rows, 0).html()

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
    name: str,
    optimizer: Optimizer,
    num_warmup_steps: int = 0,
    num_training_steps: int | None = None,
    *,
    num_cycles: int = 1,
    power: float = 1.0,
    last_epoch: int = -1,
) -> LRSchedule:
    """A schedule by diffusers' name for it.

    Args:
        name: "constant" (which has neither warm-up nor end), "constant_with_warmup", "linear", "cosine", "cosine_with_restarts",
            "polynomial" (which ends at a rate of 1e-7) or, which diffusers lacks, "one_cycle" (:func:`one_cycle`: it rises for three
            tenths of the steps).
        optimizer: whose learning rate to set.
        num_warmup_steps: W; "constant" and "one_cycle" have none.
        num_training_steps: K; all but the constant ones need it.
        num_cycles: of "cosine_with_restarts".
        power: of "polynomial".
        last_epoch: see :class:`LRSchedule`.

    Raises:
        ValueError: unknown name, or a number that is missing or out of range.

    Example:
        >>> optimizer = hcrot.SGD([hcrot.Parameter(np.zeros(1, np.float32))], lr=1.0)
        >>> schedule = hcrot.get_scheduler("linear", optimizer, num_warmup_steps=2, num_training_steps=4)
        >>> rates = []
        >>> for _ in range(4):
        ...     rates.append(schedule.get_last_lr()[0])
        ...     schedule.step()
        >>> rates
        [0.0, 0.5, 1.0, 0.5]
    """
    if name in ("linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle") and num_training_steps is None:
        raise ValueError(f"get_scheduler: {name!r} needs num_training_steps")
    total = 0 if num_training_steps is None else num_training_steps
    factors = {
        "constant": constant,
        "constant_with_warmup": lambda: constant_with_warmup(num_warmup_steps),
        "linear": lambda: linear(num_warmup_steps, total),
        "cosine": lambda: cosine(num_warmup_steps, total),
        "cosine_with_restarts": lambda: cosine_with_restarts(num_warmup_steps, total, num_cycles),
        "polynomial": lambda: polynomial(num_warmup_steps, total, power, _end_factor(optimizer)),
        "one_cycle": lambda: one_cycle(total),
    }
    if name not in factors:
        raise ValueError(f"get_scheduler: unknown schedule {name!r}, expected one of {', '.join(factors)}")
    return LRSchedule(optimizer, factors[name](), last_epoch)


def _end_factor(optimizer: Optimizer) -> float:
    """Which factor leads to POLYNOMIAL_END."""
    base = float(optimizer.lr if optimizer.initial_lr is None else optimizer.initial_lr)
    if base <= POLYNOMIAL_END:
        raise ValueError(f"get_scheduler: 'polynomial' ends at a rate of {POLYNOMIAL_END}, the optimizer's must be larger, got {base}")
    return POLYNOMIAL_END / base
