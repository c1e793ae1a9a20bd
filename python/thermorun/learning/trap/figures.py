"""The paper's pictures, drawn from results (Hnybida & Verret 2025, Figs. 1 to 6)."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.arrays import Array
from thermorun.errors import InputError
from thermorun.learning.trap.protocols import Path, Protocol
from thermorun.learning.trap.result import ExcessWorkResult, ProtocolResult

__all__ = [
    "cumulative_work",
    "path",
    "residual",
    "ridge",
    "ridges",
    "schedule",
    "schedules",
    "work_distribution",
    "work_distributions",
    "works",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    _Draw = Callable[[Axes, ProtocolResult], None]

_COLUMNS = 3
_THETA, _X = plots.COLOURS[1], plots.COLOURS[0]


def works(result: ExcessWorkResult) -> "Figure":
    """Cumulative excess work (Fig. 6), and what is left when the exact curves are taken away."""
    figure: Figure
    figure, axes = plots.subplots(2, 1, size=(6.4, 6.2), height_ratios=(3, 1.2), sharex=True)
    cumulative_work(axes[0], result)
    residual(axes[1], result)
    axes[0].set_xlabel("")
    plots.letters(axes)
    _one_legend(figure, axes, 2)
    return figure


def cumulative_work(ax: "Axes", result: ExcessWorkResult) -> None:
    """Excess work against time within two standard errors, and exact curves."""
    for index, protocol in enumerate(result):
        mean, stderr = _works(protocol)
        time, label = protocol.time / result.spec.tau, f"{_title(protocol)}: {protocol.excess_work}"
        plots.band(ax, time, mean, stderr, color=plots.colour(index), linewidth=2, label=label)
        plots.exact(ax, time, protocol.exact.work, "exact" if index == len(result) - 1 else None)
    ax.set_ylabel(r"$\langle W_\mathrm{ex} \rangle$ / energy")
    ax.set_xlabel(r"$t / \tau$")
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)


def residual(ax: "Axes", result: ExcessWorkResult) -> None:
    """The same minus the exact curves; bands of two standard errors about zero."""
    for index, protocol in enumerate(result):
        time, (mean, stderr) = protocol.time / result.spec.tau, _works(protocol)
        ax.plot(time, mean - protocol.exact.work, color=plots.colour(index), linewidth=1)
        ax.fill_between(time, -2 * stderr, 2 * stderr, color=plots.colour(index), alpha=0.15, linewidth=0)
    ax.axhline(0, color=plots.EXACT, linewidth=1, linestyle="--")
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    ax.set_ylabel("minus exact / energy")
    ax.set_xlabel(r"$t / \tau$")


def ridges(result: ExcessWorkResult) -> "Figure":
    """Densities of x along each protocol (Figs. 1 to 5)."""
    return _panels(result, ridge, (4.4, 4.4))


def ridge(ax: "Axes", protocol: ProtocolResult) -> None:
    """Densities of x rising with time, the path of theta, and the target.  Raises InputError without snapshots."""
    if not protocol.density.size:
        raise InputError("snapshots is 0, so there are no densities; run with snapshots of at least 1.")
    spec, theta = protocol.spec, np.mean(protocol.series["theta"], axis=1)
    ends = [*protocol.density_x[[0, -1]].tolist(), *theta.tolist(), spec.target]
    margin = 0.03 * (max(ends) - min(ends))
    low, high = min(ends) - margin, max(ends) + margin
    x = np.concatenate([[low], protocol.density_x, [high]])
    step = spec.tau / max(len(protocol.density_time) - 1, 1)
    height = 1.6 * step / max(float(np.nanmax(protocol.density)), 1e-300)
    for time, density in zip(protocol.density_time[::-1], protocol.density[::-1], strict=True):
        # Earlier ridges stand in front of later ones.
        top, order = time + height * np.concatenate([[0.0], density, [0.0]]), 2 - time / spec.tau
        ax.fill_between(x, time, top, color=_X, alpha=0.35, linewidth=0, zorder=order)
        ax.plot(x, top, color=_X, linewidth=0.7, zorder=order)
    ax.axvline(spec.target, color="0.3", linestyle=":", label=r"target $\theta^*$", zorder=3)
    ax.plot(theta, protocol.time, color=_THETA, linewidth=2, label=r"$\theta(t)$", zorder=4)
    ax.fill_between([], [], color=_X, alpha=0.5, label="density of $x$")
    ax.set_xlim(low, high)
    ax.set_xlabel("$x$ / length")
    ax.set_ylabel("$t$ / time")
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def work_distributions(result: ExcessWorkResult) -> "Figure":
    """Distribution of the particles' own works under each protocol."""
    return _panels(result, work_distribution, (4.2, 3.6))


def work_distribution(ax: "Axes", protocol: ProtocolResult) -> None:
    """Histogram of the particles' own works, beside the Gaussian of equal mean and variance.

    Raises InputError where the works were not kept.
    """
    if protocol.particle_work is None:
        raise InputError("keep_work is False, so the works of single particles were not kept; run with keep_work.")
    work = protocol.particle_work[np.isfinite(protocol.particle_work)]
    bins = min(200, max(10, math.isqrt(len(work))))
    density, edges, _ = ax.hist(work, bins=bins, density=True, color=_X, alpha=0.5, label=f"{len(work):,} particles")
    mean, deviation = float(np.mean(work)), float(np.std(work))
    grid = np.linspace(edges[0], edges[-1], 400)
    gauss = np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    ax.plot(grid, gauss, color=plots.EXACT, linewidth=1, label="Gaussian of equal mean and variance")
    seen = np.asarray(density)
    ax.set_yscale("log")
    ax.set_ylim(0.5 * float(np.min(seen[seen > 0])), 3 * float(np.max(seen)))
    ax.set_xlabel("$W$ / energy")
    ax.set_ylabel("density / (1/energy)")
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def schedules(protocols: Protocol | Sequence[Protocol]) -> "Figure":
    """Learning rates and prescribed paths, side by side where there are both."""
    several = [protocols] if isinstance(protocols, Protocol) else list(protocols)
    rates = [one for one in several if not isinstance(one, Path)]
    paths = [one for one in several if isinstance(one, Path)]
    count = max(1, bool(rates) + bool(paths))
    figure: Figure
    figure, axes = plots.subplots(1, count, size=(5.6 * count, 4.4), squeeze=False)
    if rates:
        schedule(axes[0, 0], rates)
    if paths:
        path(axes[0, -1], paths)
    if count > 1:
        plots.letters(axes)
    return figure


def schedule(ax: "Axes", protocols: Sequence[Protocol]) -> None:
    """Learning rates against time; impulses as arrows of the height of their strength."""
    written: set[tuple[float, float]] = set()
    for index, protocol in enumerate(protocols):
        if isinstance(protocol, Path):
            raise InputError(f"protocol is {protocol.name!r}, a path, which has no learning rate; draw it with path.")
        time, colour = np.linspace(0.0, protocol.tau, 501), plots.colour(index)
        # Later curves are thinner, so that equal ones show.
        width = 1.2 + 2.0 * (len(protocols) - 1 - index) / len(protocols)
        ax.plot(time, protocol.rate(time), color=colour, linewidth=width, label=f"{protocol.name}: {protocol.equation}")
        for at, strength in protocol.impulses:
            arrow = {"arrowstyle": "->", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (at, strength), (at, 0), arrowprops=arrow, annotation_clip=False)
            # Annotations alone would not widen the panel.
            ax.plot([at], [strength], alpha=0)
            if (at, strength) not in written:
                # Beside those of the same time.
                shift = 4 + 30 * sum(other == at for other, _ in written)
                side, away = ("left", shift) if at < protocol.tau / 2 else ("right", -shift)
                ax.annotate(
                    f"{strength:.3g}", (at, strength), (away, 3), textcoords="offset points", color=colour, ha=side
                )
            written.add((at, strength))
    ax.axhline(0, color="0.8", linewidth=0.5, zorder=0)
    ax.margins(0.04, 0.1)
    ax.set_xlabel("$t$ / time")
    ax.set_ylabel(r"$\eta$ / (1/time), strength of impulses / 1")
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def path(ax: "Axes", protocols: Sequence[Path]) -> None:
    """theta(t) of prescribed paths."""
    for index, protocol in enumerate(protocols):
        label = f"{protocol.name}: {protocol.equation}"
        ax.plot(protocol.times, protocol.thetas, color=plots.colour(index), label=label)
    ax.set_xlabel("$t$ / time")
    ax.set_ylabel(r"$\theta$ / length")
    plots.legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _panels(result: ExcessWorkResult, draw: "_Draw", size: tuple[float, float]) -> "Figure":
    """A panel a protocol, with its name above."""
    count = max(len(result), 1)
    columns = 2 if count == 4 else min(count, _COLUMNS)
    rows = -(-count // columns)
    figure: Figure
    figure, axes = plots.subplots(rows, columns, size=(size[0] * columns, size[1] * rows), squeeze=False)
    for ax, protocol in zip(axes.flat, result, strict=False):
        draw(ax, protocol)
        work = rf"$\langle W_\mathrm{{ex}} \rangle$ = {protocol.excess_work}"
        ax.set_title(f"{_title(protocol)}\n{work}", fontsize="medium")
    for ax in list(axes.flat)[count:]:
        ax.remove()
    if count > 1:
        plots.letters(list(axes.flat)[:count])
    _one_legend(figure, list(axes.flat)[:count], 3)
    return figure


def _one_legend(figure: "Figure", axes: "Sequence[Axes]", columns: int) -> None:
    """One legend below all panels in place of their own, which say the same."""
    handles, labels = axes[0].get_legend_handles_labels()
    for ax in axes:
        own = ax.get_legend()
        if own is not None:
            own.remove()
    if handles:
        where = {"loc": "outside lower center", "ncols": columns, "fontsize": "small"}
        plots.legend(figure, handles=handles, labels=labels, **where)


def _title(protocol: ProtocolResult) -> str:
    """The label; with the paper's word for a small constant rate."""
    slow = protocol.protocol.name == "constant" and protocol.spec.eta < protocol.spec.mobility
    return f"{protocol.label} (quasi-static)" if slow else protocol.label


def _works(protocol: ProtocolResult) -> tuple[Array, Array]:
    """Mean work and its standard error at every row."""
    found = [protocol.estimate("work", row) for row in range(len(protocol.time))]
    return np.array([one.mean for one in found]), np.array([one.stderr for one in found])
