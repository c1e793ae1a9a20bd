"""Exact values for a learned harmonic trap: moment equations for any protocol, and the closed forms of the paper.

Equation numbers are those of Hnybida & Verret 2025.  mu is the mobility, kT = 1/beta.  The closed forms are here for
reference, ``learning.exact``: runs compare themselves with ``moments``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from thermorun.arrays import Array
from thermorun.learning.trap.protocols import Path, Protocol, Schedule, Trap, start

__all__ = [
    "Moments",
    "closed_form",
    "moments",
    "optimal_speed",
    "quasistatic_over_optimal",
    "straight_line_over_optimal",
    "theta_continuous",
    "u_straight_line",
    "work_continuous",
    "work_discontinuous",
    "work_optimal",
    "work_quasistatic",
    "work_straight_line",
]


@dataclass(frozen=True)
class Moments:
    """Moments along a protocol, arrays over ``time``; where a time stands twice, before and after the jump.

    ``u``, ``theta``, ``work``: with infinitely many particles.  With N particles that share theta, (u, theta) is
    Gaussian (the dynamics is linear) with covariance ``covariance[:, :2, :2] / N``.  The mean work is quadratic in
    it: its mean is
    ``work + work_shift / N``, and its variance ``covariance[:, 2, 2] / N`` up to terms of order 1/N^2.
    """

    time: Array
    u: Array
    theta: Array
    work: Array
    work_shift: Array
    covariance: Array

    def stderr(self, particles: int, replicas: int = 1) -> Array:
        """Standard error of the mean work of ``replicas`` independent groups of ``particles``."""
        return np.sqrt(self.covariance[:, 2, 2] / particles / replicas)


def moments(trap: Trap, protocol: Protocol, times: ArrayLike, u0: float | None = None) -> Moments:
    """Solves the moment equations for ascending ``times`` in [0, tau]; a time given twice gives both sides of a jump.

    ``u0`` is the mean of x at the start, by default what the protocol asks for.  NaN from where the solution diverges.

    With infinitely many particles (Eqs. 12, 13, 24)

        du/dt = -mu (u - theta),    dtheta/dt = -eta (u - theta*),    d<W>/dt = (theta - u) dtheta/dt,

    and at an impulse of strength kappa theta' = theta - kappa (u - theta*), W' = W + E(x, theta') - E(x, theta).  The
    covariance C of (u, theta, W), times N, obeys dC/dt = A C + C A^T + 2 mu kT (in its first element), with A the
    linearised drift and C_uu = kT at the start.
    """
    times = np.asarray(times, float)
    breaks = protocol.jumps if isinstance(protocol, Path) else tuple(time for time, _ in protocol.impulses)
    marks = np.unique([0.0, *breaks, trap.tau])
    state = np.zeros(13)
    state[0] = start(protocol.name, trap) if u0 is None else u0
    state[1], state[3] = trap.theta0, 1 / trap.beta
    rows = np.full((len(times), 13), np.nan)
    # Components pass through zero, so the solver must know how large they are elsewhere.
    length = abs(state[0]) + abs(trap.theta0) + abs(trap.target) + trap.beta**-0.5
    fluctuation = np.array([1.0, 1.0, length]) / np.sqrt(trap.beta)
    scale = np.concatenate(
        [[length, length, length**2], np.outer(fluctuation, fluctuation).ravel(), [fluctuation[0] ** 2]]
    )
    for i, mark in enumerate(marks):
        here = np.flatnonzero(times == mark)
        rows[here[:1]] = state
        state = _jump(trap, protocol, state, float(mark))
        rows[here[1:] if len(here) > 1 else here] = state
        if i + 1 < len(marks):
            inside = np.flatnonzero((times > mark) & (times < marks[i + 1]))
            wanted = np.concatenate([times[inside], marks[i + 1 : i + 2]])
            with np.errstate(over="ignore", invalid="ignore"):
                solution = solve_ivp(
                    lambda t, y: _drift(trap, protocol, t, y),
                    (mark, marks[i + 1]),
                    state,
                    method="DOP853",
                    t_eval=wanted,
                    rtol=1e-11,
                    atol=1e-13 * scale,
                )
            if not (solution.success and np.all(np.isfinite(solution.y))):
                break
            rows[inside] = solution.y.T[:-1]
            state = solution.y[:, -1]
    return Moments(times, rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 12], rows[:, 3:12].reshape(-1, 3, 3))


def _drift(trap: Trap, protocol: Protocol, t: float, y: Array) -> Array:
    u, theta, _ = y[:3]
    covariance = y[3:12].reshape(3, 3)
    drift = np.zeros((3, 3))
    drift[0, :2] = -trap.mobility, trap.mobility
    if isinstance(protocol, Path):
        speed = _path_speed(protocol, t)
        drift[2, 0] = -speed
        shift = 0.0
    else:
        eta = float(protocol.rate(t))
        speed = -eta * (u - trap.target)
        drift[1, 0] = -eta
        drift[2, :2] = -speed - (theta - u) * eta, speed
        shift = -eta * (covariance[0, 1] - covariance[0, 0])
    change = drift @ covariance
    change = change + change.T
    change[0, 0] += 2 * trap.mobility / trap.beta
    return np.concatenate([[-trap.mobility * (u - theta), speed, (theta - u) * speed], change.ravel(), [shift]])


def _jump(trap: Trap, protocol: Protocol, y: Array, time: float) -> Array:
    u, theta, work = y[:3]
    covariance = y[3:12].reshape(3, 3)
    map_ = np.eye(3)
    if isinstance(protocol, Path):
        new, extra = float(protocol.theta(time)), 0.0
        map_[1, 1] = 0.0
        map_[2, 0] = -(new - theta)
    else:
        strength = sum(strength for at, strength in protocol.impulses if at == time)
        new = theta - strength * (u - trap.target)
        lag = 0.5 * (theta + new) - u
        map_[1, 0] = -strength
        map_[2, :2] = -strength * lag - (new - theta) * (1 + 0.5 * strength), new - theta
        extra = -strength * (covariance[0, 1] - (1 + 0.5 * strength) * covariance[0, 0])
    work += (new - theta) * (0.5 * (theta + new) - u)
    covariance = map_ @ covariance @ map_.T
    return np.concatenate([[u, new, work], covariance.ravel(), [y[12] + extra]])


def _path_speed(path: Path, t: float) -> float:
    times, thetas = np.array(path.times), np.array(path.thetas)
    i = int(np.clip(np.searchsorted(times, t, side="right"), 1, len(times) - 1))
    while times[i] == times[i - 1]:
        i -= 1
    return float((thetas[i] - thetas[i - 1]) / (times[i] - times[i - 1]))


def theta_continuous(t: ArrayLike, mobility: float, speed: float, u0: float) -> Array:
    """theta(t) = m/mu + u0 + m t, the optimal continuous protocol (Eq. 29)."""
    return speed / mobility + u0 + speed * np.asarray(t, float)


def work_continuous(mobility: float, tau: float, speed: float) -> float:
    """<W_ex> = m^2 tau / mu along Eq. 29; m = mu (theta0 - u0)."""
    return speed**2 * tau / mobility


def work_discontinuous(mobility: float, tau: float, theta0: float, target: float, u0: float, speed: float) -> float:
    """<W_ex> = m^2 tau / mu + [(theta* - u0 - m tau)^2 - (theta0 - u0)^2] / 2, jumps at both ends, any m (Eq. 32)."""
    return speed**2 * tau / mobility + 0.5 * ((target - u0 - speed * tau) ** 2 - (theta0 - u0) ** 2)


def optimal_speed(mobility: float, tau: float, target: float, u0: float) -> float:
    """m = (theta* - u0) / (tau + 2/mu), which minimises Eq. 32 (Eq. 33)."""
    return (target - u0) / (tau + 2 / mobility)


def work_quasistatic(mobility: float, eta: float, tau: float, theta0: float, target: float, u0: float) -> float:
    """(eta / 2 mu) [(u0 - theta*)^2 - (theta0 - theta*)^2 e^(-2 eta tau)]: the limit of constant eta << mu (Eq. 46)."""
    return eta / (2 * mobility) * ((u0 - target) ** 2 - (theta0 - target) ** 2 * float(np.exp(-2 * eta * tau)))


def work_optimal(mobility: float, tau: float, theta0: float, target: float) -> float:
    """<W_ex> = (theta0 - theta*)^2 / (mu tau + 2), the least possible from equilibrium (Eq. 47)."""
    return (theta0 - target) ** 2 / (mobility * tau + 2)


def quasistatic_over_optimal(mobility: float, eta: float, tau: float) -> float:
    """Eq. 46 over Eq. 47 from equilibrium: (1/2 + 1/(mu tau)) eta tau (1 - e^(-2 eta tau)) (Eq. 48)."""
    return (0.5 + 1 / (mobility * tau)) * eta * tau * -float(np.expm1(-2 * eta * tau))


def u_straight_line(t: ArrayLike, mobility: float, speed: float, theta0: float) -> Array:
    """u(t) = (m/mu) (e^(-mu t) - 1) + theta0 + m t along theta0 + m t, from equilibrium (Eq. 63)."""
    t = np.asarray(t, float)
    return speed / mobility * np.expm1(-mobility * t) + theta0 + speed * t


def work_straight_line(mobility: float, tau: float, speed: float) -> float:
    """<W_ex> = m^2 tau / mu - (m/mu)^2 (1 - e^(-mu tau)) along theta0 + m t, from equilibrium (Eq. 64).

    The closed loop with the schedule of slow driving (Eq. 53) does not follow this line: it misses by e^(-mu tau).
    """
    return speed**2 * tau / mobility + (speed / mobility) ** 2 * float(np.expm1(-mobility * tau))


def straight_line_over_optimal(mobility: float, tau: float) -> float:
    """Eq. 64 over Eq. 47: (mu tau + 2) (mu tau - 1 + e^(-mu tau)) / (mu tau)^2 (Eq. 65)."""
    x = mobility * tau
    return (x + 2) / x**2 * (x + float(np.expm1(-x)))


def closed_form(trap: Trap, protocol: Protocol) -> tuple[str, float] | None:
    """What the paper gives for the total excess work of a protocol: the equation and its value, or None.

    Eq. 46 (constant) is a limit and Eq. 64 (slow driving) belongs to the straight line; both differ from ``moments``.
    """
    u0 = start(protocol.name, trap)
    straight = work_straight_line(trap.mobility, trap.tau, (trap.target - trap.theta0) / trap.tau)
    if not isinstance(protocol, Schedule):
        return ("Eq. 64", straight) if protocol.name == "straight-line" and u0 == trap.theta0 else None
    if protocol.name == "constant":
        eta = float(protocol.rate(0.0))
        return "Eq. 46", work_quasistatic(trap.mobility, eta, trap.tau, trap.theta0, trap.target, u0)
    if protocol.name == "continuous":
        return "Eq. 29", work_continuous(trap.mobility, trap.tau, trap.mobility * (trap.theta0 - u0))
    if protocol.name == "slow-driving":
        return "Eq. 64", straight
    if protocol.name == "discontinuous":
        speed = optimal_speed(trap.mobility, trap.tau, trap.target, u0)
        value = work_discontinuous(trap.mobility, trap.tau, trap.theta0, trap.target, u0, speed)
        return ("Eq. 47" if u0 == trap.theta0 else "Eq. 32"), value
    return None
