"""Pictures that machines made, and how good they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import special

from thermorun.arrays import Array
from thermorun.computer.generative.spec import Generation
from thermorun.computer.generative.stages import asked, clamped_pixels, machine_of
from thermorun.computer.machine import Machine
from thermorun.computer.spec import stem
from thermorun.errors import InputError
from thermorun.estimates import Estimate, finite_or_none, jackknife, over_replicas, over_samples
from thermorun.results import Result
from thermorun.store import RunFile
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A picture shows its prototype from this correlation on.
GOOD = 0.7
_ENERGIES = {
    "heat of preparing": ("heat", 0), "work of switching on": ("work", 1), "heat of generating": ("heat", 2),
    "work of switching off": ("work", 3), "heat of resetting": ("heat", 3),
}  # fmt: skip
_ENERGY_HEADS = ("rule", "Q prepare", "W on", "Q generate", "W off", "Q reset")
_HEADS = {
    "correlation": "correlation", "good": ">= 0.7 / %", "inverted": "inverted / %", "diversity": "diversity",
}  # fmt: skip
# Of pictures; tables give them in per cent.
SHARES = ("good", "inverted", "agreement", "obeyed")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GenerationResult(Result):
    """Pictures of ``machines``, one of every rule, then the next ones.

    ``x`` (machines, pictures, pixels); ``answer`` int64 (machines, pictures) the number of each one's class by an
    independent classifier, ``judge_accuracy`` its own on held-out images; ``work``, ``heat`` (machines, pictures,
    stages); ``couplings`` (machines, units, hidden), ``bias`` (machines, inputs, units); ``loss`` (machines, rounds),
    ``distance`` (machines, updates), of no updates without the adjoint rule,
    ``gain`` (machines,), ``seconds`` (machines,); ``film`` (machines, frames, pictures, pixels) at ``frames``;
    ``noising`` (frames, images, pixels); ``prototypes`` (images, pixels), their ``labels`` numbers of ``classes``;
    ``shape`` that of a picture.
    """

    spec: Generation
    x: Array
    answer: Array
    judge_accuracy: float
    work: Array
    heat: Array
    residual: Array
    couplings: Array
    bias: Array
    loss: Array
    distance: Array
    gain: Array
    seconds: Array
    film: Array
    frames: Array
    noising: Array
    prototypes: Array
    labels: Array
    classes: tuple[str, ...]
    shape: tuple[int, int]

    @classmethod
    def of(cls, file: RunFile, spec: Generation, whence: dict[str, Any]) -> Self:
        """What a file holds of the machines that are complete."""
        rows, known = file.committed("pictures"), file.read("prototypes")
        stored = {"distance": np.empty((rows, 0))} | file.read("machines") | file.read("pictures")
        names = ("x", "answer", "work", "heat", "couplings", "bias", "loss", "distance", "gain", "seconds", "film")
        done: dict[str, Any] = {name: stored[name][:rows] for name in names}
        return cls(
            **whence, **done, residual=stored["first_law_residual"][:rows],
            frames=stored["time"], noising=file.read("noising")["film"], prototypes=known["brightness"].astype(float),
            labels=known["label"], classes=file.noted("class_names", lambda line: tuple(json.loads(line))),
            judge_accuracy=file.noted("judge_accuracy", float),
            shape=(file.noted("rows", int), file.noted("columns", int)),
        )  # fmt: skip

    @property
    def rules(self) -> tuple[str, ...]:
        """Those of which a machine is complete."""
        return self.spec.rules[: len(self.x)]

    def of_rule(self, rule: str) -> slice:
        """Its machines."""
        return slice(self.spec.rules.index(rule), len(self.x), len(self.spec.rules))

    def machine(self, number: int = 0) -> Machine:
        """One of them: its outputs are the visible units, its inputs the classes where pictures are conditional."""
        return machine_of(self.spec, self.couplings[number], self.bias[number])

    @property
    def correlations(self) -> Array:
        """Of every picture with every prototype, float64 (machines, pictures, images): of the pixels that are not
        given, where some are."""
        free = ~clamped_pixels(self.spec.clamped, self.shape)
        return np.asarray(_unit(self.x[..., free]) @ _unit(self.prototypes[:, free]).T)

    @property
    def asked(self) -> tuple[Array, Array]:
        """Numbers of the image that each picture is to complete, and of the class that it is to be of, (pictures,)."""
        return asked(self.spec, self.labels, len(self.classes))

    def quality(self, rule: str) -> dict[str, Estimate]:
        """How good the pictures of a rule are.

        ``correlation`` with the nearest prototype, the one of largest |correlation|, with its sign; ``good``: the share
        of pictures whose largest correlation is at least 0.7; ``inverted``: the share of negative ones; ``diversity``:
        one less the mean correlation of two pictures; ``prototypes``: exp of the entropy of the nearest ones;
        ``agreement``: the share whose class by the classifier is that of the nearest image;
        ``obeyed``: where an image is to be completed, the share whose own half is nearest to it; where a class is asked
        for, the share in which the classifier sees it.
        """
        chosen = self.of_rule(rule)
        c = self.correlations[chosen]
        nearest = np.abs(c).argmax(axis=-1)
        signed = np.take_along_axis(c, nearest[..., None], -1)[..., 0]
        found = {
            "correlation": _mean(signed), "good": _mean(c.max(axis=-1) >= GOOD), "inverted": _mean(signed < 0),
            "diversity": _diversity(self.x[chosen]),
            "prototypes": _found(nearest, len(self.labels)),
            "agreement": _mean(self.answer[chosen] == self.labels[nearest]),
        }  # fmt: skip
        if self.spec.clamped:
            found["obeyed"] = _mean(c.argmax(axis=-1) == self.asked[0])
        elif self.spec.conditional:
            found["obeyed"] = _mean(self.answer[chosen] == self.asked[1])
        return found

    def energies(self, rule: str) -> dict[str, Estimate]:
        """Heat and work of each stage of a picture of a rule, in units of kT."""
        chosen, kT = self.of_rule(rule), self.spec.kT
        return {name: _mean(getattr(self, kind)[chosen][..., stage] / kT) for name, (kind, stage) in _ENERGIES.items()}

    def frequencies(self, rule: str) -> Estimate:
        """Shares of the classes among the pictures of a rule, by the classifier, (classes,)."""
        answers = self.answer[self.of_rule(rule)][..., None] == np.arange(len(self.classes))
        rows = [_mean(answers[..., k]) for k in range(len(self.classes))]
        return Estimate(np.array([one.mean for one in rows]), np.array([one.stderr for one in rows]), rows[0].samples)

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for rule in self.rules:
            chosen = self.of_rule(rule)
            numbers = self.quality(rule) | {f"{name} / kT": one for name, one in self.energies(rule).items()}
            frequencies = self.frequencies(rule)
            found.append(
                {"rule": rule, "machines": len(self.x[chosen])}
                | {name.replace(" ", "_").replace("_/_", "_"): one.to_dict() for name, one in numbers.items()}
                | {"classes": [{"class": k, "share": frequencies[i].to_dict()} for i, k in enumerate(self.classes)]}
                | {"gain": over_replicas(self.gain[chosen]).to_dict(), "seconds": float(self.seconds[chosen].max())}
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {
            "judge_accuracy": finite_or_none(self.judge_accuracy),
            "largest_first_law_residual": float(np.abs(self.residual).max(initial=0.0)),
        }

    def tables(self) -> list[Table]:
        spec, steps = self.spec, self.spec.physics.steps
        images = f"{len(self.labels):,} image{'s' if len(self.labels) > 1 else ''}"
        title = f"Pictures of {images} of {stem(spec.dataset)}, {spec.pictures} by each machine"
        quality = {rule: self.quality(rule) for rule in self.rules}
        rows = [
            (rule, *(str(_scaled(found[name], 100.0 if name in SHARES else 1.0)) for name in _HEADS))
            for rule, found in quality.items()
        ]
        costs = [(rule, *map(str, self.energies(rule).values())) for rule in self.rules]
        notes = [
            "correlation: signed, with the nearest image; ± ?: all pictures are alike in it",
            f"hidden units: {spec.hidden}, codes {spec.codes}, biases {spec.biases}, field {spec.field:g}; machines of"
            f" each rule: {spec.machines}",
        ]
        residual = float(np.abs(self.residual).max(initial=0.0) / spec.kT)
        below = [
            f"kT = {spec.kT:g}, every stage {steps:,} steps of dt = {spec.dt:g}; first law of each picture within"
            f" {residual:.1e} kT"
        ]
        return [
            Table(title, ("rule", *_HEADS.values()), rows, notes),
            Table("Heat absorbed (Q) and work done (W) in the stages of a picture, kT", _ENERGY_HEADS, costs, below),
            self._classes(),
        ]

    def _classes(self) -> Table:
        """Classes of the pictures, and what learning gained, rule by rule."""
        frequencies = [self.frequencies(rule) for rule in self.rules]
        rows = [
            (f"{name} / %", *(str(_scaled(one[k], 100.0)) for one in frequencies))
            for k, name in enumerate(self.classes)
        ]
        parts = [self.of_rule(rule) for rule in self.rules]
        quality = [self.quality(rule) for rule in self.rules]
        rows.append(("images found", *(str(one["prototypes"]) for one in quality)))
        for name, head in (("agreement", "agreement / %"), ("obeyed", "as asked / %")):
            if name in quality[0]:
                rows.append((head, *(str(_scaled(one[name], 100.0)) for one in quality)))
        rows.append(("gain", *(str(over_replicas(self.gain[part])).removesuffix(" ± ?") for part in parts)))
        rows.append(("learning / s", *(f"{self.seconds[part].max():.2g}" for part in parts)))
        judged = (
            f"by nearest neighbours among images not learned, right in {100 * self.judge_accuracy:.1f} % held-out ones"
            if np.isfinite(self.judge_accuracy)
            else "by the nearest image; there are none held out to try that on"
        )
        notes = [
            judged,
            "images found: exp of the entropy of which image is nearest; agreement: it is of that class",
            "gain: how far the exact mean action of a trajectory falls by learning",
        ]
        return Table("Classes of the pictures", ("class", *self.rules), rows, notes)

    def figures(self) -> "dict[str, Figure]":
        from thermorun.computer.generative import figures

        drawn = {"pictures": figures.gallery(self), "film": figures.film(self), "heat": figures.heats(self)}
        drawn["fields"] = figures.fields(self)
        if np.isfinite(self.loss).any():
            drawn["loss"] = figures.losses(self)
        if np.isfinite(self.distance).any():
            drawn["tuning"] = figures.tuning(self)
        if len(self.rules) > 1:
            drawn["table"] = figures.rules(self)
        return drawn

    def animate(self, path: Path | str, machine: int = 0, milliseconds: int = 60) -> None:
        """Writes the coming of the first pictures of a machine as an animated .gif or .png.

        Raises InputError for another ending and where something has that name, RunError where it cannot be written.
        """
        require_animation(Path(path))
        from thermorun.computer.generative import figures

        figures.animate(self, Path(path), machine, milliseconds)


def require_animation(path: Path) -> None:
    """Raises InputError unless an animation can have this name."""
    if path.suffix.lower() not in (".gif", ".png"):
        raise InputError(f"animate is {path}, which ends in {path.suffix!r}; it must end in .gif or .png.")
    if path.exists():
        raise InputError(f"animate is {path}, which is there already; give another name.")
    if not path.parent.is_dir():
        raise InputError(f"animate is {path}, but the folder {path.parent} does not exist.")


def _mean(values: Array) -> Estimate:
    """Of numbers (machines, pictures): over machines, or over the pictures of a single one."""
    data = np.asarray(values, np.float64)
    return over_replicas(data.mean(axis=1)) if len(data) > 1 else over_samples(data[0])


def _unit(pictures: Array) -> Array:
    """Of mean zero and norm one each."""
    values = pictures.astype(np.float64)
    values -= values.mean(axis=-1, keepdims=True)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


def _scaled(one: Estimate, factor: float) -> Estimate:
    return Estimate(factor * one.mean, factor * one.stderr, one.samples, one.dof)


def _diversity(pictures: Array) -> Estimate:
    """One less the mean correlation of two pictures of a machine, of pictures (machines, pictures, pixels); where there
    is one machine, its error by leaving out one picture in turn."""
    values = _unit(pictures)
    count = values.shape[1]
    if count < 3:
        return Estimate(np.nan, np.nan)
    total = values.sum(axis=1)
    square = np.sum(total**2, axis=-1)
    mean = 1 - (square - count) / (count * (count - 1))
    if len(values) > 1:
        return over_replicas(mean)
    without = square[0] - 2 * values[0] @ total[0] + 1
    left = 1 - (without - (count - 1)) / ((count - 1) * (count - 2))
    return Estimate(float(mean[0]), float(np.sqrt((count - 1) * np.var(left))), 1)


def _found(nearest: Array, images: int) -> Estimate:
    """exp(entropy) of how often each image is the nearest (machines, pictures): so many share the pictures."""
    hits = nearest[..., None] == np.arange(images)

    def effective(shares: Array) -> Array:
        return np.asarray(np.exp(special.entr(shares).sum(axis=-1)))

    if len(hits) > 1:
        return over_replicas(effective(hits.mean(axis=1)))
    one = jackknife(hits[0] * 1.0, effective)
    # Where each is the nearest equally often, leaving one out changes nothing: that tells no error.
    return one if one.stderr > 1e-9 else Estimate(one.mean, np.nan)
