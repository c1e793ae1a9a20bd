"""Whatever people have as images and labels, brought into one form."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermorun.arrays import Array, given
from thermorun.errors import InputError

Shape = tuple[int, int]


def pixels(x: ArrayLike, name: str) -> tuple[Array, Shape]:
    """Images as numbers (points, D) of their own dtype, and (rows, columns) of a picture.

    ``x`` is (points, D) or (points, rows, columns), with or without an axis of one channel.  Raises InputError.
    """
    values = given(name, x)
    if values.ndim == 4 and 1 in (values.shape[1], values.shape[3]):
        values = values[..., 0] if values.shape[3] == 1 else values[:, 0]
    if values.ndim == 4 and 3 in (values.shape[1], values.shape[3]):
        raise InputError(f"{name} holds colour images, of shape {values.shape}; make them grey first: x.mean(axis=-1).")
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "buif":
        raise InputError(
            f"{name} has shape {values.shape} and type {values.dtype}; it must be numbers, (points, D) or (points,"
            " rows, columns), not empty."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{name} holds numbers that are not finite.")
    shape = (values.shape[1], values.shape[2]) if values.ndim == 3 else square(values.shape[1])
    return values.reshape(len(values), -1), shape


def square(size: int) -> Shape:
    """Rows and columns of a picture of so many pixels: a square, or one row."""
    side = round(float(np.sqrt(size)))
    return (side, side) if side * side == size else (1, size)


def labels(values: ArrayLike, points: int, name: str) -> Array:
    """One label a point: int64, or strings where they are no numbers.

    Integers, whole floats, booleans, strings, as (points,) or a column, or one-hot rows.  Raises InputError.
    """
    found = given(f"labels of {name}", values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim == 2 and found.dtype.kind in "buif" and np.isin(found, (0, 1)).all() and (found.sum(1) == 1).all():
        found = found.argmax(axis=1)
    if found.shape != (points,):
        raise InputError(
            f"labels of {name} have shape {np.shape(values)}; there must be one for each of {points} points."
        )
    if found.dtype.kind in "SUOT":
        return _of_words(found, name)
    if found.dtype.kind == "f" and np.isfinite(found).all() and (found == np.floor(found)).all():
        return found.astype(np.int64)
    if found.dtype.kind not in "biu":
        raise InputError(
            f"labels of {name} are of type {found.dtype}, not all whole; they must be classes, not amounts."
        )
    return found.astype(np.int64)


def _of_words(found: Array, name: str) -> Array:
    words = [word.decode(errors="replace") if isinstance(word, bytes) else word for word in found.tolist()]
    if not all(isinstance(word, str | int) for word in words):
        raise InputError(f"labels of {name} hold {next(w for w in words if not isinstance(w, str | int))!r}, no class.")
    strings = [str(word).strip() for word in words]
    try:
        return np.array([int(word) for word in strings], np.int64)
    except (ValueError, OverflowError):
        return np.array(strings)


def numbered(*several: Array | None) -> tuple[list[NDArray[np.int64] | None], tuple[str, ...]]:
    """Labels as int64: themselves, or the places of words among all words in order, which are given too."""
    there = [each for each in several if each is not None]
    if all(each.dtype.kind == "i" for each in there):
        return list(several), ()
    words = sorted({str(word) for each in there for word in each})
    return [None if each is None else np.searchsorted(words, each.astype(str)) for each in several], tuple(words)


def wanted(classes: tuple[int | str, ...], there: Array, names: tuple[str, ...], name: str) -> NDArray[np.int64]:
    """The numbers of classes asked for by number or by name.  Raises InputError where one is absent."""
    known = {names[k] if names else str(k): int(k) for k in there}
    absent = [str(one) for one in classes if str(one) not in known]
    if absent:
        raise InputError(
            f"classes asks for {', '.join(absent)}, which {name} does not have; it has {', '.join(known)}."
        )
    return np.unique(np.array([known[str(one)] for one in classes], np.int64))
