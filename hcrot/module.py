"""Parameter, Module and Sequential: the protocol that every layer, block and model of hcrot follows.

The laws, in short (each is checked for every module by ``tests/test_contract.py``):

- ``forward(*inputs)`` computes the output; ``backward(dout)`` returns the gradient of the input, ``dx``.
- Gradients of parameters are *added* to ``Parameter.grad``, never assigned.
- What forward must remember for backward goes through :meth:`Module.save`; backward takes it with :meth:`Module.saved`, which lets go
  of it.
- Nobody writes into an array that was handed in or that was returned.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


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

    Attributes:
        data: the values.
        grad: the gradient of the loss, of the same shape, dtype and memory order, zero at first.
        trainable: the argument.
    """

    def __init__(self, data: np.ndarray, trainable: bool = True):
        if not isinstance(data, np.ndarray) or data.dtype not in (np.float32, np.float64):
            kind = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
            raise TypeError(f"Parameter: data must be a float32 or float64 array, got {kind}")
        flat(data)
        self.data = data
        self.grad = np.zeros_like(data)
        self.trainable = trainable

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype})"


NOT_MODULES = {Parameter, np.ndarray, int, float, bool, str, tuple, type(None)}
"""The types of most attributes of modules, which are none themselves and hold none."""


class Module:
    """The base of everything with a ``forward`` and a ``backward``. Subclasses need not call ``super().__init__()``.

    A module's parts are simply its attributes: a :class:`Parameter`, a :class:`Module`, or a plain list of modules. They are walked in
    the order in which they were assigned, and their names, joined by dots, are the keys of :meth:`state_dict`.

    Attributes:
        training: True (the default) means that a backward pass will follow: forward keeps what backward needs, and dropout drops.
    """

    training = True
    _kept: tuple | None = None

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.forward(*inputs, **options)

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *gradients: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    # ---------------------------------------------------------------- what forward keeps for backward

    def save(self, *values: Any) -> None:
        """Keep ``values`` for the backward pass; in inference keep nothing. The one place that knows the difference."""
        self._kept = values if self.training else None

    def saved(self) -> Any:
        """Hand over what forward kept (a single value bare, several as a tuple) and let go of it, so memory falls as backward proceeds.

        Raises:
            RuntimeError: nothing is kept: no forward came before, it ran in inference, or its backward has already been taken.
        """
        if self._kept is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward needs a forward pass in training mode before it "
                "(each forward serves one backward, and keeps what it needs by self.save)"
            )
        values, self._kept = self._kept, None
        return values[0] if len(values) == 1 else values

    # ---------------------------------------------------------------- the tree of modules

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield ``(name, module)`` for each direct part, in order; the parts of a list are named ``list_name.index``."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                for index, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{index}", item

    def children(self) -> Iterator["Module"]:
        """Yield each direct part, in order."""
        for _, child in self.named_children():
            yield child

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield ``(name, module)`` for this module (named ``prefix``) and everything below it, depth first."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> list["Module"]:
        """This module and everything below it, level by level.

        Walked at every :meth:`inference`, where a sampler with one image waits for it: so it does without names, and looks at a type once.
        """
        found = [self]
        for module in found:  # grows as it is walked
            for value in vars(module).values():
                if type(value) in NOT_MODULES:
                    continue
                if isinstance(value, Module):
                    found.append(value)
                elif isinstance(value, list):
                    found += [item for item in value if isinstance(item, Module)]
        return found

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield ``(name, parameter)`` for every parameter at and below this module, constants included, in order; one that has two names
        comes twice.

        Raises:
            TypeError: a module holds a parameter in a list, or a module in a tuple or dict, where it would never be found.
        """
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield (f"{prefix}.{name}" if prefix else name), value
                elif isinstance(value, (list, tuple, dict)) and name != "_kept":
                    check_findable(type(module).__name__, name, value)

    def parameters(self) -> list[Parameter]:
        """All parameters to be learned at and below this module, in order, each once."""
        return list({id(parameter): parameter for _, parameter in self.named_parameters() if parameter.trainable}.values())

    def num_parameters(self) -> int:
        """The number of learned values."""
        return sum(parameter.data.size for parameter in self.parameters())

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        for parameter in self.parameters():
            parameter.grad.fill(0)

    # ---------------------------------------------------------------- modes

    def train(self, mode: bool = True) -> "Module":
        """Switch this module and everything below it to training (or, with ``mode=False``, to inference)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Switch to inference for good; :meth:`inference` does so for a while."""
        return self.train(False)

    @contextmanager
    def inference(self) -> Iterator["Module"]:
        """Within the ``with`` block nothing is kept and nothing is dropped; each module's mode is restored on exit, exceptions included."""
        modules = self.modules()
        before = [module.training for module in modules]
        for module in modules:
            module.training = False
        try:
            yield self
        finally:
            for module, mode in zip(modules, before, strict=True):
                module.training = mode

    def astype(self, dtype: np.dtype | type) -> "Module":
        """Turn every parameter, and its gradient, into ``dtype``. Makes new arrays: do it before building an optimizer or an average.

        Args:
            dtype: ``np.float32`` or ``np.float64``.
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"{type(self).__name__}.astype: dtype must be float32 or float64, got {np.dtype(dtype)}")
        for _, parameter in self.named_parameters():
            parameter.data = parameter.data.astype(dtype)
            parameter.grad = parameter.grad.astype(dtype)
        return self

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter's values, by name."""
        return {name: parameter.data.copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Copy ``state`` into the parameters, in place. Strict, and all or nothing: after an error no parameter has changed.

        Args:
            state: floating-point arrays by name; exactly the names and shapes of :meth:`state_dict`. Any float dtype, cast to each
                parameter's own.

        Raises:
            ValueError: names every missing and unexpected key, and every array of a wrong shape or dtype.
        """
        parameters = dict(self.named_parameters())
        problems = [f"missing {name}" for name in parameters if name not in state]
        problems += [f"unexpected {name}" for name in state if name not in parameters]
        for name in parameters.keys() & state.keys():
            array, expected = np.asarray(state[name]), parameters[name].shape
            if array.shape != expected:
                problems.append(f"{name} has shape {array.shape}, expected {expected}")
            elif not np.issubdtype(array.dtype, np.floating):
                problems.append(f"{name} has dtype {array.dtype}, expected a floating-point one")
        if problems:
            raise ValueError(f"{type(self).__name__}.load_state_dict: " + "; ".join(problems))
        for name, parameter in parameters.items():
            parameter.data[...] = state[name]

    # ---------------------------------------------------------------- looking at it

    def describe(self) -> str:
        """The constructor arguments worth showing in ``repr``; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.describe()}"
        parts = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        return head + "".join(f"\n  {part}" for part in parts) + ("\n)" if parts else ")")


def check_findable(owner: str, name: str, container: list | tuple | dict, nested: bool = False) -> None:
    """Raise a TypeError if ``container``, attribute ``name`` of a module of class ``owner``, hides parts from the walk over the tree."""
    hidden = Parameter if isinstance(container, list) and not nested else (Parameter, Module)
    for item in container.values() if isinstance(container, dict) else container:
        if isinstance(item, (list, tuple, dict)):
            check_findable(owner, name, item, nested=True)
        elif isinstance(item, hidden):
            raise TypeError(
                f"{owner}.{name}: a {type(item).__name__} in a {'nested ' * nested}{type(container).__name__} is not found; "
                "keep parameters as attributes, modules as attributes or in a plain list"
            )


def describe_shape(x: object) -> str:
    """What came instead of an array of the expected shape, for an error message."""
    if not isinstance(x, np.ndarray):
        return type(x).__name__
    return f"shape {x.shape}" + (", which is empty" if x.size == 0 else "")


def check_gradient(name: str, dout: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise a ValueError that begins with ``name`` unless dout has the shape and dtype of what forward returned."""
    if not isinstance(dout, np.ndarray) or dout.shape != shape or dout.dtype != dtype:
        got = f"{dout.dtype} {dout.shape}" if isinstance(dout, np.ndarray) else type(dout).__name__
        raise ValueError(f"{name}.backward: expected dout like the output, {np.dtype(dtype)} {tuple(shape)}, got {got}")


def check_term(name: str, term: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise a ValueError that begins with ``name`` unless what is to be added to an array of this shape and dtype has them too."""
    if term.shape != shape or term.dtype != dtype:
        raise ValueError(f"{name} must be {dtype} of shape {tuple(shape)}, got {term.dtype} of shape {term.shape}")


class Identity(Module):
    """``y = x``, any shape; where a network has a place for a layer but no layer. Backward adds the residual, if there is one."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(True)
        return x

    def backward(self, dout: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        self.saved()
        if residual is None:
            return dout
        check_term("Identity.backward: residual", residual, dout.shape, dout.dtype)
        return dout + residual


class Sequential(Module):
    """``y = f_n(... f_2(f_1(x)))``; backward runs the same layers in reverse. Keys are ``0.weight``, ``1.bias``, ..., as in PyTorch.

    Args:
        layers: modules that take one array and return one array.
    """

    def __init__(self, *layers: Module):
        for index, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: layer {index} must be a Module, got {type(layer).__name__}")
        self.layers = list(layers)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for index, layer in enumerate(self.layers):
            yield str(index), layer

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)

    def forward(self, x: np.ndarray) -> np.ndarray:
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dout: np.ndarray) -> np.ndarray:
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout
