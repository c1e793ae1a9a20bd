"""Runs on a disk that fills up at a random moment: no crash, one sentence, nothing committed lost, resumed to the bit.

    python tests/attacks/full_disk.py --trials 100            limits on the bytes written, or on the size of files
    python tests/attacks/full_disk.py --trials 100 --mount    a small file system in memory; root on Linux alone

Ends with exit code 1 and what happened where anything else did.
"""

import argparse
import contextlib
import errno
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from kinds import KINDS, command, numbers, references, same, told, words_of


class _Disk:
    """Room for so many bytes more, for the file that HDF5 writes."""

    def __init__(self, room):
        self.room = room

    def file(self, *given):
        disk = self

        class Full(io.FileIO):
            def write(self, data):
                if len(data) > disk.room:
                    data = data[: disk.room]
                    if not data:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                disk.room -= len(data)
                return super().write(data)

        return Full(*given)


@contextlib.contextmanager
def bytes_left(room):
    """No more than ``room`` bytes for the run's file."""
    from thermorun.store import disk

    with mock.patch.object(disk, "FileIO", _Disk(room).file):
        yield


@contextlib.contextmanager
def file_size(room):
    """No file, picture and checkpoint among them, grows beyond ``room`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def filled(folder, room):
    """A file beside leaves ``room`` bytes of a file system."""
    free = shutil.disk_usage(folder).free
    with open(folder / "filler", "wb") as stream:
        stream.write(bytes(max(0, free - room)))
    try:
        yield
    finally:
        (folder / "filler").unlink()


def trial(words, whole, folder, limit):
    """What went wrong in one run under a limit; empty where nothing did."""
    for left in folder.iterdir():
        left.unlink()
    with limit:
        run = command(*words, "--out", "run.h5", folder=folder)
    path = folder / "run.h5"
    there = {left.name for left in folder.iterdir()}
    stray = sorted(name for name in there if name.endswith(".part") or name.startswith("."))
    if run.returncode not in (0, 1) or (run.returncode and not told(run)) or stray:
        return f"exit {run.returncode}, files {stray}: {run.stderr}"
    if run.returncode == 0 and not path.exists():
        return "exit 0 without a file"
    if path.exists():
        again = command("resume", "run.h5", folder=folder)
        if again.returncode != 0 or not same(numbers(path), whole):
            return f"resumed with exit {again.returncode} to other numbers: {run.stderr} {again.stderr}"
    return ""


def main():
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--trials", type=int, default=16)
    given.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--mount", action="store_true")
    given = given.parse_args()
    from thermorun import runs

    runs.CHECKPOINT_EVERY = 0.0
    chance, bad = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as name:
        whole, folder = references(name, given.kinds), Path(name, "disk")
        folder.mkdir()
        if given.mount:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
        try:
            for number in range(given.trials):
                kind = given.kinds[number % len(given.kinds)]
                room = int(whole[kind].stat().st_size * chance.uniform(0.0, 1.6))
                limits = [filled(folder, room)] if given.mount else [bytes_left(room), file_size(room)]
                wrong = trial(words_of(kind, name), numbers(whole[kind]), folder, chance.choice(limits))
                bad += bool(wrong)
                print(f"{number} {kind}, room for {room} bytes: {wrong or 'right'}", flush=True)
        finally:
            if given.mount:
                subprocess.run(["umount", folder], check=True)
    print(f"{given.trials} runs, {bad} wrong")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
