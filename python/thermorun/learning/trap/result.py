"""What a run gave, and where a file keeps it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.estimates import Estimate, finite_or_none
from thermorun.learning.trap import exact
from thermorun.learning.trap.plan import Plan
from thermorun.learning.trap.protocols import Protocol
from thermorun.learning.trap.recorder import SERIES, estimate
from thermorun.learning.trap.spec import ExcessWork
from thermorun.store import Axis, RunFile, Variable

Array = NDArray[Any]

SNAPSHOT_PARTICLES = 2**18
_SUMMARY = {
    "excess_work": ("energy", "mean excess work at tau"),
    "excess_work_stderr": ("energy", "its standard error"),
    "excess_work_exact": ("energy", "the moment equations' value, infinitely many particles"),
    "theta_final": ("length", "mean over replicas of theta at tau"),
    "u_final": ("length", "mean over replicas of u at tau"),
    "first_law_residual": ("energy", "largest |energy_change - work - heat| at any recorded time"),
    "particle_steps_per_second": ("1/s", "particles times steps over the time spent in kernels"),
}
_EXACT = {
    "exact_u": ("length", "u, moment equations with infinitely many particles"),
    "exact_theta": ("length", "theta, moment equations with infinitely many particles"),
    "exact_work": ("energy", "excess work, moment equations with infinitely many particles"),
    "exact_work_stderr": ("energy", "standard error of the mean work that the exact Gaussian law predicts"),
}


@dataclass(frozen=True)
class ProtocolResult:
    """What one protocol gave.

    ``time`` is (rows,); where theta jumps a time stands twice, before and after.  ``series`` holds arrays (rows,
    replicas) under the names of ``work.SERIES``; ``exact`` is the truth for the same times.  ``density`` (snapshots,
    bins) is that of x at ``density_time`` and ``density_x``; empty without snapshots.  ``particle_work`` and
    ``particle_heat`` are (replicas, particles), or None unless the spec keeps them.
    """

    label: str
    protocol: Protocol
    spec: ExcessWork
    time: Array
    series: dict[str, Array]
    exact: exact.Moments
    particle_steps_per_second: float
    density_time: Array
    density_x: Array
    density: Array
    particle_work: Array | None = None
    particle_heat: Array | None = None

    def estimate(self, name: str, row: int = -1) -> Estimate:
        """The mean over replicas of a series at one row, with its standard error."""
        within = self.series.get(f"var_{name}")
        return estimate(self.series[name][row], None if within is None or self.spec.noisy_data else within[row])

    @property
    def excess_work(self) -> Estimate:
        """Mean excess work at tau, end jumps included."""
        return self.estimate("work")

    @property
    def first_law_residual(self) -> float:
        """The largest |dE - W - Q| of any replica at any recorded time."""
        return float(np.max(np.abs(self.series["first_law_residual"])))

    def to_dict(self) -> dict[str, Any]:
        """The numbers of one row of the table, in JSON's types."""
        formula = exact.closed_form(self.spec.trap, self.protocol)
        return {
            "protocol": self.label,
            "excess_work": self.excess_work.to_dict(),
            "stderr_between_replicas": estimate(self.series["work"][-1], None).to_dict()["stderr"],
            "exact": float(self.exact.work[-1]),
            "exact_stderr": float(self.exact.stderr(self.spec.particles, self.spec.replicas)[-1]),
            "closed_form": None if formula is None else {"equation": formula[0], "value": formula[1]},
            "bias": self.estimate("bias").mean,
            "heat": self.estimate("heat").mean,
            "energy_change": self.estimate("energy_change").mean,
            "theta_final": self.estimate("theta").mean,
            "u_final": self.estimate("u").mean,
            "first_law_residual": self.first_law_residual,
            "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
        }


@dataclass(frozen=True)
class ExcessWorkResult:
    """The results of a spec, protocol by protocol, and the file that holds them (or None)."""

    spec: ExcessWork
    protocols: dict[str, ProtocolResult]
    file: FilePath | None
    threads: int

    def __getitem__(self, label: str) -> ProtocolResult:
        return self.protocols[label]

    def __iter__(self) -> Iterator[ProtocolResult]:
        return iter(self.protocols.values())

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "results": [result.to_dict() for result in self],
            "spec": self.spec.to_dict(),
            "seed": self.spec.seed,
            "threads": self.threads,
            "precision": self.spec.precision,
            "file": None if self.file is None else str(self.file),
        }


def lay_out(file: RunFile, plans: list[Plan]) -> None:
    """Makes every section of a new file and publishes it."""
    labels = Axis("protocol", np.array([plan.label for plan in plans]), "1", "protocol")
    file.add_section("/", [labels], [Variable(name, ("protocol",), *about) for name, about in _SUMMARY.items()])
    rows: dict[str, int] = {}
    for plan in plans:
        _lay_out_protocol(file, plan)
        rows |= sections(plan)
    file.publish(rows)


def sections(plan: Plan) -> dict[str, int]:
    """A plan's sections and the rows that complete them."""
    rows = {plan.label: len(plan.time)}
    if plan.spec.snapshots:
        rows[f"{plan.label}/snapshots"] = len(plan.snapshot_points)
    if plan.spec.keep_work:
        rows[f"{plan.label}/particles"] = plan.spec.replicas
    return rows


def _lay_out_protocol(file: RunFile, plan: Plan) -> None:
    spec = plan.spec
    time = Axis("time", plan.time, "time", "time; twice where theta jumps: before and after")
    replica = Axis("replica", np.arange(spec.replicas), "1", "independent runs")
    measured = [Variable(name, ("time", "replica"), *about) for name, about in SERIES.items()]
    file.add_section(
        plan.label, [time, replica], measured + [Variable(name, ("time",), *about) for name, about in _EXACT.items()]
    )
    stderr = plan.exact.stderr(spec.particles, spec.replicas)
    truth = (plan.exact.u, plan.exact.theta, plan.exact.work, stderr)
    file.write_whole(plan.label, dict(zip(_EXACT, truth, strict=True)))
    if spec.snapshots:
        when = Axis("time", plan.scheme.times[plan.snapshot_points], "time", "time of the snapshot")
        edges = plan.snapshot_edges
        where = Axis("x", 0.5 * (edges[1:] + edges[:-1]), "length", "centre of the bin")
        about = ("1/length", f"density of x, from the first {SNAPSHOT_PARTICLES} particles of replica 0")
        file.add_section(f"{plan.label}/snapshots", [when, where], [Variable("density", ("time", "x"), *about)])
    if spec.keep_work:
        particle = Axis("particle", np.arange(spec.particles), "1", "particle")
        each = [
            Variable(name, ("replica", "particle"), "energy", f"{name} of each particle over the whole run")
            for name in ("work", "heat")
        ]
        file.add_section(f"{plan.label}/particles", [replica, particle], each)


def summarise(file: RunFile, plan: Plan, result: ProtocolResult) -> None:
    """Writes a protocol's entry in the table at the root."""
    values = result.to_dict() | {
        "excess_work": result.excess_work.mean,
        "excess_work_stderr": result.excess_work.stderr,
        "excess_work_exact": float(result.exact.work[-1]),
        "particle_steps_per_second": result.particle_steps_per_second,
    }
    file.write_entry("/", _index(plan), {name: values[name] for name in _SUMMARY})


def read(file: RunFile, plan: Plan) -> ProtocolResult:
    """What a file holds of a protocol, complete or not."""
    spec, rows = plan.spec, file.committed(plan.label)
    section, table = file.read(plan.label), file.read("/")
    truth = exact.Moments(*(getattr(plan.exact, name)[:rows] for name in exact.Moments.__dataclass_fields__))
    empty = dict.fromkeys(("time", "x", "density"), np.empty(0))
    snapshots = file.read(f"{plan.label}/snapshots") if spec.snapshots else empty
    particles = file.read(f"{plan.label}/particles") if spec.keep_work else {}
    return ProtocolResult(
        plan.label,
        plan.protocol,
        spec,
        plan.time[:rows],
        {name: section[name][:rows] for name in SERIES},
        truth,
        float(table["particle_steps_per_second"][_index(plan)]),
        density_time=snapshots["time"],
        density_x=snapshots["x"],
        density=snapshots["density"],
        particle_work=particles.get("work"),
        particle_heat=particles.get("heat"),
    )


def _index(plan: Plan) -> int:
    return list(plan.spec.built()).index(plan.label)
