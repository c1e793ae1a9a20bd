"""What a protocol can be chosen for: numbers that follow from means over an ensemble at the end of its path.

Each objective has two faces.  To a search it is a function of where the particles are and of their works, with its
derivatives by both; to a table it is a function of means (``moments``), which have an error.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from thermokernels import random
from thermorun import streams
from thermorun.arrays import Array
from thermorun.potentials import System

WORK, FREE_ENERGY, TARGET = "work", "free-energy", "target"
NAMES = (WORK, FREE_ENERGY, TARGET)
# Waves by which two distributions are told apart, and particles that say what they are in the target.
_WAVES, _DRAWS = 32, 2**17


@dataclass(frozen=True)
class Work:
    """The mean work, less ``delta_f`` where that is known [energy]; a search counts it in kT."""

    beta: float
    delta_f: float | None
    count = 0

    def search(self, x: Array, work: Array) -> tuple[float, Array, Array]:
        """Value and its derivatives by x (d, particles) and work (particles,), for a search."""
        return self.beta * float(np.mean(work)), np.zeros(x.shape), np.full(work.shape, self.beta / work.size)

    def moments(self, x: Array, work: Array) -> Array:
        """What is averaged besides the work, (count, particles)."""
        return np.empty((0, work.size))

    def value(self, means: Array) -> float:
        """The objective, of the mean work and the mean ``moments``, (1 + count,)."""
        return float(means[0]) - (self.delta_f or 0.0)


@dataclass(frozen=True)
class WorkVariance:
    """The variance of exp(-beta W) over its squared mean, which is 0 where every work is Delta F.

    With ``shift`` [energy] near Delta F no exponential overflows.  A search minimises the logarithm of 1 + that.
    """

    beta: float
    shift: float
    count = 2

    def search(self, x: Array, work: Array) -> tuple[float, Array, Array]:
        """See `Work.search`."""
        exponent = -self.beta * work
        first, second = logsumexp(exponent), logsumexp(2 * exponent)
        value = second - 2 * first + math.log(work.size)
        by_work = 2 * self.beta * (np.exp(exponent - first) - np.exp(2 * exponent - second))
        return float(value), np.zeros(x.shape), by_work

    def moments(self, x: Array, work: Array) -> Array:
        """See `Work.moments`."""
        weight = np.exp(-self.beta * (work - self.shift))
        return np.stack([weight, weight * weight])

    def value(self, means: Array) -> float:
        """See `Work.value`."""
        return float(means[2] / means[1] ** 2 - 1)


@dataclass(frozen=True, eq=False)
class Distance:
    """How far the particles end from a target distribution: the squared maximum mean discrepancy.

    Of a Gaussian kernel as wide as the target, by random Fourier features (Rahimi & Recht 2007): the mean over
    ``waves`` (waves, d) of |<exp(i k x)> - <exp(i k x)>_target|^2, 0 for equal distributions and at most 4.  ``wanted``
    (2 waves,) are the target's means of cosines, then sines.
    """

    waves: Array
    wanted: Array

    @classmethod
    def of(cls, system: System, end: Array, seed: int) -> "Distance":
        """To equilibrium at ``end``."""
        noise = streams.protocol(seed, "target", 0)
        x = system.equilibrium(end, _DRAWS, seed=noise)[0]
        waves = np.empty((_WAVES, len(x)))
        random.fill_normals(waves.reshape(-1), *streams.protocol(seed, "waves", 0).start.take(), 0)
        waves /= np.std(x, axis=1)
        return cls(waves, _features(waves, x).mean(axis=1))

    @property
    def count(self) -> int:
        """How many moments there are."""
        return len(self.wanted)

    def search(self, x: Array, work: Array) -> tuple[float, Array, Array]:
        """See `Work.search`."""
        found = _features(self.waves, x)
        cosine, sine = np.split(found, 2)
        apart = found.mean(axis=1) - self.wanted
        by_cosine, by_sine = np.split(2 * apart / (len(self.waves) * work.size), 2)
        slope = by_sine[:, None] * cosine - by_cosine[:, None] * sine
        return (
            float(np.sum(apart**2)) / len(self.waves),
            np.einsum("kd,kn->dn", self.waves, slope),
            np.zeros(work.shape),
        )

    def moments(self, x: Array, work: Array) -> Array:
        """See `Work.moments`."""
        return _features(self.waves, x)

    def value(self, means: Array) -> float:
        """See `Work.value`."""
        return float(np.sum((means[1:] - self.wanted) ** 2)) / len(self.waves)


def _features(waves: Array, x: Array) -> Array:
    """cos(k x) and sin(k x), (2 waves, particles)."""
    phase = np.einsum("kd,dn->kn", waves, x)
    return np.concatenate([np.cos(phase), np.sin(phase)])


Objective = Work | WorkVariance | Distance


def known(name: str, beta: float, delta_f: float | None, wanted: Array | None) -> Objective:
    """The objective of a file, for its ``value`` alone: without a potential."""
    if name == TARGET:
        assert wanted is not None
        return Distance(np.empty((len(wanted) // 2, 0)), np.asarray(wanted))
    return Work(beta, delta_f) if name == WORK else WorkVariance(beta, 0.0)
