"""Likelihoods of models of many hidden bits: against enumeration, and against a restricted Boltzmann machine.

    python bench/bench_bits.py --enumeration
    python bench/bench_bits.py --machine [--seconds 40]

The first trains tied models of 16, 18 and 20 bits on MNIST, and puts the estimate from five seeds beside log Z from all
2^L states.  It needs MNIST.
"""

import argparse
import time

import numpy as np

from thermorun import cycles, datasets
from thermorun.cycles.diagnostics import spread_out
from thermorun.cycles.likelihood import CHAINS, bits_of, log_likelihoods
from thermorun.threads import on_threads

SETTINGS = {
    "dataset": "mnist", "encoding": "bits", "models": 1, "steps_per_epoch": 100, "chain_steps": 192, "minibatch": 160,
    "learning_rate": 0.01, "final_rate": 1e-4, "decay": 0.99, "threads": 1, "samples": 8, "keep_every": 10**6,
}  # fmt: skip


def log_factor(model):
    """log Z of a tied model from all 2^L states."""
    w, a = model.w.astype(float), model.a.astype(float)
    shift = model.abar.astype(float) - w @ model.mean.astype(float)
    parts = []
    for states in np.array_split(np.arange(2**model.hidden, dtype=np.uint64), max(1, 2 ** (model.hidden - 12))):
        on = bits_of(states, model.hidden).astype(float)
        parts.append(np.logaddexp.reduce(on @ shift + np.logaddexp(0.0, on @ w + a).sum(axis=1)))
    return np.logaddexp.reduce(parts)


def unnormalised(model, x):
    """Mean of log Z p(x) of a tied model."""
    w, a = model.w.astype(float), model.a.astype(float)
    shift = model.abar.astype(float) - w @ model.mean.astype(float)
    each = [np.logaddexp(0.0, part @ w.T + shift).sum(axis=1) + part @ a for part in np.array_split(x, 20)]
    return np.concatenate(each).mean()


def enumeration():
    """Estimate less truth of tied models on MNIST, five seeds."""
    print("bits   exact / nat   estimate less exact, five seeds / nat                    error  gain  CPU s")
    for hidden in (16, 18, 20):
        result = cycles.train(hidden=hidden, tied=True, epochs=30, **SETTINGS)
        model, x = result.model(0), result.data.x
        truth = unnormalised(model, x) - log_factor(model)
        began = time.process_time()
        with on_threads(1):
            found = [log_likelihoods(model, [x], spread_out(x, CHAINS), 64_000, seed)[0] for seed in range(5)]
        seconds = (time.process_time() - began) / 5
        print(
            f"{hidden:4d} {truth:12.3f}   " + "  ".join(f"{one.mean - truth:+.4f}" for one in found),
            f"      {np.mean([one.stderr for one in found]):.3f} {np.mean([one.gain for one in found]):+.3f}"
            f" {seconds:.1f}", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--enumeration", action="store_true")
    given = parser.parse_args()
    enumeration()
