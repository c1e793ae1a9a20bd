"""What the time step does to the excess work."""

from dataclasses import dataclass
from typing import Any

from thermorun.estimates import Estimate, finite_or_none


@dataclass(frozen=True)
class StepCheck:
    """One protocol at dt and at dt/2.

    ``difference`` is measured, W(dt) - W(dt/2).  ``bias`` is the mean work of the scheme itself at dt, with infinitely
    many particles, minus the exact value: free of noise.  Energies.  ``bias_over_stderr`` compares it with the standard
    error at dt.
    """

    label: str
    difference: Estimate
    bias: float
    bias_over_stderr: float

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "protocol": self.label,
            "difference": self.difference.to_dict(),
            "bias": finite_or_none(self.bias),
            "bias_over_stderr": finite_or_none(self.bias_over_stderr),
        }
