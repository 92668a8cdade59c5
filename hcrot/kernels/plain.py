"""The switch between the compiled kernels and their plain-NumPy references: what a debugger steps through is then the formula.

Each kernel has a function of the same name and signature beside it, ``<name>_reference``. A kernel that is decorated by
:func:`referenced` calls that instead while the switch is on. Whoever calls kernels, layers above all, knows nothing of it. While it is
off it costs 0.2 microseconds a call.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from hcrot.kernels.compiler import MISSING

__all__ = ["VARIABLE", "referenced", "is_plain", "plain", "set_plain", "why_slow"]

VARIABLE = "HCROT_PLAIN"
"""The environment variable: 1 switches it on from the start, 0 or nothing leaves it off."""

Kernel = TypeVar("Kernel", bound=Callable)


def _asked_for() -> bool:
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{VARIABLE}: must be 1 (plain NumPy) or 0 (compiled kernels), got {value!r}")
    return value == "1"


_plain = MISSING is not None or _asked_for()


def is_plain() -> bool:
    """Whether :func:`set_plain` is on."""
    return _plain


def why_slow() -> str:
    """A sentence for who wonders about the speed while plain NumPy is on, with what switched it on; "" while it is off."""
    if not _plain:
        return ""
    if MISSING is not None:
        cause = f"Numba cannot be imported ({MISSING}); pip install numba"
    else:
        cause = f"{VARIABLE}=1 is set" if _asked_for() else "hcrot.set_plain(True) was called"
    return f"many times slower than usual: plain NumPy runs instead of the compiled kernels, because {cause}"


def set_plain(mode: bool) -> None:
    """Switch on (or off) plain NumPy: layers, optimizers and averages then run the reference of each kernel instead of the compiled one.

    It is for reading and debugging. A breakpoint in a layer's forward or backward leads to the few lines that its formula is, and nothing
    is compiled. The numbers agree to rounding; a step takes many times as long. It may change between a forward and its backward. It
    holds for all threads. ``HCROT_PLAIN=1`` switches it on from the start. Where Numba is not installed it is always on.

    Raises:
        TypeError: ``mode`` is not a bool.
        RuntimeError: it is to be switched off where Numba cannot be imported.

    Example:
        >>> layer, x = hcrot.SiLU(), np.ones(2, np.float32)
        >>> fast = layer(x)
        >>> hcrot.set_plain(True)
        >>> np.allclose(layer(x), fast)
        True
        >>> hcrot.set_plain(False)
    """
    global _plain
    if not isinstance(mode, bool):
        raise TypeError(f"set_plain: mode must be True or False, got {type(mode).__name__}")
    if not mode and MISSING is not None:
        raise RuntimeError(f"set_plain: without Numba there is plain NumPy only ({MISSING}); pip install numba")
    _plain = mode


@contextmanager
def plain(mode: bool = True) -> Iterator[None]:
    """:func:`set_plain` within a ``with`` block.

    Example:
        >>> import hcrot
        >>> conv = hcrot.Conv2d(2, 3, kernel_size=3)
        >>> with hcrot.plain():
        ...     y = conv(np.ones((1, 2, 5, 5), np.float32))  # step into this: im2col, then one product
    """
    before = _plain
    set_plain(mode)
    try:
        yield
    finally:
        set_plain(before)


def referenced(kernel: Kernel) -> Kernel:
    """Have ``<name>_reference``, from the same file, do the work of a kernel while :func:`set_plain` is on."""
    names, reference = cast(Any, kernel).__globals__, f"{cast(Any, kernel).__name__}_reference"

    @functools.wraps(kernel)
    def call(*arguments: Any, **options: Any) -> Any:
        if _plain:
            return names[reference](*arguments, **options)
        return kernel(*arguments, **options)

    return cast(Kernel, call)
