"""Theorem 1: the slower it is, the nearer Eq. 53 comes to the natural-gradient flow of Eq. 54."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from thermorun.errors import InputError
from thermorun.estimates import Estimate, over_replicas
from thermorun.learning.result import RuleResult
from thermorun.learning.spec import Learn
from thermorun.potentials.exact import Theory, known
from thermorun.tables import Table


@dataclass(frozen=True)
class Deviation:
    """How far Eq. 53 strays from the flow of Eq. 54 in a time ``tau``, over the distance to the target.

    ``exact`` is the largest on the way with infinitely many particles, ``measured`` the same place and direction in the
    run.  Distances are in the Fisher metric at the target.
    """

    tau: float
    exact: float
    measured: Estimate


@dataclass(frozen=True)
class Theorem:
    """Deviations for several tau, and the power of tau with which they fall: about -2 (Hnybida & Verret 2025)."""

    deviations: tuple[Deviation, ...]
    exponent: float

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        rows = [{"tau": one.tau, "deviation": one.measured.to_dict(one.exact)} for one in self.deviations]
        return {"deviations": rows, "exponent": self.exponent}

    def table(self) -> Table:
        """What the command prints."""
        rows = [
            (f"{one.tau:g}", str(one.measured), f"{one.exact:.5g}", f"{one.measured.z(one.exact):+.1f}")
            for one in self.deviations
        ]
        notes = [
            "largest distance on the way, over that from start to target, in the Fisher metric at the target;",
            f"exact: with infinitely many particles; it falls as tau^{self.exponent:.2f}",
        ]
        title = "Theorem 1: deviation of Eq. 53 from the natural-gradient flow of Eq. 54"
        return Table(title, ("tau / time", "deviation", "exact", "z"), rows, notes)


def theorem(
    spec: Learn, taus: tuple[float, ...], *, threads: int | None = None, show_progress: bool = False
) -> Theorem:
    """Theorem 1: the deviation of Eq. 53 from Eq. 54 for several tau, and the exponent with which it falls.

    Parameters
    ----------
    spec : Learn
        What learns; its rules, tau and accuracy are left aside.
    taus : tuple of float
        Durations, at least two [time].
    threads : int, optional
        All cores by default; results do not depend on it.
    show_progress : bool, default False
        A bar with rate and time left on stderr, when it is a terminal.

    Returns
    -------
    Theorem
        A deviation for each tau, and the exponent.

    Raises
    ------
    InputError
        Where the theory of the potential is not known, for fewer than two tau, or for input that cannot run.
    """
    deviations = [
        _deviation(part.tau, part.run(threads=threads, show_progress=show_progress)["natural"])
        for part in parts(spec, taus)
    ]
    logs = np.log([(one.tau, one.exact) for one in deviations])
    return Theorem(tuple(deviations), float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]))


def parts(spec: Learn, taus: tuple[float, ...]) -> list[Learn]:
    """The runs that `theorem` takes.  Raises InputError as it does, before any of them."""
    if len(set(taus)) < 2:
        raise InputError(f"theorem holds {len(set(taus))} durations; an exponent takes at least 2.")
    if not known(spec.system.potential):
        Theory(spec.system, [])
    return [spec.replace(tau=tau, steps=None, refresh=None, rules="natural", accuracy=None).resolved() for tau in taus]


def _deviation(tau: float, rule: RuleResult) -> Deviation:
    distances = rule.distance(rule.exact_theta)
    row = int(np.argmax(distances))
    away = rule.exact_theta[row] - rule.flow[row]
    # The part of the run's own deviation along the exact one, in the metric's scalar product.
    along = rule.target_fisher @ away / (away @ rule.target_fisher @ away)
    measured = (rule.theta[row] - rule.flow[row]) @ along * distances[row]
    return Deviation(tau, float(distances[row]), over_replicas(measured))
