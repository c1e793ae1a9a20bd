"""What a file holds: dimension scales, datasets with units and names, and the facts of the root."""

import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import h5py
import numpy as np

from thermorun.arrays import Array

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Axis:
    """A dimension scale: its coordinate values and what they are."""

    name: str
    values: Array
    units: str
    long_name: str


@dataclass(frozen=True)
class Variable:
    """A dataset to come: its dimensions by name, and what it holds."""

    name: str
    dimensions: tuple[str, ...]
    units: str
    long_name: str
    dtype: str = "float64"


@dataclass(frozen=True)
class Stored:
    """One dataset, read: its dimensions by name, its values, and its attributes."""

    dimensions: tuple[str, ...]
    values: Array
    attributes: dict[str, Any]


class Earlier(NamedTuple):
    """A complete run whose place a larger one takes: its spec (JSON), and the rows of each section that stay."""

    spec: str
    rows: Mapping[str, int]


# Datasets by section and name; the root is the section "/".
Contents = dict[str, dict[str, Stored]]


def contents(
    sections: Mapping[str, Mapping[str, h5py.Dataset]], checked: Callable[[str, str, h5py.Dataset], Array]
) -> Contents:
    """All that the datasets of a file hold, by section and name, as arrays; ``checked`` gives their values."""
    return {
        section: {name: _stored(name, data, checked(section, name, data)) for name, data in datasets.items()}
        for section, datasets in sections.items()
    }


def _stored(name: str, data: h5py.Dataset, values: Array) -> Stored:
    dimensions = (name,) if data.is_scale else dimensions_of(data)
    if h5py.check_string_dtype(data.dtype):
        values = np.array([text.decode() for text in values.ravel()], object).reshape(values.shape)
    kept = {key: data.attrs[key] for key in ("units", "long_name") if key in data.attrs}
    return Stored(dimensions, values, kept)


def dimensions_of(data: h5py.Dataset) -> tuple[str, ...]:
    """The names of a dataset's dimensions, by their scales."""
    scales = [[scale.name.rpartition("/")[2] for scale in dimension.values()] for dimension in data.dims]
    return tuple(each[0] if each else "" for each in scales)


def add_section(file: h5py.File, name: str, axes: Sequence[Axis], variables: Sequence[Variable]) -> None:
    """Allocates a group with its dimension scales and its datasets, filled with NaN, or zero where integers."""
    lengths = {axis.name: len(axis.values) for axis in axes}
    group = file.require_group(name)
    for axis in axes:
        text = h5py.string_dtype() if axis.values.dtype.kind in "UO" else None
        scale = group.create_dataset(axis.name, data=axis.values.astype(object) if text else axis.values, dtype=text)
        scale.make_scale(axis.name)
        scale.attrs.update({"units": axis.units, "long_name": axis.long_name})
    for variable in variables:
        shape = tuple(lengths[dimension] for dimension in variable.dimensions)
        empty = np.nan if np.dtype(variable.dtype).kind == "f" else 0
        data = group.create_dataset(
            variable.name, data=np.full(shape, empty, variable.dtype), chunks=_chunks(shape), track_times=False
        )
        data.attrs.update({"units": variable.units, "long_name": variable.long_name})
        for position, dimension in enumerate(variable.dimensions):
            data.dims[position].attach_scale(group[dimension])


def add_counters(file: h5py.File, rows: Mapping[str, int], begun: Mapping[str, int]) -> None:
    """The rows that complete each section that is written row by row, and those that are complete already."""
    scale = file.create_dataset("section", data=list(rows), dtype=h5py.string_dtype(), track_times=False)
    scale.make_scale("section")
    scale.attrs["long_name"] = "parts of the file that are written row by row"
    for name, values, meaning in (
        ("rows", list(rows.values()), "rows that complete a section"),
        ("commits", [begun.get(name, 0) for name in rows], "rows of a section that are complete"),
    ):
        data = file.create_dataset(name, data=np.array(values, np.int64), track_times=False)
        data.attrs["long_name"] = meaning
        data.dims[0].attach_scale(scale)


def copy_shared(section: h5py.Group, held: Mapping[str, Array]) -> Iterator[tuple[str, range]]:
    """Copies arrays into the datasets of a section, as far as both reach; gives the names, and the entries copied."""
    for name, new in section.items():
        if isinstance(new, h5py.Dataset) and not new.is_scale and name in held:
            shared = tuple(map(slice, map(min, new.shape, held[name].shape)))
            new[shared] = held[name][shared]
            yield name, range(shared[0].stop)


def put_rows(data: h5py.Dataset, first: int, values: Array) -> None:
    """``data[first : first + len(values)] = values``, of the dataset's own dtype; h5py takes five times as long."""
    place = data.id.get_space()
    place.select_hyperslab((first,) + (0,) * (values.ndim - 1), values.shape)
    data.id.write(h5py.h5s.create_simple(values.shape), place, np.ascontiguousarray(values))


def attributes(command: str, spec: str, seed: int, threads: int) -> dict[str, Any]:
    """Of the root: who made the file, from what, with what, where."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "spec": spec,
        "seed": np.uint64(seed),
        "threads": threads,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    } | _made_with()


@cache
def _made_with() -> dict[str, str]:
    """Versions and machine, as JSON; to look them up takes as long as to write a small file."""
    packages = ("thermokernels", "numpy", "numba", "scipy", "h5py")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    machine = {"system": platform.platform(), "processor": platform.processor(), "cpus": os.cpu_count()}
    return {"versions": json.dumps(versions), "machine": json.dumps(machine)}


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Whole rows of up to 2^16 entries a dimension, as many to a chunk as make about a megabyte."""
    row = tuple(min(length, 2**16) for length in shape[1:])
    return (max(1, min(shape[0], 256, 2**17 // max(1, math.prod(row)))), *row)
