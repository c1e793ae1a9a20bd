"""Files in the format of MNIST (IDX), packed or not: MNIST itself, checked, and any other set by its folder or file.

MNIST is looked for in the folder ``THERMORUN_DATA``: there, or where torchvision keeps it (``MNIST/raw``); then in the
cache; then it is downloaded.
"""

import gzip
import hashlib
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from thermorun.arrays import Array
from thermorun.errors import InputError

_SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# MD5 of the archive at the source, and of its content, which any copy must have however it was compressed.
_MNIST = {
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
_FOLDERS = ("", "mnist", "raw", "MNIST/raw")
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PARTS = ("train", "t10k")


def is_idx(path: Path) -> bool:
    """Whether a file says in its name that it is IDX."""
    return path.name.lower().removesuffix(".gz").endswith(("-ubyte", ".idx", ".ubyte"))


def parse(content: bytes, name: str) -> Array:
    """The array in an IDX file.  Raises InputError."""
    dimensions = content[3] if len(content) > 3 else 0
    if len(content) < 4 + 4 * dimensions or content[:2] != b"\0\0" or content[2] not in _TYPES or not dimensions:
        raise InputError(f"{name} is no IDX file.")
    shape = [int(size) for size in np.frombuffer(content, ">u4", dimensions, 4)]
    kind = np.dtype(_TYPES[content[2]])
    if len(content) != 4 + 4 * dimensions + math.prod(shape) * kind.itemsize:
        raise InputError(f"{name} says that it holds {tuple(shape)} numbers, but has {len(content)} bytes: it is cut.")
    values = np.frombuffer(content, kind, offset=4 + 4 * dimensions).reshape(shape)
    return values.astype(kind.newbyteorder("="))


def read(path: Path) -> Array:
    """The array in an IDX file, packed or not.  Raises InputError."""
    return parse(_unpacked(path), str(path))


def beside(path: Path) -> Path | None:
    """The file of the labels that belong to a file of images, if it is there."""
    stem = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    found = [path.with_name(name) for name in (stem, f"{stem}.gz") if path.with_name(name).exists()]
    return found[0] if found and found[0] != path else None


def of_folder(folder: Path) -> dict[str, Path]:
    """The files of images in a folder by part, "train" and "t10k", there or in ``raw`` below it."""
    found: dict[str, Path] = {}
    for part in PARTS:
        for place in (folder, *sorted(folder.glob("raw")), *sorted(folder.glob("*/raw"))):
            for path in sorted(place.glob(f"{part}-images*")):
                found.setdefault(part, path)
    return found


def mnist(part: str) -> tuple[Array, Array]:
    """Images uint8 (points, 28, 28) and labels uint8 of MNIST's "train" or "t10k".  Raises InputError."""
    images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    return parse(_content(images), images), parse(_content(labels), labels)


def mnist_is_near(part: str) -> bool:
    """Whether a part of MNIST can be had without a download."""
    return all(_near(f"{part}-{kind}-ubyte") is not None for kind in ("images-idx3", "labels-idx1"))


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); if it was downloaded, do so again.") from error


def _content(stem: str) -> bytes:
    path = _near(stem) or _downloaded(stem)
    content = _unpacked(path)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != _MNIST[stem][1]:
        raise InputError(
            f"{path} is not MNIST's {stem} (its checksum differs); a set of another kind, such as Fashion-MNIST, is"
            f" read by its folder: --dataset {path.parent}."
        )
    return content


def _near(stem: str) -> Path | None:
    """The file in THERMORUN_DATA, else in the cache.  Raises InputError where THERMORUN_DATA is no folder."""
    given = os.environ.get("THERMORUN_DATA")
    places = []
    if given:
        if not Path(given).is_dir():
            raise InputError(f"THERMORUN_DATA is {given}, which is no folder; set it to one, or unset it.")
        places = [Path(given) / below for below in _FOLDERS]
    for place in places:
        for name in (stem, f"{stem}.gz", stem.replace("-idx", ".idx"), stem.replace("-idx", ".idx") + ".gz"):
            if (place / name).is_file():
                return place / name
    cached = _cache() / f"{stem}.gz"
    return cached if cached.is_file() else None


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("thermorun")) / "mnist"


def _downloaded(stem: str) -> Path:
    import pooch

    try:
        fetched = pooch.retrieve(
            f"{_SOURCE}{stem}.gz",
            known_hash=f"md5:{_MNIST[stem][0]}",
            fname=f"{stem}.gz",
            path=_cache(),
            progressbar=sys.stderr.isatty(),
        )
    except (OSError, ValueError) as error:
        given = os.environ.get("THERMORUN_DATA")
        looked = f"is not in THERMORUN_DATA ({given}) and " if given else ""
        raise InputError(
            f"MNIST's {stem} {looked}could not be downloaded ({type(error).__name__}); put it in a folder and set"
            " THERMORUN_DATA to that folder, or use the data set 'digits'."
        ) from error
    return Path(fetched)
