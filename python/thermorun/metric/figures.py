"""Pictures of a metric: correlation integrals at a point, elements over a grid, geodesics and what they cost."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from thermorun.metric.run import MATRICES, MetricResult

Array = NDArray[Any]

# Colours that stay apart for colour-blind eyes (Okabe & Ito 2008).
_COLOURS = {"geodesic": "#0072B2", "line": "#D55E00", "optimal": "#009E73"}
_SYMBOLS = {"fisher": "g", "friction": r"\zeta", "relaxation": r"\tau^r"}
_MEASURED, _EXACT = "#0072B2", "black"
# Ellipses of a map: at most so many along a side.
_ELLIPSES = 9


def windows(result: MetricResult, index: int = 0) -> Figure:
    """Correlation integrals at one point against the window's length, with the window taken, element by element."""
    point, names = result.points[index], result.spec.loaded.parameters
    p = len(names)
    figure = Figure(figsize=(2.6 + 2.6 * p, 1.8 + 2.2 * p), layout="constrained")
    panels = figure.subplots(p, p, sharex=True, squeeze=False)
    for i, j in itertools.product(range(p), range(p)):
        axes = panels[i, j]
        if j > i:
            axes.set_visible(False)
            continue
        lengths, measured = point.windows.lengths, point.measured
        axes.errorbar(
            lengths, measured.curve[:, i, j], 2 * measured.curve_stderr[:, i, j], fmt="o", markersize=3,
            color=_MEASURED, linewidth=1, label="Monte Carlo, 2 standard errors",
        )  # fmt: skip
        axes.axvline(measured.window[i, j], color=_MEASURED, linestyle=":", label="window taken")
        if point.truth is not None:
            axes.axhline(point.truth.friction[i, j], color=_EXACT, linewidth=0.8, label="exact")
        axes.set_xscale("log")
        axes.set_title(_element("friction", names, i, j), fontsize="medium")
        if i == p - 1:
            axes.set_xlabel("window s / time")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.suptitle(f"{result.spec.loaded.name} at {_point(names, point.theta)}", fontsize="medium")
    return figure


def along(result: MetricResult) -> Figure:
    """g, zeta and tau^r along a grid of one parameter, beside exact curves."""
    name, *_ = result.spec.grid[0]
    names = result.spec.loaded.parameters
    at = np.array([point.theta[names.index(name)] for point in result.points])
    pairs = list(itertools.combinations_with_replacement(range(len(names)), 2))
    figure = Figure(figsize=(11, 2.6 * len(pairs) + 0.8), layout="constrained")
    panels = figure.subplots(len(pairs), 3, sharex=True, squeeze=False)
    for (i, j), row in zip(pairs, panels, strict=True):
        for matrix, axes in zip(MATRICES, row, strict=True):
            estimates = [point.measured.estimate(matrix, i, j) for point in result.points]
            exact = [point.exact(matrix, i, j) for point in result.points]
            axes.plot(at, exact, color=_EXACT, linewidth=0.8, label="exact")
            axes.errorbar(
                at, [e.mean for e in estimates], [2 * e.stderr for e in estimates], fmt="o", markersize=3,
                color=_MEASURED, linewidth=1, label="Monte Carlo, 2 standard errors",
            )  # fmt: skip
            axes.set_title(_element(matrix, names, i, j), fontsize="medium")
    for axes in panels[-1]:
        axes.set_xlabel(name)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def plane(result: MetricResult) -> Figure:
    """The volume sqrt(det zeta) over a grid of two parameters, with ellipses of equal cost, and paths if there are any.

    An ellipse holds the steps dtheta with dtheta^T zeta dtheta below one value, the same for all of them: it is long in
    the directions that cost little.
    """
    names, grid = result.spec.loaded.parameters, result.spec.grid
    free = [names.index(grid[k][0]) for k in range(2)]
    shape = tuple(count for _, count in sorted(zip(free, (grid[0][3], grid[1][3]), strict=True)))
    free.sort()
    theta = np.array([point.theta for point in result.points])[:, free]
    zeta = np.array([point.measured.friction[np.ix_(free, free)] for point in result.points])
    volume = np.sqrt(np.maximum(np.linalg.det(zeta), 1e-300)).reshape(shape)
    x, y = theta[:, 0].reshape(shape), theta[:, 1].reshape(shape)
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    axes = figure.subplots()
    image = axes.pcolormesh(x, y, np.log10(volume), shading="gouraud", cmap="viridis")
    figure.colorbar(image, ax=axes, label=r"$\log_{10}\ \sqrt{\det\zeta}$ / (energy time / parameters)")
    # In units of the cells drawn, nine of ten half axes shall be below 0.5.
    stride = np.maximum(1, np.ceil(np.array(shape) / _ELLIPSES))
    cell = np.array([np.ptp(x) / (shape[0] - 1), np.ptp(y) / (shape[1] - 1)]) * stride
    scaled = np.linalg.eigvalsh(zeta * np.outer(cell, cell))
    radius = 0.5 / np.quantile(scaled[:, 0] ** -0.5, 0.9)
    for index in np.ndindex(*shape):
        if np.any(np.mod(index, stride)):
            continue
        flat = int(np.ravel_multi_index(index, shape))
        values, vectors = np.linalg.eigh(zeta[flat])
        width, height = 2 * radius / np.sqrt(values)
        angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
        axes.add_patch(
            Ellipse((theta[flat, 0], theta[flat, 1]), width, height, angle=angle, fill=False, color="white", alpha=0.8)
        )
    if result.geodesic is not None:
        s = np.linspace(0, 1, 201)
        for label, path in (("geodesic", result.geodesic.path(s)), ("line", result.geodesic.straight(s))):
            axes.plot(path[:, free[0]], path[:, free[1]], color="white", linewidth=4)
            axes.plot(path[:, free[0]], path[:, free[1]], color=_COLOURS[label], linewidth=2, label=label)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.set_xlim(x.min(), x.max())
    axes.set_ylim(y.min(), y.max())
    axes.set_xlabel(names[free[0]])
    axes.set_ylabel(names[free[1]])
    axes.set_title(f"{result.spec.loaded.name}: ellipses of equal cost", fontsize="medium")
    return figure


def protocols(result: MetricResult) -> Figure:
    """Protocols; their excess work against tau; and how far the geodesic's is from length^2 / tau, on log axes."""
    assert result.geodesic is not None
    names = result.spec.loaded.parameters
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _paths(left, result, names)
    for protocol, colour in _COLOURS.items():
        works = result.of(protocol)
        if not works:
            continue
        tau = np.array([work.tau for work in works])
        means, errors = _columns([work.measured for work in works])
        middle.errorbar(tau, means, 2 * errors, fmt="o", markersize=4, color=colour, label=f"{protocol}, measured")
        fine = np.geomspace(tau.min(), tau.max(), 50)
        if protocol != "optimal":
            constant = works[0].predicted * works[0].tau
            middle.plot(fine, constant / fine, color=colour, linewidth=0.8, linestyle="--")
        exact = np.array([work.exact for work in works])
        if np.all(np.isfinite(exact)):
            middle.plot(tau, exact, color=colour, linewidth=1)
    middle.plot([], [], color="grey", linewidth=0.8, linestyle="--", label=r"slow driving, $\propto 1/\tau$")
    if np.all(np.isfinite([work.exact for work in result.works])):
        middle.plot([], [], color="grey", linewidth=1, label="Fokker-Planck")
    middle.set_xscale("log")
    middle.set_yscale("log")
    middle.set_xlabel(r"$\tau$ / time")
    middle.set_ylabel("excess work / energy")
    middle.legend(frameon=False, fontsize="small")
    _gap(right, result)
    return figure


def _paths(axes: Any, result: MetricResult, names: Sequence[str]) -> None:
    assert result.geodesic is not None
    s = np.linspace(0, 1, 201)
    styles = ("-", "--", "-.", ":")
    geodesic, line = result.geodesic.path(s), result.geodesic.straight(s)
    least = next(iter(result.optima.values()), None)
    for k in range(len(names)):
        if np.ptp(line[:, k]) == 0 and np.ptp(geodesic[:, k]) == 0:
            continue
        style = styles[k % len(styles)]
        axes.plot(s, geodesic[:, k], color=_COLOURS["geodesic"], linestyle=style, label=f"geodesic: {names[k]}")
        axes.plot(s, line[:, k], color=_COLOURS["line"], linestyle=style, linewidth=0.8, label=f"line: {names[k]}")
        if least is not None:
            stops = np.concatenate([[least.start[k]], least.knots[:, k], [least.end[k]]])
            axes.plot(
                np.concatenate([[0.0], least.shares, [1.0]]), stops, color=_COLOURS["optimal"], linestyle=style,
                label=f"least work in {least.tau:.3g}: {names[k]}",
            )  # fmt: skip
    axes.set_xlabel(r"$t / \tau$")
    axes.set_ylabel(r"$\theta$")
    axes.legend(frameon=False, fontsize="small")


def _gap(axes: Any, result: MetricResult) -> None:
    works = result.of("geodesic")
    tau = np.array([work.tau for work in works])
    means, errors = _columns([work.measured for work in works])
    predicted = np.array([work.predicted for work in works])
    gaps = np.abs(means - predicted)
    exact = np.abs(np.array([work.exact for work in works]) - predicted)
    axes.errorbar(tau, gaps, 2 * errors, fmt="o", markersize=4, color=_COLOURS["geodesic"], label="measured")
    if np.all(np.isfinite(exact)):
        axes.plot(tau, exact, color=_EXACT, linewidth=0.8, label=f"Fokker-Planck, n = {result.exact_exponent():.2f}")
    exponent = result.exponent()
    if exponent is not None:
        weight = (gaps / errors) ** 2
        height = np.exp(np.sum(weight * (np.log(gaps) + exponent.mean * np.log(tau))) / np.sum(weight))
        axes.plot(
            tau, height * tau**-exponent.mean, color=_COLOURS["geodesic"], linestyle="--",
            label=rf"fit: $\tau^{{-n}}$, n = {exponent}",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.3 * np.nanmin(np.maximum(gaps, 0.5 * errors)), 3 * np.nanmax(gaps + errors))
    axes.set_xlabel(r"$\tau$ / time")
    axes.set_ylabel(r"$|W_\mathrm{ex} - \mathrm{length}^2/\tau|$ / energy")
    axes.legend(frameon=False, fontsize="small")


def _columns(estimates: list[Any]) -> tuple[Array, Array]:
    return np.array([e.mean for e in estimates]), np.array([e.stderr for e in estimates])


def _element(matrix: str, names: Sequence[str], i: int, j: int) -> str:
    inner = f"({names[i]}, {names[j]})" if i != j else f"({names[i]})"
    return rf"${_SYMBOLS[matrix]}$ {inner}"


def _point(names: Sequence[str], theta: Sequence[float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in zip(names, theta, strict=True))
