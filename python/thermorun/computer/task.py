"""A training before it runs: its spec with all that it names read from files, and checked."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thermorun import datasets
from thermorun.arrays import Array
from thermorun.computer import action, adjoint, files, teacher
from thermorun.computer.descent import Objective
from thermorun.computer.images import Arrays, hashes, seen_note, training_images, unseen_note, whole_path
from thermorun.computer.machine import CONNECTIVITIES, Machine, Physics, Pixels, connectivity, mask_from_array
from thermorun.computer.mimicry import Mimicry
from thermorun.computer.spec import EPOCHS, ROTATION, SCALING, SHIFT, ComputerTraining
from thermorun.computer.teacher import Teacher
from thermorun.datasets import Images
from thermorun.errors import InputError

# The largest class may have so many times the images of the smallest before a note says so.
_UNEVEN = 20
# Tells the draw of images that are set aside from the order of an epoch, which has a number below it.
_SET_ASIDE = 2**40


@dataclass(frozen=True)
class Task:
    """A spec with all that it names read from files: images, mask, and activations if they are given."""

    spec: ComputerTraining
    images: Images
    mask: Array
    activations: tuple[Array, Array] | None
    begin: Machine | None
    pixels: Pixels
    noted: dict[str, Any]

    @classmethod
    def of(cls, spec: ComputerTraining, data: Arrays | None = None) -> "Task":
        """Reads and checks; ``data`` are in the place of the data set.  Raises InputError."""
        return cls.on(spec, training_images(spec.dataset, data, spec.classes))

    @classmethod
    def on(cls, spec: ComputerTraining, images: Images) -> "Task":
        """The same on images that are there already."""
        inputs, classes = images.x.shape[1], len(images.classes)
        if spec.connectivity in CONNECTIVITIES:
            mask = connectivity(spec.connectivity, inputs, spec.hidden, classes)
        else:
            path = Path(spec.connectivity)
            mask = mask_from_array(datasets.read_arrays(path)[""], inputs, spec.hidden, classes, str(path))
        activations = None if spec.teacher is None else teacher.given_activations(Path(spec.teacher), spec, images)
        begin = None if spec.start is None else _start(spec, images, mask)
        fingerprint = zlib.crc32(np.packbits(mask).tobytes(), images.fingerprint)
        arrays = () if begin is None else (begin.input_couplings, begin.couplings, begin.bias)
        for array in (*(activations or ()), *arrays):
            fingerprint = zlib.crc32(np.ascontiguousarray(array).tobytes(), fingerprint)
        if spec.fingerprint not in (None, fingerprint):
            raise InputError(
                f"the data set {images.name}, its mask, its teacher's activations or the machine at its start are not"
                f" those of this training (fingerprint {fingerprint}, not {spec.fingerprint})."
            )
        if spec.method == "adjoint":
            adjoint.limited(spec.physics, spec.training_steps)
        else:
            require_ideal_stable(spec.physics, spec.scale if spec.targets != "linear" else 0.0)
        named = spec.connectivity in CONNECTIVITIES
        noted = {
            "dataset": whole_path(spec.dataset),
            "connectivity": spec.connectivity if named else whole_path(spec.connectivity),
            "teacher": whole_path(spec.teacher),
            "start": None if spec.start is None else whole_path(files.find(spec.start)),
            "fingerprint": fingerprint,
        }
        noted |= _usual(spec, images)
        pixels = Pixels.of(images) if begin is None else begin.pixels
        return cls(spec.replace(**noted), images, mask, activations, begin, pixels, noted)

    @property
    def taught(self) -> bool:
        """Whether a teacher has to be trained first."""
        return self.spec.method != "adjoint" and self.activations is None

    @cached_property
    def watched(self) -> Array:
        """The training images that are set aside to watch the adjoint, bool (points,): drawn by the seed.

        Not every so-manieth: MNIST's images of easy and of difficult hands take turns.
        """
        points = len(self.images.x)
        key = np.random.SeedSequence([self.spec.seed, _SET_ASIDE])
        order = np.random.Generator(np.random.Philox(key)).permutation(points)
        found = np.zeros(points, bool)
        found[order[: round(self.spec.validation * points)]] = True
        return found

    def objective(self, network: Teacher | None) -> Objective:
        """What a descent makes small."""
        if self.spec.method == "adjoint":
            learned = np.flatnonzero(~self.watched)
            return adjoint.EndState(self.spec, self.images, learned, self.pixels, self.mask, self.begin)
        return Mimicry(self.spec, self.inputs, self.targets(network), self.mask)

    @cached_property
    def inputs(self) -> Array:
        """Of the training images, float32 (points, D)."""
        return self.pixels.inputs(self.images.x, np.float32)

    @cached_property
    def test_inputs(self) -> Array:
        """Of the held-out ones."""
        return self.pixels.inputs(self.images.test_x, np.float32)

    @cached_property
    def watched_inputs(self) -> Array:
        """Of the training images that are set aside."""
        return self.pixels.inputs(self.images.x[self.watched], np.float32)

    def machine(self, parameters: action.Parameters) -> Machine:
        """The machine with these parameters."""
        J = parameters.J.astype(float)
        return Machine(
            parameters.W, (J + J.T) / 2, parameters.b, len(self.images.classes), self.spec.physics, self.pixels,
            tuple(int(k) for k in self.images.classes), self.mask, names=self.names,
        )  # fmt: skip

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, where they are words."""
        return tuple(self.images.names[k] for k in self.images.classes) if self.images.names else ()

    def targets(self, network: Teacher | None) -> Array:
        """Targets of all training points (points, units), by the network or by the activations that were given.

        Raises InputError where idealised trajectories are unstable with them.
        """
        if network is not None:
            hidden, logits = network.activations(self.inputs)
        else:
            assert self.activations is not None
            hidden, logits = self.activations
        found = teacher.targets(self.spec, hidden, logits, self.images.labels)
        require_ideal_stable(self.spec.physics, float(np.abs(found).max()))
        return found

    def notes(self) -> list[str]:
        """What there is to say of the images."""
        images, found = self.images, []
        unseen = int((images.test_labels < 0).sum())
        if unseen:
            named = ", ".join(images.names[k] if images.names else str(k) for k in images.unseen)
            found.append(unseen_note(unseen, len(images.test_labels), named))
        seen = int(np.isin(hashes(images.test_x), hashes(images.x)).sum())
        if seen:
            found.append("held out: " + seen_note(seen, len(images.test_x)))
        sizes = np.bincount(images.labels, minlength=len(images.classes))
        if sizes.max() > _UNEVEN * sizes.min():
            words = self.names or images.classes
            found.append(
                f"classes are uneven: {sizes.min():,} training images of {words[sizes.argmin()]},"
                f" {sizes.max():,} of {words[sizes.argmax()]}; see the accuracy of each class."
            )
        return found


def _start(spec: ComputerTraining, images: Images, mask: Array) -> Machine:
    """The machine that a training starts from.  Raises InputError where it does not fit data set, units or mask."""
    assert spec.start is not None
    path = files.find(spec.start)
    machine = files.load(path, images.x.shape[1], len(images.classes) if files.is_text(path) else None)
    said = tuple(images.names[k] for k in images.classes) if images.names else tuple(int(k) for k in images.classes)
    for what, has, needs in (
        ("inputs", machine.inputs, images.x.shape[1]),
        ("hidden units", machine.hidden, spec.hidden),
        ("outputs", machine.outputs, len(images.classes)),
    ):
        if has != needs:
            raise InputError(f"start is {path}, a machine of {has} {what}; this training has {needs}.")
    if machine.said != said:
        raise InputError(
            f"start is {path}, a machine for the classes {', '.join(map(str, machine.said))}; the images are of"
            f" {', '.join(map(str, said))}."
        )
    forbidden = int(np.sum(np.hstack([machine.input_couplings, machine.couplings])[~mask] != 0))
    if forbidden:
        raise InputError(f"start is {path}, a machine with {forbidden:,} couplings that connectivity forbids.")
    machine.pixels.require_unit(images.x, images.name)
    return machine


def _usual(spec: ComputerTraining, images: Images) -> dict[str, Any]:
    """The values of fields that were not given, where they depend on the data.  Raises InputError."""
    found: dict[str, Any] = {"trajectories": spec.trajectories}
    if spec.trajectories is None:
        found["trajectories"] = EPOCHS * len(images.x) if spec.method == "adjoint" else 500_000
    if spec.method != "adjoint":
        return found
    pictures = min(images.shape) > 1
    for name, usual in (("rotation", ROTATION), ("shift", SHIFT), ("scaling", SCALING)):
        given = getattr(spec, name)
        if given and not pictures:
            raise InputError(
                f"{name} is {given:g}, but {images.name} holds no pictures of rows and columns; it must be 0."
            )
        found[name] = given if given is not None else usual * pictures
    return found


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
