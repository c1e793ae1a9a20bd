"""Exact equilibrium of any one-dimensional potential, by quadrature: free energy, Fisher metric, friction.

Energies are functions of (x, theta), either vectorised over x or compiled ``@njit`` functions of scalars.  theta is a
tuple of p numbers.  mu is the mobility, kT = 1/beta.  Equation numbers are those of Hnybida & Verret 2025.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.polynomial import legendre
from numpy.typing import NDArray

from thermorun.errors import InputError, require_positive, words

Array = NDArray[np.float64]
Function = Callable[[Any, tuple[float, ...]], Any]

# Beyond this many kT above the lowest energy nothing is left that double precision could see.
_DEPTH = 60.0
# Nodes of a panel, and how many panels are tried, doubling, until two answers agree to the tolerance.
NODES = 16
_FEWEST, _MOST = 16, 4096
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Equilibrium:
    """The Boltzmann law p_m(x, theta) = exp(-beta E) / Z of a one-dimensional potential, on the nodes of a quadrature.

    ``x``, ``weights``, ``density``, ``cumulative``  (nodes,): the mean of f is sum(weights density f), and
        ``cumulative`` is the distribution function Pi.
    ``gradient``       (p, nodes): dE/dtheta.
    ``mean_gradient``  (p,): its mean, which is dF/dtheta.
    ``fisher``         (p, p): g_ij = beta^2 Cov(dE/dtheta_i, dE/dtheta_j)                        (Eq. 52)
    ``friction``       (p, p): zeta_ij = (1/mu) integral of d_i Pi d_j Pi / p_m dx                (Eq. 51)
    ``error``          how much the numbers changed, relatively, when the panels were doubled.
    """

    theta: tuple[float, ...]
    beta: float
    mobility: float
    x: Array
    weights: Array
    density: Array
    cumulative: Array
    gradient: Array
    mean_gradient: Array
    log_partition: float
    fisher: Array
    friction: Array
    error: float

    @property
    def free_energy(self) -> float:
        """F = -ln Z / beta, energy."""
        return -self.log_partition / self.beta

    @cached_property
    def relaxation(self) -> Array:
        """Integral relaxation times tau^r_ij = beta zeta_ij / g_ij, time; NaN where g_ij is zero (Eq. 51)."""
        return relaxation_times(self.fisher, self.friction, self.beta)

    def mean(self, function: Callable[[Array], Any]) -> float:
        """The mean of a vectorised function of x."""
        return float(np.sum(self.weights * self.density * function(self.x)))

    def moment(self, order: int) -> float:
        """The mean of x^order, length^order."""
        return self.mean(lambda x: x**order)


def relaxation_times(fisher: Array, friction: Array, beta: float) -> Array:
    """tau^r_ij = beta zeta_ij / g_ij, time; NaN where g_ij is zero to rounding (Eq. 51)."""
    scale = np.sqrt(np.outer(np.diag(fisher), np.diag(fisher)))
    known = np.abs(fisher) > 1e-9 * scale
    return np.divide(beta * friction, fisher, out=np.full_like(fisher, np.nan), where=known)


def equilibrium(
    energy: Function, gradient: Function, theta: Sequence[float], *, beta: float = 1.0, mobility: float = 1.0
) -> Equilibrium:
    """The equilibrium at ``theta``; ``gradient`` gives the p components of dE/dtheta.

    Composite Gauss-Legendre rule, panels doubled until ln Z, g and zeta agree to 1e-10.  Raises InputError where they
    never do, or where the energy does not confine x.
    """
    require_positive("beta", beta)
    require_positive("mobility", mobility)
    point = tuple(float(value) for value in theta)
    low, high = support(energy, point, beta)
    coarse, panels = on_panels(energy, gradient, point, beta, mobility, np.linspace(low, high, _FEWEST + 1)), _FEWEST
    while panels < _MOST:
        panels *= 2
        fine = on_panels(energy, gradient, point, beta, mobility, np.linspace(low, high, panels + 1))
        error = _change(coarse, fine)
        if error < _TOLERANCE:
            return replace(fine, error=error)
        coarse = fine
    raise InputError(
        f"theta is {words(point)}; the integrals of this potential do not converge there (they still change by"
        f" {error:.0e}): is it smooth, and does it rise fast enough?"
    )


def free_energy(energy: Function, theta: Sequence[float], *, beta: float = 1.0) -> float:
    """F = -ln Z / beta, energy: alone, for it converges where friction is out of reach, as behind a high barrier.

    The rule of ``equilibrium``, panels doubled until ln Z agrees to 1e-10.  Raises InputError where it never does, or
    where the energy does not confine x.
    """
    require_positive("beta", beta)
    point = tuple(float(value) for value in theta)
    low, high = support(energy, point, beta)
    nodes, weights, _ = panel_rule()
    panels, before = _FEWEST, np.inf
    while panels <= _MOST:
        half = 0.5 * (high - low) / panels
        x = low + half * (2 * np.arange(panels)[:, None] + 1 + nodes).ravel()
        depth = beta * tabulate(energy, x, point)
        lowest = float(np.min(depth))
        log_partition = float(np.log(half * np.sum(np.tile(weights, panels) * np.exp(lowest - depth)))) - lowest
        if abs(log_partition - before) < _TOLERANCE:
            return -log_partition / beta
        panels, before = 2 * panels, log_partition
    raise InputError(f"theta is {words(point)}; the integral of exp(-beta E) does not converge there: is E smooth?")


def support(energy: Function, theta: Sequence[float], beta: float = 1.0, depth: float = _DEPTH) -> tuple[float, float]:
    """The interval outside which the energy lies more than ``depth`` kT above its minimum.

    Raises InputError where there is none: the energy is not finite, or not bounded below, or does not rise.
    """
    point = tuple(float(value) for value in theta)
    x = np.sinh(np.linspace(-16.0, 16.0, 8001))
    low, high = x[0], x[-1]
    while True:
        height = beta * tabulate(energy, x, point)
        if not np.any(np.isfinite(height)):
            raise InputError(f"theta is {words(point)}; the energy is not finite there.")
        inside = np.flatnonzero(~(height > np.nanmin(height) + depth))
        if (low == x[0] and inside[0] == 0) or (high == x[-1] and inside[-1] == len(x) - 1):
            raise InputError(
                f"theta is {words(point)}; the energy does not confine x there (it is not bounded below, or does not"
                " rise), so there is no equilibrium."
            )
        new_low, new_high = x[max(inside[0] - 1, 0)], x[min(inside[-1] + 1, len(x) - 1)]
        if new_high - new_low > 0.9 * (high - low):
            return float(new_low), float(new_high)
        low, high = new_low, new_high
        # One point more on each side, so that the ends are outside again.
        margin = (high - low) / 4000
        x = np.linspace(low - margin, high + margin, 4003)


def tabulate(function: Function, x: Array, theta: tuple[float, ...]) -> Array:
    """function(x_k, theta) for every k: (points,) for an energy, (p, points) for its gradient."""
    if hasattr(function, "py_func"):
        return np.asarray(_loop(function)(x, theta)).T
    values = function(x, theta)
    if isinstance(values, tuple | list):
        return np.stack([np.broadcast_to(np.asarray(value, float), x.shape) for value in values])
    return np.array(np.broadcast_to(np.asarray(values, float), np.shape(values)[:-1] + x.shape))


@cache
def _loop(function: Function) -> Callable[[Array, tuple[float, ...]], list[Any]]:
    """A compiled loop over x around a compiled function of scalars."""

    @njit(error_model="numpy")
    def loop(x, theta):  # type: ignore[no-untyped-def]
        return [function(value, theta) for value in x]

    return loop  # type: ignore[no-any-return]


@cache
def panel_rule() -> tuple[Array, Array, Array]:
    """Nodes and weights of a panel [-1, 1], and the matrix that integrates from -1 to each node."""
    nodes, weights = legendre.leggauss(NODES)
    values = legendre.legvander(nodes, NODES)
    orders = np.arange(NODES)
    coefficients = (orders[:, None] + 0.5) * weights * values[:, :NODES].T
    # The integral of P_n from -1 is (P_(n+1) - P_(n-1)) / (2 n + 1), that of P_0 is P_1 + P_0.
    below = np.concatenate([-values[:, :1], values[:, : NODES - 1]], axis=1)
    return nodes, weights, (values[:, 1:] - below) / (2 * orders + 1) @ coefficients


def from_left(values: Array, half: Array) -> Array:
    """The integral of ``values`` (..., panels, nodes) from the lower end to each node; ``half``: half the widths."""
    _, weights, matrix = panel_rule()
    totals = half * (values @ weights)
    before = np.cumsum(totals, axis=-1) - totals
    return np.asarray(before[..., None] + half[:, None] * (values @ matrix.T))


def _from_right(values: Array, half: Array) -> Array:
    return from_left(values[..., ::-1, ::-1], half[::-1])[..., ::-1, ::-1]


def on_panels(
    energy: Function, gradient: Function, theta: tuple[float, ...], beta: float, mobility: float, edges: Array
) -> Equilibrium:
    """The equilibrium on panels between these ``edges`` (panels + 1,), which nothing checks: see `equilibrium`."""
    nodes, panel_weights, _ = panel_rule()
    half = 0.5 * np.diff(edges)
    shape = (len(half), NODES)
    x = (edges[:-1, None] + half[:, None] * (1 + nodes)).ravel()
    weights = (half[:, None] * panel_weights).ravel()
    depth = beta * tabulate(energy, x, theta)
    slopes = np.atleast_2d(tabulate(gradient, x, theta))
    lowest = float(np.min(depth))
    density = np.exp(lowest - depth)
    total = float(np.sum(weights * density))
    density /= total
    mean = np.sum(weights * density * slopes, axis=1)
    # beta (<dE> - dE) = d ln p_m / d theta.  Where p_m has underflowed an infinite slope would make NaN of nothing.
    scores = np.where(density > 0, beta * (mean[:, None] - slopes), 0.0)
    fisher = (weights * density * scores) @ scores.T
    # Each tail is integrated from its own end, where nothing cancels.
    panels = density.reshape(shape)
    cumulative = from_left(panels, half).ravel()
    flow = (density * scores).reshape(-1, *shape)
    moved = np.where(
        cumulative < 0.5,
        from_left(flow, half).reshape(slopes.shape),
        -_from_right(flow, half).reshape(slopes.shape),
    )
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        lag = np.where(moved == 0, 0.0, moved / density)
        friction = (weights * moved) @ lag.T / mobility
    return Equilibrium(
        theta,
        beta,
        mobility,
        x,
        weights,
        density,
        cumulative,
        slopes,
        mean,
        float(np.log(total) - lowest),
        fisher,
        0.5 * (friction + friction.T),
        np.inf,
    )


def _change(coarse: Equilibrium, fine: Equilibrium) -> float:
    """The largest change of ln Z and of g and zeta, relative to their diagonals."""
    changes = [abs(fine.log_partition - coarse.log_partition)]
    for name in ("fisher", "friction"):
        before, after = getattr(coarse, name), getattr(fine, name)
        size = np.sqrt(np.outer(np.diag(after), np.diag(after)))
        # A parameter that the law does not depend on has zero rows; they agree.
        changes.append(float(np.max(np.where(before == after, 0.0, np.abs(after - before) / np.maximum(size, 1e-300)))))
    return float(np.max(changes))
