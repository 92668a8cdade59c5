"""What constructors share: where random numbers come from, initial values of parameters as PyTorch has them, and the checks of sizes."""

import math
from numbers import Integral, Real
from typing import TypeGuard

import numpy as np

__all__ = [
    "as_generator", "check_divisible", "check_positive", "default_generator", "is_int", "is_real", "linear_weight_and_bias", "orthogonal_",
    "uniform",
]  # fmt: skip


def is_int(value: object) -> TypeGuard[int]:
    """Whether ``value`` is Python's or NumPy's integer; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_generator(owner: str, generator: np.random.Generator | int) -> np.random.Generator:
    """``generator`` itself, or, for an int, a new one with that seed.

    So whoever takes an int calls this once, where it comes in, and hands the Generator on. An int that was handed on would give the
    same numbers again in each place that makes a Generator of it.

    Raises:
        TypeError: neither of the two, such as the legacy ``RandomState``. ValueError: a seed below 0. Both begin with ``owner``.
    """
    if isinstance(generator, np.random.Generator):
        return generator
    expected = f"{owner}: generator must be a numpy.random.Generator or an int of at least 0 to seed one with"
    if not is_int(generator):
        raise TypeError(f"{expected}, got {generator!r:.60}")
    if generator < 0:
        raise ValueError(f"{expected}, got {generator}")
    return np.random.default_rng(int(generator))


def default_generator(owner: str, generator: np.random.Generator | int | None) -> np.random.Generator:
    """:func:`as_generator`, or, for None, a new one seeded by the operating system; NumPy's global state is never touched."""
    return np.random.default_rng() if generator is None else as_generator(owner, generator)


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


def orthogonal_(array: np.ndarray, gain: float = 1.0, *, generator: np.random.Generator | int | None = None) -> np.ndarray:
    """Fill ``array`` in place with rows, or, if there are more rows than columns, columns, of length ``gain`` that are orthogonal to each
    other (Saxe et al. 2014), as ``torch.nn.init.orthogonal_``. SR3 begins with such weights, and biases of 0:

        for name, parameter in model.named_parameters():
            if parameter.data.ndim > 1:
                hcrot.init.orthogonal_(parameter.data, generator=generator)

    A matrix of independent normal numbers has a decomposition Q R. With the sign of each diagonal entry of R moved into Q, Q is uniform
    among all such matrices (Mezzadri 2007).

    Args:
        array: (n, ...) of two axes at least, of floats: n rows, all other axes together its columns. A convolution's weight is one.
        gain: what all is multiplied by.
        generator: source of randomness, or its seed.

    Returns:
        ``array``.

    Raises:
        TypeError: array is no array of floats. ValueError: it has fewer than two axes; a gain that is no finite number.
    """
    owner = "orthogonal_"
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise TypeError(f"{owner}: array must be an array of floats, got {getattr(array, 'dtype', type(array).__name__)}")
    if array.ndim < 2:
        raise ValueError(f"{owner}: array must have at least two axes, got shape {array.shape}")
    if not is_real(gain) or not math.isfinite(gain):
        raise ValueError(f"{owner}: gain must be a finite number, got {gain!r}")
    generator = default_generator(owner, generator)
    if array.size:
        rows, columns = len(array), array.size // len(array)
        q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diag(r))
        array[...] = gain * (q if rows >= columns else q.T).reshape(array.shape)
    return array


def check_positive(name: str, **sizes: int) -> list[int]:
    """``sizes``, which may be NumPy's integers, as Python's.

    Raises:
        ValueError: one of them is no int of at least 1; the message begins with ``name`` and names the argument.
    """
    for argument, value in sizes.items():
        if not is_int(value) or value < 1:
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
