"""Kernels whose speed is told, and peers that do the same: functions without arguments, made when they are wanted."""

import importlib.util
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np

import thermorun as tr

Run = Callable[[], Any]
# What a peer needs, by the first word of an entry's name.
NEEDS = {"PyTorch": "torch", "JAX": "jax"}
PARTICLES = 2**20
# The trap in steps of this much time, exactly: x' = x + PULL (theta - x) + KICK z.
_DT = 0.005
PULL, KICK = -np.expm1(-_DT), np.sqrt(-np.expm1(-2 * _DT))
_PLACE = (np.uint64(1), np.uint64(1))
# Operations of a normal: Philox4x32-10 has 49 for four words, Box-Muller 40 for two normals.
_NORMAL = 49 / 4 + 20
_UNITS, _INPUTS, _SAMPLES, _READ = 74, 784, 2000, 200


def installed(name: str) -> bool:
    """Whether the library is there that an entry of this name needs."""
    return all(importlib.util.find_spec(module) for peer, module in NEEDS.items() if name.startswith(peer))


def take_turns(
    entries: dict[str, tuple[Run, float]], rounds: int, pause: float = 0.0, repeats: int = 1
) -> dict[str, float]:
    """Median seconds per unit of work of every entry, round by round in turn, after one call to warm up.

    ``entries`` maps a name to (function, work).  Each turn begins with ``pause`` seconds of rest, for threads of other
    libraries that still spin; short functions are called ``repeats`` times.
    """
    times: dict[str, list[float]] = {name: [] for name in entries}
    for run, _ in entries.values():
        run()
    for _ in range(rounds):
        for name, (run, work) in entries.items():
            time.sleep(pause)
            for _ in range(repeats):
                began = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - began) / work)
    return {name: float(np.median(values)) for name, values in times.items()}


# --- Entries: functions without arguments -----------------------------------------------------------------------------


def open_loop(particles: int, steps: int, dtype: Any) -> Run:
    """The trap's ensemble along a straight path; each particle's work and heat."""
    from thermokernels import random, trap

    x, work, heat = np.zeros((1, particles), dtype), np.zeros((1, particles)), np.zeros((1, particles))
    table, theta = np.tile([0.0, PULL, KICK], (steps, 1)), np.linspace(0, 1, steps + 1)[None].copy()
    record = np.empty((1, 1, particles // random.BLOCK, len(trap.DRIVE_COLUMNS)))
    return lambda: trap.drive(x, work, heat, particles, 0, table, theta, _PLACE, np.array([steps - 1]), record)


def closed_loop(particles: int, steps: int, dtype: Any) -> Run:
    """The trap's ensemble while theta is learned; work and heat of the whole."""
    from thermokernels import random, trap

    x, blocks = np.zeros((1, particles), dtype), particles // random.BLOCK
    table, target, state = np.tile([_DT, PULL, KICK], (steps, 1)), np.ones((steps, 1)), np.zeros((1, 2))
    sums, responses = np.zeros((1, blocks, 3)), np.zeros((1, 4, blocks))
    trace = np.empty((steps, 1, len(trap.LEARN_COLUMNS)))
    return lambda: trap.learn(x, particles, 0, table, target, _PLACE, state, sums, responses, trace)


def numpy_loop(particles: int, steps: int, dtype: Any) -> Run:
    """The same path in array operations, with each particle's work."""
    rng, x, work = np.random.default_rng(1), np.zeros(particles, dtype), np.zeros(particles)
    z, theta = np.empty(particles, dtype), np.linspace(0, 1, steps + 1)
    pull, kick = dtype(PULL), dtype(KICK)

    def run() -> None:
        for old, new in itertools.pairwise(theta):
            np.add(work, (new - old) * (dtype(0.5 * (old + new)) - x), out=work)
            rng.standard_normal(out=z, dtype=dtype)
            x[...] += pull * (dtype(new) - x) + kick * z

    return run


def torch_loop(particles: int, steps: int, dtype: Any) -> Run:
    """The same by PyTorch."""
    import torch

    torch.set_num_threads(numba.get_num_threads())
    kind = torch.float32 if dtype == np.float32 else torch.float64
    x, work = torch.zeros(particles, dtype=kind), torch.zeros(particles, dtype=torch.float64)
    z, theta = torch.empty(particles, dtype=kind), np.linspace(0, 1, steps + 1).tolist()

    def run() -> None:
        for old, new in itertools.pairwise(theta):
            work.add_(0.5 * (old + new) - x, alpha=new - old)
            z.normal_()
            x.mul_(1 - PULL).add_(PULL * new).add_(z, alpha=KICK)

    return run


def jax_scan(particles: int, steps: int, dtype: Any) -> Run:
    """The same by JAX, compiled."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def step(carry: Any, pair: Any) -> Any:
        x, work, key = carry
        old, new = pair
        key, mine = jax.random.split(key)
        work = work + ((new - old) * (0.5 * (old + new) - x)).astype(jnp.float64)
        x = x + dtype(PULL) * (new - x) + dtype(KICK) * jax.random.normal(mine, x.shape, x.dtype)
        return (x, work, key), None

    theta = jnp.linspace(0, 1, steps + 1, dtype=dtype)
    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, (theta[:-1], theta[1:]))[0])
    start = (jnp.zeros(particles, dtype), jnp.zeros(particles), jax.random.key(1))
    return lambda: jax.block_until_ready(scan(start))


PEERS = {"NumPy": (numpy_loop, 5), "PyTorch": (torch_loop, 10), "JAX": (jax_scan, 10)}


def _normals() -> Run:
    from thermokernels import random

    out = np.empty(PARTICLES, np.float32)
    return lambda: random.fill_normals(out, *_PLACE, 0)


def _any_potential(name: str) -> Run:
    """Heun's steps of a built-in potential where it has no exact ones, at its own theta."""
    system = tr.System(name)
    x = system.equilibrium(system.potential.theta, PARTICLES // 16, replicas=1).astype(np.float32)
    path = np.tile(system.potential.theta, (101, 1))
    dt = system.time_step(system.potential.theta)
    return lambda: system.drive(x, path, dt=dt, integrator="heun", seed=1)


def _classify() -> Run:
    from thermokernels import network
    from thermorun.computer import Physics

    rng = np.random.default_rng(1)
    j = np.tril(rng.normal(0.0, 2.0, (_UNITS, _UNITS)), -1).astype(np.float32)
    couplings = network.dense(j + j.T)
    inputs = rng.normal(size=(_SAMPLES, _INPUTS)).astype(np.float32)
    weights = rng.normal(size=(_INPUTS, _UNITS)).astype(np.float32)
    physics = Physics().kernel

    def run() -> None:
        fields = inputs @ weights
        x, heat, status = np.zeros_like(fields), np.zeros(_SAMPLES), np.zeros(_SAMPLES, np.int64)
        none, paths = np.empty(0, np.intp), np.empty((0, _SAMPLES, _UNITS), np.float32)
        network.simulate(x, heat, status, fields, couplings, physics, (0, _READ), _PLACE, none, paths)

    return run


def _action() -> Run:
    """The gradient of the action of 128 trajectories of 200 steps."""
    from thermokernels import onsager_machlup
    from thermorun.computer import Physics

    rng = np.random.default_rng(2)
    paths = rng.normal(size=(_READ + 1, 128, _UNITS)).astype(np.float32)
    j = np.tril(rng.normal(0.0, 2.0, (_UNITS, _UNITS)), -1).astype(np.float32)
    fields = rng.normal(size=(128, _UNITS)).astype(np.float32)
    action, residuals, slope = np.empty(128), np.empty_like(fields), np.empty((_UNITS, _UNITS))
    physics = Physics().kernel
    return lambda: onsager_machlup.action_gradient(paths, fields, j + j.T, physics, action, residuals, slope)


def _chains() -> Run:
    from thermokernels import chains, latent_cycle
    from thermorun.cycles.model import Model, kernel_options, parameter_count

    rng = np.random.default_rng(0)
    row = (0.1 * rng.normal(size=parameter_count(6, 784))).astype(np.float32)
    model = Model("softmax", 6, row, np.full(784, 0.5, np.float32))
    visible, states = (rng.random((1024, 784)) < 0.5).astype(np.uint8), np.empty((1024, 20), np.uint64)
    options = kernel_options("softmax", hidden=6)
    return lambda: chains.run_chains(
        model.row, options, model.mean, visible, 0, np.uint64(1), latent_cycle.SAMPLE, states
    )


@dataclass(frozen=True)
class Entry:
    """A kernel: how to make a run of it, units of work a run, operations (None: not counted) and bytes of a unit."""

    make: Callable[[], Run]
    work: float
    unit: str
    operations: float | None = None
    bytes: float = 0.0


def entries() -> dict[str, Entry]:
    """What is measured on all threads, by name."""
    made = {"normals": Entry(_normals, PARTICLES, "normal", _NORMAL, 4)}
    for name in ("float32", "float64"):
        dtype = np.dtype(name).type
        # Open loop: 15 operations for move, work and heat; a block's 100 steps stay in cache.
        whole, part = partial(open_loop, PARTICLES, 100, dtype), partial(closed_loop, PARTICLES, 20, dtype)
        made[f"trap, {name}"] = Entry(whole, PARTICLES * 100, "particle-step", _NORMAL + 15)
        moved = 2 * np.dtype(name).itemsize
        made[f"trap learned, {name}"] = Entry(part, PARTICLES * 20, "particle-step", _NORMAL + 12, moved)
    from thermorun.potentials.built_in import NAMES

    for name in NAMES:
        work = PARTICLES // 16 * 100
        made[f"{name}, Heun"] = Entry(partial(_any_potential, name), work, "particle-step")
    operations = 2 * _INPUTS * _UNITS + _READ * (2 * _UNITS**2 + 44 * _UNITS)
    made["classification, 784-64-10"] = Entry(_classify, _SAMPLES, "image", operations)
    made["action's gradient, 784-64-10"] = Entry(_action, 128, "trajectory", _READ * (4 * _UNITS**2 + 14 * _UNITS))
    made["latent cycle, 784 and 6"] = Entry(_chains, 1024 * 20, "double step")
    return made
