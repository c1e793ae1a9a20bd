"""Gradients of a mean work by every theta on the path: ours beside JAX and a drive of the same ensemble, in one run.

``python bench/bench_protocol.py`` takes turns between entries and prints medians and ratios in ns a particle-step;
``pytest -n 0 bench/bench_protocol.py`` times each with pytest-benchmark.

Every entry takes the same Euler-Maruyama steps in E = barrier (x^2 - 1)^2 + tilt x while the tilt goes from 0 to 1, in
float64, draws its own noise, and gives the mean work and its derivative by theta at every step.  JAX's is a scan,
differentiated in reverse and compiled, once as it comes (it stores all states), once with checkpoints of sqrt(steps).
"one drive" is the forward pass that the cost of a gradient is counted in.
"""

import argparse
import math

import numpy as np
import pytest
from turns import installed, machine, measure, table

import thermorun as tr
from thermorun.potentials import gradients
from thermorun.protocol.objectives import Work
from thermorun.streams import Noise

DT, STEPS = 0.005, 225  # 15 x 15, for JAX's nested scan
PATH = np.stack([np.ones(STEPS + 1), np.linspace(0, 1, STEPS + 1)], axis=1)


def _ours(particles):
    system, x = tr.System("double-well"), np.zeros((1, 1, particles))
    objective = Work(1.0, None).search
    return lambda: gradients.path_gradient(system, x, PATH, DT, "euler-maruyama", Noise.of(1), objective)


def _drive(particles):
    system, x = tr.System("double-well"), np.zeros((1, 1, particles))
    return lambda: system.drive(x, PATH, dt=DT, integrator="euler-maruyama", seed=1)


def _jax(checkpoints):
    def make(particles):
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)
        import jax.numpy as jnp

        def energy(x, theta):
            return theta[0] * (x * x - 1.0) ** 2 + theta[1] * x

        def step(carry, inputs):
            x, work, key = carry
            old, new = inputs
            key, own = jax.random.split(key)
            work = work + energy(x, new) - energy(x, old)
            force = -4.0 * new[0] * x * (x * x - 1.0) - new[1]
            x = x + DT * force + math.sqrt(2 * DT) * jax.random.normal(own, x.shape, jnp.float32)
            return (x, work, key), None

        def mean_work(path, key):
            inputs, carry = (path[:-1], path[1:]), (jnp.zeros(particles), jnp.zeros(particles), key)
            if checkpoints:
                size = math.isqrt(STEPS)
                cut = tuple(one.reshape(size, size, 2) for one in inputs)
                inner = jax.checkpoint(lambda carry, inputs: jax.lax.scan(step, carry, inputs))
                (_, work, _), _ = jax.lax.scan(inner, carry, cut)
            else:
                (_, work, _), _ = jax.lax.scan(step, carry, inputs)
            return jnp.mean(work)

        compiled = jax.jit(jax.value_and_grad(mean_work))
        path, key = jnp.asarray(PATH), jax.random.PRNGKey(1)
        return lambda: jax.block_until_ready(compiled(path, key))

    return make


ENTRIES = {
    "ours": _ours,
    "one drive": _drive,
    "JAX, scan and grad": _jax(False),
    "JAX, with checkpoints": _jax(True),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_gradient(benchmark, name):
    if not installed(name):
        pytest.skip("not installed")
    run = ENTRIES[name](2**16)
    run()
    benchmark(run)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=2**16)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    work = chosen.particles * STEPS
    entries = {name: (make(chosen.particles), work) for name, make in ENTRIES.items() if installed(name)}
    print(machine())
    table("gradient by the path", {"ns": measure(entries, chosen.rounds, pause=0.1)}, "ours", 1e9)


if __name__ == "__main__":
    main()
