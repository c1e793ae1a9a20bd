"""What all pictures share: colours, bands of two standard errors, the dashed exact curve, letters, and saving."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from thermorun.errors import InputError, RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444", "#F0E442")
EXACT = "black"
FORMATS = ("png", "pdf", "svg")
# Written into every picture: what is there already is replaced only if it carries it.
_MADE_BY = "thermorun"
_STYLE: Any = {
    "text.usetex": False, "font.size": 9.0, "axes.titlesize": 10.0, "axes.spines.top": False,
    "axes.spines.right": False, "axes.formatter.useoffset": False, "legend.frameon": False, "svg.hashsalt": "0",
}  # fmt: skip


def subplots(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.0), **more: Any
) -> "tuple[Figure, Any]":
    """A figure that needs no screen, and its axes; whatever style the user has set."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, **more)


def colour(index: int) -> str:
    """The colour of the part with this number."""
    return COLOURS[index % len(COLOURS)]


def band(ax: "Axes", x: ArrayLike, mean: ArrayLike, stderr: ArrayLike, **style: Any) -> None:
    """A curve within two standard errors."""
    mean, stderr = np.asarray(mean), np.asarray(stderr)
    (line,) = ax.plot(x, mean, **style)
    if np.any(np.isfinite(stderr)):
        ax.fill_between(x, mean - 2 * stderr, mean + 2 * stderr, color=line.get_color(), alpha=0.25, linewidth=0)


def exact(ax: "Axes", x: ArrayLike, y: ArrayLike, label: str | None = None) -> None:
    """The exact curve, dashed."""
    ax.plot(x, y, linestyle="--", color=EXACT, linewidth=1.0, label=label)


def legend(where: Any, **more: Any) -> None:
    """The legend of axes or of a figure, without a frame."""
    where.legend(**{"frameon": False} | more)


def letters(axes: ArrayLike) -> None:
    """(a), (b), (c) above the panels."""
    for index, ax in enumerate(np.ravel(np.asarray(axes, dtype=object))):
        ax.set_title(f"({chr(ord('a') + index)})", loc="left", fontweight="bold")


def save(figure: "Figure", path: Path) -> None:
    """Writes a picture, in the format of its ending; in place of another only where that was ours.

    Raises InputError for a format that there is not, RunError where it cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.text import Text

    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise InputError(f"picture {path} ends in {path.suffix!r}; it must end in .png, .pdf or .svg.")
    if path.exists() and not _ours(path):
        raise RunError(f"{path} is there already and not a picture of ours; it was left alone.")
    part = path.with_name(f".{path.stem}.{os.getpid()}.{kind}")
    name = {"png": "Software", "pdf": "Creator", "svg": "Creator"}[kind]
    try:
        with mpl.rc_context(_STYLE):
            for words in figure.findobj(Text):  # drawn under a user's own settings
                words.set_usetex(False)
            figure.savefig(part, dpi=150, format=kind, metadata={name: _MADE_BY})
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"picture {path} could not be written ({error.strerror or error}).") from error


def _ours(path: Path) -> bool:
    with open(path, "rb") as stream:
        content = stream.read(2**16)
        stream.seek(max(0, path.stat().st_size - 2**16))
        content += stream.read()
    return _MADE_BY.encode() in content and path.is_file()
