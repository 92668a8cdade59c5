"""Initial values of parameters: PyTorch's defaults, drawn from a generator that the caller passes."""

import math
from numbers import Real
from typing import TypeGuard

import numpy as np

__all__ = ["check_divisible", "check_positive", "default_generator", "is_real", "linear_weight_and_bias", "uniform"]


def default_generator(generator: np.random.Generator | None) -> np.random.Generator:
    """``generator`` itself, or, for None, a new one seeded by the operating system; NumPy's global state is never touched.

    Raises:
        TypeError: something else was passed, such as an int seed or the legacy ``RandomState``.
    """
    if generator is None:
        return np.random.default_rng()
    if not isinstance(generator, np.random.Generator):
        kind = type(generator).__name__
        raise TypeError(f"generator must be a numpy.random.Generator or None, got {kind}; np.random.default_rng(seed) makes one")
    return generator


def uniform(shape: tuple[int, ...], bound: float, generator: np.random.Generator) -> np.ndarray:
    """Draw from U(-bound, bound), float32."""
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def linear_weight_and_bias(
    weight_shape: tuple[int, ...], fan_in: int, num_outputs: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's default for Linear and convolutions: weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    For the weight this is Kaiming's uniform initialisation with a = sqrt(5): sqrt(6 / ((1 + 5) fan_in)) (He et al. 2015, eq. 10).

    Args:
        weight_shape: shape of the weight.
        fan_in: number of inputs that one output sums over, ``in_channels / groups * kernel_h * kernel_w`` for a convolution.
        num_outputs: length of the bias.
        generator: source of randomness.

    Returns:
        weight of ``weight_shape`` and bias ``(num_outputs,)``, float32.
    """
    bound = 1 / math.sqrt(fan_in)
    return uniform(weight_shape, bound, generator), uniform((num_outputs,), bound, generator)


def check_positive(name: str, **sizes: int) -> list[int]:
    """``sizes``, which may be NumPy's integers, as Python's.

    Raises:
        ValueError: one of them is no int of at least 1; the message begins with ``name`` and names the argument.
    """
    for argument, value in sizes.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: {argument} must be an int of at least 1, got {value!r}")
    return [int(value) for value in sizes.values()]


def check_divisible(name: str, groups: int, **sizes: int) -> None:
    """Raise a ValueError that begins with ``name`` unless ``groups`` divides each of ``sizes``."""
    for argument, value in sizes.items():
        if value % groups:
            raise ValueError(f"{name}: {argument} {value} is not divisible by groups {groups}")


def is_real(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a real number; so are NumPy's, fractions, and True and False.

    For arguments that are annotated as floats. After ``isinstance(value, Real)`` itself, a type checker takes it that no float comes
    through, and checks nothing of what follows.
    """
    return isinstance(value, Real)
