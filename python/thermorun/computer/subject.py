"""What a classification or a sweep is about: a machine, the images it is shown, and how the two belong together."""

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thermorun.arrays import Array
from thermorun.computer import files, layout
from thermorun.computer.images import (
    Arrays,
    Origin,
    Shown,
    among,
    hashes,
    seen_note,
    shown_images,
    training_images,
    unseen_note,
    whole_path,
)
from thermorun.computer.machine import Machine
from thermorun.computer.spec import ComputerTraining, Measurement
from thermorun.computer.teacher import Teacher
from thermorun.datasets import Images
from thermorun.errors import InputError
from thermorun.store import RunFile, read_command, read_spec

# What a machine that does not say is shown by default.
_DEFAULT = "mnist"


@dataclass(frozen=True)
class Subject:
    """The machine to measure, the images to show it, and the training that made it, where there was one.

    ``labels`` int64 (points,) are numbers of the machine's classes, -1 for a label that it has no output for; None
    where the images have none.  ``notes`` are sentences about what does not belong together.
    """

    spec: Measurement
    machine: Machine
    shown: Shown
    labels: Array | None
    training: ComputerTraining | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, spec: Measurement, data: Arrays | None = None) -> "Subject":
        """Reads machine and images, or takes ``data`` for these.  Raises InputError where they cannot belong."""
        path = files.find(spec.file)
        text = files.is_text(path)
        training, origin, machine = None, None, None
        if not text:
            if spec.outputs is not None:
                raise InputError(f"outputs is {spec.outputs}, but {path} says itself how many there are.")
            machine = files.load(path)
            if read_command(path) == ComputerTraining.command:
                training = ComputerTraining.from_json(read_spec(path))
                with RunFile.open_to_read(path) as file:
                    origin = files.read_origin(file, training)
        asked = spec.dataset is not None
        dataset = spec.dataset or (_DEFAULT if training is None else training.dataset)
        inputs = None if machine is None else machine.inputs
        shown = shown_images(dataset, data, spec.part, origin, inputs, asked)
        if machine is None:
            machine = files.read_text(path, shown.x.shape[1], spec.outputs)
        pixels = machine.pixels.changed(spec.pixel_mean, spec.pixel_deviation, spec.pixel_norm)
        machine = replace(machine, pixels=pixels).with_physics(**spec.changes)
        if spec.classes is not None:
            shown = shown.only(spec.classes)
        elif shown.labels is not None and _restricted(training, shown, asked):
            shown = shown.only(machine.said)
        if shown.x.shape[1] != machine.inputs:
            raise InputError(
                f"dataset is {shown.name}, with {shown.x.shape[1]} pixels an image; the machine in {path} has"
                f" {machine.inputs} inputs."
            )
        shown = shown.in_unit(machine.pixels.high)
        machine.pixels.require_unit(shown.x, shown.name)
        labels, notes = _labels(shown, machine, path, text)
        found = cls(spec, machine, shown, labels, training, (*notes, *_origin_notes(shown, origin)))
        if spec.fingerprint not in (None, found.fingerprint):
            raise InputError(f"the machine in {spec.file} or the data set is not the one that this run began with.")
        return found

    @cached_property
    def fingerprint(self) -> int:
        """CRC-32 of machine and images."""
        value = zlib.crc32(np.ascontiguousarray(self.shown.x).tobytes())
        value = zlib.crc32(b"" if self.labels is None else self.labels.tobytes(), value)
        for array in (self.machine.input_couplings, self.machine.couplings, self.machine.bias):
            value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
        return zlib.crc32(repr((self.machine.physics, self.machine.pixels)).encode(), value)

    @property
    def noted(self) -> dict[str, Any]:
        """The fields of the spec that reading has set."""
        return {
            "file": whole_path(files.find(self.spec.file)),
            "dataset": whole_path(self.shown.name),
            "part": self.shown.part,
            "fingerprint": self.fingerprint,
        }

    @property
    def values(self) -> Array:
        """What a file keeps of the labels (points,): as given, classes' numbers for words, NaN where there are none."""
        if self.shown.labels is None or self.labels is None:
            return np.full(len(self.shown.x), np.nan)
        if self.machine.names:
            return np.where(self.labels < 0, -1, np.array(self.machine.classes)[self.labels])
        return self.shown.labels

    @cached_property
    def fields(self) -> Array:
        """h of all images, in the spec's precision."""
        return self.machine.fields(self.machine.pixels.inputs(self.shown.x, np.float32), self.spec.dtype)

    def teacher(self) -> Teacher | None:
        """The teacher of that training, where its file has one."""
        if self.training is None or self.training.teacher is not None:
            return None
        with RunFile.open_to_read(Path(self.spec.file)) as file:
            try:
                return layout.read_teacher(file)
            except KeyError:
                return None

    def retraining(self, trajectories: int | None, **changes: Any) -> ComputerTraining:
        """The training that made the machine, changed; with so many trajectories, where it descends.

        With another observation time the adjoint's steps stay no longer than they are.
        """
        training = self.training
        assert training is not None
        if trajectories is not None:
            changes["trajectories"] = trajectories
        time = changes.get("observation_time", training.observation_time)
        longer = int(np.ceil(training.training_steps * time / training.observation_time - 1e-9))
        steps = max(training.training_steps, longer)
        return training.replace(**{"fingerprint": None, "training_steps": steps} | changes)

    def own_images(self, why: str, data: Arrays | None = None) -> Images:
        """The images of the training that made the machine, to train others; ``data`` are in the place of a data set.

        Raises InputError, beginning with ``why``, where there was no training, or other images are shown.
        """
        if self.training is None:
            raise InputError(f"{why}, which trains anew, but {self.spec.file} does not hold a training.")
        if not self.shown.own:
            raise InputError(
                f"{why}, which trains anew, but dataset is {self.shown.name}, not the set that the machine in"
                f" {self.spec.file} was trained on."
            )
        return training_images(self.shown.name, data, self.training.classes)


def _restricted(training: ComputerTraining | None, shown: Shown, asked: bool) -> bool:
    """Whether a data set holds other classes by intention: the training, or who made the machine, left them out."""
    if training is None:
        return not asked
    return training.classes is not None and (shown.own or not asked)


def _labels(shown: Shown, machine: Machine, path: Path, text: bool) -> tuple[Array | None, list[str]]:
    """Labels as numbers of the machine's classes, and what there is to say of those that it has no output for."""
    if shown.labels is None:
        return None, []
    known = among(shown.labels, machine.said)
    places = {str(word): place for place, word in enumerate(machine.said)}
    labels = np.array([places.get(str(label), -1) for label in shown.labels.tolist()], np.int64)
    if known.all():
        return labels, []
    foreign = np.unique(shown.labels[~known])
    named = ", ".join(str(k) for k in foreign[:10])
    if text or not known.any():
        raise InputError(
            f"dataset is {shown.name}, with the classes {named}, for which the machine in {path} has no output; its"
            f" {machine.outputs} stand for {', '.join(map(str, machine.said))}: say --outputs or --classes."
        )
    return labels, [unseen_note(int((~known).sum()), len(labels), named)]


def _origin_notes(shown: Shown, origin: Origin | None) -> list[str]:
    """What the training's images and those shown have to do with each other."""
    if origin is None:
        return []
    notes = []
    if not shown.own and shown.labels is not None:
        changed = f"{shown.name}: not the images and labels that the machine was trained beside; they have changed."
        other = f"the machine was trained on {origin.dataset}, not on {shown.name}."
        notes.append(changed if whole_path(shown.name) == origin.dataset else other)
    seen = int(np.isin(hashes(shown.x), origin.hashes).sum())
    if seen:
        notes.append(seen_note(seen, len(shown.x)))
    return notes
