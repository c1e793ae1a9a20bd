"""The figures of the three papers that can be computed: each one run, one file, its pictures, and a page of them all.

Captions are ours; what each paper shows is said by number.
"""

import html
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermorun.computer.spec import ComputerTraining, Sweep
from thermorun.cycles.result import StudyResult
from thermorun.cycles.spec import CycleStudy
from thermorun.errors import InputError, RunError
from thermorun.learning.trap.spec import FIGURES, ExcessWork
from thermorun.plots import save
from thermorun.results import Result
from thermorun.specs import Spec

_TRAP = "Hnybida & Verret 2025"
_CYCLES = "Baiesi & Rosso"
_COMPUTER = "Whitelam 2025"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { max-width: 100%; display: block; margin: 1rem 0 } table { border-collapse: collapse; font-size: 13px }
td, th { padding: .15rem .7rem; border-bottom: 1px solid #ddd } caption { text-align: left }
code { font-size: 12px; color: #555; overflow-wrap: anywhere } .missing { color: #a00 }
"""


@dataclass(frozen=True)
class Figure:
    """A figure of a paper.

    ``spec(folder, quick)`` says what is run, in a folder that may hold earlier ones' files; ``shown(result)`` which of
    its pictures are wanted.
    """

    name: str
    source: str
    caption: str
    spec: Callable[[Path, bool], Spec]
    shown: Callable[[Any], Result] = lambda result: result


@dataclass(frozen=True)
class Made:
    """What became of a figure: its result and pictures, or the sentence that says why there is none."""

    figure: Figure
    result: Result | None
    pictures: tuple[Path, ...]
    seconds: float
    sentence: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.figure.name,
            "source": self.figure.source,
            "pictures": [str(path) for path in self.pictures],
            "seconds": round(self.seconds, 1),
            "missing": self.sentence or None,
            "run": None if self.result is None else self.result.to_dict(),
        }


def _trap(number: int) -> Callable[[Path, bool], Spec]:
    return lambda folder, quick: ExcessWork(**FIGURES[number], particles=50_000 if quick else 1_000_000)


def _study(folder: Path, quick: bool) -> Spec:
    return CycleStudy(dataset="digits", models=6, epochs=40) if quick else CycleStudy(dataset="mnist-012")


def _training(folder: Path, quick: bool) -> Spec:
    return ComputerTraining(dataset="digits" if quick else "mnist")


def _sweep(folder: Path, quick: bool) -> Spec:
    return Sweep(file=str(folder / "computer-training.h5"), shots=1 if quick else 2)


ALL = (
    Figure(
        "trap-constant", f"{_TRAP}, Fig. 1",
        "A constant learning rate from far out of equilibrium: theta and the particles' mean run past each other before"
        " both reach the target.", _trap(1),
    ),
    Figure(
        "trap-quasistatic", f"{_TRAP}, Fig. 2",
        "The same rate with a mobility ten times larger: the particles keep up with theta, and little is lost.",
        _trap(2),
    ),
    Figure(
        "trap-continuous", f"{_TRAP}, Fig. 3",
        "The optimal rate without impulses, begun where the optimum asks for: theta and mean move at constant speed.",
        _trap(3),
    ),
    Figure(
        "trap-discontinuous", f"{_TRAP}, Fig. 4",
        "The optimum from equilibrium: theta jumps at both ends, and moves at constant speed between.", _trap(4),
    ),
    Figure("trap-slow-driving", f"{_TRAP}, Fig. 5", "The schedule of slow driving, which forgets the jumps.", _trap(5)),
    Figure(
        "trap-work", f"{_TRAP}, Fig. 6",
        "Excess work of four schedules while they learn; dashed, the exact curves; below, what is left without them.",
        _trap(6),
    ),
    Figure(
        "latent-cycles", f"{_CYCLES}, Figs. 2 to 4",
        "Likelihood and entropy production of latent-cycle models while they learn, and what their chains look like:"
        " frequencies of classes, memory, transition matrices, weights.", _study, StudyResult.with_portraits,
    ),
    Figure(
        "computer-training", f"{_COMPUTER}, classification",
        "Answers of a thermodynamic computer to held-out images, after its couplings were found in closed form.",
        _training,
    ),
    Figure(
        "computer-time", f"{_COMPUTER}, observation time",
        "The same machine read at other times, shorter and longer than it was trained for.", _sweep,
    ),
)  # fmt: skip


def rebuild(
    folder: Path | str, *, quick: bool = False, only: tuple[str, ...] = (), threads: int | None = None,
    show_progress: bool = False,
) -> list[Made]:  # fmt: skip
    """Runs every figure into ``folder`` and writes its ``index.html``; what is there already is not computed again.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    quick : bool
        Smaller ensembles, and the bundled digits in the place of MNIST: a minute or two, no download.
    only : names, optional
        Of the figures to make, in place of all.
    threads : int, optional
        All cores by default.
    show_progress : bool
        A bar for every run.

    Returns
    -------
    list of Made
        One for each figure, in the order of the page.

    Raises
    ------
    InputError
        For a folder that cannot be made, or a name that there is not.
    """
    folder = Path(folder)
    names = [figure.name for figure in ALL]
    for name in only:
        if name not in names:
            raise InputError(f"only is {name!r}; it must be among {', '.join(names)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder is {folder}, which cannot be made ({error.strerror}).") from error
    made = [_make(one, folder, quick, threads, show_progress) for one in ALL if not only or one.name in only]
    (folder / "index.html").write_text(_page(made, quick), encoding="utf-8")
    return made


def _make(figure: Figure, folder: Path, quick: bool, threads: int | None, show_progress: bool) -> Made:
    began, out = time.monotonic(), folder / f"{figure.name}.h5"
    try:
        spec = figure.spec(folder, quick)
        result = figure.shown(spec.run(out=out, resume=out.exists(), threads=threads, show_progress=show_progress))
        pictures = []
        for name, drawn in result.figures().items():
            pictures.append(folder / (f"{figure.name}-{name}.png" if name else f"{figure.name}.png"))
            save(drawn, pictures[-1])
    except (InputError, RunError) as error:
        return Made(figure, None, (), time.monotonic() - began, str(error))
    return Made(figure, result, tuple(pictures), time.monotonic() - began)


def _page(made: list[Made], quick: bool) -> str:
    size = "Small runs, on the bundled digits." if quick else "Full size."
    sections = "\n".join(map(_section, made))
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Figures of the papers, computed</title>"
        f"<style>{_STYLE}</style><h1>Figures of the papers, computed</h1><p>{size}</p>\n{sections}</html>\n"
    )


def _section(one: Made) -> str:
    title = html.escape(f"{one.figure.source}: {one.figure.name}")
    if one.result is None:
        return f"<h2>{title}</h2><p class='missing'>Not made: {html.escape(one.sentence)}</p>"
    images = "".join(f"<img src='{html.escape(path.name)}' alt='{title}'>" for path in one.pictures)
    tables = "".join(table.to_html() for table in one.result.tables())
    spec = html.escape(json.dumps(one.result.spec.to_dict(), sort_keys=True))
    file = html.escape(str(one.result.file and one.result.file.name))
    return (
        f"<h2>{title}</h2><p>{html.escape(one.figure.caption)}</p>{images}{tables}"
        f"<p>Seed {one.result.spec.seed}, file <a href='{file}'>{file}</a>, {one.seconds:.0f} s.</p>"
        f"<p><code>{spec}</code></p>"
    )
