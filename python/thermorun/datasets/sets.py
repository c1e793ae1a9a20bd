"""Bits and grey images with classes: by name, from a file or a folder, from arrays."""

import importlib.util
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermorun.arrays import Array
from thermorun.datasets import files, idx, normal
from thermorun.errors import InputError

NAMES = ("digits", "mnist-012", "mnist")
# What a data set of arrays is called.
ARRAY = "array"
# Of grey images: the squares of 784 such pixels can be added up in single precision.
_LARGEST = 1e17
# Above this grey value a pixel of the built-in sets is a one.
_DIGITS_THRESHOLD, _MNIST_THRESHOLD = 7.0, 127.0


@dataclass(frozen=True)
class Dataset:
    """Bits with classes.

    ``x`` uint8 (points, D) of zeros and ones; ``labels`` int64 (points,), all zero where there are no classes;
    ``shape`` (rows, columns) for pictures; ``test_x`` and ``test_labels`` the same of a part held out, if there is one.
    ``names`` are the classes' where they are words, ``labels`` then their places; ``source`` is what `load` finds the
    data by from any folder.
    """

    name: str
    x: NDArray[np.uint8]
    labels: NDArray[np.int64]
    shape: tuple[int, int]
    test_x: NDArray[np.uint8] | None = None
    test_labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    source: str = ARRAY

    @property
    def classes(self) -> NDArray[np.int64]:
        """The classes that occur, ascending."""
        return np.unique(self.labels)

    def class_name(self, label: int) -> str:
        """What a class is called."""
        return self.names[label] if self.names else str(label)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Share of the points in each of ``classes``."""
        _, counts = np.unique(self.labels, return_counts=True)
        shares: NDArray[np.float64] = counts / len(self.labels)
        return shares

    @property
    def fingerprint(self) -> int:
        """CRC-32 of bits, labels and their number: tells one data set from another."""
        value = zlib.crc32(self.labels.tobytes(), zlib.crc32(np.packbits(self.x).tobytes(), len(self.x) & 0xFFFFFFFF))
        return zlib.crc32("\n".join(self.names).encode(), value) if self.names else value

    def only(self, classes: tuple[int | str, ...]) -> Self:
        """The points of these classes, by number or name.  Raises InputError where one of them is absent."""
        chosen = normal.wanted(classes, self.classes, self.names, self.name)
        keep = np.isin(self.labels, chosen)
        part = replace(self, x=self.x[keep], labels=self.labels[keep])
        if self.test_x is None or self.test_labels is None:
            return part
        held = np.isin(self.test_labels, chosen)
        return replace(
            part,
            test_x=self.test_x[held] if held.any() else None,
            test_labels=self.test_labels[held] if held.any() else None,
        )


@dataclass(frozen=True)
class Images:
    """Grey images with classes, for training and held out.

    ``x`` float32 (points, D), from 0 to 1 in the built-in sets; ``labels`` int64 (points,), the number of each point's
    class in ``classes``, int64 ascending; ``test_x`` and ``test_labels`` the same of the points held out, -1 for a
    class without training points; ``shape`` (rows, columns) for pictures; ``test_values`` the labels of the points held
    out as they were given; ``names`` those of all classes where they are words: class k is ``names[k]``.
    """

    name: str
    x: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    shape: tuple[int, int]
    test_values: NDArray[np.int64]
    names: tuple[str, ...] = ()

    @property
    def unseen(self) -> NDArray[np.int64]:
        """The classes of points held out that have no training points."""
        return np.unique(self.test_values[self.test_labels < 0])

    @property
    def fingerprint(self) -> int:
        """CRC-32 of all of it: tells one data set from another."""
        value = 0
        for array in (self.x, self.labels, self.test_x, self.test_labels, self.classes):
            value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
        return zlib.crc32("\n".join(self.names).encode(), value) if self.names else value


def _digits() -> tuple[Array, Array]:
    """The digits that scikit-learn comes with, grey values from 0 to 16, (1797, 8, 8), and what they are.

    Its file is read in place: to import scikit-learn takes a second, which is all of the start of a short run.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def load_images(name: str, classes: tuple[int | str, ...] | None = None, each: int | None = None) -> Images:
    """The grey images of that name, or in that file or folder; only ``classes`` of them where they are given.

    ``digits`` and files without a test part hold out every third point; ``each`` is that of `images_from_arrays`.
    Raises InputError for an unknown name, data without labels, absent classes, and downloads that fail.
    """
    if name == "digits":
        grey, labels = _digits()
        return images_from_arrays(grey / 16.0, labels, name=name, classes=classes, each=each)
    if name == "mnist":
        x, labels = idx.mnist("train")
        test_x, test_labels = idx.mnist("t10k")
        grey, test_grey = x / np.float32(255), test_x / np.float32(255)
        return images_from_arrays(grey, labels, test_grey, test_labels, name, classes, each)
    raw = _read(name, ("digits", "mnist"))
    if raw.labels is None and each is None:
        raise InputError(
            f"dataset is {name}, which holds no labels; a classifier needs them: np.savez(x=..., labels=...)."
        )
    return images_from_arrays(raw.x, raw.labels, raw.test_x, raw.test_labels, name, classes, each)


def images_from_arrays(
    x: ArrayLike, labels: ArrayLike | None, test_x: ArrayLike | None = None, test_labels: ArrayLike | None = None,
    name: str = ARRAY, classes: tuple[int | str, ...] | None = None, each: int | None = None,
) -> Images:  # fmt: skip
    """Grey images of one's own, (points, D) or (points, rows, columns), with one label a point.

    Without ``test_x`` every third point is held out.  ``each`` is for who learns so many images of each class, and
    need not tell them apart: one class is enough, without labels every image is a class of its own, and none is held
    out where that would leave too few of a class.  Raises InputError.
    """
    grey, shape = _grey(x, name)
    given = normal.labels(np.arange(len(grey)) if labels is None else labels, len(grey), name)
    if test_x is None or test_labels is None:
        held_out = np.arange(len(grey)) % 3 == 2
        held_out &= each is None or _fewest(given, ~held_out, classes) >= each
        test_grey, test_given = grey[held_out], given[held_out]
        grey, given = grey[~held_out], given[~held_out]
    else:
        test_grey, test_shape = _grey(test_x, name)
        if test_shape != shape:
            raise InputError(f"{name} has images of shape {shape}, but held-out ones of shape {test_shape}.")
        test_given = normal.labels(test_labels, len(test_grey), name)
    (numbers, test_numbers), names = normal.numbered(given, test_given)
    assert numbers is not None
    assert test_numbers is not None
    there = np.unique(numbers)
    wanted = there if classes is None else normal.wanted(classes, there, names, name)
    if len(wanted) < 2 and each is None:
        raise InputError(f"{name} has {len(wanted)} class to tell apart; it must be at least 2.")
    keep, seen = np.isin(numbers, wanted), np.isin(test_numbers, wanted)
    test_keep = np.ones_like(seen) if classes is None else seen
    if not test_keep.any() and each is None:
        raise InputError(f"{name} has no point to hold out in its classes; give more points.")
    numbered = np.where(seen, np.searchsorted(wanted, test_numbers), -1)[test_keep]
    return Images(
        name, np.ascontiguousarray(grey[keep], np.float32), np.searchsorted(wanted, numbers[keep]),
        np.ascontiguousarray(test_grey[test_keep], np.float32), numbered, wanted, shape, test_numbers[test_keep], names,
    )  # fmt: skip


def _grey(x: ArrayLike, name: str) -> tuple[Array, normal.Shape]:
    """Pixels of images whose squares single precision can add up.  Raises InputError for larger ones."""
    values, shape = normal.pixels(x, name)
    if (largest := max(float(values.max()), -float(values.min()))) > _LARGEST:
        raise InputError(f"{name} holds pixels of size {largest:.3g}; they must be at most {_LARGEST:g}: scale them.")
    return values, shape


def _fewest(labels: Array, kept: Array, classes: tuple[int | str, ...] | None) -> int:
    """Points of those ``kept`` that the smallest of the classes has."""
    there, places = np.unique(labels, return_inverse=True)
    counts = np.bincount(places[kept], minlength=len(there))
    chosen = counts if classes is None else counts[np.isin(there.astype(str), [str(one) for one in classes])]
    return int(chosen.min(initial=len(labels)))


def load(name: str, classes: tuple[int | str, ...] | None = None, threshold: float | None = None) -> Dataset:
    """The bits of that name, or in that file or folder; only ``classes`` of them where they are given.

    Grey values above ``threshold``, in the data's own units, are ones; 7 of 16 in ``digits`` and 127 of 255 in MNIST by
    default.  Raises InputError for an unknown name, grey data without a threshold, absent classes, and downloads that
    fail.
    """
    if name == "digits":
        data = from_arrays(*_digits(), name, threshold=_or(threshold, _DIGITS_THRESHOLD))
    elif name in ("mnist", "mnist-012"):
        data = _mnist(name, _or(threshold, _MNIST_THRESHOLD))
    else:
        raw = _read(name, NAMES)
        data = from_arrays(raw.x, raw.labels, name, threshold, raw.test_x, raw.test_labels)
        found = files.find(name)
        return _only(replace(data, source=str(found.resolve()) if found else name), classes)
    return _only(replace(data, source=name), classes)


def from_arrays(
    x: ArrayLike, labels: ArrayLike | None = None, name: str = ARRAY, threshold: float | None = None,
    test_x: ArrayLike | None = None, test_labels: ArrayLike | None = None,
) -> Dataset:  # fmt: skip
    """A data set of one's own bits, or of grey values above a threshold, (points, D) or (points, rows, columns).

    Raises InputError for anything else.
    """
    bits, shape = _bits(x, name, threshold)
    given = None if labels is None else normal.labels(labels, len(bits), name)
    test_bits, test_given = None, None
    if test_x is not None:
        test_bits, test_shape = _bits(test_x, name, threshold)
        if test_shape != shape:
            raise InputError(f"{name} has images of shape {shape}, but held-out ones of shape {test_shape}.")
        test_given = None if test_labels is None else normal.labels(test_labels, len(test_bits), name)
    (numbers, test_numbers), names = normal.numbered(given, test_given)
    if numbers is None:
        numbers = np.zeros(len(bits), np.int64)
    if test_bits is not None and test_numbers is None:
        test_numbers = np.zeros(len(test_bits), np.int64)
    return Dataset(name, bits, numbers, shape, test_bits, test_numbers, names)


def _bits(x: ArrayLike, name: str, threshold: float | None) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    values, shape = normal.pixels(x, name)
    if threshold is not None:
        values = values > threshold
    elif not np.isin(values, (0, 1)).all():
        low, high = float(values.min()), float(values.max())
        raise InputError(
            f"{name} holds other values than 0 and 1, from {low:g} to {high:g}; give a threshold above which they are"
            f" ones, such as {(low + high) / 2:g}."
        )
    bits: NDArray[np.uint8] = np.ascontiguousarray(values, np.uint8)
    return bits, shape


def _read(name: str, names: tuple[str, ...]) -> files.Raw:
    path = files.find(name)
    if path is None:
        if name == ARRAY:
            raise InputError(f"dataset is {name!r}: it was passed as an array; pass it again.")
        raise InputError(f"dataset is {name!r}; it must be {', '.join(names)}, or a file or folder that exists.")
    return files.read(path)


def _mnist(name: str, threshold: float) -> Dataset:
    """MNIST, with its test images where they need no download: nothing rests on them but the held-out likelihood."""
    x, labels = idx.mnist("train")
    test_x, test_labels = idx.mnist("t10k") if idx.mnist_is_near("t10k") else (None, None)
    if name == "mnist":
        return from_arrays(x, labels, name, threshold, test_x, test_labels)
    chosen = np.concatenate([np.flatnonzero(labels == k)[:1000] for k in range(3)])
    if test_labels is not None and test_x is not None:
        test_x, test_labels = test_x[test_labels < 3], test_labels[test_labels < 3]
    return from_arrays(x[chosen], labels[chosen], name, threshold, test_x, test_labels)


def _only(data: Dataset, classes: tuple[int | str, ...] | None) -> Dataset:
    return data if classes is None else data.only(classes)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
