"""The product of two small matrices, ``C = A B`` or ``C += A B``, by one thread: the arithmetic of every convolution and of attention.

Notation: A is (M, K), B is (K, N), C is (M, N).

**Register blocking.** A core can start two vector multiply-adds in each cycle, but it can load only about two vectors in that time. The
plain loop ``C[i, j] += A[i, k] B[k, j]`` loads two numbers and stores one for each multiply-add, so it waits for memory. Instead, a block
of C, R rows by two vectors, stays in registers while k runs through all of K:

    for each k:   b0, b1 = B[k, j : j + 2 lanes]                      2 loads
                  for each of R rows i:   s = A[i, k] in all lanes    R loads of one number
                                          C[i] += s b0,  s b1         2 R multiply-adds

R + 2 loads serve 2 R multiply-adds, and C is written once. R is limited by the registers: 2 R for C, two for b and one for s. With 16
registers (AVX2) R is 6, with 32 (AVX-512) 12. There are then at least twelve sums that do not wait for each other, more than enough for
the four cycles that a multiply-add takes. What is left over of rows and columns is done in smaller blocks.
Nothing beyond an array is touched.

**Cache blocking.** K is cut into pieces of ``DEPTH``. Of each piece of B, a panel of two vectors width meets all rows of A. It is small
enough for the first-level cache. Where the rows of B lie far apart, their cache lines fall into the same few places of that cache. So the
panel is copied into a buffer first, if there are enough rows of A to pay for it.

A BLAS such as OpenBLAS repacks both matrices before it multiplies. That pays for large ones. In a convolution most are small, such as
60 x 32 x 32.

Sources: Goto & van de Geijn 2008, Anatomy of High-Performance Matrix Multiplication; Van Zee & van de Geijn 2015 (BLIS), for the kernel in
registers.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from hcrot.kernels.cache import compile_function

__all__ = ["DEPTH", "lanes_of", "multiply", "multiply_reference", "vector_bytes"]

DEPTH = 256
"""Rows of B that are multiplied at a time."""

BYTE, WORD = ir.IntType(8), ir.IntType(64)
POINTER = BYTE.as_pointer()
SCALARS = {"float32": (ir.FloatType(), "f32"), "float64": (ir.DoubleType(), "f64")}

WIDE_NAMES = ("avx512", "icelake", "cascadelake", "cooperlake", "rapids", "znver4", "znver5", "rocketlake", "tigerlake")
"""Parts of LLVM's names of processors with AVX-512, for who sets NUMBA_CPU_NAME."""


def vector_bytes() -> int:
    """The length of the vectors that kernels are compiled for: 64 with AVX-512, 32 with AVX, 16 elsewhere (SSE, NEON).

    Where NUMBA_CPU_NAME plays another processor, that one counts. A wrong guess would cost time, not correctness: LLVM splits vectors.
    """
    name, features = numba.config.CPU_NAME, numba.config.CPU_FEATURES
    if not name and features is None:
        host = llvmlite.binding.get_host_cpu_features()
        return 64 if host.get("avx512f") else 32 if host.get("avx") else 16
    told = features or ""
    if "+avx512f" in told or (not told and any(part in (name or "") for part in WIDE_NAMES)):
        return 64
    return 32 if llvmlite.binding.get_host_cpu_features().get("avx") else 16


def lanes_of(dtype: str) -> int:
    """How many numbers of this dtype are in a vector."""
    return vector_bytes() // np.dtype(dtype).itemsize


def multiply(a: np.ndarray, b: np.ndarray, c: np.ndarray, add: bool) -> None:
    """``C = A B``, or ``C += A B`` if ``add``, for use inside kernels.

    Args:
        a: (M, K), any strides. b: (K, N), its rows contiguous. c: (M, N), its rows contiguous; written.
        add: whether the product is added to what is in c. All float32 or all float64.
    """
    if add:
        c += a @ b
    else:
        c[:] = a @ b


def multiply_reference(a: np.ndarray, b: np.ndarray, c: np.ndarray, add: bool) -> None:
    """:func:`multiply` in plain NumPy, by its definition."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            c[i, j] = (c[i, j] if add else 0) + np.sum(a[i] * b[:, j])


def block_kernel(dtype: str, rows: int, vectors: int, lanes: int) -> Callable:
    """An intrinsic that multiplies ``rows`` rows of A with ``vectors`` vectors of columns of B, in registers.

    Its arguments are integers: the addresses of a, b and c, each followed by the bytes from one row to the next (for a also from one column
    to the next), K, and 1 if the product is to be added to c, else 0.
    """
    scalar, suffix = SCALARS[dtype]
    vector = ir.VectorType(scalar, lanes)
    size = np.dtype(dtype).itemsize
    splat = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    undefined = ir.Constant(vector, ir.Undefined)

    def at(builder: ir.IRBuilder, start: ir.Value, offset: ir.Value, kind: ir.Type) -> ir.Value:
        return builder.bitcast(builder.gep(start, [offset]), kind.as_pointer())

    @intrinsic
    def block(typing_context, a, a_row, a_column, b, b_row, c, c_row, depth, add):
        def generate(context, builder, signature, arguments):
            builder.function.attributes.add("noinline")
            a, a_row, a_column, b, b_row, c, c_row, depth, add = arguments
            a, b, c = (builder.inttoptr(address, POINTER) for address in (a, b, c))
            multiply_add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}{suffix}"
            )
            a_rows = [builder.mul(a_row, WORD(i)) for i in range(rows)]
            before, loop, after = builder.block, builder.append_basic_block("k"), builder.append_basic_block("after")
            builder.branch(loop)

            builder.position_at_end(loop)
            k, a_offset, b_offset = (builder.phi(WORD) for _ in range(3))
            sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
            for phi in (k, a_offset, b_offset):
                phi.add_incoming(WORD(0), before)
            here = builder.gep(a, [a_offset])
            there = builder.gep(b, [b_offset])
            factors = [builder.load(at(builder, there, WORD(size * lanes * j), vector), align=size) for j in range(vectors)]
            results = []
            for i in range(rows):
                number = builder.load(at(builder, here, a_rows[i], scalar), align=size)
                repeated = builder.shuffle_vector(builder.insert_element(undefined, number, ir.IntType(32)(0)), undefined, splat)
                results.append([builder.call(multiply_add, [repeated, factors[j], sums[i][j]]) for j in range(vectors)])
            for row, row_results in zip(sums, results, strict=True):
                for phi, result in zip(row, row_results, strict=True):
                    phi.add_incoming(ir.Constant(vector, None), before)
                    phi.add_incoming(result, loop)
            for phi, step in ((k, WORD(1)), (a_offset, a_column), (b_offset, b_row)):
                phi.add_incoming(builder.add(phi, step), loop)
            builder.cbranch(builder.icmp_signed("<", builder.add(k, WORD(1)), depth), loop, after)

            builder.position_at_end(after)
            places = [
                [at(builder, builder.gep(c, [builder.mul(c_row, WORD(i))]), WORD(size * lanes * j), vector) for j in range(vectors)]
                for i in range(rows)
            ]
            with builder.if_else(builder.icmp_signed("!=", add, WORD(0))) as (then, otherwise):
                with then:
                    for row, row_results in zip(places, results, strict=True):
                        for place, result in zip(row, row_results, strict=True):
                            builder.store(builder.fadd(builder.load(place, align=size), result), place, align=size)
                with otherwise:
                    for row, row_results in zip(places, results, strict=True):
                        for place, result in zip(row, row_results, strict=True):
                            builder.store(result, place, align=size)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), generate

    return block


def stack_buffer(size: int) -> Callable:
    """An intrinsic without arguments: the address of so many bytes on the stack, on a cache line."""

    @intrinsic
    def buffer(typing_context):
        def generate(context, builder, signature, arguments):
            with builder.goto_entry_block():
                place = builder.alloca(ir.ArrayType(BYTE, size))  # not cgutils.alloca_once, which fills it with zeros, byte by byte
            place.align = 64
            return builder.ptrtoint(place, WORD)

        return types.intp(), generate

    return buffer


@intrinsic
def copy_bytes(typing_context, source, target, size):
    """Copy so many bytes."""

    def generate(context, builder, signature, arguments):
        source, target, size = arguments
        cgutils.raw_memcpy(builder, builder.inttoptr(target, POINTER), builder.inttoptr(source, POINTER), size, 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


def panel_function(dtype: str, vectors: int, lanes: int, row_counts: tuple[int, int, int, int]) -> Any:
    """A function that multiplies all rows of A with ``vectors`` vectors of columns of B, ``row_counts`` rows at a time."""
    most, more, some, one = row_counts
    block_most, block_more, block_some, block_one = (block_kernel(dtype, rows, vectors, lanes) for rows in row_counts)

    def panel(a, a_row, a_column, b, b_row, c, c_row, rows, depth, add):
        i = 0
        while i + most <= rows:
            block_most(a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, depth, add)
            i += most
        while i + more <= rows:
            block_more(a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, depth, add)
            i += more
        while i + some <= rows:
            block_some(a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, depth, add)
            i += some
        while i + one <= rows:
            block_one(a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, depth, add)
            i += one

    return compile_function(no_cpython_wrapper=True)(panel)


def product_function(dtype: str, lanes: int) -> Any:
    """:func:`multiply` for one dtype, of addresses and strides in bytes."""
    size, many_registers = np.dtype(dtype).itemsize, vector_bytes() == 64
    wide = panel_function(dtype, 2, lanes, (12, 6, 3, 1) if many_registers else (6, 4, 2, 1))
    narrow = panel_function(dtype, 1, lanes, (12, 6, 3, 1))
    half = panel_function(dtype, 1, max(lanes // 2, 1), (12, 6, 3, 1))
    single = panel_function(dtype, 1, 1, (12, 6, 3, 1))
    width = 2 * lanes
    half_lanes = max(lanes // 2, 1)
    panel_buffer = stack_buffer(DEPTH * width * size)

    def product(a, a_row, a_column, b, b_row, c, c_row, rows, columns, depth, add):
        buffer = panel_buffer()
        for first in range(0, depth, DEPTH):
            some = min(DEPTH, depth - first)
            here, there = a + first * a_column, b + first * b_row
            adding = 1 if first > 0 else add
            j = 0
            while j + width <= columns:
                panel, panel_row = there + j * size, b_row
                if rows >= PACKED_ROWS and b_row > width * size:
                    for k in range(some):
                        copy_bytes(panel + k * b_row, buffer + k * width * size, width * size)
                    panel, panel_row = buffer, width * size
                wide(here, a_row, a_column, panel, panel_row, c + j * size, c_row, rows, some, adding)
                j += width
            if j + lanes <= columns:
                narrow(here, a_row, a_column, there + j * size, b_row, c + j * size, c_row, rows, some, adding)
                j += lanes
            if j + half_lanes <= columns and half_lanes < lanes:
                half(here, a_row, a_column, there + j * size, b_row, c + j * size, c_row, rows, some, adding)
                j += half_lanes
            while j < columns:
                single(here, a_row, a_column, there + j * size, b_row, c + j * size, c_row, rows, some, adding)
                j += 1

    return compile_function(no_cpython_wrapper=True)(product)


PACKED_ROWS = 64
"""From how many rows of A on a panel of B is copied before it is used."""

PRODUCTS = {} if numba.config.DISABLE_JIT else {dtype: product_function(dtype, lanes_of(dtype)) for dtype in SCALARS}


@overload(multiply)
def _compile_multiply(a, b, c, add):
    """Choose by type when a kernel that calls :func:`multiply` is compiled."""
    product = PRODUCTS[a.dtype.name]

    def multiply(a, b, c, add):
        product(
            a.ctypes.data, a.strides[0], a.strides[1], b.ctypes.data, b.strides[0], c.ctypes.data, c.strides[0],
            a.shape[0], b.shape[1], a.shape[1], 1 if add else 0,
        )  # fmt: skip

    return multiply
