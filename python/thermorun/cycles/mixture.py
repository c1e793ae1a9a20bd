"""Mixtures of Bernoulli products, and expectation-maximisation for them: what one-hot states can attain.

The stationary law of a latent cycle with L one-hot states is such a mixture (Baiesi & Rosso, Eq. 5), and every mixture
is that of a reversible softmax model: its posterior p(z | x) is a softmax of h = w x + a constant.  So the likelihood
of the best mixture is that of the best model; EM climbs to a local maximum of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermokernels.blocks import TASKS
from thermokernels.mixture import expectation
from thermorun import streams
from thermorun.arrays import Array

# A state that fewer points than this belong to, all responsibilities added, is empty.
_EMPTY = 1e-3
# A weight of nothing, as a logarithm.
_NOTHING = -1e30


@dataclass(frozen=True)
class Mixture:
    """``weights`` float64 (L,), adding up to one; ``means`` float64 (L, D), the probability of each bit being one."""

    weights: Array
    means: Array

    def log_p(self, x: Array, dtype: Any = np.float64) -> Array:
        """log p(x) of every point, ``x`` uint8 (points, D), float64 (points,)."""
        out = np.empty(len(x))
        nothing = np.empty((0, *self.means.shape)), np.empty((0, len(self.weights)))
        expectation(np.ascontiguousarray(x), *self.terms(dtype), *nothing, out)
        return out

    def bound_cost(self, points: int) -> float:
        """What the bounds of ``bounded`` cost the likelihood, at most: -log(1 - 1/2N) for every bit that lies there."""
        edge = 0.5 / points
        there = (self.means <= edge * (1 + 1e-9)) | (self.means >= 1.0 - edge * (1 + 1e-9))
        return float(-np.log1p(-edge) * (self.weights @ there.sum(axis=1)))

    def log_forward(self, x: Array) -> Array:
        """log p(x | z) of every state, float64 (L, points)."""
        logits = np.log(self.means) - np.log1p(-self.means)
        found: Array = logits @ x.T.astype(float) + np.log1p(-self.means).sum(axis=1)[:, None]
        return found

    def terms(self, dtype: Any) -> tuple[Array, Array]:
        """The logits (L, D), of that dtype, and the constants (L,) that kernels take."""
        with np.errstate(divide="ignore"):
            log_weights = np.maximum(np.log(self.weights), _NOTHING)
        logits = np.log(self.means) - np.log1p(-self.means)
        return np.ascontiguousarray(logits, dtype), log_weights + np.log1p(-self.means).sum(axis=1)


@dataclass(frozen=True)
class Climb:
    """One ascent: where it ended, mean log p(x) before every step, and how many empty states were filled again."""

    mixture: Mixture
    trace: Array
    refilled: int

    @property
    def log_likelihood(self) -> float:
        """Mean log p(x) of the points at the end."""
        return float(self.trace[-1])


def bounded(means: Array, points: int) -> Array:
    """Probabilities kept half a bit of ``points`` away from 0 and 1, as those of the paper's first parameters (A.1).

    Without a bound a pixel that is off in all points of a state makes a new point with it impossible.
    """
    edge = 0.5 / points
    inside: Array = np.clip(means, edge, 1.0 - edge)
    return inside


def random_start(x: Array, states: int, seed: int, number: int) -> Mixture:
    """Equal weights, and half-way between ignorance and a random point for each state: all points different."""
    random = np.random.default_rng(np.random.SeedSequence([seed, streams.cycles(seed, "ceiling").first, number]))
    points = x[random.choice(len(x), states, replace=False)]
    return Mixture(np.full(states, 1.0 / states), bounded(0.25 + 0.5 * points, len(x)))


def climb(
    x: Array, start: Mixture, most: int, tolerance: float, dtype: Any = np.float32,
    pause: Callable[[], None] = lambda: None,
) -> Climb:  # fmt: skip
    """EM from ``start``, until a step gains less than ``tolerance`` nat a point, or ``most`` steps.

    ``x`` uint8 (points, D).  Probabilities stay within the bounds of ``bounded``: the maximum within them is the
    unbounded one moved to the nearest bound, for a Bernoulli likelihood is concave, so that no step loses likelihood.
    An empty state begins again from the point that is explained worst.  ``pause`` is called after every step.
    """
    points, (states, size) = len(x), start.means.shape
    sums, weights, log_p = np.empty((TASKS, states, size)), np.empty((TASKS, states)), np.empty(points)
    mixture, trace, refilled = start, [], 0
    for _ in range(most + 1):
        expectation(x, *mixture.terms(dtype), sums, weights, log_p)
        trace.append(float(log_p.mean()))
        if len(trace) > most or (len(trace) > 1 and 0 <= trace[-1] - trace[-2] < tolerance):
            break
        count = weights.sum(axis=0)
        means = bounded(sums.sum(axis=0) / np.maximum(count, _EMPTY)[:, None], points)
        empty = np.flatnonzero(count < _EMPTY)
        if len(empty):
            worst = np.argsort(log_p, kind="stable")[: len(empty)]
            means[empty], count[empty] = bounded(0.25 + 0.5 * x[worst], points), 1.0
            refilled += len(empty)
        mixture = Mixture(count / count.sum(), means)
        pause()
    return Climb(mixture, np.array(trace), refilled)
