"""One run, one HDF5 file.

Layout, schema version 1.  The root's attributes are ``schema_version``, ``command``, ``spec`` (JSON), ``seed``,
``versions`` (JSON), ``machine`` (JSON), ``threads`` and ``created``.  A *section* is a group whose datasets share
dimension scales and carry ``units`` and ``long_name``.  ``/commits`` counts, section by section, how many of its
``/rows`` are complete: rows are written first, then flushed, then counted.

Why a file survives a kill at any instant: every dataset is allocated and filled when its section is made, so from
then on no metadata changes, only bytes inside allocated chunks.  The format of HDF5 1.8 is used because later ones
mark a file as open, and a killed process leaves the mark behind: such files refuse to open until repaired by hand.
For the same reason the single writer takes no lock, and readers may watch at any time, with or without SWMR.

What a run needs to go on after a kill is in ``FILE.checkpoint``, replaced as a whole and removed when the run is
complete.
"""

import os
import secrets
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import h5py
import numpy as np

from thermorun.arrays import Array
from thermorun.errors import InputError, RunError
from thermorun.store.inspect import difference, opened, read_spec, reason, refuse_other_content, require_intact
from thermorun.store.layout import Axis, Contents, Variable, add_section, attributes, contents


class Earlier(NamedTuple):
    """A complete run whose place a larger one takes: its spec (JSON), and the rows of each section that stay."""

    spec: str
    rows: Mapping[str, int]


class RunFile:
    """A run's file, open for writing; use it as a context manager.

    Writes happen in a background thread, in order.  An error there (a full disk, say) is raised as RunError by the next
    call.
    """

    def __init__(
        self, path: Path | None, file: h5py.File, target: Path | None = None, earlier: Earlier | None = None
    ) -> None:
        self.path = path
        self._earlier = earlier
        self._file = file
        self._target = target
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._pending: list[Future[None]] = []
        self._lock: int | None = None

    @classmethod
    def create(
        cls, path: Path, command: str, spec: str, seed: int, threads: int, earlier: Earlier | None = None
    ) -> Self:
        """Makes the file for a new run; it appears at ``path`` whole, with its attributes, or not at all.

        Raises InputError where ``path`` cannot be written, or already holds anything but this same run, complete, or
        the ``earlier`` one, of which it takes over what it will hold too.
        """
        path = Path(path)
        refuse_other_content(path, spec if earlier is None else earlier.spec)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            file = h5py.File(part, "w", libver=("earliest", "v108"), locking=False)
        except OSError as error:
            raise InputError(f"out is {path}, which cannot be written ({reason(error)}).") from error
        file.attrs.update(attributes(command, spec, seed, threads))
        return cls(path, file, part, earlier)

    @classmethod
    def in_memory(cls, command: str, spec: str, seed: int, threads: int) -> Self:
        """The same for a run without a file: it is gone when closed, but for its ``contents``."""
        file = h5py.File(
            f"memory-{secrets.token_hex(8)}", "w", libver=("earliest", "v108"), driver="core", backing_store=False
        )
        file.attrs.update(attributes(command, spec, seed, threads))
        return cls(None, file)

    def add_section(self, name: str, axes: Sequence[Axis], variables: Sequence[Variable]) -> None:
        """Allocates a group with its dimension scales and its datasets, filled with NaN, or zero where integers."""
        add_section(self._file, name, axes, variables)
        if self._earlier is not None and self.path is not None:
            self._take_over(self.path, name, variables)

    def _take_over(self, path: Path, name: str, variables: Sequence[Variable]) -> None:
        """Copies what the earlier file holds of a section's datasets, as far as both reach."""
        with opened(path) as earlier:
            for variable in variables if name in earlier else ():
                new, old = self._file[name][variable.name], earlier[name].get(variable.name)
                if old is not None:
                    shared = tuple(map(slice, map(min, new.shape, old.shape)))
                    new[shared] = old[shared]

    def note(self, **facts: str | float) -> None:
        """Adds attributes to the root, while the file is laid out: what is known of the whole run."""
        self._file.attrs.update(facts)

    def noted(self, name: str) -> Any:
        """An attribute of the root, None where there is none."""
        return self._file.attrs.get(name)

    def publish(self, rows: Mapping[str, int]) -> None:
        """Ends the layout: no metadata changes after this, and the file takes its place at ``path``.

        ``rows`` names the sections that are written row by row, with the number of rows that completes each.
        """
        begun = {} if self._earlier is None else self._earlier.rows
        scale = self._file.create_dataset("section", data=list(rows), dtype=h5py.string_dtype(), track_times=False)
        scale.make_scale("section")
        scale.attrs["long_name"] = "parts of the file that are written row by row"
        for name, values, meaning in (
            ("rows", list(rows.values()), "rows that complete a section"),
            ("commits", [begun.get(name, 0) for name in rows], "rows of a section that are complete"),
        ):
            data = self._file.create_dataset(name, data=np.array(values, np.int64), track_times=False)
            data.attrs["long_name"] = meaning
            data.dims[0].attach_scale(scale)
        self._file.flush()
        if self._target is not None and self.path is not None:
            # Once more: another run may have taken the name since this one began.
            refuse_other_content(
                self.path, str(self._file.attrs["spec"]) if self._earlier is None else self._earlier.spec
            )
            self._lock = _locked(self._target, self.path)
            _beside(self.path, ".checkpoint").unlink(missing_ok=True)
            os.replace(self._target, self.path)
            self._target = None

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
        lock = _locked(path, path)
        try:
            file = cls(path, h5py.File(path, "r+", locking=False))
        except OSError as error:
            raise InputError(f"out is {path}, which cannot be written ({reason(error)}).") from error
        file._lock = lock
        return file

    @classmethod
    def open_to_read(cls, path: Path) -> Self:
        """Opens the file of a run, complete or not, to read it.  Raises InputError where it holds none."""
        read_spec(path)
        return cls(path, opened(path))

    def committed(self, section: str) -> int:
        """Rows of ``section`` that are complete."""
        self.wait()
        return int(self._file["commits"][_section_index(self._file, section)])

    def read(self, section: str) -> dict[str, Array]:
        """Every dataset of a section.  Raises InputError for one whose shape is not that of its dimensions."""
        self.wait()
        found = {name: data for name, data in self._file[section].items() if isinstance(data, h5py.Dataset)}
        for name, data in found.items():
            require_intact(data, f"{section}/{name}".lstrip("/"), self.path)
        return {name: data[()] for name, data in found.items()}

    @property
    def published(self) -> bool:
        """Whether the file stands at its place on disk."""
        return self.path is not None and self._target is None

    def contents(self) -> Contents:
        """All that the file holds, as arrays."""
        self.wait()
        return contents(self._file)

    @property
    def threads(self) -> int:
        """Threads of the run that made the file."""
        return int(self._file.attrs["threads"])

    def write(self, section: str, first: int, rows: Mapping[str, Array]) -> None:
        """Queues rows ``first, first + 1, ...`` (the first dimension of each dataset named), and their commit."""
        copies = {name: np.array(values) for name, values in rows.items()}
        end = first + len(next(iter(copies.values())))
        index = _section_index(self._file, section)

        def work() -> None:
            for name, values in copies.items():
                self._file[section][name][first:end] = values
            self._file.flush()
            self._file["commits"][index] = end
            self._file.flush()

        self._submit(work)

    def write_whole(self, section: str, arrays: Mapping[str, Array]) -> None:
        """Queues whole datasets, which no row count covers."""
        self._set(section, ..., arrays)

    def write_entry(self, section: str, index: int, values: Mapping[str, float]) -> None:
        """Queues one entry of each dataset named, which no row count covers."""
        self._set(section, index, values)

    def _set(self, section: str, where: Any, values: Mapping[str, Any]) -> None:
        def work() -> None:
            for name, value in values.items():
                self._file[section][name][where] = value
            self._file.flush()

        self._submit(work)

    def checkpoint(self, arrays: Mapping[str, Array]) -> None:
        """Queues a new checkpoint.  The arrays are copied first, so the run may go on changing them."""
        path = self.path
        if path is None:
            return
        copies = {name: np.array(values) for name, values in arrays.items()}
        copies["created"] = np.array(self._file.attrs["created"])

        def work() -> None:
            part = _beside(path, ".checkpoint.part")
            with open(part, "wb") as stream:
                np.savez(stream, allow_pickle=False, **copies)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, _beside(path, ".checkpoint"))

        self._submit(work)

    def load_checkpoint(self) -> dict[str, Array] | None:
        """The last checkpoint of this run, or None where there is none that is intact."""
        if self.path is None:
            return None
        try:
            with (
                open(_beside(self.path, ".checkpoint"), "rb") as stream,
                np.load(stream, allow_pickle=False) as stored,
            ):
                arrays = dict(stored)
        except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        return arrays if str(arrays.pop("created", "")) == self._file.attrs["created"] else None

    def finish(self) -> None:
        """Waits for all writes and removes the checkpoint, which nobody needs any more."""
        self.wait()
        if self.path is not None:
            _beside(self.path, ".checkpoint").unlink(missing_ok=True)

    def wait(self) -> None:
        """Returns when all that was queued is written.  Raises RunError where it could not be."""
        while self._pending:
            self._raise_if_failed(self._pending.pop(0))

    def _submit(self, work: Callable[[], None]) -> None:
        while self._pending and self._pending[0].done():
            self._raise_if_failed(self._pending.pop(0))
        self._pending.append(self._writer.submit(work))

    def _raise_if_failed(self, future: Future[None]) -> None:
        try:
            future.result()
        except OSError as error:
            raise RunError(
                f"{self.path} could not be written ({reason(error)}); what it counts as committed is intact:"
                " make room and resume."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._writer.shutdown(wait=True)
            self._file.close()
            if self._target is not None:
                self._target.unlink(missing_ok=True)
            if self._lock is not None:
                os.close(self._lock)


def _section_index(file: h5py.File, section: str) -> int:
    return list(file["section"].asstr()).index(section)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _locked(file: Path, name: Path) -> int | None:
    """A descriptor that holds a lock of a file, which a killed process lets go of; None where there are none.

    Not the kind of lock that HDF5 takes: readers may look while a run writes.  Raises InputError where another run has
    it.
    """
    try:
        import fcntl

        command = fcntl.F_OFD_SETLK
    except (ImportError, AttributeError):  # Linux has such locks
        return None
    descriptor = os.open(file, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, command, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        os.close(descriptor)
        sentence = f"out is {name}, which another run is writing now; wait for it, or name another file."
        raise InputError(sentence) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor
