"""Kernels of a potential: made once in a process, and named so that other processes find them on disk."""

import functools
import hashlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba.core.dispatcher import Dispatcher

import thermokernels
from thermokernels import correlations as friction
from thermokernels import langevin as ensemble

Function = Callable[..., Any]


class Kernels(NamedTuple):
    """The kernels of one potential and one integrator; ``thermokernels.ensemble.kernels`` explains their arguments."""

    evaluate: Any
    drive: Any
    step: Any
    dwell: Any


@functools.cache
def kernels(
    energy: Function, force: Function, gradient: Function, dimension: int, parameters: int, integrator: str
) -> Kernels:
    """The kernels of ``thermokernels.ensemble``, the same ones at every call."""
    described = (energy, force, gradient, dimension, parameters, integrator)
    return Kernels(*ensemble.kernels(*described, _name(described)))


@functools.cache
def correlate(
    energy: Function, force: Function, gradient: Function, dimension: int, parameters: int, integrator: str
) -> Any:
    """The kernel of ``thermokernels.friction``, the same one at every call."""
    described = (energy, force, gradient, dimension, parameters, integrator)
    return friction.correlate(*described, _name(described))


def _name(described: tuple[Any, ...]) -> str:
    return fingerprint((*described, _package()))[:32]


def fingerprint(value: Any) -> str:
    """A hash of a function as it would be compiled: its code, constants, globals, closure and all that they use.

    Equal in every process; takes functions, compiled functions, numbers, strings, arrays and tuples of them.
    """
    digest = hashlib.sha256()
    _describe(value, digest, set())
    return digest.hexdigest()


def _describe(value: Any, digest: Any, seen: set[int]) -> None:
    if isinstance(value, Dispatcher):
        flags = {key: sorted(flag) if isinstance(flag, set) else flag for key, flag in value.targetoptions.items()}
        digest.update(repr(sorted(flags.items())).encode())
        value = value.py_func
    if isinstance(value, types.FunctionType):
        if id(value) in seen:
            return
        seen.add(id(value))
        _describe(value.__code__, digest, seen)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _describe((*cells, *(value.__defaults__ or ())), digest, seen)
        for name in sorted(_names(value.__code__)):
            if name in value.__globals__:
                digest.update(name.encode())
                _describe_global(value.__globals__[name], _names(value.__code__), digest, seen)
    elif isinstance(value, types.CodeType):
        digest.update(value.co_code)
        digest.update(repr((value.co_names, value.co_argcount)).encode())
        for constant in value.co_consts:
            _describe(constant, digest, seen)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, tuple | list):
        digest.update(f"{type(value).__name__} {len(value)}".encode())
        for element in value:
            _describe(element, digest, seen)
    elif isinstance(value, bool | int | float | complex | str | bytes | np.generic | None):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    else:
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
        digest.update(name.encode())


def _describe_global(value: Any, names: set[str], digest: Any, seen: set[int]) -> None:
    if not isinstance(value, types.ModuleType):
        _describe(value, digest, seen)
        return
    digest.update(value.__name__.encode())
    if value.__name__.partition(".")[0] not in ("math", "numpy", "numba"):
        for name in sorted(names):
            if hasattr(value, name):
                _describe(getattr(value, name), digest, seen)


def _names(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


@functools.cache
def _package() -> str:
    """A hash of the kernels' sources: Numba's cache looks at the file of a kernel, not at what it imports."""
    digest = hashlib.sha256()
    for source in sorted(Path(thermokernels.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
