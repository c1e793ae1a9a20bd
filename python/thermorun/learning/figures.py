"""The paper's pictures, drawn from results (Hnybida & Verret 2025, Figs. 1 to 6)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from thermorun.free_energy.run import FreeEnergyResult
from thermorun.learning.spec import LearnResult, RuleResult
from thermorun.learning.trap.protocols import Path, Protocol
from thermorun.learning.trap.result import ExcessWorkResult, ProtocolResult

# Colours that stay apart for colour-blind eyes (Okabe & Ito 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SAMPLE, _MODEL = "#0072B2", "#D62728"


def cumulative_work(result: ExcessWorkResult) -> Figure:
    """Cumulative excess work against t / tau: Monte Carlo, bands of two standard errors, exact curves (Fig. 6).

    Below it, what is left when the exact curve is taken away.
    """
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    for colour, protocol in zip(_cycle(_COLOURS), result, strict=False):
        time = protocol.time / result.spec.tau
        work, stderr = _with_error(protocol)
        above.plot(time, protocol.exact.work, color="black", linewidth=0.8, linestyle=(0, (4, 3)), zorder=3)
        above.plot(time, work, color=colour, linewidth=2.2, label=_label(protocol))
        above.fill_between(time, work - 2 * stderr, work + 2 * stderr, color=colour, alpha=0.3, linewidth=0)
        below.plot(time, (work - protocol.exact.work) * 1e3, color=colour, linewidth=1)
        below.fill_between(time, -2e3 * stderr, 2e3 * stderr, color=colour, alpha=0.15, linewidth=0)
    above.plot([], [], color="black", linewidth=0.8, linestyle=(0, (4, 3)), label="moment equations")
    above.set_ylabel(r"$\langle W_\mathrm{ex} \rangle$ / energy")
    above.legend(frameon=False)
    above.set_title(_settings(result), fontsize="medium")
    below.axhline(0, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
    below.set_ylabel(r"minus exact / $10^{-3}$ energy")
    below.set_xlabel(r"$t / \tau$")
    return figure


def ridges(protocol: ProtocolResult) -> Figure:
    """Densities of x rising with time, the path of theta, and the target (Figs. 1 to 5)."""
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    spec = protocol.spec
    height = 1.6 * spec.tau / max(len(protocol.density_time) - 1, 1) / max(float(np.nanmax(protocol.density)), 1e-300)
    for time, density in zip(protocol.density_time[::-1], protocol.density[::-1], strict=True):
        # Earlier ridges stand in front of later ones.
        axes.fill_between(
            protocol.density_x, time, time + height * density, color=_SAMPLE, alpha=0.35, linewidth=0, zorder=-time
        )
        axes.plot(protocol.density_x, time + height * density, color=_SAMPLE, linewidth=0.7, zorder=-time)
    axes.axvline(spec.target, color="black", linestyle=":", label=r"target $\theta^*$", zorder=spec.tau + 1)
    theta = np.mean(protocol.series["theta"], axis=1)
    axes.plot(theta, protocol.time, color=_MODEL, linewidth=2, label=r"$\theta(t)$", zorder=spec.tau + 2)
    axes.plot([], [], color=_SAMPLE, linewidth=5, alpha=0.5, label=r"density of $x$")
    axes.set_xlabel("x / length")
    axes.set_ylabel("t / time")
    axes.set_title(f"{protocol.label}: excess work {protocol.excess_work}, exact {protocol.exact.work[-1]:.6g}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def work_distribution(protocol: ProtocolResult) -> Figure:
    """Histogram of the particles' own works, beside the Gaussian of equal mean and variance."""
    if protocol.particle_work is None:
        raise ValueError("the works of single particles were not kept; run with keep_work.")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    work = protocol.particle_work.ravel()
    density, edges, _ = axes.hist(work, bins=200, density=True, color=_SAMPLE, alpha=0.5, label="particles")
    mean, deviation = float(np.mean(work)), float(np.std(work))
    grid = np.linspace(edges[0], edges[-1], 400)
    gauss = np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    axes.plot(grid, gauss, color="black", linewidth=1, label="Gaussian of equal mean and variance")
    axes.set_yscale("log")
    axes.set_ylim(0.5 * np.min(np.asarray(density)[np.asarray(density) > 0]), None)
    axes.set_xlabel("work / energy")
    axes.set_ylabel("density / 1/energy")
    axes.set_title(f"{protocol.label}: {len(work):,} particles, mean {mean:.4g}, variance {deviation**2:.4g}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def work_distributions(result: FreeEnergyResult) -> Figure:
    """Densities of W forward and -W reverse, and where they cross; Crooks' relation; every estimate of Delta F.

    In the middle ln P_F(W) / P_R(-W), bin by bin, beside the straight line beta (W - Delta F); bars are one standard
    error, at the bottom two.
    """
    analysis, beta = result.analysis, result.spec.beta
    sides = (result.forward, -result.reverse)
    low, high = min(works.min() for works in sides), max(works.max() for works in sides)
    margin = 0.02 * (high - low) or 0.5 / beta
    edges = np.linspace(low - margin, high + margin, 121)
    middles = 0.5 * (edges[1:] + edges[:-1])
    counts = [np.histogram(works, edges)[0] for works in sides]
    densities = [count / len(works) / np.diff(edges) for count, works in zip(counts, sides, strict=True)]

    figure = Figure(figsize=(7.2, 8.4), layout="constrained")
    above, middle, below = figure.subplots(3, 1, height_ratios=(2.4, 1.1, 1))
    middle.sharex(above)
    for density, colour, label in zip(densities, (_SAMPLE, _MODEL), ("$P_F(W)$", "$P_R(-W)$"), strict=True):
        above.stairs(density, edges, color=colour, fill=True, alpha=0.25)
        above.stairs(density, edges, color=colour, linewidth=1.2, label=label)
    seen = np.concatenate(densities)
    above.set_yscale("log")
    above.set_ylim(0.5 * seen[seen > 0].min(), 4 * seen.max())
    above.axvline(analysis.bar.delta_f.mean, color="black", linewidth=1, label=r"$\Delta F$ by BAR")
    crossing = analysis["crossing"].delta_f.mean
    if np.isfinite(crossing):
        height = float(np.sqrt(np.prod([np.interp(crossing, middles, density) for density in densities])))
        above.plot(crossing, height, "o", color="black", markersize=9, fillstyle="none", label="crossing")
    above.set_ylabel("density / 1/energy")
    above.legend(frameon=False)
    figure.suptitle(_ends(result), fontsize="medium")

    both = (counts[0] > 0) & (counts[1] > 0)
    if np.any(both):
        ratio = np.log(densities[0][both] / densities[1][both])
        error = np.sqrt(1 / counts[0][both] + 1 / counts[1][both])
        middle.errorbar(middles[both], ratio, error, fmt=".", color="0.5", markersize=3, linewidth=0.8)
        line = middles[both][[0, -1]]
        middle.plot(line, beta * (line - analysis.bar.delta_f.mean), color="black", linewidth=1)
    else:
        middle.text(0.5, 0.7, "no bin holds works of both directions", transform=middle.transAxes, ha="center")
    middle.axhline(0, color="black", linewidth=0.5)
    middle.set_ylabel(r"$\ln\, P_F(W) / P_R(-W)$")
    middle.set_xlabel("W / energy")

    for row, colour in zip(analysis.results, _COLOURS, strict=False):
        mean, stderr = row.delta_f.mean, row.delta_f.stderr
        known = np.isfinite(stderr)
        below.errorbar(
            mean, f"{row.estimator}\n{row.delta_f}", xerr=2 * stderr if known else None, fmt="o" if known else "x",
            color=colour, capsize=3,
        )  # fmt: skip
    if result.exact is not None:
        style = {"color": "black", "linewidth": 0.8, "linestyle": (0, (4, 3))}
        below.axvline(result.exact, **style, label=f"{result.exact_from}: {result.exact:.6g}")
        figure.legend(loc="outside lower right", frameon=False, handles=below.get_legend_handles_labels()[0])
    below.tick_params(axis="y", labelsize="small")
    below.invert_yaxis()
    below.margins(0.1, 0.2)
    below.set_xlabel(r"$\Delta F$ / energy")
    return figure


def schedule(protocols: Protocol | Sequence[Protocol], points: int = 501) -> Figure:
    """Learning rates against time, with impulses as arrows of the height of their strength; theta(t) for paths."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    several = [protocols] if isinstance(protocols, Protocol) else list(protocols)
    for colour, protocol in zip(_cycle(_COLOURS), several, strict=False):
        time = np.linspace(0.0, protocol.tau, points)
        if isinstance(protocol, Path):
            axes.plot(protocol.times, protocol.thetas, color=colour, label=rf"{protocol.name}: $\theta(t)$ / length")
            continue
        axes.plot(time, protocol.rate(time), color=colour, label=f"{protocol.name}: {protocol.equation}")
        for at, strength in protocol.impulses:
            axes.annotate("", (at, strength), (at, 0), arrowprops={"arrowstyle": "->", "color": colour})
            side = "left" if at < protocol.tau / 2 else "right"
            axes.annotate(f" {strength:.3g} ", (at, strength / 2), color=colour, ha=side, va="center")
    axes.set_xlabel("t / time")
    axes.set_ylabel(r"$\eta$ / 1/time, impulse strengths / 1")
    axes.set_ylim(min(axes.get_ylim()[0], 0), None)
    figure.legend(loc="outside lower center", ncols=1, frameon=False)
    return figure


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


def _with_error(protocol: ProtocolResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    estimates = [protocol.estimate("work", row) for row in range(len(protocol.time))]
    return np.array([e.mean for e in estimates]), np.array([e.stderr for e in estimates])


def _label(protocol: ProtocolResult) -> str:
    return f"{protocol.label}: {protocol.excess_work}"


def _settings(result: ExcessWorkResult) -> str:
    spec = result.spec
    size = f"{spec.particles:,} particles" + (f" x {spec.replicas} replicas" if spec.replicas > 1 else "")
    return (
        rf"$\mu$ = {spec.mobility:g}, $\beta$ = {spec.beta:g}, $\tau$ = {spec.tau:g},"
        rf" $\theta_0$ = {spec.theta0:g}, $\theta^*$ = {spec.target:g};"
        f" {size} a protocol, bands of 2 standard errors"
    )


def _ends(result: FreeEnergyResult) -> str:
    spec = result.spec
    names = ", ".join(spec.known.parameters)
    start, end = (", ".join(f"{value:g}" for value in point) for point in (spec.start, spec.end))
    return (
        f"{spec.known.name}: {names} from {start} to {end} in a time of {spec.duration:g}\n"
        f"{spec.particles:,} particles each way, overlap {result.analysis.overlap:.2g}"
    )


def _cycle(colours: Sequence[str]) -> "Sequence[str]":
    return tuple(colours) * 8
