"""What an optimizer does to all parameters at once: the norm of their gradients, and Adam's update with all that goes with it.

Why kernels: the work is memory traffic, spread over hundreds of arrays of very different sizes. NumPy makes some twenty passes over
them, with a call for each pass and array; here each of the two is one call and one pass. The arrays stay where they are, for
parameters are views that others hold on to: the kernels find them by a table of their addresses.

Notation: p parameters, g their gradients, m and v running means of g and g^2.

Subnormal numbers, less than 1.2e-38 in float32, are written as 0 wherever a number decays: in m, v, the velocity of SGD and the moving
average. Once a gradient stays 0, its m would end at 5.6e-45, which 0.9 times itself rounds to, and stay there for ever; and arithmetic on
subnormal numbers takes many times as long (measured on a million of them: 9.5 ms a step instead of 0.6). Each is tested by itself, as part
of the loop. The processor's own mode that flushes them is left alone: it belongs to the thread, so to whoever else computes in it.
"""

import math
from collections.abc import Iterable

import numpy as np

from hcrot.kernels.activation import flat_in_order_of
from hcrot.kernels.compiler import carray, intrinsic, overload, types
from hcrot.kernels.jit import exact_jit, jit, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.plain import referenced
from hcrot.module import flat

__all__ = [
    "ALONE", "GRAIN", "PIECE", "ZERO", "Arrays", "adam", "adam_piece", "adam_reference", "array_at", "average_piece", "clear_piece",
    "flushed", "move_average", "move_average_reference", "norm_of", "square_sum", "square_sum_reference", "sum_piece", "update_velocity",
    "update_velocity_reference", "velocity_piece",
]  # fmt: skip

PIECE = 4096
"""How many numbers of an array a kernel treats at a time: so few that p, g, m and v stay in the core's cache until all is done."""
GRAIN = 4
"""Pieces worth a thread of their own: some 5 microseconds of Adam."""
ALONE = 250_000
"""How many numbers of one array are worth a thread of their own: some 30 microseconds, as threads are launched for each array anew."""


def norm_of(arrays: list[np.ndarray], squares: float) -> float:
    """The square root of ``squares``, which is the sum of the squares of all numbers of the arrays, in float64.

    Where that overflowed (float64 numbers of 1e154 and more) or vanished, the squares are summed once more, of the numbers divided by the
    largest of them.
    """
    if 1e-280 < squares < math.inf or not arrays:
        return math.sqrt(squares)
    top = float(np.max([np.abs(array).max(initial=0) for array in arrays]))  # NaN if any number is
    if not 0 < top < math.inf:
        return top
    return top * math.sqrt(sum(float(np.square(array / top, dtype=np.float64).sum()) for array in arrays))


class Arrays(tuple[np.ndarray, ...]):
    """Arrays through which a kernel walks in one call, and the table by which it finds them.

    Every array is cut into pieces of at most PIECE numbers, in the order in which they lie in memory. Arrays that are to be walked
    through together must agree in shapes and memory order, as ``np.zeros_like`` and ``copy(order="K")`` make them.

    Args:
        arrays: at least one, all float32 or all float64, dense in memory. They are kept as they are, and alive.

    Attributes:
        addresses: where each piece begins in memory, (pieces,) int64.
        sizes: how many numbers it has, (pieces,) int64.

    Raises:
        ValueError: the arrays differ in dtype, or one is not dense in memory.
    """

    addresses: np.ndarray
    sizes: np.ndarray

    def __new__(cls, arrays: Iterable[np.ndarray]) -> "Arrays":
        self = super().__new__(cls, arrays)
        if len({array.dtype for array in self}) != 1:
            dtypes = sorted({str(array.dtype) for array in self})
            raise ValueError(f"Arrays: expected arrays of one dtype, got {' and '.join(dtypes) or 'none'}")
        pieces = [
            (numbers.ctypes.data + start * numbers.itemsize, min(PIECE, numbers.size - start))
            for numbers in map(flat, self)
            for start in range(0, numbers.size, PIECE)
        ]
        self.addresses, self.sizes = np.array(pieces, np.int64).reshape(-1, 2).T.copy()
        return self

    def __reduce__(self) -> tuple:
        """A copy is made anew from copies of the arrays, which lie elsewhere."""
        return Arrays, (list(self),)


def array_at(address: int, size: int, like: np.floating) -> np.ndarray:
    """A view of memory as a 1-D array, for use inside kernels. Whoever passes the address sees to it that the memory is there.

    Args:
        address: of the first number. size: how many there are. like: any number of their type.
    """
    number = np.ctypeslib.as_ctypes_type(like.dtype)
    return np.ctypeslib.as_array((number * int(size)).from_address(int(address)))


@overload(array_at)
def _compile_array_at(address, size, like):
    """The same inside compiled kernels, where it costs nothing."""
    return lambda address, size, like: carray(_pointer(address, like), (size,))


@intrinsic
def _pointer(typing_context, address, like):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), generate


@jit
def sum_piece(x):
    total = 0.0
    for i in range(x.size):
        number = np.float64(x[i])
        total += number * number
    return total


@parallel_jit
def _square_sums(x, sizes, like, sums, share, num_shares):
    if launched(share, num_shares):
        return
    for k in range(share, sizes.size, num_shares):
        sums[k] = sum_piece(array_at(x[k], sizes[k], like))


@referenced
def square_sum(x: Arrays) -> float:
    """The sum of the squares of all numbers, in float64; the same for any number of threads, because each piece has a sum of its own."""
    sums = np.empty(x.sizes.size)
    _square_sums(x.addresses, x.sizes, x[0].dtype.type(0), sums, shares(x.sizes.size, GRAIN))
    return float(sums.sum())


def square_sum_reference(x: Arrays) -> float:
    """:func:`square_sum` in plain NumPy."""
    return float(sum(np.square(array, dtype=np.float64).sum() for array in x))


ZERO = np.float32(0)


@jit
def flushed(x, least):
    """x, or 0 if |x| is less than ``least``; NaN is handed on."""
    return ZERO if abs(x) < least else x


@exact_jit
def adam_piece(p, g, m, v, constants):
    scale, l2, beta1, rate1, beta2, rate2, keep, step_size, root, eps, least, tiny = constants
    for i in range(p.size):
        gi = scale * g[i] + l2 * p[i]
        m[i] = flushed(beta1 * m[i] + rate1 * gi, tiny)
        gi = flushed(gi, least)
        v[i] = flushed(beta2 * v[i] + rate2 * gi * gi, tiny)  # in this order, as gi^2 may overflow alone
        p[i] = keep * p[i] - step_size * m[i] / (np.sqrt(v[i]) / root + eps)


@jit
def average_piece(average, p, rate, tiny):
    for i in range(p.size):
        average[i] = flushed(average[i] - rate * (average[i] - p[i]), tiny)


@jit
def velocity_piece(u, g, momentum, tiny):
    for i in range(u.size):
        u[i] = flushed(momentum * u[i] + g[i], tiny)


@parallel_jit
def _move_average(average, p, rate, tiny, share, num_shares):
    if launched(share, num_shares):
        return
    first, last = share_bounds(p.size, share, num_shares)
    average_piece(average[first:last], p[first:last], rate, tiny)


@parallel_jit
def _update_velocity(u, g, momentum, tiny, share, num_shares):
    if launched(share, num_shares):
        return
    first, last = share_bounds(u.size, share, num_shares)
    velocity_piece(u[first:last], g[first:last], momentum, tiny)


@referenced
def move_average(average: np.ndarray, p: np.ndarray, rate: float) -> None:
    """``average <- average - rate (average - p)`` in place, 0 where that is subnormal.

    Args:
        average: float32 or float64, dense in memory. p: of the same shape and dtype.
    """
    real, tiny = average.dtype.type, np.finfo(average.dtype).tiny
    _move_average(flat(average), flat_in_order_of(average, p), real(rate), tiny, shares(p.size, ALONE))


def move_average_reference(average: np.ndarray, p: np.ndarray, rate: float) -> None:
    """:func:`move_average` in plain NumPy."""
    average -= rate * (average - p)
    _flush_reference(average)


@referenced
def update_velocity(u: np.ndarray, g: np.ndarray, momentum: float) -> None:
    """``u <- momentum u + g`` in place, 0 where that is subnormal.

    Args:
        u: float32 or float64, dense in memory. g: of the same shape and dtype; a NumPy scalar if u has no axes.
    """
    real, tiny = u.dtype.type, np.finfo(u.dtype).tiny
    _update_velocity(flat(u), flat_in_order_of(u, np.asarray(g)), real(momentum), tiny, shares(u.size, ALONE))


def update_velocity_reference(u: np.ndarray, g: np.ndarray, momentum: float) -> None:
    """:func:`update_velocity` in plain NumPy."""
    u *= momentum
    u += g
    _flush_reference(u)


@jit
def clear_piece(x):
    # A function of its own: Numba leaves out an x.fill(0) in the parallel function, where nobody reads x.
    for i in range(x.size):
        x[i] = 0


@parallel_jit
def _adam(p, g, m, v, average, sizes, constants, average_rate, zero_grad, share, num_shares):
    if launched(share, num_shares):
        return
    for k in range(share, sizes.size, num_shares):
        pk, gk = array_at(p[k], sizes[k], average_rate), array_at(g[k], sizes[k], average_rate)
        adam_piece(pk, gk, array_at(m[k], sizes[k], average_rate), array_at(v[k], sizes[k], average_rate), constants)
        if average.size:
            average_piece(array_at(average[k], sizes[k], average_rate), pk, average_rate, constants[-1])
        if zero_grad:
            clear_piece(gk)


@referenced
def adam(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    l2: float,
    scale: float = 1.0,
    average: Arrays | None = None,
    average_rate: float = 0.0,
    zero_grad: bool = False,
) -> None:
    """One step of Adam (Kingma & Ba 2015, algorithm 1) with weight decay in both ways (Loshchilov & Hutter 2019), and what goes before
    and after it.

        g' = scale g + l2 p                                 clipped; a penalty, as in Adam
        m <- beta1 m + (1 - beta1) g'
        v <- beta2 v + (1 - beta2) g'^2
        p <- (1 - lr decay) p                               decoupled, as in AdamW
        p <- p - lr / (1 - beta1^step) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
        average <- average - average_rate (average - p)
        g <- 0                                              if zero_grad

    m, v and the average are 0 where they would be subnormal, and so is ``(1 - beta2) g'^2``. Where that overflows, v is infinite for ever
    and the parameter stands still, as in PyTorch; in float32 and with a beta2 of 0.999 that takes a gradient of 6e20.

    Fast because each piece is read from memory once and shared among threads, and because every scalar is rounded to the arrays' dtype
    before the loop: one float64 among them would halve the vector lanes.

    Args:
        p, g, m, v: all of one dtype, one set of shapes and one memory order; p, m and v are updated in place, g is only zeroed.
        step: number of this step, the first is 1.
        lr, beta1, beta2, eps, decay, l2, scale, average_rate: Python floats, rounded to the arrays' dtype.
        average: like p, updated in place; or None.
    """
    real = p[0].dtype.type
    steps, tiny = (lr / (1 - beta1**step), math.sqrt(1 - beta2**step)), float(np.finfo(real).tiny)
    constants = scale, l2, beta1, 1 - beta1, beta2, 1 - beta2, 1 - lr * decay, *steps, eps, math.sqrt(tiny / (1 - beta2)), tiny
    average_addresses = p.addresses[:0] if average is None else average.addresses
    tables = p.addresses, g.addresses, m.addresses, v.addresses, average_addresses, p.sizes
    _adam(*tables, tuple(map(real, constants)), real(average_rate), zero_grad, shares(p.sizes.size, GRAIN))


def adam_reference(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    l2: float,
    scale: float = 1.0,
    average: Arrays | None = None,
    average_rate: float = 0.0,
    zero_grad: bool = False,
) -> None:
    """:func:`adam` in plain NumPy."""
    for pi, gi, mi, vi in zip(p, g, m, v, strict=True):
        clipped = scale * gi + l2 * pi
        mi *= beta1
        mi += (1 - beta1) * clipped
        vi *= beta2
        clipped[np.abs(clipped) < math.sqrt(np.finfo(pi.dtype).tiny / (1 - beta2))] = 0
        vi += (1 - beta2) * clipped * clipped
        _flush_reference(mi)
        _flush_reference(vi)
        pi *= 1 - lr * decay
        pi -= lr / (1 - beta1**step) * mi / (np.sqrt(vi) / math.sqrt(1 - beta2**step) + eps)
    if average is not None:
        for ai, pi in zip(average, p, strict=True):
            move_average_reference(ai, pi, average_rate)
    if zero_grad:
        for gi in g:
            gi.fill(0)


def _flush_reference(x: np.ndarray) -> None:
    """Set subnormal numbers to 0, in place."""
    x[np.abs(x) < np.finfo(x.dtype).tiny] = 0
