"""Matrix products of tiles that fit the nearest cache, their sums held in vector registers.

A loop that Numba vectorises loads and stores its sums again and again: LLVM keeps a row of them in registers only if
its length is one vector.  The intrinsic here writes the vector instructions out: eight rows of sums, one or two cache
lines wide, stay in registers from the first product to the last.  It runs at the speed of a good BLAS, at sizes where
the call of one would cost more than the product (bench/README.md).

Each sum is taken first product to last, fused: the same bits whoever calls, and on however many threads.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from thermokernels._jit import device, serial_kernel, wide_vectors

# Rows of a product must come in such numbers, and columns in cache lines.
ROWS = 8
LINE = 64


def _panel(lines):
    """An intrinsic that adds a @ x to eight rows of ``out`` and so many cache lines of columns, from (row, column)."""

    @intrinsic
    def add_panel(typing_context, out, a, x, row, column):
        def codegen(context, builder, signature, arguments):
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
            ]
            row, column = arguments[3:]
            word = context.get_value_type(types.intp)
            element = context.get_value_type(signature.args[0].dtype)
            width = LINE // context.get_abi_sizeof(element)
            vector = ir.VectorType(element, width)
            lane = ir.IntType(32)

            def number(value):
                return ir.Constant(word, value)

            def pointer(array, i, j, kind):
                strides = cgutils.unpack_tuple(builder, array.strides, 2)
                offset = builder.add(builder.mul(i, strides[0]), builder.mul(j, strides[1]))
                address = builder.add(builder.ptrtoint(array.data, word), offset)
                return builder.inttoptr(address, kind.as_pointer())

            def line(array, i, v):
                return pointer(array, i, builder.add(column, number(v * width)), vector)

            def row_number(r):
                return builder.add(row, number(r))

            alignment = context.get_abi_sizeof(element)
            out, a, x = arrays
            places = [(r, v, line(out, row_number(r), v)) for r in range(ROWS) for v in range(lines)]
            sums = []
            for _, _, place in places:
                sums.append(cgutils.alloca_once(builder, vector))
                builder.store(builder.load(place, align=alignment), sums[-1])
            with cgutils.for_range(builder, cgutils.unpack_tuple(builder, x.shape, 2)[0]) as loop:
                factors = [builder.load(line(x, loop.index, v), align=alignment) for v in range(lines)]
                undefined = ir.Constant(vector, ir.Undefined)
                spread = []
                for r in range(ROWS):
                    scalar = builder.load(pointer(a, row_number(r), loop.index, element))
                    first = builder.insert_element(undefined, scalar, ir.Constant(lane, 0))
                    zeros = ir.Constant(ir.VectorType(lane, width), [0] * width)
                    spread.append(builder.shuffle_vector(first, undefined, zeros))
                for (r, v, _), total in zip(places, sums, strict=True):
                    # `contract` alone: sums keep their order.
                    product = builder.fmul(spread[r], factors[v], flags=("contract",))
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            for (_, _, place), total in zip(places, sums, strict=True):
                builder.store(builder.load(total), place, align=alignment)
            return context.get_dummy_value()

        return types.void(out, a, x, row, column), codegen

    return add_panel


_add_one_line, _add_two_lines = _panel(1), _panel(2)


@device
def add_product(out, a, x):
    """out += a @ x, for ``a`` (rows, inner), ``x`` (inner, columns), of one dtype, float32 or float64.

    Rows come in eights, columns in cache lines (of 16 float32 or 8 float64).  Rows of ``out`` and ``x`` are contiguous;
    ``a`` may be a transposed view.
    """
    wide_vectors()
    width = LINE // out.itemsize
    for row in range(0, out.shape[0], ROWS):
        column = 0
        while column + 2 * width <= out.shape[1]:
            _add_two_lines(out, a, x, row, column)
            column += 2 * width
        if column < out.shape[1]:
            _add_one_line(out, a, x, row, column)


@device
def add_gram(out, x):
    """out += x^T x for ``x`` (inner, columns), on and below the diagonal; what stands above it means nothing.

    Columns come in cache lines, as in ``add_product``.
    """
    wide_vectors()
    width = LINE // out.itemsize
    transposed = x.T
    for row in range(0, out.shape[0], ROWS):
        for column in range(0, row + ROWS, width):
            _add_one_line(out, transposed, x, row, column)


@device
def aligned(rows, columns, like):
    """Zeros (rows, columns) of the dtype of ``like`` that begin a cache line.

    A 512-bit load that straddles two lines takes twice as long.
    """
    buffer = np.zeros(rows * columns + LINE // like.itemsize, like.dtype)
    skip = (LINE - buffer.ctypes.data % LINE) % LINE // like.itemsize
    return buffer[skip : skip + rows * columns].reshape((rows, columns))


@serial_kernel
def dots(rows, x, out):
    """out[s] = rows[s] . x, six rows a pass: fewer sums at a time would wait for their own last addition."""
    wide_vectors()
    count, size = rows.shape
    zero = rows.dtype.type(0.0)
    s = 0
    while s + 6 <= count:
        r0, r1, r2, r3, r4, r5 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3], rows[s + 4], rows[s + 5]
        t0, t1, t2, t3, t4, t5 = zero, zero, zero, zero, zero, zero
        for i in range(size):
            t0 += r0[i] * x[i]
            t1 += r1[i] * x[i]
            t2 += r2[i] * x[i]
            t3 += r3[i] * x[i]
            t4 += r4[i] * x[i]
            t5 += r5[i] * x[i]
        out[s], out[s + 1], out[s + 2], out[s + 3], out[s + 4], out[s + 5] = t0, t1, t2, t3, t4, t5
        s += 6
    while s < count:
        r0 = rows[s]
        t0 = zero
        for i in range(size):
            t0 += r0[i] * x[i]
        out[s] = t0
        s += 1


@serial_kernel
def add_rows(factors, rows, out):
    """out[s] += sum_n factors[s, n] rows[n].

    Eight rows a pass, so that out is loaded and stored less often; the same eight for all s, while they are in cache.
    """
    wide_vectors()
    count, size = rows.shape
    n = 0
    while n + 8 <= count:
        r0, r1, r2, r3 = rows[n], rows[n + 1], rows[n + 2], rows[n + 3]
        r4, r5, r6, r7 = rows[n + 4], rows[n + 5], rows[n + 6], rows[n + 7]
        for s in range(out.shape[0]):
            c0, c1, c2, c3 = factors[s, n], factors[s, n + 1], factors[s, n + 2], factors[s, n + 3]
            c4, c5, c6, c7 = factors[s, n + 4], factors[s, n + 5], factors[s, n + 6], factors[s, n + 7]
            o = out[s]
            for i in range(size):
                o[i] += (
                    ((c0 * r0[i] + c1 * r1[i]) + (c2 * r2[i] + c3 * r3[i]))
                    + ((c4 * r4[i] + c5 * r5[i]) + (c6 * r6[i] + c7 * r7[i]))
                )  # fmt: skip
        n += 8
    while n < count:
        r0 = rows[n]
        for s in range(out.shape[0]):
            c0 = factors[s, n]
            o = out[s]
            for i in range(size):
                o[i] += c0 * r0[i]
        n += 1


@device
def aligned_copy(row):
    """A copy of a one-dimensional array that begins a cache line."""
    line = aligned(1, row.size, row)[0]
    copy(line, row)
    return line


# To assign an array to a slice would do the same, and compile a sentence about shapes that do not fit: two seconds.
@device
def copy(target, source):
    """Writes ``source`` (n,) to the beginning of ``target``."""
    wide_vectors()
    for i in range(source.size):
        target[i] = source[i]


@device
def copy_rows(target, source):
    """Writes ``source`` (rows, columns) to the upper left of ``target``."""
    wide_vectors()
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]
