"""What a run along a path gave."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thermorun.arrays import Array
from thermorun.estimates import Estimate, finite_or_none, over_samples
from thermorun.learning.driven.layout import Histograms
from thermorun.learning.driven.spec import Drive
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DriveResult(Result):
    """Works of the particles of one ensemble along a path.

    ``work_of_each`` (particles,), energy.  ``delta_f`` is F at the end minus F at the start, ``exact_work`` and
    ``exact_heat`` the exact means and ``exact_from`` how they are known; each None where it is not.
    ``first_law_residual`` is the largest |dE - W - Q| of any particle, energy.

    Where kT follows a path ``reduced_work_of_each`` (particles,) is every particle's change of E/kT minus its heat over
    the kT at which it was absorbed, s, of which <exp(-s)> = Z(end) / Z(start); ``delta_reduced`` is the change of
    F/kT = -ln Z, and ``exact_reduced_work`` the exact mean of s.  Then ``delta_f`` is None.

    ``histograms`` are those at the times ``at``, and ``snapshots`` (times, particles, dimension) the first particles'
    x, length; None where there are none.
    """

    spec: Drive
    work_of_each: Array
    heat: Estimate
    reduced_work_of_each: Array | None
    delta_f: float | None
    delta_reduced: float | None
    exact_work: float | None
    exact_heat: float | None
    exact_reduced_work: float | None
    exact_from: str | None
    first_law_residual: float
    particle_steps_per_second: float
    histograms: Histograms | None
    snapshots: Array | None

    @property
    def work(self) -> Estimate:
        """Mean work done on a particle."""
        return over_samples(self.work_of_each)

    @property
    def reduced_work(self) -> Estimate | None:
        """Mean reduced work, None where kT follows no path."""
        return None if self.reduced_work_of_each is None else over_samples(self.reduced_work_of_each)

    @property
    def excess_work(self) -> Estimate | None:
        """Mean work minus Delta F, None where that is not known."""
        return _less(self.work, self.delta_f)

    @property
    def exact_excess_work(self) -> float | None:
        """Its exact value, None where it is not known."""
        return None if self.exact_work is None or self.delta_f is None else self.exact_work - self.delta_f

    @property
    def entropy_production(self) -> Estimate | None:
        """Mean entropy that system and bath gain, that of relaxation at the end included, in kB; never negative.

        The mean reduced work minus the change of F/kT; at one temperature excess work over kT.  None where free
        energies are not known.
        """
        reduced = self.reduced_work
        if reduced is not None:
            return _less(reduced, self.delta_reduced)
        excess, beta = self.excess_work, self.spec.beta
        if excess is None:
            return None
        return Estimate(beta * excess.mean, beta * excess.stderr, excess.samples, excess.dof)

    @property
    def exact_entropy_production(self) -> float | None:
        """Its exact value, None where it is not known."""
        if self.reduced_work_of_each is not None:
            known = self.exact_reduced_work, self.delta_reduced
            return None if known[0] is None or known[1] is None else known[0] - known[1]
        return None if self.exact_excess_work is None else self.spec.beta * self.exact_excess_work

    def rows(self) -> list[dict[str, Any]]:
        excess, reduced, entropy = self.excess_work, self.reduced_work, self.entropy_production
        return [
            {
                "work": self.work.to_dict(self.exact_work),
                "excess_work": None if excess is None else excess.to_dict(self.exact_excess_work),
                "delta_f": self.delta_f,
                "exact_from": self.exact_from,
                "heat": self.heat.to_dict(self.exact_heat),
                "reduced_work": None if reduced is None else reduced.to_dict(self.exact_reduced_work),
                "entropy_production": None if entropy is None else entropy.to_dict(self.exact_entropy_production),
                "delta_reduced": self.delta_reduced,
                "first_law_residual": finite_or_none(self.first_law_residual),
                "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
            }
        ]

    def tables(self) -> list[Table]:
        rows = [_row("<W>", "energy", self.work, self.exact_work), _row("<Q>", "energy", self.heat, self.exact_heat)]
        if self.spec.kT is None:
            known = "" if self.delta_f is None else f"{self.delta_f:.6g}"
            rows.append(("Delta F", "energy", known, "", ""))
            rows.append(_row("W_ex = <W> - Delta F", "energy", self.excess_work, self.exact_excess_work))
        else:
            known = "" if self.delta_reduced is None else f"{self.delta_reduced:.6g}"
            rows.append(_row("<s>, of E/kT and Q/kT", "1", self.reduced_work, self.exact_reduced_work))
            rows.append(("Delta F/kT", "1", known, "", ""))
            entropy = self.entropy_production
            rows.append(_row("entropy production", "kB", entropy, self.exact_entropy_production))
        name = self.spec.potential_name
        return [Table(f"Work of driving {name}", ("quantity", "unit", "value", "exact", "z"), rows, self._notes(), 2)]

    def _notes(self) -> list[str]:
        spec = self.spec
        speed = f"{self.particle_steps_per_second:.3g} particle-steps/s on {self.threads} threads"
        notes = [
            f"{spec.particles:,} particles x {spec.steps:,} steps, {spec.integrator}, {spec.precision}",
            f"first law: |dE - W - Q| <= {self.first_law_residual:.0e}; {speed}",
        ]
        if len(self.work_of_each) < spec.particles:
            notes.append(f"only {len(self.work_of_each):,} of {spec.particles:,} particles so far")
        if self.exact_from is not None:
            notes.append(f"exact: {self.exact_from}")
        if spec.kT is not None:
            notes.append(
                "kT follows a path: no Delta F and no excess work, for free energies at two temperatures bound no work;"
                " the entropy production counts the relaxation at the end too"
            )
            if self.delta_reduced is None:
                notes.append("entropy production ?: F/kT at the ends has no closed form and no quadrature")
        elif self.delta_f is None:
            notes.append("Delta F ?: no closed form and no quadrature; 'thermorun free-energy' measures it")
        return notes

    def figures(self) -> "dict[str, Figure]":
        from thermorun.learning.driven import figures

        found = {"": figures.driven(self)}
        if self.histograms is not None:
            found["x"] = figures.histograms(self.histograms)
        return found


def _less(value: Estimate, known: float | None) -> Estimate | None:
    return None if known is None else Estimate(value.mean - known, value.stderr, value.samples, value.dof)


def _row(name: str, unit: str, value: Estimate | None, truth: float | None) -> tuple[str, ...]:
    z = math.nan if value is None or truth is None else value.z(truth)
    return (
        name,
        unit,
        "?" if value is None else str(value),
        "" if truth is None else f"{truth:.6g}",
        f"{z:+.1f}" if math.isfinite(z) else "",
    )
