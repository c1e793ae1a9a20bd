"""What devices gave."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.experiments.spec import Devices
from thermorun.computer.machine import Machine
from thermorun.computer.spec import stem
from thermorun.estimates import Estimate, finite_or_none, over_both
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENETIC, AWARE = "genetic", "trained with noise"
_NAMES = {GENETIC: "genetic algorithm", AWARE: "trained with noise"}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DevicesResult(Result):
    """Accuracies of devices.

    ``shares`` holds, for each (how, level) that is begun, the share of right shots, float64 (devices, images): how is
    ``as trained``, ``relative``, ``absolute``, ``bits``, ``genetic``, ``trained with noise``.  ``searches`` float64
    (devices, generations) is the share of right answers of the best, on the training images that a generation saw.
    """

    spec: Devices
    machine: Machine
    shares: dict[tuple[str, float], Array]
    searches: Array
    notes: tuple[str, ...]

    @property
    def reference(self) -> Array:
        """Of the machine as it was trained, (1, images)."""
        return self.shares["as trained", 0.0]

    def accuracy(self, how: str, level: float) -> Estimate:
        """Mean over devices, with devices and images drawn anew."""
        return over_both(self.shares[how, level])

    def lost(self, how: str, level: float) -> Estimate:
        """Accuracy of the machine as trained less that of its devices, at the same images."""
        return over_both(self.reference - self.shares[how, level])

    def between(self, how: str, level: float) -> float:
        """Standard deviation of accuracy between devices; NaN for one alone."""
        means = self.shares[how, level].mean(axis=1)
        return float(means.std(ddof=1)) if len(means) > 1 else np.nan

    def gained(self, how: str) -> Estimate:
        """Accuracy of retrained devices less that of the same devices as they were."""
        after, before = self._pair(how)
        return over_both(after - before)

    def recovered(self, how: str) -> Estimate:
        """What was gained, in what had been lost by the same devices; its error is that of the ratio, linearised."""
        after, before = self._pair(how)
        gained, lost = after - before, self.reference - before
        whole = lost.mean()
        if whole == 0:
            return Estimate(np.nan, np.nan)
        ratio = gained.mean() / whole
        error = over_both(gained - ratio * lost)
        return Estimate(float(ratio), error.stderr / abs(whole), error.samples, error.dof)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "how": how, "level": level, "devices": len(share), "accuracy": self.accuracy(how, level).to_dict(),
                "between_devices": finite_or_none(self.between(how, level)), "lost": self.lost(how, level).to_dict(),
            }
            | self._recovery(how, level)
            for (how, level), share in self.shares.items()
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"notes": list(self.notes), "searches": finite_or_none(self.searches)}

    def tables(self) -> list[Table]:
        spec = self.spec
        rows = [
            (how, "" if how == "as trained" else f"{level:g}", *self._cells(how, level))
            for how, level in self.shares
            if how not in _NAMES
        ]
        notes = [
            "relative: p (1 + level z); absolute: p + level z rms(p); bits: of 2^bits - 1 values up to the largest",
            f"shots an image: {spec.shots}; errors: devices and images drawn anew; lost: at the same images",
            *self.notes,
        ]
        headings = ("devices", "level", "number", "accuracy / %", "between / %", "lost / %")
        found = [Table(f"Devices of {stem(spec.file)}", headings, rows, notes, keys=2)]
        if any(how in _NAMES for how, _ in self.shares):
            found.append(self._retrained())
        return found

    def figures(self) -> "dict[str, Figure]":
        from thermorun.computer.experiments import device_figures

        drawn = {"": device_figures.spreads(self)}
        if any(self.has(how) for how in _NAMES):
            drawn["recovery"] = device_figures.recovery(self)
        return drawn

    def has(self, how: str) -> bool:
        """Whether devices that were retrained in this way are there."""
        return (how, self.spec.level) in self.shares and ("relative", self.spec.level) in self.shares

    def _pair(self, how: str) -> tuple[Array, Array]:
        """The same devices after and before."""
        after = self.shares[how, self.spec.level]
        return after, self.shares["relative", self.spec.level][: len(after)]

    def _recovery(self, how: str, level: float) -> dict[str, Any]:
        if how not in _NAMES or level != self.spec.level or not self.has(how):
            return {}
        return {"gained": self.gained(how).to_dict(), "recovered": self.recovered(how).to_dict()}

    def _cells(self, how: str, level: float) -> tuple[str, ...]:
        between = self.between(how, level)
        lost = "" if how == "as trained" else in_percent(self.lost(how, level))
        return (
            str(len(self.shares[how, level])), in_percent(self.accuracy(how, level)),
            "" if np.isnan(between) else f"{100 * between:.1f}", lost,
        )  # fmt: skip

    def _retrained(self) -> Table:
        spec, rows = self.spec, []
        rows.append(("as spread", *self._cells("relative", spec.level)[:2], "", ""))
        for how in filter(self.has, _NAMES):
            gained, share = in_percent(self.gained(how)), in_percent(self.recovered(how), 0)
            rows.append((_NAMES[how], *self._cells(how, spec.level)[:2], gained, share))
        if (AWARE, 0.0) in self.shares:
            rows.append(("the same, not spread", *self._cells(AWARE, 0.0)[:2], "", ""))
        notes = [
            f"genetic algorithm: {spec.generations} generations of {spec.population}, mutations of {spec.mutation:g},"
            " sees right and wrong answers of noisy shots",
            "trained with noise: its training averaged over that spread from the start",
            "recovered: gained in what the same devices had lost",
            *([f"trained anew with {spec.retraining:,} trajectories"] if spec.retraining else []),
        ]
        headings = ("devices", "number", "accuracy / %", "gained / %", "recovered / %")
        return Table(f"Retrained at a relative spread of {spec.level:g}", headings, rows, notes)


def in_percent(share: Estimate, digits: int = 2) -> str:
    """A share in percent, with its standard error."""
    if np.isnan(share.mean):
        return "?"
    error = "?" if np.isnan(share.stderr) else f"{100 * share.stderr:.{digits}f}"
    return f"{100 * share.mean:.{digits}f} ± {error}"
