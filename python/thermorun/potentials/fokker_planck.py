"""Work under any protocol, for any one-dimensional potential, without noise.

The Fokker-Planck equation lives on a grid of spacing h.  Neighbours exchange probability at the rates

    k -> k + 1:  (mu kT / h^2) exp(-beta (E_(k+1) - E_k) / 2),        k + 1 -> k:  the same with the sign turned,

which obey detailed balance exactly, so that equilibrium, second law and quasi-static limit are those of the continuum
whatever h is.  theta runs straight between knots and may jump at both ends.  It is taken as a staircase of n equal
waits: theta jumps to the middle of each, waits, and after the last wait jumps to its end, which errs by a share of
order 1/n^2.  Its work, the sum of E(x, theta') - E(x, theta) over the jumps, has a gradient from one backward sweep
(the adjoint).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import zgttrf, zgttrs
from scipy.special import logsumexp

from thermorun.potentials.domains import LINE, Interval
from thermorun.potentials.quadrature import Function, NotConverged, free_energy, support, tabulate

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Poles of the approximation of exp(z), z <= 0: see `_contour`.  Its error adds up over steps: with 12 poles it shows
# after hundreds of them.
_POLES = 16
_POINTS = 400
# The distribution of x beyond this many kT above the bottom is left out of the grid.
_DEPTH = 30.0
# By how much the change of free energy on the grid may differ from that of the quadrature, kT.
_RESOLVED = 1e-3


class FokkerPlanck:
    """The distribution of x under protocols between two points, on a grid that holds it there and on the way.

    ``resolved`` says whether the grid knows the change of free energy; where it does not, works are NaN: not known.
    """

    def __init__(
        self,
        energy: Function,
        gradient: Function,
        start: Sequence[float],
        end: Sequence[float],
        tau: float,
        *,
        beta: float = 1.0,
        mobility: float = 1.0,
        points: int = _POINTS,
        domain: Interval = LINE,
    ) -> None:
        self.energy, self.gradient, self.beta, self.tau = energy, gradient, beta, tau
        self.start, self.end, self.domain = np.asarray(start, float), np.asarray(end, float), domain
        way = [self.start + share * (self.end - self.start) for share in np.linspace(0, 1, 9)]
        self.x, self.ring = grid(energy, way, beta, _DEPTH, points, domain)
        self.rate = mobility / beta / (self.x[1] - self.x[0]) ** 2
        depths = [beta * tabulate(energy, self.x, tuple(theta.tolist())) for theta in (self.start, self.end)]
        self.first = np.exp(-depths[0] - logsumexp(-depths[0]))
        self.delta_free_energy = float(logsumexp(-depths[0]) - logsumexp(-depths[1])) / beta
        self.resolved = self._resolved()

    def _resolved(self) -> bool:
        try:
            first, last = (
                free_energy(self.energy, theta.tolist(), beta=self.beta, domain=self.domain)
                for theta in (self.start, self.end)
            )
        except NotConverged:
            return False
        return abs(last - first - self.delta_free_energy) * self.beta < _RESOLVED

    def excess_work(self, path: Callable[[Array], Array], steps: int) -> float:
        """Excess work of theta = path(s), s in (0, 1), ``steps`` waits and twice as many: error of fourth order."""
        if not self.resolved:
            return np.nan
        coarse, fine = (self.run(np.asarray(path(middles(count))))[0] for count in (steps, 2 * steps))
        return (4 * fine - coarse) / 3

    def run(self, stairs: Array) -> tuple[float, Array]:
        """Excess work of a staircase (n, p), energy, and its gradient (n, p)."""
        count = len(stairs)
        wait = self.tau / count
        stops = [self.start, *stairs, self.end]
        energies = [tabulate(self.energy, self.x, tuple(theta.tolist())) for theta in stops]
        gradients = [np.atleast_2d(tabulate(self.gradient, self.x, tuple(theta.tolist()))) for theta in stairs]
        density, densities, halves, steps = self.first, [self.first], [], []
        for n in range(count):
            steps.append(Step(energies[n + 1], self.beta, self.rate * wait, self.ring))
            density, half = steps[n].forward(density)
            densities.append(density)
            halves.append(half)
        work = sum(float(densities[n] @ (energies[n + 1] - energies[n])) for n in range(count + 1))
        gradient = np.empty(stairs.shape)
        value = energies[count + 1] - energies[count]
        for n in range(count - 1, -1, -1):
            # Stair n ends the jump before its wait, begins the one after it, and shapes the wait between them.
            before, turn = steps[n].backward(value, halves[n])
            gradient[n] = gradients[n] @ (densities[n] - densities[n + 1]) + steps[n].rises(gradients[n]) @ turn
            value = before + energies[n + 1] - energies[n]
        return work - self.delta_free_energy, gradient


def grid(
    energy: Function, way: Sequence[Array], beta: float, depth: float, points: int, domain: Interval
) -> tuple[Array, bool]:
    """An even grid (points,) that holds x within ``depth`` kT at all theta of ``way``, and whether it is a ring.

    In a domain the points are the middles of equal cells, so that its walls are those of cells, and a period closes.
    """
    sides = np.array([support(energy, theta.tolist(), beta, depth, domain) for theta in way])
    low, high = float(sides[:, 0].min()), float(sides[:, 1].max())
    x = np.linspace(low, high, points) if domain.line else low + (high - low) * middles(points)
    return x, domain.closes(low, high)


def middles(count: int) -> Array:
    """The middles of ``count`` equal parts of [0, 1]."""
    return np.asarray((np.arange(count) + 0.5) / count)


class Step:
    """exp(L t) for one wait, L the generator at fixed theta.

    exp(L t) rho = Re sum of c_j (z_j - L t)^-1 rho.  The tridiagonal systems of all poles are solved as one, with
    zeros where they meet.  On a ``ring`` the last point is a neighbour of the first: its two elements in the corners
    are an outer product, that of ``corners``, taken off by Sherman's and Morrison's formula.
    """

    def __init__(self, energy: Array, beta: float, rate: float, ring: bool = False) -> None:
        self.beta, self.ring = beta, ring
        rise = 0.5 * beta * self.rises(energy)
        with np.errstate(over="ignore"):
            self.up, self.down = rate * np.exp(-rise), rate * np.exp(rise)
        links = len(energy) - 1
        leave = np.zeros_like(energy)
        leave[:-1] += self.up[:links]
        leave[1:] += self.down[:links]
        poles, self.weights = _contour()
        below = np.tile(np.append(-self.up[:links], 0.0), len(poles))[:-1]
        above = np.tile(np.append(-self.down[:links], 0.0), len(poles))[:-1]
        if ring:
            # (1, ..., -1) times (down, ..., -up): both elements, and on the diagonal what leaves through that link.
            self.corners = np.zeros((2, len(energy)))
            self.corners[:, 0], self.corners[:, -1] = (1.0, self.down[-1]), (-1.0, -self.up[-1])
        self.factors = zgttrf(below + 0j, (poles[:, None] + leave).ravel(), above + 0j)[:5]

    def rises(self, values: NDArray[Any]) -> NDArray[Any]:
        """What values (..., n) rise by from each point to the next, on a ring from the last to the first too."""
        return np.diff(values, append=values[..., :1]) if self.ring else np.diff(values)

    def _solve(self, vector: Array, trans: str) -> Complex:
        solved = self._tridiagonal(vector, trans)
        if self.ring:
            left, right = self.corners if trans == "N" else self.corners[::-1]
            lifted = self._tridiagonal(left, trans)
            solved -= lifted * (solved @ right / (1 + lifted @ right))[:, None]
        return solved

    def _tridiagonal(self, vector: Array, trans: str) -> Complex:
        tiled = np.tile(vector + 0j, len(self.weights))
        solved: Complex = zgttrs(*self.factors, tiled, trans=trans, overwrite_b=True)[0]
        return solved.reshape(len(self.weights), -1)

    def forward(self, density: Array) -> tuple[Array, Complex]:
        """exp(L t) density, and its parts, pole by pole."""
        parts = self._solve(density, "N")
        return np.real(self.weights @ parts), parts

    def backward(self, value: Array, parts: Complex) -> tuple[Array, Array]:
        """exp(L t)^T value, and how value . exp(L t) density changes with each E_(k+1) - E_k."""
        back = self._solve(value, "T")
        links = len(self.up)
        flow = self.up * parts[:, :links] + self.down * np.roll(parts, -1, axis=1)[:, :links]
        turn = np.real(self.weights @ (flow * self.rises(back)))
        return np.real(self.weights @ back), -0.5 * self.beta * turn


@cache
def _contour() -> tuple[Complex, Complex]:
    """Poles z_j and weights c_j of exp(z) for real z <= 0, error below 1e-9.

    Talbot's contour with the constants of Trefethen, Weideman & Schmelzer, "Talbot quadratures and rational
    approximations" (BIT 46, 2006): the error falls as 3.89^-N.  Conjugate poles are taken together.
    """
    angle = np.pi * np.arange(1, _POLES, 2) / _POLES
    cot = 1 / np.tan(0.6407 * angle)
    pole = _POLES * (0.5017 * angle * cot - 0.6122 + 0.2645j * angle)
    slope = _POLES * (0.5017 * cot - 0.5017 * 0.6407 * angle / np.sin(0.6407 * angle) ** 2 + 0.2645j)
    return pole, 2 * np.exp(pole) * slope / (_POLES * 1j)
