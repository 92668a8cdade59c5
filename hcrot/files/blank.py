"""Networks made without drawing weights, to be loaded into or to be compared with: what config.json describes."""

import math
from dataclasses import dataclass

import numpy as np

from hcrot.module import Module, Parameter

__all__ = ["Blank", "Part", "TooLarge", "first_difference", "parts_of"]


class TooLarge(Exception):
    """A network has asked for more initial values than it may have; the argument is how many it may."""


class Blank(np.random.Generator):
    """Zeros for the initial values of a network whose weights will be loaded, and not more of them than ``limit``.

    It is quicker than drawing numbers that nobody will see, and the network's arrays cannot outgrow the file they are loaded from.
    """

    def __init__(self, limit: float):
        super().__init__(np.random.PCG64(0))
        self.limit = self.left = limit

    # NumPy's methods have more arguments, which no layer's initial values need.
    def uniform(self, low: float, high: float, size: tuple[int, ...]) -> np.ndarray:  # type: ignore[override]
        return self._zeros(size, np.float64)

    def standard_normal(self, size: int | tuple[int, ...], dtype: type = np.float64) -> np.ndarray:  # type: ignore[override]
        return self._zeros(size, dtype)

    def _zeros(self, size: int | tuple[int, ...], dtype: type) -> np.ndarray:
        self.left -= size if isinstance(size, int) else math.prod(size)
        if self.left < 0:
            raise TooLarge(self.limit)
        return np.zeros(size, dtype)


@dataclass(frozen=True)
class Part:
    """What can be said of a module without the modules below it: its class, its arguments, the shapes of its parameters."""

    kind: type
    arguments: str
    shapes: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        return f"{self.kind.__name__}({self.arguments})"


def parts_of(model: Module) -> dict[str, Part]:
    """Every module at and below a model, by name, in order."""
    return {
        name: Part(type(part), part.describe(), {key: p.shape for key, p in vars(part).items() if isinstance(p, Parameter)})
        for name, part in model.named_modules()
    }


def first_difference(parts: dict[str, Part], others: dict[str, Part]) -> str:
    """In which part one model first differs from another, and how; "" if they are the same but for values."""
    for name in {**parts, **others}:
        part, other = parts.get(name), others.get(name)
        if part is None or other is None or (part.kind, part.arguments) != (other.kind, other.arguments):
            return f"{name or 'the model'} is {part or 'missing'}, expected {other or 'nothing'}"
        for key in {**other.shapes, **part.shapes}:
            if part.shapes.get(key) != other.shapes.get(key):
                return f"{name}.{key}".lstrip(".") + f" has shape {part.shapes.get(key)}, expected {other.shapes.get(key)}"
    return ""
