"""Pictures of a run along a path."""

import math
from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.learning.driven.result import DriveResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def driven(result: DriveResult) -> "Figure":
    """The path, and the distribution of the works."""
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(9.0, 3.8))
    path(axes[0], result)
    works(axes[1], result)
    plots.letters(axes)
    return figure


def path(ax: "Axes", result: DriveResult) -> None:
    """theta(t)."""
    rows = np.array(result.spec.path)
    for index, column in enumerate(rows[:, 1:].T):
        ax.plot(rows[:, 0], column, color=plots.colour(index), label=rf"$\theta_{{{index + 1}}}$")
    ax.set_xlabel("$t$ / time")
    ax.set_ylabel(r"$\theta$ / its unit")
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)


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
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize="small")
