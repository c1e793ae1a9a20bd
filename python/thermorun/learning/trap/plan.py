"""All that is known of a protocol's run before it starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thermokernels import random
from thermorun import streams
from thermorun.arrays import Array
from thermorun.errors import InputError
from thermorun.learning.trap import protocols
from thermorun.learning.trap.discretisation import Scheme, discretise
from thermorun.learning.trap.exact import Moments, moments
from thermorun.learning.trap.protocols import Protocol, Trap
from thermorun.learning.trap.recorder import Recorder
from thermorun.learning.trap.spec import ExcessWork
from thermorun.streams import Streams

SNAPSHOT_BINS = 240
# Noise of a step is at least so many times what the positions are rounded to.
_RESOLVED = 8


@dataclass(frozen=True)
class Plan:
    """One protocol of a resolved spec, discretised, with the times it will record and the exact values at them.

    ``section`` is its place in a file.  Positions are counted from ``origin``: those of ``trap``, ``protocol``,
    ``scheme``, ``u0`` (the mean of x at the start), and all that follows from them.  ``mine`` are the replicas that
    are run: others are in the file already, or another shard's.
    """

    spec: ExcessWork
    label: str
    section: str
    origin: float
    trap: Trap
    protocol: Protocol
    scheme: Scheme
    u0: float
    mine: range

    @classmethod
    def of(cls, spec: ExcessWork, prefix: str = "") -> "list[Plan]":
        """The plans of a spec, in its order.  Raises InputError where a protocol cannot run."""
        origin = spec.trap.origin
        trap = spec.trap.about(origin)
        return [
            cls(
                spec,
                label,
                prefix + label,
                origin,
                trap,
                protocol.about(origin),
                discretise(trap, protocol.about(origin), int(spec.steps or 0), spec.integrator),
                protocols.start(protocol.name, spec.trap) - origin,
                range(spec.replicas),
            )
            for label, protocol in spec.built().items()
        ]

    @classmethod
    def all_of(cls, spec: ExcessWork) -> "list[Plan]":
        """Those of a spec, and where it asks for them those with half the time step.

        Their noise must be their own, so they have the next seed.
        """
        plans = cls.of(spec)
        if spec.check_dt:
            finer = spec.replace(
                steps=2 * int(spec.steps or 0), seed=(spec.seed + 1) % 2**64, records=1, snapshots=0, keep_work=False
            )
            plans += cls.of(finer, "half-step/")
        return plans

    @property
    def replicas(self) -> int:
        """How many are run."""
        return len(self.mine)

    @property
    def particles(self) -> int:
        """In all replicas that are run."""
        return self.spec.particles * self.replicas

    @property
    def open_loop(self) -> bool:
        """Whether theta is prescribed."""
        return self.scheme.centres is not None

    @property
    def particle_steps(self) -> int:
        """What the whole run takes."""
        passes = 2 if self.spec.keep_work and not self.open_loop else 1
        return passes * self.scheme.points * self.particles

    @cached_property
    def time(self) -> Array:
        """The time of every recorded row; twice where theta jumps."""
        return self.recorder(np.empty((self.scheme.points, 1))).time

    @cached_property
    def exact(self) -> Moments:
        """The moments at ``time``; the mean of the data is that of the given sample, else theta*."""
        return self._moments(0.0)

    def _moments(self, shift: float) -> Moments:
        """The same for data that lie to the right by ``shift``."""
        data = self.spec.samples
        mean = self.trap.target if data is None or isinstance(data, int) else float(np.mean(data)) - self.origin
        trap = Trap(self.trap.mobility, self.trap.beta, self.trap.tau, self.trap.theta0, mean + shift)
        return moments(trap, self.protocol, self.time, self.u0)

    @cached_property
    def exact_work(self) -> Array:
        """The exact mean work of this very ensemble at ``time``: of N particles, and of a sample of the data.

        The work is quadratic in theta* too, so an average over samples of n adds its curvature times kT / 2n.  NaN
        with minibatches, whose noise belongs to the time step.
        """
        if self.spec.minibatch is not None and not self.open_loop:
            return np.full(len(self.time), np.nan)
        work = self.exact.work + self.exact.work_shift / self.spec.particles
        if isinstance(self.spec.samples, int) and not self.open_loop:
            width = self.trap.width
            curvature = self._moments(width).work - 2 * self.exact.work + self._moments(-width).work
            work = work + 0.5 * curvature / self.spec.samples
        return work

    def require_resolved(self) -> None:
        """Raises InputError where the positions' precision is too coarse for the noise of a step."""
        farthest = float(np.max(np.abs([self.exact.u, self.exact.theta])))
        kick = float(np.median(self.scheme.steps[:-1, 2]))
        rounded = farthest * float(np.finfo(self.spec.precision).eps)
        if np.isfinite(farthest) and kick < _RESOLVED * rounded:
            raise InputError(
                f"precision is {self.spec.precision!r}, which knows positions that are {farthest:.3g} apart to"
                f" {rounded:.1g}, and the noise of a step is {kick:.1g}: take float64, fewer steps, or a shorter way."
            )

    def recorder(self, target: Array) -> Recorder:
        """A recorder at the start of the run."""
        return Recorder.open(self.scheme, self.spec.records, target, self.trap.theta0)

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
        return np.linspace(self.exact.u.min() - margin, self.exact.u.max() + margin, SNAPSHOT_BINS + 1)

    def streams(self, purpose: str) -> Streams:
        """The random streams of this purpose; replica r uses the r-th."""
        return streams.trap(self.spec.seed, purpose, self.label)

    def noise(self, purpose: str) -> tuple[np.uint64, np.uint64]:
        """Seed and stream, for this purpose, of the first replica that is run."""
        seed, stream = self.streams(purpose).take(self.spec.replicas)
        return seed, stream + np.uint64(self.mine.start)

    def targets(self) -> Array:
        """The mean of the data that each step compares with, (points, replicas)."""
        spec, points = self.spec, self.scheme.points
        if spec.samples is None:
            return np.full((points, self.replicas), self.trap.target)
        return np.stack(list(self._sampled_targets()), axis=1)

    def _sampled_targets(self) -> Iterator[Array]:
        """Replica by replica."""
        spec, points = self.spec, self.scheme.points
        for replica in self.mine:
            if isinstance(spec.samples, int):
                data = np.empty(spec.samples)
                random.fill_normals(data, *self.streams("data").part(replica, 1).take(), 0)
                data = self.trap.target + data / np.sqrt(spec.beta)
            else:
                data = np.array(spec.samples) - self.origin
            if spec.minibatch is None:
                yield np.full(points, np.mean(data))
                continue
            choice = np.empty(points * spec.minibatch)
            random.fill_uniforms(choice, *self.streams("minibatch").part(replica, 1).take(), 0)
            yield data[(choice * len(data)).astype(np.intp)].reshape(points, -1).mean(axis=1)
