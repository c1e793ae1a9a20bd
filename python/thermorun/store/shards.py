"""Shards: files of one run that hold some entries each of one dimension, and how they become the whole run's file.

A shard is laid out as the whole run is, and then cut: of the dimension that it is cut along it has its own entries,
which keep their numbers.  What has not that dimension is the same in all shards, or it belongs to the first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np

from thermorun.errors import DamagedFile, InputError
from thermorun.store.layout import Axis, Variable, dimensions_of


class Part(NamedTuple):
    """Entries ``first`` to ``end`` (not included) of ``total`` of a dimension."""

    dimension: str
    first: int
    end: int
    total: int

    @classmethod
    def of(cls, dimension: str, number: int, shards: int, total: int) -> Self:
        """That of shard ``number`` of so many, counted from 1.  Raises InputError where some would have nothing."""
        if shards > total:
            raise InputError(f"shard is {number}/{shards}, and the run has {total} {dimension}s; take fewer shards.")
        return cls(dimension, (number - 1) * total // shards, number * total // shards, total)

    def __str__(self) -> str:
        if self.end - self.first == 1:
            return f"{self.dimension} {self.first} of {self.total}"
        return f"{self.dimension}s {self.first} to {self.end - 1} of {self.total}"


class Cut:
    """How a file is cut: the ``part`` that it holds, known once a section with its dimension is laid out.

    Without a dimension the file is a whole run's.
    """

    def __init__(self, dimension: str = "", number: int = 1, shards: int = 1) -> None:
        self.dimension, self._number, self._shards = dimension, number, shards
        self.part: Part | None = None
        self._sections: dict[str, bool] = {}  # those with the dimension, and whether their rows are along it

    @classmethod
    def read(cls, file: h5py.File) -> Self:
        """That of a file."""
        part = part_of(file)
        if part is None:
            return cls()
        cut = cls(part.dimension)
        cut.part = part
        for name in file["section"].asstr():
            held = [one for one in file[name].values() if isinstance(one, h5py.Dataset)]
            cut._note(name, [dimensions_of(one) for one in held if not one.is_scale])
            if name in cut._sections and len(file[name][part.dimension]) != part.end - part.first:
                raise DamagedFile(f"{file.filename} is damaged, or was changed by hand: it does not hold {part}.")
        return cut

    def gives(self, part: Part | None) -> bool:
        """Whether a file that is cut so holds this part."""
        if part is None or not self.dimension:
            return part is None and not self.dimension
        return part == Part.of(self.dimension, self._number, self._shards, part.total)

    def _note(self, section: str, dimensions: Sequence[tuple[str, ...]]) -> None:
        if any(self.dimension in one for one in dimensions):
            self._sections[section] = any(one[0] == self.dimension for one in dimensions)

    def axes(self, section: str, axes: Sequence[Axis], variables: Sequence[Variable]) -> list[Axis]:
        """The axes of a section as the shard has them."""
        self._note(section, [one.dimensions for one in variables])
        return [self._own(axis) if axis.name == self.dimension else axis for axis in axes]

    def _own(self, axis: Axis) -> Axis:
        part = Part.of(self.dimension, self._number, self._shards, len(axis.values))
        if self.part is not None and self.part != part:
            raise AssertionError(f"{self.part} and {part}")
        self.part = part
        return replace(axis, values=axis.values[part.first : part.end])

    def rows(self, rows: Mapping[str, int]) -> dict[str, int]:
        """The rows that complete each section of the shard."""
        if self.part is None:
            return dict(rows)
        own, first = self.part.end - self.part.first, self.part.first == 0
        return {
            name: (own if self._sections[name] else count) if name in self._sections else count * first
            for name, count in rows.items()
        }

    def first(self, section: str) -> int:
        """The number in the whole run of a section's first row."""
        return self.part.first if self.part is not None and self._sections.get(section) else 0

    def rows_of_whole(self, section: str, rows: int) -> int:
        """The rows of a section in the whole run, which has so many in the first shard."""
        return self.part.total if self.part is not None and self._sections.get(section) else rows

    def facts(self) -> dict[str, str]:
        """What the root says of it."""
        return {} if self.part is None else {"part": json.dumps(self.part)}


def part_of(file: h5py.File) -> Part | None:
    """The part of a run that an open file holds, None where it holds all.  Raises DamagedFile."""
    if "part" not in file.attrs:
        return None
    try:
        part = Part(*json.loads(file.attrs["part"]))
        if 0 <= part.first < part.end <= part.total and isinstance(part.dimension, str):
            return part
    except (ValueError, TypeError):
        pass
    raise DamagedFile(f"{file.filename} is damaged, or was changed by hand: it does not say which part it holds.")


def in_order(parts: Mapping[Path, Part]) -> list[Path]:
    """The files in the order of their parts.  Raises InputError where they overlap or leave gaps."""
    files = sorted(parts, key=lambda path: parts[path].first)
    dimension, total = parts[files[0]].dimension, parts[files[0]].total
    for one, other in pairwise(files):
        if parts[other].first < parts[one].end:
            both = Part(dimension, parts[other].first, min(parts[one].end, parts[other].end), total)
            raise InputError(f"{one} and {other} overlap: both hold {both}.")
    ends = [0, *(parts[path].end for path in files)]
    starts = [*(parts[path].first for path in files), total]
    for end, start in zip(ends, starts, strict=True):
        if end < start:
            raise InputError(f"none of the files holds {Part(dimension, end, start, total)}; run that shard too.")
    return files


def joined(dimension: str, dimensions: tuple[str, ...], units: str, pieces: Sequence[Any]) -> Any:
    """One dataset of all shards' ``pieces``: along the dimension, or the first's; seconds that passed add up."""
    if dimension in dimensions:
        return np.concatenate(pieces, axis=dimensions.index(dimension))
    if units != "s":
        return pieces[0]
    # NaN where a shard does not do what the first does for all.
    return np.where(np.all(np.isnan(pieces), axis=0), np.nan, np.nansum(pieces, axis=0))
