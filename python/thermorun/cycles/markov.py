"""What the hidden states' chain says: M, occupancy, entropy production, currents, decorrelation.

Everything here takes M with probabilities from row to column, any number of them at once in leading dimensions.
"""

import numpy as np

from thermorun.arrays import Array

# What an estimate of zero counts as in a logarithm, where nothing else is said: the smallest normal float64.
_LEAST = np.finfo(float).tiny


def stationary(matrix: Array) -> Array:
    """pbar with pbar M = pbar, (..., S).

    The elimination of Grassmann, Taksar & Heyman (1985) never subtracts, so transitions of 1e-100 keep their digits.  A
    state that cannot be left into the others keeps all the weight.
    """
    a = np.array(matrix, float)
    states = a.shape[-1]
    for n in range(states - 1, 0, -1):
        leaving = a[..., n, :n].sum(axis=-1)
        leaving = np.maximum(leaving, _LEAST)
        a[..., :n, n] /= leaving[..., None]
        a[..., :n, :n] += a[..., :n, n, None] * a[..., None, n, :n]
    p = np.zeros(a.shape[:-1])
    p[..., 0] = 1.0
    for n in range(1, states):
        p[..., n] = (p[..., :n] * a[..., :n, n]).sum(axis=-1)
        p /= p.sum(axis=-1, keepdims=True)
    return p


def currents(matrix: Array, occupancy: Array) -> Array:
    """Net probability a double step from row to column, pbar_z M_zz' - pbar_z' M_z'z, antisymmetric (..., S, S)."""
    flow = occupancy[..., :, None] * matrix
    net: Array = flow - np.swapaxes(flow, -1, -2)
    return net


def entropy_production(matrix: Array, occupancy: Array, least: float = _LEAST, skip: bool = False) -> Array:
    """sigma in kT-free units (nats) per double step, Eq. 21, (...,).

    A flow below ``least`` counts as ``least``; with ``skip`` pairs with such a flow in either direction are left out.
    """
    flow = occupancy[..., :, None] * matrix
    back = np.swapaxes(flow, -1, -2)
    terms = (flow - back) * (np.log(np.maximum(flow, least)) - np.log(np.maximum(back, least)))
    if skip:
        terms = np.where((flow > least) & (back > least), terms, 0.0)
    total: Array = 0.5 * terms.sum(axis=(-2, -1))
    return total


def moduli(matrix: Array) -> Array:
    """Moduli of the eigenvalues of M, descending, (..., S); NaN where M is not finite."""
    finite = np.asarray(np.isfinite(matrix).all(axis=(-2, -1)))
    values = np.linalg.eigvals(np.where(finite[..., None, None], matrix, 0.0))
    descending: Array = np.where(finite[..., None], -np.sort(-np.abs(values), axis=-1), np.nan)
    return descending


def second_eigenvalue(matrix: Array) -> Array:
    """|lambda_2|, the second-largest modulus among the eigenvalues of M, (...,)."""
    values = moduli(matrix)
    if values.shape[-1] < 2:
        return np.zeros(values.shape[:-1])
    second: Array = values[..., 1]
    return second


def decorrelation_time(matrix: Array) -> Array:
    """tau = -1 / ln |lambda_2| in double steps, Eq. 23; infinite where |lambda_2| is one."""
    with np.errstate(divide="ignore"):
        tau: Array = -1.0 / np.minimum(np.log(second_eigenvalue(matrix)), -0.0)
    return tau


def mean_diagonal(matrix: Array) -> Array:
    """Tr(M) / L, Eq. 24."""
    diagonal: Array = np.trace(matrix, axis1=-2, axis2=-1) / matrix.shape[-1]
    return diagonal


def divergence(data: Array, model: Array) -> Array:
    """KL(data || model) of class frequencies, Eq. 22, over the last axis; infinite where the model lacks a class."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(data > 0, data * (np.log(data) - np.log(model)), 0.0)
    # Never negative, but for rounding.
    return np.asarray(np.maximum(terms.sum(axis=-1), 0.0))


def from_counts(counts: Array, pseudocount: float = 0.0) -> tuple[Array, Array]:
    """M and occupancy from counted transitions, (..., S, S) from row to column.

    ``pseudocount`` is added to every count.  A state never visited stays where it is with probability one.
    """
    counts = counts + pseudocount
    visits = counts.sum(axis=-1)
    matrix = counts / np.maximum(visits, _LEAST)[..., None]
    matrix = np.where((visits > 0)[..., None], matrix, np.eye(counts.shape[-1]))
    return matrix, visits / visits.sum(axis=-1, keepdims=True)


def counted_entropy_production(counts: Array, rule: str) -> Array:
    """sigma of Eq. 21 from counted transitions, (...,).

    What a pair counts that was seen in one direction only is a choice: ``"skip"`` leaves it out, ``"half"`` adds half a
    count to every transition, ``"one"`` counts a transition never seen as seen once.
    """
    if rule == "half":
        return entropy_production(*from_counts(counts, 0.5))
    matrix, occupancy = from_counts(counts)
    if rule == "skip":
        return entropy_production(matrix, occupancy, skip=True)
    if rule != "one":
        raise ValueError(f"rule is {rule!r}; it must be skip, half or one.")
    total = counts.sum(axis=(-2, -1), keepdims=True)
    flow = np.maximum(counts, 1) / total
    back = np.swapaxes(flow, -1, -2)
    terms: Array = ((counts / total - np.swapaxes(counts / total, -1, -2)) * np.log(flow / back)).sum(axis=(-2, -1))
    return 0.5 * terms
