"""All that is known of a protocol's run before it starts."""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thermokernels import random
from thermorun.learning.trap import exact
from thermorun.learning.trap import protocols as schedules
from thermorun.learning.trap.discretisation import Scheme, discretise
from thermorun.learning.trap.protocols import Protocol
from thermorun.learning.trap.recorder import Ledger
from thermorun.learning.trap.spec import ExcessWork

Array = NDArray[np.float64]

# What a stream is for: the low byte of its high word, below the protocol's own 24 bits.
DYNAMICS, START, DATA, MINIBATCH = range(4)
_SNAPSHOT_BINS = 240


@dataclass(frozen=True)
class Plan:
    """One protocol of a spec, discretised, with the times it will record and the truth at them.

    ``u0`` is the mean of x at the start.
    """

    spec: ExcessWork
    label: str
    protocol: Protocol
    scheme: Scheme
    u0: float

    @classmethod
    def of(cls, spec: ExcessWork) -> "list[Plan]":
        """The plans of a spec, in its order."""
        return [
            cls(
                spec,
                label,
                protocol,
                discretise(spec.trap, protocol, spec.step_count, spec.integrator),
                schedules.start(protocol.name, spec.trap),
            )
            for label, protocol in spec.built().items()
        ]

    @property
    def particle_steps(self) -> int:
        """What the whole run takes."""
        return self.scheme.points * self.spec.particles * self.spec.replicas

    @cached_property
    def time(self) -> Array:
        """The time of every recorded row; twice where theta jumps."""
        return self.ledger(np.empty((self.scheme.points, 1))).time

    @cached_property
    def exact(self) -> exact.Moments:
        """The truth at ``time``."""
        return exact.moments(self.spec.trap, self.protocol, self.time)

    def ledger(self, target: Array) -> Ledger:
        """A ledger at the start of the run."""
        return Ledger.open(self.scheme, self.spec.records, target, self.spec.theta0)

    @property
    def snapshot_points(self) -> NDArray[np.intp]:
        """The points at which a histogram of x is taken."""
        count = self.spec.snapshots
        if not count:
            return np.empty(0, np.intp)
        return np.linspace(0, self.scheme.points - 1, count + 1).round().astype(np.intp)

    @cached_property
    def snapshot_edges(self) -> Array:
        """Bin edges that hold x at all times but for five standard deviations."""
        margin = 5 / np.sqrt(self.spec.beta)
        return np.linspace(self.exact.u.min() - margin, self.exact.u.max() + margin, _SNAPSHOT_BINS + 1)

    def stream(self, purpose: int) -> np.uint64:
        """The first of the streams of this purpose; replica r uses the r-th."""
        owner = "" if purpose == DATA else self.label  # all protocols learn from the same data
        return np.uint64(((zlib.crc32(owner.encode()) & 0xFFFFFF) << 8 | purpose) << 32)

    def targets(self) -> Array:
        """The mean of the data that each step compares with, (points, replicas)."""
        spec, points = self.spec, self.scheme.points
        if spec.samples is None:
            return np.full((points, spec.replicas), spec.target)
        return np.stack([self._sampled_targets(np.uint64(replica)) for replica in range(spec.replicas)], axis=1)

    def _sampled_targets(self, replica: np.uint64) -> Array:
        spec, points, seed = self.spec, self.scheme.points, np.uint64(self.spec.seed)
        if isinstance(spec.samples, int):
            data = np.empty(spec.samples)
            random.fill_normals(data, seed, self.stream(DATA) + replica, 0)
            data = spec.target + data / np.sqrt(spec.beta)
        else:
            data = np.array(spec.samples)
        if spec.minibatch is None:
            return np.full(points, np.mean(data))
        choice = np.empty(points * spec.minibatch)
        random.fill_uniforms(choice, seed, self.stream(MINIBATCH) + replica, 0)
        means: Array = data[(choice * len(data)).astype(np.intp)].reshape(points, -1).mean(axis=1)
        return means
