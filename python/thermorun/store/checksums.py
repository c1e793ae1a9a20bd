"""Checksums: a CRC-32 for every row, entry and whole dataset, so that a flipped byte is told before a number is used.

Why our own and not HDF5's fletcher32 filter: a filter sums whole chunks, up to 256 rows of them, so that a kill in the
middle of a write would take rows with it that had long been committed; every row would be read and written again with
its chunk; and datasets in one piece cannot have it.  A CRC of each row costs what it costs to read the row once.

The group ``checksums`` mirrors the file's sections.  In each, ``crc32`` is a table of int64, a column a dataset (named
in its attribute ``variables``), a line an entry of the datasets' first dimension:

=====================  ===============================================================================================
-1                     nobody vouches for the entry: it reads as if it had never been written
0 to 2^32 - 1          CRC-32 of the entry's bytes
2^32 + a CRC, line 0   CRC-32 of all bytes of the dataset, which was written as a whole
=====================  ===============================================================================================

Texts are summed as UTF-8, a zero byte between two.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from thermorun.arrays import Array
from thermorun.errors import DamagedFile

GROUP = "checksums"
NOTHING = -1
_WHOLE = 2**32


def crc(values: Array) -> int:
    """CRC-32 of an array's bytes in C order, or of its texts."""
    if values.dtype.kind == "O":
        return zlib.crc32(b"\0".join(values.ravel().tolist()))
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def crc_rows(values: Array) -> NDArray[np.int64]:
    """CRC-32 of each entry of the first dimension."""
    rows = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    return np.array([zlib.crc32(row.data) for row in rows], np.int64)


@dataclass
class Table:
    """The checksums of a section: ``values`` (lines, columns), a column for each of ``names``."""

    names: list[str]
    values: NDArray[np.int64]

    def set_rows(self, name: str, first: int, values: Array) -> None:
        """Vouches for entries ``first, first + 1, ...`` of a dataset."""
        column = self.values[:, self.names.index(name)]
        if self.is_whole(name):
            column[:] = NOTHING
        column[first : first + len(values)] = crc_rows(values)

    def set_whole(self, name: str, values: Array) -> None:
        """Vouches for a whole dataset."""
        column = self.values[:, self.names.index(name)]
        column[:] = NOTHING
        column[0] = _WHOLE + crc(values)

    def forget(self, name: str, where: Any = slice(None)) -> bool:
        """Vouches no more for a dataset, or for entries of it; whether it did before."""
        column = self.values[:, self.names.index(name)]
        if column[0] >= _WHOLE:
            where = slice(None)
        before = bool(np.any(column[where] != NOTHING))
        column[where] = NOTHING
        return before

    def is_whole(self, name: str) -> bool:
        """Whether a dataset was written as a whole."""
        return bool(self.values[0, self.names.index(name)] >= _WHOLE)

    def vouched(self, name: str, length: int) -> NDArray[np.bool_]:
        """Whether each of the first ``length`` entries of a dataset is vouched for."""
        if self.is_whole(name):
            return np.ones(length, np.bool_)
        known = self.values[:length, self.names.index(name)] != NOTHING
        return np.concatenate([known, np.zeros(length - len(known), np.bool_)])

    def wrong(self, name: str, values: Array, rows: int | None) -> Iterator[tuple[int | None, str]]:
        """Says what of a dataset is not as it was written: the line, None where it is a whole, and a sentence.

        ``rows`` are those that its section counts, and later ones are not looked at; None where none are counted.
        """
        column = self.values[:, self.names.index(name)]
        if self.is_whole(name):
            if _WHOLE + crc(values) != column[0]:
                yield None, "is not as it was written"
            return
        if values.ndim == 0:
            return
        lines = min(len(values), len(column)) if rows is None else min(rows, len(values), len(column))
        there = column[:lines]
        sums = crc_rows(values[:lines]) if np.any(there != NOTHING) else there
        for line in np.flatnonzero((there != NOTHING) & (there != sums)).tolist():
            yield line, f"is not as it was written in row {line}"
        if rows is not None and np.any(there != NOTHING):
            for line in np.flatnonzero(there == NOTHING).tolist():
                yield line, f"is counted, but was never written, in row {line}"

    def missing(self, rows: int) -> Iterator[tuple[int, str]]:
        """Says which of the rows that a section counts no dataset has: the line, and a sentence."""
        if rows > len(self.values):
            yield len(self.values), f"counts {rows} rows and has room for {len(self.values)}"
            rows = len(self.values)
        entries = self.values[:rows, self.values[0] < _WHOLE]
        for line in np.flatnonzero(~np.any(entries != NOTHING, axis=1)).tolist():
            yield line, f"counts {rows} rows, but row {line} was never written"


@dataclass
class Checksums:
    """The checksums of a file, by section; until the file is published, what they will be of."""

    tables: dict[str, Table] = field(default_factory=dict)
    _early: dict[str, dict[str, set[int] | None]] = field(default_factory=dict)

    def note(self, section: str, name: str, entry: int | None) -> None:
        """Before ``add_to``: a dataset that is written as a whole, or an entry of it."""
        noted = self._early.setdefault(section, {})
        if entry is None:
            noted[name] = None
        else:
            known = noted.setdefault(name, set())
            if known is not None:
                known.add(entry)

    def add_to(self, file: h5py.File, without: str) -> None:
        """Sums what a file holds, and allocates a table for each section.  ``without`` is not summed."""
        for section, datasets in sections(file).items():
            noted = self._early.get(section, {})
            whole = {name for name, data in datasets.items() if data.is_scale or noted.get(name, ()) is None}
            if section == "/":
                datasets.pop(without, None)
                whole |= {"rows"}
            if not datasets:
                continue
            lengths = [data.shape[0] for name, data in datasets.items() if name not in whole and data.ndim]
            lines, columns = max([1, *lengths]), len(datasets)
            table = Table(list(datasets), np.full((lines, columns), NOTHING, np.int64))
            for name, data in datasets.items():
                if name in whole:
                    table.set_whole(name, stored(data))
                for entry in noted.get(name) or ():
                    table.set_rows(name, entry, data[entry : entry + 1])
            self.tables[section] = table
            place = file.require_group(f"{GROUP}/{section}").create_dataset(
                "crc32", data=table.values, track_times=False
            )
            place.attrs["variables"] = table.names

    @classmethod
    def of(cls, file: h5py.File, path: Any) -> "Checksums":
        """Those in a file.  Raises DamagedFile where they are not of the datasets that there are."""
        tables = {}
        for section, datasets in sections(file).items():
            place = file[GROUP] if section == "/" else file[f"{GROUP}/{section}"]
            if "crc32" in place:
                data = place["crc32"]
                table = Table([str(name) for name in data.attrs["variables"]], data[()])
                _require_all(table, section, datasets, path)
                tables[section] = table
        return cls(tables)

    def require_counted(self, section: str, count: int, most: int, finished: int, path: Any) -> None:
        """Raises DamagedFile where a section cannot count so many rows: some are not there, or were not written."""
        what = f"{path} is damaged, or was changed by hand: {section}"
        if not 0 <= count <= most:
            raise DamagedFile(f"{what} counts {count} of {most} rows.")
        if finished not in (0, 1) or (finished and count != most):
            raise DamagedFile(f"{what} counts {count} of {most} rows, though the run was finished.")
        for _, sentence in self.tables[section].missing(int(count)):
            raise DamagedFile(f"{what} {sentence}; 'thermorun repair {path}' goes back to the last good one.")

    def checked(self, section: str, name: str, data: h5py.Dataset, rows: int | None, path: Any) -> Array:
        """The values of a dataset; what nobody vouches for is as it was before anything was written.

        Raises DamagedFile where what is vouched for is not as it was written.
        """
        values, table = stored(data), self.tables[section]
        for line, what in table.wrong(name, values, rows):
            more = "" if rows is None or line is None else f"; 'thermorun repair {path}' goes back to the last good one"
            raise DamagedFile(f"{path} is damaged: {f'{section}/{name}'.lstrip('/')} {what}{more}.")
        if values.ndim and not table.is_whole(name):
            trusted = table.vouched(name, len(values))
            if rows is not None and trusted[rows:].any():  # written, but not counted: perhaps only in part
                column = table.values[rows : len(values), table.names.index(name)]
                trusted[rows : rows + len(column)] &= crc_rows(values[rows : rows + len(column)]) == column
            if not trusted.all():
                values = values.copy()
                values[~trusted] = np.nan if values.dtype.kind == "f" else 0
        return values


def _require_all(table: Table, section: str, datasets: Mapping[str, h5py.Dataset], path: Any) -> None:
    """Raises DamagedFile where a dataset is missing or too many, or has not the shape of its dimensions."""
    place = section.rstrip("/") + "/"
    for name in {*table.names} ^ {*datasets} - {"commits"}:
        what = "is missing" if name in table.names else "was never written by a run"
        raise DamagedFile(f"{path} is damaged, or was changed by hand: {place}{name} {what}.")
    if table.values.ndim != 2 or table.values.shape[1] != len(table.names):
        raise DamagedFile(f"{path} is damaged, or was changed by hand: {place} has no checksums.")
    for name, data in datasets.items():
        lengths = [[len(scale) for scale in dimension.values()] for dimension in data.dims]
        if not data.shape or (not data.is_scale and data.shape != tuple(each[0] if each else None for each in lengths)):
            raise DamagedFile(
                f"{path} is damaged, or was changed by hand: {place}{name} has shape {data.shape}, which its dimensions"
                " do not say."
            )


def sections(file: h5py.File) -> dict[str, dict[str, h5py.Dataset]]:
    """The datasets of every group of a file but those of the checksums, by section and name; the root is "/"."""
    found: dict[str, dict[str, h5py.Dataset]] = {"/": {}}

    def visit(name: str, item: Any) -> None:
        if name.split("/")[0] == GROUP:
            return
        if isinstance(item, h5py.Group):
            found[name] = {}
        else:
            section, _, own = name.rpartition("/")
            found[section or "/"][own] = item

    file.visititems(visit)
    return found


def stored(data: h5py.Dataset) -> Array:
    """The values of a dataset; texts as bytes."""
    return np.asarray(data[()])
