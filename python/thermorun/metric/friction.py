"""Fisher metric, friction and relaxation times of any potential, measured along trajectories at fixed theta.

    g_ij = beta^2 Cov(dE/dtheta_i, dE/dtheta_j),  zeta_ij = beta integral of C_ij(t) dt,  tau^r_ij = beta zeta_ij / g_ij

with C the equilibrium correlation of dE/dtheta (Hnybida & Verret 2025, Eqs. 51 and 52).  The integral is cut off by a
window that is 1 up to a time s and falls to 0 at 2 s (see `thermokernels.correlations`).  s doubles until what lies
beyond, R, is less than a tenth of the standard error.  R comes from the tail: two successive doublings that still add
something give the decay time and the size of an exponential.  For i = j the tail is a sum of decaying exponentials with
positive weights, so nothing is hidden in it by cancellation; for i != j, by Schwarz's inequality,
R_ij^2 <= R_ii R_jj.  A slow mode may be lost in the noise of one diagonal element and plain in another: so (i, j) takes
no shorter a window than either of its two, and R_ii is at least R_ij^2 / R_jj.  A mode slower than any that the
trajectories show cannot be seen.

g comes from the start of the trajectories, where no time step has changed the distribution of x yet.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numba import get_num_threads
from scipy.optimize import brentq

from thermokernels import correlations
from thermokernels.random import BLOCK
from thermorun.arrays import Array
from thermorun.errors import RunError, words
from thermorun.estimates import Estimate, left_out_error
from thermorun.potentials import System, compilation
from thermorun.potentials.dynamics import require_converged
from thermorun.streams import Noise

# Blocks of particles to a kernel call; fixed, since those of a call are brought to equilibrium together.
BATCH = 32
# Steps of the shortest segment of a trajectory, and how many levels of doubling are tried.
SEGMENT = 8
_FEWEST, MOST = 6, 15
_PILOT = 8
# R shall be less than this share of the standard error; a doubling is seen when it exceeds so many of its errors.
_SHARE, _SEEN = 0.1, 3.0
# A decay that by so many errors takes longer than the longest window is not waited for; doublings alike to 1e-6 tell
# none.
_SURE, _FLAT = 4.0, 1e-6
# A kernel call takes about this many particle-steps.
_CALL = 2**27


@dataclass(frozen=True)
class Windows:
    """How trajectories are cut at one point: found by a pilot run, a function of the potential and the seed alone.

    ``dt`` is the time step; ``levels`` the number of window lengths, each twice the last; ``centre`` (p,) is about the
    mean of dE/dtheta, which the kernel takes off so that little is lost to rounding.
    """

    dt: float
    levels: int
    centre: Array

    @property
    def steps(self) -> int:
        """Steps of a trajectory."""
        return int(SEGMENT * correlations.TOP * 2 ** (self.levels - 1))

    @property
    def lengths(self) -> Array:
        """s of each level, time."""
        return np.asarray(SEGMENT * self.dt * 2.0 ** np.arange(self.levels))


@dataclass(frozen=True)
class Ensemble:
    """Trajectories at one theta; ``noise`` and ``pilot_noise`` belong to it alone."""

    system: System
    theta: tuple[float, ...]
    integrator: str
    precision: str
    noise: Noise
    pilot_noise: Noise

    def rows(
        self, windows: Windows, batch: int, blocks: int, noise: Noise | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Sums of one batch, a row for each block of particles: (blocks, levels, 2, p, p) and (blocks, 2 + p, p).

        ``pause`` is called every second or two: it may raise.
        """
        potential, p = self.system.potential, len(self.theta)
        theta = np.array([self.theta])
        own = (noise or self.noise).batch(batch, potential.dimension)
        x = self.system.equilibrium(self.theta, blocks * int(BLOCK), seed=own, precision=self.precision)
        table = self.system.coefficients(self.integrator, windows.dt, theta)
        sums, means = np.empty((1, blocks, windows.levels, 2, p, p)), np.empty((1, blocks, 2 + p, p))
        status = np.full((1, blocks), -1)
        kernel = compilation.correlate(
            potential.energy, potential.force, potential.gradient, potential.dimension, p, self.integrator,
            potential.domain.plain,
        )  # fmt: skip
        table = np.ascontiguousarray(table.reshape(1, 1, -1))
        length = max(get_num_threads(), _CALL // (int(BLOCK) * windows.steps))
        for first in range(0, blocks, length):
            part = np.s_[:, first : first + length]
            mine = np.ascontiguousarray(x[:, :, first * BLOCK : (first + length) * BLOCK])
            kernel(
                mine, table, theta, windows.centre[None], SEGMENT, own.dynamics.take(potential.dimension), first,
                sums[part], means[part], status[part],
            )  # fmt: skip
            require_converged(potential, mine, status[part], windows.dt)
            pause()
        return sums[0], means[0]

    def pilot(self, dt: float, blocks: int, pause: Callable[[], None] = lambda: None) -> Windows:
        """How many levels an ensemble of so many blocks needs; ``pause`` as for ``rows``.

        Raises RunError where the correlations go on beyond the longest window, as soon as that is seen.
        """
        windows = Windows(dt, _FEWEST, np.zeros(len(self.theta)))
        shrink = np.sqrt(_PILOT / blocks)
        while True:
            sums, means = self.rows(windows, 0, _PILOT, self.pilot_noise, pause)
            found = fold(sums, means, windows, self.system.beta, shrink)
            windows = Windows(dt, windows.levels, np.asarray(found.mean_gradient.mean))
            if found.truncated and np.max(found.level) < windows.levels - 1:
                return windows
            longest = float(replace(windows, levels=MOST).lengths[-1])
            if windows.levels == MOST or found.decay > longest:
                told = f", and for more than {found.decay:.3g}" if found.decay else ""
                raise RunError(
                    f"the forces of {self.system.potential.name} at theta = {words(self.theta)} stay correlated for"
                    f" longer than the longest window, {2 * longest:.3g} time units{told}; take another theta or a"
                    " larger dt."
                )
            windows = Windows(dt, windows.levels + 1, windows.centre)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Estimates at one point, each an `Estimate` of (p, p) arrays; their errors have blocks - 1 degrees of freedom.

    ``mean_gradient`` (p,) is the mean of dE/dtheta.  ``relaxation`` is NaN where g_ij is not seen to differ from zero.
    ``window`` (p, p) is s, the time at which the correlation integral begins to be cut off, ``level`` its number, and
    ``remainder`` (p, p) is R, what lies beyond, which the estimate lacks.  ``truncated`` says whether R is small enough
    everywhere.  ``curve`` (levels, p, p) are the integrals at all levels.  ``decay`` is a time that the slowest decay
    takes at least, as far as the last doublings tell, else 0.
    """

    mean_gradient: Estimate
    fisher: Estimate
    friction: Estimate
    relaxation: Estimate
    level: Array
    window: Array
    remainder: Array
    truncated: bool
    curve: Estimate
    decay: float


def fold(sums: Array, means: Array, windows: Windows, beta: float, shrink: float = 1.0) -> Measured:
    """Estimates from rows; standard errors by leaving out one row after the other (the jackknife).

    ``shrink`` is the factor by which errors will be smaller where the windows found here are used.
    """
    rows, levels = sums.shape[:2]
    counts = correlations.TOP * 2.0 ** np.arange(levels - 1, -1, -1)
    # The whole first, then without each row.
    parts = [np.concatenate([a.sum(axis=0)[None], a.sum(axis=0) - a]) for a in (sums, means)]
    share = BLOCK * np.concatenate([[rows], np.full(rows, rows - 1)])
    moments, firsts = (part / share.reshape(-1, *(1,) * (part.ndim - 1)) for part in parts)
    steps = SEGMENT * 2.0 ** np.arange(levels)
    start, mean = firsts[:, 0], firsts[:, 1] / (counts[0] * SEGMENT)
    fisher = beta**2 * (firsts[:, 2:] - start[:, :, None] * start[:, None, :])
    integrals = 0.5 * moments[:, :, 0] / counts[:, None, None] + moments[:, :, 1] / (counts[:, None, None] - 1)
    off = 1.5 * steps[:, None, None] * (mean[:, :, None] * mean[:, None, :])[:, None]
    curves = beta * windows.dt * (integrals / steps[:, None, None] - off)
    curve = _estimate(curves)
    limit = _SHARE * shrink * np.asarray(curve.stderr)
    remainder = _remainders(curves, limit)
    small = remainder < limit
    level = _levels(small)
    chosen = np.take_along_axis(curves, level[None, None], axis=1)[:, 0]
    measured = _estimate(fisher)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.abs(fisher[0]) > _SEEN * np.asarray(measured.stderr), beta * chosen / fisher, np.nan)
    first = _estimate(start)
    return Measured(
        mean_gradient=Estimate(first.mean + windows.centre, first.stderr, dof=first.dof),
        fisher=measured,
        friction=_estimate(chosen),
        relaxation=_estimate(ratio),
        level=level,
        window=windows.lengths[level],
        remainder=np.take_along_axis(remainder, level[None], axis=0)[0],
        truncated=bool(small.any(axis=0).all()),
        curve=curve,
        decay=_decay(curves, windows.lengths),
    )


def _levels(small: Array) -> Array:
    """The level taken for each pair, (p, p): the first at which R is small, the last where it never is.

    An element off the diagonal takes no shorter a window than both of its diagonal elements.
    """
    level = _first(small)
    own = np.diag(level)
    return np.asarray(np.maximum(level, np.maximum(own[:, None], own[None, :])))


def _first(small: Array) -> Array:
    return np.where(small.any(axis=0), np.argmax(small, axis=0), len(small) - 1)


def _estimate(values: Array) -> Estimate:
    """From the estimate with all rows and those without each, along the first axis."""
    return Estimate(values[0], left_out_error(values[1:]), dof=len(values) - 2.0)


def _beyond(u: float) -> float:
    """What the window leaves of an exponential, over its integral; u is s over the decay time."""
    return float(np.exp(-u) * -np.expm1(-u) / u)


def _remainders(curves: Array, limit: Array) -> Array:
    """R at each level, (levels, p, p); ``limit`` (levels, p, p) is what it shall be less than."""
    levels, p = curves.shape[1:3]
    gains, errors = np.diff(curves[0], axis=0), left_out_error(np.diff(curves[1:], axis=1))
    own = np.empty((levels, p))
    for i in range(p):
        own[:, i] = _remainder(gains[:, i, i], errors[:, i, i], float(curves[0, -1, i, i]))
    taken = _first(own < np.diagonal(limit, axis1=1, axis2=2))
    own = np.maximum(own, _told_by_others(curves, taken))
    return np.sqrt(own[:, :, None] * own[:, None, :])


def _told_by_others(curves: Array, taken: Array) -> Array:
    """What R of each diagonal element is at least, (levels, p), by elements with longer windows; ``taken`` (p,).

    What (i, j) and (j, j) still add up to the window of (j, j) tells what (i, i) does, by Schwarz's inequality,
    R_ii >= R_ij^2 / R_jj: however well its own noise hides it.  The noise of R_ij is taken off its square.
    """
    levels, p = curves.shape[1:3]
    least = np.zeros((levels, p))
    for i, j in itertools.permutations(range(p), 2):
        end = int(taken[j])
        if end <= taken[i]:
            continue
        missing = curves[:, end : end + 1, i, j] - curves[:, :end, i, j]
        square = missing[0] ** 2 - left_out_error(missing[1:]) ** 2
        whole = curves[0, end, j, j] - curves[0, :end, j, j]
        bound = np.divide(square, whole, out=np.zeros(end), where=(whole > 0) & (square > 0))
        least[:end, i] = np.maximum(least[:end, i], bound)
    return least


def _added(u: float) -> float:
    """What one more doubling adds to the integral of an exponential."""
    return _beyond(u) - _beyond(2 * u)


def _remainder(gains: Array, errors: Array, whole: float) -> Array:
    """R of one diagonal element at each level, infinite where the levels show no decay yet."""
    seen = gains > _SEEN * errors
    pairs = np.flatnonzero(seen[1:] & seen[:-1])
    out = np.full(len(gains) + 1, np.inf)
    first = int(pairs[-1]) if len(pairs) else 0
    # s of level ``first`` over the decay time, from two doublings that are seen; or else, where all is over so soon
    # that they are not, from the first doubling against the whole.
    if len(pairs):
        ratio = float(gains[first + 1] / gains[first])
        u = _root(lambda u: _added(2 * u) / _added(u), ratio, 1e-3, 30.0)
    else:
        u = _root(_added, max(float(gains[0]), _SEEN * float(errors[0])) / whole, 1.0, 30.0)
    if u is None:
        return out
    size = float(gains[first + 1]) / _added(2 * u) if len(pairs) else whole
    for level in range(first, len(out)):
        out[level] = size * _beyond(min(u * 2.0 ** (level - first), 700.0))
    return out


def _decay(curves: Array, lengths: Array) -> float:
    """A time that the slowest decay of a diagonal element takes at least; 0 where the last doublings do not tell.

    An exponential's two doublings add less and less than one twice the other, the later they come.
    """
    least = 0.0
    for i in range(curves.shape[2]):
        one, other = np.diff(curves[:, -3:, i, i], axis=1).T
        if min(one[0] - _SEEN * left_out_error(one[1:]), other[0] - _SEEN * left_out_error(other[1:])) > 0:
            ratio = other / one
            low = float(ratio[0] - _SURE * left_out_error(ratio[1:]))
            u = _root(lambda u: _added(2 * u) / _added(u), low, _FLAT, 30.0)
            least = max(least, float(lengths[-3]) / (_FLAT if u is None else u))
    return least


def _root(falling: Callable[[float], float], value: float, low: float, high: float) -> float | None:
    """Where a falling function has a value; its upper end where it is still larger there, None where it never is."""
    if falling(low) <= value:
        return None
    if falling(high) >= value:
        return high
    return float(brentq(lambda u: falling(u) - value, low, high))
