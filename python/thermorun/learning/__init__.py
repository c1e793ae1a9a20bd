"""Minimal-dissipation learning of energy-based models (Hnybida & Verret 2025)."""

from thermorun.learning import exact, potentials, quadrature, schedules, simulation, switching
from thermorun.learning.closed_loop import learn, theorem
from thermorun.learning.closed_loop import load as load_learned
from thermorun.learning.fluctuations import WorkAnalysis, analyse_works
from thermorun.learning.general import Learn, LearnResult, RuleResult
from thermorun.learning.potentials import Potential, exponential_family
from thermorun.learning.result import ExcessWorkResult, ProtocolResult
from thermorun.learning.run import excess_work, load
from thermorun.learning.schedules import Path, Tabulated, Trap
from thermorun.learning.spec import FIGURES, ExcessWork
from thermorun.learning.switching import FreeEnergy, FreeEnergyResult, free_energy
from thermorun.learning.timestep import compare_steps, halve_step

__all__ = [
    "FIGURES",
    "ExcessWork",
    "ExcessWorkResult",
    "FreeEnergy",
    "FreeEnergyResult",
    "Learn",
    "LearnResult",
    "Path",
    "Potential",
    "ProtocolResult",
    "RuleResult",
    "Tabulated",
    "Trap",
    "WorkAnalysis",
    "analyse_works",
    "compare_steps",
    "exact",
    "excess_work",
    "exponential_family",
    "free_energy",
    "halve_step",
    "learn",
    "load",
    "load_learned",
    "potentials",
    "quadrature",
    "schedules",
    "simulation",
    "switching",
    "theorem",
]
