"""What a comparison gave."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.experiments.device_results import in_percent
from thermorun.computer.experiments.spec import Comparison
from thermorun.computer.spec import stem
from thermorun.estimates import Estimate, over_both, over_replicas
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Budgets, and the way whose time is the measure.
EQUAL, TIMED, CLOSED = "trajectories", "seconds", "closed form"
REFERENCE = "Adam"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ComparisonResult(Result):
    """Accuracies by (way, budget).

    ``shares`` float64 (seeds, images), the share of right shots; ``seconds`` (seeds,) of training; ``trajectories``
    that it saw.  Budgets are equal ``trajectories``, equal ``seconds``, and ``closed form``.
    """

    spec: Comparison
    shares: dict[tuple[str, str], Array]
    seconds: dict[tuple[str, str], Array]
    trajectories: dict[tuple[str, str], float]
    notes: tuple[str, ...]

    def accuracy(self, way: str, budget: str) -> Estimate:
        """Mean over seeds, with seeds and images drawn anew."""
        return over_both(self.shares[way, budget])

    def over_reference(self, way: str, budget: str) -> Estimate | None:
        """Accuracy beyond Adam's at equal trajectories, at the same images; None for Adam itself, and before it."""
        base = self.shares.get((REFERENCE, EQUAL))
        mine = self.shares[way, budget]
        if base is None or (way, budget) == (REFERENCE, EQUAL):
            return None
        count = min(len(base), len(mine))
        return over_both(mine[:count] - base[:count])

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for way, budget in self.shares:
            beyond = self.over_reference(way, budget)
            found.append(
                {
                    "way": way, "budget": budget, "accuracy": self.accuracy(way, budget).to_dict(),
                    "over_adam": None if beyond is None else beyond.to_dict(),
                    "seconds": over_replicas(self.seconds[way, budget]).to_dict(),
                    "trajectories": self.trajectories[way, budget], "seeds": len(self.shares[way, budget]),
                }
            )  # fmt: skip
        return found

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"notes": list(self.notes)}

    def tables(self) -> list[Table]:
        rows = []
        for way, budget in self.shares:
            beyond = self.over_reference(way, budget)
            rows.append(
                (
                    budget, way, in_percent(self.accuracy(way, budget)),
                    "" if beyond is None else in_percent(beyond),
                    f"{self.trajectories[way, budget]:,.0f}", f"{np.median(self.seconds[way, budget]):.2g}",
                )
            )  # fmt: skip
        for i in range(len(rows) - 1, 0, -1):
            if rows[i][0] == rows[i - 1][0]:
                rows[i] = ("", *rows[i][1:])
        spec = self.spec
        notes = [
            f"{spec.hidden} hidden units, seeds: {spec.seeds}, shots an image: {spec.shots}; errors: seeds and images"
            " drawn anew",
            "trajectories: as many for all; seconds: as many as a way sees in the time that Adam took for these",
            "over Adam: at the same images; seen: trajectories; s: median seconds of training, its teacher left out",
            "closed form: by where the teacher's trajectories go; interacting: those of the adjoint's machine",
            *self.notes,
        ]
        headings = ("equal", "way", "accuracy / %", "over Adam / %", "seen", "s")
        return [Table(f"Ways to train on {stem(spec.dataset)}", headings, rows, notes, keys=2)]

    def figures(self) -> "dict[str, Figure]":
        from thermorun.computer.experiments import compare_figures

        return {"": compare_figures.compared(self)}
