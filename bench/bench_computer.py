"""The thermodynamic computer: classification and the action's gradient, ours beside peers, in one run.

``pytest -n 0 bench/bench_computer.py`` times every entry with pytest-benchmark; ``python bench/bench_computer.py``
takes turns between them, so that they share the machine's moods, and prints medians, ratios and shares of the peak.

Four jobs of the 784-64-10 machine, all units coupled:

classification   10,000 samples, 200 noisy steps from x = 0: the fields' product with the inputs, the trajectories, the
                 largest output.  Ours adds up each trajectory's heat as well.
action gradient  of 128 given trajectories of 200 steps: the action, dS/dJ, and dS/dh of every trajectory.
teacher          the same gradient along 128 idealised trajectories of 200 steps, which are made on the way.
adjoint          one update of a training through the noise: 128 images become inputs and fields, 30 noisy steps, the
                 cross-entropy of the outputs, its gradient in W, b, J and the gain, and Adam's step.  An epoch of MNIST
                 is 469 of them.

Peak: the float32 product of two matrices of 2048 x 2048 by NumPy's BLAS, on as many threads.

Operations counted for ours, a multiply-add being two; those on padding (80 units for 74) are not counted, nor are the
integers of Philox:

classification   a sample's fields 2 * 784 * 74; a step's product 2 * 74^2, and 44 for each unit: force and move 9,
                 energy 15, Box-Muller 20.
action gradient  a step's two products 4 * 74^2, and 14 for each unit.
teacher          a step's Gram matrix 74^2 (half of it, as it is symmetric), and 7 for each unit.
adjoint          a trajectory's fields and their gradient 4 * 784 * 74; a step's four products 8 * 74^2 (forward,
                 forward again, back, and the sum of outer products), 29 twice and 12 once for each unit.
"""

import argparse
import functools
import itertools
import os
import time

import numba
import numpy as np
import pytest
import turns
from threadpoolctl import ThreadpoolController, threadpool_limits

from thermokernels import network, onsager_machlup
from thermorun.computer import ComputerTraining, Machine, Physics, Pixels
from thermorun.computer.adjoint import EndState
from thermorun.computer.descent import Descent
from thermorun.datasets import Images

SAMPLES, BATCH, STEPS, TRAINING_STEPS = 10_000, 128, 200, 30
INPUTS, UNITS, OUTPUTS = 784, 74, 10
SEED, STREAM = np.uint64(1), np.uint64(1)
FLOPS = {
    "classification": SAMPLES * (2 * INPUTS * UNITS + STEPS * (2 * UNITS**2 + 44 * UNITS)),
    "action gradient": BATCH * STEPS * (4 * UNITS**2 + 14 * UNITS),
    "teacher": BATCH * STEPS * (UNITS**2 + 7 * UNITS),
    "adjoint": BATCH * (4 * INPUTS * UNITS + TRAINING_STEPS * (8 * UNITS**2 + 70 * UNITS)),
}
PHYSICS = Physics().kernel  # the paper's
PULL, KICK = PHYSICS.mobility * PHYSICS.dt, float(np.sqrt(2.0 * PHYSICS.mobility * PHYSICS.kT * PHYSICS.dt))
TWO_J2, FOUR_J4 = 2.0 * PHYSICS.J2, 4.0 * PHYSICS.J4
SCALE = 0.5 / PHYSICS.kT
# Action: this times the sum of squared residuals.
PER_SQUARE = PHYSICS.kT / (PHYSICS.mobility * PHYSICS.dt)


@functools.cache
def machine(dtype):
    """Inputs (samples, inputs), W^T, b and J, sized like those of the digits."""
    rng = np.random.default_rng(1)
    j = np.tril(rng.normal(0.0, 2.0, (UNITS, UNITS)), -1)
    inputs, weights, bias = rng.normal(size=(SAMPLES, INPUTS)), rng.normal(size=(INPUTS, UNITS)), rng.normal(size=UNITS)
    return tuple(array.astype(dtype) for array in (inputs, weights, bias, j + j.T))


@functools.cache
def trajectories(dtype):
    """Paths (steps + 1, trajectories, units), fields and couplings."""
    inputs, weights, bias, j = machine(dtype)
    fields = inputs[:BATCH] @ weights + bias
    paths = np.empty((STEPS + 1, BATCH, UNITS), dtype)
    network.simulate(
        np.zeros((BATCH, UNITS), dtype), np.zeros(BATCH), np.zeros(BATCH, np.int64), fields, network.dense(j), PHYSICS,
        (0, STEPS), (SEED, STREAM), np.arange(STEPS + 1), paths,
    )  # fmt: skip
    return paths, fields, j


@functools.cache
def targets(dtype):
    """a (trajectories, units), fields and couplings."""
    inputs, weights, bias, j = machine(dtype)
    a = 200.0 * np.tanh(np.random.default_rng(2).normal(size=(BATCH, UNITS)))
    return a.astype(dtype), inputs[:BATCH] @ weights + bias, j


# --- Classification: functions without arguments that return x at the end ---------------------------------------------


def ours_classify(dtype=np.float32):
    inputs, weights, bias, j = machine(dtype)
    couplings = network.dense(j)
    recorded, paths = np.empty(0, np.intp), np.empty((0, SAMPLES, UNITS), dtype)

    def run():
        with threadpool_limits(1, user_api="blas"):  # as `thermorun` does
            fields = inputs @ weights + bias
        x, heat, status = np.zeros_like(fields), np.zeros(SAMPLES), np.zeros(SAMPLES, np.int64)
        network.simulate(x, heat, status, fields, couplings, PHYSICS, (0, STEPS), (SEED, STREAM), recorded, paths)
        x[:, -OUTPUTS:].argmax(axis=1)
        return x

    return run


def numpy_classify():
    inputs, weights, bias, j = machine(np.float32)
    rng = np.random.Generator(np.random.SFC64(1))
    z, force, product = (np.empty((SAMPLES, UNITS), np.float32) for _ in range(3))

    def run():
        fields = inputs @ weights + bias
        x = np.zeros_like(fields)
        for _ in range(STEPS):
            np.matmul(x, j, out=product)
            np.multiply(x, x, out=force)
            np.multiply(force, FOUR_J4, out=force)
            np.add(force, TWO_J2, out=force)
            np.multiply(force, x, out=force)
            np.add(force, product, out=force)
            np.add(force, fields, out=force)
            np.multiply(force, PULL, out=force)
            rng.standard_normal(out=z, dtype=np.float32)
            np.multiply(z, KICK, out=z)
            np.subtract(z, force, out=z)
            np.add(x, z, out=x)
        x[:, -OUTPUTS:].argmax(axis=1)
        return x

    return run


def naive_numba_classify():
    inputs, weights, bias, j = machine(np.float32)

    @numba.njit(parallel=True, fastmath=True)
    def loop(x, fields, j, pull, kick, two_j2, four_j4):
        samples, units = x.shape
        for p in numba.prange(samples):
            force = np.empty(units, x.dtype)
            for _ in range(STEPS):
                for i in range(units):
                    force[i] = fields[p, i] + x[p, i] * (two_j2 + four_j4 * x[p, i] * x[p, i])
                for k in range(units):
                    for i in range(units):
                        force[i] += j[k, i] * x[p, k]
                for i in range(units):
                    x[p, i] += kick * np.float32(np.random.standard_normal()) - pull * force[i]  # noqa: NPY002

    numbers = [np.float32(value) for value in (PULL, KICK, TWO_J2, FOUR_J4)]

    def run():
        fields = inputs @ weights + bias
        x = np.zeros_like(fields)
        loop(x, fields, j, *numbers)
        x[:, -OUTPUTS:].argmax(axis=1)
        return x

    return run


def torch_classify(threads, compiled=False, chunk=1000):
    """In chunks that stay in the cache; ``compiled`` fuses everything but the product and the noise."""
    import torch

    inputs, weights, bias, j = (torch.from_numpy(array) for array in machine(np.float32))
    z, force, square = (torch.empty(chunk, UNITS) for _ in range(3))
    final = torch.empty(SAMPLES, UNITS)

    def move(x, force, z):
        torch.mul(x, x, out=square)
        square.mul_(FOUR_J4).add_(TWO_J2)
        force.addcmul_(square, x)
        x.add_(z, alpha=KICK).sub_(force, alpha=PULL)

    @torch.compile
    def compiled_move(x, force, z):
        x.copy_(x - PULL * (force + x * (TWO_J2 + FOUR_J4 * x * x)) + KICK * z)

    chosen = compiled_move if compiled else move

    def run():
        torch.set_num_threads(threads)
        with torch.no_grad():
            fields = torch.addmm(bias, inputs, weights)
            for start in range(0, SAMPLES, chunk):
                h, x = fields[start : start + chunk], torch.zeros(chunk, UNITS)
                for _ in range(STEPS):
                    chosen(x, torch.addmm(h, x, j, out=force), z.normal_())
                final[start : start + chunk] = x
            final[:, -OUTPUTS:].argmax(dim=1)
        return final.numpy()

    return run


def jax_classify():
    import jax
    import jax.numpy as jnp

    inputs, weights, bias, j = (jnp.asarray(array) for array in machine(np.float32))

    @jax.jit
    def classify(inputs, weights, bias, j, key):
        fields = inputs @ weights + bias

        def step(_, carry):
            x, key = carry
            key, mine = jax.random.split(key)
            force = fields + x @ j + x * (TWO_J2 + FOUR_J4 * x * x)
            return x - PULL * force + KICK * jax.random.normal(mine, x.shape, x.dtype), key

        x, _ = jax.lax.fori_loop(0, STEPS, step, (jnp.zeros_like(fields), key))
        return x, x[:, -OUTPUTS:].argmax(axis=1)

    key = jax.random.key(1)
    return lambda: np.asarray(jax.block_until_ready(classify(inputs, weights, bias, j, key))[0])


# --- Action gradient: functions that return dS/dJ and dS/dh -----------------------------------------------------------


def ours_action(dtype=np.float32):
    paths, fields, j = trajectories(dtype)
    action, residuals, slope = np.empty(BATCH), np.empty_like(fields), np.empty((UNITS, UNITS))

    def run():
        onsager_machlup.action_gradient(paths, fields, j, PHYSICS, action, residuals, slope)
        return slope, residuals

    return run


def torch_action(threads):
    """Autograd; J is symmetric and given whole, so that its gradient is half of dS/dJ."""
    import torch

    paths, fields, j = (torch.from_numpy(array) for array in trajectories(np.float32))
    h, j = fields.clone().requires_grad_(), j.clone().requires_grad_()
    x, moves = paths[:-1], paths[1:] - paths[:-1]

    def run():
        torch.set_num_threads(threads)
        h.grad = j.grad = None
        force = h + x @ j + x * (TWO_J2 + FOUR_J4 * x * x)
        action = (moves + PULL * force).square().sum() * (SCALE**2 * PER_SQUARE)
        action.backward()
        return (j.grad + j.grad.T).fill_diagonal_(0.0).numpy(), h.grad.numpy()

    return run


def torch_action_by_hand(threads):
    import torch

    paths, fields, j = (torch.from_numpy(array) for array in trajectories(np.float32))
    r, square = (torch.empty(STEPS, BATCH, UNITS) for _ in range(2))

    def run():
        torch.set_num_threads(threads)
        with torch.inference_mode():
            x = paths[:-1]
            torch.matmul(x, j, out=r)
            r.add_(fields)
            torch.mul(x, x, out=square)
            r.addcmul_(square.mul_(FOUR_J4).add_(TWO_J2), x)
            r.mul_(PULL).add_(paths[1:]).sub_(x).mul_(SCALE)
            torch.mul(r, r, out=square)
            square.sum(dim=(0, 2)).mul_(PER_SQUARE)
            half = r.view(-1, UNITS).T @ x.reshape(-1, UNITS)
            return (half + half.T).fill_diagonal_(0.0).numpy(), r.sum(dim=0).numpy()

    return run


def jax_action():
    import jax
    import jax.numpy as jnp

    paths, fields, j = (jnp.asarray(array) for array in trajectories(np.float32))

    def action(h, j, paths):
        x = paths[:-1]
        force = h + x @ j + x * (TWO_J2 + FOUR_J4 * x * x)
        return jnp.sum((paths[1:] - x + PULL * force) ** 2) * (SCALE**2 * PER_SQUARE)

    @jax.jit
    def gradient(h, j, paths):
        value, (dh, dj) = jax.value_and_grad(action, argnums=(0, 1))(h, j, paths)
        return value, dj + dj.T, dh

    def run():
        _, dj, dh = jax.block_until_ready(gradient(fields, j, paths))
        return np.asarray(dj), np.asarray(dh)

    return run


# --- Teacher: functions that return dS/dJ and dS/dh -------------------------------------------------------------------


def ours_teacher(dtype=np.float32):
    a, fields, j = targets(dtype)
    sums, gram = np.empty_like(a), np.empty((UNITS, UNITS))

    def run():
        onsager_machlup.teach(a, STEPS, PHYSICS, sums, gram)
        y = a + fields
        half = SCALE * PULL * (y.T @ sums + j @ gram.astype(dtype))
        return half + half.T, SCALE * PULL * (STEPS * y + sums @ j)

    return run


def torch_teacher(threads, autograd):
    """The trajectories one step after the other, then their action's gradient, by autograd or from the same sums."""
    import torch

    a, fields, j = (torch.from_numpy(array) for array in targets(np.float32))
    h, j = fields.clone().requires_grad_(autograd), j.clone().requires_grad_(autograd)
    x, pull = torch.zeros(STEPS + 1, BATCH, UNITS), a * PULL
    square = torch.empty(BATCH, UNITS)

    def follow():
        for old, new in itertools.pairwise(x):
            torch.mul(old, old, out=square)
            square.mul_(-PULL * FOUR_J4).add_(1.0 - PULL * TWO_J2)
            torch.addcmul(pull, square, old, out=new)

    def by_sums():
        torch.set_num_threads(threads)
        with torch.no_grad():
            follow()
            rows, y = x[:-1].view(-1, UNITS), a + h
            sums, gram = x[:-1].sum(dim=0), rows.T @ rows
            half = (y.T @ sums).addmm_(j, gram).mul_(SCALE * PULL)
            return (half + half.T).numpy(), torch.addmm(y, sums, j, beta=STEPS).mul_(SCALE * PULL).numpy()

    def by_autograd():
        torch.set_num_threads(threads)
        h.grad = j.grad = None
        with torch.no_grad():
            follow()
        residual = SCALE * PULL * (a + h + x[:-1] @ j)
        (residual.square().sum() * PER_SQUARE).backward()
        return (j.grad + j.grad.T).numpy(), h.grad.numpy()

    return by_autograd if autograd else by_sums


# --- Adjoint: functions that return the loss --------------------------------------------------------------------------

STILL = 1e-12  # a learning rate at which all updates are of the same machine


def ours_adjoint(dtype=np.float32):
    """The descent of `computer train --method adjoint`: it picks images, standardises them, and draws noise anew."""
    inputs, weights, bias, j = machine(np.float32)
    labels = np.arange(SAMPLES) % OUTPUTS
    images = Images("bench", inputs, labels, inputs[:1], labels[:1], np.arange(OUTPUTS), (28, 28), labels[:1])
    none = dict.fromkeys(("rotation", "shift", "scaling"), 0.0)
    spec = ComputerTraining(
        method="adjoint", learning_rate=STILL, trajectories=10**9, training_steps=TRAINING_STEPS,
        precision=np.dtype(dtype).name, **none,
    )  # fmt: skip
    begin = Machine(weights.T, j, bias, OUTPUTS)
    pixels = Pixels(0.0, 1.0, float(np.sqrt(INPUTS)))
    objective = EndState(spec, images, np.arange(SAMPLES), pixels, begin.allowed, begin)
    descent, libraries = Descent(spec, objective), ThreadpoolController()

    def run():
        with libraries.limit(limits=1, user_api="blas"):  # as `thermorun` does, once for a whole run
            return np.array([descent.step()])

    return run


def torch_adjoint(threads):
    import torch

    inputs, weights, bias, j = machine(np.float32)
    scale = np.sqrt(INPUTS) / np.linalg.norm(inputs, axis=1, keepdims=True)
    inputs, labels = torch.from_numpy(inputs * scale.astype(np.float32)), torch.arange(SAMPLES) % OUTPUTS
    w, b, half = (torch.from_numpy(array.copy()).requires_grad_() for array in (weights, bias, np.tril(j)))
    gain = torch.ones(1, requires_grad=True)
    optimiser = torch.optim.Adam([w, b, half, gain], lr=STILL, fused=True)
    dt = 0.2 / TRAINING_STEPS
    kick = float(np.sqrt(2.0 * dt))

    def run():
        torch.set_num_threads(threads)
        chosen = torch.randint(SAMPLES, (BATCH,))
        optimiser.zero_grad()
        fields, both, x = torch.addmm(b, inputs[chosen], w), half + half.T, torch.zeros(BATCH, UNITS)
        for _ in range(TRAINING_STEPS):
            force = torch.addmm(fields, x, both) + x * (TWO_J2 + FOUR_J4 * x * x)
            x = x - dt * force + kick * torch.randn(BATCH, UNITS)
        loss = torch.nn.functional.cross_entropy(gain * x[:, -OUTPUTS:], labels[chosen])
        loss.backward()
        optimiser.step()
        return loss.detach().numpy().reshape(1)

    return run


def jax_adjoint():
    """A scan, its gradient by reverse mode, and Adam; compiled whole."""
    import jax
    import jax.numpy as jnp

    inputs, weights, bias, j = machine(np.float32)
    scale = np.sqrt(INPUTS) / np.linalg.norm(inputs, axis=1, keepdims=True)
    inputs, labels = jnp.asarray(inputs * scale.astype(np.float32)), jnp.arange(SAMPLES) % OUTPUTS
    dt = 0.2 / TRAINING_STEPS
    kick = float(np.sqrt(2.0 * dt))

    def loss(parameters, chosen, key):
        w, b, half, gain = parameters
        fields, both = inputs[chosen] @ w + b, half + half.T

        def step(x, z):
            return x - dt * (fields + x @ both + x * (TWO_J2 + FOUR_J4 * x * x)) + kick * z, None

        normals = jax.random.normal(key, (TRAINING_STEPS, BATCH, UNITS))
        x, _ = jax.lax.scan(step, jnp.zeros((BATCH, UNITS)), normals)
        logits = jax.nn.log_softmax(gain * x[:, -OUTPUTS:])
        return -logits[jnp.arange(BATCH), labels[chosen]].mean()

    @jax.jit
    def update(parameters, first, second, key):
        draw, key = jax.random.split(key)
        chosen = jax.random.randint(draw, (BATCH,), 0, SAMPLES)
        value, slope = jax.value_and_grad(loss)(parameters, chosen, key)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
        parameters = jax.tree.map(lambda p, m, v: p - STILL * m / (jnp.sqrt(v) + 1e-8), parameters, first, second)
        return value, parameters, first, second, key

    parameters = [jnp.asarray(a) for a in (weights, bias, np.tril(j), np.ones(1, np.float32))]
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = [parameters, zeros, zeros, jax.random.PRNGKey(1)]

    def run():
        value, *state[:] = jax.block_until_ready(update(*state))
        return np.asarray(value).reshape(1)

    return run


CORES = os.cpu_count() or 1
# The threads of BLAS and OpenMP spin for a tenth of a second after their work, and would take the cores from whoever is
# next: so each turn begins with a pause of so many seconds, and short jobs run a few times.
PAUSE = 0.3
JOBS = {
    "classification": {
        "ours": ours_classify,
        "ours, float64": lambda: ours_classify(np.float64),
        **{f"PyTorch, {n}": functools.partial(torch_classify, n) for n in (1, CORES)},
        **{f"PyTorch compiled, {n}": functools.partial(torch_classify, n, True) for n in (1, CORES)},
        "JAX": jax_classify,
        "NumPy": numpy_classify,
        "naive Numba": naive_numba_classify,
    },
    "action gradient": {
        "ours": ours_action,
        "ours, float64": lambda: ours_action(np.float64),
        **{f"PyTorch by hand, {n}": functools.partial(torch_action_by_hand, n) for n in (1, CORES)},
        **{f"PyTorch autograd, {n}": functools.partial(torch_action, n) for n in (1, CORES)},
        "JAX": jax_action,
    },
    "teacher": {
        "ours": ours_teacher,
        "ours, float64": lambda: ours_teacher(np.float64),
        **{f"PyTorch by our sums, {n}": functools.partial(torch_teacher, n, False) for n in (1, CORES)},
        **{f"PyTorch autograd, {n}": functools.partial(torch_teacher, n, True) for n in (1, CORES)},
    },
    "adjoint": {
        "ours": ours_adjoint,
        "ours, float64": lambda: ours_adjoint(np.float64),
        **{f"PyTorch autograd, {n}": functools.partial(torch_adjoint, n) for n in (1, CORES)},
        "JAX": jax_adjoint,
    },
}
ENTRIES = [(job, name) for job, entries in JOBS.items() for name in entries]


def check(job, result, truth):
    """Peers must compute what ours does: the same gradient, and outputs of the same distribution."""
    if job == "classification":
        error = 5.0 * np.sqrt(2.0 * truth.var(axis=0) / SAMPLES)
        assert np.all(np.abs(result.mean(axis=0) - truth.mean(axis=0)) < error)
        np.testing.assert_allclose(result.std(axis=0), truth.std(axis=0), rtol=0.05)
    elif job == "adjoint":  # other images, other noise: the same loss but for chance
        np.testing.assert_allclose(result, truth, rtol=0.5)
    else:
        for mine, theirs in zip(result, truth, strict=True):
            off = ~np.eye(UNITS, dtype=bool) if mine.shape == (UNITS, UNITS) else slice(None)
            np.testing.assert_allclose(mine[off], theirs[off], rtol=0, atol=2e-3 * np.abs(theirs).max())


@pytest.mark.parametrize(("job", "name"), ENTRIES)
def test_computer(benchmark, job, name):
    if not turns.installed(name):
        pytest.skip("not installed")
    run = JOBS[job][name]()
    check(job, run(), JOBS[job]["ours, float64"]()())
    time.sleep(PAUSE)
    benchmark.pedantic(run, rounds=3 if job == "classification" else 20)
    benchmark.extra_info["flops"] = FLOPS[job]


def peak():
    """The product that shows the peak."""
    a = np.random.default_rng(1).normal(size=(2, 2048, 2048)).astype(np.float32)
    out = np.empty((2048, 2048), np.float32)
    return lambda: np.matmul(a[0], a[1], out=out)


def measure(job, rounds):
    """Median seconds of every entry and of the peak's product, round by round in turn."""
    runs = {name: make() for name, make in JOBS[job].items() if turns.installed(name)}
    truth = runs["ours, float64"]()
    for run in runs.values():
        check(job, run(), truth)
    entries = {name: (run, 1) for name, run in (runs | {"peak": peak()}).items()}
    return turns.measure(entries, rounds, PAUSE, 1 if job == "classification" else 20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(turns.machine())
    for job in JOBS:
        times = measure(job, arguments.rounds)
        rate = 2 * 2048**3 / times.pop("peak")
        print()
        turns.table(job, {"ms": times}, "ours", 1e3)
        if job == "classification":
            print(f"ours: {SAMPLES / times['ours']:,.0f} a second")
        reached = FLOPS[job] / times["ours"]
        print(f"ours: {reached / 1e9:.0f} GFLOP/s of {rate / 1e9:.0f}, {reached / rate:.0%} of the peak")
    print("\nratio: to ours; the number after a peer is that of its threads")


if __name__ == "__main__":
    main()
