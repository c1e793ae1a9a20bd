"""A run of the family of one-hot models with one stationary law: what circulation does to their chains."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from thermorun import plots, specs
from thermorun.arrays import Array
from thermorun.cycles import climbs, markov, result
from thermorun.cycles.climbs import CeilingResult, CycleCeiling
from thermorun.cycles.diagnostics import BLOCKS, classes_of_states
from thermorun.cycles.mixture import Mixture, bounded
from thermorun.cycles.result import StudyResult
from thermorun.cycles.spec import CycleStudy, place
from thermorun.cycles.turns import (
    CIRCULATING,
    MEMORYLESS,
    TO_AND_FRO,
    angles,
    autocorrelation,
    coupling,
    effective_samples,
    order,
    posterior_chain,
    walk,
)
from thermorun.errors import InputError
from thermorun.estimates import Estimate, finite_or_none, jackknife, over_samples
from thermorun.results import Result, origin
from thermorun.runs import Session, load
from thermorun.specs import Parameter, Spec, documented, given
from thermorun.store import Axis, RunFile, Variable, read_command
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = (CIRCULATING, TO_AND_FRO, MEMORYLESS)
# Double steps that a walk may take to see all classes, in parts of those it is judged by.
_PATIENCE = 20
_LAGS = 60
# What is smaller comes from rounding: where states hardly overlap, R is known to many digits.
_ROUNDING = 1e-9
# Points for what compares every point with every state.
_POINTS = 10_000
# What is measured of each member: units, meaning, and what its standard error comes from.
TABLE = {
    "entropy_production": ("nat", "sigma a double step, Eq. 21", "blocks"),
    "decorrelation_time": ("double steps", "tau = -1 / ln |lambda_2|, Eq. 23", "blocks"),
    "effective_samples": ("1", "independent images that a double step is worth", "blocks"),
    "kl": ("nat", "KL of the law's class frequencies from those of a finite chain", "walks"),
    "cover_time": ("double steps", "until all classes were visited", "walks"),
}


@dataclass(frozen=True)
class CycleCirculation(Spec):
    """Models with the stationary law of the model in a file, and entropy production from none to the largest.

    Its fields are the parameters of `circulation`.  Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "cycles-circulation"
    runner = "thermorun.cycles.family"

    file: Annotated[str | Path, Parameter(place, "of a study with one-hot states, or of a ceiling")]
    model: Annotated[int | None, Parameter(specs.count(0), "of a study; by default the likeliest")] = None
    members: Annotated[int, Parameter(specs.count(2, 1000), "of the family, from no circulation to the most")] = 9
    production: Annotated[
        tuple[float, ...] | None,
        Parameter(specs.several(specs.not_negative), "of entropy, in the place of members", "nat a double step"),
    ] = None
    steps: Annotated[int, Parameter(specs.count(2, 10**7), "of the chains whose class frequencies are judged")] = 1000
    chains: Annotated[int, Parameter(specs.count(2, 2**20), "independent walks over the hidden states")] = 512
    samples: Annotated[int, Parameter(specs.count(2, 2**31), "images a state that the posterior is averaged over")] = (
        4000
    )

    def file_name(self) -> str:
        return f"cycles-circulation-{Path(self.file).stem}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class CirculationResult(Result):
    """The family's members, one after another: ``kinds`` (members,), ``angle`` in full turns (members,).

    ``measured`` holds estimates (done,) by the names of ``TABLE``; ``largest`` is the most entropy production that a
    turn makes; ``parts`` (blocks, L, L) the reversible chain R from separate images; ``mixture`` the law; ``facts``
    what it is of.
    """

    spec: CycleCirculation
    kinds: list[str]
    angle: Array
    measured: dict[str, Estimate]
    done: int
    largest: float
    parts: Array
    mixture: Mixture
    facts: dict[str, Any]

    @property
    def matrix(self) -> Array:
        """R from all images, (L, L)."""
        mean: Array = self.parts.mean(axis=0)
        return mean

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a member, in JSON's types."""
        return [
            {"kind": kind, "turn": finite_or_none(self.angle[k])}
            | {name: estimate[k].to_dict() for name, estimate in self.measured.items()}
            for k, kind in enumerate(self.kinds[: self.done])
        ]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"largest": self.largest, "law": self.facts, "notes": self.notes()}

    def tables(self) -> list[Table]:
        rows = [
            (
                kind, "" if kind == MEMORYLESS else f"{self.angle[k]:.4f}",
                *(_cell(self.measured[name][k], name, self.spec.steps * _PATIENCE) for name in TABLE),
            )
            for k, kind in enumerate(self.kinds[: self.done])
        ]  # fmt: skip
        headings = ("kind", "turn", "sigma / nat", "tau", "images a step", "KL / nat", "all classes")
        title = f"One stationary law, {self.facts['law']}: {len(self.mixture.weights)} states"
        return [Table(title, headings, rows, self.notes(), keys=2)]

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        notes = [
            f"all have the likelihood of the law, {self.facts['log_likelihood']:.3f} nat; turn 0 is the posterior"
            f" itself; a turn produces {self.largest:.4g} nat at most",
            "images a step: independent ones that a double step is worth; KL: of the law's class frequencies from"
            f" those of {self.spec.steps:,} double steps; all classes: double steps until each was visited; errors of"
            f" {self.spec.chains} chains, and of {BLOCKS} parts of {self.spec.samples} images a state",
        ]
        if not self.facts["labels"]:
            notes.append("the data have no classes: every state counts as one")
        if self.done < len(self.kinds):
            notes.append(
                f"{self.done} of {len(self.kinds)} members are done; go on with 'thermorun resume {self.file}'"
            )
        return notes

    def figures(self) -> "dict[str, Figure]":
        return {"": plane(self), "autocorrelation": memories(self)} if self.done else {}


def _cell(estimate: Estimate, name: str, most: int) -> str:
    if name == "cover_time" and estimate.mean >= most:
        return f"> {most:,}"
    if not np.isfinite(estimate.mean):
        return "inf" if estimate.mean > 0 else "?"
    if abs(estimate.mean) < _ROUNDING:
        return "0"
    return str(estimate) if estimate.stderr > _ROUNDING else f"{estimate.mean:.4g}"


def plane(family: CirculationResult) -> "Figure":
    """Mixing against entropy production: decorrelation time, images a step, class frequencies, and time to see all."""
    figure: Figure
    figure, axes = plots.subplots(2, 2, size=(8.0, 6.4))
    labels = {
        "decorrelation_time": r"decorrelation time $\tau$ / double steps",
        "effective_samples": "independent images a double step",
        "kl": f"KL of classes after {family.spec.steps:,} steps / nat",
        "cover_time": "double steps until all classes",
    }
    for ax, (name, label) in zip(axes.ravel(), labels.items(), strict=True):
        _panel(ax, family, name)
        ax.set_yscale("log")
        ax.set_xlabel(r"$\sigma$ / nat per double step")
        ax.set_ylabel(label)
    plots.letters(axes)
    plots.legend(axes[0, 1], fontsize="small")
    figure.suptitle(f"{family.facts['law']}: one stationary law, one likelihood", fontsize="medium")
    return figure


def _panel(ax: "Axes", family: CirculationResult, name: str) -> None:
    """One of the measures against entropy production; open triangles are walks that saw no end."""
    sigma, value = family.measured["entropy_production"], family.measured[name]
    known = np.isfinite(value.mean) & (value.mean > 0)
    most = family.spec.steps * _PATIENCE if name == "cover_time" else np.inf
    kinds = np.array(family.kinds[: family.done])
    for number, kind in enumerate((CIRCULATING, TO_AND_FRO)):
        own = (kinds == kind) & known & (value.mean < most)
        ax.errorbar(
            sigma.mean[own], value.mean[own], xerr=np.nan_to_num(sigma.stderr[own]),
            yerr=np.nan_to_num(value.stderr[own]), fmt="os"[number], markersize=4.5, color=plots.colour(number),
            label=kind,
        )  # fmt: skip
    endless = known & (value.mean >= most)
    if endless.any():
        ax.plot(sigma.mean[endless], value.mean[endless], "^", markerfacecolor="white", label="at least")
    alone = (kinds == MEMORYLESS) & known
    if alone.any():
        ax.axhline(value.mean[alone][0], color=plots.EXACT, linestyle=":", linewidth=1, label=MEMORYLESS)


def memories(family: CirculationResult) -> "Figure":
    """Autocorrelation of the states' mean images of the circulating members, within two standard errors."""
    from matplotlib import colormaps

    figure: Figure
    figure, ax = plots.subplots()
    weights, circle = family.mixture.weights, order(family.matrix)
    shown = [k for k in range(family.done) if family.kinds[k] == CIRCULATING]
    for number, k in enumerate(shown):
        c = coupling(CIRCULATING, weights, circle, family.angle[k])
        found = jackknife(family.parts @ c, lambda m: autocorrelation(m, weights, family.mixture.means, _LAGS))
        colour = colormaps["viridis"](number / max(1, len(shown) - 1))
        sigma = family.measured["entropy_production"].mean[k]
        label = rf"$\sigma$ = {sigma if sigma > _ROUNDING else 0.0:.3g}"
        plots.band(ax, np.arange(_LAGS + 1), found.mean, found.stderr, color=colour, linewidth=1, label=label)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xlabel("double steps")
    ax.set_ylabel("autocorrelation of the states' mean images")
    plots.legend(ax, fontsize="small", loc="upper right", bbox_to_anchor=(1.0, 0.95), ncols=2)
    figure.suptitle(f"{family.facts['law']}: circulating members", fontsize="medium")
    return figure


@documented(CycleCirculation)
def circulation(
    file: str | Path,
    *,
    model: int | None = None,
    members: int = 9,
    production: tuple[float, ...] | None = None,
    steps: int = 1000,
    chains: int = 512,
    samples: int = 4000,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> CirculationResult:
    """What circulation does to chains of one stationary law: see `thermorun.cycles.turns` for the family.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    CirculationResult
        Entropy production, decorrelation, effective samples, class frequencies and cover times of every member.

    Raises
    ------
    InputError
        Before any work, for input that cannot run; for more ``production`` than the law allows, with the largest.
    """
    fields = given(CycleCirculation, locals())
    found: CirculationResult = CycleCirculation(**fields).run(
        out=out, resume=resume, threads=threads, show_progress=show_progress
    )
    return found


def law_of(spec: CycleCirculation) -> tuple[Mixture, Array, dict[str, Any]]:
    """The law that a file holds: mixture, class of each state, and what it is of.  Raises InputError."""
    found: CeilingResult | StudyResult
    if read_command(Path(spec.file)) == CycleCeiling.command:
        found = load(spec.file, CycleCeiling, climbs.read)
        if spec.model is not None:
            raise InputError(f"model is {spec.model}; {spec.file} holds a mixture of EM, which is one.")
        mixture, called, reached = found.mixture, "EM", float(found.log_likelihood[found.best])
    else:
        found = load(spec.file, CycleStudy, result.read)
        found.require_complete()
        if found.spec.encoding == "bits":
            raise InputError(f"file is {spec.file}, whose states are bits; it must be one with one-hot states.")
        index = found.best() if spec.model is None else spec.model
        if not found.states:
            raise InputError(f"{spec.file} holds models of {found.spec.hidden} states, too many for a matrix.")
        model, points = found.model(index), len(found.data.x)
        weights = found["occupancy"].mean[index]
        mixture = Mixture(weights / weights.sum(), bounded(model.expected(model.states()), points))
        called, reached = f"model {index}", float(mixture.log_p(found.data.x).mean())
    if len(mixture.weights) < 2:
        raise InputError(f"{spec.file} holds a law of one state; nothing can circulate.")
    data = found.data
    labelled = len(data.classes) > 1
    classes = np.arange(len(mixture.weights))
    if labelled:
        step = -(-len(data.x) // _POINTS)
        classes = classes_of_states(mixture.log_forward(data.x[::step]), data.labels[::step], data.classes)
    facts = {"law": f"{called} on {data.name}", "log_likelihood": reached, "labels": labelled}
    return mixture, classes, facts


def run(spec: CycleCirculation, under_way: Session) -> CirculationResult:
    """Runs a spec: see `circulation`."""
    if under_way.resuming:
        file = under_way.open(spec, lambda file: None)
    else:
        mixture, classes, facts = law_of(spec)
        parts = posterior_chain(mixture, spec.samples, min(BLOCKS, spec.samples), spec.seed)
        targets = None if spec.production is None else np.array(spec.production)
        turns, facts["largest"] = angles(parts.mean(axis=0), mixture.weights, targets, spec.members)
        file = under_way.open(spec, lambda file: lay_out(file, mixture, classes, parts, turns, facts))
    law, family = file.read("law"), file.read("family")
    for k in under_way.rows("family", "circulation", "members"):
        file.write("family", k, _measured(spec, law, _kind(family["kind"][k]), k, family["turn"][k], under_way.pause))
    return read(file, spec)


def _measured(
    spec: CycleCirculation, law: dict[str, Array], kind: str, number: int, angle: float, pause: Callable[[], None]
) -> dict[str, Array]:
    """What is measured of one member, with standard errors."""
    weights, means, parts = law["weights"], law["means"], law["posterior"]
    c = coupling(kind, weights, order(parts.mean(axis=0)), angle)
    statistics: dict[str, Callable[[Array], Any]] = {
        "entropy_production": lambda r: markov.entropy_production(r @ c, weights),
        "decorrelation_time": lambda r: 0.0 if kind == MEMORYLESS else markov.decorrelation_time(r @ c),
        "effective_samples": lambda r: effective_samples(r @ c, weights, means),
    }
    found = {name: jackknife(parts, statistic) for name, statistic in statistics.items()}
    divergence, covered = walk(
        parts.mean(axis=0) @ c, weights, law["state_class"], spec.steps, _PATIENCE * spec.steps, spec.chains,
        (spec.seed, number), pause,
    )  # fmt: skip
    found |= {"kl": over_samples(divergence), "cover_time": over_samples(covered.astype(float))}
    row = {name: np.array([one.mean]) for name, one in found.items()}
    return row | {f"{name}_stderr": np.array([one.stderr]) for name, one in found.items()}


def _kind(number: float) -> str:
    return _KINDS[int(number)]


def lay_out(file: RunFile, mixture: Mixture, classes: Array, parts: Array, turns: Array, facts: dict[str, Any]) -> None:
    """Allocates the members, and writes the law: the file stands alone."""
    states, size = mixture.means.shape
    kinds = np.repeat([0, 1, 2], [len(turns), len(turns), 1])
    axes = [Axis("member", np.arange(len(kinds)), "1", "of the family")]
    variables = [
        Variable("kind", ("member",), "1", f"0 {CIRCULATING}, 1 {TO_AND_FRO}, 2 {MEMORYLESS}", "int64"),
        Variable("turn", ("member",), "1", "angle, in full turns"),
    ]
    for name, (units, meaning, _) in TABLE.items():
        variables.append(Variable(name, ("member",), units, meaning))
        variables.append(Variable(f"{name}_stderr", ("member",), units, f"standard error of {name}"))
    file.add_section("family", axes, variables)
    law_axes = [
        Axis("state", np.arange(states), "1", "hidden state"),
        Axis("to_state", np.arange(states), "1", "hidden state"),
        Axis("pixel", np.arange(size), "1", "visible unit"),
        Axis("block", np.arange(len(parts)), "1", "part of the images"),
    ]
    law = {
        "weights": (("state",), "pbar", mixture.weights, "float64"),
        "means": (("state", "pixel"), "p(x = 1 | z)", mixture.means, "float64"),
        "state_class": (("state",), "class of data that a state draws", classes, "int64"),
        "posterior": (
            ("block", "state", "to_state"),
            "R, p(y | x) averaged over images of each state",
            parts,
            "float64",
        ),
    }
    file.add_section(
        "law", law_axes, [Variable(name, of, "1", what, kind) for name, (of, what, _, kind) in law.items()]
    )
    file.note(law=json.dumps(facts))
    file.write_whole("law", {name: values for name, (_, _, values, _) in law.items()})
    file.write_whole("family", {"kind": kinds, "turn": np.concatenate([turns, turns, [0.0]])})
    file.publish({"family": len(kinds)})


def read(file: RunFile, spec: CycleCirculation) -> CirculationResult:
    """What is in a file, complete or not."""
    law, family, done = file.read("law"), file.read("family"), file.committed("family")
    facts = file.noted("law", json.loads)
    dof = {"blocks": len(law["posterior"]) - 1.0, "walks": spec.chains - 1.0}
    measured = {
        name: Estimate(family[name][:done], family[f"{name}_stderr"][:done], 1, dof[about[2]])
        for name, about in TABLE.items()
    }
    return CirculationResult(
        **origin(file, spec), kinds=[_kind(k) for k in family["kind"]], angle=family["turn"], measured=measured,
        done=done, largest=facts.pop("largest"), parts=law["posterior"],
        mixture=Mixture(law["weights"], law["means"]), facts=facts,
    )  # fmt: skip
