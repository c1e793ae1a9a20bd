"""How fast this machine is: every kernel beside the peers that are installed and the bound of a roofline.

Entries take turns, so that they share the machine's moods, and medians are told.  A roofline (Williams, Waterman &
Patterson 2009, Commun. ACM 52, 65) bounds a kernel by its counted operations over the machine's peak and its counted
bytes over the bandwidth, whichever takes longer; both peaks are measured in the same run.
"""

import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

import thermorun as tr
from thermorun import plots
from thermorun.errors import InputError, short
from thermorun.progress import progress
from thermorun.speeds import PARTICLES, PEERS, Run, entries, installed, open_loop, take_turns
from thermorun.tables import Table
from thermorun.threads import on_threads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROUNDS = 5
_COLD = ("excess-work", "--particles", "4096", "--steps", "50", "--json")


@dataclass(frozen=True)
class Report:
    """``machine`` is what ran; ``results`` are rows in JSON's types, with ``ratio`` to an ``earlier`` report's."""

    machine: dict[str, Any]
    results: tuple[dict[str, Any], ...]

    def tables(self) -> list[Table]:
        """Speeds, and what is measured once."""
        compared = any("earlier" in row for row in self.results)
        rows = [
            (
                row["name"], f"{row['value']:.4g}", row["unit"],
                "" if row.get("bound") is None else f"{row['bound'] / row['value']:.0%}",
                *((f"{row['ratio']:.2f}" if "ratio" in row else "?",) if compared else ()),
            )
            for row in self.results
        ]  # fmt: skip
        title = "{cpu}, {cores} cores, {threads} threads".format(**self.machine)
        notes = [
            "roofline: the bound by counted operations and bytes at this machine's peaks, over what was measured",
            "peers do the same steps as 'trap, float32', and add up no heat",
        ]
        notes += ["ratio: over the earlier value"] if compared else []
        headings = ("what", "value", "unit", "roofline", *(("ratio",) if compared else ()))
        return [Table(title, headings, rows, notes)]

    def figure(self) -> "Figure":
        """Nanoseconds a unit, on a logarithmic axis, with the roofline's bounds."""
        rows = [row for row in self.results if row["unit"].startswith("ns /")]
        figure, ax = plots.subplots(size=(6.4, 0.25 * len(rows) + 1.2))
        for place, row in enumerate(rows):
            ax.barh(place, row["value"], color=plots.colour(1 if row["name"].split(",")[0] in PEERS else 0), height=0.6)
            if row.get("bound"):
                ax.plot([row["bound"]] * 2, [place - 0.4, place + 0.4], color=plots.EXACT)
        ax.set(xscale="log", xlabel="ns a unit (line: roofline)", yticks=range(len(rows)))
        ax.set_yticklabels([f"{row['name']} / {row['unit'].removeprefix('ns / ')}" for row in rows])
        ax.margins(y=0.01)
        ax.invert_yaxis()
        return figure

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"command": "bench", "machine": self.machine, "results": list(self.results), "version": tr.__version__}

    def beside(self, earlier: Path | str) -> "Report":
        """With the values of an earlier report.  Raises InputError where it is none, or of another machine."""
        try:
            other = json.loads(Path(earlier).read_text())
            theirs, values = other["machine"], {row["name"]: float(row["value"]) for row in other["results"]}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"compare is {earlier}, which holds no JSON of 'thermorun bench' ({error}).") from error
        for name in ("cpu", "cores", "threads"):
            if theirs.get(name) != self.machine[name]:
                raise InputError(
                    f"compare is {earlier}, of another machine ({name} {short(theirs.get(name))}, here"
                    f" {short(self.machine[name])}); only runs on one machine can be compared."
                )
        rows = (
            row | {"earlier": values[row["name"]], "ratio": row["value"] / values[row["name"]]}
            if row["name"] in values
            else row
            for row in self.results
        )
        return Report(self.machine, tuple(rows))


def bench(threads: int | None = None, show_progress: bool = False) -> Report:
    """Measures everything, about a minute once kernels are compiled.  Raises Stopped after Ctrl-C."""
    chosen = {f"{name}, float32": peer for name, peer in PEERS.items() if installed(name)}
    jobs = entries()
    with (
        progress("bench", len(jobs) + len(chosen) + 5, "measurements", show_progress) as advance,
        on_threads(threads) as count,
    ):
        rows: list[dict[str, Any]] = []

        def told(name: str, value: float, unit: str, **more: Any) -> None:
            rows.append({"name": name, "value": value, "unit": unit} | more)
            advance(1)

        operations, bandwidth = _peaks()
        told("peak, float32 multiply-adds", operations / 1e9, "GFLOP/s")
        told("peak, memory", bandwidth / 1e9, "GB/s")
        for name, job in jobs.items():
            bound = None if job.operations is None else 1e9 * max(job.operations / operations, job.bytes / bandwidth)
            told(name, _nanoseconds(job.make(), job.work), f"ns / {job.unit}", bound=bound)
        for name, (make, steps) in chosen.items():
            told(name, _nanoseconds(make(PARTICLES, steps, np.float32), PARTICLES * steps), "ns / particle-step")
        told(f"{count} threads over 1, trap", _scaling(count), "times")
        cold, warm = _starts()
        told("a command, nothing compiled", cold, "s")
        told("a command, compiled before", warm, "s")
        told("run with a file over one without", _store_overhead(), "times")
    return Report(machine() | {"threads": count}, tuple(rows))


def machine() -> dict[str, Any]:
    """What this runs on, and with."""
    import scipy
    from llvmlite import binding  # type: ignore[import-untyped]

    return {
        "cpu": _cpu(), "features": str(binding.get_host_cpu_name()), "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "numba": numba.__version__, "numpy": np.__version__, "scipy": scipy.__version__,
    }  # fmt: skip


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _nanoseconds(run: Run, work: float) -> float:
    return take_turns({"": (run, work)}, _ROUNDS)[""] * 1e9


def _peaks() -> tuple[float, float]:
    """Operations a second in float32, and bytes a second to and from memory, on as many threads."""
    from thermokernels import peaks

    x, repeats = np.zeros((64, peaks.LANES), np.float32), 2000
    operations = x.size * repeats * peaks.CHAIN * 2.0
    total, first, second = (np.zeros(2**24, np.float32) for _ in range(3))
    found = take_turns(
        {
            "operations": (lambda: peaks.multiply_add(x, np.float32(0.5), repeats), operations),
            "bytes": (lambda: peaks.add(total, first, second), 3.0 * total.nbytes),
        },
        _ROUNDS,
    )
    return 1 / found["operations"], 1 / found["bytes"]


def _scaling(count: int) -> float:
    """How many times as fast as one thread, in turns."""

    def on(threads: int) -> Run:
        run = open_loop(PARTICLES, 100, np.float32)

        def alone() -> None:
            numba.set_num_threads(threads)
            run()

        return alone

    found = take_turns({"one": (on(1), 1.0), "all": (on(count), 1.0)}, _ROUNDS)
    numba.set_num_threads(count)
    return found["one"] / found["all"]


def _starts() -> tuple[float, float]:
    """Seconds of a small command with an empty cache of kernels, and with a full one."""
    times = []
    with tempfile.TemporaryDirectory() as cache:
        for number in range(2):
            words_ = [sys.executable, "-m", "thermorun", *_COLD, "--out", f"{cache}/run-{number}.h5"]
            began = time.perf_counter()
            subprocess.run(
                words_, env=os.environ | {"NUMBA_CACHE_DIR": f"{cache}/kernels"}, capture_output=True, check=True
            )
            times.append(time.perf_counter() - began)
    return times[0], times[1]


def _store_overhead() -> float:
    given: dict[str, Any] = {"protocols": ("constant",), "particles": 2**18, "steps": 400, "seed": 1}
    with tempfile.TemporaryDirectory() as folder:
        names = (Path(folder) / f"{number}.h5" for number in itertools.count())
        found = take_turns(
            {
                "without": (lambda: tr.learning.excess_work(**given), 1.0),
                "with": (lambda: tr.learning.excess_work(out=next(names), **given), 1.0),
            },
            _ROUNDS,
        )
    return found["with"] / found["without"]
