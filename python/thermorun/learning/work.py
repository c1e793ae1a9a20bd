"""From what kernels trace to thermodynamic quantities: work, heat, bias, first law, and their errors.

All are means over the particles of a replica, in units of energy (Hnybida & Verret 2025, Sect. III).  Work is done on
the system, heat is absorbed by it, and Delta F = 0 for a trap that only moves, so work is excess work.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermorun.estimates import Estimate
from thermorun.learning.scheme import Scheme

Array = NDArray[np.float64]

# What a run records, with units and what it is; arrays are (time, replica).
SERIES = {
    "u": ("length", "mean of x"),
    "theta": ("length", "centre of the trap"),
    "variance": ("length^2", "variance of x over the particles"),
    "work": ("energy", "mean work done on a particle so far; Delta F = 0, so excess work"),
    "heat": ("energy", "mean heat absorbed by a particle so far"),
    "energy_change": ("energy", "mean energy of a particle, minus that at the start"),
    "bias": ("energy", "L_bias: its gradient (theta - u) integrated along theta, apart from the work (Eq. 18)"),
    "first_law_residual": ("energy", "energy_change - work - heat"),
    "var_u": ("length^2", "squared standard error of u from within the replica"),
    "var_theta": ("length^2", "squared standard error of theta from within the replica"),
    "var_work": ("energy^2", "squared standard error of work from within the replica"),
}


@dataclass
class Ledger:
    """Keeps the books of one run: turns kernel rows, in order, into ``SERIES`` at the recorded points.

    ``recorded`` is a mask over the scheme's points.  Where theta jumps a recorded point gives two rows, before and
    after.
    ``state`` is what the next rows depend on, for checkpoints: energy at the start, bias, theta - u and theta.
    """

    scheme: Scheme
    recorded: NDArray[np.bool_]
    target: Array
    theta0: float
    state: Array

    @classmethod
    def open(cls, scheme: Scheme, records: int, target: Array, theta0: float) -> "Ledger":
        """A ledger at the start of a run.  ``target`` is (points, replicas)."""
        recorded = scheme.jumps.copy()
        recorded[np.linspace(0, scheme.points - 1, records + 1).round().astype(int)] = True
        return cls(scheme, recorded, target, theta0, np.full((4, target.shape[1]), np.nan))

    @property
    def time(self) -> Array:
        """The time of every row that the whole run will give."""
        return np.repeat(self.scheme.times, self.recorded * (1 + self.scheme.jumps))

    def rows_before(self, point: int) -> int:
        """How many rows come before a point."""
        return int(np.sum((self.recorded * (1 + self.scheme.jumps))[:point]))

    def enter(self, points: NDArray[np.intp], trace: dict[str, Array]) -> dict[str, Array]:
        """Rows for consecutive traced ``points``.

        ``trace`` holds, as (points, replicas), u, theta, work, heat, square and the three variances, all after the
        whole jump of a point and before its relaxation.
        """
        u, theta_end, work_end = trace["u"], trace["theta"], trace["work"]
        if self.scheme.sides is None:
            slope = u - self.target[points]
            after = theta_end + self.scheme.later[points, None] * slope
            before = after + self.scheme.impulses[points, None] * slope
        else:
            before, after = (np.broadcast_to(self.scheme.sides[points, side, None], u.shape) for side in (0, 1))
        if points[0] == 0:
            before = np.concatenate([np.full_like(before[:1], self.theta0), before[1:]])
            energy = 0.5 * (trace["square"][0] - 2 * self.theta0 * u[0] + self.theta0**2)
            self.state = np.stack(
                [energy, np.zeros_like(energy), self.theta0 - u[0], np.full_like(energy, self.theta0)]
            )
        start_energy, start_bias, last_lag, last_theta = self.state

        # L_bias by the trapezoid rule between points; across a jump, at fixed u, the rule is exact.
        lags = np.concatenate([last_lag[None], after - u])
        thetas = np.concatenate([last_theta[None], after])
        between = 0.5 * (lags[:-1] + before - u) * (before - thetas[:-1])
        across = 0.5 * (before + after - 2 * u) * (after - before)
        bias_after = start_bias + np.cumsum(between + across, axis=0)
        self.state = np.stack([start_energy, bias_after[-1], lags[-1], thetas[-1]])

        sides = [
            self._series(u, trace, start_energy, theta, bias, theta_end, work_end)
            for theta, bias in ((before, bias_after - across), (after, bias_after))
        ]
        keep = np.stack([self.recorded & self.scheme.jumps, self.recorded], axis=1)[points]
        return {name: np.stack([side[name] for side in sides], axis=1)[keep] for name in SERIES}

    @staticmethod
    def _series(
        u: Array,
        trace: dict[str, Array],
        start_energy: Array,
        theta: Array,
        bias: Array,
        theta_end: Array,
        work_end: Array,
    ) -> dict[str, Array]:
        # The rest of the jump, theta -> theta_end, is still to be done at this instant.
        work = work_end - (theta_end - theta) * (0.5 * (theta_end + theta) - u)
        energy_change = 0.5 * (trace["square"] - 2 * theta * u + theta**2) - start_energy
        return {
            "u": u,
            "theta": theta,
            "variance": trace["square"] - u**2,
            "work": work,
            "heat": trace["heat"],
            "energy_change": energy_change,
            "bias": bias,
            "first_law_residual": energy_change - work - trace["heat"],
            "var_u": trace["var_u"],
            "var_theta": trace["var_theta"],
            "var_work": trace["var_work"],
        }


def estimate(values: Array, within: Array | None) -> Estimate:
    """The mean over replicas, and its standard error.

    ``values`` and ``within`` are (replicas,): each replica's mean and its squared standard error from within.  Where
    ``within`` is None or unknown, as for a replica of a single block of 1,024 particles or one with data of its own,
    the error comes from the spread of the replicas; a single replica then gives NaN.
    """
    count = len(values)
    mean = float(np.mean(values))
    if within is not None and np.all(np.isfinite(within)):
        return Estimate(mean, float(np.sqrt(np.sum(within)) / count), count)
    if count > 1:
        return Estimate(mean, float(np.std(values, ddof=1) / np.sqrt(count)), count)
    return Estimate(mean, float("nan"), count)
