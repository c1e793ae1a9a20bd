"""One cycle of a machine: its inputs and couplings are switched on, it evolves and is read, and it is reset."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import integrate

from thermorun.arrays import Array
from thermorun.computer.machine import Machine, Physics
from thermorun.streams import Streams

# Work is done in the first and the third, at fixed x; heat flows in the others, at fixed potential.
STAGES = ("switch on", "evolve", "switch off", "relax")
# Relaxation times that a reset takes by default.
_TIMES = 5.0
# Beyond so many kT above the bottom of a well its Boltzmann factor is nothing.
_HIGH = 60.0


class Cycle(NamedTuple):
    """Outputs (images, classes) at the observation time; the rest float64 (images, stages), in energy.

    ``energy_change`` is the difference of the energies of the states at both ends of a stage.
    """

    output: Array
    work: Array
    heat: Array
    energy_change: Array


def uncoupled(machine: Machine) -> Machine:
    """The machine with nothing but its wells."""
    nothing = {name: np.zeros_like(getattr(machine, name)) for name in ("input_couplings", "couplings", "bias")}
    return replace(machine, **nothing)


def interaction(machine: Machine, x: Array, fields: Array) -> Array:
    """V(x) without its wells, h.x + x.J x / 2, float64 (points,)."""
    x, fields = np.asarray(x, np.float64), np.asarray(fields, np.float64)
    total: Array = np.einsum("ij,ij->i", fields + 0.5 * (x @ machine.couplings), x)
    return total


def run_cycle(
    machine: Machine, fields: Array, reset_steps: int, stream: Streams, pause: Callable[[], None] = lambda: None
) -> Cycle:
    """One noisy cycle an image, from x = 0 in the bare wells to ``reset_steps`` after the read-out.

    What the kernel sums up step by step is the heat; works are of V at fixed x; changes are of the states' energies, so
    that the first law, change = work + heat, is a test and not a definition.  Raises RunError where one diverges.
    """
    bare, off = uncoupled(machine), np.zeros_like(fields)
    start = np.zeros_like(fields)
    evolved = machine.run(fields, seed=stream, pause=pause)
    rested = bare.run(off, steps=reset_steps, x=evolved.x, first=machine.physics.steps, seed=stream, pause=pause)
    nothing = np.zeros(len(fields))
    states = ((bare, start, off), (machine, start, fields), (machine, evolved.x, fields), (bare, evolved.x, off),
              (bare, rested.x, off))  # fmt: skip
    energies = np.stack([one.energy(x, h) for one, x, h in states], axis=1)
    on, back = interaction(machine, start, fields), -interaction(machine, evolved.x, fields)
    return Cycle(
        evolved.x[:, machine.hidden :],
        np.stack([on, nothing, back, nothing], axis=1),
        np.stack([nothing, evolved.heat, nothing, rested.heat], axis=1),
        np.diff(energies, axis=1),
    )


def bare_mean(physics: Physics, observable: Callable[[float], float]) -> float:
    """The mean of a function of x in one bare well in equilibrium, by quadrature.

    The wells are even: half a line is enough, out to where V is 60 kT above its bottom.
    """
    p = physics

    def well(x: float) -> float:
        return p.J2 * x**2 + p.J4 * x**4

    bottom = np.sqrt(max(-p.J2 / (2 * p.J4), 0.0)) if p.J4 else 0.0
    level = well(bottom) + _HIGH * p.kT
    squares = np.roots([p.J4, p.J2, -level]) if p.J4 else np.array([level / p.J2])
    far = float(np.sqrt(squares.real.max()))

    def mean_of(f: Callable[[float], float]) -> float:
        value, _ = integrate.quad(
            lambda x: f(x) * np.exp(-(well(x) - well(bottom)) / p.kT), 0.0, far, points=[bottom, far / 8], limit=200,
            epsabs=0.0, epsrel=1e-10,
        )  # fmt: skip
        return float(value)

    return mean_of(observable) / mean_of(lambda x: 1.0)


def rest_energy(physics: Physics) -> float:
    """The mean energy of one bare well in equilibrium: what a reset machine holds in each unit."""
    return bare_mean(physics, lambda x: physics.J2 * x**2 + physics.J4 * x**4)


def reset_steps(physics: Physics, time: float | None) -> int:
    """Steps of a reset; by default five relaxation times 1 / (mu <V''>) of a bare well, <V''> in equilibrium."""
    if time is None:
        stiffness = bare_mean(physics, lambda x: 2 * physics.J2 + 12 * physics.J4 * x**2)
        time = _TIMES / (physics.mobility * stiffness)
    return max(1, int(np.ceil(time / physics.dt - 1e-9)))
