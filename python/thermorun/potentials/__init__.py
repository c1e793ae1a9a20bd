"""Any potential E(x, theta), in any dimension: the ground that learning, metric and free_energy stand on."""

from thermorun.potentials.dynamics import INTEGRATORS, Driven, midpoints
from thermorun.potentials.potential import NAMES, Potential, check, exponential_family, load, resolve
from thermorun.potentials.system import System

__all__ = [
    "INTEGRATORS",
    "NAMES",
    "Driven",
    "Potential",
    "System",
    "check",
    "exponential_family",
    "load",
    "midpoints",
    "resolve",
]
