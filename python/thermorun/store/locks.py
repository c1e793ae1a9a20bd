"""One writer a file."""

import os
import struct
from pathlib import Path

from thermorun.errors import InputError


def locked(file: Path, name: Path) -> int | None:
    """A descriptor that holds a lock of a file, which a killed process lets go of; None where there are none.

    Not the kind of lock that HDF5 takes: readers may look while a run writes.  Raises InputError where another run has
    it.
    """
    try:
        import fcntl

        command = fcntl.F_OFD_SETLK
    except (ImportError, AttributeError):  # Linux has such locks
        return None
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError as error:
        raise InputError(f"out is {name}, which cannot be written ({os.strerror(error.errno or 0)}).") from error
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


def written_now(path: Path | str) -> bool | None:
    """Whether a run writes a file now; None where nobody can tell.  Raises OSError where it cannot be opened."""
    try:
        import fcntl

        command = fcntl.F_OFD_GETLK
    except (ImportError, AttributeError):
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Answered by the lock that stands in the way, or by none.
        wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return bool(struct.unpack("hhqqi", fcntl.fcntl(descriptor, command, wanted))[0] != fcntl.F_UNLCK)
    except OSError:
        return None
    finally:
        os.close(descriptor)
