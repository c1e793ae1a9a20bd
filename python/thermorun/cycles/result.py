"""What a study gave, and where a file keeps it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.cycles.analysis import Analysis, analyse_models
from thermorun.cycles.model import MAX_STATES, Model, parameter_count, state_count
from thermorun.cycles.spec import CycleStudy
from thermorun.datasets import Dataset
from thermorun.errors import InputError
from thermorun.estimates import Estimate, finite_or_none
from thermorun.store import Axis, RunFile, Variable

Array = NDArray[Any]

# What is recorded after every epoch: units and meaning.
SERIES = {
    "log_likelihood": ("nat", "mean log p(x) of all data by occupancy, Eq. 5; NaN with too many states"),
    "minibatch_log_likelihood": ("nat", "mean over the epoch of the minibatches' log-likelihood, App. A.3"),
    "entropy_production": ("nat", "sigma a double step, Eq. 21"),
    "entropy_production_stderr": ("nat", "its standard error"),
    "mean_diagonal": ("1", "Tr(M) / L, Eq. 24"),
    "second_eigenvalue": ("1", "|lambda_2| of M"),
}
_STATES = ("model", "state")
_PAIRS = ("model", "state", "to_state")
# What is known at the end: dimensions, units and meaning.
_ANALYSIS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "log_likelihood": (("model",), "nat", "mean log p(x) of all data"),
    "entropy_production": (("model",), "nat", "sigma a double step, Eq. 21, from Rao-Blackwell M"),
    "entropy_production_skip": (("model",), "nat", "sigma from counts, pairs seen one way only left out"),
    "entropy_production_half": (("model",), "nat", "sigma from counts, half a count added to each transition"),
    "entropy_production_one": (("model",), "nat", "sigma from counts, transitions never seen counted once"),
    "path_entropy_production": (("model",), "nat", "entropy production of the chain of x and z, a double step"),
    "second_eigenvalue": (("model",), "1", "|lambda_2| of M"),
    "decorrelation_time": (("model",), "double steps", "tau = -1 / ln |lambda_2|, Eq. 23"),
    "mean_diagonal": (("model",), "1", "Tr(M) / L, Eq. 24"),
    "kl": (("model",), "nat", "KL divergence of class frequencies, Eq. 22"),
    "matrix": (_PAIRS, "1", "M, probability of a double step from state to to_state, Eq. 3"),
    "occupancy": (_STATES, "1", "stationary probability pbar of the hidden states"),
    "current": (_PAIRS, "1", "net probability a double step from state to to_state"),
    "eigenvalues": (_STATES, "1", "moduli of the eigenvalues of M, descending"),
    "counts": (_PAIRS, "1", "counted transitions"),
    "state_class": (_STATES, "1", "class of data that a state draws"),
    "class_frequency": (("model", "class"), "1", "probability of each class in the model"),
}
_NO_ERROR = {"entropy_production_skip", "entropy_production_half", "entropy_production_one", "counts", "state_class"}


@dataclass(frozen=True)
class StudyResult:
    """The results of a study.

    ``series`` holds arrays (epochs, models) under the names of ``SERIES``; ``theta`` (models, parameters) the final
    parameters, ``visible`` uint8 (models, D) where their chains are; ``mean`` (D,) that of the data; ``stopped`` int64
    (models,) the gradient step at which a model's likelihood was no longer finite, or -1.
    """

    spec: CycleStudy
    data: Dataset
    series: dict[str, Array]
    theta: Array
    visible: Array
    mean: Array
    stopped: Array
    analysis: Analysis
    train_seconds: float
    file: Path | None
    threads: int

    def model(self, index: int) -> Model:
        """One model.  Raises InputError where there is none of that number."""
        if not 0 <= index < self.spec.models:
            raise InputError(f"model is {index}; this study has models 0 to {self.spec.models - 1}.")
        return Model(self.spec.encoding, self.spec.hidden, self.theta[index], self.mean, self.spec.tied)

    def estimate(self, name: str, index: int) -> Estimate:
        """A diagnostic of one model with the error from sampling it."""
        return Estimate(
            float(getattr(self.analysis, name)[index]), float(getattr(self.analysis, f"{name}_stderr")[index])
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a model, in JSON's types; unknown numbers are None."""
        a = self.analysis
        rows = []
        for m in range(self.spec.models):
            rows.append(
                {
                    "seed": int(self.spec.seeds[m]),
                    "log_likelihood": finite_or_none(float(a.log_likelihood[m])),
                    "log_likelihood_stderr": finite_or_none(float(a.log_likelihood_stderr[m])),
                    "entropy_production": _pair(self.estimate("entropy_production", m)),
                    "path_entropy_production": _pair(self.estimate("path_entropy_production", m)),
                    "entropy_production_counted": {
                        rule: finite_or_none(float(getattr(a, f"entropy_production_{rule}")[m]))
                        for rule in ("skip", "half", "one")
                    },
                    "decorrelation_time": finite_or_none(float(a.decorrelation_time[m])),
                    "decorrelation_time_stderr": finite_or_none(float(a.decorrelation_time_stderr[m])),
                    "second_eigenvalue": finite_or_none(float(a.second_eigenvalue[m])),
                    "mean_diagonal": finite_or_none(float(a.mean_diagonal[m])),
                    "kl": finite_or_none(float(a.kl[m])),
                    "kl_stderr": finite_or_none(float(a.kl_stderr[m])),
                    "occupancy": [finite_or_none(float(p)) for p in a.occupancy[m]],
                    "state_class": [int(k) for k in a.state_class[m]],
                    "class_frequency": [finite_or_none(float(p)) for p in np.atleast_1d(a.class_frequency[m])],
                    "stopped_at_step": None if self.stopped[m] < 0 else int(self.stopped[m]),
                }
            )
        return rows

    def extremes(self) -> list[int]:
        """The models with the largest and the smallest entropy production; the first, where it is unknown."""
        sigma = self.analysis.entropy_production
        if not np.isfinite(sigma).any():
            return [0]
        return list(dict.fromkeys([int(np.nanargmax(sigma)), int(np.nanargmin(sigma))]))

    def analysed_again(self, samples: int) -> "StudyResult":
        """The same study, its diagnostics estimated anew from ``samples`` visible samples a state."""
        return replace(self, analysis=analyse_models(self.theta, self.spec, self.data, self.mean, samples))

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "models": self.rows(),
            "spec": self.spec.to_dict(),
            "train_seconds": self.train_seconds,
            "file": None if self.file is None else str(self.file),
            "seed": self.spec.seed,
            "threads": self.threads,
            "precision": self.spec.precision,
        }


def _pair(estimate: Estimate) -> dict[str, float | None]:
    """For JSON, where a stopped model has no mean either."""
    return {"mean": finite_or_none(estimate.mean), "stderr": finite_or_none(estimate.stderr)}


def kept_epochs(spec: CycleStudy) -> list[int]:
    """The epochs whose parameters are kept: each ``keep_every``-th and the last, counted from 1."""
    return sorted({*range(spec.keep_every, spec.epochs + 1, spec.keep_every), spec.epochs})


def sections(spec: CycleStudy) -> dict[str, int]:
    """The sections written row by row, and the rows that complete them."""
    return {"training": spec.epochs, "parameters": len(kept_epochs(spec)), "analysis": spec.models}


def lay_out(file: RunFile, spec: CycleStudy, data: Dataset) -> None:
    """Allocates everything."""
    visible = data.x.shape[1]
    states = state_count(spec.encoding, spec.hidden)
    epoch = Axis("epoch", np.arange(1, spec.epochs + 1), "1", "epochs done")
    kept = Axis("epoch", np.array(kept_epochs(spec)), "1", "epochs done")
    model = Axis("model", spec.seeds.astype(np.int64), "1", "seed of the model")
    parameter = Axis(
        "parameter", np.arange(parameter_count(spec.hidden, visible)), "1",
        "w (hidden, visible), wbar (hidden, visible), a (visible), abar (hidden), one after another",
    )  # fmt: skip
    file.add_section(
        "training", [epoch, model], [Variable(name, ("epoch", "model"), *about) for name, about in SERIES.items()]
    )
    theta = Variable("theta", ("epoch", "model", "parameter"), "1", "parameters", spec.precision)
    file.add_section("parameters", [kept, model, parameter], [theta])
    pixel = Axis("pixel", np.arange(visible), "1", "visible unit")
    file.add_section("data", [pixel], [Variable("mean", ("pixel",), "1", "mean of the data")])
    file.add_section(
        "chain", [model, pixel],
        [
            Variable("visible", ("model", "pixel"), "1", "visible state of the persistent chain at the end"),
            Variable("stopped", ("model",), "1", "gradient step at which the likelihood turned NaN, or -1"),
        ],
    )  # fmt: skip
    file.add_section("timing", [Axis("part", np.array(["train"]), "1", "part")],
                     [Variable("seconds", ("part",), "s", "time spent")])  # fmt: skip
    axes = [model, Axis("class", data.classes, "1", "class of the data")]
    if states <= MAX_STATES:
        axes += [
            Axis("state", np.arange(states), "1", "hidden state"),
            Axis("to_state", np.arange(states), "1", "hidden state"),
        ]
    names = {axis.name for axis in axes}
    variables = []
    for name, (dimensions, units, meaning) in _ANALYSIS.items():
        if set(dimensions) <= names:
            variables.append(Variable(name, dimensions, units, meaning))
            if name not in _NO_ERROR:
                variables.append(Variable(f"{name}_stderr", dimensions, units, f"standard error of {name}"))
    file.add_section("analysis", axes, variables)
    file.publish(sections(spec))
    file.write_whole("data", {"mean": data.x.mean(axis=0)})


def write_end(file: RunFile, analysis: Analysis, visible: Array, stopped: Array, seconds: float) -> None:
    """Writes what is known when training is done."""
    file.write_whole("chain", {"visible": visible, "stopped": stopped})
    file.write_whole("timing", {"seconds": np.array([seconds])})
    rows = {name: values for name, values in analysis.arrays().items() if values.ndim == 1 or values.shape[-1] > 0}
    file.write("analysis", 0, rows)


def read(file: RunFile, spec: CycleStudy, data: Dataset, path: Path) -> StudyResult:
    """A complete study from its file.  Raises InputError where it is incomplete or its shapes do not fit the spec."""
    if file.committed("analysis") < spec.models:
        raise InputError(f"{path} holds an unfinished study; go on with 'thermorun resume {path}'.")
    expected = (len(kept_epochs(spec)), spec.models, parameter_count(spec.hidden, data.x.shape[1]))
    theta = file.read("parameters")["theta"]
    if theta.shape != expected:
        raise InputError(f"{path} has parameters of shape {theta.shape}, but its spec and data need {expected}.")
    stored = file.read("analysis")
    known = {}
    for name in Analysis.__dataclass_fields__:
        base = name.removesuffix("_stderr")
        if name in stored:
            known[name] = stored[name]
        else:
            empty = len(_ANALYSIS[base][0]) - 1
            known[name] = np.empty((spec.models, *[0] * empty))
    known["state_class"] = known["state_class"].astype(np.int64)
    known["counts"] = known["counts"].astype(np.int64)
    chain, series = file.read("chain"), file.read("training")
    return StudyResult(
        spec,
        data,
        {name: series[name] for name in SERIES},
        theta[-1].astype(spec.dtype),
        chain["visible"].astype(np.uint8),
        file.read("data")["mean"].astype(spec.dtype),
        chain["stopped"].astype(np.int64),
        Analysis(**known),
        float(file.read("timing")["seconds"][0]),
        path,
        file.threads,
    )
