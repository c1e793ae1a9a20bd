"""A number and how well it is known."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A mean over independent samples and its standard error, which is NaN where the samples do not tell it.

    ``samples`` counts what was averaged with equal weights (replicas, say), so that estimates can be merged.
    """

    mean: float
    stderr: float
    samples: int = 1

    def merge(self, other: "Estimate") -> "Estimate":
        """The estimate from both sets of samples."""
        total = self.samples + other.samples
        mine, theirs = self.samples / total, other.samples / total
        return Estimate(
            mine * self.mean + theirs * other.mean, math.hypot(mine * self.stderr, theirs * other.stderr), total
        )

    def z(self, truth: float) -> float:
        """(mean - truth) / stderr."""
        return (self.mean - truth) / self.stderr if self.stderr > 0 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what is unknown is null."""
        return {"mean": finite_or_none(self.mean), "stderr": finite_or_none(self.stderr)}

    def __str__(self) -> str:
        """The mean to two digits of its standard error, as in 0.14286(56)."""
        if math.isnan(self.mean):
            return "?"
        if not (math.isfinite(self.stderr) and self.stderr > 0 and math.isfinite(self.mean)):
            return f"{self.mean:.6g} ± ?"
        digits = max(0, 1 - math.floor(math.log10(self.stderr)))
        return f"{self.mean:.{digits}f} ± {self.stderr:.{digits}f}"


def finite_or_none(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
