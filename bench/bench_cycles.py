"""Latent cycles: our kernels beside straightforward NumPy and PyTorch, in one run.

    python bench/bench_cycles.py [--study] [--out table.json]

Sampling: double steps per second of 1,024 chains, (D, L) = (784, 6) one-hot and (784, 64) bits.  The study: 36 models
at the paper's settings, training and diagnostics, the NumPy implementation timed on one model and a few epochs of it.
"""

import argparse
import json
import os
import platform
import time

import numba
import numpy as np

from thermokernels import chains, latent_cycle
from thermorun import cycles, datasets
from thermorun.cycles.model import Model, initial_row, kernel_options, parameter_count

CHAINS = 1024


# ------------------------------------------------------------------------------------------------ NumPy, vectorised


def sigmoid(f):
    return 1.0 / (1.0 + np.exp(-f))


def numpy_double_step(x, model, rng):
    """All chains at once; float32 throughout, as fast as plain NumPy gets."""
    h = (x - model.mean) @ model.wbar.T + model.abar
    if model.encoding == "bits":
        z = (rng.random(h.shape, np.float32) < sigmoid(h)).astype(np.float32)
        f = z @ model.w + model.a
        return (rng.random(x.shape, np.float32) < sigmoid(f)).astype(np.float32)
    p = np.exp(h - h.max(axis=1, keepdims=True))
    p = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
    z = np.minimum((rng.random((len(x), 1), np.float32) > p).sum(axis=1), p.shape[1] - 1)
    return (rng.random(x.shape, np.float32) < sigmoid(model.w)[z]).astype(np.float32)


class NumpyStudy:
    """One softmax model trained as the paper says, with array operations wherever there is something to vectorise."""

    def __init__(self, data, seed, hidden=6, steps=48, rate=0.1):
        self.rng = np.random.default_rng(seed)
        self.data, self.mean = data.astype(np.float64), data.mean(axis=0)
        visible = data.shape[1]
        model = Model("softmax", hidden, initial_row(data, "softmax", hidden, seed, np.float64), self.mean)
        self.w, self.wbar, self.abar = model.w.copy(), np.zeros((hidden, visible)), np.zeros(hidden)
        self.squares = [np.zeros_like(p) for p in (self.w, self.wbar, self.abar)]
        self.x = self.data[0]
        self.steps, self.rate, self.hidden = steps, rate, hidden

    def probabilities(self, x):
        h = (x - self.mean) @ self.wbar.T + self.abar
        p = np.exp(h - h.max(axis=-1, keepdims=True))
        return p / p.sum(axis=-1, keepdims=True)

    def log_forward(self, x):
        return x @ self.w.T - np.logaddexp(0, self.w).sum(axis=1)

    def step(self, size):
        mu = sigmoid(self.w)
        xs, zs, ps = (
            np.empty((self.steps, len(self.mean))),
            np.empty(self.steps, int),
            np.empty((self.steps, self.hidden)),
        )
        for t in range(self.steps):
            xs[t], ps[t] = self.x, self.probabilities(self.x)
            zs[t] = self.rng.choice(self.hidden, p=ps[t])
            self.x = (self.rng.random(len(self.mean)) < mu[zs[t]]).astype(float)
        batch = self.data[self.rng.integers(0, len(self.data), size)]
        visits = np.bincount(zs, minlength=self.hidden)
        with np.errstate(divide="ignore"):
            logs = self.log_forward(batch) + np.log(visits / self.steps)
        top = logs.max(axis=1, keepdims=True)
        r = np.exp(logs - top)
        r /= r.sum(axis=1, keepdims=True)
        share = r.mean(axis=0)
        g_w = r.T @ batch / size - share[:, None] * mu
        slopes = (np.eye(self.hidden)[zs] - ps) * (share / np.maximum(visits, 1))[zs][:, None]
        gradients = (g_w, slopes.T @ (xs - self.mean), slopes.sum(axis=0))
        for p, s, g in zip((self.w, self.wbar, self.abar), self.squares, gradients, strict=True):
            s += 0.1 * (g * g - s)
            p += self.rate * g / (np.sqrt(s) + 1e-8)

    def diagnose(self, samples):
        """M from ``samples`` images a state, sigma, and the likelihood of all data."""
        mu = sigmoid(self.w)
        m = np.array(
            [self.probabilities((self.rng.random((samples, len(row))) < row).astype(float)).mean(axis=0) for row in mu]
        )
        values, vectors = np.linalg.eig(m.T)
        p = np.abs(vectors[:, np.argmax(values.real)].real)
        p /= p.sum()
        flow = np.maximum(p[:, None] * m, 1e-300)
        sigma = 0.5 * ((flow - flow.T) * np.log(flow / flow.T)).sum()
        logs = self.log_forward(self.data) + np.log(np.maximum(p, 1e-300))
        top = logs.max(axis=1)
        return sigma, (top + np.log(np.exp(logs - top[:, None]).sum(axis=1))).mean()

    def count(self, steps):
        """Counts ``steps`` transitions on 32 chains at once."""
        mu = sigmoid(self.w)
        x = self.data[:32]
        counts = np.zeros((self.hidden, self.hidden), int)
        before = None
        for _ in range(steps // 32):
            p = np.cumsum(self.probabilities(x), axis=1)
            z = np.minimum((self.rng.random((len(x), 1)) > p).sum(axis=1), self.hidden - 1)
            if before is not None:
                np.add.at(counts, (before, z), 1)
            before = z
            x = (self.rng.random(x.shape) < mu[z]).astype(float)
        return counts


# ---------------------------------------------------------------------------------------------------------- sampling


def rate(function, chain_steps, seconds=1.0, repeats=3):
    """Chain double steps per second, the best of a few repeats; ``function(n)`` does n double steps of all chains."""
    function(1)
    began = time.perf_counter()
    function(2)
    each = (time.perf_counter() - began) / 2
    n = max(2, int(seconds / max(each, 1e-9)))
    best = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        function(n)
        best = max(best, n * chain_steps / (time.perf_counter() - began))
    return best


def example(encoding, hidden, visible=784):
    random = np.random.default_rng(0)
    row = (0.1 * random.normal(size=parameter_count(hidden, visible))).astype(np.float32)
    return Model(encoding, hidden, row, np.full(visible, 0.5, np.float32))


def sampling(encoding, hidden):
    model = example(encoding, hidden)
    start = (np.random.default_rng(1).random((CHAINS, model.visible)) < 0.5).astype(np.uint8)
    results = {}
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):
        numba.set_num_threads(threads)
        visible = start.copy()

        def ours(n, visible=visible):
            states = np.empty((CHAINS, n), np.uint64)
            options = kernel_options(encoding, hidden=hidden)
            chains.run_chains(model.row, options, model.mean, visible, 0, np.uint64(1), latent_cycle.SAMPLE, states)

        results[f"ours, {threads} threads"] = rate(ours, CHAINS)
    x = [start.astype(np.float32)]
    rng = np.random.Generator(np.random.SFC64(0))

    def plain(n):
        for _ in range(n):
            x[0] = numpy_double_step(x[0], model, rng)

    results["NumPy"] = rate(plain, CHAINS)
    try:
        import torch
    except ImportError:
        return results
    w, wbar, a, abar, mean = (
        torch.from_numpy(np.ascontiguousarray(v)) for v in (model.w, model.wbar, model.a, model.abar, model.mean)
    )
    mu = torch.sigmoid(w)

    def torched(n):
        with torch.inference_mode():
            t = torch.from_numpy(start.astype(np.float32))
            for _ in range(n):
                h = torch.addmm(abar - mean @ wbar.T, t, wbar.T)
                if encoding == "bits":
                    z = (torch.rand_like(h) < torch.sigmoid(h)).float()
                    t = (torch.rand_like(t) < torch.sigmoid(torch.addmm(a, z, w))).float()
                else:
                    z = torch.multinomial(torch.softmax(h, 1), 1)[:, 0]
                    t = (torch.rand_like(t) < mu[z]).float()

    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        results[f"PyTorch {torch.__version__}, {threads} threads"] = rate(torched, CHAINS)
    return results


def study(epochs=3):
    """Seconds of 36 models at the paper's settings; NumPy's from a sample of epochs of one model, times 36."""
    data = datasets.load("mnist-012")
    results = {}
    cycles.train(dataset="mnist-012", models=2, epochs=1, count_steps=100, samples=16)  # compile
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}, reverse=True):
        began = time.perf_counter()
        result = cycles.train(dataset="mnist-012", threads=threads)
        results[f"ours, {threads} threads"] = time.perf_counter() - began
        results[f"ours, {threads} threads, epochs alone"] = result.train_seconds
    spec = result.spec
    plain = NumpyStudy(data.x, 0)
    seconds = 0.0
    chosen = np.linspace(0, spec.epochs - 1, epochs).astype(int)
    for epoch in chosen:
        began = time.perf_counter()
        for size in spec.sizes(int(epoch)):
            plain.step(int(size))
        plain.diagnose(spec.epoch_samples)
        seconds += time.perf_counter() - began
    each = seconds / epochs * spec.epochs
    began = time.perf_counter()
    plain.diagnose(spec.samples)
    plain.count(spec.count_steps)
    each += time.perf_counter() - began
    results[f"NumPy, from {epochs} of {spec.epochs} epochs of one model"] = each * spec.models
    return results


def expectation_maximisation(states=64, points=20_000):
    """CPU seconds a pass of EM over 784 bits a point, the best of three, and the largest difference of log p."""
    from threadpoolctl import threadpool_limits

    from thermokernels.mixture import expectation
    from thermorun.cycles.mixture import random_start

    x = (np.random.default_rng(0).random((points, 784)) < 0.15).astype(np.uint8)
    logits, constants = random_start(x, states, 0, 0).terms(np.float32)
    sums, weights, log_p = np.empty((64, states, 784)), np.empty((64, states)), np.empty(points)
    numbers = x.astype(np.float32)
    answer = [log_p]

    def ours():
        expectation(x, logits, constants, sums, weights, log_p)

    def plain():
        logs = numbers @ logits.T + constants.astype(np.float32)
        top = logs.max(axis=1, keepdims=True)
        shares = np.exp(logs - top)
        total = shares.sum(axis=1, keepdims=True)
        shares /= total
        answer[0] = (top + np.log(total))[:, 0]
        return shares.sum(axis=0), shares.T @ numbers

    results = {}
    with threadpool_limits(1):
        for name, function in (("ours", ours), ("NumPy, one BLAS thread", plain)) * 3:
            function()
            began = time.process_time()
            function()
            results[name] = min(results.get(name, np.inf), time.process_time() - began)
    results["largest difference of log p / nat"] = float(np.abs(answer[0] - log_p).max())
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--study", action="store_true", help="the 36-model study too (needs MNIST)")
    parser.add_argument("--out", help="write the table as JSON")
    given = parser.parse_args()
    tables = {
        "machine": {"processor": platform.processor(), "cpus": os.cpu_count(), "system": platform.platform()},
        "sampling (784, 6) softmax, chain double steps/s": sampling("softmax", 6),
        "sampling (784, 64) bits, chain double steps/s": sampling("bits", 64),
    }
    for states in (6, 64):
        tables[f"EM, {states} states, 20,000 points, CPU seconds a pass"] = expectation_maximisation(states)
    if given.study:
        tables["36 models, seconds"] = study()
    for title, table in tables.items():
        print(title)
        for name, value in table.items():
            print(f"    {name:48s} {value:.4g}" if isinstance(value, float) else f"    {name:48s} {value}")
    if given.out:
        with open(given.out, "w") as stream:
            json.dump(tables, stream, indent=1)


if __name__ == "__main__":
    main()
