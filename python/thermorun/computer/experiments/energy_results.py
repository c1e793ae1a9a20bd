"""What a measurement of energy gave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from thermorun.arrays import Array
from thermorun.computer.experiments.cycle import STAGES, rest_energy
from thermorun.computer.experiments.spec import Energy
from thermorun.computer.machine import Machine
from thermorun.computer.score import BOLTZMANN, Score
from thermorun.computer.spec import stem
from thermorun.estimates import Estimate, finite_or_none
from thermorun.results import Result
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Multiplication and addition in 45 nm CMOS at 0.9 V, J (Horowitz, "Computing's energy problem", ISSCC 2014).
HOROWITZ = {
    "8-bit integers": 0.2e-12 + 0.03e-12,
    "16-bit floats": 1.1e-12 + 0.4e-12,
    "32-bit floats": 3.7e-12 + 0.9e-12,
}
SOURCE = "Horowitz 2014, 45 nm"


class Digital(NamedTuple):
    """What the same answer takes in digital hardware: energy of a multiply-accumulate, of all, J; and the advantage."""

    hardware: str
    each: float
    total: float
    advantage: Estimate


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class EnergyResult(Result):
    """What a cycle of a machine costs.

    ``work`` and ``heat`` hold an estimate for each stage of ``STAGES``, mean per image, in energy; ``each`` float64
    (shots, images) the whole work of each cycle; ``left`` what is left in the wells at its end.  ``residual`` is the
    largest violation of the first law in any stage of any trajectory, relative to the energies that flowed in it.
    ``drives`` holds estimates of ``accuracy``, ``heat``, ``work``, ..., one for each drive
    that is done; ``drive_means`` says what a drive is.
    """

    spec: Energy
    machine: Machine
    score: Score
    work: Sequence[Estimate]
    heat: Sequence[Estimate]
    residual: float
    each: Array
    left: Estimate
    drives: dict[str, list[Estimate]]
    drive_means: str
    notes: tuple[str, ...]

    @property
    def whole_work(self) -> Estimate:
        """Of a cycle, energy."""
        return self.score.work

    @property
    def layers(self) -> tuple[int, int, int, int]:
        """Of the digital network that is the measure: as many hidden units, in two layers."""
        first = self.machine.hidden // 2
        return self.machine.inputs, first, self.machine.hidden - first, self.machine.outputs

    @property
    def products(self) -> int:
        """Multiply-accumulates of that network."""
        return sum(a * b for a, b in zip(self.layers[:-1], self.layers[1:], strict=True))

    @property
    def joules(self) -> Estimate:
        """The work of a cycle in J."""
        unit = BOLTZMANN * self.spec.temperature / self.machine.physics.kT
        work = self.whole_work
        return Estimate(work.mean * unit, work.stderr * unit, work.samples, work.dof)

    def digital(self) -> list[Digital]:
        """The energy of the digital network over the work of a cycle: with the energy asked for, and with others."""
        found, joules = [], self.joules
        for hardware, each in ({"as asked": self.spec.multiply_accumulate} | HOROWITZ).items():
            ratio = each * self.products / joules.mean
            advantage = Estimate(ratio, ratio * joules.stderr / abs(joules.mean), joules.samples, joules.dof)
            found.append(Digital(hardware, each, each * self.products, advantage))
        return found

    def rows(self) -> list[dict[str, Any]]:
        stages = [
            {"stage": name, "work": work.to_dict(), "heat": heat.to_dict()}
            for name, work, heat in zip(STAGES, self.work, self.heat, strict=True)
        ]
        advantages = [
            {"hardware": one.hardware, "multiply_accumulate": one.each, "advantage": one.advantage.to_dict()}
            for one in self.digital()
        ]
        whole = {
            "drive": None, "stages": stages, "work": self.score.work.to_dict(), "heat": self.score.heat.to_dict(),
            "left": self.left.to_dict(self._rest), "accuracy": _share(self.score.accuracy),
            "first_law_residual": finite_or_none(self.residual), "multiply_accumulates": self.products,
            "joules": self.joules.to_dict(), "advantages": advantages,
        }  # fmt: skip
        return [whole, *self._drive_rows()]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"kT": self.machine.physics.kT, "notes": list(self.notes)}

    def tables(self) -> list[Table]:
        found = [self._stages(), self._assumed(), self._against()]
        return [*found, self._bought()] if self.drives else found

    def figures(self) -> "dict[str, Figure]":
        from thermorun.computer.experiments import energy_figures

        drawn = {"": energy_figures.stages(self)}
        return drawn | ({"drives": energy_figures.dissipation(self)} if self.drives else {})

    def in_kT(self, energy: Estimate) -> Estimate:
        """An energy in units of kT."""
        kT = self.machine.physics.kT
        return Estimate(energy.mean / kT, energy.stderr / kT, energy.samples, energy.dof)

    @property
    def _rest(self) -> float:
        return self.machine.units * rest_energy(self.machine.physics)

    def _drive_rows(self) -> list[dict[str, Any]]:
        count = len(self.drives.get("accuracy", ()))
        return [
            {"drive": drive} | {name: column[i].to_dict() for name, column in self.drives.items()}
            for i, drive in enumerate(self.spec.drives[:count])
        ]

    def _stages(self) -> Table:
        physics = self.machine.physics
        rows = [
            (name, self._told(work), self._told(heat))
            for name, work, heat in zip(STAGES, self.work, self.heat, strict=True)
        ]
        rows.append(("cycle", self._told(self.score.work), self._told(self.score.heat)))
        rest = self.in_kT(self.left)
        notes = [
            f"mean per image of {self.score.images:,} images, cycles each: {self.score.shots};"
            f" kT = {physics.kT:g}, read at {physics.observation_time:g}, reset in {self.spec.reset_time:g}",
            "work: done on the machine at fixed x; heat: absorbed from the bath at fixed potential",
            f"left in the wells: {rest} kT, {self._rest / physics.kT:.4f} in equilibrium"
            f" (z = {self.left.z(self._rest):+.1f})",
            f"first law, stage by stage and cycle by cycle: within {self.residual:.0e} of the energies that flow",
            *self.notes,
        ]
        if self.score.accuracy is not None:
            notes.insert(1, f"accuracy of single shots: {self.score.accuracy} percent")
        title = f"Energy of a classification by {stem(self.spec.file)}"
        return Table(title, ("stage", "work / kT", "heat / kT"), rows, notes)

    def _assumed(self) -> Table:
        rows = [
            ("digital network", " - ".join(map(str, self.layers)), "as many hidden units"),
            ("multiply-accumulates", f"{self.products:,}", "one a weight"),
            ("memory, biases, tanh", "free", "favours the network"),
            ("switches, wires, read-out", "free", "favours the machine"),
            ("temperature", f"{self.spec.temperature:g} K", "--temperature"),
            ("kT", f"{BOLTZMANN * self.spec.temperature:.3e} J", "exact in the SI"),
            ("work of a cycle", f"{self.joules} J", "measured"),
        ]
        return Table("Against a digital network: what is assumed", ("assumption", "value", "whence"), rows)

    def _against(self) -> Table:
        rows = [
            (
                one.hardware,
                f"{one.each:.3g}",
                f"{one.total:.3g}",
                f"{one.advantage.mean:.3g} ± {one.advantage.stderr:.1g}",
            )
            for one in self.digital()
        ]
        headings = ("hardware", "multiply-accumulate / J", "network / J", "times the machine")
        notes = [f"as asked: --multiply-accumulate; the others: {SOURCE}"]
        return Table("Against a digital network: the advantage", headings, rows, notes)

    def _bought(self) -> Table:
        d, rows, retraining = self.drives, [], self.spec.retraining
        for i, drive in enumerate(self.spec.drives[: len(d["accuracy"])]):
            rows.append((f"{drive:.4g}", str(d["accuracy"][i]), self._told(d["work"][i]), self._told(d["heat"][i])))
        notes = [
            f"a machine retrained at each drive: {self.drive_means}",
            *([f"each saw {retraining:,} trajectories"] if retraining else []),
            "all at the same images and random numbers",
            "work: of the whole cycle; heat: until the read-out",
        ]
        return Table("Accuracy against dissipation", ("drive", "accuracy / %", "work / kT", "heat / kT"), rows, notes)

    def _told(self, energy: Estimate) -> str:
        return "0" if energy.mean == 0 and not energy.stderr > 0 else str(self.in_kT(energy))


def _share(one: Estimate | None) -> dict[str, Any] | None:
    return None if one is None else one.to_dict()
