"""The commands of the thermodynamic computer: train, classify, sweep, export."""

from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Numbers, Words, chosen, run_options, spec_options, worker_options
from thermorun.cli.run import execute, refuse_shard
from thermorun.computer.experiments.spec import Comparison, Devices, Energy
from thermorun.computer.generative.spec import Generation
from thermorun.computer.spec import Classification, ComputerTraining, Sweep

_WITHOUT = ("fingerprint", "file")


class _Values(Numbers):
    """Values of a sweep with commas between: numbers, or names of connectivities."""

    name = "value,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, tuple) else tuple(str(value).split(","))


@click.group(short_help="Thermodynamic computers: train, classify.")
def computer() -> None:
    """Thermodynamic computers: noisy networks that classify (Whitelam 2025)."""


@computer.command("train", short_help="Train a machine.")
@spec_options(ComputerTraining, kinds={"classes": Words()}, without=_WITHOUT)
@run_options
def train(out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Train a machine and classify the held-out images.

    A small neural network is the teacher; the machine learns to follow its activations, by the Onsager-Machlup action
    of idealised trajectories.  --method adjoint needs no teacher: it follows the gradient of the machine's own noisy
    trajectories, and makes fewer errors.  By default it learns scikit-learn's bundled 8x8 digits in seconds; --dataset
    mnist is the paper's own task, and --dataset mnist --classes 0,1 --hidden 8 a minimal machine.
    """
    execute(ComputerTraining(**chosen(given)), out, resume, threads, as_json)


@computer.command("classify", short_help="Classify images with a machine.")
@click.argument("file", type=click.Path(path_type=Path))
@spec_options(Classification, kinds={"classes": Words()}, without=_WITHOUT)
@run_options
@worker_options
def classify(file: Path, out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Classify images with the machine in FILE: a training, a machine, or a text of parameters.

    The images may have labels or none; by default they are those held out of the training.  The text is that of the
    paper's published code: numbers alone.
    """
    execute(Classification(file=str(file), **chosen(given)), out, resume, threads, as_json)


@computer.command("generate", short_help="Make pictures out of noise.")
@spec_options(Generation, kinds={"classes": Words(), "rules": Words()}, without=_WITHOUT)
@click.option("--animate", type=click.Path(path_type=Path), help="Also an animated .gif or .png of pictures that come.")
@run_options
def generate(
    out: Path | None, resume: bool, threads: int | None, as_json: bool, animate: Path | None, **given: Any
) -> None:
    """Teach machines to undo the loss of images to noise, and have them make pictures.

    By default a machine learns three of scikit-learn's bundled 8x8 digits in closed form.  --rules all sets the rules
    beside each other and beside a machine that has learned nothing.  The paper's own: --dataset mnist --hidden 512
    --rules published --codes pixels --biases hidden --field 0.
    """
    if animate is not None:
        refuse_shard("--animate")
        from thermorun.computer.generative.result import require_animation

        require_animation(animate)
    result = execute(Generation(**chosen(given)), out, resume, threads, as_json)
    if animate is not None:
        result.animate(animate)  # type: ignore[attr-defined]
        if not as_json:
            click.echo(f"picture  {animate}")


@computer.command("sweep", short_help="Measure a machine at many values.")
@click.argument("file", type=click.Path(path_type=Path))
@spec_options(Sweep, kinds={"values": _Values(), "classes": Words()}, without=_WITHOUT)
@run_options
def sweep(file: Path, out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Measure the machine in FILE at many values of one setting."""
    execute(Sweep(file=str(file), **chosen(given)), out, resume, threads, as_json)


@computer.command("energy", short_help="Heat and work of a classification.")
@click.argument("file", type=click.Path(path_type=Path))
@spec_options(Energy, without=_WITHOUT)
@run_options
def energy(file: Path, out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Measure what a classification by the machine in FILE costs: switched on, read, switched off, reset.

    Then machines are retrained with the drive weak to strong, for the accuracy that their dissipation buys.
    """
    execute(Energy(file=str(file), **chosen(given)), out, resume, threads, as_json)


@computer.command("devices", short_help="Spread parameters, few bits, retraining.")
@click.argument("file", type=click.Path(path_type=Path))
@spec_options(Devices, without=_WITHOUT)
@run_options
def devices(file: Path, out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Build the machine in FILE as many devices, with parameters that spread or come in few bits.

    Then some are retrained by a genetic algorithm that sees only their noisy answers, and the machine is trained anew
    with the spread in its training: how much does each recover?
    """
    execute(Devices(file=str(file), **chosen(given)), out, resume, threads, as_json)


@computer.command("compare", short_help="Ways to train, and teachers.")
@spec_options(Comparison, kinds={"classes": Words()}, without=_WITHOUT)
@run_options
def compare(out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Compare ways to train the same machine, at equal trajectories and at equal seconds; and kinds of teachers."""
    execute(Comparison(**chosen(given)), out, resume, threads, as_json)


@computer.command("export", short_help="Write parameters as a text.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("text", type=click.Path(path_type=Path))
def export(file: Path, text: Path) -> None:
    """Write the parameters of the machine in FILE as TEXT, in the order of the paper's published code.

    What that text has no place for, the scaling of pixels, physics and classes, goes to TEXT.json.
    """
    from thermorun.computer import load_machine, write_text

    write_text(load_machine(file), text)
    click.echo(f"file     {text}")
    click.echo(f"beside   {text}.json")
