"""The likelihood of models of many hidden bits, whose 2^L states cannot be summed.

    p(x) = sum_z pbar(z) p(x | z),    pbar(z) = mean of p(z | x') over the model's own images x'

p(x | z) and p(z | x') are known exactly (Baiesi & Rosso, Eqs. 5, 10 and 11).  So is p(x), on average, where pbar is
averaged over N images of long chains, and z comes from annealed importance sampling (`thermokernels.annealing`): from a
logistic regression of a chain's z on the x that follows, through the law that a mixture in the place of pbar would
give.  What the mixture and the regression get wrong is in the weights.

The logarithm of such a mean is too small on average (Jensen's inequality), and the less the more images there are.  For
tied weights pbar is known but for one factor, so that any z will do; that factor's logarithm is too small for the same
reason, by far less.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import linalg

from thermokernels.annealing import Prior, anneal_states
from thermokernels.chains import run_chains
from thermokernels.mixture import expectation
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cycles.mixture import Mixture, climb, random_start
from thermorun.cycles.model import Model
from thermorun.estimates import left_out_error

# Chains of fantasies, and the groups of them that errors come from.
CHAINS, GROUPS = 128, 16
# Double steps from one fantasy to the next, and how many times as long the beginning lasts, by whether weights are
# tied: such models mix slowly.
_STRIDE, _PATIENCE = {False: 2, True: 16}, {False: 1, True: 4}
# Components of the prior at most; states of a tied model's chain.
_COMPONENTS, _TIED_STATES = 64, 16
# Fantasies that occupancies are averaged over at a time, for each group.
_AT_ONCE = 2048
# Sweeps of the one chain that every point has.
_GLIMPSE = 2
# Steps of the guide's ascent, and what holds it back where bits can be told without fail.
_ASCENT, _RIDGE = 25, 1.0
# A number of `random_start` that no ceiling has.
_PRIOR = 2**31
# Chains that anneal to points of a data set at most, points that are seen at most, and what a variance is never below.
_MOST, _MOST_SEEN, _SMALL = 2**20, 2**30, 1e-12
# Below so many fantasies a point, or with more nat gained by the last doubling, an estimate is called doubtful.
FEW, MUCH = 10.0, 0.3


class Effort(NamedTuple):
    """What an estimate is made from.

    ``fantasies`` are averaged over, after ``burn`` double steps; ``fitted`` of each chain have guide and prior fitted
    to them; ``chains`` anneal to each of ``points`` of a data set, in ``sweeps``; a glimpse is had of all others, or,
    where ``whole`` is false, they are left out.
    """

    fantasies: int
    burn: int
    fitted: int
    points: int
    chains: int
    sweeps: int
    whole: bool

    @classmethod
    def of(cls, fantasies: int) -> Self:
        """That at the end of a study: points and sweeps grow with the root of the number of fantasies."""
        root = (fantasies / 64_000) ** 0.5
        return cls(fantasies, 2048, 80, max(100, round(500 * root)), 4, max(16, round(32 * root)), True)


# That of an epoch.
QUICK = Effort(8192, 512, 20, 200, 2, 16, False)


class LogLikelihood(NamedTuple):
    """Mean log p(x) of a data set: too small on average.

    ``mean`` and ``stderr`` in nat.  ``gain`` is by how much the mean rose when fantasies and chains were doubled: where
    they are many it is about what is still missing.  ``fantasies`` is the number of independent ones that the
    probability of a point rests on, the median over points.
    """

    mean: float
    stderr: float
    gain: float
    fantasies: float


def bits_of(states: Array, hidden: int) -> Array:
    """Hidden bits as numbers, uint8 (..., L)."""
    bits: Array = ((states[..., None] >> np.arange(hidden, dtype=np.uint64)) & np.uint64(1)).astype(np.uint8)
    return bits


def log_likelihoods(
    model: Model, sets: Sequence[Array], start: Array, effort: Effort, seed: int, number: int = 0
) -> list[LogLikelihood]:
    """Mean log p(x) of each of ``sets``, uint8 (points, D), for a model of bits.

    ``start`` uint8 (128, D) are points that chains start from.  ``number`` tells the calls of one ``seed`` apart.
    """
    fantasies = _Fantasies(model, start, effort, seed, number)
    meetings: Sequence[_Tied | _Annealed]
    if model.tied:
        meetings = [_Tied(fantasies, sets)]
    else:
        sampler = _Sampler(fantasies, effort, seed)
        meetings = [_Annealed(sampler, x, 2 * number + k) for k, x in enumerate(sets)]
    parts = fantasies.occupancy(np.concatenate([one.bits for one in meetings]), effort.fantasies)
    ends = np.cumsum([len(one.bits) for one in meetings])[:-1]
    found: list[LogLikelihood] = []
    for one, own in zip(meetings, np.split(parts, ends, axis=1), strict=True):
        found += one.results(own)
    return found


class _Fantasies:
    """Long chains of a model."""

    def __init__(self, model: Model, start: Array, effort: Effort, seed: int, number: int) -> None:
        self.model, self.visible, self.step = model, np.ascontiguousarray(start, np.uint8).copy(), 0
        self.key, self.stream = streams.cycles(seed, "likelihood").part(number, CHAINS).take(CHAINS)
        self.stride = _STRIDE[model.tied]
        self.advance(effort.burn * _PATIENCE[model.tied])

    def advance(self, steps: int) -> Array:
        """So many double steps of every chain; returns their last states."""
        model, path = self.model, np.empty((CHAINS, steps), np.uint64)
        run_chains(model.row, model.options, model.mean, self.visible, self.step, self.key, self.stream, path)
        self.step += steps
        return path[:, -1]

    def occupancy(self, bits: Array, count: int) -> Array:
        """log of the mean of p(z | x') over the fantasies of each group of chains, float64 (groups, states).

        ``bits`` uint8 (states, L).  That mean is a mixture of Bernoulli products too, of one component a fantasy.
        """
        rounds, each = -(-count // CHAINS), CHAINS // GROUPS
        parts, hidden = np.full((GROUPS, len(bits)), -np.inf), bits.shape[1]
        log_p, nothing = np.empty(len(bits)), (np.empty((0, 1, hidden)), np.empty((0, 1)))
        for first in range(0, rounds, _AT_ONCE // each):
            now = min(_AT_ONCE // each, rounds - first)
            fields = np.empty((now, CHAINS, hidden), np.float32)
            for k in range(now):
                self.advance(self.stride)
                fields[k] = self.model.hidden_fields(self.visible)
            constants = -np.logaddexp(0.0, fields.astype(float)).sum(axis=2) - np.log(each * rounds)
            for group in range(GROUPS):
                own = np.ascontiguousarray(fields[:, group::GROUPS]).reshape(-1, hidden)
                expectation(bits, own, constants[:, group::GROUPS].ravel(), *nothing, log_p)
                parts[group] = np.logaddexp(parts[group], log_p)
        return parts


class _Sampler:
    """What hidden bits of a given x are drawn with: a guide q(z | x), and a mixture in the place of pbar."""

    def __init__(self, fantasies: _Fantasies, effort: Effort, seed: int) -> None:
        self.model, self.effort, self.seed = fantasies.model, effort, seed
        images, states = [], []
        for _ in range(effort.fitted):
            states.append(fantasies.advance(fantasies.stride))
            images.append(fantasies.visible.copy())
        bits = bits_of(np.concatenate(states), self.model.hidden)
        self.mixture: Mixture = climb(bits, random_start(bits, _COMPONENTS, seed, _PRIOR), 50, 1e-3).mixture
        self.centre, self.weights = regression(np.concatenate(images), bits)

    def draw(self, x: Array, chains: int, sweeps: int, stream: tuple[Any, Any]) -> tuple[Array, Array]:
        """Hidden states of every point, uint64 (points, chains), and the logarithms of their weights.

        Their mean is p(x), with the mixture in the place of pbar.
        """
        w, a = self.model.w.astype(float), self.model.a.astype(float)
        overlap = np.concatenate([part @ w.T for part in _pieces(x)])
        guide = np.concatenate([_with_one(part, self.centre) @ self.weights for part in _pieces(x)])
        logits, constants = self.mixture.terms(np.float64)
        prior = Prior(np.ascontiguousarray(logits.T), constants)
        log_weights, states = np.empty((len(x), chains)), np.empty((len(x), chains), np.uint64)
        betas = np.arange(1, sweeps + 1) / sweeps
        anneal_states(self.model.w, self.model.a, overlap, guide, prior, betas, *stream, log_weights, states)
        log_weights += np.concatenate([part @ a for part in _pieces(x)])[:, None]
        return states, log_weights


class _Annealed:
    """The points of a data set, each with hidden bits that its likelihood comes from."""

    def __init__(self, sampler: _Sampler, x: Array, number: int) -> None:
        effort = sampler.effort
        self.every = -(-len(x) // effort.points)
        points = np.ascontiguousarray(x[:: self.every])
        part = streams.cycles(sampler.seed, "annealing").part(number, _MOST)
        stream = part.take(len(points) * effort.chains)
        states, self.log_weights = sampler.draw(points, effort.chains, effort.sweeps, stream)
        self.bits = bits_of(states.ravel(), sampler.model.hidden)
        self.log_weights -= sampler.mixture.log_p(self.bits).reshape(states.shape)
        self.glimpse = self.log_weights[:0]
        if self.every > 1 and effort.whole:
            part = streams.cycles(sampler.seed, "glimpse").part(number, _MOST_SEEN)
            _, self.glimpse = sampler.draw(x, 1, _GLIMPSE, part.take(len(x)))

    def results(self, parts: Array) -> list[LogLikelihood]:
        """From log pbar of the bits in the groups of fantasies, (groups, states)."""
        points, chains = self.log_weights.shape
        groups = parts.reshape(len(parts), points, chains)

        def log_p(chosen: Array, which: slice | Array = slice(None)) -> Array:
            """log p(x) of the points from some groups of fantasies and some chains."""
            occupancy = np.logaddexp.reduce(groups[chosen][:, :, which], axis=0) - np.log(len(chosen))
            terms = self.log_weights[:, which] + occupancy
            found: Array = np.logaddexp.reduce(terms, axis=1) - np.log(terms.shape[1])
            return found

        every = np.arange(len(parts))
        whole = log_p(every)
        halves = [log_p(every[k::2], slice(k, None, 2)) for k in range(2)]
        left = np.array([log_p(np.delete(every, g)).mean() for g in every])
        without = np.stack([log_p(every, np.delete(np.arange(chains), k)) for k in range(chains)])
        mean, variance = self._over_points(whole, left_out_error(without) ** 2)
        shares = np.exp(np.stack([log_p(every[g : g + 1]) for g in every]) - whole)
        return [
            LogLikelihood(
                mean, float(np.sqrt(variance + left_out_error(left) ** 2)),
                float((whole - np.mean(halves, axis=0)).mean()),
                float(np.median(len(parts) / np.maximum(shares.var(axis=0, ddof=1), _SMALL))),
            )
        ]  # fmt: skip

    def _over_points(self, log_p: Array, within: Array) -> tuple[float, float]:
        """The mean over all of the data, from that of some, and its squared error; ``within`` is that of each.

        Of all points a glimpse is known: it is corrected by a straight line through those that are known better.
        """
        if not len(self.glimpse):
            return float(log_p.mean()), float(within.mean() / len(log_p))
        seen = self.glimpse[:: self.every, 0]
        slope = np.cov(log_p, seen)[0, 1] / max(seen.var(ddof=1), _SMALL)
        rest, share = log_p - slope * seen, len(log_p) / len(self.glimpse)
        missed = (rest.var(ddof=1) * (1.0 - share) + within.mean() * share) / len(rest)
        return float(rest.mean() + slope * self.glimpse.mean()), float(missed)


class _Tied:
    """Data of a tied model: pbar, and so p, is known but for a factor that fantasies give.

    pbar(z) = exp(log_z(z)) / Z and p(x) = exp(log_x(x)) / Z; the mean of pbar(z) / exp(log_z(z)) over states z of the
    model is 1 / Z whatever z is.  States meet fantasies of other groups only.
    """

    def __init__(self, fantasies: _Fantasies, sets: Sequence[Array]) -> None:
        model = fantasies.model
        w, a = model.w.astype(float), model.a.astype(float)
        shift = model.abar.astype(float) - w @ model.mean.astype(float)
        states = np.concatenate([fantasies.advance(4 * fantasies.stride) for _ in range(_TIED_STATES)])
        self.group = np.arange(len(states)) % GROUPS
        self.bits = bits_of(states, model.hidden)
        self.log_z = self.bits @ shift + np.logaddexp(0.0, self.bits @ w + a).sum(axis=1)
        self.known = [
            float(np.concatenate([part @ a + np.logaddexp(0.0, part @ w.T + shift).sum(axis=1) for part in _pieces(x)])
                  .mean())
            for x in sets
        ]  # fmt: skip

    def results(self, parts: Array) -> list[LogLikelihood]:
        """From log pbar of the bits in the groups of fantasies, (groups, states)."""
        ratios = parts - self.log_z
        table = np.stack(
            [np.logaddexp.reduce(ratios[:, self.group == g], axis=1) - np.log((self.group == g).sum())
             for g in range(len(parts))], axis=1,
        )  # fmt: skip

        def log_factor(chosen: Array) -> float:
            """-log Z from pairs of different ones of these groups."""
            some = table[np.ix_(chosen, chosen)][~np.eye(len(chosen), dtype=bool)]
            return float(np.logaddexp.reduce(some) - np.log(len(some)))

        every = np.arange(len(parts))
        whole = log_factor(every)
        gain = whole - np.mean([log_factor(every[k::2]) for k in range(2)])
        stderr = float(left_out_error(np.array([log_factor(np.delete(every, g)) for g in every])))
        fantasies = 1.0 / max(stderr**2, _SMALL)
        return [LogLikelihood(one + whole, stderr, float(gain), fantasies) for one in self.known]


def _pieces(x: Array) -> Iterator[Array]:
    """Points as numbers, a few thousand at a time."""
    for first in range(0, len(x), 4096):
        yield x[first : first + 4096].astype(float)


def _with_one(x: Array, centre: Array) -> Array:
    return np.concatenate([x - centre, np.ones((len(x), 1), centre.dtype)], axis=1)


def regression(x: Array, bits: Array) -> tuple[Array, Array]:
    """Logistic regression of every bit on x less its mean and a constant: that mean (D,), and weights (D + 1, L).

    The Hessian of a logistic likelihood is nowhere larger than a quarter of the Gram matrix: steps with that in its
    place, the same for all bits, never lose (Boehning, Ann. Inst. Stat. Math. 44, 197, 1992).
    """
    centre = x.mean(axis=0).astype(np.float32)
    design = _with_one(x.astype(np.float32), centre)
    bound = linalg.cho_factor(design.T @ design / 4 + _RIDGE * np.eye(design.shape[1], dtype=np.float32))
    weights = np.zeros((design.shape[1], bits.shape[1]), np.float32)
    for _ in range(_ASCENT):
        expected = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -60, 60)))
        weights += linalg.cho_solve(bound, design.T @ (bits - expected) - _RIDGE * weights).astype(np.float32)
    return centre, weights.astype(float)
