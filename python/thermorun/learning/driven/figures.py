"""Pictures of a run along a path."""

import math
from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.learning.driven.layout import Histograms
from thermorun.learning.driven.result import DriveResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Components of x and times that one picture shows.
_MOST_DIMENSIONS, _MOST_TIMES = 6, 8
_BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}


def driven(result: DriveResult) -> "Figure":
    """The path, and the distribution of the works."""
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(9.0, 3.8))
    path(axes[0], result)
    works(axes[1], result)
    plots.letters(axes)
    return figure


def path(ax: "Axes", result: DriveResult) -> None:
    """theta(t), and kT(t) where that changes."""
    rows = result.spec.rows
    for index, column in enumerate(rows[:, 1:-1].T):
        ax.plot(rows[:, 0], column, color=plots.colour(index), label=rf"$\theta_{{{index + 1}}}$")
    if result.spec.kT is not None:
        ax.plot(rows[:, 0], rows[:, -1], color=plots.EXACT, linestyle=":", label="$kT$ / energy")
    ax.set_xlabel("$t$ / time")
    ax.set_ylabel(r"$\theta$ / its unit")
    plots.legend(ax, ncols=4, **_BELOW)


def works(ax: "Axes", result: DriveResult) -> None:
    """Distribution of the particles' works, its mean, and Delta F."""
    each = result.work_of_each
    bins = min(200, max(10, math.isqrt(len(each))))
    ax.hist(each, bins=bins, density=True, color=plots.colour(0), alpha=0.5, label=f"{len(each):,} particles")
    ax.axvline(result.work.mean, color=plots.colour(1), linewidth=1.2, label=rf"$\langle W \rangle$ = {result.work}")
    if result.delta_f is not None:
        label = rf"$\Delta F$ = {result.delta_f:.5g}"
        ax.axvline(result.delta_f, color=plots.EXACT, linewidth=1, linestyle="--", label=label)
    ax.set_xlabel("$W$ / energy")
    ax.set_ylabel("density / (1/energy)")
    plots.legend(ax, ncols=2, fontsize="small", **_BELOW)


def histograms(found: Histograms) -> "Figure":
    """The density of each component of x at the chosen times, beside the exact one."""
    dimensions = min(len(found.edges), _MOST_DIMENSIONS)
    columns = min(dimensions, 3)
    lines = -(-dimensions // columns)
    figure, axes = plots.subplots(lines, columns, size=(max(6.0, 4.0 * columns), 3.8 * lines), squeeze=False)
    chosen = np.unique(np.linspace(0, len(found.time) - 1, _MOST_TIMES).round().astype(int))
    for k, ax in enumerate(axes.ravel()):
        if k >= dimensions:
            ax.set_axis_off()
            continue
        _densities(ax, found, k, chosen.tolist())
        ax.set_xlabel("$x$ / length" if len(found.edges) == 1 else f"$x_{{{k + 1}}}$ / length")
        ax.set_ylabel("density / (1/length)")
    plots.legend(axes[0, 0], fontsize="small")
    return figure


def _densities(ax: "Axes", found: Histograms, k: int, chosen: list[int]) -> None:
    edges, middles = found.edges[k], 0.5 * (found.edges[k, 1:] + found.edges[k, :-1])
    for place, n in enumerate(chosen):
        label = f"$t$ = {found.time[n]:.4g}"
        ax.stairs(found.density[n, k], edges, color=plots.colour(place), label=label, linewidth=1.5)
        if found.exact is not None:
            plots.exact(ax, middles, found.exact[n, k], "exact" if n == chosen[-1] else None)
