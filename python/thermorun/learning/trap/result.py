"""What a run of the learned trap gave."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun.arrays import Array
from thermorun.errors import InputError
from thermorun.estimates import Estimate, finite_or_none, over_replicas
from thermorun.learning.trap import exact
from thermorun.learning.trap.protocols import Path, Protocol
from thermorun.learning.trap.spec import ExcessWork
from thermorun.learning.trap.timestep import StepCheck
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fewer degrees of freedom than this are worth a note.
_FEW = 20


@dataclass(frozen=True)
class Exact:
    """Exact values along a protocol, arrays over its ``time`` (Eqs. 12, 13 and 24, and their fluctuations).

    ``work`` is the mean work of as many particles as were run, and of such data; NaN where it is not known, which is
    with minibatches.  ``limit`` is that of infinitely many.  ``stderr`` is what the Gaussian distribution of the work
    predicts for the standard error, with data that are known exactly.
    """

    u: Array
    theta: Array
    work: Array
    limit: Array
    stderr: Array


@dataclass(frozen=True)
class ProtocolResult:
    """What one protocol gave.

    ``time`` is (rows,); where theta jumps a time stands twice, before and after.  ``series`` holds arrays (rows,
    replicas) under the names of ``recorder.SERIES``; ``exact`` the exact values for the same times.  ``density``
    (snapshots, bins) is that of x at ``density_time`` and ``density_x``; empty without snapshots.  ``particle_work``
    and ``particle_heat`` are (replicas, particles), or None unless the spec keeps them.  ``complete`` says whether the
    run has reached tau.
    """

    label: str
    protocol: Protocol
    spec: ExcessWork
    complete: bool
    time: Array
    series: dict[str, Array]
    exact: Exact
    particle_steps_per_second: float
    density_time: Array
    density_x: Array
    density: Array
    particle_work: Array | None = None
    particle_heat: Array | None = None

    def estimate(self, name: str, row: int = -1) -> Estimate:
        """The mean over replicas of a series at one row, with its standard error.

        From within a replica where that tells it: in open loop from its particles, in closed loop, where they share
        theta, from its parts (``spec.split``).  Else from the spread of the replicas.
        """
        spec, within, open_loop = self.spec, self.series.get(f"var_{name}"), isinstance(self.protocol, Path)
        # Replicas with data of their own differ by more than each knows of itself.
        alike = open_loop or not (isinstance(spec.samples, int) or spec.minibatch is not None)
        found = over_replicas(self.series[name][row], within[row] if within is not None and alike else None)
        if within is None or not alike or not math.isinf(found.dof):
            return found
        dof = spec.particles - 1 if open_loop else spec.degrees_of_freedom
        return replace(found, dof=float(spec.replicas * dof))

    @property
    def excess_work(self) -> Estimate:
        """Mean excess work at tau, end jumps included."""
        return self.estimate("work")

    @property
    def exact_work(self) -> float | None:
        """Its exact value, None where it is not known."""
        value = float(self.exact.work[-1])
        return value if math.isfinite(value) else None

    @property
    def first_law_residual(self) -> float:
        """The largest |dE - W - Q| of any replica at any recorded time."""
        return float(np.max(np.abs(self.series["first_law_residual"])))

    @property
    def closed_form(self) -> tuple[str, float] | None:
        """What the paper gives for the total excess work with infinitely many particles: the equation, its value.

        None where it gives nothing, as for data whose mean is not theta*.
        """
        if isinstance(self.spec.samples, tuple):
            return None
        return exact.closed_form(self.spec.trap, self.protocol)

    @property
    def reason(self) -> str | None:
        """Why the standard error is not known, and what to do; None where it is."""
        if not math.isnan(self.excess_work.stderr):
            return None
        if isinstance(self.spec.samples, int) or self.spec.minibatch is not None:
            return "one replica with data of its own does not tell its error; take more replicas."
        return f"one replica of {self.spec.particles} particles does not tell its error; take more of either."

    def to_dict(self) -> dict[str, Any]:
        """The numbers of one row of the table, in JSON's types."""
        formula = self.closed_form
        return {
            "protocol": self.label,
            "excess_work": self.excess_work.to_dict(self.exact_work),
            "stderr_between_replicas": over_replicas(self.series["work"][-1]).to_dict()["stderr"],
            "exact_stderr": finite_or_none(self.exact.stderr[-1]),
            "limit": finite_or_none(self.exact.limit[-1]),
            "closed_form": None if formula is None else {"equation": formula[0], "value": formula[1]},
            "bias": self.estimate("bias").to_dict(),
            "heat": self.estimate("heat").to_dict(),
            "energy_change": self.estimate("energy_change").to_dict(),
            "theta_final": self.estimate("theta").to_dict(self.exact.theta[-1]),
            "u_final": self.estimate("u").to_dict(self.exact.u[-1]),
            "first_law_residual": finite_or_none(self.first_law_residual),
            "complete": self.complete,
            "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
        }


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ExcessWorkResult(Result):
    """The results of a spec by protocol; iterates over them, and ``result[label]`` is one.

    ``time_steps`` compares each with half the time step, where the spec asks for that.
    """

    spec: ExcessWork
    protocols: dict[str, ProtocolResult]
    time_steps: tuple[StepCheck, ...]

    def __getitem__(self, label: str) -> ProtocolResult:
        if label not in self.protocols:
            raise InputError(f"protocol is {label!r}; it must be one of {', '.join(self.protocols)}.")
        return self.protocols[label]

    def __iter__(self) -> Iterator[ProtocolResult]:
        return iter(self.protocols.values())

    def __len__(self) -> int:
        return len(self.protocols)

    def rows(self) -> list[dict[str, Any]]:
        return [protocol.to_dict() for protocol in self]

    def to_dict(self) -> dict[str, Any]:
        more = {"time_step": [check.to_dict() for check in self.time_steps]} if self.spec.check_dt else {}
        return super().to_dict() | {"precision": self.spec.precision} | more

    def tables(self) -> list[Table]:
        rows = [_row(protocol) for protocol in self]
        headings = ("protocol", "W_ex / energy", "exact", "z", "paper, Eq.", "theta", "u")
        tables = [Table("Excess work of learning a harmonic trap", headings, rows, self._notes())]
        if self.time_steps:
            tables.append(self._time_step_table())
        return tables

    def _notes(self) -> list[str]:
        spec, parts = self.spec, list(self)
        notes = [
            f"{spec.particles:,} particles x {spec.replicas:,} replicas x {spec.steps:,} steps a protocol,"
            f" {spec.precision}",
            "W_ex, theta, u: at tau, end jumps included; z: distance from the exact value",
            "exact: of as many particles and such data; paper: of infinitely many",
        ]
        rates = [one.particle_steps_per_second for one in parts if math.isfinite(one.particle_steps_per_second)]
        residual = max((one.first_law_residual for one in parts), default=math.nan)
        rate = f"; {sum(rates) / len(rates):.3g} particle-steps/s on {self.threads} threads" if rates else ""
        notes.append(f"first law: |dE - W - Q| <= {residual:.0e}{rate}")
        notes += [
            f"{one.label}: until t = {one.time[-1]:.3g} of {spec.tau:g} only" for one in parts if not one.complete
        ]
        notes += [f"{label}: not begun" for label in spec.built() if label not in self.protocols]
        if spec.check_dt and len(self.time_steps) < len(spec.built()):
            notes.append("time step: the runs with half the step are not complete")
        notes += dict.fromkeys(f"± ?: {one.reason}" for one in parts if one.reason is not None)
        if any(one.exact_work is None for one in parts):
            notes.append("exact ?: the noise of minibatches belongs to the time step, so there is no exact value")
        dof = min((one.excess_work.dof for one in parts if one.reason is None), default=math.inf)
        if dof < _FEW:
            notes.append(f"standard errors have {dof:.0f} degrees of freedom, which z allows for (Student's t)")
        return notes

    def _time_step_table(self) -> Table:
        rows = [
            (check.label, str(check.difference), f"{check.bias:+.2e}", f"{check.bias_over_stderr:+.4f}")
            for check in self.time_steps
        ]
        steps = int(self.spec.steps or 0)
        return Table(
            f"Time step: {steps:,} steps against {2 * steps:,}",
            ("protocol", "W(dt) - W(dt/2) / energy", "bias at dt / energy", "bias / stderr"),
            rows,
            ["bias: mean work of the scheme itself, infinitely many particles, minus the exact value"],
        )

    def figures(self) -> "dict[str, Figure]":
        from thermorun.learning.trap import figures

        drawn = {"": figures.ridges(self) if self.spec.snapshots else figures.works(self)}
        if self.spec.keep_work:
            drawn["distribution"] = figures.work_distributions(self)
        return drawn


def _row(protocol: ProtocolResult) -> tuple[str, ...]:
    work, truth, formula = protocol.excess_work, protocol.exact_work, protocol.closed_form
    z = math.nan if truth is None else work.z(truth)
    trap = protocol.spec.trap
    digits = 5 + (round(math.log10(abs(trap.origin) / trap.width)) if trap.origin else 0)
    return (
        protocol.label,
        str(work),
        "?" if truth is None else f"{truth:.6g}",
        "" if math.isnan(z) else f"{z:+.1f}",
        "" if formula is None else f"{formula[1]:.6g} ({formula[0].removeprefix('Eq. ')})",
        *(f"{protocol.estimate(name).mean:.{digits}g}" for name in ("theta", "u")),
    )
