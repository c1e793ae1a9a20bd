"""The structure of a file, looked at before HDF5 and its numbers are: nothing changed, nothing leads out of it.

HDF5 trusts what it reads: a flipped bit in a header makes it loop without end or take another dataset for the one that
was asked for.  Since no metadata change once a file is published, all bytes but those of the datasets get a checksum
then.  It stands in the last dataset, ``checksums/seal``, which is found by the word that it begins with, and beside it
the place of a table ``checksums/extents`` that tells where the datasets lie: rows of first byte and length.

What a stranger's file, with checksums of its own, could make HDF5 do is refused: other files (external links and
storage, virtual datasets), names that stand for others (soft links, a group inside itself), filters (code of plugins),
and sizes beyond the file's own.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from thermorun.errors import DamagedFile, InputError
from thermorun.store.checksums import GROUP
from thermorun.store.disk import Disk

_EXTENTS, _SEAL = "extents", "seal"
# A word, place and rows of the table, length of the file; checksums of the table, of the bytes outside it, of all this.
_HEAD = struct.Struct("<16sQQQII")
_WORD = b"\x89sealed run file"
# The seal's size: so large that HDF5 gives it a place of its own at the end, in the last so many bytes.
_ROOM, _TAIL = 4096, 2**16
_KINDS = "iufO"
# Far beyond what a run makes: a bound on the work that a file may ask for before it is refused.
_MOST_OBJECTS = 200_000
_PIECE = 2**20


def add_seal(file: h5py.File) -> tuple[int, int, int]:
    """Writes into a file where its datasets lie, and makes room for the seal: the last datasets that it gets.

    Returns the first byte of the seal, and the first byte and the rows of the table.
    """
    group, known = file.require_group(GROUP), _merged(_extents(file))
    table = group.create_dataset(_EXTENTS, data=np.zeros((len(known) + 2, 2), np.int64), track_times=False)
    seal = group.create_dataset(_SEAL, data=np.zeros(_ROOM, np.uint8), track_times=False)
    file.flush()
    merged = _merged([*known, *_pieces(table.id), *_pieces(seal.id)])
    table[: len(merged)] = merged
    file.flush()
    return seal.id.get_offset(), table.id.get_offset(), len(table)


def seal(path: Path, disk: Disk, places: tuple[int, int, int]) -> None:
    """Seals a file whose seal has its place; HDF5 must have closed it."""
    (own, first, rows), size = places, os.path.getsize(path)
    with open(path, "rb") as stream:
        table = _read(stream, first, 16 * rows)
        extents = np.frombuffer(table, np.int64).reshape(-1, 2)
        head = _HEAD.pack(_WORD, first, rows, size, zlib.crc32(table), _crc_outside(stream, extents, size))
    disk.seek(own)
    disk.write(head + struct.pack("<I", zlib.crc32(head)))


def require_sealed(path: Path | str) -> None:
    """Raises DamagedFile for a file whose structure is not the one that was sealed, before HDF5 has to do with it.

    Raises InputError for a file that never was sealed.  Raises OSError.
    """
    size = os.path.getsize(path)
    damaged = f"{path} is damaged, or was changed by hand"
    with open(path, "rb") as stream:
        tail = _read(stream, max(0, size - _TAIL), _TAIL)
        place = tail.rfind(_WORD)
        if place < 0:
            raise InputError(f"{path} is an HDF5 file, but not of a run, or it was cut short.")
        head = tail[place : place + _HEAD.size + 4].ljust(_HEAD.size + 4)
        _, first, rows, length, table_sum, outside_sum = _HEAD.unpack_from(head)
        if zlib.crc32(head[:-4]) != int.from_bytes(head[-4:], "little"):
            raise DamagedFile(f"{damaged}: its seal is not as it was written.")
        if size < length:
            raise DamagedFile(f"{path} is damaged: {length - size} of its {length} bytes are missing.")
        if first + 16 * rows > size:
            raise DamagedFile(f"{damaged}: it declares more than it holds.")
        table = _read(stream, first, 16 * rows)
        extents = np.frombuffer(table, np.int64).reshape(-1, 2)
        if zlib.crc32(table) != table_sum or np.any(extents < 0) or np.any(extents.sum(axis=1) > length):
            raise DamagedFile(f"{damaged}: the table of its datasets is not as it was written.")
        if _crc_outside(stream, extents, length) != outside_sum:
            raise DamagedFile(f"{damaged}: its structure (names, shapes, attributes) is not as it was written.")


def require_plain(file: h5py.File, path: Path | str) -> None:
    """Raises DamagedFile for a file that holds anything but groups and datasets of its own, all of them within it.

    Looks at links and headers alone, and follows none that leads elsewhere.
    """
    size = os.path.getsize(path)
    for name, item in _walk(file):
        what = _not_plain(item, size) if isinstance(item, h5py.Dataset) else item if isinstance(item, str) else ""
        if what:
            raise DamagedFile(f"{path} is damaged, or was changed by hand: {name} {what}.")


def _walk(group: h5py.Group, prefix: str = "", seen: set[Any] | None = None) -> Iterator[tuple[str, Any]]:
    """Every group and dataset with its path; in place of what is neither, a text that says so, and the end."""
    seen = set() if seen is None else seen
    for name in group:
        path = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield path, "is a link that leads elsewhere"
            return
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if not isinstance(item, h5py.Group | h5py.Dataset) or address in seen or len(seen) > _MOST_OBJECTS:
            yield path, "is another name of what stands elsewhere"
            return
        seen.add(address)
        yield path, item
        if isinstance(item, h5py.Group):
            yield from _walk(item, f"{path}/", seen)


def _not_plain(data: h5py.Dataset, size: int) -> str:
    """What a dataset is instead of numbers or texts in this file of so many bytes; empty where it is that."""
    made = data.id.get_create_plist()
    if made.get_external_count() or made.get_layout() == h5py.h5d.VIRTUAL:
        return "lies in other files"
    if made.get_nfilters():
        return "is stored through a filter"
    if data.dtype.kind not in _KINDS or (data.dtype.kind == "O" and h5py.check_string_dtype(data.dtype) is None):
        return f"is of type {data.dtype}"
    if data.shape is None:
        return "is empty"
    needed = data.id.get_type().get_size() * int(np.prod(np.array(data.shape, object)))
    if needed > min(size, data.id.get_storage_size()):
        return f"declares {needed} bytes, which the file does not hold"
    return ""


def _extents(file: h5py.File) -> list[tuple[int, int]]:
    """First byte and length of every piece of every dataset."""
    found: list[tuple[int, int]] = []

    def visit(name: bytes) -> None:
        item = h5py.h5o.open(file.id, name)  # h5py's own objects take ten times as long
        if isinstance(item, h5py.h5d.DatasetID):
            found.extend(_pieces(item))

    h5py.h5o.visit(file.id, visit)
    return found


def _pieces(data: h5py.h5d.DatasetID) -> list[tuple[int, int]]:
    """First byte and length of every piece of a dataset."""
    found: list[tuple[int, int]] = []
    if data.get_create_plist().get_layout() == h5py.h5d.CHUNKED:
        data.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.size)))
    elif data.get_offset() is not None:
        found.append((data.get_offset(), data.get_storage_size()))
    return found


def _merged(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same in order, neighbours as one."""
    merged: list[tuple[int, int]] = []
    for first, length in sorted(extents):
        if merged and sum(merged[-1]) == first:
            before = merged.pop()
            merged.append((before[0], before[1] + length))
        else:
            merged.append((first, length))
    return merged


def _crc_outside(stream: Any, extents: NDArray[np.int64], size: int) -> int:
    """CRC-32 of all bytes before ``size`` that lie in none of the extents."""
    total, place = 0, 0
    for first, length in [*extents[extents[:, 1] > 0].tolist(), (size, 0)]:
        stream.seek(place)
        while place < first:
            piece = stream.read(min(_PIECE, first - place))
            if not piece:
                return -1
            total = zlib.crc32(piece, total)
            place += len(piece)
        place = max(place, first + length)
    return total


def _read(stream: Any, first: int, length: int) -> bytes:
    stream.seek(first)
    data: bytes = stream.read(length)
    return data
