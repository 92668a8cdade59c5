"""What all optimizers share: groups of parameters, state, and a step that also clips, averages and zeroes gradients."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from hcrot.kernels.optim import Arrays, norm_of, square_sum
from hcrot.module import Parameter
from hcrot.shown import Table
from hcrot.training.checks import check_no_others, check_state, checked_flag, checked_number, parameters_text
from hcrot.training.clipping import check_max_norm, clipping_factor
from hcrot.training.ema import EMA, move
from hcrot.training.parameter_groups import Part, parameter_groups

__all__ = ["Optimizer"]

NOT_TAKEN = {
    "foreach": "one kernel walks through all parameters already",
    "fused": "Adam and AdamW are fused already",
    "capturable": "there are no CUDA graphs",
    "differentiable": "steps have no backward pass",
    "decoupled_weight_decay": "that is AdamW",
}
"""Options of PyTorch's optimizers that are accepted at their defaults only, and why."""


class Optimizer:
    """What all optimizers share: groups, state, and the loop over the parameters. Subclasses write :meth:`update`.

    Args:
        params: parameters, such as ``model.parameters()``, or groups as in PyTorch: dicts with the key ``"params"``
            and, if they differ from the arguments, ``"lr"`` and ``"weight_decay"``. To spare norms and biases decay::

                AdamW([{"params": [p for p in parameters if p.data.ndim > 1]},
                       {"params": [p for p in parameters if p.data.ndim <= 1], "weight_decay": 0.0}])

            A parameter listed twice (tied weights) is updated once. One whose ``trainable`` is False is frozen, see below.
        lr: learning rate, >= 0.
        weight_decay: for groups that do not say.
        state_names: what to keep for each parameter, an array of zeros like it for each name.
        maximize: step along the gradient instead of against it.
        others: ``foreach``, ``fused``, ``capturable`` and ``differentiable`` of PyTorch, which have no meaning here, at their
            defaults None and False.

    Attributes:
        lr: the learning rate, to be set at will between steps. A group with its own ``"lr"`` keeps its ratio to it.
        initial_lr: what the first schedule of the learning rate found in ``lr``, and every further one takes as its base rate.
            None until there is a schedule. To begin a new schedule from another rate, set this one.
        step_count: the number of steps taken.
        last_step_skipped: whether the last call of :meth:`step` took none, because of ``skip_nonfinite``.

    **Freezing.** ``parameter.trainable = False`` may be set and taken back at any time. What counts is its value when a step
    begins. A frozen parameter is left out of the step and of the norm of the gradients: its values and its state stay bit for
    bit, also with weight decay. Its own number of steps stands still, so Adam corrects the bias of its moments as if the steps
    between had not been; in PyTorch the same comes of ``grad = None``. hcrot's layers do not compute its gradient; it is zeroed
    with all others, because a module of one's own may go on adding to it. Its moving average goes on following it, as in
    PyTorch's ``AveragedModel``.

    Raises:
        TypeError: something in ``params`` is not a Parameter.
            Also for an unknown keyword.
        ValueError: no parameter, one in two groups, two dtypes in one group, an unknown key in a group, a number out of range,
            or an option of PyTorch that is not taken.
    """

    shown: tuple[str, ...] = ()
    """The options of a subclass, for ``repr``, which leaves out those that are False."""

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict],
        lr: float,
        weight_decay: float,
        state_names: tuple[str, ...],
        maximize: bool = False,
        **others: bool | None,
    ):
        owner = type(self).__name__
        check_no_others(owner, others, NOT_TAKEN, (None, False))
        self.maximize = checked_flag(owner, "maximize", maximize)
        self.lr = checked_number(owner, "lr", lr)
        self.initial_lr: float | None = None
        self.last_step_skipped = False
        self.step_count = 0
        decay = checked_number(owner, "weight_decay", weight_decay)
        self.groups = parameter_groups(owner, params, self.lr, decay, state_names)
        self.parameters = [parameter for group in self.groups for parameter in group.parameters]
        self.state = {name: tuple(array for group in self.groups for array in group.state[name]) for name in state_names}
        self._averages: tuple[EMA, dict[Parameter, np.ndarray]] | None = None

    def __repr__(self) -> str:
        decays = sorted({group.weight_decay for group in self.groups})
        options = {name: getattr(self, name) for name in self.shown} | {"maximize": self.maximize}
        shown = [f"lr={float(self.lr):g}", *(f"{name}={value!r}" for name, value in options.items() if value is not False)]
        shown.append(f"weight_decay={decays[0] if len(decays) == 1 else decays}")
        if len(self.groups) > 1:
            shown.append(f"groups={len(self.groups)}")
        return f"{type(self).__name__}({', '.join(shown)}, parameters={parameters_text(self.parameters)}, step={self.step_count})"

    def _repr_html_(self) -> str:
        titles = ("group", "parameters", "lr", "weight_decay")
        rows = [
            [str(index), parameters_text(group.parameters), f"{float(self.lr) * group.lr_ratio:g}", f"{group.weight_decay:g}"]
            for index, group in enumerate(self.groups)
        ]
        return Table(repr(self), titles, rows, 2).html()

    def update(self, p: np.ndarray, g: np.ndarray, lr: float, weight_decay: float, step: int, *state: np.ndarray) -> None:
        """Update one parameter, and its state arrays (in the order of ``state_names``), in place; its first ``step`` is 1."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def step(
        self,
        *,
        max_grad_norm: float | None = None,
        ema: EMA | None = None,
        zero_grad: bool = False,
        skip_nonfinite: bool = False,
    ) -> float | None:
        """Update every parameter in place from its gradient, and do in the same pass what usually goes before and after.

        ``norm = optimizer.step(max_grad_norm=1.0, ema=ema, zero_grad=True)`` does what these four do, in a fraction of
        their time with Adam and AdamW::

            norm = clip_grad_norm(parameters, 1.0)
            optimizer.step()
            ema.step()
            optimizer.zero_grad()

        Args:
            max_grad_norm: clip as :func:`clip_grad_norm` does, which says what a norm that is not finite leads to; but
                what is clipped is what the step uses, and ``grad`` stays as it is.
            ema: take its step, too. It averages the parameters of this optimizer, all of them and no others.
            zero_grad: set every gradient to zero afterwards, also after a skipped step; else they are left as they are.
            skip_nonfinite: if a gradient holds a NaN or an infinity, take no step at all: parameters, state, averages and both
                step counts stay as they are, and ``last_step_skipped`` is True. Costs a look at all gradients, or nothing with
                ``max_grad_norm``. False lets NaN through, so that one sees it.

        Returns:
            the norm of all gradients before clipping, or None without ``max_grad_norm``. That of a skipped step is NaN or
            infinite.

        Raises:
            TypeError, ValueError: ``max_grad_norm`` is not a number > 0, or ``ema`` not such an average.
            RuntimeError: a parameter has other arrays than when the optimizer was built, or the averages are swapped in.
                No parameter has changed.
        """
        self._check_arrays()
        if max_grad_norm is not None:
            check_max_norm(f"{type(self).__name__}.step: max_grad_norm", max_grad_norm)
        average_of = self._average_of(ema) if ema is not None else None
        if ema is not None:
            ema.check_not_swapped_in("step")
        parts = [part for group in self.groups for part in group.parts()]
        norm, scale = 0.0, 1.0
        if max_grad_norm is not None or skip_nonfinite:
            squares = sum(square_sum(part.grad) for part in parts)
            norm = norm_of([g for part in parts for g in part.grad], squares)
        if max_grad_norm is not None:
            scale = clipping_factor(norm, max_grad_norm)
        # The norm is finite as long as all gradients are, but for float64 gradients of nearly 1e308.
        self.last_step_skipped = (
            skip_nonfinite and not math.isfinite(norm) and not all(np.isfinite(g).all() for part in parts for g in part.grad)
        )
        if self.last_step_skipped:
            if zero_grad:
                self.zero_grad()
            return norm if max_grad_norm is not None else None

        average_rate = ema.count_step() if ema is not None else 0.0
        self.step_count += 1
        for group in self.groups:
            group.count_missed()
        for part in parts:
            averages = part.averages(average_of) if average_of is not None else None
            self.update_part(part, float(self.lr) * part.lr_ratio, -scale if self.maximize else scale, averages, average_rate, zero_grad)
        frozen = [parameter for parameter in self.parameters if not parameter.trainable]
        if average_of is not None:
            move([average_of[parameter] for parameter in frozen], [parameter.data for parameter in frozen], average_rate)
        if zero_grad:
            for parameter in frozen:
                parameter.grad.fill(0)
        return norm if max_grad_norm is not None else None

    def update_part(
        self, part: Part, lr: float, scale: float, averages: Arrays | None, average_rate: float, zero_grad: bool
    ) -> None:
        """Update parameters that are alike by ``scale`` times their gradients, then move their averages, if any, and zero
        their gradients, if wanted. Subclasses with a kernel that does it in one pass write this one instead of
        :meth:`update`."""
        for p, g, *state in zip(part.data, part.grad, *part.state.values(), strict=True):
            self.update(p, g if scale == 1 else scale * g, lr, part.weight_decay, self.step_count - part.missed, *state)
        if averages is not None:
            move(averages, part.data, average_rate)
        if zero_grad:
            for g in part.grad:
                g.fill(0)

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place, also those of frozen parameters."""
        for parameter in self.parameters:
            parameter.grad.fill(0)

    def state_dict(self) -> dict[str, Any]:
        """What a run needs, besides the parameters, to go on bit for bit.

        Returns:
            ``"step"`` (int) and ``"lr"`` (float), which JSON keeps exactly, and a copy of each state array under
            ``"<name>.<index of the parameter>"``, such as ``"m.0"``, for safetensors. ``"initial_lr"`` is there if a
            schedule has set it. Betas, decay and groups are the
            constructor's and not part of it. If parameters were frozen, ``"missed"`` is an int64 array of the number of
            steps that each did not take. Which are frozen now is not part of it.
        """
        missed = np.array([count for group in self.groups for count in group.missed], np.int64)
        state: dict[str, Any] = {"step": self.step_count, "lr": float(self.lr)}
        if self.initial_lr is not None:
            state["initial_lr"] = float(self.initial_lr)
        if missed.any():
            state["missed"] = missed
        return state | {name: array.copy() for name, array in self._state_by_name().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``: all or nothing, with exactly the names, shapes and dtypes of :meth:`state_dict`.

        Without ``"initial_lr"``, the next schedule takes ``"lr"`` as its base rate, as in PyTorch.

        Raises:
            ValueError: names everything that is missing, unexpected or wrong; the optimizer has not changed.
        """
        owner, arrays = type(self).__name__, self._state_by_name()
        missed = np.zeros(len(self.parameters), np.int64)
        check_state(owner, state, arrays | {"missed": missed}, ("step",), ("lr", "initial_lr"), optional=("missed", "initial_lr"))
        missed = state.get("missed", missed)
        if missed.min() < 0 or missed.max() > state["step"]:
            raise ValueError(f"{owner}.load_state_dict: missed must be from 0 to step, {state['step']}, got {missed}")
        self.step_count, self.lr = int(state["step"]), float(state["lr"])
        self.initial_lr = float(state["initial_lr"]) if "initial_lr" in state else None
        counts = iter(missed.tolist())
        for group in self.groups:
            group.missed = [next(counts) for _ in group.parameters]
        for name, array in arrays.items():
            array[...] = state[name]

    def _check_arrays(self) -> None:
        arrays = ((data, grad) for group in self.groups for data, grad in zip(group.data, group.grad, strict=True))
        for index, (parameter, (data, grad)) in enumerate(zip(self.parameters, arrays, strict=True)):
            if parameter.data is not data or parameter.grad is not grad:
                raise RuntimeError(
                    f"{type(self).__name__}: the arrays of parameter {index}, shape {data.shape}, were replaced after "
                    "the optimizer was built; write into them, and call Module.astype before building an optimizer"
                )

    def _average_of(self, ema: EMA) -> dict[Parameter, np.ndarray]:
        """The average of each parameter; checked and looked up once for each ema."""
        if self._averages is None or self._averages[0] is not ema:
            where = f"{type(self).__name__}.step"
            if not isinstance(ema, EMA):
                raise TypeError(f"{where}: ema must be an EMA, got {type(ema).__name__}")
            average_of = dict(zip(ema.parameters, ema.averages, strict=True))
            if average_of.keys() != set(self.parameters):
                raise ValueError(f"{where}: ema averages other parameters than these; call ema.step() by itself")
            for index, parameter in enumerate(self.parameters):
                expected, found = parameter.data.dtype, average_of[parameter].dtype
                if found != expected:
                    raise ValueError(f"{where}: parameter {index} is {expected}, its average in ema is {found}")
            self._averages = ema, average_of
        return self._averages[1]

    def _state_by_name(self) -> dict[str, np.ndarray]:
        return {f"{name}.{index}": array for name, arrays in self.state.items() for index, array in enumerate(arrays)}
