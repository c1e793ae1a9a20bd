"""The likelihood that one-hot states can attain: expectation-maximisation of the mixture, from several starts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from thermorun import datasets, plots, specs
from thermorun.arrays import Array
from thermorun.cycles import layout
from thermorun.cycles.mixture import Mixture, climb, random_start
from thermorun.cycles.model import MAX_HIDDEN, MAX_STATES
from thermorun.cycles.spec import CLASSES, DATASET, FINGERPRINT, THRESHOLD, from_arrays, require_same
from thermorun.datasets import Dataset
from thermorun.errors import InputError
from thermorun.estimates import finite_or_none
from thermorun.results import Result, origin
from thermorun.runs import Session, load
from thermorun.specs import Parameter, Spec, documented, given
from thermorun.store import Axis, RunFile, Variable
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Components whose images are drawn.
_DRAWN = 64
# What is kept of every start, beside its mixture and the likelihood after every step.
_KEPT = {
    "log_likelihood": ("nat", "mean log p(x) of the data at the end of EM", "float64"),
    "held_out_log_likelihood": ("nat", "the same of the points held out, NaN where there are none", "float64"),
    "steps": ("1", "EM steps made", "int64"),
    "refilled": ("1", "empty states that began again from the point explained worst", "int64"),
}


@dataclass(frozen=True)
class CycleCeiling(Spec):
    """Expectation-maximisation of a mixture of Bernoulli products, from several random starts.

    Its fields are the parameters of `ceiling`.  Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "cycles-ceiling"
    runner = "thermorun.cycles.climbs"
    parts = "restart"

    dataset: Annotated[str, DATASET] = "digits"
    classes: Annotated[tuple[int | str, ...] | None, CLASSES] = None
    threshold: Annotated[float | None, THRESHOLD] = None
    states: Annotated[int, Parameter(specs.count(1, MAX_HIDDEN["softmax"]), "of the mixture: hidden states")] = 6
    restarts: Annotated[int, Parameter(specs.count(1, MAX_STATES), "random starts, each a climb of its own")] = 10
    steps: Annotated[int, Parameter(specs.count(1, 2**20), "of EM at most, from each start")] = 300
    tolerance: Annotated[float, Parameter(specs.positive, "the gain of a step that ends a climb", "nat a point")] = 1e-5
    precision: Annotated[str, specs.PRECISION] = "float32"
    fingerprint: Annotated[int | None, FINGERPRINT] = None

    def resolved(self) -> Self:
        """With the data's fingerprint and where they are; reads them."""
        return self.on(self.data())

    def data(self) -> Dataset:
        """The data that the spec names.  Raises InputError."""
        return datasets.load(self.dataset, self.classes, self.threshold)

    def on(self, data: Dataset) -> Self:
        """The same on these data.  Raises InputError where they cannot be its data."""
        require_points(self.states, data)
        require_same(self.fingerprint, data)
        return self.replace(dataset=data.source, fingerprint=data.fingerprint)

    def file_name(self) -> str:
        return f"cycles-ceiling-{Path(self.dataset).stem}-{self.states}-seed{self.seed}"


def require_points(states: int, data: Dataset) -> None:
    """Raises InputError where there are more states than points: the mixture would be the data themselves."""
    if states > len(data.x):
        raise InputError(f"states is {states}; it must be at most {len(data.x)}, the number of points of {data.name}.")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CeilingResult(Result):
    """What EM reached from every start that is done.

    ``log_likelihood``, ``held_out_log_likelihood`` (nat; NaN without points held out), ``steps`` and ``refilled`` are
    arrays (restarts,); ``trace`` (restarts, steps + 1) is the likelihood before every step, NaN after the end.
    """

    spec: CycleCeiling
    data: Dataset
    log_likelihood: Array
    held_out_log_likelihood: Array
    steps: Array
    refilled: Array
    trace: Array
    mixtures: list[Mixture] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The start that led highest.  Raises InputError where none is done."""
        if not len(self.log_likelihood):
            raise InputError(f"{self.file} holds no climb yet; go on with 'thermorun resume {self.file}'.")
        return int(np.argmax(self.log_likelihood))

    @property
    def mixture(self) -> Mixture:
        """The best."""
        return self.mixtures[self.best]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a start, in JSON's types."""
        return [
            {
                "restart": k, "log_likelihood": float(self.log_likelihood[k]),
                "held_out_log_likelihood": finite_or_none(self.held_out_log_likelihood[k]),
                "steps": int(self.steps[k]), "refilled": int(self.refilled[k]), "best": k == self.best,
                "smallest_weight": float(self.mixtures[k].weights.min()),
            }
            for k in range(len(self.log_likelihood))
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {
            "data": {
                "name": self.data.name, "points": len(self.data.x), "fingerprint": self.data.fingerprint,
                "held_out": 0 if self.data.test_x is None else len(self.data.test_x),
            },
            "notes": self.notes(),
        }  # fmt: skip

    def tables(self) -> list[Table]:
        order = np.argsort(-self.log_likelihood, kind="stable")
        held = self.data.test_x is not None
        rows = [
            (
                str(k), f"{self.log_likelihood[k]:.4f}", *([f"{self.held_out_log_likelihood[k]:.4f}"] if held else []),
                str(self.steps[k]), f"{self.mixtures[k].weights.min():.2g}", str(self.refilled[k]),
            )
            for k in order
        ]  # fmt: skip
        headings = ["restart", "log-lik. / nat", "held out / nat", "steps", "least weight", "refilled"]
        if not held:
            headings.remove("held out / nat")
        title = f"Ceiling of {self.spec.states} one-hot states on {self.data.name}"
        return [Table(title, tuple(headings), rows, self.notes())]

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        spec, data = self.spec, self.data
        notes = [
            f"{len(data.x):,} points of {data.x.shape[1]} bits; mean log p(x) of the best mixture of Bernoulli products"
            " that EM found: a better start may lead higher",
            "probabilities stay half a bit of the data away from 0 and 1, which costs this mixture"
            f" {self.mixture.bound_cost(len(data.x)):.3f} nat at most",
        ]
        if data.test_x is None:
            notes.append(f"{data.name} holds no points out, so that no overfitting would show")
        if self.refilled.any():
            notes.append("refilled: empty states that began again from the point that was explained worst")
        unfinished = int((self.steps >= spec.steps).sum())
        if unfinished:
            notes.append(f"{unfinished} of {len(self.steps)} climbs were still gaining after {spec.steps} steps")
        if len(self.steps) < spec.restarts:
            notes.append(
                f"{len(self.steps)} of {spec.restarts} starts are done; go on with 'thermorun resume {self.file}'"
            )
        return notes

    def figures(self) -> "dict[str, Figure]":
        if not len(self.steps):
            return {}
        return {"": climbs(self), "states": portraits(self)}


def climbs(result: CeilingResult) -> "Figure":
    """Likelihood against EM steps from every start, the best in colour, with what it gives points held out."""
    figure: Figure
    figure, ax = plots.subplots()
    for k, trace in enumerate(result.trace):
        best = k == result.best
        style = (
            {"color": plots.colour(0), "linewidth": 1.8, "zorder": 3} if best else {"color": "0.7", "linewidth": 0.9}
        )
        ax.plot(np.arange(len(trace)), trace, label="best start" if best else None, **style)
    best_value, held_out = result.log_likelihood[result.best], result.held_out_log_likelihood[result.best]
    plots.exact(ax, [0, result.trace.shape[1] - 1], [best_value] * 2, f"ceiling, {best_value:.2f}")
    if np.isfinite(held_out):
        ax.axhline(held_out, color=plots.colour(1), linestyle=":", label=f"the same, held out: {held_out:.2f}")
    after = result.trace[:, min(5, result.trace.shape[1] - 1)]
    low = float(np.nanmin(np.where(np.isnan(after), result.log_likelihood, after)))
    top = float(np.nanmax([best_value, held_out]))
    ax.set_ylim(low - 0.05 * (top - low) - 0.1, top + 0.08 * (top - low) + 0.1)
    ax.set_xlim(0, max(1, int(result.steps.max())))
    ax.set_xlabel("EM steps")
    ax.set_ylabel("log-likelihood / nat")
    plots.legend(ax, loc="lower right")
    figure.suptitle(f"{result.data.name}: mixtures of {result.spec.states} Bernoulli products", fontsize="medium")
    return figure


def portraits(result: CeilingResult) -> "Figure":
    """The mean images of the best mixture's states, the heaviest first, with their weights."""
    figure: Figure
    mixture = result.mixture
    order = np.argsort(-mixture.weights, kind="stable")[:_DRAWN]
    columns = min(len(order), 8)
    rows = -(-len(order) // columns)
    figure, axes = plots.subplots(rows, columns, size=(1.1 * columns, 1.25 * rows + 0.3), squeeze=False)
    for place, ax in enumerate(axes.ravel()):
        ax.axis("off")
        if place < len(order):
            ax.imshow(mixture.means[order[place]].reshape(result.data.shape), cmap="gray", vmin=0, vmax=1)
            ax.set_title(f"{mixture.weights[order[place]]:.3f}", fontsize="small")
    shown = "" if len(order) == len(mixture.weights) else f", the {len(order)} heaviest"
    figure.suptitle(f"states of the best mixture and their weights{shown}", fontsize="small")
    return figure


@documented(CycleCeiling)
def ceiling(
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str = "digits",
    classes: tuple[int | str, ...] | None = None,
    threshold: float | None = None,
    states: int = 6,
    restarts: int = 10,
    steps: int = 300,
    tolerance: float = 1e-5,
    precision: str = "float32",
    fingerprint: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> CeilingResult:
    """The likelihood that a model with one-hot states can attain on a data set, or on arrays, by EM.

    Parameters
    ----------
    X : array, optional
        In the place of ``dataset``: bits, or grey values with a ``threshold``, (points, D) or (points, rows, columns).
    y : array, optional
        The class of each point of ``X``.
    {parameters}

    Returns
    -------
    CeilingResult
        What every start led to, on the data and on the points held out; ``mixture`` is the best.

    Raises
    ------
    InputError
        Before any work, for input that cannot run.
    """
    fields = given(CycleCeiling, locals())
    data = from_arrays(X, y, fields)
    result: CeilingResult = CycleCeiling(**fields).run(
        out=out, resume=resume, threads=threads, show_progress=show_progress, data=data
    )
    return result


def run(spec: CycleCeiling, under_way: Session, data: Dataset | None = None) -> CeilingResult:
    """Runs a spec: see `ceiling`.  ``data`` replaces those it names."""
    if data is None and under_way.resuming and under_way.out is not None and under_way.out.exists():
        data = load(under_way.out, CycleCeiling, lambda file, stored: layout.read_data(file), shards=True)
    data = spec.data() if data is None else data
    spec = spec.on(data)
    size, mine = data.x.shape[1], len(under_way.part(spec.restarts))
    under_way.require_memory(16.0 * spec.states * size * (64 + mine), f"states is {spec.states}, of {size} bits each")
    file = under_way.open(spec, lambda file: lay_out(file, spec, data))
    for restart in under_way.rows("climb", "expectation-maximisation", "starts"):
        found = climb(
            data.x, random_start(data.x, spec.states, spec.seed, restart), spec.steps, spec.tolerance, spec.precision,
            under_way.pause,
        )  # fmt: skip
        held_out = np.nan if data.test_x is None else found.mixture.log_p(data.test_x, spec.precision).mean()
        steps = len(found.trace) - 1
        trace = np.append(found.trace, np.full(spec.steps - steps, np.nan))
        row = {
            "log_likelihood": found.log_likelihood, "held_out_log_likelihood": held_out, "steps": steps,
            "refilled": found.refilled, "trace": trace, "weights": found.mixture.weights, "means": found.mixture.means,
        }  # fmt: skip
        file.write("climb", restart, {name: np.asarray(value)[None] for name, value in row.items()})
    under_way.end_of_shard()
    return read(file, spec)


def lay_out(file: RunFile, spec: CycleCeiling, data: Dataset) -> None:
    axes = [
        Axis("restart", np.arange(spec.restarts), "1", "random start"),
        Axis("step", np.arange(spec.steps + 1), "1", "EM steps done"),
        Axis("state", np.arange(spec.states), "1", "hidden state"),
        Axis("pixel", np.arange(data.x.shape[1]), "1", "visible unit"),
    ]
    variables = [Variable(name, ("restart",), *about) for name, about in _KEPT.items()]
    variables += [
        Variable("trace", ("restart", "step"), "nat", "mean log p(x) of the data"),
        Variable("weights", ("restart", "state"), "1", "probability of each state"),
        Variable("means", ("restart", "state", "pixel"), "1", "probability of each bit, given the state"),
    ]
    file.add_section("climb", axes, variables)
    layout.store_data(file, data)
    file.publish({"climb": spec.restarts})


def read(file: RunFile, spec: CycleCeiling) -> CeilingResult:
    """What is in a file, complete or not."""
    rows, stored = file.committed("climb"), file.read("climb")
    kept: dict[str, Any] = {name: stored[name][:rows] for name in (*_KEPT, "trace")}
    mixtures = [Mixture(weights, means) for weights, means in zip(stored["weights"], stored["means"], strict=True)]
    return CeilingResult(**origin(file, spec), data=layout.read_data(file), mixtures=mixtures[:rows], **kept)
