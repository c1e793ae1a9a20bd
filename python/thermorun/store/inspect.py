"""What a file is, before anything in it is used; and whether a run may write there."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from thermorun.errors import DamagedFile, InputError, RunError, short
from thermorun.store.layout import SCHEMA_VERSION
from thermorun.store.shards import Cut, Part, part_of
from thermorun.store.structure import require_sealed

# Attributes that every file of ours has at its root.
_ROOT = ("command", "spec", "seed", "threads", "created")
# What h5py raises at files that are not what they seem.
_INSIDE = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, AssertionError)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """One home for whatever may happen while a file is read: one sentence that names it."""
    try:
        yield
    except (InputError, RunError):
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5 ({reason(error)}).") from error
    except _INSIDE as error:
        raise DamagedFile(f"{path} is damaged, or was changed by hand ({type(error).__name__}: {error}).") from error


def require_file(path: Path | str) -> None:
    """Raises InputError where a path names no regular file: a pipe would be waited for without end."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise InputError(f"{path} cannot be read ({why}).") from error
    if not stat.S_ISREG(kind):
        raise InputError(f"{path} is no file that holds a run.")


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
    return _root(path)["spec"]


def read_command(path: Path | str) -> str:
    """The command that made a run's file.  Raises InputError where it holds no run."""
    return _root(path)["command"]


def _root(path: Path | str) -> dict[str, str]:
    require_file(path)
    with reading(path):
        if not h5py.is_hdf5(path):
            raise InputError(f"{path} cannot be read as HDF5 (it is something else).")
        require_sealed(path)
    with reading(path), opened(path) as file:
        if "schema_version" not in file.attrs:
            raise InputError(f"{path} is an HDF5 file, but not of a run.")
        missing = [name for name in _ROOT if name not in file.attrs]
        if missing:
            raise DamagedFile(f"{path} is damaged: it has no attribute {missing[0]}.")
        there = file.attrs["schema_version"]
        if there != SCHEMA_VERSION:
            raise InputError(f"{path} has schema version {str(there)[:20]}; this version reads {SCHEMA_VERSION}.")
        return {name: str(file.attrs[name]) for name in ("spec", "command")}


def read_part(path: Path | str) -> Part | None:
    """The part of its run that a file holds, None where it holds all.  Raises InputError where it holds no run."""
    read_spec(path)
    with reading(path), opened(path) as file:
        return part_of(file)


def is_complete(path: Path | str) -> bool:
    """Whether every section of a run's file counts all its rows."""
    with reading(path), opened(path) as file:
        return bool(np.array_equal(file["commits"], file["rows"]))


def refuse_other_content(path: Path, spec: str, cut: Cut | None = None) -> None:
    """Raises InputError where ``path`` cannot be written, or holds anything but this run (JSON ``spec``), complete.

    A shard, whose ``cut`` is given, takes the place of the same one alone.
    """
    try:
        _require_place(path)
        if not path.exists():
            return
    except InputError:  # which is a ValueError
        raise
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte in it
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise InputError(f"out is {short(str(path))}, which cannot be written ({why}).") from error
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
    part = read_part(path)
    if not (cut or Cut()).gives(part):
        raise InputError(f"out is {path}, which already holds {part or 'all'} of this run; name another file.")
    if not is_complete(path):
        raise InputError(f"out is {path}, which holds the beginning of this run; resume it, or remove the file.")


def _require_place(path: Path) -> None:
    str(path).encode()  # HDF5's attributes, JSON and the terminal all want UTF-8
    if path.is_dir():
        raise InputError(f"out is {path}, which is a folder; name a file.")
    if not path.parent.is_dir():
        raise InputError(f"out is {path}, but the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"out is {path}, but the folder {path.parent} cannot be written.")


def difference(stored: str, spec: str) -> str:
    """Names the entries in which two specs differ."""
    there, here = _entries(stored), json.loads(spec)
    names = [name for name in here if there.get(name) != here[name]]
    return ", ".join(f"{name} {_said(there.get(name))}, not {_said(here[name])}" for name in names) or "of another kind"


def _entries(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _said(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= 60 else short(value)


def reason(error: OSError) -> str:
    """What the system said, without HDF5's call stack."""
    return os.strerror(error.errno) if error.errno else str(error).split("(")[-1].rstrip(")")


def unwritten(path: Path | None, published: bool, error: OSError) -> RunError:
    """What to say of a file that could not be written, before and after it took its place."""
    what = f"{path} could not be written ({reason(error)})"
    if not published:
        return RunError(f"{what}; make room and begin again.")
    return RunError(f"{what}; what it counts as committed is intact: make room and resume.")
