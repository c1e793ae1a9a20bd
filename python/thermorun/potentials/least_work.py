"""Protocols of least work in a given time, jumps included, for any one-dimensional potential.

theta runs straight between knots and may jump at both ends.  Its excess work by the Fokker-Planck equation
(`thermorun.potentials.fokker_planck`) is a function of the knots with a gradient; the minimum comes from L-BFGS.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials.fokker_planck import FokkerPlanck, middles

KNOTS = 17


@dataclass(frozen=True)
class LeastWork:
    """theta between two points: a jump, straight pieces between ``knots`` (K, p) at ``shares`` (K,) of tau, a jump.

    ``excess_work`` is its work minus Delta F, energy.
    """

    start: Array
    end: Array
    tau: float
    shares: Array
    knots: Array
    excess_work: float

    def theta(self, s: Array) -> Array:
        """theta between the jumps, (points, p), at shares s of tau."""
        return np.stack([np.interp(s, self.shares, column) for column in self.knots.T], axis=-1)

    @property
    def first_jump(self) -> Array:
        """The jump at time 0, (p,)."""
        return np.asarray(self.knots[0] - self.start)

    @property
    def last_jump(self) -> Array:
        """The jump at tau, (p,)."""
        return np.asarray(self.end - self.knots[-1])


def shares(knots: int = KNOTS) -> Array:
    """Where the knots lie, as shares of tau (K,): at the ends 2.5 times as dense as if even.

    With 64 waits or more that leaves each knot a wait of its own.
    """
    even = np.arange(knots) / (knots - 1)
    return np.asarray(even - 0.6 / (2 * np.pi) * np.sin(2 * np.pi * even))


def least(problem: FokkerPlanck, guess: Callable[[Array], Array], steps: int, knots: int = KNOTS) -> LeastWork:
    """The protocol of least work in ``steps`` waits, by L-BFGS from theta = guess(s), s in [0, 1].

    Raises InputError where none is found.
    """
    at = shares(knots)
    weights = np.stack([np.interp(middles(steps), at, row) for row in np.eye(knots)], axis=1)
    first = np.asarray(guess(at))
    unit = np.abs(problem.end - problem.start)
    unit = np.where(unit > 0, unit, unit.max())
    scale = abs(problem.run(weights @ first)[0])

    def work(unknowns: Array) -> tuple[float, Array]:
        value, gradient = problem.run(weights @ (unknowns.reshape(first.shape) * unit))
        return value / scale, (weights.T @ gradient * unit).ravel() / scale

    found = minimize(
        work, (first / unit).ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": 200, "maxcor": 30, "ftol": 1e-8, "gtol": 1e-6},
    )  # fmt: skip
    best = LeastWork(problem.start, problem.end, problem.tau, at, found.x.reshape(first.shape) * unit, np.nan)
    value = problem.excess_work(best.theta, steps)
    if not np.isfinite(value):
        raise InputError(
            f"theta goes from {words(problem.start.tolist())} to {words(problem.end.tolist())} in tau {problem.tau:g};"
            " no protocol of least work was found: take a longer tau."
        )
    return replace(best, excess_work=value)
