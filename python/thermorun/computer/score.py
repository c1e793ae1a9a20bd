"""How well a machine classifies, how sure that is, and what it costs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.computer.machine import Machine
from thermorun.estimates import Estimate, finite_or_none

Array = NDArray[Any]

BOLTZMANN = 1.380649e-23  # J / K, exact in the SI since 2019
ROOM = 300.0  # K
# A multiply-accumulate in digital hardware, J: of the order of Horowitz, "Computing's energy problem", ISSCC 2014.
MULTIPLY_ACCUMULATE = 1e-12


@dataclass(frozen=True)
class Share:
    """A share of right answers, over images and shots.

    ``stderr`` is that of the mean, images and noise being drawn anew; ``stderr_images`` and ``stderr_noise`` are its
    two parts, which one shot an image cannot tell apart: NaN.
    """

    mean: float
    stderr: float
    stderr_images: float
    stderr_noise: float

    @classmethod
    def of(cls, hits: Array) -> "Share":
        """From what each shot at each image hit, bool (shots, images)."""
        shots, images = hits.shape
        each = hits.mean(axis=0)
        total = each.var(ddof=1) / images if images > 1 else np.nan
        if shots == 1:
            return cls(float(each.mean()), float(np.sqrt(total)), np.nan, np.nan)
        noise = np.mean(each * (1 - each)) / (shots - 1) / images
        return cls(
            float(each.mean()), float(np.sqrt(total)), float(np.sqrt(max(total - noise, 0.0))), float(np.sqrt(noise))
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what is not known is null."""
        return {name: finite_or_none(value) for name, value in vars(self).items()}

    def __str__(self) -> str:
        """In percent, with its standard error."""
        return f"{100 * self.mean:.2f} ± {100 * self.stderr:.2f}"


@dataclass(frozen=True)
class Score:
    """Accuracy of single shots, of the two largest outputs, and of votes (the mean output of all shots); energies.

    ``heat`` is absorbed from the bath during a classification, ``work`` is done on the machine by switching its fields
    on at x = 0 (nothing) and off again at the end; both in energy.  ``confusion`` int64 (classes, classes), from the
    label to the answer, all shots.
    """

    accuracy: Share
    top2: Share
    vote: float
    heat: Estimate
    work: Estimate
    confusion: Array
    shots: int
    images: int

    @classmethod
    def of(cls, outputs: Array, heat: Array, work: Array, labels: Array) -> "Score":
        """From outputs (shots, images, classes) at the observation time, and energies (shots, images)."""
        shots, images, classes = outputs.shape
        ranked = np.argsort(-outputs, axis=2, kind="stable")
        hits = ranked == labels[None, :, None]
        confusion = np.zeros((classes, classes), np.int64)
        np.add.at(confusion, (np.broadcast_to(labels, (shots, images)), ranked[:, :, 0]), 1)
        return cls(
            Share.of(hits[:, :, 0]), Share.of(hits[:, :, :2].any(axis=2)),
            float(np.mean(np.argmax(outputs.mean(axis=0), axis=1) == labels)),
            _over_images(heat), _over_images(work), confusion, shots, images,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accuracy": self.accuracy.to_dict(),
            "top2": self.top2.mean,
            "top2_stderr": finite_or_none(self.top2.stderr),
            "vote": self.vote,
            "heat": self.heat.to_dict(),
            "work": self.work.to_dict(),
            "shots": self.shots,
            "images": self.images,
        }


def shoot(machine: Machine, fields: Array, seed: int, shot: int) -> dict[str, Array]:
    """One noisy trajectory an image: outputs (images, classes) at the observation time, heat and work (images,).

    Shot number ``shot`` has that random stream, so that more shots begin with the same ones.
    """
    run = machine.run(fields, seed=seed, stream=shot)
    return {"output": run.x[:, machine.hidden :], "heat": run.heat, "work": reset_work(run.x, fields)}


def reset_work(x: Array, fields: Array) -> Array:
    """Work of switching all fields off at x, V(x) without them minus V(x) with them: -h.x, float64 (points,)."""
    work: Array = -np.einsum("ij,ij->i", x, fields, dtype=np.float64)
    return work


def advantage(score: Score, machine: Machine, teacher_hidden: int) -> float:
    """Energy of the digital network that the machine imitates, over the heat of one classification at 300 K.

    inputs - hidden/2 - hidden/2 - outputs multiply-accumulates at 1 pJ, against heat in units of kT.
    """
    first = teacher_hidden // 2
    second = teacher_hidden - first
    products = machine.inputs * first + first * second + second * machine.outputs
    unit = BOLTZMANN * ROOM / machine.physics.kT if machine.physics.kT > 0 else np.nan
    return float(products * MULTIPLY_ACCUMULATE / (abs(score.heat.mean) * unit))


def _over_images(values: Array) -> Estimate:
    each = values.mean(axis=0)
    return Estimate(float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else np.nan)
