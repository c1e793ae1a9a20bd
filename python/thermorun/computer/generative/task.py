"""What is to be learned: images as codes of units, their classes, and who judges the pictures."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from thermokernels.random import fill_normals
from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.generative import closed_form
from thermorun.computer.generative.closed_form import Sums
from thermorun.computer.generative.noising import Law, laws
from thermorun.computer.generative.spec import Generation
from thermorun.computer.images import Arrays, training_images, whole_path
from thermorun.datasets import Images
from thermorun.errors import InputError

# Images of each class, none of those learned, that the judge of pictures knows; and on how many it is tried.
_KNOWN, _TRIED = 500, 1000
_NEIGHBOURS = 5
_DEFAULT_CLASSES = 3


@dataclass(frozen=True)
class Task:
    """A spec with its images read.

    ``visible`` float64 (images, pixels): those to learn, each of mean zero and variance one, class by class; ``labels``
    int64 (images,) the numbers of their classes; ``codes`` (images, units) the forces' codes, hidden units first.
    """

    spec: Generation
    data: Images
    visible: Array
    labels: Array
    codes: Array
    noted: dict[str, Any]

    @classmethod
    def of(cls, spec: Generation, data: Arrays | None = None) -> "Task":
        """Reads and checks; ``data`` are in the place of the data set.  Raises InputError."""
        images = training_images(spec.dataset, data, spec.classes, spec.images)
        if spec.classes is None and len(images.classes) > _DEFAULT_CLASSES:
            first = images.classes[:_DEFAULT_CLASSES]
            names = tuple(images.names[k] if images.names else int(k) for k in first)
            images = training_images(spec.dataset, data, names, spec.images)
        chosen = _first_of_each(images, spec.images)
        visible, labels = standard(images.x[chosen]), images.labels[chosen]
        if spec.codes == "pixels" and spec.hidden > visible.shape[1]:
            raise InputError(
                f"hidden is {spec.hidden}, but codes are pixels, of which there are {visible.shape[1]};"
                " take no more, or other codes."
            )
        if (spec.clamped in ("upper", "lower") and images.shape[0] < 2) or (spec.clamped and images.shape[1] < 2):
            raise InputError(f"clamped is {spec.clamped}, but images of shape {images.shape} have no such half.")
        codes = np.hstack([hidden_codes(spec, visible), visible])
        fingerprint = zlib.crc32(np.ascontiguousarray(chosen).tobytes(), images.fingerprint)
        if spec.fingerprint not in (None, fingerprint):
            raise InputError(
                f"the data set {images.name} is not that of this run (fingerprint {fingerprint}, not"
                f" {spec.fingerprint})."
            )
        noted = {"dataset": whole_path(spec.dataset), "fingerprint": fingerprint}
        return cls(spec.replace(**noted), images, visible, labels, codes, noted)

    @property
    def units(self) -> int:
        """Hidden and visible ones."""
        return int(self.codes.shape[1])

    @property
    def said(self) -> tuple[int | str, ...]:
        """What the classes are called."""
        return tuple(self.data.names[k] if self.data.names else int(k) for k in self.data.classes)

    @property
    def tilt(self) -> Array:
        """f of every unit, float64 (units,)."""
        return np.where(np.arange(self.units) < self.spec.hidden, 0.0, self.spec.field)

    @property
    def free(self) -> Array:
        """Which units learn a bias, bool (units,)."""
        hidden = np.arange(self.units) < self.spec.hidden
        return {"all": np.ones_like(hidden), "hidden": hidden, "none": np.zeros_like(hidden)}[self.spec.biases]

    @property
    def design(self) -> Array:
        """What multiplies the biases of each image: one, or one for its class, float64 (images, inputs)."""
        if not self.spec.conditional:
            return np.ones((len(self.labels), 1))
        return np.eye(len(self.data.classes))[self.labels]

    @cached_property
    def wells(self) -> tuple[Law, Law]:
        """The laws of hidden and of visible units."""
        hidden, visible = laws(self.spec.physics, (0.0, self.spec.field), self.codes)
        return hidden, visible

    @cached_property
    def sums(self) -> Sums:
        """Over all images and times."""
        return Sums.of(self.spec.physics, self.codes, self.spec.hidden, self.design, self.wells)

    @cached_property
    def minimum(self) -> tuple[Array, Array]:
        """Couplings and biases of least mean action."""
        return closed_form.minimise(self.sums, self.spec.hidden, self.free)

    @cached_property
    def judge(self) -> "Judge":
        """A classifier that has not seen the images to learn."""
        return Judge.of(self.data, self.spec.images)


def standard(x: Array) -> Array:
    """Images (points, D) of mean zero and variance one each, float64.  Raises InputError for one without contrast."""
    values = np.asarray(x, np.float64)
    values = values - values.mean(axis=1, keepdims=True)
    deviation = values.std(axis=1, keepdims=True)
    if np.any(deviation == 0):
        raise InputError(f"image {int(np.argmin(deviation))} is the same everywhere; there is nothing to learn of it.")
    return np.asarray(values / deviation)


def hidden_codes(spec: Generation, visible: Array) -> Array:
    """Codes of the hidden units, float64 (images, hidden): pixels, projections P^T s with P ~ N(0, 1/pixels), or the
    signs of these (Whitelam 2026; Wang & Deng 2026)."""
    if spec.codes == "pixels":
        return np.array(visible[:, : spec.hidden])
    pixels = visible.shape[1]
    projection = np.empty(pixels * spec.hidden)
    fill_normals(projection, *streams.generative(spec.seed, "codes").take(), 0)
    found = visible @ projection.reshape(pixels, spec.hidden) / np.sqrt(pixels)
    return np.asarray(np.sign(found) if spec.codes == "signs" else found)


def _first_of_each(images: Images, count: int) -> Array:
    """The first images of each class, class by class.  Raises InputError where one has not so many."""
    sizes = np.bincount(images.labels, minlength=len(images.classes))
    if count > sizes.min():
        raise InputError(f"images is {count}; the smallest class of {images.name} has {sizes.min():,} to learn from.")
    return np.concatenate([np.flatnonzero(images.labels == k)[:count] for k in range(len(images.classes))])


@dataclass(frozen=True)
class Judge:
    """Says of which class a picture is: its nearest neighbours among images that no machine has learned.

    ``known`` (points, D) and ``labels`` are those; ``accuracy`` is its share of right answers on held-out images.
    """

    known: Array
    labels: Array
    accuracy: float

    @classmethod
    def of(cls, images: Images, learned: int) -> "Judge":
        """From the images of each class after the first ``learned``; where there are none, from the learned ones."""
        chosen = []
        for k in range(len(images.classes)):
            own = np.flatnonzero(images.labels == k)
            others = own[learned : learned + _KNOWN]
            others = others[np.ptp(images.x[others], axis=1) > 0]
            chosen.append(others if len(others) else own[:learned])
        places = np.concatenate(chosen)
        judge = cls(standard(images.x[places]), images.labels[places], np.nan)
        tried = np.flatnonzero(np.ptp(images.test_x, axis=1) > 0)
        tried = tried[:: max(1, -(-len(tried) // _TRIED))]
        if not len(tried):
            return judge
        right = judge(images.test_x[tried]) == images.test_labels[tried]
        return cls(judge.known, judge.labels, float(np.mean(right)))

    def __call__(self, x: Array) -> Array:
        """Numbers of classes of pictures (points, D), int64 (points,)."""
        from sklearn.neighbors import KNeighborsClassifier

        # A vote of few would be for whatever class has most.
        neighbours = _NEIGHBOURS if np.unique(self.labels, return_counts=True)[1].min() >= _NEIGHBOURS else 1
        voter = KNeighborsClassifier(neighbours, algorithm="brute").fit(self.known, self.labels)
        return np.asarray(voter.predict(standard(x)), np.int64)
