"""The command that finds protocols."""

from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Numbers, chosen, run_options, spec_options, worker_options
from thermorun.cli.run import execute
from thermorun.protocol.spec import Protocol


@click.command(short_help="Protocols of least work, by gradients.")
@spec_options(
    Protocol,
    names={"start": "--from", "end": "--to"},
    kinds={"start": Numbers(), "end": Numbers(), "guess": click.Path()},
    without=("fingerprint",),
)
@click.option("--path", type=click.Path(path_type=Path), help="Write the path found here, as rows of time and theta.")
@click.option(
    "--export", type=click.Path(path_type=Path), help="Write theta at 1,000 equal times here, for NESTbench25."
)
@run_options
@worker_options
def protocol(
    out: Path | None, resume: bool, threads: int | None, as_json: bool, path: Path | None, export: Path | None,
    **given: Any,
) -> None:  # fmt: skip
    """The path of theta between two points that costs least work in a given time, jumps at both ends included.

    Or that gives exp(-W/kT) least variance, for free energies; or that takes particles nearest to a target.  By
    gradients of the noisy dynamics themselves, for any potential; what is printed comes from noise that the search
    never saw.  Writes an HDF5 file and a picture; with --path a text file that 'drive --path' and 'free-energy --path'
    take.
    """
    result: Any = execute(Protocol(**chosen(given)), out, resume, threads, as_json)
    if path is not None:
        result.write_path(path)
    if export is not None:
        result.export(export)
