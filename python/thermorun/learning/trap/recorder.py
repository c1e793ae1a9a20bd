"""From what kernels trace to thermodynamic quantities: work, heat, bias, first law, and their errors.

All are means over the particles of a replica, in units of energy (Hnybida & Verret 2025, Sect. III).  Work is done on
the system, heat is absorbed by it, and Delta F = 0 for a trap that only moves, so work is excess work.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from thermorun.arrays import Array
from thermorun.learning.trap.discretisation import Scheme

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
    # These three are of the half step after the time; just before a jump, of the half step before it.
    "var_u": ("length^2", "squared standard error of u from within the replica"),
    "var_theta": ("length^2", "squared standard error of theta from within the replica"),
    "var_work": ("energy^2", "squared standard error of work from within the replica"),
}
_VARIANCES = ("var_u", "var_theta", "var_work")


@dataclass
class Recorder:
    """Turns what kernels trace, in order, into ``SERIES`` at the recorded points; positions count from the origin.

    ``recorded`` is a mask over the scheme's points.  Where theta jumps a recorded point gives two rows.
    ``state`` (7, replicas) is what the next rows depend on, for checkpoints: energy at the start, bias, theta - u,
    theta and the three variances.
    """

    scheme: Scheme
    recorded: NDArray[np.bool_]
    target: Array
    theta0: float
    state: Array

    @classmethod
    def open(cls, scheme: Scheme, records: int, target: Array, theta0: float) -> Self:
        """A recorder at the start of a run.  ``target`` is (points, replicas)."""
        recorded = scheme.jumps.copy()
        last = scheme.points - 1
        recorded[np.linspace(0, last, min(records, last) + 1).round().astype(int)] = True
        return cls(scheme, recorded, target, theta0, np.full((7, target.shape[1]), np.nan))

    @property
    def time(self) -> Array:
        """The time of every row that the whole run will give."""
        return np.repeat(self.scheme.times, self.recorded * (1 + self.scheme.jumps))

    def rows_before(self, point: int) -> int:
        """How many rows come before a point."""
        return int(np.sum((self.recorded * (1 + self.scheme.jumps))[:point]))

    def record(self, points: NDArray[np.intp], trace: dict[str, Array]) -> dict[str, Array]:
        """Rows for consecutive traced ``points``.

        ``trace`` holds, as (points, replicas), u, theta, work, heat, square and the three variances, all after the
        whole jump of a point and before its relaxation.
        """
        u = trace["u"]
        if self.scheme.sides is None:
            distance = u - self.target[points]
            after = trace["theta"] + self.scheme.later[points, None] * distance
            before = after + self.scheme.impulses[points, None] * distance
        else:
            before, after = (np.broadcast_to(self.scheme.sides[points, side, None], u.shape) for side in (0, 1))
        variances = np.stack([trace[name] for name in _VARIANCES])
        if points[0] == 0:
            before = np.concatenate([np.full_like(before[:1], self.theta0), before[1:]])
            energy = 0.5 * (trace["square"][0] - 2 * self.theta0 * u[0] + self.theta0**2)
            nothing = np.zeros_like(energy)
            self.state = np.stack(
                [energy, nothing, self.theta0 - u[0], nothing + self.theta0, variances[0, 0], nothing, nothing]
            )
        start_energy, last_bias, last_lag, last_theta = self.state[:4]

        # L_bias by the trapezoid rule between points; across a jump, at fixed u, the rule is exact.
        lags = np.concatenate([last_lag[None], after - u])
        thetas = np.concatenate([last_theta[None], after])
        between = 0.5 * (lags[:-1] + before - u) * (before - thetas[:-1])
        across = 0.5 * (before + after - 2 * u) * (after - before)
        bias = np.cumsum(np.concatenate([last_bias[None], between + across]), axis=0)[1:]
        earlier = np.concatenate([self.state[4:, None], variances[:, :-1]], axis=1)
        self.state = np.stack([start_energy, bias[-1], lags[-1], thetas[-1], *variances[:, -1]])

        sides = (
            self._series(trace, start_energy, before, bias - across, earlier),
            self._series(trace, start_energy, after, bias, variances),
        )
        keep = np.stack([self.recorded & self.scheme.jumps, self.recorded], axis=1)[points]
        return {name: np.stack([side[name] for side in sides], axis=1)[keep] for name in SERIES}

    @staticmethod
    def _series(
        trace: dict[str, Array], start_energy: Array, theta: Array, bias: Array, variances: Array
    ) -> dict[str, Array]:
        u, square, heat = trace["u"], trace["square"], trace["heat"]
        # The rest of the jump, from theta to its end, is still to be done at this instant.
        work = trace["work"] - (trace["theta"] - theta) * (0.5 * (trace["theta"] + theta) - u)
        energy_change = 0.5 * (square - 2 * theta * u + theta**2) - start_energy
        return {
            "u": u,
            "theta": theta,
            "variance": square - u**2,
            "work": work,
            "heat": heat,
            "energy_change": energy_change,
            "bias": bias,
            "first_law_residual": energy_change - work - heat,
            **dict(zip(_VARIANCES, variances, strict=True)),
        }
