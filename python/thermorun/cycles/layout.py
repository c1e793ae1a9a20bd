"""Where a study's file keeps what."""

import json
from typing import Any, Protocol

import numpy as np

from thermokernels.latent_cycle import DRAWS
from thermorun.arrays import Array
from thermorun.cycles.diagnostics import TABLE, Diagnostics
from thermorun.cycles.model import MAX_STATES, parameter_count, state_count
from thermorun.cycles.spec import CycleStudy
from thermorun.datasets import Dataset
from thermorun.errors import InputError
from thermorun.store import Axis, RunFile, Variable

# What is recorded after every epoch: units and meaning.
SERIES = {
    "log_likelihood": (
        "nat",
        "mean log p(x) of all data by occupancy, Eq. 5; of more than 10 bits an estimate for a few hundred points,"
        " every keep_every epochs; NaN where there is none",
    ),
    "held_out_log_likelihood": ("nat", "the same of the points held out, NaN where there are none"),
    "minibatch_log_likelihood": ("nat", "mean over the epoch of the minibatches' log-likelihood, App. A.3"),
    "entropy_production": ("nat", "sigma a double step, Eq. 21"),
    "entropy_production_stderr": ("nat", "its standard error"),
    "mean_diagonal": ("1", "Tr(M) / L, Eq. 24"),
    "second_eigenvalue": ("1", "|lambda_2| of M"),
}
# What EM for a mixture of as many states reached, from each of its starts.
CEILING = {
    "log_likelihood": ("nat", "mean log p(x) of all data, that EM of a mixture of as many states reached"),
    "held_out_log_likelihood": ("nat", "the same of the points held out, NaN where there are none"),
}
_INTEGERS = ("counts", "state_class")
_WEIGHTS = {
    "w": (("model", "hidden", "pixel"), "from a hidden unit to a visible one"),
    "wbar": (("model", "hidden", "pixel"), "from a visible unit to a hidden one"),
    "a": (("model", "pixel"), "visible biases"),
    "abar": (("model", "hidden"), "hidden biases"),
}
_DEEP = {
    "wbar": (("model", "bit", "pixel"), "from a visible unit to a bit of the first layer"),
    "abar": (("model", "bit"), "biases of the first layer"),
    "v": (("model", "hidden", "bit"), "from a bit of the first layer to a hidden unit"),
    "c": (("model", "hidden"), "hidden biases"),
}
_CHAIN = {
    "visible": (("model", "pixel"), "visible state of the persistent chain at the end", "uint8"),
    "stopped": (("model",), "gradient step at which the likelihood was no longer finite, or -1", "int64"),
}


class Trained(Protocol):
    """What training leaves of all models."""

    theta: Array
    square: Array
    visible: Array
    status: Array
    mean: Array
    seconds: float


def diagnostics_of(spec: CycleStudy, held_out: bool) -> list[str]:
    """Names of the diagnostics that such a study has."""
    matrix = state_count(spec.encoding, spec.hidden) <= MAX_STATES
    estimated = [name for name in TABLE if name.endswith(("_gain", "_fantasies"))]
    with_too_many_states = (
        "log_likelihood",
        "held_out_log_likelihood",
        "path_entropy_production",
        "effective_samples",
        "kl",
        "class_frequency",
    )
    only_then = ("effective_samples", *estimated)
    names = [name for name in TABLE if (name not in only_then if matrix else name in with_too_many_states)]
    if spec.estimated:
        names += estimated
    if spec.first_layer:
        names.remove("path_entropy_production")
    return [name for name in names if held_out or not name.startswith("held_out")]


def _weights(spec: CycleStudy) -> dict[str, tuple[tuple[str, ...], str]]:
    """Names, dimensions and meanings of a model's parameters."""
    return _WEIGHTS | _DEEP if spec.first_layer else _WEIGHTS


def lay_out(file: RunFile, spec: CycleStudy, data: Dataset) -> None:
    """Allocates everything, and writes the data."""
    file.note(draws=DRAWS)
    epoch = Axis("epoch", np.arange(1, spec.epochs + 1), "1", "epochs done")
    kept = Axis("epoch", np.array(spec.kept_epochs()), "1", "epochs done")
    model = Axis("model", spec.seeds, "1", "seed of the model")
    pixel = Axis("pixel", np.arange(data.x.shape[1]), "1", "visible unit")
    hidden = Axis("hidden", np.arange(spec.hidden), "1", "hidden unit")
    parameter = Axis(
        "parameter", np.arange(parameter_count(spec.hidden, len(pixel.values), spec.first_layer)), "1",
        "w (hidden, visible), wbar (hidden, visible), a (visible), abar (hidden), one after another; with a first layer"
        " wbar (bit, visible), abar (bit), and v (hidden, bit), c (hidden) at the end",
    )  # fmt: skip
    file.add_section(
        "training", [epoch, model], [Variable(name, ("epoch", "model"), *about) for name, about in SERIES.items()]
    )
    theta = Variable("theta", ("epoch", "model", "parameter"), "1", "parameters", spec.precision)
    file.add_section("parameters", [kept, model, parameter], [theta])
    bits = [Axis("bit", np.arange(spec.first_layer), "1", "bit of the first layer")] if spec.first_layer else []
    file.add_section(
        "weights", [model, hidden, *bits, pixel],
        [Variable(name, of, "1", f"{what}, at the end", spec.precision) for name, (of, what) in _weights(spec).items()],
    )  # fmt: skip
    square = Variable(
        "square", ("model", "parameter"), "1", "RMSProp's mean squared gradient at the end", spec.precision
    )
    file.add_section(
        "chain", [model, pixel, parameter],
        [*(Variable(name, of, "1", what, kind) for name, (of, what, kind) in _CHAIN.items()), square],
    )  # fmt: skip
    file.add_section("timing", [Axis("part", np.array(["train"]), "1", "part")],
                     [Variable("seconds", ("part",), "s", "time spent")])  # fmt: skip
    _lay_out_analysis(file, spec, data, model)
    if spec.has_ceiling(len(data.x)):
        start = Axis("start", np.arange(spec.ceiling + 1), "1", "0 from the best model, others at random")
        file.add_section("ceiling", [start], [Variable(name, ("start",), *about) for name, about in CEILING.items()])
    store_data(file, data)
    file.publish({"training": spec.epochs, "parameters": len(kept.values), "analysis": spec.models})


def require_same_draws(file: RunFile) -> None:
    """Raises InputError for a study whose chains were drawn from random words in another way than today's."""
    if file.noted("draws") != DRAWS:
        raise InputError(
            f"{file.path} was trained by a version whose random numbers were others; it can be read, but not gone on"
            " with: train anew."
        )


def _lay_out_analysis(file: RunFile, spec: CycleStudy, data: Dataset, model: Axis) -> None:
    axes = [model, Axis("class", data.classes, "1", "class of the data")]
    states = state_count(spec.encoding, spec.hidden)
    if states <= MAX_STATES:
        axes += [Axis(name, np.arange(states), "1", "hidden state") for name in ("state", "to_state")]
    variables = []
    for name in diagnostics_of(spec, data.test_x is not None):
        about = TABLE[name]
        kind = "int64" if name in _INTEGERS else "float64"
        variables.append(Variable(name, about.dimensions, about.units, about.meaning, kind))
        if about.error:
            variables.append(Variable(f"{name}_stderr", about.dimensions, about.units, f"standard error of {name}"))
    file.add_section("analysis", axes, variables)


def store_data(file: RunFile, data: Dataset) -> None:
    """Sections of the data, and of those held out, and what is in them."""
    pixel = Axis("pixel", np.arange(data.x.shape[1]), "1", "visible unit")
    facts: dict[str, Any] = {"name": data.name, "shape": data.shape, "names": data.names, "source": data.source}
    facts["held_out"] = data.test_x is not None
    file.note(data=json.dumps(facts))
    parts = {"data": (data.x, data.labels)}
    if data.test_x is not None and data.test_labels is not None:
        parts["held_out"] = (data.test_x, data.test_labels)
    byte = Axis("byte", np.arange(-(-data.x.shape[1] // 8)), "1", "eight pixels")
    for section, (x, _) in parts.items():
        point = Axis("point", np.arange(len(x)), "1", "point of the data")
        variables = [
            Variable("bits", ("point", "byte"), "1", "pixels, the first in the highest bit (numpy.packbits)", "uint8"),
            Variable("label", ("point",), "1", "class", "int64"),
        ]
        more = [Variable("mean", ("pixel",), "1", "mean of the data")] if section == "data" else []
        file.add_section(section, [point, byte, *([pixel] if more else [])], variables + more)
    file.write_whole("data", {"mean": data.x.mean(axis=0)})
    for section, (x, labels) in parts.items():
        file.write_whole(section, {"bits": np.packbits(x, axis=1), "label": labels})


def read_data(file: RunFile) -> Dataset:
    """The data in a file."""
    facts, stored = file.noted("data", json.loads), file.read("data")
    size = len(stored["mean"])

    def bits(section: dict[str, Array]) -> Array:
        return np.unpackbits(section["bits"], axis=1, count=size)

    held_out = file.read("held_out") if facts["held_out"] else None
    return Dataset(
        facts["name"], bits(stored), stored["label"], tuple(facts["shape"]),
        None if held_out is None else bits(held_out), None if held_out is None else held_out["label"],
        tuple(facts["names"]), facts["source"],
    )  # fmt: skip


def write_end(file: RunFile, spec: CycleStudy, trained: Trained, diagnostics: Diagnostics) -> None:
    """Writes what is known when training is done."""
    models = [spec.model(row, trained.mean) for row in trained.theta]
    weights = _weights(spec)
    file.write_whole("weights", {name: np.stack([getattr(model, name) for model in models]) for name in weights})
    file.write_whole("chain", {"visible": trained.visible, "stopped": trained.status - 1, "square": trained.square})
    file.write_whole("timing", {"seconds": np.array([trained.seconds])})
    rows = {name: estimate.mean for name, estimate in diagnostics.items()}
    rows |= {f"{name}_stderr": one.stderr for name, one in diagnostics.items() if TABLE[name].error}
    file.write("analysis", file.missing("analysis").start, rows)
