"""Pictures of energies.  Each draws into axes of the caller's; the compositions at the end are what is saved."""

from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.computer.experiments.cycle import STAGES
from thermorun.computer.experiments.energy_results import EnergyResult
from thermorun.computer.figures import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORK, _HEAT = plots.COLOURS[0], plots.COLOURS[1]


def flows(ax: "Axes", result: EnergyResult) -> None:
    """Mean work and heat of each stage; two standard errors are narrower than the lines."""
    kT = result.machine.physics.kT
    for k in range(len(STAGES)):
        for estimate, colour, label in ((result.work[k], _WORK, "work"), (result.heat[k], _HEAT, "heat")):
            mean = estimate.mean / kT
            if mean:
                ax.bar(k, mean, yerr=2 * estimate.stderr / kT, color=colour, width=0.6, capsize=2)
                ax.annotate(
                    f"{label} {mean:.3g}", (k, mean), (0, 3 if mean > 0 else -3), textcoords="offset points",
                    ha="center", va="bottom" if mean > 0 else "top", fontsize="small",
                )  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(STAGES)), STAGES)
    ax.set_xlim(-0.6, len(STAGES) - 0.4)
    ax.set_ylabel(r"energy / $k_\mathrm{B}T$")
    ax.margins(y=0.12)


def works(ax: "Axes", result: EnergyResult) -> None:
    """How the work of a cycle is distributed over images and shots."""
    values = result.each.ravel() / result.machine.physics.kT
    ax.hist(values, bins=min(60, max(8, int(np.sqrt(values.size)))), color=_WORK)
    ax.axvline(values.mean(), color="black", linestyle=":", linewidth=1, label="mean")
    ax.set_xlabel(r"work of a cycle / $k_\mathrm{B}T$")
    ax.set_ylabel("cycles")
    plots.legend(ax)


def bought(ax: "Axes", result: EnergyResult) -> None:
    """Accuracy against the work of a cycle: retrained machines, and the one that was measured."""
    kT, d = result.machine.physics.kT, result.drives
    work = np.array([one.mean for one in d["work"]]) / kT
    ax.errorbar(
        work, *percent(d["accuracy"]), color=_WORK, marker="o", markersize=4, capsize=2, linewidth=1.2,
        label="retrained at each drive",
    )  # fmt: skip
    if result.score.accuracy is not None:
        ax.plot(
            result.score.work.mean / kT, 100 * result.score.accuracy.mean, marker="*", markersize=11, linestyle="",
            color=_HEAT, label="as given",
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlabel(r"work of a cycle / $k_\mathrm{B}T$")
    ax.set_ylabel("right single shots / %")
    plots.legend(ax, loc="lower right")


def stages(result: EnergyResult) -> "Figure":
    """Where energy goes."""
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(8.6, 3.8))
    flows(axes[0], result)
    works(axes[1], result)
    plots.letters(axes)
    return figure


def dissipation(result: EnergyResult) -> "Figure":
    """What dissipation buys."""
    figure: Figure
    figure, ax = plots.subplots()
    bought(ax, result)
    return figure
