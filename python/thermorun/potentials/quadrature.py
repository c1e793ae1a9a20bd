"""Exact equilibrium of any one-dimensional potential, by quadrature: free energy, Fisher metric, friction.

Composite Gauss-Legendre rule.  Equal panels are doubled until two answers agree.  That is no convergence where both
miss the same structure, so the energy is scanned then, at many more points than the rule has nodes: where it is not
the polynomial through the nodes, or where doubling did not help, panels are halved one by one.

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
from thermorun.potentials.domains import LINE, Interval

Array = NDArray[np.float64]
Function = Callable[[Any, tuple[float, ...]], Any]

# Beyond this many kT above the lowest energy nothing is left that double precision could see.
_DEPTH = 60.0
# Nodes of a panel, and how many panels are tried, doubling, until two answers agree to the tolerance.
NODES = 16
_FEWEST, _MOST = 16, 4096
_TOLERANCE = 1e-10
# Points of the scan for structure: of free energies and draws, asked for a few times in a run, and of metrics,
# asked for thousands of times along a geodesic.  How far from the polynomial through the nodes the energy may be, kT.
_SCAN, _SHORT_SCAN = 2**18, 2**16
_SMOOTH = 1e-3


class NotConverged(InputError):
    """There is an equilibrium, but its integrals are out of reach: the exact value is not known."""


@dataclass(frozen=True)
class Equilibrium:
    """The distribution p_m(x, theta) = exp(-beta E) / Z of a one-dimensional potential, on the nodes of a quadrature.

    ``x``, ``weights``, ``density``, ``cumulative``  (nodes,): the mean of f is sum(weights density f), and
        ``cumulative`` is the distribution function Pi.
    ``gradient``       (p, nodes): dE/dtheta.
    ``mean_gradient``  (p,): its mean, which is dF/dtheta.
    ``fisher``         (p, p): g_ij = beta^2 Cov(dE/dtheta_i, dE/dtheta_j)                        (Eq. 52)
    ``friction``       (p, p): zeta_ij = (1/mu) integral of d_i Pi d_j Pi / p_m dx                (Eq. 51)
        In a period the flows d_i Pi have a constant c_i more, see `on_panels`.
    ``edges``          (panels + 1,): of the panels; ``shares`` (1 + 2 p, panels): what each adds to the norm, to g_ii
        and to zeta_ii.
    ``error``          how much the numbers changed, relatively, when the panels were halved for the last time.
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
    edges: Array
    shares: Array
    error: float = np.inf

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
    energy: Function,
    gradient: Function | None,
    theta: Sequence[float],
    *,
    beta: float = 1.0,
    mobility: float = 1.0,
    domain: Interval = LINE,
) -> Equilibrium:
    """The equilibrium at ``theta``; ``gradient`` gives the p components of dE/dtheta, None for none of them.

    Panels are halved until ln Z, g and zeta agree to 1e-10.  Raises InputError where the energy does not confine x,
    NotConverged where the integrals never agree.
    """
    require_positive("beta", beta)
    require_positive("mobility", mobility)
    point = tuple(float(value) for value in theta)

    def on(edges: Array) -> Equilibrium:
        return on_panels(energy, gradient, point, beta, mobility, edges, domain)

    low, high = support(energy, point, beta, domain=domain)
    panels, found = _FEWEST, on(np.linspace(low, high, _FEWEST + 1))
    while panels < _MOST and not found.error < _TOLERANCE:
        panels *= 2
        fine = on(np.linspace(low, high, panels + 1))
        found = replace(fine, error=_change(found, fine))
    converged = found.error < _TOLERANCE and bool(np.all(np.isfinite(found.friction)))
    start = found.edges if converged else np.linspace(low, high, 4 * _FEWEST + 1)
    rough, spacing = _rough(energy, point, beta, start, _SCAN if gradient is None else _SHORT_SCAN)
    if converged and not len(rough):
        return found
    found = _halved(on, _around(start, rough, 8 * spacing))
    if found.error < _TOLERANCE and np.all(np.isfinite(found.friction)):
        return found
    raise NotConverged(
        f"theta is {words(point)}; the integrals of this potential do not converge there (they still change by"
        f" {found.error:.0e}): is it smooth, and does it rise fast enough?"
    )


def free_energy(energy: Function, theta: Sequence[float], *, beta: float = 1.0, domain: Interval = LINE) -> float:
    """F = -ln Z / beta, energy: alone, for it converges where friction is out of reach, as behind a high barrier.

    Raises InputError where the energy does not confine x, NotConverged where ln Z never agrees to 1e-10.
    """
    return equilibrium(energy, None, theta, beta=beta, domain=domain).free_energy


def _rough(energy: Function, theta: tuple[float, ...], beta: float, edges: Array, points: int) -> tuple[Array, float]:
    """Where in equal panels the energy is not the polynomial through their nodes, and the spacing of that scan."""
    panels, half = len(edges) - 1, 0.5 * (edges[1] - edges[0])
    count = points // panels
    at = (2 * np.arange(count) + 1) / count - 1
    x = (edges[:-1, None] + half * (1 + at)).ravel()
    seen = beta * tabulate(energy, x, theta).reshape(panels, count)
    nodes = (edges[:-1, None] + half * (1 + panel_rule()[0])).ravel()
    depth = beta * tabulate(energy, nodes, theta).reshape(panels, NODES)
    lowest = min(
        np.min(seen, initial=np.inf, where=np.isfinite(seen)), np.min(depth, where=np.isfinite(depth), initial=np.inf)
    )
    with np.errstate(invalid="ignore"):
        # By einsum: the threads of a BLAS would take ten times as long to meet.
        through = np.einsum("pn,mn->pm", depth, _interpolation(count))
        smooth = _SMOOTH + 1e3 * np.finfo(float).eps * abs(lowest)
        # Not a number where the energy is infinite: smooth if it is so in all of the panel.
        apart = ~(np.abs(seen - through) <= smooth) & (np.fmin(seen, through) < lowest + _DEPTH)
    return x[apart.ravel()], 2 * half / count


@cache
def _interpolation(count: int) -> Array:
    """The matrix from values at the nodes of a panel to those at the middles of ``count`` equal parts of it."""
    nodes, weights, _ = panel_rule()
    at = (2 * np.arange(count) + 1) / count - 1
    orders = np.arange(NODES)
    coefficients = (orders[:, None] + 0.5) * weights * legendre.legvander(nodes, NODES - 1).T
    return np.asarray(legendre.legvander(at, NODES - 1) @ coefficients)


def _around(edges: Array, rough: Array, width: float) -> Array:
    """Edges with panels halved, and their halves, while they hold one of ``rough`` and are wider than ``width``."""
    while len(rough) and len(edges) <= 2 * _MOST:
        hit = np.unique(np.searchsorted(edges, rough) - 1)
        hit = hit[np.diff(edges)[hit] > width]
        if not len(hit):
            break
        edges = np.insert(edges, hit + 1, 0.5 * (edges[hit] + edges[hit + 1]))
    return edges


def _halved(on: Callable[[Array], Equilibrium], edges: Array) -> Equilibrium:
    """Halves the panels whose shares change by it, until ln Z, g and zeta change by less than 1e-10 altogether."""
    for _ in range(60):
        coarse, fine = on(edges), on(np.sort(np.append(edges, 0.5 * (edges[1:] + edges[:-1]))))
        fine = replace(fine, error=_change(coarse, fine))
        if fine.error < _TOLERANCE or len(edges) > 2 * _MOST:
            break
        # Relative to the same norm, so that what one panel lacks does not show in all of them.
        totals = np.maximum(fine.shares.sum(axis=1), 1e-300)[:, None]
        halves = fine.shares[:, ::2] + fine.shares[:, 1::2]
        with np.errstate(over="ignore", invalid="ignore"):
            norm = np.exp(coarse.log_partition - fine.log_partition)
            changes = np.max(np.nan_to_num(np.abs(coarse.shares * norm - halves) / totals, nan=1.0), axis=0)
        hit = np.flatnonzero(changes >= min(_TOLERANCE / 10, float(changes.max())))
        edges = np.insert(edges, hit + 1, 0.5 * (edges[hit] + edges[hit + 1]))
    return fine


def support(
    energy: Function, theta: Sequence[float], beta: float = 1.0, depth: float = _DEPTH, domain: Interval = LINE
) -> tuple[float, float]:
    """The interval of the domain outside which the energy lies more than ``depth`` kT above its minimum.

    Raises InputError where there is none: the energy is not finite, or not bounded below, or does not rise.
    """
    point = tuple(float(value) for value in theta)

    def heights(x: Array) -> Array:
        if domain.line:
            return beta * tabulate(energy, x, point)
        # Infinite outside, and on the walls.
        inner, out = (domain.low < x) & (x < domain.high), np.full(x.shape, np.inf)
        out[inner] = beta * tabulate(energy, x[inner], point)
        return np.where(np.isnan(out), np.inf, out)

    # Up to 4e6, or where the energy has not risen by then, up to 1e17; of a half line, down to as little.
    for scale, points in ((16.0, 8001), (40.0, 20001)):
        x = domain.grid(scale, points)
        found = _zoom(heights, x, depth)
        if found is not None:
            return max(found[0], domain.low), min(found[1], domain.high)
    finite = np.any(np.isfinite(heights(x)))
    raise InputError(
        f"theta is {words(point)}; the energy "
        + (
            "does not confine x there (it is not bounded below, or does not rise), so there is no equilibrium."
            if finite
            else "is not finite there."
        )
    )


def _zoom(heights: Callable[[Array], Array], x: Array, depth: float) -> tuple[float, float] | None:
    """The part of a grid where the energy is low, on finer and finer grids; None where it reaches the grid's end."""
    low, high = x[0], x[-1]
    while True:
        height = heights(x)
        if not np.any(np.isfinite(height)):
            return None
        valleys, bottoms = _valleys(heights, x, height)
        # Within a kT what the grid sees is good enough; a valley that it does not resolve may be far deeper.
        lowest = float(np.nanmin(height))
        lowest = min(lowest, float(np.min(bottoms, initial=lowest + 1.0)) + 1.0)
        inside = np.union1d(np.flatnonzero(~(height > lowest + depth)), valleys[bottoms < lowest + depth])
        if (low == x[0] and inside[0] == 0) or (high == x[-1] and inside[-1] == len(x) - 1):
            return None
        new_low, new_high = x[max(inside[0] - 1, 0)], x[min(inside[-1] + 1, len(x) - 1)]
        if new_high - new_low > 0.9 * (high - low):
            return float(new_low), float(new_high)
        low, high = new_low, new_high
        # One point more on each side, so that the ends are outside again.
        margin = (high - low) / 4000
        x = np.linspace(low - margin, high + margin, 4003)


def _valleys(heights: Callable[[Array], Array], x: Array, height: Array) -> tuple[NDArray[np.intp], Array]:
    """The local minima of a grid that rise by more than 5 kT to a neighbour: where, and how deep they really are."""
    middle, left, right = height[1:-1], height[:-2], height[2:]
    with np.errstate(invalid="ignore"):
        steep = (middle <= left) & (middle <= right) & (np.maximum(left, right) - middle > 5)
    at = np.flatnonzero(steep) + 1
    if not len(at):
        return at, np.empty(0)
    at = at[np.argsort(height[at], kind="stable")[:256]]
    low, high, ratio = x[at - 1], x[at + 1], (np.sqrt(5) - 1) / 2
    bottoms = height[at]
    for _ in range(60):  # golden section, of all at once
        inner, outer = high - ratio * (high - low), low + ratio * (high - low)
        first, second = heights(inner), heights(outer)
        bottoms = np.fmin(bottoms, np.fmin(first, second))
        left_half = first < second
        low, high = np.where(left_half, low, inner), np.where(left_half, outer, high)
    return at, bottoms


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
    energy: Function, gradient: Function | None, theta: tuple[float, ...], beta: float, mobility: float, edges: Array,
    domain: Interval = LINE,
) -> Equilibrium:  # fmt: skip
    """The equilibrium on panels between these ``edges`` (panels + 1,), which nothing checks: see `equilibrium`.

    zeta_ij = integral of J_i J_j / p_m dx / mu, with the flow J_i that p_m at a moving theta_i asks for.  J_i is
    d_i Pi where nothing flows through the ends.  In a period it is d_i Pi - c_i, and the force that drives it,
    J_i / p_m, adds up to nothing around it, which gives c_i = integral of d_i Pi / p_m dx / integral of 1 / p_m dx:
    weights that Lifson & Jackson (J. Chem. Phys. 36, 2410, 1962) found for diffusion in a periodic potential.
    """
    nodes, panel_weights, _ = panel_rule()
    half = 0.5 * np.diff(edges)
    shape = (len(half), NODES)
    x = (edges[:-1, None] + half[:, None] * (1 + nodes)).ravel()
    weights = (half[:, None] * panel_weights).ravel()
    depth = beta * tabulate(energy, x, theta)
    gradients = np.empty((0, len(x))) if gradient is None else np.atleast_2d(tabulate(gradient, x, theta))
    lowest = float(np.min(depth))
    density = np.exp(lowest - depth)
    total = float(np.sum(weights * density))
    density /= total
    mean = np.sum(weights * density * gradients, axis=1)
    # beta (<dE> - dE) = d ln p_m / d theta.  Where p_m has underflowed an infinite slope would make NaN of nothing.
    scores = np.where(density > 0, beta * (mean[:, None] - gradients), 0.0)
    fisher = (weights * density * scores) @ scores.T
    # Each tail is integrated from its own end, where nothing cancels.
    cumulative = from_left(density.reshape(shape), half).ravel()
    flow = (density * scores).reshape(-1, *shape)
    moved = np.where(
        cumulative < 0.5,
        from_left(flow, half).reshape(gradients.shape),
        -_from_right(flow, half).reshape(gradients.shape),
    )
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if domain.closes(edges[0], edges[-1]):
            moved = moved - ((moved @ (weights / density)) / np.sum(weights / density))[:, None]
        lag = np.where(moved == 0, 0.0, moved / density)
        friction = (weights * moved) @ lag.T / mobility
        parts = weights * np.concatenate([density[None], density * scores**2, moved * lag])
    return Equilibrium(
        theta=theta, beta=beta, mobility=mobility, x=x, weights=weights, density=density, cumulative=cumulative,
        gradient=gradients, mean_gradient=mean, log_partition=float(np.log(total) - lowest), fisher=fisher,
        friction=0.5 * (friction + friction.T), edges=edges, shares=parts.reshape(-1, *shape).sum(axis=2),
    )  # fmt: skip


def _change(coarse: Equilibrium, fine: Equilibrium) -> float:
    """The largest change of ln Z and of g and zeta, relative to their diagonals."""
    changes = [abs(fine.log_partition - coarse.log_partition)]
    for name in ("fisher", "friction"):
        before, after = getattr(coarse, name), getattr(fine, name)
        size = np.sqrt(np.outer(np.diag(after), np.diag(after)))
        # A parameter that the distribution does not depend on has zero rows; they agree.
        with np.errstate(invalid="ignore"):
            apart = np.where(before == after, 0.0, np.abs(after - before) / np.maximum(size, 1e-300))
        changes.append(float(np.max(apart, initial=0.0)))
    return float(np.max(changes))
