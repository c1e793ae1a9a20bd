"""Heat and work of classifications, stage by stage, and the accuracy that they buy when the drive is weak or strong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer import columns, files, layout, shots
from thermorun.computer.experiments.cycle import STAGES, interaction, reset_steps, run_cycle
from thermorun.computer.experiments.energy_results import EnergyResult
from thermorun.computer.experiments.spec import Energy
from thermorun.computer.images import Arrays, arrays
from thermorun.computer.machine import Machine
from thermorun.computer.score import Score, Tally, over_images
from thermorun.computer.spec import ComputerTraining
from thermorun.computer.subject import Subject
from thermorun.computer.task import Task
from thermorun.computer.training import as_stored, finished, fit
from thermorun.datasets import ARRAY
from thermorun.errors import InputError
from thermorun.estimates import Estimate
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable

CYCLE, DRIVE = "cycle", "drive"
# What a drive is, by how its machine is trained.
_SCALE = "the scale c of the targets, in that of the training"
_BOUND = "a bound on all couplings and biases, in the largest of the machine above"


@documented(Energy)
def energy(
    file: str | Path,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str | None = None,
    classes: tuple[int | str, ...] | None = None,
    part: str | None = None,
    shots: int = 2,
    outputs: int | None = None,
    pixel_mean: float | None = None,
    pixel_deviation: float | None = None,
    pixel_norm: float | None = None,
    precision: str = "float32",
    fingerprint: int | None = None,
    reset_time: float | None = None,
    drives: tuple[float, ...] = Energy.drives,
    retraining: int | None = None,
    multiply_accumulate: float = 1e-12,
    temperature: float = 300.0,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> EnergyResult:
    """Measures what a classification by the machine in a file costs, stage by stage.

    A cycle begins at x = 0 in the bare wells.  Couplings and fields are switched on (work), the machine evolves to the
    observation time (heat), all is switched off again (work), and the units relax in their bare wells (heat).  The
    first law holds in every stage of every trajectory, to rounding.  Then machines are trained anew, with the drive
    weak to strong, for the accuracy that their dissipation buys.

    Parameters
    ----------
    X, y : arrays, optional
        In the place of ``dataset``: images (points, D) or (points, rows, columns), or one alone, and their labels.
    {parameters}

    Returns
    -------
    EnergyResult
        Work and heat of each stage, mean per image with its standard error; accuracy and work at every drive.

    Raises
    ------
    InputError
        Before anything is written, for input that cannot run.
    RunError
        Where a trajectory or a training diverges, or the file cannot be written.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is done saved.
    """
    data = arrays(X, y)
    spec = Energy(**given(Energy, locals()) | ({} if data is None else {"dataset": ARRAY}))
    result: EnergyResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress, data=data)
    return result


def run(spec: Energy, under_way: Session, data: Arrays | None = None) -> EnergyResult:
    """Runs a spec: see `energy`.  ``data`` are in the place of its data set."""
    if under_way.resuming and finished(spec, under_way.out):
        return read(under_way.open(spec, lambda file: None), spec)
    subject = Subject.of(spec, data)
    spec = as_stored(settled(spec, subject), under_way)
    machine = subject.machine
    tasks, told = _tasks(spec, subject, data)
    mine = len(under_way.part(spec.shots))
    need = mine * len(subject.shown.x) * (4 * machine.outputs + 24 * len(STAGES))
    under_way.require_memory(2 * need, f"shots is {spec.shots}")
    machine.require_stable(subject.fields)
    file = under_way.open(spec, lambda file: _lay_out(file, spec, subject, tasks, told))
    steps = machine.physics.step_of(spec.reset_time or 0.0)
    for shot in under_way.rows(CYCLE, "energy", "shots"):
        found = run_cycle(machine, subject.fields, steps, streams.shot(spec.seed, shot), under_way.pause)
        file.write(CYCLE, shot, {name: value[None] for name, value in found._asdict().items()})
    network = subject.teacher()
    for row in under_way.rows(DRIVE, "accuracy against dissipation", "machines") if tasks else ():
        with under_way.unsaved():
            retrained = fit(tasks[row], under_way.pause, network)
            score = _score(retrained, subject, spec, under_way.pause)
        file.write(DRIVE, row, columns.of_score(score))
    under_way.end_of_shard()
    return read(file, spec)


def settled(spec: Energy, subject: Subject) -> Energy:
    """The spec with its fingerprint, and the time of a reset as a whole number of steps.

    Raises InputError for a machine without noise, which has neither heat to speak of nor kT.
    """
    physics = subject.machine.physics
    if physics.kT == 0:
        raise InputError(f"file is {spec.file}, a machine with kT = 0; energies are told in kT: it must be above 0.")
    steps = reset_steps(physics, spec.reset_time)
    return spec.replace(**subject.noted, reset_time=steps * physics.dt)


def read(file: RunFile, spec: Energy) -> EnergyResult:
    """The results in a file, of the shots and drives that are complete.  Raises InputError where there are none yet."""
    done = file.committed(CYCLE)
    if not done:
        raise InputError(f"{file.path} holds no complete shot; go on with 'thermorun resume {file.path}'.")
    machine, stored, images = files.read_section(file), file.read(CYCLE), file.noted("images", int)
    work, heat, change = (stored[name][:done] for name in ("work", "heat", "energy_change"))
    tally = Tally.empty(shots.places(stored["label"], stored["class"]), images, machine.outputs)
    for shot in range(done):
        tally.add(stored["output"][shot], heat[shot].sum(axis=1), work[shot].sum(axis=1))
    size = np.abs(work).sum(axis=2) + np.abs(heat).sum(axis=2)
    drives: dict[str, list[Estimate]] = {}
    if file.noted("drives"):
        drives = columns.read(file.read(DRIVE), file.committed(DRIVE), images)
    return EnergyResult(
        **origin(file, spec), machine=machine, score=Score.of(tally),
        work=[_flow(one) for one in work.mean(axis=0).T], heat=[_flow(one) for one in heat.mean(axis=0).T],
        residual=float(np.max(np.abs(change - work - heat) / np.maximum(size, machine.physics.kT)[:, :, None])),
        each=np.asarray(work.sum(axis=2)), left=over_images(change.sum(axis=2).mean(axis=0)), drives=drives,
        drive_means=str(file.noted("drive_means")),
        notes=layout.read_sentences(file),
    )  # fmt: skip


def _flow(each: Array) -> Estimate:
    """The mean over images, (images,), of what flows in a stage; where nothing can, that is no estimate."""
    return over_images(each) if each.any() else Estimate(0.0, np.nan)


def _tasks(spec: Energy, subject: Subject, data: Arrays | None) -> tuple[list[Task], list[str]]:
    """A training at every drive, and why there is none; all are checked before the first begins.

    Raises InputError for a drive that is too strong for the time step.
    """
    training = subject.training
    if training is None or not subject.shown.own or subject.labels is None:
        return [], ["no machine is retrained: that needs a training of ours, and the images that it was trained beside"]
    images = subject.own_images("drives are given", data)
    tasks = []
    for drive in spec.drives:
        try:
            tasks.append(Task.on(_driven(spec, subject, training, drive), images))
        except InputError as error:
            raise InputError(f"drive {drive:g}: {error}") from error
    return tasks, []


def _driven(spec: Energy, subject: Subject, training: ComputerTraining, drive: float) -> ComputerTraining:
    """The training with another drive: the scale of its targets, or, where it has none, a bound on its parameters."""
    if training.method != "adjoint":
        return subject.retraining(spec.retraining, scale=training.scale * drive)
    machine = subject.machine
    largest = max(float(np.abs(one).max()) for one in (machine.input_couplings, machine.couplings, machine.bias))
    return subject.retraining(spec.retraining, bound=largest * drive)


def _score(machine: Machine, subject: Subject, spec: Energy, pause: Callable[[], None]) -> Score:
    """All shots of a retrained machine, with the noise of the first: accuracy, heat until then, work of a cycle."""
    fields = machine.fields(machine.pixels.inputs(subject.shown.x, np.float32), spec.dtype)
    tally = Tally.empty(subject.labels, len(fields), machine.outputs)
    for shot in range(spec.shots):
        evolved = machine.run(fields, seed=streams.shot(spec.seed, shot), pause=pause)
        tally.add(evolved.x[:, machine.hidden :], evolved.heat, -interaction(machine, evolved.x, fields))
    return Score.of(tally)


def _lay_out(file: RunFile, spec: Energy, subject: Subject, tasks: list[Task], told: list[str]) -> None:
    machine, images = subject.machine, len(subject.shown.x)
    files.add_section(file, machine.inputs, machine.hidden, machine.outputs, machine.inert.size)
    files.write_section(file, machine)
    axes = [
        Axis("shot", np.arange(spec.shots), "1", "noisy cycles of an image, each with its own random stream"),
        Axis("image", np.arange(images), "1", "image that is classified"),
        Axis("class", np.array(machine.classes), "1", "label that an output stands for"),
        Axis("stage", np.array(STAGES), "1", "part of a cycle"),
    ]
    stages = ("shot", "image", "stage")
    variables = [
        Variable("output", ("shot", "image", "class"), "length", "outputs at the observation time", "float32"),
        Variable("work", stages, "energy", "work done on the machine"),
        Variable("heat", stages, "energy", "heat absorbed from the bath, summed up step by step"),
        Variable("energy_change", stages, "energy", "of the states at both ends"),
        Variable("label", ("image",), "1", "label of each image as given; NaN where there is none"),
    ]
    file.add_section(CYCLE, axes, variables)
    file.write_whole(CYCLE, {"label": subject.values})
    if tasks:
        drive = Axis("drive", np.array(spec.drives), "1", "strength of the drive, in that of the machine")
        file.add_section(DRIVE, [drive], columns.variables("drive"))
    means = "" if not tasks else _BOUND if tasks[0].spec.method == "adjoint" else _SCALE
    file.note(images=images, drives=len(tasks), drive_means=means)
    layout.note_sentences(file, [*subject.notes, *told])
    file.wait()
    file.publish({CYCLE: spec.shots} | ({DRIVE: len(tasks)} if tasks else {}))
