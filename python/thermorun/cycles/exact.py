"""Everything about a small model by enumeration of all 2^D visible and all hidden states, in float64.

The truth that samplers and gradients are compared with.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermorun.arrays import Array
from thermorun.cycles.markov import stationary
from thermorun.cycles.model import Model, parameter_count
from thermorun.errors import InputError

MAX_VISIBLE = 16


def all_visible(visible: int) -> NDArray[np.uint8]:
    """All 2^D points, uint8 (2^D, D); bit i of a point's number is x_i.  Raises InputError for more than 16 bits."""
    if visible > MAX_VISIBLE:
        raise InputError(
            f"enumeration of {visible} bits is refused: its limit is {MAX_VISIBLE}; use the sampled estimates."
        )
    numbers = np.arange(2**visible)
    return ((numbers[:, None] >> np.arange(visible)) & 1).astype(np.uint8)


def log_forward(model: Model, x: Array) -> Array:
    """log A_zx, float64 (states, points), Eq. 10."""
    fields = model.visible_fields(model.states())
    log_a: Array = fields @ x.T.astype(float) - np.logaddexp(0.0, fields).sum(axis=1)[:, None]
    return log_a


def log_backward(model: Model, x: Array) -> Array:
    """log Abar_xz, float64 (points, states), Eqs. 11 and 19 and the softmax of App. A.2."""
    h = model.hidden_fields(x)
    if model.first:
        log_y, log_z = _log_layers(model, h)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.exp(log_y) @ np.exp(log_z)))
    if model.encoding == "bits":
        return _log_bits(h)
    return _log_one_hot(model.encoding, h)


def _log_bits(h: Array) -> Array:
    """log of the probability of all 2^n patterns of bits of these fields, (points, 2^n)."""
    log_p: Array = h @ _patterns(h.shape[1]).T - np.logaddexp(0.0, h).sum(axis=1)[:, None]
    return log_p


def _patterns(bits: int) -> Array:
    """All patterns of so many bits, (2^n, n)."""
    return all_visible(bits).astype(float)


def _log_layers(model: Model, h: Array) -> tuple[Array, Array]:
    """log p(y | x) (points, 2^B) and log p(z | y) (2^B, states) of a first layer with fields ``h``."""
    return _log_bits(h), _log_one_hot(model.encoding, model.upper_fields(_patterns(model.first)))


def _log_one_hot(encoding: str, h: Array) -> Array:
    """log of the probability of each state."""
    log_s = h if encoding == "softmax" else -np.logaddexp(0.0, -h)
    normal: Array = np.logaddexp.reduce(log_s, axis=1)
    return np.asarray(log_s - normal[:, None])


@dataclass(frozen=True)
class Law:
    """The chain of a model.

    ``forward`` A (S, 2^D), ``backward`` Abar (2^D, S), ``matrix`` M (S, S) from row to column, and the stationary
    ``hidden`` pbar (S,) and ``visible`` p (2^D,) of Eqs. 5 and 6.
    """

    forward: Array
    backward: Array
    matrix: Array
    hidden: Array
    visible: Array


def law(model: Model) -> Law:
    """Enumerates.  Raises InputError for more than 16 visible bits or 1,024 hidden states."""
    x = all_visible(model.visible)
    forward, backward = np.exp(log_forward(model, x)), np.exp(log_backward(model, x))
    matrix = forward @ backward
    hidden = stationary(matrix)
    return Law(forward, backward, matrix, hidden, hidden @ forward)


def log_likelihood(model: Model, data: Array) -> float:
    """Mean of log p(x) over the data, p stationary (Eq. 7)."""
    hidden = law(model).hidden
    with np.errstate(divide="ignore"):
        return float(np.logaddexp.reduce(np.log(hidden)[:, None] + log_forward(model, data), axis=0).mean())


def two_step_objective(model: Model, data: Array, before: Array) -> float:
    """Mean over data of log sum_z sum_x' A_zx Abar_x'z p(x'), with p = ``before`` held fixed (Eq. 12)."""
    occupancy = before @ np.exp(log_backward(model, all_visible(model.visible)))
    return float(np.logaddexp.reduce(np.log(occupancy)[:, None] + log_forward(model, data), axis=0).mean())


def two_step_gradient(model: Model, data: Array) -> Array:
    """Gradient of ``two_step_objective`` where p is the model's own: Eqs. 16 and 17 with exact averages.

    float64 (parameters,), with the component of the visible bias filled in for every encoding.
    """
    return _gradient(model, data, law(model), None)


def likelihood_gradient(model: Model, data: Array) -> Array:
    """Gradient of ``log_likelihood``, in which a parameter moves the stationary state too.

    With P = Abar A, dp = (p dP) (1 - P)^-1 on vectors that sum to zero: the two-step gradient keeps only p dP.
    """
    known = law(model)
    # dL = sum_z g_z dpbar_z for a shift of pbar, and dpbar = (pbar dM) (1 - M)^-1.
    log_a = log_forward(model, data)
    weights = np.exp(log_a - np.logaddexp.reduce(np.log(known.hidden)[:, None] + log_a, axis=0)).mean(axis=1)
    states = len(known.hidden)
    group = np.linalg.inv(np.eye(states) - known.matrix + known.hidden[None, :])
    return _gradient(model, data, known, group @ weights)


def _gradient(model: Model, data: Array, known: Law, response: Array | None) -> Array:
    x = all_visible(model.visible).astype(float)
    states, hidden = model.states(), model.hidden
    log_joint = np.log(known.hidden)[:, None] + log_forward(model, data)
    shares = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=0)) / len(data)
    mu = model.expected(states)
    by_state = shares @ data.astype(float) - shares.sum(axis=1)[:, None] * mu
    worth = shares.sum(axis=1) / known.hidden  # d objective / d pbar_z
    if response is not None:
        # A parameter of A moves pbar through M = A Abar: sum_z pbar_z dA_zx value(x).
        worth = response
        value = known.backward @ response
        moved = known.hidden[:, None] * known.forward * value[None, :]
        by_state = by_state + moved @ x - moved.sum(axis=1)[:, None] * mu
    gradient = np.empty(parameter_count(hidden, model.visible, model.first))
    out = Model(model.encoding, hidden, gradient, model.mean.astype(float), model.tied, model.first)
    h = model.hidden_fields(x)
    if model.first:
        log_y, log_z = _log_layers(model, h)
        by_bits = known.visible[:, None] * np.exp(log_y)  # p(x, y)
        y, joint = _patterns(model.first), by_bits.sum(axis=0)[:, None] * np.exp(log_z) * worth[None, :]
        slopes = _slopes(model.encoding, model.upper_fields(y), joint)
        out.v[:], out.c[:] = slopes.T @ (y - 0.5), slopes.sum(axis=0)
        slopes = _slopes("bits", h, by_bits * (np.exp(log_z) @ worth)[None, :])
    else:
        slopes = _slopes(model.encoding, h, known.visible[:, None] * known.backward * worth[None, :])
    on = _patterns(hidden) if model.encoding == "bits" else np.eye(hidden)
    out.w[:] = on.T @ by_state
    out.a[:] = by_state.sum(axis=0)
    out.wbar[:] = slopes.T @ (x - model.mean)
    out.abar[:] = slopes.sum(axis=0)
    return gradient


def _slopes(encoding: str, h: Array, joint: Array) -> Array:
    """Sum over states z of ``joint`` (inputs, states) times d log p(z | h) / dh, (inputs, units)."""
    total = joint.sum(axis=1)[:, None]
    s = 1.0 / (1.0 + np.exp(-h))
    if encoding == "bits":
        return np.asarray(joint @ _patterns(h.shape[1]) - total * s)
    slopes = joint - total * np.exp(_log_one_hot(encoding, h))
    return np.asarray(slopes * (1.0 - s) if encoding == "sigmoid" else slopes)
