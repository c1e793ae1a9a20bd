"""The latent cycle itself: hidden states on a circle, and the net currents between them."""

from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.arrays import Array
from thermorun.cycles.result import StudyResult
from thermorun.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAP = "viridis"
# More states than this make pictures of single states too small to read.
MOST_DRAWN = 16


def can_draw_cycle(result: StudyResult) -> bool:
    """Whether ``cycle`` can draw models of this study."""
    return 2 <= result.states <= MOST_DRAWN


def cycle(result: StudyResult, index: int) -> "Figure":
    """The latent cycle of one model: see ``circle``."""
    figure: Figure
    figure, ax = plots.subplots(size=(6.4, 7.0))
    circle(ax, result, index)
    sigma, called = result.shown_sigma
    strongest = float(result["current"].mean[index].max())
    figure.suptitle(
        f"model {index}: net currents between hidden states (widest arrow {strongest:.3f} a double step)\n"
        rf"$\sigma$ ({called}) = {sigma[index]} nat per double step; numbers: state and its occupancy",
        fontsize="small",
    )
    return figure


def circle(ax: "Axes", result: StudyResult, index: int) -> None:
    """States as expected images on a circle, arrows as wide as the net current between them, frames by class drawn.

    States stand in the order in which the strongest currents visit them.  Raises InputError for a model that does not
    exist or has more than 16 states.
    """
    model, states = result.model(index), result.states
    if not can_draw_cycle(result):
        raise InputError(f"a drawing of {states or 'so many'} states is refused: its limits are 2 and {MOST_DRAWN}.")
    current, occupancy = result["current"].mean[index], result["occupancy"].mean[index]
    angle = np.pi / 2 - 2 * np.pi * np.argsort(_order(current)) / states
    where = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    size = 0.19 if states <= 8 else 0.13
    _arrows(ax, current, where, size)
    images = model.expected(model.states())
    classes, drawn = result.data.classes.tolist(), result["state_class"].mean[index]
    for z in range(states):
        inset = ax.inset_axes((where[z, 0] - size, where[z, 1] - size, 2 * size, 2 * size), transform=ax.transData)
        grey(inset, images[z], result.data.shape)
        for spine in inset.spines.values():
            spine.set_visible(True)
            spine.set_edgecolor(plots.colour(classes.index(int(drawn[z])) if drawn[z] in classes else 0))
            spine.set_linewidth(2.5)
        x, y = where[z] - (0, size + 0.09)
        ax.text(x, y, f"{z}: {occupancy[z]:.3f}", ha="center", va="center", fontsize="small")
    if len(classes) > 1:
        _legend_of_classes(ax, result, sorted({int(k) for k in drawn}))
    ax.set(xlim=(-1.35, 1.35), ylim=(-1.6, 1.3), aspect="equal")
    ax.axis("off")


def _legend_of_classes(ax: "Axes", result: StudyResult, shown: list[int]) -> None:
    from matplotlib.lines import Line2D

    classes = result.data.classes.tolist()
    frames = [
        Line2D([], [], marker="s", linestyle="", markerfacecolor="none", markeredgewidth=2,
               markeredgecolor=plots.colour(classes.index(k)), label=result.data.class_name(k))
        for k in shown if k in classes
    ]  # fmt: skip
    plots.legend(ax, handles=frames, title="class drawn", loc="lower center", ncols=6, fontsize="small")


def _arrows(ax: "Axes", current: Array, where: Array, size: float) -> None:
    from matplotlib import colormaps

    strongest = float(np.nanmax(current)) or 1.0
    for start, end in np.argwhere(current >= 0.02 * strongest):
        share = current[start, end] / strongest
        way = where[end] - where[start]
        gap = 1.75 * size * way / np.linalg.norm(way)
        ax.annotate(
            "", where[end] - gap, where[start] + gap,
            arrowprops={
                "arrowstyle": "-|>", "linewidth": 0.5 + 4.5 * share, "color": colormaps[_MAP](0.9 - 0.8 * share),
                "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10 + 12 * share,
            },
        )  # fmt: skip


def _order(current: Array) -> Array:
    """States in the order of the strongest currents, from the one with the largest current out."""
    order = [int(np.argmax(current.max(axis=1)))]
    left = set(range(len(current))) - set(order)
    while left:
        following = max(left, key=lambda z: current[order[-1], z])
        order.append(following)
        left.remove(following)
    return np.array(order)


def grey(ax: "Axes", image: Array, shape: tuple[int, int]) -> None:
    ax.imshow(image.reshape(shape), cmap="gray", vmin=0, vmax=1)
    bare(ax)


def bare(ax: "Axes") -> None:
    ax.set_xticks([])
    ax.set_yticks([])
