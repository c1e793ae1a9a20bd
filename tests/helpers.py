"""What the tests share: thread counts, the kernels' noise, statistics."""

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

# A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Before Numba is imported: the tests compare one thread with two, on a single core too.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))
# Two workers with two threads each share two cores: whoever waits for work leaves them to the other.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import h5py
import numpy as np
import pytest
from scipy import stats

from thermokernels.random import fill_normals
from thermorun.errors import RunError
from thermorun.store import structure
from thermorun.store.disk import Disk

LEAST_P = 2 * stats.norm.sf(4)  # of a test without a z: as unlikely as |z| = 4


def z_score(sample, truth):
    """How many of its own standard errors the mean of a sample lies from the truth."""
    return (np.mean(sample) - truth) / (np.std(sample, ddof=1) / np.sqrt(np.size(sample)))


def all_pairs(names, *choices):
    """Parameters in which every value of a choice meets every value of every other, in few rows."""
    left = {(i, a, j, b) for i, j in itertools.combinations(range(len(choices)), 2) for a in range(len(choices[i]))
            for b in range(len(choices[j]))}  # fmt: skip
    rows = []

    def met(row):
        return {(i, row[i], j, row[j]) for i, j in itertools.combinations(range(len(choices)), 2)}

    everything = list(itertools.product(*(range(len(choice)) for choice in choices)))
    while left:
        rows.append(max(everything, key=lambda row: len(met(row) & left)))
        left -= met(rows[-1])
    return pytest.mark.parametrize(names, [tuple(c[k] for c, k in zip(choices, row, strict=True)) for row in rows])


def symmetric(units, scale=1.0):
    """Couplings of every pair of a network's units."""
    j = np.random.default_rng(units).normal(0.0, scale, (units, units))
    return np.tril(j, -1) + np.tril(j, -1).T


def kernel_normals(seed, stream, step, particles):
    """The kernels' own single-precision noise, for twins that should agree to rounding."""
    out = np.empty(particles)
    fill_normals(out, np.uint64(seed), np.uint64(stream), step)
    return out


def digests_compiled_and_loaded(cache, *modules):
    """What ``digest()`` of test modules gives in processes that compile into an empty cache, and in some that load from
    it."""
    here = Path(__file__).parent
    places = os.pathsep.join([str(here), str(here / "kernels"), *sys.path])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": places}

    def digest(module):
        script = [sys.executable, "-c", f"import {module}; print({module}.digest())"]
        done = subprocess.run(script, cwd=here, env=environment, check=True, capture_output=True)
        return done.stdout

    with ThreadPoolExecutor() as pool:
        return [list(pool.map(digest, modules)) for _ in range(2)]


# Of time that passed, and derived from it.
_CLOCK = ("seconds", "particle_steps_per_second", "value")


def same_contents(one, other):
    """All that two results' files hold, but for time that passed."""
    mine, theirs = one.contents(), other.contents()
    assert mine.keys() == theirs.keys()
    for section, datasets in mine.items():
        assert datasets.keys() == theirs[section].keys()
        for name, stored in datasets.items():
            if name not in _CLOCK:
                np.testing.assert_array_equal(stored.values, theirs[section][name].values, err_msg=f"{section}/{name}")
    assert one.spec == other.spec


def sealed_anew(path):
    """The file with the seal of its new structure, as a stranger would make it who wants to be believed."""
    with h5py.File(path, "r+") as file:
        del file["checksums/extents"], file["checksums/seal"]
        places = structure.add_seal(file)
    with Disk(path, "r+") as disk:
        structure.seal(path, disk, places)


def gaussian_works(rng, delta_f, width, beta, forward, reverse):
    """Works of a process whose forward law is Gaussian: Crooks' relation then fixes the reverse law.

    Delta F = mean - beta variance / 2, and -W of the reverse has mean Delta F - beta variance / 2, the same variance.
    """
    loss = beta * width**2 / 2
    return delta_f + loss + width * rng.standard_normal(forward), -delta_f + loss + width * rng.standard_normal(reverse)


def answers(analyses, estimator, truth):
    """Mean and standard error of an estimator over many analyses, and its z."""
    mean = np.array([analysis[estimator].delta_f.mean for analysis in analyses])
    stderr = np.array([analysis[estimator].delta_f.stderr for analysis in analyses])
    return mean, stderr, (mean - truth) / stderr


def thermorun(*words, folder):
    """The command line within this process: its exit code and what it printed."""
    from thermorun.cli import main

    out, err, before = io.StringIO(), io.StringIO(), os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
    finally:
        os.chdir(before)
    return SimpleNamespace(returncode=left.value.code, stdout=out.getvalue(), stderr=err.getvalue())


@contextlib.contextmanager
def undrawn():
    """Pictures are composed, named and put in their places, but not drawn: for tests that look at something else."""
    from matplotlib.figure import Figure

    drawn = Figure.savefig
    Figure.savefig = lambda figure, path, **_: Path(path).write_bytes(b"thermorun")
    try:
        yield
    finally:
        Figure.savefig = drawn


def in_process_of_its_own(*words, folder, **more):
    """The same as a user has it, in a process of its own."""
    command = [sys.executable, "-m", "thermorun", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **more)


def interrupted(*words, folder, until, number=signal.SIGINT):
    """A process that is sent a signal once ``until()``; its exit code and what it said."""
    command = [sys.executable, "-m", "thermorun", *map(str, words)]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not until() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate()
    return SimpleNamespace(returncode=process.returncode, stdout=out, stderr=err)


def refused(run, sentence):
    """Asserts that a command ended as bad input does: exit code 2, one sentence, nothing else."""
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("thermorun: ")
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1


def fails(item, under_way):
    """A part for workers, which find it by this module's name."""
    raise RunError(f"item {item} diverged.")


def times_out(item, under_way):
    """A part with an error that the ways between processes have too."""
    raise TimeoutError(f"item {item} waited.")


def finds_nothing(item, under_way):
    """The same."""
    raise FileNotFoundError(f"item {item} is not there.")


def sleeps(item, under_way):
    """A part that takes long."""
    time.sleep(5.0)


def report(potential):
    """What tells a potential from others, for processes that find this function by the module's name."""
    return potential.name, potential.fingerprint, potential.source, potential.energies([0.3], potential.theta).tolist()
