"""Who draws from which random stream.

A random number is a pure function of (seed, stream, particle, step) (``thermokernels.random``).  Streams are numbered
from 0 to 2^64.  Here, and nowhere else, they are dealt out: each subject has a table of ranges, a range is cut into
parts, and every part is checked against the range that it is cut from.  So no two purposes, replicas, dimensions,
points, rows or batches share one.  The layout of a table is part of every result: never change a line, only add.
"""

import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np

from thermorun.errors import InputError

ALL = 2**64
_HALF = 2**31
# The least streams of one replica's start, and the calls of its generator before their step is raised.
_CALLS = 64


@dataclass(frozen=True)
class Streams:
    """The streams ``first`` to ``first + count`` under one seed."""

    seed: int = 0
    first: int = 0
    count: int = ALL

    def part(self, index: int, size: int) -> Self:
        """Streams ``index * size`` and following, ``size`` of them.  Raises InputError where there are not so many."""
        if not (index >= 0 and size >= 1 and (index + 1) * size <= self.count):
            raise InputError(
                f"a run asks for part {index} of {size} random streams each, of {self.count} that there are; take fewer"
                " replicas, rows or dimensions."
            )
        return type(self)(self.seed, self.first + index * size, size)

    def beyond(self, count: int) -> Self:
        """All but the first ``count`` streams."""
        return type(self)(self.seed, self.first + count, self.count - count)

    def take(self, count: int = 1) -> tuple[np.uint64, np.uint64]:
        """Seed and first stream, as kernels want them that draw from ``count`` consecutive streams."""
        self.part(0, count)
        return np.uint64(self.seed), np.uint64(self.first)

    def call(self, number: int) -> tuple[np.uint64, np.uint64, int]:
        """Seed, stream and step of call ``number`` of a generator that this is the range of: any number of calls."""
        seed, first = self.part(number % min(self.count, _CALLS), 1).take()
        return seed, first, number // min(self.count, _CALLS)

    def replica(self, index: int) -> Self:
        """The range of one replica's generator at the start of a run."""
        return self.part(index, _CALLS)


@dataclass(frozen=True)
class Noise:
    """The random numbers of an ensemble: of its draws from equilibrium, and of its steps.

    Replica r draws its start from ``start.replica(r)``, and the noise of dimension k from stream ``r d + k`` of
    ``dynamics``.
    """

    start: Streams
    dynamics: Streams

    @classmethod
    def of(cls, streams: "Streams | int") -> Self:
        """The halves of 2^32 streams, steps below and start above; of a seed, those of its first 2^32."""
        whole = Streams(streams).part(0, 2 * _HALF) if isinstance(streams, int) else streams
        return cls(whole.part(1, _HALF), whole.part(0, _HALF))

    def row(self, index: int, dimension: int) -> Self:
        """The noise of one row of particles of many, each a single replica in ``dimension`` dimensions."""
        size = max(256, 1 << (dimension - 1).bit_length())
        return type(self)(self.start.part(index, size), self.dynamics.part(index, size))

    def after(self, replicas: int, dimension: int) -> Self:
        """The noise of the replicas from this number on, in an ensemble of their own."""
        return type(self)(self.start.beyond(replicas * _CALLS), self.dynamics.beyond(replicas * dimension))

    def batch(self, index: int, dimension: int) -> Self:
        """The noise of one replica of many that run one after the other."""
        return type(self)(self.start.replica(index), self.dynamics.part(index, dimension))


# learning.trap and learning: the low byte of the upper 32 bits says what for, the 24 bits above it for which protocol
# or rule, by the CRC-32 of its name.
_TRAP = {"dynamics": 0, "start": 1, "data": 2, "minibatch": 3}
_LEARN = {"dynamics": 0, "side": 1, "data": 2}


def trap(seed: int, purpose: str, label: str) -> Streams:
    """Of one protocol of ``excess-work``; all protocols learn from the same data."""
    return _owned(seed, _TRAP[purpose], "" if purpose == "data" else label)


def learn(seed: int, purpose: str, rule: str) -> Streams:
    """Of one rule of ``learn``; data are the same for all rules."""
    if purpose == "data":
        return Streams(seed).part(_LEARN["data"], 2**32)
    return _owned(seed, _LEARN[purpose], rule)


def _owned(seed: int, purpose: int, owner: str) -> Streams:
    return Streams(seed).part((zlib.crc32(owner.encode()) & 0xFFFFFF) << 8 | purpose, 2**32)


def require_distinct(names: tuple[str, ...]) -> None:
    """Raises InputError where two names of protocols or rules would share streams (a chance of 1 in 2^24)."""
    seen: dict[int, str] = {}
    for name in names:
        other = seen.setdefault(zlib.crc32(name.encode()) & 0xFFFFFF, name)
        if other != name:
            raise InputError(f"protocols {other!r} and {name!r} would share random numbers; rename one.")


def metric_point(seed: int, index: int, pilot: bool = False) -> Noise:
    """Of the ensemble at one point of parameter space, or of its pilot."""
    return Noise.of(Streams(seed).part(0, 2**63).part(index, 2**33).part(int(pilot), 2**32))


def metric_drive(seed: int, number: int) -> Noise:
    """Of one drive between two points."""
    return Noise.of(Streams(seed).part(1, 2**63).part(number, 2**33).part(0, 2**32))


def free_energy(seed: int, direction: int) -> Noise:
    """Of all rows of particles that go forward (0) or back (1)."""
    return Noise.of(Streams(seed).part(direction, 2**32))


_PROTOCOL = {"search": 0, "check": 1, "result": 2, "target": 3, "waves": 4}


def protocol(seed: int, purpose: str, number: int) -> Noise:
    """Of one round of a search for a protocol, of its check, of a row of its result; or of what describes a target."""
    return Noise.of(Streams(seed).part(_PROTOCOL[purpose], 2**60).part(number, 2**32))


def shot(seed: int, number: int) -> Streams:
    """Of one noisy trajectory of every image."""
    return Streams(seed).part(0, 2**32).part(number, 1)


def watch(seed: int) -> Streams:
    """Of the accuracy along a descent."""
    return Streams(seed).part(1, 2**32).part(0, 1)


def portrait(seed: int) -> Streams:
    """Of the trajectories that a picture of a machine shows."""
    return Streams(seed).part(2, 2**32).part(0, 1)


# Trainings of a computer through its noise; each update has a stream of its own.
_ADJOINT = {"noise": 16, "distortion": 17, "start": 18, "parameters": 19}


def adjoint(seed: int, purpose: str, update: int = 0) -> Streams:
    """Of one update of such a training: its trajectories, images, parameters; or of the couplings at its start."""
    return Streams(seed).part(_ADJOINT[purpose], 2**32).part(update, 1)


_TEACHING = 24


def teaching(seed: int, number: int) -> Streams:
    """Of one chunk of a noisy teacher's trajectories."""
    return Streams(seed).part(_TEACHING, 2**32).part(number, 1)


# Of experiments with many devices: how one's parameters spread, and, in the search that retrains it, mutants and tests.
_DEVICES = {"spread": 8, "mutant": 9, "test": 10}


def device(seed: int, purpose: str, number: int) -> Streams:
    """Of one device, 2^20 streams for each purpose."""
    return Streams(seed).part(_DEVICES[purpose], 2**32).part(number, 2**20)


# computer generate: ranges of 2^32 as those of the computer's other purposes above, from the 64th on.
_GENERATIVE = {"codes": 64, "noising": 65, "preparing": 66, "generating": 67, "resetting": 68, "film": 69, "tuning": 70}


def generative(seed: int, purpose: str, machine: int = 0) -> Streams:
    """Of one machine that makes pictures: of its training's trajectories, and of each stage of its pictures."""
    return Streams(seed).part(_GENERATIVE[purpose], 2**32).part(machine, 1)


# cycles: the high half of a stream's number says what for.  Kernels know the same numbers: of the persistent chain, of
# minibatches, of samples of M from state z (in the low half).  "start" seeds NumPy's generator of first parameters and
# points.  "sample" is cut into chains: of diagnostics (their double steps are cut too: counting and paths begin at 0,
# autocorrelation at 2^30, mixing at 3 2^29, classes of fantasies at 2^31), of `sample`, and the chain of a portrait.
# "ceiling" seeds NumPy's generator of the first mixtures of expectation-maximisation.  The persistent chain has stream
# 0 of "chain"; with the exact rule 1 + z has the images of state z.  "circulation" seeds NumPy's generator of walks.
# The likelihood of many bits has long chains of its own, and chains that anneal to points: several in "annealing", one
# in "glimpse".
_CYCLES = {"chain": 0, "batch": 1, "start": 2, "markov": 3, "sample": 4, "ceiling": 5, "circulation": 6,
           "likelihood": 7, "annealing": 8, "glimpse": 9}  # fmt: skip
_SAMPLED = {"diagnostics": (0, 2**30), "fantasies": (1, 2**30), "portrait": (1, 2**31)}


def cycles(seed: int, purpose: str) -> Streams:
    """Of one model of a study, whose seed is the study's plus its number; or of a call of `sample`."""
    if purpose in _CYCLES:
        return Streams(seed).part(_CYCLES[purpose], 2**32)
    return Streams(seed).part(_CYCLES["sample"], 2**32).part(*_SAMPLED[purpose])


def proposal() -> Streams:
    """Of the search for a proposal where equilibrium has no exact draws; the same in every run."""
    return Streams(0).part(2**32 - 1, 2**32)
