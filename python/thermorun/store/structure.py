"""A file against what it says of itself: nothing is missing, added or changed, and nothing leads out of it.

Looks at links and headers alone, before any data are read.  What a stranger's file could make HDF5 do is refused: other
files (external links and storage, virtual datasets), names that stand for others (soft links, a group inside itself),
filters (code of plugins), and sizes beyond the file's own.
"""

import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from thermorun.errors import DamagedFile
from thermorun.store.checksums import GROUP

LAYOUT = "layout"
# Far beyond what a run makes: a bound on the work that a file may ask for before it is refused.
_MOST_OBJECTS = 200_000
_KINDS = "iufO"
# Of HDF5's own making: `dimensions` says what they say.
_SCALES = {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid"}


def describe(file: h5py.File) -> dict[str, Any]:
    """What stands in a file but for its numbers: the checksums of attributes; dtype, shape, dimensions of datasets."""
    found: dict[str, dict[str, Any]] = {"/": {"attributes": _attributes(file)}}
    for path, item in _walk(file):
        if path.split("/")[0] == GROUP:
            continue
        found[path] = {"attributes": _attributes(item)}
        if isinstance(item, h5py.Dataset):
            dimensions = [[scale.name for scale in dimension.values()] for dimension in item.dims]
            found[path] |= {
                "dtype": "text" if item.dtype.kind == "O" else item.dtype.str,
                "shape": list(item.shape),
                "dimensions": [] if item.is_scale else dimensions,
            }
    return found


def seal(file: h5py.File) -> None:
    """Writes what stands in a file into it, with a checksum: the last thing that changes its structure."""
    text = json.dumps(describe(file), separators=(",", ":")).encode()
    data = file.require_group(GROUP).create_dataset(LAYOUT, data=np.frombuffer(text, np.uint8), track_times=False)
    data.attrs["crc32"] = zlib.crc32(text)


def require_structure(file: h5py.File, path: Any) -> None:
    """Raises DamagedFile, with what is wrong, for a file whose structure is not what was written."""
    for what in faults(file, os.path.getsize(path)):
        raise DamagedFile(f"{path} is damaged, or was changed by hand: {what}.")


def faults(file: h5py.File, size: int) -> Iterator[str]:
    """Says what is wrong with the structure of a file of ``size`` bytes, the gravest first; nothing where it is as it
    was written."""
    try:
        for name, item in _walk(file):
            if isinstance(item, h5py.Dataset):
                _require_plain(name, item, size)
        written = _written(file)
        there = describe(file)
    except DamagedFile as error:
        yield str(error)
        return
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OSError, RecursionError) as error:
        yield f"it cannot be looked through ({type(error).__name__})"
        return
    for name in written:
        if name not in there:
            yield f"{name} is missing"
        elif there[name] != written[name]:
            yield f"{name if name != '/' else 'it'} {_difference(written[name], there[name])}"
    for name in there.keys() - written.keys():
        yield f"it holds {name}, which no run wrote"


def _walk(group: h5py.Group, prefix: str = "", seen: set[Any] | None = None) -> Iterator[tuple[str, Any]]:
    """Every group and dataset with its path.  Raises DamagedFile for whatever else has a name, before it is opened."""
    seen = set() if seen is None else seen
    for name in group:
        path = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DamagedFile(f"{path} is a link that leads elsewhere")
        item = group[name]
        if not isinstance(item, h5py.Group | h5py.Dataset):
            raise DamagedFile(f"{path} is neither a group nor a dataset")
        address = h5py.h5o.get_info(item.id).addr
        if address in seen or len(seen) > _MOST_OBJECTS:
            raise DamagedFile(f"{path} is another name of what stands elsewhere")
        seen.add(address)
        yield path, item
        if isinstance(item, h5py.Group):
            yield from _walk(item, f"{path}/", seen)


def _require_plain(name: str, data: h5py.Dataset, size: int) -> None:
    """Raises DamagedFile for a dataset that is not numbers or texts of this file, all of it within the file."""
    made = data.id.get_create_plist()
    if made.get_external_count() or made.get_layout() == h5py.h5d.VIRTUAL:
        raise DamagedFile(f"{name} lies in other files")
    if made.get_nfilters():
        raise DamagedFile(f"{name} is stored through a filter")
    if data.dtype.kind not in _KINDS or (data.dtype.kind == "O" and h5py.check_string_dtype(data.dtype) is None):
        raise DamagedFile(f"{name} is of type {data.dtype}")
    if data.shape is None:
        raise DamagedFile(f"{name} is empty")
    needed = data.id.get_type().get_size() * int(np.prod(np.array(data.shape, object)))
    if data.id.get_storage_size() < needed or needed > size:
        raise DamagedFile(f"{name} declares {needed} bytes, which the file does not hold")


def _written(file: h5py.File) -> dict[str, Any]:
    """What `seal` wrote.  Raises DamagedFile where it is gone or was changed."""
    try:
        data = file[GROUP][LAYOUT]
        text, known = bytes(np.asarray(data[()])), int(data.attrs["crc32"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFile("the account of what it holds is missing") from error
    if zlib.crc32(text) != known:
        raise DamagedFile("the account of what it holds is not as it was written")
    written = json.loads(text)
    if not isinstance(written, dict) or not all(isinstance(one, dict) for one in written.values()):
        raise DamagedFile("the account of what it holds is none")
    return written


def _attributes(item: Any) -> dict[str, int]:
    """The checksum of every attribute, by name."""
    sums = {}
    for name in item.attrs:
        if name not in _SCALES:
            value = np.asarray(item.attrs[name])
            text = json.dumps(value.tolist(), default=repr) if value.dtype.kind in "OU" else repr(value.tolist())
            sums[name] = zlib.crc32(f"{value.dtype.kind} {value.shape} {text}".encode("utf-8", "backslashreplace"))
    return sums


def _difference(written: dict[str, Any], there: dict[str, Any]) -> str:
    for what in ("dtype", "shape", "dimensions"):
        if written.get(what) != there.get(what):
            return f"has {what} {there.get(what)}, not {written.get(what)}"
    before, now = written.get("attributes", {}), there["attributes"]
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    gone = [name for name in names if name not in now]
    return f"has no attribute {gone[0]}" if gone else f"has another attribute {names[0]} than it was written with"
