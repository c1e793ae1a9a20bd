"""Minimal-dissipation learning of energy-based models (Hnybida & Verret 2025).

Theta follows the particles that share it.  The trap, which is exactly solvable, is a room of its own.
"""

from thermorun.learning.by_name import or_drive
from thermorun.learning.driven.result import DriveResult
from thermorun.learning.driven.run import drive
from thermorun.learning.driven.spec import Drive
from thermorun.learning.result import LearnResult, RuleResult
from thermorun.learning.run import learn
from thermorun.learning.spec import Learn
from thermorun.learning.theorem import Deviation, Theorem, theorem
from thermorun.learning.trap import exact, protocols
from thermorun.learning.trap.protocols import Path, Tabulated, Trap
from thermorun.learning.trap.result import ExcessWorkResult, ProtocolResult
from thermorun.learning.trap.run import excess_work as learn_trap
from thermorun.learning.trap.spec import FIGURES, ExcessWork

excess_work = or_drive(learn_trap)

__all__ = [
    "FIGURES",
    "Deviation",
    "Drive",
    "DriveResult",
    "ExcessWork",
    "ExcessWorkResult",
    "Learn",
    "LearnResult",
    "Path",
    "ProtocolResult",
    "RuleResult",
    "Tabulated",
    "Theorem",
    "Trap",
    "drive",
    "exact",
    "excess_work",
    "learn",
    "protocols",
    "theorem",
]
