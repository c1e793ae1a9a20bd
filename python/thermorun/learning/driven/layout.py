"""Where a file keeps works, histograms and snapshots."""

from dataclasses import dataclass

import numpy as np

from thermorun.arrays import Array
from thermorun.learning.driven.spec import ROW, Drive
from thermorun.potentials import System, path_means
from thermorun.potentials.staircase import Stairs
from thermorun.store import Axis, RunFile, Variable

# What is noted of the whole run, where it is known.
KNOWN = ("delta_f", "delta_reduced", "exact_work", "exact_heat", "exact_reduced_work")
_EACH = {
    "work": ("energy", "work of each particle"),
    "heat": ("energy", "heat of each particle"),
    "reduced_work": ("1", "change of E/kT minus heat over the kT at which it was absorbed, of each particle"),
}


@dataclass(frozen=True, eq=False)
class Histograms:
    """Densities of x, one dimension of it at a time, at some ``time`` (times,).

    ``edges`` (dimension, bins + 1), length; ``count`` (times, dimension, bins) of ``particles``; ``density`` the same
    over particles and width, 1/length, ``stderr`` its standard error, and ``exact`` the mean density in each bin where
    that is known, else None.
    """

    time: Array
    edges: Array
    count: Array
    particles: int
    exact: Array | None

    @property
    def density(self) -> Array:
        return np.asarray(self.count / self.particles / np.diff(self.edges, axis=1))

    @property
    def stderr(self) -> Array:
        share = self.count / self.particles
        return np.asarray(np.sqrt(share * (1 - share) / self.particles) / np.diff(self.edges, axis=1))


def rows(spec: Drive) -> int:
    """Of the file."""
    return -(-spec.particles // ROW)


def each(spec: Drive) -> list[str]:
    """What is kept of each particle."""
    return [name for name in _EACH if spec.kT or name != "reduced_work"]


def lay_out(file: RunFile, spec: Drive, system: System, stairs: Stairs, edges: Array | None) -> None:
    """Makes every section of a new file, notes what is known beforehand, and publishes it."""
    clock = np.append(0.0, np.cumsum(stairs.waits))
    times = clock[stairs.reached(spec.at)]
    known = path_means.means(system, spec.rows, times, edges)
    _note(file, spec, system, known)
    row = Axis("row", np.arange(rows(spec)), "1", f"independent groups of {ROW} particles")
    particle = Axis("particle", np.arange(ROW), "1", "particle of a row; in the last row some may be missing (NaN)")
    dimension = Axis("dimension", np.arange(system.potential.dimension), "1", "component of x")
    when = Axis("time", times, "time", "time since the start")
    axes = [row, particle]
    variables = [Variable(name, ("row", "particle"), *_EACH[name]) for name in each(spec)]
    variables += [
        Variable("first_law_residual", ("row",), "energy", "largest |dE - W - Q| of any particle"),
        Variable("seconds", ("row",), "s", "time that the row took"),
    ]
    if edges is not None:
        bins = Axis("bin", np.arange(spec.bins), "1", "bin of a histogram")
        axes += [when, dimension, bins]
        about = ("1", "particles whose x is in the bin")
        variables.append(Variable("count", ("row", "time", "dimension", "bin"), *about, "int64"))
        _lay_out_histograms(file, [when, dimension, bins], edges, known)
    if spec.snapshots:
        first = Axis("particle", np.arange(spec.snapshots), "1", "particle of the first row")
        x = Variable("x", ("time", "particle", "dimension"), "length", "x of each particle", spec.precision)
        file.add_section("snapshots", [when, first, dimension], [x])
    file.add_section("particles", axes, variables)
    file.publish({"particles": rows(spec)})


def _note(file: RunFile, spec: Drive, system: System, known: path_means.Known | None) -> None:
    path = spec.rows
    ends = [
        path_means.free_energy(System(system.potential, 1 / kt), theta) for *theta, kt in path[[0, -1], 1:].tolist()
    ]
    if ends[0] is not None and ends[1] is not None:
        if spec.kT is None:
            file.note(delta_f=ends[1] - ends[0])
        else:
            file.note(delta_reduced=ends[1] / path[-1, -1] - ends[0] / path[0, -1])
    if known is not None:
        file.note(exact_work=known.work, exact_heat=known.heat, exact_from=known.how)
        if spec.kT is not None:
            file.note(exact_reduced_work=known.reduced_work)


def _lay_out_histograms(file: RunFile, axes: list[Axis], edges: Array, known: path_means.Known | None) -> None:
    edge = Axis("side", np.arange(edges.shape[1]), "1", "between bins")
    variables = [
        Variable("edge", ("dimension", "side"), "length", "edges of the bins"),
        Variable("x", ("dimension", "bin"), "length", "centre of the bin"),
        Variable("density", ("time", "dimension", "bin"), "1/length", "density of x"),
        Variable("density_stderr", ("time", "dimension", "bin"), "1/length", "its standard error"),
        Variable("density_exact", ("time", "dimension", "bin"), "1/length", "its exact value; NaN if not known"),
    ]
    file.add_section("histograms", [*axes, edge], variables)
    file.write_whole("histograms", {"edge": edges, "x": 0.5 * (edges[:, 1:] + edges[:, :-1])})
    if known is not None:
        file.write_whole("histograms", {"density_exact": known.shares / np.diff(edges, axis=1)})
    file.wait()


def read_histograms(file: RunFile, spec: Drive) -> Histograms | None:
    """Those of the rows that are complete; None where there are none."""
    done = file.committed("particles")
    if not spec.at or not done:
        return None
    stored = file.read("histograms")
    count = file.read("particles")["count"][:done].sum(axis=0)
    truth = stored["density_exact"]
    particles = min(done * ROW, spec.particles)
    return Histograms(stored["time"], stored["edge"], count, particles, truth if np.isfinite(truth).all() else None)


def summarise(file: RunFile, spec: Drive) -> None:
    """Writes the densities, for whoever reads the file without us."""
    found = read_histograms(file, spec)
    if found is not None:
        file.write_whole("histograms", {"density": found.density, "density_stderr": found.stderr})
