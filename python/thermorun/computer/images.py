"""The images that a machine is trained on and those that it is shown, wherever they come from, and how to know them."""

import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thermorun import datasets
from thermorun.arrays import Array
from thermorun.computer.spec import ARRAYS, Source
from thermorun.datasets import Images
from thermorun.errors import InputError

_NAMED = ("digits", "mnist")


def training_images(dataset: Source, labels: Array | None, classes: tuple[int, ...] | None) -> Images:
    """Images with labels, part of them held out.  Raises InputError."""
    if isinstance(dataset, str):
        require_there(dataset)
        return datasets.load_images(dataset, classes)
    if labels is None:
        raise InputError("labels is None; a training needs one label an image, as in computer.train(X, y).")
    return datasets.images_from_arrays(dataset, labels, name=ARRAYS, classes=classes)


def whole_path(name: Source | Path | None) -> str | None:
    """What a file remembers of a data set, a mask, a machine: its name, its whole path, or that it was arrays."""
    if name is None:
        return None
    if not isinstance(name, str | Path):
        return ARRAYS
    return str(Path(name).resolve()) if Path(name).suffix or Path(name).exists() else str(name)


def require_there(dataset: str) -> None:
    """Raises InputError for the name of arrays, and for a file that has gone."""
    if dataset == ARRAYS:
        raise InputError(
            f"dataset is {ARRAYS}, which the file does not hold; give images by --dataset, or the arrays in Python."
        )
    if Path(dataset).suffix and not Path(dataset).exists():
        raise InputError(f"dataset is {dataset}, which does not exist; name where it is now by --dataset.")


def hashes(x: Array) -> Array:
    """A 64-bit BLAKE2 of every image, (points,): tells whether an image was seen before."""
    rows = np.ascontiguousarray(x, np.float32)
    found = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(found, np.uint64)


def fingerprint(x: Array, labels: Array) -> int:
    """CRC-32 of images and the labels that they were given."""
    return zlib.crc32(np.asarray(labels, np.int64).tobytes(), zlib.crc32(np.ascontiguousarray(x, np.float32).tobytes()))


class Origin(NamedTuple):
    """What a machine's file says of the images that it was trained on; ``classes`` None where they were all."""

    dataset: str
    classes: tuple[int, ...] | None
    fingerprint: int
    hashes: Array


@dataclass(frozen=True)
class Shown:
    """Images to classify: ``x`` float32 (points, D), ``labels`` int64 (points,) as they were given, or None.

    ``part`` says which of the data set ``name`` they are, ``own`` whether that set is the one of the training.
    """

    name: str
    x: Array
    labels: Array | None
    shape: tuple[int, int]
    part: str
    own: bool

    def only(self, classes: tuple[int, ...]) -> "Shown":
        """Those of these classes.  Raises InputError where there are none, or no labels."""
        if self.labels is None:
            raise InputError(f"classes is {classes}, but the images of {self.name} have no labels.")
        keep = np.isin(self.labels, classes)
        if not keep.any():
            raise InputError(f"classes is {classes}; {self.name} has no image of them to classify.")
        return replace(self, x=self.x[keep], labels=self.labels[keep])


class _Parts(NamedTuple):
    """A data set as it is found: pixels, labels, and the part that is held out, where the set says."""

    x: Array
    labels: Array | None
    test_x: Array | None
    test_labels: Array | None
    shape: tuple[int, int]


def shown_images(
    dataset: Source, labels: Array | None, part: str | None, origin: Origin | None, inputs: int | None, asked: bool
) -> Shown:
    """The images of a data set that are to be classified; ``asked`` is False where it is by default the training's.

    Raises InputError.
    """
    found = _found(dataset, labels, inputs)
    name = dataset if isinstance(dataset, str) else ARRAYS
    if found.labels is None:
        if part == "held-out":
            raise InputError(f"part is held-out, but the images of {name} have no labels: all of them are classified.")
        return Shown(name, found.x, None, found.shape, "all", False)
    held = np.arange(len(found.x)) % 3 == 2
    train_x, train_labels, test_x, test_labels = found.x[~held], found.labels[~held], found.x[held], found.labels[held]
    everything = found.x, found.labels
    own = False
    if found.test_x is not None and found.test_labels is not None:
        own, train_x, train_labels = True, found.x, found.labels
        test_x, test_labels = found.test_x, found.test_labels
        everything = np.vstack([train_x, test_x]), np.concatenate([train_labels, test_labels])
    same = False
    if origin is not None:
        keep = slice(None) if origin.classes is None else np.isin(train_labels, origin.classes)
        same = fingerprint(train_x[keep], train_labels[keep]) == origin.fingerprint
    if part is None:
        part = "held-out" if own or same or not asked else "all"
    if part == "all":
        test_x, test_labels = everything
    if not len(test_x):
        raise InputError(f"part is held-out, but {name} has no image to hold out; take part all.")
    return Shown(name, test_x, test_labels, found.shape, part, same)


def _found(dataset: Source, given: Array | None, inputs: int | None) -> _Parts:
    if not isinstance(dataset, str):
        x, shape = _pixels(dataset, ARRAYS, inputs)
        return _Parts(x, _numbers(given, len(x), ARRAYS), None, None, shape)
    require_there(dataset)
    if dataset in _NAMED:
        images = datasets.load_images(dataset)
        values = images.classes
        return _Parts(images.x, values[images.labels], images.test_x, values[images.test_labels], images.shape)
    arrays = datasets.read_arrays(Path(dataset))
    if not {"", "x"} & set(arrays):
        raise InputError(f"{dataset} has no array 'x'; it has {', '.join(arrays) or 'none'}.")
    pixels, shape = _pixels(arrays.get("x", arrays.get("")), dataset, inputs)
    labels = _numbers(arrays.get("labels"), len(pixels), dataset)
    if "x_test" not in arrays:
        return _Parts(pixels, labels, None, None, shape)
    held_out, _ = _pixels(arrays["x_test"], dataset, inputs)
    return _Parts(pixels, labels, held_out, _numbers(arrays.get("labels_test"), len(held_out), dataset), shape)


def _pixels(x: Any, name: str, inputs: int | None) -> tuple[Array, tuple[int, int]]:
    """Images as float32 (points, D), and their shape; one image alone is taken for one."""
    pixels = np.asarray(x)
    if inputs is not None and pixels.size == inputs and pixels.ndim in (1, 2) and pixels.shape[0] != 1:
        pixels = pixels[None]
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or 0 in pixels.shape or pixels.dtype.kind not in "buif":
        raise InputError(
            f"{name} has images of shape {pixels.shape} and type {pixels.dtype}; they must be numbers, (points, D) or"
            " (points, rows, columns), not empty."
        )
    if not np.isfinite(pixels).all():
        raise InputError(f"{name} holds images that are not finite.")
    size = pixels[0].size
    side = round(np.sqrt(size))
    shape = pixels.shape[1:] if pixels.ndim == 3 else ((side, side) if side**2 == size else (1, size))
    flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1), np.float32)
    return flat, (int(shape[0]), int(shape[1]))


def _numbers(labels: Any, points: int, name: str) -> Array | None:
    if labels is None:
        return None
    numbers = np.asarray(labels)
    whole = numbers.dtype.kind in "iu" or (numbers.dtype.kind == "f" and bool(np.all(numbers == np.round(numbers))))
    if numbers.size != points or not whole:
        raise InputError(
            f"labels of {name} have shape {numbers.shape} and type {numbers.dtype}; it must be one integer a point."
        )
    return numbers.ravel().astype(np.int64)


def unseen_note(count: int, points: int, named: str) -> str:
    """About labels that a machine has no output for."""
    return f"{count:,} of {points:,} images are of classes without training images ({named}): they count as wrong."


def seen_note(count: int, points: int) -> str:
    """About images that a machine was trained on."""
    return f"{count:,} of {points:,} images are among those that the machine was trained on."
