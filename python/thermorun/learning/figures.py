"""Pictures of learning in closed loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from thermorun.learning.spec import LearnResult, RuleResult

# Colours that stay apart for colour-blind eyes (Okabe & Ito 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def learned(result: LearnResult) -> Figure:
    """theta(t), cumulative excess work, and the two rates dL_bias/dt and d<W_ex>/dt, each from its own measurement.

    Dashed: infinitely many particles.  Dotted: the natural-gradient flow of Eq. 54.
    """
    rules, spec = list(result), result.spec
    figure = Figure(figsize=(4.2 * (len(rules) + 1), 6.4), layout="constrained")
    cells = figure.subplots(2, len(rules) + 1, squeeze=False)
    names = spec.built().parameters
    for column, (colour, rule) in enumerate(zip(_cycle(_COLOURS), rules, strict=False)):
        _thetas(cells[0, column], rule, names)
        cells[0, column].sharey(cells[0, 0])
        work, error = (
            np.array([getattr(rule.estimate("excess_work", row), part) for row in range(len(rule.time))])
            for part in ("mean", "stderr")
        )
        axes = cells[0, -1]
        axes.plot(rule.time, work, color=colour, label=f"{rule.rule}: {rule.excess_work}")
        axes.fill_between(rule.time, work - 2 * error, work + 2 * error, color=colour, alpha=0.3, linewidth=0)
        axes.plot(rule.time, rule.exact["exact_excess_work"], color="black", linewidth=0.8, linestyle=(0, (4, 3)))
        axes = cells[1, column]
        time, slope, error = rule.rates_of("excess_work")
        axes.fill_between(time, slope - 2 * error, slope + 2 * error, color=colour, alpha=0.3, linewidth=0)
        axes.plot(time, slope, color=colour, linewidth=2.5, alpha=0.6, label=r"$d\langle W_\mathrm{ex}\rangle/dt$")
        time, slope, _ = rule.rates_of("bias")
        axes.plot(time, slope, color="black", linewidth=0.9, label=r"$dL_\mathrm{bias}/dt$")
        axes.set(xlabel="t / time", ylabel="rate / energy/time", title=rule.rule)
        axes.legend(frameon=False)
    cells[0, -1].set(xlabel="t / time", ylabel=r"$\langle W_\mathrm{ex} \rangle$ / energy", title="excess work")
    cells[0, -1].legend(frameon=False)
    for colour, rule in zip(_cycle(_COLOURS), rules, strict=False):
        loss = np.array([rule.estimate("loss", row).mean for row in range(len(rule.time))])
        cells[1, -1].semilogy(rule.time, np.maximum(loss, 1e-12), color=colour, label=rule.rule)
        cells[1, -1].semilogy(
            rule.time, np.maximum(rule.exact["exact_loss"], 1e-12), color="black", linewidth=0.8, linestyle=(0, (4, 3))
        )
    cells[1, -1].set(xlabel="t / time", ylabel=r"$L_\mathrm{MLE} - $ least / energy", title="distance to the data")
    cells[1, -1].legend(frameon=False)
    figure.suptitle(
        rf"{spec.potential}: $\mu$ = {spec.mobility:g}, $\beta$ = {spec.beta:g}, $\tau$ = {spec.tau:g};"
        f" {spec.particles:,} particles x {spec.replicas} replicas, bands of 2 standard errors",
        fontsize="medium",
    )
    return figure


def _thetas(axes: Any, rule: RuleResult, names: Sequence[str]) -> None:
    for j, (colour, name) in enumerate(zip(_cycle(_COLOURS), names, strict=False)):
        axes.plot(rule.time, rule.theta[:, :, j].mean(axis=1), color=colour, label=name)
        axes.plot(rule.time, rule.exact_theta[:, j], color="black", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot(rule.time, rule.flow[:, j], color=colour, linewidth=1.2, linestyle=":")
        axes.axhline(rule.spec.goal[j], color=colour, linewidth=0.5)
    axes.set(xlabel="t / time", ylabel=r"$\theta$", title=rule.rule)
    axes.legend(frameon=False)


def _cycle(colours: Sequence[str]) -> "Sequence[str]":
    return tuple(colours) * 8
