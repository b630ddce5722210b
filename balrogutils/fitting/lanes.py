"""Inner products whose order of summation is written down, for compiled code.

A sum that the compiler may put in another order (fastmath) can differ in its last digits between copies of the same
function, and which copy runs depends on what a process has compiled or loaded before. Kernels are therefore compiled
without fastmath; what that would cost is in the inner products, and is not lost here.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["lane_dot"]

_LANES, _VECTORS = 4, 4


def _lane_dot(typing: Any, a: Any, b: Any) -> Any:
    """Return the inner product of two contiguous float64 arrays, as long as the first.

    Sixteen sums run side by side and are added in a fixed order; each product is added with one rounding.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        integer = context.get_value_type(types.intp)
        double = ir.DoubleType()
        vector = ir.VectorType(double, _LANES)
        step = integer(_LANES * _VECTORS)
        kind = ir.FunctionType(vector, [vector] * 3)
        fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{_LANES}f64")
        size = cgutils.unpack_tuple(builder, first.shape, 1)[0]
        blocks = builder.sdiv(size, step)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * _LANES)) for _ in range(_VECTORS)]
        with cgutils.for_range(builder, blocks) as loop:
            begin = builder.mul(loop.index, step)
            for number, total in enumerate(sums):
                at = builder.add(begin, integer(number * _LANES))
                values = [
                    builder.load(builder.bitcast(builder.gep(one.data, [at]), vector.as_pointer()), align=8)
                    for one in (first, second)
                ]
                builder.store(builder.call(fused, [*values, builder.load(total)]), total)
        vectors = [builder.load(total) for total in sums]
        while len(vectors) > 1:
            vectors = [builder.fadd(*vectors[k : k + 2]) for k in range(0, len(vectors), 2)]
        parts = [builder.extract_element(vectors[0], ir.Constant(ir.IntType(32), k)) for k in range(_LANES)]
        while len(parts) > 1:
            parts = [builder.fadd(*parts[k : k + 2]) for k in range(0, len(parts), 2)]
        rest = cgutils.alloca_once_value(builder, parts[0])
        with cgutils.for_range_slice(builder, builder.mul(blocks, step), size, integer(1), integer) as (at, _):
            values = [builder.load(builder.gep(one.data, [at])) for one in (first, second)]
            builder.store(builder.fma(*values, builder.load(rest)), rest)
        return builder.load(rest)

    if not all(isinstance(one, types.Array) and one.layout == "C" and one.ndim == 1 for one in (a, b)):
        return None
    if not all(one.dtype == types.float64 for one in (a, b)):
        return None
    return types.float64(a, b), generate


lane_dot: Any = intrinsic(_lane_dot)
