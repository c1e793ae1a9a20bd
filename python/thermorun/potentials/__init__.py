"""Any potential E(x, theta), in any dimension: the ground that learning, metric and free_energy stand on.

Built-in potentials are here by name: ``thermorun.potentials.double_well``, or "double-well" wherever a potential is
asked for.
"""

from thermorun.potentials.built_in import (
    NAMES,
    bistable,
    chain,
    double_well,
    gaussian,
    mixture,
    quartic,
    stiffness,
    trap,
    trap_and_stiffness,
)
from thermorun.potentials.by_name import load, resolve
from thermorun.potentials.check import check
from thermorun.potentials.domains import Periodic
from thermorun.potentials.dynamics import INTEGRATORS, Driven, midpoints
from thermorun.potentials.exact import Exact
from thermorun.potentials.potential import Potential, exponential_family
from thermorun.potentials.spec import PotentialSpec
from thermorun.potentials.system import System

__all__ = [
    "INTEGRATORS",
    "NAMES",
    "Driven",
    "Exact",
    "Periodic",
    "Potential",
    "PotentialSpec",
    "System",
    "bistable",
    "chain",
    "check",
    "double_well",
    "exponential_family",
    "gaussian",
    "load",
    "midpoints",
    "mixture",
    "quartic",
    "resolve",
    "stiffness",
    "trap",
    "trap_and_stiffness",
]
