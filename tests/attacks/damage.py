"""Files that were damaged or changed by hand: what is read from each is right, or the damage is told in one sentence.

    python tests/attacks/damage.py --trials 2000

Files of many kinds, whole and half done, have bits flipped, blocks overwritten, ends cut off, counters raised,
datasets and attributes taken out or replaced, specs rewritten, links put in, checkpoints torn.  Each is loaded and
drawn as a table; those half done are resumed, and must come to the numbers of a run that nothing happened to.  A trial
that ends the process, hangs, gives other numbers without a word or changes a file beside is wrong: exit code 1.

Half of the changes by hand are sealed anew, as someone would who wants to be believed: such a file may say what it
likes, but it runs nothing, reaches nothing else, and ends in no traceback.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from kinds import KINDS, command, numbers, references, same, words_of

# Of the processor: on a busy machine the slowest kind takes long.  And of the clock, for what waits without end.
_SECONDS, _MINUTES = 60, 20


def half_done(folder, kinds):
    """A file of each kind, with its checkpoint, of a run that was stopped on its way."""
    from thermorun.runs import Session

    pause, calls = Session.pause, 0

    def stop(session, state=None):
        nonlocal calls
        pause(session, state)
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    for kind in kinds:
        calls = 0
        with mock.patch.object(Session, "pause", stop):
            command(*words_of(kind, folder), "--out", f"half-{kind}.h5", folder=folder)
    return {kind: path for kind in kinds if (path := Path(folder) / f"half-{kind}.h5").exists()}


# Damage to bytes.


def flip_bit(path, chance):
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def flip_bits_of_the_head(path, chance):
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[chance.randrange(min(4096, len(data)))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def overwrite_block(path, chance):
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data))
    length = min(chance.choice([8, 64, 512, 4096]), len(data) - start)
    data[start : start + length] = chance.choice([bytes(length), b"\xff" * length, chance.randbytes(length)])
    path.write_bytes(data)


def cut_off(path, chance):
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def append(path, chance):
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 10_000)))


# Changes by hand.


def _datasets(file):
    found = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def change_number(file, chance):
    name = chance.choice([name for name in _datasets(file) if file[name].size and file[name].dtype.kind in "iuf"])
    data, values = file[name], file[name][()]
    place = chance.randrange(values.size)
    values.ravel()[place] = chance.choice([0, 1, 7, -3 if values.dtype.kind != "u" else 3])
    data[...] = values


def change_counter(file, chance):
    """Less than it was, of a run under way, is the file of a moment before: right, if the run goes on from it."""
    index = chance.randrange(len(file["commits"]))
    before = int(file["commits"][index])
    file["commits"][index] = chance.choice([0, 1, int(file["rows"][index]), -1, 10**9, 2**62])
    return ", back in time" if 0 <= file["commits"][index] < before and not file["checksums/finished"][0] else ""


def replace_dataset(file, chance):
    name = chance.choice(_datasets(file))
    shape = file[name].shape
    del file[name]
    new = chance.choice([
        None, 1.0, "text", h5py.Empty("f8"), np.zeros((1, 1)), np.full(shape, np.nan), np.zeros(shape, complex),
        np.zeros(shape), np.zeros((*shape, 1)), np.zeros(shape, "S3"), "group", "\x1b[31mred",
    ])  # fmt: skip
    if isinstance(new, str) and new == "group":
        file.create_group(name)
    elif new is not None:
        file[name] = new


def put_in_link(file, chance):
    name = chance.choice(_datasets(file))
    shape = file[name].shape
    del file[name]
    kind = chance.randrange(6)
    if kind == 0:
        file[name] = h5py.SoftLink("/commits")
    elif kind == 1:
        file[name] = h5py.ExternalLink("victim.h5", "/x")
    elif kind == 2:
        layout = h5py.VirtualLayout(shape or (1,), "f8")
        layout[...] = h5py.VirtualSource("victim.h5", "x", shape or (1,))
        file.create_virtual_dataset(name, layout)
    elif kind == 3:
        size = 8 * max(1, int(np.prod(shape)))
        file.create_dataset(name, shape=shape or (1,), dtype="f8", external=[("victim.txt", 0, size)])
    elif kind == 4:
        file[name] = file["/"]
    else:
        file.create_dataset(name, shape=(2**40,), dtype="f8", chunks=(2**20,), compression="gzip")


def change_attribute(file, chance):
    where = file if chance.random() < 0.5 else file[chance.choice(_datasets(file))]
    names = [name for name in where.attrs if name not in ("DIMENSION_LIST", "REFERENCE_LIST")]
    if not names:
        return
    name = chance.choice(names)
    del where.attrs[name]
    new = chance.choice([None, 1.5, "x", "\x1b]0;title\x07", np.zeros(3), b"\xff\xfe", 2**63, "[" * 9999])
    if new is not None:
        where.attrs[name] = new


def change_spec(file, chance):
    spec = json.loads(file.attrs["spec"])
    name = chance.choice(list(spec))
    wild = [None, True, -1, 1e308, 5e-324, 2**70, "", "\x1b[2J", [], {}, [[[]]], "../../x.py:mine", float("1e400")]
    line = json.dumps(spec | {name: chance.choice(wild)})
    file.attrs["spec"] = chance.choice([line] * 8 + ["[" * 50_000, "1" * 5000, "{}", line[: len(line) // 2], "\xff"])


_BYTES = (flip_bit, flip_bit, flip_bits_of_the_head, overwrite_block, cut_off, append)
_HAND = (change_number, change_counter, replace_dataset, put_in_link, change_attribute, change_spec)


def damage(path, chance):
    """Damages a file, or its checkpoint; says how."""
    checkpoint = path.with_name(f"{path.name}.checkpoint")
    if checkpoint.exists() and chance.random() < 0.15:
        how = chance.choice([flip_bit, overwrite_block, cut_off, append, "another"])
        if how == "another":
            with open(checkpoint, "wb") as stream:
                np.save(stream, np.zeros(3))
            return "checkpoint: another"
        how(checkpoint, chance)
        return f"checkpoint: {how.__name__}"
    how, more = chance.choice([*_BYTES, *_HAND]), ""
    if how in _BYTES:
        how(path, chance)
    else:
        with h5py.File(path, "r+") as file:
            more = how(file, chance) or ""
        if chance.random() < 0.5:
            seal_anew(path)
            more += ", sealed anew"
    return how.__name__ + more


def seal_anew(path):
    """Gives a file that was changed by hand the checksum of its new structure."""
    from thermorun.store import structure
    from thermorun.store.disk import Disk

    with h5py.File(path, "r+") as file:
        for name in ("extents", "seal"):
            if name in file["checksums"]:
                del file["checksums"][name]
        places = structure.add_seal(file)
    with Disk(path, "r+") as disk:
        structure.seal(path, disk, places)


def verdict(run, before, whole):
    """Empty where a command said in one sentence what is wrong, or gave the numbers before, or those of ``whole``."""
    if run.returncode in (1, 2) and run.stderr.startswith("thermorun: ") and run.stderr.count("\n") == 1:
        return "" if run.stderr.isascii() or run.stderr.rstrip("\n").isprintable() else "commands for the terminal"
    if run.returncode != 0:
        return f"exit {run.returncode}: {run.stderr[-1500:]}"
    return "" if run.stdout == before or whole else f"other numbers: {run.stdout[:300]}"


def trial(number, files, whole, folder, seed):
    """Damages one file; what went wrong after that, empty where nothing did."""
    chance = random.Random(f"{seed} {number}")
    source, before = files[number % len(files)]
    path = folder / "run.h5"
    for left in folder.iterdir():
        left.unlink()
    shutil.copy(source, path)
    if (checkpoint := Path(f"{source}.checkpoint")).exists():
        shutil.copy(checkpoint, f"{path}.checkpoint")
    (folder / "victim.txt").write_text("x" * 100_000)
    with h5py.File(folder / "victim.h5", "w") as file:
        file["x"] = np.zeros(1000)
    victims = [(folder / name).read_bytes() for name in ("victim.txt", "victim.h5")]
    how = damage(path, chance)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    signal.alarm(60 * _MINUTES)
    wrong = verdict(shown(folder), before, "sealed" in how or "back in time" in how)
    if not wrong and source.name.startswith("half-"):
        run = command("resume", "run.h5", folder=folder)
        kind = source.stem.removeprefix("half-")
        wrong = verdict(run, "", "sealed" in how or (run.returncode == 0 and same(numbers(path), whole[kind])))
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    if victims != [(folder / name).read_bytes() for name in ("victim.txt", "victim.h5")]:
        wrong = "another file was written"
    return f"{source.name} {how}: {wrong or 'right'}", not wrong


def shown(folder):
    """What a file gives when it is loaded, as a table and as JSON."""
    code = (
        "import thermorun as tr, json\n"
        "from thermorun.store import reading\n"
        "with reading('run.h5'):\n"
        "    result = tr.load('run.h5')\n"
        "    print(result.summary(), json.dumps(result.to_dict()))\n"
    )
    return command_of(lambda: exec(code, {}), folder)


def command_of(work, folder):
    """A piece of Python as if it were a command."""
    from thermorun import cli
    from thermorun.errors import InputError, RunError

    def main(arguments):
        try:
            work()
        except InputError as error:
            cli.fail(str(error), 2)
        except RunError as error:
            cli.fail(str(error), 1)
        sys.exit(0)

    with mock.patch.object(cli, "main", main):
        return command(folder=folder)


def worker(given):
    """Makes the files, or takes them, and goes through trials; a line each."""
    place = Path(given.folder)
    folder = Path(tempfile.mkdtemp(dir=place))
    paths = [path for path in sorted(place.glob("*.h5")) if path.stem.removeprefix("half-") in given.kinds]
    files, whole = [], {}
    for path in paths:
        shutil.copy(path, folder / "run.h5")
        files.append((path, shown(folder).stdout))
        if not path.name.startswith("half-"):
            whole[path.stem] = numbers(path)
    for number in (signal.SIGALRM, signal.SIGPROF):  # a hang inside a library ends the process
        signal.signal(number, signal.SIG_DFL)
    for number in range(given.first, given.trials):
        print(number, flush=True)
        said, right = trial(number, files, whole, folder, given.seed)
        print("right" if right else "WRONG", said.replace("\n", "\\n"), flush=True)


def main():
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--trials", type=int, default=48)
    given.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--folder")
    given.add_argument("--first", type=int, default=0)
    given = given.parse_args()
    if given.folder:
        worker(given)
        return
    from thermorun import runs

    runs.CHECKPOINT_EVERY = 0.0
    bad, first = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        references(folder, given.kinds)
        half_done(folder, given.kinds)
        while first < given.trials:
            words = [sys.executable, __file__, "--folder", folder, "--first", first, "--trials", given.trials]
            words += ["--seed", given.seed, "--kinds", *given.kinds]
            with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True) as process:
                for line in process.stdout:
                    if line.strip().isdecimal():
                        first = int(line)
                    elif line.startswith("WRONG"):
                        bad += 1
                        print(first, line, end="", flush=True)
                    else:
                        first = max(first, first)
            if process.returncode == 0:
                break
            bad += 1
            print(f"{first} ended the process: {process.returncode}", flush=True)
            first += 1
    print(f"{given.trials} files, {bad} wrong")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
