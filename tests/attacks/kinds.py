"""Kinds of run, small: what the scripts of this folder attack; and how a command is run within this process."""

import contextlib
import io
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np

_INPUT = "INPUT"
_ENSEMBLE = ("--particles", "2048", "--steps", "20")
KINDS = {
    "excess-work": ("excess-work", *_ENSEMBLE, "--records", "4", "--keep-work", "--snapshots", "2", "--replicas", "2"),
    "drive": ("drive", "--particles", "2048", "--tau", "0.5"),
    "learn": ("learn", "--potential", "stiffness", "--particles", "1024", "--tau", "1", "--replicas", "2",
              "--records", "4"),
    "metric": ("metric", "--potential", "stiffness", "--particles", "8192", "--grid", "stiffness=1:2:2"),
    "free-energy": ("free-energy", *_ENSEMBLE, "--duration", "0.2"),
    "cycles": ("cycles", "train", "--models", "2", "--epochs", "3", "--steps-per-epoch", "4", "--chain-steps", "5",
               "--samples", "32", "--count-steps", "999", "--hidden", "3"),
    "computer": ("computer", "train", "--classes", "0,1", "--hidden", "6", "--teacher-epochs", "3", "--scale", "100",
                 "--shots", "2"),
    "descent": ("computer", "train", "--classes", "0,1", "--hidden", "6", "--teacher-epochs", "3", "--scale", "100",
                "--shots", "2", "--method", "onsager-machlup", "--trajectories", "40"),
    "adjoint": ("computer", "train", "--classes", "0,1", "--hidden", "6", "--shots", "2", "--method", "adjoint",
                "--trajectories", "512"),
    "classify": ("computer", "classify", _INPUT, "--shots", "3"),
    "sweep": ("computer", "sweep", _INPUT, "--over", "temperature", "--values", "0.5,1", "--shots", "2"),
    "energy": ("computer", "energy", _INPUT, "--shots", "2", "--drives", "0.5,1"),
    "devices": ("computer", "devices", _INPUT, "--devices", "2", "--relative", "0.1", "--absolute", "0.1",
                "--bits", "8", "--retrained", "2", "--generations", "3", "--population", "4"),
    "compare": ("computer", "compare", "--classes", "0,1", "--hidden", "4", "--trajectories", "200", "--seeds", "2",
                "--shots", "1"),
    "generate": ("computer", "generate", "--machines", "2", "--hidden", "4", "--pictures", "4"),
    "online": ("computer", "generate", "--rules", "online", "--machines", "2", "--hidden", "4", "--pictures", "4",
               "--rounds", "20"),
    "protocol": ("protocol", "--search-particles", "4096", "--particles", "4096"),
    "ceiling": ("cycles", "ceiling", "--states", "3", "--restarts", "3", "--steps", "10"),
    "circulation": ("cycles", "circulation", _INPUT, "--members", "3", "--steps", "50", "--chains", "16",
                    "--samples", "64"),
    "shard": ("free-energy", "--particles", "140000", "--steps", "20", "--duration", "0.2", "--shard", "2/3"),
}  # fmt: skip
# The kind whose file another starts from.
_FROM = {"classify": "computer", "sweep": "computer", "energy": "computer", "devices": "computer",
         "circulation": "cycles"}  # fmt: skip
# What differs between two runs of one spec: times, and the checksums of what holds them.
_TIMES = ("particle_steps_per_second", "seconds", "facts", "checksums")
_COUNTS = ("commits", "rows", "section")
# And what follows from them: ways to train are compared with equal time, too.
_TIMED = ("trajectories", "hits")


def command(*words, folder):
    """A command line in this process: exit code (None for a traceback), and what it printed."""
    from thermorun.cli import main

    out, err, code, before = io.StringIO(), io.StringIO(), None, os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(word) for word in words])
    except SystemExit as left:
        code = left.code
    except BaseException:
        err.write(traceback.format_exc())
    finally:
        os.chdir(before)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def told(run):
    """Whether a command that failed did so in sentences of its own, one a line."""
    lines = [line for line in run.stderr.splitlines() if line]  # click ends the line in which ^C stands
    return bool(lines) and all(line.startswith("thermorun: ") for line in lines)


def numbers(path):
    """Every number in a file that does not measure time; of a shard's none that only the whole run writes."""
    from thermorun import store

    found, left_out = {}, _TIMES
    shard = store.read_part(path) is not None

    def visit(name, item):
        if not isinstance(item, h5py.Dataset) or any(part in left_out for part in name.split("/")):
            return
        if "/" in name or name in _COUNTS or not shard:
            found[name] = item[()]

    with h5py.File(path, "r") as file:
        if file.attrs["command"] == "computer-compare":
            left_out += _TIMED
        file.visititems(visit)
    return found


def same(one, other):
    """Whether two files hold the same numbers to the bit."""
    return one.keys() == other.keys() and all(
        values.tobytes() == other[name].tobytes() if values.dtype.kind != "O" else np.array_equal(values, other[name])
        for name, values in one.items()
    )


def words_of(kind, folder):
    """The command of a kind; what it starts from is in ``folder``."""
    return [str(Path(folder, f"{_FROM[kind]}.h5")) if word == _INPUT else word for word in KINDS[kind]]


def inputs(folder, kinds):
    """The files in ``folder`` that runs of these kinds start from."""
    _make(folder, {_FROM[kind] for kind in kinds if kind in _FROM})


def references(folder, kinds):
    """A file of each kind in ``folder``, undisturbed."""
    inputs(folder, kinds)
    _make(folder, kinds)
    return {kind: Path(folder) / f"{kind}.h5" for kind in kinds}


def _make(folder, kinds):
    for kind in kinds:
        run = command(*words_of(kind, folder), "--out", f"{kind}.h5", folder=folder)
        if run.returncode != 0:
            sys.exit(f"{kind}: {run.stderr}")
