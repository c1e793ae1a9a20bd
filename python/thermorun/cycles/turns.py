"""Does circulation help?  One-hot models with one stationary law and entropy production from none to the largest.

Given p(x | z) and pbar, of a trained model or of EM, the hidden states are drawn as

    p(z' | x) = sum_y r(y | x) C_yz',    r the posterior of the mixture,    pbar C = pbar.

r alone is the reversible choice.  Any such C keeps pbar and so every likelihood, and the hidden chain is M = R C with
R_zy = sum_x p(x | z) r(y | x), which is in detailed balance.  Here C turns a circle, on which every state has an arc as
long as its probability, by an angle: what of arc z comes to lie on arc z' goes there.  A turn keeps lengths, so pbar.
Beside it stand what needs no circulation: a turn to either side by the flip of a coin, and no memory at all (C_yz' =
pbar_z', the model with wbar = 0).

Apart from permutations of equally likely states, and from no memory, p(z' | x) is no softmax of linear fields: the
family says what circulation does to chains of this kind, and has more freedom than the paper's parameters.
"""

from collections.abc import Callable

import numpy as np
from scipy import optimize

from thermokernels.chains import average_transitions
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cycles import markov
from thermorun.cycles.mixture import Mixture
from thermorun.cycles.model import Model, parameter_count
from thermorun.errors import InputError

# Kinds of C.
CIRCULATING, TO_AND_FRO, MEMORYLESS = "circulating", "to and fro", "no memory"
# Angles among which the one of most entropy production is looked for.
_ANGLES = 200
# An eigenvalue that lies within this of 1 is one.
_RECURRENT = 1e-13


def reversible(mixture: Mixture) -> Model:
    """The softmax model whose p(z | x) is the mixture's posterior, with its p(x | z): in detailed balance."""
    states, size = mixture.means.shape
    logits, constants = mixture.terms(np.float64)
    model = Model("softmax", states, np.zeros(parameter_count(states, size)), np.zeros(size))
    model.w[:], model.wbar[:], model.abar[:] = logits, logits, constants
    return model


def posterior_chain(mixture: Mixture, samples: int, blocks: int, seed: int) -> Array:
    """Estimates of R from separate images, float64 (blocks, L, L), each in exact detailed balance with pbar.

    p(y | x) is averaged over ``samples`` images of each state, in all blocks together; the flow pbar_z R_zy, symmetric
    by Bayes' theorem, is the mean of what was found from either end; what that adds to a row is taken from its
    diagonal.
    """
    model, states = reversible(mixture), len(mixture.weights)
    each = max(1, samples // blocks)
    sums = np.empty((1, states, blocks, states))
    average_transitions(model.row[None], model.options, model.mean, 0, each, np.array([seed], np.uint64), sums)
    flow = mixture.weights[:, None] * np.swapaxes(sums[0], 0, 1) / each
    flow = (flow + np.swapaxes(flow, 1, 2)) / 2
    balanced: Array = flow / np.maximum(mixture.weights, 1e-300)[:, None]
    places = np.arange(states)
    balanced[:, places, places] += 1.0 - balanced.sum(axis=-1)
    return balanced


def order(matrix: Array) -> Array:
    """States round the circle: after each the one that R leads to least, so that a turn is seldom undone."""
    left = list(range(1, len(matrix)))
    round_the_circle = [0]
    while left:
        following = min(left, key=lambda z: matrix[round_the_circle[-1], z])
        round_the_circle.append(following)
        left.remove(following)
    return np.array(round_the_circle)


def turn(weights: Array, round_the_circle: Array, angle: float) -> Array:
    """C of a turn by ``angle``, in full turns: row z says which share of arc z comes to lie on which arc, (L, L)."""
    p = weights[round_the_circle]
    ends = np.cumsum(p)
    starts = ends - p
    shares = np.zeros((len(p), len(p)))
    for whole in (-1.0, 0.0, 1.0):
        low = np.maximum(starts[:, None] + angle, starts[None, :] + whole)
        high = np.minimum(ends[:, None] + angle, ends[None, :] + whole)
        shares += np.where(high - low > _RECURRENT, high - low, 0.0)  # what is less comes from rounding
    c = np.empty_like(shares)
    c[np.ix_(round_the_circle, round_the_circle)] = shares / shares.sum(axis=1, keepdims=True)
    return c


def coupling(kind: str, weights: Array, round_the_circle: Array, angle: float) -> Array:
    """C of one member of the family, (L, L), from row to column."""
    if kind == MEMORYLESS:
        return np.tile(weights, (len(weights), 1))
    forward = turn(weights, round_the_circle, angle)
    return forward if kind == CIRCULATING else (forward + turn(weights, round_the_circle, -angle)) / 2


def angles(matrix: Array, weights: Array, targets: Array | None, members: int) -> tuple[Array, float]:
    """The turns that produce ``targets``, by default ``members`` of them from none to the largest; and the largest.

    Raises InputError for more entropy production than a turn makes.
    """
    circle = order(matrix)

    def sigma(angle: float) -> float:
        m = matrix @ coupling(CIRCULATING, weights, circle, angle)
        return float(markov.entropy_production(m, weights))

    grid = np.linspace(0.0, 0.5, _ANGLES + 1)
    known = np.array([sigma(angle) for angle in grid])
    top = int(np.argmax(known))
    wanted = np.linspace(0.0, known[top], members) if targets is None else targets
    for target in wanted:
        if target > known[top]:
            raise InputError(
                f"production is {target:g}; with this law it must be at most {known[top]:.6g} nat a double step."
            )
    found = []
    for target in wanted:
        above = int(np.argmax(known >= target))  # the first grid point that produces so much
        if above == 0 or target == known[top]:
            found.append(grid[above if target < known[top] else top])
            continue
        found.append(float(optimize.brentq(lambda a, t=target: sigma(a) - t, grid[above - 1], grid[above])))
    return np.array(found), float(known[top])


def effective_samples(matrix: Array, weights: Array, means: Array) -> float:
    """Independent samples that a double step is worth: 1 / (1 + 2 sum_k C(k)); 0 for a chain in several parts.

    C(k) is the autocorrelation of the states' mean images, sum_i Cov(mu_i(t), mu_i(t + k)) / sum_i Var(mu_i), exactly,
    from the fundamental matrix (1 - M + 1 pbar)^-1.  More than 1 where images anticorrelate.
    """
    if not _one_part(matrix):
        return 0.0
    worth = _covariance(weights, means)
    fundamental = np.linalg.inv(np.eye(len(weights)) - matrix + weights)  # sum over k of M^k - 1 pbar, plus 1 pbar
    return float(np.trace(worth) / (2.0 * (worth * fundamental).sum() - np.trace(worth)))


def _one_part(matrix: Array) -> bool:
    """Whether 1 - M + 1 pbar can be inverted: 1 is a simple eigenvalue of M, whatever others have its modulus."""
    values = np.linalg.eigvals(matrix)
    return int((np.abs(values - 1.0) < _RECURRENT).sum()) == 1


def _covariance(weights: Array, means: Array) -> Array:
    """pbar_z times the products of the states' mean images, their common mean taken off, (L, L)."""
    centred = means - weights @ means
    products: Array = (weights[:, None] * centred) @ centred.T
    return products


def autocorrelation(matrix: Array, weights: Array, means: Array, lags: int) -> Array:
    """C(k) for k = 0 to ``lags``, as in `effective_samples`."""
    worth = _covariance(weights, means)
    power, found = np.eye(len(weights)), []
    for _ in range(lags + 1):
        found.append(float((worth * power).sum() / np.trace(worth)))
        power = power @ matrix
    return np.array(found)


def walk(
    matrix: Array, weights: Array, classes: Array, steps: int, most: int, chains: int, stream: tuple[int, int],
    pause: Callable[[], None] = lambda: None,
) -> tuple[Array, Array]:  # fmt: skip
    """Many chains of the hidden states from pbar: what they say of the classes, and when they have seen them all.

    ``classes`` (L,) int, each state's.  Returns, for each chain, KL(the law's class frequencies || those of ``steps``
    double steps, half a visit added to each) and the double steps until all classes that states draw were visited, at
    most ``most``.
    """
    seed, number = stream
    random = np.random.default_rng(np.random.SeedSequence([seed, streams.cycles(seed, "circulation").first, number]))
    kinds, of_state = np.unique(classes, return_inverse=True)
    law = np.bincount(of_state, weights, minlength=len(kinds))
    reach = np.cumsum(matrix, axis=1)
    reach[:, -1] = 2.0
    z = np.minimum(np.searchsorted(np.cumsum(weights), random.random(chains), side="right"), len(weights) - 1)
    visits = np.zeros((chains, len(kinds)))
    covered = np.full(chains, most)
    everyone, divergence = np.arange(chains), np.zeros(chains)
    for t in range(most):
        visits[everyone, of_state[z]] += 1.0
        new = (covered == most) & (visits > 0).all(axis=1)
        covered[new] = t + 1
        if t + 1 == steps:
            share = (visits + 0.5) / (visits + 0.5).sum(axis=1, keepdims=True)
            divergence = markov.divergence(law, share)
        if t + 1 >= steps and (covered < most).all():
            break
        z = (random.random(chains)[:, None] >= reach[z]).sum(axis=1)
        if t % 1000 == 0:
            pause()
    return divergence, covered
