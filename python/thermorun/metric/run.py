"""Thermodynamic metric of a potential: at a point, over a grid, and along protocols between two points.

The metric is measured by Monte Carlo (`friction`) beside its exact value where there is one (`truth`).  Between two
points the geodesic of zeta, the straight line and, in one dimension, the protocol of least work are driven, and the
excess work measured is set beside what is predicted (Hnybida & Verret 2025, Sect. IV).
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from thermokernels.random import BLOCK
from thermorun.errors import InputError, require_count, require_positive
from thermorun.estimates import Estimate, finite_or_none
from thermorun.metric import friction
from thermorun.metric.friction import BATCH, Measured, Point, Windows
from thermorun.metric.geodesic import Geodesic, geodesic
from thermorun.potentials import dynamics as simulation
from thermorun.potentials import potential as potentials
from thermorun.potentials.exact import Truth, functions, require_regular, truth
from thermorun.potentials.fokker_planck import FokkerPlanck, Protocol
from thermorun.potentials.potential import Potential
from thermorun.potentials.quadrature import words
from thermorun.progress import Advance, deferred_interrupt, progress
from thermorun.store import Axis, RunFile, Variable, run_file
from thermorun.threads import on_threads

Array = NDArray[Any]
Grid = tuple[tuple[str, float, float, int], ...]

PRECISIONS = ("float64", "float32")
PROTOCOLS = ("geodesic", "line", "optimal")
MATRICES = ("fisher", "friction", "relaxation")
_UNITS = {"fisher": "1/parameter^2", "friction": "energy time/parameter^2", "relaxation": "time"}
# Particles that are driven at a time.
_CHUNK = BATCH * BLOCK
# A metric that was measured over a grid is smoothed by polynomials of this degree at most.
_DEGREE = 4
# Waits of the Fokker-Planck equation: so many for the shortest relaxation time, within these bounds.
_WAITS_EACH, _FEWEST_WAITS, _MOST_WAITS = 1, 64, 128
# Durations by default, in units of the longest relaxation time on the way.
_DURATIONS = (4.0, 8.0, 16.0, 32.0)
# Streams of the protocols lie above those of the points.
_WORK_STREAM = 2**63


@dataclass(frozen=True)
class Metric:
    """What is measured of a potential's metric.

    ``potential`` is a name, "FILE.py:NAME" or a Potential; ``theta`` is by default the potential's own.  ``grid`` holds
    (parameter, first, last, count): the metric is measured at all combinations, the other parameters as in ``theta``.
    ``particles`` is their number at each point, in whole blocks of 1,024.

    ``geodesic_to`` is another point: protocols from ``theta`` to it take ``taus`` (by default 4, 8, 16 and 32 of the
    longest relaxation time on the way) and are driven with ``work_particles`` each.  ``dt`` None takes
    ``simulation.time_step``.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    potential: str | Potential = "trap"
    theta: tuple[float, ...] | None = None
    grid: Grid = ()
    geodesic_to: tuple[float, ...] | None = None
    taus: tuple[float, ...] | None = None
    beta: float = 1.0
    mobility: float = 1.0
    dt: float | None = None
    integrator: str = "heun"
    precision: str = "float64"
    particles: int = BATCH * BLOCK
    work_particles: int = 2**18
    seed: int = 0
    loaded: Potential = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.potential
        loaded = given if isinstance(given, Potential) else potentials.load(given)
        object.__setattr__(self, "loaded", loaded)
        for name in ("beta", "mobility"):
            require_positive(name, getattr(self, name))
        if self.dt is not None:
            require_positive("dt", self.dt)
        require_count("seed", self.seed, 0)
        if self.seed >= 2**64:
            raise InputError(f"seed is {self.seed}; it must be below 2^64.")
        for name, allowed in (("integrator", simulation.INTEGRATORS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        if self.integrator == "exact" and loaded.quadratic is None:
            raise InputError(f"integrator is 'exact', but {loaded.name} is not quadratic; take another.")
        for name, least in (("particles", 8 * BLOCK), ("work_particles", BLOCK)):
            require_count(name, getattr(self, name), least)
            if getattr(self, name) % BLOCK:
                raise InputError(f"{name} is {getattr(self, name)}; it must be a multiple of {BLOCK}.")
        theta = loaded.theta if self.theta is None else self.theta
        object.__setattr__(self, "theta", tuple(loaded.require_valid(theta).tolist()))
        self._check_grid()
        self._check_path()

    def _check_grid(self) -> None:
        object.__setattr__(self, "grid", tuple((str(n), float(a), float(b), int(c)) for n, a, b, c in self.grid))
        names = [entry[0] for entry in self.grid]
        for name, first, last, count in self.grid:
            if name not in self.loaded.parameters or names.count(name) > 1:
                raise InputError(
                    f"grid names {name!r}; it must name each parameter once at most, of"
                    f" {', '.join(self.loaded.parameters)}."
                )
            if count < 2 or first == last:
                raise InputError(f"grid gives {name} {count} values from {first:g} to {last:g}; give at least two.")
        self.loaded.require_valid(self.points, "grid")

    def _check_path(self) -> None:
        if self.taus is not None:
            object.__setattr__(self, "taus", tuple(float(tau) for tau in self.taus))
            for tau in self.taus:
                require_positive("tau", tau)
            if not self.taus or self.geodesic_to is None:
                raise InputError("tau is given, but geodesic_to is not: there is nothing to drive.")
        if self.geodesic_to is None:
            return
        end = tuple(self.loaded.require_valid(self.geodesic_to, "geodesic_to").tolist())
        object.__setattr__(self, "geodesic_to", end)
        if end == self.theta:
            raise InputError(f"geodesic_to is {words(end)}, which is theta itself; name another point.")
        self.loaded.require_valid(np.linspace(self.start, end, 65), "the line to geodesic_to")

    @property
    def start(self) -> tuple[float, ...]:
        """``theta``, which is never None once the spec exists."""
        assert self.theta is not None
        return self.theta

    @property
    def points(self) -> Array:
        """Every theta at which the metric is measured, (points, p)."""
        axes = [[value] for value in self.start]
        for name, first, last, count in self.grid:
            axes[self.loaded.parameters.index(name)] = np.linspace(first, last, count).tolist()
        return np.array(list(itertools.product(*axes)))

    def step_at(self, theta: Array) -> float:
        """The time step at a point."""
        if self.dt is not None:
            return self.dt
        return simulation.time_step(self.loaded, theta, self.beta, self.mobility)

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types, and a hash of the potential's functions."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.init}
        if isinstance(self.potential, Potential):
            values["potential"] = self.potential.name
        return values | {"fingerprint": self.loaded.fingerprint}

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Metric":
        """The spec that ``to_json`` wrote.  Raises InputError for anything else, or if the potential has changed."""
        try:
            values = json.loads(text)
            fingerprint = values.pop("fingerprint")
            spec = cls(**values)
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise InputError(f"spec {text[:80]!r} is not that of a metric run ({error}).") from error
        if spec.loaded.fingerprint != fingerprint:
            raise InputError(f"potential is {spec.potential!r}, whose functions have changed since that run began.")
        return spec


@dataclass(frozen=True)
class PointResult:
    """The metric at one theta: measured, how trajectories were cut, and the truth or None."""

    theta: tuple[float, ...]
    measured: Measured
    windows: Windows
    truth: Truth | None

    def exact(self, name: str, i: int, j: int) -> float:
        """The true element of one of ``MATRICES``, NaN where it is not known."""
        return float("nan") if self.truth is None else float(getattr(self.truth, name)[i, j])

    def to_dict(self, parameters: tuple[str, ...]) -> dict[str, Any]:
        """In JSON's types, pair by pair."""
        pairs = []
        for i, j in itertools.combinations_with_replacement(range(len(parameters)), 2):
            entry: dict[str, Any] = {"parameters": [parameters[i], parameters[j]]}
            for name in MATRICES:
                estimate, exact = self.measured.estimate(name, i, j), self.exact(name, i, j)
                entry[name] = {
                    "mean": finite_or_none(estimate.mean),
                    "stderr": finite_or_none(estimate.stderr),
                    "exact": finite_or_none(exact),
                    "z": finite_or_none(estimate.z(exact)),
                }
            entry["window"] = float(self.measured.window[i, j])
            entry["remainder"] = finite_or_none(float(self.measured.remainder[i, j]))
            pairs.append(entry)
        return {
            "theta": list(self.theta), "dt": self.windows.dt, "steps": self.windows.steps,
            "truncated": self.measured.truncated, "pairs": pairs,
        }  # fmt: skip


@dataclass(frozen=True)
class Work:
    """One protocol in one duration.

    ``predicted`` is what slow driving gives (Eq. 49), or for "optimal" the minimum found; ``exact`` is the value of
    the Fokker-Planck equation for the protocol, NaN in more than one dimension.  Energies.
    """

    protocol: str
    tau: float
    measured: Estimate
    predicted: float
    exact: float

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "protocol": self.protocol, "tau": self.tau, "excess_work": self.measured.to_dict(),
            "predicted": self.predicted, "exact": finite_or_none(self.exact),
            "z": finite_or_none(self.measured.z(self.exact)),
        }  # fmt: skip


@dataclass(frozen=True)
class MetricResult:
    """What a run gave: points, the geodesic and works where asked for, and the file that holds them (or None)."""

    spec: Metric
    points: list[PointResult]
    geodesic: Geodesic | None
    works: list[Work]
    optima: dict[float, Protocol]
    file: Path | None
    threads: int

    def of(self, protocol: str) -> list[Work]:
        """The works of one protocol, by duration."""
        return [work for work in self.works if work.protocol == protocol]

    def exponent(self) -> Estimate | None:
        """The n of |W_ex - length^2 / tau| = c tau^-n along the geodesic, fitted to what was measured.

        Weighted least squares of the logarithms; durations at which the difference is below two standard errors are
        left out, and None is returned where fewer than two remain.
        """
        rows = [
            (np.log(work.tau), work.measured.mean - work.predicted, work.measured.stderr)
            for work in self.of("geodesic")
        ]
        seen = [(at, np.log(abs(gap)), abs(gap) / error) for at, gap, error in rows if abs(gap) > 2 * error > 0]
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
            return float("nan")
        gaps = [abs(work.exact - work.predicted) for work in longest]
        return float(-np.log(gaps[1] / gaps[0]) / np.log(longest[1].tau / longest[0].tau))

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        report: dict[str, Any] = {"points": [point.to_dict(self.spec.loaded.parameters) for point in self.points]}
        if self.geodesic is not None:
            exponent = self.exponent()
            report["geodesic"] = {
                "length": self.geodesic.length,
                "line": self.geodesic.line,
                "path": self.geodesic.path(np.linspace(0, 1, 33)).tolist(),
                "works": [work.to_dict() for work in self.works],
                "exponent": None if exponent is None else exponent.to_dict(),
                "exact_exponent": finite_or_none(self.exact_exponent()),
                "jumps": [
                    {"tau": tau, "first": found.first_jump.tolist(), "last": found.last_jump.tolist()}
                    for tau, found in self.optima.items()
                ],
            }
        return report | {
            "spec": self.spec.to_dict(), "seed": self.spec.seed, "threads": self.threads,
            "precision": self.spec.precision, "file": None if self.file is None else str(self.file),
        }  # fmt: skip


def measure(
    spec: Metric | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
    **given: Any,
) -> MetricResult:
    """Measures what a spec asks for; ``given`` are fields of ``Metric``, replacing the spec's.

    With ``out`` the sums of independent blocks of particles stream to that HDF5 file, and ``resume`` goes on with it
    after a kill: to the last bit as if nothing had happened.

    Raises InputError (a ValueError) before any ensemble runs for input that cannot, RunError for a run that cannot go
    on, and KeyboardInterrupt after Ctrl-C, with all that is done saved.
    """
    spec = Metric(**given) if spec is None else replace(spec, **given)
    # A thousand quadratures of a thousand points each: too little for threads to meet over.
    with on_threads(1):
        plan = _Plan(spec)
        plan.require_regular()
    with (
        on_threads(threads) as count,
        run_file("metric", spec, out, resume, count, lambda file: _lay_out(file, plan)) as file,
        deferred_interrupt() as stop,
    ):
        with progress("metric", plan.units, "blocks", show_progress) as advance:
            run = _Run(plan, file, stop, advance)
            points = [run.point(index) for index in range(len(plan.points))]
            if spec.geodesic_to is not None:
                plan.interpolate(points)
            works = run.works() if spec.geodesic_to is not None else []
        if file is not None:
            file.finish()
    return MetricResult(spec, points, plan.geodesic, works, plan.optima, None if out is None else Path(out), count)


class _Plan:
    """All that is known before an ensemble runs: points, their truths, and protocols where the metric is exact."""

    def __init__(self, spec: Metric) -> None:
        self.spec, self.potential = spec, spec.loaded
        self.points = spec.points
        self.truths = [self.truth(theta) for theta in self.points]
        self.geodesic: Geodesic | None = None
        self.optima: dict[float, Protocol] = {}
        self.taus: tuple[float, ...] = ()
        if spec.geodesic_to is None:
            return
        ends = [self.truth(np.array(theta)) for theta in (spec.start, spec.geodesic_to)]
        if any(end is None or np.isnan(end.free_energy) for end in ends):
            free_energy = self.potential.free_energy
            if free_energy is None:
                raise InputError(
                    f"geodesic_to needs Delta F, to tell excess work from work; give {self.potential.name} a"
                    " free_energy function."
                )
            energies = [free_energy(theta, spec.beta) for theta in (spec.start, spec.geodesic_to)]
        else:
            energies = [end.free_energy for end in ends if end is not None]
        self.delta_free_energy = energies[1] - energies[0]
        if ends[0] is None:
            self._require_covered()
        else:
            self.geodesic = geodesic(self._exact_friction, spec.start, spec.geodesic_to)
            self._plan_protocols(self._times[1])
        dt = [spec.step_at(theta) for theta in np.linspace(spec.start, spec.geodesic_to, 5)]
        self.dt = min(dt)

    @property
    def blocks(self) -> int:
        """Blocks of particles at a point."""
        return self.spec.particles // int(BLOCK)

    @property
    def batches(self) -> list[tuple[int, int]]:
        """First block and number of blocks of each batch of a point."""
        return [(first, min(BATCH, self.blocks - first)) for first in range(0, self.blocks, BATCH)]

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that are driven."""
        return PROTOCOLS if self.potential.dimension == 1 else PROTOCOLS[:2]

    @property
    def chunks(self) -> list[int]:
        """Particles of each chunk of a protocol."""
        count = self.spec.work_particles
        return [min(_CHUNK, count - first) for first in range(0, count, _CHUNK)]

    @property
    def durations(self) -> int:
        """How many durations there are."""
        if self.spec.geodesic_to is None:
            return 0
        return len(_DURATIONS if self.spec.taus is None else self.spec.taus)

    @property
    def drives(self) -> list[tuple[int, str, int]]:
        """Every drive: number of the duration, protocol, number of the chunk."""
        return list(itertools.product(range(self.durations), self.protocols, range(len(self.chunks))))

    @property
    def units(self) -> int:
        """Blocks of particles to simulate, of points and protocols."""
        return len(self.points) * self.blocks + len(self.drives)

    def truth(self, theta: Array) -> Truth | None:
        return truth(self.potential, theta, beta=self.spec.beta, mobility=self.spec.mobility)

    def require_regular(self) -> None:
        """Raises InputError where the Fisher metric is singular at a point."""
        spec = self.spec
        for theta, found in zip(self.points, self.truths, strict=True):
            if found is not None:
                fisher = found.fisher
            else:
                x = simulation.equilibrium(
                    self.potential, theta, BLOCK, beta=spec.beta, mobility=spec.mobility, seed=spec.seed
                )
                fisher = np.atleast_2d(np.cov(self.potential.evaluate(x[0].T, theta)[2].T))
            require_regular(fisher, self.potential, theta)

    def point(self, index: int) -> Point:
        spec = self.spec
        theta = tuple(self.points[index].tolist())
        stream = index * friction.STREAMS
        return Point(
            self.potential, theta, spec.beta, spec.mobility, spec.integrator, spec.precision, spec.seed, stream
        )

    def _exact_friction(self, theta: Array) -> Array:
        found = self.truth(theta)
        assert found is not None
        return found.friction

    @cached_property
    def _times(self) -> tuple[float, float]:
        """The shortest and the longest relaxation time of a parameter along the geodesic."""
        assert self.geodesic is not None
        found = [self.truth(theta) for theta in self.geodesic.path(np.linspace(0, 1, 9))]
        times = np.concatenate([np.diag(one.relaxation) for one in found if one is not None])
        return float(times.min()), float(times.max())

    def _plan_protocols(self, slowest: float) -> None:
        """Durations, and in one dimension the protocols of least work."""
        spec = self.spec
        assert self.geodesic is not None
        assert spec.geodesic_to is not None
        self.potential.require_valid(self.geodesic.path(np.linspace(0, 1, 129)), "the geodesic to geodesic_to")
        # Three digits, so that the table tells the durations that were driven.
        self.taus = tuple(float(f"{slowest * n:.3g}") for n in _DURATIONS) if spec.taus is None else spec.taus
        if self.potential.dimension > 1:
            return
        for tau in self.taus:
            # Along the geodesic with jumps as wide as a relaxation time at each end: for the trap that is the optimum.
            skip = slowest / (tau + 2 * slowest)
            guess = partial(self._inside, skip)
            least = self.fokker_planck(tau).least(guess, self.waits(tau))
            self.potential.require_valid(least.knots, "the protocol of least work to geodesic_to")
            self.optima[tau] = least

    def _inside(self, skip: float, s: Array) -> Array:
        assert self.geodesic is not None
        return np.asarray(self.geodesic.path(skip + (1 - 2 * skip) * s))

    def waits(self, tau: float) -> int:
        """Waits of the Fokker-Planck equation in a protocol."""
        return int(np.clip(np.ceil(_WAITS_EACH * tau / self._times[0]), _FEWEST_WAITS, _MOST_WAITS))

    def fokker_planck(self, tau: float) -> FokkerPlanck:
        spec = self.spec
        assert spec.geodesic_to is not None
        return FokkerPlanck(
            *functions(self.potential), spec.start, spec.geodesic_to, tau, beta=spec.beta, mobility=spec.mobility
        )

    def _require_covered(self) -> None:
        """Without an exact metric the geodesic needs one measured around it."""
        spec = self.spec
        assert spec.geodesic_to is not None
        ranges = {name: (min(a, b), max(a, b)) for name, a, b, _ in spec.grid}
        for name, *values in zip(self.potential.parameters, spec.start, spec.geodesic_to, strict=True):
            low, high = ranges.get(name, (values[0], values[0]))
            if not all(low <= value <= high for value in values):
                raise InputError(
                    f"geodesic_to needs the metric between both points, and that of {self.potential.name} is only"
                    f" known where it is measured; give a grid over {name} that holds {values[0]:g} and {values[1]:g}."
                )

    def interpolate(self, points: list[PointResult]) -> None:
        """The geodesic on what was measured, for potentials without an exact metric."""
        spec = self.spec
        if self.geodesic is not None or spec.geodesic_to is None:
            return
        axes = {self.potential.parameters.index(n): np.linspace(a, b, c) for n, a, b, c in spec.grid}
        free = sorted(axes)
        inner = np.ix_(free, free)
        low, high = (np.array([bound(axes[k]) for k in free]) for bound in (np.min, np.max))
        degrees = [min(len(axes[k]) - 1, _DEGREE) for k in free]

        def basis(theta: Array) -> Array:
            """Products of Chebyshev polynomials in each gridded parameter, (..., products)."""
            scaled = (2 * theta - low - high) / (high - low)
            out = np.ones((*theta.shape[:-1], 1))
            for k, degree in enumerate(degrees):
                values = chebyshev.chebvander(scaled[..., k], degree)
                out = (out[..., None] * values[..., None, :]).reshape(*theta.shape[:-1], -1)
            return out

        # Logarithms of matrices are smoothed, so that what comes out is positive definite.
        table = np.array([_of_eigenvalues(np.log, found.measured.friction[inner]) for found in points])
        weights = np.linalg.lstsq(basis(self.points[:, free]), table.reshape(len(points), -1), rcond=None)[0]

        def metric(theta: Array) -> Array:
            if np.any(theta < low - 1e-3 * (high - low)) or np.any(theta > high + 1e-3 * (high - low)):
                raise InputError(f"theta is {words(theta.tolist())}, outside the grid; the geodesic leaves it.")
            return _of_eigenvalues(np.exp, (basis(theta) @ weights).reshape(len(free), len(free)))

        start, end = np.array(spec.start), np.array(spec.geodesic_to)
        found = geodesic(metric, start[free].tolist(), end[free].tolist())
        whole = np.broadcast_to(start, (*found.path.c.shape[:1], len(start))).copy()
        whole[:, free] = found.path.c
        path = type(found.path)(found.path.t, whole, found.path.k)
        self.geodesic = Geodesic(start, end, path, found.length, found.line)
        self._plan_protocols(max(float(np.nanmax(np.diag(point.measured.relaxation))) for point in points))

    def path(self, tau: float, protocol: str) -> tuple[Array, Array]:
        """Stops of theta (steps + 1, p) and the waits between them (steps,)."""
        assert self.geodesic is not None
        steps = int(np.ceil(tau / self.dt))
        path = self._theta(tau, protocol)
        stops, waits = simulation.midpoints(np.asarray(path(np.linspace(0.0, 1.0, steps + 1))), tau / steps)
        # Where theta jumps at the ends, it jumps from and to the points themselves.
        stops[0], stops[-1] = self.spec.start, self.geodesic.end
        return stops, waits

    def _theta(self, tau: float, protocol: str) -> Callable[[Array], Array]:
        assert self.geodesic is not None
        paths = {"geodesic": self.geodesic.path, "line": self.geodesic.straight}
        return paths[protocol] if protocol in paths else self.optima[tau].theta

    def predicted(self, tau: float, protocol: str) -> float:
        assert self.geodesic is not None
        if protocol == "optimal":
            return self.optima[tau].excess_work
        return self.geodesic.excess_work(tau) if protocol == "geodesic" else self.geodesic.line_excess_work(tau)

    def exact_work(self, tau: float, protocol: str) -> float:
        """The Fokker-Planck equation's excess work, NaN in more than one dimension."""
        if self.potential.dimension > 1:
            return float("nan")
        if protocol == "optimal":
            return self.optima[tau].excess_work
        return self.fokker_planck(tau).excess_work(self._theta(tau, protocol), self.waits(tau))


def _of_eigenvalues(function: Callable[[Array], Array], matrix: Array) -> Array:
    """A function of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * function(values) @ vectors.T)


def _lay_out(file: RunFile, plan: _Plan) -> None:
    names = np.array(plan.potential.parameters)
    parameter, other = Axis("parameter", names, "1", "parameter"), Axis("other", names, "1", "parameter")
    point = Axis("point", np.arange(len(plan.points)), "1", "point of the grid")
    square = ("point", "parameter", "other")
    table = [
        Variable("theta", ("point", "parameter"), "parameter", "where the metric is measured"),
        Variable("centre", ("point", "parameter"), "energy/parameter", "mean dE/dtheta of the pilot run"),
        Variable("dt", ("point",), "time", "time step"),
        Variable("levels", ("point",), "1", "doublings of the window that the pilot run asked for"),
        Variable("window", square, "time", "where the correlation integral begins to be cut off"),
        Variable("remainder", square, _UNITS["friction"], "what lies beyond the window, estimated from the tail"),
    ]
    for name in MATRICES:
        table += [
            Variable(name, square, _UNITS[name], f"{name}, Monte Carlo"),
            Variable(f"{name}_stderr", square, _UNITS[name], "its standard error"),
            Variable(f"{name}_exact", square, _UNITS[name], "its exact value, where there is one"),
        ]
    file.add_section("points", [point, parameter, other], table)
    row = Axis("row", np.arange(len(plan.points) * plan.blocks), "1", "independent block of particles")
    level = Axis("level", np.arange(friction.MOST), "1", "doubling of the window")
    kind = Axis("kind", np.array(["square", "next"]), "1", "of a stretch with itself, with the next one")
    moment = Axis("moment", np.arange(2 + len(names)), "1", "mean at the start, mean along the way, products")
    about = "sums over a block; see thermokernels.friction"
    file.add_section(
        "blocks",
        [row, level, kind, moment, parameter, other],
        [
            Variable("sums", ("row", "level", "kind", "parameter", "other"), "1", about),
            Variable("means", ("row", "moment", "parameter"), "1", about),
        ],
    )
    rows = {"blocks": len(row.values)}
    if plan.durations:
        drive = Axis("drive", np.arange(len(plan.drives)), "1", "a chunk of particles under one protocol")
        protocol = Axis("protocol", np.array(plan.protocols), "1", "protocol")
        duration = Axis("duration", np.arange(plan.durations), "1", "duration")
        sums = [
            Variable("work", ("drive",), "energy", "sum of work over the chunk"),
            Variable("work_square", ("drive",), "energy^2", "sum of its square"),
        ]
        file.add_section("drives", [drive], sums)
        both = ("duration", "protocol")
        works = [
            Variable("tau", ("duration",), "time", "duration of the protocol"),
            Variable("excess_work", both, "energy", "mean excess work"),
            Variable("excess_work_stderr", both, "energy", "its standard error"),
            Variable("excess_work_predicted", both, "energy", "slow driving's value, or the minimum found"),
            Variable("excess_work_exact", both, "energy", "the Fokker-Planck equation's value"),
        ]
        file.add_section("works", [duration, protocol], works)
        rows["drives"] = len(plan.drives)
    file.publish(rows)


@dataclass
class _Run:
    """A run under way."""

    plan: _Plan
    file: RunFile | None
    interrupted: Callable[[], bool]
    advance: Advance

    def _done(self, section: str) -> tuple[int, dict[str, Array]]:
        """Rows of a section that are complete, and what it holds."""
        if self.file is None:
            return 0, {}
        return self.file.committed(section), self.file.read(section)

    def _stop_if_asked(self) -> None:
        if self.interrupted():
            if self.file is not None:
                self.file.wait()
            raise KeyboardInterrupt

    def point(self, index: int) -> PointResult:
        plan, point = self.plan, self.plan.point(index)
        windows = self._windows(index, point)
        done, stored = self._done("blocks")
        parts = []
        for batch, (first, blocks) in enumerate(plan.batches):
            begin = index * plan.blocks + first
            if done >= begin + blocks:
                rows = slice(begin, begin + blocks)
                parts.append((stored["sums"][rows, : windows.levels], stored["means"][rows]))
            else:
                parts.append(point.rows(windows, batch, blocks))
                if self.file is not None:
                    padded = np.full((blocks, friction.MOST, *parts[-1][0].shape[2:]), np.nan)
                    padded[:, : windows.levels] = parts[-1][0]
                    self.file.write("blocks", begin, {"sums": padded, "means": parts[-1][1]})
            self.advance(blocks)
            self._stop_if_asked()
        sums, means = (np.concatenate(part) for part in zip(*parts, strict=True))
        measured = friction.fold(sums, means, windows, plan.spec.beta)
        result = PointResult(point.theta, measured, windows, plan.truths[index])
        if self.file is not None:
            values: dict[str, Any] = {"window": measured.window, "remainder": measured.remainder}
            for name in MATRICES:
                values[name] = getattr(measured, name)
                values[f"{name}_stderr"] = getattr(measured, f"{name}_stderr")
                if result.truth is not None:
                    values[f"{name}_exact"] = getattr(result.truth, name)
            self.file.write_entry("points", index, values)
        return result

    def _windows(self, index: int, point: Point) -> Windows:
        if self.file is not None:
            stored = self.file.read("points")
            levels, dt, centre = (stored[name][index] for name in ("levels", "dt", "centre"))
            if np.isfinite(levels) and np.isfinite(dt) and np.all(np.isfinite(centre)):
                return Windows(float(dt), int(levels), centre)
        windows = point.pilot(self.plan.spec.step_at(self.plan.points[index]), self.plan.blocks)
        if self.file is not None:
            entry = {"theta": self.plan.points[index], "dt": windows.dt, "centre": windows.centre}
            self.file.write_entry("points", index, {**entry, "levels": windows.levels})
        return windows

    def works(self) -> list[Work]:
        plan, potential, spec = self.plan, self.plan.potential, self.plan.spec
        done, stored = self._done("drives")
        sums = np.zeros((plan.durations, len(plan.protocols), 2))
        for number, (duration, protocol, chunk) in enumerate(plan.drives):
            if number < done:
                total = np.array([stored["work"][number], stored["work_square"][number]])
            else:
                stops, waits = plan.path(plan.taus[duration], protocol)
                stream = _WORK_STREAM + number * friction.STREAMS
                x = simulation.equilibrium(
                    potential, spec.start, plan.chunks[chunk], beta=spec.beta, mobility=spec.mobility,
                    seed=spec.seed, stream=stream, precision=spec.precision,
                )  # fmt: skip
                driven = simulation.drive(
                    potential, x, stops, dt=waits, beta=spec.beta, mobility=spec.mobility,
                    integrator=spec.integrator, seed=spec.seed, stream=stream,
                )  # fmt: skip
                total = np.array([driven.work.sum(), np.sum(driven.work**2)])
                if self.file is not None:
                    self.file.write("drives", number, {"work": total[:1], "work_square": total[1:]})
            sums[duration, plan.protocols.index(protocol)] += total
            self.advance(1)
            self._stop_if_asked()
        count = spec.work_particles
        means = sums / count
        spread = np.sqrt(np.maximum(means[..., 1] - means[..., 0] ** 2, 0.0) / (count - 1))
        works = []
        for d, tau in enumerate(plan.taus):
            for k, protocol in enumerate(plan.protocols):
                estimate = Estimate(float(means[d, k, 0]) - plan.delta_free_energy, float(spread[d, k]), count)
                works.append(
                    Work(protocol, tau, estimate, plan.predicted(tau, protocol), plan.exact_work(tau, protocol))
                )
        if self.file is not None:
            shape = (plan.durations, len(plan.protocols))
            self.file.write_whole(
                "works",
                {
                    "tau": np.array(plan.taus),
                    "excess_work": np.array([work.measured.mean for work in works]).reshape(shape),
                    "excess_work_stderr": np.array([work.measured.stderr for work in works]).reshape(shape),
                    "excess_work_predicted": np.array([work.predicted for work in works]).reshape(shape),
                    "excess_work_exact": np.array([work.exact for work in works]).reshape(shape),
                },
            )
        return works
