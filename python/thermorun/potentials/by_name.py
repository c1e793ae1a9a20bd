"""How a potential is found: by name, in a user's file, or given as it is."""

import importlib.util
import sys
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from numba import cloudpickle

from thermorun.errors import InputError, short
from thermorun.potentials.built_in import NAMES, named
from thermorun.potentials.check import check
from thermorun.potentials.potential import Potential


def load(name: str) -> Potential:
    """A potential by its name (one of `NAMES`), or a user's own as ``FILE.py:NAME``, checked.

    Parameters
    ----------
    name : str
        ``gaussian-3`` and ``chain-100`` too: those of other dimensions than the usual.

    Raises
    ------
    InputError
        Where there is no such potential, or it contradicts itself.

    Examples
    --------
    >>> from thermorun import potentials
    >>> potentials.load("double-well").parameters
    ('barrier', 'tilt')
    """
    if (built_in := named(name)) is not None:
        return built_in
    file, _, variable = name.rpartition(":")
    if not file.endswith(".py"):
        raise InputError(f"potential is {name!r}; it must be one of {', '.join(NAMES)}, or FILE.py:NAME.")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"potential is {name!r}, but the file {file} does not exist.")
    module = _run(path, name)
    potential = getattr(module, variable, None)
    if not isinstance(potential, Potential):
        there = [key for key, value in vars(module).items() if isinstance(value, Potential)]
        raise InputError(
            f"potential is {name!r}, but {variable} is no Potential; {file} holds {', '.join(there) or 'none'}."
        )
    check(potential)
    return potential


def _run(path: Path, name: str) -> Any:
    """The module that a user's file makes."""
    # Kernels carry the module's name in their symbols, so that two files must not have the same.
    spec = importlib.util.spec_from_file_location(f"potential_{zlib.crc32(bytes(path.resolve())):08x}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"potential is {name!r}, but {path} is no file of Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where compiled code that comes from the disk looks for it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"potential is {name!r}, but {path} cannot be run ({error}).") from error
    # Another process has no module of this name.
    cloudpickle.register_pickle_by_value(module)
    return module


def resolve(potential: str | Potential) -> Potential:
    """A potential as it is given, or the one of a name: see `load`."""
    if isinstance(potential, Potential):
        return potential
    if not isinstance(potential, str):
        raise InputError(f"potential is {short(potential)}; it must be a name, FILE.py:NAME, or a Potential.")
    file = Path(potential.rpartition(":")[0])
    return _loaded(potential, file.stat().st_mtime_ns if file.is_file() else 0)


@cache
def _loaded(name: str, changed: int) -> Potential:
    """The potential of a name, once for every change of its file, so that its kernels are compiled once."""
    return load(name)
