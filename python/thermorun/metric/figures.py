"""Pictures of a metric: correlation integrals at a point, elements over a grid, geodesics and what they cost.

Blue is what was measured, black what is exact.  Of protocols, each has its colour; lines say how a value is known:
dashed by slow driving, solid by the Fokker-Planck equation, points measured.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun import plots
from thermorun.arrays import Array
from thermorun.metric.result import MATRICES, DriveResult, MetricResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEASURED = plots.COLOURS[0]
_COLOURS = {"geodesic": plots.COLOURS[3], "line": plots.COLOURS[1], "optimal": plots.COLOURS[2]}
_NAMES = {"geodesic": "geodesic", "line": "straight line", "optimal": "least work"}
_SYMBOLS = {"fisher": "g", "friction": r"\zeta", "relaxation": r"\tau^r"}
_UNITS = {"fisher": "", "friction": " / energy time", "relaxation": " / time"}
_POINTS: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "linewidth": 1}
# Where the geodesic is the straight line, one must not hide the other.
_WIDTHS = {"geodesic": 3.5, "line": 1.5, "optimal": 1.5}
_MARKERS: dict[str, dict[str, Any]] = {
    "geodesic": {"fmt": "o", "markersize": 7, "markerfacecolor": "none"},
    "line": {"fmt": "s", "markersize": 3.5},
    "optimal": {"fmt": "^", "markersize": 4.5},
}
_STYLES = ("-", "--", "-.", ":")
# Ellipses of a map: at most so many along a side.
_ELLIPSES = 9
_TWO = "2 standard errors"


def windows(result: MetricResult, index: int = 0) -> "Figure":
    """Correlation integrals at one point against the window's length, element by element."""
    names = result.parameters
    p = len(names)
    figure, axes = plots.subplots(p, p, (max(6.4, 2.6 + 2.6 * p), 2.0 + 2.2 * p), sharex=True, squeeze=False)
    for i, j in itertools.product(range(p), range(p)):
        if j > i:
            axes[i, j].set_visible(False)
        else:
            window(axes[i, j], result, index, i, j)
            axes[i, j].set_xlabel("window s / time" if i == p - 1 else "")
    if p > 1:
        plots.letters([axes[i, j] for i in range(p) for j in range(i + 1)])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    plots.legend(figure, handles=handles, labels=labels, loc="outside lower center", ncols=3)
    figure.suptitle(f"{result.spec.potential_name} at {_at(names, result.points[index].theta)}")
    return figure


def window(ax: "Axes", result: MetricResult, index: int, i: int, j: int) -> None:
    """The correlation integral (i, j) at one point against the window's length s, and the length taken."""
    point = result.points[index]
    lengths, curve = point.windows.lengths, point.curve[:, i, j]
    _errorbar(ax, lengths, curve.mean, curve.stderr, color=_MEASURED, label=f"Monte Carlo, {_TWO}")
    ax.axvline(point.window[i, j], color="0.5", linestyle=":", label="window taken")
    if point.exact is not None:
        plots.exact(ax, lengths[[0, -1]], [point.known("friction", i, j)] * 2, "exact")
    ax.set_xscale("log")
    ax.set_xlabel("window s / time")
    ax.set_ylabel(_element("friction", result.parameters, i, j))


def along(result: MetricResult) -> "Figure":
    """g, zeta and tau^r along a grid of one parameter, beside exact curves."""
    pairs = list(itertools.combinations_with_replacement(range(len(result.parameters)), 2))
    figure, axes = plots.subplots(len(pairs), 3, (10.5, 2.3 * len(pairs) + 0.9), sharex=True, squeeze=False)
    for (i, j), row in zip(pairs, axes, strict=True):
        for matrix, ax in zip(MATRICES, row, strict=True):
            element(ax, result, matrix, i, j)
            ax.set_xlabel(result.spec.grid[0][0] if (i, j) == pairs[-1] else "")
    plots.letters(axes)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    plots.legend(figure, handles=handles, labels=labels, loc="outside lower center", ncols=2)
    return figure


def element(ax: "Axes", result: MetricResult, matrix: str, i: int, j: int) -> None:
    """The element (i, j) of ``fisher``, ``friction`` or ``relaxation`` along a grid of one parameter."""
    name, names = result.spec.grid[0][0], result.parameters
    at = np.array([point.theta[names.index(name)] for point in result])
    exact = [point.known(matrix, i, j) for point in result]
    if np.any(np.isfinite(exact)):
        plots.exact(ax, at, exact, "exact, at the same points")
    found = [getattr(point, matrix)[i, j] for point in result]
    means, errors = (np.array([getattr(one, part) for one in found]) for part in ("mean", "stderr"))
    _errorbar(ax, at, means, errors, color=_MEASURED, label=f"Monte Carlo, {_TWO}")
    if not np.any(np.isfinite(means)):
        ax.text(0.5, 0.5, "no g to be seen", transform=ax.transAxes, ha="center", color="0.4")
    ax.set_xlabel(name)
    ax.set_ylabel(_element(matrix, names, i, j))


def plane(result: MetricResult) -> "Figure":
    """The volume sqrt(det zeta) over a grid of two parameters, with ellipses of equal cost, and paths if there are any.

    An ellipse holds the steps dtheta with dtheta^T zeta dtheta below one value, the same for all of them: it is long in
    the directions that cost little.
    """
    figure, ax = plots.subplots(size=(7.2, 5.6))
    image = volume(ax, result)
    figure.colorbar(image, ax=ax, label=r"$\log_{10}\ \sqrt{\det\zeta}$, $\zeta$ / (energy time)")
    ellipses(ax, result)
    if isinstance(result, DriveResult) and result.geodesic is not None:
        paths(ax, result, _free(result))
        plots.legend(figure, loc="outside lower center", ncols=3)
    ax.set_title(f"{result.spec.potential_name}: ellipses of equal cost")
    return figure


def volume(ax: "Axes", result: MetricResult) -> Any:
    """sqrt(det zeta) of the measured tensor over a grid of two parameters, as cells; returns the image."""
    x, y, zeta = _plane(result)
    values = 0.5 * np.log10(np.maximum(np.linalg.det(zeta), 1e-300))
    image = ax.pcolormesh(x, y, values, shading="nearest", cmap="viridis")
    names = [result.parameters[k] for k in _free(result)]
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return image


def ellipses(ax: "Axes", result: MetricResult) -> None:
    """Ellipses of equal cost, at most nine along a side."""
    from matplotlib.patches import Ellipse

    x, y, zeta = _plane(result)
    shape = np.array(x.shape)
    # In units of the cells drawn, nine of ten half axes shall be below 0.45.
    stride = np.maximum(1, np.ceil(shape / _ELLIPSES)).astype(int)
    cell = np.array([np.ptp(x), np.ptp(y)]) / (shape - 1) * stride
    scaled = np.linalg.eigvalsh(zeta * np.outer(cell, cell))
    radius = 0.45 / np.quantile(scaled[..., 0] ** -0.5, 0.9)
    for index in itertools.product(*(range(0, size, step) for size, step in zip(shape, stride, strict=True))):
        values, vectors = np.linalg.eigh(zeta[index])
        width, height = 2 * radius / np.sqrt(values)
        angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
        ax.add_patch(
            Ellipse((x[index], y[index]), width, height, angle=angle, fill=False, color="white", alpha=0.8)
        )  # fmt: skip


def paths(ax: "Axes", result: DriveResult, free: Sequence[int]) -> None:
    """The geodesic and the straight line in the plane of two parameters."""
    assert result.geodesic is not None
    s = np.linspace(0, 1, 201)
    for name, path in (("line", result.geodesic.straight(s)), ("geodesic", result.geodesic.path(s))):
        ax.plot(*path[:, free].T, color="white", linewidth=4)
        ax.plot(*path[:, free].T, color=_COLOURS[name], linewidth=2, label=_NAMES[name])


def protocols(result: DriveResult) -> "Figure":
    """Protocols; their excess work against tau; and how far the geodesic's is from length^2 / tau."""
    figure, axes = plots.subplots(1, 3, (12.0, 4.6))
    courses(axes[0], result)
    works(axes[1], result)
    gap(axes[2], result)
    plots.letters(axes)
    return figure


def courses(ax: "Axes", result: DriveResult) -> None:
    """Parameters against t / tau: along the geodesic, along the line, and for the least work in the shortest time."""
    assert result.geodesic is not None
    s = np.linspace(0, 1, 201)
    drawn = {"geodesic": (s, result.geodesic.path(s)), "line": (s, result.geodesic.straight(s))}
    names = dict(_NAMES)
    if result.least:
        first = result.least[0]
        at = np.concatenate([[0.0], first.shares, [1.0]])
        drawn["optimal"] = (at, np.concatenate([[first.start], first.knots, [first.end]]))
        names["optimal"] += f" in {first.tau:.3g}"
    changed = [k for k in range(len(result.parameters)) if any(np.ptp(path[:, k]) > 0 for _, path in drawn.values())]
    for number, k in enumerate(changed):
        for protocol, (at, path) in drawn.items():
            label = names[protocol] + (f": {result.parameters[k]}" if len(changed) > 1 else "")
            ax.plot(
                at, path[:, k], color=_COLOURS[protocol], linestyle=_STYLES[number % len(_STYLES)],
                linewidth=_WIDTHS[protocol], label=label,
            )  # fmt: skip
    ax.set_xlabel(r"$t / \tau$")
    ax.set_ylabel(result.parameters[changed[0]] if len(changed) == 1 else "parameters")
    _legend_above(ax, 1 if len(changed) == 1 else len(changed))


def works(ax: "Axes", result: DriveResult) -> None:
    """Excess work against tau, both logarithmic."""
    for protocol, colour in _COLOURS.items():
        found = sorted(result.of(protocol), key=lambda work: work.tau)
        if not found:
            continue
        tau, means, errors = _columns(found)
        label = f"{_NAMES[protocol]}, measured"
        _errorbar(ax, tau, means, errors, color=colour, label=label, **_MARKERS[protocol])
        if protocol != "optimal":
            ax.plot(tau, [work.predicted for work in found], color=colour, linewidth=0.8, linestyle="--")
        ax.plot(tau, [work.exact for work in found], color=colour, linewidth=1)
    ax.plot([], [], color="0.5", linewidth=0.8, linestyle="--", label=r"slow driving, $\propto 1/\tau$")
    if any(np.isfinite(work.exact) for work in result.works):
        ax.plot([], [], color="0.5", linewidth=1, label="Fokker-Planck equation")
    _logarithmic(ax, np.array(sorted({work.tau for work in result.works})))
    ax.set_ylabel(r"$W_\mathrm{ex}$ / energy")
    _legend_above(ax, 1)


def gap(ax: "Axes", result: DriveResult) -> None:
    """How far the geodesic's excess work is from length^2 / tau, and the power of tau with which it falls."""
    found = sorted(result.of("geodesic"), key=lambda work: work.tau)
    tau, means, errors = _columns(found)
    predicted = np.array([work.predicted for work in found])
    gaps, colour = np.abs(means - predicted), _COLOURS["geodesic"]
    _errorbar(ax, tau, gaps, errors, color=colour, label=f"geodesic, measured, {_TWO}")
    exact = np.abs(np.array([work.exact for work in found]) - predicted)
    if np.all(np.isfinite(exact)):
        exponent = result.exact_exponent()
        told = "" if np.isnan(exponent) else rf", $\tau^{{-n}}$, n = {exponent:.2f} at the end"
        ax.plot(tau, exact, color=colour, linewidth=1, label=f"Fokker-Planck{told}")
    fitted = result.exponent()
    if fitted is not None:
        weight = (gaps / errors) ** 2
        height = np.exp(np.sum(weight * (np.log(gaps) + fitted.mean * np.log(tau))) / np.sum(weight))
        label = rf"fit of $\tau^{{-n}}$, n = {fitted}"
        ax.plot(tau, height * tau**-fitted.mean, color="0.5", linestyle=":", label=label)
    ax.set_ylim(0.3 * np.nanmin(np.maximum(gaps, 0.5 * errors)), 3 * np.nanmax(gaps + errors))
    _logarithmic(ax, tau)
    ax.set_ylabel(r"$|W_\mathrm{ex} - \mathrm{length}^2/\tau|$ / energy")
    _legend_above(ax, 1)


def _logarithmic(ax: "Axes", tau: Array) -> None:
    """Both axes logarithmic, ticks at the durations."""
    from matplotlib.ticker import LogLocator, NullLocator

    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(tau, [f"{value:g}" for value in tau])
    low, high = ax.get_ylim()
    if high < 30 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=[1.0, 2.0, 5.0] if high > 4 * low else list(range(1, 10))))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel(r"$\tau$ / time")


def _legend_above(ax: "Axes", columns: int) -> None:
    """Above the panel, where no data are; the letter stands at its left."""
    plots.legend(ax, loc="lower left", bbox_to_anchor=(0.0, 1.06), ncols=columns, fontsize="small")


def _errorbar(ax: "Axes", x: Array, mean: Array, stderr: Array, **style: Any) -> None:
    """Points with two standard errors."""
    ax.errorbar(x, mean, 2 * np.asarray(stderr), **_POINTS | style)


def _columns(found: Sequence[Any]) -> tuple[Array, Array, Array]:
    columns = [(work.tau, work.excess_work.mean, work.excess_work.stderr) for work in found]
    tau, means, errors = np.array(columns).T
    return tau, means, errors


def _free(result: MetricResult) -> list[int]:
    """The numbers of the parameters that have a grid."""
    return sorted(result.parameters.index(name) for name, *_ in result.spec.grid)


def _plane(result: MetricResult) -> tuple[Array, Array, Array]:
    """Both parameters (n, m) and zeta (n, m, 2, 2) over a grid of two."""
    free = _free(result)
    zeta = np.asarray(result.friction)[..., free, :][..., free]
    theta = np.array([point.theta for point in result])[:, free].reshape(*zeta.shape[:2], 2)
    return theta[..., 0], theta[..., 1], zeta


def _element(matrix: str, names: Sequence[str], i: int, j: int) -> str:
    inner = f"({names[i]}, {names[j]})" if i != j else f"({names[i]})"
    return rf"${_SYMBOLS[matrix]}$ {inner}{_UNITS[matrix]}"


def _at(names: Sequence[str], theta: Sequence[float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in zip(names, theta, strict=True))
