"""Is this machine good for it?  Laws that are known exactly, equal bits where they are promised, files that survive.

Every check returns a sentence that says what it saw, and raises ``Wrong`` with one where that is not as it should be.
"""

import hashlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

import thermorun as tr
from thermokernels import network, random
from thermorun.arrays import Array
from thermorun.progress import progress
from thermorun.runs import memory_limit
from thermorun.specs import to_json_types
from thermorun.tables import Table
from thermorun.threads import on_threads

# A deviation that chance gives once in 16,000 checks.
_RARE = 4.0
# Counter, key and words of Philox4x32-10, from the known answers of Random123 (Salmon et al. 2011).
_KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
# A run long enough to be killed while it writes, and short enough to wait for.
_LONG: dict[str, Any] = {"protocols": "constant", "particles": 2**17, "steps": 400, "records": 40, "seed": 5}
_SCRIPT = (
    "from thermorun import learning, runs; runs.CHECKPOINT_EVERY = 0.0; learning.excess_work(out={out!r}, **{run})"
)


class Wrong(Exception):
    """What a check saw is not as it should be."""


@dataclass(frozen=True)
class Outcome:
    """What became of a check; ``seconds`` it took."""

    name: str
    passed: bool
    said: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return {"check": self.name, "passed": self.passed, "said": self.said, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Report:
    """Every outcome, in the order of the checks."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether all did."""
        return all(one.passed for one in self.outcomes)

    def table(self) -> Table:
        """One line a check."""
        failed = sum(not one.passed for one in self.outcomes)
        verdict = "All is well." if self.passed else f"{failed} of {len(self.outcomes)} checks failed."
        seconds = sum(one.seconds for one in self.outcomes)
        rows = [(one.name, "ok" if one.passed else "WRONG", one.said) for one in self.outcomes]
        return Table("Self-test", ("check", "verdict", "what it saw"), rows, [f"{verdict} {seconds:.0f} s."], keys=3)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "command": "selftest",
            "passed": self.passed,
            "results": [one.to_dict() for one in self.outcomes],
            "version": tr.__version__,
        }


def selftest(show_progress: bool = False) -> Report:
    """Runs all checks, about half a minute once kernels are compiled.

    Returns
    -------
    Report
        An outcome for every check.

    Raises
    ------
    Stopped
        After Ctrl-C.
    """
    outcomes = []
    with progress("self-test", len(_CHECKS), "checks", show_progress) as advance, on_threads(None):
        for name, check in _CHECKS.items():
            began = time.monotonic()
            try:
                passed, said = True, check()
            except Wrong as wrong:
                passed, said = False, str(wrong)
            except (Exception, SystemExit) as error:  # whatever a machine comes up with is an answer too
                passed, said = False, f"{type(error).__name__}: {error}"
            outcomes.append(Outcome(name, passed, said, time.monotonic() - began))
            advance(1)
    return Report(tuple(outcomes))


def _within(z: float, what: str, truth: float) -> str:
    """A sentence about a z-score.  Raises Wrong where it is too rare."""
    sentence = f"{what}, exactly {truth:.5g}: z = {z:+.1f}"
    if not abs(z) < _RARE:
        raise Wrong(f"{sentence}, beyond {_RARE:g}")
    return sentence


def _close(value: float, most: float, what: str) -> str:
    sentence = f"{what} {value:.1e}"
    if not value <= most:
        raise Wrong(f"{sentence}, more than {most:.0e}")
    return sentence


# --- Random numbers ---------------------------------------------------------------------------------------------------


def _known_answers() -> str:
    for counter, key, answer in _KNOWN_ANSWERS:
        words = np.empty(4, np.uint32)
        random.philox_words(np.array(counter, np.uint32), np.array(key, np.uint32), words)
        if tuple(words.tolist()) != answer:
            raise Wrong(f"Philox4x32-10 of counter {counter} is {words.tolist()}, and should be {list(answer)}")
    return "the published words of Philox4x32-10"


def _normals() -> str:
    count = 2**20
    z = np.empty(count)
    random.fill_normals(z, np.uint64(7), np.uint64(11), 3)
    # Moments 1 to 4 of a normal, and the variances of z^k.
    scores = [
        (np.mean(z**k) - truth) / math.sqrt(spread / count)
        for k, truth, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0))
    ]
    worst = max(scores, key=abs)
    return _within(float(worst), "worst of four moments of 2^20", [0.0, 1.0, 0.0, 3.0][scores.index(worst)])


# --- Exact laws -------------------------------------------------------------------------------------------------------


def _trap() -> str:
    run = tr.learning.excess_work(protocols=("discontinuous",), particles=2**16, steps=200, records=1)["discontinuous"]
    truth = run.exact_work or math.nan
    return _within(run.excess_work.z(truth), "optimal excess work", truth)


def _learning() -> str:
    run = tr.learning.learn("stiffness", rules=("natural",), tau=2.0, particles=2048, replicas=8)["natural"]
    truth = float(run.exact["exact_excess_work"][-1] + run.exact["shift"][-1])
    return _within(run.z, "excess work of a stiffness", truth)


def _free_energy() -> str:
    run = tr.free_energy.measure("double-well", particles=2**14, duration=1.0)
    truth = math.nan if run.exact is None else run.exact
    _close(run.first_law_residual, 1e-9, "largest |dE - W - Q|")
    return _within(run.delta_f.z(truth), "Delta F of a double well", truth)


def _metric() -> str:
    run = tr.metric.measure("stiffness", theta=(2.0,), particles=2**14)
    truth = 1 / (4 * 2.0**3)
    return _within(float(run.friction[0, 0].z(truth)), "friction of a stiffness", truth)


def _cycles() -> str:
    x = np.random.default_rng(0).random((400, 12)) < np.linspace(0.1, 0.9, 12)
    run = tr.cycles.train(x, models=1, epochs=4, hidden=4, samples=2**14, count_steps=1000)
    from thermorun.cycles.exact import law

    truth, seen = law(run.model(0)).hidden, run["occupancy"][0]
    z = np.asarray(seen.z(truth))
    worst = int(np.argmax(np.abs(z)))
    return _within(float(z[worst]), "occupancy of a hidden state", float(truth[worst]))


def _network() -> str:
    """One unit in a quartic well, long enough to forget where it began: <x^2> by quadrature."""
    from thermorun.computer.machine import KernelPhysics

    physics = KernelPhysics(J2=0.5, J4=0.7, mobility=1.0, kT=1.0, dt=1e-3)
    trajectories = 2**13
    x, fields = np.zeros((trajectories, 1)), np.full((trajectories, 1), 0.5)
    heat, status = np.zeros(trajectories), np.zeros(trajectories, np.int64)
    network.simulate(
        x, heat, status, fields, network.dense(np.zeros((1, 1))), physics, (0, 3000), (np.uint64(1), np.uint64(2)),
        np.empty(0, np.intp), np.empty((0, trajectories, 1)),
    )  # fmt: skip
    grid = np.linspace(-6.0, 6.0, 4001)
    weights = np.exp(-(physics.J2 * grid**2 + physics.J4 * grid**4 + 0.5 * grid) / physics.kT)
    truth = float(np.sum(weights * grid**2) / np.sum(weights))
    square = x[:, 0] ** 2
    score = (square.mean() - truth) / (square.std(ddof=1) / math.sqrt(trajectories))
    return _within(float(score), "<x^2> of a unit of the computer", truth)


# --- Equal bits, and files --------------------------------------------------------------------------------------------


def _digest(works: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(works).tobytes()).hexdigest()[:16]


def _works(**more: Any) -> Array:
    fields: dict[str, Any] = {"protocols": "constant", "particles": 5000, "steps": 50, "records": 5, "seed": 3}
    return np.asarray(tr.learning.excess_work(**fields | more)["constant"].series["work"])


def _threads() -> str:
    most = int(numba.config.NUMBA_NUM_THREADS)
    if _digest(_works(threads=1)) != _digest(_works(threads=most)):
        raise Wrong(f"works on 1 thread and on {most} differ")
    return f"the same bits on 1 thread and on {most}"


def _compiled() -> str:
    """A process that compiles and one that loads what it compiled must agree: resumed runs depend on it."""
    code = "from thermorun import selftest; print(selftest._digest(selftest._works()))"
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        said = [
            subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            ).stdout.strip()
            for _ in range(2)
        ]
    if len({*said, _digest(_works())}) > 1:
        raise Wrong("a process that compiles and one that loads from the cache get different bits")
    return "the same bits compiled and loaded from the cache"


def _store() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        kept = tr.learning.excess_work(out=path, protocols=("constant",), particles=5000, steps=50, records=5, seed=3)
        read = tr.load(path)
        same = np.array_equal(kept["constant"].series["work"], read["constant"].series["work"])  # type: ignore[index]
        if not same or to_json_types(read.spec) != to_json_types(kept.spec):
            raise Wrong("a file does not hold what was written into it")
        return f"a file of {path.stat().st_size / 1000:,.0f} kB, read back to the bit"


def _kill_and_resume() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        script = _SCRIPT.format(out=str(path), run=_LONG)
        with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
            while not path.with_name("run.h5.checkpoint").exists() and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        if process.returncode == 0:
            return "the run was over before it could be killed: nothing seen"
        if not path.exists():
            raise Wrong("the run to be killed left no file")
        resumed: Any = tr.resume(path)
        whole = tr.learning.excess_work(**_LONG)
        if not np.array_equal(resumed["constant"].series["work"], whole["constant"].series["work"]):
            raise Wrong("a run that was killed and resumed has other numbers")
    return "killed, resumed: the same bits as never stopped"


# --- This machine -----------------------------------------------------------------------------------------------------


def _processor() -> str:
    from llvmlite import binding  # type: ignore[import-untyped]

    features = binding.get_host_cpu_features()
    width = 512 if features.get("avx512f") else 256 if features.get("avx2") else 128
    return (
        f"{binding.get_host_cpu_name()}, {width}-bit vectors, {numba.config.NUMBA_NUM_THREADS} threads of"
        f" {numba.threading_layer()}"
    )


def _memory() -> str:
    free = memory_limit()
    if free < 2e9:
        raise Wrong(f"{free / 1e9:.1f} GB of memory; default runs take up to 2")
    return f"{free / 1e9:.1f} GB"


def _cache() -> str:
    """Kernels are kept where Numba keeps them; a folder others may write is no place for code."""
    place = Path(random.fill_normals._cache.cache_path)
    if not os.access(place, os.W_OK):
        raise Wrong(f"{place} cannot be written: every process compiles anew; set NUMBA_CACHE_DIR")
    if hasattr(os, "getuid") and place.stat().st_mode & 0o022:
        raise Wrong(f"{place} may be written by others, whose code would be run: chmod go-w, or set NUMBA_CACHE_DIR")
    return str(place).replace(str(Path.home()), "~", 1)


_CHECKS: dict[str, Callable[[], str]] = {
    "known random numbers": _known_answers,
    "normals": _normals,
    "trap": _trap,
    "learning": _learning,
    "free energy": _free_energy,
    "metric": _metric,
    "cycles": _cycles,
    "computer": _network,
    "threads": _threads,
    "compiled and loaded": _compiled,
    "file": _store,
    "kill and resume": _kill_and_resume,
    "processor": _processor,
    "memory": _memory,
    "cache": _cache,
}
