"""Free-energy differences from works forward and back (Jarzynski 1997, Crooks 1999, Bennett 1976)."""

from thermorun.free_energy.estimators import WorkAnalysis, analyse_works
from thermorun.free_energy.run import FreeEnergy, FreeEnergyResult
from thermorun.free_energy.run import free_energy as measure

__all__ = ["FreeEnergy", "FreeEnergyResult", "WorkAnalysis", "analyse_works", "measure"]
