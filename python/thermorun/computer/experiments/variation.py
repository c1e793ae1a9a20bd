"""Devices: the same machine built with parameters that spread, or that come in few bits."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from thermokernels.random import fill_normals
from thermorun.arrays import Array
from thermorun.computer.machine import Machine
from thermorun.streams import Streams


@dataclass(frozen=True)
class Genome:
    """What can be programmed into a machine, as one vector: couplings to inputs, to each other (i > j), biases.

    ``kinds`` intp (parameters,): 0, 1, 2 for these; couplings that the mask forbids are none.
    """

    machine: Machine
    kinds: Array

    @classmethod
    def of(cls, machine: Machine) -> "Genome":
        """Of a machine."""
        inputs, pairs = _places(machine)
        return cls(machine, np.repeat([0, 1, 2], [len(inputs[0]), len(pairs[0]), machine.units]))

    @property
    def vector(self) -> Array:
        """The machine's own parameters, float64 (parameters,)."""
        inputs, pairs = _places(self.machine)
        parts = self.machine.input_couplings[inputs], self.machine.couplings[pairs], self.machine.bias
        return np.concatenate(parts)

    @property
    def sizes(self) -> Array:
        """The root mean square of its kind, for each parameter (parameters,)."""
        return self._of_kinds(lambda values: float(np.sqrt(np.mean(values**2))))

    @property
    def ranges(self) -> Array:
        """The largest size of its kind, for each parameter (parameters,)."""
        return self._of_kinds(lambda values: float(np.abs(values).max()))

    def build(self, vector: Array) -> Machine:
        """The machine with these parameters."""
        inputs, pairs = _places(self.machine)
        first, second = len(inputs[0]), len(inputs[0]) + len(pairs[0])
        W, J = np.zeros_like(self.machine.input_couplings), np.zeros_like(self.machine.couplings)
        W[inputs] = vector[:first]
        J[pairs] = vector[first:second]
        return replace(self.machine, input_couplings=W, couplings=J + J.T, bias=vector[second:])

    def _of_kinds(self, size: Callable[[Array], float]) -> Array:
        vector, found = self.vector, np.zeros(len(self.kinds))
        for kind in range(3):
            mine = self.kinds == kind
            if mine.any():
                found[mine] = size(vector[mine])
        return found


def deviations(parameters: int, stream: Streams) -> Array:
    """Standard normals, one a parameter, of one device or one mutant."""
    found = np.empty(parameters)
    seed, number = stream.take()
    fill_normals(found, seed, number, 0)
    return found


def spread(vector: Array, sizes: Array | None, level: float, normals: Array) -> Array:
    """What a device has in the place of what was programmed into it.

    p (1 + level z) where ``sizes`` is None, else p + level s z.
    """
    scale = vector if sizes is None else sizes
    found: Array = vector + level * scale * normals
    return found


def quantised(vector: Array, ranges: Array, bits: int) -> Array:
    """The nearest of 2^bits - 1 evenly spaced values from -range to range: zero, and as many below as above."""
    step = ranges / (2 ** (bits - 1) - 1)
    safe = np.where(step > 0, step, 1.0)
    found: Array = np.round(vector / safe) * step
    return found


def _places(machine: Machine) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Where couplings exist: to inputs, and among units below the diagonal."""
    allowed = machine.allowed
    return np.nonzero(allowed[:, : machine.inputs]), np.nonzero(np.tril(allowed[:, machine.inputs :], -1))
