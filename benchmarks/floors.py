"""The least time that a kernel's call can take here: its products at the rate of a large one, or its arrays at the rate of memory.

    floor = max(operations / rate of a large product, bytes / bandwidth)

Operations are those of the products that a kernel really does: a 3x3 convolution by Winograd's algorithm counts 36 of them for 16 outputs,
not 144. Bytes are those of all arrays that the call is given, each fetched or written once. Both rates are measured, on as many threads.
A call below its floor has found its arrays in a cache.
"""

import time
from collections.abc import Callable

import numpy as np

from hcrot.kernels.channels import plus

SIDE = 2048
"""Rows and columns of the large product."""

TRAFFIC = 2**26
"""Bytes of each array of the measurement of memory: more than caches hold."""


def rates(repeats: int = 7) -> tuple[float, float]:
    """Operations per second of a large float32 product of NumPy's, and bytes per second of adding two large arrays; the best of some."""
    a, b, c = np.ones((3, SIDE, SIDE), np.float32)
    x, y = np.ones((2, 1, 1, 4096, TRAFFIC // 4 // 4096), np.float32)
    product = min(seconds(lambda: np.matmul(a, b, out=c)) for _ in range(repeats))
    traffic = min(seconds(lambda: plus(x, y)) for _ in range(repeats))
    return 2 * SIDE**3 / product, 3 * TRAFFIC / traffic


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def floor_of(call: tuple, peak: float, bandwidth: float) -> float:
    """Seconds that a recorded call (compiled kernel, arguments, number of shares) takes at least."""
    compiled, arguments, _ = call
    name = compiled.py_func.__name__
    return max(operations(name, arguments) / peak, traffic(name, arguments) / bandwidth)


def operations(name: str, arguments: tuple) -> float:
    """Multiplications and additions of a call's products."""
    if name in ("_conv2d", "_conv2d_input_gradient"):
        pixels = arguments[6] if name == "_conv2d" else arguments[1]
        return 2 * arguments[2].size * pixels.size / pixels.shape[3]
    if name == "_conv2d_weight_gradient":
        dy, dweight = arguments[2], arguments[4]
        return 2 * dweight.size * dy.size / dy.shape[3]
    if name in ("_winograd", "_weight_gradient"):
        image, other = (arguments[7], arguments[1]) if name == "_winograd" else (arguments[2], arguments[1])
        return 2 * 36 * tiles_of(image) * image.shape[3] * other.shape[3]
    if name == "_multiply":
        weight, y = arguments[2], arguments[8]
        return 2 * 36 * tiles_of(y) * weight.size / 9
    if name == "_multiply_gradients":
        return 2 * 36 * arguments[3] * arguments[5].size / 9
    if name in ("_attention", "_attention_backward"):
        q, k = arguments[1:3] if name == "_attention" else arguments[2:4]
        return 2 * (2 if name == "_attention" else 5) * q.size * k.shape[1]
    return 0


def tiles_of(image: np.ndarray) -> int:
    """Winograd's tiles of 4x4 pixels in images (B, H, W, C)."""
    return image.shape[0] * -(-image.shape[1] // 4) * -(-image.shape[2] // 4)


def traffic(name: str, arguments: tuple) -> float:
    """Bytes of the arrays of a call. The optimizer's are given by address: it reads four and writes them, clearing the gradient."""
    if name == "_adam":
        return 8 * 4 * float(arguments[5].sum())
    if name == "_square_sums":
        return 4 * float(arguments[1].sum())
    arrays = {array.ctypes.data: array.nbytes for array in arguments if isinstance(array, np.ndarray)}
    return float(sum(arrays.values()))
