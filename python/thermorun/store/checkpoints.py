"""What a run needs to go on after a kill: ``FILE.checkpoint``, replaced as a whole, never ahead of the rows."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thermorun.arrays import Array
from thermorun.store.disk import sync_folder

# What a damaged checkpoint makes NumPy and zipfile raise.  Each member carries a CRC-32, which reading compares.
_TORN = (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, LookupError, TypeError, RuntimeError)


def beside(path: Path, suffix: str = ".checkpoint") -> Path:
    """The file of another kind that belongs to a run's file."""
    return path.with_name(path.name + suffix)


def save(path: Path, arrays: Mapping[str, Array], created: str, commits: NDArray[np.int64]) -> None:
    """Puts a checkpoint beside ``path``, whole or not at all.  The rows that it counts on must be on the disk already.

    Raises OSError.
    """
    part = beside(path, ".checkpoint.part")
    part.unlink(missing_ok=True)  # of a run that was killed, or a link that someone put there
    try:
        with open(part, "xb") as stream:
            np.savez(stream, allow_pickle=False, created=np.array(created), commits=commits, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, beside(path))
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def load(path: Path, created: str, commits: NDArray[np.int64]) -> dict[str, Array] | None:
    """The checkpoint beside ``path``; None where there is none that is intact, of this run, and not ahead of its rows.

    One that counts more rows than the file is of a later time (the file is an older copy, or a power cut took rows
    with it): its state would skip them.
    """
    try:
        with open(beside(path), "rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                return None
            with stored:
                arrays = dict(stored)
    except (FileNotFoundError, IsADirectoryError, *_TORN):
        return None
    counted = arrays.pop("commits", None)
    if str(arrays.pop("created", "")) != created or counted is None or counted.shape != commits.shape:
        return None
    return None if np.any(counted > commits) else arrays


def remove(path: Path) -> None:
    """Nobody needs it any more."""
    for suffix in (".checkpoint", ".checkpoint.part"):
        beside(path, suffix).unlink(missing_ok=True)
