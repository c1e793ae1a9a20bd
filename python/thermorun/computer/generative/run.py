"""Runs the generative computer: each machine learns, makes its pictures, and is a row of the file."""

import time as clock
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thermorun.arrays import Array
from thermorun.computer.generative import layout, stages
from thermorun.computer.generative.descent import BATCH, Descent
from thermorun.computer.generative.result import GenerationResult
from thermorun.computer.generative.spec import TUNED, Generation
from thermorun.computer.generative.task import Task
from thermorun.computer.generative.tuning import Tuning
from thermorun.computer.images import Arrays, arrays
from thermorun.computer.training import as_stored, finished
from thermorun.datasets import ARRAY
from thermorun.errors import InputError, RunError
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import RunFile


@documented(Generation)
def generate(
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str = "digits",
    classes: tuple[int | str, ...] | None = None,
    images: int = 1,
    rules: tuple[str, ...] = ("closed-form",),
    machines: int = 1,
    hidden: int = 128,
    codes: str = "signs",
    biases: str = "all",
    field: float = 1.0,
    conditional: bool = False,
    clamped: str | None = None,
    pictures: int = 100,
    rounds: int = 100,
    rate: float | None = None,
    updates: int = 400,
    J2: float = 1.0,
    J4: float = 1.0,
    kT: float = 0.1,
    mobility: float = 1.0,
    dt: float = 1e-3,
    duration: float = 2.5,
    precision: str = "float32",
    fingerprint: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> GenerationResult:
    """Teaches machines to undo the loss of images to noise, and has them make pictures (Whitelam 2026).

    Units in quartic wells are prepared as an image by forces, and lose it while these fade.  A machine learns couplings
    that make each step of it likely in reverse.  Then noise, with the couplings switched on, becomes a picture.

    Parameters
    ----------
    X, y : arrays, optional
        In the place of ``dataset``: images (points, D) or (points, rows, columns), every third of them held out, and
        one label a point.
    {parameters}

    Returns
    -------
    GenerationResult
        The machines, their pictures, how good these are, and the heat and work of every stage.

    Raises
    ------
    InputError
        Before anything is written, for input that cannot run.
    RunError
        Where learning or a trajectory diverges, or the file cannot be written.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is done saved.

    Examples
    --------
    >>> from thermorun import computer
    >>> result = computer.generate(classes=(0, 1), hidden=32, pictures=8)
    >>> result.x.shape
    (1, 8, 64)
    """
    data = arrays(X, y)
    spec = Generation(**given(Generation, locals()) | ({} if data is None else {"dataset": ARRAY}))
    result: GenerationResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress, data=data)
    return result


def run(spec: Generation, under_way: Session, data: Arrays | None = None) -> GenerationResult:
    """Runs a spec, machine by machine: see `generate`.  ``data`` are in the place of its data set."""
    if under_way.resuming and finished(spec, under_way.out):
        return read(under_way.open(spec, lambda file: None), spec)
    with under_way.unsaved():
        task = Task.of(spec, data)
        task = replace(task, spec=as_stored(task.spec, under_way))
        spec = task.spec
        need = 8.0 * task.units**2 * (6 + spec.rows) + 4.0 * spec.rows * spec.pictures * task.visible.shape[1]
        if {"published", "online"} & set(spec.rules):
            need += spec.dtype.itemsize * BATCH * (spec.physics.steps + 1) * task.units
        under_way.require_memory(need, f"hidden is {spec.hidden}")
        _ = task.wells  # refuses a dt that is too large
    file = under_way.open(spec, lambda file: layout.lay_out(file, task))
    known = _learned(file)
    for row in file.missing(layout.MADE):
        J, b = known[row] if row in known else _learn(task, row, under_way)
        under_way.stage(f"pictures of {spec.rule_of(row)}", 1, "machines")
        with under_way.unsaved():
            made = stages.generate(task, stages.machine_of(spec, J, b), row, layout.SHOWN, layout.FRAMES)
            values = {
                "x": made.x, "answer": task.judge(made.x), "work": made.work, "heat": made.heat, "film": made.film,
                "energy_change": made.energy_change, "first_law_residual": made.residual,
            }  # fmt: skip
        _write(file, layout.MADE, row, values)
        under_way.advance(1)
        under_way.pause()
    under_way.end_of_shard()
    result = read(file, spec)
    return result if file.path else replace(result, stored=file.contents())


def extended(spec: Generation, smaller: Generation) -> dict[str, int]:
    """Rows of each section that are the same with more machines, or more pictures of each."""
    return {layout.LEARNED: smaller.rows, layout.MADE: smaller.rows if spec.pictures == smaller.pictures else 0}


def read(file: RunFile, spec: Generation) -> GenerationResult:
    """The results in a file, of the machines that are complete.  Raises InputError where there are none yet."""
    if not file.committed(layout.MADE):
        raise InputError(f"{file.path} holds no complete machine; go on with 'thermorun resume {file.path}'.")
    return GenerationResult.of(file, spec, origin(file, spec))


def _learned(file: RunFile) -> dict[int, tuple[Array, Array]]:
    """Couplings and biases of the machines that have learned and have made no pictures yet."""
    made, learned = file.missing(layout.MADE).start, file.missing(layout.LEARNED).start
    if learned <= made:
        return {}
    stored, first = file.read(layout.LEARNED), file.cut.first(layout.LEARNED)
    return {row: (stored["couplings"][row - first], stored["bias"][row - first]) for row in range(made, learned)}


def _learn(task: Task, row: int, under_way: Session) -> tuple[Array, Array]:
    """Couplings (units, hidden) and biases (inputs, units) of the machine of this row, by its rule, into the file."""
    spec, began, rule = task.spec, clock.perf_counter(), task.spec.rule_of(row)
    losses = {"loss": np.full(spec.rounds, np.nan)}
    if TUNED in spec.rules:
        losses["distance"] = np.full(spec.updates, np.nan)
    if rule == "closed-form":
        with under_way.unsaved():
            J, b = task.minimum
    elif rule == "untrained":
        J, b = np.zeros((task.units, task.units)), np.zeros((task.design.shape[1], task.units))
    else:
        walk = _descend(task, row, under_way)
        J, b, losses["distance" if rule == TUNED else "loss"] = walk.couplings, walk.biases, walk.losses
    seconds = clock.perf_counter() - began
    J = np.asarray(J, np.float64)[: task.units, : task.units]
    J, b = (J + J.T) / 2, np.asarray(b, np.float64)
    part = np.ascontiguousarray(J[:, : spec.hidden])
    values = {"couplings": part, "bias": b, "gain": task.sums.gain(J, b), "seconds": seconds} | losses
    _write(under_way.file, layout.LEARNED, row, values)
    return part, b


def _write(file: RunFile, section: str, row: int, values: dict[str, Any]) -> None:
    file.write(section, row, {name: np.asarray(value)[None] for name, value in values.items()})


def _descend(task: Task, row: int, under_way: Session) -> Descent | Tuning:
    """The machine of this row down its gradient to the end, from the start or from the checkpoint."""
    rule = task.spec.rule_of(row)
    with under_way.unsaved():
        walk = Tuning(task, row) if rule == TUNED else Descent(task, rule, row)
    stored = under_way.file.load_checkpoint() if under_way.resuming else None
    if stored is not None and int(stored["row"]) == row:
        for name, array in walk.state.items():
            array[...] = stored[name]
        walk.done = int(stored["done"])
    under_way.stage(f"{rule} rule", walk.total, walk.unit)
    under_way.advance(walk.done)
    while walk.done < walk.total:
        under_way.pause(lambda: walk.state | {"row": np.array(row)})
        loss = walk.step()
        under_way.advance(1)
        if not np.isfinite(loss):
            raise RunError(walk.diverged())
    return walk
