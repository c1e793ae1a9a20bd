"""The columns of a file's section that holds a score a row: of a sweep, of machines that were trained anew."""

from typing import Any

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.score import Accuracy, Score
from thermorun.estimates import Estimate
from thermorun.store import Variable

SHARES, ENERGIES = ("accuracy", "top2", "vote"), ("heat", "work")
_PARTS = {
    "": "",
    "_stderr": "its standard error, images and noise drawn anew",
    "_stderr_images": "the part of it that is due to images",
    "_stderr_noise": "the part of it that is due to noise",
}
_MEANINGS = {
    "accuracy": "share of single shots at the images that are right",
    "top2": "share of shots whose two largest outputs hold the label",
    "vote": "share of images whose mean outputs over all shots are right",
    "heat": "heat absorbed from the bath during a classification",
    "work": "work of switching on before it and off after it",
}


def variables(axis: str) -> list[Variable]:
    """Of a section whose rows are along ``axis``."""
    shares = [
        Variable(name + part, (axis,), "1", text or _MEANINGS[name]) for name in SHARES for part, text in _PARTS.items()
    ]
    energies = [
        Variable(name + part, (axis,), "energy", text or _MEANINGS[name])
        for name in ENERGIES
        for part, text in list(_PARTS.items())[:2]
    ]
    return [*shares, *energies]


def of_score(score: Score) -> dict[str, Array]:
    """One row, each (1,)."""
    found: dict[str, Any] = {}
    for name in (*SHARES, *ENERGIES):
        one = getattr(score, name)
        found |= {name: one.mean, f"{name}_stderr": one.stderr}
        if name in SHARES:
            found |= {name + part: getattr(one, part[1:]) for part in list(_PARTS)[2:]}
    return {name: np.array([value]) for name, value in found.items()}


def read(stored: dict[str, Array], rows: int, images: int) -> dict[str, list[Estimate]]:
    """The first ``rows``: one estimate a row for each share and each energy."""

    def share(name: str, i: int) -> Accuracy:
        mean, stderr, *parts = (float(stored[name + part][i]) for part in _PARTS)
        return Accuracy(mean, stderr, images, images - 1.0, *parts)

    def energy(name: str, i: int) -> Estimate:
        return Estimate(float(stored[name][i]), float(stored[f"{name}_stderr"][i]), images)

    found: dict[str, list[Estimate]] = {name: [share(name, i) for i in range(rows)] for name in SHARES}
    return found | {name: [energy(name, i) for i in range(rows)] for name in ENERGIES if name in stored}
