"""A number or an array, and how well it is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from thermorun.arrays import Array


@dataclass(frozen=True, eq=False)
class Estimate:
    """A mean and its standard error, which is NaN where the samples do not tell it; numbers, or arrays of one shape.

    ``samples`` counts what was averaged with equal weights (replicas, say), so that estimates can be merged.  ``dof``
    are the degrees of freedom of the standard error: infinite where it comes from very many samples, n - 1 where it is
    the spread of n.
    """

    mean: Any
    stderr: Any
    samples: int = 1
    dof: float = math.inf

    def merge(self, other: "Estimate") -> "Estimate":
        """The estimate from both sets of samples."""
        total = self.samples + other.samples
        mine, theirs = self.samples / total, other.samples / total
        mean = mine * self.mean + theirs * other.mean
        return Estimate(mean, np.hypot(mine * self.stderr, theirs * other.stderr), total, self.dof + other.dof)

    def z(self, truth: ArrayLike) -> Any:
        """How far the mean lies from ``truth``, as a normal deviate: (mean - truth) / stderr for infinite ``dof``.

        Fewer degrees of freedom make large deviations common, by Student's t; this gives the normal deviate that is as
        rare, so that |z| < 4 means the same everywhere.  NaN without a standard error.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(np.asarray(self.stderr) > 0, (self.mean - np.asarray(truth)) / self.stderr, np.nan)
        if math.isfinite(self.dof):
            t = -np.sign(t) * special.ndtri(special.stdtr(self.dof, -np.abs(t)))  # scipy.stats takes 0.3 s to import
        return float(t) if np.ndim(t) == 0 else t

    def __getitem__(self, index: Any) -> "Estimate":
        mean, stderr = np.asarray(self.mean)[index], np.asarray(self.stderr)[index]
        if np.ndim(mean) == 0:
            mean, stderr = float(mean), float(stderr)
        return Estimate(mean, stderr, self.samples, self.dof)

    def __len__(self) -> int:
        return len(self.mean)

    def __bool__(self) -> bool:  # else Python would ask for the length, which a number has not
        return True

    def __float__(self) -> float:
        return float(self.mean)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.mean, dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Estimate):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return np.asarray(self.mean, float).tobytes(), np.asarray(self.stderr, float).tobytes(), self.samples, self.dof

    def to_dict(self, exact: Any = None) -> dict[str, Any]:
        """For JSON: mean and stderr, and beside an exact value that and z; what is unknown is null."""
        values = {"mean": finite_or_none(self.mean), "stderr": finite_or_none(self.stderr)}
        if exact is None:
            return values
        return values | {"exact": finite_or_none(exact), "z": finite_or_none(self.z(exact))}

    def __str__(self) -> str:
        """The mean to two digits of its standard error, as in 0.14286 ± 0.00056."""
        if np.ndim(self.mean):
            return np.array2string(np.asarray(self.mean), precision=5) + f" ± <= {np.nanmax(self.stderr):.2g}"
        return with_error(float(self.mean), float(self.stderr))

    __repr__ = __str__


def with_error(mean: float, stderr: float) -> str:
    """A number to two digits of its standard error; a question mark for what is not known."""
    if math.isnan(mean):
        return "?"
    if not (math.isfinite(stderr) and stderr > 0 and math.isfinite(mean)):
        return f"{mean:.6g} ± ?"
    digits = 1 - math.floor(math.log10(stderr))
    if not -4 <= 1 - digits < 5:  # far from one both share a power of ten
        power = math.floor(math.log10(max(abs(mean), stderr)))
        shift = max(0, power + digits)
        return f"({mean / 10.0**power:.{shift}f} ± {stderr / 10.0**power:.{shift}f})e{power:+03d}"
    return f"{mean:.{max(0, digits)}f} ± {stderr:.{max(0, digits)}f}"


def over_replicas(values: ArrayLike, within: ArrayLike | None = None) -> Estimate:
    """The mean over replicas, the first axis, and its standard error.

    ``values`` and ``within`` are (replicas, ...): each replica's mean and its squared standard error from within.
    Where ``within`` is None or unknown, as for a replica of a single block of 1,024 particles or one with data of its
    own, the error comes from the spread of the replicas; a single replica then gives NaN.
    """
    data = np.asarray(values, float)
    count = len(data)
    mean = data.mean(axis=0)
    dof = math.inf
    if within is not None and np.all(np.isfinite(within)):
        stderr = np.sqrt(np.sum(within, axis=0)) / count
    elif count > 1:
        stderr, dof = np.std(data, axis=0, ddof=1) / np.sqrt(count), count - 1.0
    else:
        stderr = np.full(data.shape[1:], np.nan)
    return Estimate(*_plain(mean, stderr), count, dof)


def over_both(values: Array) -> Estimate:
    """The mean of ``values`` (rows, columns), rows and columns being drawn anew: devices and images, say.

    The variance of the mean is that of rows, plus that of columns, plus what is left over: the variances of row means
    and of column means hold the last part once each, so it is taken off once.  A single row tells of columns alone;
    numbers that are all alike tell nothing.
    """
    data = np.asarray(values, float)
    rows, columns = data.shape
    mean, by_row, by_column = data.mean(), data.mean(axis=1), data.mean(axis=0)
    if columns < 2:
        return Estimate(float(mean), math.nan)
    variance, dof = by_column.var(ddof=1) / columns, columns - 1.0
    if rows > 1:
        left = data - by_row[:, None] - by_column + mean
        rest = np.sum(left**2) / ((rows - 1) * (columns - 1)) / data.size
        between = by_row.var(ddof=1) / rows
        whole = max(variance + between - rest, variance, between)
        # Satterthwaite's degrees of freedom: few rows tell little of their own variance.
        dof = whole**2 / (between**2 / (rows - 1) + variance**2 / (columns - 1)) if whole > 0 else dof
        variance = whole
    return Estimate(float(mean), math.sqrt(variance) if variance > 0 else math.nan, data.size, dof)


def over_samples(values: Array) -> Estimate:
    """The mean of independent numbers (n,), and its standard error from their spread; not known for none of them."""
    return over_replicas(values) if len(values) else Estimate(math.nan, math.nan)


def jackknife(parts: Array, statistic: Callable[[Array], Any], axis: int = 0) -> Estimate:
    """A statistic of the mean over independent parts, with its error by leaving one out in turn.

    ``parts`` has the parts, of equal weight, along ``axis``; ``statistic`` takes their mean, of the shape that is left.
    """
    count = parts.shape[axis]
    total = _in_order(np.moveaxis(parts, axis, 0))
    whole = np.asarray(statistic(total / count), float)
    if count < 2:
        return Estimate(*_plain(whole, np.full(whole.shape, np.nan)), 1)
    left = np.stack([np.asarray(statistic((total - part) / (count - 1))) for part in np.moveaxis(parts, axis, 0)])
    return Estimate(*_plain(whole, left_out_error(left)), 1, count - 1.0)


def left_out_error(left: Array) -> Array:
    """The jackknife's standard error from what a statistic is without each part, along the first axis."""
    count = len(left)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt((count - 1) / count * _in_order((left - _in_order(left) / count) ** 2)))


def _in_order(values: Array) -> Array:
    """The sum over the first axis, one after the other: NumPy's own order depends on how many numbers a row has."""
    total = np.array(values[0], float)
    for one in values[1:]:
        total += one
    return total


def _plain(mean: Any, stderr: Any) -> tuple[Any, Any]:
    return (float(mean), float(stderr)) if np.ndim(mean) == 0 else (mean, stderr)


def finite_or_none(value: Any) -> Any:
    """A number, or nested lists of them for an array, with None where JSON has no number."""
    if np.ndim(value):
        return [finite_or_none(element) for element in value]
    return float(value) if math.isfinite(value) else None
