"""Numba and llvmlite, from which the kernels take all that they need of them; or, where they cannot be imported, stand-ins.

The stand-ins let the kernels' files be imported. Decorators and code generators then do nothing, and nothing can be compiled. The
plain-NumPy references run instead (``plain.py``).
"""

import os
from types import SimpleNamespace
from typing import Any

__all__ = [
    "MISSING", "Compiler", "carray", "cgutils", "intrinsic", "ir", "llvmlite", "lower_builtin", "numba", "overload", "type_callable",
    "typeof_impl", "types",
]  # fmt: skip


class Absent:
    """What is not there: whatever is read from it, it is called with or is derived from it is nothing."""

    def __getattr__(self, name: str) -> "Absent":
        if name.startswith("__"):  # Python itself asks
            raise AttributeError(name)
        return self

    def __call__(self, *arguments: Any, **options: Any) -> "Absent":
        return self

    def __or__(self, other: Any) -> "Absent":
        return self

    def __mro_entries__(self, bases: tuple) -> tuple:
        return ()


MISSING: ImportError | None = None
"""Why Numba cannot be imported; None where it can."""

try:
    import llvmlite.binding
    import numba
    from llvmlite import ir
    from numba import carray, types
    from numba.core import cgutils
    from numba.core.compiler import Compiler
    from numba.extending import intrinsic, lower_builtin, overload, type_callable, typeof_impl
except ImportError as error:
    MISSING = error
    absent: Any = Absent()
    llvmlite = ir = carray = types = cgutils = intrinsic = lower_builtin = overload = type_callable = typeof_impl = absent
    Compiler = absent
    numba = SimpleNamespace(  # as with NUMBA_DISABLE_JIT=1
        config=SimpleNamespace(DISABLE_JIT=True, NUMBA_NUM_THREADS=os.cpu_count() or 1, CPU_NAME=None, CPU_FEATURES=""),
        njit=lambda **options: lambda function: function,
    )
