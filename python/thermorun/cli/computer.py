"""The commands of the thermodynamic computer: train, classify, sweep, export."""

import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thermorun.cli.console import Classes, fail, print_table, run_options
from thermorun.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thermorun.computer import Classification, ComputerTraining, Machine, Score, Share, Sweep, TrainingResult


_TITLES = {"observation-time": "observation time", "timestep": "time step", "hidden": "number of hidden units"}


@click.group()
def computer() -> None:
    """Thermodynamic computers: noisy networks that classify (Whitelam 2025)."""


@computer.command("train")
@click.option("--dataset", help="digits (default), mnist, or a .npz file of images x and labels.")
@click.option("--classes", type=Classes(), help="Only these classes of the data set.")
@click.option("--method", help="closed-form (default) or onsager-machlup, stochastic gradient descent.")
@click.option("--hidden", type=int, help="Hidden units.  [default: 64]")
@click.option(
    "--connectivity", help="all-to-all (default), no-hidden-hidden, feed-forward, or a .npy file with a mask."
)
@click.option("--teacher", help="A .npz file of your own activations: arrays hidden and logits.")
@click.option("--teacher-epochs", type=int, help="Epochs of the network trained otherwise.  [default: 30]")
@click.option("--targets", help="Of outputs: tanh(logit / softness) (default), linear or one-hot.")
@click.option("--softness", type=float, help="What logits are divided by.  [default: 10]")
@click.option("--scale", type=float, help="c: idealised trajectories have biases -c A, energy.  [default: 400]")
@click.option("--J2", "J2", type=float, help="Quadratic part of a well, energy.  [default: 1]")
@click.option("--J4", "J4", type=float, help="Quartic part of a well, energy.  [default: 1]")
@click.option("--kT", "kT", type=float, help="Temperature, energy.  [default: 1]")
@click.option("--mobility", type=float, help="mu, 1/(energy time).  [default: 1]")
@click.option("--dt", type=float, help="Time step.  [default: 0.001]")
@click.option("--observation-time", type=float, help="When outputs are read, time.  [default: 0.2]")
@click.option("--weight-decay", type=float, help="Of all couplings.  [default: 0]")
@click.option("--optimiser", help="adam (default), momentum or plain.")
@click.option("--learning-rate", type=float, help="At the start, falling linearly to zero; by default one that suits.")
@click.option("--batch", type=int, help="Trajectories an update.  [default: 128]")
@click.option("--trajectories", type=int, help="Of the descent, in all.  [default: 500000]")
@click.option("--shots", type=int, help="Noisy trajectories a held-out image.  [default: 4]")
@run_options
def train_command(as_json: bool, out: Path | None, resume: bool, threads: int | None, **given: Any) -> None:
    """Train a machine and classify the held-out images.

    A small neural network is the teacher; the machine learns to follow its activations, by the Onsager-Machlup action
    of idealised trajectories.  By default it learns scikit-learn's bundled 8x8 digits in seconds; --dataset mnist is
    the paper's own task, and --dataset mnist --classes 0,1 --hidden 8 a minimal machine.
    """
    from thermorun import computer as subject

    spec = subject.ComputerTraining(**{name: value for name, value in given.items() if value is not None})
    run_training(spec, out, resume, threads, as_json)


def run_training(spec: "ComputerTraining", out: Path | None, resume: bool, threads: int | None, as_json: bool) -> None:
    """Trains, prints and draws."""
    from thermorun import computer as subject
    from thermorun.computer import figures

    out = _named("computer", spec.to_json(), out)
    try:
        result = subject.train(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        _stopped(out)
    images, machine = result.images, result.machine
    drawn = {
        "activations": figures.activations(machine, images, spec.seed),
        "confusion": figures.confusion(result.score, images.classes),
        "couplings": figures.couplings(machine, images.shape),
    }
    if len(result.updates):
        drawn["descent"] = figures.descent(result)
    pictures = _save(out, drawn)
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"pictures": pictures}, allow_nan=False))
        return
    _print_score(f"Thermodynamic computer trained on {images.name}", result.score, machine, _training_notes(result))
    _print_files(out, pictures)


def _training_notes(result: "TrainingResult") -> str:
    spec, facts = result.spec, result.facts
    teacher = "given activations"
    if spec.teacher is None:
        teacher = f"teacher: {100 * facts['teacher_accuracy']:.2f} percent, {facts['teacher_seconds']:.1f} s"
    notes = (
        f"{spec.method}, {spec.connectivity}, {result.machine.parameters:,} parameters in"
        f" {facts['train_seconds']:.1f} s; {teacher}\n"
    )
    if facts["ridge"] > 0:
        notes += (
            "the inputs repeat one another, so their normal equations are singular: regularised by"
            f" {facts['ridge']:.0e} of their mean diagonal\n"
        )
    return notes + (
        "energy: the digital teacher, at 1 pJ a multiply-accumulate, takes"
        f" {result.advantage:.1e} times the heat of a classification at 300 K\n"
    )


@computer.command("classify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", help="That of its training by default; mnist for a machine that does not say.")
@click.option("--shots", type=int, help="Noisy trajectories a held-out image.  [default: 4]")
@click.option("--kT", "kT", type=float, help="Another temperature than the machine's, energy.")
@click.option("--dt", type=float, help="Another time step.")
@click.option("--observation-time", type=float, help="Another time of reading.")
@run_options
def classify_command(
    file: Path, as_json: bool, out: Path | None, resume: bool, threads: int | None, **given: Any
) -> None:
    """Classify held-out images with the machine in FILE: a training, a machine, or a text of parameters.

    The text is that of the paper's published code: numbers alone, for 784 inputs and 10 outputs.
    """
    from thermorun.computer import Classification

    spec = Classification(str(file), **{name: value for name, value in given.items() if value is not None})
    run_classification(spec, out, resume, threads, as_json)


def run_classification(
    spec: "Classification", out: Path | None, resume: bool, threads: int | None, as_json: bool
) -> None:
    """Takes the shots, prints and draws."""
    from thermorun import computer as subject
    from thermorun.computer import figures

    out = _named("computer-classify", spec.to_json(), out)
    try:
        result = subject.classify(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        _stopped(out)
    pictures = _save(out, {"confusion": figures.confusion(result.score, result.machine.classes)})
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"pictures": pictures}, allow_nan=False))
        return
    _print_score(f"The machine in {spec.file}", result.score, result.machine, "")
    _print_files(out, pictures)


@computer.command("sweep")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--over",
    default="observation-time",
    show_default=True,
    help="observation-time, temperature, timestep; connectivity or hidden, which train anew.",
)
@click.option("--values", help="With commas; by default usual ones, 0.05 to 1.0 for the observation time.")
@click.option("--dataset", help="That of its training by default; mnist for a machine that does not say.")
@click.option("--shots", type=int, help="Noisy trajectories a held-out image.  [default: 4]")
@run_options
def sweep_command(
    file: Path, values: str | None, as_json: bool, out: Path | None, resume: bool, threads: int | None, **given: Any
) -> None:
    """Measure the machine in FILE at many values of one setting."""
    from thermorun.computer import Sweep

    fields = {name: value for name, value in given.items() if value is not None}
    spec = Sweep(str(file), values=None if values is None else tuple(values.split(",")), **fields)
    run_sweep(spec, out, resume, threads, as_json)


def run_sweep(spec: "Sweep", out: Path | None, resume: bool, threads: int | None, as_json: bool) -> None:
    """Sweeps, prints and draws."""
    from thermorun import computer as subject
    from thermorun.computer import figures

    out = _named("computer-sweep", spec.to_json(), out)
    try:
        result = subject.sweep(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        _stopped(out)
    pictures = _save(out, {"sweep": figures.sweep(result)})
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"pictures": pictures}, allow_nan=False))
        return
    c = result.columns
    rows = [
        (
            value if isinstance(value, str) else f"{value:g}",
            f"{100 * c['accuracy'][i]:.2f} ± {100 * c['accuracy_stderr'][i]:.2f}",
            f"{100 * c['accuracy_stderr_images'][i]:.2f}",
            f"{100 * c['accuracy_stderr_noise'][i]:.2f}",
            f"{100 * c['top2'][i]:.2f} ± {100 * c['top2_stderr'][i]:.2f}",
            str(Estimate(float(c["heat"][i]), float(c["heat_stderr"][i]))),
            f"{c['parameters'][i]:,.0f}",
        )
        for i, value in enumerate(result.values)
    ]
    print_table(
        f"Sweep over the {_TITLES.get(spec.over, spec.over)}",
        (spec.over, "accuracy / %", "± images", "± noise", "top 2 / %", "heat / energy", "parameters"),
        rows,
        f"{spec.shots} shots an image; accuracy of single shots, its standard error and the two parts of it",
    )
    _print_files(out, pictures)


@computer.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
def export_command(file: Path, text: Path) -> None:
    """Write the parameters of the machine in FILE as TEXT, in the order of the paper's published code."""
    from thermorun.computer import load_machine, write_text

    machine = load_machine(file)
    write_text(machine, text)
    click.echo(f"file     {text}")


def _named(command: str, spec: str, out: Path | None) -> Path:
    return Path(f"{command}-{zlib.crc32(spec.encode()):08x}.h5") if out is None else out


def _stopped(out: Path) -> None:
    if not out.exists():
        fail("stopped before there was anything to save.", 130)
    fail(f"stopped; all that is done is in {out}: go on with 'thermorun resume {out}'.", 130)


def _save(out: Path, drawn: "dict[str, Figure]") -> list[str]:
    pictures = []
    for name, figure in drawn.items():
        path = out.with_name(f"{out.stem}-{name}.png")
        figure.savefig(path, dpi=150)
        pictures.append(str(path))
    return pictures


def _print_files(out: Path, pictures: list[str]) -> None:
    click.echo(f"file     {out}")
    for picture in pictures:
        click.echo(f"picture  {picture}")


def _print_score(title: str, score: "Score", machine: "Machine", notes: str) -> None:
    physics = machine.physics
    rows = [
        ("accuracy / %", str(score.accuracy), *_parts(score.accuracy)),
        ("top 2 / %", str(score.top2), *_parts(score.top2)),
        ("heat / energy", str(score.heat), "", ""),
        ("work / energy", str(score.work), "", ""),
    ]
    if score.shots > 1:
        rows.insert(2, (f"vote of {score.shots} / %", f"{100 * score.vote:.2f}", "", ""))
    print_table(
        title,
        ("", "mean ± stderr", "± images", "± noise"),
        rows,
        notes + f"{score.images:,} held-out images, shots each: {score.shots}; kT = {physics.kT:g}, read at"
        f" {physics.observation_time:g}, dt = {physics.dt:g}\n"
        "heat: absorbed from the bath by then; work: of switching the fields on at x = 0 and off at the end",
    )


def _parts(share: "Share") -> tuple[str, ...]:
    """The two parts of a standard error, in percent."""
    parts = (share.stderr_images, share.stderr_noise)
    return tuple("?" if math.isnan(part) else f"{100 * part:.2f}" for part in parts)
