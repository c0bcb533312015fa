"""Short float32 vectors in compiled code: one SIMD register, or two, per value.

The compiler does not turn loops over four or eight channels into vector instructions; these operations are lowered to
them directly. A vector's width is the length of a tuple (`LANES_8`): of it only the type matters, because that is what
a compiled function is specialised for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

llvm_intrinsic: Any = intrinsic
"""The decorator; its stub takes the typing context for an argument of the caller."""
LANES_4, LANES_8, LANES_16 = (0,) * 4, (0,) * 8, (0,) * 16


class Float32Vector(types.Type):
    """The type of a vector of `count` float32."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Float32Vector({count})")


@register_model(Float32Vector)
class _Float32VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Float32Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.FloatType(), kind.count))


def _address(context: Any, builder: Any, signature: Any, args: Any, kind: Any) -> Any:
    """Where a value of that kind lies from element args[1], counted flat, of the contiguous array args[0] on."""
    memory = context.make_array(signature.args[0])(context, builder, args[0]).data
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.bitcast(builder.gep(memory, [index]), kind.as_pointer())


def _call(builder: Any, name: str, args: Any) -> Any:
    """Call the vector operation of that name; all its operands and its result have one type."""
    kind = args[0].type
    form = ir.FunctionType(kind, [kind] * len(args))
    function = cgutils.get_or_insert_function(builder.module, form, f"llvm.{name}.v{kind.count}f32")
    return builder.call(function, args)


def _broadcast(builder: Any, value: Any, count: int) -> Any:
    kind = ir.VectorType(ir.FloatType(), count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


@llvm_intrinsic
def at(context: Any, array: Any, index: Any) -> Any:
    """Element `index` of a contiguous array counted flat, without the check for negative indices."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        return builder.load(_address(context, builder, signature, args, kind))

    return array.dtype(array, index), generate


@llvm_intrinsic
def load(context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """The vector that starts at element `index` of a contiguous float32 array."""
    result = Float32Vector(lanes.count)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(result)
        return builder.load(_address(context, builder, signature, args, kind), align=4)

    return result(array, index, lanes), generate


@llvm_intrinsic
def store(context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector to a contiguous float32 array from element `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature, args, args[2].type), align=4)
        return context.get_dummy_value()

    return types.void(array, index, vector), generate


@llvm_intrinsic
def fill(context: Any, value: Any, lanes: Any) -> Any:
    """The vector whose lanes all hold a number, rounded to float32."""
    result = Float32Vector(lanes.count)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.cast(builder, args[0], signature.args[0], types.float32)
        return _broadcast(builder, number, result.count)

    return result(value, lanes), generate


@llvm_intrinsic
def multiply_add(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once where the machine can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "fmuladd", args)

    return a(a, a, a), generate


def _pairwise(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @llvm_intrinsic
    def operation(context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, args[0], args[1])

        return a(a, a), generate

    return operation


add = _pairwise(lambda builder, a, b: builder.fadd(a, b))
subtract = _pairwise(lambda builder, a, b: builder.fsub(a, b))
multiply = _pairwise(lambda builder, a, b: builder.fmul(a, b))
divide = _pairwise(lambda builder, a, b: builder.fdiv(a, b))
maximum = _pairwise(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@llvm_intrinsic
def less(context: Any, a: Any, b: Any) -> Any:
    """One in lanes where a < b, zero elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.uitofp(builder.fcmp_ordered("<", args[0], args[1]), args[0].type)

    return a(a, a), generate


@llvm_intrinsic
def prefetch(context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of element `index` of a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
        reading, keep, memory = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(function, [_address(context, builder, signature, args, ir.IntType(8)), reading, keep, memory])
        return context.get_dummy_value()

    return types.void(array, index), generate


@llvm_intrinsic
def nearest(context: Any, a: Any) -> Any:
    """The nearest integers, even ones where two are as near."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "nearbyint", args)

    return a(a), generate


@llvm_intrinsic
def scale_by_power(context: Any, a: Any, power: Any) -> Any:
    """a 2^power for integers -126..127 held as float32, by adding to the exponent bits of one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = args[1].type.count
        integers = ir.VectorType(ir.IntType(32), count)
        bias, bits = (ir.Constant(integers, [value] * count) for value in (127, 23))
        exponent = builder.shl(builder.add(builder.fptosi(args[1], integers), bias), bits)
        return builder.fmul(args[0], builder.bitcast(exponent, args[0].type))

    return a(a, power), generate


@llvm_intrinsic
def transpose(
    context: Any, source: Any, start: Any, step: Any, target: Any, begin: Any, stride: Any, lanes: Any
) -> Any:
    """Copy a square of float32: row i begins at source[start + i step], column i goes to target[begin + i stride]."""
    count = lanes.count
    result = types.void(source, types.intp, types.intp, target, types.intp, types.intp, lanes)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.FloatType(), count)

        def address(slot: int, row: int) -> Any:
            memory = context.make_array(signature.args[slot])(context, builder, args[slot]).data
            index = builder.add(args[slot + 1], builder.mul(args[slot + 2], ir.Constant(args[slot + 2].type, row)))
            return builder.bitcast(builder.gep(memory, [index]), kind.as_pointer())

        rows = [builder.load(address(0, row), align=4) for row in range(count)]
        for row, vector in enumerate(_transposed(builder, rows)):
            builder.store(vector, address(3, row), align=4)
        return context.get_dummy_value()

    return result, generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Exchange the off-diagonal halves of ever larger squares."""
    count, step = len(rows), 1
    masks = ir.VectorType(ir.IntType(32), count)
    while step < count:
        upper = [lane if not lane & step else count + lane - step for lane in range(count)]
        lower = [lane + step if not lane & step else count + lane for lane in range(count)]
        exchanged = list(rows)
        for row in range(count):
            if not row & step:
                pair = rows[row], rows[row + step]
                exchanged[row] = builder.shuffle_vector(*pair, ir.Constant(masks, upper))
                exchanged[row + step] = builder.shuffle_vector(*pair, ir.Constant(masks, lower))
        rows, step = exchanged, 2 * step
    return rows


LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
"""ln 2 in two parts: an integer below 2^9 times the first is exact."""


@njit(inline="always")
def exponential(x, lanes):  # type: ignore[no-untyped-def]
    """e^x within 3e-7 relative for x up to 88; x below -87 count as -87, which is 1.6e-38."""
    x = maximum(x, fill(np.float32(-87.0), lanes))
    n = nearest(multiply(x, fill(LOG2_E, lanes)))
    r = multiply_add(n, fill(-LN2_HIGH, lanes), x)
    r = multiply_add(n, fill(-LN2_LOW, lanes), r)
    # Taylor to the sixth power: |r| <= ln(2) / 2 leaves 1.2e-7.
    y = fill(np.float32(1 / 720), lanes)
    y = multiply_add(y, r, fill(np.float32(1 / 120), lanes))
    y = multiply_add(y, r, fill(np.float32(1 / 24), lanes))
    y = multiply_add(y, r, fill(np.float32(1 / 6), lanes))
    y = multiply_add(y, r, fill(np.float32(0.5), lanes))
    y = multiply_add(y, r, fill(np.float32(1.0), lanes))
    y = multiply_add(y, r, fill(np.float32(1.0), lanes))
    return scale_by_power(y, n)
