"""Pictures of machines: activations in time, confusions, couplings, descents, sweeps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from thermorun.computer.machine import Machine
from thermorun.computer.measurement import SweepResult
from thermorun.computer.result import TrainingResult
from thermorun.computer.score import Score
from thermorun.datasets import Images

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#999933")
_LABELS = {
    "observation-time": r"observation time / time",
    "temperature": r"$k_\mathrm{B}T$ / energy",
    "timestep": "dt / time",
    "connectivity": "",
    "hidden": "hidden units",
}
_FRAMES = 201
_STREAM = 2 << 32


def activations(machine: Machine, images: Images, seed: int = 0, count: int = 4, beyond: float = 2.0) -> Figure:
    """Outputs and some hidden units against time, for held-out images of different classes (Whitelam 2025, Fig. 2).

    One noisy trajectory an image, to ``beyond`` times the observation time, which is marked.
    """
    chosen = [int(np.flatnonzero(images.test_labels == k)[0]) for k in np.unique(images.test_labels)[:count]]
    steps = round(beyond * machine.physics.steps)
    recorded = np.unique(np.linspace(0, steps, _FRAMES).round().astype(int))
    inputs = machine.pixels.inputs(images.test_x[chosen], np.float32)
    run = machine.run(
        machine.fields(inputs, np.float32), steps=steps, seed=seed, stream=_STREAM, recorded=[int(n) for n in recorded]
    )
    time = recorded * machine.physics.dt
    figure = Figure(figsize=(2.6 * len(chosen) + 1.2, 6.0), layout="constrained")
    grid = figure.subplots(3, len(chosen), height_ratios=(1.1, 1, 1.2), squeeze=False)
    for column, image in enumerate(chosen):
        picture, hidden, outputs = grid[:, column]
        picture.imshow(images.test_x[image].reshape(images.shape), cmap="gray_r")
        picture.set_axis_off()
        path = run.paths[:, column]
        hidden.plot(time, path[:, : min(machine.hidden, 16)], linewidth=0.6, color="0.45")
        for k in range(machine.outputs):
            outputs.plot(
                time, path[:, machine.hidden + k], color=_COLOURS[k % len(_COLOURS)], label=f"{images.classes[k]}",
                linestyle="-" if k < len(_COLOURS) else "--", linewidth=2.4 if k == images.test_labels[image] else 0.9,
            )  # fmt: skip
        answer = images.classes[np.argmax(path[np.searchsorted(recorded, machine.physics.steps), machine.hidden :])]
        picture.set_title(f"label {images.classes[images.test_labels[image]]}, answer {answer}", fontsize="medium")
        for axes in (hidden, outputs):
            axes.axvline(machine.physics.observation_time, color="black", linestyle=":", linewidth=1)
        outputs.set_xlabel("t / time")
    grid[1, 0].set_ylabel(f"hidden units ({min(machine.hidden, 16)} of {machine.hidden})")
    grid[2, 0].set_ylabel("outputs")
    handles, labels = grid[2, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(machine.outputs, 10), frameon=False,
        title="outputs by class, that of the label thick; dotted: observation time",
    )  # fmt: skip
    return figure


def confusion(score: Score, classes: Sequence[int] | NDArray[np.int64]) -> Figure:
    """Percent of the shots at each label that gave each answer."""
    share = 100 * score.confusion / np.maximum(score.confusion.sum(axis=1, keepdims=True), 1)
    size = 1.8 + 0.45 * len(classes)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    off = share.copy()
    np.fill_diagonal(off, 0)
    axes.imshow(off, cmap="Oranges", vmin=0, vmax=max(float(off.max()), 1e-9))
    for i in range(len(classes)):
        for j in range(len(classes)):
            if share[i, j] >= 0.05:
                text = f"{share[i, j]:.0f}" if share[i, j] >= 9.95 else f"{share[i, j]:.1f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, weight="bold" if i == j else "normal")
    axes.set_xticks(range(len(classes)), [str(k) for k in classes])
    axes.set_yticks(range(len(classes)), [str(k) for k in classes])
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    axes.set_title(f"percent of a label's shots; right: {score.accuracy}", fontsize="medium")
    return figure


def couplings(machine: Machine, shape: tuple[int, int], count: int = 64) -> Figure:
    """Input couplings of hidden units as images, blue where bright pixels push a unit up, and those among units."""
    shown = min(count, machine.hidden)
    columns = int(np.ceil(np.sqrt(shown)))
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=(1.15, 1))
    left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    left.suptitle(rf"$-W$: inputs to {shown} of {machine.hidden} hidden units / energy", fontsize="medium")
    pictures = -machine.input_couplings[:shown]
    limit = max(float(np.quantile(np.abs(pictures), 0.995)), 1e-12)
    grid = left.subplots(int(np.ceil(shown / columns)), columns, squeeze=False)
    image = None
    for axes, row in zip(grid.ravel(), pictures, strict=False):
        image = axes.imshow(row.reshape(shape), cmap="RdBu", vmin=-limit, vmax=limit)
    for axes in grid.ravel():
        axes.set_axis_off()
    if image is not None:
        left.colorbar(image, ax=grid, shrink=0.6)
    right.suptitle(r"$-J$: units to units / energy", fontsize="medium")
    matrix = right.subplots()
    limit = max(float(np.quantile(np.abs(machine.couplings), 0.995)), 1e-12)
    image = matrix.imshow(-machine.couplings, cmap="RdBu", vmin=-limit, vmax=limit)
    matrix.axhline(machine.hidden - 0.5, color="black", linewidth=0.6)
    matrix.axvline(machine.hidden - 0.5, color="black", linewidth=0.6)
    matrix.set_xlabel("unit: hidden, then outputs")
    right.colorbar(image, ax=matrix, shrink=0.6)
    return figure


def descent(result: TrainingResult) -> Figure:
    """Mean action and accuracy against the number of trajectories."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    seen = result.updates * result.spec.batch
    above.plot(seen, result.loss, color=_COLOURS[0])
    above.set_yscale("log")
    above.set_ylabel("mean action")
    below.plot(seen, 100 * result.accuracy, color=_COLOURS[1], label="one shot at up to 2,000 held-out images")
    below.axhline(
        100 * result.score.accuracy.mean, color="black", linestyle=":", linewidth=1, label="all of them, at the end"
    )
    below.set_ylabel("accuracy / percent")
    below.set_xlabel("trajectories")
    below.legend(frameon=False, loc="lower right")
    above.set_title(f"{result.spec.optimiser}, minibatches of {result.spec.batch}", fontsize="medium")
    return figure


def sweep(result: SweepResult) -> Figure:
    """Accuracy and top-2 accuracy with error bars against the value swept over, the machine's own value marked."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    named = result.spec.over == "connectivity"
    places = np.array([i if named else float(value) for i, value in enumerate(result.values)], np.float64)
    for name, colour, label in (
        ("top2", _COLOURS[4], "label among two largest outputs"),
        ("accuracy", _COLOURS[0], "accuracy"),
    ):
        axes.errorbar(
            places, 100 * result.columns[name], 200 * result.columns[f"{name}_stderr"], color=colour, marker="o",
            markersize=4, capsize=2, linewidth=0 if named else 1.2, elinewidth=1.2, label=label,
        )  # fmt: skip
    if named:
        axes.set_xticks(places, [str(value) for value in result.values])
        axes.margins(x=0.2)
    else:
        _scale(axes, places)
        if result.standard is not None:
            axes.axvline(float(result.standard), color="black", linestyle=":", linewidth=1, label="as trained")
    axes.set_xlabel(_LABELS[result.spec.over])
    axes.set_ylabel("percent of single shots")
    axes.set_title(f"{result.spec.shots} shots an image, bars of 2 standard errors", fontsize="medium")
    axes.legend(frameon=False)
    return figure


def _scale(axes: Axes, places: NDArray[np.float64]) -> None:
    """A logarithmic axis where values span more than a decade without touching zero, or one linear near zero."""
    positive = places[places > 0]
    if positive.size > 1 and positive.max() / positive.min() >= 8 and not np.allclose(np.diff(positive, 2), 0):
        if positive.size < places.size:
            axes.set_xscale("symlog", linthresh=positive.min())
        else:
            axes.set_xscale("log")
