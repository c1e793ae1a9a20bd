"""Pictures of machines: activations in time, confusions, couplings, descents, sweeps.

Each draws into axes of the caller's; the compositions at the end are what the commands save.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.arrays import Array
from thermorun.computer.layout import Portrait
from thermorun.computer.machine import Machine
from thermorun.computer.result import ClassificationResult, SweepResult, TrainingResult
from thermorun.computer.score import Score
from thermorun.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "observation-time": "observation time / time",
    "temperature": r"$k_\mathrm{B}T$ / energy",
    "timestep": r"$\Delta t$ / time",
    "shots": "shots that vote",
    "window": "window of the read-out / time",
    "connectivity": "connectivity",
    "hidden": "hidden units",
}
_ACCURACY, _TOP2 = plots.COLOURS[0], plots.COLOURS[5]
# Hidden units whose activations and couplings are shown.
_TRACES, _FIELDS = 16, 64
# Colours end at this quantile of the couplings.
_QUANTILE = 0.98


def confusion(ax: "Axes", score: Score, classes: Sequence[int | str]) -> None:
    """Percent of the shots at each label that gave each answer; colour shows the wrong ones."""
    shares = 100 * score.confusion / np.maximum(score.confusion.sum(axis=1, keepdims=True), 1)
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0)
    # The darkest cell is half of the palette, so that black digits can be read on every one.
    ax.imshow(wrong, cmap="Oranges", vmin=0, vmax=2 * max(float(wrong.max()), 1e-9))
    if len(classes) <= 20:
        for i, j in np.argwhere(shares >= 0.05):
            text = f"{shares[i, j]:.0f}" if shares[i, j] >= 9.95 else f"{shares[i, j]:.1f}"
            ax.text(j, i, text, ha="center", va="center", fontsize=7, weight="bold" if i == j else "normal")
    places = range(0, len(classes), -(-len(classes) // 20))
    ax.set_xticks(places, [str(classes[k]) for k in places])
    ax.set_yticks(places, [str(classes[k]) for k in places])
    ax.set_xlabel("answer, % of a label's shots")
    ax.set_ylabel("label")
    ax.set_title(f"right: {score.accuracy} %")


def by_class(ax: "Axes", score: Score, classes: Sequence[int | str]) -> None:
    """Accuracy of each class with two standard errors, beside that of all."""
    places = np.arange(len(classes))
    ax.errorbar(places, *percent(score.by_class), fmt="o", color=_ACCURACY, markersize=4, capsize=2)
    if score.accuracy is not None:
        ax.axhline(100 * score.accuracy.mean, color="0.4", linewidth=1, label="all classes")
    ax.set_xticks(places, [str(k) for k in classes])
    ax.set_xlabel("label")
    ax.set_ylabel("accuracy / %")
    ax.margins(x=0.2 if len(classes) < 4 else None)
    plots.legend(ax, loc="lower right", bbox_to_anchor=(1.0, 1.0))


def answer_counts(ax: "Axes", result: ClassificationResult) -> None:
    """How many images got each answer."""
    classes = result.machine.said
    ax.bar(range(len(classes)), [int(np.sum(result.answers == k)) for k in classes], color=_ACCURACY, width=0.7)
    ax.set_xticks(range(len(classes)), [str(k) for k in classes])
    ax.set_xlabel("answer")
    ax.set_ylabel("images")


def picture(ax: "Axes", portrait: Portrait, example: int, words: str = "") -> None:
    """One image, bright pixels dark, with a few words beside it."""
    ax.imshow(portrait.pictures[example], cmap="gray_r")
    ax.set_axis_off()
    ax.text(1.06, 0.5, words, transform=ax.transAxes, va="center", fontsize="small")


def hidden_units(ax: "Axes", machine: Machine, portrait: Portrait, example: int) -> None:
    """Some hidden units against time, for one image; the observation time dotted."""
    shown = min(machine.hidden, _TRACES)
    ax.plot(portrait.times, portrait.paths[:, example, :shown], linewidth=0.6, color="0.45")
    ax.axvline(machine.physics.observation_time, color="black", linestyle=":", linewidth=1)
    ax.set_xlabel("$t$ / time")
    ax.set_ylabel(f"$x$ of {shown} of {machine.hidden} hidden units / length")


def outputs(ax: "Axes", machine: Machine, portrait: Portrait, example: int) -> None:
    """Outputs against time, for one image, that of its label thick; the observation time dotted."""
    count = len(plots.COLOURS)
    for k in range(machine.outputs):
        ax.plot(
            portrait.times, portrait.paths[:, example, machine.hidden + k], color=plots.colour(k),
            label=f"{machine.said[k]}", linestyle=("-", "--", ":")[k // count % 3],
            linewidth=2.4 if k == portrait.labels[example] else 0.9,
        )  # fmt: skip
    ax.axvline(machine.physics.observation_time, color="black", linestyle=":", linewidth=1)
    ax.set_xlabel("$t$ / time")
    ax.set_ylabel("$x$ of outputs / length")


def input_couplings(ax: "Axes", machine: Machine, shape: tuple[int, int]) -> None:
    """-W of some hidden units as images, blue where bright pixels push a unit up."""
    shown = min(_FIELDS, machine.hidden)
    columns = int(np.ceil(np.sqrt(shown)))
    rows = -(-shown // columns)
    high, wide = shape[0] + 1, shape[1] + 1
    mosaic = np.full((rows * high - 1, columns * wide - 1), np.nan)
    for k, weights in enumerate(-machine.input_couplings[:shown]):
        top, left = k // columns * high, k % columns * wide
        mosaic[top : top + shape[0], left : left + shape[1]] = weights.reshape(shape)
    _coloured(ax, mosaic, "energy")
    ax.set_axis_off()
    ax.set_title(f"$-W$, {shown} of {machine.hidden} hidden units")


def pair_couplings(ax: "Axes", machine: Machine) -> None:
    """-J of all pairs of units, hidden ones first; lines before the outputs."""
    _coloured(ax, -machine.couplings, "energy")
    for line in (ax.axhline, ax.axvline):
        line(machine.hidden - 0.5, color="black", linewidth=0.6)
    ax.set_xlabel("unit: hidden, then outputs")
    ax.set_ylabel("unit")
    ax.set_title("$-J$")


def loss(ax: "Axes", result: TrainingResult) -> None:
    """Mean action or cross-entropy of the minibatches against the trajectories seen."""
    ax.plot(result.updates * result.spec.batch, result.loss, color=plots.COLOURS[1])
    ax.set_yscale("log")
    ax.set_xlabel("trajectories")
    ax.set_ylabel("cross-entropy" if result.spec.method == "adjoint" else "mean action")
    ax.set_title(f"{result.spec.optimiser}, {result.spec.batch} an update")


def accuracy(ax: "Axes", result: TrainingResult) -> None:
    """Accuracy against the trajectories seen, at images not learned from, beside that at the end."""
    adjoint = result.spec.method == "adjoint"
    label = "training images set aside" if adjoint else "one shot on the way"
    ax.plot(result.updates * result.spec.batch, 100 * result.accuracy, color=_ACCURACY, label=label)
    final = result.score.accuracy
    if final is not None:
        label = "held-out images at the end" if adjoint else "all shots at the end"
        ax.axhline(100 * final.mean, color="0.4", linewidth=1, label=label)
    ax.set_xlabel("trajectories")
    ax.set_ylabel("accuracy / %")
    plots.legend(ax, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def sweep(ax: "Axes", result: SweepResult) -> None:
    """Accuracies with two standard errors against the value swept over, the machine's own value dotted."""
    named = result.spec.over == "connectivity"
    places = np.array([i if named else float(value) for i, value in enumerate(result.values)], float)
    for name, colour, label in (("top2", _TOP2, "among the two largest"), ("accuracy", _ACCURACY, "largest output")):
        ax.errorbar(
            places, *percent(result.columns[name]), color=colour, marker="o", markersize=4, capsize=2,
            linewidth=0 if named else 1.2, elinewidth=1.2, label=label,
        )  # fmt: skip
    if named:
        ax.set_xticks(places, [str(value) for value in result.values])
        ax.margins(x=0.2)
    else:
        _scale(ax, places)
        if result.standard is not None:
            ax.axvline(float(result.standard), color="black", linestyle=":", linewidth=1, label="as trained")
    ax.set_xlabel(_LABELS[result.spec.over])
    ax.set_ylabel("right single shots / %")
    plots.legend(ax, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def percent(shares: Sequence[Estimate]) -> tuple[Array, Array]:
    """Means in percent, and two standard errors down and up (2, n), not beyond what a share can be."""
    means, errors = (100 * np.array([getattr(one, name) for one in shares]) for name in ("mean", "stderr"))
    return means, np.array([np.minimum(2 * errors, means), np.minimum(2 * errors, 100 - means)])


def answers(score: Score, classes: Sequence[int | str]) -> "Figure":
    """Which answers labels got, and how often that was right."""
    size = max(1.4 + 0.36 * min(len(classes), 20), 3.0)
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(2 * size + 1.4, size + 0.9), width_ratios=(1.15, 1))
    confusion(axes[0], score, classes)
    by_class(axes[1], score, classes)
    plots.letters(axes)
    return figure


def counts(result: ClassificationResult) -> "Figure":
    """How many images got each answer."""
    figure: Figure
    figure, ax = plots.subplots()
    answer_counts(ax, result)
    return figure


def activations(machine: Machine, portrait: Portrait) -> "Figure":
    """Images of different classes, and the units that see them (Whitelam 2025, Fig. 2): one noisy trajectory each."""
    examples = len(portrait.pictures)
    figure: Figure
    figure, grid = plots.subplots(
        3, examples, size=(2.3 * examples + 1.2, 6.4), squeeze=False, height_ratios=(0.9, 1, 1.2)
    )
    read = int(np.searchsorted(portrait.times, machine.physics.observation_time * (1 - 1e-9)))
    for k in range(examples):
        answer = machine.said[int(np.argmax(portrait.paths[read, k, machine.hidden :]))]
        picture(grid[0, k], portrait, k, f"label {machine.said[portrait.labels[k]]}\nanswer {answer}")
        hidden_units(grid[1, k], machine, portrait, k)
        outputs(grid[2, k], machine, portrait, k)
        grid[1, k].set_xlabel("")
        grid[1, k].set_ylabel("")
        grid[2, k].set_ylabel("")
    for row in (1, 2):
        reach = [ax.get_ylim() for ax in grid[row]]
        for ax in grid[row]:
            ax.set_ylim(min(low for low, _ in reach), max(high for _, high in reach))
    grid[1, 0].set_ylabel(f"{min(machine.hidden, _TRACES)} of {machine.hidden} hidden\nunits, $x$ / length")
    grid[2, 0].set_ylabel("outputs, $x$ / length")
    plots.letters(grid[:, 0])
    handles, labels = grid[2, 0].get_legend_handles_labels()
    plots.legend(
        figure, handles=handles[:20], labels=labels[:20], loc="outside lower center", ncols=min(machine.outputs, 10),
        title="output of each class, that of the label thick; dotted: observation time",
    )  # fmt: skip
    return figure


def all_couplings(machine: Machine, shape: tuple[int, int]) -> "Figure":
    """Couplings of inputs to hidden units, and among units."""
    figure: Figure
    figure, axes = plots.subplots(1, 2, size=(9.6, 4.2))
    if shape[0] * shape[1] != machine.inputs:
        shape = (1, machine.inputs)
    input_couplings(axes[0], machine, shape)
    pair_couplings(axes[1], machine)
    plots.letters(axes)
    return figure


def descent(result: TrainingResult) -> "Figure":
    """Mean action or cross-entropy, and accuracy, on the way."""
    figure: Figure
    figure, axes = plots.subplots(2, 1, size=(6.4, 5.6), sharex=True)
    loss(axes[0], result)
    axes[0].set_xlabel("")
    if result.spec.method == "adjoint":
        epoch = result.facts["epoch"]
        top = axes[0].secondary_xaxis("top", functions=(lambda n: n / epoch, lambda n: n * epoch))
        top.set_xlabel("epochs")
    accuracy(axes[1], result)
    plots.letters(axes)
    return figure


def swept(result: SweepResult) -> "Figure":
    """A sweep."""
    figure: Figure
    figure, ax = plots.subplots()
    sweep(ax, result)
    return figure


def _coloured(ax: "Axes", values: Array, unit: str) -> None:
    """An image around zero with its colour bar, its ends cut at the 98th percentile."""
    limit = max(float(np.nanquantile(np.abs(values), _QUANTILE)), 1e-12)
    image = ax.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
    bar = ax.get_figure().colorbar(image, ax=ax, shrink=0.8, extend="both")  # type: ignore[union-attr]
    bar.set_label(unit)


def _scale(ax: "Axes", places: Array) -> None:
    """A logarithmic axis where values span more than a decade without touching zero, or one linear near zero."""
    positive = places[places > 0]
    if positive.size > 1 and positive.max() / positive.min() >= 8 and not np.allclose(np.diff(positive, 2), 0):
        if positive.size < places.size:
            ax.set_xscale("symlog", linthresh=positive.min())
        else:
            ax.set_xscale("log")
