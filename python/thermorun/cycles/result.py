"""What a study gave."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from thermorun.arrays import Array
from thermorun.cycles import layout, likelihood
from thermorun.cycles.diagnostics import BLOCKS, FANTASIES, RULES, TABLE, Diagnostics, nearest_class
from thermorun.cycles.layout import SERIES, diagnostics_of
from thermorun.cycles.long_chains import CHAINS, spread_out
from thermorun.cycles.model import MAX_STATES, Model, state_count
from thermorun.cycles.sampling import Fantasies, sample
from thermorun.cycles.spec import CycleStudy
from thermorun.datasets import Dataset
from thermorun.errors import InputError, require_choice, require_count
from thermorun.estimates import Estimate, finite_or_none
from thermorun.results import Result
from thermorun.store import RunFile
from thermorun.tables import Table
from thermorun.threads import on_threads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Estimators of the entropy production: the diagnostic of each, and how pictures and tables call it.
SIGMAS = {
    "averaged": ("entropy_production", "averaged M"),
    "counted": ("entropy_production_half", "counted, + 1/2"),
    "path": ("path_entropy_production", "path of x and z"),
}
_ERRORS = {"blocks": BLOCKS - 1, "chains": CHAINS - 1}
# Columns of the table: heading, diagnostic, and the digits of what has no error bar there.
_COLUMNS = {
    "log-lik. / nat": ("log_likelihood", None),
    "held out / nat": ("held_out_log_likelihood", None),
    "gain / nat": ("log_likelihood_gain", ".2g"),
    "fantasies": ("log_likelihood_fantasies", ".3g"),
    "sigma / nat": ("entropy_production", None),
    "counted / nat": ("entropy_production_half", None),
    "path / nat": ("path_entropy_production", None),
    "images a step": ("effective_samples", None),
    "tau": ("decorrelation_time", ".3g"),
    "|lambda_2|": ("second_eigenvalue", ".4f"),
    "diagonal": ("mean_diagonal", ".4f"),
    "KL / nat": ("kl", ".2g"),
}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class StudyResult(Result):
    """The results of a study.

    ``data`` are those it was trained on; ``series`` holds arrays (epochs, models) under the names of ``SERIES``, NaN
    where an epoch is not done; ``theta`` (models, parameters) the last parameters, ``square`` RMSProp's memory;
    ``visible`` uint8 (models, D) where the chains are; ``mean`` (D,) that of the data; ``stopped`` int64 (models,) the
    gradient step at which a model's likelihood was no longer finite, or -1.  ``diagnostics`` are estimates by name,
    with models along the first dimension: see ``diagnostics.TABLE``.  ``ceiling`` holds arrays (starts,) under the
    names of ``layout.CEILING``: what EM for a mixture of as many states reached, first from the best model; empty for
    bits.

    ``sigma`` names the entropy production that tables sort by and pictures show, ``drawn`` the models of which there
    are pictures (none by default).
    """

    spec: CycleStudy
    data: Dataset
    epochs_done: int
    series: dict[str, Array]
    theta: Array
    square: Array
    visible: Array
    mean: Array
    stopped: Array
    diagnostics: Diagnostics
    train_seconds: float
    ceiling: dict[str, Array] = field(default_factory=dict)
    sigma: str = "averaged"
    drawn: tuple[int, ...] = ()

    def __getitem__(self, name: str) -> Estimate:
        """A diagnostic of all models."""
        if name not in self.diagnostics:
            raise InputError(f"{name!r} is no diagnostic of this study; there are {', '.join(self.diagnostics)}.")
        return self.diagnostics[name]

    @property
    def complete(self) -> bool:
        """Whether the study was trained and analysed to its end."""
        return bool(np.isfinite(self["log_likelihood"].mean).any()) or bool((self.stopped >= 0).all())

    @property
    def states(self) -> int:
        """Hidden states of a model; 0 where they are too many for a transition matrix."""
        return state_count(self.spec.encoding, self.spec.hidden) if "matrix" in self.diagnostics else 0

    def require_complete(self) -> None:
        """Raises InputError for a study that is not finished."""
        if not self.complete:
            raise InputError(
                f"{self.file} holds an unfinished study, {self.epochs_done} of {self.spec.epochs} epochs; go on with"
                f" 'thermorun resume {self.file}'."
            )

    def model(self, index: int) -> Model:
        """One model.  Raises InputError where there is none of that number."""
        index = require_count("model", index, 0, self.spec.models - 1)
        return self.spec.model(self.theta[index], self.mean)

    def estimate(self, name: str, index: int) -> Estimate:
        """A diagnostic of one model, unknown where the study does not have it."""
        return self.diagnostics[name][index] if name in self.diagnostics else Estimate(np.nan, np.nan)

    def curve(self, name: str, index: int) -> tuple[Array, Array]:
        """Epochs at which a likelihood of one model is known, and what it was.

        Estimates of models of many bits rest on few points of the data, always the same ones: what these differ from
        all is taken from the end, where both are known.
        """
        series = self.series[name][:, index]
        known = np.flatnonzero(np.isfinite(series))
        values = series[known]
        final = self.estimate(name, index).mean
        if self.spec.estimated and np.isfinite(final) and len(known) and known[-1] == self.spec.epochs - 1:
            values = values + (final - values[-1])
        return known + 1, values

    def kept_parameters(self) -> Array:
        """Parameters along the training, (kept epochs, models, parameters): see ``CycleStudy.kept_epochs``."""
        return self.contents()["parameters"]["theta"].values

    @property
    def shown_sigma(self) -> tuple[Estimate, str]:
        """The entropy production that pictures show, and the name of its estimator."""
        name, called = SIGMAS[self.sigma if self.states else "path"]
        return self[name], called

    def with_sigma(self, sigma: str) -> Self:
        """The same, showing another estimate of the entropy production: "averaged" or "counted"."""
        return replace(self, sigma=require_choice("sigma", sigma, ("averaged", "counted")))

    def with_portraits(self, models: Sequence[int] = ()) -> Self:
        """The same, with pictures of these models: by default those of ``extremes``."""
        chosen = tuple(models) or tuple(self.extremes())
        for index in chosen:
            self.model(index)
        return replace(self, drawn=chosen)

    @property
    def attainable(self) -> dict[str, float]:
        """The largest likelihood that EM found for as many states, and what that mixture gives points held out."""
        known = self.ceiling.get("log_likelihood", np.array([]))
        if not np.isfinite(known).any():
            return {}
        best = int(np.nanargmax(known))
        return {name: float(values[best]) for name, values in self.ceiling.items() if np.isfinite(values[best])}

    def best(self) -> int:
        """The model with the largest log-likelihood."""
        known = self["log_likelihood"].mean
        if not np.isfinite(known).any():
            self.require_complete()
            raise InputError("no model of this study has a finite likelihood; take a smaller learning rate.")
        return int(np.nanargmax(known))

    def extremes(self) -> list[int]:
        """Two models: the most likely of those in the upper third of the entropy production, and the one with least."""
        sigma, likelihood = self.shown_sigma[0].mean, self["log_likelihood"].mean
        known = np.flatnonzero(np.isfinite(sigma) & np.isfinite(likelihood))
        if not len(known):
            return [0]
        order = known[np.argsort(sigma[known], kind="stable")]
        upper = order[-max(1, len(order) // 3) :]
        return list(dict.fromkeys([int(upper[np.argmax(likelihood[upper])]), int(order[0])]))

    def sample(
        self, model: int | None = None, *, chains: int = 1024, steps: int = 10, records: int = 1, burn: int = 100,
        seed: int = 0, threads: int | None = None,
    ) -> Fantasies:  # fmt: skip
        """Images from a model, by default the most likely, from chains that start all over the data: see ``sample``."""
        chosen = self.model(self.best() if model is None else model)
        if not np.isfinite(chosen.row).all():
            self.require_complete()
            raise InputError(f"model is {model}, whose parameters are not finite; choose another.")
        start = spread_out(self.data.x, require_count("chains", chains, 1, 2**30))
        with on_threads(threads):
            return sample(chosen, start, steps=steps, records=records, burn=burn, seed=seed)

    def classes_of(self, images: Array) -> Array:
        """The class of each image, (images, D): that of the point of the data with the fewest other bits."""
        return nearest_class(images, self.data)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a model, in JSON's types; what is not known is None."""
        single = [name for name in self.diagnostics if TABLE[name].dimensions == ("model",)]
        counted = [f"entropy_production_{rule}" for rule in RULES]
        rows = []
        for m in range(self.spec.models):
            row: dict[str, Any] = {"model": m, "seed": int(self.spec.seeds[m])}
            row |= {name: self[name][m].to_dict() for name in single if name not in counted}
            if self.states:
                row["entropy_production_counted"] = {
                    rule: self[name][m].to_dict() for rule, name in zip(RULES, counted, strict=True)
                }
                row["occupancy"] = self["occupancy"][m].to_dict()
                row["state_class"] = [self.data.class_name(k) for k in self["state_class"].mean[m].tolist()]
            row["class_frequency"] = self["class_frequency"][m].to_dict()
            if "log_likelihood_gain" in self.diagnostics:
                row["log_likelihood_doubtful"] = bool(self.doubtful()[m])
            row["stopped_at_step"] = None if self.stopped[m] < 0 else int(self.stopped[m])
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        data = self.data
        return super().to_dict() | {
            "data": {
                "name": data.name, "source": data.source, "fingerprint": data.fingerprint, "points": len(data.x),
                "bits": data.x.shape[1], "classes": [data.class_name(k) for k in data.classes.tolist()],
                "held_out": 0 if data.test_x is None else len(data.test_x),
            },
            "complete": self.complete,
            "epochs_done": self.epochs_done,
            "train_seconds": finite_or_none(self.train_seconds),
            "precision": self.spec.precision,
            "sigma": self.shown_sigma[1],
            "ceiling": self.attainable or None,
            "notes": self.notes(),
        }  # fmt: skip

    def tables(self) -> list[Table]:
        spec, sigma, top = self.spec, self.shown_sigma[0].mean, self.attainable
        columns = {heading: of for heading, of in _COLUMNS.items() if self._tells(of[0])}
        rows = []
        for m in np.argsort(np.nan_to_num(sigma, nan=np.inf), kind="stable"):
            cells = []
            for name, digits in columns.values():
                estimate = self.estimate(name, m)
                unknown = np.isnan(estimate.mean)
                cells.append("?" if unknown else format(estimate.mean, digits) if digits else _cell(estimate))
            if top:
                cells.insert(1, f"{self['log_likelihood'].mean[m] - top['log_likelihood']:.3f}")
            rows.append((str(m), *cells))
        tied = ", tied" if spec.tied else ""
        rule = ", exact gradient" if spec.rule == "exact" else ""
        title = f"Latent cycles on {self.data.name}: {spec.encoding}{tied}, {spec.layers}{rule}"
        headings = list(columns)
        if top:
            headings.insert(1, "to ceiling")
        return [Table(title, ("model", *headings), rows, [*self._about(), *self.notes()])]

    def _tells(self, name: str) -> bool:
        """Whether a diagnostic has its place in the table."""
        if name == "path_entropy_production":
            return not self.states
        return name in self.diagnostics and not (name == "kl" and len(self.data.classes) < 2)

    def _about(self) -> list[str]:
        spec, data = self.spec, self.data
        held_out = "none" if data.test_x is None else f"{len(data.test_x):,}"
        about = [
            f"{len(data.x):,} points of {data.x.shape[1]} bits, {held_out} held out; {spec.models} models x"
            f" {spec.steps:,} gradient steps in {self.train_seconds:.1f} s on {self.threads} threads"
        ]
        if top := self.attainable:
            held = top.get("held_out_log_likelihood")
            starts = len(self.ceiling["log_likelihood"])
            about.append(
                f"ceiling: {top['log_likelihood']:.4f} nat{'' if held is None else f', held out {held:.4f}'}, the best"
                f" mixture of {spec.hidden} states of {starts} climbs of EM"
            )
        if self.states:
            about.append(
                "sigma: entropy production a double step, M averaged (Rao-Blackwell); counted: half a count added to"
                f" each transition; tau in double steps; diagonal: {1 / self.states:.4f} at random"
            )
        return about

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know: why some are missing or infinite."""
        notes, data, spec = [], self.data, self.spec
        if not self.complete:
            notes.append(
                f"?: {self.epochs_done} of {spec.epochs} epochs are done; go on with 'thermorun resume {self.file}'"
            )
            return notes
        if spec.ceiling > 0 and spec.encoding != "bits" and spec.hidden > len(data.x):
            notes.append(f"no ceiling: {spec.hidden:,} hidden states are more than the {len(data.x):,} points")
        if not self.states:
            there = f"2^{spec.hidden}" if spec.encoding == "bits" else f"{spec.hidden:,}"
            notes.append(
                f"path: entropy production of x and z together; sigma of z alone, tau and M need at most {MAX_STATES:,}"
                f" hidden states, and there are {there}; images a step: independent ones that a double step is worth"
            )
            notes += (
                self._estimated()
                if spec.encoding == "bits"
                else ["log-likelihood: from 4,096 states of long chains, a lower bound"]
            )
        if len(data.classes) < 2:
            notes.append("the data have no classes, so there is no KL of their frequencies")
        elif np.isinf(self["kl"].mean).any():
            few = 0 < self.states < len(data.classes)
            reason = f": {self.states} states cannot draw {len(data.classes)} classes" if few else ""
            notes.append(f"KL inf: no state draws one of the classes of the data{reason}")
        shown = [self[name] for name, digits in _COLUMNS.values() if digits is None and self._tells(name)]
        if any((np.isfinite(one.mean) & ~(one.stderr > 0)).any() for one in shown):
            one_sample = "a single sample a state tells no error; take more samples"
            notes.append(f"± ?: {one_sample if spec.samples < 2 else 'all parts of the samples gave the same number'}")
        if self.states and np.isinf(self["decorrelation_time"].mean).any():
            notes.append("tau inf: |lambda_2| is 1, the hidden states fall into parts or run in a perfect circle")
        for m in np.flatnonzero(self.stopped >= 0):
            notes.append(
                f"?: model {m} stopped at step {self.stopped[m]}, where its likelihood was no longer finite; take a"
                " smaller learning rate"
            )
        return notes

    def _estimated(self) -> list[str]:
        """How the likelihood of many bits was found, and of which models it is in doubt."""
        notes = [
            f"log-likelihood: an estimate from {FANTASIES * self.spec.samples:,} fantasies, too low on average; gain:"
            " what their last doubling added, about what is missing where it is small; fantasies: independent ones"
            " that log p of a point rests on"
            + ("; tied chains forget slowly where they begin, at points of the data" if self.spec.tied else "")
        ]
        doubtful = np.flatnonzero(self.doubtful())
        if len(doubtful):
            listed = ", ".join(map(str, doubtful[:8])) + (", ..." if len(doubtful) > 8 else "")
            notes.append(
                f"doubtful, a lower bound only: the likelihood of model{'s' * (len(doubtful) > 1)} {listed}; take more"
                f" than {self.spec.samples} samples, as in 'thermorun cycles analyse FILE --samples"
                f" {8 * self.spec.samples}'"
            )
        return notes

    def doubtful(self) -> Array:
        """Models whose likelihood, of bits too many to be enumerated, rests on few fantasies or still rises, (models,).

        None of those whose likelihood is by occupancy.
        """
        found = np.zeros(self.spec.models, bool)
        for name in ("log_likelihood", "held_out_log_likelihood"):
            if f"{name}_gain" in self.diagnostics:
                found |= self[f"{name}_gain"].mean > likelihood.MUCH
                found |= self[f"{name}_fantasies"].mean < likelihood.FEW
        return found

    def figures(self) -> "dict[str, Figure]":
        from thermorun.cycles import figures

        pictures = {"training": figures.training(self)}
        if not self.drawn:
            return pictures
        if self.states:
            pictures["indicators"] = figures.indicators(self)
        pictures["autocorrelation"] = figures.autocorrelations(self, self.drawn)
        for index in self.drawn:
            pictures[f"portrait-model-{index}"] = figures.portrait(self, index)
            if figures.can_draw_cycle(self):
                pictures[f"cycle-model-{index}"] = figures.cycle(self, index)
        return pictures


def read(file: RunFile, spec: CycleStudy) -> StudyResult:
    """The study in a file, complete or not."""
    data, stored, chain = layout.read_data(file), file.read("analysis"), file.read("chain")
    finished = file.committed("analysis") >= spec.models
    diagnostics = {}
    for name in diagnostics_of(spec, data.test_x is not None):
        if name not in stored:  # of a file from before there was such a diagnostic
            continue
        mean, error = stored[name], TABLE[name].error
        stderr = stored[f"{name}_stderr"] if error else np.full(mean.shape, np.nan)
        dof = min(_ERRORS["blocks"], spec.samples - 1) if error == "blocks" else _ERRORS["chains"]
        diagnostics[name] = Estimate(mean, stderr, 1, float(dof) if error else np.inf)
    kept = file.committed("parameters")
    theta = file.read("parameters")["theta"]
    return StudyResult(
        spec=spec, threads=file.threads, file=file.path, stored=None if file.path else file.contents(), data=data,
        epochs_done=file.committed("training"), series=_series(file),
        theta=theta[kept - 1] if kept else np.full(theta.shape[1:], np.nan, theta.dtype), square=chain["square"],
        visible=chain["visible"], mean=file.read("data")["mean"].astype(spec.dtype),
        stopped=chain["stopped"] if finished else np.full(spec.models, -1), diagnostics=diagnostics,
        train_seconds=float(file.read("timing")["seconds"][0]),
        ceiling=_ceiling(file) if finished and spec.has_ceiling(len(data.x)) else {},
    )  # fmt: skip


def _cell(estimate: Estimate) -> str:
    """A mean and its standard error; not more than four decimals, for tables of many models."""
    if 0 < estimate.stderr < 5e-5:
        return f"{estimate.mean:.4f} ± {estimate.stderr:.0e}"
    return str(estimate)


def _series(file: RunFile) -> dict[str, Array]:
    """What was recorded after every epoch; NaN for what older files do not have."""
    stored = file.read("training")
    nothing = np.full(stored["minibatch_log_likelihood"].shape, np.nan)
    return {name: stored.get(name, nothing) for name in SERIES}


def _ceiling(file: RunFile) -> dict[str, Array]:
    stored = file.read("ceiling")
    return {name: stored[name] for name in layout.CEILING}
