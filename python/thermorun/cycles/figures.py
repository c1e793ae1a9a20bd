"""The paper's pictures, drawn from results (Baiesi & Rosso, Figs. 2 to 4), and the latent cycle itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from thermokernels import latent_cycle
from thermorun.cycles.analysis import autocorrelation
from thermorun.cycles.result import StudyResult
from thermorun.errors import InputError

Array = NDArray[Any]

_MAP = "viridis"
_CLASS_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F", "#8C564B", "#9467BD"
)  # fmt: skip
# More states than this make pictures of single states too small to read.
_MOST_STATES = 16


def training(result: StudyResult) -> Figure:
    """Log-likelihood and entropy production against epoch, and one against the other at the end (Fig. 2)."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    series, sigma = result.series, result.analysis.entropy_production
    shown = series["log_likelihood"]
    if not np.isfinite(shown).any():
        shown = series["minibatch_log_likelihood"]
    largest = max(float(np.nanmax(sigma)), 1e-9) if np.isfinite(sigma).any() else 1.0
    norm = Normalize(0, largest)
    epochs = np.arange(1, len(shown) + 1)
    for m in range(result.spec.models):
        colour = colormaps[_MAP](norm(sigma[m]))
        left.plot(epochs, shown[:, m], color=colour, linewidth=0.9)
        middle.plot(epochs, series["entropy_production"][:, m], color=colour, linewidth=0.9)
    final = result.analysis.log_likelihood
    right.errorbar(
        sigma, final, xerr=result.analysis.entropy_production_stderr, yerr=result.analysis.log_likelihood_stderr,
        fmt="none", ecolor="0.6", linewidth=0.8, zorder=1,
    )  # fmt: skip
    right.set_xlim(0, 1.08 * largest)
    points = right.scatter(sigma, final, c=sigma, cmap=_MAP, norm=norm, s=26, zorder=2)
    left.set_ylabel("log-likelihood / nat")
    top = float(np.nanmax(shown))
    left.set_ylim(top - 1.6 * (top - float(np.nanmin(shown[-1]))) - 1, top + 1)
    middle.set_ylabel(r"entropy production $\sigma$ / nat per double step")
    for axes in (left, middle):
        axes.set_xlabel("epoch")
    right.set_xlabel(r"$\sigma$ / nat per double step")
    right.set_ylabel("log-likelihood / nat, last epoch")
    figure.colorbar(points, ax=right, label=r"$\sigma$ at the end")
    figure.suptitle(_settings(result), fontsize="medium")
    return figure


def indicators(result: StudyResult) -> Figure:
    """KL divergence of classes, decorrelation time and mean diagonal of M against entropy production (Fig. 4)."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    a = result.analysis
    known = (
        ("kl", "KL of class frequencies / nat", "log"),
        ("decorrelation_time", r"decorrelation time $\tau$ / double steps", "log"),
        ("mean_diagonal", r"mean diagonal of $M$", "linear"),
    )
    # Numbers beyond these bounds are bounds of the sampling, not of the models.
    bounds = {"kl": (1e-6, 10.0), "decorrelation_time": (0.0, 1e5), "mean_diagonal": (0.0, 1.0)}
    for axes, (name, label, scale) in zip(figure.subplots(1, 3), known, strict=True):
        value, error = getattr(a, name), getattr(a, f"{name}_stderr")
        low, high = bounds[name]
        inside = (value >= low) & (value <= high) & np.isfinite(a.entropy_production)
        drawn = np.clip(value, low, high)
        lower = np.minimum(error, 0.9 * drawn) if scale == "log" else error
        axes.errorbar(
            a.entropy_production[inside], drawn[inside], xerr=a.entropy_production_stderr[inside],
            yerr=np.nan_to_num(np.stack([lower, error])[:, inside]), fmt="o", markersize=4.5, color="#0072B2",
            ecolor="0.6", elinewidth=0.8,
        )  # fmt: skip
        outside = ~inside & np.isfinite(drawn) & np.isfinite(a.entropy_production)
        axes.scatter(
            a.entropy_production[outside], drawn[outside], marker="v" if name == "kl" else "^", facecolor="white",
            edgecolor="#0072B2", s=30, label="beyond the axis",
        )  # fmt: skip
        axes.set_yscale(scale)
        shown = drawn[(inside | outside) & (drawn > 0)]
        if scale == "log" and len(shown):
            axes.set_ylim(0.6 * float(shown.min()), 1.8 * float(shown.max()))
        axes.set_xlim(0, None)
        if outside.any():
            axes.legend(frameon=False, fontsize="small")
        axes.set_xlabel(r"$\sigma$ / nat per double step")
        axes.set_ylabel(label)
        if name == "mean_diagonal" and a.matrix.shape[-1]:
            axes.axhline(1 / a.matrix.shape[-1], color="black", linestyle=":", linewidth=1)
            axes.text(0.98, 1 / a.matrix.shape[-1], "1 / states", ha="right", va="bottom",
                      transform=axes.get_yaxis_transform(), fontsize="small")  # fmt: skip
            axes.set_ylim(0, None)
    figure.suptitle(_settings(result), fontsize="medium")
    return figure


def portrait(result: StudyResult, index: int, steps: int = 12) -> Figure:
    """One model: w and wbar as images, abar, M, and a generated sequence under its expected images (Fig. 3).

    Raises InputError for a model that does not exist.
    """
    model = result.model(index)
    shape = result.data.shape
    units = min(model.hidden, _MOST_STATES)
    columns = max(units, steps)
    figure = Figure(figsize=(0.95 * columns + 1.5, 8.4), layout="constrained")
    rows: Any = figure.subfigures(4, 1, height_ratios=(1.1, 1, 2.1, 2))
    a = result.analysis
    for part, weights, name in ((rows[0], model.w, "w"), (rows[1], model.wbar, r"\overline{w}")):
        # A weight that no data point ever held back has no bound; the picture needs one.
        limit = float(np.quantile(np.abs(weights), 0.98)) or 1.0
        for b, axes in enumerate(np.atleast_1d(part.subplots(1, units))):
            axes.imshow(weights[b].reshape(shape), cmap="RdBu_r", vmin=-limit, vmax=limit)
            title = rf"${name}_{{{b}}}$"
            if name == "w" and model.encoding != "bits" and a.occupancy.shape[-1]:
                title += f"\n{a.occupancy[index, b]:.3f}"
            axes.set_title(title, fontsize="small")
            _bare(axes)
    bias, matrix = rows[2].subplots(1, 2, width_ratios=(1, 1))
    bias.bar(np.arange(model.hidden), model.abar, color="#0072B2")
    bias.axhline(0, color="black", linewidth=0.8)
    bias.set_xlabel("hidden unit")
    bias.set_ylabel(r"$\overline{a}$")
    if a.matrix.shape[-1]:
        picture = matrix.imshow(a.matrix[index], cmap="magma", vmin=0, vmax=1)
        figure.colorbar(picture, ax=matrix, label="probability")
        matrix.set_xlabel("to state")
        matrix.set_ylabel("from state")
        matrix.set_title(r"$M$", fontsize="small")
    else:
        matrix.axis("off")
    expected, drawn = sequence(result, index, steps)
    for axes, image in zip(rows[3].subplots(2, steps).ravel(), [*expected, *drawn], strict=True):
        axes.imshow(image.reshape(shape), cmap="gray", vmin=0, vmax=1)
        _bare(axes)
    rows[3].suptitle("a sequence of double steps: expected images above, generated ones below", fontsize="small")
    figure.suptitle(
        f"{_settings(result)}\nmodel {index}: log-likelihood {a.log_likelihood[index]:.2f},"
        rf" $\sigma$ = {result.estimate('entropy_production', index)},"
        rf" $\tau$ = {a.decorrelation_time[index]:.3g}, KL = {a.kl[index]:.2g}",
        fontsize="medium",
    )
    return figure


def sequence(result: StudyResult, index: int, steps: int, burn: int = 200) -> tuple[Array, Array]:
    """Expected images and generated ones of ``steps`` successive double steps, (steps, D) each."""
    model = result.model(index)
    visible = result.data.x[:1].copy()
    seed, stream = result.spec.seeds[index], latent_cycle.SAMPLE + np.uint64(2**31)
    warm, state = np.empty((1, burn), np.uint64), np.empty((1, 1), np.uint64)
    latent_cycle.run_chains(model.row, model.options, model.mean, visible, 0, seed, stream, warm)
    expected, drawn = [], []
    for t in range(steps):
        latent_cycle.run_chains(model.row, model.options, model.mean, visible, burn + t, seed, stream, state)
        expected.append(model.expected(state[0])[0])
        drawn.append(visible[0].copy())
    return np.array(expected), np.array(drawn)


def autocorrelations(result: StudyResult, models: Sequence[int], lags: int = 60) -> Figure:
    """Autocorrelation of generated images against the number of double steps between them, with error bands."""
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.subplots()
    spec = result.spec
    for colour, index in zip(_CLASS_COLOURS * 4, models, strict=False):
        model = result.model(index)
        mean, error = autocorrelation(model.row, spec, model.mean, result.data.x, int(spec.seeds[index]), lags)
        sigma = result.analysis.entropy_production[index]
        axes.plot(mean, "o-", color=colour, markersize=2.5, linewidth=1, label=rf"{index}: $\sigma$ = {sigma:.3g}")
        low, high = mean - 2 * error, mean + 2 * error
        axes.fill_between(np.arange(lags + 1), low, high, color=colour, alpha=0.25, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("double steps between images")
    axes.set_ylabel("autocorrelation of generated images")
    axes.set_title(_settings(result), fontsize="small")
    axes.legend(frameon=False, fontsize="small", title="model")
    return figure


def cycle(result: StudyResult, index: int) -> Figure:
    """The latent cycle: states as expected images on a circle, arrows as wide as the net current between them.

    States stand in the order in which the strongest currents visit them.  Raises InputError for a model that does not
    exist or has more than 16 states.
    """
    model = result.model(index)
    a = result.analysis
    states = a.occupancy.shape[-1]
    if not can_draw_cycle(result):
        raise InputError(f"a drawing of {states or 'so many'} states is refused: its limits are 2 and {_MOST_STATES}.")
    figure = Figure(figsize=(6.4, 6.8), layout="constrained")
    axes = figure.subplots()
    current, occupancy = a.current[index], a.occupancy[index]
    order = _order(current)
    angle = np.pi / 2 - 2 * np.pi * np.argsort(order) / states
    where = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    strongest = float(current.max()) or 1.0
    images = model.expected(model.states())
    size = 0.19 if states <= 8 else 0.13
    for start in range(states):
        for end in range(states):
            share = current[start, end] / strongest
            if share < 0.02:
                continue
            way = where[end] - where[start]
            gap = 1.75 * size * way / np.linalg.norm(way)
            axes.annotate(
                "", where[end] - gap, where[start] + gap,
                arrowprops={
                    "arrowstyle": "-|>", "linewidth": 0.5 + 4.5 * share, "color": colormaps[_MAP](0.9 - 0.8 * share),
                    "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10 + 12 * share,
                },
            )  # fmt: skip
    for z in range(states):
        inset = axes.inset_axes((where[z, 0] - size, where[z, 1] - size, 2 * size, 2 * size), transform=axes.transData)
        inset.imshow(images[z].reshape(result.data.shape), cmap="gray", vmin=0, vmax=1)
        _bare(inset)
        kind = int(np.flatnonzero(result.data.classes == a.state_class[index, z])[0])
        for spine in inset.spines.values():
            spine.set_edgecolor(_CLASS_COLOURS[kind % len(_CLASS_COLOURS)])
            spine.set_linewidth(2.5)
        x, y = where[z] - (0, size + 0.09)
        axes.text(x, y, f"{z}: {occupancy[z]:.3f}", ha="center", va="center", fontsize="small")
    axes.set(xlim=(-1.35, 1.35), ylim=(-1.4, 1.3), aspect="equal")
    axes.axis("off")
    axes.set_title(
        f"model {index}: net currents between hidden states (widest {strongest:.3f} a double step)\n"
        rf"$\sigma$ = {result.estimate('entropy_production', index)}, numbers: state and its occupancy;"
        " frames: class drawn",
        fontsize="small",
    )
    return figure


def _order(current: Array) -> Array:
    """States in the order of the strongest currents, from the one with the largest current out."""
    order = [int(np.argmax(current.max(axis=1)))]
    left = set(range(len(current))) - set(order)
    while left:
        following = max(left, key=lambda z: current[order[-1], z])
        order.append(following)
        left.remove(following)
    return np.array(order)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])


def _settings(result: StudyResult) -> str:
    spec = result.spec
    tied = ", tied weights" if spec.tied else ""
    return (
        f"{result.data.name}: {len(result.data.x):,} points of {result.data.x.shape[1]} bits; {spec.models} models,"
        f" {spec.encoding}{tied}, {spec.hidden} hidden, {spec.epochs} epochs"
    )


def can_draw_cycle(result: StudyResult) -> bool:
    """Whether ``cycle`` can draw models of this study."""
    return 2 <= int(result.analysis.occupancy.shape[-1]) <= _MOST_STATES


def contact_sheet(images: Array, shape: tuple[int, int], most: int = 96) -> Figure:
    """Images side by side, (images, D), the first 96 of them."""
    count = min(len(images), most)
    columns = min(count, 16)
    rows = -(-count // columns)
    figure = Figure(figsize=(0.6 * columns, 0.6 * rows), layout="constrained")
    for k, axes in enumerate(np.atleast_1d(figure.subplots(rows, columns)).ravel()):
        axes.axis("off")
        if k < count:
            axes.imshow(images[k].reshape(shape), cmap="gray", vmin=0, vmax=1)
    return figure
