"""Classifies images with a trained machine: shots at each of them, and what they say."""

from pathlib import Path

import numpy as np

from thermorun.arrays import Array
from thermorun.computer import files, layout, shots
from thermorun.computer.result import ClassificationResult
from thermorun.computer.score import Score
from thermorun.computer.spec import Classification, Source
from thermorun.computer.subject import Subject
from thermorun.computer.training import as_stored, finished
from thermorun.errors import InputError
from thermorun.runs import session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable


@documented(Classification)
def classify(
    file: str | Path,
    dataset: Source | None = None,
    labels: Array | None = None,
    classes: tuple[int, ...] | None = None,
    part: str | None = None,
    shots: int = 4,
    outputs: int | None = None,
    pixel_mean: float | None = None,
    pixel_deviation: float | None = None,
    pixel_norm: float | None = None,
    precision: str = "float32",
    fingerprint: int | None = None,
    kT: float | None = None,
    dt: float | None = None,
    observation_time: float | None = None,
    seed: int = 0,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> ClassificationResult:
    """Classifies images with the machine in a file: a training, a machine, or a text of parameters.

    The images may be a data set with labels or without, an array of images, or a single one.  The file is all that is
    needed besides: it holds the scaling of pixels.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    ClassificationResult
        An answer for every image; and where they have labels the accuracy with its standard error.

    Raises
    ------
    InputError
        Before anything is written, for input that cannot run.
    RunError
        Where a trajectory diverges, or the file cannot be written.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all shots taken saved.
    """
    spec = Classification(**given(Classification, locals()))
    result: ClassificationResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(
    spec: Classification, *, out: Path | str | None = None, resume: bool = False, threads: int | None = None,
    show_progress: bool = False,
) -> ClassificationResult:  # fmt: skip
    """Runs a spec: see `classify`."""
    with session(spec, out=out, resume=resume, threads=threads, show_progress=show_progress) as under_way:
        if under_way.resuming and finished(spec, under_way.out):
            return read(under_way.open(lambda file: None), spec)
        subject = Subject.of(spec)
        spec = under_way.spec = as_stored(spec.replace(**subject.noted), under_way)
        machine = subject.machine
        need = shots.need(spec.shots, len(subject.shown.x), machine.outputs)
        under_way.require_memory(2 * need, f"shots is {spec.shots}")
        machine.require_stable(subject.fields)
        file = under_way.open(lambda file: _lay_out(file, spec, subject))
        shots.take_into(file, machine, subject.fields, spec.shots, under_way)
        result = read(file, spec)
        file.write_whole("answers", {"answer": result.answers, "agreement": result.agreement})
        layout.write_score(file, result.score)
        return result


def read(file: RunFile, spec: Classification) -> ClassificationResult:
    """The results in a file, of the shots that are complete.  Raises InputError where there are none yet."""
    tally = shots.read_tally(file)
    if not tally.shots:
        raise InputError(f"{file.path} holds no complete shot; go on with 'thermorun resume {file.path}'.")
    machine = files.read_section(file)
    values = file.read(shots.SECTION)["label"]
    return ClassificationResult(
        spec=spec, threads=file.threads, file=file.path, stored=None if file.path else file.contents(),
        machine=machine, score=Score.of(tally), answers=np.array(machine.classes)[tally.answer],
        agreement=tally.agreement, outputs=tally.outputs / np.float32(tally.shots),
        labels=None if tally.labels is None else values.astype(np.int64), notes=layout.read_sentences(file),
    )  # fmt: skip


def _lay_out(file: RunFile, spec: Classification, subject: Subject) -> None:
    machine, labels = subject.machine, subject.shown.labels
    files.add_section(file, machine.inputs, machine.hidden, machine.outputs, machine.inert.size)
    files.write_section(file, machine)
    values = np.full(len(subject.shown.x), np.nan) if labels is None else labels
    shots.add_section(
        file, spec.shots, machine.classes, values, "label of each image as given; NaN where there is none"
    )
    image = Axis("answered", np.arange(len(values)), "1", "image")
    variables = [
        Variable("answer", ("answered",), "1", "label of the largest mean output of all shots", "int64"),
        Variable("agreement", ("answered",), "1", "share of the shots that gave that answer"),
    ]
    file.add_section("answers", [image], variables)
    layout.add_score(file, machine.classes)
    layout.note_sentences(file, subject.notes)
    file.wait()
    file.publish({shots.SECTION: spec.shots})
