"""Hidden bits of a belief network given its visible ones, by annealed importance sampling.

With a prior r(z) that is a mixture of Bernoulli products, and p(x | z) that of a latent cycle (Baiesi & Rosso, Eq. 10),
chains go from a guide q(z | x), every bit for itself, to the posterior, through

    f_beta(z) = q(z | x)^(1 - beta) [r(z) p(x | z)]^beta,

one sweep over all bits at every beta.  The mean of their weights is sum_z r(z) p(x | z), without bias (Neal,
Stat. Comput. 11, 125, 2001).
"""

import math
from collections import namedtuple

import numpy as np
from numba import prange

from thermokernels._jit import kernel, serial_kernel, wide_vectors
from thermokernels.blocks import TASKS, share
from thermokernels.elementary import exp, softplus_sum
from thermokernels.latent_cycle import ONE, draw_words, lanes_for, visible_fields
from thermokernels.products import aligned, copy, copy_rows

Prior = namedtuple("Prior", "logits constants")
"""r(z): ``logits`` float64 (L, components), of each bit in each component; ``constants`` float64 (components,), log
weight plus the sum of log(1 - p) over bits."""

_Room = namedtuple("_Room", "field other logs others on words")
"""Of one chain: the visible field of z and that of its neighbour, the same of the logarithms of r's components; scratch
of ``visible_fields``; random words."""


@serial_kernel
def _shifted(row, step, factor, out):
    """out = row + factor step."""
    wide_vectors()
    factor = out.dtype.type(factor)
    for i in range(out.size):
        out[i] = row[i] + factor * step[i]


@serial_kernel
def _log_total(logs):
    """log sum exp."""
    wide_vectors()
    top = logs[0]
    for c in range(logs.size):
        top = max(top, logs[c])
    total = 0.0
    for c in range(logs.size):
        total += exp(logs[c] - top)
    return top + math.log(total)


@serial_kernel
def _log_guide(guide, z):
    """log q(z) of bits each for itself, whose logits are ``guide``."""
    total = 0.0
    for b in range(guide.size):
        on = (z >> np.uint64(b)) & ONE
        f = guide[b] if on else -guide[b]
        total += min(f, 0.0) - math.log1p(math.exp(-abs(f)))
    return total


@serial_kernel
def _begin(w, a, prior, z, room):
    """The visible field of z and the terms of r(z), afresh: no rounding adds up over sweeps."""
    visible_fields(w, a, z, room.on, room.field)
    copy(room.logs, prior.constants)
    for b in range(w.shape[0]):
        if (z >> np.uint64(b)) & ONE:
            _shifted(room.logs, prior.logits[b], 1.0, room.logs)


@serial_kernel
def _sweep(w, overlap, guide, prior, beta, z, room):
    """Every bit once, from its law under f_beta given all others; returns the new z."""
    word = room.words.view(np.uint32)
    constant, log_r = softplus_sum(room.field), _log_total(room.logs)
    for b in range(w.shape[0]):
        sign = -1.0 if (z >> np.uint64(b)) & ONE else 1.0
        _shifted(room.field, w[b], sign, room.other)
        _shifted(room.logs, prior.logits[b], sign, room.others)
        other_constant, other_log_r = softplus_sum(room.other), _log_total(room.others)
        gain = other_log_r - log_r + sign * overlap[b] - (other_constant - constant)
        gain = (1.0 - beta) * sign * guide[b] + beta * gain
        if (np.float64(word[b]) + 0.5) * 2.0**-32 * (1.0 + math.exp(-gain)) < 1.0:
            z ^= ONE << np.uint64(b)
            copy(room.field, room.other)
            copy(room.logs, room.others)
            constant, log_r = other_constant, other_log_r
    return z


@kernel
def anneal_states(w, a, overlap, guide, prior, betas, seed, stream, log_weights, states):
    """Chains of hidden bits from q(z | x) to where r(z) p(x | z) is, and the logarithms of their weights.

    ``w``            float32 or float64 (L, D), ``a`` (D,): the visible fields are w z + a.
    ``overlap``      float64 (points, L), x . w_b of every point; ``guide`` float64 (points, L), the logits of q.
    ``prior``        ``Prior``.
    ``betas``        float64 (sweeps + 1,), rising, the last one 1: after the first weight a sweep at each but the last.
    ``stream``       uint64; chain k of point n draws from stream + n chains + k.
    ``log_weights``  float64 (points, chains), written: each exp(.) is sum_z r(z) p(x | z) exp(-a . x) on average.
    ``states``       uint64 (points, chains), written: where the chains end.
    """
    points, chains = states.shape
    hidden, size = w.shape
    rows = aligned(hidden, size, w)
    copy_rows(rows, w)
    for task in prange(TASKS):
        room = _Room(
            aligned(1, size, w)[0], aligned(1, size, w)[0], np.empty(prior.constants.size),
            np.empty(prior.constants.size), np.empty(hidden, np.intp), np.empty(2 * lanes_for(hidden), np.uint64),
        )  # fmt: skip
        word = room.words.view(np.uint32)
        for unit in share(task, points * chains):
            n, own = unit // chains, stream + np.uint64(unit)
            draw_words(room.words, seed, own, 0)
            z = np.uint64(0)
            for b in range(hidden):
                if (np.float64(word[b]) + 0.5) * 2.0**-32 * (1.0 + math.exp(-guide[n, b])) < 1.0:
                    z |= ONE << np.uint64(b)
            total, before = 0.0, 0.0
            for t in range(betas.size):
                _begin(rows, a, prior, z, room)
                ratio = _log_total(room.logs) - softplus_sum(room.field) - _log_guide(guide[n], z)
                for b in range(hidden):
                    if (z >> np.uint64(b)) & ONE:
                        ratio += overlap[n, b]
                total += (betas[t] - before) * ratio
                before = betas[t]
                if t + 1 < betas.size:
                    draw_words(room.words, seed, own, t + 1)
                    z = _sweep(rows, overlap[n], guide[n], prior, betas[t], z, room)
            log_weights[n, unit % chains], states[n, unit % chains] = total, z
