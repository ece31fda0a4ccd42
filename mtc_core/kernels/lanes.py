"""Which of a vector's lanes are above a bound, as bits of an integer: one comparison of the CPU,
which LLVM does not make of any loop that says so.

A few large entries among many are found by it two and a half times as fast as by looking at each
entry of a group in which there is one (benchmarks/LOG.md).
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16


@intrinsic
def lanes_above(_: Any, values_N: Any, first: Any, bound: Any) -> Any:
    """Bit j says whether values_N[first + j] > bound, for j below LANES: all of these must be in
    the array, which is contiguous, of floats or signed integers as the bound is."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type, _, number = signature.args
        array = context.make_array(array_type)(context, builder, args[0])
        scalar = context.get_value_type(number)
        vector, one = ir.VectorType(scalar, LANES), ir.IntType(32)
        at = builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())
        # A vector would else be taken to lie at a multiple of its own size.
        loaded = builder.load(at, align=number.bitwidth // 8)
        single = builder.insert_element(ir.Constant(vector, ir.Undefined), args[2], one(0))
        everywhere = ir.Constant(ir.VectorType(one, LANES), [0] * LANES)
        bounds = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), everywhere)
        ordered = isinstance(number, types.Float)
        compare = builder.fcmp_ordered if ordered else builder.icmp_signed
        bits = builder.bitcast(compare(">", loaded, bounds), ir.IntType(LANES))
        return builder.zext(bits, one)

    assert isinstance(values_N, types.Array) and values_N.layout == "C"
    return types.uint32(values_N, types.intp, values_N.dtype), generate


@intrinsic
def lowest_bit(_: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set; there must be one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        never_zero = ir.Constant(ir.IntType(1), 1)
        return builder.zext(
            builder.cttz(args[0], never_zero), ir.IntType(signature.return_type.bitwidth)
        )

    return types.intp(types.uint32), generate
