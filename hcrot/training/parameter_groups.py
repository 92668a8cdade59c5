"""The parameters of an optimizer: in groups that share options, and each group in the parts that one step updates together."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hcrot.kernels.optim import Arrays
from hcrot.module import Parameter
from hcrot.training.checks import checked_number, parameter_list

__all__ = ["ParameterGroup", "Part", "parameter_groups"]


class Part:
    """Parameters of one group that are trainable and have taken the same number of steps, so that one formula updates all.

    Attributes:
        parameters: in order.
        data, grad: their arrays.
        state: what the optimizer keeps for them, by name.
        missed: in how many of the optimizer's steps they were frozen. Their own step is the optimizer's less this number.
        lr_ratio, weight_decay: those of the group.
    """

    def __init__(self, group: "ParameterGroup", indices: list[int], missed: int):
        self.parameters = [group.parameters[i] for i in indices]
        self.missed, self.lr_ratio, self.weight_decay = missed, group.lr_ratio, group.weight_decay
        if len(indices) == len(group.parameters):
            self.data, self.grad, self.state = group.data, group.grad, group.state
        else:
            self.data, self.grad = (Arrays(arrays[i] for i in indices) for arrays in (group.data, group.grad))
            self.state = {name: Arrays(arrays[i] for i in indices) for name, arrays in group.state.items()}
        self._averages: tuple[Mapping[Parameter, np.ndarray], Arrays] | None = None

    def averages(self, average_of: Mapping[Parameter, np.ndarray]) -> Arrays:
        """The averages of these parameters; looked up once for each mapping, because a table of arrays takes a while to make."""
        if self._averages is None or self._averages[0] is not average_of:
            self._averages = average_of, Arrays(average_of[parameter] for parameter in self.parameters)
        return self._averages[1]


class ParameterGroup:
    """Parameters of one dtype that share options.

    Attributes:
        lr_ratio: they learn at so many times the optimizer's ``lr``.
        data, grad: the parameters' arrays.
        state: what the optimizer keeps for them, by name, zero at first.
        missed: for each parameter, in how many steps it was frozen.
    """

    def __init__(self, parameters: list[Parameter], lr_ratio: float, weight_decay: float, state_names: tuple[str, ...]):
        self.parameters, self.lr_ratio, self.weight_decay = parameters, lr_ratio, weight_decay
        self.data = Arrays(parameter.data for parameter in parameters)
        self.grad = Arrays(parameter.grad for parameter in parameters)
        self.state = {name: Arrays(map(np.zeros_like, self.data)) for name in state_names}
        self.missed = [0] * len(parameters)
        self._parts: tuple[list[int | None], list[Part]] = ([], [])

    def parts(self) -> list[Part]:
        """The trainable parameters of this moment. One part is all of them, unless some were frozen while others took steps."""
        keys = [missed if parameter.trainable else None for parameter, missed in zip(self.parameters, self.missed, strict=True)]
        if keys != self._parts[0]:
            counts = sorted({key for key in keys if key is not None})
            parts = [Part(self, [i for i, key in enumerate(keys) if key == count], count) for count in counts]
            self._parts = keys, parts
        return self._parts[1]

    def count_missed(self) -> None:
        """Count a step of the optimizer that the frozen parameters did not take."""
        for index, parameter in enumerate(self.parameters):
            if not parameter.trainable:
                self.missed[index] += 1


def parameter_groups(
    owner: str, params: Any, lr: float, weight_decay: float, state_names: tuple[str, ...]
) -> list[ParameterGroup]:
    """The groups in ``params``, which is a list of parameters or of dicts, as `hcrot.training.optim.Optimizer` documents.

    Raises:
        TypeError, ValueError: as documented there; ``owner`` begins the message.
    """
    params = list(params) if isinstance(params, Iterable) else params
    grouped = isinstance(params, list) and any(isinstance(item, dict) for item in params)
    groups = []
    for index, group in enumerate(params if grouped else [{"params": params}]):
        name = f"{owner}: group {index}" if grouped else owner
        if not isinstance(group, dict) or "params" not in group or not group.keys() <= {"params", "lr", "weight_decay"}:
            found = sorted(map(str, group)) if isinstance(group, dict) else type(group).__name__
            raise ValueError(f'{name}: expected a dict with "params" and perhaps "lr" and "weight_decay", got {found}')
        parameters = parameter_list(name, group["params"])
        if len({parameter.data.dtype for parameter in parameters}) > 1:
            raise ValueError(f"{name}: expected parameters of one dtype, got float32 and float64; give each its own group")
        group_lr = checked_number(name, "lr", group.get("lr", lr))
        if lr == 0 and group_lr != 0:
            raise ValueError(f"{name}: lr {group_lr} is kept as a multiple of the optimizer's lr, which is 0; give that one a number > 0")
        group_decay = checked_number(name, "weight_decay", group.get("weight_decay", weight_decay))
        groups.append(ParameterGroup(parameters, group_lr / lr if lr else 1.0, group_decay, state_names))
    all_parameters = [parameter for group in groups for parameter in group.parameters]
    if len(set(all_parameters)) < len(all_parameters):
        raise ValueError(f"{owner}: a parameter appears in more than one group")
    return groups
