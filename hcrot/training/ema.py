"""The exponential moving average of the parameters, from which to sample (Ho et al. 2020, appendix B)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hcrot.kernels.optim import move_average
from hcrot.module import Parameter
from hcrot.shown import Table
from hcrot.training.checks import check_state, checked_count, checked_number, parameter_list, parameters_text

__all__ = ["EMA", "move"]


class EMA:
    """A copy of the parameters that follows slowly: per step ``average <- average - (1 - d) (average - parameter)``.

    The decay d of step n is small at first, so that the random beginning is forgotten. With
    ``k = max(0, n - update_after_step - 1)``:

        d = 0                                       while k = 0
        d = 1 - (1 + k / inv_gamma)^(-power)        with use_ema_warmup
        d = (1 + k) / (10 + k)                      without

    and then d is kept between ``min_decay`` and ``decay``. Names, defaults and formulas are those of diffusers'
    ``EMAModel``.

    A parameter that is frozen (``trainable`` is False) is averaged like the others: the average comes to where the parameter
    stands. (``EMAModel`` sets it there at once.)

    Args:
        parameters: such as ``model.parameters()``; the averages start as copies of them.
        decay: the largest d, from 0 to 1.
        min_decay: the smallest d once k > 0, at most ``decay``.
        update_after_step: for so many steps the average is just the parameter.
        use_ema_warmup: which of the two formulas.
        inv_gamma: > 0.
        power: > 0; with 2/3, d passes 0.999 after 31,600 steps, with 3/4 after 10,000.

    Attributes:
        averages: the averaged arrays, in the order of the parameters; written in place, like those.
        step_count: n, the number of steps so far.

    Raises:
        TypeError, ValueError: no parameters, or a number out of range.

    Example:
        >>> weight = hcrot.Parameter(np.zeros(1, np.float32))
        >>> ema = hcrot.EMA([weight], decay=0.9)
        >>> weight.data[...] = 1
        >>> ema.step()
        >>> ema.averages[0].round(3)                      # the first step copies
        array([1.], dtype=float32)
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        decay: float = 0.9999,
        *,
        min_decay: float = 0.0,
        update_after_step: int = 0,
        use_ema_warmup: bool = False,
        inv_gamma: float = 1.0,
        power: float = 2 / 3,
    ):
        self.parameters = parameter_list("EMA", parameters)
        self.decay = checked_number("EMA", "decay", decay)
        self.min_decay = checked_number("EMA", "min_decay", min_decay)
        if not self.min_decay <= self.decay <= 1:
            raise ValueError(f"EMA: expected 0 <= min_decay <= decay <= 1, got {min_decay=} and {decay=}")
        self.update_after_step = checked_count("EMA", "update_after_step", update_after_step)
        self.use_ema_warmup = use_ema_warmup
        self.inv_gamma = checked_number("EMA", "inv_gamma", inv_gamma, positive=True)
        self.power = checked_number("EMA", "power", power, positive=True)
        self.averages = tuple(parameter.data.copy(order="K") for parameter in self.parameters)
        self.step_count = 0
        self._swapped_in = False

    def __repr__(self) -> str:
        shown = [f"decay={self.decay}"]
        if self.min_decay:
            shown.append(f"min_decay={self.min_decay}")
        if self.update_after_step:
            shown.append(f"update_after_step={self.update_after_step}")
        if self.use_ema_warmup:
            shown.append(f"use_ema_warmup=True, inv_gamma={self.inv_gamma}, power={self.power:.4g}")
        swapped = ", swapped in" if self._swapped_in else ""
        return f"EMA({', '.join(shown)}, parameters={parameters_text(self.parameters)}, step={self.step_count}{swapped})"

    def _repr_html_(self) -> str:
        """In a notebook: how the memory grows, and how far the averages are from the parameters."""
        steps = {self.update_after_step + 1, max(1, self.step_count)}
        for power in range(1, 8):
            if self.get_decay(self.update_after_step + 10 ** (power - 1)) < self.decay:
                steps.add(self.update_after_step + 10**power)
        rows = []
        for n in sorted(steps):
            decay = self.get_decay(n)
            memory = f"{1 / (1 - decay):,.0f}" if decay < 1 else "all"
            rows.append([f"{n:,}", f"{decay:.6g}", memory, "now" if n == self.step_count else ""])
        return Table(repr(self), ("step", "decay", "steps that count", ""), rows, 0, [self._distance()]).html()

    def _distance(self) -> str:
        if self._swapped_in:
            return "the parameters are the averages"
        pairs = list(zip(self.averages, self.parameters, strict=True))
        apart = sum(float(np.square(average - parameter.data, dtype=np.float64).sum()) for average, parameter in pairs)
        size = sum(float(np.square(parameter.data, dtype=np.float64).sum()) for _, parameter in pairs)
        return f"norm of averages - parameters: {apart**0.5:.3g}; of the parameters: {size**0.5:.3g}"

    def get_decay(self, step: int) -> float:
        """The decay d of step number ``step``; the first is 1."""
        k = max(0, int(step) - self.update_after_step - 1)
        if k == 0:
            return 0.0
        d = 1 - (1 + k / self.inv_gamma) ** -self.power if self.use_ema_warmup else (1 + k) / (10 + k)
        return max(self.min_decay, min(self.decay, d))

    def step(self) -> None:
        """Move the averages towards the parameters; called once after each optimizer step.

        Raises:
            RuntimeError: within :meth:`swapped_in`, where the parameters are the averages.
        """
        rate = self.count_step()
        move(self.averages, [parameter.data for parameter in self.parameters], rate)

    def count_step(self) -> float:
        """Begin a step: the rate ``1 - d`` at which whoever calls this (:meth:`step`, an optimizer) is to move the averages.

        Raises:
            RuntimeError: as :meth:`step`.
        """
        self.check_not_swapped_in("step")
        self.step_count += 1
        return 1 - self.get_decay(self.step_count)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the ``with`` block the parameters hold the averages, for sampling or saving.

        On exit, exceptions included, they hold again what they held before. In place both ways.

        Raises:
            RuntimeError: within another ``swapped_in`` of the same EMA.
        """
        self.check_not_swapped_in("swapped_in")
        before = [parameter.data.copy() for parameter in self.parameters]
        self._swapped_in = True
        try:
            _copy(self.averages, self.parameters)
            yield
        finally:
            _copy(before, self.parameters)
            self._swapped_in = False

    def state_dict(self) -> dict[str, Any]:
        """``"step"`` (int) and a copy of each average, named ``"average.<index of the parameter>"``."""
        return {"step": self.step_count} | {name: average.copy() for name, average in self._averages_by_name().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``: all or nothing, with exactly the names, shapes and dtypes of :meth:`state_dict`.

        Raises:
            ValueError: names everything that is missing, unexpected or wrong; nothing has changed.
            RuntimeError: within :meth:`swapped_in`.
        """
        self.check_not_swapped_in("load_state_dict")
        averages = self._averages_by_name()
        check_state("EMA", state, averages, counts=("step",))
        self.step_count = int(state["step"])
        for name, average in averages.items():
            average[...] = state[name]

    def _averages_by_name(self) -> dict[str, np.ndarray]:
        return {f"average.{index}": average for index, average in enumerate(self.averages)}

    def check_not_swapped_in(self, method: str) -> None:
        """Raise a RuntimeError that names ``method`` if the averages are swapped in at this time."""
        if self._swapped_in:
            raise RuntimeError(f"EMA.{method}: the averages are swapped in; leave the swapped_in block first")


def move(averages: Iterable[np.ndarray], arrays: Iterable[np.ndarray], rate: float) -> None:
    """``average <- average - rate (average - array)`` for each of them, in place; 0 where that is subnormal."""
    for average, array in zip(averages, arrays, strict=True):
        move_average(average, array, rate)


def _copy(arrays: Iterable[np.ndarray], parameters: list[Parameter]) -> None:
    for array, parameter in zip(arrays, parameters, strict=True):
        parameter.data[...] = array
