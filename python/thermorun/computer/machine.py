"""A thermodynamic computer: its couplings, its physics, how it sees an image, and its trajectories (Whitelam 2025)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from thermokernels import network
from thermorun.arrays import Array
from thermorun.computer.factors import factored
from thermorun.datasets import Images
from thermorun.errors import InputError, RunError, require_number, require_positive
from thermorun.streams import Streams

CONNECTIVITIES = ("all-to-all", "no-hidden-hidden", "feed-forward")
# Images on whose noise-free trajectories the time step is tried.
_PILOTS = 64
# Multiplications of one kernel call: a second or two, after which Ctrl-C is heard.  It decides the rounding of heats.
_CALL = 2**34
# What a unit's own force and noise cost, in multiplications.
_NOISE = 30
# So many kT above its minimum a well is still visited.
_VISITED = 30.0
# Images may be this much brighter than the training's, and must be this bright, in units of the training's range.
_BRIGHTER, _BRIGHT = 0.5, 0.1


class KernelPhysics(NamedTuple):
    """``Physics`` as kernels take it."""

    J2: float
    J4: float
    mobility: float
    kT: float
    dt: float


@dataclass(frozen=True)
class Physics:
    """What is not learned.  ``J2``, ``J4`` and ``kT`` are energies, ``mobility`` is 1/(energy time), times are times.

    The defaults are the paper's.  Raises InputError (a ValueError) for wells that do not hold, and for times that are
    not a whole number of steps.
    """

    J2: float = 1.0
    J4: float = 1.0
    kT: float = 1.0
    mobility: float = 1.0
    dt: float = 1e-3
    observation_time: float = 0.2

    def __post_init__(self) -> None:
        require_number("J2", self.J2)
        require_number("J4", self.J4)
        if self.J4 < 0 or (self.J4 == 0 and self.J2 <= 0):
            raise InputError(f"J2 is {self.J2} and J4 is {self.J4}; a well needs J4 > 0, or J4 = 0 and J2 > 0.")
        require_number("kT", self.kT)
        if self.kT < 0:
            raise InputError(f"kT is {self.kT}; it must be at least 0.")
        for name in ("mobility", "dt", "observation_time"):
            require_positive(name, getattr(self, name))
        self.step_of(self.observation_time)

    def step_of(self, time: float, name: str = "observation_time") -> int:
        """The number of steps that make ``time``.  Raises InputError where it is no whole number, or none."""
        steps = round(time / self.dt) if np.isfinite(time / self.dt) else 2**31
        if steps >= 2**31:
            raise InputError(f"{name} is {time:g}, of more than 2^31 steps of dt = {self.dt:g}.")
        if steps < 1 or abs(steps * self.dt - time) > 1e-6 * time:
            raise InputError(f"{name} is {time}, which is no whole number of steps dt = {self.dt}.")
        return steps

    @property
    def steps(self) -> int:
        """Steps to the observation time."""
        return self.step_of(self.observation_time)

    @property
    def kernel(self) -> KernelPhysics:
        """For kernels."""
        return KernelPhysics(float(self.J2), float(self.J4), float(self.mobility), float(self.kT), float(self.dt))


@dataclass(frozen=True)
class Pixels:
    """How an image becomes inputs: (brightness - mean) / deviation, then each image scaled to one L2 norm.

    ``low`` and ``high`` are the least and the largest pixel of the training images; NaN where they are not known.  The
    defaults are the paper's for MNIST.
    """

    mean: float = 0.13066
    deviation: float = 0.3081
    norm: float = 44.48
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, images: Images) -> "Pixels":
        """Mean, deviation and range of all training pixels, and the largest norm that they give to a held-out image.

        So does the paper's published code: on MNIST this gives its numbers.
        """
        mean, deviation = float(images.x.mean(dtype=float)), float(images.x.std(dtype=float))
        if deviation == 0:
            raise InputError(f"all pixels of {images.name} are {mean:g}; there is nothing to tell images apart.")
        norms = np.linalg.norm((images.test_x - mean) / deviation, axis=1)
        return cls(mean, deviation, float(norms.max()), float(images.x.min()), float(images.x.max()))

    def changed(self, mean: float | None, deviation: float | None, norm: float | None) -> "Pixels":
        """With other numbers where they are not None; another mean or deviation is of another range, not known."""
        unknown = {} if mean is None and deviation is None else {"low": np.nan, "high": np.nan}
        given = {"mean": mean, "deviation": deviation, "norm": norm}
        return replace(self, **{name: value for name, value in given.items() if value is not None}, **unknown)

    def require_unit(self, x: Array, name: str) -> None:
        """Raises InputError where brightnesses cannot be in the unit of the images that the machine was trained on."""
        low, high, span = float(x.min()), float(x.max()), self.high - self.low
        inside = self.low - _BRIGHTER * span <= low and high <= self.high + _BRIGHTER * span
        dark = low >= self.low and self.low < high < self.low + _BRIGHT * span
        if np.isfinite(span) and (not inside or dark):
            raise InputError(
                f"pixels of {name} go from {low:g} to {high:g}, but those that the machine was trained on from"
                f" {self.low:g} to {self.high:g}; bring them to that unit."
            )

    def inputs(self, x: Array, dtype: Any = np.float64) -> Array:
        """Inputs of images, (points, D).  Raises InputError where float32 cannot hold the images in their unit."""
        with np.errstate(all="ignore"):
            standard = (np.asarray(x) - np.float32(self.mean)) / np.float32(self.deviation)
            norms = np.linalg.norm(standard, axis=1, keepdims=True)
        if not np.isfinite(norms).all():
            raise InputError(
                f"pixel_deviation is {self.deviation:g} and pixel_mean {self.mean:g}; float32 cannot hold the images in"
                " such a unit."
            )
        with np.errstate(all="ignore"):
            scaled: Array = (standard * (self.norm / np.where(norms > 0, norms, 1.0))).astype(dtype)
        if not np.max(np.abs(scaled), initial=0.0) < np.sqrt(np.finfo(dtype).max):  # squares of fields are summed
            raise InputError(f"pixel_norm is {self.norm:g}; {np.dtype(dtype)} cannot hold images of that norm.")
        return scaled


@dataclass(frozen=True)
class Trajectories:
    """What a run of many trajectories gave.

    ``x`` (trajectories, units) at the end; ``heat`` float64 (trajectories,), absorbed from the bath on the way, energy;
    ``paths`` (records, trajectories, units) at the ``steps`` asked for, intp (records,).
    """

    x: Array
    heat: Array
    paths: Array
    steps: Array


@dataclass(frozen=True)
class Machine:
    """Hidden and output units, in wells and coupled; the inputs are units that do not move.

        V = sum_i (J2 x_i^2 + J4 x_i^4 + b_i x_i) + sum_ik W_ik x_i u_k + sum_(i<j) J_ij x_i x_j    (Whitelam 2025)

    ``input_couplings``  float64 (units, inputs), W; units are hidden ones first, then outputs.
    ``couplings``        float64 (units, units), J, symmetric with zero diagonal.
    ``bias``             float64 (units,), b.
    ``mask``             bool (units, inputs + units): which couplings exist; all of them by default.
    ``outputs``          how many of the units are outputs; one a class.
    ``classes``          the label that each output stands for.
    ``inert``            parameters that act on inputs only, so on nothing: kept, so that files stay whole.
    ``names``            of the classes, where they are words; one an output.

    Raises InputError (a ValueError) for shapes that do not fit, J not symmetric or with a diagonal, masks with a
    diagonal, couplings that the mask forbids, numbers that are not finite.
    """

    input_couplings: Array
    couplings: Array
    bias: Array
    outputs: int
    physics: Physics = Physics()
    pixels: Pixels = Pixels()
    classes: tuple[int, ...] = ()
    mask: Array | None = None
    inert: Array = field(default_factory=lambda: np.empty(0))
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("input_couplings", "couplings", "bias", "inert"):
            object.__setattr__(self, name, np.array(getattr(self, name), np.float64))
        units = self.bias.size
        if self.bias.shape != (units,) or self.couplings.shape != (units, units):
            raise InputError(
                f"couplings has shape {self.couplings.shape}; with a bias of shape {self.bias.shape} it must be"
                f" ({units}, {units})."
            )
        if self.input_couplings.ndim != 2 or len(self.input_couplings) != units:
            raise InputError(
                f"input_couplings has shape {self.input_couplings.shape}; its first length must be the {units} units."
            )
        if not 1 <= self.outputs <= units:
            raise InputError(f"outputs is {self.outputs}; it must be between 1 and the {units} units.")
        for name in ("input_couplings", "couplings", "bias", "inert"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"{name} holds a number that is not finite.")
        require_symmetric(self.couplings)
        if not self.classes:
            object.__setattr__(self, "classes", tuple(range(self.outputs)))
        if self.names and len(self.names) != self.outputs:
            raise InputError(f"names has {len(self.names)} words; there are {self.outputs} outputs.")
        if len(self.classes) != self.outputs:
            raise InputError(f"classes has {len(self.classes)} labels; there are {self.outputs} outputs.")
        if self.mask is None:
            object.__setattr__(self, "mask", connectivity("all-to-all", self.inputs, self.hidden, self.outputs))
        elif self.mask.shape != (units, self.inputs + units):
            raise InputError(f"mask has shape {self.mask.shape}; it must be ({units}, {self.inputs + units}).")
        whole = np.hstack([self.input_couplings, self.couplings])
        if np.any(whole[~self.allowed] != 0):
            raise InputError(f"{int(np.sum(whole[~self.allowed] != 0))} couplings are not zero where the mask forbids.")

    @property
    def allowed(self) -> Array:
        """``mask``, which is never None once the machine exists."""
        assert self.mask is not None
        return self.mask

    @property
    def inputs(self) -> int:
        """Input units."""
        return int(self.input_couplings.shape[1])

    @property
    def units(self) -> int:
        """Units that move."""
        return int(self.bias.size)

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return self.units - self.outputs

    @property
    def parameters(self) -> int:
        """How many parameters move anything."""
        pairs = np.tril(self.allowed[:, self.inputs :], -1).sum()
        return int(self.allowed[:, : self.inputs].sum() + pairs + self.units)

    @property
    def said(self) -> tuple[int | str, ...]:
        """What each output says: the label as it was given, a number or a word."""
        return self.names or self.classes

    def with_physics(self, **changes: Any) -> "Machine":
        """The same machine under other physics, as in ``with_physics(kT=0.5)``."""
        return replace(self, physics=replace(self.physics, **changes))

    def fields(self, inputs: Array, dtype: Any = np.float64) -> Array:
        """h = b + W u for ``inputs`` (points, inputs), of shape (points, units).

        Raises InputError where the inputs are not as many as the machine's.
        """
        if inputs.ndim != 2 or inputs.shape[1] != self.inputs:
            raise InputError(f"inputs have shape {inputs.shape}; this machine takes (points, {self.inputs}).")
        h: Array = inputs @ self.input_couplings.T.astype(inputs.dtype) + self.bias.astype(inputs.dtype)
        return np.ascontiguousarray(h, dtype)

    def energy(self, x: Array, fields: Array) -> Array:
        """V of states (points, units) in these fields, float64 (points,)."""
        x, fields = np.asarray(x, np.float64), np.asarray(fields, np.float64)
        wells = self.physics.J2 * x**2 + self.physics.J4 * x**4 + fields * x
        total: Array = wells.sum(axis=-1) + 0.5 * np.einsum("...i,ij,...j->...", x, self.couplings, x)
        return total

    def run(
        self, fields: Array, *, steps: int | None = None, x: Array | None = None, first: int = 0,
        seed: Streams | int = 0, recorded: Sequence[int] = (), pause: Callable[[], None] = lambda: None,
    ) -> Trajectories:  # fmt: skip
        """One trajectory in each row of ``fields`` (trajectories, units), float32 or float64, which is its precision.

        From ``x`` (zero by default) at step ``first``; ``steps`` of them, to the observation time by default.
        ``recorded`` are the numbers of steps after which to keep x.  Equal ``seed``, a number or a random stream, gives
        equal noise.  ``pause`` is called every second or two.

        Raises RunError where a trajectory diverges, naming it, its step, and a smaller dt.
        """
        count = self.physics.steps if steps is None else steps
        fields = np.ascontiguousarray(fields)
        state = np.zeros_like(fields) if x is None else np.array(x, fields.dtype, order="C")
        rows = np.array(sorted(recorded), np.intp)
        paths = np.empty((len(rows), *fields.shape), fields.dtype)
        streams = Streams(seed) if isinstance(seed, int) else seed
        heat, status = self._simulate(state, fields, self.physics, first, count, streams, rows, paths, pause)
        if status.any():
            diverged = np.flatnonzero(status)
            cure = self._smaller_dt(fields[diverged[:_PILOTS]])
            raise RunError(
                f"{len(diverged)} of {len(fields)} trajectories diverged, the first being number {diverged[0]} at step"
                f" {status[diverged[0]] - 1} with dt = {self.physics.dt:g}; dt = {cure:.6g} would do."
            )
        return Trajectories(state, heat, paths, rows)

    def _simulate(
        self, x: Array, fields: Array, physics: Physics, first: int, steps: int, streams: Streams, rows: Array,
        paths: Array, pause: Callable[[], None] = lambda: None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Moves ``x`` on, one kernel call after the other, and writes ``paths``; returns heat and status."""
        heat, status = np.zeros(len(x)), np.zeros(len(x), np.int64)
        couplings = factored(self.couplings, self.hidden, x.dtype)
        length = max(1, _CALL // max(1, x.size * (self.units + _NOISE)))
        for done in range(0, max(1, steps), length):
            count, written = min(length, steps - done), np.searchsorted(rows, done, "left" if done == 0 else "right")
            part = slice(written, np.searchsorted(rows, done + count, "right"))
            network.simulate(
                x, heat, status, fields, couplings, physics.kernel, (first + done, count), streams.take(),
                rows[part] - done, paths[part],
            )  # fmt: skip
            pause()
        return heat, status

    def is_stable(self, fields: Array) -> bool:
        """Whether noise-free trajectories in up to 64 of these fields stay finite, and where they end
        mu dt times the largest curvature of V is below 2."""
        trial = np.ascontiguousarray(fields[:: -(-len(fields) // _PILOTS)])
        physics = replace(self.physics, kT=0.0)
        x = np.zeros_like(trial)
        nothing = np.empty(0, np.intp), np.empty((0, *trial.shape), trial.dtype)
        _, status = self._simulate(x, trial, physics, 0, physics.steps, Streams(), *nothing)
        if status.any():
            return False
        curvature = self.couplings + np.zeros((len(x), 1, 1))
        diagonal = np.arange(self.units)
        curvature[:, diagonal, diagonal] = 2 * self.physics.J2 + 12 * self.physics.J4 * x**2
        return bool(self.physics.mobility * self.physics.dt * np.linalg.eigvalsh(curvature).max() < 2)

    def stable_dt(self, fields: Array, beyond: float = 0.0) -> float:
        """A dt with which trajectories without noise are stable, a whole number of steps to the observation time.

        Where no |x_i| exceeds the largest root X of 4 J4 X^3 + 2 J2 X = max |h| + |J| X, |J| being the largest sum of a
        row, none ever will if dt is below one over the largest curvature, mu (2 J2 + 12 J4 X^2 + |J|).  ``beyond`` is
        added to X.
        """
        p, pairs = self.physics, float(np.abs(self.couplings).sum(axis=1).max())
        reach = np.roots([4 * p.J4, 0.0, 2 * p.J2 - pairs, -float(np.abs(fields).max())])
        x = float(reach.real[np.abs(reach.imag) < 1e-9 * (1 + np.abs(reach))].max(initial=0.0)) if p.J4 else 0.0
        rate = p.mobility * (2 * p.J2 + 12 * p.J4 * (x + beyond) ** 2 + pairs)
        return p.observation_time / float(np.ceil(p.observation_time * rate))

    def _smaller_dt(self, fields: Array) -> float:
        """A dt for noisy trajectories that diverged: below the present one, and for wells as high as noise climbs."""
        p = self.physics
        climbed = np.sqrt((np.sqrt(p.J2**2 + 4 * p.J4 * _VISITED * p.kT) - p.J2) / (2 * p.J4)) if p.J4 else 0.0
        return min(self.stable_dt(fields, float(climbed)), p.observation_time / (2 * p.steps))

    def require_stable(self, fields: Array) -> None:
        """Raises InputError, with a dt that would do, unless ``is_stable``; and where V has no minimum."""
        if self.physics.J4 == 0 and np.linalg.eigvalsh(self.couplings).min() + 2 * self.physics.J2 <= 0:
            raise InputError("J4 is 0 and the couplings are stronger than the wells: V has no minimum; no dt helps.")
        if not self.is_stable(fields):
            raise InputError(
                f"dt is {self.physics.dt:g}, too large for this machine's couplings: trajectories without noise diverge"
                f" or end where mu dt times the curvature exceeds 2; dt = {self.stable_dt(fields):.6g} would do."
            )


def require_symmetric(couplings: Array) -> None:
    """Raises InputError unless the couplings are symmetric with a zero diagonal."""
    uneven = np.argwhere(couplings != couplings.T)
    if len(uneven):
        i, j = uneven[0]
        raise InputError(
            f"couplings are not symmetric: J[{i}, {j}] is {couplings[i, j]:g} and J[{j}, {i}] is {couplings[j, i]:g}."
        )
    if np.any(np.diag(couplings) != 0):
        raise InputError(f"couplings have a diagonal, up to {np.abs(np.diag(couplings)).max():g}; it must be zero.")


def connectivity(name: str, inputs: int, hidden: int, outputs: int) -> Array:
    """The mask of a named connectivity, bool (units, inputs + units).

    ``all-to-all``; ``no-hidden-hidden``, the same without couplings between hidden units; ``feed-forward``, inputs to
    hidden units to outputs.  Raises InputError for other names.
    """
    units = hidden + outputs
    mask = np.ones((units, inputs + units), bool)
    mask[np.arange(units), inputs + np.arange(units)] = False
    if name == "all-to-all":
        return mask
    mask[:hidden, inputs : inputs + hidden] = False
    if name == "feed-forward":
        mask[hidden:, :inputs] = False
        mask[hidden:, inputs + hidden :] = False
    elif name != "no-hidden-hidden":
        raise InputError(f"connectivity is {name!r}; it must be {', '.join(CONNECTIVITIES)}, or a .npy file.")
    return mask


def mask_from_array(array: Any, inputs: int, hidden: int, outputs: int, name: str = "mask") -> Array:
    """The mask in a symmetric array of zeros and ones over inputs, hidden units and outputs, in this order.

    What it says of pairs of inputs is ignored: nothing depends on them.  Raises InputError where it has another shape,
    is not symmetric, or has a diagonal.
    """
    whole = np.asarray(array)
    size = inputs + hidden + outputs
    if whole.shape != (size, size):
        raise InputError(f"{name} has shape {whole.shape}; it must be ({size}, {size}): inputs, hidden units, outputs.")
    if whole.dtype.kind not in "buif" or not np.isin(whole, (0, 1)).all():
        raise InputError(f"{name} holds other values than 0 and 1.")
    if np.any(whole != whole.T):
        raise InputError(f"{name} is not symmetric; a coupling acts both ways.")
    if np.any(np.diag(whole)[inputs:] != 0):
        raise InputError(f"{name} has a diagonal; no unit is coupled to itself.")
    return np.ascontiguousarray(whole[inputs:], bool)
