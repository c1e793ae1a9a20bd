"""Pictures of works forward and back."""

from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.arrays import Array
from thermorun.free_energy.result import FreeEnergyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORWARD, _REVERSE = plots.COLOURS[:2]
# Bins with fewer works of either direction say nothing of their ratio.
_FEWEST = 5


def works(result: FreeEnergyResult) -> "Figure":
    """Densities of the works, Crooks' relation, and every estimate, one above the other."""
    figure: Figure
    figure, axes = plots.subplots(3, 1, size=(6.4, 8.0), height_ratios=(2.4, 1.3, 1.1))
    density(axes[0], result)
    ratio(axes[1], result)
    axes[1].sharex(axes[0])
    estimates(axes[2], result)
    plots.letters(axes)
    return figure


def density(ax: "Axes", result: FreeEnergyResult) -> None:
    """Densities of W forward and -W reverse, which cross at Delta F."""
    edges, _, densities = _histograms(result)
    for values, colour, label in zip(densities, (_FORWARD, _REVERSE), ("$P_F(W)$", "$P_R(-W)$"), strict=True):
        ax.stairs(values, edges, color=colour, fill=True, alpha=0.25)
        ax.stairs(values, edges, color=colour, linewidth=1.2, label=label)
    seen = np.concatenate(densities)
    ax.set_yscale("log")
    ax.set_ylim(0.5 * seen[seen > 0].min(), 8 * seen.max())
    ax.axvline(result.delta_f.mean, color="0.4", linewidth=1, label=r"$\Delta F$ by BAR")
    ax.set_ylabel("density / (1/energy)")
    ax.set_xlabel("$W$ / energy")
    plots.legend(ax, ncols=3, loc="upper center")


def ratio(ax: "Axes", result: FreeEnergyResult) -> None:
    """ln P_F(W) / P_R(-W), bin by bin with one standard error, beside beta (W - Delta F) (Crooks 1999)."""
    edges, counts, densities = _histograms(result)
    both = (counts[0] >= _FEWEST) & (counts[1] >= _FEWEST)
    if np.any(both):
        middles = 0.5 * (edges[1:] + edges[:-1])
        values = np.log(densities[0][both] / densities[1][both])
        error = np.sqrt(1 / counts[0][both] + 1 / counts[1][both])
        ax.errorbar(middles[both], values, error, fmt=".", color=plots.COLOURS[2], markersize=3, linewidth=0.8)
        line = middles[both][[0, -1]]
        label = r"$\beta (W - \Delta F)$"
        ax.plot(line, result.spec.beta * (line - result.delta_f.mean), color="0.4", linewidth=1, label=label)
        plots.legend(ax, loc="upper left")
    else:
        ax.text(0.5, 0.7, "no bin holds works of both directions", transform=ax.transAxes, ha="center")
    ax.axhline(0, color="0.8", linewidth=0.5, zorder=0)
    ax.set_ylabel(r"$\ln\, P_F(W) / P_R(-W)$")
    ax.set_xlabel("$W$ / energy")


def estimates(ax: "Axes", result: FreeEnergyResult) -> None:
    """Every estimate of Delta F with two standard errors, beside the exact value."""
    for row in result.analysis.results:
        mean, stderr = row.delta_f.mean, row.delta_f.stderr
        known = np.isfinite(stderr)
        ax.errorbar(
            mean, f"{row.estimator}\n{row.delta_f}", xerr=2 * stderr if known else None, fmt="o" if known else "x",
            color="0.4", capsize=3,
        )  # fmt: skip
    if result.exact is not None:
        ax.axvline(
            result.exact,
            linestyle="--",
            color=plots.EXACT,
            linewidth=1,
            label=f"{result.exact_from}: {result.exact:.6g}",
        )
        plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, 1.22))
    ax.tick_params(axis="y", labelsize="small")
    ax.invert_yaxis()
    ax.margins(0.1, 0.2)
    ax.set_xlabel(r"$\Delta F$ / energy")


def _histograms(result: FreeEnergyResult) -> tuple[Array, list[Array], list[Array]]:
    """Edges of the bins, counts of W and -W, and their densities."""
    sides = [works[np.isfinite(works)] for works in (result.forward, -result.reverse)]
    low, high = min(works.min() for works in sides), max(works.max() for works in sides)
    margin = 0.02 * (high - low) or 0.5 / result.spec.beta
    edges = np.linspace(low - margin, high + margin, 121)
    counts = [np.histogram(works, edges)[0] for works in sides]
    return (
        edges,
        counts,
        [count / max(len(works), 1) / np.diff(edges) for count, works in zip(counts, sides, strict=True)],
    )
