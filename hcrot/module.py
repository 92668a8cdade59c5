"""Parameter, Module and Sequential: the protocol that every layer, block and model of hcrot follows.

The laws, in short (each is checked for every module by ``tests/test_contract.py``):

- ``forward(*inputs)`` computes the output; ``backward(dout)`` returns the gradient of the input, ``dx``.
- Gradients of parameters are *added* to ``Parameter.grad``, never assigned.
- What forward must remember for backward goes through :meth:`Module.save`; backward takes it with :meth:`Module.saved`, which lets go
  of it. A layer that is used several times in one pass (``hcrot/passes.py``) keeps several times; its backwards run in the opposite order.
- Inference (:meth:`Module.inference`) keeps nothing, and leaves alone what an earlier forward has kept.
- No module writes into an array that was handed in or that was returned. What a layer keeps of its *output* is of its own, so a caller may
  change the output. (Identity, Flatten, and Dropout in inference return their input or a view of it.) What it keeps of its *input* is the
  caller's array, without a copy: the caller must not change it before backward. ``hcrot.set_detect_inplace(True)`` finds who does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np

from hcrot.parameter import IncompatibleKeys, Parameter, flat, load_arrays
from hcrot.passes import BEGUN, ENDED, WAITING, InplaceError, Pass, detecting_inplace, fingerprint, thread
from hcrot.shown import module_html

__all__ = ["Identity", "IncompatibleKeys", "Module", "Parameter", "Sequential", "check_gradient", "check_term", "describe_shape", "flat"]

Self = TypeVar("Self", bound="Module")
Inputs = ParamSpec("Inputs")
Output = TypeVar("Output", covariant=True)


class HasForward(Protocol[Inputs, Output]):
    """What a type checker must know of a module to tell what a call of it takes and returns: the signature of its forward."""

    def forward(self, *inputs: Inputs.args, **options: Inputs.kwargs) -> Output: ...


NOT_MODULES = {Parameter, np.ndarray, int, float, bool, str, tuple, type(None)}
"""The types of most attributes of modules, which are none themselves and hold none."""


class Module:
    """The base of everything with a ``forward`` and a ``backward``. Subclasses need not call ``super().__init__()``.

    A module's parts are simply its attributes: a :class:`Parameter`, a :class:`Module`, or a plain list of modules. They are walked in
    the order in which they were assigned, and their names, joined by dots, are the keys of :meth:`state_dict`.

    Attributes:
        training: True (the default) means that a backward pass will follow: forward keeps what backward needs, and dropout drops.

    Example:
        >>> class Double(hcrot.Module):
        ...     def forward(self, x): return 2 * x
        ...     def backward(self, dout): return 2 * dout
        >>> hcrot.check_gradients(Double(), np.ones((2, 3))).passed
        True
    """

    _training = True
    _kept: tuple[Pass, list[tuple], Pass | None] | None = None
    """Of which pass; what, a tuple for each forward; the pass of which something was dropped for it while its backward was under way."""

    def __call__(self: HasForward[Inputs, Output], *inputs: Inputs.args, **options: Inputs.kwargs) -> Output:
        """Run :meth:`forward`. A call that comes from no other module's forward begins a new pass (see ``hcrot/passes.py``)."""
        if thread.current_pass is not None:
            return self.forward(*inputs, **options)
        thread.current_pass = current = Pass()
        try:
            return self.forward(*inputs, **options)
        except BaseException:
            current.state = ENDED
            raise
        finally:
            thread.current_pass = None

    def forward(self, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *gradients: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    # ---------------------------------------------------------------- what forward keeps for backward

    def save(self, *values: Any) -> None:
        """Keep ``values`` for the backward pass; in inference keep nothing. The one place that knows the difference.

        Args:
            values: whatever backward will need. Arrays are kept as they are, not copied.
        """
        if id(self) in thread.inference or not self._training:  # "not self.training", without the cost of a property
            return
        current = thread.current_pass or Pass()  # a forward that was called by its name, from outside, is a pass of its own
        kept = self._kept
        if kept is None or kept[0] is not current:
            kept = self._kept = (current, [], current.follow(kept[0]) if kept else None)
        kept[1].append((values, self._fingerprints(values) if detecting_inplace() else None))

    def saved(self) -> Any:
        """Hand over what the latest forward kept (a single value bare, several as a tuple) and let go of it.

        So memory falls as backward proceeds. After several forwards within one pass, calls hand over what each kept, the latest first.

        Raises:
            RuntimeError: nothing is kept: no forward came before, it failed, it ran in inference (perhaps of this part alone), or its
                backward has already been taken. Or this backward could belong to two passes. The next forward begins anew. Nothing has
                been added to the gradients of a Module whose whole backward was called; layers called one by one keep what they added.
            InplaceError: ``set_detect_inplace`` is on, and a kept array or a parameter of this module has been written to.
        """
        if self._kept is None or self._kept[0].state is ENDED:
            self._kept = None
            raise RuntimeError(
                f"{type(self).__name__}: backward needs a forward pass in training mode before it "
                "(each forward serves one backward, and keeps what it needs by self.save; a part in eval mode keeps nothing)"
            )
        current, stack, dropped = self._kept
        if current.rivals or (dropped is not None and current.state is WAITING and thread.latest_backward is dropped):
            current.state = ENDED
            if current.rivals:
                current.rivals.root.given_up = True
            raise RuntimeError(
                f"{type(self).__name__}: two forward passes in training mode came before this backward, which could belong to either. "
                "Look at outputs within `with model.inference():`; call layers that share one pass within `with hcrot.one_pass():`; "
                "or drop a forward that needs no backward with model.forget()"
            )
        current.state, thread.latest_backward = BEGUN, current
        values, sums = stack.pop()
        if not stack:
            self._kept = None
        if sums is not None:
            self._check_unchanged(sums, self._fingerprints(values))
        return values[0] if len(values) == 1 else values

    def _fingerprints(self, values: tuple) -> tuple[tuple[int, ...], ...]:
        """Checksums of what is kept, and of the parameters of this module, not of those below it."""
        return fingerprint(values), fingerprint([value.data for value in vars(self).values() if isinstance(value, Parameter)])

    def _check_unchanged(self, before: tuple, now: tuple) -> None:
        if before[0] != now[0]:
            raise InplaceError(f"{type(self).__name__}: an array that forward kept for backward was changed in between: change a copy")
        if before[1] != now[1]:
            raise InplaceError(f"{type(self).__name__}: a parameter was changed between forward and backward: take steps after backward")

    def forget(self) -> None:
        """Let go of all that forwards of this module and of everything below it have kept, as if they had not run."""
        for module in self.modules():
            module._kept = None

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
        """This module and everything below it, level by level; quickly, as a sampler waits for it at each :meth:`inference`."""
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
        """Yield ``(name, parameter)`` for every parameter at and below this module, constants included, in order; of two names, twice.

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
        """All parameters at and below this module but constants, in order, each once. Frozen ones are among them, as in PyTorch."""
        return list({id(parameter): parameter for _, parameter in self.named_parameters() if not parameter.constant}.values())

    def num_parameters(self) -> int:
        """The number of values of :meth:`parameters`."""
        return sum(parameter.data.size for parameter in self.parameters())

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place; also those of parameters that are not trainable at this time."""
        for _, parameter in self.named_parameters():
            parameter.grad.fill(0)

    def named_generators(self) -> Iterator[tuple[str, np.random.Generator]]:
        """Yield ``(name, generator)`` for every random generator that a module at or below this one holds, in order, shared ones again.

        With their states, part of that of a training run, dropout goes on after a restart.
        """
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, np.random.Generator):
                    yield (f"{prefix}.{name}" if prefix else name), value

    # ---------------------------------------------------------------- modes

    @property
    def training(self) -> bool:
        return self._training and id(self) not in thread.inference

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def train(self: Self, mode: bool = True) -> Self:
        """Switch this module and everything below it to training (or, with ``mode=False``, to inference), for all threads."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch to inference for good; :meth:`inference` does so for a while."""
        return self.train(False)

    @contextmanager
    def inference(self: Self) -> Iterator[Self]:
        """Within the ``with`` block, nothing is kept and nothing is dropped, in this thread.

        What an earlier forward kept stays, so its backward may come later. Blocks may be nested, and used by several threads at a time.
        """
        modules, blocks = self.modules(), thread.inference
        for key in map(id, modules):
            blocks[key] = blocks.get(key, 0) + 1
        try:
            yield self
        finally:
            for key in map(id, modules):
                if blocks[key] == 1:
                    del blocks[key]
                else:
                    blocks[key] -= 1

    def astype(self: Self, dtype: np.dtype | type) -> Self:
        """Turn every parameter, and its gradient, into ``dtype``, ``np.float32`` or ``np.float64``.

        Makes new arrays: do it before building an optimizer or an average.
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

    def load_state_dict(self, state: dict[str, np.ndarray], strict: bool = True) -> IncompatibleKeys:
        """Copy ``state`` into the parameters, in place. All or nothing: after an error no parameter has changed.

        Args:
            state: floating-point arrays by name, of the shapes of :meth:`state_dict`. Any float dtype, cast to each parameter's own.
            strict: whether the names must be exactly those of :meth:`state_dict`. False: parameters that the state lacks stay as they
                are, arrays under other names are left out, and the result tells both. A wrong shape is always an error.

        Returns:
            ``(missing_keys, unexpected_keys)``; both are empty after a strict load.

        Raises:
            ValueError: names every missing and unexpected key, and every array of a wrong shape or dtype.
        """
        return load_arrays(f"{type(self).__name__}.load_state_dict", dict(self.named_parameters()), state, strict)

    # ---------------------------------------------------------------- looking at it

    def describe(self) -> str:
        """The constructor arguments worth showing in ``repr``; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.describe()}"
        parts = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        return head + "".join(f"\n  {part}" for part in parts) + ("\n)" if parts else ")")

    _repr_html_ = module_html


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
    """``y = x``, any shape; where a network has a place for a layer but no layer. Backward adds the residual, if there is one.

    Example:
        >>> hcrot.Identity()(np.array([1, 2]))
        array([1, 2])
    """

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
    """``y = f_n(... f_2(f_1(x)))``; backward runs the same layers in reverse. Each takes one array and returns one.

    Keys are ``0.weight``, ``1.bias``, ..., as in PyTorch.

    Example:
        >>> model = hcrot.Sequential(hcrot.Linear(2, 3), hcrot.SiLU(), hcrot.Linear(3, 1))
        >>> [name for name, _ in model.named_parameters()]
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *layers: Module):
        for index, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: layer {index} must be a Module, got {type(layer).__name__}")
        self.layers = list(layers)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for index, layer in enumerate(self.layers):
            yield str(index), layer
        for name, child in super().named_children():  # of a subclass
            if not name.startswith("layers."):
                yield name, child

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
