"""Classifies images with a trained machine: shots at each of them, and what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from thermorun.arrays import Array
from thermorun.computer import files, layout, shots
from thermorun.computer.images import Arrays, arrays
from thermorun.computer.machine import Machine
from thermorun.computer.result import ClassificationResult
from thermorun.computer.score import Score
from thermorun.computer.spec import Classification
from thermorun.computer.subject import Subject
from thermorun.computer.training import as_stored, finished
from thermorun.datasets import ARRAY
from thermorun.errors import InputError
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable


@documented(Classification)
def classify(
    file: str | Path,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str | None = None,
    classes: tuple[int | str, ...] | None = None,
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
    X, y : arrays, optional
        In the place of ``dataset``: images (points, D) or (points, rows, columns), or one alone, and their labels.
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
    data = arrays(X, y)
    spec = Classification(**given(Classification, locals()) | ({} if data is None else {"dataset": ARRAY}))
    result: ClassificationResult = spec.run(
        out=out, resume=resume, threads=threads, show_progress=show_progress, data=data
    )
    return result


def run(spec: Classification, under_way: Session, data: Arrays | None = None) -> ClassificationResult:
    """Runs a spec: see `classify`.  ``data`` are in the place of its data set."""
    if under_way.resuming and finished(spec, under_way.out):
        return _answer(under_way.open(spec, lambda file: None), spec, under_way)
    subject = Subject.of(spec, data)
    spec = as_stored(spec.replace(**subject.noted), under_way)
    machine = subject.machine
    need = shots.need(len(under_way.part(spec.shots)), len(subject.shown.x), machine.outputs)
    under_way.require_memory(2 * need, f"shots is {spec.shots}")
    machine.require_stable(subject.fields)
    file = under_way.open(spec, lambda file: _lay_out(file, spec, subject))
    shots.take_into(under_way, machine, subject.fields, spec.shots, spec.seed)
    return _answer(file, spec, under_way)


def _answer(file: RunFile, spec: Classification, under_way: Session) -> ClassificationResult:
    """What all shots say, into the file too."""
    under_way.end_of_shard()
    result = read(file, spec)
    file.write_whole("answers", {"answer": result.numbers, "agreement": result.agreement})
    layout.write_score(file, result.score)
    return result if file.path else replace(result, stored=file.contents())


def read(file: RunFile, spec: Classification) -> ClassificationResult:
    """The results in a file, of the shots that are complete.  Raises InputError where there are none yet."""
    tally = shots.read_tally(file)
    if not tally.shots:
        raise InputError(f"{file.path} holds no complete shot; go on with 'thermorun resume {file.path}'.")
    machine = files.read_section(file)
    values = file.read(shots.SECTION)["label"]
    return ClassificationResult(
        **origin(file, spec), machine=machine, score=Score.of(tally), answers=np.array(machine.said)[tally.answer],
        numbers=np.array(machine.classes)[tally.answer], agreement=tally.agreement,
        outputs=tally.outputs / np.float32(tally.shots),
        labels=None if tally.labels is None else _as_given(values.astype(np.int64), machine),
        notes=layout.read_sentences(file),
    )  # fmt: skip


def extended(spec: Classification, smaller: Classification) -> dict[str, int]:
    """Rows of each section that are the same with more shots."""
    return {shots.SECTION: smaller.shots}


def _as_given(values: Array, machine: Machine) -> Array:
    """Labels as they were given: numbers, or words, with a question mark for one that the machine does not know."""
    if not machine.names:
        return values
    words = dict(zip(machine.classes, machine.names, strict=True))
    return np.array([words.get(int(value), "?") for value in values])


def _lay_out(file: RunFile, spec: Classification, subject: Subject) -> None:
    machine, values = subject.machine, subject.values
    files.add_section(file, machine.inputs, machine.hidden, machine.outputs, machine.inert.size)
    files.write_section(file, machine)
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
