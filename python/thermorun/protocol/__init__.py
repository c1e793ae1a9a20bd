"""Protocols between two points that are best for an objective: least work, surest free energies, a target reached."""

from thermorun.protocol.result import ProtocolResult
from thermorun.protocol.run import find
from thermorun.protocol.spec import Protocol

__all__ = ["Protocol", "ProtocolResult", "find"]
