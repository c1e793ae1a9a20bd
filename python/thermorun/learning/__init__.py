"""Minimal-dissipation learning of energy-based models (Hnybida & Verret 2025).

Theta follows the particles that share it.  The trap, which is exactly solvable, is a room of its own.
"""

from thermorun.learning.trap import exact, protocols
from thermorun.learning.trap.protocols import Path, Tabulated, Trap
from thermorun.learning.trap.result import ExcessWorkResult, ProtocolResult
from thermorun.learning.trap.run import excess_work
from thermorun.learning.trap.spec import FIGURES, ExcessWork

__all__ = [
    "FIGURES",
    "ExcessWork",
    "ExcessWorkResult",
    "Path",
    "ProtocolResult",
    "Tabulated",
    "Trap",
    "exact",
    "excess_work",
    "protocols",
]
