"""The bytes of a file as HDF5 writes them, such that a disk that is full or gone never reaches HDF5."""

import os
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any


class Disk(RawIOBase):
    """A file that HDF5 writes through; after a write that failed no later one reaches the disk.

    HDF5 cannot close a file whose last writes failed: it tries them again, and then crashes the interpreter.  So here a
    failed write is kept as ``error`` and looks like one that succeeded; whoever writes asks for ``error`` after each
    flush.  What was on disk before stays as it was, for nothing is written after the failure.
    """

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__()
        self._raw = FileIO(path, mode)  # unbuffered: a kill loses nothing that HDF5 has flushed
        self.error: OSError | None = None

    def readinto(self, buffer: Any) -> int:
        """Fills ``buffer`` from the place where the file stands."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and (more := self._raw.readinto(view[done:])):
            done += more
        return done

    def write(self, data: Any) -> int:
        """Writes all of ``data``, or keeps why it could not."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while self.error is None and done < len(view):
                done += self._raw.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place, which may lie beyond the end."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """The place where the file stands."""
        return self._raw.tell()

    def truncate(self, size: int | None = None) -> int:
        """Sets the length."""
        try:
            if self.error is None and size is not None and size != os.fstat(self._raw.fileno()).st_size:
                self._raw.truncate(size)
        except OSError as error:
            self.error = error
        return size or 0

    def sync(self) -> None:
        """Returns when what was written is on the disk itself."""
        try:
            if self.error is None:
                os.fsync(self._raw.fileno())
        except OSError as error:
            self.error = error

    def is_at(self, path: Path) -> bool:
        """Whether a path still names this file."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._raw.fileno()))
        except OSError:
            return False

    def close(self) -> None:
        """Lets go of the file."""
        if not self.closed:
            super().close()
            self._raw.close()


def sync_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk: a file that was renamed is there after a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            pass  # a file system that cannot
        finally:
            os.close(descriptor)
