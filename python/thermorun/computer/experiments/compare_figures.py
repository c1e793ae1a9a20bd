"""The picture of a comparison."""

from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.computer.experiments.compare_results import CLOSED, EQUAL, TIMED, ComparisonResult
from thermorun.computer.figures import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = {EQUAL: "o", TIMED: "s", CLOSED: "D"}


def ways(ax: "Axes", result: ComparisonResult) -> None:
    """Accuracy of every way with two standard errors, best seen from the right; every seed a dot."""
    names = list(dict.fromkeys(way for way, _ in result.shares))
    for number, (budget, mark) in enumerate(_MARKS.items()):
        mine = [(names.index(way), way) for way, at in result.shares if at == budget]
        if not mine:
            continue
        places = np.array([place for place, _ in mine]) + (0.0 if budget == CLOSED else 0.16 * (2 * number - 1))
        means, errors = percent([result.accuracy(way, budget) for _, way in mine])
        colour = plots.colour(number)
        ax.errorbar(
            means,
            places,
            xerr=errors,
            fmt=mark,
            color=colour,
            markersize=5,
            capsize=2,
            linewidth=1.2,
            label=budget if budget == CLOSED else f"equal {budget}",
        )
        for place, (_, way) in zip(places, mine, strict=True):
            each = 100 * result.shares[way, budget].mean(axis=1)
            ax.plot(each, np.full(len(each), place), ".", color=colour, markersize=3, alpha=0.5)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("right single shots / %")
    ax.grid(axis="x", alpha=0.3)
    plots.legend(ax, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0))


def compared(result: ComparisonResult) -> "Figure":
    """All ways."""
    figure: Figure
    figure, ax = plots.subplots(size=(6.8, 4.4))
    ways(ax, result)
    return figure
