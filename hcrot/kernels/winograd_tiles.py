"""The two-dimensional transforms of Winograd's F(4x4, 3x3), whose derivation is in ``winograd.py``, of a row of tiles at a time.

    transform_input               V = B^T d B      6x6 pixels of an image, every 4 pixels   to 36 points
    transform_output              Y = A^T M A      36 points                                to 4x4 pixels, with bias and residual
    transform_output_gradient     dM = A dy A^T    4x4 pixels of the gradient               to 36 points
    transform_kernel              U = G g G^T      3x3 taps                                 to 36 points
    transform_kernel_gradient     dg = G^T dU G    36 points                                to 3x3 taps

The instructions are generated from the formulas of ``winograd_transforms.py``, so there is no second description of them. Each takes as
many channels as a vector has, and goes along the row: first every column of pixels is transformed along y, and the results are put into
a small buffer, which stays in the first-level cache. (Two neighbouring tiles share two of their six columns, which are transformed once.)
Then every tile is transformed along x. Within a column and within a line of a tile, all happens in registers.

If the number of channels is no multiple of a vector's, the last vector overlaps the one before it. Fewer channels than one vector has are
transformed one at a time.

All are called inside kernels. As plain Python (NUMBA_DISABLE_JIT=1) they evaluate the same formulas on arrays.

**Points** are kept in an array (36, pitch). A row of it has all tiles of one point: a matrix (tiles, channels). The pitch is an odd number
of cache lines (:func:`pitch_for`). 36 rows at a distance of, say, 4,096 bytes would all fall on the same few places of the cache.

Notation: B images, C channels in, O out, (e) one of the 36 points.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from hcrot.kernels import winograd_transforms as formulas
from hcrot.kernels.compiler import cgutils, ir, lower_builtin, type_callable, types
from hcrot.kernels.jit import aligned_empty, aligned_zeros, jit
from hcrot.kernels.product import POINTER, SCALARS, WORD, Code, lanes_of
from hcrot.kernels.winograd_transforms import Transform, in_two_dimensions

__all__ = [
    "CHANNELS_AT_ONCE", "empty_points", "pitch_for", "row_buffer", "transform_input", "transform_kernel", "transform_kernel_gradient",
    "transform_output", "transform_output_gradient", "transform_weights", "zeros_for",
]  # fmt: skip


@jit
def pitch_for(numbers, itemsize):
    """From one row of points to the next, in numbers, if each has so many: whole cache lines, an odd number of them."""
    line = 64 // itemsize
    lines = (numbers + line - 1) // line
    return (lines + 1 - lines % 2) * line


@jit
def empty_points(numbers, like):
    """Points (36, pitch) with room for so many numbers each."""
    pitch = pitch_for(numbers, like.itemsize)
    return aligned_empty(36 * pitch, like).reshape(36, pitch)


@jit
def row_buffer(tiles, like):
    """What a transform of a row of so many tiles needs between its two passes, and one vector to be written to in vain."""
    return aligned_empty((6 * (4 * tiles + 2) + 1) * (64 // like.itemsize), like)


@jit
def zeros_for(width, channels, like):
    """What lies above and below an image: a line of zeros. It serves for an absent residual, too."""
    return aligned_zeros(max(width, 1) * channels, like)


# ---------------------------------------------------------------- formulas in registers


class Lanes:
    """A register in a formula. The product of a number and a register waits for the sum that it is a part of: one instruction for both."""

    def __init__(self, code: Code, value: ir.Value, factor: float = 1.0):
        self.code, self._value, self.factor = code, value, factor

    @property
    def value(self) -> ir.Value:
        return self._value if self.factor == 1 else self.code.builder.fmul(self._constant(self.factor), self._value)

    def __rmul__(self, number: float) -> "Lanes":
        return Lanes(self.code, self.value, number)

    def __add__(self, other: "Lanes") -> "Lanes":
        if other.factor != 1:
            return Lanes(self.code, self.code.multiply_add(self._constant(other.factor), other._value, self.value))
        if self.factor != 1:
            return other + self
        return Lanes(self.code, self.code.builder.fadd(self._value, other._value))

    def __sub__(self, other: "Lanes") -> "Lanes":
        if other.factor != 1:
            return self + Lanes(self.code, other._value, -other.factor)
        return Lanes(self.code, self.code.builder.fsub(self.value, other._value))

    def _constant(self, number: float) -> ir.Constant:
        rounded = float(np.float32(number)) if self.code.size == 4 else float(number)
        return ir.Constant(self.code.vector, [ir.Constant(self.code.scalar, rounded)] * self.code.lanes)


class Array:
    """What the code of a call knows of an array."""

    def __init__(self, builder: ir.IRBuilder, array: Any, ndim: int):
        self.data, self.size = builder.ptrtoint(array.data, WORD), array.nitems
        self.shape, self.strides = (cgutils.unpack_tuple(builder, numbers, ndim) for numbers in (array.shape, array.strides))


def values_of(context: Any, builder: ir.IRBuilder, signature: Any, arguments: tuple) -> list[Any]:
    """The arguments of a call: arrays as :class:`Array`, integers as words."""
    return [
        Array(builder, context.make_array(kind)(context, builder, value), kind.ndim)
        if isinstance(kind, types.Array)
        else context.cast(builder, value, kind, types.intp)
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def generated(name_of_code: str, arrays: str, write: Callable[[Code, list[ir.Value]], None], values: Callable) -> Callable:
    """Have kernels call generated code in the place of the decorated function.

    Args:
        name_of_code: no other code may have it.
        arrays: a letter for each argument: "a" for an array, "i" for an integer. All arrays have one dtype.
        write: writes the body of the generated function, for vectors of ``code.lanes``, from its arguments. The last is their count.
        values: the arguments of the generated function, all integers, from a builder, the bytes of a number and the arguments of the call.
    """

    def decorate(function: Callable) -> Callable:
        def result(*kinds: Any) -> Any:
            names = {str(kind.dtype) for kind, letter in zip(kinds, arrays, strict=True) if letter == "a"}
            return types.none if len(names) == 1 and names <= SCALARS.keys() else None

        def code_for(module: ir.Module, dtype: str, lanes: int, arguments: int) -> ir.Function:
            name = f"hcrot.{name_of_code}.{dtype}.{lanes}"
            if name in module.globals:
                return module.globals[name]
            code = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORD] * arguments), name)
            code.linkage = "linkonce_odr"  # once, however many of the functions that are joined to a kernel have it
            code.attributes.add("noinline")
            code.attributes.add("optsize")  # no unrolled loops: as fast, and compiled in a third of the time
            inside = ir.IRBuilder(code.append_basic_block())
            write(Code(inside, dtype, lanes), list(code.args))
            inside.ret_void()
            return code

        def call(context, builder, signature, arguments):
            dtype = str(next(kind.dtype for kind in signature.args if isinstance(kind, types.Array)))
            numbers = values(builder, WORD(np.dtype(dtype).itemsize), *values_of(context, builder, signature, arguments))
            many = builder.icmp_signed(">=", numbers[-1], WORD(lanes_of(dtype)))
            with builder.if_else(many) as blocks:
                for block, lanes in zip(blocks, (lanes_of(dtype), 1), strict=True):
                    with block:
                        builder.call(code_for(builder.module, dtype, lanes, len(numbers)), numbers)
            return context.get_dummy_value()

        result.pysig = inspect.signature(function)  # type: ignore[attr-defined]
        type_callable(function)(lambda context: result)
        lower_builtin(function, *[types.Array if letter == "a" else types.Integer for letter in arrays])(call)
        return function

    return decorate


def write_vectors(code: Code, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
    """Call ``body`` with the offset in bytes of each vector among ``count`` numbers, of which the last may overlap the one before."""
    builder = code.builder
    with code.loop(count, code.lanes, []) as (k, _, _):
        body(builder.mul(smaller(builder, k, builder.sub(count, WORD(code.lanes))), WORD(code.size)))


def smaller(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def sum_of_products(builder: ir.IRBuilder, start: ir.Value, *pairs: tuple[ir.Value, ir.Value]) -> ir.Value:
    for a, b in pairs:
        start = builder.add(start, builder.mul(a, b))
    return start


# ---------------------------------------------------------------- from pixels to points


def from_pixels(transform: Transform, inputs: int, outputs: int) -> Callable:
    """A function for kernels that transforms ``inputs`` x ``inputs`` pixels, every 4 pixels, to ``outputs`` x ``outputs`` points."""

    def write(code: Code, arguments: list[ir.Value]) -> None:
        pixels, row, pixel, height, width, y, left, nothing, buffer, tiles, points, pitch, step, count = arguments
        builder, bytes_ = code.builder, code.size * code.lanes
        columns = builder.add(builder.mul(tiles, WORD(4)), WORD(inputs - 4))
        first = builder.select(builder.icmp_signed("<", left, WORD(0)), builder.neg(left), WORD(0))
        last = smaller(builder, columns, builder.sub(width, left))
        pixels, nothing = sum_of_products(builder, pixels, (left, pixel)), builder.sub(nothing, builder.mul(first, pixel))
        lines = []
        for i in range(inputs):
            number = builder.add(y, WORD(i))
            inside = builder.icmp_unsigned("<", number, height)  # a negative number is too large, too
            line = builder.select(inside, sum_of_products(builder, pixels, (number, row)), nothing)
            lines.append(builder.inttoptr(line, POINTER))
        between, points = builder.inttoptr(buffer, POINTER), builder.inttoptr(points, POINTER)
        for start, stop in ((WORD(0), first), (last, columns)):  # columns outside of the image
            numbers = builder.mul(builder.sub(stop, start), WORD(outputs))
            with code.loop(numbers, 1, []) as (k, _, _):
                code.store(code.zero, between, builder.mul(builder.add(k, builder.mul(start, WORD(outputs))), WORD(bytes_)))
        across = [builder.mul(pitch, WORD(j)) for j in range(outputs)]
        down = builder.mul(pitch, WORD(outputs))

        def body(offset: ir.Value) -> None:
            with code.loop(builder.sub(last, first), 1, []) as (k, _, _):
                column = builder.add(k, first)
                place = builder.add(offset, builder.mul(column, pixel))
                results = transform(*[Lanes(code, code.load(line, place)) for line in lines])
                target = builder.gep(between, [builder.mul(column, WORD(outputs * bytes_))])
                for i, result in enumerate(results):
                    code.store(result.value, target, WORD(bytes_ * i))
            with code.loop(tiles, 1, []) as (t, _, _):
                tile = builder.gep(between, [builder.mul(t, WORD(4 * outputs * bytes_))])
                target = builder.gep(points, [sum_of_products(builder, offset, (t, step))])
                with code.loop(WORD(outputs), 1, []) as (i, _, _):
                    line = builder.gep(tile, [builder.mul(i, WORD(bytes_))])
                    results = transform(*[Lanes(code, code.load(line, WORD(outputs * bytes_ * j))) for j in range(inputs)])
                    place = builder.gep(target, [builder.mul(i, down)])
                    for point, result in zip(across, results, strict=True):
                        code.store(result.value, place, point)

        write_vectors(code, count, body)

    def values(builder, size, x, image, y, left, tiles, channel, count, nothing, buffer, points, place):
        pixels = sum_of_products(builder, x.data, (image, x.strides[0]), (channel, size))
        target, step = sum_of_products(builder, points.data, (place, size)), builder.mul(count, size)
        of_x = [pixels, *x.strides[1:3], *x.shape[1:3], y, left]
        return [*of_x, nothing.data, buffer.data, tiles, target, points.strides[0], step, count]

    @generated(transform.__name__, "aiiiiiiaaai", write, values)
    def transform_pixels(x, image, y, left, tiles, channel, count, nothing, buffer, points, place):
        """Transform ``count`` channels, from ``channel`` on, of a row of tiles.

        Args:
            x: (B, H, W, C), contiguous. image, y, left: where the first tile begins; pixels outside of the image are zeros.
            nothing: :func:`zeros_for` x. buffer: :func:`row_buffer`.
            points: (outputs ** 2, pitch). Tile t is written to ``count`` numbers from ``place + t * count`` on.
        """
        columns = 4 * tiles + inputs - 4
        pixels = np.zeros((inputs, columns, count), x.dtype)
        for i in range(max(0, -y), min(inputs, x.shape[1] - y)):
            start, stop = max(0, -left), min(columns, x.shape[2] - left)
            pixels[i, start:stop] = x[image, y + i, left + start : left + stop, channel : channel + count]
        for t in range(tiles):
            tile = pixels[:, 4 * t : 4 * t + inputs].reshape(inputs**2, count)
            points[:, place + t * count : place + (t + 1) * count] = in_two_dimensions(transform, tile)

    return transform_pixels


transform_input = from_pixels(formulas.transform_input, 6, 6)
transform_output_gradient = from_pixels(formulas.transform_output_adjoint, 4, 6)
transform_kernel = from_pixels(formulas.transform_kernel, 3, 6)
transform_kernel_gradient = from_pixels(formulas.transform_kernel_adjoint, 6, 3)


# ---------------------------------------------------------------- from points to pixels


def write_output(code: Code, arguments: list[ir.Value]) -> None:
    points, pitch, step, bias, rest, rest_row, rest_pixel, nothing, buffer, tiles, pixels, row, pixel, lines, width, count = arguments
    builder, bytes_ = code.builder, code.size * code.lanes
    points, bias, between = (builder.inttoptr(start, POINTER) for start in (points, bias, buffer))
    in_vain = builder.add(buffer, WORD(24 * bytes_))
    down = [builder.mul(builder.mul(pitch, WORD(6)), WORD(i)) for i in range(6)]
    transform = formulas.transform_output

    def body(offset: ir.Value) -> None:
        both = Lanes(code, code.load(bias, offset))
        with code.loop(tiles, 1, []) as (t, _, _):
            tile = builder.gep(points, [sum_of_products(builder, offset, (t, step))])
            with code.loop(WORD(6), 1, []) as (j, _, _):
                column = builder.gep(tile, [builder.mul(j, pitch)])
                results = transform(*[Lanes(code, code.load(column, place)) for place in down])
                target = builder.gep(between, [builder.mul(j, WORD(4 * bytes_))])
                for i, result in enumerate(results):
                    code.store(result.value, target, WORD(i * bytes_))
            left = builder.mul(t, WORD(4))
            with code.loop(lines, 1, []) as (i, _, _):
                line = builder.gep(between, [builder.mul(i, WORD(bytes_))])
                results = transform(*[Lanes(code, code.load(line, WORD(4 * bytes_ * j))) for j in range(6)])
                for j, result in enumerate(results):
                    x = builder.add(left, WORD(j))
                    inside = builder.icmp_signed("<", x, width)
                    place = builder.add(offset, sum_of_products(builder, pixels, (i, row), (x, pixel)))
                    there = builder.add(offset, sum_of_products(builder, rest, (i, rest_row), (x, rest_pixel)))
                    place, there = builder.select(inside, place, in_vain), builder.select(inside, there, nothing)
                    residual = Lanes(code, code.load(builder.inttoptr(there, POINTER), WORD(0)))
                    code.store((result + both + residual).value, builder.inttoptr(place, POINTER), WORD(0))

    write_vectors(code, count, body)


def values_of_output(builder, size, points, place, tiles, count, offsets, residual, nothing, buffer, y, image, top, channel):
    source, bias = (sum_of_products(builder, array.data, (first, size)) for array, first in ((points, place), (offsets, channel)))
    corner = (image, y.strides[0]), (top, y.strides[1]), (channel, size)
    given, none = builder.icmp_signed(">", residual.size, WORD(0)), (nothing.data, WORD(0), WORD(0))
    there = sum_of_products(builder, residual.data, *corner), y.strides[1], y.strides[2]
    rest = [builder.select(given, some, other) for some, other in zip(there, none, strict=True)]
    lines = smaller(builder, builder.sub(y.shape[1], top), WORD(4))
    step, pixels = builder.mul(count, size), sum_of_products(builder, y.data, *corner)
    of_y = [pixels, y.strides[1], y.strides[2], lines, y.shape[2]]
    return [source, points.strides[0], step, bias, *rest, nothing.data, buffer.data, tiles, *of_y, count]


@generated("transform_output", "aiiiaaaaaiii", write_output, values_of_output)
def transform_output(points, place, tiles, count, offsets, residual, nothing, buffer, y, image, top, channel):
    """Transform a row of tiles, ``count`` numbers of each, to 4 lines of an image, and add to each pixel its bias and residual.

    Args:
        points: (36, pitch). Tile t is read from ``place + t * count`` on.
        offsets: (O,), the bias. residual: like y, or empty.
        nothing: :func:`zeros_for` y. buffer: :func:`row_buffer`.
        y: (B, H, W, O), contiguous, of which ``count`` channels from ``channel`` on are written. image, top: where the row begins. What
            lies below the image or to the right of it is left out.
    """
    for t in range(tiles):
        tile = in_two_dimensions(formulas.transform_output, points[:, place + t * count : place + (t + 1) * count])
        for i in range(min(4, y.shape[1] - top)):
            for j in range(min(4, y.shape[2] - 4 * t)):
                where = image, top + i, 4 * t + j, slice(channel, channel + count)
                y[where] = tile[4 * i + j] + offsets[channel : channel + count]
                if residual.size > 0:
                    y[where] += residual[where]


# ---------------------------------------------------------------- weights


CHANNELS_AT_ONCE = 16
"""How many channels of a turned weight are copied at a time, so that the copy stays in the first-level cache."""


def write_turned(code: Code, arguments: list[ir.Value]) -> None:
    source, tap, row, target, target_tap, target_row, outputs, count = arguments
    builder, number = code.builder, WORD(code.size)
    source, target = builder.inttoptr(source, POINTER), builder.inttoptr(target, POINTER)
    with code.loop(WORD(9), 1, []) as (k, _, _), code.loop(outputs, 1, []) as (o, _, _), code.loop(count, 1, []) as (c, _, _):
        there = sum_of_products(builder, builder.mul(c, number), (builder.sub(WORD(8), k), tap), (o, row))
        here = sum_of_products(builder, builder.mul(o, number), (k, target_tap), (c, target_row))
        code.store(code.load(source, there, code.scalar), target, here)


def values_of_turned(builder, size, weight, output, outputs, channel, count, taps):
    source = sum_of_products(builder, weight.data, (output, weight.strides[1]), (channel, size))
    target_row = builder.mul(outputs, size)
    return [source, *weight.strides[:2], taps.data, builder.mul(count, target_row), target_row, outputs, count]


@generated("turn_taps", "aiiiia", write_turned, values_of_turned)
def turn_taps(weight, output, outputs, channel, count, taps):
    """Copy a part of a weight (9, O, C), turned by 180 degrees, to the first 9 * count * outputs taps, in the order (9, C, O)."""
    part = weight[::-1, output : output + outputs, channel : channel + count].transpose(0, 2, 1)
    taps[: part.size] = part.ravel()


@jit
def transform_weights(weight, turned, first, last, output, outputs, u):
    """``U = G g G^T`` for the input channels ``first <= c < last`` and so many outputs from ``output`` on.

    Args:
        weight: (9, C, O); or, ``turned`` by 180 degrees and with C and O exchanged, (9, O, C).
        u: (36, pitch): (C, outputs) matrices, of which these channels are written.
    """
    buffer, nothing = row_buffer(1, u), zeros_for(0, 0, u)
    if not turned:
        image, per_channel = weight.reshape(1, 3, 3, -1), weight.shape[2]
        if outputs == per_channel:
            numbers = (last - first) * outputs
            transform_kernel(image, 0, 0, 0, 1, first * outputs, numbers, nothing, buffer, u, first * outputs)
            return
        for c in range(first, last):
            transform_kernel(image, 0, 0, 0, 1, c * per_channel + output, outputs, nothing, buffer, u, c * outputs)
        return
    taps = aligned_empty(9 * CHANNELS_AT_ONCE * outputs, u)
    for start in range(first, last, CHANNELS_AT_ONCE):
        count = min(CHANNELS_AT_ONCE, last - start)
        turn_taps(weight, output, outputs, start, count, taps)
        image = taps[: 9 * count * outputs].reshape(1, 3, 3, count * outputs)
        transform_kernel(image, 0, 0, 0, 1, 0, count * outputs, nothing, buffer, u, start * outputs)
