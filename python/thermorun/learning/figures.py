"""Pictures of closed-loop learning (Hnybida & Verret 2025, Sect. IV)."""

from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.learning.result import LearnResult, RuleResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def learned(result: LearnResult) -> "Figure":
    """theta(t) and the two rates of every rule, then excess work and loss of all.

    Dashed: infinitely many particles.  Dotted: the natural-gradient flow of Eq. 54.
    """
    count = len(result)
    figure: Figure
    figure, axes = plots.subplots(2, count + 1, size=(3.6 * (count + 1), 6.4), squeeze=False)
    for index, rule in enumerate(result):
        thetas(axes[0, index], rule)
        rates(axes[1, index], rule, plots.colour(index))
    excess_work(axes[0, count], result)
    loss(axes[1, count], result)
    plots.letters(axes)
    figure.suptitle(_settings(result), fontsize="medium")
    return figure


def thetas(ax: "Axes", rule: RuleResult) -> None:
    """theta(t) of one rule, exact curve and flow of Eq. 54 beside it, the target as a thin line."""
    mean = rule.theta.mean(axis=1)
    for j, name in enumerate(rule.parameters):
        colour = plots.colour(j + 2)
        ax.axhline(rule.target[j], color=colour, linewidth=0.5, alpha=0.6)
        ax.plot(rule.time, mean[:, j], color=colour, linewidth=1.8, label=name)
        ax.plot(rule.time, rule.flow[:, j], color=colour, linewidth=1.2, linestyle=":")
        plots.exact(ax, rule.time, rule.exact_theta[:, j])
    ax.plot([], [], color="0.4", linewidth=1.2, linestyle=":", label="Eq. 54")
    plots.exact(ax, [], [], label="exact")
    ax.set(xlabel="$t$ / time", ylabel=r"$\theta$ / the parameters' own units", title=rule.rule)
    _legend_below(ax)


def rates(ax: "Axes", rule: RuleResult, colour: str) -> None:
    """dL_bias/dt and d<W_ex>/dt of one rule, which are equal (Eqs. 18 to 20), each measured by itself."""
    time, work = rule.rates_of("excess_work")
    plots.band(
        ax, time, work.mean, work.stderr, color=colour, linewidth=2.5, alpha=0.6,
        label=r"$d\langle W_\mathrm{ex}\rangle/dt$",
    )  # fmt: skip
    time, bias = rule.rates_of("bias")
    ax.plot(time, bias.mean, color="0.3", linewidth=0.9, label=r"$dL_\mathrm{bias}/dt$")
    ax.set(xlabel="$t$ / time", ylabel="rate / (energy/time)", title=rule.rule)
    _legend_below(ax)


def excess_work(ax: "Axes", result: LearnResult) -> None:
    """Cumulative excess work of every rule, with bands of two standard errors."""
    for index, rule in enumerate(result):
        work = [rule.estimate("excess_work", row) for row in range(len(rule.time))]
        mean, error = (np.array([getattr(one, part) for one in work]) for part in ("mean", "stderr"))
        plots.band(ax, rule.time, mean, error, color=plots.colour(index), label=f"{rule.rule}: {rule.excess_work}")
        plots.exact(ax, rule.time, rule.exact["exact_excess_work"], label=None if index else "exact")
    ax.set(xlabel="$t$ / time", ylabel=r"$\langle W_\mathrm{ex} \rangle$ / energy", title="excess work")
    _legend_below(ax)


def loss(ax: "Axes", result: LearnResult) -> None:
    """How far the model is from the data, L_MLE above its least, of every rule."""
    least = np.inf
    for index, rule in enumerate(result):
        mean, exact = rule.series["loss"].mean(axis=1), rule.exact["exact_loss"]
        ax.semilogy(rule.time, np.where(mean > 0, mean, np.nan), color=plots.colour(index), label=rule.rule)
        plots.exact(ax, rule.time, np.where(exact > 0, exact, np.nan), label=None if index else "exact")
        least = min(least, np.nanmin(np.where(mean > 0, mean, np.inf), initial=np.inf))
    ax.set(xlabel="$t$ / time", ylabel=r"$L_\mathrm{MLE} - L_\mathrm{MLE}(\theta^*)$ / energy", title="loss")
    if np.isfinite(least):
        ax.set_ylim(0.2 * least, None)
    _legend_below(ax)


def _legend_below(ax: "Axes") -> None:
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize="small")


def _settings(result: LearnResult) -> str:
    spec = result.spec
    return (
        rf"{result.name}: $\mu$ = {spec.mobility:g}, $\beta$ = {spec.beta:g}, $\tau$ = {spec.tau:g};"
        f" {spec.particles:,} particles x {spec.replicas} replicas, bands of 2 standard errors"
    )
