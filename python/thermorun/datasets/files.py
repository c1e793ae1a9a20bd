"""Images and labels from files of many kinds.

``.npz``, ``.h5``  arrays by any usual name: ``x``, ``X``, ``data``, ``images``, ``x_train``, ``train_images``, ... with
                   ``labels``, ``y``, ``target``, ``y_train``, ``train_labels``, ..., and a part held out where there is
                   ``x_test``, ``test_images``, ... (keras' mnist.npz, MedMNIST, scikit-learn's bunches).
``.npy``           one array, without labels.
``.csv``, ``.tsv``, ``.txt``  a row a point, packed or not; the label in the column that the first line calls ``label``,
                   ``class``, ``target`` or ``y``, or, without such a line, in the first column (or the last), where the
                   others make a square picture.
IDX                a file of images; its labels from the file beside it; or a folder of such files (MNIST's kind).
a folder           of pictures, in a subfolder a class; ``train`` and ``test`` above those where a part is held out.
"""

import csv
import gzip
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from thermorun.arrays import Array
from thermorun.datasets import idx
from thermorun.datasets.normal import square
from thermorun.errors import InputError

_IMAGES = ("x", "data", "images", "pixels", "train_images", "x_train", "train_x", "train_data", "xtrain")
_LABELS = ("labels", "label", "y", "target", "targets", "train_labels", "y_train", "train_y", "labels_train", "ytrain",
           "class", "classes")  # fmt: skip
_TEST_IMAGES = ("x_test", "test_x", "test_images", "images_test", "test_data", "xtest")
_TEST_LABELS = ("labels_test", "y_test", "test_y", "test_labels", "target_test", "ytest")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".pgm")
_KINDS = ".npy, .npz, .csv, .tsv, .txt, .h5, IDX, or a folder of these or of pictures by class"


class Raw(NamedTuple):
    """As they stand in a file: images, their labels, and those of a part held out; None where there are none."""

    x: Array
    labels: Array | None = None
    test_x: Array | None = None
    test_labels: Array | None = None


def find(name: str) -> Path | None:
    """The file or folder of that name, as typed or with the ending that ``cycles sample`` adds."""
    for path in (Path(name).expanduser(), Path(f"{name}.npz").expanduser()):
        if path.exists():
            return path
    return None


def read(path: Path) -> Raw:
    """What a file or a folder holds.  Raises InputError where it holds nothing of a kind we read."""
    if path.is_dir():
        return _folder(path)
    kind = path.suffixes[-2].lower() if path.suffix.lower() == ".gz" and len(path.suffixes) > 1 else path.suffix.lower()
    if kind == ".npz":
        return by_names(read_arrays(path), str(path))
    if kind == ".npy":
        return Raw(read_arrays(path)[""])
    if kind in (".csv", ".tsv", ".txt"):
        return _table(path)
    if kind in (".h5", ".hdf5", ".he5") or _is_hdf5(path):
        return by_names(_hdf5(path), str(path))
    if idx.is_idx(path):
        beside = idx.beside(path)
        return Raw(idx.read(path), None if beside is None else idx.read(beside))
    if kind in _PICTURES:
        raise InputError(f"dataset is {path}, a single picture; give the folder that holds them, a subfolder a class.")
    raise InputError(f"dataset is {path}, which is of no kind that is read here ({_KINDS}); save it by np.savez.")


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays in a .npz file by name, or that in a .npy file under the name "".  Raises InputError."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = str(error)
        if "Object arrays" in reason:
            reason = "it holds Python objects: save plain arrays, words by astype(str)"
        elif "pickle" in reason:
            reason = "it is none, whatever its name says"
        raise InputError(f"{path} cannot be read as a NumPy file ({reason}).") from error


def by_names(arrays: Mapping[str, Array], name: str) -> Raw:
    """Images and labels among arrays, by the names that people give them.  Raises InputError."""

    def first(names: tuple[str, ...]) -> Array | None:
        found = [arrays[key] for wanted in names for key in arrays if key.lower() == wanted]
        return found[0] if found else None

    x = first(_IMAGES)
    if x is None and len(arrays) == 1:
        x = next(iter(arrays.values()))
    if x is None:
        there = ", ".join(arrays) or "none"
        raise InputError(f"{name} has no array 'x' (or X, data, images, x_train, train_images); it has {there}.")
    raw = Raw(x, first(_LABELS), first(_TEST_IMAGES), first(_TEST_LABELS))
    if raw.labels is not None and (raw.test_x is None) != (raw.test_labels is None):
        raise InputError(f"{name} has only one of images and labels held out ('x_test' and 'y_test'); give both.")
    return raw


def _is_hdf5(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(8) == b"\x89HDF\r\n\x1a\n"


def _hdf5(path: Path) -> dict[str, Array]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            if "spec" in file.attrs and "schema_version" in file.attrs:
                raise InputError(f"{path} holds the results of a run of {file.attrs.get('command')}, and no data set.")
            return {
                name: np.asarray(data.asstr()[()] if h5py.check_string_dtype(data.dtype) else data[()])
                for name, data in file.items()
                if isinstance(data, h5py.Dataset) and data.dtype.kind in "buifSO"
            }
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5 ({error}).") from error


# ------------------------------------------------------------------------------------------------ tables


def _table(path: Path) -> Raw:
    first = _first_row(path)
    delimiter = max(",;\t", key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter)) if delimiter in first else first.split()
    names = [cell.strip().lower() for cell in cells]
    # Names may be numbers, as pandas writes them; a word in the first place alone may be a label.
    headed = any(name in _LABELS for name in names) or not all(map(_is_number, filter(None, names[1:] or names)))
    column = next((k for k, name in enumerate(names) if name in _LABELS), None) if headed else None
    try:
        rows = _cells(path, delimiter if delimiter in first else None, int(headed))
        if not rows.size:
            raise ValueError("it has no rows")
        if headed and rows.shape[1] != len(names):
            raise ValueError(f"its first line names {len(names)} columns, and rows have {rows.shape[1]}")
        if headed and not names[0]:  # an index, which pandas leaves without a name
            rows, column = rows[:, 1:], None if column is None else column - 1
        if column is None and not headed:
            column = _label_column(rows)
        if column is None:
            return Raw(rows.astype(float))
        return Raw(np.delete(rows, column, axis=1).astype(float), rows[:, column])
    except ValueError as error:
        raise InputError(f"{path} cannot be read as a table with a row a point ({error}).") from error


def _cells(path: Path, delimiter: str | None, skip: int) -> Array:
    """All of a table: as numbers, or as words where there are such.  Raises ValueError."""
    options: dict[str, Any] = {"ndmin": 2, "skiprows": skip, "delimiter": delimiter, "quotechar": '"', "comments": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a file without rows, which is told as an error
        try:
            return np.loadtxt(path, dtype=float, **options)
        except ValueError:
            return np.loadtxt(path, dtype=str, **options)


def _first_row(path: Path) -> str:
    try:
        stream = gzip.open(path, "rt") if path.suffix.lower() == ".gz" else open(path, encoding="utf-8-sig")  # noqa: SIM115
        with stream:
            return stream.readline().strip()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}).") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _label_column(rows: Array) -> int | None:
    """Which column of a table without names holds the labels, if the others make a square picture and it alone not."""
    columns = rows.shape[1]
    if square(columns)[0] > 1 or square(columns - 1)[0] == 1:
        # A column of words is a label, whatever the others are.
        return next((k for k in (0, columns - 1) if not _is_number(rows[0, k])), None)
    # Corner pixels are the same in all images; a label is not.
    return columns - 1 if len(np.unique(rows[:, 0])) == 1 and len(np.unique(rows[:, -1])) > 1 else 0


# ------------------------------------------------------------------------------------------------ folders


def _folder(path: Path) -> Raw:
    parts = idx.of_folder(path)
    if "train" in parts:
        x, labels, _, _ = read(parts["train"])
        if "t10k" not in parts:
            return Raw(x, labels)
        test_x, test_labels, _, _ = read(parts["t10k"])
        return Raw(x, labels, test_x, test_labels)
    train, test = path / "train", path / "test"
    if train.is_dir():
        x, labels = _pictures(train)
        return Raw(x, labels, *_pictures(test)) if test.is_dir() else Raw(x, labels)
    return Raw(*_pictures(path))


def _pictures(folder: Path) -> tuple[Array, Array | None]:
    """Pictures as grey values 0 to 255, (points, rows, columns), and the names of the subfolders that they are in."""
    from PIL import Image, UnidentifiedImageError

    classes = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    files = [file for place in classes or [folder] for file in sorted(place.iterdir())]
    files = [file for file in files if file.suffix.lower() in _PICTURES]
    if not files:
        raise InputError(f"dataset is {folder}, a folder that holds no pictures and no IDX files.")
    images = []
    for file in files:
        try:
            with Image.open(file) as picture:
                # Deep grey stays as it is: 8 bits would cut it off at 255.
                deep = picture.mode.startswith(("I", "F"))
                images.append(np.asarray(picture if deep else picture.convert("L")))
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{file} cannot be read as a picture ({error}).") from error
        if images[-1].shape != images[0].shape:
            raise InputError(
                f"{file} has {images[-1].shape} pixels and {files[0].name} has {images[0].shape}; all pictures must be"
                " of one size."
            )
    return np.stack(images), np.array([file.parent.name for file in files]) if classes else None
