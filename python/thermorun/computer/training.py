"""Trains a machine: teacher, closed form or descent, and shots at the held-out images, each streamed to the file."""

import time as clock
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun import datasets
from thermorun.computer import action, teacher
from thermorun.computer import files as machine_files
from thermorun.computer import result as results
from thermorun.computer.descent import NAMES, Descent
from thermorun.computer.machine import CONNECTIVITIES, Machine, Physics, Pixels, connectivity, mask_from_array
from thermorun.computer.result import TrainingResult
from thermorun.computer.score import Score, shoot
from thermorun.computer.spec import ComputerTraining
from thermorun.datasets import Images
from thermorun.errors import InputError, RunError
from thermorun.progress import Advance, deferred_interrupt, progress
from thermorun.store import RunFile, read_spec, run_file
from thermorun.threads import on_threads

Array = NDArray[Any]

# Held-out images of the accuracy along a descent, and their random stream.
_WATCHED = 2000
_WATCH = 1 << 32


def train(
    spec: ComputerTraining | None = None,
    *,
    images: Images | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
    checkpoint_every: float = 20.0,
    **fields: Any,
) -> TrainingResult:
    """Trains the machine of ``spec`` and measures its accuracy.

    ``fields`` are those of ``ComputerTraining``, replacing the spec's.  ``images`` replace the data set that the spec
    names.  With ``out`` everything streams to that HDF5 file, and ``resume`` goes on with it after a kill: to the last
    bit as if nothing had happened.

    Raises InputError (a ValueError) before anything is written for input that cannot run, RunError where the descent
    runs away or the file cannot be written, and KeyboardInterrupt after Ctrl-C, with all that is done saved.
    """
    spec = ComputerTraining(**fields) if spec is None else replace(spec, **fields)
    images = datasets.load_images(spec.dataset, spec.classes) if images is None else images
    task = Task.of(spec, images)
    with (
        on_threads(threads) as count,
        deferred_interrupt() as stop,
        run_file("computer", task.spec, out, resume, count) as file,
    ):
        run = _Run(task, file, checkpoint_every, stop, show_progress)
        outcome = run.finish(None if out is None else Path(out), count, resume)
        if file is not None:
            file.finish()
    return outcome


def load(path: Path | str, images: Images | None = None) -> TrainingResult:
    """The finished training in a file.  Raises InputError."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"FILE is {path}, which does not exist.")
    spec = ComputerTraining.from_json(read_spec(path))
    task = Task.of(spec, datasets.load_images(spec.dataset, spec.classes) if images is None else images)
    with RunFile.reopen(path, task.spec.to_json(), write=False) as file:
        return results.read(file, task.spec, task.images, path)


@dataclass(frozen=True)
class Task:
    """A spec with all that it names read from files: images, mask, and activations if they are given."""

    spec: ComputerTraining
    images: Images
    mask: Array
    activations: tuple[Array, Array] | None
    pixels: Pixels

    @classmethod
    def of(cls, spec: ComputerTraining, images: Images) -> "Task":
        """Reads and checks; notes the fingerprint of what was read in the spec.  Raises InputError."""
        inputs, classes = images.x.shape[1], len(images.classes)
        if spec.connectivity in CONNECTIVITIES:
            mask = connectivity(spec.connectivity, inputs, spec.hidden, classes)
        else:
            path = Path(spec.connectivity)
            mask = mask_from_array(datasets.read_arrays(path)[""], inputs, spec.hidden, classes, str(path))
        given = None if spec.teacher is None else teacher.given_activations(Path(spec.teacher), spec, images)
        fingerprint = zlib.crc32(np.packbits(mask).tobytes(), images.fingerprint)
        for array in given or ():
            fingerprint = zlib.crc32(np.ascontiguousarray(array).tobytes(), fingerprint)
        if spec.fingerprint is not None and spec.fingerprint != fingerprint:
            raise InputError(
                f"the data set {images.name}, its mask or its teacher's activations are not those of this training"
                f" (fingerprint {fingerprint}, not {spec.fingerprint})."
            )
        largest = 1.0 if spec.targets != "linear" else 0.0
        require_ideal_stable(spec.physics, spec.scale * largest)
        return cls(replace(spec, fingerprint=fingerprint), images, mask, given, Pixels.of(images))


def require_ideal_stable(physics: Physics, target: float) -> None:
    """Raises InputError, with a dt that would do, where idealised trajectories of this largest bias are unstable.

    Such a trajectory ends where 2 J2 x + 4 J4 x^3 = c A; explicit steps need mu dt (2 J2 + 12 J4 x^2) < 2 there.
    """
    roots = np.roots([4 * physics.J4, 0.0, 2 * physics.J2, -target])
    x = float(np.abs(roots.real[np.abs(roots.imag) < 1e-9]).max(initial=0.0))
    curvature = physics.mobility * (2 * physics.J2 + 12 * physics.J4 * x**2)
    if physics.dt * curvature >= 2:
        raise InputError(
            f"dt is {physics.dt:g}, too large for targets of {target:g}: mu dt times the curvature of a well is"
            f" {physics.dt * curvature:.3g}, and must be below 2; dt = {1 / curvature:.2g} would do."
        )


@dataclass
class _Run:
    """A training under way."""

    task: Task
    file: RunFile | None
    checkpoint_every: float
    interrupted: Callable[[], bool]
    show_progress: bool
    facts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(results.FACTS, np.nan))

    def __post_init__(self) -> None:
        self.spec, self.images = self.task.spec, self.task.images
        self.inputs = self.task.pixels.inputs(self.images.x, np.float32)
        self.test_inputs = self.task.pixels.inputs(self.images.test_x, np.float32)

    def finish(self, out: Path | None, threads: int, resume: bool) -> TrainingResult:
        """Runs to the end, from the start or from what the file holds."""
        spec, file = self.spec, self.file
        if file is not None and resume and file.committed("shots") == spec.shots:
            assert out is not None
            return results.read(file, spec, self.images, out)
        if file is not None and resume:
            self.facts.update(zip(results.FACTS, (float(v) for v in file.read("facts")["value"]), strict=True))
        if spec.method == "closed-form":
            machine = self._stored_machine() if resume else None
            if machine is None:
                targets, network = self._targets(resume)
                machine = self._closed_form(targets)
                self._publish(network, machine)
            loss = accuracy = np.empty(0)
        else:
            targets, network = self._targets(resume)
            if not resume:
                self._publish(network, None)
            machine, loss, accuracy = self._descend(targets)
        outputs, heat, work = self._shots(machine)
        score = Score.of(outputs, heat, work, self.images.test_labels)
        updates = results.record_points(spec)
        return TrainingResult(spec, self.images, machine, score, updates, loss, accuracy, self.facts, out, threads)

    def _stored_machine(self) -> Machine | None:
        assert self.file is not None
        return machine_files.read_section(self.file)

    def _publish(self, network: teacher.Teacher | None, machine: Machine | None) -> None:
        """Makes the file appear, with all that is known so far."""
        file = self.file
        if file is None:
            return
        results.lay_out(file, self.spec, self.images)
        if network is not None:
            results.write_teacher(file, network)
        if machine is not None:
            machine_files.write_section(file, machine)
        self._write_facts()
        file.wait()
        file.publish(results.sections(self.spec))

    def _write_facts(self) -> None:
        if self.file is not None:
            self.file.write_whole("facts", {"value": np.array([self.facts[name] for name in results.FACTS])})

    def _targets(self, resume: bool) -> tuple[Array, teacher.Teacher | None]:
        """Targets of all training points, and the teacher if it is ours: trained, or read from the file."""
        spec, network = self.spec, None
        if self.task.activations is not None:
            hidden, logits = self.task.activations
        else:
            if resume and self.file is not None:
                network = results.read_teacher(self.file)
            else:
                began = clock.perf_counter()
                with progress("teacher", spec.teacher_epochs, "epochs", self.show_progress) as advance:
                    network = teacher.train(spec, self.inputs, self.images.labels, self._stoppable(advance))
                self.facts["teacher_seconds"] = clock.perf_counter() - began
                self.facts["teacher_accuracy"] = network.accuracy(self.test_inputs, self.images.test_labels)
            hidden, logits = network.activations(self.inputs)
        targets = teacher.targets(spec, hidden, logits, self.images.labels)
        require_ideal_stable(spec.physics, float(np.abs(targets).max()))
        return targets, network

    def _stoppable(self, advance: Advance) -> Advance:
        """``advance`` that ends the run after Ctrl-C: for what is not worth saving."""

        def step(amount: int) -> None:
            advance(amount)
            if self.interrupted():
                raise KeyboardInterrupt

        return step

    def _machine(self, parameters: action.Parameters) -> Machine:
        J = parameters.J.astype(float)
        return Machine(
            parameters.W, (J + J.T) / 2, parameters.b, len(self.images.classes), self.spec.physics, self.task.pixels,
            tuple(int(k) for k in self.images.classes), self.task.mask,
        )  # fmt: skip

    def _closed_form(self, targets: Array) -> Machine:
        spec = self.spec
        action.Lesson.of(self.inputs[:1], targets[:1], spec.physics)  # compiles, so that no timing counts it
        began = clock.perf_counter()
        lesson = action.Lesson.of(self.inputs, targets, spec.physics)
        parameters, self.facts["ridge"] = action.minimise(lesson, spec.physics, self.task.mask, spec.weight_decay)
        self.facts["action"] = action.mean_action(lesson, parameters, spec.physics)
        self.facts["train_seconds"] = clock.perf_counter() - began
        machine = self._machine(parameters)
        machine.require_stable(machine.fields(self.test_inputs, spec.dtype))
        return machine

    def _descend(self, targets: Array) -> tuple[Machine, Array, Array]:
        """Gradient descent, record by record."""
        spec, points = self.spec, results.record_points(self.spec)
        descent = Descent(spec, self.inputs.astype(spec.dtype), targets.astype(spec.dtype), self.task.mask)
        loss, accuracy = np.full(len(points), np.nan), np.full(len(points), np.nan)
        seconds = self._restore(descent, loss, accuracy)
        action.Lesson.of(self.inputs[:1], descent.targets[:1], spec.physics)  # compiles, so that no timing counts it
        saved = clock.monotonic()
        with progress("descent", spec.updates, "updates", self.show_progress) as advance:
            advance(descent.update)
            for row, point in enumerate(points):
                if descent.update >= point:
                    continue
                began, amount = clock.perf_counter(), int(point) - descent.update
                loss[row] = descent.advance(amount)
                if not np.isfinite(loss[row]):
                    raise RunError(
                        f"the descent ran away before update {point} with learning rate {descent.rate:g}; a smaller"
                        " learning_rate helps."
                    )
                accuracy[row] = self._watch(descent)
                seconds += clock.perf_counter() - began
                if self.file is not None:
                    self.file.write("descent", row, {"loss": loss[row, None], "accuracy": accuracy[row, None]})
                advance(amount)
                stop = self.interrupted()
                if self.file is not None and (stop or clock.monotonic() - saved >= self.checkpoint_every):
                    place = {"update": np.array(descent.update), "seconds": np.array(seconds)}
                    self.file.checkpoint(place | descent.state)
                    self.file.wait()
                    saved = clock.monotonic()
                if stop:
                    raise KeyboardInterrupt
        self.facts.update(train_seconds=seconds, action=loss[-1], ridge=0.0)
        machine = self._machine(action.Parameters(*(descent.parameters[name] for name in NAMES)))
        if self.file is not None:
            machine_files.write_section(self.file, machine)
            self._write_facts()
        return machine, loss, accuracy

    def _restore(self, descent: Descent, loss: Array, accuracy: Array) -> float:
        """Puts the descent back as the checkpoint has it; returns the seconds it took so far."""
        stored = None if self.file is None else self.file.load_checkpoint()
        if self.file is None or stored is None:
            return 0.0
        for name, array in descent.state.items():
            array[...] = stored[name]
        descent.update = int(stored["update"])
        done = int(np.searchsorted(results.record_points(self.spec), descent.update, side="right"))
        section = self.file.read("descent")
        loss[:done], accuracy[:done] = section["loss"][:done], section["accuracy"][:done]
        return float(stored["seconds"])

    def _watch(self, descent: Descent) -> float:
        """Accuracy of one shot at some held-out images; NaN where the machine, half trained, is unstable."""
        some = slice(None, None, -(-len(self.test_inputs) // _WATCHED))
        try:
            machine = self._machine(action.Parameters(*(descent.parameters[name] for name in NAMES)))
            fields = machine.fields(self.test_inputs[some], self.spec.dtype)
            outputs = shoot(machine, fields, self.spec.seed, _WATCH)["output"]
        except (InputError, RunError):
            return np.nan
        return float(np.mean(np.argmax(outputs, axis=1) == self.images.test_labels[some]))

    def _shots(self, machine: Machine) -> tuple[Array, Array, Array]:
        spec = self.spec
        fields = machine.fields(self.test_inputs, spec.dtype)
        machine.require_stable(fields)
        return take_shots(machine, fields, spec.shots, spec.seed, self.file, self.interrupted, self.show_progress)


def take_shots(
    machine: Machine, fields: Array, shots: int, seed: int, file: RunFile | None, interrupted: Callable[[], bool],
    show_progress: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Outputs (shots, images, classes), heat and work (shots, images) of all shots; those in the file are not taken
    again, and every new one is written to it.  Raises RunError where a trajectory blows up."""
    images = len(fields)
    outputs = np.empty((shots, images, machine.outputs), np.float32)
    heat, work = np.empty((shots, images)), np.empty((shots, images))
    done = 0
    if file is not None:
        done = file.committed("shots")
        stored = file.read("shots")
        outputs[:done], heat[:done], work[:done] = (stored[name][:done] for name in ("output", "heat", "work"))
    with progress("shots", shots * images, "images", show_progress) as advance:
        advance(done * images)
        for shot in range(done, shots):
            row = shoot(machine, fields, seed, shot)
            outputs[shot], heat[shot], work[shot] = row["output"], row["heat"], row["work"]
            if file is not None:
                file.write("shots", shot, {name: values[None] for name, values in row.items()})
            advance(images)
            if interrupted():
                raise KeyboardInterrupt
    return outputs, heat, work
