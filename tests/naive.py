"""Plain twins of the kernels: double precision, one step after the other, nothing of ours imported.

A twin takes one replica, whose arrays hold its particles only, and returns what the kernel writes.  ``noise`` is the
function that gives a step its normals.
"""

import itertools
import math

import numpy as np

BLOCK = 1024
LANES = 256
WORDS = 2**32


def philox4x32(counter, key):
    """Ten rounds of Philox4x32 (Salmon et al. 2011, Sect. 3.3).  Words are Python integers or uint64 arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product_0, product_1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1 = (product_1 >> 32) ^ c1 ^ k0, product_1 % WORDS
        c2, c3 = (product_0 >> 32) ^ c3 ^ k1, product_0 % WORDS
        k0, k1 = (k0 + 0x9E3779B9) % WORDS, (k1 + 0xBB67AE85) % WORDS
    return c0, c1, c2, c3


def words(seed, stream, step, block):
    """The two rows of 512 words of one block, in the order that the docstring of ``thermokernels.random`` draws."""
    lane = LANES * block + np.arange(LANES, dtype=np.uint64)
    w0, w1, w2, w3 = philox4x32((lane, step, stream % WORDS, stream // WORDS), (seed % WORDS, seed // WORDS))
    return np.array([np.column_stack((w1, w0)).ravel(), np.column_stack((w3, w2)).ravel()])


def box_muller(radius_word, angle_word):
    radius = np.sqrt(-2.0 * np.log((radius_word + 0.5) / WORDS))
    angle = 2.0 * np.pi * (angle_word / WORDS)
    return radius * np.cos(angle), radius * np.sin(angle)


def _blocks(particles):
    return range(math.ceil(particles / BLOCK))


def uniforms(seed, stream, step, particles):
    rows = [(words(seed, stream, step, block).ravel() + 0.5) / WORDS for block in _blocks(particles)]
    return np.concatenate(rows)[:particles]


def normals(seed, stream, step, particles):
    halves = [box_muller(*words(seed, stream, step, block)) for block in _blocks(particles)]
    return np.concatenate([half for pair in halves for half in pair])[:particles]


def block_sums(*columns):
    """The sum of each column over each block, correctly rounded: (blocks, columns)."""
    starts = range(0, len(columns[0]), BLOCK)
    return np.array([[math.fsum(column[start : start + BLOCK]) for column in columns] for start in starts])


def sum_block(x):
    return math.fsum(x), math.fsum(np.float64(x) ** 2)


def sum_over_blocks(sums, column):
    return math.fsum(sums[:, column])


def energy(x, theta):
    return (x - theta) ** 2 / 2.0


def spread(particles, centre, width, seed, stream, noise=normals):
    return centre + width * noise(seed, stream, 0, particles)


def learn(x, first, steps, target, seed, stream, theta, noise=normals, weights=None):
    """Closed loop; returns the first five columns of the trace, and x and the mean heat at the end.

    ``weights`` are those of the particles in the mean that theta learns from, and in the mean work.
    """
    work = heat = 0.0
    trace = []
    for n, (gain, pull, kick) in enumerate(steps):
        u = np.average(x, weights=weights)
        old_theta, theta = theta, theta - gain * (u - target[n])
        work += np.average(energy(x, theta) - energy(x, old_theta), weights=weights)
        trace.append((u, theta, work, heat, np.mean(x**2)))
        old_x, x = x, x + pull * (theta - x) + kick * noise(seed, stream, first + n, x.size)
        heat += np.mean(energy(x, theta) - energy(old_x, theta))
    return np.array(trace), x, heat


def jackknife(x, *arguments, size=BLOCK, **options):
    """Squared standard errors of u, theta and work, for every row of the trace of ``learn``, from parts of ``size``.

    Run the loop again with part b weighing 1 + i h times its share: at so small an h the imaginary part is h times the
    derivative, to rounding.  The squared derivatives, summed over parts, estimate the variance; for independent
    particles their expectation falls short of it by the factor 1 - (sum of squared shares), as the mean belongs to the
    same sample.
    """
    total, h = 0.0, 1e-30
    shares = []
    for start in range(0, x.size, size):
        member = np.zeros(x.size)
        member[start : start + size] = 1.0
        trace, *_ = learn(x, *arguments, weights=1.0 + 1j * h * member, **options)
        total = total + (trace[:, :3].imag / h) ** 2
        shares.append(member.mean())
    return total / (1.0 - math.fsum(share**2 for share in shares))


def drive(x, work, heat, first, steps, theta, seed, stream, rows_to_record, noise=normals):
    """Open loop; returns x, work and heat of every particle at the end, and the record."""
    record = []
    for n, (_, pull, kick) in enumerate(steps):
        work = work + energy(x, theta[n + 1]) - energy(x, theta[n])
        if n in rows_to_record:
            record.append(block_sums(x, x**2, work, work**2, heat))
        old_x, x = x, x + pull * (theta[n + 1] - x) + kick * noise(seed, stream, first + n, x.size)
        heat = heat + energy(x, theta[n + 1]) - energy(old_x, theta[n + 1])
    return x, work, heat, np.array(record)


# --- General potentials: x is (d, particles), functions take arrays where kernels give them numbers -------------------
def folded(x, domain):
    """x in the domain, sides (low, high, periodic), and for each coordinate whether it was mirrored."""
    x, mirrored = np.array(x), np.zeros(np.shape(x), bool)
    for k, (low, high, periodic) in enumerate(domain):
        if periodic:
            x[k] = low + (x[k] - low) % (high - low)
        else:
            mirrored[k] = (x[k] < low) | (x[k] > high)
            x[k] = np.where(x[k] < low, 2 * low - x[k], np.where(x[k] > high, 2 * high - x[k], x[k]))
    return x, mirrored


def relax(integrator, x, force, theta, c, z, next_z, domain=()):
    if integrator == "exact":
        d = len(x)
        shift, shrink, spread = c[:d], c[d : d + d * d].reshape(d, d), c[d + d * d :].reshape(d, d)
        return shift[:, None] + shrink @ x + spread @ z
    if integrator == "leimkuhler-matthews":
        z = (z + next_z) / 2.0
    y = x + c[0] * force(x, theta) + c[1] * z
    if integrator == "heun":
        image, mirrored = folded(y, domain)
        there = np.where(mirrored, -1.0, 1.0) * force(image, theta)
        y = x + c[0] * (force(x, theta) + there) / 2.0 + c[1] * z
    return folded(y, domain)[0]


def drive_any(integrator, functions, x, first, coefficients, theta, seed, stream, noise=normals, domain=()):
    """Open loop in any potential; returns x, every particle's work and heat, and dE/dtheta summed over the steps."""
    energy, force, gradient = functions
    work, heat, sums = 0.0, 0.0, 0.0
    for n, c in enumerate(coefficients):
        z, next_z = (
            np.stack([noise(seed, stream + k, first + n + later, x.shape[1]) for k in range(len(x))])
            for later in (0, 1)
        )
        work = work + energy(x, theta[n + 1]) - energy(x, theta[n])
        old_x, x = x, relax(integrator, x, force, theta[n + 1], c, z, next_z, domain)
        heat = heat + energy(x, theta[n + 1]) - energy(old_x, theta[n + 1])
        sums = sums + gradient(x, theta[n + 1])
    return x, work, heat, sums


def path_gradient(integrator, functions, second, x, coefficients, theta, seed, stream, objective, noise=normals):
    """Derivatives of objective(x, work) -> (value, by x, by work) at the end of a path, by theta and by coefficients.

    ``second`` are the matrices d2E/dx2 (d, d, particles) and d2E/dtheta dx (p, d, particles).
    """
    energy, force, gradient = functions
    curvature, mixed = second
    (d, count), steps = x.shape, len(coefficients)
    draws = [np.stack([noise(seed, stream + k, n, count) for k in range(d)]) for n in range(steps)]
    states, work = [x], 0.0
    for n, c in enumerate(coefficients):
        work = work + energy(states[n], theta[n + 1]) - energy(states[n], theta[n])
        states.append(relax(integrator, states[n], force, theta[n + 1], c, draws[n], None))
    value, v, weight = objective(states[-1], work)
    by_theta, by_coefficients = np.zeros_like(theta), []
    for n in range(steps - 1, -1, -1):
        x, z, c, new, old = states[n], draws[n], coefficients[n], theta[n + 1], theta[n]
        before = v
        if integrator == "exact":
            by_coefficients.append(np.concatenate([v.sum(axis=1), (v @ x.T).ravel(), (v @ z.T).ravel()]))
            before = c[d : d + d * d].reshape(d, d).T @ v
        else:
            here = c[0] * v
            if integrator == "heun":
                y = x + c[0] * force(x, new) + c[1] * z
                there = 0.5 * c[0] * v
                back = -np.einsum("jkn,jn->kn", curvature(y, new), there)
                by_theta[n + 1] -= np.einsum("pkn,kn->p", mixed(y, new), there)
                here, before = 0.5 * c[0] * v + c[0] * back, v + back
            before = before - np.einsum("jkn,jn->kn", curvature(x, new), here)
            by_theta[n + 1] -= np.einsum("pkn,kn->p", mixed(x, new), here)
        v = before - weight * (force(x, new) - force(x, old))
        by_theta[n + 1] += gradient(x, new) @ weight
        by_theta[n] -= gradient(x, old) @ weight
    return value, by_theta, np.array(by_coefficients[::-1]), v


def correlate(
    integrator, force, gradient, x, coefficients, theta, centre, stretch, levels, top, seed, stream, noise=normals
):
    """Correlation sums over doubling stretches, block by block; returns ``sums`` and ``means`` of the kernel."""

    def draw(n):
        return np.stack([noise(seed, stream + k, n, x.shape[1]) for k in range(len(x))])

    forces = [gradient(x, theta) - centre[:, None]]
    for n in range(stretch * top * 2 ** (levels - 1)):
        x = relax(integrator, x, force, theta, coefficients, draw(n), draw(n + 1))
        forces.append(gradient(x, theta) - centre[:, None])
    forces = np.array(forces)
    # The trapezoid rule, stretch by stretch.
    areas = (forces[1:] + forces[:-1]) / 2.0
    stretches = [area.sum(axis=0) for area in np.split(areas, len(areas) // stretch)]
    start = forces[0]
    p = len(centre)
    columns = [*start, *np.sum(stretches, axis=0), *(start[j] * start[k] for j in range(p) for k in range(p))]
    means = block_sums(*columns).reshape(-1, 2 + p, p)
    sums = []
    for _ in range(levels):
        j = np.array(stretches)
        square = np.einsum("tan,tbn->abn", j, j)
        follow = np.einsum("tan,tbn->abn", j[1:], j[:-1])
        follow = (follow + follow.swapaxes(0, 1)) / 2.0
        sums.append(block_sums(*square.reshape(p * p, -1), *follow.reshape(p * p, -1)).reshape(-1, 2, p, p))
        stretches = [first + second for first, second in zip(stretches[::2], stretches[1::2], strict=True)]
    return np.stack(sums, axis=1), means


# --- Latent cycles: vectors are plain arrays, a hidden state is an int ------------------------------------------------
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
    derivatives = []
    for b in range(hidden):
        values = []
        for sign in (1, -1):
            moved = row.copy()
            moved[len(row) - hidden + b] += sign * 1e-5
            values.append(math.log(hidden_probability(moved, hidden, encoding, mean, x, z)))
        derivatives.append((values[0] - values[1]) / 2e-5)
    return derivatives


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
            of_fields = log_derivative(row, hidden, encoding, mean, fantasies[t], states[t])
            for i in range(visible):
                mu = sigmoid(a[i] + sum(on[b] * w[b, i] for b in range(hidden)))
                g_a[i] += r * (x[i] - mu)
                for b in range(hidden):
                    g_w[b, i] += r * on[b] * (x[i] - mu)
                    g_wbar[b, i] += r * of_fields[b] * (fantasies[t][i] - mean[i])
            for b in range(hidden):
                g_abar[b] += r * of_fields[b]
    return gradient, likelihood


def cycle_words(seed, stream, step, count):
    """Random words of a double step: the first words of Philox's pairs for all lanes, then the second ones."""
    key, place = (seed % WORDS, seed // WORDS), (step, stream % WORDS, stream // WORDS)
    calls = [philox4x32((lane, *place), key) for lane in range((count + 33) // 32 * 8)]
    return [w for call in calls for w in (call[1], call[0])] + [w for call in calls for w in (call[3], call[2])]


def hidden_draw(p, encoding, words):
    """A hidden state from p(z | x): of each state, or of each bit."""
    if encoding == "bits":
        return sum(1 << b for b in range(len(p)) if (words[b] + 0.5) / WORDS < p[b])
    u = (words[1] + (words[0] + 0.5) / WORDS) / WORDS
    return min(int(np.searchsorted(np.cumsum(p), u, side="right")), len(p) - 1)


def visible_fields(row, hidden, encoding, visible, z):
    w, _, a, _ = parts(row, hidden, visible)
    on = bits_of(z, hidden, encoding)
    return [a[i] + sum(on[b] * w[b, i] for b in range(hidden)) for i in range(visible)]


def bits_below(thresholds, seed, stream, step, more=0):
    """Which random words lie below 32-bit thresholds: half a word each, and where that is not enough, another half.

    ``more`` words of the step are for something else.
    """
    words = cycle_words(seed, stream, step, (len(thresholds) + 1) // 2 + more)
    bits = []
    for i, threshold in enumerate(thresholds):
        upper, lower = words[i // 2] >> 16 if i % 2 else words[i // 2] % 2**16, 0
        if upper == threshold >> 16:
            counter = (2**31 + i, step, stream % WORDS, stream // WORDS)
            lower = philox4x32(counter, (seed % WORDS, seed // WORDS))[1] % 2**16
        bits.append(int((upper << 16 | lower) < threshold))
    return bits


def visible_draw(row, hidden, encoding, visible, z, seed, stream, step, more=0):
    """x from p(x | z), by half a word a bit."""
    fields = visible_fields(row, hidden, encoding, visible, z)
    return bits_below([min(int(sigmoid(field) * WORDS), WORDS - 1) for field in fields], seed, stream, step, more)


def visible_draw_of_bits(row, hidden, visible, z, words):
    """x from p(x | z), by a word a bit."""
    fields = visible_fields(row, hidden, "bits", visible, z)
    return [int((word + 0.5) / WORDS < sigmoid(field)) for field, word in zip(fields, words, strict=False)]


def hidden_probabilities(row, hidden, encoding, mean, x):
    """p(z | x) of each state, or p(z_b = 1 | x) of each bit."""
    if encoding == "bits":
        return [sigmoid(h) for h in hidden_fields(row, hidden, mean, x)]
    return [hidden_probability(row, hidden, encoding, mean, x, z) for z in range(hidden)]


def run_chain(row, hidden, encoding, mean, x, first, steps, seed, stream):
    """Double steps of one chain: its hidden states, and its x before each step and after the last."""
    visible = len(mean)
    states, fantasies = [], [list(x)]
    before = visible if encoding == "bits" else (visible + 1) // 2
    for step in range(first, first + steps):
        words = cycle_words(seed, stream, step, before + hidden)
        p = hidden_probabilities(row, hidden, encoding, mean, fantasies[-1])
        z = hidden_draw(p, encoding, words[before:])
        states.append(z)
        fantasies.append(
            visible_draw_of_bits(row, hidden, visible, z, words) if encoding == "bits"
            else visible_draw(row, hidden, encoding, visible, z, seed, stream, step)
        )  # fmt: skip
    return states, fantasies


def average_transitions(row, hidden, encoding, mean, z, numbers, seed, stream):
    """Sum of p(z' | x) over draws x of p(x | z), those of these numbers."""
    visible, count = len(mean), 2**hidden if encoding == "bits" else hidden
    total = np.zeros(count)
    for number in numbers:
        x = visible_draw(row, hidden, encoding, visible, z, seed, stream + z, number)
        total += [hidden_probability(row, hidden, encoding, mean, x, other) for other in range(count)]
    return total


def count_transitions(states, count):
    """How often each state followed each."""
    counts = np.zeros((count, count), int)
    for before, after in itertools.pairwise(states):
        counts[before, after] += 1
    return counts


def train(row, hidden, encoding, data, mean, x, sizes, options, seed, batches):
    """Steps of RMSProp along the two-step gradient; ``batches`` is the stream of the minibatches, chains have 0.

    Returns the parameters, the running squares, the chain's x and the log-likelihood of every minibatch.
    """
    square, trace = np.zeros_like(row), []
    for step, size in enumerate(sizes):
        states, fantasies = run_chain(
            row, hidden, encoding, mean, x, step * options.chain_steps, options.chain_steps, seed, 0
        )
        words = cycle_words(seed, batches, step, max(sizes))
        batch = [data[words[n] * len(data) >> 32] for n in range(size)]
        gradient, likelihood = two_step_gradient(row, hidden, encoding, mean, fantasies[:-1], states, batch)
        if encoding != "bits":
            parts(gradient, hidden, len(mean))[2][:] = 0.0
        square = options.decay * square + (1.0 - options.decay) * gradient**2
        row = row + options.rate * gradient / (np.sqrt(square) + options.floor)
        x = fantasies[-1]
        trace.append(likelihood)
    return row, square, x, trace


def layers(row, hidden, first, visible):
    """Of a model with a first layer of bits: a row that has its w and a, and wbar, abar, v and c."""
    wide, n = row[: hidden * visible], first * visible
    wbar, a, abar, v, c = np.split(row[hidden * visible :], np.cumsum([n, visible, first, hidden * first]))
    alone = np.concatenate([wide, np.zeros(hidden * visible), a, np.zeros(hidden)])
    return alone, wbar.reshape(first, visible), abar, v.reshape(hidden, first), c


def bit_chances(row, hidden, first, mean, x):
    """p(y = 1 | x) of every bit of the first layer."""
    _, wbar, abar, _, _ = layers(row, hidden, first, len(mean))
    return [sigmoid(abar[b] + sum(wbar[b, i] * (x[i] - mean[i]) for i in range(len(mean)))) for b in range(first)]


def state_chances(row, hidden, first, encoding, visible, y):
    """p(z | y) of every state."""
    _, _, _, v, c = layers(row, hidden, first, visible)
    h = [c[z] + sum(v[z, b] * (y[b] - 0.5) for b in range(first)) for z in range(hidden)]
    weight = [math.exp(value) for value in h] if encoding == "softmax" else [sigmoid(value) for value in h]
    return [value / sum(weight) for value in weight]


def backward_through_bits(row, hidden, first, encoding, mean, x):
    """p(z | x) of every state: the sum over all bits y."""
    chances, total = bit_chances(row, hidden, first, mean, x), np.zeros(hidden)
    for y in itertools.product((0, 1), repeat=first):
        p = math.prod(chance if bit else 1.0 - chance for bit, chance in zip(y, chances, strict=True))
        total += p * np.array(state_chances(row, hidden, first, encoding, len(mean), y))
    return total


def gradient_through_bits(row, hidden, first, encoding, mean, fantasies, bits, states, batch):
    """The rule of Eqs. 16 and 17 for three matrices, by central differences of the logarithms of all three."""
    alone = layers(row, hidden, first, len(mean))[0]
    forward = np.array([[math.exp(log_forward(alone, hidden, encoding, z, x)) for z in states] for x in batch])
    shares = forward / forward.sum(axis=1, keepdims=True) / len(batch)

    def value(moved):
        alone, total = layers(moved, hidden, first, len(mean))[0], 0.0
        for t, (x, y, z) in enumerate(zip(fantasies, bits, states, strict=True)):
            chances = bit_chances(moved, hidden, first, mean, x)
            log_p = math.log(state_chances(moved, hidden, first, encoding, len(mean), y)[int(z)])
            log_p += sum(math.log(p if bit else 1.0 - p) for bit, p in zip(y, chances, strict=True))
            for n, point in enumerate(batch):
                total += shares[n, t] * (log_forward(alone, hidden, encoding, z, point) + log_p)
        return total

    gradient = np.empty(len(row))
    for k in range(len(row)):
        step = 1e-5 * (np.arange(len(row)) == k)
        gradient[k] = (value(row + step) - value(row - step)) / 2e-5
    return gradient, float(np.log(forward.mean(axis=1)).mean())


def chain_through_bits(row, hidden, first, encoding, mean, x, begin, steps, seed, stream):
    """Steps x, y, z, x of one chain: its states, the bits y of each step, and its x before each and after the last."""
    alone, before = layers(row, hidden, first, len(mean))[0], (len(mean) + 1) // 2
    states, bits, fantasies = [], [], [list(x)]
    for step in range(begin, begin + steps):
        words = cycle_words(seed, stream, step, before + first)
        y = hidden_draw(bit_chances(row, hidden, first, mean, fantasies[-1]), "bits", words[before + 2 :])
        bits.append(bits_of(y, first, "bits"))
        p = state_chances(row, hidden, first, encoding, len(mean), bits[-1])
        states.append(hidden_draw(p, encoding, words[before:]))
        fantasies.append(visible_draw(alone, hidden, encoding, len(mean), states[-1], seed, stream, step, first))
    return states, bits, fantasies


def transitions_through_bits(row, hidden, first, encoding, mean, z, numbers, seed, stream):
    """Sum of p(z' | y) over draws x of p(x | z) and y of p(y | x), those of these numbers."""
    alone, before, total = layers(row, hidden, first, len(mean))[0], (len(mean) + 1) // 2, np.zeros(hidden)
    for number in numbers:
        x = visible_draw(alone, hidden, encoding, len(mean), z, seed, stream + z, number, first)
        words = cycle_words(seed, stream + z, number, before + first)
        y = hidden_draw(bit_chances(row, hidden, first, mean, x), "bits", words[before + 2 :])
        total += state_chances(row, hidden, first, encoding, len(mean), bits_of(y, first, "bits"))
    return total


def train_through_bits(row, hidden, first, encoding, data, mean, x, sizes, options, seed, batches):
    """As ``train``."""
    square, trace = np.zeros_like(row), []
    for step, size in enumerate(sizes):
        states, bits, fantasies = chain_through_bits(
            row, hidden, first, encoding, mean, x, step * options.chain_steps, options.chain_steps, seed, 0
        )
        words = cycle_words(seed, batches, step, max(sizes))
        batch = [data[words[n] * len(data) >> 32] for n in range(size)]
        gradient, likelihood = gradient_through_bits(
            row, hidden, first, encoding, mean, fantasies[:-1], bits, states, batch
        )
        end = (hidden + first) * len(mean)
        gradient[end : end + len(mean)] = 0.0  # a stays where it is
        square = options.decay * square + (1.0 - options.decay) * gradient**2
        row = row + options.rate * gradient / (np.sqrt(square) + options.floor)
        x = fantasies[-1]
        trace.append(likelihood)
    return row, square, x, trace


def expectation(x, weights, means):
    """One pass of EM, one point after the other: log p(x) of each, summed responsibilities, and sum_n r_nz x_n."""
    log_p, shares, sums = [], np.zeros(len(weights)), np.zeros(np.shape(means))
    for point in x:
        terms = []
        for weight, mean in zip(weights, means, strict=True):
            p = weight
            for bit, q in zip(point, mean, strict=True):
                p *= q if bit else 1.0 - q
            terms.append(p)
        log_p.append(math.log(sum(terms)))
        for z, term in enumerate(terms):
            shares[z] += term / sum(terms)
            sums[z] += term / sum(terms) * point
    return np.array(log_p), shares, sums


def exact_gradient(row, hidden, encoding, mean, batch, images, seed, step):
    """The likelihood's gradient through pbar, from ``images`` drawn of each state; returns it and the likelihood."""
    visible = len(mean)
    x = [
        [visible_draw(row, hidden, encoding, visible, z, seed, 1 + z, step * images + k) for k in range(images)]
        for z in range(hidden)
    ]  # fmt: skip
    p = np.array([[hidden_probabilities(row, hidden, encoding, mean, one) for one in each] for each in x])
    matrix = p.mean(axis=1)
    values, vectors = np.linalg.eig(matrix.T)
    occupancy = np.abs(vectors[:, np.argmax(values.real)].real)
    occupancy /= occupancy.sum()
    forward = np.exp([[log_forward(row, hidden, encoding, z, point) for z in range(hidden)] for point in batch])
    total = forward @ occupancy
    worth = (forward / total[:, None]).mean(axis=0)
    v = np.linalg.solve(np.eye(hidden) - matrix + occupancy[None, :], worth)
    gradient = np.zeros_like(row)
    g_w, g_wbar, _, g_abar = parts(gradient, hidden, visible)
    w, _, _, _ = parts(row, hidden, visible)
    for z in range(hidden):
        mu = np.array([sigmoid(f) for f in w[z]])
        for point, a, t in zip(batch, forward, total, strict=True):
            g_w[z] += a[z] * occupancy[z] / t * (point - mu) / len(batch)
        values = p[z] @ v
        for k in range(images):
            g_w[z] += occupancy[z] * (values[k] - values.mean()) * np.array(x[z][k]) / (images - 1)
            for y in range(hidden):
                slope = np.array(log_derivative(row, hidden, encoding, mean, x[z][k], y))
                slope = occupancy[z] / images * p[z, k, y] * v[y] * slope
                g_abar += slope
                g_wbar += slope[:, None] * (np.array(x[z][k]) - mean)[None, :]
    return gradient, float(np.log(total).mean())


def annealed_state(w, a, x, guide, weights, means, betas, seed, stream):
    """One chain from q(z | x) to r(z) p(x | z), r a mixture: its log weight and its last z.  Every law from scratch."""
    hidden = len(w)

    def log_q(z):
        return sum(math.log(sigmoid(guide[b] if z[b] else -guide[b])) for b in range(hidden))

    def log_joint(z):
        r = sum(
            weight * math.prod(mean[b] if z[b] else 1 - mean[b] for b in range(hidden))
            for weight, mean in zip(weights, means, strict=True)
        )
        fields = [a[i] + sum(z[b] * w[b][i] for b in range(hidden)) for i in range(len(a))]
        return math.log(r) + sum(math.log(sigmoid(f if on else -f)) for f, on in zip(fields, x, strict=True))

    words = cycle_words(seed, stream, 0, hidden)
    z = [int((words[b] + 0.5) / WORDS < sigmoid(guide[b])) for b in range(hidden)]
    total, before = 0.0, 0.0
    for t, beta in enumerate(betas):
        total += (beta - before) * (log_joint(z) - log_q(z))
        before = beta
        words = cycle_words(seed, stream, t + 1, hidden)
        for b in range(hidden if beta < 1 else 0):
            other = [*z[:b], 1 - z[b], *z[b + 1 :]]
            gain = (1 - beta) * (log_q(other) - log_q(z)) + beta * (log_joint(other) - log_joint(z))
            if (words[b] + 0.5) / WORDS < sigmoid(gain):
                z = other
    return total, sum(on << b for b, on in enumerate(z))


# --- Thermodynamic computer: a trajectory a row, numbers in the precision of x ----------------------------------------
TILE = 64
GROUP = 16


def unit_normals(seed, stream, step, trajectories, units, noise=normals):
    """The step's normals, (trajectories, units), from where the docstring of ``thermokernels.network`` puts them."""
    groups = math.ceil(units / GROUP)
    z = noise(seed, stream, step, math.ceil(trajectories / TILE) * groups * BLOCK)
    p, i = np.indices((trajectories, units))
    return z[BLOCK * ((p // TILE) * groups + i // GROUP) + (i % GROUP) * TILE + p % TILE]


def network_energy(x, fields, couplings, physics):
    """V of every trajectory."""
    wells = x**2 * (physics.J2 + physics.J4 * x**2) + fields * x
    return np.sum(wells + x * (x @ couplings) / 2, axis=-1)


def network_gradient(x, fields, couplings, physics):
    """dV/dx."""
    return x * (2 * physics.J2 + 4 * physics.J4 * x**2) + fields + x @ couplings


def simulate(x, fields, couplings, physics, first, steps, seed, stream, recorded=(), noise=normals):
    """Returns x, heat and status at the end, and the paths."""
    couplings = couplings.astype(x.dtype)
    heat, status = np.zeros(len(x)), np.zeros(len(x), int)
    energy = network_energy(x, fields, couplings, physics)
    pull, kick = physics.mobility * physics.dt, math.sqrt(2 * physics.mobility * physics.kT * physics.dt)
    states = [x]
    for n in range(first, first + steps):
        z = unit_normals(seed, stream, n, *x.shape, noise).astype(x.dtype)
        x = x - pull * network_gradient(x, fields, couplings, physics) + kick * z
        before, energy = energy, network_energy(x, fields, couplings, physics)
        heat += energy - before
        status[(status == 0) & ~np.isfinite(energy)] = n + 1
        states.append(x)
    return x, heat, status, np.array([states[n] for n in recorded])


def ideal_paths(targets, steps, physics):
    """Idealised trajectories with bias -a: (steps + 1, trajectories, units)."""
    states = [np.zeros_like(targets)]
    for _ in range(steps):
        gradient = network_gradient(states[-1], -targets, np.zeros((targets.shape[1], targets.shape[1])), physics)
        states.append(states[-1] - physics.mobility * physics.dt * gradient)
    return np.array(states)


def teach(targets, steps, physics):
    """Sums of x over time and of x x^T over time and trajectories, the end not counted."""
    x = ideal_paths(targets, steps, physics)[:-1]
    return x.sum(axis=0), np.einsum("tpi,tpj->ij", x, x)


def action_gradient(paths, fields, couplings, physics):
    """Returns S of every trajectory, its sums of r over time, and dS/dJ of all trajectories."""
    old, new = paths[:-1], paths[1:]
    drift = physics.mobility * physics.dt * network_gradient(old, fields, couplings, physics)
    action = np.sum((new - old + drift) ** 2, axis=(0, 2)) / (4 * physics.mobility * physics.kT * physics.dt)
    r = (new - old + drift) / (2 * physics.kT)
    of_couplings = np.einsum("tpi,tpj->ij", r, old)
    of_couplings = of_couplings + of_couplings.T
    np.fill_diagonal(of_couplings, 0.0)
    return action, r.sum(axis=0), of_couplings


def adjoint(start, fields, couplings, physics, first, steps, seed, stream, slopes, noise=normals):
    """Returns x at the end, the slopes at the start, and the gradient in fields and couplings; all states are kept."""
    pull, kick = physics.mobility * physics.dt, math.sqrt(2 * physics.mobility * physics.kT * physics.dt)
    states = [start]
    for n in range(first, first + steps):
        z = unit_normals(seed, stream, n, *start.shape, noise)
        new = states[-1] - pull * network_gradient(states[-1], fields, couplings, physics) + kick * z
        states.append(np.clip(new, -physics.limit, physics.limit))
    of_fields, of_couplings = np.zeros_like(start), np.zeros_like(couplings)
    for x, new in reversed(list(itertools.pairwise(states))):
        slopes = np.where(np.abs(new) < physics.limit, slopes, 0.0)
        of_fields -= pull * slopes
        of_couplings -= pull * (slopes.T @ x + x.T @ slopes)
        curvature = 2 * physics.J2 + 12 * physics.J4 * x**2
        slopes = slopes - pull * (slopes @ couplings + curvature * slopes)
    np.fill_diagonal(of_couplings, 0.0)
    return states[-1], slopes, of_fields, of_couplings


def distortion_draws(seed, stream, p):
    """Four uniform numbers between -1 and 1: of angle, size, and moves down and right."""
    counter = (p, 0, stream % 2**32, stream >> 32)
    w0, w1, w2, w3 = philox4x32(counter, (seed % 2**32, seed >> 32))
    return [(int(w) + 0.5) / 2**31 - 1 for w in (w1, w0, w3, w2)]


def distortion(shape, strength, seed, stream, p):
    """The matrix and the offset that say where in the old picture a pixel of the new one is read."""
    angle, size, down, right = distortion_draws(seed, stream, p)
    a, s = strength[0] * angle, 1 + strength[2] * size
    matrix = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) / s
    centre, moves = (np.array(shape) - 1) / 2, strength[1] * np.array(shape) * [down, right]
    return matrix, centre + moves - matrix @ centre


def distorted(picture, strength, pixels, seed, stream, p):
    """The inputs of one picture (rows, columns), flat."""
    matrix, offset = distortion(picture.shape, strength, seed, stream, p)
    out, last = np.empty(picture.shape), np.array(picture.shape) - 1
    for place in np.ndindex(picture.shape):
        y, x = np.clip(matrix @ place + offset, 0, last)
        i, j = int(y), int(x)
        below, right = min(i + 1, last[0]), min(j + 1, last[1])
        top = (1 - x + j) * float(picture[i, j]) + (x - j) * float(picture[i, right])
        bottom = (1 - x + j) * float(picture[below, j]) + (x - j) * float(picture[below, right])
        out[place] = (1 - y + i) * top + (y - i) * bottom
    return standardised(out, pixels)


def standardised(picture, pixels):
    """Inputs: (brightness - mean) / deviation, scaled to the norm."""
    mean, deviation, norm = pixels
    flat = (picture.ravel() - mean) / deviation
    return flat * norm / np.linalg.norm(flat)


def adam(value, gradient, allowed, first, second, rate, decay, memories, floor):
    """Returns the parameters and both moments after one step (Kingma & Ba 2015, Algorithm 1)."""
    g = (gradient + decay * value) * allowed
    first = memories[0] * first + (1 - memories[0]) * g
    second = memories[1] * second + (1 - memories[1]) * g**2
    return value - rate * first / (np.sqrt(second) + floor), first, second


# --- Generative computer ----------------------------------------------------------------------------------------------
def noise_units(x, forces, tilt, amplitude, physics, first, seed, stream, noise=normals):
    """Uncoupled units under forces: returns heat and the paths (steps + 1, trajectories, units)."""
    pull, kick = physics.mobility * physics.dt, math.sqrt(2 * physics.mobility * physics.kT * physics.dt)
    heat, states = np.zeros(len(x)), [x]
    nothing = np.zeros((x.shape[1], x.shape[1]))
    for n, a in enumerate(amplitude):
        z = unit_normals(seed, stream, first + n, *x.shape, noise)
        fields = tilt - a * forces
        before = network_energy(x, fields, nothing, physics)
        x = x - pull * network_gradient(x, fields, nothing, physics) + kick * z
        heat += network_energy(x, fields, nothing, physics) - before
        states.append(x)
    return heat, np.array(states)


def unit_moments(force, amplitude, tilt, physics, grid):
    """Mean, variance and <x^3> of one unit at every step, (3, steps + 1), by a dense matrix for each step."""
    low, spacing, points = grid
    x = low + spacing * np.arange(points)
    sigma = math.sqrt(2 * physics.mobility * physics.kT * physics.dt)
    mass = (np.arange(points) == round(-low / spacing)).astype(float)
    found = []
    for a in [*amplitude, 0.0]:
        mean = mass @ x / mass.sum()
        found.append((mean, mass @ x**2 / mass.sum() - mean**2, mass @ x**3 / mass.sum()))
        slope = 2 * physics.J2 * x + 4 * physics.J4 * x**3 + tilt - a * force
        centre = x - physics.mobility * physics.dt * slope
        law = np.exp(-((x[:, None] - centre) ** 2) / (2 * sigma**2)) * spacing / math.sqrt(2 * math.pi) / sigma
        mass = law @ mass
    return np.array(found).T


def learn_reversed(path, field, free, couplings, hidden, physics, rate, online):
    """Down the gradient along one trajectory: returns the change of J, the sum of r, and the loss."""
    units = path.shape[1]
    learned, h = couplings.copy(), field.copy()
    allowed = 1.0 - np.eye(units)
    allowed[hidden:, hidden:] = 0.0
    change, sums, loss = np.zeros_like(couplings), np.zeros(units), 0.0
    for before, x in itertools.pairwise(path):
        slope = network_gradient(x, h, learned, physics)
        r = (before - x + physics.mobility * physics.dt * slope) / (2 * physics.kT)
        loss += np.sum(r**2) * physics.kT / (physics.mobility * physics.dt)
        sums += r
        step = -rate * allowed * (np.outer(r, x) + np.outer(x, r))
        change += step
        if online:
            learned = learned + step
            h = h - rate * free * r
    return change, sums, loss
