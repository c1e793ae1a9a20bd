"""How an image is lost to noise: the schedule of its forces, trajectories, and the exact law of a unit on the way."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from thermokernels import noising as kernels
from thermorun.arrays import Array
from thermorun.computer.machine import Physics
from thermorun.errors import InputError, RunError
from thermorun.streams import Streams

# The force that prepares an image is twice its code; while it is lost, its amplitude falls to zero in three quarters of
# the time (Whitelam 2026).
AMPLITUDE, _SHARE = 2.0, 0.75
# Spacing of the grid in widths of a step's Gaussian: the sum over it then errs by 2 exp(-2 (pi / 0.75)^2) = 5e-16.
_SPACING = 0.75
# The grid ends where the law has fallen by exp(-60).
_DEPTH = 60.0
# Codes at which moments are computed: more until their Chebyshev series has come so far down, relative to its largest.
_NODES, _MOST_NODES, _TAIL = 64, 1024, 1e-6
# Laws of one kernel call: a third of a second of one core, after which Ctrl-C is heard.
_AT_ONCE = 8
# Modes in time below this share of the first are left out.
_MODES = 1e-9


def schedule(physics: Physics) -> Array:
    """Amplitudes of the force at each step: of preparing an image, then of losing it, float64 (2 steps,)."""
    steps = physics.steps
    losing = AMPLITUDE * np.maximum(1.0 - np.arange(steps) / (_SHARE * steps), 0.0)
    return np.concatenate([np.full(steps, AMPLITUDE), losing])


def relax(
    x: Array, tilt: Array, physics: Physics, streams: Streams, *, forces: Array | None = None,
    amplitude: Array | None = None, first: int = 0, recorded: Any = (),
) -> tuple[Array, Array]:  # fmt: skip
    """Moves uncoupled units on, one trajectory in each row of ``x`` (trajectories, units), which is updated.

    ``tilt`` and ``forces`` are f and g, of the shape of x or of one row; without ``amplitude`` (steps,) there is no
    force, and the time is that of ``physics``.  Returns the heat, float64 (trajectories,), and x after the steps
    ``recorded`` (records, trajectories, units).

    Raises RunError where a trajectory diverges.
    """
    a = np.zeros(physics.steps) if amplitude is None else np.ascontiguousarray(amplitude, np.float64)
    g = np.zeros_like(x) if forces is None else np.array(np.broadcast_to(forces, x.shape), x.dtype, order="C")
    f = np.array(np.broadcast_to(tilt, x.shape), x.dtype, order="C")
    rows = np.array(recorded, np.intp)
    heat, status = np.zeros(len(x)), np.zeros(len(x), np.int64)
    paths = np.empty((len(rows), *x.shape), x.dtype)
    kernels.noise(x, heat, status, g, f, a, physics.kernel, (*streams.take(), first), rows, paths)
    if status.any():
        raise RunError(f"an uncoupled unit diverged at step {status.max() - 1} with dt = {physics.dt:g}; halve dt.")
    return heat, paths


def grid(physics: Physics, force: float) -> tuple[float, float, int]:
    """Lowest point, spacing and number of points of a grid that holds a unit under a force of up to this size.

    Raises InputError, with a dt that would do, where steps are unstable within it.
    """
    J2, J4 = physics.J2, physics.J4
    spacing = _SPACING * float(np.sqrt(2 * physics.mobility * physics.kT * physics.dt))

    def energy(x: Array) -> Array:
        return np.asarray(J2 * x**2 + J4 * x**4 - force * x)

    reach = 1.0
    while True:
        x = np.linspace(-reach, reach, 4001)
        if energy(x)[[0, -1]].min() - energy(x).min() > _DEPTH * physics.kT:
            break
        reach *= 1.25
    half = int(np.ceil(reach / spacing)) + 40
    curvature = physics.mobility * (2 * J2 + 12 * J4 * reach**2)
    if physics.dt * curvature >= 2:
        raise InputError(
            f"dt is {physics.dt:g}, too large for forces of {force:.3g}: mu dt times the curvature of a well is"
            f" {physics.dt * curvature:.3g}, and must be below 2; dt = {1 / curvature:.2g} would do."
        )
    return -half * spacing, spacing, 2 * half + 1


@dataclass(frozen=True)
class Law:
    """Moments of units of one kind of well while images are lost, as series in their codes g.

    Times are the ends of the steps, x' in what a machine learns (`thermokernels.reversal`).  ``modes`` (codes' degrees,
    modes, 2): <x'> and <v>, the force needed to go back, v = 2 J2 x' + 4 J4 x'^3 + f - Dx / (mu dt), each as its
    products with the ``basis`` (steps, modes) of all <x'>(t).  ``sums`` (degrees, 3): over time, <x'>, <v> and the
    variance of x'.  ``start`` (degrees,): <x> when the image is prepared.
    """

    largest: float
    modes: Array
    sums: Array
    start: Array

    def at(self, codes: Array) -> tuple[Array, Array]:
        """``modes`` and ``sums`` at codes (n,): (n, modes, 2), (n, 3)."""
        series = chebyshev.chebvander(codes / self.largest, len(self.sums) - 1)
        modes = series @ self.modes.reshape(len(self.modes), -1)
        return modes.reshape(len(codes), *self.modes.shape[1:]), series @ self.sums

    def prepared(self, codes: Array) -> Array:
        """<x> of the prepared image."""
        return np.asarray(chebyshev.chebval(codes / self.largest, self.start))


def laws(physics: Physics, tilts: tuple[float, ...], codes: Array) -> list[Law]:
    """The laws of wells of these tilts, for codes as large as those in ``codes``, in one basis of time.

    Raises InputError where dt is too large for them.
    """
    largest = 1.0001 * float(np.abs(codes).max())
    count = _NODES
    while True:
        nodes = largest * np.cos(np.pi * (np.arange(count) + 0.5) / count)
        tables = {tilt: _moments(physics, tilt, nodes) for tilt in dict.fromkeys(tilts)}
        fits = [chebyshev.chebfit(nodes / largest, table.last, count - 1) for table in tables.values()]
        tail = max(float(np.abs(fit[-4:]).max() / np.abs(fit).max()) for fit in fits)
        if tail < _TAIL or count >= _MOST_NODES:
            break
        count *= 2
    left, values, _ = np.linalg.svd(np.hstack([table.mean for table in tables.values()]), full_matrices=False)
    basis = left[:, values > _MODES * values[0]]

    def law(table: "_Table") -> Law:
        modes = np.stack([basis.T @ table.mean, basis.T @ table.pull], axis=-1)
        sums = np.stack([table.mean.sum(0), table.pull.sum(0), table.variance.sum(0)], axis=-1)
        fitted = (
            chebyshev.chebfit(nodes / largest, values.swapaxes(0, 1).reshape(count, -1), count - 1)
            for values in (modes, sums.T[..., None], table.first[None, :, None])
        )
        a, b, c = fitted
        return Law(largest, a.reshape(count, basis.shape[1], 2), b, c[:, 0])

    return [law(tables[tilt]) for tilt in tilts]


@dataclass(frozen=True)
class _Table:
    """Moments at the nodes, (steps, nodes): <x'>, its variance, <v>; and (nodes,) <x> at the beginning, ``last`` one in
    the middle, where it depends on the code in the most winding way."""

    mean: Array
    variance: Array
    pull: Array
    first: Array
    last: Array


def moments(physics: Physics, tilt: float, codes: Array) -> tuple[Array, Array, Array]:
    """<x>, its variance and <x^3> of units of these codes (n,) at every step of preparing and losing their image.

    Float64 (2 steps + 1, n) each; exact to rounding, for the discrete steps that a simulation takes.

    Raises InputError where dt is too large.
    """
    codes = np.ascontiguousarray(codes, np.float64)
    points = grid(physics, AMPLITUDE * float(np.abs(codes).max(initial=0.0)) + abs(tilt))
    found = []
    for first in range(0, max(1, len(codes)), _AT_ONCE):
        some = codes[first : first + _AT_ONCE]
        three = tuple(np.empty((2 * physics.steps + 1, len(some))) for _ in range(3))
        status = np.zeros(len(some), np.int64)
        kernels.moments(some, schedule(physics), float(tilt), physics.kernel, points, status, *three)
        if status.any():
            raise RunError(f"the law of a unit came to the edge of its grid at step {status.max()}; take a smaller dt.")
        found.append(three)
    mean, variance, cube = (np.hstack(pieces) for pieces in zip(*found, strict=True))
    return mean, variance, cube


def _moments(physics: Physics, tilt: float, nodes: Array) -> _Table:
    mean, variance, cube = (values[physics.steps :] for values in moments(physics, tilt, nodes))
    change = np.diff(mean, axis=0) / (physics.mobility * physics.dt)
    pull = 2 * physics.J2 * mean[1:] + 4 * physics.J4 * cube[1:] + tilt - change
    return _Table(mean[1:], variance[1:], pull, mean[0], mean[len(mean) // 2])
