"""What is in a file, whether it is as it was written, and the way back to what is good."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from thermorun.errors import DamagedFile
from thermorun.store import checkpoints
from thermorun.store.checksums import GROUP, Checksums, sections, stored
from thermorun.store.disk import Disk
from thermorun.store.inspect import opened, read_spec, reading
from thermorun.store.locks import locked
from thermorun.store.structure import require_plain


@dataclass(frozen=True)
class Section:
    """A part of a file that is written row by row: its name, rows that are complete, rows in all."""

    name: str
    done: int
    rows: int


@dataclass(frozen=True)
class Survey:
    """What stands in a file but for its numbers.

    ``checkpoint`` says in words what there is to go on from; ``facts`` are the root's other attributes.
    """

    path: Path
    command: str
    spec: dict[str, Any]
    sections: tuple[Section, ...]
    checkpoint: str
    facts: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether the run has come to its end."""
        return all(one.done == one.rows for one in self.sections)


def survey(path: Path | str) -> Survey:
    """Looks into a file, of a run that is complete, under way or stopped.  Raises InputError where it holds none."""
    path = Path(path)
    line = read_spec(path)
    with reading(path), opened(path) as file:
        require_plain(file, path)
        facts = {name: _plain(file.attrs[name]) for name in file.attrs if name != "spec"}
        counts = zip(file["section"].asstr(), file["commits"][()], file["rows"][()], strict=True)
        parts = tuple(Section(str(name), int(done), int(rows)) for name, done, rows in counts)
        checkpoint = _checkpoint(path, str(facts["created"]), file["commits"][()])
        return Survey(path, str(facts.pop("command")), json.loads(line), parts, checkpoint, facts)


def _checkpoint(path: Path, created: str, commits: NDArray[np.int64]) -> str:
    if not checkpoints.beside(path).exists():
        return "none"
    usable = checkpoints.load(path, created, commits) is not None
    return "usable" if usable else "not usable: torn, of another run, or ahead of the rows"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def faults(path: Path | str) -> list[str]:
    """A sentence for everything in a file that is not as it was written; none where all is.

    Raises InputError where its structure is not, and nothing more can be said.
    """
    path = Path(path)
    read_spec(path)
    with reading(path), opened(path) as file:
        require_plain(file, path)
        return [sentence for _, _, sentence in _faults(file, path)]


def repair(path: Path | str) -> list[str]:
    """Goes back to the last rows that are as they were written; says what was given up, nothing where all is good.

    The run then goes on from there, to the numbers that it would have had.  Raises DamagedFile where that is no way:
    the structure is damaged, or what is not written row by row.
    """
    path = Path(path)
    read_spec(path)
    lock = locked(path, path)
    try:
        with reading(path), opened(path) as file:
            require_plain(file, path)
            names, commits = list(file["section"].asstr()), file["commits"][()]
            good, found = commits.copy(), _faults(file, path)
            created = str(file.attrs["created"])
        for section, line, sentence in found:
            if line is None or section not in names:
                raise DamagedFile(f"{path} cannot be repaired: {sentence}.  Begin the run again.")
            index = names.index(section)
            good[index] = min(good[index], line)
        if found:
            _go_back(path, good)
        done = [
            f"{name}: {new} of {old} rows are good, and the run goes on after them"
            for name, old, new in zip(names, commits, good, strict=True)
            if new != old
        ]
        if checkpoints.beside(path).exists() and checkpoints.load(path, created, good) is None:
            checkpoints.remove(path)
            done.append("checkpoint: not usable with what is left, removed")
        return done
    finally:
        if lock is not None:
            os.close(lock)


def _go_back(path: Path, good: NDArray[np.int64]) -> None:
    disk = Disk(path, "r+")
    try:
        with h5py.File(disk, "r+", libver=("earliest", "v108")) as file:
            file["commits"][...] = good
            file[GROUP]["finished"][0] = 0
            file.flush()
            disk.sync()
    finally:
        disk.close()
    if disk.error is not None:
        raise disk.error


def _faults(file: h5py.File, path: Path) -> list[tuple[str, int | None, str]]:
    """Section, line (None where it is no row that counts) and a sentence for everything that is not as written."""
    found: list[tuple[str, int | None, str]] = []
    names, rows, commits = list(file["section"].asstr()), file["rows"][()], file["commits"][()]
    finished = int(file[GROUP]["finished"][0])
    checks = Checksums.of(file, path)
    seed, spec = file.attrs["seed"], json.loads(file.attrs["spec"])
    if "seed" in spec and spec["seed"] != seed:
        found.append(("/", None, f"the seed is {seed}, and that of the spec {spec['seed']}"))
    for name, most, count in zip(names, rows, commits, strict=True):
        if not 0 <= count <= most:
            found.append((name, max(0, min(int(count), int(most))), f"{name} counts {count} of {most} rows"))
        elif finished not in (0, 1) or (finished and count != most):
            found.append((name, int(count), f"{name} counts {count} of {most} rows, though the run was finished"))
        found += [(name, line, f"{name} {what}") for line, what in checks.tables[name].missing(int(count))]
    for section, datasets in sections(file).items():
        counted = int(commits[names.index(section)]) if section in names else None
        for name, data in datasets.items():
            if section == "/" and name == "commits":
                continue
            for line, what in checks.tables[section].wrong(name, stored(data), counted):
                place = f"{section}/{name}".lstrip("/")
                found.append((section, line if counted is not None else None, f"{place} {what}"))
    return found
