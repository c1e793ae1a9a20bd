"""Kernels of a potential: made once in a process, and named so that other processes find them on disk."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import thermokernels
from thermokernels import adjoint_path, correlations, langevin
from thermorun.potentials.sources import fingerprint

Function = Callable[..., Any]
# Low, high and whether it is periodic, of each coordinate; empty where x may be anywhere.
Plain = tuple[tuple[float, float, bool], ...]


class Kernels(NamedTuple):
    """The kernels of one potential and one integrator; `thermokernels.langevin.kernels` explains their arguments."""

    evaluate: Any
    drive: Any
    step: Any
    dwell: Any


@functools.cache
def kernels(
    energy: Function, force: Function, gradient: Function, dimension: int, parameters: int, integrator: str,
    domain: Plain = (),
) -> Kernels:  # fmt: skip
    """The kernels of `thermokernels.langevin`, the same ones at every call."""
    described = (energy, force, gradient, dimension, parameters, integrator)
    return Kernels(*langevin.kernels(*described, _name(described, domain), domain))


@functools.cache
def correlate(
    energy: Function, force: Function, gradient: Function, dimension: int, parameters: int, integrator: str,
    domain: Plain = (),
) -> Any:  # fmt: skip
    """The kernel of `thermokernels.correlations`, the same one at every call."""
    described = (energy, force, gradient, dimension, parameters, integrator)
    return correlations.correlate(*described, _name(described, domain), domain)


@functools.cache
def path_gradient(
    functions: tuple[Function, Function, Function], along: tuple[Function, Function], dimension: int, parameters: int,
    integrator: str, domain: Plain = (),
) -> Any:  # fmt: skip
    """The kernels of `thermokernels.adjoint_path`, the same ones at every call."""
    described = (*functions, *along, dimension, parameters, integrator)
    shape = (dimension, parameters, integrator)
    return adjoint_path.kernels(functions, along, *shape, _name(described, domain), domain)


def _name(described: tuple[Any, ...], domain: Plain) -> str:
    return fingerprint((*described, *((domain,) if domain else ()), _package()))[:32]


@functools.cache
def _package() -> str:
    """A hash of the kernels' sources: Numba's cache looks at the file of a kernel, not at what it imports."""
    digest = hashlib.sha256()
    for source in sorted(Path(thermokernels.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
