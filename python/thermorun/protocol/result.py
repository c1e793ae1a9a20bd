"""What a search for a protocol found, and what it is worth on noise that the search never saw."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermokernels.random import BLOCK
from thermorun.arrays import Array
from thermorun.errors import RunError, words
from thermorun.estimates import Estimate, finite_or_none, jackknife, over_replicas
from thermorun.potentials.fokker_planck import middles
from thermorun.potentials.least_work import shares
from thermorun.protocol.objectives import FREE_ENERGY, TARGET, WORK, known
from thermorun.protocol.spec import Protocol
from thermorun.results import Result, origin
from thermorun.store import RunFile
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of an exported path, as the engines of NESTbench25 take them; and what tells progress from noise.
EXPORTED, _PROGRESS = 1000, 2.0
_MEANINGS = {
    WORK: "W_ex / energy",
    FREE_ENERGY: "variance / mean^2",
    TARGET: "distance^2",
}


def rows_of(spec: Protocol, knots: Array) -> Array:
    """Time and theta along a path (K + 2, 1 + p): a repeated time is a jump."""
    first, last = spec.ends
    times = np.concatenate([[0.0], shares(len(knots)) * spec.tau, [spec.tau]])
    times[-2] = spec.tau
    return np.column_stack([times, np.concatenate([first[None], knots, last[None]])])


@dataclass(frozen=True)
class Round:
    """One round of the search: its ``knots`` and ``particles``; the objective after each iteration, on its own noise.

    ``gain`` is what it changed the objective by, on fresh noise; where that is no gain, the round was dropped.
    ``returns`` counts how often a path left the valid region and was moved back.
    """

    knots: int
    particles: int
    values: Array
    gain: Estimate
    returns: int


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ProtocolResult(Result):
    """The path that was found, beside the straight line and the guess, by their names.

    ``knots`` (K, p) are theta at ``shares`` (K,) of tau, between the two jumps; ``values`` are the objective of each
    path, ``works`` its mean work, ``gains`` its objective less that of the straight line, on the same noise; ``exact``
    the excess work without noise where it is known, and ``least`` that of the protocol of least work, with its knots
    at shares of its own, in one dimension.
    """

    spec: Protocol
    knots: Array
    shares: Array
    rounds: tuple[Round, ...]
    values: dict[str, Estimate]
    works: dict[str, Estimate]
    gains: dict[str, Estimate]
    exact: dict[str, float]
    delta_f: float | None
    least: float | None
    least_knots: Array | None

    @property
    def path(self) -> Array:
        """Time and theta along the path (K + 2, 1 + p), linear between; a repeated time is a jump."""
        return rows_of(self.spec, self.knots)

    @property
    def first_jump(self) -> Array:
        """The jump at time 0, (p,)."""
        return np.asarray(self.knots[0] - self.spec.ends[0])

    @property
    def last_jump(self) -> Array:
        """The jump at tau, (p,)."""
        return np.asarray(self.spec.ends[1] - self.knots[-1])

    @property
    def value(self) -> Estimate:
        """The objective of the path that was found, on noise that the search never saw."""
        return self.values["found"]

    def at(self, s: Array) -> Array:
        """theta (n, p) at shares s of tau, between the jumps."""
        return np.stack([np.interp(s, self.shares, column) for column in self.knots.T], axis=1)

    def write_path(self, file: Path | str, names: tuple[str, ...] = ()) -> None:
        """Writes the path as text, rows of time and theta, as `drive` and `free-energy` take it.  Raises RunError."""
        _write(file, self.path, ",", ",".join(("time", *names)) if names else "")

    def export(self, file: Path | str, rows: int = EXPORTED) -> None:
        """Writes theta in the middle of each of so many equal waits as text, one row each, jumps at the ends left out.

        As the engines of NESTbench25 (Whitelam et al. 2025, arXiv:2506.15122) read it: they jump from their own start
        to the first row, wait after each, and jump to their own end.  Raises RunError where it cannot be written.
        """
        _write(file, self.at(middles(rows)), " ", "")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the numbers alone do not say, a sentence each."""
        found = []
        if returns := sum(one.returns for one in self.rounds):
            found.append(
                f"paths left the valid region, or that where steps hold, {returns} times while searching and were moved"
                " back: the best path may lie at its edge"
            )
        gain = self.gains.get("found")
        if gain is not None and not gain.mean < -_PROGRESS * gain.stderr:
            found.append(
                "too few particles to tell progress from noise: the path found is not known to be better than the"
                f" straight line; take more than {self.spec.search_particles:,} search_particles"
            )
        if self.rounds and np.isfinite(self.rounds[-1].values[-1:]).all():
            found.append(f"the last round used all {self.spec.iterations} iterations; more may gain more")
        return tuple(found)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "path": name,
                "objective": value.to_dict(self.exact.get(name) if self.spec.objective == WORK else None),
                "work": self.works[name].to_dict(),
                "gain": self.gains[name].to_dict() if name in self.gains else None,
            }
            for name, value in self.values.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {
            "knots": finite_or_none(self.path),
            "first_jump": finite_or_none(self.first_jump),
            "last_jump": finite_or_none(self.last_jump),
            "exact": {name: finite_or_none(value) for name, value in self.exact.items()},
            "least": self.least,
            "delta_f": self.delta_f,
            "rounds": [
                {"knots": one.knots, "particles": one.particles, "gain": one.gain.to_dict(), "returns": one.returns}
                for one in self.rounds
            ],
            "warnings": list(self.warnings),
        }

    def tables(self) -> list[Table]:
        work = self.spec.objective == WORK
        heading = "W / energy" if work and self.delta_f is None else _MEANINGS[self.spec.objective]
        rows = []
        for name, value in self.values.items():
            exact = self.exact.get(name, math.nan)
            gain = self.gains.get(name)
            z = value.z(exact) if work else self.works[name].z(exact)
            cells = [name, str(value)] if work else [name, str(value), str(self.works[name])]
            known = [f"{exact:.6g}", f"{z:+.1f}"] if math.isfinite(exact) else ["", ""]
            rows.append((*cells, *known, "" if gain is None else str(gain)))
        if self.least is not None:
            rows.append(("least work", *([""] if work else ["", ""]), f"{self.least:.4g}", "", ""))
        headings = ("path", heading, *(() if work else ("W_ex / energy",)), "exact", "z", "less than straight")
        title = f"Protocol of {self.spec.potential_name}, tau = {self.spec.tau:g}"
        return [Table(title, headings, rows, self._notes())]

    def _notes(self) -> list[str]:
        spec = self.spec
        notes = [f"first jump {words(self.first_jump.tolist())}, last jump {words(self.last_jump.tolist())}"]
        if spec.objective != WORK:
            notes.append("exact and z: of the excess work")
        if self.least is not None:
            notes.append("least work: by the Fokker-Planck equation on a grid, which adds about 1e-4 of it")
        notes.append(f"{spec.particles:,} particles a path x {spec.steps:,} steps, {spec.integrator}, {spec.precision}")
        done = [
            f"{one.knots} knots {np.count_nonzero(np.isfinite(one.values))}" + ("" if one.gain.mean < 0 else "*")
            for one in self.rounds
        ]
        notes.append("iterations: " + ", ".join(done))
        if not all(one.gain.mean < 0 for one in self.rounds):
            notes.append("* fresh noise saw no gain: the path of the round before was kept")
        return notes + [f"warning  {sentence}" for sentence in self.warnings]

    def figures(self) -> "dict[str, Figure]":
        from thermorun.protocol import figures

        return {"": figures.protocol(self)}


def read(file: RunFile, spec: Protocol) -> ProtocolResult:
    """The results in a file, of the rounds and rows that are complete."""
    done, searched = file.committed("search"), file.read("search")
    rounds = tuple(
        Round(
            knots, particles, searched["value"][n],
            Estimate(float(searched["gain"][n]), float(searched["gain_stderr"][n])), int(searched["returns"][n]),
        )
        for n, (knots, particles) in enumerate(spec.rounds[:done])
    )  # fmt: skip
    count = rounds[-1].knots if rounds else spec.rounds[0][0]
    knots = searched["knots"][done - 1][:count] if done else spec.first(shares(count))
    delta_f = file.noted("delta_f", float)
    paths, table, best = tuple(spec.paths), file.read("paths"), file.read("least")
    values, works, gains = _measured(file, spec, delta_f)
    exact = dict(zip(paths, (table["exact"] - (delta_f or 0.0)).tolist(), strict=True))
    there = bool(np.isfinite(best["excess_work"][0]))
    return ProtocolResult(
        **origin(file, spec), knots=knots, shares=shares(count), rounds=rounds, values=values, works=works, gains=gains,
        exact={name: value for name, value in exact.items() if math.isfinite(value)},
        delta_f=delta_f, least=float(best["excess_work"][0]) if there else None,
        least_knots=best["theta"] if there else None,
    )  # fmt: skip


def _measured(
    file: RunFile, spec: Protocol, delta_f: float | None
) -> tuple[dict[str, Estimate], dict[str, Estimate], dict[str, Estimate]]:
    """Objectives, works and gains of all paths, of the rows that are complete; empty without any."""
    rows = file.committed("result")
    if not rows:
        return {}, {}, {}
    objective = known(spec.objective, spec.beta, delta_f, file.noted("wanted"))
    moments = np.moveaxis(file.read("result")["moments"][:rows], 3, 1)
    means = moments.reshape(-1, *moments.shape[2:])[: spec.particles // int(BLOCK)]  # (blocks, paths, 1 + moments)
    values, works, gains = {}, {}, {}
    for index, name in enumerate(spec.paths):
        both = means[:, [0, index]]
        works[name] = over_replicas(means[:, index, 0] - (delta_f or 0.0))
        if spec.objective == WORK:
            values[name], gain = works[name], over_replicas(both[:, 1, 0] - both[:, 0, 0])
        else:
            values[name] = jackknife(means[:, index], objective.value)
            gain = jackknife(both, lambda one: objective.value(one[1]) - objective.value(one[0]))
        if index:
            gains[name] = gain
    return values, works, gains


def _write(file: Path | str, rows: Array, mark: str, heading: str) -> None:
    try:
        np.savetxt(file, rows, fmt="%.10g", delimiter=mark, header=heading, comments="")
    except OSError as error:
        raise RunError(f"{file} could not be written ({error.strerror or error}).") from error
