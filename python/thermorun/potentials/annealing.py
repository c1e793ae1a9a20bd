"""Equilibrium of any potential in several dimensions, wells behind barriers included: independent, exact draws.

A proposal, a mixture q of Gaussians, is fitted to p_m(x, theta).  Then every particle is a Markov chain of its own: it
takes fresh draws of q by Metropolis' rule, so that barriers do not matter, and moves in between by differences of
fitted points (ter Braak 2006, Stat. Comput. 16, 239).  Where q is far from p_m, the chain is a ladder of densities
q^(1 - l) p^l whose neighbours swap (parallel tempering), fed with draws of q at its lower end.  Particles share q and
nothing else.

q comes from sequential Monte Carlo (Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411; no time step, steps of
l by effective sample size): once down from a Gaussian that is broader than all wells, once from the wells that
minimisation finds, then from q itself.  Two populations at a time must agree, and with the two before, about ln Z, the
mean energy and the mean gradient; else equilibrium cannot be shown, and RunError says so.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import logsumexp

from thermokernels import random
from thermorun.arrays import Array
from thermorun.errors import RunError, words
from thermorun.potentials import wells
from thermorun.potentials.domains import OnTheLine, on_the_line
from thermorun.potentials.potential import Potential
from thermorun.streams import Streams, proposal

_POPULATION = 4096
_COMPONENTS = (2, 4, 8, 16, 32, 32)
_FEW_SWEEPS, _MOST_SWEEPS = 50, 400
# Standard errors that two populations may differ by; those of the first two are too small, for they count no
# correlations.
_AGREE, _FIRST = 5.0, 4.0


class Source:
    """Uniforms and normals from a range of streams, fresh ones at every call."""

    def __init__(self, streams: Streams) -> None:
        self.streams, self.calls = streams, 0

    def _place(self) -> tuple[np.uint64, np.uint64, int]:
        self.calls += 1
        return self.streams.call(self.calls - 1)

    def uniform(self, count: int) -> Array:
        """(count,) on (0, 1)."""
        out = np.empty(count)
        random.fill_uniforms(out, *self._place())
        return out

    def normal(self, count: int, dimension: int) -> Array:
        """(count, dimension) standard normals."""
        out = np.empty((dimension, count))
        for row in out:
            random.fill_normals(row, *self._place())
        return np.ascontiguousarray(out.T)


class Mixture:
    """A mixture of Gaussians: weights (k,), means (k, d) and covariances (k, d, d)."""

    def __init__(self, weights: Array, means: Array, covariances: Array) -> None:
        self.weights, self.means = weights / weights.sum(), means
        self.covariances = covariances
        self.roots = np.linalg.cholesky(covariances)
        self.inverses = np.linalg.inv(self.roots)
        size = means.shape[1] * np.log(2 * np.pi) / 2 + np.log(np.diagonal(self.roots, axis1=1, axis2=2)).sum(axis=1)
        self.constants = np.log(self.weights) - size

    def log_parts(self, x: Array) -> Array:
        """ln of each weighted component at x (n, d): (k, n)."""
        out = np.empty((len(self.weights), len(x)))
        for k, inverse in enumerate(self.inverses):
            # Sums written by einsum, whose order no number of threads changes.
            away = np.einsum("nj,ij->in", x - self.means[k], inverse)
            out[k] = self.constants[k] - 0.5 * np.einsum("in,in->n", away, away)
        return out

    def log_density(self, x: Array) -> Array:
        """ln q at x (n, d)."""
        parts = self.log_parts(x)
        highest = parts.max(axis=0)
        density: Array = highest + np.log(np.exp(parts - highest).sum(axis=0))
        return density

    def draw(self, count: int, source: Source) -> Array:
        """(count, d)."""
        which = np.searchsorted(np.cumsum(self.weights)[:-1], source.uniform(count), side="right")
        noise = source.normal(count, self.means.shape[1])
        return np.asarray(self.means[which] + np.einsum("nij,nj->ni", self.roots[which], noise))


@dataclass
class State:
    """Points x (n, d) with ln p = -beta E and ln q there, each (n,)."""

    x: Array
    log_p: Array
    log_q: Array

    def take(self, where: Array, other: "State") -> None:
        """Becomes ``other``, of as many points as the mask (n,) has, where the mask says so."""
        self.x[where], self.log_p[where], self.log_q[where] = other.x, other.log_p, other.log_q

    def rows(self, index: Array | slice) -> "State":
        """Some of the points; a slice shares memory."""
        return State(self.x[index], self.log_p[index], self.log_q[index])

    def log_density(self, share: float) -> Array:
        """ln of q^(1 - share) p^share."""
        return np.asarray(share * self.log_p + (1 - share) * self.log_q)

    @property
    def ratio(self) -> Array:
        """ln p / q."""
        return np.asarray(self.log_p - self.log_q)


@dataclass(frozen=True)
class Target:
    """p = exp(-beta E) of a potential at theta."""

    potential: Potential | OnTheLine
    theta: tuple[float, ...]
    beta: float

    def state(self, x: Array, start: Mixture) -> State:
        """ln p, -inf where the energy is no number, and ln q at x (n, d)."""
        with np.errstate(over="ignore", invalid="ignore"):
            log_p = -self.beta * self.potential.energies(x, self.theta)
        return State(x, np.where(np.isfinite(log_p), log_p, -np.inf), start.log_density(x))

    def move(self, state: State, share: float, size: float, pool: Array, start: Mixture, source: Source) -> float:
        """A Metropolis move of every point by a difference of two of ``pool``; returns the share that was accepted.

        One in five takes a difference as it is, which leads from well to well, the others ``size`` times of it.
        """
        count, d = state.x.shape
        first, second = (np.minimum(source.uniform(count) * len(pool), len(pool) - 1).astype(int) for _ in range(2))
        sizes = np.where(source.uniform(count) < 0.2, 1.0, size * 2.38 / np.sqrt(2 * d))
        proposed = self.state(state.x + sizes[:, None] * (pool[first] - pool[second]), start)
        chance = proposed.log_density(share) - state.log_density(share)
        accepted = np.log(source.uniform(count)) < chance
        state.take(accepted, proposed.rows(accepted))
        return float(np.mean(accepted[sizes != 1.0]))


@dataclass(frozen=True)
class Population:
    """Points of p_m from sequential Monte Carlo, the ladder of l on the way, ln Z, and what can be compared.

    ``means`` are ln Z, the mean energy (kT) and the mean gradient (times beta), ``errors`` their standard errors.
    """

    state: State
    ladder: tuple[float, ...]
    size: float
    means: Array
    errors: Array


def anneal(target: Target, start: Mixture, source: Source, count: int = _POPULATION) -> Population:
    """Sequential Monte Carlo from ``start`` to p_m; l grows so that half of the sample stays effective."""
    state = target.state(start.draw(count, source), start)
    ladder, log_partition, variance, size = [0.0], 0.0, 0.0, 1.0
    while ladder[-1] < 1:
        ratio = state.ratio
        if not np.any(np.isfinite(ratio)):
            raise RunError(f"{target.potential.name} has no finite energy at theta = {words(target.theta)}.")
        step = _step(ratio, 1 - ladder[-1])
        weights = np.exp(step * (ratio - ratio.max()))
        log_partition += float(np.log(np.mean(weights)) + step * ratio.max())
        variance += float(np.mean(weights**2) / np.mean(weights) ** 2 - 1) / count
        ladder.append(min(ladder[-1] + step, 1.0))
        # Systematic resampling.
        places = (np.arange(count) + source.uniform(1)[0]) / count
        state = state.rows(np.minimum(np.searchsorted(np.cumsum(weights) / weights.sum(), places), count - 1))
        for _ in range(6 + 2 * state.x.shape[1]):
            size *= float(np.exp(_alternate(target, state, ladder[-1], size, start, source) - 0.3))
    gradients = target.beta * target.potential.gradients(state.x, target.theta)
    seen = np.stack([-state.log_p, *gradients])
    # Resampled points count as often as the worst step left them.
    errors = np.sqrt(np.append(variance, seen.var(axis=1) * (1 / count + variance)))
    return Population(state, tuple(ladder), size, np.append(log_partition, seen.mean(axis=1)), errors)


def _step(ratio: Array, most: float) -> float:
    """How far l may go until the effective sample size is half of the points that have a weight."""
    ratio = ratio[np.isfinite(ratio)] - ratio.max()

    def effective(step: float) -> float:
        weights = np.exp(step * ratio)
        return float(weights.sum() ** 2 / np.sum(weights**2)) / len(weights)

    if effective(most) >= 0.5:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= 0.5 else (low, middle)
    return high


def _alternate(target: Target, state: State, share: float, size: float, start: Mixture, source: Source) -> float:
    """One move of each half of a population by differences of the other half; returns the share accepted."""
    middle = len(state.x) // 2
    halves, rates = (slice(0, middle), slice(middle, None)), []
    for mine, other in (halves, halves[::-1]):
        rates.append(target.move(state.rows(mine), share, size, state.x[other], start, source))
    return float(np.mean(rates))


def fit(x: Array, components: int, source: Source) -> Mixture:
    """A mixture of Gaussians for points (n, d), by expectation maximisation from centres far apart."""
    count, d = x.shape
    middle, root = x.mean(axis=0), np.linalg.cholesky(np.cov(x.T).reshape(d, d))
    # In units in which the points have unit covariance.
    y = np.linalg.solve(root, (x - middle).T).T
    centres = y[:components].copy()
    nearest = np.full(count, np.inf)
    for k in range(components):
        chances = np.cumsum(nearest if k else np.ones(count))
        centres[k] = y[np.searchsorted(chances, source.uniform(1)[0] * chances[-1])]
        nearest = np.minimum(nearest, np.sum((y - centres[k]) ** 2, axis=1))
    mixture = Mixture(np.ones(components), centres, np.tile(np.eye(d) / components ** (2 / d), (components, 1, 1)))
    for _ in range(25 if components > 1 else 1):
        parts = mixture.log_parts(y)
        shares = np.exp(parts - logsumexp(parts, axis=0))
        sizes = shares.sum(axis=1) + 1e-9
        means = np.einsum("kn,ni->ki", shares, y) / sizes[:, None]
        away = [y - mean for mean in means]
        covariances = np.stack(
            [np.einsum("ni,nj->ij", shares[k, :, None] * away[k], away[k]) for k in range(components)]
        )
        covariances /= sizes[:, None, None]
        # As if d + 1 more points of a small part of the whole covariance were in each.
        more = (d + 1) / (sizes + d + 1)
        covariances = (1 - more[:, None, None]) * covariances + (more / components ** (2 / d))[:, None, None] * np.eye(
            d
        )
        mixture = Mixture(sizes, means, covariances)
    return Mixture(mixture.weights, middle + mixture.means @ root.T, root @ mixture.covariances @ root.T)


@dataclass(frozen=True)
class Proposal:
    """q, the ladder from it to p_m, the pool and size of the moves, and how many sweeps a chain takes."""

    target: Target
    start: Mixture
    ladder: tuple[float, ...]
    pool: Array
    size: float
    sweeps: int

    def draw(self, count: int, source: Source) -> Array:
        """Independent draws (count, d) of p_m."""
        chain = Chain(self, [self.target.state(self.start.draw(count, source), self.start) for _ in self.ladder[1:]])
        for _ in range(self.sweeps):
            chain.sweep(source)
        return chain.levels[-1].x


class Chain:
    """Particles at every level of a ladder; ``fresh`` (levels, n) are those that came from q since the beginning."""

    def __init__(self, proposal: Proposal, levels: list[State]) -> None:
        self.proposal, self.levels = proposal, levels
        self.fresh = np.zeros((len(levels), len(levels[0].x)), bool)

    def sweep(self, source: Source) -> None:
        """A fresh draw of q, swaps up the ladder as far as they are accepted, and a move at every level."""
        one, count = self.proposal, len(self.levels[0].x)
        hotter, fresh = one.target.state(one.start.draw(count, source), one.start), np.ones(count, bool)
        for k, state in enumerate(self.levels):
            gain = one.ladder[k + 1] - one.ladder[k]
            # NaN, and no swap, where neither point has a finite energy.
            with np.errstate(invalid="ignore"):
                swap = np.log(source.uniform(count)) < gain * (hotter.ratio - state.ratio)
            colder = state.rows(swap)
            state.take(swap, hotter.rows(swap))
            hotter.take(swap, colder)
            fresh[swap], self.fresh[k, swap] = self.fresh[k, swap], fresh[swap]
            hotter, fresh = state, self.fresh[k]
        for k, state in enumerate(self.levels):
            one.target.move(state, one.ladder[k + 1], one.size, one.pool, one.start, source)


@lru_cache(maxsize=64)
def propose(potential: Potential, theta: tuple[float, ...], beta: float) -> Proposal:
    """The proposal for a potential at ``theta``.  Raises RunError where populations go on to disagree."""
    target, source = Target(on_the_line(potential, beta), theta, beta), Source(proposal())
    seen = wells.find(potential, theta, beta)
    d = potential.dimension
    broad = Mixture(np.ones(1), seen.centre[None], np.diag((0.5 * seen.half) ** 2)[None])
    bottoms = Mixture(np.ones(len(seen.minima)), seen.minima, 2 * seen.covariances)
    first = (anneal(target, broad, source), anneal(target, _joined((0.5, broad), (0.5, bottoms)), source))
    before, most = first, max(1, _POPULATION // (10 * d))
    best: Proposal | None = None
    for components in _COMPONENTS:
        points = [one.state.x for one in (first if before is first else first + before)]
        fitted = fit(_thinned(np.concatenate(points)), min(components, most), source)
        wide = Mixture(fitted.weights, fitted.means, 4 * fitted.covariances)
        start = _joined((0.75, fitted), (0.15, wide), (0.06, bottoms), (0.04, broad))
        found = (anneal(target, start, source), anneal(target, start, source))
        loose = _FIRST if before is first else 1.0
        if _agree(*found, 1.0) and all(_agree(old, new, loose) for old in before for new in found):
            one = Proposal(target, start, found[0].ladder, found[1].state.x, found[0].size, 0)
            one = replace(one, sweeps=_sweeps(one, _thinned(np.concatenate(points[:2])), source))
            best = one if best is None or one.sweeps < best.sweeps else best
            if best.sweeps <= _FEW_SWEEPS:
                break
        before = found
    if best is None:
        raise RunError(
            f"two independent searches for the equilibrium of {potential.name} at theta = {words(theta)} do not agree"
            f" (ln Z: {found[0].means[0]:.6g} and {found[1].means[0]:.6g}); give it a sample function, or take another"
            " theta."
        )
    if best.sweeps > _MOST_SWEEPS:
        raise RunError(
            f"particles of {potential.name} at theta = {words(theta)} stay where they are for more than {_MOST_SWEEPS}"
            " sweeps, so that equilibrium cannot be shown; give it a sample function, or take another theta."
        )
    return best


def _thinned(x: Array) -> Array:
    return np.ascontiguousarray(x[:: max(1, len(x) // _POPULATION)])


def _joined(*parts: tuple[float, Mixture]) -> Mixture:
    weights = np.concatenate([share * one.weights for share, one in parts])
    return Mixture(
        weights, np.concatenate([one.means for _, one in parts]), np.concatenate([one.covariances for _, one in parts])
    )


def _agree(a: Population, b: Population, loose: float) -> bool:
    return bool(np.all(np.abs(a.means - b.means) <= _AGREE * loose * np.hypot(a.errors, b.errors) + 1e-9))


def _sweeps(one: Proposal, x: Array, source: Source) -> int:
    """Twice the sweeps after which one in a thousand of ``x`` (n, d), which never knew q, has taken no fresh draw."""
    chain = Chain(one, [one.target.state(x.copy(), one.start) for _ in one.ladder[1:]])
    for sweep in range(1, _MOST_SWEEPS // 2 + 1):
        chain.sweep(source)
        if np.mean(~chain.fresh[-1]) < 1e-3:
            return 2 * sweep
    return _MOST_SWEEPS + 1
