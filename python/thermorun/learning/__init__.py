"""Minimal-dissipation learning of energy-based models (Hnybida & Verret 2025).

Theta follows the particles that share it.  The trap, which is exactly solvable, is a room of its own.
"""

from thermorun.learning.run import learn, theorem
from thermorun.learning.spec import Learn, LearnResult, RuleResult
from thermorun.learning.trap import exact
from thermorun.learning.trap import protocols as schedules
from thermorun.learning.trap.protocols import Path, Tabulated, Trap
from thermorun.learning.trap.result import ExcessWorkResult, ProtocolResult
from thermorun.learning.trap.run import excess_work
from thermorun.learning.trap.spec import FIGURES, ExcessWork
from thermorun.learning.trap.timestep import compare_steps, halve_step

__all__ = [
    "FIGURES",
    "ExcessWork",
    "ExcessWorkResult",
    "Learn",
    "LearnResult",
    "Path",
    "ProtocolResult",
    "RuleResult",
    "Tabulated",
    "Trap",
    "compare_steps",
    "exact",
    "excess_work",
    "halve_step",
    "learn",
    "schedules",
    "theorem",
]
