"""Where x lives: for each coordinate the whole line, a half line, an interval with walls, or a period.

Walls reflect; a periodic coordinate is kept in one period.  For what is made for the whole line (annealing), each side
has a coordinate y on it:

    half line  x = low + exp(y), x = high - exp(-y);    interval or period  x = low + (high - low) / (1 + exp(-y)).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import expit, log_expit

from thermorun.arrays import Array
from thermorun.errors import InputError, require_positive, short

if TYPE_CHECKING:
    from thermorun.potentials.potential import Potential


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high`` [length]; walls where they are finite."""

    low: float = -np.inf
    high: float = np.inf
    periodic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise InputError(f"domain has {name} = {short(value)}; it must be a number.")
            object.__setattr__(self, name, float(value))
        if not self.low < self.high:
            raise InputError(f"domain is {self}; it must begin below its end.")

    def __str__(self) -> str:
        return f"({self.low:g}, {self.high:g})"

    @property
    def bounded(self) -> tuple[bool, bool]:
        """Whether it ends below, and above."""
        return self.low > -np.inf, self.high < np.inf

    @property
    def line(self) -> bool:
        """Whether it has no end."""
        return not any(self.bounded)

    def grid(self, scale: float, points: int) -> Array:
        """Points (n,) at all distances from the ends, or from zero where there are none, and the ends themselves.

        Distances grow by a constant factor; ``scale`` is how far y goes.
        """
        if self.line:
            return np.sinh(np.linspace(-scale, scale, points))
        x, _, _ = self.from_line(np.linspace(-scale, scale, points))
        inner = np.unique(x[(self.low < x) & (x < self.high)])
        return np.concatenate([[self.low][: self.bounded[0]], inner, [self.high][: self.bounded[1]]])

    def closes(self, low: float, high: float) -> bool:
        """Whether ``low`` and ``high`` are the same point of a periodic coordinate."""
        return self.periodic and low == self.low and high == self.high

    def from_line(self, y: Array) -> tuple[Array, Array, Array]:
        """x, ln dx/dy and d ln(dx/dy) / dy of y, all of the same shape."""
        with np.errstate(over="ignore"):
            match self.bounded:
                case True, True:
                    width = self.high - self.low
                    x = np.where(y < 0, self.low + width * expit(y), self.high - width * expit(-y))
                    return x, np.log(width) + log_expit(y) + log_expit(-y), expit(-y) - expit(y)
                case True, False:
                    return self.low + np.exp(y), y, np.ones_like(y)
                case False, True:
                    return self.high - np.exp(-y), -y, -np.ones_like(y)
        return y, np.zeros_like(y), np.zeros_like(y)


class Periodic(Interval):
    """A period of a coordinate, such as ``Periodic(-pi, pi)`` of an angle: x is kept in it.

    Raises
    ------
    InputError
        For bounds that are not finite, or in the wrong order.

    Examples
    --------
    >>> from thermorun.potentials import Periodic
    >>> str(Periodic(0, 6.25))
    'a period (0, 6.25)'
    """

    periodic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.isfinite(self.high - self.low):
            raise InputError(f"domain is {self}; a period must be finite.")

    def __str__(self) -> str:
        return f"a period {super().__str__()}"


LINE = Interval()


@dataclass(frozen=True)
class Domain:
    """One side for each coordinate of x."""

    sides: tuple[Interval, ...]

    def __str__(self) -> str:
        return " x ".join(map(str, self.sides))

    @cached_property
    def everywhere(self) -> bool:
        """Whether x may be anywhere: no walls, no periods."""
        return all(side.line for side in self.sides)

    @property
    def walls(self) -> bool:
        """Whether there are walls."""
        return any(not side.line and not side.periodic for side in self.sides)

    @property
    def open(self) -> int:
        """How many coordinates reach infinity."""
        return sum(not all(side.bounded) for side in self.sides)

    @property
    def plain(self) -> tuple[tuple[float, float, bool], ...]:
        """What the kernels are compiled for: low, high, periodic of each coordinate; empty for all of space."""
        return () if self.everywhere else tuple((side.low, side.high, side.periodic) for side in self.sides)

    @property
    def box(self) -> tuple[Array, Array]:
        """Corners (d,) of a box inside: all of a finite side, else two units of length from its wall or around zero."""
        low, high = np.array([(side.low, side.high) for side in self.sides]).T
        low = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 2, -1.0))
        return low, np.where(np.isfinite(high), high, low + 2)

    def inside(self, x: Array) -> Array:
        """Which of the points (..., d) lie in it, walls included; of a periodic coordinate in its one period."""
        low, high = np.array([(side.low, side.high) for side in self.sides]).T
        return np.asarray(np.all((low <= x) & (x <= high), axis=-1))

    def wrapped(self, x: Array) -> Array:
        """Points (..., d) with periodic coordinates in their period; a copy where that moves any."""
        for k, side in enumerate(self.sides):
            if side.periodic and not np.all((side.low <= x[..., k]) & (x[..., k] <= side.high)):
                x = x.copy()
                x[..., k] = side.low + np.mod(x[..., k] - side.low, side.high - side.low)
        return x

    def corners(self) -> Array:
        """Points (n, d) from which rays see all scales: all lower ends, all upper ends, in between; zero on lines."""
        low, high = np.array([(side.low, side.high) for side in self.sides]).T
        lower = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0.0))
        upper = np.where(np.isfinite(high), high, lower)
        return np.unique([lower, upper, 0.5 * (lower + upper)], axis=0)

    def require_inside(self, x: Array, name: str, potential: str) -> None:
        """Raises InputError unless all points (..., d) lie in it, whatever the period."""
        if self.everywhere:
            return
        out = ~self.inside(self.wrapped(x))
        if np.any(out):
            point = x[tuple(np.argwhere(out)[0])]
            where = f"{point[0]:g}" if len(point) == 1 else f"({', '.join(f'{one:g}' for one in point)})"
            raise InputError(f"{name} holds x = {where}, outside the domain of {potential}, {self}.")


def domain_of(value: Any, dimension: int, potential: str) -> Domain:
    """A domain from what a user gives: None, a pair or a `Periodic`; in several dimensions one for each."""
    if isinstance(value, Domain):
        sides: Any = value.sides
    elif dimension == 1:
        sides = (value,)
    else:
        sides = (None,) * dimension if value is None else value
    if not isinstance(sides, tuple | list) or len(sides) != dimension:
        raise InputError(
            f"domain of potential {potential!r} is {short(value)}; it must have one entry for each of its {dimension}"
            " dimensions: None, (low, high) or Periodic(low, high)."
        )
    return Domain(tuple(_side(side, potential) for side in sides))


def _side(value: Any, potential: str) -> Interval:
    if value is None:
        return LINE
    if isinstance(value, Interval):
        return value
    if not isinstance(value, tuple | list | np.ndarray) or len(value) != 2:
        raise InputError(
            f"domain of potential {potential!r} has the entry {short(value)}; it must be None, (low, high) or"
            " Periodic(low, high)."
        )
    return Interval(*value)


@dataclass(frozen=True)
class OnTheLine:
    """A potential in coordinates y that have no ends: E(x(y)) - kT ln |dx/dy|, which has the distribution of y."""

    potential: "Potential"
    beta: float

    @property
    def name(self) -> str:
        return self.potential.name

    @property
    def dimension(self) -> int:
        return self.potential.dimension

    def x(self, y: Array) -> Array:
        """x of points y, both (n, d)."""
        return self._parts(y)[0]

    def _parts(self, y: Array) -> tuple[Array, Array, Array]:
        parts = [side.from_line(y[:, k]) for k, side in enumerate(self.potential.domain.sides)]
        x, logs, slopes = (np.stack(part, axis=1) for part in zip(*parts, strict=True))
        return x, logs, slopes

    def evaluate(self, y: Array, theta: tuple[float, ...]) -> tuple[Array, Array, Array]:
        """Energies (n,), forces (n, d) and gradients (n, p) at points (n, d)."""
        x, logs, slopes = self._parts(y)
        energies, forces, gradients = self.potential.evaluate(x, theta)
        with np.errstate(over="ignore", invalid="ignore"):
            return (
                energies - logs.sum(axis=1) / self.beta,
                forces * np.exp(logs) + slopes / self.beta,
                gradients,
            )

    def energies(self, y: Array, theta: tuple[float, ...]) -> Array:
        """Energies (n,) at points (n, d)."""
        return self.evaluate(y, theta)[0]

    def gradients(self, y: Array, theta: tuple[float, ...]) -> Array:
        """dE/dtheta (p, n) at points (n, d)."""
        return self.evaluate(y, theta)[2].T


def on_the_line(potential: "Potential", beta: float) -> "Potential | OnTheLine":
    """The potential itself where x may be anywhere, else in coordinates without ends."""
    return potential if potential.domain.everywhere else OnTheLine(potential, require_positive("beta", beta))
