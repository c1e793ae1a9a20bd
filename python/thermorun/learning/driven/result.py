"""What a run along a path gave."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun.arrays import Array
from thermorun.estimates import Estimate, finite_or_none
from thermorun.learning.driven.spec import Drive
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DriveResult(Result):
    """Works of the particles of one ensemble along a path.

    ``work_of_each`` (particles,), energy.  ``delta_f`` is F at the end minus F at the start, ``exact_work`` the exact
    mean work and ``exact_from`` how it is known; each None where it is not.  ``first_law_residual`` is the largest
    |dE - W - Q| of any particle, energy.
    """

    spec: Drive
    work_of_each: Array
    heat: Estimate
    delta_f: float | None
    exact_work: float | None
    exact_from: str | None
    first_law_residual: float
    particle_steps_per_second: float

    @property
    def work(self) -> Estimate:
        """Mean work done on a particle."""
        count = len(self.work_of_each)
        if count < 2:
            return Estimate(float(np.mean(self.work_of_each)) if count else math.nan, math.nan)
        stderr = float(np.std(self.work_of_each, ddof=1)) / math.sqrt(count)
        return Estimate(float(np.mean(self.work_of_each)), stderr, dof=count - 1.0)

    @property
    def excess_work(self) -> Estimate | None:
        """Mean work minus Delta F, None where that is not known."""
        if self.delta_f is None:
            return None
        return Estimate(self.work.mean - self.delta_f, self.work.stderr, dof=self.work.dof)

    @property
    def exact_excess_work(self) -> float | None:
        """Its exact value, None where it is not known."""
        return None if self.exact_work is None or self.delta_f is None else self.exact_work - self.delta_f

    def rows(self) -> list[dict[str, Any]]:
        excess = self.excess_work
        return [
            {
                "work": self.work.to_dict(self.exact_work),
                "excess_work": None if excess is None else excess.to_dict(self.exact_excess_work),
                "delta_f": self.delta_f,
                "exact_from": self.exact_from,
                "heat": self.heat.to_dict(),
                "first_law_residual": finite_or_none(self.first_law_residual),
                "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
            }
        ]

    def tables(self) -> list[Table]:
        spec = self.spec
        rows = [
            _row("<W>", self.work, self.exact_work),
            ("Delta F", "" if self.delta_f is None else f"{self.delta_f:.6g}", "", ""),
            _row("W_ex = <W> - Delta F", self.excess_work, self.exact_excess_work),
        ]
        speed = f"{self.particle_steps_per_second:.3g} particle-steps/s on {self.threads} threads"
        notes = [
            f"{spec.particles:,} particles x {spec.steps:,} steps, {spec.integrator}, {spec.precision}",
            f"first law: |dE - W - Q| <= {self.first_law_residual:.0e}; {speed}",
        ]
        if len(self.work_of_each) < spec.particles:
            notes.append(f"only {len(self.work_of_each):,} of {spec.particles:,} particles so far")
        if self.exact_from is not None:
            notes.append(f"exact: {self.exact_from}")
        if self.delta_f is None:
            notes.append("Delta F ?: no closed form and no quadrature; 'thermorun free-energy' measures it")
        name = spec.potential if isinstance(spec.potential, str) else spec.potential.name
        return [Table(f"Work of driving {name}", ("quantity", "value / energy", "exact", "z"), rows, notes)]

    def figures(self) -> "dict[str, Figure]":
        from thermorun.learning.driven import figures

        return {"": figures.driven(self)}


def _row(name: str, value: Estimate | None, truth: float | None) -> tuple[str, ...]:
    z = math.nan if value is None or truth is None else value.z(truth)
    return (
        name,
        "?" if value is None else str(value),
        "" if truth is None else f"{truth:.6g}",
        "" if math.isnan(z) else f"{z:+.1f}",
    )
