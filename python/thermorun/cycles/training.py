"""Runs a study: an epoch of all models a kernel call, its row to the file, checkpoints on the way."""

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermokernels import latent_cycle
from thermorun import datasets
from thermorun.cycles import markov
from thermorun.cycles import result as results
from thermorun.cycles.analysis import analyse_models, occupancy_likelihood, transition_blocks
from thermorun.cycles.model import MAX_STATES, initial_row, initial_visible, require_sizes, state_count
from thermorun.cycles.result import SERIES, StudyResult
from thermorun.cycles.spec import CycleStudy
from thermorun.datasets import Dataset
from thermorun.errors import InputError
from thermorun.progress import Advance, deferred_interrupt, progress
from thermorun.store import RunFile, read_spec, run_file
from thermorun.threads import on_threads

Array = NDArray[Any]

_EPOCH_BLOCKS = 4


def train(
    spec: CycleStudy | None = None,
    *,
    data: Dataset | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
    checkpoint_every: float = 20.0,
    **fields: Any,
) -> StudyResult:
    """Trains the models of ``spec`` and analyses them.

    ``fields`` are those of ``CycleStudy``, replacing the spec's.  ``data`` replaces the data set the spec names.  With
    ``out`` every epoch streams to that HDF5 file, and ``resume`` goes on with it after a kill: to the last bit as if
    nothing had happened.

    Raises InputError (a ValueError) before any work for input that cannot run, RunError where the file cannot be
    written, and KeyboardInterrupt after Ctrl-C, with all that is done saved.  A model whose likelihood is no longer
    finite stops alone: see ``StudyResult.stopped``.
    """
    spec = CycleStudy(**fields) if spec is None else replace(spec, **fields)
    spec, data = with_data(spec, data)
    with (
        on_threads(threads) as count,
        run_file("cycles", spec, out, resume, count, lambda file: results.lay_out(file, spec, data)) as file,
        deferred_interrupt() as stop,
    ):
        run = _Run(spec, data, file, checkpoint_every, stop)
        with progress("cycles", spec.models * spec.steps, "steps", show_progress) as advance:
            if file is None or file.committed("analysis") < spec.models:
                outcome = run.finish(advance, None if out is None else Path(out), count)
            else:
                assert out is not None
                advance(spec.models * spec.steps)
                outcome = results.read(file, spec, data, Path(out))
        if file is not None:
            file.finish()
    return outcome


def load(path: Path | str, data: Dataset | None = None) -> StudyResult:
    """The finished study in a file.  Raises InputError."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"FILE is {path}, which does not exist.")
    spec, data = with_data(CycleStudy.from_json(read_spec(path)), data)
    with RunFile.reopen(path, spec.to_json(), write=False) as file:
        return results.read(file, spec, data, path)


def with_data(spec: CycleStudy, data: Dataset | None) -> tuple[CycleStudy, Dataset]:
    """Reads the data and notes their fingerprint in the spec.  Raises InputError where they are not the spec's."""
    data = datasets.load(spec.dataset, spec.classes) if data is None else data
    require_sizes(spec.encoding, spec.hidden, data.x.shape[1], spec.tied)
    if spec.fingerprint is not None and spec.fingerprint != data.fingerprint:
        raise InputError(
            f"the data set {data.name} is not the one of this study (fingerprint {data.fingerprint}, not"
            f" {spec.fingerprint})."
        )
    return replace(spec, fingerprint=data.fingerprint), data


@dataclass
class _Run:
    """A study under way: parameters and chains of all models."""

    spec: CycleStudy
    data: Dataset
    file: RunFile | None
    checkpoint_every: float
    interrupted: Callable[[], bool]
    theta: Array = field(init=False)
    square: Array = field(init=False)
    visible: Array = field(init=False)
    status: Array = field(init=False)
    mean: Array = field(init=False)
    series: dict[str, Array] = field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        spec, x = self.spec, self.data.x
        self.mean = x.mean(axis=0).astype(spec.dtype)
        seeds = [int(seed) for seed in spec.seeds]
        self.theta = np.stack(
            [initial_row(x, spec.encoding, spec.hidden, seed, spec.dtype, spec.tied) for seed in seeds]
        )
        self.square = np.zeros_like(self.theta)
        self.visible = np.stack([initial_visible(x, seed) for seed in seeds])
        self.status = np.zeros(spec.models, np.int64)
        self.series = {name: np.full((spec.epochs, spec.models), np.nan) for name in SERIES}

    def finish(self, advance: Advance, out: Path | None, threads: int) -> StudyResult:
        """Runs to the end, from the start or from the checkpoint."""
        spec = self.spec
        amount = spec.models * spec.steps_per_epoch
        first = self._restore()
        advance(first * amount)
        saved = clock.monotonic()
        kept = results.kept_epochs(spec)
        for epoch in range(first, spec.epochs):
            began = clock.perf_counter()
            self._epoch(epoch)
            self.seconds += clock.perf_counter() - began
            if self.file is not None:
                self.file.write("training", epoch, {name: self.series[name][epoch, None] for name in SERIES})
                if epoch + 1 in kept:
                    self.file.write("parameters", kept.index(epoch + 1), {"theta": self.theta[None]})
            advance(amount)
            if self.interrupted():
                self._checkpoint(epoch + 1)
                raise KeyboardInterrupt
            if clock.monotonic() - saved >= self.checkpoint_every:
                self._checkpoint(epoch + 1)
                saved = clock.monotonic()
        analysis = analyse_models(self.theta, spec, self.data, self.mean)
        stopped = self.status - 1
        if self.file is not None:
            results.write_end(self.file, analysis, self.visible, stopped, self.seconds)
        return StudyResult(
            spec, self.data, self.series, self.theta, self.visible, self.mean, stopped, analysis, self.seconds, out,
            threads,
        )  # fmt: skip

    def _epoch(self, epoch: int) -> None:
        spec = self.spec
        trace = np.empty((spec.models, spec.steps_per_epoch))
        latent_cycle.train(
            self.theta, self.square, self.visible, self.status, self.data.x, self.mean, spec.sizes(epoch),
            epoch * spec.steps_per_epoch, spec.options, spec.seeds, trace,
        )  # fmt: skip
        row = {"minibatch_log_likelihood": trace.mean(axis=1)}
        if state_count(spec.encoding, spec.hidden) <= MAX_STATES:
            parts = transition_blocks(
                self.theta, spec, self.mean, spec.epoch_samples, _EPOCH_BLOCKS, epoch * spec.epoch_samples
            )
            sigma = markov.jackknife(parts, lambda m: markov.entropy_production(m, markov.stationary(m)))
            matrix = parts.mean(axis=1)
            row["log_likelihood"] = occupancy_likelihood(self.theta, spec, markov.stationary(matrix), self.data.x)
            row["entropy_production"], row["entropy_production_stderr"] = sigma.mean, sigma.stderr
            row["mean_diagonal"] = markov.mean_diagonal(matrix)
            row["second_eigenvalue"] = markov.second_eigenvalue(matrix)
        for name, values in row.items():
            self.series[name][epoch] = values

    def _checkpoint(self, epoch: int) -> None:
        if self.file is not None:
            place = {"epoch": np.array(epoch), "seconds": np.array(self.seconds)}
            self.file.checkpoint(place | self._state())
            self.file.wait()

    def _state(self) -> dict[str, Array]:
        return {"theta": self.theta, "square": self.square, "visible": self.visible, "status": self.status}

    def _restore(self) -> int:
        """Puts everything back as the checkpoint has it; returns the epochs done."""
        stored = None if self.file is None else self.file.load_checkpoint()
        if self.file is None or stored is None:
            return 0
        for name, array in self._state().items():
            array[...] = stored[name]
        epoch, self.seconds = int(stored["epoch"]), float(stored["seconds"])
        section = self.file.read("training")
        for name in SERIES:
            self.series[name][:epoch] = section[name][:epoch]
        return epoch
