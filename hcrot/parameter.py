"""Parameter: an array to be learned, with its gradient; and :func:`flat`, the view of its numbers in the order of memory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

__all__ = ["IncompatibleKeys", "Parameter", "flat", "load_arrays"]

NAMES_HERE = {
    "requires_grad": "trainable: set parameter.trainable = False to freeze it",
    "requires_grad_": "trainable: set parameter.trainable = False to freeze it",
    "gradient": "grad",
    "value": "data",
    "detach": "data, which is a plain array",
    "numpy": "data, which is a plain array",
}
"""Other libraries' names of what a Parameter has."""


def flat(array: np.ndarray) -> np.ndarray:
    """All of ``array``'s numbers as a 1-D view, in the order in which they lie in memory: for whatever treats each number alike.

    Raises:
        ValueError: the array has gaps, so no such view exists.
    """
    view = array.ravel(order="K")
    if not np.shares_memory(view, array) and array.size:
        raise ValueError(f"flat: array of shape {array.shape} and strides {array.strides} is not dense in memory")
    return view


class Parameter:
    """An array to be learned and the gradient that backward passes add to.

    Both arrays are allocated once and written in place ever after, so views, optimizers and moving averages may hold on to them. Their
    shape is the one that PyTorch gives them; their axes may lie in memory in another order, the one in which kernels read them.

    Args:
        data: initial values, float32 or float64, dense in memory (in any order of axes); kept as it is, not copied.
        trainable: False for a constant that is saved and loaded with the parameters, but not learned.

    Raises:
        TypeError, ValueError: ``data`` is no such array. Likewise when an attribute is set to what it cannot be.

    Attributes:
        data: the values.
        grad: the gradient of the loss, of the same shape, dtype and memory order, zero at first.
        trainable: the argument. It may be changed at any time: optimizers and gradient norms leave out a parameter while it is False.
            Layers neither compute nor add its gradient then. Setting True again makes it zero, so that no step uses an old one.
            PyTorch's name for it is ``requires_grad``. There are no other attributes, and setting one is an AttributeError.
        constant: whether it was made with ``trainable=False`` and never set free. ``Module.parameters()`` leaves out constants only.

    Example:
        >>> weight = hcrot.Parameter(np.ones(2, np.float32))
        >>> weight.grad
        array([0., 0.], dtype=float32)
    """

    __slots__ = ("__weakref__", "_trainable", "constant", "data", "grad")

    def __init__(self, data: np.ndarray, trainable: bool = True):
        if not isinstance(data, np.ndarray) or data.dtype not in (np.float32, np.float64):
            kind = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
            raise TypeError(f"Parameter: data must be a float32 or float64 array, got {kind}")
        flat(data)
        self.data = data
        self.grad = np.zeros_like(data)
        self._trainable = bool(trainable)
        self.constant = not trainable

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "data" and hasattr(self, name):
            same = isinstance(value, np.ndarray) and value.shape == self.data.shape and value.dtype in (np.float32, np.float64)
        else:
            same = name != "grad" or isinstance(value, np.ndarray)  # what is wrong with an array, check_gradients tells
        if not same:
            came = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(
                f"Parameter: {name} must be a float32 or float64 array of shape {self.data.shape}, got {came}; "
                f"write into it instead: parameter.{name}[...] = values"
            )
        if not hasattr(type(self), name) and not hasattr(self, "__dict__"):
            unknown(name)
        object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"Parameter: trainable must be True or False, got {value!r:.60}")
        if value and not self._trainable:
            self.grad.fill(0)
            self.constant = False
        self._trainable = bool(value)

    if not TYPE_CHECKING:  # a type checker is to find unknown names itself

        def __getattr__(self, name: str) -> NoReturn:
            unknown(name)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        """NumPy asks for it, in ``x @ weight`` and in every function that is given a Parameter for an array."""
        raise TypeError("a Parameter is not an array: write parameter.data for its values, parameter.grad for its gradient")

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype}{'' if self.trainable else ', trainable=False'})"


def unknown(name: str) -> NoReturn:
    """Raise the AttributeError for a name that a Parameter does not have. (If it were ignored, frozen weights would move.)"""
    hint = f"; hcrot's name is {NAMES_HERE[name]}" if name in NAMES_HERE else ""
    if name in ("grad_fn", "backward", "retain_grad", "is_leaf"):
        hint = "; there is no autograd: modules have a backward, which adds to parameter.grad"
    elif not hint and hasattr(np.ndarray, name) and not name.startswith("_"):
        hint = f"; arrays have it: write parameter.data.{name}"
    raise AttributeError(f"Parameter has no attribute {name}{hint}")


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns, as in PyTorch: the names that the state lacked, and those that the module does not have."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_arrays(owner: str, parameters: Mapping[str, Parameter], state: Mapping[str, np.ndarray], strict: bool) -> IncompatibleKeys:
    """Copy arrays into parameters of the same name, in place, all or nothing: after an error no parameter has changed.

    Args:
        owner: whom an error message names.
        parameters, state: by name.
        strict: whether the names must be the same ones. Shapes and dtypes must fit in any case.

    Raises:
        ValueError: names every array that is wrong.
    """
    keys = IncompatibleKeys([name for name in parameters if name not in state], [name for name in state if name not in parameters])
    problems = [f"missing {name}" for name in keys.missing_keys] + [f"unexpected {name}" for name in keys.unexpected_keys]
    problems = problems if strict else []
    for name in parameters.keys() & state.keys():
        array, expected = np.asarray(state[name]), parameters[name].shape
        if array.shape != expected:
            problems.append(f"{name} has shape {array.shape}, expected {expected}")
        elif not np.issubdtype(array.dtype, np.floating):
            problems.append(f"{name} has dtype {array.dtype}, expected a floating-point one")
    if problems:
        raise ValueError(f"{owner}: " + "; ".join(problems))
    for name, parameter in parameters.items():
        if name in state:
            parameter.data[...] = state[name]
    return keys
