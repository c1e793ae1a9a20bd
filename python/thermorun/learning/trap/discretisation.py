"""From a protocol to what the kernels are given: a grid of times, and for each step its gain, pull and kick.

Theta and x move in turn (Strang splitting).  Over a step [t, t + dt] theta moves by the learning rate of the first
half, x relaxes for dt at fixed theta, theta moves by the rate of the second half.  Neighbouring half moves and the
impulse between them happen at the same x, so the kernel takes them as one jump.  With exact substeps the error is
second order in dt; impulses are points of the grid and are exact.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thermorun.arrays import Array
from thermorun.errors import InputError
from thermorun.learning.trap.protocols import Path, Protocol, Trap

INTEGRATORS = ("exact", "euler-maruyama")
# Grid points closer than this share of a step to an impulse are moved onto it.
_SNAP = 1e-6
# Every step is kept in memory, some hundred bytes for each replica.
MOST_STEPS = 10**8


@dataclass(frozen=True)
class Scheme:
    """The discretised run.  Row n of ``steps`` belongs to ``times[n]``; the last row is a jump alone.

    ``times`` (points,) in time units; ``steps`` (points, 3): gain, pull, kick; ``impulses`` and ``later`` (points,):
    the strength of the impulse at a point, and the integral of eta over the half step after it, so that

        theta just after the impulse   = theta after the jump + later (u - target),
        theta just before the impulse  = theta just after it + impulses (u - target).

    For a path, ``centres`` (points + 1,) is theta before the first jump and after each, and ``sides`` (points, 2) is
    theta just before and just after each time; both are None in closed loop.
    """

    times: Array
    steps: Array
    impulses: Array
    later: Array
    centres: Array | None
    sides: Array | None

    @property
    def points(self) -> int:
        """Number of times, which is the number of kernel steps."""
        return len(self.times)

    @cached_property
    def jumps(self) -> NDArray[np.bool_]:
        """Whether theta is discontinuous at a point."""
        if self.sides is not None:
            return np.asarray(self.sides[:, 0] != self.sides[:, 1])
        return np.asarray(self.impulses != 0)

    def mean_field(self, trap: Trap, u0: float) -> tuple[Array, Array, Array]:
        """u, theta and work at each point, after its jump, of the scheme itself with infinitely many particles.

        Its distance from ``exact.moments`` is the time-step bias, free of noise.
        """
        u, theta, work = u0, trap.theta0, 0.0
        rows = np.empty((3, self.points))
        for n, (gain, pull, _) in enumerate(self.steps.tolist()):
            new = theta - gain * (u - trap.target) if self.centres is None else float(self.centres[n + 1])
            work += (new - theta) * (0.5 * (theta + new) - u)
            theta = new
            rows[:, n] = u, theta, work
            u += pull * (theta - u)
        return rows[0], rows[1], rows[2]


def default_steps(trap: Trap, protocols: tuple[Protocol, ...]) -> int:
    """1,000 steps, or 40 for the shortest of the times 1/mobility and 1/eta where that is more.

    Raises InputError where that is more than ``MOST_STEPS``.
    """
    fastest = trap.mobility
    for protocol in protocols:
        if not isinstance(protocol, Path):
            fastest = max(fastest, float(np.max(np.abs(protocol.rate(np.linspace(0.0, trap.tau, 1001))))))
    steps = max(1000.0, float(np.ceil(40 * trap.tau * fastest)))
    if steps > MOST_STEPS:
        raise InputError(
            f"tau is {trap.tau} and the fastest rate {fastest:.3g}, which takes {steps:.2g} steps; shorten tau."
        )
    return int(steps)


def discretise(trap: Trap, protocol: Protocol, steps: int, integrator: str) -> Scheme:
    """The scheme for ``steps`` equal steps, cut where an impulse falls inside one.

    Raises InputError where the step is too long to be stable, or the protocol does not end at ``trap.tau``.
    """
    if not np.isclose(protocol.tau, trap.tau, rtol=1e-12, atol=0):
        raise InputError(
            f"tau is {trap.tau} and the protocol {protocol.name!r} ends at {protocol.tau}; both must be equal."
        )
    breaks = protocol.jumps if isinstance(protocol, Path) else tuple(time for time, _ in protocol.impulses)
    times = _grid(trap.tau, steps, breaks)
    dt = np.diff(times)
    pull, kick = _relaxation(trap, dt, integrator)
    _require_stable_step(trap, float(dt.max()), integrator)
    table = np.zeros((len(times), 3))
    table[:-1, 1], table[:-1, 2] = pull, kick
    impulses, earlier, later = np.zeros(len(times)), np.zeros(len(times)), np.zeros(len(times))
    middles = times[:-1] + 0.5 * dt
    if isinstance(protocol, Path):
        centres = np.concatenate([[trap.theta0], protocol.theta(middles), protocol.theta(times[-1:])])
        sides = np.stack([protocol.theta(times, after=False), protocol.theta(times)], axis=1)
        sides[0, 0] = trap.theta0
        return Scheme(times, table, impulses, later, centres, sides)
    later[:-1] = protocol.integral(times[:-1], middles)
    earlier[1:] = protocol.integral(middles, times[1:])
    regular = earlier + later
    for time, strength in protocol.impulses:
        impulses[np.argmin(np.abs(times - time))] += strength
    table[:, 0] = regular + impulses
    if np.any(pull * regular[:-1] >= 4 - 2 * pull):
        raise InputError(
            f"steps is {steps}; the learning rate of {protocol.name!r} times the step is"
            f" {float(regular.max()):.3g}, which makes the coupled step of theta and x unstable: take more steps."
        )
    return Scheme(times, table, impulses, later, None, None)


def _grid(tau: float, steps: int, breaks: tuple[float, ...]) -> Array:
    times = np.linspace(0.0, tau, steps + 1)
    for time in breaks:
        nearest = int(np.argmin(np.abs(times - time)))
        if abs(times[nearest] - time) <= _SNAP * tau / steps:
            times[nearest] = time
        else:
            times = np.sort(np.append(times, time))
    return times


def _relaxation(trap: Trap, dt: Array, integrator: str) -> tuple[Array, Array]:
    if integrator == "exact":
        return -np.expm1(-trap.mobility * dt), np.sqrt(-np.expm1(-2 * trap.mobility * dt) / trap.beta)
    return trap.mobility * dt, np.sqrt(2 * trap.mobility * dt / trap.beta)


def _require_stable_step(trap: Trap, dt: float, integrator: str) -> None:
    if integrator != "exact" and trap.mobility * dt >= 2:
        least = int(np.floor(trap.mobility * trap.tau / 2)) + 1
        raise InputError(
            f"steps is {round(trap.tau / dt)}, so mobility * dt is {trap.mobility * dt:.3g}; Euler-Maruyama is stable"
            f" only below 2: take at least {least} steps, or the exact integrator."
        )
