"""A study under way: parameters and chains of all its models, epoch by epoch, in pieces that a stop waits for."""

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from thermokernels import exact_rule, two_step
from thermorun.arrays import Array
from thermorun.cycles import likelihood, markov
from thermorun.cycles.diagnostics import estimated_likelihoods, groups, occupancy_likelihood, transition_blocks
from thermorun.cycles.layout import SERIES
from thermorun.cycles.model import MAX_STATES, initial_row, initial_visible, state_count
from thermorun.cycles.result import StudyResult
from thermorun.cycles.spec import CycleStudy
from thermorun.datasets import Dataset
from thermorun.estimates import jackknife
from thermorun.progress import Pieces
from thermorun.store import RunFile

_EPOCH_BLOCKS = 4


def first_row(x: Array, spec: CycleStudy, seed: int) -> Array:
    """Parameters of a model before its training."""
    return initial_row(x, spec.encoding, spec.hidden, seed, spec.dtype, spec.tied, spec.first_layer)


@dataclass
class Study:
    """A study under way: parameters and chains of all models.

    ``done`` epochs are complete, and ``step`` gradient steps of the next, whose minibatch log-likelihoods add up to
    ``total`` (models,).
    """

    spec: CycleStudy
    data: Dataset
    file: RunFile
    theta: Array = field(init=False)
    square: Array = field(init=False)
    visible: Array = field(init=False)
    status: Array = field(init=False)
    mean: Array = field(init=False)
    total: Array = field(init=False)
    seconds: float = 0.0
    done: int = 0
    step: int = 0
    pieces: Pieces = field(default_factory=Pieces)

    def __post_init__(self) -> None:
        spec, x = self.spec, self.data.x
        self.mean = x.mean(axis=0).astype(spec.dtype)
        seeds = [int(seed) for seed in spec.seeds]
        self.theta = np.stack([first_row(x, spec, seed) for seed in seeds])
        self.square = np.zeros_like(self.theta)
        self.visible = np.stack([initial_visible(x, seed) for seed in seeds])
        self.status = np.zeros(spec.models, np.int64)
        self.total = np.zeros(spec.models)
        stored = self.file.load_checkpoint()
        if stored is not None:
            for name, array in self._state().items():
                array[...] = stored[name]
            self.done, self.seconds = int(stored["epoch"]), float(stored["seconds"])
            if "step" in stored:  # older versions stopped between epochs alone
                self.step, self.total = int(stored["step"]), stored["total"]

    def take_over(self, earlier: StudyResult, stored: Array) -> None:
        """Begins where an earlier study of fewer epochs ended; its rows and ``stored`` parameters are copied."""
        self.theta[...], self.square[...], self.visible[...] = earlier.theta, earlier.square, earlier.visible
        self.status[...] = earlier.stopped + 1
        self.seconds, self.done = earlier.train_seconds, earlier.spec.epochs
        kept, before = self.spec.kept_epochs(), earlier.spec.kept_epochs()
        for k, epoch in enumerate(kept):
            if epoch in before:
                self.file.write("parameters", k, {"theta": stored[before.index(epoch)][None]})
        self.file.write("training", 0, earlier.series)
        self.file.checkpoint(self.state())

    def state(self) -> dict[str, Array]:
        """What a checkpoint holds."""
        counts = {"epoch": np.array(self.done), "step": np.array(self.step), "seconds": np.array(self.seconds)}
        return counts | {"total": self.total} | self._state()

    def _state(self) -> dict[str, Array]:
        return {"theta": self.theta, "square": self.square, "visible": self.visible, "status": self.status}

    def epoch(self, epoch: int, between: Callable[[int], None] = lambda steps: None) -> None:
        """Trains one epoch, or the rest of it, and writes what is recorded of it.

        ``between`` is told the gradient steps just done wherever the state is whole, and may raise.
        """
        spec = self.spec
        for piece in self.pieces(self.step, spec.steps_per_epoch):
            self._train(epoch, piece)
            between(len(piece))
        row = dict.fromkeys(SERIES, np.full(spec.models, np.nan))
        row["minibatch_log_likelihood"] = self.total / spec.steps_per_epoch
        row |= self._recorded(epoch, lambda: between(0))
        self.file.write("training", epoch, {name: values[None] for name, values in row.items()})
        kept = spec.kept_epochs()
        if epoch + 1 in kept:
            self.file.write("parameters", kept.index(epoch + 1), {"theta": self.theta[None]})
        self.done, self.step, self.total = epoch + 1, 0, np.zeros(spec.models)

    def _train(self, epoch: int, piece: range) -> None:
        """Some gradient steps of an epoch."""
        spec, began = self.spec, clock.perf_counter()
        trace = np.empty((spec.models, len(piece)))
        train = exact_rule.train_exactly if spec.rule == "exact" else two_step.train
        train(
            two_step.State(**self._state()), self.data.x, self.mean, spec.sizes(epoch)[piece.start : piece.stop],
            epoch * spec.steps_per_epoch + piece.start, spec.options._replace(rate=spec.rate(epoch)), spec.seeds, trace,
        )  # fmt: skip
        # One step after the other: where pieces end changes no bit.
        self.total = np.add.accumulate(np.column_stack([self.total, trace]), axis=1)[:, -1]
        self.step = piece.stop
        self.seconds += clock.perf_counter() - began

    def _recorded(self, epoch: int, between: Callable[[], None]) -> dict[str, Array]:
        """What can be said of the models after an epoch."""
        spec, began = self.spec, clock.perf_counter()
        found: dict[str, Array] = {}
        if state_count(spec.encoding, spec.hidden) <= MAX_STATES:
            several = []
            for some, own in groups(self.theta, spec, _EPOCH_BLOCKS):
                several.append(self._markov(some, own, epoch))
                between()
            found = {name: np.concatenate([one[name] for one in several]) for name in several[0]}
        elif spec.estimated and (epoch + 1) % (spec.keep_every or 1) == 0:
            number = (epoch + 1) // (spec.keep_every or 1)
            known = estimated_likelihoods(self.theta, spec, self.data, self.mean, likelihood.QUICK, number, between)
            found = {name: estimate.mean for name, estimate in known.items() if name in SERIES}
        self.seconds += clock.perf_counter() - began
        return found

    def _markov(self, theta: Array, spec: CycleStudy, epoch: int) -> dict[str, Array]:
        """What the transition matrices of some models say after an epoch."""
        samples = spec.epoch_samples
        parts = transition_blocks(theta, spec, self.mean, samples, _EPOCH_BLOCKS, epoch * samples)
        sigma = jackknife(parts, lambda m: markov.entropy_production(m, markov.stationary(m)), axis=1)
        matrix = parts.mean(axis=1)
        occupancy, held_out = markov.stationary(matrix), self.data.test_x
        found = {} if held_out is None else {"held_out_log_likelihood": held_out}
        sets = {"log_likelihood": self.data.x} | found
        return {name: occupancy_likelihood(theta, spec, occupancy, x) for name, x in sets.items()} | {
            "entropy_production": sigma.mean,
            "entropy_production_stderr": sigma.stderr,
            "mean_diagonal": markov.mean_diagonal(matrix),
            "second_eigenvalue": markov.second_eigenvalue(matrix),
        }
