"""What a file is, before anything in it is used; and whether a run may write there."""

import json
import os
from pathlib import Path

import h5py
import numpy as np

from thermorun.errors import InputError
from thermorun.store.layout import SCHEMA_VERSION

# Attributes that every file of ours has at its root.
_ROOT = ("command", "spec", "seed", "threads", "created")


def opened(path: Path | str) -> h5py.File:
    """A file open for reading, without a lock; with one where this process has it open so already.  Raises OSError."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")


def read_spec(path: Path | str) -> str:
    """The spec (JSON) of a run's file.  Raises InputError where it holds none, or of a schema we cannot read."""
    try:
        with opened(path) as file:
            if "schema_version" not in file.attrs:
                raise InputError(f"{path} is an HDF5 file, but not of a run.")
            missing = [name for name in _ROOT if name not in file.attrs]
            if missing:
                raise InputError(f"{path} is damaged: it has no attribute {missing[0]}.")
            if file.attrs["schema_version"] != SCHEMA_VERSION:
                raise InputError(
                    f"{path} has schema version {file.attrs['schema_version']}; this version reads {SCHEMA_VERSION}."
                )
            return str(file.attrs["spec"])
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5 ({reason(error)}).") from error


def read_command(path: Path | str) -> str:
    """The command that made a run's file.  Raises InputError where it holds no run."""
    read_spec(path)
    with opened(path) as file:
        return str(file.attrs["command"])


def is_complete(path: Path | str) -> bool:
    """Whether every section of a run's file counts all its rows."""
    with opened(path) as file:
        return bool(np.array_equal(file["commits"], file["rows"]))


def require_intact(data: h5py.Dataset, name: str, path: Path | None) -> None:
    """Raises InputError for a dataset whose dimensions and shape disagree: one that was put there by hand."""
    if data.is_scale:
        return
    scales = [[len(scale) for scale in dimension.values()] for dimension in data.dims]
    if not scales or any(len(each) != 1 for each in scales) or data.shape != tuple(each[0] for each in scales):
        raise InputError(f"{path} is damaged: dataset {name} has shape {data.shape}, which its dimensions do not say.")


def refuse_other_content(path: Path, spec: str) -> None:
    """Raises InputError where ``path`` cannot be written, or holds anything but this run (JSON ``spec``), complete."""
    if path.is_dir():
        raise InputError(f"out is {path}, which is a folder; name a file.")
    if not path.parent.is_dir():
        raise InputError(f"out is {path}, but the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"out is {path}, but the folder {path.parent} cannot be written.")
    if not path.exists():
        return
    try:
        stored = read_spec(path)
    except InputError as error:
        raise InputError(
            f"out is {path}, which already holds something that is not a run; name another file."
        ) from error
    if stored != spec:
        raise InputError(
            f"out is {path}, which already holds another run ({difference(stored, spec)}); name another file."
        )
    if not is_complete(path):
        raise InputError(f"out is {path}, which holds the beginning of this run; resume it, or remove the file.")


def difference(stored: str, spec: str) -> str:
    """Names the entries in which two specs differ."""
    there, here = json.loads(stored), json.loads(spec)
    names = [name for name in here if there.get(name) != here[name]]
    return ", ".join(f"{name} {there.get(name)}, not {here[name]}" for name in names) or "of another kind"


def reason(error: OSError) -> str:
    """What the system said, without HDF5's call stack."""
    return os.strerror(error.errno) if error.errno else str(error).split("(")[-1].rstrip(")")
