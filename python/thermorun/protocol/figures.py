"""Pictures of a protocol."""

from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.protocol.objectives import FREE_ENERGY, WORK
from thermorun.protocol.result import ProtocolResult, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 6  # parameters that one picture shows


def protocol(result: ProtocolResult) -> "Figure":
    """The path with its jumps, and the objective against iterations."""
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(9.0, 3.8))
    path(axes[0], result)
    search(axes[1], result)
    plots.letters(axes)
    return figure


def path(ax: "Axes", result: ProtocolResult) -> None:
    """theta(t): what was found, the straight line, and the protocol of least work where it is known."""
    spec, rows = result.spec, result.path
    for j in range(min(rows.shape[1] - 1, _MOST)):
        colour = plots.colour(j)
        label = rf"$\theta_{{{j + 1}}}$"
        ax.plot(rows[:, 0], rows[:, 1 + j], color=colour, label=label, marker=".", markersize=4)
        ax.plot([0, spec.tau], [spec.ends[0][j], spec.ends[1][j]], color=colour, linestyle=":", linewidth=1)
        if result.least_knots is not None:
            best = rows_of(spec, result.least_knots)
            plots.exact(ax, best[:, 0], best[:, 1 + j], "least work, Fokker-Planck" if j == 0 else None)
    ax.plot([], [], color=plots.EXACT, linestyle=":", linewidth=1, label="straight line")
    ax.set_xlabel("$t$ / time")
    ax.set_ylabel(r"$\theta$ / its unit")
    plots.legend(ax)


def search(ax: "Axes", result: ProtocolResult) -> None:
    """The objective against iterations, round by round, on each round's own noise."""
    from matplotlib.ticker import MaxNLocator

    spec, begin = result.spec, 0
    shift = spec.beta * (result.delta_f or 0.0) if spec.objective == WORK else 0.0
    scale = spec.beta if spec.objective == WORK else 1.0
    if spec.objective == WORK and result.values:
        straight = result.values["straight line"].mean
        ax.axhline(straight, color=plots.colour(0), linestyle=":", linewidth=1, label="straight line")
    for index, one in enumerate(result.rounds):
        values = one.values[np.isfinite(one.values)]
        early = spec.objective == FREE_ENERGY and one.knots < spec.knots
        label = f"{one.knots} knots, {one.particles:,} particles" + (", mean work" if early else "")
        at = begin + 1 + np.arange(len(values))
        if len(values):
            ax.plot(at, (values - shift) / scale, color=plots.colour(index), marker=".", label=label)
        begin += len(values)
    if spec.objective == WORK:
        if result.least is not None:
            ax.axhline(result.least, color=plots.EXACT, linestyle="--", linewidth=1)
        ax.set_ylabel("$W$ / energy" if result.delta_f is None else r"$W_\mathrm{ex}$ / energy")
    else:
        ax.set_ylabel("ln(1 + variance / mean$^2$)" if spec.objective == FREE_ENERGY else "distance$^2$")
    ax.set_xlabel("iteration")
    ax.set_xlim(0, begin + 1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plots.legend(ax, fontsize="small")
