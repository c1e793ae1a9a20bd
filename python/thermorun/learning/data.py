"""Data of one's own to learn from: points in an array or a file, and the theta that they are most likely under."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thermorun.arrays import Array, given
from thermorun.errors import InputError, short, words
from thermorun.potentials import System
from thermorun.potentials.exact import Data
from thermorun.textfiles import read_table

TEXT = (".csv", ".tsv", ".txt", ".dat")
ENDINGS = (*TEXT, ".npy", ".npz")
# Fisher scoring ends where another step would lower the loss by less than this, in kT; it needs about ten steps.
_DECREMENT, _MOST_STEPS, _MOST_HALVINGS = 1e-20, 200, 60


@dataclass(frozen=True, eq=False)
class Sample:
    """Points to learn from: ``x`` (points, dimension), float64, or None where only a file's description is at hand.

    Samples are equal where their ``fingerprint`` is, a hash of the numbers.
    """

    name: str
    points: int
    dimension: int
    fingerprint: str
    x: Array | None = None

    @classmethod
    def of(cls, x: Array, name: str) -> "Sample":
        """The sample of an array (points, dimension) of finite numbers."""
        content = np.ascontiguousarray(x, float)
        digest = hashlib.sha256(repr(content.shape).encode() + content.tobytes()).hexdigest()
        content.flags.writeable = False
        return cls(name, len(content), content.shape[1], digest[:16], content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sample) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<{self.points} points of {self.name}>"

    def to_dict(self) -> dict[str, Any]:
        """All but the points, in JSON's types."""
        return {name: getattr(self, name) for name in ("name", "points", "dimension", "fingerprint")}


def sample(name: str, value: Any) -> Sample:
    """Checks what was given as data: an array (n,) or (n, d), a file that holds one, or what ``to_dict`` wrote."""
    if isinstance(value, Sample):
        return value
    if isinstance(value, dict):
        try:
            return Sample(**value)
        except TypeError as error:
            raise InputError(f"{name} is {short(value)}; it must be points, or a file of them.") from error
    if isinstance(value, str | Path):
        return Sample.of(_points(name, _read(name, Path(value)), f", in {value},"), Path(value).name)
    return Sample.of(_points(name, value, ""), "an array")


def _points(name: str, values: ArrayLike, where: str) -> Array:
    array = given(f"{name}{where}", values)
    numbers = array.astype(float) if array.dtype.kind in "fiub" else None
    if numbers is None or numbers.ndim not in (1, 2):
        raise InputError(f"{name}{where} is no array of numbers of shape (n,) or (n, d).")
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if len(numbers) < 2 or numbers.shape[1] < 1:
        raise InputError(f"{name}{where} holds {len(numbers)} points; it must hold at least 2.")
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(bad):
        raise InputError(f"{name}{where} holds {numbers[bad[0]].tolist()} as point {bad[0]}; all must be finite.")
    return numbers


def _read(name: str, path: Path) -> ArrayLike:
    """The array in a file.  Raises InputError where there is none."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{name} is {path}; it must be an array or a file that ends in {', '.join(ENDINGS)}.")
    if not path.is_file():
        raise InputError(f"{name} is {path}, which is no file.")
    try:
        if path.suffix.lower() in TEXT:
            return read_table(name, path)
        with open(path, "rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                return stored
            names = list(stored)
            if "x" not in names and len(names) != 1:
                raise InputError(f"{name} is {path}, which holds {', '.join(names) or 'nothing'}; call the points x.")
            return np.asarray(stored["x" if "x" in names else names[0]])
    except OSError as error:
        raise InputError(f"{name} is {path}, which cannot be read ({error.strerror or error}).") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is {path}, which holds no array that NumPy can read.") from error


def most_likely(system: System, data: Data, theta: ArrayLike) -> tuple[float, ...]:
    """The theta (p,) that the data are most likely under, found from ``theta``; needs a potential with known theory.

    Fisher scoring, theta -> theta - beta g^-1 (<dE/dtheta>_data - dF/dtheta), with steps halved until the loss
    <E>_data - F falls.  Raises InputError where there is no such theta near.
    """
    potential = system.potential
    point = np.array(potential.require_valid(theta), float)
    here = system.exact(point)
    for _ in range(_MOST_STEPS):
        if here is None or not np.all(np.isfinite(here.fisher)):
            break
        gradient = data.mean_gradient(potential, point) - here.mean_gradient
        try:
            step = -system.beta * np.linalg.solve(here.fisher, gradient)
        except np.linalg.LinAlgError:
            break
        if not -system.beta * float(gradient @ step) > _DECREMENT:
            return tuple(point.tolist())
        loss = data.mean_energy(potential, point) - here.free_energy
        for _ in range(_MOST_HALVINGS):
            new = point + step
            there = _exact(system, new)
            if there is not None and data.mean_energy(potential, new) - there.free_energy < loss:
                break
            step = 0.5 * step
        else:
            # No loss is lower to the last digit: this is the bottom, or there is no way on.
            if -system.beta * float(gradient @ step) * 2.0**_MOST_HALVINGS < 1e-9:
                return tuple(point.tolist())
            break
        point, here = new, there
    first = words(np.atleast_1d(np.asarray(theta, float)).tolist())
    raise InputError(
        f"data have no most likely theta of {potential.name} near {first}: they hold too few points, or the potential"
        " cannot describe them."
    )


def _exact(system: System, theta: Array) -> Any:
    """What is known at theta; None where that is no valid point."""
    try:
        return system.exact(theta) if np.all(np.isfinite(theta)) else None
    except InputError:
        return None
