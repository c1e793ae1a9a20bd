"""Many devices of one machine: parameters that spread, few bits; and what retraining one of them recovers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer import files, layout
from thermorun.computer.experiments.device_results import DevicesResult
from thermorun.computer.experiments.genetic import Search
from thermorun.computer.experiments.spec import Devices
from thermorun.computer.experiments.variation import Genome, deviations, quantised, spread
from thermorun.computer.images import Arrays, arrays
from thermorun.computer.machine import Machine
from thermorun.computer.subject import Subject
from thermorun.computer.task import Task
from thermorun.computer.training import as_stored, finished, fit
from thermorun.datasets import ARRAY
from thermorun.errors import InputError
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable

TRIAL, SEARCH = "trial", "search"


class Trial(NamedTuple):
    """One device to measure: how it comes about, at which level, and its number."""

    how: str
    level: float
    device: int

    def __str__(self) -> str:
        return f"{self.how} {self.level:g} #{self.device}"


@documented(Devices)
def devices(
    file: str | Path,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str | None = None,
    classes: tuple[int | str, ...] | None = None,
    part: str | None = None,
    shots: int = 1,
    outputs: int | None = None,
    pixel_mean: float | None = None,
    pixel_deviation: float | None = None,
    pixel_norm: float | None = None,
    precision: str = "float32",
    fingerprint: int | None = None,
    devices: int = 8,
    relative: tuple[float, ...] = Devices.relative,
    absolute: tuple[float, ...] = Devices.absolute,
    bits: tuple[int, ...] = Devices.bits,
    retrained: int = 3,
    generations: int = 20,
    population: int = 24,
    mutation: float = 0.03,
    retraining: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> DevicesResult:
    """Measures the machine in a file as many devices that are not quite it.

    What is programmed into a device, p, becomes p (1 + level z) or p + level s z, z standard normal, s the root mean
    square of couplings to inputs, couplings among units, or biases; a device keeps its z for all levels.  Few bits give
    2^bits - 1 evenly spaced values between plus and minus the largest.  Some devices of the largest relative spread are
    then retrained by a genetic algorithm that sees only their noisy answers to training images; and a machine that was
    trained with that spread from the start is built as the same devices.

    Parameters
    ----------
    X, y : arrays, optional
        In the place of ``dataset``: images (points, D) or (points, rows, columns), or one alone, and their labels.
    {parameters}

    Returns
    -------
    DevicesResult
        Accuracy under each spread with its standard error, devices and images drawn anew; what retraining recovers.

    Raises
    ------
    InputError
        Before anything is written, for input that cannot run.
    RunError
        Where a device diverges, or the file cannot be written.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is done saved.
    """
    data = arrays(X, y)
    spec = Devices(**given(Devices, locals()) | ({} if data is None else {"dataset": ARRAY}))
    result: DevicesResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress, data=data)
    return result


def run(spec: Devices, under_way: Session, data: Arrays | None = None) -> DevicesResult:
    """Runs a spec: see `devices`.  ``data`` are in the place of its data set."""
    if under_way.resuming and finished(spec, under_way.out):
        return read(under_way.open(spec, lambda file: None), spec)
    subject = Subject.of(spec, data)
    if subject.labels is None:
        raise InputError(f"dataset is {subject.shown.name}, whose images have no labels; devices are measured by them.")
    spec = as_stored(spec.replace(**subject.noted), under_way)
    task, told = _task(spec, subject, data)
    bench = _Bench(spec, subject, task)
    plan = trials(spec, task is not None)
    for trial in plan:
        bench.require_stable(trial)
    file = under_way.open(spec, lambda file: _lay_out(file, spec, subject, plan, told))
    for row in under_way.rows(TRIAL, "devices", "devices"):
        hits = bench.hits(bench.machine(plan[row], under_way), under_way.pause)
        file.write(TRIAL, row, {"hits": hits[None]})
    return read(file, spec)


def read(file: RunFile, spec: Devices) -> DevicesResult:
    """The results in a file, of the devices that are complete.  Raises InputError where there are none yet."""
    done = file.committed(TRIAL)
    if not done:
        raise InputError(f"{file.path} holds no complete device; go on with 'thermorun resume {file.path}'.")
    retrains = bool(file.noted("retrains"))
    hits: dict[tuple[str, float], list[Array]] = {}
    for trial, row in zip(trials(spec, retrains)[:done], file.read(TRIAL)["hits"][:done], strict=True):
        hits.setdefault((trial.how, trial.level), []).append(row / spec.shots)
    best = file.read(SEARCH)["best"][: file.committed(SEARCH)] if retrains else np.empty((0, spec.generations))
    return DevicesResult(
        **origin(file, spec), machine=files.read_section(file),
        shares={key: np.stack(one) for key, one in hits.items()}, searches=best, notes=layout.read_sentences(file),
    )  # fmt: skip


def trials(spec: Devices, retrains: bool) -> list[Trial]:
    """All devices in their order; one alone where nothing is random."""
    many = range(spec.devices)
    found = [Trial("as trained", 0.0, 0)]
    found += [Trial("relative", level, n) for level in spec.relative for n in many]
    found += [Trial("absolute", level, n) for level in spec.absolute for n in many]
    found += [Trial("bits", float(bits), 0) for bits in spec.bits]
    if retrains:
        found += [Trial("genetic", spec.level, n) for n in range(spec.retrained)]
        found += [Trial("trained with noise", 0.0, 0)]
        found += [Trial("trained with noise", spec.level, n) for n in many]
    return found


@dataclass
class _Bench:
    """Where devices are built and measured."""

    spec: Devices
    subject: Subject
    task: Task | None

    def __post_init__(self) -> None:
        self.genome = Genome.of(self.subject.machine)
        self._inputs = self.subject.machine.pixels.inputs(self.subject.shown.x, np.float32)
        self._aware: Genome | None = None

    def hits(self, machine: Machine, pause: Callable[[], None]) -> Array:
        """How many shots are right at each image, int64 (images,)."""
        fields, found = machine.fields(self._inputs, self.spec.dtype), np.zeros(len(self._inputs), np.int64)
        for shot in range(self.spec.shots):
            run = machine.run(fields, seed=streams.shot(self.spec.seed, shot), pause=pause)
            found += np.argmax(run.x[:, machine.hidden :], axis=1) == self.subject.labels
        return found

    def require_stable(self, trial: Trial) -> None:
        """Raises InputError, naming it, where a device would diverge; those that are trained first are seen later."""
        if trial.how in ("genetic", "trained with noise"):
            return
        machine = self.built(trial)
        try:
            machine.require_stable(machine.fields(self._inputs, self.spec.dtype))
        except InputError as error:
            raise InputError(f"device {trial}: {error}") from error

    def machine(self, trial: Trial, under_way: Session) -> Machine:
        """The device of a trial, searched or trained first where it is."""
        if trial.how == "genetic":
            return self._search(trial, under_way)
        if trial.how == "trained with noise" and self._aware is None:
            assert self.task is not None
            with under_way.unsaved():
                self._aware = Genome.of(fit(self.task, under_way.pause, self.subject.teacher()))
        return self.built(trial)

    def built(self, trial: Trial) -> Machine:
        """The device of a trial, as it is without a search."""
        genome = self.genome if self._aware is None or trial.how != "trained with noise" else self._aware
        if trial.how == "bits":
            return genome.build(quantised(genome.vector, genome.ranges, int(trial.level)))
        sizes = genome.sizes if trial.how == "absolute" else None
        return genome.build(spread(genome.vector, sizes, trial.level, self._normals(trial.device)))

    def _normals(self, device: int) -> Array:
        return deviations(len(self.genome.kinds), streams.device(self.spec.seed, "spread", device))

    def _search(self, trial: Trial, under_way: Session) -> Machine:
        """Retrains a device, generation by generation; a checkpoint may fall between two."""
        spec, file, task = self.spec, under_way.file, self.task
        assert task is not None
        search = Search(
            self.genome, task.inputs.astype(spec.dtype), task.images.labels, self._normals(trial.device), trial.level,
            spec.mutation, spec.population, spec.seed, trial.device,
        )  # fmt: skip
        best = np.full(spec.generations, np.nan)
        stored = file.load_checkpoint()
        if stored is not None and int(stored["device"]) == trial.device:
            search.parents[...], search.generation = stored["parents"], int(stored["generation"])
            best[...] = stored["best"]

        def state() -> dict[str, Array]:
            numbers = {"device": trial.device, "generation": search.generation}
            return {name: np.array(one) for name, one in numbers.items()} | {"parents": search.parents, "best": best}

        while search.generation < spec.generations:
            under_way.pause(state)
            generation = search.generation
            best[generation] = search.step(under_way.pause)
        if file.committed(SEARCH) == trial.device:
            file.write(SEARCH, trial.device, {"best": best[None]})
        return search.machine


def _task(spec: Devices, subject: Subject, data: Arrays | None) -> tuple[Task | None, list[str]]:
    """The training that knows of the spread, and why there is none."""
    if subject.training is None or not subject.shown.own:
        return None, ["nothing is retrained: that needs a training of ours, and the images that it was trained beside"]
    images = subject.own_images("devices are retrained", data)
    return Task.on(subject.retraining(spec.retraining, parameter_noise=spec.level), images), []


def _lay_out(file: RunFile, spec: Devices, subject: Subject, plan: list[Trial], told: list[str]) -> None:
    machine, images, retrains = subject.machine, len(subject.shown.x), not told
    files.add_section(file, machine.inputs, machine.hidden, machine.outputs, machine.inert.size)
    files.write_section(file, machine)
    axes = [
        Axis("trial", np.array([str(trial) for trial in plan]), "1", "how a device came about, level, number"),
        Axis("image", np.arange(images), "1", "image that is classified"),
    ]
    hits = Variable("hits", ("trial", "image"), "1", f"right answers of {spec.shots} shots", "int64")
    label = Variable("label", ("image",), "1", "label of each image as given")
    file.add_section(TRIAL, axes, [hits, label])
    file.write_whole(TRIAL, {"label": subject.values})
    if retrains:
        axes = [
            Axis("searched", np.arange(spec.retrained), "1", "device that the genetic algorithm retrains"),
            Axis("generation", np.arange(1, spec.generations + 1), "1", "generations done"),
        ]
        best = Variable("best", ("searched", "generation"), "1", "share of right answers of the best, training images")
        file.add_section(SEARCH, axes, [best])
    file.note(retrains=int(retrains))
    layout.note_sentences(file, [*subject.notes, *told])
    file.wait()
    file.publish({TRIAL: len(plan)} | ({SEARCH: spec.retrained} if retrains else {}))
