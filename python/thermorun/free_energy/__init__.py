"""Free-energy differences from works forward and back (Jarzynski 1997, Crooks 1999, Bennett 1976)."""

from thermorun.free_energy.estimators import DeltaF, WorkAnalysis, analyse_works
from thermorun.free_energy.result import FreeEnergyResult
from thermorun.free_energy.run import exact_delta_f, measure
from thermorun.free_energy.spec import FreeEnergy
from thermorun.free_energy.works import OneWayAnalysis, analyse_one_way, correlation_time, read_works

__all__ = [
    "DeltaF",
    "FreeEnergy",
    "FreeEnergyResult",
    "OneWayAnalysis",
    "WorkAnalysis",
    "analyse_one_way",
    "analyse_works",
    "correlation_time",
    "exact_delta_f",
    "measure",
    "read_works",
]
