"""Runs that are killed, and killed again while they resume: nothing committed is lost, and not a bit is different.

    python tests/attacks/kills.py --trials 200

Each run is a process of its own, begun from one that has everything imported.  Half of them are killed at a random
moment, half while they write: after so many bytes of the file or of a checkpoint, in the middle of a write.  What is
left is verified and resumed, every third time to be killed once more.  Ends with exit code 1 where any file is damaged,
counts fewer rows than before, or comes to other numbers than an undisturbed run.
"""

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from kinds import KINDS, command, numbers, same, words_of

_PATIENCE = 300


class _Fatal(io.FileIO):
    """A file whose writer is killed after so many bytes of all files."""

    room = 0

    def write(self, data):
        if len(data) >= _Fatal.room:
            super().write(data[: _Fatal.room])
            os.kill(os.getpid(), signal.SIGKILL)
        _Fatal.room -= len(data)
        return super().write(data)


def _opened(path, mode):
    """What ``open`` gives the writer of checkpoints."""
    return open(path, mode) if mode == "rb" else _Fatal(path, mode)


def begin(words, folder, room=None):
    """A process that runs a command; after ``room`` bytes it kills itself."""
    child = os.fork()
    if child:
        return child
    from thermorun import runs
    from thermorun.store import checkpoints, disk

    runs.CHECKPOINT_EVERY = 0.0
    if room is not None:
        _Fatal.room = room
        disk.FileIO = _Fatal
        checkpoints.open = _opened
    run = command(*words, folder=folder)
    if run.returncode:
        os.write(2, run.stderr.encode())
    os._exit(0 if run.returncode == 0 else 1)


def end(child, after=None):
    """Waits for a process, or kills it after so many seconds: the signal that ended it, or its exit code."""
    limit = time.monotonic() + (_PATIENCE if after is None else after)
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if after is not None else 1


def state(path):
    """Rows that a file counts, section by section, and what is wrong with it."""
    from thermorun import store

    return {one.name: one.done for one in store.survey(path).sections}, store.faults(path)


def killed(words, folder, chance, seconds, size):
    """Runs a command and kills it."""
    if chance.random() < 0.5:
        return end(begin(words, folder), chance.uniform(0, 1.1 * seconds))
    return end(begin(words, folder, int(chance.uniform(0, 1.3 * size))))


def trial(words, folder, chance, whole):
    """What went wrong, empty where nothing did; and how often the run was killed, with a file or without."""
    path, kills, before = folder / "run.h5", [], {}
    for left in folder.iterdir():
        left.unlink()
    now = [*words, "--out", "run.h5"]
    for _ in range(1 + (chance.random() < 0.34)):
        if killed(now, folder, chance, whole["seconds"], whole["size"]) != -signal.SIGKILL:
            break  # it had come to its end
        kills.append(path.exists())
        if not path.exists():
            continue
        counted, faults = state(path)
        if faults or any(counted[name] < rows for name, rows in before.items()):
            return f"after a kill {counted}, before it {before}: {faults}", kills
        before, now = counted, ["resume", "run.h5"]
    if end(begin(now, folder)) != 0:
        return "did not go on", kills
    if not same(numbers(path), whole["numbers"]):
        return "other numbers", kills
    counted, faults = state(path)
    stray = [left.name for left in folder.iterdir() if left.name.startswith("run.h5.")]
    return (f"{faults} {stray}" if faults or stray else ""), kills


def undisturbed(kind, place):
    """The numbers of a kind, the seconds that it takes, and the bytes of its file."""
    path = Path(place, f"{kind}.h5")
    for _ in range(2):  # the first may compile
        path.unlink(missing_ok=True)
        began = time.monotonic()
        if end(begin([*words_of(kind, place), "--out", path.name], place)) != 0:
            sys.exit(f"{kind} cannot be run")
        seconds = time.monotonic() - began
    return {"numbers": numbers(path), "seconds": seconds, "size": path.stat().st_size}


def main():
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--trials", type=int, default=12)
    given.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given.add_argument("--seed", type=int, default=0)
    given = given.parse_args()
    import thermorun
    import thermorun.cli

    for subject in thermorun.SUBJECTS:
        getattr(thermorun, subject)
    chance, bad, kills = random.Random(given.seed), 0, []
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as folder:
        whole = {kind: undisturbed(kind, place) for kind in dict.fromkeys(["computer", "cycles", *given.kinds])}
        for number in range(given.trials):
            kind = given.kinds[number % len(given.kinds)]
            wrong, here = trial(words_of(kind, place), Path(folder), chance, whole[kind])
            bad += bool(wrong)
            kills += here
            print(f"{number} {kind}, {len(here)} kills: {wrong or 'right'}", flush=True)
    print(f"{given.trials} runs, {len(kills)} kills, {sum(kills)} with a file to resume, {bad} wrong")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
