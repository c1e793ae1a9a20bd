"""What trainings, classifications and sweeps gave."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.layout import Portrait
from thermorun.computer.machine import Machine
from thermorun.computer.score import Accuracy, Score, advantage
from thermorun.computer.spec import READ, TRAINED, Classification, ComputerTraining, Sweep, Value, stem
from thermorun.estimates import Estimate, finite_or_none
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A larger share of states cut off in training is worth a word.
_MANY_CUT = 1e-3
# Answers that a table shows.
_SHOWN = 20
TITLES = {
    "observation-time": "observation time", "temperature": "temperature", "timestep": "time step",
    "shots": "number of shots that vote", "window": "window of the read-out",
    "connectivity": "connectivity", "hidden": "number of hidden units",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TrainingResult(Result):
    """A trained machine and how well it does.

    ``loss`` and ``accuracy`` float64 (records,) along gradient descent, after ``updates`` of it: mean action or
    cross-entropy since the last record, accuracy of one shot at up to 2,000 held-out images, or, of the adjoint, at the
    training images set aside; empty for the closed form.  ``facts`` holds accuracy of the teacher on held-out images,
    seconds, final mean action, and the relative ridge that singular normal equations needed; of the adjoint the final
    loss, the read-out gain, the share of states that were cut off, and the images of an epoch; NaN for what there is
    not.  ``portrait`` is what a picture of activations shows,
    ``shape`` that of an image, ``notes`` sentences about the images.
    """

    spec: ComputerTraining
    machine: Machine
    score: Score
    updates: Array
    loss: Array
    accuracy: Array
    facts: dict[str, float]
    portrait: Portrait | None
    shape: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def advantage(self) -> float:
        """Energy of the digital teacher over the heat of one classification at 300 K, both estimates."""
        return advantage(self.score, self.machine, self.spec.hidden)

    def rows(self) -> list[dict[str, Any]]:
        facts = {name: finite_or_none(value) for name, value in self.facts.items()}
        return [_row(self.score, self.machine, self.advantage) | facts]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"notes": list(self.notes)}

    def tables(self) -> list[Table]:
        spec, facts = self.spec, self.facts
        teacher = "no teacher" if spec.method == "adjoint" else "given activations"
        if spec.method != "adjoint" and spec.teacher is None:
            teacher = f"teacher: {100 * facts['teacher_accuracy']:.2f} percent, {facts['teacher_seconds']:.1f} s"
        notes = [
            f"{spec.method}, {spec.connectivity if len(spec.connectivity) < 20 else 'a mask of its own'},"
            f" {self.machine.parameters:,} parameters in {facts['train_seconds']:.1f} s; {teacher}"
        ]
        if facts["ridge"] > 0:
            notes.append(
                "the inputs repeat one another, so their normal equations are singular: solved with a ridge of"
                f" {facts['ridge']:.0e} of their mean diagonal"
            )
        if facts["cut_share"] > _MANY_CUT:
            notes.append(
                f"{facts['cut_share']:.1%} of the states in training were cut off, as far out as its steps are stable;"
                " with more training_steps fewer are"
            )
        digital = "a digital network of as many units" if spec.method == "adjoint" else "the digital teacher"
        notes.append(
            f"energy: {digital}, at 1 pJ a multiply-accumulate, takes"
            f" {self.advantage:.1e} times the heat of a classification at 300 K"
        )
        title = f"Thermodynamic computer trained on {_named(spec.dataset)}"
        what = "held-out images" if self.file is None or self.score.shots == spec.shots else "held-out images so far"
        return _tables(title, self.score, self.machine, what, [*notes, *self.notes])

    def figures(self) -> "dict[str, Figure]":
        from thermorun.computer import figures

        drawn = {"confusion": figures.answers(self.score, self.machine.said)}
        if self.portrait is not None and np.isfinite(self.portrait.paths).all():
            drawn["activations"] = figures.activations(self.machine, self.portrait)
        drawn["couplings"] = figures.all_couplings(self.machine, self.shape)
        if len(self.updates):
            drawn["descent"] = figures.descent(self)
        return drawn


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ClassificationResult(Result):
    """What a machine said of images.

    ``answers`` (images,) are labels, numbers or words, by the largest mean output of all shots, ``numbers`` int64 the
    numbers of the same classes; ``agreement`` (images,) the share
    of shots that gave the same; ``outputs`` (images, classes) the mean outputs; ``labels`` (images,) the true labels as
    given, or None; ``notes`` sentences about how images and machine belong together.
    """

    spec: Classification
    machine: Machine
    score: Score
    answers: Array
    numbers: Array
    agreement: Array
    outputs: Array
    labels: Array | None
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        return [_row(self.score, self.machine, advantage(self.score, self.machine, self.machine.hidden))]

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints: the score, and the answer for every image."""
        answers = [
            {"image": i, "answer": answer, "agreement": float(share), "outputs": [float(x) for x in outputs]}
            | ({} if self.labels is None else {"label": self.labels[i].item()})
            for i, (answer, share, outputs) in enumerate(
                zip(self.answers.tolist(), self.agreement, self.outputs, strict=True)
            )
        ]
        return super().to_dict() | {"answers": answers, "notes": list(self.notes)}

    def tables(self) -> list[Table]:
        spec = self.spec
        what = f"{'held-out ' if spec.part == 'held-out' else ''}images of {_named(spec.dataset)}"
        found = _tables(f"The machine in {_named(spec.file)}", self.score, self.machine, what, list(self.notes))
        if self.labels is None:
            rows = [
                (str(i), str(self.answers[i]), f"{100 * self.agreement[i]:.0f}")
                for i in range(min(_SHOWN, len(self.answers)))
            ]
            more = len(self.answers) - len(rows)
            notes = [f"{more:,} more in the file and in JSON"] if more else []
            found.append(Table("Answers", ("image", "answer", "shots that agree / %"), rows, notes))
        return found

    def figures(self) -> "dict[str, Figure]":
        from thermorun.computer import figures

        if self.labels is None:
            return {"answers": figures.counts(self)}
        return {"confusion": figures.answers(self.score, self.machine.said)}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SweepResult(Result):
    """The machine at the ``values`` that are done; ``columns`` holds one ``Estimate`` a value for each of
    ``accuracy``, ``top2``, ``vote`` and ``heat``, and the number of ``parameters``.  ``standard`` is the machine's own
    value, None where the file does not say."""

    spec: Sweep
    values: tuple[Value, ...]
    columns: dict[str, list[Estimate]]
    parameters: Array
    standard: Value | None
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {self.spec.over.replace("-", "_"): value}
            | {name: column[i].to_dict() for name, column in self.columns.items()}
            | {"parameters": int(self.parameters[i])}
            for i, value in enumerate(self.values)
        ]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"over": self.spec.over, "standard": self.standard, "notes": list(self.notes)}

    def tables(self) -> list[Table]:
        c, rows, differ = self.columns, [], self.spec.over in TRAINED
        for i, value in enumerate(self.values):
            accuracy, top2 = c["accuracy"][i], c["top2"][i]
            rows.append(
                (
                    value if isinstance(value, str) else f"{value:g}",
                    str(accuracy), *_parts(accuracy), str(top2), str(c["heat"][i]),
                    *([f"{self.parameters[i]:,.0f}"] if differ else []),
                )
            )  # fmt: skip
        notes = [
            f"{self.spec.shots} shots an image; accuracy of single shots, its standard error and the two parts of it",
            *_why_unknown(self.spec.shots),
            *self.notes,
        ]
        if not differ and len(rows):
            notes.append(f"{self.parameters[0]:,.0f} parameters")
        if self.spec.over == "shots":
            notes[0] = (
                f"{self.spec.shots} votes an image: answers by the mean output of so many shots; heat is that of all of"
                " them"
            )
        if self.spec.trains:
            notes.append("a machine was trained for every row; standard errors know of images and noise, not of seeds")
        elif self.spec.over in ("observation-time", *READ):
            notes.append("all rows are read from the same trajectories: their noise is one")
        elif self.spec.over in ("temperature", "timestep"):
            notes.append("all rows have the same images and random numbers: their errors go together")
        headings = (
            self.spec.over, "accuracy / %", "± images", "± noise", "top 2 / %", "heat / energy",
            *(["parameters"] if differ else []),
        )  # fmt: skip
        return [Table(f"Sweep over the {TITLES[self.spec.over]}", headings, rows, notes)]

    def figures(self) -> "dict[str, Figure]":
        from thermorun.computer import figures

        return {"": figures.swept(self)}


def _row(score: Score, machine: Machine, energy_advantage: float) -> dict[str, Any]:
    """A score and what was measured, in JSON's types."""
    physics = machine.physics
    return score.to_dict() | {
        "classes": [
            {"class": k, "accuracy": one.to_dict()} for k, one in zip(machine.said, score.by_class, strict=False)
        ],
        "kT": physics.kT,
        "observation_time": physics.observation_time,
        "timestep": physics.dt,
        "parameters": machine.parameters,
        "energy_advantage": finite_or_none(energy_advantage),
    }


def _tables(title: str, score: Score, machine: Machine, what: str, notes: list[str]) -> list[Table]:
    """The score, and class by class."""
    physics, rows = machine.physics, []
    what = what if score.images > 1 else what.replace("images", "image")
    for name, share in (("accuracy / %", score.accuracy), ("top 2 / %", score.top2)):
        if share is not None:
            rows.append((name, str(share), *_parts(share)))
    if score.vote is not None and score.shots > 1:
        rows.append((f"vote of {score.shots} / %", str(score.vote), "", ""))
    rows += [("heat / energy", str(score.heat), "", ""), ("work / energy", str(score.work), "", "")]
    below = [
        *notes,
        f"{score.images:,} {what}, shots each: {score.shots}; kT = {physics.kT:g}, read at"
        f" {physics.observation_time:g}, dt = {physics.dt:g}",
        "heat: absorbed from the bath by then; work: of switching the fields on at x = 0 and off at the end",
        *_why_unknown(score.shots if score.accuracy is not None else 2, score.images),
    ]
    found = [Table(title, ("", "mean ± stderr", "± images", "± noise"), rows, below)]
    if score.by_class:
        found.append(_by_class(score, machine.said))
    return found


def _by_class(score: Score, classes: Sequence[int | str]) -> Table:
    rows = []
    for place, one in enumerate(score.by_class):
        wrong = score.confusion[place].copy()
        wrong[place] = 0
        taken = f"{classes[int(wrong.argmax())]} ({wrong.max() / max(1, score.confusion[place].sum()):.1%})"
        rows.append(
            (
                str(classes[place]),
                f"{one.samples if np.isfinite(one.mean) else 0:,}",
                str(one),
                taken if wrong.any() else "",
            )
        )
    missing = any(math.isnan(one.mean) for one in score.by_class)
    notes = ["? where a class has no image here"] if missing else []
    return Table("By class", ("class", "images", "accuracy / %", "most often taken for"), rows, notes)


def _parts(share: Estimate) -> tuple[str, str]:
    """The two parts of a standard error, in percent."""
    assert isinstance(share, Accuracy)
    first, second = (
        "?" if math.isnan(part) else f"{100 * part:.2f}" for part in (share.stderr_images, share.stderr_noise)
    )
    return first, second


def _why_unknown(shots: int, images: int = 2) -> list[str]:
    """The reason of question marks."""
    reasons = []
    if images < 2:
        reasons.append("±: one image tells no standard error")
    elif shots < 2:
        reasons.append("± images and ± noise: one shot an image cannot tell them apart; take more shots")
    return reasons


def _named(source: str | Path | None) -> str:
    """A data set or a machine's file, short."""
    return stem(source) if source is not None else "?"
