"""Free-energy differences from work: Jarzynski, the crossing of Crooks, and Bennett's acceptance ratio (BAR).

Forward processes start in equilibrium at theta_A and drive theta to theta_B; reverse ones start in equilibrium at
theta_B and drive it back along the same path.  W is the work done on the system in either, n_F and n_R count them, and

    P_F(W) / P_R(-W) = exp(beta (W - Delta F))                       (Crooks 1999, Phys. Rev. E 60, 2721).

So W and -W are samples of two densities whose ratio is known but for Delta F.  BAR is the maximum-likelihood Delta F,
and it gives every work the weight that it has in either ensemble (Shirts, Bair, Hooker & Pande 2003, Phys. Rev. Lett.
91, 140601):

    p_F(W) = 1 / (n_F + n_R exp(-beta (W - Delta F))),    p_R(W) = p_F(W) exp(-beta (W - Delta F)).

All errors and diagnostics are averages with these weights over the works of both directions.  That matters most for
Jarzynski: the rare works that decide the error of one direction are the common ones of the other.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, logsumexp

from thermorun.arrays import Array, reals
from thermorun.errors import InputError, require_positive
from thermorun.estimates import Estimate, finite_or_none

ESTIMATORS = ("bar", "crossing", "jarzynski-forward", "jarzynski-reverse")
# Below so many effective works a standard error of Jarzynski or the crossing is not what it says
# (tests/test_free_energy.py measures it); that of BAR is still right, though wide, down to the second number.
FEWEST = 20
_FEWEST_BAR = 2
# Below this overlap, or with fewer effective works than this, few works decide: errors hold, but look at them.
_THIN_OVERLAP, _THIN_EFFECTIVE = 0.1, 100
# exp of twice this is still a number.
_LARGEST_EXPONENT = 300.0
# Works further than this from Delta F, in kT, are certain of their direction: a single wild one must not set the scale.
_FARTHEST = 60.0


@dataclass(frozen=True)
class DeltaF:
    """What one estimator says: Delta F, energy.

    ``effective`` counts the works that it rests on.  ``bias`` is the expected error of its mean, energy, where that is
    known to matter (Jarzynski).  ``warning`` is a sentence, or None where the standard error can be trusted; it is NaN
    where the works do not tell it.
    """

    estimator: str
    delta_f: Estimate
    effective: float
    bias: float | None = None
    warning: str | None = None

    def times(self, factor: float) -> "DeltaF":
        """The same in other units of energy, or (negative) for the opposite change of theta."""
        delta_f = Estimate(factor * self.delta_f.mean, abs(factor) * self.delta_f.stderr)
        return replace(self, delta_f=delta_f, bias=None if self.bias is None else factor * self.bias)

    def to_dict(self, exact: float | None = None) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "estimator": self.estimator,
            "delta_f": self.delta_f.to_dict(exact),
            "effective": finite_or_none(self.effective),
            "bias": None if self.bias is None else finite_or_none(self.bias),
            "warning": self.warning,
        }


@dataclass(frozen=True)
class WorkAnalysis:
    """What forward and reverse works say about Delta F and about themselves.

    ``results`` holds a ``DeltaF`` for each of ``ESTIMATORS``.  ``overlap`` is 1 where the densities of W and -W are
    equal and 0 where they are apart (Klimovich, Shirts & Mobley 2015, J. Comput. Aided Mol. Des. 29, 397; the
    scalar of two states).  ``slope`` is that of ln P_F(W) / P_R(-W) over beta, which is 1 by Crooks' relation.
    ``forward`` and ``reverse`` are the mean works, energy; ``count`` is the harmonic mean of their numbers.
    """

    results: tuple[DeltaF, ...]
    overlap: float
    slope: Estimate
    forward: Estimate
    reverse: Estimate
    count: int

    def __getitem__(self, estimator: str) -> DeltaF:
        return self.results[ESTIMATORS.index(estimator)]

    @property
    def bar(self) -> DeltaF:
        """Bennett's acceptance ratio, which for many works has the smallest error of all."""
        return self["bar"]

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that there is to warn of, a sentence each; none where every standard error can be trusted."""
        several = [self._broken, *(result.warning for result in self.results)]
        return tuple(dict.fromkeys(sentence for sentence in several if sentence is not None))

    @property
    def _broken(self) -> str | None:
        if not abs(self.slope.z(1.0)) > 5:
            return None
        return (
            f"The works break Crooks' relation: ln P_F(W) / P_R(-W) has slope {self.slope} times beta, not 1; look for"
            " a time step that is too long, a start out of equilibrium, or a reverse path that is not the forward one."
        )

    @property
    def verdict(self) -> str:
        """One sentence: what is wrong with the works, or which standard errors can be trusted."""
        trusted = [result.estimator for result in self.results if result.warning is None]
        if self._broken is not None or self.bar.warning is not None or "crossing" not in trusted:
            return self.warnings[0]
        effective = self.bar.effective
        if self.overlap < _THIN_OVERLAP or effective < _THIN_EFFECTIVE:
            return (
                f"Thin overlap, {self.overlap:.2g}: {number(effective)} of {self.count:,} works decide. The standard"
                f" errors of {', '.join(trusted)} hold; a slower drive or more works would make them smaller."
            )
        return f"Good overlap, {self.overlap:.2g}: trust the standard errors of {', '.join(trusted)}."

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "results": [result.to_dict() for result in self.results],
            "overlap": self.overlap,
            "crooks_slope": self.slope.to_dict(),
            "mean_work_forward": self.forward.to_dict(),
            "mean_work_reverse": self.reverse.to_dict(),
            "verdict": self.verdict,
            "warnings": list(self.warnings),
        }


@np.errstate(over="ignore")  # works may be as large as numbers are
def analyse_works(forward: ArrayLike, reverse: ArrayLike, beta: float = 1.0) -> WorkAnalysis:
    """Delta F = F(theta_B) - F(theta_A) by every estimator, from independent works of the two directions.

    ``forward`` (n_F,) and ``reverse`` (n_R,) are works done on the system, energy; ``beta`` is 1/kT.  A work may be
    +inf (a move into a wall, say): its weight is zero.

    ===================== =================================== ==============================================
    estimator             Delta F                             standard error
    ===================== =================================== ==============================================
    ``bar``               where the sum of p_F over all       kT sqrt((1/O - 1) (1/n_F + 1/n_R)), O the
                          works is 1 (Bennett 1976)           overlap (Shirts et al. 2003, rearranged)
    ``crossing``          where P_F(W) = P_R(-W), by          from the information matrix
                          logistic regression on W
    ``jarzynski-forward`` -kT ln <exp(-beta W_F)>             from the change of ln <...> by one work more,
                          (Jarzynski 1997)                    with the weights of both directions
    ``jarzynski-reverse`` +kT ln <exp(-beta W_R)>             the same
    ===================== =================================== ==============================================

    Effective works: O times the harmonic mean of n_F and n_R for ``bar`` and ``crossing``, n <w>^2 / <w^2> with
    w = exp(-beta W) for Jarzynski (Kish), the averages with the weights of both directions.  With fewer than 20 all but
    ``bar`` have a NaN for standard error, and ``bar`` warns that its own is wide; with fewer than 2 it has a NaN too.

    Raises InputError.
    """
    beta = require_positive("beta", beta)
    # Everything below is in units of kT, and a reverse work enters as -W, beside the forward ones.
    mine, theirs = beta * require_works("forward", forward), -beta * require_works("reverse", reverse)
    count = np.array([len(mine), len(theirs)])
    works = np.concatenate([mine, theirs])
    if not np.any(np.isfinite(works)):
        raise InputError("forward and reverse hold no finite work; at least one must be.")
    odds = math.log(count[0] / count[1])
    share = count[0] / count.sum()
    centre = _bennett(works, odds, int(count[0]))
    x = works - centre

    half = float(count[0] * count[1] / count.sum())
    spread = float(np.sum((expit(x + odds) - share) ** 2)) / half
    overlap = max(0.0, 1.0 - spread)
    # The harmonic mean of the numbers of works is 2 half.
    effective = 2 * half * overlap
    finite = works[np.isfinite(works)]
    equal = len(finite) == len(works) and bool(np.ptp(finite) <= 1e-12 * np.max(np.abs(finite)))
    why = _why_poor(overlap, effective, equal)

    stderr = math.nan if equal or effective < _FEWEST_BAR else math.sqrt(spread / overlap / half)
    crossing, slope = Estimate(math.nan, math.nan), Estimate(math.nan, math.nan)
    broken = None
    if why is None and (mine.min() > theirs.max() or mine.max() < theirs.min()):
        broken = (
            "The works break Crooks' relation: the densities of W forward and -W reverse are close together and never"
            " cross; look for a reverse path that is not the forward one, or for a wrong sign."
        )
    elif why is None:
        crossing, slope = _crossing(np.clip(x, -_FARTHEST, _FARTHEST), count, odds)
    results = (
        DeltaF("bar", Estimate(centre, stderr), effective, warning=why),
        DeltaF("crossing", Estimate(centre + crossing.mean, crossing.stderr), effective, warning=broken or why),
        _jarzynski("jarzynski-forward", mine, theirs, centre, why),
        _jarzynski("jarzynski-reverse", -theirs, -mine, -centre, why),
    )
    energies = tuple(result.times(sign / beta) for result, sign in zip(results, (1, 1, 1, -1), strict=True))
    return WorkAnalysis(energies, overlap, slope, mean_work(mine / beta), mean_work(-theirs / beta), round(2 * half))


def require_works(name: str, values: ArrayLike) -> Array:
    """Works as an array (n,) of numbers, +inf among them.  Raises InputError for anything else."""
    works = reals(name, values)
    if works.ndim != 1 or not len(works):
        raise InputError(f"{name} has shape {works.shape}; it must be a list of at least one work.")
    bad = int(np.sum(np.isnan(works) | (works == -np.inf)))
    if bad:
        raise InputError(f"{name} holds {bad} works that are NaN or -inf; works must be numbers, or +inf.")
    return works


def _bennett(works: Array, odds: float, count: int) -> float:
    """The root of BAR's equation, sum of n_F p_F = n_F, which falls with Delta F and lies among the works."""

    def surplus(delta_f: float) -> float:
        return float(np.sum(expit(works - delta_f + odds))) - count

    # Bisection over the sorted works first: however far the outermost lie, two neighbours hold the root.
    ordered = np.sort(works[np.isfinite(works)])
    low, high = 0, len(ordered) - 1
    # Rounding may spoil the signs where all works are equal.
    if surplus(ordered[low]) <= 0:
        return float(ordered[low])
    if surplus(ordered[high]) >= 0:
        return float(ordered[high])
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if surplus(ordered[middle]) > 0 else (low, middle)
    return float(brentq(surplus, ordered[low], ordered[high], xtol=1e-12, maxiter=1000))


def _crossing(x: Array, count: NDArray[np.int_], odds: float) -> tuple[Estimate, Estimate]:
    """Where P_F = P_R along x, and the slope of ln P_F / P_R there.

    Crooks' relation makes ln P_F / P_R a straight line.  Logistic regression is the maximum-likelihood way to fit one
    without bins (Anderson 1972, Biometrika 59, 19: sampling by class adds 1/n_F + 1/n_R to the intercept's variance
    in excess).
    """
    scale = float(np.std(x))
    u, sign = x / scale, np.repeat([1.0, -1.0], count)

    def loss(line: Array) -> float:
        return float(np.sum(np.logaddexp(0.0, -sign * (line[0] + line[1] * u + odds))))

    def gradient(line: Array) -> Array:
        pull = -sign * expit(-sign * (line[0] + line[1] * u + odds))
        return np.array([np.sum(pull), np.sum(pull * u)])

    def information(line: Array) -> Array:
        p = expit(line[0] + line[1] * u + odds)
        q = p * (1 - p)
        return np.array([[np.sum(q), np.sum(q * u)], [np.sum(q * u), np.sum(q * u * u)]])

    fit = minimize(
        loss, np.array([0.0, scale]), jac=gradient, hess=information, method="trust-exact", options={"gtol": 1e-6}
    )
    level, steepness = (float(value) for value in fit.x)
    covariance = np.linalg.inv(information(fit.x))
    covariance[0, 0] -= np.sum(1 / count)
    by_level, by_steepness = -1 / steepness, level / steepness**2
    variance = (
        by_level**2 * covariance[0, 0]
        + 2 * by_level * by_steepness * covariance[0, 1]
        + by_steepness**2 * covariance[1, 1]
    )
    stderr = math.sqrt(variance) if variance > 0 else math.nan
    slope = Estimate(steepness / scale, math.sqrt(covariance[1, 1]) / scale)
    return Estimate(-level / steepness * scale, stderr * scale), slope


def _jarzynski(name: str, mine: Array, theirs: Array, delta_f: float, why: str | None) -> DeltaF:
    """Jarzynski's average over the works ``mine``, judged with the help of ``theirs``, minus the other direction's.

    All in kT, and as seen from this direction; ``delta_f`` is that of BAR, ``why`` says what is wrong with that.  With
    w = exp(Delta F - W), of mean 1, one work more or less moves ln <w> by l = ln(1 + (w - 1) / n); to this order

        variance = n <l^2>,    bias of -ln <w> = -n <l>,

    which become the familiar <(w - 1)^2> / n and half of that where no single work counts for much (Gore, Ritort &
    Bustamante 2003, PNAS 100, 12564), and stay right longer than they.
    """
    count = len(mine)
    value = math.log(count) - float(logsumexp(-mine))
    # Weight and excess of a wild work are cut together: a weight that vanishes alone would hide the work.
    x = np.clip(np.concatenate([mine, theirs]) - delta_f, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    p = expit(x + math.log(count / len(theirs))) / count
    excess = np.expm1(-x)
    effective = count / float(1 + np.sum(p * excess**2))
    with np.errstate(divide="ignore", invalid="ignore"):  # a single work may be the whole mean
        moves = np.log1p(excess / count)
        bias, variance = (count * float(np.sum(p * moves**power)) for power in (1, 2))
    if why is not None:
        # The formula misses most of the bias here, and the distance from BAR is more than noise.
        return DeltaF(name, Estimate(value, math.nan), effective, max(-bias, value - delta_f), why)
    if effective < FEWEST:
        why = (
            f"{name} rests on {number(effective)} of {count:,} works, too few for a standard error (it takes {FEWEST});"
            f" it is biased by about {-bias:.2g} kT: trust bar, or drive more slowly."
        )
        return DeltaF(name, Estimate(value, math.nan), effective, -bias, why)
    return DeltaF(name, Estimate(value, math.sqrt(variance)), effective, -bias)


def _why_poor(overlap: float, effective: float, equal: bool) -> str | None:
    if equal:
        return "All works are equal, so they do not tell their own error: the standard error is unknown."
    if effective >= FEWEST:
        return None
    unknown = "every standard error" if effective < _FEWEST_BAR else "that of bar is wide, every other standard error"
    return (
        f"Poor overlap: forward and reverse works share {overlap:.2g} of their densities, which makes"
        f" {number(effective)} effective works (it takes {FEWEST}); {unknown} is unknown: drive more slowly, or take"
        " more particles."
    )


def number(effective: float) -> str:
    """Effective works in words: whole from a hundred on."""
    if effective < 1:
        return "less than 1"
    return f"{effective:,.0f}" if effective >= 100 else f"{effective:.2g}"


def mean_work(works: Array) -> Estimate:
    """The mean work and its standard error, NaN where it has none."""
    known = len(works) > 1 and bool(np.all(np.isfinite(works)))
    with np.errstate(over="ignore"):
        stderr = float(np.std(works, ddof=1)) / math.sqrt(len(works)) if known else math.nan
    return Estimate(float(np.mean(works)), stderr, len(works))
