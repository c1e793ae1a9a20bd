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
from thermorun.computer.generative.spec import Generation
from thermorun.computer.generative.task import Task
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
        rows = len(spec.rules) * spec.machines
        need = 8.0 * task.units**2 * (6 + rows) + 4.0 * rows * spec.pictures * task.visible.shape[1]
        if {"published", "online"} & set(spec.rules):
            need += spec.dtype.itemsize * BATCH * (spec.physics.steps + 1) * task.units
        under_way.require_memory(need, f"hidden is {spec.hidden}")
        _ = task.wells  # refuses a dt that is too large
    file = under_way.open(spec, lambda file: layout.lay_out(file, task))
    for row in file.missing(layout.SECTION):
        began, loss = clock.perf_counter(), np.full(spec.rounds, np.nan)
        J, b = _learn(task, row, loss, under_way)
        seconds = clock.perf_counter() - began
        under_way.stage(f"pictures of {spec.rule_of(row)}", 1, "machines")
        with under_way.unsaved():
            machine = stages.machine_of(task, J, b)
            made = stages.generate(task, machine, row, layout.SHOWN, layout.FRAMES)
            values = {
                "couplings": machine.couplings[:, : spec.hidden], "bias": b, "loss": loss,
                "gain": task.sums.gain(machine.couplings, b), "seconds": seconds, "x": made.x,
                "answer": task.judge(made.x), "work": made.work, "heat": made.heat,
                "energy_change": made.energy_change, "first_law_residual": made.residual, "film": made.film,
            }  # fmt: skip
        file.write(layout.SECTION, row, {name: np.asarray(value)[None] for name, value in values.items()})
        under_way.advance(1)
        under_way.pause()
    under_way.end_of_shard()
    result = read(file, spec)
    return result if file.path else replace(result, stored=file.contents())


def read(file: RunFile, spec: Generation) -> GenerationResult:
    """The results in a file, of the machines that are complete.  Raises InputError where there are none yet."""
    if not file.committed(layout.SECTION):
        raise InputError(f"{file.path} holds no complete machine; go on with 'thermorun resume {file.path}'.")
    return GenerationResult.of(file, spec, origin(file, spec))


def _learn(task: Task, row: int, loss: Array, under_way: Session) -> tuple[Array, Array]:
    """Couplings and biases of the machine of this row, by its rule; fills the losses of its rounds, if it has some."""
    rule = task.spec.rule_of(row)
    if rule in ("published", "online"):
        return _descend(task, row, loss, under_way)
    if rule == "untrained":
        return np.zeros((task.units, task.units)), np.zeros((task.design.shape[1], task.units))
    with under_way.unsaved():
        return task.minimum


def _descend(task: Task, row: int, loss: Array, under_way: Session) -> tuple[Array, Array]:
    """The machine of this row by its rule, from the start or from the checkpoint; fills the losses of its rounds."""
    spec = task.spec
    descent = Descent(task, spec.rule_of(row), row)
    stored = under_way.file.load_checkpoint() if under_way.resuming else None
    if stored is not None and int(stored["row"]) == row:
        descent.couplings[:], descent.biases[:], loss[:] = stored["couplings"], stored["biases"], stored["loss"]
        descent.done = int(stored["done"])

    def state() -> dict[str, Any]:
        whole = {"couplings": descent.couplings, "biases": descent.biases, "loss": loss}
        return whole | {"row": np.array(row), "done": np.array(descent.done)}

    images, total = len(task.codes), spec.rounds * len(task.codes)
    under_way.stage(f"{descent.rule} rule", total, "trajectories")
    under_way.advance(descent.done)
    while descent.done < total:
        under_way.pause(state)
        number = descent.done // images
        loss[number] = (0.0 if np.isnan(loss[number]) else loss[number]) + descent.step() / images
        under_way.advance(1)
        if not np.isfinite(loss[number]):
            raise RunError(
                f"the {descent.rule} rule diverged at trajectory {descent.done} with rate {spec.step_size:g}; a smaller"
                " rate helps."
            )
    return descent.couplings, descent.biases
