"""Runs a study: epochs of all models, their rows to the file, checkpoints on the way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thermokernels.mixture import expectation
from thermorun.ahead import compiled_ahead
from thermorun.arrays import Array
from thermorun.cycles import layout
from thermorun.cycles.diagnostics import analyse_models
from thermorun.cycles.long_chains import CHAINS
from thermorun.cycles.mixture import Mixture, bounded, climb, random_start
from thermorun.cycles.model import MAX_STATES, parameter_count, state_count
from thermorun.cycles.result import StudyResult, read
from thermorun.cycles.spec import CycleStudy, from_arrays
from thermorun.cycles.study import Study, first_row
from thermorun.datasets import Dataset
from thermorun.errors import InputError
from thermorun.runs import Session, load
from thermorun.specs import documented, given
from thermorun.store import RunFile, read_spec

# EM steps of a climb to the ceiling at most, and the gain, in nat a point, that ends it.
_CLIMB, _GAIN = 100, 1e-5

__all__ = ["extend", "read", "run", "train"]


@documented(CycleStudy)
def train(
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str = "digits",
    classes: tuple[int | str, ...] | None = None,
    threshold: float | None = None,
    encoding: str = "softmax",
    hidden: int = 6,
    first_layer: int = 0,
    tied: bool = False,
    rule: str = "two-step",
    models: int = 36,
    epochs: int = 120,
    steps_per_epoch: int = 30,
    chain_steps: int = 48,
    learning_rate: float = 0.1,
    final_rate: float | None = None,
    decay: float | None = None,
    floor: float = 1e-8,
    minibatch: tuple[int, int] | None = None,
    grow_epochs: int | None = None,
    precision: str = "float32",
    epoch_samples: int = 64,
    samples: int = 2000,
    count_steps: int = 100_000,
    ceiling: int = 3,
    keep_every: int | None = None,
    fingerprint: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> StudyResult:
    """Trains latent cycles on a data set, or on arrays, and analyses them (Baiesi & Rosso, Sect. IV).

    With ``out`` every epoch streams to that HDF5 file, which holds the data too: it stands alone.

    Parameters
    ----------
    X : array, optional
        In the place of ``dataset``: bits, or grey values with a ``threshold``, (points, D) or (points, rows, columns).
    y : array, optional
        The class of each point of ``X``.
    {parameters}

    Returns
    -------
    StudyResult
        The models, what was recorded after every epoch, and their diagnostics.

    Raises
    ------
    InputError
        Before any work, for input that cannot run.
    RunError
        For a run that cannot go on.  A model whose likelihood is no longer finite stops alone: see
        ``StudyResult.stopped``.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is done saved.

    Examples
    --------
    >>> import numpy as np
    >>> from thermorun import cycles
    >>> X = np.random.default_rng(0).random((300, 16)) < 0.3
    >>> result = cycles.train(X, models=2, epochs=3, hidden=3, samples=64, count_steps=1000)
    >>> result["log_likelihood"].mean.shape
    (2,)
    """
    fields = given(CycleStudy, locals())
    data = from_arrays(X, y, fields)
    spec = CycleStudy(**fields)
    result: StudyResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress, data=data)
    return result


def run(
    spec: CycleStudy, under_way: Session, data: Dataset | None = None, earlier: StudyResult | None = None
) -> StudyResult:
    """Runs a spec: see `train`.  ``data`` replaces those it names; ``earlier`` is a study to go on from."""
    if under_way.smaller is not None and under_way.out is not None:
        earlier = load(under_way.out, CycleStudy, read)
        data = earlier.data
    if earlier is not None and earlier.file is not None:
        with RunFile.open_to_read(Path(earlier.file)) as file:
            layout.require_same_draws(file)
    # Before the file takes the place of the one that they are in.
    kept = None if earlier is None or under_way.resuming else earlier.kept_parameters()
    data = _data(spec, under_way) if data is None else data
    spec = _as_stored(spec.on(data), under_way)
    mine = under_way.part(spec.models)
    own = spec.replace(models=len(mine), seed=(spec.seed + mine.start) % 2**64)
    _require_memory(under_way, own, data)
    small, few = _smallest(own, data)
    with compiled_ahead(expectation, _compile_rest, small, few) as compiled:
        _compile(small, few)
        file = under_way.open(spec, lambda file: layout.lay_out(file, spec, data))
        if file.missing("analysis"):
            layout.require_same_draws(file)
            study = Study(own, data, file)
            if earlier is not None and kept is not None:
                study.take_over(earlier, kept)
            _train(study, under_way)
            compiled()
            _analyse(study, under_way)
    under_way.end_of_shard()
    result = read(file, spec)
    if not result.ceiling or np.isfinite(result.ceiling["log_likelihood"]).any():
        return result
    with under_way.unsaved():
        file.write_whole("ceiling", _ceiling(result))
    return read(file, spec)


def extended(spec: CycleStudy, smaller: CycleStudy) -> dict[str, int]:
    """Rows of each section that are the same with more epochs: none before ``take_over`` has written them."""
    return {}


def extend(
    path: Path | str, *, epochs: int | None = None, samples: int | None = None, out: Path | str | None = None,
    threads: int | None = None, show_progress: bool = False,
) -> StudyResult:  # fmt: skip
    """The study in a file, gone on with up to ``epochs``, or its transition matrices estimated from more ``samples``.

    The minibatch stays at its last size in the epochs that are added.  The result is, to the bit, that of the same
    study begun with ``epochs`` and ``grow_epochs`` those of the file, or with ``samples``; it streams to ``out``, and
    ``path`` stays as it is.  Raises InputError for a study that is not complete, or fewer epochs than it has.
    """
    earlier: StudyResult = load(path, CycleStudy, read)
    spec = earlier.spec
    earlier.require_complete()
    changes: dict[str, Any] = {}
    if epochs is not None:
        changes["epochs"] = epochs
    if samples is not None:
        changes["samples"] = samples
    wanted = spec.replace(**changes)
    if wanted.epochs < spec.epochs:
        raise InputError(f"epochs is {epochs}; {path} holds {spec.epochs}, and it must be no less.")
    if out is not None and Path(out).resolve() == Path(path).resolve():
        raise InputError(f"out is {out}, the file that is gone on from; name another file.")
    result: StudyResult = wanted.run(
        out=out, threads=threads, show_progress=show_progress, data=earlier.data, earlier=earlier
    )
    return result


def _data(spec: CycleStudy, under_way: Session) -> Dataset:
    """From the file where a study goes on as it was, else from where the spec says."""
    if under_way.resuming and under_way.out is not None and under_way.out.exists() and spec.fingerprint is not None:
        return load(under_way.out, CycleStudy, lambda file, stored: layout.read_data(file), shards=True)
    return spec.data()


def _as_stored(spec: CycleStudy, under_way: Session) -> CycleStudy:
    """The same study where it goes on: the same data may have moved since."""
    if not (under_way.resuming and under_way.out is not None and under_way.out.exists()):
        return spec
    stored = CycleStudy.from_json(read_spec(under_way.out))
    same = stored.fingerprint == spec.fingerprint
    spec = spec.replace(dataset=stored.dataset) if same else spec
    if same and spec.epochs > stored.epochs:
        raise InputError(
            f"epochs is {spec.epochs} and {under_way.out} was begun with {stored.epochs}: go on beyond its end with"
            f" 'thermorun cycles continue {under_way.out} --epochs {spec.epochs}'."
        )
    return spec


def _require_memory(under_way: Session, spec: CycleStudy, data: Dataset) -> None:
    row = parameter_count(spec.hidden, data.x.shape[1], spec.first_layer) * spec.dtype.itemsize
    under_way.require_memory(
        spec.models * row * (6 + 2 * len(spec.kept_epochs())),
        f"models is {spec.models}, of {row // spec.dtype.itemsize} parameters, kept {len(spec.kept_epochs())} times",
    )
    size, most, item = data.x.shape[1], max(spec.growth), spec.dtype.itemsize
    step = item * (2 * size + spec.hidden) + 8 * (1 + 4 * spec.hidden + 3 * spec.first_layer)
    if spec.encoding == "bits":  # which compare every point with every step
        step += item * (size + most)
    under_way.require_memory(
        min(spec.models, under_way.threads) * (spec.chain_steps * float(step) + item * most * float(size)),
        f"chain_steps is {spec.chain_steps}, with minibatches of {most} points",
    )
    states = min(state_count(spec.encoding, spec.hidden), MAX_STATES)
    if spec.has_ceiling(len(data.x)):
        under_way.require_memory(
            64 * 8.0 * states * data.x.shape[1],
            f"hidden is {spec.hidden}, and ceiling {spec.ceiling} of mixtures of so many states",
        )
    under_way.require_memory(
        8.0 * states**2 * (3 * CHAINS + 10.0 * spec.models), f"models is {spec.models}, of {states} hidden states"
    )


def _smallest(spec: CycleStudy, data: Dataset) -> tuple[CycleStudy, Dataset]:
    """A study of two points that needs the same kernels."""
    small = spec.replace(
        models=1, epochs=1, steps_per_epoch=1, chain_steps=2, minibatch=(1, 1), epoch_samples=1, keep_every=1,
        samples=1, count_steps=2, ceiling=int(spec.has_ceiling(len(data.x))),
    )  # fmt: skip
    few = replace(data, x=data.x[:2], labels=data.labels[:2])
    if data.test_x is not None and data.test_labels is not None:
        few = replace(few, test_x=data.test_x[:2], test_labels=data.test_labels[:2])
    return small, few


def _compile(small: CycleStudy, few: Dataset) -> None:
    """Compiles the kernels of an epoch, or loads them from the cache, so that no timing counts it."""
    with RunFile.in_memory(small.command, small.to_json(), 0, 1) as file:
        layout.lay_out(file, small, few)
        Study(small, few, file).epoch(0)


def _compile_rest(small: CycleStudy, few: Dataset) -> None:
    """Compiles the kernels of all that follows the training."""
    mean = few.x.mean(axis=0).astype(small.dtype)
    row = first_row(few.x, small, small.seed)
    with np.errstate(all="ignore"):
        analyse_models(row[None], small, few, mean)
        if small.ceiling:
            even = np.full(small.hidden, 1.0 / small.hidden), np.full((small.hidden, few.x.shape[1]), 0.5)
            climb(few.x, Mixture(*even), 1, _GAIN, small.precision)


def _train(study: Study, under_way: Session) -> None:
    """Trains a study from where it is."""
    spec, file = study.spec, study.file
    amount = spec.models * spec.steps_per_epoch
    under_way.stage("latent cycles", spec.models * spec.steps, "steps")
    under_way.advance(study.done * amount + study.step * spec.models)

    def between(steps: int) -> None:
        under_way.advance(spec.models * steps)
        under_way.pause(study.state)

    for epoch in range(study.done, spec.epochs):
        study.epoch(epoch, between)
        between(0)
    file.checkpoint(study.state())
    file.wait()


def _analyse(study: Study, under_way: Session) -> None:
    """Diagnostics of what was trained, into the file."""
    spec, file = study.spec, study.file
    under_way.stage("diagnostics", 0, "models")
    with under_way.unsaved():
        diagnostics = analyse_models(study.theta, spec, study.data, study.mean)
    if spec.has_ceiling(len(study.data.x)):  # what is there may be that of fewer epochs
        file.write_whole("ceiling", dict.fromkeys(layout.CEILING, np.array(np.nan)))
    layout.write_end(file, spec, study, diagnostics)


def _ceiling(study: StudyResult) -> dict[str, Array]:
    """What EM reaches from the best model, so that it lies above all of them, and from random starts."""
    spec, x, held_out = study.spec, study.data.x, study.data.test_x
    starts = [random_start(x, spec.hidden, spec.seed, number) for number in range(spec.ceiling)]
    known = study["log_likelihood"].mean
    if np.isfinite(known).any():
        best = int(np.nanargmax(known))
        model = spec.model(study.theta[best], study.mean)
        means = bounded(model.expected(model.states()), len(x))
        starts.insert(0, Mixture(study["occupancy"].mean[best], means))
    else:
        starts.insert(0, random_start(x, spec.hidden, spec.seed, spec.ceiling))
    climbs = [climb(x, start, _CLIMB, _GAIN, spec.precision) for start in starts]
    others = [np.nan if held_out is None else one.mixture.log_p(held_out, spec.precision).mean() for one in climbs]
    return {
        "log_likelihood": np.array([one.log_likelihood for one in climbs]),
        "held_out_log_likelihood": np.array(others),
    }
