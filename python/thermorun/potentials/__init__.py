"""Any potential E(x, theta), in any dimension: the ground that learning, metric and free_energy stand on."""

from thermorun.potentials.potential import NAMES, Potential, check, exponential_family, load

__all__ = ["NAMES", "Potential", "check", "exponential_family", "load"]
