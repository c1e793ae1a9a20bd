"""Data sets by name: handwritten digits as bits, or any array of bits in a file.

``digits``      scikit-learn's bundled 8x8 digits (1,797 points, ten classes), pixel > 7 of 16; nothing is downloaded.
``mnist-012``   the first 1,000 training images of each of the digits 0, 1 and 2 of MNIST (Baiesi & Rosso, IV.1).
``mnist``       all 60,000 training images of MNIST, pixel > 127.
a file          ``.npy`` with bits (points, D), or ``.npz`` with ``x`` and, if there are classes, ``labels``.

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
        side = round(np.sqrt(bits.shape[1]))
        flat = (side, side) if side * side == bits.shape[1] else (1, bits.shape[1])
        shape = (bits.shape[1], bits.shape[2]) if bits.ndim == 3 else flat
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


def _mnist(first: int | None) -> Dataset:
    images = np.frombuffer(_content("train-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(_content("train-labels-idx1-ubyte"), np.uint8, offset=8).astype(np.int64)
    name = "mnist"
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
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return from_arrays(loaded, name=str(path))
        with loaded:
            if "x" not in loaded:
                raise InputError(f"{path} has no array 'x'; it has {', '.join(loaded) or 'none'}.")
            return from_arrays(loaded["x"], loaded.get("labels"), str(path))
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a NumPy file ({error}).") from error
