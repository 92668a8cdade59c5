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

**A few columns.** A matrix B of fewer columns than half a vector, such as the weights of a convolution that ends in one grey channel,
leaves most lanes without work. There, if the rows of A are contiguous, the lanes go along k: ``C[i, j]`` is the scalar product of two
contiguous rows, whose lanes are added up at the end. If the columns of A are contiguous instead, a single column is
``c^T = b^T A^T``, a product with one row.

**Cache blocking.** K is cut into pieces of ``DEPTH``. Of each piece of B, a panel of two vectors width meets all rows of A. It is small
enough for the first-level cache. Where the rows of B lie far apart, their cache lines fall into the same few places of that cache. So the
panel is copied into a buffer first, if there are enough rows of A to pay for it.

**Compiled once.** The product is a C function of addresses, compiled by itself. A kernel is given its address (:func:`product_of`) and
calls it. As a part of each kernel it would be compiled nine times, at half a second each.

A BLAS such as OpenBLAS repacks both matrices before it multiplies. That pays for large ones. In a convolution most are small, such as
60 x 32 x 32.

Sources: Goto & van de Geijn 2008, Anatomy of High-Performance Matrix Multiplication; Van Zee & van de Geijn 2015 (BLIS), for the kernel in
registers.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hcrot.kernels.cache import compile_cached, compile_function
from hcrot.kernels.compiler import cgutils, intrinsic, ir, llvmlite, lower_builtin, numba, type_callable, types

__all__ = ["DEPTH", "lanes_of", "multiply", "multiply_reference", "product_of", "vector_bytes"]

DEPTH = 256
"""Rows of B that are multiplied at a time."""

PACKED_ROWS = 64
"""From how many rows of A on a panel of B is copied before it is used."""

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


def multiply(product: int, a: np.ndarray, b: np.ndarray, c: np.ndarray, add: bool) -> None:
    """``C = A B``, or ``C += A B`` if ``add``, for use inside kernels.

    Args:
        product: :func:`product_of` the arrays' dtype.
        a: (M, K), any strides. b: (K, N), its rows contiguous. c: (M, N), its rows contiguous; written.
        add: whether the product is added to what is in c. All float32 or all float64.
    """
    if add:
        c += a @ b
    else:
        c[:] = a @ b


def multiply_reference(product: int, a: np.ndarray, b: np.ndarray, c: np.ndarray, add: bool) -> None:
    """:func:`multiply` in plain NumPy, by its definition."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            c[i, j] = (c[i, j] if add else 0) + np.sum(a[i] * b[:, j])


@type_callable(multiply)
def _type_of_multiply(context):
    """What the compiler must know of :func:`multiply`. It is called in many places, with arrays of many kinds: this costs it nothing."""

    def result(product, a, b, c, add):
        if a.dtype == b.dtype == c.dtype and str(a.dtype) in SCALARS and a.ndim == b.ndim == c.ndim == 2:
            return types.none
        return None

    return result


@lower_builtin(multiply, types.Integer, types.Array, types.Array, types.Array, types.Boolean)
def _call_product(context, builder, signature, arguments):
    """Call the function at the address ``product`` with addresses and sizes of the arrays."""
    address, *arrays, add = arguments
    a, b, c = (context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args[1:4], arrays, strict=True))
    (a_row, a_column), (b_row, _), (c_row, _) = (cgutils.unpack_tuple(builder, array.strides, 2) for array in (a, b, c))
    (rows, depth), (_, columns) = (cgutils.unpack_tuple(builder, array.shape, 2) for array in (a, b))
    a, b, c = (builder.ptrtoint(array.data, WORD) for array in (a, b, c))
    values = [a, a_row, a_column, b, b_row, c, c_row, rows, columns, depth, builder.zext(add, WORD)]
    function = builder.inttoptr(address, ir.FunctionType(ir.VoidType(), [WORD] * len(values)).as_pointer())
    builder.call(function, values)
    return context.get_dummy_value()


# ---------------------------------------------------------------- blocks in registers


class Code:
    """Writes LLVM instructions for vectors of ``lanes`` numbers of a dtype, at addresses that are counted in bytes."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int):
        self.builder, self.lanes, self.size = builder, lanes, np.dtype(dtype).itemsize
        self.scalar, suffix = SCALARS[dtype]
        self.vector = ir.VectorType(self.scalar, lanes)
        self.suffix = f"v{lanes}{suffix}"
        self.zero = ir.Constant(self.vector, None)

    def place(self, start: ir.Value, offset: ir.Value, kind: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(start, [offset]), kind.as_pointer())

    def load(self, start: ir.Value, offset: ir.Value, kind: ir.Type | None = None) -> ir.Value:
        return self.builder.load(self.place(start, offset, kind or self.vector), align=self.size)

    def store(self, value: ir.Value, start: ir.Value, offset: ir.Value) -> None:
        self.builder.store(value, self.place(start, offset, value.type), align=self.size)

    def repeat(self, number: ir.Value) -> ir.Value:
        """A vector with one number in all lanes."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes))

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a b + c``."""
        return self._call("llvm.fmuladd.", ir.FunctionType(self.vector, [self.vector] * 3), [a, b, c])

    def sum_of_lanes(self, value: ir.Value) -> ir.Value:
        kind = ir.FunctionType(self.scalar, [self.scalar, self.vector])
        return self._call("llvm.vector.reduce.fadd.", kind, [ir.Constant(self.scalar, 0.0), value], fastmath=["reassoc"])

    def _call(self, name: str, kind: ir.FunctionType, arguments: list[ir.Value], **options: Any) -> ir.Value:
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name + self.suffix), arguments, **options)

    @contextmanager
    def loop(self, count: ir.Value, step: int, values: list[ir.Value]) -> Iterator[tuple[ir.Value, list[ir.Value], list[ir.Value]]]:
        """``for k in range(0, count, step)``. It gives k, the values as they are when a round begins (and after the last one), and an empty
        list, into which the body puts those of the next round."""
        builder = self.builder
        before, head = builder.block, builder.append_basic_block("head")
        body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        k, *state = (builder.phi(value.type) for value in [WORD(0), *values])
        builder.cbranch(builder.icmp_signed("<", k, count), body, after)
        builder.position_at_end(body)
        following: list[ir.Value] = []
        yield k, state, following
        following.insert(0, builder.add(k, WORD(step)))
        for phi, first, later in zip([k, *state], [WORD(0), *values], following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def write(self, add: ir.Value, results: list[tuple[ir.Value, ir.Value, ir.Value]]) -> None:
        """Store each value at its start and offset; if ``add`` is not 0, its sum with what is there."""
        with self.builder.if_else(self.builder.icmp_signed("!=", add, WORD(0))) as (then, otherwise):
            with then:
                for value, start, offset in results:
                    self.store(self.builder.fadd(self.load(start, offset, value.type), value), start, offset)
            with otherwise:
                for value, start, offset in results:
                    self.store(value, start, offset)


Block = Callable[[Code, int, list[ir.Value]], None]
"""Writes the code for so many rows of C; the values are the arguments of :func:`panel_kernel`'s intrinsic, without the number of rows."""


def broadcasting(vectors: int) -> Block:
    """A block ``vectors`` vectors wide: each number of A, in all lanes, times the vectors of a row of B."""

    def block(code: Code, rows: int, values: list[ir.Value]) -> None:
        a, a_row, a_column, b, b_row, c, c_row, depth, add = values
        builder, offsets = code.builder, [WORD(code.size * code.lanes * j) for j in range(vectors)]
        a_rows = [builder.mul(a_row, WORD(i)) for i in range(rows)]
        with code.loop(depth, 1, [WORD(0), WORD(0), *[code.zero] * (rows * vectors)]) as (_, (a_offset, b_offset, *sums), following):
            here, there = builder.gep(a, [a_offset]), builder.gep(b, [b_offset])
            factors = [code.load(there, offset) for offset in offsets]
            following += [builder.add(a_offset, a_column), builder.add(b_offset, b_row)]
            for i in range(rows):
                number = code.repeat(code.load(here, a_rows[i], code.scalar))
                following += [code.multiply_add(number, factors[j], sums[vectors * i + j]) for j in range(vectors)]
        starts = [builder.gep(c, [builder.mul(c_row, WORD(i))]) for i in range(rows)]
        code.write(add, [(sums[vectors * i + j], starts[i], offsets[j]) for i in range(rows) for j in range(vectors)])

    return block


def dotting(code: Code, rows: int, values: list[ir.Value]) -> None:
    """A block one column wide: scalar products of rows of A with one contiguous column of B. The end of a row is multiplied one by one."""
    a, a_row, _, b, _, c, c_row, depth, add = values
    builder = code.builder
    starts = [builder.gep(a, [builder.mul(a_row, WORD(i))]) for i in range(rows)]
    whole = builder.mul(builder.sdiv(depth, WORD(code.lanes)), WORD(code.lanes))
    with code.loop(whole, code.lanes, [code.zero] * rows) as (k, sums, following):
        offset = builder.mul(k, WORD(code.size))
        factor = code.load(b, offset)
        following += [code.multiply_add(code.load(start, offset), factor, total) for start, total in zip(starts, sums, strict=True)]
    with code.loop(builder.sub(depth, whole), 1, [code.sum_of_lanes(total) for total in sums]) as (k, totals, following):
        offset = builder.mul(builder.add(k, whole), WORD(code.size))
        factor = code.load(b, offset, code.scalar)
        products = [builder.fmul(code.load(start, offset, code.scalar), factor) for start in starts]
        following += [builder.fadd(total, product) for total, product in zip(totals, products, strict=True)]
    code.write(add, [(totals[i], builder.gep(c, [builder.mul(c_row, WORD(i))]), WORD(0)) for i in range(rows)])


def panel_kernel(block: Block, dtype: str, lanes: int, row_counts: tuple[int, ...]) -> Callable:
    """An intrinsic that multiplies all rows of A with a panel of B, the first of ``row_counts`` at a time while it fits, then the next.

    Its arguments are integers: the addresses of a, b and c, each followed by the bytes from one row to the next (for a also from one column
    to the next), the number of rows, K, and 1 if the product is to be added to c, else 0.
    """

    @intrinsic
    def panel(typing_context, a, a_row, a_column, b, b_row, c, c_row, rows, depth, add):
        def generate(context, builder, signature, arguments):
            a, a_row, a_column, b, b_row, c, c_row, rows, depth, add = arguments
            a, b, c = (builder.inttoptr(address, POINTER) for address in (a, b, c))
            first = WORD(0)
            for count in row_counts:
                kind = ir.FunctionType(ir.VoidType(), [value.type for value in (a, a_row, a_column, b, b_row, c, c_row, depth, add)])
                function = ir.Function(builder.module, kind, builder.module.get_unique_name("block"))
                function.linkage = "internal"
                function.attributes.add("noinline")
                inside = ir.IRBuilder(function.append_basic_block())
                block(Code(inside, dtype, lanes), count, list(function.args))
                inside.ret_void()

                rounds = builder.sdiv(builder.sub(rows, first), WORD(count))
                with Code(builder, dtype, lanes).loop(rounds, 1, [first]) as (_, (i,), following):
                    here, there = builder.gep(a, [builder.mul(i, a_row)]), builder.gep(c, [builder.mul(i, c_row)])
                    builder.call(function, [here, a_row, a_column, b, b_row, there, c_row, depth, add])
                    following.append(builder.add(i, WORD(count)))
                first = i
            return context.get_dummy_value()

        return types.void(*[types.intp] * 10), generate

    return panel


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


def product_function(dtype: str) -> Callable:
    """:func:`multiply` for one dtype, of addresses and strides in bytes."""
    size, lanes, many_registers = np.dtype(dtype).itemsize, lanes_of(dtype), vector_bytes() == 64
    width, half_lanes = 2 * lanes, max(lanes // 2, 1)
    wide = panel_kernel(broadcasting(2), dtype, lanes, (12, 6, 3, 1) if many_registers else (6, 4, 2, 1))
    narrow = panel_kernel(broadcasting(1), dtype, lanes, (12, 6, 3, 1))
    half = panel_kernel(broadcasting(1), dtype, half_lanes, (12, 6, 3, 1))
    single = panel_kernel(broadcasting(1), dtype, 1, (12, 6, 3, 1))
    dots = panel_kernel(dotting, dtype, lanes, (4, 1))
    panel_buffer = stack_buffer(DEPTH * width * size)

    def product(a, a_row, a_column, b, b_row, c, c_row, rows, columns, depth, add):
        if columns == 1 and rows > 1 and a_row == size and c_row == size:  # c^T = b^T A^T
            a, a_column, b, b_row, rows, columns = b, b_row, a, a_column, 1, rows
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
                if a_column == size and some >= lanes:
                    for k in range(some):
                        copy_bytes(there + j * size + k * b_row, buffer + k * size, size)
                    dots(here, a_row, a_column, buffer, size, c + j * size, c_row, rows, some, adding)
                else:
                    single(here, a_row, a_column, there + j * size, b_row, c + j * size, c_row, rows, some, adding)
                j += 1

    # Numba names compiled code after this. Two of one name, from files that two processes have compiled, would be taken for each other.
    product.__name__ = product.__qualname__ = f"product_of_{dtype}"
    return product


product_32, product_64 = (compile_function(no_cpython_wrapper=True)(product_function(dtype)) for dtype in SCALARS)


def product_float32(a, a_row, a_column, b, b_row, c, c_row, rows, columns, depth, add):
    """What is kept on disk must be a function of a module, not one made by another function."""
    product_32(a, a_row, a_column, b, b_row, c, c_row, rows, columns, depth, add)


def product_float64(a, a_row, a_column, b, b_row, c, c_row, rows, columns, depth, add):
    """As :func:`product_float32`."""
    product_64(a, a_row, a_column, b, b_row, c, c_row, rows, columns, depth, add)


@functools.cache
def compiled_product(dtype: str) -> tuple[Any, int]:
    """The product for one dtype, compiled or read from the disk, and its address, which holds as long as the former is kept."""
    compiled = compile_cached({"float32": product_float32, "float64": product_float64}[dtype], no_cfunc_wrapper=False)
    compiled.compile(types.void(*[types.intp] * 11))
    (result,) = compiled.overloads.values()
    return compiled, result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)


@functools.cache  # looking up the name of a dtype takes longer than a small product
def product_of(dtype: np.dtype) -> int:
    """What :func:`multiply` needs for arrays of this dtype: the address of a compiled function, or 0 where nothing is compiled."""
    return 0 if numba.config.DISABLE_JIT else compiled_product(dtype.name)[1]
