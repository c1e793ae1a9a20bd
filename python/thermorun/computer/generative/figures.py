"""Pictures of pictures: how images are lost and come, what machines make, what it costs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from thermorun import plots
from thermorun.arrays import Array
from thermorun.computer.generative.result import SHARES, GenerationResult
from thermorun.errors import RunError
from thermorun.estimates import over_replicas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Frames of a film strip, pictures of a gallery in a row and in all, hidden units whose fields are shown.
_STRIP, _WIDE, _MOST, _FIELDS = 10, 10, 100, 16


def mosaic(pictures: Array, columns: int, shape: tuple[int, int]) -> Array:
    """Pictures (n, pixels) side by side, row by row, with a blank line between."""
    rows = -(-len(pictures) // columns)
    high, wide = shape[0] + 1, shape[1] + 1
    found = np.full((rows * high - 1, columns * wide - 1), np.nan)
    for k, one in enumerate(pictures):
        top, left = k // columns * high, k % columns * wide
        found[top : top + shape[0], left : left + shape[1]] = one.reshape(shape)
    return found


def _show(ax: "Axes", values: Array) -> None:
    """Bright pixels dark, from the 1st to the 99th percentile."""
    low, high = np.nanpercentile(values, (1, 99))
    ax.imshow(values, cmap="gray_r", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)


def gallery(result: GenerationResult) -> "Figure":
    """The prototypes, and up to 100 pictures of the first machine of every rule."""
    rules, shape = result.rules, result.shape
    count = min(_MOST, result.spec.pictures)
    wide = _columns(count, shape)
    high = 3.3 * -(-count // wide) * (shape[0] + 1) / (wide * (shape[1] + 1))
    figure: Figure
    figure, axes = plots.subplots(
        1, 1 + len(rules), size=(1.3 + 3.3 * len(rules), min(max(high, 1.5), 4.5) + 0.6), squeeze=False,
        width_ratios=(0.35, *[1.0] * len(rules)),
    )  # fmt: skip
    first = np.unique(result.labels, return_index=True)[1][:_WIDE]
    _show(axes[0, 0], mosaic(result.prototypes[first], 1 + len(first) // 4, shape))
    axes[0, 0].set_title("learned" if len(result.labels) == len(first) else "some learned", fontsize=9)
    for ax, rule in zip(axes[0, 1:], rules, strict=True):
        _show(ax, mosaic(result.x[result.of_rule(rule).start, :count], wide, shape))
        ax.set_title(f"{rule}: correlation {result.quality(rule)['correlation']}", fontsize=9)
    for ax in axes.flat:
        ax.set_anchor("N")
    figure.set_layout_engine("constrained", wspace=0.06)
    return figure


def _columns(count: int, shape: tuple[int, int]) -> int:
    """Of a mosaic of so many pictures that is about a square."""
    return min(count, max(1, round(float(np.sqrt(count * (shape[0] + 1) / (shape[1] + 1))))))


def film(result: GenerationResult) -> "Figure":
    """Images that are lost to noise, and pictures that come out of it, ten times each."""
    chosen = np.linspace(0, len(result.frames) - 1, _STRIP).round().astype(int)
    lost, made = result.noising[chosen], result.film[0][chosen]
    heights = (lost.shape[1], made.shape[1])
    figure: Figure
    high = 0.62 * (result.shape[0] + 1) / (result.shape[1] + 1)
    figure, axes = plots.subplots(
        2, 1, size=(6.4, min(max(high * sum(heights), 1.0), 12.0) + 1.2), height_ratios=heights
    )
    names = ("an image is lost", f"{made.shape[1]} pictures come, by the {result.rules[0]} rule")
    for ax, strip, name in zip(axes, (lost, made), names, strict=True):
        _show(ax, mosaic(strip.swapaxes(0, 1).reshape(-1, strip.shape[-1]), _STRIP, result.shape))
        wide = result.shape[1] + 1
        ax.set_xticks(wide * (np.arange(_STRIP) + 0.5) - 1, [f"{result.frames[k]:.2g}" for k in chosen])
        ax.tick_params(length=0)
        ax.set_title(name)
    axes[-1].set_xlabel("time")
    plots.letters(axes)
    return figure


def heats(result: GenerationResult) -> "Figure":
    """Heat given off while a picture comes, of every picture of every rule."""
    figure: Figure
    figure, ax = plots.subplots()
    kT = result.spec.kT
    values = {rule: -result.heat[result.of_rule(rule)][..., 2].ravel() / kT for rule in result.rules}
    everything = np.concatenate(list(values.values()))
    bins = np.linspace(everything.min(), everything.max() + 1e-9, 41)
    for k, (rule, heat) in enumerate(values.items()):
        label = f"{rule}: {heat.mean():.4g}"
        ax.hist(heat, bins, histtype="stepfilled", alpha=0.35, color=plots.colour(k), label=label)
        ax.axvline(heat.mean(), color=plots.colour(k), linewidth=1)
    ax.set_xlabel(r"heat given off while a picture comes / $k_\mathrm{B}T$")
    ax.set_ylabel("pictures")
    plots.legend(ax, title="rule: mean")
    return figure


def fields(result: GenerationResult) -> "Figure":
    """-J of the first hidden units as images, blue where a unit that is up makes pixels bright."""
    hidden = result.couplings.shape[2]
    shown = min(_FIELDS, hidden)
    values = -result.couplings[0][hidden:, :shown].T
    figure: Figure
    figure, ax = plots.subplots(size=(4.6, 4.2))
    tiles = mosaic(values, _columns(shown, result.shape), result.shape)
    limit = max(float(np.nanquantile(np.abs(tiles), 0.99)), 1e-12)
    image = ax.imshow(tiles, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(f"$-J$ of {shown} of {hidden} hidden units\n{result.rules[0]} rule")
    figure.colorbar(image, ax=ax, shrink=0.8, extend="both").set_label("energy")
    return figure


def losses(result: GenerationResult) -> "Figure":
    """Mean action of the trajectories of every round, of all machines that learn by rounds."""
    return _curves(result, result.loss, "round", "mean action of a trajectory")


def tuning(result: GenerationResult) -> "Figure":
    """How far pictures are from images, update by update, of all machines that are tuned."""
    return _curves(result, result.distance, "update", "mean square of a pixel from its image / length$^2$")


def _curves(result: GenerationResult, values: Array, name: str, label: str) -> "Figure":
    """Values (machines, numbers) of every rule that has some."""
    figure: Figure
    figure, ax = plots.subplots()
    numbers = np.arange(1, values.shape[1] + 1)
    for k, rule in enumerate(result.rules):
        curves = values[result.of_rule(rule)]
        if np.isfinite(curves).any():
            curve = over_replicas(curves)
            plots.band(ax, numbers, curve.mean, curve.stderr, color=plots.colour(k), label=rule)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel(name)
    ax.set_ylabel(label)
    plots.legend(ax)
    return figure


def rules(result: GenerationResult) -> "Figure":
    """The table of all rules, drawn: how good pictures are, and heat and work of their stages in kT."""
    found = {rule: result.quality(rule) | result.energies(rule) for rule in result.rules}
    panels = {
        "correlation": "signed correlation", "good": "correlation >= 0.7", "inverted": "inverted",
        "agreement": "agreement", "diversity": "diversity", "heat of preparing": "heat, preparing",
        "work of switching on": "work, switching on", "heat of generating": "heat, generating",
        "work of switching off": "work, switching off", "heat of resetting": "heat, resetting",
    }  # fmt: skip
    places = np.arange(len(found))[::-1]
    figure: Figure
    figure, axes = plots.subplots(2, 5, size=(10.5, 2.6 + 0.4 * len(found)), sharey=True)
    for ax, (name, label) in zip(axes.flat, panels.items(), strict=True):
        for k, (place, rule) in enumerate(zip(places, found, strict=True)):
            one = found[rule][name]
            error = 2 * one.stderr if np.isfinite(one.stderr) else None
            ax.errorbar(one.mean, place, xerr=error, fmt="o", color=plots.colour(k), markersize=4, capsize=2)
        ax.axvline(0.0, color="0.7", linewidth=0.8, zorder=0)
        ax.set_xlabel(label)
        ax.margins(y=0.2, x=0.15)
        if name in SHARES:
            ax.set_xlim(-0.08, 1.08)
        ax.locator_params(axis="x", nbins=4)
    axes[0, 0].set_yticks(places, list(found))
    plots.letters(axes)
    figure.supxlabel(
        r"heat absorbed and work done of a picture in $k_\mathrm{B}T$; bars are two standard errors", size=9
    )
    return figure


def animate(result: GenerationResult, path: Path, machine: int, milliseconds: int) -> None:
    """The film of a machine's first pictures as an animated .gif or .png: see `GenerationResult.animate`."""
    from PIL import Image, PngImagePlugin

    kind = path.suffix.lower()
    frames = [mosaic(one, _columns(len(one), result.shape), result.shape) for one in result.film[machine]]
    low, high = np.nanpercentile(result.film[machine], (1, 99))
    size = max(1, 400 // frames[0].shape[1])
    drawn = []
    for frame in frames:
        grey = 255 * (1 - np.clip((np.nan_to_num(frame, nan=low) - low) / max(high - low, 1e-9), 0, 1))
        drawn.append(Image.fromarray(np.kron(grey, np.ones((size, size))).astype(np.uint8)))
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", "thermorun")
    more = {"pnginfo": note} if kind == ".png" else {"comment": b"thermorun", "loop": 0}
    part = path.with_name(f".{path.stem}.{os.getpid()}{kind}")
    try:
        drawn[0].save(part, save_all=True, append_images=[*drawn[1:], *[drawn[-1]] * 12], duration=milliseconds, **more)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"animation {path} could not be written ({error.strerror or error}).") from error
