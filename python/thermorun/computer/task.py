"""A training before it runs: its spec with all that it names read from files, and checked."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thermorun import datasets
from thermorun.arrays import Array
from thermorun.computer import action, teacher
from thermorun.computer.images import Arrays, hashes, seen_note, training_images, unseen_note, whole_path
from thermorun.computer.machine import CONNECTIVITIES, Machine, Physics, Pixels, connectivity, mask_from_array
from thermorun.computer.spec import ComputerTraining
from thermorun.computer.teacher import Teacher
from thermorun.datasets import Images
from thermorun.errors import InputError

# The largest class may have so many times the images of the smallest before a note says so.
_UNEVEN = 20


@dataclass(frozen=True)
class Task:
    """A spec with all that it names read from files: images, mask, and activations if they are given."""

    spec: ComputerTraining
    images: Images
    mask: Array
    activations: tuple[Array, Array] | None
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
        fingerprint = zlib.crc32(np.packbits(mask).tobytes(), images.fingerprint)
        for array in activations or ():
            fingerprint = zlib.crc32(np.ascontiguousarray(array).tobytes(), fingerprint)
        if spec.fingerprint not in (None, fingerprint):
            raise InputError(
                f"the data set {images.name}, its mask or its teacher's activations are not those of this training"
                f" (fingerprint {fingerprint}, not {spec.fingerprint})."
            )
        require_ideal_stable(spec.physics, spec.scale if spec.targets != "linear" else 0.0)
        named = spec.connectivity in CONNECTIVITIES
        noted = {
            "dataset": whole_path(spec.dataset),
            "connectivity": spec.connectivity if named else whole_path(spec.connectivity),
            "teacher": whole_path(spec.teacher),
            "fingerprint": fingerprint,
        }
        return cls(spec.replace(**noted), images, mask, activations, Pixels.of(images), noted)

    @cached_property
    def inputs(self) -> Array:
        """Of the training images, float32 (points, D)."""
        return self.pixels.inputs(self.images.x, np.float32)

    @cached_property
    def test_inputs(self) -> Array:
        """Of the held-out ones."""
        return self.pixels.inputs(self.images.test_x, np.float32)

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
