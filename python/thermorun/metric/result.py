"""What a measurement of a metric gave, and what protocols between two points cost."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from thermorun.arrays import Array
from thermorun.estimates import Estimate, finite_or_none
from thermorun.metric.friction import Measured, Windows
from thermorun.metric.geodesic import Geodesic
from thermorun.metric.spec import Drive, Metric
from thermorun.potentials.least_work import LeastWork
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRICES = ("fisher", "friction", "relaxation")
PROTOCOLS = ("geodesic", "line", "optimal")
# Measured and exact values differ by more than this only where something is wrong: the time step, most of all.
_WRONG = 5.0


class ExactMetric(NamedTuple):
    """g, zeta and tau^r, each (p, p); tau^r is NaN where g is zero."""

    fisher: Array
    friction: Array
    relaxation: Array


@dataclass(frozen=True, kw_only=True)
class PointResult(Measured):
    """The metric at one theta: measured, how trajectories were cut, and what is known exactly, or None."""

    theta: tuple[float, ...]
    windows: Windows
    exact: ExactMetric | None

    def known(self, name: str, i: int, j: int) -> float:
        """The exact element of one of ``MATRICES``, NaN where it is not known."""
        return math.nan if self.exact is None else float(getattr(self.exact, name)[i, j])

    def rows(self, parameters: Sequence[str]) -> list[dict[str, Any]]:
        """In JSON's types, element by element."""
        rows = []
        for i, j in _pairs(parameters):
            row: dict[str, Any] = {"theta": dict(zip(parameters, self.theta, strict=True))}
            row["parameters"] = [parameters[i], parameters[j]]
            for name in MATRICES:
                exact = None if self.exact is None else self.known(name, i, j)
                row[name] = getattr(self, name)[i, j].to_dict(exact)
            row |= {"window": float(self.window[i, j]), "remainder": finite_or_none(self.remainder[i, j])}
            rows.append(row | {"truncated": self.truncated, "dt": self.windows.dt, "steps": self.windows.steps})
        return rows


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class MetricResult(Result):
    """The metric at every point that is complete; ``parameters`` are the potential's.

    A result is a sequence of its points: ``len(result)``, ``result[3]``, ``for point in result``.
    """

    spec: Metric
    parameters: tuple[str, ...]
    points: tuple[PointResult, ...]

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[PointResult]:
        return iter(self.points)

    def __getitem__(self, index: int) -> PointResult:
        return self.points[index]

    @property
    def fisher(self) -> Estimate:
        """g_ij, (p, p); over a grid (..., p, p), the axes in the order of the parameters."""
        return self._all("fisher")

    @property
    def friction(self) -> Estimate:
        """zeta_ij [energy time], as ``fisher``."""
        return self._all("friction")

    @property
    def relaxation(self) -> Estimate:
        """tau^r_ij = beta zeta_ij / g_ij [time], as ``fisher``; NaN where g_ij is not seen to differ from zero."""
        return self._all("relaxation")

    @property
    def exact(self) -> ExactMetric | None:
        """The exact g, zeta and tau^r in the same shapes, None where one of them is not known."""
        known = [point.exact for point in self.points if point.exact is not None]
        if len(known) < len(self.points):
            return None
        return ExactMetric(*(np.array(one).reshape(self._shape(len(one))) for one in zip(*known, strict=True)))

    def _all(self, name: str) -> Estimate:
        found: list[Estimate] = [getattr(point, name) for point in self.points]
        mean, stderr = (np.array([getattr(one, part) for one in found]) for part in ("mean", "stderr"))
        shape = self._shape(len(found))
        return Estimate(mean.reshape(shape), stderr.reshape(shape), dof=self.spec.blocks - 1.0)

    def _shape(self, points: int) -> tuple[int, ...]:
        counts = {name: count for name, _, _, count in self.spec.grid}
        grid = tuple(counts[name] for name in self.parameters if name in counts)
        p = len(self.parameters)
        return (*grid, p, p) if math.prod(grid) == points else (points, p, p)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, if anything is."""
        several = []
        lost = sum(not point.truncated for point in self.points)
        if lost:
            several.append(
                f"at {lost} of {len(self.points)} points the correlations had not decayed enough for R to be small."
            )
        worst = max((_worst(point) for point in self.points if point.exact is not None), default=0.0)
        if worst > _WRONG:
            several.append(
                f"an element lies {worst:.1f} standard errors from its exact value: take a smaller dt than"
                f" {max(point.windows.dt for point in self.points):.3g}."
            )
        return tuple(several)

    def rows(self) -> list[dict[str, Any]]:
        return [row for point in self.points for row in point.rows(self.parameters)]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"parameters": list(self.parameters), "warnings": list(self.warnings)}

    def tables(self) -> list[Table]:
        return _tables(self)

    def figures(self) -> "dict[str, Figure]":
        from thermorun.metric import figures

        if not self.points:
            return {}
        axes = len(self.spec.grid)
        if axes in (1, 2) and len(self._shape(len(self.points))) == axes + 2:
            return {"": figures.along(self) if axes == 1 else figures.plane(self)}
        return {"": figures.windows(self)}


@dataclass(frozen=True)
class Work:
    """One protocol in one duration; energies.

    ``predicted`` is what slow driving gives (Eq. 49), or for "optimal" the minimum found; ``exact`` is the value of
    the Fokker-Planck equation for the protocol, NaN in more than one dimension.
    """

    protocol: str
    tau: float
    excess_work: Estimate
    predicted: float
    exact: float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DriveResult(MetricResult):
    """Protocols between two points, beside the metric.

    ``works`` are those that are complete; ``least`` the protocols of least work, one a duration, in one dimension.
    ``geodesic`` is None while the metric that it needs is not complete.
    """

    spec: Drive
    geodesic: Geodesic | None
    least: tuple[LeastWork, ...]
    works: tuple[Work, ...]

    def of(self, protocol: str) -> list[Work]:
        """The works of one protocol, by duration."""
        return [work for work in self.works if work.protocol == protocol]

    def exponent(self) -> Estimate | None:
        """The n of |W_ex - length^2 / tau| = c tau^-n along the geodesic, fitted to what was measured.

        Weighted least squares of the logarithms; durations at which the difference is below two standard errors are
        left out, and None is returned where fewer than two remain.
        """
        rows = [(work.tau, work.excess_work.mean - work.predicted, work.excess_work.stderr)
                for work in self.of("geodesic")]  # fmt: skip
        seen = [(np.log(tau), np.log(abs(gap)), abs(gap) / error) for tau, gap, error in rows if abs(gap) > 2 * error]
        if len(seen) < 2:
            return None
        at, gap, weight = np.array(seen).T
        design = np.stack([np.ones_like(at), -at], axis=1) * weight[:, None]
        covariance = np.linalg.inv(design.T @ design)
        return Estimate(float((covariance @ design.T @ (weight * gap))[1]), float(np.sqrt(covariance[1, 1])), len(seen))

    def exact_exponent(self) -> float:
        """The same between the two longest durations by the Fokker-Planck equation, free of noise; NaN without it."""
        longest = sorted(self.of("geodesic"), key=lambda work: work.tau)[-2:]
        if len(longest) < 2:
            return math.nan
        gaps = [abs(work.exact - work.predicted) for work in longest]
        return float(-np.log(gaps[1] / gaps[0]) / np.log(longest[1].tau / longest[0].tau))

    def rows(self) -> list[dict[str, Any]]:
        jumps = {one.tau: one for one in self.least}
        rows = []
        for work in self.works:
            exact = None if math.isnan(work.exact) else work.exact
            row = {"protocol": work.protocol, "tau": work.tau, "excess_work": work.excess_work.to_dict(exact)}
            row["predicted"] = work.predicted
            if work.protocol == "optimal":
                row["first_jump"] = jumps[work.tau].first_jump.tolist()
                row["last_jump"] = jumps[work.tau].last_jump.tolist()
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        report = super().to_dict() | {"points": super().rows(), "geodesic": None}
        if self.geodesic is not None:
            exponent = self.exponent()
            report["geodesic"] = {
                "length": self.geodesic.length,
                "line": self.geodesic.line,
                "path": self.geodesic.path(np.linspace(0, 1, 33)).tolist(),
                "exponent": None if exponent is None else exponent.to_dict(),
                "exact_exponent": finite_or_none(self.exact_exponent()),
            }
        return report

    def tables(self) -> list[Table]:
        return [*super().tables(), *_drive_tables(self)]

    def figures(self) -> "dict[str, Figure]":
        from thermorun.metric import figures

        found = super().figures()
        if self.works and self.geodesic is not None:
            found["protocols"] = figures.protocols(self)
        return found


# --- Tables -----------------------------------------------------------------------------------------------------------

_TITLES = {"fisher": "Fisher metric g", "friction": "Friction tensor zeta", "relaxation": "Relaxation times tau^r"}
_HEADINGS = {"fisher": "g", "friction": "zeta", "relaxation": "tau^r"}
_UNITS = {"fisher": "", "friction": ", energy time", "relaxation": ", time"}


def _pairs(parameters: Sequence[str]) -> list[tuple[int, int]]:
    return list(itertools.combinations_with_replacement(range(len(parameters)), 2))


def _worst(point: PointResult) -> float:
    """The largest |z| of g and zeta at a point."""
    assert point.exact is not None
    values = [getattr(point, name).z(getattr(point.exact, name)) for name in MATRICES[:2]]
    return float(np.nanmax(np.abs(values), initial=0.0))


def _words(values: Iterable[float]) -> str:
    numbers = [f"{value:.4g}" for value in values]
    return numbers[0] if len(numbers) == 1 else f"({', '.join(numbers)})"


def _tables(result: MetricResult) -> list[Table]:
    """A table for each matrix, a row for each element at each point."""
    names, spec = result.parameters, result.spec
    free = [names.index(name) for name, *_ in sorted(spec.grid, key=lambda axis: names.index(axis[0]))]
    theta = spec.theta or ()
    fixed = [f"{name} = {value:g}" for k, (name, value) in enumerate(zip(names, theta, strict=True)) if k not in free]
    known = any(point.exact is not None for point in result)
    tables = []
    for matrix in MATRICES:
        headings = [*(names[k] for k in free), "element", _HEADINGS[matrix], *(("exact", "z") if known else ())]
        headings += ["s / time", "R/stderr"] if matrix == "friction" else []
        rows = [
            (*(f"{point.theta[k]:g}" for k in free), *_cells(point, names, matrix, i, j, known))
            for point in result for i, j in _pairs(names)
        ]  # fmt: skip
        notes = []
        if matrix == "relaxation":
            if any("?" in row for row in rows):
                notes.append("?  g is not seen to differ from zero there, by three standard errors")
            notes += _method(result)
        title = f"{_TITLES[matrix]} of {spec.potential_name}" + (f" at {', '.join(fixed)}" if fixed else "")
        title += _UNITS[matrix]
        tables.append(Table(title, tuple(headings), rows, notes, keys=len(free) + 1))
    return tables


def _cells(point: PointResult, names: Sequence[str], matrix: str, i: int, j: int, known: bool) -> list[str]:
    estimate: Estimate = getattr(point, matrix)[i, j]
    cells = [names[i] if i == j else f"{names[i]}, {names[j]}", str(estimate)]
    if known:
        exact = point.known(matrix, i, j)
        z = estimate.z(exact)
        cells += ["" if math.isnan(exact) else f"{exact:.5g}", "" if math.isnan(z) else f"{z:+.1f}"]
    if matrix == "friction":
        cells += [f"{point.window[i, j]:.3g}", f"{point.remainder[i, j] / estimate.stderr:.2f}"]
    return cells


def _method(result: MetricResult) -> list[str]:
    """How it was measured."""
    spec, notes = result.spec, []
    if result.points:
        windows = result.points[0].windows
        at = " at the first point" if len(result) > 1 else ""
        notes.append(
            f"{spec.particles:,} particles a point, {windows.steps:,} steps of {windows.dt:.3g}{at};"
            f" {spec.integrator}, {spec.precision}"
        )
    return [
        *notes,
        "g and zeta: per unit of each parameter; z: from the exact value, by Student's t",
        "correlation integrals end between s and 2 s, where the rest, R, is small",
        *(f"warning  {sentence}" for sentence in result.warnings),
    ]


def _drive_tables(result: DriveResult) -> list[Table]:
    spec, geodesic, exponent = result.spec, result.geodesic, result.exponent()
    if geodesic is None:
        return []
    known = any(not math.isnan(work.exact) for work in result.works)
    headings = ("protocol", "tau / time", "W_ex / energy", "slow driving", *(("Fokker-Planck", "z") if known else ()))
    rows = []
    for work in result.works:
        row = [work.protocol, f"{work.tau:g}", str(work.excess_work)]
        row.append("" if work.protocol == "optimal" else f"{work.predicted:.5g}")
        if known:
            row += [f"{work.exact:.5g}", f"{work.excess_work.z(work.exact):+.1f}"]
        rows.append(tuple(row))
    notes = [
        f"length^2 {geodesic.length**2:.6g}, straight line {geodesic.line:.6g} energy time; slow driving: over tau",
        f"{spec.work_particles:,} particles a protocol" + ("; z from the Fokker-Planck equation" if known else ""),
    ]
    if exponent is not None:
        notes.append(f"geodesic: |W_ex - length^2 / tau| = c tau^-n with n = {exponent}")
    if not math.isnan(result.exact_exponent()):
        notes.append(f"by the Fokker-Planck equation n = {result.exact_exponent():.2f} between the longest tau")
    title = f"Protocols of {spec.potential_name} from {_words(spec.start)} to {_words(spec.end)}"
    tables = [Table(title, headings, rows, notes, keys=2)]
    if result.least:
        jumps = [(f"{one.tau:g}", _words(one.first_jump), _words(one.last_jump)) for one in result.least]
        headings = ("tau / time", "first jump", "last jump")
        note = f"of {', '.join(result.parameters)}; least work in this time, by the Fokker-Planck equation"
        tables.append(Table("Jumps of the optimal protocols", headings, jumps, (note,)))
    return tables
