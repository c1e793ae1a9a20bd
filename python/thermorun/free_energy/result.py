"""What forward and reverse ensembles gave."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from thermorun.arrays import Array
from thermorun.estimates import Estimate, finite_or_none
from thermorun.free_energy.estimators import WorkAnalysis, analyse_works, number
from thermorun.free_energy.spec import FreeEnergy
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# So many times fewer steps than by default may show in Delta F: with Heun's, twice as many begin to, at a million
# particles (tests/free_energy).
_FEWER = 8


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FreeEnergyResult(Result):
    """Works of forward and reverse ensembles, and what follows from them.

    ``forward`` and ``reverse`` (particles,) are the works done on each particle, energy; ``exact`` is Delta F where it
    is known and ``exact_from`` says how ("closed form", "quadrature").  ``first_law_residual`` is the largest
    |dE - W - Q| of any particle, energy; ``usual_steps`` what the spec would have taken by default.
    """

    spec: FreeEnergy
    forward: Array
    reverse: Array
    first_law_residual: float
    exact: float | None
    exact_from: str | None
    usual_steps: int
    particle_steps_per_second: float

    @cached_property
    def analysis(self) -> WorkAnalysis:
        """Every estimator, and what there is to know of the works."""
        return analyse_works(self.forward, self.reverse, self.spec.beta)

    @property
    def delta_f(self) -> Estimate:
        """Delta F by Bennett's acceptance ratio."""
        return self.analysis.bar.delta_f

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Those of the analysis, after what the works alone cannot tell: that the time step is too long."""
        several, spec = list(self.analysis.warnings), self.spec
        z = math.nan if self.exact is None else self.delta_f.z(self.exact)
        if abs(z) > 5:
            several.insert(
                0,
                f"Delta F by bar lies {z:+.1f} standard errors from the exact value: take more than {spec.steps}"
                " steps.",
            )
        elif spec.integrator != "exact" and self.usual_steps > _FEWER * int(spec.steps or 0):
            several.insert(
                0,
                f"steps is {spec.steps} and the default would be {self.usual_steps}: see whether twice the steps"
                " give the same Delta F, for the works cannot tell.",
            )
        return tuple(several)

    @property
    def verdict(self) -> str:
        """One sentence: what is wrong, or which standard errors can be trusted."""
        return self.analysis.verdict if self.warnings == self.analysis.warnings else self.warnings[0]

    def rows(self) -> list[dict[str, Any]]:
        return [one.to_dict(self.exact) for one in self.analysis.results]

    def to_dict(self) -> dict[str, Any]:
        return (
            self.analysis.to_dict()
            | super().to_dict()
            | {
                "verdict": self.verdict,
                "warnings": list(self.warnings),
                "exact": self.exact,
                "exact_from": self.exact_from,
                "first_law_residual": finite_or_none(self.first_law_residual),
                "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
            }
        )

    def tables(self) -> list[Table]:
        analysis, spec, rows = self.analysis, self.spec, []
        for one in analysis.results:
            z = math.nan if self.exact is None else one.delta_f.z(self.exact)
            rows.append(
                (
                    one.estimator,
                    str(one.delta_f),
                    "" if self.exact is None else f"{self.exact:.6f}",
                    "" if math.isnan(z) else f"{z:+.1f}",
                    number(one.effective),
                    "" if one.bias is None else f"{one.bias:+.1e}",
                )
            )
        notes = [
            f"{spec.particles:,} particles each way x {spec.steps:,} steps, {spec.integrator}, {spec.precision}",
            f"<W> forward {analysis.forward}, reverse {analysis.reverse}; overlap {analysis.overlap:.3g}",
            f"slope of ln P_F(W)/P_R(-W) over beta: {analysis.slope} (1 by Crooks' relation)",
            f"first law: |dE - W - Q| <= {self.first_law_residual:.0e};"
            f" {self.particle_steps_per_second:.3g} particle-steps/s on {self.threads} threads",
            f"verdict  {self.verdict}",
            *(f"warning  {sentence}" for sentence in self.warnings if sentence != self.verdict),
        ]
        name = spec.potential if isinstance(spec.potential, str) else spec.potential.name
        title = f"Free energy of {name}" + (f" (exact: {self.exact_from})" if self.exact_from else "")
        headings = ("estimator", "Delta F / energy", "exact", "z", "eff. works", "bias / energy")
        return [Table(title, headings, rows, notes)]

    def figures(self) -> "dict[str, Figure]":
        from thermorun.free_energy import figures

        return {"": figures.works(self)}
