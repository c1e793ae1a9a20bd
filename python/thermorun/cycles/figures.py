"""The paper's pictures, drawn from results (Baiesi & Rosso, Figs. 2 to 4), and the latent cycle itself.

Functions that take ``ax`` draw one panel into axes of one's own; the others compose a figure.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thermokernels.chains import run_chains
from thermorun import plots, streams
from thermorun.arrays import Array
from thermorun.cycles.currents import MOST_DRAWN, bare, can_draw_cycle, cycle, grey
from thermorun.cycles.long_chains import autocorrelation
from thermorun.cycles.model import Model
from thermorun.cycles.result import StudyResult

__all__ = [
    "autocorrelations", "biases", "can_draw_cycle", "contact_sheet", "cycle", "indicator", "indicators", "likelihood",
    "memory", "plane", "portrait", "production", "training", "transitions",
]  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_MAP = "viridis"
_MARKERS = "os^Dv"


def training(result: StudyResult) -> "Figure":
    """Log-likelihood and entropy production against epoch, and one against the other at the end (Fig. 2)."""
    figure: Figure
    panels = 3 if result.states else 2
    figure, axes = plots.subplots(1, panels, size=(4.0 * panels, 3.9))
    likelihood(axes[0], result)
    if result.states:
        production(axes[1], result)
    plane(axes[-1], result)
    _colour_bar(figure, axes[-1], result)
    plots.letters(axes)
    figure.suptitle(_settings(result), fontsize="medium")
    return figure


def likelihood(ax: "Axes", result: StudyResult) -> None:
    """Log-likelihood of every model against epoch, coloured by entropy production at the end; dotted, held out."""
    names = {"log_likelihood": "-", "held_out_log_likelihood": ":"}
    if not np.isfinite(result.series["log_likelihood"]).any():
        _curves(ax, result, result.series["minibatch_log_likelihood"])
        ax.set_ylabel("log-likelihood of minibatches / nat")
        return
    from matplotlib import colormaps

    norm, sigma, ends = _norm(result), result.shown_sigma[0].mean, []
    for name, style in names.items():
        for m in range(result.spec.models):
            epochs, values = result.curve(name, m)
            if not len(epochs):
                continue
            label = {"-": "training", ":": "held out"}[style] if m == 0 else None
            ax.plot(epochs, values, style, color=colormaps[_MAP](norm(sigma[m])), linewidth=0.9, label=label)
            # The rise of the first tenth would leave no room for what follows.
            ends += [values[min(len(values) // 10, len(values) - 1) :].min(), values.max()]
    ends += _ceilings(ax, result)
    ax.set_xlabel("epoch")
    ax.set_ylabel("log-likelihood / nat")
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    ax.set_ylim(min(ends) - room, max(ends) + room)
    # Lines of models that stay low run through this corner.
    plots.legend(ax, loc="lower right", fontsize="small", frameon=True, facecolor="white", edgecolor="none")


def _ceilings(ax: "Axes", result: StudyResult) -> list[float]:
    """Draws what EM reached, on the data and on points held out, as lines; returns those values."""
    styles = {"log_likelihood": ("--", "ceiling (EM)"), "held_out_log_likelihood": (":", "the same, held out")}
    for name, value in result.attainable.items():
        style, label = styles[name]
        ax.axhline(value, color=plots.EXACT, linestyle=style, linewidth=1.0, label=f"{label}, {value:.2f}")
    return list(result.attainable.values())


def production(ax: "Axes", result: StudyResult) -> None:
    """Entropy production of every model against epoch, from averaged M, coloured by that at the end."""
    _curves(ax, result, result.series["entropy_production"])
    ax.set_ylabel(r"$\sigma$ (averaged M) / nat per double step")
    ax.set_ylim(0, None)


def _curves(ax: "Axes", result: StudyResult, shown: Array) -> None:
    from matplotlib import colormaps

    norm, sigma = _norm(result), result.shown_sigma[0].mean
    for m in range(result.spec.models):
        ax.plot(np.arange(1, len(shown) + 1), shown[:, m], color=colormaps[_MAP](norm(sigma[m])), linewidth=0.9)
    ax.set_xlabel("epoch")


def plane(ax: "Axes", result: StudyResult) -> None:
    """Log-likelihood against entropy production at the end, with one standard error; drawn models are numbered.

    Open markers are the likelihoods of points held out.
    """
    sigma, final = result.shown_sigma[0], result["log_likelihood"]
    known = np.isfinite(sigma.mean) & np.isfinite(final.mean)
    ax.errorbar(
        sigma.mean[known], final.mean[known], xerr=_error(sigma, known), yerr=_error(final, known), fmt="none",
        ecolor="0.6", linewidth=0.8, zorder=1,
    )  # fmt: skip
    ax.scatter(sigma.mean[known], final.mean[known], c=sigma.mean[known], cmap=_MAP, norm=_norm(result), s=26, zorder=2)
    if "held_out_log_likelihood" in result.diagnostics:
        others = result["held_out_log_likelihood"].mean[known]
        ax.scatter(sigma.mean[known], others, facecolor="none", edgecolor="0.4", s=26, label="held out")
        plots.legend(ax, fontsize="small", loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0)
    for index in result.drawn:
        if known[index]:
            ax.annotate(
                str(index), (sigma.mean[index], final.mean[index]), (4, 4), textcoords="offset points", fontsize="small"
            )
    ax.set_xlim(0, 1.08 * _largest(result))
    ax.margins(y=0.12)
    ax.set_xlabel(_sigma_label(result))
    ax.set_ylabel("log-likelihood at the end / nat")


def _error(estimate: Any, known: Array) -> Array:
    return np.asarray(np.nan_to_num(estimate.stderr[known]))


def _largest(result: StudyResult) -> float:
    sigma = result.shown_sigma[0].mean
    return max(float(np.nanmax(sigma)), 1e-9) if np.isfinite(sigma).any() else 1.0


def _norm(result: StudyResult) -> "Normalize":
    from matplotlib.colors import Normalize

    return Normalize(0, _largest(result))


def _colour_bar(figure: "Figure", ax: "Axes", result: StudyResult) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(_norm(result), _MAP), ax=ax)
    bar.set_label(rf"$\sigma$ ({result.shown_sigma[1]}) at the end / nat")


def _sigma_label(result: StudyResult) -> str:
    return rf"$\sigma$ ({result.shown_sigma[1]}) / nat per double step"


# ------------------------------------------------------------------------------------------------ Fig. 4

# Diagnostic: label, and bounds beyond which a number says how long was sampled and nothing of the model.
_INDICATORS: dict[str, tuple[str, tuple[float, float]]] = {
    "kl": ("KL of class frequencies / nat", (1e-6, 10.0)),
    "decorrelation_time": (r"decorrelation time $\tau$ / double steps", (1e-3, 1e5)),
    "mean_diagonal": (r"mean diagonal of $M$", (1e-6, 1.0)),
}


def indicators(result: StudyResult) -> "Figure":
    """KL divergence of classes, decorrelation time and mean diagonal of M against entropy production (Fig. 4)."""
    figure: Figure
    names = [name for name in _INDICATORS if not (name == "kl" and len(result.data.classes) < 2)]
    figure, axes = plots.subplots(1, len(names), size=(4.0 * len(names), 3.9))
    for ax, name in zip(axes, names, strict=True):
        indicator(ax, result, name)
    plots.letters(axes)
    figure.suptitle(_settings(result), fontsize="medium")
    return figure


def indicator(ax: "Axes", result: StudyResult, name: str) -> None:
    """One of "kl", "decorrelation_time" and "mean_diagonal" against entropy production, on a logarithmic axis."""
    label, (low, high) = _INDICATORS[name]
    sigma, value = result.shown_sigma[0], result[name]
    drawn = np.clip(value.mean, low, high)
    known = np.isfinite(sigma.mean) & np.isfinite(drawn)
    inside = known & (value.mean >= low) & (value.mean <= high)
    lower = np.minimum(_error(value, inside), 0.9 * drawn[inside])
    ax.errorbar(
        sigma.mean[inside], drawn[inside], xerr=_error(sigma, inside), yerr=[lower, _error(value, inside)], fmt="o",
        markersize=4.5, color=plots.COLOURS[0], ecolor="0.6", elinewidth=0.8,
    )  # fmt: skip
    for outside, marker, words in (
        (known & (value.mean < low), "v", f"below {low:g}"), (known & (value.mean > high), "^", f"above {high:g}"),
    ):  # fmt: skip
        if outside.any():
            ax.scatter(
                sigma.mean[outside], drawn[outside], marker=marker, facecolor="white", edgecolor=plots.COLOURS[0], s=30,
                label=words,
            )  # fmt: skip
    shown = drawn[known]
    if name == "mean_diagonal":
        ax.axhline(1 / result.states, color="black", linestyle=":", linewidth=1, label="1 / states")
        shown = np.append(shown, 1 / result.states)
    if len(shown) and shown.max() > 0:
        ax.set_yscale("log")
        # Room above the points for the legend.
        ax.set_ylim(
            0.6 * float(shown.min()), float(shown.max()) * (float(shown.max()) / float(shown.min())) ** 0.25 * 1.8
        )
    ax.set_xlim(0, 1.08 * _largest(result))
    if ax.get_legend_handles_labels()[1]:
        plots.legend(ax, fontsize="small", loc="upper right", ncols=2)
    ax.set_xlabel(_sigma_label(result))
    ax.set_ylabel(label)


# ------------------------------------------------------------------------------------------------ Fig. 3


def portrait(result: StudyResult, index: int, steps: int = 12) -> "Figure":
    """One model: w and wbar as images, abar, M, and a generated sequence under its expected images (Fig. 3).

    Raises InputError for a model that does not exist.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Drawing

    model = result.model(index)
    units = min(model.hidden, MOST_DRAWN)
    with mpl.rc_context({"text.usetex": False}):
        figure = Drawing(figsize=(0.85 * max(units, steps) + 1.2, 9.2), layout="constrained")
    rows: Any = figure.subfigures(4, 1, height_ratios=(1.25, 1.15, 2.2, 2.2))
    for letter, part, weights in (("a", rows[0], "w"), ("b", rows[1], "wbar")):
        _images_of_weights(part, result, index, weights, min(units, len(getattr(model, weights))))
        numbers = "; numbers: unit and its occupancy" if weights == "w" and _occupied(result) else ""
        part.suptitle(f"({letter}) {_WEIGHTS[weights]}{numbers}", x=0.01, ha="left", fontsize="small")
    bias, matrix = rows[2].subplots(1, 2)
    biases(bias, model)
    if result.states:
        transitions(matrix, result, index)
    else:
        matrix.axis("off")
    bias.set_title("(c)", loc="left", fontsize="small")
    matrix.set_title("(d)" if result.states else "", loc="left", fontsize="small")
    expected, drawn = sequence(result, index, steps)
    for ax, image in zip(rows[3].subplots(2, steps).ravel(), [*expected, *drawn], strict=True):
        grey(ax, image, result.data.shape)
    last = "e" if result.states else "d"
    rows[3].suptitle(
        f"({last}) successive double steps: expected images above, generated ones below", x=0.01, ha="left",
        fontsize="small",
    )  # fmt: skip
    figure.suptitle(_caption(result, index), fontsize="medium")
    return figure


_WEIGHTS = {
    "w": r"$w$, from hidden units to pixels (red: on, blue: off)",
    "wbar": r"$\overline{w}$, from pixels to the units that they act on",
}


def _occupied(result: StudyResult) -> bool:
    """Whether a hidden unit is a state, with an occupancy that is known."""
    return result.spec.encoding != "bits" and result.states > 0


def _caption(result: StudyResult, index: int) -> str:
    sigma, called = result.shown_sigma
    parts = [
        f"model {index}: log-likelihood {result['log_likelihood'].mean[index]:.2f}",
        rf"$\sigma$ ({called}) = {sigma[index]}",
    ]
    if result.states:
        parts.append(rf"$\tau$ = {result.estimate('decorrelation_time', index).mean:.3g}")
    return f"{_settings(result)}\n{', '.join(parts)}"


def _images_of_weights(part: Any, result: StudyResult, index: int, name: str, units: int) -> None:
    """A row of images, one a hidden unit."""
    model = result.model(index)
    weights = getattr(model, name)
    # A weight that no data point ever held back has no bound; the picture needs one.
    finite = np.abs(weights[np.isfinite(weights)])
    limit = float(np.quantile(finite, 0.98)) if len(finite) else 1.0
    for b, ax in enumerate(np.atleast_1d(part.subplots(1, units))):
        ax.imshow(weights[b].reshape(result.data.shape), cmap="RdBu_r", vmin=-(limit or 1.0), vmax=limit or 1.0)
        occupied = f": {result['occupancy'].mean[index, b]:.3f}" if name == "w" and _occupied(result) else ""
        ax.set_title(f"{b}{occupied}", fontsize="small")
        bare(ax)


def biases(ax: "Axes", model: Model) -> None:
    """The biases of the units that pixels act on."""
    from matplotlib.ticker import MaxNLocator

    ax.bar(np.arange(model.units), model.abar, color=plots.COLOURS[0])
    ax.axhline(0, color="black", linewidth=0.8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("bit of the first layer" if model.first else "hidden unit")
    ax.set_ylabel(r"bias $\overline{a}$")


def transitions(ax: "Axes", result: StudyResult, index: int) -> None:
    """The transition matrix of a model, with a colour bar."""
    picture = ax.imshow(result["matrix"].mean[index], cmap="magma", vmin=0, vmax=1)
    ax.figure.colorbar(picture, ax=ax, label="probability a double step")
    ax.set_xlabel("to state")
    ax.set_ylabel("from state")
    if result.states <= MOST_DRAWN:
        ax.set_xticks(range(result.states))
        ax.set_yticks(range(result.states))


def sequence(result: StudyResult, index: int, steps: int, burn: int = 200) -> tuple[Array, Array]:
    """Expected images and generated ones of ``steps`` successive double steps, (steps, D) each."""
    model = result.model(index)
    visible = result.data.x[:1].copy()
    seed, stream = streams.cycles(int(result.spec.seeds[index]), "portrait").take()
    warm, state = np.empty((1, burn), np.uint64), np.empty((1, 1), np.uint64)
    run_chains(model.row, model.options, model.mean, visible, 0, seed, stream, warm)
    expected, drawn = [], []
    for t in range(steps):
        run_chains(model.row, model.options, model.mean, visible, burn + t, seed, stream, state)
        expected.append(model.expected(state[0])[0])
        drawn.append(visible[0].copy())
    return np.array(expected), np.array(drawn)


# ------------------------------------------------------------------------------------------------ dynamics


def autocorrelations(result: StudyResult, models: Sequence[int], lags: int = 60) -> "Figure":
    """Autocorrelation of generated images against the number of double steps between them, with error bands."""
    figure: Figure
    figure, ax = plots.subplots(size=(6.8, 4.4))
    for place, index in enumerate(models):
        memory(ax, result, index, lags, place)
    ax.axhline(0, color="black", linewidth=0.8)
    plots.legend(ax, fontsize="small", loc="upper right")
    figure.suptitle(_settings(result), fontsize="small")
    return figure


def memory(ax: "Axes", result: StudyResult, index: int, lags: int = 60, place: int = 0) -> None:
    """Autocorrelation of the images that one model generates, within two standard errors."""
    spec, model = result.spec, result.model(index)
    found = autocorrelation(model.row, spec, model.mean, result.data.x, int(spec.seeds[index]), lags)
    sigma, called = result.shown_sigma
    label = rf"model {index}: $\sigma$ ({called}) = {sigma[index]}"
    marker = _MARKERS[place % len(_MARKERS)]
    plots.band(
        ax, np.arange(lags + 1), found.mean, found.stderr, color=plots.colour(place), marker=marker, markersize=2.5,
        linewidth=1, label=label,
    )  # fmt: skip
    ax.set_xlabel("double steps between images")
    ax.set_ylabel("autocorrelation of generated images")


def contact_sheet(images: Array, shape: tuple[int, int], most: int = 96) -> "Figure":
    """Images side by side, (images, D), the first 96 of them."""
    figure: Figure
    count = min(len(images), most)
    columns = min(count, 16)
    rows = -(-count // columns)
    figure, axes = plots.subplots(rows, columns, size=(0.6 * columns, 0.6 * rows), squeeze=False)
    for k, ax in enumerate(axes.ravel()):
        ax.axis("off")
        if k < count:
            ax.imshow(images[k].reshape(shape), cmap="gray", vmin=0, vmax=1)
    return figure


def _settings(result: StudyResult) -> str:
    spec = result.spec
    tied = ", tied weights" if spec.tied else ""
    return (
        f"{result.data.name}: {len(result.data.x):,} points of {result.data.x.shape[1]} bits; {spec.models} models,"
        f" {spec.encoding}{tied}, {spec.layers}, {spec.epochs} epochs"
    )
