"""Plain loops for the latent cycles; imports nothing of ours."""

import math

import numpy as np


def sigmoid(f):
    return 1.0 / (1.0 + math.exp(-f)) if f >= 0 else math.exp(f) / (1.0 + math.exp(f))


def parts(row, hidden, visible):
    n = hidden * visible
    return (
        row[:n].reshape(hidden, visible),
        row[n : 2 * n].reshape(hidden, visible),
        row[2 * n : 2 * n + visible],
        row[2 * n + visible :],
    )


def bits_of(state, hidden, encoding):
    """z as a vector of zeros and ones."""
    if encoding == "bits":
        return [(int(state) >> b) & 1 for b in range(hidden)]
    return [int(b == int(state)) for b in range(hidden)]


def log_forward(row, hidden, encoding, z, x):
    w, _, a, _ = parts(row, hidden, len(x))
    on = bits_of(z, hidden, encoding)
    total = 0.0
    for i in range(len(x)):
        f = a[i] + sum(on[b] * w[b, i] for b in range(hidden))
        total += math.log(sigmoid(f) if x[i] else sigmoid(-f))
    return total


def hidden_fields(row, hidden, mean, x):
    _, wbar, _, abar = parts(row, hidden, len(x))
    return [abar[b] + sum(wbar[b, i] * (x[i] - mean[i]) for i in range(len(x))) for b in range(hidden)]


def hidden_probability(row, hidden, encoding, mean, x, z):
    h = hidden_fields(row, hidden, mean, x)
    if encoding == "bits":
        p = 1.0
        for b, on in enumerate(bits_of(z, hidden, encoding)):
            p *= sigmoid(h[b]) if on else sigmoid(-h[b])
        return p
    weight = [math.exp(v) for v in h] if encoding == "softmax" else [sigmoid(v) for v in h]
    return weight[int(z)] / sum(weight)


def log_derivative(row, hidden, encoding, mean, x, z):
    """d log p(z | x) / d h_b, by central differences of the hidden biases: no formula to share a mistake with."""
    slopes = []
    for b in range(hidden):
        values = []
        for sign in (1, -1):
            moved = row.copy()
            moved[len(row) - hidden + b] += sign * 1e-5
            values.append(math.log(hidden_probability(moved, hidden, encoding, mean, x, z)))
        slopes.append((values[0] - values[1]) / 2e-5)
    return slopes


def two_step_gradient(row, hidden, encoding, mean, fantasies, states, batch):
    """Eqs. 16 and 17, one sum after the other; returns the gradient and the mean log-likelihood."""
    visible, steps = len(mean), len(states)
    gradient = np.zeros_like(row)
    g_w, g_wbar, g_a, g_abar = parts(gradient, hidden, visible)
    w, _, a, _ = parts(row, hidden, visible)
    likelihood = 0.0
    for x in batch:
        forward = [math.exp(log_forward(row, hidden, encoding, z, x)) for z in states]
        total = sum(forward)
        likelihood += math.log(total / steps) / len(batch)
        for t in range(steps):
            r = forward[t] / total / len(batch)
            on = bits_of(states[t], hidden, encoding)
            slope = log_derivative(row, hidden, encoding, mean, fantasies[t], states[t])
            for i in range(visible):
                mu = sigmoid(a[i] + sum(on[b] * w[b, i] for b in range(hidden)))
                g_a[i] += r * (x[i] - mu)
                for b in range(hidden):
                    g_w[b, i] += r * on[b] * (x[i] - mu)
                    g_wbar[b, i] += r * slope[b] * (fantasies[t][i] - mean[i])
            for b in range(hidden):
                g_abar[b] += r * slope[b]
    return gradient, likelihood
