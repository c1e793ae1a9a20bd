"""The command of free energies."""

import json
from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Numbers, chosen, run_options, spec_options, worker_options
from thermorun.cli.run import execute, refuse_shard, width
from thermorun.free_energy.spec import FreeEnergy


@click.command("free-energy", short_help="Free-energy differences, works both ways.")
@spec_options(
    FreeEnergy,
    names={"start": "--from", "end": "--to", "path": "--path"},
    kinds={"start": Numbers(), "end": Numbers(), "path": click.Path(path_type=Path)},
    without=("fingerprint",),
)
@click.option(
    "--works", type=click.Path(path_type=Path), help="Analyse the works in this file instead: one column, or two."
)
@run_options
@worker_options
def free_energy(
    out: Path | None, resume: bool, threads: int | None, as_json: bool, works: Path | None, **given: Any
) -> None:
    """Free-energy difference between two parameter points, from forward and reverse ensembles.

    Each ensemble starts in equilibrium at its end and is driven to the other along a straight line, or along the rows
    of theta, or of time and theta, in the text file --path; by default a double well is tilted.  Delta F by Bennett's
    acceptance ratio, the crossing of Crooks and Jarzynski both ways, beside the exact value where there is one.
    Writes an HDF5 file with every work, and a picture.

    With --works nothing is simulated: forward works (and reverse ones, in a second column) come from a file.
    """
    if works is not None:
        refuse_shard("--works")
        _analyse(works, given["beta"], as_json)
        return
    if given["path"] is not None:
        given["path"] = _path(given["path"])
    execute(FreeEnergy(**chosen(given)), out, resume, threads, as_json)


def _analyse(path: Path, beta: float | None, as_json: bool) -> None:
    from thermorun.free_energy.works import read_works, table_of_works

    table, report = table_of_works(*read_works(path), 1.0 if beta is None else beta, str(path))
    click.echo(json.dumps(report, allow_nan=False) if as_json else table.render(width()))


def _path(file: Path) -> Any:
    """The rows of theta in a text file."""
    from thermorun.textfiles import read_table

    return read_table("path", file)
