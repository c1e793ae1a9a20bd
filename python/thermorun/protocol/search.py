"""The search: knots of a path, coarse to fine, by L-BFGS on noise held fixed; and what fresh noise says of a round."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from thermokernels.random import BLOCK
from thermorun import streams
from thermorun.arrays import Array
from thermorun.errors import InputError, RunError
from thermorun.estimates import Estimate, jackknife
from thermorun.potentials import System, gradients
from thermorun.potentials.fokker_planck import middles
from thermorun.potentials.least_work import shares
from thermorun.protocol.objectives import Objective, Work, WorkVariance
from thermorun.protocol.spec import Protocol

# A round is begun again so often, at most, with a bound where a path left the valid region; and goes back so often from
# a path that does not hold for other particles.
_RETURNS = 10
# New noise after so many iterations without an end: where particles part at a barrier, one draw can hold a path.
_EACH, _DRAWN = 25, 2**16
# How high, in units of the objective, a path is seen that cannot be simulated.
_BOWL = 10.0
_OPTIONS = {"maxcor": 20, "ftol": 1e-9, "gtol": 1e-7}
# Equal parts of a check, whose spread is its error.
_PARTS = 32
# Steps hold where dt times mobility times curvature stays below this, or this many times what the first path has: the
# free energy of a stiffness is then off by less than a hundredth of kT a dimension.
_HOLDS, _AS_FIRST = 0.25, 1.25
# Slopes below this, of an objective of order one, are rounding.
_FLAT = 1e-13


@dataclass(frozen=True)
class Problem:
    """What is searched: a spec, its system, and the objective."""

    spec: Protocol
    system: System
    objective: Objective

    def stairs(self, knots: Array) -> tuple[Array, Array]:
        """theta before the first jump and after each (steps + 2, p), for knots (K, p); and the waits (steps + 1,)."""
        steps = int(self.spec.steps or 0)
        first, last = self.spec.ends
        path = np.concatenate([first[None], _weights(steps, len(knots)) @ knots, last[None]])
        return path, np.append(np.full(steps, self.spec.tau / steps), 0.0)

    def why_invalid(self, path: Array) -> str | None:
        """Why a path leaves the valid region; None where it stays."""
        if not np.all(np.isfinite(path)):
            return "theta is not finite."
        sentences = map(self.system.potential.why_invalid, map(tuple, path.tolist()))
        return next((sentence for sentence in sentences if sentence is not None), None)

    def start(self, purpose: str, number: int, particles: int) -> Array:
        """Particles in equilibrium at the start, (1, d, particles)."""
        noise = streams.protocol(self.spec.seed, purpose, number)
        return self.system.equilibrium(self.spec.ends[0], particles, seed=noise, precision=self.spec.precision)

    def pairs(self, purpose: str, number: int, particles: int) -> Array:
        """The same for antithetic pairs: in quadratic energies the second half mirrors the first."""
        x = self.start(purpose, number, particles)
        if self.system.potential.quadratic is not None:
            _, centre = self.system.potential.quadratic(tuple(self.spec.ends[0].tolist()))
            half = particles // 2
            x[..., half:] = 2 * np.asarray(centre)[:, None] - x[..., :half]
        return x

    def of_round(self, number: int) -> "Problem":
        """What a round searches: for free energies the mean work, until knots are finest.

        Its means need far fewer particles, and works whose mean is nearer to Delta F scatter less.
        """
        early = self.spec.rounds[number][0] < self.spec.knots and isinstance(self.objective, WorkVariance)
        return replace(self, objective=Work(self.spec.beta, None)) if early else self

    def moments(self, x: Array, work: Array) -> Array:
        """Work and the objective's moments of each particle at the end, (1 + moments, particles)."""
        return np.concatenate([work, self.objective.moments(np.asarray(x[0], float), work[0])])

    def driven(self, x: Array, path: Array, waits: Array, purpose: str, number: int) -> Array:
        """Moments at the end of a path, of particles with noise of their own."""
        noise = streams.protocol(self.spec.seed, purpose, number)
        found = self.system.drive(x, path, dt=waits, integrator=str(self.spec.integrator), seed=noise)
        return self.moments(found.x, found.work)


@dataclass(frozen=True)
class Searched:
    """One round: the knots it ended with (K, p), the objective after each iteration, and what fresh noise says.

    ``gain`` is the value it ended with less the one it began with, on noise that it never saw.  ``returns`` counts how
    often the path left the valid region.  Knots are those it began with where fresh noise says that they were better.
    """

    knots: Array
    values: Array
    gain: Estimate
    returns: int


class _Outside(Exception):
    """A path beyond the region where theta is valid and steps hold, and why."""


def improved(problem: Problem, knots: Array, number: int, tick: Callable[[int], None]) -> Searched:
    """Round ``number`` of the search, from knots (K, p) at `shares`; ``tick`` is told of every iteration."""
    problem = problem.of_round(number)
    descent = _Descent(problem, knots, number, tick)
    found = descent.run()
    for _ in range(_RETURNS):
        try:
            gain = _gain(problem, knots, found, number)
            break
        except RunError:  # steps that held for the particles of the search, and do not for others
            descent.returns += 1
            found = 0.5 * (found + knots)
    else:
        gain = _gain(problem, knots, knots, number)
    return Searched(found if gain.mean < 0 else knots, np.array(descent.values), gain, descent.returns)


def refined(knots: Array, count: int) -> Array:
    """The same path with ``count`` knots."""
    at = shares(len(knots))
    return np.stack([np.interp(shares(count), at, column) for column in knots.T], axis=1)


def _weights(steps: int, knots: int) -> Array:
    """theta in the middle of each wait, of knots: (steps, K)."""
    return np.stack([np.interp(middles(steps), shares(knots), row) for row in np.eye(knots)], axis=1)


class _Descent:
    """L-BFGS on noise that is drawn anew after 25 iterations; its unknowns are theta at the knots over ``unit``.

    Where a parameter takes a path out of the valid region, it gets a bound there, and the search is begun again; where
    steps do not hold, the path seen is a bowl around the one before, so that the line search turns back.  ``values``
    are those after each iteration, ``returns`` counts what was turned back.
    """

    def __init__(self, problem: Problem, knots: Array, number: int, tick: Callable[[int], None]) -> None:
        spec = problem.spec
        self.problem, self.tick, self.shape = problem, tick, knots.shape
        self.weights = _weights(int(spec.steps or 0), len(knots))
        unit = np.abs(np.subtract(*spec.ends))
        self.unit = np.where(unit > 0, unit, unit.max())
        self.here = (knots / self.unit).ravel()
        self.bounds = np.tile([-np.inf, np.inf], (self.shape[1], 1))
        self.values: list[float] = []
        self.returns = 0
        self.number = number

    def _draw(self, part: int) -> None:
        """Takes new particles and noise, learns how stiff a path may be.  Raises InputError where no path matters."""
        spec, drawn = self.problem.spec, self.number + part * _DRAWN
        self.noise, self.most = streams.protocol(spec.seed, "search", drawn), np.inf
        self.x = self.problem.pairs("search", drawn, spec.rounds[self.number][1])
        first = self._found((spec.first(shares(self.shape[0])) / self.unit).ravel())
        here = self._found(self.here)
        self.most = max(_HOLDS, _AS_FIRST * first.stiffest, here.stiffest)
        self.level = here.value
        if drawn == 0 and np.max(np.abs(self._slope(first))) < _FLAT:
            raise InputError(
                f"objective is {spec.objective!r}, which does not change with the path of {spec.potential_name}: there"
                " is nothing to search for."
            )

    def _theta(self, unknowns: Array) -> Array:
        return np.asarray(unknowns.reshape(self.shape) * self.unit)

    def _value(self, unknowns: Array) -> tuple[float, Array]:
        try:
            found = self._found(unknowns)
        except _Outside:
            self.returns += 1
            if self._bound(unknowns):
                raise
            away = unknowns - self.here
            steepness = _BOWL * (1 + abs(self.level)) / float(away @ away)
            return self.level + 0.5 * steepness * float(away @ away), steepness * away
        return found.value, self._slope(found)

    def _slope(self, found: gradients.PathGradient) -> Array:
        return np.asarray((self.weights.T @ found.by_path[1:-1] * self.unit).ravel())

    def _found(self, unknowns: Array) -> gradients.PathGradient:
        self.tick(0)  # a line search may take many of these
        problem = self.problem
        path, waits = problem.stairs(self._theta(unknowns))
        if (sentence := problem.why_invalid(path)) is not None:
            raise _Outside(sentence)
        integrator, search = str(problem.spec.integrator), problem.objective.search
        try:
            found = gradients.path_gradient(problem.system, self.x, path, waits, integrator, self.noise, search, True)
        except RunError as error:
            raise _Outside(str(error)) from error
        if found.stiffest > self.most:
            raise _Outside("its steps are too long for so stiff a potential: take more.")
        return found

    def run(self) -> Array:
        """The knots that the search ends with, (K, p).  Raises InputError where it cannot begin."""
        for part in range(-(-self.problem.spec.iterations // _EACH)):
            try:
                self._draw(part)
            except _Outside as outside:
                if part or self.number:
                    break
                raise InputError(f"the search cannot begin with the path it is given: {outside}") from None
            if self._descend(min(len(self.values) + _EACH, self.problem.spec.iterations)):
                break
        return self._theta(self.here)

    def _descend(self, until: int) -> bool:
        """Goes down until there are so many values, on the same noise; whether the bottom is reached before."""

        def keep(intermediate_result) -> None:  # type: ignore[no-untyped-def]  # SciPy knows callbacks by this name
            self.here, self.level = np.array(intermediate_result.x), float(intermediate_result.fun)
            self.values.append(self.level)
            self.tick(1)

        for _ in range(_RETURNS):
            if (left := until - len(self.values)) <= 0:
                break
            bounds = np.tile(self.bounds / self.unit[:, None], (self.shape[0], 1))
            try:
                found = minimize(
                    self._value, self.here, jac=True, method="L-BFGS-B", bounds=bounds, callback=keep,
                    options=_OPTIONS | {"maxiter": left},
                )  # fmt: skip
            except _Outside:  # and a bound is set
                continue
            self.here = found.x
            return bool(found.success)
        return False

    def _bound(self, beyond: Array) -> bool:
        """Bounds the parameter that takes a path out of the valid region; whether there is one."""
        inside, outside = self._theta(self.here), self._theta(beyond)
        for j in range(self.shape[1]):
            found = _edge(self.problem, inside, outside, j)
            if found is not None:
                side, value = found
                self.bounds[j, side] = value
                return True
        return False


def _edge(problem: Problem, inside: Array, outside: Array, j: int) -> tuple[int, float] | None:
    """Where parameter j leaves the valid region on the way from knots to knots: downwards (0) or upwards (1), and at
    which value; None where it is not the one that does."""

    def path(share: float) -> Array:
        knots = outside.copy()
        knots[:, j] = inside[:, j] + share * (outside[:, j] - inside[:, j])
        return knots

    def valid(share: float) -> bool:
        return problem.why_invalid(path(share)) is None

    if valid(1.0) or not valid(0.0):
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if valid(middle) else (low, middle)
    wrong = [k for k, knot in enumerate(path(high)) if problem.why_invalid(knot[None]) is not None]
    side = int(outside[wrong[0], j] > inside[wrong[0], j])
    return side, float(path(low)[wrong[0], j])


def _gain(problem: Problem, before: Array, after: Array, number: int) -> Estimate:
    """What a round gained, by both paths on the same fresh noise."""
    particles = problem.spec.rounds[number][1]
    x, noise = problem.pairs("check", number, particles), streams.protocol(problem.spec.seed, "check", number)
    moments = []
    for knots in (before, after):
        ends = gradients.ends(problem.system, x, *problem.stairs(knots), str(problem.spec.integrator), noise, True)
        moments.append(problem.moments(*ends))
    both = np.stack(moments)
    both = both.reshape(*both.shape[:2], 2, particles // 2).mean(axis=2)  # over the two of each pair
    parts = min(_PARTS, particles // 2 // int(BLOCK))
    size = particles // 2 // parts
    means = both[..., : parts * size].reshape(*both.shape[:2], parts, size).mean(axis=-1)
    value = problem.objective.value
    return jackknife(means, lambda both: value(both[1]) - value(both[0]), axis=2)
