"""Every compiler flag of the package, once, with its reason, and all that leans on Numba's inside.

``kernel``
    What Python calls.  Parallel, released from the GIL, cached on disk.
``serial_kernel``
    The same for what is not worth a thread, and for what several kernels call.
``device``
    What kernels call.  Always inlined, so that one loop body vectorises as a whole.

Shared flags:

``fastmath``
    Everything but ``nnan`` and ``ninf``: sums may be reordered into vector lanes and products contracted into fused
    multiply-adds, but a NaN or an infinity stays visible.
``error_model="numpy"``
    A division by zero gives inf or NaN instead of a branch that raises, which would stop vectorisation.
``pipeline_class``
    One machine code for each kernel: see ``_OwnCode``.

Interfaces that Numba calls private stand in this module alone: ``_OwnCode``, ``_NamedCache`` and ``wide_vectors``.
tests/kernels/test_jit.py says which versions of Numba were tried.
"""

from llvmlite.binding import Linkage
from numba import njit, types
from numba.core.caching import FunctionCache
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.typed_passes import AnnotateTypes
from numba.extending import intrinsic

# Of functions that several objects may define, and the linker takes one of.
_SHAREABLE = (Linkage.linkonce_any, Linkage.linkonce_odr, Linkage.weak_any, Linkage.weak_odr)

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


@register_pass(mutates_CFG=False, analysis_only=True)
class _OwnCode(AnalysisPass):
    """Binds a kernel to the copies of other functions that its own object code holds.

    Numba copies the functions that a kernel calls, and the bodies of its parallel loops, into the kernel's object, and
    optimises them there once more: sums under ``reassoc`` may come out in another order.  The originals stay in the
    process that compiles, and as both have one name the linker would take the original there and the copy wherever the
    object comes from the disk cache.  So the copies become internal symbols, which nothing else can stand in for.

    Copies stay visible in the module that other kernels link: there duplicates must merge.
    """

    _name = "own_code"

    def __init__(self):
        AnalysisPass.__init__(self)

    def run_pass(self, state):
        library = state.targetctx.codegen().create_library(state.func_id.func_qualname)
        library.enable_object_caching()
        optimize = library._optimize_final_module

        def optimize_and_bind():
            optimize()
            module = library._final_module
            shared = module.clone()
            for function in shared.functions:
                if not function.is_declaration and function.linkage == Linkage.external:
                    function.linkage = "linkonce_odr"
            library._shared_module = shared
            for function in module.functions:
                if not function.is_declaration and function.linkage in _SHAREABLE:
                    function.linkage = "internal"

        library._optimize_final_module = optimize_and_bind
        state.library = library
        return False


class _Compiler(CompilerBase):
    """Numba's pipeline with ``_OwnCode`` before the code is written."""

    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_OwnCode, AnnotateTypes)
        passes.finalize()
        return [passes]


_SHARED = {"nogil": True, "cache": True, "fastmath": FASTMATH, "error_model": "numpy", "pipeline_class": _Compiler}
kernel = njit(parallel=True, **_SHARED)
serial_kernel = njit(**_SHARED)
device = njit(forceinline=True, fastmath=FASTMATH, error_model="numpy")


def device_of(function):
    """The function under the flags of this package, whatever a user compiled it with."""
    return device(function.py_func if isinstance(function, Dispatcher) else function)


class _NamedCache(FunctionCache):
    """Numba's cache on disk, for kernels whose name says all that they close over.

    Numba's own key hashes the pickled closure, and dispatchers pickle differently in every process.
    """

    def _index_key(self, sig, codegen):
        return sig, codegen.magic_tuple()

    def load_overload(self, sig, target_context):
        """What is stored, or None: also where a user's module has moved, and the stored code cannot find it."""
        try:
            return super().load_overload(sig, target_context)
        except ImportError:
            return None


def named_kernel(function, name, compiled=kernel):
    """Compiles a kernel under a name of its own, which makes its symbols and its files in the cache its own.

    ``name`` must tell all that the function closes over; ``compiled`` is ``kernel`` or ``serial_kernel``.
    """
    function.__qualname__ = f"{function.__name__}-{name}"
    dispatcher = compiled(function)
    dispatcher._cache = _NamedCache(function)
    return dispatcher


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
