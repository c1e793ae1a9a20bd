"""The command of free energies."""

from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Numbers, chosen, run_options, spec_options
from thermorun.cli.run import execute
from thermorun.free_energy.spec import FreeEnergy


@click.command("free-energy", short_help="Free-energy differences, works both ways.")
@spec_options(
    FreeEnergy,
    names={"start": "--from", "end": "--to"},
    kinds={"start": Numbers(), "end": Numbers()},
    without=("path", "fingerprint"),
)
@run_options
def free_energy(out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Free-energy difference between two parameter points, from forward and reverse ensembles.

    Each ensemble starts in equilibrium at its end and is driven to the other along a straight line, by default the
    tilting of a double well.  Delta F by Bennett's acceptance ratio, the crossing of Crooks and Jarzynski both ways,
    beside the exact value where there is one.  Writes an HDF5 file with every work, and a picture.
    """
    execute(FreeEnergy(**chosen(given)), out, resume, threads, as_json)
