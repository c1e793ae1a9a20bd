"""The images that a machine is trained on and those that it is shown, wherever they come from, and how to know them."""

import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from thermorun import datasets
from thermorun.arrays import Array
from thermorun.datasets import ARRAY, Images, files, normal
from thermorun.errors import InputError

_NAMED = ("digits", "mnist")


class Arrays(NamedTuple):
    """Images of the caller's own, in the place of a data set, and their labels if they have some."""

    x: ArrayLike
    labels: ArrayLike | None


def arrays(X: ArrayLike | None, y: ArrayLike | None) -> Arrays | None:
    """What a function was given; None for nothing.  Raises InputError for labels alone."""
    if X is None and y is not None:
        raise InputError("y is given without X; give the images that it labels.")
    return None if X is None else Arrays(X, y)


def training_images(
    dataset: str, data: Arrays | None, classes: tuple[int | str, ...] | None, each: int | None = None
) -> Images:
    """Images with labels, part of them held out; ``each`` is that of `datasets.images_from_arrays`.

    Raises InputError.
    """
    if data is None:
        require_there(dataset)
        return datasets.load_images(dataset, classes, each)
    if data.labels is None and each is None:
        raise InputError("y is None; a training needs one label an image, as in computer.train(X, y).")
    return datasets.images_from_arrays(data.x, data.labels, classes=classes, each=each)


def whole_path(name: str | Path | None) -> str | None:
    """What a file remembers of a data set, a mask, a machine: its name, or its whole path."""
    if name is None or name in (*_NAMED, ARRAY):
        return None if name is None else str(name)
    return str((files.find(str(name)) or Path(name)).resolve())


def require_there(dataset: str) -> None:
    """Raises InputError for arrays that are not there, and for a file that has gone."""
    if dataset == ARRAY:
        raise InputError(
            f"dataset is {ARRAY}: images that were passed in Python, which the file does not hold; pass them again, or"
            " give others by --dataset."
        )
    if dataset not in _NAMED and files.find(dataset) is None and Path(dataset).suffix:
        raise InputError(f"dataset is {dataset}, which does not exist; name where it is now by --dataset.")


def hashes(x: Array) -> Array:
    """A 64-bit BLAKE2 of every image, (points,): tells whether an image was seen before."""
    rows = np.ascontiguousarray(x, np.float32)
    found = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(found, np.uint64)


def fingerprint(x: Array, labels: Array) -> int:
    """CRC-32 of images and the labels, numbers or words, that they were given."""
    words = "\n".join(map(str, labels.tolist()))
    return zlib.crc32(words.encode(), zlib.crc32(np.ascontiguousarray(x, np.float32).tobytes()))


def training_labels(images: Images) -> Array:
    """The labels of the training images as they were given, numbers or words."""
    values = images.classes[images.labels]
    return np.array(images.names)[values] if images.names else values


class Origin(NamedTuple):
    """What a machine's file says of the images that it was trained on; ``classes`` None where they were all."""

    dataset: str
    classes: tuple[int | str, ...] | None
    fingerprint: int
    hashes: Array


@dataclass(frozen=True)
class Shown:
    """Images to classify: ``x`` float32 (points, D), ``labels`` (points,) as given, int64 or strings, or None.

    ``part`` says which of the data set ``name`` they are, ``own`` whether that set is the one of the training.
    """

    name: str
    x: Array
    labels: Array | None
    part: str
    own: bool

    def in_unit(self, high: float) -> "Shown":
        """Of a folder of 8-bit pictures, from 0 to 255, for a machine whose brightnesses go from 0 to 1 (``high``)."""
        if high == 1 and Path(self.name).is_dir() and self.x.max() > 1:
            return replace(self, x=self.x / np.float32(255))
        return self

    def only(self, classes: tuple[int | str, ...]) -> "Shown":
        """Those of these classes.  Raises InputError where there are none, or no labels."""
        named = ", ".join(map(str, classes))
        if self.labels is None:
            raise InputError(f"classes asks for {named}, but the images of {self.name} have no labels.")
        keep = among(self.labels, classes)
        if not keep.any():
            raise InputError(f"classes asks for {named}; {self.name} has no image of them to classify.")
        return replace(self, x=self.x[keep], labels=self.labels[keep])


def among(labels: Array, classes: tuple[int | str, ...]) -> Array:
    """Which labels, numbers or words, are of these classes, bool (points,)."""
    return np.isin(labels.astype(str), [str(one) for one in classes])


def shown_images(
    dataset: str, data: Arrays | None, part: str | None, origin: Origin | None, inputs: int | None, asked: bool
) -> Shown:
    """The images of a data set that are to be classified; ``asked`` is False where it is by default the training's.

    Raises InputError.
    """
    found = _found(dataset, data, inputs)
    if found.labels is None:
        if part == "held-out":
            raise InputError(
                f"part is held-out, but the images of {dataset} have no labels: all of them are classified."
            )
        return Shown(dataset, found.x, None, "all", False)
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
        keep = slice(None) if origin.classes is None else among(train_labels, origin.classes)
        same = fingerprint(train_x[keep], train_labels[keep]) == origin.fingerprint
    if part is None:
        part = "held-out" if own or same or not asked else "all"
    if part == "all":
        test_x, test_labels = everything
    if not len(test_x):
        raise InputError(f"part is held-out, but {dataset} has no image to hold out; take part all.")
    return Shown(dataset, test_x, test_labels, part, same)


def _found(dataset: str, data: Arrays | None, inputs: int | None) -> files.Raw:
    """A data set as it stands: pixels float32 (points, D), labels as given; the part held out, where it has one."""
    if dataset in _NAMED and data is None:
        images = datasets.load_images(dataset)
        return files.Raw(images.x, images.classes[images.labels], images.test_x, images.test_values)
    if data is None:
        require_there(dataset)
        path = files.find(dataset)
        if path is None:
            raise InputError(
                f"dataset is {dataset!r}; it must be {', '.join(_NAMED)}, or a file or folder that exists."
            )
        raw = files.read(path)
    else:
        raw = files.Raw(np.asarray(data.x), None if data.labels is None else np.asarray(data.labels))
    x = _pixels(raw.x, dataset, inputs)
    labels = None if raw.labels is None else normal.labels(raw.labels, len(x), dataset)
    if raw.test_x is None or raw.test_labels is None:
        return files.Raw(x, labels)
    test_x = _pixels(raw.test_x, dataset, inputs)
    return files.Raw(x, labels, test_x, normal.labels(raw.test_labels, len(test_x), dataset))


def _pixels(x: Array, name: str, inputs: int | None) -> Array:
    """Images as float32 (points, D); one alone, of as many pixels as there are inputs, is taken for one."""
    if inputs is not None and x.size == inputs and x.ndim in (1, 2) and len(x) != 1:
        x = x[None]
    return np.ascontiguousarray(normal.pixels(x, name)[0], np.float32)


def unseen_note(count: int, points: int, named: str) -> str:
    """About labels that a machine has no output for."""
    return f"{count:,} of {points:,} images are of classes without training images ({named}): they count as wrong."


def seen_note(count: int, points: int) -> str:
    """About images that a machine was trained on."""
    return f"{count:,} of {points:,} images are among those that the machine was trained on."
