"""How well a machine classifies, how sure that is, and what it costs."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.machine import Machine
from thermorun.estimates import Estimate, finite_or_none

BOLTZMANN = 1.380649e-23  # J / K, exact in the SI since 2019
ROOM = 300.0  # K
# A multiply-accumulate in digital hardware, J: of the order of Horowitz, "Computing's energy problem", ISSCC 2014.
MULTIPLY_ACCUMULATE = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Accuracy(Estimate):
    """A share of right answers, over images and shots.

    ``stderr`` is that of the mean, images and noise being drawn anew; ``stderr_images`` and ``stderr_noise`` are its
    two parts, which one shot an image cannot tell apart: NaN.
    """

    stderr_images: float = np.nan
    stderr_noise: float = np.nan

    @classmethod
    def of(cls, hits: Array, shots: int) -> Self:
        """From how many of ``shots`` hit at each image, (images,)."""
        images = len(hits)
        if not images:
            return cls(np.nan, np.nan)
        each = hits / shots
        total = each.var(ddof=1) / images if images > 1 else np.nan
        if total == 0:
            # All right, or all wrong, is no proof of certainty: Laplace's rule of succession.
            guess = (hits.sum() + 1) / (images * shots + 2)
            total = guess * (1 - guess) / images
        noise = np.mean(each * (1 - each)) / (shots - 1) / images if shots > 1 else np.nan
        parts = (np.sqrt(np.maximum(total - noise, 0.0)), np.sqrt(noise))
        return cls(float(each.mean()), float(np.sqrt(total)), images, images - 1.0, *map(float, parts))

    def to_dict(self, exact: Any = None) -> dict[str, Any]:
        """For JSON: what is not known is null."""
        parts = {name: finite_or_none(getattr(self, name)) for name in ("stderr_images", "stderr_noise")}
        return super().to_dict(exact) | parts

    def __str__(self) -> str:
        """In percent, with its standard error."""
        if np.isnan(self.mean):
            return "?"
        return f"{100 * self.mean:.2f} ± " + ("?" if np.isnan(self.stderr) else f"{100 * self.stderr:.2f}")

    __repr__ = __str__


@dataclass
class Tally:
    """What shots of the same images add up to, so that no shot need be kept.

    ``labels`` int64 (images,), numbers of classes, -1 for a class that the machine has no output for; None where the
    images have no labels.
    """

    labels: Array | None
    outputs: Array
    first: Array = field(init=False)
    second: Array = field(init=False)
    answers: Array = field(init=False)
    heat: Array = field(init=False)
    work: Array = field(init=False)
    shots: int = 0

    def __post_init__(self) -> None:
        images, classes = self.outputs.shape
        self.first, self.second = np.zeros(images, np.int64), np.zeros(images, np.int64)
        self.answers = np.zeros((images, classes), np.int64)
        self.heat, self.work = np.zeros(images), np.zeros(images)

    @classmethod
    def empty(cls, labels: Array | None, images: int, classes: int) -> Self:
        """Of no shots yet."""
        return cls(labels, np.zeros((images, classes), np.float32))

    def add(self, output: Array, heat: Array, work: Array) -> None:
        """One shot: outputs (images, classes) at the observation time, heat and work (images,)."""
        ranked = np.argsort(-output, axis=1, kind="stable")
        self.answers[np.arange(len(ranked)), ranked[:, 0]] += 1
        if self.labels is not None:
            hits = ranked == self.labels[:, None]
            self.first += hits[:, 0]
            self.second += hits[:, :2].any(axis=1)
        self.outputs += output
        self.heat += heat
        self.work += work
        self.shots += 1

    @property
    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps, besides ``shots``."""
        return {name: getattr(self, name) for name in ("outputs", "first", "second", "answers", "heat", "work")}

    @property
    def answer(self) -> Array:
        """The class of the largest mean output of every image, intp (images,): its number."""
        return np.asarray(np.argmax(self.outputs / np.float32(self.shots), axis=1))

    @property
    def agreement(self) -> Array:
        """Share of the shots of every image that gave that answer, (images,)."""
        return np.asarray(self.answers[np.arange(len(self.answers)), self.answer] / self.shots)


@dataclass
class Votes:
    """A tally of votes: ``size`` shots one after the other make one, with their mean output and all their energies.

    Shots beyond ``most`` votes are not counted.
    """

    tally: Tally
    size: int
    most: int
    _output: Array = field(init=False)
    _heat: Array = field(init=False)
    _work: Array = field(init=False)
    _taken: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._output = np.zeros_like(self.tally.outputs)
        self._heat, self._work = np.zeros(len(self._output)), np.zeros(len(self._output))

    def add(self, output: Array, heat: Array, work: Array) -> None:
        """One shot, as for a tally."""
        if self.tally.shots == self.most:
            return
        self._output += output
        self._heat += heat
        self._work += work
        self._taken += 1
        if self._taken == self.size:
            self.tally.add(self._output / np.float32(self.size), self._heat, self._work)
            for held in (self._output, self._heat, self._work):
                held[...] = 0
            self._taken = 0

    @property
    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps, besides the number of shots."""
        return self.tally.state | {"vote_output": self._output, "vote_heat": self._heat, "vote_work": self._work}

    def restore(self, state: dict[str, Array], shots: int) -> None:
        """Puts it back as it was after so many shots."""
        shots = min(shots, self.most * self.size)
        for name, array in self.state.items():
            array[...] = state[name]
        self.tally.shots, self._taken = divmod(shots, self.size)


@dataclass(frozen=True)
class Score:
    """Accuracy of single shots, of the two largest outputs, and of votes (the mean output of all shots); energies.

    All accuracies are None where the images have no labels.  ``by_class`` has one accuracy a class.  ``heat`` is
    absorbed from the bath during a classification, ``work`` is done on the machine by switching its fields on at x = 0
    (nothing) and off again at the end; both in energy.  ``confusion`` int64 (classes, classes), from the label to the
    answer, all shots; labels without an output are not in it.
    """

    accuracy: Accuracy | None
    top2: Accuracy | None
    vote: Accuracy | None
    by_class: tuple[Accuracy, ...]
    heat: Estimate
    work: Estimate
    confusion: Array
    shots: int
    images: int

    @classmethod
    def of(cls, tally: Tally) -> "Score":
        """From what all shots add up to."""
        labels, shots = tally.labels, tally.shots
        images, classes = tally.answers.shape
        accuracy = top2 = vote = None
        by_class: tuple[Accuracy, ...] = ()
        confusion = np.zeros((classes, classes), np.int64)
        if labels is not None:
            accuracy, top2 = Accuracy.of(tally.first, shots), Accuracy.of(tally.second, shots)
            vote = Accuracy.of((tally.answer == labels).astype(np.int64), 1)
            by_class = tuple(Accuracy.of(tally.first[labels == k], shots) for k in range(classes))
            np.add.at(confusion, labels[labels >= 0], tally.answers[labels >= 0])
        energies = (over_images(tally.heat / shots), over_images(tally.work / shots))
        return cls(accuracy, top2, vote, by_class, *energies, confusion, shots, images)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        shares = {"accuracy": self.accuracy, "top2": self.top2, "vote": self.vote}
        return {name: None if share is None else share.to_dict() for name, share in shares.items()} | {
            "heat": self.heat.to_dict(),
            "work": self.work.to_dict(),
            "shots": self.shots,
            "images": self.images,
        }


def advantage(score: Score, machine: Machine, teacher_hidden: int) -> float:
    """Energy of the digital network that the machine imitates, over the heat of one classification at 300 K.

    inputs - hidden/2 - hidden/2 - outputs multiply-accumulates at 1 pJ, against heat in units of kT.
    """
    first = teacher_hidden // 2
    second = teacher_hidden - first
    products = machine.inputs * first + first * second + second * machine.outputs
    unit = BOLTZMANN * ROOM / machine.physics.kT if machine.physics.kT > 0 else np.nan
    return float(products * MULTIPLY_ACCUMULATE / (abs(score.heat.mean) * unit))


def over_images(each: Array) -> Estimate:
    """The mean of a number an image, (images,), images being drawn anew."""
    count = len(each)
    stderr = float(each.std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan
    return Estimate(float(each.mean()), stderr, count, max(count - 1.0, 1.0))
