"""Data sets by name: handwritten digits as bits or as grey images, or any arrays in a file.

As bits (`load`):

``digits``      scikit-learn's bundled 8x8 digits (1,797 points, ten classes), pixel > 7 of 16; nothing is downloaded.
``mnist-012``   the first 1,000 training images of each of the digits 0, 1 and 2 of MNIST (Baiesi & Rosso, IV.1).
``mnist``       all 60,000 training images of MNIST, pixel > 127.
a file          ``.npy`` with bits (points, D), or ``.npz`` with ``x`` and, if there are classes, ``labels``.

As grey images, part of them held out (`load_images`):

``digits``      every third point held out.
``mnist``       all 60,000 training images; its 10,000 test images held out.
a file          ``.npz`` with numbers ``x`` (points, D) or (points, rows, columns) and ``labels``; every third point is
                held out, unless there are ``x_test`` and ``labels_test``.

MNIST is looked for in the folder ``THERMORUN_DATA`` (or its subfolder ``mnist``), then in the cache, then downloaded.
"""

import gzip
import hashlib
import os
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.errors import InputError

NAMES = ("digits", "mnist-012", "mnist")
_SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# MD5 of the archive at the source, and of its content, which any copy must have however it was compressed.
_MNIST = {
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}


@dataclass(frozen=True)
class Dataset:
    """Bits with classes.

    ``x`` uint8 (points, D) of zeros and ones; ``labels`` int64 (points,), all zero where there are no classes;
    ``shape`` (rows, columns) for pictures.
    """

    name: str
    x: NDArray[np.uint8]
    labels: NDArray[np.int64]
    shape: tuple[int, int]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The classes that occur, ascending."""
        return np.unique(self.labels)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Share of the points in each of ``classes``."""
        _, counts = np.unique(self.labels, return_counts=True)
        shares: NDArray[np.float64] = counts / len(self.labels)
        return shares

    @property
    def fingerprint(self) -> int:
        """CRC-32 of bits, labels and their number: tells one data set from another."""
        return zlib.crc32(self.labels.tobytes(), zlib.crc32(np.packbits(self.x).tobytes(), len(self.x) & 0xFFFFFFFF))

    def only(self, classes: tuple[int, ...]) -> "Dataset":
        """The points of these classes.  Raises InputError where one of them is absent."""
        absent = [str(k) for k in classes if k not in self.classes]
        if absent:
            there = ", ".join(str(k) for k in self.classes)
            raise InputError(f"classes asks for {', '.join(absent)}, which {self.name} does not have; it has {there}.")
        keep = np.isin(self.labels, classes)
        return Dataset(self.name, self.x[keep], self.labels[keep], self.shape)


@dataclass(frozen=True)
class Images:
    """Grey images with classes, for training and held out.

    ``x`` float32 (points, D), from 0 to 1 in the built-in sets; ``labels`` int64 (points,), the number of each point's
    class in ``classes``, int64 ascending; ``test_x`` and ``test_labels`` the same of the points held out, -1 for a class
    without training points; ``shape`` (rows, columns) for pictures; ``test_values`` the labels of the points held out
    as they were given.
    """

    name: str
    x: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    shape: tuple[int, int]
    test_values: NDArray[np.int64]

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
        return value


def load_images(name: str, classes: tuple[int, ...] | None = None) -> Images:
    """The grey images of that name, or in that file; only ``classes`` of them where they are given.

    Raises InputError for an unknown name, data without labels, absent classes, and downloads that fail.
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return images_from_arrays(bunch.images / 16.0, bunch.target, name=name, classes=classes)
    if name == "mnist":
        pixels, labels = _idx("train")
        test_pixels, test_labels = _idx("t10k")
        return images_from_arrays(
            pixels / np.float32(255), labels, test_pixels / np.float32(255), test_labels, name, classes
        )
    if Path(name).suffix == ".npy":
        raise InputError(f"dataset is {name}, a single array without labels; give a .npz file with x and labels.")
    if Path(name).suffix != ".npz":
        raise InputError(f"dataset is {name!r}; it must be digits, mnist, or a .npz file with x and labels.")
    arrays = _npz(Path(name))
    if "labels" not in arrays:
        raise InputError(f"dataset is {name}, which has no array 'labels'; a classifier needs them.")
    if ("x_test" in arrays) != ("labels_test" in arrays):
        raise InputError(f"dataset is {name}, which has only one of 'x_test' and 'labels_test'; give both or neither.")
    return images_from_arrays(
        arrays["x"], arrays["labels"], arrays.get("x_test"), arrays.get("labels_test"), name, classes
    )


def images_from_arrays(
    x: Any, labels: Any, test_x: Any = None, test_labels: Any = None, name: str = "array",
    classes: tuple[int, ...] | None = None,
) -> Images:  # fmt: skip
    """Grey images of one's own, (points, D) or (points, rows, columns), with one integer label a point.

    Without ``test_x`` every third point is held out.  Raises InputError.
    """
    pixels, numbers, shape = _labelled(x, labels, name)
    if test_x is None:
        held_out = np.arange(len(pixels)) % 3 == 2
        test_pixels, test_numbers = pixels[held_out], numbers[held_out]
        pixels, numbers = pixels[~held_out], numbers[~held_out]
    else:
        test_pixels, test_numbers, test_shape = _labelled(test_x, test_labels, name)
        if test_shape != shape:
            raise InputError(f"{name} has images of shape {shape}, but held-out ones of shape {test_shape}.")
    there = np.unique(numbers)
    wanted = there if classes is None else np.unique(np.array(classes, np.int64))
    absent = [str(k) for k in wanted if k not in there]
    if absent:
        raise InputError(
            f"classes asks for {', '.join(absent)}, which {name} does not have; it has {', '.join(map(str, there))}."
        )
    if len(wanted) < 2:
        raise InputError(f"{name} has {len(wanted)} class to tell apart; it must be at least 2.")
    keep, seen = np.isin(numbers, wanted), np.isin(test_numbers, wanted)
    test_keep = np.ones_like(seen) if classes is None else seen
    if not test_keep.any():
        raise InputError(f"{name} has no point to hold out in its classes; give more points.")
    test_labels = np.where(seen, np.searchsorted(wanted, test_numbers), -1)[test_keep]
    return Images(
        name, pixels[keep], np.searchsorted(wanted, numbers[keep]), test_pixels[test_keep], test_labels, wanted, shape,
        test_numbers[test_keep],
    )  # fmt: skip


def _labelled(x: Any, labels: Any, name: str) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[int, int]]:
    pixels, numbers = np.asarray(x), np.asarray(labels)
    if pixels.ndim not in (2, 3) or 0 in pixels.shape or pixels.dtype.kind not in "buif":
        raise InputError(
            f"{name} has images of shape {pixels.shape} and type {pixels.dtype}; they must be numbers, (points, D) or"
            " (points, rows, columns), not empty."
        )
    if not np.isfinite(pixels).all():
        raise InputError(f"{name} holds images that are not finite.")
    if numbers.shape != (len(pixels),) or numbers.dtype.kind not in "iu":
        raise InputError(
            f"labels of {name} have shape {numbers.shape} and type {numbers.dtype}; it must be one integer a point."
        )
    shape = _picture_shape(pixels)
    flat = np.ascontiguousarray(pixels.reshape(len(pixels), -1), np.float32)
    return flat, numbers.astype(np.int64), shape


def _picture_shape(pixels: NDArray[Any]) -> tuple[int, int]:
    if pixels.ndim == 3:
        return (pixels.shape[1], pixels.shape[2])
    side = round(np.sqrt(pixels.shape[1]))
    return (side, side) if side * side == pixels.shape[1] else (1, pixels.shape[1])


def load(name: str, classes: tuple[int, ...] | None = None) -> Dataset:
    """The data set of that name, or in that file; only ``classes`` of it where they are given.

    Raises InputError for an unknown name, data that are not bits, absent classes, and downloads that fail.
    """
    if name == "digits":
        data = _digits()
    elif name == "mnist":
        data = _mnist(None)
    elif name == "mnist-012":
        data = _mnist(1000)
    elif Path(name).suffix in (".npy", ".npz"):
        data = _file(Path(name))
    else:
        raise InputError(f"dataset is {name!r}; it must be {', '.join(NAMES)}, or a .npy or .npz file.")
    return data if classes is None else data.only(classes)


def from_arrays(x: Any, labels: Any = None, name: str = "array", shape: tuple[int, int] | None = None) -> Dataset:
    """A data set of one's own bits, (points, D) or (points, rows, columns).  Raises InputError for anything else."""
    bits = np.asarray(x)
    if bits.ndim not in (2, 3) or 0 in bits.shape:
        raise InputError(
            f"{name} has shape {bits.shape}; it must be (points, D) or (points, rows, columns), not empty."
        )
    if bits.dtype.kind not in "buif" or not np.isin(bits, (0, 1)).all():
        raise InputError(f"{name} holds other values than 0 and 1; make bits of it first, for example x > threshold.")
    if shape is None:
        shape = _picture_shape(bits)
    flat_bits = np.ascontiguousarray(bits.reshape(len(bits), -1), np.uint8)
    numbers = np.zeros(len(bits), np.int64) if labels is None else np.asarray(labels)
    if numbers.shape != (len(bits),) or numbers.dtype.kind not in "iu":
        raise InputError(
            f"labels of {name} have shape {numbers.shape} and type {numbers.dtype}; it must be one integer a point."
        )
    return Dataset(name, flat_bits, numbers.astype(np.int64), shape)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset("digits", (bunch.data > 7).astype(np.uint8), bunch.target.astype(np.int64), (8, 8))


def _idx(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (points, 28, 28) and labels of MNIST's "train" or "t10k"."""
    images = np.frombuffer(_content(f"{part}-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 28, 28)
    return images, np.frombuffer(_content(f"{part}-labels-idx1-ubyte"), np.uint8, offset=8).astype(np.int64)


def _mnist(first: int | None) -> Dataset:
    images, labels = _idx("train")
    images, name = images.reshape(-1, 784), "mnist"
    if first is not None:
        chosen = np.concatenate([np.flatnonzero(labels == k)[:first] for k in range(3)])
        images, labels, name = images[chosen], labels[chosen], "mnist-012"
    return Dataset(name, (images > 127).astype(np.uint8), labels, (28, 28))


def _content(stem: str) -> bytes:
    path = _find(stem)
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as gzip ({error}); remove it to download it again.") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != _MNIST[stem][1]:
        raise InputError(f"{path} is not MNIST's {stem} (its checksum differs); remove it to download it again.")
    return content


def _find(stem: str) -> Path:
    given = os.environ.get("THERMORUN_DATA")
    if given:
        for folder in (Path(given), Path(given) / "mnist"):
            if (folder / f"{stem}.gz").exists():
                return folder / f"{stem}.gz"
    import pooch

    try:
        fetched = pooch.retrieve(
            f"{_SOURCE}{stem}.gz",
            known_hash=f"md5:{_MNIST[stem][0]}",
            fname=f"{stem}.gz",
            path=pooch.os_cache("thermorun") / "mnist",
            progressbar=sys.stderr.isatty(),
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"MNIST's {stem}.gz could not be downloaded ({type(error).__name__}); put it in a folder and set"
            " THERMORUN_DATA to that folder, or use the data set 'digits'."
        ) from error
    return Path(fetched)


def _file(path: Path) -> Dataset:
    if path.suffix == ".npz":
        arrays = _npz(path)
        return from_arrays(arrays["x"], arrays.get("labels"), str(path))
    return from_arrays(read_arrays(path)[""], name=str(path))


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    arrays = read_arrays(path)
    if "x" not in arrays:
        raise InputError(f"{path} has no array 'x'; it has {', '.join(arrays) or 'none'}.")
    return arrays


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in a .npz file by name, or that in a .npy file under the name "".  Raises InputError."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a NumPy file ({error}).") from error
