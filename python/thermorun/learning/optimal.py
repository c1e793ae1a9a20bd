"""Protocols of least work in a given time, jumps included, for any one-dimensional potential.

The Fokker-Planck equation lives on a grid of spacing h.  Neighbours exchange probability at the rates

    k -> k + 1:  (mu kT / h^2) exp(-beta (E_(k+1) - E_k) / 2),        k + 1 -> k:  the same with the sign turned,

which obey detailed balance exactly, so that equilibrium, second law and quasi-static limit are those of the continuum
whatever h is.  A protocol is a staircase: theta jumps to the n-th knot at time (n - 1) tau / N, waits, and after the
last wait jumps to its end.  Its work, sum of E(x, theta') - E(x, theta) over the jumps, is a function of the knots; the
gradient comes from one backward sweep (the adjoint), the minimum from L-BFGS.  A staircase misses the best continuous
protocol with jumps by a share of order (mu tau / N)^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import zgttrf, zgttrs
from scipy.optimize import minimize
from scipy.special import logsumexp

from thermorun.errors import InputError
from thermorun.learning.quadrature import Function, support, tabulate, words

Array = NDArray[np.float64]

# Poles of the approximation of exp(z), z <= 0: see `_contour`.
_POLES = 16
_POINTS = 400
# Law of x beyond this many kT above the bottom is left out of the grid.
_DEPTH = 30.0


@dataclass(frozen=True)
class Staircase:
    """A protocol that jumps, waits, jumps: theta is ``start``, then ``knots`` (N, p) for tau / N each, then ``end``.

    ``excess_work`` is its work minus Delta F, energy; ``gradient`` (N, p) that work's slope in each knot.
    """

    start: Array
    end: Array
    tau: float
    knots: Array
    excess_work: float
    gradient: Array

    @property
    def first_jump(self) -> Array:
        """theta just after time 0, continued from the first two knots, minus ``start``; (p,)."""
        return np.asarray(1.5 * self.knots[0] - 0.5 * self.knots[1] - self.start)

    @property
    def last_jump(self) -> Array:
        """``end`` minus theta just before tau, continued from the last two knots; (p,)."""
        return np.asarray(self.end - (1.5 * self.knots[-1] - 0.5 * self.knots[-2]))


class FokkerPlanck:
    """The law of x under staircases between two points, on a grid that holds it there and on the way."""

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
    ) -> None:
        self.energy, self.gradient, self.beta, self.tau = energy, gradient, beta, tau
        self.start, self.end = np.asarray(start, float), np.asarray(end, float)
        way = [self.start + share * (self.end - self.start) for share in np.linspace(0, 1, 9)]
        sides = np.array([support(energy, theta.tolist(), beta, _DEPTH) for theta in way])
        self.x = np.linspace(sides[:, 0].min(), sides[:, 1].max(), points)
        self.rate = mobility / beta / (self.x[1] - self.x[0]) ** 2
        depths = [beta * tabulate(energy, self.x, tuple(theta.tolist())) for theta in (self.start, self.end)]
        self.first = np.exp(-depths[0] - logsumexp(-depths[0]))
        self.delta_free_energy = float(logsumexp(-depths[0]) - logsumexp(-depths[1])) / beta

    def run(self, knots: Array) -> Staircase:
        """Excess work of a staircase, and its gradient in the knots (N, p)."""
        count, parameters = knots.shape
        wait = self.tau / count
        stops = [self.start, *knots, self.end]
        energies = [tabulate(self.energy, self.x, tuple(theta.tolist())) for theta in stops]
        slopes = [np.atleast_2d(tabulate(self.gradient, self.x, tuple(theta.tolist()))) for theta in knots]
        law, laws, halves, steps = self.first, [self.first], [], []
        for n in range(count):
            steps.append(_Step(energies[n + 1], self.beta, self.rate * wait))
            law, half = steps[n].forward(law)
            laws.append(law)
            halves.append(half)
        work = sum(float(laws[n] @ (energies[n + 1] - energies[n])) for n in range(count + 1))
        gradient = np.empty((count, parameters))
        value = energies[count + 1] - energies[count]
        for n in range(count - 1, -1, -1):
            # Knot n ends the jump before its wait, begins the one after it, and shapes the wait between them.
            before, turn = steps[n].backward(value, halves[n])
            gradient[n] = slopes[n] @ (laws[n] - laws[n + 1]) + np.diff(slopes[n], axis=1) @ turn
            value = before + energies[n + 1] - energies[n]
        return Staircase(self.start, self.end, self.tau, knots, work - self.delta_free_energy, gradient)

    def optimise(self, knots: Array) -> Staircase:
        """The staircase of least work, by L-BFGS from ``knots`` (N, p)."""
        shape, unit = knots.shape, np.abs(self.end - self.start)
        unit = np.where(unit > 0, unit, np.maximum(unit.max(), 1e-300))
        scale = abs(self.run(knots).excess_work)

        def work(unknowns: Array) -> tuple[float, Array]:
            found = self.run(unknowns.reshape(shape) * unit)
            return found.excess_work / scale, (found.gradient * unit).ravel() / scale

        found = minimize(
            work, (knots / unit).ravel(), jac=True, method="L-BFGS-B",
            options={"maxiter": 500, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-8},
        )  # fmt: skip
        best = self.run(found.x.reshape(shape) * unit)
        if not np.isfinite(best.excess_work):
            raise InputError(
                f"theta goes from {words(self.start.tolist())} to {words(self.end.tolist())} in tau {self.tau:g};"
                " no protocol of least work was found: take a longer tau."
            )
        return best


class _Step:
    """exp(L t) for one wait, L the generator at fixed theta.

    exp(L t) rho = Re sum of 2 c_j (z_j - L t)^-1 rho, each term a tridiagonal system.
    """

    def __init__(self, energy: Array, beta: float, rate: float) -> None:
        rise = 0.5 * beta * np.diff(energy)
        with np.errstate(over="ignore"):
            self.up, self.down = rate * np.exp(-rise), rate * np.exp(rise)
        leave = np.zeros_like(energy)
        leave[:-1] += self.up
        leave[1:] += self.down
        self.beta = beta
        self.factors = [zgttrf(-self.up + 0j, pole + leave, -self.down + 0j)[:5] for pole, _ in _contour()]

    def forward(self, law: Array) -> tuple[Array, list[NDArray[np.complex128]]]:
        parts = [zgttrs(*factors, law + 0j)[0] for factors in self.factors]
        return np.real(sum(weight * part for (_, weight), part in zip(_contour(), parts, strict=True))), parts

    def backward(self, value: Array, parts: list[NDArray[np.complex128]]) -> tuple[Array, Array]:
        """exp(L t)^T value, and how value . exp(L t) rho turns with each E_(k+1) - E_k."""
        back = [zgttrs(*factors, value + 0j, trans="T")[0] for factors in self.factors]
        turn = np.zeros(len(value) - 1)
        for (_, weight), part, other in zip(_contour(), parts, back, strict=True):
            flow = self.up * part[:-1] + self.down * part[1:]
            turn += np.real(weight * flow * np.diff(other))
        total = np.real(sum(weight * other for (_, weight), other in zip(_contour(), back, strict=True)))
        return total, -0.5 * self.beta * turn


def _contour() -> list[tuple[complex, complex]]:
    """Poles z_j and weights 2 c_j of exp(z) for real z <= 0, error below 1e-9.

    Talbot's contour with the constants of Trefethen, Weideman & Schmelzer, "Talbot quadratures and rational
    approximations" (BIT 46, 2006): the error falls as 3.89^-N.  Conjugate poles are taken together.
    """
    angle = np.pi * np.arange(1, _POLES, 2) / _POLES
    cot = 1 / np.tan(0.6407 * angle)
    pole = _POLES * (0.5017 * angle * cot - 0.6122 + 0.2645j * angle)
    slope = _POLES * (0.5017 * cot - 0.5017 * 0.6407 * angle / np.sin(0.6407 * angle) ** 2 + 0.2645j)
    weight = 2 * np.exp(pole) * slope / (_POLES * 1j)
    return list(zip(pole.tolist(), weight.tolist(), strict=True))
