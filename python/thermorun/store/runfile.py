"""One run, one HDF5 file.

Layout, schema version 2.  The root's attributes are ``schema_version``, ``command``, ``spec`` (JSON), ``seed``,
``versions`` (JSON), ``machine`` (JSON), ``threads`` and ``created``.  A *section* is a group whose datasets share
dimension scales and carry ``units`` and ``long_name``.  ``/commits`` counts, section by section, how many of its
``/rows`` are complete: rows and their checksums are written first, then flushed, then counted.  The group
``/checksums`` holds a CRC-32 of every row and every whole dataset (`checksums`), and a seal of the rest (`structure`).

Why a file survives a kill at any instant: every dataset is allocated and filled when its section is made, so from
then on no metadata changes, only bytes inside allocated chunks.  The format of HDF5 1.8 is used because later ones
mark a file as open, and a killed process leaves the mark behind: such files refuse to open until repaired by hand.
For the same reason the single writer takes no lock of HDF5's, and readers may watch at any time, with or without SWMR.

Why it survives a full disk: see `disk`.  Why it survives a power cut: the rows are on the disk before the checkpoint
that counts on them is, and a checkpoint that counts more rows than there are is not used: see `checkpoints`.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from thermorun.arrays import Array
from thermorun.errors import InputError, RunError
from thermorun.store import checkpoints, layout
from thermorun.store.checksums import GROUP, Checksums, sections
from thermorun.store.disk import Disk, sync_folder
from thermorun.store.inspect import difference, opened, read_spec, reading, reason, refuse_other_content, unwritten
from thermorun.store.layout import Axis, Contents, Earlier, Variable
from thermorun.store.locks import locked
from thermorun.store.shards import Cut
from thermorun.store.structure import add_seal, require_plain, seal
from thermorun.store.writer import Rows, Work, Writer

# A format that no killed process leaves marked as open.
_FORMAT = ("earliest", "v108")


class RunFile:
    """A run's file, open for writing; use it as a context manager.

    Writes happen in a background thread, in order: see `writer`.  An error there (a full disk, say) is raised as
    RunError by the next call.
    """

    def __init__(
        self, path: Path | None, file: h5py.File, disk: Disk | None = None, target: Path | None = None,
        earlier: Earlier | None = None, cut: Cut | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        self._earlier, self.cut = earlier, cut or Cut()
        self._file, self._disk, self._target = file, disk, target
        self._writer = Writer(self._put_rows)
        self._lock: int | None = None
        self._checks = Checksums()
        self._open: dict[str, h5py.Dataset] = {}
        self._names: list[str] = []  # of the sections that are counted
        self._commits = np.zeros(0, np.int64)

    @classmethod
    def create(
        cls, path: Path, command: str, spec: str, seed: int, threads: int, earlier: Earlier | None = None,
        cut: Cut | None = None,
    ) -> Self:  # fmt: skip
        """Makes the file for a new run; it appears at ``path`` whole, with its attributes, or not at all.

        With ``cut`` it becomes that of a shard.  Raises InputError where ``path`` cannot be written, or already holds
        anything but this same run, complete, or the ``earlier`` one, of which it takes over what it will hold too.
        """
        path = Path(path)
        refuse_other_content(path, spec if earlier is None else earlier.spec, cut)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            disk = Disk(part, "x+")
        except OSError as error:
            raise InputError(f"out is {path}, which cannot be written ({reason(error)}).") from error
        file = cls(path, h5py.File(disk, "w", libver=_FORMAT), disk, part, earlier, cut)
        file.note(**layout.attributes(command, spec, seed, threads))
        return file

    @classmethod
    def in_memory(cls, command: str, spec: str, seed: int, threads: int) -> Self:
        """The same for a run without a file: it is gone when closed, but for its ``contents``."""
        file = h5py.File(f"memory-{secrets.token_hex(8)}", "w", libver=_FORMAT, driver="core", backing_store=False)
        file.attrs.update(layout.attributes(command, spec, seed, threads))
        return cls(None, file)

    def add_section(self, name: str, axes: Sequence[Axis], variables: Sequence[Variable]) -> None:
        """Allocates a group with its dimension scales and its datasets, filled with NaN, or zero where integers."""
        layout.add_section(self._file, name, self.cut.axes(name, axes, variables), variables)
        if self._earlier is not None and self.path is not None:
            with RunFile.open_to_read(self.path) as earlier:
                self.take(name, earlier.read(name) if name in earlier._file else {})
        self._raise_if_full()

    def take(self, section: str, held: Mapping[str, Array]) -> None:
        """While the file is laid out: copies another file's datasets into a section, as far as both reach."""
        for variable, entries in layout.copy_shared(self._file[section], held):
            for entry in entries:
                self._checks.note(section, variable, entry)

    def note(self, **facts: Any) -> None:
        """Adds attributes to the root, while the file is laid out: what is known of the whole run."""
        self._file.attrs.update(facts)

    def noted(self, name: str, kind: Callable[[Any], Any] | None = None) -> Any:
        """An attribute of the root, None where there is none; of a ``kind`` (int, say), or DamagedFile is raised."""
        value = self._file.attrs.get(name)
        with reading(str(self.path)):
            return value if value is None or kind is None else kind(value)

    def publish(self, rows: Mapping[str, int], begun: Mapping[str, int] | None = None) -> None:
        """Ends the layout: no metadata changes after this, and the file takes its place at ``path``.

        ``rows`` names the sections that are written row by row, with the number of rows that completes each; ``begun``
        those that are there already, where they were taken from another file.
        """
        self.wait()
        if begun is None:
            begun = {} if self._earlier is None else self._earlier.rows
        rows = self.cut.rows(rows)
        self.note(**self.cut.facts())
        layout.add_counters(self._file, rows, begun)
        self._names, self._commits = list(rows), np.array([begun.get(name, 0) for name in rows], np.int64)
        if self._disk is None or self._target is None or self.path is None:
            return
        self._file.flush()
        self._raise_if_full()
        self._checks.add_to(self._file, without="commits")
        self._file[GROUP].create_dataset("finished", data=np.zeros(1, np.int64), track_times=False)
        self._seal(self._target)
        # Once more: another run may have taken the name since this one began.
        there = str(self._file.attrs["spec"]) if self._earlier is None else self._earlier.spec
        refuse_other_content(self.path, there, self.cut)
        self._lock = locked(self._target, self.path)
        checkpoints.remove(self.path)
        os.replace(self._target, self.path)
        self._target = None
        sync_folder(self.path.parent)

    def _seal(self, path: Path) -> None:
        """Ends the structure of a file that is laid out, and goes on with it."""
        assert self._disk is not None
        places = add_seal(self._file)
        self._file.close()  # which writes the last of it
        self._raise_if_full()
        seal(path, self._disk, places)
        self._disk.sync()
        self._raise_if_full()
        self._open.clear()
        self._file = h5py.File(self._disk, "r+", libver=_FORMAT)

    @classmethod
    def reopen(cls, path: Path, spec: str) -> Self:
        """Opens the file of a run, to go on with it.  Raises InputError where it holds none, or one of another spec."""
        path = Path(path)
        if not path.exists():
            raise InputError(f"out is {path}, which does not exist: there is nothing to resume.")
        stored = read_spec(path)
        if stored != spec:
            raise InputError(
                f"out is {path}, which holds a run with another spec ({difference(stored, spec)});"
                " resume needs the spec it was started with."
            )
        lock = locked(path, path)
        try:
            with reading(path), cls.open_to_read(path):  # structure and counters, before HDF5 may write
                disk = Disk(path, "r+")
                file = cls(path, h5py.File(disk, "r+", libver=_FORMAT), disk)
                file._read_counts()
                file.contents()  # all of it as it was written, or it is told now
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        file._lock = lock
        return file

    @classmethod
    def open_to_read(cls, path: Path) -> Self:
        """Opens the file of a run, complete or not, to read it.

        Raises InputError where it holds none, DamagedFile where its structure or its counters are not as written.
        """
        path = Path(path)
        read_spec(path)
        with reading(path):
            file = cls(path, opened(path))
            try:
                require_plain(file._file, path)
                file._read_counts()
            except BaseException:
                file._file.close()
                raise
        return file

    def _read_counts(self) -> None:
        """The counters, which must agree with each other and with the checksums, and the checksums.

        The counters first: rows that they count are there, also where another process goes on writing.
        """
        commits, finished = self._file["commits"][()], self._file[GROUP]["finished"][0]
        self.cut = Cut.read(self._file)
        self._checks = Checksums.of(self._file, self.path)
        table = self.read("/")
        self._names, rows, self._commits = [name.decode() for name in table["section"]], table["rows"], commits
        for name, count, most in zip(self._names, self._commits, rows, strict=True):
            self._checks.require_counted(name, int(count), most, finished, self.path)

    def committed(self, section: str) -> int:
        """Rows of ``section`` that are complete."""
        self.wait()
        return int(self._commits[self._names.index(section)])

    def missing(self, section: str) -> range:
        """The rows of ``section`` that are not complete yet, by their numbers in the whole run."""
        first, rows = self.cut.first(section), int(self._file["rows"][self._names.index(section)])
        return range(first + self.committed(section), first + rows)

    @property
    def complete(self) -> bool:
        """Whether all rows of all sections are."""
        return not any(self.missing(name) for name in self._names)

    def read(self, section: str) -> dict[str, Array]:
        """Every dataset of a section.  Raises DamagedFile for one that is not as it was written."""
        self.wait()
        found = {name: data for name, data in self._file[section].items() if isinstance(data, h5py.Dataset)}
        return {name: self._checked(section, name, data) for name, data in found.items()}

    def _checked(self, section: str, name: str, data: h5py.Dataset) -> Array:
        table = self._checks.tables.get(section)
        if table is None or name not in table.names:  # in memory, or while it is laid out
            values: Array = data[()]
            return values
        rows = int(self._commits[self._names.index(section)]) if section in self._names else None
        return self._checks.checked(section, name, data, rows, self.path)

    @property
    def published(self) -> bool:
        """Whether the file stands at its place on disk."""
        return self.path is not None and self._target is None

    def contents(self) -> Contents:
        """All that the file holds, as arrays.  Raises DamagedFile as ``read`` does."""
        self.wait()
        return layout.contents(sections(self._file), self._checked)

    @property
    def threads(self) -> int:
        """Of the run that made the file."""
        return int(self.noted("threads", int))

    def write(self, section: str, first: int, rows: Mapping[str, Array]) -> None:
        """Queues rows ``first, first + 1, ...`` (the first dimension of each dataset named), and their commit."""
        copies = {name: np.array(values) for name, values in rows.items()}
        self._put(Rows(section, first - self.cut.first(section), copies))

    def _put_rows(self, several: Sequence[Rows]) -> None:
        ends = {}
        for rows in several:
            section, first, values = rows
            if first < self._commits[self._names.index(section)]:  # it had to go back: not counted meanwhile
                self._commit({section: first})
            table = self._checks.tables.get(section)
            for name, own in values.items():
                data = self._data(section, name)
                own = own.astype(data.dtype, copy=False)
                layout.put_rows(data, first, own)
                if table is not None:
                    table.set_rows(name, first, own)
            if table is not None:
                layout.put_rows(self._table(section), first, table.values[first : rows.end])
            ends[section] = rows.end
        self._file.flush()
        self._commit(ends)

    def _commit(self, counts: Mapping[str, int]) -> None:
        commits = self._commits.copy()
        commits[[self._names.index(section) for section in counts]] = list(counts.values())
        layout.put_rows(self._data("/", "commits"), 0, commits)
        self._file.flush()
        self._commits = commits

    def _data(self, section: str, name: str) -> h5py.Dataset:
        """A dataset; to look one up takes HDF5 as long as to write a row."""
        path = f"{section}/{name}"
        if path not in self._open:
            self._open[path] = self._file[path]
        return self._open[path]

    def _table(self, section: str) -> h5py.Dataset:
        return self._data(f"{GROUP}/{section}", "crc32")

    def write_whole(self, section: str, arrays: Mapping[str, Array]) -> None:
        """Queues whole datasets, which no row count covers.  After a kill they are whole, or as if never written."""
        self._set(section, None, arrays)

    def write_entry(self, section: str, index: int, values: Mapping[str, float]) -> None:
        """Queues one entry of each dataset named, which no row count covers."""
        self._set(section, index, values)

    def _set(self, section: str, entry: int | None, values: Mapping[str, Any]) -> None:
        copies = {name: np.array(value) for name, value in values.items()}
        where: Any = slice(None) if entry is None else slice(entry, entry + 1)

        def work() -> None:
            table = self._checks.tables.get(section)
            if table is not None:
                forgotten = [table.forget(name, where) for name in copies]  # nobody vouches for what is being written
                if any(forgotten):
                    self._table(section)[...] = table.values
                    self._file.flush()
            for name, value in copies.items():
                data = self._data(section, name)
                shape = data.shape if entry is None else (1, *data.shape[1:])
                value = np.broadcast_to(value, shape).astype(data.dtype)
                data[where if data.ndim else ()] = value
                if table is None:
                    self._checks.note(section, name, entry)
                elif entry is None:
                    table.set_whole(name, value)
                else:
                    table.set_rows(name, entry, value)
            self._file.flush()
            if table is not None:
                self._table(section)[...] = table.values
                self._file.flush()

        self._put(work)

    def checkpoint(self, arrays: Mapping[str, Array]) -> None:
        """Queues a new checkpoint.  The arrays are copied first, so the run may go on changing them."""
        if (path := self.path) is None:
            return
        copies, created = {name: np.array(values) for name, values in arrays.items()}, str(self._file.attrs["created"])

        def work() -> None:
            self._sync()
            checkpoints.save(path, copies, created, self._commits)

        self._put(work)

    def load_checkpoint(self) -> dict[str, Array] | None:
        """The last checkpoint of this run, or None where there is none that is intact and not ahead of the rows."""
        if self.path is None:
            return None
        return checkpoints.load(self.path, str(self._file.attrs["created"]), self._commits)

    def discard(self) -> None:
        """Lets the file go when it is closed, unless rows of it are complete."""
        if self._disk is not None and not self._commits.any():
            self._target = self._target or self.path

    def abandon(self) -> None:
        """Removes the file unless it stands at its place."""
        if self._target is not None:
            self._target.unlink(missing_ok=True)

    def finish(self) -> None:
        """Waits for all writes and removes the checkpoint, which nobody needs any more.

        Raises RunError where they did not reach the disk, or the file is no longer where it was.
        """
        self.wait()
        if self._disk is None or self.path is None:
            return
        if np.array_equal(self._commits, self._file["rows"][()]):
            self._file[GROUP]["finished"][0] = 1
        self._sync()
        if not self._disk.is_at(self.path):
            raise RunError(f"{self.path} was removed, or replaced by another, while the run wrote it.")
        checkpoints.remove(self.path)

    def _sync(self) -> None:
        """Returns when all that HDF5 holds is on the disk.  Raises RunError where it cannot be."""
        self._file.flush()
        if self._disk is not None:
            self._disk.sync()
        self._raise_if_full()

    def wait(self) -> None:
        """Returns when all that was queued is written.  Raises RunError where it could not be."""
        self._ask(self._writer.wait)

    def _put(self, work: Work) -> None:
        self._ask(lambda: self._writer.put(work))

    def _ask(self, call: Callable[[], None]) -> None:
        try:
            call()
        except OSError as error:
            raise unwritten(self.path, self.published, error) from error
        self._raise_if_full()

    def _raise_if_full(self) -> None:
        if self._disk is not None and self._disk.error is not None:
            raise unwritten(self.path, self.published, self._disk.error) from self._disk.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.wait()
            elif issubclass(kind, Exception) and not issubclass(kind, InputError | RunError):
                self._raise_if_full()  # what HDF5 came up with, because it could not write
        finally:
            self._writer.close()
            self._file.close()
            if self._disk is not None:
                self._disk.close()
            self.abandon()
            if self._lock is not None:
                os.close(self._lock)
