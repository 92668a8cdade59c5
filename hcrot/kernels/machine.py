"""What kernels ask of the machine and its libraries, once per process: BLAS on one thread per caller, and memory that is kept."""

import ctypes
import functools
import os
import sys
import warnings
from pathlib import Path

import llvmlite.binding

__all__ = ["hold_scipy_blas_to_one_thread", "keep_freed_memory", "small_product_limit"]


@functools.cache
def small_product_limit() -> int:
    """The largest rows * depth * outputs of a product that this CPU's BLAS multiplies without repacking; 0 if it has no such path.

    OpenBLAS has kernels for small products on CPUs with AVX-512, used up to 10^6 multiplications. Measured on one Zen 4 core:
    113-117 GFLOP/s below that size, 70-98 above it.
    """
    return 1_000_000 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 0


def keep_freed_memory() -> None:
    """Ask the C library (glibc) to keep memory that was freed for the arrays of the next step, instead of handing it back to the system.

    A training step makes and drops arrays of many megabytes. Given back and asked for again, each page must be mapped and zeroed anew:
    measured, 12,000 to 36,000 page faults a step, a tenth to a fifth of its time, and none with memory kept. What the process holds at
    its peak it then holds until it ends. An environment variable of malloc's own, if the user has set one, is left to rule.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent where the C library is not glibc
        if mallopt:
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free memory at the end of the heap that is kept
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its maximum: larger arrays than this still come from the system


def hold_scipy_blas_to_one_thread() -> None:
    """Limit the BLAS that compiled kernels call, and no other, to one thread per caller.

    Kernels reach BLAS through ``scipy.linalg.cython_blas``. SciPy's wheels carry their own OpenBLAS, which is found by its file name. Where
    SciPy shares a library with NumPy (conda, some distributions) nothing is limited, because that would slow a user's own NumPy down.
    """
    import scipy.linalg.cython_blas  # noqa: F401  (loads the library that is to be limited)
    import threadpoolctl

    # SciPy's wheel puts its libraries into scipy.libs, on macOS into scipy/.dylibs. The file's own name tells nothing: NumPy's is
    # called libscipy_openblas too.
    pools = threadpoolctl.ThreadpoolController().select(user_api="blas")
    ours = [pool for pool in pools.lib_controllers if {"scipy", "scipy.libs"} & {folder.name for folder in Path(pool.filepath).parents[:2]}]
    for pool in ours:
        pool.set_num_threads(1)
    if not ours:
        warnings.warn(
            "hcrot: SciPy shares its BLAS library with NumPy here, so its threads are left as they are and kernels may be slow; "
            "set OPENBLAS_NUM_THREADS=1 (or MKL_NUM_THREADS=1) before starting Python to make them fast",
            RuntimeWarning,
            stacklevel=2,
        )
