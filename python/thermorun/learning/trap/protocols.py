"""How theta moves: learning rates with impulses (closed loop) and prescribed paths (open loop).

A learning rate drives theta by the running ensemble (Hnybida & Verret 2025, Eq. 13),

    dtheta/dt = -eta(t) (u - theta*),

and an *impulse* of strength kappa at time s is eta(t) = kappa delta(t - s): a jump theta' = theta - kappa (u -
theta*) at fixed x.  A path is theta(t) itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from thermorun.arrays import Array
from thermorun.errors import InputError, require_number, require_positive, short
from thermorun.specs import to_json_types

Impulses = tuple[tuple[float, float], ...]
# Positions are counted from 0 up to this many standard deviations of x: float32 knows them to 1/10,000 there.
_FAR = 1e3


@dataclass(frozen=True)
class Trap:
    """What is to be learned, and with what: E = (x - theta)^2 / 2, dx = -mobility (x - theta) dt + noise.

    ``tau`` is a time, ``mobility`` length^2/(energy time), ``beta`` 1/energy, the rest are lengths.  ``target`` is
    theta*, the mean of the data; ``u0`` the mean of x at the start, None for the protocol's own start.
    """

    mobility: float = 1.0
    beta: float = 1.0
    tau: float = 5.0
    theta0: float = 0.0
    target: float = 1.0
    u0: float | None = None

    def __post_init__(self) -> None:
        for name in ("mobility", "beta", "tau"):
            require_positive(name, getattr(self, name))
        for name in ("theta0", "target"):
            require_number(name, getattr(self, name))
        if self.u0 is not None:
            require_number("u0", self.u0)

    @property
    def width(self) -> float:
        """Standard deviation of x in equilibrium, sqrt(kT), in lengths."""
        return float(self.beta**-0.5)

    @property
    def origin(self) -> float:
        """Where kernels count positions from: 0, or theta0 where that or the target is far out.

        A number of 24 bits (float32) knows positions of 1e7 to one, whatever the trap's width.
        """
        farthest = max(abs(self.theta0), abs(self.target), abs(self.theta0 if self.u0 is None else self.u0))
        return 0.0 if farthest <= _FAR * self.width else self.theta0

    def about(self, origin: float) -> "Trap":
        """The same with positions counted from ``origin``."""
        u0 = None if self.u0 is None else self.u0 - origin
        return replace(self, theta0=self.theta0 - origin, target=self.target - origin, u0=u0)


@dataclass(frozen=True)
class Schedule:
    """A learning rate eta(t) on 0 <= t <= tau, with impulses ``(time, strength)``.

    Strengths have no unit, rates are 1/time.
    """

    tau: float
    impulses: Impulses = ()
    name: ClassVar[str] = ""
    equation: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", require_positive("tau", self.tau))
        checked = []
        for time, strength in self.impulses:
            at = require_number("impulse time", time)
            if not 0 <= at <= self.tau:
                raise InputError(f"impulse time is {at}; it must lie between 0 and tau = {self.tau}.")
            checked.append((at, require_number("impulse strength", strength)))
        object.__setattr__(self, "impulses", tuple(checked))

    def rate(self, t: ArrayLike) -> Array:
        """eta(t) between impulses, in 1/time."""
        raise NotImplementedError

    def integral(self, start: ArrayLike, stop: ArrayLike) -> Array:
        """Integral of eta over [start, stop], impulses left out."""
        raise NotImplementedError

    def about(self, origin: float) -> "Schedule":
        """The same with positions counted from ``origin``: a learning rate knows none."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """What ``from_dict`` needs to make it again, in JSON's types."""
        return _described(self)


@dataclass(frozen=True)
class Constant(Schedule):
    """eta(t) = eta; quasi-static where eta << mobility (Sect. III A 3)."""

    eta: float = 0.5
    name: ClassVar[str] = "constant"
    equation: ClassVar[str] = "eta"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("eta", self.eta)

    def rate(self, t: ArrayLike) -> Array:
        return np.full(np.shape(t), self.eta)

    def integral(self, start: ArrayLike, stop: ArrayLike) -> Array:
        integral: Array = self.eta * (np.asarray(stop, float) - np.asarray(start, float))
        return integral


@dataclass(frozen=True)
class _Hyperbolic(Schedule):
    """eta(t) = 1 / (tau - t + delay): what keeps the mean of x at constant speed."""

    delay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("delay", self.delay)

    def rate(self, t: ArrayLike) -> Array:
        rates: Array = 1.0 / (self.tau - np.asarray(t, float) + self.delay)
        return rates

    def integral(self, start: ArrayLike, stop: ArrayLike) -> Array:
        start, stop = np.asarray(start, float), np.asarray(stop, float)
        integral: Array = np.log1p((stop - start) / (self.tau - stop + self.delay))
        return integral


@dataclass(frozen=True)
class Continuous(_Hyperbolic):
    """The optimum among continuous theta(t): 1 / (tau - t + 1/mu) (Eq. 30), from a start that obeys Eq. 31."""

    name: ClassVar[str] = "continuous"
    equation: ClassVar[str] = "1 / (tau - t + 1/mu)"


@dataclass(frozen=True)
class Discontinuous(_Hyperbolic):
    """The optimum: 1 / (tau - t + 2/mu) (Eq. 34), with impulses at both ends (Eqs. 36 and 38)."""

    name: ClassVar[str] = "discontinuous"
    equation: ClassVar[str] = "1 / (tau - t + 2/mu), impulses at 0 and tau"


@dataclass(frozen=True)
class SlowDriving(_Hyperbolic):
    """Natural-gradient learning of any potential (Eq. 53); for the trap 1 / (tau - t + 1/mu), from equilibrium."""

    name: ClassVar[str] = "slow-driving"
    equation: ClassVar[str] = "1 / (tau - t + 1/mu), from equilibrium"


@dataclass(frozen=True)
class Tabulated(Schedule):
    """A learning rate of the user's: linear between the points ``(times, rates)``, constant beyond them."""

    times: tuple[float, ...] = (0.0,)
    rates: tuple[float, ...] = (0.0,)
    name: ClassVar[str] = "tabulated"
    equation: ClassVar[str] = "linear between given points"
    _cumulative: Array = field(init=False, repr=False, compare=False, default_factory=lambda: np.zeros(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        times, rates = _points(self, "rates")
        if np.any(np.diff(times) <= 0):
            raise InputError("times of the rates are not in ascending order; they must be strictly ascending.")
        pieces = 0.5 * (rates[1:] + rates[:-1]) * np.diff(times)
        object.__setattr__(self, "_cumulative", np.concatenate([[0.0], np.cumsum(pieces)]))

    @classmethod
    def of(
        cls, eta: Callable[[float], float] | ArrayLike, tau: float, impulses: Sequence[tuple[float, float]] = ()
    ) -> "Tabulated":
        """From a function of time, or an array of rates at equal distances from 0 to tau.

        A function is tabulated at 4,097 points.
        """
        require_positive("tau", tau)
        if callable(eta):
            times = np.linspace(0.0, tau, 4097)
            rates = np.array([float(eta(t)) for t in times])
        else:
            rates = np.atleast_1d(np.asarray(eta, float))
            times = np.linspace(0.0, tau, len(rates))
        return cls(
            tau=float(tau),
            impulses=tuple((float(time), float(strength)) for time, strength in impulses),
            times=tuple(times.tolist()),
            rates=tuple(rates.tolist()),
        )

    def rate(self, t: ArrayLike) -> Array:
        rates: Array = np.interp(np.asarray(t, float), self.times, self.rates)
        return rates

    def integral(self, start: ArrayLike, stop: ArrayLike) -> Array:
        return self._integral_to(stop) - self._integral_to(start)

    def _integral_to(self, t: ArrayLike) -> Array:
        t, times, rates = np.asarray(t, float), np.array(self.times), np.array(self.rates)
        i = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(times) - 1)
        integral: Array = self._cumulative[i] + 0.5 * (rates[i] + self.rate(t)) * (t - times[i])
        return integral


@dataclass(frozen=True)
class Path:
    """Open loop: theta(t) itself, linear between the points ``(times, thetas)``; a repeated time is a jump.

    The first time must be 0 and the last tau.  Where the first theta is not the trap's theta0, the path starts with a
    jump.
    """

    times: tuple[float, ...]
    thetas: tuple[float, ...]
    name: ClassVar[str] = "path"
    equation: ClassVar[str] = "theta(t) prescribed"
    impulses: ClassVar[Impulses] = ()

    def __post_init__(self) -> None:
        times, _ = _points(self, "thetas")
        if len(times) < 2 or times[0] != 0 or np.any(np.diff(times) < 0):
            raise InputError("times of the path must ascend from 0 to tau; only equal times, for a jump, may repeat.")
        require_positive("tau", float(times[-1]))

    @property
    def tau(self) -> float:
        """The time at which the path ends."""
        return self.times[-1]

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which theta jumps, the ends left out."""
        times = np.array(self.times)
        return tuple(np.unique(times[1:][np.diff(times) == 0]).tolist())

    def theta(self, t: ArrayLike, after: bool = True) -> Array:
        """theta(t); at a jump, its value after it or before it."""
        t, times, thetas = np.asarray(t, float), np.array(self.times), np.array(self.thetas)
        i = np.clip(np.searchsorted(times, t, side="right" if after else "left"), 1, len(times) - 1)
        width = times[i] - times[i - 1]
        ratio = np.divide(t - times[i - 1], width, out=np.full(np.shape(t), float(after)), where=width > 0)
        theta: Array = thetas[i - 1] + np.clip(ratio, 0.0, 1.0) * (thetas[i] - thetas[i - 1])
        return theta

    def about(self, origin: float) -> "Path":
        """The same with positions counted from ``origin``."""
        return replace(self, thetas=tuple(theta - origin for theta in self.thetas))

    def to_dict(self) -> dict[str, Any]:
        """What ``from_dict`` needs to make it again, in JSON's types."""
        return _described(self)


@dataclass(frozen=True)
class StraightLine(Path):
    """theta moves at constant speed from theta0 to theta*: the natural-gradient flow of the trap (Eqs. 54 and 63)."""

    name: ClassVar[str] = "straight-line"
    equation: ClassVar[str] = "theta0 + (theta* - theta0) t / tau"


Protocol = Schedule | Path
# The protocols a name is enough for, in the order of the paper's Fig. 6.
NAMES = ("discontinuous", "slow-driving", "continuous", "constant", "straight-line")


def protocol(name: str, trap: Trap, eta: float = 0.5, use_target: bool = False) -> Protocol:
    """The protocol of this name for this trap, its preconditions checked.

    ``eta`` (1/time) is the rate of "constant".  ``use_target`` allows the first impulse of "discontinuous" to use
    theta*, which it needs unless u0 = theta0 (Eq. 36).  Raises InputError.
    """
    mobility, tau = trap.mobility, trap.tau
    if name == "constant":
        return Constant(tau=tau, eta=eta)
    if name == "continuous":
        start(name, trap)
        return Continuous(tau=tau, delay=1 / mobility)
    if name == "slow-driving":
        start(name, trap)
        return SlowDriving(tau=tau, delay=1 / mobility)
    if name == "discontinuous":
        first = 1 / (mobility * tau + 2)
        u0 = start(name, trap)
        if u0 != trap.theta0:
            if not use_target:
                raise InputError(
                    f"u0 is {u0} and theta0 is {trap.theta0}; the discontinuous protocol must start from u0 = theta0,"
                    " unless its first impulse may use theta* (Eq. 36): then say use_target."
                )
            if u0 == trap.target:
                raise InputError(f"u0 is {u0}, the target itself; the first impulse (Eq. 36) needs u0 != theta*.")
            first += (u0 - trap.theta0) / (trap.target - u0)
        return Discontinuous(tau=tau, delay=2 / mobility, impulses=((0.0, first), (tau, 0.5)))
    if name == "straight-line":
        return StraightLine(times=(0.0, tau), thetas=(trap.theta0, trap.target))
    raise InputError(f"protocol is {name!r}; it must be one of {', '.join(NAMES)}.")


def start(name: str, trap: Trap) -> float:
    """The mean of x at the start: ``trap.u0``, or where that is None the start that the protocol asks for.

    That is equilibrium, u0 = theta0, but for "continuous", which needs Eq. 31: mu tau = (theta* - theta0)/(theta0 -
    u0). Raises InputError where a given u0 contradicts the protocol.
    """
    if name == "continuous":
        needed = trap.theta0 - (trap.target - trap.theta0) / (trap.mobility * trap.tau)
        if trap.u0 is None:
            if trap.theta0 == trap.target:
                raise InputError(
                    f"theta0 is {trap.theta0}, the target itself; the continuous protocol needs theta0 != theta*."
                )
            return needed
        if not (trap.target < trap.theta0 < trap.u0 or trap.u0 < trap.theta0 < trap.target):
            raise InputError(
                f"u0, theta0, theta* are {trap.u0}, {trap.theta0}, {trap.target}; the continuous protocol (Eq. 31)"
                " exists only for theta* < theta0 < u0 or u0 < theta0 < theta*."
            )
        if not np.isclose(trap.u0, needed, rtol=1e-9, atol=1e-12 * abs(trap.target - trap.theta0)):
            raise InputError(
                f"u0 is {trap.u0}; Eq. 31 needs u0 = {needed:.12g} here: leave u0 out to start from there."
            )
        return trap.u0
    if trap.u0 is None:
        return trap.theta0
    if name == "slow-driving" and trap.u0 != trap.theta0:
        raise InputError(
            f"u0 is {trap.u0} and theta0 is {trap.theta0}; slow driving (Eq. 53) must start from equilibrium,"
            " u0 = theta0."
        )
    return trap.u0


def given_protocol(name: str, value: Any) -> str | Protocol:
    """The check of a field: a name of `NAMES`, a protocol, or what ``to_dict`` made of one.  Raises InputError."""
    if isinstance(value, dict):
        return from_dict(value)
    if isinstance(value, Protocol) or (isinstance(value, str) and value in NAMES):
        return value
    raise InputError(f"{name} is {short(value)}; it must be one of {', '.join(NAMES)}, or a protocol of your own.")


def from_dict(values: dict[str, Any]) -> Protocol:
    """The protocol that ``to_dict`` described.  Raises InputError where it describes none."""
    kinds: tuple[type[Protocol], ...] = (
        Constant,
        Continuous,
        Discontinuous,
        SlowDriving,
        Tabulated,
        Path,
        StraightLine,
    )
    for kind in kinds:
        if kind.name == values.get("name"):
            try:
                return kind(**{key: value for key, value in values.items() if key != "name"})
            except TypeError as error:
                raise InputError(f"protocol {short(values)} is not one of ours ({error}).") from error
    raise InputError(f"protocol is {values.get('name')!r}; it must be one of {', '.join(kind.name for kind in kinds)}.")


def _described(protocol: Protocol) -> dict[str, Any]:
    """Name and fields, in JSON's types."""
    own = {one.name: to_json_types(getattr(protocol, one.name)) for one in fields(protocol) if one.init}
    return {"name": protocol.name} | own


def _points(protocol: "Tabulated | Path", name: str) -> tuple[Array, Array]:
    """Times and values of a protocol's points, which are kept as tuples of floats.  Raises InputError."""
    found = []
    for label in ("times", name):
        entries = np.asarray(getattr(protocol, label))
        if entries.ndim != 1 or not np.issubdtype(entries.dtype, np.number) or np.iscomplexobj(entries):
            raise InputError(f"{label} is {short(getattr(protocol, label))}; it must be a sequence of numbers.")
        found.append(entries.astype(float))
    times, values = found
    if len(times) != len(values):
        raise InputError(f"{name} has {len(values)} entries and times has {len(times)}; both must be equal.")
    if not len(values):
        raise InputError(f"{name} is empty; it must have at least one entry.")
    for label, entries in (("times", times), (name, values)):
        if not np.all(np.isfinite(entries)):
            raise InputError(f"{label} holds a value that is not finite; all must be finite numbers.")
        object.__setattr__(protocol, label, tuple(entries.tolist()))
    return times, values
