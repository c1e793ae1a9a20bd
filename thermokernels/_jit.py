"""Every compiler flag of the package, once, with its reason, and all that leans on Numba's inside.

``kernel``
    What Python calls.  Parallel, released from the GIL, cached on disk.
``serial_kernel``
    The same for what is not worth a thread, and for what several kernels call.
``device``
    What kernels call.  Always inlined, so that one loop body vectorises as a whole.

The last two may be called from Python too, and are then compiled once more, with a way in: see ``_Inside``.  Shared
flags:

``fastmath``
    Everything but ``nnan`` and ``ninf``: sums may be reordered into vector lanes and products contracted into fused
    multiply-adds, but a NaN or an infinity stays visible.
``error_model="numpy"``
    A division by zero gives inf or NaN instead of a branch that raises, which would stop vectorisation.
``pipeline_class``
    One machine code for each kernel, and none for what it is made of: see ``_Waiting`` and ``_Own``.  A first run, and
    most of the tests, are spent compiling (bench/README.md).

Interfaces that Numba calls private stand in this module alone: from ``_Waiting`` to ``wide_vectors``.
tests/kernels/test_jit.py says which versions of Numba were tried.
"""

import gc
from functools import cached_property

from llvmlite.binding import Linkage
from numba import config, njit, types
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import AnalysisPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import AnnotateTypes
from numba.extending import intrinsic

# Of functions that several objects may define, and the linker takes one of.
_SHAREABLE = (Linkage.linkonce_any, Linkage.linkonce_odr, Linkage.weak_any, Linkage.weak_odr)

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}


class _Waiting(JITCodeLibrary):
    """What is compiled on the way to a kernel: machine code, and mostly its optimisation, wait until somebody calls it.

    Numba would optimise every function on the way, and make machine code of it.  But kernels link the functions that
    they call, and optimise them as their own, so that the kernel's machine code is the only one that ever runs.
    """

    optimised_alone = False  # before it is linked: see ``wide_vectors``
    _waits = False
    _environment = None

    def _optimize_final_module(self):
        if self.optimised_alone:
            super()._optimize_final_module()

    def _finalize_final_module(self):
        if getattr(self, "_compiled_object", None) is not None:  # from the cache on disk
            super()._finalize_final_module()
        else:
            self._finalized = self._waits = True

    def _make(self):
        self._waits = False
        if not self.optimised_alone:
            super()._optimize_final_module()
        self._bind()
        super()._finalize_final_module()
        if self._environment is not None:
            self._codegen.set_env(*self._environment)

    def _bind(self):
        """What is left to do to the module before it becomes machine code."""

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        if self._waits and any(one.name == name for one in self.get_defined_functions()):
            self._make()
        return super().get_pointer_to_function(name)

    def _get_compiled_object(self):
        if self._waits:
            self._make()
        return super()._get_compiled_object()

    @property
    def codegen(self):
        """Asked by Numba for ``set_env`` alone: of this library, while its code waits."""
        return self if self._waits else self._codegen

    def set_env(self, name, environment):
        """Remembers what is to be set as soon as there is code."""
        self._environment = name, environment


class _Own(_Waiting):
    """A kernel of ours, bound to the copies of other functions that its own object code holds.

    Numba copies the functions that a kernel calls, and the bodies of its parallel loops, into the kernel's object, and
    optimises them there once more: sums under ``reassoc`` may come out in another order.  The originals stay in the
    process that compiles, and as both have one name the linker would take the original there and the copy wherever the
    object comes from the disk cache.  So the copies become internal symbols, which nothing else can stand in for.

    Copies stay visible in the module that other kernels link: there duplicates must merge.
    """

    def _bind(self):
        if self._get_module_for_linking() is self._final_module:
            self._shared_module = self._final_module.clone()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage in _SHAREABLE:
                function.linkage = "internal"


class _Link(_Waiting):
    """What Numba makes of the body of a parallel loop, and puts around it, while it writes the kernel."""

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        # Until the kernel is written nobody can call it, though Numba asks for what it takes to be Python's way in.
        return 0 if self._codegen._library_class is _Link else super().get_pointer_to_function(name)


@register_pass(mutates_CFG=False, analysis_only=True)
class _OwnCode(AnalysisPass):
    """Has the code that is about to be written go into a library of our kind."""

    _name = "own_code"

    def __init__(self):
        AnalysisPass.__init__(self)

    def run_pass(self, state):
        codegen = state.targetctx.codegen()
        state.library = _Own(codegen, state.func_id.func_qualname)
        state.library.enable_object_caching()
        codegen._library_class = _Link
        return False


class _Compiler(CompilerBase):
    """Numba's pipeline with libraries of our kind, also for what it compiles on the way."""

    def define_pipelines(self):
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_OwnCode, AnnotateTypes)
        passes.finalize()
        return [passes]

    def _compile_core(self):
        codegen = self.state.targetctx.codegen()
        before, collecting = codegen._library_class, gc.isenabled()
        codegen._library_class = _Waiting
        gc.disable()  # a tenth of the time goes into looking for cycles among objects that stay
        try:
            return super()._compile_core()
        finally:
            codegen._library_class = before
            if collecting:
                gc.enable()


_FLAGS = {"fastmath": FASTMATH, "error_model": "numpy"}
_INLINED = {"forceinline": True, "pipeline_class": _Compiler, **_FLAGS}
_SHARED = {"nogil": True, "cache": True, "pipeline_class": _Compiler, **_FLAGS}
# Of all that Numba may make parallel, the loops that say so: whatever else it turns into loops takes time to compile.
_LOOPS_ALONE = {"prange": True} | dict.fromkeys(
    ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False
)


class _Inside(CPUDispatcher):
    """A function as kernels see it, without the way in from Python, which takes as long to compile as the function.

    A call from Python goes to ``entry``, which is compiled when the first one comes.
    """

    @cached_property
    def entry(self):
        """The same function with a way in."""
        return njit(**(_INLINED if self.targetoptions.get("forceinline") else _SHARED))(self.py_func)

    def _insert(self, *code, **more):
        pass

    def _compile_for_args(self, *arguments, **named):
        return self.entry


def _inside(**options):
    """A decorator that makes a function an ``_Inside``, or leaves it alone where Numba is told to compile nothing."""
    options = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_FLAGS, **options}

    def made(function):
        return function if config.DISABLE_JIT else _Inside(function, {}, options, pipeline_class=_Compiler)

    return made


kernel = njit(parallel=_LOOPS_ALONE, **_SHARED)
serial_kernel = _inside()
device = _inside(forceinline=True)


def device_of(function):
    """The function under the flags of this package, whatever a user compiled it with."""
    return device(function.py_func if isinstance(function, Dispatcher) else function)


def is_compiled(compiled):
    """Whether a kernel has machine code for some types of arguments: in this process, or in the cache on disk."""
    return bool(compiled.overloads) or bool(compiled._cache._cache_file._load_index())


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
    getattr(dispatcher, "entry", dispatcher)._cache = _NamedCache(function)
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
        context.active_code_library.optimised_alone = True
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
