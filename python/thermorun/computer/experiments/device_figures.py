"""Pictures of devices.  Each draws into axes of the caller's; the compositions at the end are what is saved."""

from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.computer.experiments.device_results import AWARE, GENETIC, DevicesResult
from thermorun.computer.figures import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RELATIVE, _ABSOLUTE, _BITS = plots.COLOURS[:3]


def spread(ax: "Axes", result: DevicesResult) -> None:
    """Accuracy against the spread of parameters: means with two standard errors, every device a dot."""
    every: set[float] = set()
    for how, colour, label in (("relative", _RELATIVE, "in their own size"), ("absolute", _ABSOLUTE, "in the rms")):
        levels = [level for kind, level in result.shares if kind == how and level > 0]
        every |= set(levels)
        if levels:
            means = [result.accuracy(how, level) for level in levels]
            ax.errorbar(levels, *percent(means), color=colour, marker="o", markersize=4, capsize=2, label=label)
        for level in levels:
            each = 100 * result.shares[how, level].mean(axis=1)
            ax.plot(np.full(len(each), level), each, ".", color=colour, markersize=3, alpha=0.5)
    _as_trained(ax, result)
    if every:
        ax.set_xscale("log")
        ax.set_xticks(sorted(every), [f"{level:g}" for level in sorted(every)])
        ax.minorticks_off()
    ax.set_xlabel("spread of parameters")
    ax.set_ylabel("right single shots / %")
    plots.legend(ax, loc="lower left")


def few_bits(ax: "Axes", result: DevicesResult) -> None:
    """Accuracy against the bits of couplings and biases, with two standard errors."""
    bits = [level for kind, level in result.shares if kind == "bits"]
    if bits:
        means = [result.accuracy("bits", level) for level in bits]
        ax.errorbar(bits, *percent(means), color=_BITS, marker="o", markersize=4, capsize=2)
        ax.set_xticks(bits)
    _as_trained(ax, result)
    ax.set_xlabel("bits of couplings and biases")


def searches(ax: "Axes", result: DevicesResult) -> None:
    """The best of each generation of the genetic algorithm, on the images that it saw."""
    generations = np.arange(1, result.searches.shape[1] + 1)
    for k, best in enumerate(result.searches):
        ax.plot(generations, 100 * best, color=plots.colour(k), linewidth=1, label=f"device {k}")
    ax.set_xlabel("generation")
    ax.set_ylabel("right answers of the best / %")
    ax.locator_params(axis="x", integer=True)
    plots.legend(ax, loc="lower right")


def retrained(ax: "Axes", result: DevicesResult) -> None:
    """Accuracy of spread devices, and of the same ones retrained: two standard errors, every device a dot."""
    level = result.spec.level
    shown = [("as\ntrained", "as trained", 0.0), (f"spread\n{level:g}", "relative", level)]
    shown += [(word, how, level) for word, how in (("genetic\nalgorithm", GENETIC), ("trained\nwith noise", AWARE))]
    shown = [one for one in shown if one[1:] in result.shares]
    for k, (_, how, at) in enumerate(shown):
        each = 100 * result.shares[how, at].mean(axis=1)
        ax.plot(np.full(len(each), k), each, ".", color=plots.colour(k), markersize=4, alpha=0.5)
        mean, error = percent([result.accuracy(how, at)])
        ax.errorbar([k], mean, error, color=plots.colour(k), marker="o", capsize=3)
    ax.set_xticks(range(len(shown)), [one[0] for one in shown])
    ax.margins(x=0.15)
    ax.set_ylabel("right single shots / %")


def spreads(result: DevicesResult) -> "Figure":
    """What spread and few bits cost."""
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(8.6, 3.8), sharey=True, width_ratios=(1.5, 1))
    spread(axes[0], result)
    few_bits(axes[1], result)
    plots.letters(axes)
    return figure


def recovery(result: DevicesResult) -> "Figure":
    """What retraining recovers."""
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(8.6, 3.8))
    searches(axes[0], result)
    retrained(axes[1], result)
    plots.letters(axes)
    return figure


def _as_trained(ax: "Axes", result: DevicesResult) -> None:
    ax.axhline(100 * float(result.reference.mean()), color="0.4", linewidth=1, linestyle=":", label="as trained")
