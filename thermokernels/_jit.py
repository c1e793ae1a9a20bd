"""Every compiler flag of the package, once, with its reason.

``kernel``
    What Python calls.  Parallel, released from the GIL, cached on disk.
``serial_kernel``
    The same for what is not worth a thread.
``device``
    What kernels call.  Always inlined: so one loop body vectorises as a whole; and so there is one machine code of it.
    A function that is called exists twice, on its own and, optimised once more, in the object file of its caller.
    Which of them runs depends on what came from the disk cache, and the two may add in different orders.

Shared flags:

``fastmath``
    Everything but ``nnan`` and ``ninf``: sums may be reordered into vector lanes and products contracted into fused
    multiply-adds, but a NaN or an infinity stays visible.
``error_model="numpy"``
    A division by zero gives inf or NaN instead of a branch that raises, which would stop vectorisation.
"""

from numba import njit, types
from numba.extending import intrinsic

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

kernel = njit(parallel=True, nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
serial_kernel = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")
device = njit(forceinline=True, fastmath=FASTMATH, error_model="numpy")


@intrinsic
def wide_vectors(typing_context):
    """Ask LLVM for 512-bit vectors in the device function that calls this.

    For most Intel targets LLVM stops at 256 bits even where 512 exist.  Our loops are bound by the number of vector
    instructions, and double width makes them 1.4 times faster (bench/README.md).  The attribute belongs to one function
    and must stand where the loop does: a device function is optimised, loops and all, before it is inlined.  Machines
    without such vectors ignore it.
    """

    def codegen(context, builder, signature, arguments):
        set.add(
            builder.function.attributes, '"prefer-vector-width"="512"'
        )  # llvmlite's `add` knows no string attributes
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def float_bits(typing_context, value):
    """The 32 bits of a float32, as int32."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


@intrinsic
def bits_float(typing_context, bits):
    """The float32 whose bits are this int32."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


@intrinsic
def bits_double(typing_context, bits):
    """The float64 whose bits are this int64."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen
